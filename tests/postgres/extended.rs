use crate::support::postgres::shared;
use crate::support::proxy::Proxy;
use crate::support::{SPAN_ID, TRACE_ID, TRACEPARENT};
use crate::{connect, value};

const SERVERS_OWN: &str =
    "SELECT setting FROM (SELECT current_setting('pgspan.traceparent', true)) AS own (setting)";

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_set_over_the_extended_protocol_is_that_of_the_queries_behind_it() {
    for mode in ["transaction", "session"] {
        let proxy = Proxy::in_front_of(
            shared(),
            &format!("[pool]\nmode = \"{mode}\"\nsize = 1\n[slow_query]\nthreshold = \"50ms\"\n"),
        );
        let client = connect(&proxy).await;
        let set = format!("SET pgspan.traceparent = '{TRACEPARENT}'");
        client.execute(&set, &[]).await.unwrap();
        client.query("SELECT pg_sleep(0.1)", &[]).await.unwrap();
        let line = proxy.wait_for_log(&["slow_query", TRACE_ID]);
        assert!(line.contains("pg_sleep"), "{line}");
        let row = client.query_one(SERVERS_OWN, &[]).await.unwrap();
        assert_eq!(row.get::<_, Option<String>>(0), None, "{mode}");
        let shown = client.query_one("SHOW pgspan.traceparent", &[]).await;
        assert_eq!(shown.unwrap().get::<_, String>(0), TRACEPARENT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_is_a_parameter_of_set_config_is_the_clients_alone() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    let (ann, bob) = (connect(&proxy).await, connect(&proxy).await);
    let set = ann
        .prepare("SELECT set_config('pgspan.traceparent', $1, false)")
        .await
        .unwrap();
    for number in 1..4 {
        let traceparent = format!("00-{}-{SPAN_ID}-01", number.to_string().repeat(32));
        let row = ann.query_one(&set, &[&traceparent]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), traceparent);
        assert_eq!(value(&ann, "SHOW pgspan.traceparent").await, traceparent);
    }
    let row = bob.query_one(SERVERS_OWN, &[]).await.unwrap();
    assert_eq!(row.get::<_, Option<String>>(0), None);
    let error = bob.query_one("SHOW pgspan.traceparent", &[]).await;
    assert_eq!(error.unwrap_err().code().unwrap().code(), "42704");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_set_while_no_server_can_be_had() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    let (ann, bob) = (connect(&proxy).await, connect(&proxy).await);
    bob.batch_execute("BEGIN").await.unwrap();
    let set = format!("SET pgspan.traceparent = '{TRACEPARENT}'");
    ann.execute(&set, &[]).await.unwrap();
    assert_eq!(value(&ann, "SHOW pgspan.traceparent").await, TRACEPARENT);
    bob.batch_execute("COMMIT").await.unwrap();
}
