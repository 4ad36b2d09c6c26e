//! What passes through the proxy, byte for byte, and what it says itself.

use std::thread;

use crate::support::messages::*;
use crate::support::proxy::{ConfigText, Proxy};
use crate::support::scripted::{ScriptedClient, ScriptedServer, ServerWire, secret_of};
use crate::support::wire::Wire;
use crate::support::{SPAN_ID, TRACE_ID, TRACEPARENT};

fn proxy_before(server: &ScriptedServer, config: &str) -> Proxy {
    Proxy::with(&ConfigText::for_port(server.port()).and(config))
}

fn traced_client(proxy: &Proxy) -> ScriptedClient {
    let options = format!("-c pgspan.traceparent={TRACEPARENT}");
    ScriptedClient::connect_with(
        proxy.address(),
        &[("user", "app"), ("database", "app"), ("options", &options)],
    )
}

/// Answers a statement with one row.
fn answer(server: &mut ServerWire, value: &str) -> Vec<Message> {
    let reply = vec![
        row_description(&["a"]),
        row(&[Some(value)]),
        command_complete("SELECT 1"),
        ready(b'I'),
    ];
    server.send_all(reply.clone());
    reply
}

#[test]
fn a_simple_query_arrives_with_its_comment() {
    let server = ScriptedServer::start();
    let proxy = proxy_before(&server, "");
    let mut client = traced_client(&proxy);
    client.send(query("SELECT 1; -- done"));
    let mut server = server.connection();
    server.expect(query(&format!(
        "SELECT 1 /*traceparent='00-{TRACE_ID}-{SPAN_ID}-01'*/; -- done"
    )));
    let reply = answer(&mut server, "1");
    client.expect_all(reply);
}

#[test]
fn the_extended_protocol_arrives_byte_for_byte() {
    let server = ScriptedServer::start();
    let proxy = proxy_before(&server, "[pool]\nmode = \"session\"\n");
    let mut client = traced_client(&proxy);
    let said = [
        parse("", "SELECT $1"),
        bind("", "", &[Some("x")]),
        describe_portal(""),
        execute("", 0),
        sync(),
    ];
    client.send_all(said.clone());
    let mut server = server.connection();
    server.expect_all(said);
    let reply = [
        parse_complete(),
        bind_complete(),
        row_description(&["a"]),
        row(&[Some("x")]),
        command_complete("SELECT 1"),
        ready(b'I'),
    ];
    server.send_all(reply.clone());
    client.expect_all(reply);
}

#[test]
fn however_a_message_is_cut_it_arrives_whole() {
    let server = ScriptedServer::start();
    let proxy = proxy_before(&server, "[annotation]\nenabled = false\n");
    let mut client = ScriptedClient::connect(proxy.address());
    for byte in query("SELECT 'slowly'").0 {
        client.send_bytes(&[byte]);
    }
    let mut server = server.connection();
    server.expect(query("SELECT 'slowly'"));
    let reply = [
        row_description(&["a"]),
        row(&[Some("slowly")]),
        command_complete("SELECT 1"),
        ready(b'I'),
    ];
    for byte in reply.iter().flat_map(|message| &message.0) {
        server.send_bytes(&[*byte]);
    }
    client.expect_all(reply);
}

#[test]
fn what_is_pgspans_own_does_not_reach_the_server() {
    let server = ScriptedServer::start();
    let proxy = proxy_before(&server, "");
    let mut client = traced_client(&proxy);
    client
        .send(query("SET pgspan.correlation_id = 'order-7'"))
        .expect(command_complete("SET"))
        .expect(ready(b'I'));
    client.send(query("SHOW pgspan.correlation_id"));
    let shown = client.receive_reply();
    assert_eq!(
        shown[1..],
        [
            row(&[Some("order-7")]),
            command_complete("SHOW"),
            ready(b'I')
        ]
    );
    client.send(query("SELECT 1"));
    let mut server = server.connection();
    assert!(
        !server.startup.windows(6).any(|part| part == b"pgspan"),
        "{}",
        server.startup.escape_ascii()
    );
    server.expect(query(&format!(
        "SELECT 1 /*correlation_id='order-7',traceparent='{TRACEPARENT}'*/"
    )));
}

#[test]
fn a_prepared_statement_goes_to_a_server_that_lacks_it_first() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "[pool]\nsize = 2\n");
    let mut ann = ScriptedClient::connect(proxy.address());
    ann.send_all([parse("s", "SELECT 1"), sync()]);
    let mut first = script.connection();
    let named = first.receive();
    assert_eq!(named.tag(), b'P');
    first
        .expect(sync())
        .send_all([parse_complete(), ready(b'I')]);
    ann.expect_all([parse_complete(), ready(b'I')]);

    // Another client holds that server now.
    let mut bob = ScriptedClient::connect(proxy.address());
    bob.send(query("BEGIN"));
    first
        .expect(query("BEGIN"))
        .send_all([command_complete("BEGIN"), ready(b'T')]);
    bob.expect_all([command_complete("BEGIN"), ready(b'T')]);

    ann.send_all([bind("", "s", &[]), execute("", 0), sync()]);
    let mut second = script.connection();
    second.expect(named);
    assert_eq!(second.receive().tag(), b'B');
    second.expect_all([execute("", 0), sync()]);
    second.send_all([
        parse_complete(),
        bind_complete(),
        row(&[Some("1")]),
        command_complete("SELECT 1"),
        ready(b'I'),
    ]);
    // The answer to the Parse that the client did not send stays here.
    ann.expect_all([
        bind_complete(),
        row(&[Some("1")]),
        command_complete("SELECT 1"),
        ready(b'I'),
    ]);
}

#[test]
fn a_server_that_breaks_off_is_an_error_for_its_client_alone() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "");
    let mut ann = ScriptedClient::connect(proxy.address());
    ann.send(query("SELECT 1"));
    let mut server = script.connection();
    server.receive();
    drop(server);
    let reply = ann.receive_reply();
    assert_eq!(
        field_of(reply.last().unwrap(), b'C').as_deref(),
        Some("08006")
    );

    let mut bob = ScriptedClient::connect(proxy.address());
    bob.send(query("SELECT 2"));
    let mut server = script.connection();
    server.expect(query("SELECT 2"));
    let reply = answer(&mut server, "2");
    bob.expect_all(reply);
}

#[test]
fn a_cancel_request_reaches_the_server_under_its_own_key() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "");
    let mut client = ScriptedClient::connect(proxy.address());
    client.send(query("SELECT pg_sleep(60)"));
    let mut server = script.connection();
    server.receive();
    assert_ne!(client.key[4..], secret_of(server.process_id));
    Wire::connect(proxy.address())
        .send(cancel_request(&client.key))
        .expect_end();
    assert_eq!(
        script.cancel(),
        [
            &server.process_id.to_be_bytes()[..],
            &secret_of(server.process_id)
        ]
        .concat()
    );
    server.send_all([
        error("57014", "canceling statement due to user request"),
        ready(b'I'),
    ]);
    client.expect_all([
        error("57014", "canceling statement due to user request"),
        ready(b'I'),
    ]);
}

#[test]
fn a_cancel_request_with_another_key_reaches_nobody() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "");
    let mut client = ScriptedClient::connect(proxy.address());
    client.send(query("SELECT 1"));
    let mut server = script.connection();
    server.receive();
    let mut other_key = client.key.clone();
    *other_key.last_mut().unwrap() ^= 1;
    Wire::connect(proxy.address())
        .send(cancel_request(&other_key))
        .expect_end();
    let reply = answer(&mut server, "1");
    client.expect_all(reply);
    assert!(script.has_no_further_connection());
}

#[test]
fn nonsense_at_the_start_ends_the_connection() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "");
    for nonsense in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0, 0, 0, 0],
        &[0, 0, 0, 3],
        &[255; 64],
    ] {
        let mut wire = Wire::connect(proxy.address());
        wire.send_bytes(nonsense);
        while let Some(message) = wire.receive_or_end() {
            assert_eq!(message.tag(), b'E');
        }
    }
    assert!(script.has_no_further_connection());
}

#[test]
fn clients_are_told_that_a_standby_was_promoted_since() {
    let server = ScriptedServer::start();
    let proxy = proxy_before(&server, "[pool]\nsize = 1\n");
    let standing = |client: &ScriptedClient| {
        let mut reported = client.parameters.iter();
        let found = reported.find(|(name, _)| name == "in_hot_standby");
        found.unwrap().1.clone()
    };
    let mut client = ScriptedClient::connect(proxy.address());
    assert_eq!(standing(&client), "off");
    client.send(query("SELECT 1"));
    let mut server = server.connection();
    server.receive();
    let reply = [
        command_complete("SELECT 1"),
        parameter_status("in_hot_standby", "on"),
        ready(b'I'),
    ];
    server.send_all(reply.clone());
    client.expect_all(reply);
    let address = proxy.address();
    let other = thread::spawn(move || ScriptedClient::connect(address));
    // Another one that rests has not said so yet.
    server.expect(query(";"));
    server.send_all([empty_query_response(), ready(b'I')]);
    assert_eq!(standing(&other.join().unwrap()), "on");
}
