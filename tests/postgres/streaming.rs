use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::messages::{copy_data, copy_done, query};
use crate::support::postgres::{Binaries, psql, run, shared};
use crate::support::proxy::Proxy;
use crate::support::scripted::ScriptedClient;

/// What the proxy may use beside what it used before, however large a message is.
const MEMORY_BOUND: u64 = 24 << 20;

#[test]
fn a_row_of_100_mb_passes_through_a_bounded_buffer() {
    let proxy = Proxy::in_front_of(shared(), "");
    let mut client = ScriptedClient::connect(proxy.address());
    client.send(query("SELECT 1"));
    client.receive_reply();
    let before = proxy.peak_memory();
    client.send(query("SELECT repeat('x', 100000000)"));
    let reply = client.receive_reply();
    let tags: Vec<u8> = reply.iter().map(|message| message.tag()).collect();
    assert_eq!(tags, b"TDCZ");
    assert_eq!(reply[1].body().len(), 2 + 4 + 100_000_000);
    let grown = proxy.peak_memory() - before;
    assert!(grown < MEMORY_BOUND, "{grown} bytes more");
}

#[test]
fn a_slow_reader_does_not_fill_the_proxys_memory() {
    let proxy = Proxy::in_front_of(shared(), "");
    let mut client = ScriptedClient::connect(proxy.address());
    let before = proxy.peak_memory();
    client.send(query(
        "SELECT repeat('x', 1000000) FROM generate_series(1, 100)",
    ));
    // Nobody reads, while others are served.
    for _ in 0..5 {
        assert_eq!(
            psql(&proxy.conninfo("user=app dbname=app"), "SELECT 1").stdout,
            "1\n"
        );
    }
    let grown = proxy.peak_memory() - before;
    assert!(grown < MEMORY_BOUND, "{grown} bytes more");
    assert_eq!(client.receive_reply().len(), 1 + 100 + 2);
}

#[test]
fn copy_of_100_mb_in_and_out_is_complete_and_bounded() {
    let proxy = Proxy::in_front_of(shared(), "");
    let mut client = ScriptedClient::connect(proxy.address());
    client.send(query(
        "BEGIN; CREATE TEMP TABLE t (a text); COPY t FROM STDIN",
    ));
    while client.receive().tag() != b'G' {}
    let before = proxy.peak_memory();
    let line = [&[b'y'; 99_999][..], b"\n"].concat();
    for _ in 0..1000 {
        client.send(copy_data(&line));
    }
    client.send(copy_done());
    client.receive_reply();
    client.send(query("COPY t TO STDOUT"));
    let copied: usize = client
        .receive_reply()
        .iter()
        .filter(|message| message.tag() == b'd')
        .map(|message| message.body().len())
        .sum();
    assert_eq!(copied, 100_000_000);
    client.send(query("ROLLBACK"));
    client.receive_reply();
    let grown = proxy.peak_memory() - before;
    assert!(grown < MEMORY_BOUND, "{grown} bytes more");
}

#[test]
fn psql_copies_both_ways() {
    let proxy = Proxy::in_front_of(shared(), "");
    let conninfo = proxy.conninfo("user=app dbname=app");
    let mut command = Binaries::find().unwrap().command("psql");
    command
        .args(["-X", "-q", "-A", "-t", "-d", &conninfo])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut psql = command.spawn().unwrap();
    let script = "CREATE TEMP TABLE t (a int, b text);\n\\copy t FROM STDIN\n1\tone\n2\ttwo\n\\.\n\\copy (SELECT * FROM t ORDER BY a) TO STDOUT\n";
    psql.stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    let output = psql.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\tone\n2\ttwo\n");
}

#[test]
fn pgbench_runs_in_every_query_mode() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 3\n");
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script.sql");
    std::fs::write(
        &script,
        "\\set n random(1, 100)\nBEGIN;\nSELECT :n + 1;\nSELECT :n * 2;\nCOMMIT;\n",
    )
    .unwrap();
    for mode in ["simple", "extended", "prepared"] {
        // A thread for each client: pgbench prepares without letting the others of its thread go on, which may hold all servers.
        let mut pgbench: Command = Binaries::find().unwrap().command("pgbench");
        pgbench
            .args(["-n", "-c", "8", "-j", "8", "-t", "50", "-M", mode, "-f"])
            .arg(&script);
        let said = run(pgbench.arg(proxy.conninfo("user=app dbname=app")));
        assert!(
            said.succeeded
                && said
                    .stdout
                    .contains("number of transactions actually processed: 400/400"),
            "{mode}: {said:?}"
        );
    }
}
