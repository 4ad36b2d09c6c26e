//! How many there may be, who makes room for whom, and what those read who find none.

use std::net::TcpListener;

use crate::support::messages::*;
use crate::support::proxy::{ConfigText, Proxy};
use crate::support::scripted::{ScriptedClient, ScriptedServer, ServerWire};

fn proxy_before(server: &ScriptedServer, config: &str) -> Proxy {
    Proxy::with(&ConfigText::for_port(server.port()).and(config))
}

fn client_of(proxy: &Proxy, user: &str, database: &str) -> ScriptedClient {
    let parameters = [("user", user), ("database", database)];
    ScriptedClient::connect_with(proxy.address(), &parameters)
}

fn is_refused(proxy: &Proxy, user: &str, database: &str) -> Option<String> {
    let parameters = [("user", user), ("database", database)];
    let refusal = ScriptedClient::refused(proxy.address(), &parameters);
    assert_eq!(field_of(&refusal, b'C').as_deref(), Some("08P01"));
    field_of(&refusal, b'M')
}

fn one_row(value: &str) -> [Message; 4] {
    [
        row_description(&["a"]),
        row(&[Some(value)]),
        command_complete("SELECT 1"),
        ready(b'I'),
    ]
}

fn asks(client: &mut ScriptedClient, server: &mut ServerWire, text: &str) {
    client.send(query(text));
    server.expect(query(text));
    server.send_all(one_row(text));
    client.expect_all(one_row(text));
}

fn begins(client: &mut ScriptedClient, server: &mut ServerWire) {
    client.send(query("BEGIN"));
    server.expect(query("BEGIN"));
    server.send_all([command_complete("BEGIN"), ready(b'T')]);
    client.expect_all([command_complete("BEGIN"), ready(b'T')]);
}

#[test]
fn a_database_and_a_user_have_only_so_many_clients() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(
        &script,
        "[pool]\nmax_database_client_connections = 2\n[users.bob]\npool.max_user_client_connections = 1\n",
    );
    let ann = client_of(&proxy, "app", "shop");
    let bob = client_of(&proxy, "bob", "shop");
    assert_eq!(
        is_refused(&proxy, "app", "shop").as_deref(),
        Some("client connections exceeded (max_db_client_connections)")
    );
    assert_eq!(
        is_refused(&proxy, "bob", "wiki").as_deref(),
        Some("client connections exceeded (max_user_client_connections)")
    );
    drop((ann, bob));
    proxy.wait_for_log(&["closing because: client"]);
    client_of(&proxy, "app", "shop");
    for limit in ["database_clients", "user_clients"] {
        assert!(proxy.metric("pgspan_limits_hit_total", &[limit]) >= 1.0);
    }
}

#[test]
fn an_idle_server_of_another_user_makes_room_within_the_databases_limit() {
    let script = ScriptedServer::start();
    // Two workers: the users' pools need not be on the same one.
    let proxy = proxy_before(
        &script,
        "[workers]\ncount = 2\n[pool]\nmax_database_connections = 1\n[users.bob]\n[users.cyd]\n",
    );
    let mut ann = client_of(&proxy, "app", "shop");
    let mut anns = script.connection();
    asks(&mut ann, &mut anns, "SELECT 'ann'");
    for user in ["bob", "cyd"] {
        let mut client = client_of(&proxy, user, "shop");
        let mut server = script.connection();
        anns.expect(terminate()).expect_end();
        asks(&mut client, &mut server, "SELECT 'other'");
        anns = server;
    }
    assert!(script.has_no_further_connection());
    assert_eq!(
        proxy.metric("pgspan_servers_closed_total", &["evicted"]),
        2.0
    );
}

#[test]
fn who_waits_for_room_gets_it_when_another_users_server_comes_to_rest() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(
        &script,
        "[workers]\ncount = 2\n[pool]\nmax_database_connections = 1\n[users.bob]\n[users.cyd]\n",
    );
    let mut ann = client_of(&proxy, "app", "shop");
    let mut anns = script.connection();
    begins(&mut ann, &mut anns);
    let others = ["bob", "cyd"].map(|user| {
        let address = proxy.address();
        std::thread::spawn(move || {
            ScriptedClient::connect_with(address, &[("user", user), ("database", "shop")])
        })
    });
    let waiting = || proxy.metric("pgspan_limits_hit_total", &["database_servers"]) >= 2.0;
    assert!(crate::support::eventually(|| waiting().then_some(())).is_some());
    assert!(script.has_no_further_connection());
    ann.send(query("COMMIT"));
    anns.expect(query("COMMIT"));
    anns.send_all([command_complete("COMMIT"), ready(b'I')]);
    ann.expect_all([command_complete("COMMIT"), ready(b'I')]);
    anns.expect(terminate()).expect_end();
    // The one is welcomed by its server, which makes room for the other's at once.
    script.connection().expect(terminate()).expect_end();
    let last = script.connection();
    for client in others {
        client.join().unwrap();
    }
    drop(last);
}

#[test]
fn the_reserve_is_opened_for_who_has_waited() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(
        &script,
        "[pool]\nsize = 1\nreserve_size = 1\nreserve_timeout = \"100ms\"\n",
    );
    let mut ann = ScriptedClient::connect(proxy.address());
    let mut anns = script.connection();
    begins(&mut ann, &mut anns);
    let mut bob = ScriptedClient::connect(proxy.address());
    bob.send(query("SELECT 'bob'"));
    let mut bobs = script.connection();
    bobs.expect(query("SELECT 'bob'"));
    proxy.wait_for_log(&["taking connection from reserve_pool"]);
}

#[test]
fn a_minimum_is_kept_for_a_database_with_a_user_of_its_own() {
    let script = ScriptedServer::start();
    let config = format!(
        "[databases.shop]\nport = {}\nuser = \"app\"\npool.min_size = 2\n",
        script.port()
    );
    let proxy = proxy_before(&script, &config);
    let _servers = [script.connection(), script.connection()];
    assert!(script.has_no_further_connection());
    // All its clients are served by one pool.
    client_of(&proxy, "postgres", "shop");
    assert!(script.has_no_further_connection());
}

#[test]
fn who_comes_while_logins_fail_reads_why_at_once_and_who_waits_goes_on_waiting() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let proxy =
        Proxy::with(&ConfigText::for_port(port).and("[pool]\nserver_login_retry = \"1s\"\n"));
    let address = proxy.address();
    let waits = std::thread::spawn(move || ScriptedClient::connect(address));
    proxy.wait_for_log(&["closing because: connect failed"]);
    assert_eq!(
        is_refused(&proxy, "app", "app").as_deref(),
        Some("server login has been failing, cached error: connect failed (server_login_retry)")
    );
    let _script = ScriptedServer::start_at(port);
    waits.join().unwrap();
}

#[test]
fn who_waits_for_long_is_told_so() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(
        &script,
        "[pool]\nsize = 1\nquery_wait_notify = \"50ms\"\ncheckout_timeout = \"300ms\"\n",
    );
    let mut ann = ScriptedClient::connect(proxy.address());
    let mut anns = script.connection();
    asks(&mut ann, &mut anns, "SELECT 1");
    let mut bob = ScriptedClient::connect(proxy.address());
    begins(&mut ann, &mut anns);
    bob.send(query("SELECT 'bob'"));
    let told = bob.receive();
    assert_eq!(
        (told.tag(), field_of(&told, b'C').as_deref()),
        (b'N', Some("00000"))
    );
    assert_eq!(
        field_of(&told, b'M').as_deref(),
        Some("No server connection available in postgres backend, client being queued")
    );
    let refused = bob.receive();
    assert_eq!(
        field_of(&refused, b'M').as_deref(),
        Some("query_wait_timeout")
    );
    assert_eq!(field_of(&refused, b'C').as_deref(), Some("08P01"));
}

#[test]
fn a_transaction_is_refused_in_statement_mode() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(&script, "[pool]\nmode = \"statement\"\n");
    let mut ann = ScriptedClient::connect(proxy.address());
    let mut anns = script.connection();
    asks(&mut ann, &mut anns, "SELECT 1");
    ann.send(query("BEGIN"));
    anns.expect(query("BEGIN"));
    anns.send_all([command_complete("BEGIN"), ready(b'T')]);
    ann.expect(command_complete("BEGIN"));
    let refused = ann.receive();
    assert_eq!(
        field_of(&refused, b'M').as_deref(),
        Some("transaction blocks not allowed in statement pooling mode")
    );
    anns.expect(terminate()).expect_end();
}

#[test]
fn a_server_that_has_rested_is_asked_before_it_is_used() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(
        &script,
        "[pool]\nserver_check_delay = \"0\"\nserver_check_query = \"SELECT 'alive'\"\n",
    );
    let mut ann = ScriptedClient::connect(proxy.address());
    let mut first = script.connection();
    ann.send(query("SELECT 'ann'"));
    first.expect(query("SELECT 'alive'"));
    first.send_all(one_row("alive"));
    first.expect(query("SELECT 'ann'"));
    first.send_all(one_row("ann"));
    ann.expect_all(one_row("ann"));
    // The next time it says nonsense: another one is connected.
    ann.send(query("SELECT 'ann'"));
    first.expect(query("SELECT 'alive'"));
    first.send_all([fatal("57P01", "terminating"), ready(b'I')]);
    let mut second = script.connection();
    second.expect(query("SELECT 'ann'"));
}

#[test]
fn every_server_is_reset_where_that_is_wanted_and_asked_first_what_is_wanted() {
    let script = ScriptedServer::start();
    let proxy = proxy_before(
        &script,
        "[pool]\nserver_reset_query_always = true\nserver_reset_query = \"RESET ALL\"\nconnect_query = \"SET a = 1\"\n",
    );
    let address = proxy.address();
    let ann = std::thread::spawn(move || ScriptedClient::connect(address));
    let mut server = script.connection();
    server.expect(query("SET a = 1"));
    server.send_all([command_complete("SET"), ready(b'I')]);
    server.expect(query("RESET ALL"));
    server.send_all([command_complete("RESET"), ready(b'I')]);
    let mut ann = ann.join().unwrap();
    asks(&mut ann, &mut server, "SELECT 1");
    server.expect(query("RESET ALL"));
    server.send_all([command_complete("RESET"), ready(b'I')]);
    asks(&mut ann, &mut server, "SELECT 2");
}
