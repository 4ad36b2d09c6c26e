use pgspan::dev::postgres::free_port;

use crate::support::messages::field_of;
use crate::support::postgres::{psql, shared};
use crate::support::proxy::{ConfigText, Proxy};
use crate::support::scripted::ScriptedClient;

/// SQLSTATE and text of the message that refuses a login.
fn refusal(proxy: &Proxy, user: &str, database: &str) -> (String, String) {
    let message =
        ScriptedClient::refused(proxy.address(), &[("user", user), ("database", database)]);
    (
        field_of(&message, b'C').unwrap(),
        field_of(&message, b'M').unwrap(),
    )
}

#[test]
fn clients_prove_who_they_are_by_any_method() {
    for method in ["trust", "password", "scram-sha-256"] {
        let config = format!(
            "[auth]\nmethod = \"{method}\"\n[databases.app]\nhost = \"127.0.0.1\"\nport = {}\n[users.app]\npassword = \"sesame\"\n",
            shared().port()
        );
        let proxy = Proxy::start(&config);
        let said = psql(
            &proxy.conninfo("user=app dbname=app password=sesame"),
            "SELECT current_user",
        );
        assert_eq!(said.stdout, "app\n", "{method}: {said:?}");
        let refused = psql(
            &proxy.conninfo("user=app dbname=app password=wrong"),
            "SELECT 1",
        );
        assert_eq!(refused.succeeded, method == "trust", "{method}");
        if method != "trust" {
            assert!(
                refused
                    .stderr
                    .contains("password authentication failed for user \"app\""),
                "{method}: {refused:?}"
            );
        }
    }
}

#[test]
fn the_proxy_proves_itself_to_servers_by_any_method() {
    let proxy = Proxy::in_front_of(shared(), "");
    for user in ["password_user", "md5_user", "scram_user"] {
        let said = psql(
            &proxy.conninfo(&format!("user={user} dbname=app")),
            "SELECT current_user",
        );
        assert_eq!(said.stdout, format!("{user}\n"), "{said:?}");
    }
}

#[test]
fn a_wrong_password_for_the_server_is_told() {
    let config = format!(
        "[auth]\nmethod = \"trust\"\n[databases.app]\nhost = \"127.0.0.1\"\nport = {}\n[users.scram_user]\npassword = \"wrong\"\n",
        shared().port()
    );
    let proxy = Proxy::start(&config);
    let said = psql(&proxy.conninfo("user=scram_user dbname=app"), "SELECT 1");
    assert!(
        !said.succeeded
            && said
                .stderr
                .contains("password authentication failed for user \"scram_user\""),
        "{said:?}"
    );
}

#[test]
fn an_unknown_user_is_refused() {
    let proxy = Proxy::in_front_of(shared(), "");
    assert_eq!(
        refusal(&proxy, "nobody", "app"),
        ("28000".into(), "role \"nobody\" does not exist".into())
    );
}

#[test]
fn a_database_that_nobody_configured_is_refused() {
    let config = format!(
        "[auth]\nmethod = \"trust\"\n[databases.app]\nhost = \"127.0.0.1\"\nport = {}\n[users.app]\n",
        shared().port()
    );
    let (code, _) = refusal(&Proxy::start(&config), "app", "other");
    assert_eq!(code, "3D000");
}

#[test]
fn a_database_that_the_server_does_not_have_is_refused_in_its_words() {
    let proxy = Proxy::in_front_of(shared(), "");
    assert_eq!(
        refusal(&proxy, "app", "nosuch"),
        ("3D000".into(), "database \"nosuch\" does not exist".into())
    );
}

#[test]
fn a_server_that_cannot_be_reached_is_an_error_soon() {
    let config =
        ConfigText::for_port(free_port().unwrap()).and("[pool]\ncheckout_timeout = \"300ms\"\n");
    let proxy = Proxy::with(&config);
    // The first one waits: the server may be there in a moment. Who comes when it is known not to be reads why at once.
    for words in [
        "query_wait_timeout\nHINT:  No server could be connected to: connect failed.",
        "server login has been failing, cached error: connect failed (server_login_retry)",
    ] {
        let conninfo = proxy.conninfo("user=app dbname=app connect_timeout=10");
        let said = psql(&conninfo, "SELECT 1");
        assert!(!said.succeeded && said.stderr.contains(words), "{said:?}");
    }
}

#[test]
fn the_sixth_of_five_clients_is_turned_away() {
    let config = ConfigText::for_port(shared().port()).listen("max_client_connections = 5");
    let proxy = Proxy::with(&config);
    let _clients: Vec<_> = (0..5)
        .map(|_| ScriptedClient::connect(proxy.address()))
        .collect();
    assert_eq!(
        refusal(&proxy, "app", "app"),
        (
            "08P01".into(),
            "no more connections allowed (max_client_conn)".into()
        )
    );
}
