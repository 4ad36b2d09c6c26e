//! Peers that break off, break the rules, or do not read: what it means for the others.

use crate::support::messages::*;
use crate::support::proxy::{ConfigText, Proxy};
use crate::support::scripted::{ScriptedClient, ScriptedServer, ServerWire};

fn proxy_before(server: &ScriptedServer, config: &str) -> Proxy {
    Proxy::with(&ConfigText::for_port(server.port()).and(config))
}

fn one_row(value: &str) -> [Message; 4] {
    [
        row_description(&["a"]),
        row(&[Some(value)]),
        command_complete("SELECT 1"),
        ready(b'I'),
    ]
}

/// The client's query arrives at this server, and only this; its answer arrives at the client, and only that.
#[expect(dead_code)]
fn asks(client: &mut ScriptedClient, server: &mut ServerWire, text: &str) {
    client.send(query(text));
    server.expect(query(text));
    server.send_all(one_row(text));
    client.expect_all(one_row(text));
}

/// Ends a connection with a reset instead of a good-bye.
fn reset(client: ScriptedClient) {
    socket2::SockRef::from(client.stream())
        .set_linger(Some(std::time::Duration::ZERO))
        .unwrap();
}

#[test]
fn what_a_client_sent_ahead_of_nonsense_reaches_nobody_elses_server() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "[pool]\nsize = 1\n");
    let mut ann = ScriptedClient::connect(proxy.address());
    let mut bob = ScriptedClient::connect(proxy.address());
    ann.send_bytes(&[query("SELECT 1").0, b"y\0\0\0\x04".to_vec()].concat());
    let refusal = ann.receive_reply();
    assert_eq!(field_of(&refusal[0], b'C').as_deref(), Some("08P01"));
    drop(script.connection());
    bob.send(query("SELECT 'bob'"));
    let mut second = script.connection();
    second.expect(query("SELECT 'bob'"));
    second.send_all(one_row("bob"));
    bob.expect_all(one_row("bob"));
}

#[test]
fn a_reply_to_a_client_that_was_reset_reaches_nobody_else() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "[pool]\nsize = 2\n");
    let mut ann = ScriptedClient::connect(proxy.address());
    let mut bob = ScriptedClient::connect(proxy.address());
    bob.send(query("BEGIN"));
    let mut bobs = script.connection();
    bobs.expect(query("BEGIN"));
    bobs.send_all([command_complete("BEGIN"), ready(b'T')]);
    bob.expect_all([command_complete("BEGIN"), ready(b'T')]);
    ann.send(query("SELECT 'ann'"));
    let mut anns = script.connection();
    anns.expect(query("SELECT 'ann'"));
    // The reply and the reset are there when the proxy looks again: it finds out by writing.
    proxy.signal("STOP");
    reset(ann);
    anns.send_all(one_row("longer than another"));
    proxy.signal("CONT");
    proxy.wait_for_log(&["client connection lost"]);
    bob.send(query("SELECT 'bob'"));
    bobs.expect(query("SELECT 'bob'"));
    bobs.send_all(one_row("bob"));
    bob.expect_all(one_row("bob"));
}
