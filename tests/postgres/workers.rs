//! Pools that are spread over two workers.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use crate::pooling::servers_of_many;
use crate::support::eventually;
use crate::support::postgres::shared;
use crate::support::proxy::Proxy;
use crate::{connect, connect_with, value};

/// A pool of so many servers, over two workers.
fn spread(size: usize, more: &str) -> Proxy {
    let config = format!(
        "[workers]\ncount = 2\nmin_servers_each = 1\n[pool]\nsize = {size}\nserver_check_delay = \"1h\"\n{more}\n"
    );
    Proxy::in_front_of(shared(), &config)
}

async fn server(client: &Client) -> String {
    value(client, "SELECT pg_backend_pid()").await
}

async fn begin(client: &Client) {
    client.batch_execute("BEGIN").await.unwrap();
}

async fn commit(client: &Client) {
    client.batch_execute("COMMIT").await.unwrap();
}

/// Servers of the pool that were `opened`, or `moved`.
fn counted(proxy: &Proxy, how: &str) -> f64 {
    proxy.metric(&format!("pgspan_servers_{how}_total"), &["user=\"app\""])
}

fn wait_for_waiting(proxy: &Proxy, clients: f64) {
    tokio::task::block_in_place(|| {
        let waiting = || proxy.metric("pgspan_pool_waiting_clients", &["user=\"app\""]);
        eventually(|| (waiting() == clients).then_some(())).expect("clients wait");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_never_more_servers_than_the_pool_may_have() {
    let proxy = spread(3, "");
    assert_eq!(servers_of_many(&proxy).await.len(), 3);
    assert_eq!(counted(&proxy, "opened"), 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_goes_to_the_worker_where_a_client_waits() {
    let proxy = spread(2, "");
    // Dealt in turn: the first and the third are at the same worker.
    let (ann, bob, cyd) = (
        connect(&proxy).await,
        connect(&proxy).await,
        connect(&proxy).await,
    );
    begin(&ann).await;
    begin(&bob).await;
    let (anns, bobs) = (server(&ann).await, server(&bob).await);
    assert_ne!(anns, bobs);
    commit(&bob).await;
    // The second worker's server rests, and comes.
    let moved = counted(&proxy, "moved");
    begin(&cyd).await;
    assert_eq!(server(&cyd).await, bobs);
    // The second worker has none any more: one that comes back to the first one goes there.
    let waiting = tokio::spawn(async move { server(&bob).await });
    wait_for_waiting(&proxy, 1.0);
    commit(&ann).await;
    assert_eq!(waiting.await.unwrap(), anns);
    commit(&cyd).await;
    assert_eq!(counted(&proxy, "moved"), moved + 2.0);
    assert_eq!(counted(&proxy, "opened"), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_waited_longer_is_served_first_also_at_another_worker() {
    let proxy = spread(2, "");
    let (ann, bob, cyd, dan) = (
        connect(&proxy).await,
        connect(&proxy).await,
        connect(&proxy).await,
        connect(&proxy).await,
    );
    begin(&ann).await;
    begin(&bob).await;
    let anns = server(&ann).await;
    let dans = tokio::spawn(async move {
        begin(&dan).await;
        (server(&dan).await, dan)
    });
    wait_for_waiting(&proxy, 1.0);
    // So much longer has he waited that he comes first.
    tokio::task::block_in_place(|| {
        let oldest = || proxy.metric("pgspan_pool_oldest_wait_seconds", &["user=\"app\""]);
        eventually(|| (oldest() >= 0.02).then_some(())).expect("he waits");
    });
    let cyds = tokio::spawn(async move { server(&cyd).await });
    wait_for_waiting(&proxy, 2.0);
    // Of Ann's worker, where Cyd waits.
    commit(&ann).await;
    let (dans, dan) = dans.await.unwrap();
    assert_eq!(dans, anns);
    wait_for_waiting(&proxy, 1.0);
    commit(&dan).await;
    commit(&bob).await;
    cyds.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_and_settings_stay_a_clients_own_on_servers_that_move() {
    let proxy = spread(2, "max_prepared_statements = 3");
    // Leaves one server for both workers.
    let holder = connect(&proxy).await;
    begin(&holder).await;
    let mut tasks = Vec::new();
    for number in 0..6 {
        let zone = format!("Etc/GMT+{number}");
        let startup = format!("options='-c TimeZone={zone}'");
        let client = connect_with(&proxy, &startup).await.unwrap();
        tasks.push(tokio::spawn(async move {
            let mut statements = Vec::new();
            for own in 0..4 {
                let text = format!(
                    "SELECT {number}{own}, $1::int, current_setting('TimeZone') FROM pg_sleep(0.001)"
                );
                statements.push(client.prepare(&text).await.unwrap());
            }
            for round in 0..40 {
                let own = round % 4;
                let statement = statements.get(own).unwrap();
                let round = i32::try_from(round).unwrap();
                let row = client.query_one(statement, &[&round]).await.unwrap();
                let expected = format!("{number}{own}").parse::<i32>().unwrap();
                assert_eq!((row.get(0), row.get(1)), (expected, round));
                assert_eq!(row.get::<_, &str>(2), zone);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert!(counted(&proxy, "moved") > 0.0);
    assert_eq!(counted(&proxy, "opened"), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_sees_one_pool() {
    let proxy = spread(2, "[console]\nadmin_users = [\"app\"]");
    let (ann, bob) = (connect(&proxy).await, connect(&proxy).await);
    begin(&ann).await;
    begin(&bob).await;
    let before = BTreeSet::from([server(&ann).await, server(&bob).await]);
    let console = connect_with(&proxy, "dbname=pgbouncer").await.unwrap();
    let pools = console.simple_query("SHOW POOLS").await.unwrap();
    let of_app = pools.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) if row.get("database") == Some("app") => {
            Some((row.get("cl_active"), row.get("sv_active")))
        }
        _ => None,
    });
    assert_eq!(of_app.collect::<Vec<_>>(), [(Some("2"), Some("2"))]);
    console.batch_execute("RECONNECT").await.unwrap();
    commit(&ann).await;
    commit(&bob).await;
    console.batch_execute("WAIT_CLOSE").await.unwrap();
    begin(&ann).await;
    let after = BTreeSet::from([server(&ann).await, server(&bob).await]);
    assert!(before.is_disjoint(&after), "{before:?} {after:?}");
}
