//! The proxy between a scripted client and a scripted server; and the test support itself.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod attackers;
mod hosts;
mod limits;
mod listening;
mod losses;
mod proxying;
mod reload;
mod time_limits;

use support::messages::{command_complete, query, ready, row, row_description};
use support::postgres::shared;
use support::scripted::{ScriptedClient, ScriptedServer, secret_of};

#[test]
fn the_shared_server_answers_and_keeps_statement_texts() {
    let postgres = shared();
    assert_eq!(
        postgres.psql("app", "SELECT 41 + 1 /* mark */;").unwrap(),
        "42\n"
    );
    assert_eq!(
        support::postgres::statements_with(postgres, "mark"),
        ["SELECT $1 + $2 /* mark */"]
    );
}

#[test]
fn scripted_peers_talk_to_each_other() {
    let server = ScriptedServer::start();
    let mut client = ScriptedClient::connect(([127, 0, 0, 1], server.port()).into());
    let mut server = server.connection();
    assert_eq!(
        client.key,
        [&1_u32.to_be_bytes()[..], &secret_of(1)].concat()
    );
    client.send(query("SELECT 1"));
    server.expect(query("SELECT 1"));
    let reply = [
        row_description(&["a"]),
        row(&[Some("1")]),
        command_complete("SELECT 1"),
        ready(b'I'),
    ];
    server.send_all(reply.clone());
    client.expect_all(reply);
}
