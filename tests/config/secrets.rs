//! Where secrets come from, and that nothing shows one.

use crate::{errors, load, load_as};

#[test]
fn a_secret_names_variables_of_the_environment() {
    let environment = [("PASSWORD", "p${X}"), ("HALF", "lf")];
    let password = |text: &str| {
        let text = format!("users.ann.password = {text:?}");
        let config = load(&text, &environment, &[]).map(|(config, _)| config);
        config.map(|config| {
            config
                .user("ann")
                .unwrap()
                .password
                .as_ref()
                .unwrap()
                .expose()
                .to_owned()
        })
    };
    assert_eq!(password("${PASSWORD}").unwrap(), "p${X}");
    assert_eq!(password("ha${HALF}-$1").unwrap(), "half-$1");
    assert_eq!(password("$${PASSWORD}").unwrap(), "${PASSWORD}");
    for (text, why) in [
        ("${MISSING}", "the environment variable MISSING is not set"),
        ("", "it cannot be empty"),
        (
            "hush${PASSWORD",
            "expected ${NAME} with the name of a variable, or $${ for the characters themselves",
        ),
        (
            "hush${1}",
            "expected ${NAME} with the name of a variable, or $${ for the characters themselves",
        ),
    ] {
        assert_eq!(
            password(text).unwrap_err().to_string(),
            format!("config.toml:1:22: `password` in [users.ann]: {why}")
        );
    }
}

#[test]
fn a_password_file_holds_one_line_and_starts_from_the_configurations_folder() {
    let files = [
        ("/etc/pgspan/ann", "ann's\n"),
        ("/secret/bob", "bob's\r\n"),
        ("/etc/pgspan/two", "a\nb\n"),
    ];
    let load = |text: &str| load_as("/etc/pgspan/config.toml", text, &[], &files);
    let password = |text: &str| {
        let (config, _) = load(text).unwrap();
        config
            .user("x")
            .unwrap()
            .password
            .as_ref()
            .unwrap()
            .expose()
            .to_owned()
    };
    assert_eq!(password("users.x.password_file = \"ann\""), "ann's");
    assert_eq!(password("users.x.password_file = \"/secret/bob\""), "bob's");
    let why = |text: &str| load(text).unwrap_err().to_string();
    assert_eq!(
        why("users.x.password_file = \"two\""),
        "/etc/pgspan/config.toml:1:25: `password_file` in [users.x]: /etc/pgspan/two should hold the password in one line"
    );
    assert_eq!(
        why("users.x.password_file = \"none\""),
        "/etc/pgspan/config.toml:1:25: `password_file` in [users.x]: /etc/pgspan/none cannot be read: entity not found"
    );
    assert_eq!(
        why("users.x.password = \"a\"\nusers.x.password_file = \"ann\""),
        "/etc/pgspan/config.toml:2:25: `password_file` in [users.x]: either it or `password`, not both"
    );
}

#[test]
fn nothing_shows_a_secret() {
    let text = r#"
        databases.app = { user = "app", password = "hush" }
        users.ann.password = "${SECRET}"
        otlp.headers = { authorization = "hush" }
    "#;
    let (config, _) = load(text, &[("SECRET", "hush")], &[]).unwrap();
    assert!(!format!("{config:?}").contains("hush"));

    for wrong in [
        "users.ann.password = 7357",
        "users.ann.password = [7357]",
        "users.ann.password = 7357.5",
        "users.ann.password = 7357\nusers.ann.password = 7357",
        "users.ann.password = a7357",
        "users.ann.password = \"7357",
        "users.ann.password = \"7357${\"",
        "databases.app.password = \"7357\"",
        "otlp.headers.key = 7357",
        "otlp.headers.key = \"7357\\n\"",
        "otlp.endpoint = \"http://user:7357@collector\"",
        "otlp.endpoint = \"http://collector?key=7357\"",
        "users.ann.password = \"SCRAM-SHA-256$7357\"",
    ] {
        let errors = errors(wrong);
        assert!(
            !format!("{errors} {errors:?}").contains("7357"),
            "{errors:?}"
        );
    }
}
