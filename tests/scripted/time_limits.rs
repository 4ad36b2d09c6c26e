//! Clients that take too long: what they read, and what becomes of their servers.

use crate::support::messages::*;
use crate::support::proxy::{ConfigText, Proxy};
use crate::support::scripted::{ScriptedClient, ScriptedServer, ServerWire};

fn proxy_with(server: &ScriptedServer, limit: &str) -> Proxy {
    let config = format!("[pool]\nsize = 1\n{limit} = \"100ms\"\n");
    Proxy::with(&ConfigText::for_port(server.port()).and(&config))
}

/// A client that has asked what the server answers with this status.
fn asked(proxy: &Proxy, script: &ScriptedServer, status: u8) -> (ScriptedClient, ServerWire) {
    let mut client = ScriptedClient::connect(proxy.address());
    client.send(query("BEGIN"));
    let mut server = script.connection();
    server.expect(query("BEGIN"));
    server.send_all([command_complete("BEGIN"), ready(status)]);
    client.expect_all([command_complete("BEGIN"), ready(status)]);
    (client, server)
}

/// The client is told, and its connection ends.
fn is_sent_away(mut client: ScriptedClient, code: &str, message: &str) {
    let told = client.receive();
    assert_eq!(field_of(&told, b'S').as_deref(), Some("FATAL"));
    assert_eq!(field_of(&told, b'C').as_deref(), Some(code));
    assert_eq!(field_of(&told, b'M').as_deref(), Some(message));
    client.expect_end();
}

/// The server is closed, and the next client gets another.
fn is_replaced(mut server: ServerWire, proxy: &Proxy, script: &ScriptedServer) {
    while let Some(message) = server.receive_or_end() {
        assert_eq!(message, terminate());
    }
    let mut next = ScriptedClient::connect(proxy.address());
    next.send(query("SELECT 2"));
    script.connection().expect(query("SELECT 2"));
}

#[test]
fn a_client_that_is_silent_in_a_transaction_loses_it_and_its_server() {
    for status in [b'T', b'E'] {
        let script = ScriptedServer::start();
        let proxy = proxy_with(&script, "idle_transaction_timeout");
        let (client, server) = asked(&proxy, &script, status);
        is_sent_away(client, "08P01", "idle transaction timeout");
        is_replaced(server, &proxy, &script);
        assert!(script.has_no_cancel());
    }
}

#[test]
fn a_client_that_is_silent_between_transactions_leaves_its_server_to_others() {
    let script = ScriptedServer::start();
    let proxy = proxy_with(&script, "client_idle_timeout");
    let (client, mut server) = asked(&proxy, &script, b'I');
    is_sent_away(client, "08P01", "client_idle_timeout");
    let mut next = ScriptedClient::connect(proxy.address());
    next.send(query("SELECT 2"));
    server.expect(query("SELECT 2"));
    server.send_all([command_complete("SELECT 0"), ready(b'I')]);
    next.expect_all([command_complete("SELECT 0"), ready(b'I')]);
}

#[test]
fn a_query_that_takes_too_long_is_cancelled() {
    let script = ScriptedServer::start();
    let proxy = proxy_with(&script, "query_timeout");
    let mut client = ScriptedClient::connect(proxy.address());
    client.send(query("SELECT 1"));
    let mut server = script.connection();
    server.expect(query("SELECT 1"));
    // Rows on their way don't make it another query.
    server.send_all([row_description(&["a"]), row(&[Some("1")])]);
    client.expect_all([row_description(&["a"]), row(&[Some("1")])]);
    is_sent_away(client, "08P01", "query timeout");
    assert!(!script.cancel().is_empty());
    is_replaced(server, &proxy, &script);
}

#[test]
fn a_transaction_that_takes_too_long_ends_also_while_it_is_silent() {
    let script = ScriptedServer::start();
    let proxy = proxy_with(&script, "transaction_timeout");
    let (client, server) = asked(&proxy, &script, b'T');
    is_sent_away(client, "08P01", "transaction timeout");
    is_replaced(server, &proxy, &script);
}

#[test]
fn a_querys_time_begins_with_the_waiting_for_a_server() {
    let script = ScriptedServer::start();
    let config = "[pool]\nsize = 1\nquery_timeout = \"100ms\"\n";
    let proxy = Proxy::with(&ConfigText::for_port(script.port()).and(config));
    let (_holds, _server) = asked(&proxy, &script, b'T');
    let mut waits = ScriptedClient::connect(proxy.address());
    waits.send(query("SELECT 2"));
    is_sent_away(waits, "08P01", "query_timeout");
}

#[test]
fn a_client_that_waits_for_a_server_is_not_idle() {
    let script = ScriptedServer::start();
    let config = "[pool]\nsize = 1\nclient_idle_timeout = \"100ms\"\n";
    let proxy = Proxy::with(&ConfigText::for_port(script.port()).and(config));
    let (mut holds, mut server) = asked(&proxy, &script, b'T');
    let mut waits = ScriptedClient::connect(proxy.address());
    waits.send(query("SELECT 2"));
    // Another client of the same limits has been sent away meanwhile: theirs would have passed.
    is_sent_away(
        ScriptedClient::connect(proxy.address()),
        "08P01",
        "client_idle_timeout",
    );
    holds.send(query("COMMIT"));
    server.expect(query("COMMIT"));
    server.send_all([command_complete("COMMIT"), ready(b'I')]);
    holds.expect_all([command_complete("COMMIT"), ready(b'I')]);
    server.expect(query("SELECT 2"));
    server.send_all([command_complete("SELECT 0"), ready(b'I')]);
    waits.expect_all([command_complete("SELECT 0"), ready(b'I')]);
}
