use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::messages::{Message, bind, copy_data, execute, flush, parse, query, startup};
use crate::support::postgres::shared;
use crate::support::proxy::Proxy;
use crate::support::wire::Wire;
use crate::{connect, connect_with, value};

#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_many_clients_share_a_server() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    let mut servers = BTreeSet::new();
    let (ann, bob) = (connect(&proxy).await, connect(&proxy).await);
    for _ in 0..5 {
        servers.insert(value(&ann, "SELECT pg_backend_pid()").await);
        servers.insert(value(&bob, "SELECT pg_backend_pid()").await);
    }
    assert_eq!(servers.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_keeps_its_server() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 2\n");
    let (ann, bob) = (connect(&proxy).await, connect(&proxy).await);
    ann.batch_execute("BEGIN").await.unwrap();
    let server = value(&ann, "SELECT pg_backend_pid()").await;
    for _ in 0..5 {
        assert_ne!(value(&bob, "SELECT pg_backend_pid()").await, server);
        assert_eq!(value(&ann, "SELECT pg_backend_pid()").await, server);
    }
    ann.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_keeps_its_server() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nmode = \"session\"\nsize = 2\n");
    let (ann, bob) = (connect(&proxy).await, connect(&proxy).await);
    let server = value(&ann, "SELECT pg_backend_pid()").await;
    assert_ne!(value(&bob, "SELECT pg_backend_pid()").await, server);
    assert_eq!(value(&ann, "SELECT pg_backend_pid()").await, server);
}

/// The servers that many clients meet who ask at once.
pub(crate) async fn servers_of_many(proxy: &Proxy) -> BTreeSet<String> {
    let mut tasks = Vec::new();
    for _ in 0..12 {
        let client = connect(proxy).await;
        tasks.push(tokio::spawn(async move {
            let mut servers = BTreeSet::new();
            for _ in 0..20 {
                servers
                    .insert(value(&client, "SELECT pg_backend_pid() FROM pg_sleep(0.002)").await);
            }
            servers
        }));
    }
    let mut servers = BTreeSet::new();
    for task in tasks {
        servers.extend(task.await.unwrap());
    }
    servers
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_never_more_servers_than_the_pool_may_have() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 3\n");
    assert_eq!(servers_of_many(&proxy).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_waiting_client_is_served_first() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    let holder = connect(&proxy).await;
    holder
        .batch_execute("CREATE SEQUENCE served; BEGIN")
        .await
        .unwrap();
    let mut clients = Vec::new();
    for number in 0..5 {
        let client = connect(&proxy).await;
        // The server counts: in which order the clients' tasks read their replies says nothing.
        clients.push(tokio::spawn(async move {
            value(&client, "SELECT nextval('served')").await
        }));
        // The next one only asks when this one waits.
        let waiting = f64::from(number + 1);
        tokio::task::block_in_place(|| {
            let is_waiting =
                || (proxy.metric("pgspan_pool_waiting_clients", &[]) >= waiting).then_some(());
            crate::support::eventually(is_waiting).expect("the client waits");
        });
    }
    holder.batch_execute("COMMIT").await.unwrap();
    let mut order = Vec::new();
    for client in clients {
        order.push(client.await.unwrap());
    }
    assert_eq!(order, ["1", "2", "3", "4", "5"]);
    holder.batch_execute("DROP SEQUENCE served").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_is_told_so() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\ncheckout_timeout = \"300ms\"\n");
    let (holder, waiter) = (connect(&proxy).await, connect(&proxy).await);
    holder.batch_execute("BEGIN").await.unwrap();
    let error = waiter.simple_query("SELECT 1").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(
        (error.message(), error.code().code()),
        ("query_wait_timeout", "08P01")
    );
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(value(&holder, "SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_client_sets_is_not_seen_by_the_next() {
    for mode in ["transaction", "session"] {
        let proxy = Proxy::in_front_of(shared(), &format!("[pool]\nmode = \"{mode}\"\nsize = 1\n"));
        let ann = connect(&proxy).await;
        ann.batch_execute("SET datestyle = 'german'; SET application_name = 'ann'")
            .await
            .unwrap();
        assert_eq!(value(&ann, "SELECT DATE '2026-02-01'").await, "01.02.2026");
        if mode == "session" {
            drop(ann);
            let bob = connect(&proxy).await;
            assert_eq!(
                value(&bob, "SELECT DATE '2026-02-01'").await,
                "2026-02-01",
                "{mode}"
            );
            continue;
        }
        let bob = connect(&proxy).await;
        assert_eq!(
            value(&bob, "SELECT DATE '2026-02-01'").await,
            "2026-02-01",
            "{mode}"
        );
        assert_eq!(value(&bob, "SHOW application_name").await, "", "{mode}");
        assert_eq!(
            value(&ann, "SELECT DATE '2026-02-01'").await,
            "01.02.2026",
            "{mode}"
        );
        assert_eq!(value(&ann, "SHOW application_name").await, "ann", "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_transaction_is_rolled_back_before_the_next_client() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    shared()
        .psql(
            "app",
            "CREATE TABLE IF NOT EXISTS abandoned (a int); GRANT ALL ON abandoned TO app",
        )
        .unwrap();
    let ann = connect(&proxy).await;
    ann.batch_execute("BEGIN; INSERT INTO abandoned VALUES (1)")
        .await
        .unwrap();
    drop(ann);
    let bob = connect(&proxy).await;
    assert_eq!(value(&bob, "SELECT count(*) FROM abandoned").await, "0");
    bob.batch_execute("BEGIN; COMMIT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_died_is_replaced() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    let client = connect(&proxy).await;
    let server = value(&client, "SELECT pg_backend_pid()").await;
    shared()
        .psql(
            "app",
            &format!("SELECT pg_terminate_backend({server}, 10000)"),
        )
        .unwrap();
    assert_ne!(value(&client, "SELECT pg_backend_pid()").await, server);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_sets_follows_it_and_reset_goes_back_to_its_connection_string() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    let bob = connect(&proxy).await;
    let default = value(&bob, "SHOW work_mem").await;
    let ann = connect_with(&proxy, "options='-c work_mem=20MB'")
        .await
        .unwrap();
    assert_eq!(value(&ann, "SHOW work_mem").await, "20MB");
    ann.batch_execute("SET work_mem = '1MB'").await.unwrap();
    assert_eq!(value(&bob, "SHOW work_mem").await, default);
    assert_eq!(value(&ann, "SHOW work_mem").await, "1MB");
    ann.batch_execute("BEGIN; SET work_mem = '2MB'")
        .await
        .unwrap();
    ann.batch_execute("RESET work_mem").await.unwrap();
    assert_eq!(value(&ann, "SHOW work_mem").await, "20MB");
    ann.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(value(&ann, "SHOW work_mem").await, "1MB");
    ann.execute("RESET ALL", &[]).await.unwrap();
    assert_eq!(value(&ann, "SHOW work_mem").await, "20MB");
    for extended in [false, true] {
        ann.batch_execute("BEGIN; SET work_mem = '2MB'")
            .await
            .unwrap();
        let back = "SET LOCAL work_mem TO DEFAULT";
        match extended {
            true => drop(ann.execute(back, &[]).await.unwrap()),
            false => ann.batch_execute(back).await.unwrap(),
        }
        assert_eq!(value(&ann, "SHOW work_mem").await, "20MB");
        ann.batch_execute("COMMIT").await.unwrap();
        assert_eq!(value(&ann, "SHOW work_mem").await, "2MB");
        ann.batch_execute("RESET work_mem").await.unwrap();
    }
    value(&ann, "SELECT set_config('work_mem', '3MB', false)").await;
    assert_eq!(value(&bob, "SHOW work_mem").await, default);
    assert_eq!(value(&ann, "SHOW work_mem").await, "3MB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_takes_too_long_does_not_go_on_on_the_server() {
    for mode in ["transaction", "session"] {
        let limits = format!("[pool]\nmode = \"{mode}\"\nsize = 2\nquery_timeout = \"200ms\"\n");
        let proxy = Proxy::in_front_of(shared(), &limits);
        let (ann, bob) = (connect(&proxy).await, connect(&proxy).await);
        ann.batch_execute("BEGIN").await.unwrap();
        let server = value(&ann, "SELECT pg_backend_pid()").await;
        let error = ann.simple_query("SELECT pg_sleep(60)").await.unwrap_err();
        let error = error.as_db_error().expect("the proxy's word");
        assert_eq!(
            (error.code().code(), error.message()),
            ("08P01", "query timeout")
        );
        let query = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {server}");
        while value(&bob, &query).await != "0" {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_client_is_silent_for_too_long_is_rolled_back() {
    let limits = "[pool]\nsize = 2\nidle_transaction_timeout = \"200ms\"\n";
    let proxy = Proxy::in_front_of(shared(), limits);
    let (ann, bob) = (connect(&proxy).await, connect(&proxy).await);
    ann.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(8711)")
        .await
        .unwrap();
    // Waits for as long as the transaction is open.
    bob.batch_execute("SELECT pg_advisory_xact_lock(8711)")
        .await
        .unwrap();
    let gone = ann.simple_query("SELECT 1").await;
    assert!(gone.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_gets_a_server_as_soon_as_there_can_be_one_again() {
    let setup = "CREATE DATABASE limited OWNER app CONNECTION LIMIT 1";
    shared().psql("postgres", setup).unwrap();
    let config = "[pool]\nsize = 2\nserver_login_retry = \"100ms\"\n";
    let proxy = Proxy::in_front_of(shared(), config);
    // The last word on a parameter counts.
    let ann = connect_with(&proxy, "dbname=limited").await.unwrap();
    let bob = connect_with(&proxy, "dbname=limited").await.unwrap();
    ann.batch_execute("BEGIN").await.unwrap();
    let server = value(&ann, "SELECT pg_backend_pid()").await;
    let waits = tokio::spawn(async move { value(&bob, "SELECT pg_backend_pid()").await });
    proxy.wait_for_log(&[
        "closing because: too many connections for database",
        "limited",
    ]);
    let lift = "ALTER DATABASE limited CONNECTION LIMIT -1";
    shared().psql("postgres", lift).unwrap();
    // While the only other server is still in a transaction.
    assert_ne!(waits.await.unwrap(), server);
    ann.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_room_is_not_starved_by_clients_that_never_let_a_server_rest() {
    let config =
        "[workers]\ncount = 2\n[pool]\nmax_database_connections = 1\ncheckout_timeout = \"20s\"\n";
    let proxy = Proxy::in_front_of(shared(), config);
    let is_over = Arc::new(AtomicBool::new(false));
    let mut busy = Vec::new();
    for _ in 0..4 {
        let (client, is_over) = (connect(&proxy).await, Arc::clone(&is_over));
        busy.push(tokio::spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                client
                    .batch_execute("SELECT pg_sleep(0.002)")
                    .await
                    .unwrap();
            }
        }));
    }
    for _ in 0..3 {
        let other = connect_with(&proxy, "user=md5_user").await.unwrap();
        assert_eq!(value(&other, "SELECT current_user").await, "md5_user");
    }
    is_over.store(true, Ordering::Relaxed);
    for client in busy {
        client.await.unwrap();
    }
    assert!(proxy.metric("pgspan_servers_closed_total", &["evicted", "user=\"app\""]) >= 1.0);
}

#[test]
fn what_a_client_had_begun_when_it_left_is_undone_and_its_server_serves_the_next() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    shared()
        .psql(
            "app",
            "CREATE TABLE begun (a int); GRANT ALL ON begun TO app",
        )
        .unwrap();
    let log_in = || {
        let mut wire = Wire::connect(proxy.address());
        wire.send(startup(&[("user", "app"), ("database", "app")]));
        wire.receive_reply();
        wire
    };
    let asked = |sql: &str| {
        let reply = log_in().send(query(sql)).receive_reply();
        let row = reply
            .into_iter()
            .find(|message| message.tag() == b'D')
            .unwrap();
        String::from_utf8_lossy(&row.body()[6..]).into_owned()
    };
    let server = asked("SELECT pg_backend_pid()");
    let run = |sql| [parse("", sql), bind("", "", &[]), execute("", 0)];
    let insert = "INSERT INTO begun VALUES (1)";
    let copy = "COPY begun FROM STDIN";
    // What is sent, and what it is left behind.
    let ways: Vec<(Vec<Message>, u8)> = vec![
        (vec![query(copy), copy_data(b"1\n")], b'G'),
        (
            vec![
                query("BEGIN"),
                query(insert),
                query(copy),
                copy_data(b"1\n"),
            ],
            b'G',
        ),
        (run(copy).into_iter().chain([flush()]).collect(), b'G'),
        (run(insert).into_iter().chain([flush()]).collect(), b'C'),
        (
            run(insert)
                .into_iter()
                .chain(run("SELECT 1 / 0"))
                .chain([flush()])
                .collect(),
            b'E',
        ),
        (
            run("BEGIN")
                .into_iter()
                .chain(run(insert))
                .chain([flush()])
                .collect(),
            b'2',
        ),
        (
            vec![query("BEGIN"), query(insert), query("SELECT 1 / 0")],
            b'E',
        ),
    ];
    for (sent, last) in ways {
        let mut client = log_in();
        let what = format!("{sent:?}");
        client.send_all(sent);
        while client.receive().tag() != last {}
        drop(client);
        assert_eq!(asked("SELECT count(*) FROM begun"), "0", "{what}");
        assert_eq!(asked("SELECT pg_backend_pid()"), server, "{what}");
    }
}
