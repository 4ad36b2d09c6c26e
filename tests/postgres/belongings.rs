use crate::support::postgres::{psql, shared};
use crate::support::proxy::Proxy;
use crate::{connect, value};

fn pinned(proxy: &Proxy) -> f64 {
    proxy.metric("pgspan_pool_pinned_servers", &["user=\"app\""])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_stays_with_its_client_until_what_it_left_there_is_gone() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 2\n");
    let (ann, bob) = (connect(&proxy).await, connect(&proxy).await);
    for (leave, undo) in [
        ("CREATE TEMP TABLE mine AS SELECT 1", "DROP TABLE mine"),
        ("SELECT 1 AS a INTO TEMP mine", "DISCARD TEMP"),
        ("LISTEN channel", "UNLISTEN *"),
        ("PREPARE p AS SELECT 1", "DEALLOCATE p"),
        (
            "SELECT pg_advisory_lock(77)",
            "SELECT pg_advisory_unlock(77)",
        ),
        ("BEGIN; CREATE TEMP TABLE mine (a int)", "ROLLBACK"),
    ] {
        ann.batch_execute(leave).await.unwrap();
        let server = value(&ann, "SELECT pg_backend_pid()").await;
        assert_ne!(
            value(&bob, "SELECT pg_backend_pid()").await,
            server,
            "{leave}"
        );
        assert_eq!(
            value(&ann, "SELECT pg_backend_pid()").await,
            server,
            "{leave}"
        );
        ann.batch_execute(undo).await.unwrap();
        // The answer of the server has to come first.
        crate::support::eventually(|| (pinned(&proxy) == 0.0).then_some(())).expect(undo);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_would_keep_one_server_too_many_is_sent_away() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 3\nmax_pinned_servers = 1\n");
    let (ann, bob, cyd) = (
        connect(&proxy).await,
        connect(&proxy).await,
        connect(&proxy).await,
    );
    ann.batch_execute("LISTEN a").await.unwrap();
    crate::support::eventually(|| (pinned(&proxy) == 1.0).then_some(())).expect("it is counted");
    bob.batch_execute("LISTEN b").await.unwrap();
    let refused = bob.simple_query("SELECT 1").await.unwrap_err();
    assert!(refused.is_closed() || refused.code().is_some_and(|code| code.code() == "53400"));
    assert_eq!(
        proxy.metric("pgspan_pins_refused_total", &["user=\"app\""]),
        1.0
    );
    let listening = "SELECT count(*) FROM pg_listening_channels()";
    assert_eq!(value(&cyd, listening).await, "0");
    assert_eq!(value(&ann, listening).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_leaves_reaches_the_next_one_or_is_gone_as_the_pool_says() {
    for (state, seen_by_the_next, seen_by_itself) in [
        ("leak", "mine", "mine"),
        ("reset", "\"$user\", public", "\"$user\", public"),
        ("track", "\"$user\", public", "mine"),
    ] {
        let config = format!("[pool]\nsize = 1\nsession_state = \"{state}\"\n");
        let proxy = Proxy::in_front_of(shared(), &config);
        let (ann, bob) = (connect(&proxy).await, connect(&proxy).await);
        ann.batch_execute("SET search_path = mine").await.unwrap();
        assert_eq!(
            value(&bob, "SHOW search_path").await,
            seen_by_the_next,
            "{state}"
        );
        assert_eq!(
            value(&ann, "SHOW search_path").await,
            seen_by_itself,
            "{state}"
        );
    }
}

#[test]
fn a_connection_for_replication_has_a_server_of_its_own_in_the_pool() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    let ordinary = proxy.conninfo("user=postgres dbname=app");
    let server = psql(&ordinary, "SELECT pg_backend_pid()").stdout;
    for _ in 0..2 {
        let conninfo = format!("{ordinary} replication=database application_name=standby");
        let said = psql(&conninfo, "SHOW application_name");
        assert_eq!((said.stdout.trim(), said.stderr.trim()), ("standby", ""));
        let said = psql(&conninfo, "IDENTIFY_SYSTEM");
        assert!(said.stdout.trim().ends_with("|app"), "{said:?}");
        assert!(!psql(&conninfo, "IDENTIFY_SYSTEM; nonsense").succeeded);
    }
    // Its place is free again.
    assert_ne!(psql(&ordinary, "SELECT pg_backend_pid()").stdout, server);
    let closed = proxy.metric(
        "pgspan_servers_closed_total",
        &["reason=\"dedicated\"", "user=\"postgres\""],
    );
    assert_eq!(closed, 6.0);
}
