//! SIGHUP: the configuration is read again, whole or not at all.

use crate::support::messages::*;
use crate::support::proxy::{ConfigText, Proxy};
use crate::support::scripted::{ScriptedClient, ScriptedServer, ServerWire};

fn reload(proxy: &Proxy, config: &ConfigText) {
    proxy.rewrite_config(config);
    proxy.signal("HUP");
    proxy.wait_for_log(&["the configuration was read again"]);
}

fn answer(client: &mut ScriptedClient, server: &mut ServerWire, text: &str, status: u8) {
    client.send(query(text));
    server.expect(query(text));
    server.send_all([command_complete(text), ready(status)]);
    client.expect_all([command_complete(text), ready(status)]);
}

#[test]
fn a_client_stays_while_its_database_moves_to_another_server() {
    let (first, second) = (ScriptedServer::start(), ScriptedServer::start());
    let proxy = Proxy::with(&ConfigText::for_port(first.port()));
    let mut client = ScriptedClient::connect(proxy.address());
    let mut server = first.connection();
    answer(&mut client, &mut server, "BEGIN", b'T');

    reload(&proxy, &ConfigText::for_port(second.port()));

    // The transaction ends where it began, then the old server is left.
    answer(&mut client, &mut server, "COMMIT", b'I');
    server.expect(terminate());
    client.send(query("SELECT 1"));
    second.connection().expect(query("SELECT 1"));
}

#[test]
fn a_larger_pool_serves_at_once_who_waits() {
    let script = ScriptedServer::start();
    let sized =
        |size: usize| ConfigText::for_port(script.port()).and(&format!("[pool]\nsize = {size}\n"));
    let proxy = Proxy::with(&sized(1));
    let mut holds = ScriptedClient::connect(proxy.address());
    answer(&mut holds, &mut script.connection(), "BEGIN", b'T');
    let mut waits = ScriptedClient::connect(proxy.address());
    waits.send(query("SELECT 2"));
    assert!(script.has_no_further_connection());

    reload(&proxy, &sized(2));

    script.connection().expect(query("SELECT 2"));
}

#[test]
fn a_limit_of_time_holds_for_clients_that_are_there_already() {
    let script = ScriptedServer::start();
    let config = ConfigText::for_port(script.port());
    let proxy = Proxy::with(&config);
    let mut client = ScriptedClient::connect(proxy.address());
    reload(
        &proxy,
        &config.and("[pool]\nclient_idle_timeout = \"1ms\"\n"),
    );
    let told = client.receive();
    assert_eq!(
        field_of(&told, b'M').as_deref(),
        Some("client_idle_timeout")
    );
    client.expect_end();
}

#[test]
fn clients_of_a_removed_database_finish_their_transaction_and_no_others_come() {
    let script = ScriptedServer::start();
    let named = |name: &str| {
        ConfigText::default().and(&format!(
            "[auth]\nmethod = \"trust\"\n[users.app]\n[databases.{name}]\nport = {}\n",
            script.port()
        ))
    };
    let proxy = Proxy::with(&named("app"));
    let mut client = ScriptedClient::connect(proxy.address());
    let mut server = script.connection();
    answer(&mut client, &mut server, "BEGIN", b'T');

    reload(&proxy, &named("other"));

    let parameters = [("user", "app"), ("database", "app")];
    let refused = ScriptedClient::refused(proxy.address(), &parameters);
    assert_eq!(field_of(&refused, b'C').as_deref(), Some("3D000"));
    answer(&mut client, &mut server, "COMMIT", b'I');
    let told = client.receive();
    assert_eq!(field_of(&told, b'M').as_deref(), Some("database removed"));
    client.expect_end();
    server.expect(terminate());
}

#[test]
fn fewer_clients_may_come_after_the_limit_was_lowered() {
    let script = ScriptedServer::start();
    let config = ConfigText::for_port(script.port());
    let proxy = Proxy::with(&config);
    let _client = ScriptedClient::connect(proxy.address());
    reload(&proxy, &config.listen("max_client_connections = 1"));
    let parameters = [("user", "app"), ("database", "app")];
    let refused = ScriptedClient::refused(proxy.address(), &parameters);
    assert_eq!(field_of(&refused, b'C').as_deref(), Some("08P01"));
}

#[test]
fn a_wrong_configuration_changes_nothing_and_says_why() {
    let script = ScriptedServer::start();
    let config = ConfigText::for_port(script.port());
    let proxy = Proxy::with(&config);
    proxy.rewrite_config(
        &config
            .listen("max_client_connections = 1")
            .and("[pool]\nsise = 3\n"),
    );
    proxy.signal("HUP");
    proxy.wait_for_log(&["not taken, nothing has changed"]);
    proxy.wait_for_log(&["sise"]);
    let _clients = [
        ScriptedClient::connect(proxy.address()),
        ScriptedClient::connect(proxy.address()),
    ];
}

#[test]
fn what_needs_a_restart_is_named_and_stays() {
    let script = ScriptedServer::start();
    let config = ConfigText::for_port(script.port());
    let proxy = Proxy::with(&config);
    reload(&proxy, &config.and("[workers]\ncount = 2\n"));
    proxy.wait_for_log(&["workers.count has changed: it needs a restart"]);
}

#[test]
fn a_session_loses_its_server_at_once_where_that_is_wanted() {
    let [old, new] = [ScriptedServer::start(), ScriptedServer::start()];
    let config = |script: &ScriptedServer| {
        ConfigText::for_port(script.port())
            .and("[pool]\nmode = \"session\"\nserver_fast_close = true\n")
    };
    let proxy = Proxy::with(&config(&old));
    let mut client = ScriptedClient::connect(proxy.address());
    let mut server = old.connection();
    answer(&mut client, &mut server, "SELECT 1", b'I');
    reload(&proxy, &config(&new));
    let refused = client.receive();
    assert_eq!(
        field_of(&refused, b'M').as_deref(),
        Some("database configuration changed")
    );
    server.expect(terminate());
}
