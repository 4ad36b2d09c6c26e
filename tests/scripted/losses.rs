//! Peers that break off, break the rules, or do not read: what it means for the others.

use std::io::Read;

use crate::support::messages::*;
use crate::support::proxy::{ConfigText, Proxy};
use crate::support::scripted::{ScriptedClient, ScriptedServer, ServerWire};
use crate::support::wire::Wire;

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

/// A client that has begun a transaction, and its server.
fn in_transaction(proxy: &Proxy, script: &ScriptedServer) -> (ScriptedClient, ServerWire) {
    let mut client = ScriptedClient::connect(proxy.address());
    client.send(query("BEGIN"));
    let mut server = script.connection();
    server.expect(query("BEGIN"));
    server.send_all([command_complete("BEGIN"), ready(b'T')]);
    client.expect_all([command_complete("BEGIN"), ready(b'T')]);
    (client, server)
}

/// The same with a server that is there already.
fn begins(client: &mut ScriptedClient, server: &mut ServerWire) {
    client.send(query("BEGIN"));
    server.expect(query("BEGIN"));
    server.send_all([command_complete("BEGIN"), ready(b'T')]);
    client.expect_all([command_complete("BEGIN"), ready(b'T')]);
}

/// The connection ends, with a good-bye or without.
fn ends(server: &mut ServerWire) {
    while let Some(message) = server.receive_or_end() {
        assert_eq!(message, terminate());
    }
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_row_is_not_spoken_for() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "");
    let mut client = ScriptedClient::connect(proxy.address());
    client.send(query("SELECT 1"));
    let mut server = script.connection();
    server.expect(query("SELECT 1"));
    let half = &row(&[Some("x".repeat(100).as_str())]).0[..50];
    server.send(row_description(&["a"])).send_bytes(half);
    client.expect(row_description(&["a"]));
    assert_eq!(client.receive_bytes(50), half);
    drop(server);
    // An error would be read as the rest of the row.
    client.expect_end();
}

#[test]
fn a_server_that_dies_between_two_rows_is() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "");
    let mut client = ScriptedClient::connect(proxy.address());
    client.send(query("SELECT 1"));
    let mut server = script.connection();
    server.expect(query("SELECT 1"));
    server.send_all([row_description(&["a"]), row(&[Some("1")])]);
    client.expect_all([row_description(&["a"]), row(&[Some("1")])]);
    drop(server);
    assert_eq!(field_of(&client.receive(), b'C').as_deref(), Some("08006"));
    client.expect_end();
}

#[test]
fn a_server_that_a_client_leaves_in_a_mess_is_closed() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "[pool]\nsize = 1\n");
    let mut ann = ScriptedClient::connect(proxy.address());
    let mut server = script.connection();
    begins(&mut ann, &mut server);
    // Half a message.
    ann.send_bytes(&bind("", "", &[Some(&"x".repeat(5000))]).0[..3000]);
    drop(ann);
    let _ = server.stream().read_to_end(&mut Vec::new());
    // The pool has room for one server: the next client gets a new one.
    let mut bob = ScriptedClient::connect(proxy.address());
    bob.send(query("SELECT 'bob'"));
    server = script.connection();
    server.expect(query("SELECT 'bob'"));
    server.send_all(one_row("bob"));
    bob.expect_all(one_row("bob"));
}

#[test]
fn what_a_client_has_begun_is_ended_and_its_server_serves_the_next() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "[pool]\nsize = 1\n");
    let mut ann = ScriptedClient::connect(proxy.address());
    let mut server = script.connection();
    // COPY data are awaited.
    begins(&mut ann, &mut server);
    ann.send(query("COPY t FROM STDIN"));
    server.expect(query("COPY t FROM STDIN"));
    server.send(copy_in_response());
    ann.expect(copy_in_response()).send(copy_data(b"one"));
    server.expect(copy_data(b"one"));
    drop(ann);
    server.expect(copy_fail("the client has left"));
    server.send_all([error("57014", "COPY from stdin failed"), ready(b'E')]);
    server.expect(query("ROLLBACK"));
    server.send_all([command_complete("ROLLBACK"), ready(b'I')]);
    // A group is without its Sync.
    let mut bob = ScriptedClient::connect(proxy.address());
    bob.send_all([parse("", "SELECT 1"), flush()]);
    server.expect_all([parse("", "SELECT 1"), flush()]);
    server.send(parse_complete());
    bob.expect(parse_complete());
    drop(bob);
    server.expect_all([
        parse("", "ROLLBACK"),
        bind("", "", &[]),
        execute("", 0),
        sync(),
    ]);
    server.send_all([
        parse_complete(),
        bind_complete(),
        command_complete("ROLLBACK"),
        ready(b'I'),
    ]);
    // One has failed already.
    let mut cyd = ScriptedClient::connect(proxy.address());
    cyd.send_all([parse("", "nonsense"), flush()]);
    server.expect_all([parse("", "nonsense"), flush()]);
    server.send(error("42601", "syntax error"));
    assert_eq!(cyd.receive(), error("42601", "syntax error"));
    drop(cyd);
    server.expect(sync()).send(ready(b'I'));
    let mut dan = ScriptedClient::connect(proxy.address());
    asks(&mut dan, &mut server, "SELECT 'dan'");
    assert!(script.has_no_further_connection());
}

#[test]
fn what_a_client_leaves_open_is_rolled_back_and_its_server_serves_the_next() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "[pool]\nsize = 1\n");
    let mut ann = ScriptedClient::connect(proxy.address());
    let mut server = script.connection();
    for is_asking in [false, true] {
        begins(&mut ann, &mut server);
        if is_asking {
            ann.send(query("SELECT 'ann'"));
            server.expect(query("SELECT 'ann'"));
            drop(ann);
            proxy.wait_for_log(&["client close request"]);
            // Nobody reads this any more.
            server.send_all([row_description(&["a"]), row(&[Some("ann")])]);
            server.send_all([command_complete("SELECT 1"), ready(b'T')]);
        } else {
            drop(ann);
        }
        server.expect(query("ROLLBACK"));
        server.send_all([command_complete("ROLLBACK"), ready(b'I')]);
        ann = ScriptedClient::connect(proxy.address());
        asks(&mut ann, &mut server, "SELECT 'bob'");
    }
    assert!(script.has_no_further_connection());
}

#[test]
fn a_transaction_whose_client_has_gone_holds_no_lock_for_long() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "");
    let (mut ann, mut server) = in_transaction(&proxy, &script);
    ann.send(query("SELECT waits_for_a_lock()"));
    server.expect(query("SELECT waits_for_a_lock()"));
    drop(ann);
    script.cancel();
    ends(&mut server);
}

#[test]
fn a_slow_reader_holds_up_nobody_else_and_costs_little_memory() {
    const ROWS: usize = 20_000;
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "[pool]\nsize = 2\n");
    let mut slow = ScriptedClient::connect(proxy.address());
    slow.send(query("SELECT much"));
    let mut much = script.connection();
    much.expect(query("SELECT much"));
    let text = "x".repeat(2000);
    let big = row(&[Some(&text)]);
    let before = proxy.peak_memory();
    let mut writer = much.duplicate();
    let sent = big.clone();
    let writing = std::thread::spawn(move || {
        for _ in 0..ROWS {
            writer.send(sent.clone());
        }
        writer.send_all([command_complete("SELECT 20000"), ready(b'I')]);
    });
    let (mut quick, mut server) = in_transaction(&proxy, &script);
    for _ in 0..200 {
        quick.send(query("SELECT 1"));
        server.expect(query("SELECT 1"));
        server.send_all([command_complete("SELECT 1"), ready(b'T')]);
        quick.expect_all([command_complete("SELECT 1"), ready(b'T')]);
    }
    for _ in 0..ROWS {
        slow.expect(big.clone());
    }
    slow.expect_all([command_complete("SELECT 20000"), ready(b'I')]);
    writing.join().unwrap();
    let grown = proxy.peak_memory() - before;
    assert!(grown < 8 << 20, "{grown} bytes for 40 MB");
}

#[test]
fn nonsense_from_a_server_ends_its_own_client_alone() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "[pool]\nsize = 2\n");
    let (mut bob, mut bobs) = in_transaction(&proxy, &script);
    for nonsense in [
        &b"y\0\0\0\x04"[..],
        b"D\0\0\0\x03",
        b"D\xff\xff\xff\xff",
        b"S\x7f\xff\xff\xff",
        b"1\0\0\0\x04",
        b"Z\0\0\0\x05I",
        b"Z\0\0\0\x05x",
        b"C\0\0\0\x05x",
    ] {
        let mut ann = ScriptedClient::connect(proxy.address());
        ann.send(query("SELECT 1"));
        let mut anns = script.connection();
        anns.expect(query("SELECT 1"));
        anns.send_bytes(nonsense);
        let said = ann.receive();
        assert_eq!(
            field_of(&said, b'C').as_deref(),
            Some("08P01"),
            "{}",
            nonsense.escape_ascii()
        );
        ann.expect_end();
        ends(&mut anns);
    }
    bob.send(query("SELECT 2"));
    bobs.expect(query("SELECT 2"));
    bobs.send_all(one_row("2"));
    bob.expect_all(one_row("2"));
}

#[test]
fn an_idle_server_that_speaks_out_of_turn_is_not_given_to_anybody() {
    for unsolicited in [
        ready(b'I'),
        command_complete("SELECT 1"),
        fatal("57P01", "bye"),
        row(&[Some("1")]),
    ] {
        let script = ScriptedServer::start();
        let proxy = proxy_before(&script, "[pool]\nsize = 1\n");
        let mut client = ScriptedClient::connect(proxy.address());
        let mut first = script.connection();
        asks(&mut client, &mut first, "SELECT 1");
        first.send(unsolicited);
        ends(&mut first);
        client.send(query("SELECT 2"));
        let mut second = script.connection();
        second.expect(query("SELECT 2"));
        second.send_all(one_row("2"));
        client.expect_all(one_row("2"));
    }
}

#[test]
fn what_an_idle_server_may_say_leaves_it_in_the_pool() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "[pool]\nsize = 1\n");
    let mut client = ScriptedClient::connect(proxy.address());
    let mut server = script.connection();
    asks(&mut client, &mut server, "SELECT 1");
    server.send_all([
        notice("00000", "reloaded"),
        parameter_status("in_hot_standby", "on"),
    ]);
    asks(&mut client, &mut server, "SELECT 2");
}

#[test]
fn a_server_that_closes_in_the_very_moment_of_a_query_is_replaced() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "[pool]\nsize = 1\n");
    let mut client = ScriptedClient::connect(proxy.address());
    let mut first = script.connection();
    asks(&mut client, &mut first, "SELECT 1");
    // Both are there when the proxy looks again.
    proxy.signal("STOP");
    drop(first);
    client.send(query("SELECT 2"));
    proxy.signal("CONT");
    let mut second = script.connection();
    second.expect(query("SELECT 2"));
    second.send_all(one_row("2"));
    client.expect_all(one_row("2"));
}

#[test]
fn a_cancel_of_a_client_that_waits_for_nothing_reaches_nobody() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "[pool]\nsize = 1\n");
    let mut ann = ScriptedClient::connect(proxy.address());
    let mut bob = ScriptedClient::connect(proxy.address());
    let mut server = script.connection();
    asks(&mut ann, &mut server, "SELECT 'ann'");
    bob.send(query("SELECT 'bob'"));
    server.expect(query("SELECT 'bob'"));
    // The server was hers a moment ago.
    Wire::connect(proxy.address())
        .send(cancel_request(&ann.key))
        .expect_end();
    server.send_all(one_row("bob"));
    bob.expect_all(one_row("bob"));
    assert!(script.has_no_cancel());
}

#[test]
fn many_clients_share_one_server_and_nobody_is_lost() {
    const CLIENTS: usize = 40;
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "[pool]\nsize = 1\n");
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| ScriptedClient::connect(proxy.address()))
        .collect();
    let mut server = script.connection();
    for round in 0..5 {
        let text = |number: usize| format!("SELECT {number} /* {round} */");
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(query(&text(number)));
        }
        let mut served: Vec<Message> = (0..CLIENTS)
            .map(|_| {
                let asked = server.receive();
                let answer = String::from_utf8_lossy(asked.body()).into_owned();
                server.send_all(one_row(answer.trim_end_matches('\0')));
                asked
            })
            .collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.expect_all(one_row(&text(number)));
        }
        served.sort_by(|one, other| one.0.cmp(&other.0));
        served.dedup();
        assert_eq!(served.len(), CLIENTS);
    }
    assert!(script.has_no_further_connection());
}

#[test]
fn in_transaction_mode_a_prepared_statement_differs_in_its_name_alone() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "");
    let mut client = ScriptedClient::connect(proxy.address());
    let said = |name: &str| {
        [
            parse_typed(name, "SELECT $1 /* 'my' comment */ -- end", &[23]),
            describe_statement(name),
            bind("p", name, &[Some("1")]),
            describe_portal("p"),
            execute("p", 5),
            close_portal("p"),
            sync(),
        ]
    };
    client.send_all(said("mine"));
    let mut server = script.connection();
    let first = server.receive();
    let name = first.body().split(|byte| *byte == 0).next().unwrap();
    let name = String::from_utf8(name.to_vec()).unwrap();
    assert!(name.starts_with("pgspan_"), "{name}");
    let expected = said(&name);
    assert_eq!(first, expected[0]);
    server.expect_all(expected[1..].iter().cloned());
}

#[test]
fn a_statement_without_a_name_that_one_client_parsed_is_not_bound_by_another() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "[pool]\nsize = 1\n");
    let mut ann = ScriptedClient::connect(proxy.address());
    let mut bob = ScriptedClient::connect(proxy.address());
    let mut server = script.connection();
    // Parse and Bind with a Sync between them, as pg8000 and lib/pq do.
    ann.send_all([parse("", "SELECT 'ann'"), sync()]);
    server.expect_all([parse("", "SELECT 'ann'"), sync()]);
    server.send_all([parse_complete(), ready(b'I')]);
    ann.expect_all([parse_complete(), ready(b'I')]);
    bob.send_all([parse("", "SELECT 'bob'"), bind("", "", &[]), sync()]);
    ann.send_all([bind("", "", &[]), execute("", 0), sync()]);
    server.expect_all([bind("", "", &[]), execute("", 0), sync()]);
    let reply = [bind_complete(), command_complete("SELECT 0"), ready(b'I')];
    server.send_all(reply.clone());
    ann.expect_all(reply);
    server.expect_all([parse("", "SELECT 'bob'"), bind("", "", &[]), sync()]);
    let reply = [parse_complete(), bind_complete(), ready(b'I')];
    server.send_all(reply.clone());
    bob.expect_all(reply);
}
