//! What is said about a wrong configuration: all of it, each with its place.

use pgspan::config::secret::Secret;

use crate::{errors, good, warnings, wrong};

#[test]
fn a_misspelt_key_is_named_with_the_nearest_one_and_its_place() {
    assert_eq!(
        wrong("[pool]\nmode = \"session\"\nsice = 20"),
        "config.toml:3:1: unknown key `sice` in [pool], did you mean `size`?"
    );
    assert_eq!(
        wrong("[databases.app]\npool.sizes = 20"),
        "config.toml:2:6: unknown key `sizes` in [databases.app.pool], did you mean `size`?"
    );
    assert_eq!(
        wrong("[databse.app]\nport = 1"),
        "config.toml:1:2: unknown table [databse], did you mean [databases]?"
    );
    assert_eq!(
        wrong("[drain]\npatience = \"1s\""),
        "config.toml:2:1: unknown key `patience` in [drain]; known are `on_sigterm`, `timeout`"
    );
}

#[test]
fn a_value_of_the_wrong_type_or_range_is_told_what_is_expected() {
    assert_eq!(
        wrong("[pool]\nsize = \"20\""),
        "config.toml:2:8: `size` in [pool]: expected a whole number of 1 or more, or 0 for no limit, found a string"
    );
    assert_eq!(
        wrong("[pool]\nsize = -1"),
        "config.toml:2:8: `size` in [pool]: expected a whole number of 1 or more, or 0 for no limit, found -1"
    );
    assert_eq!(
        wrong("pool.mode = \"transactoin\""),
        "config.toml:1:13: `mode` in [pool]: \"transactoin\" is not one of `session`, `transaction`, `statement`, \
         did you mean `transaction`?"
    );
    assert_eq!(
        wrong("pool.mode = 1"),
        "config.toml:1:13: `mode` in [pool]: expected one of `session`, `transaction`, `statement`"
    );
    assert_eq!(
        wrong("[slow_query]\nthreshold = \"100\""),
        "config.toml:2:13: `threshold` in [slow_query]: expected a duration such as \
         \"250ms\", \"15s\", \"2m\", \"1h\" or \"0\", found \"100\""
    );
    assert_eq!(
        wrong("listen.address = \"localhost\""),
        "config.toml:1:18: `address` in [listen]: expected an IP address and a port such as \
         \"127.0.0.1:6432\", \"0.0.0.0:6432\" or \"[::]:6432\", or a list of them, found \"localhost\""
    );
    assert_eq!(
        wrong("databases.app.port = 70_000"),
        "config.toml:1:22: `port` in [databases.app]: expected a port from 1 to 65535, found 70000"
    );
    assert_eq!(
        wrong("pool = 3"),
        "config.toml:1:8: [pool]: expected a table, found a number"
    );
    assert_eq!(
        wrong("pool = [\"session\", 20]"),
        "config.toml:1:8: [pool]: expected a table, found a list"
    );
    assert_eq!(
        wrong("[[users.bob]]\npassword = \"x\""),
        "config.toml:1:1: `bob` in [users]: expected a table, found a list"
    );
    assert_eq!(
        wrong("trace.allowed_tags = [\"route\", 5]"),
        "config.toml:1:32: `allowed_tags` in [trace]: expected a string, found a number"
    );
}

#[test]
fn everything_wrong_is_said_at_once_in_the_order_of_the_file() {
    let errors = errors(
        "[pool]\nsize = -1\nmoed = \"session\"\n[workers]\ncount = \"all\"\n[users.app]\npasword = \"x\"",
    );
    let keys: Vec<&str> = errors
        .problems()
        .iter()
        .map(|problem| &*problem.key)
        .collect();
    assert_eq!(
        keys,
        [
            "pool.size",
            "pool.moed",
            "workers.count",
            "users.app.pasword"
        ]
    );
}

#[test]
fn mistakes_of_grammar_have_their_place() {
    let errors = errors("[pool]\nsize = 20\nsize = 30\nmode = ");
    let places: Vec<String> = errors.problems().iter().map(ToString::to_string).collect();
    assert_eq!(
        places,
        [
            "config.toml:3:1: duplicate key",
            "config.toml:4:8: string values must be quoted, expected literal string"
        ]
    );
}

#[test]
fn hosts_of_other_forms_are_told_the_form() {
    for (host, why) in [
        (
            "",
            "expected a host name, an IP address or the folder of a unix socket",
        ),
        ("db:5432", "the port has a key of its own, `port`"),
        (
            "[::1]:5432",
            "an IPv6 address stands here without brackets and port",
        ),
        ("postgres://db/app", "expected a host, not a URL"),
        (
            "@",
            "expected the name of an abstract unix socket behind the @",
        ),
        (
            "db1,",
            "expected a host name, an IP address or the folder of a unix socket",
        ),
        (
            "/tmp/.s.PGSQL.5432",
            "expected the folder of the unix socket, not the socket",
        ),
    ] {
        assert_eq!(
            wrong(&format!("[databases.\"*\"]\nhost = {host:?}")),
            format!("config.toml:2:8: `host` in [databases.\"*\"]: {why}")
        );
    }
}

#[test]
fn addresses_that_collide_are_refused() {
    assert_eq!(
        wrong("listen.address = \"0.0.0.0:9127\""),
        "config.toml: `address` in [http]: clients connect to 0.0.0.0:9127 already, see [listen]"
    );
}

#[test]
fn a_database_that_leads_back_to_the_proxy_is_warned_about() {
    let said = warnings("[databases.app]\nhost = \"localhost\"\nport = 6432");
    let back =
        "config.toml:2:8: `host` in [databases.app]: localhost:6432 is where pgspan itself listens";
    assert!(said.iter().any(|warning| warning == back), "{said:?}");
}

#[test]
fn names_of_the_console_are_taken() {
    assert_eq!(
        wrong("[databases.pgbouncer]"),
        "config.toml:1:12: [databases.pgbouncer]: this name is the console's"
    );
}

#[test]
fn a_tag_must_be_allowed_and_short_enough() {
    assert_eq!(
        wrong("[databases.app]\ntags = { team = \"x\" }"),
        "config.toml:2:17: `team` in [databases.app.tags]: `allowed_tags` in [trace] does not name it"
    );
    assert_eq!(
        wrong(
            "trace.max_tag_length = 3\nusers.ann = { password = \"x\", tags = { route = \"/pay\" } }"
        ),
        "config.toml:2:48: `route` in [users.ann.tags]: it is longer than `max_tag_length` in [trace]: 3"
    );
    assert_eq!(
        wrong("trace.allowed_tags = [\"trace_id\"]"),
        "config.toml:1:22: `allowed_tags` in [trace]: \"trace_id\" is a field of the trace context, not a tag"
    );
}

#[test]
fn a_user_needs_a_password_unless_nobody_is_asked_for_one() {
    assert_eq!(
        wrong("[users.ann]"),
        "config.toml:1:8: [users.ann]: `password` or `password_file` is missing, and [auth] asks for one"
    );
    assert_eq!(
        good("auth.method = \"trust\"\n[users.ann]")
            .user("ann")
            .unwrap()
            .password,
        None
    );
}

#[test]
fn hashes_that_cannot_work_are_refused() {
    let verifier = "SCRAM-SHA-256$4096:2wRk4E0sGhqTMVwNR2yGzQ==$\
                    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let config = good(&format!("users.ann.password = {verifier:?}"));
    assert_eq!(
        config.user("ann").unwrap().password,
        Some(Secret::new(verifier))
    );
    assert_eq!(
        wrong("users.ann.password = \"SCRAM-SHA-256$4096:abc\""),
        "config.toml:1:7: [users.ann]: its password begins like a SCRAM verifier, but is not \
         SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>"
    );
    assert_eq!(
        wrong("users.ann.password = \"md50123456789abcdef0123456789abcdef\""),
        "config.toml:1:7: [users.ann]: its password is an md5 hash: the password or a SCRAM verifier is needed"
    );
}
