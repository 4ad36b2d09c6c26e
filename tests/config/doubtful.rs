//! What is warned about.

use crate::warnings;

#[test]
fn what_is_harmless_only_on_one_machine_is_warned_about() {
    let text = "listen.address = \"0.0.0.0:6432\"\nauth.method = \"trust\"\ndatabases.app = {}\nusers.ann.password = \"ann\"";
    assert_eq!(
        warnings(text),
        [
            "config.toml:2:15: `method` in [auth]: everyone who reaches 0.0.0.0:6432 can log in as any of [users]",
            "config.toml:4:7: [users.ann]: its password is its name, and 0.0.0.0:6432 is not this machine's own"
        ]
    );
    assert_eq!(warnings(&text.replace("0.0.0.0", "127.0.0.1")), [""; 0]);
}

#[test]
fn a_configuration_that_lets_nobody_in_is_warned_about() {
    assert_eq!(
        warnings(""),
        [
            "config.toml: [databases]: there is none, so no client can log in",
            "config.toml: [users]: there is none, so no client can log in"
        ]
    );
}
