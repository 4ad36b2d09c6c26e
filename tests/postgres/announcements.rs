use crate::connect_with;
use crate::support::TRACEPARENT;
use crate::support::postgres::shared;
use crate::support::proxy::Proxy;

const NAME: &str = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()";

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_are_announced_in_application_name_and_clients_keep_theirs() {
    let config =
        "[pool]\nmode = \"transaction\"\nsize = 1\n[annotation]\nprepared = \"application_name\"\n";
    let proxy = Proxy::in_front_of(shared(), config);
    let traced = format!("application_name=ann options='-c pgspan.traceparent={TRACEPARENT}'");
    let ann = connect_with(&proxy, &traced).await.unwrap();
    let bob = connect_with(&proxy, "application_name=bob").await.unwrap();
    let prepared = ann.prepare(NAME).await.unwrap();
    let name = |row: tokio_postgres::Row| row.get::<_, String>(0);
    for _ in 0..3 {
        assert_eq!(
            name(ann.query_one(&prepared, &[]).await.unwrap()),
            TRACEPARENT
        );
        assert_eq!(name(bob.query_one(NAME, &[]).await.unwrap()), "bob");
    }

    // Inside a transaction the server is never told anything.
    ann.batch_execute("BEGIN").await.unwrap();
    let other = "00-11111111111111111111111111111111-1111111111111111-01";
    let set = format!("SET LOCAL pgspan.traceparent = '{other}'");
    ann.batch_execute(&set).await.unwrap();
    assert_eq!(
        name(ann.query_one(&prepared, &[]).await.unwrap()),
        TRACEPARENT
    );
    ann.batch_execute("COMMIT").await.unwrap();

    ann.batch_execute(&format!("SET pgspan.traceparent = '{other}'"))
        .await
        .unwrap();
    assert_eq!(name(ann.query_one(&prepared, &[]).await.unwrap()), other);
    ann.batch_execute("SET pgspan.traceparent = ''")
        .await
        .unwrap();
    assert_eq!(name(ann.query_one(&prepared, &[]).await.unwrap()), "ann");
    ann.batch_execute("DISCARD ALL").await.unwrap();
    let again = ann.prepare(NAME).await.unwrap();
    assert_eq!(name(ann.query_one(&again, &[]).await.unwrap()), TRACEPARENT);
    assert_eq!(name(bob.query_one(NAME, &[]).await.unwrap()), "bob");
}

#[tokio::test(flavor = "multi_thread")]
async fn pg_tracing_gets_the_form_that_it_reads() {
    let config = "[annotation]\nprepared = \"pg_tracing\"\n";
    let proxy = Proxy::in_front_of(shared(), config);
    let traced = format!("options='-c pgspan.traceparent={TRACEPARENT}'");
    let ann = connect_with(&proxy, &traced).await.unwrap();
    let row = ann.query_one("SELECT current_setting('pg_tracing.trace_context')", &[]);
    let value: String = row.await.unwrap().get(0);
    assert_eq!(value, format!("traceparent='{TRACEPARENT}'"));
}
