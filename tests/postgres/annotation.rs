use tokio_postgres::error::ErrorPosition;
use tokio_postgres::types::Type;

use crate::support::postgres::{psql, shared, statements_with};
use crate::support::proxy::Proxy;
use crate::support::{TRACE_ID, TRACEPARENT};
use crate::{connect, connect_with};

fn traced(proxy: &Proxy, more: &str) -> String {
    proxy.conninfo(&format!(
        "user=app dbname=app options='-c pgspan.traceparent={TRACEPARENT} {more}'"
    ))
}

#[test]
fn pg_stat_statements_says_whose_query_it_is() {
    let proxy = Proxy::in_front_of(shared(), "");
    let tags = "-c pgspan.tags=application=\\'shop\\',route=\\'%2Fcart\\'";
    let said = psql(&traced(&proxy, tags), "SELECT 'unmistakable', 1;");
    assert!(said.succeeded, "{said:?}");
    assert_eq!(
        statements_with(shared(), "application='shop'"),
        [format!(
            "SELECT $1, $2 /*application='shop',route='%2Fcart',traceparent='{TRACEPARENT}'*/"
        )]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_stay_as_they_are() {
    let proxy = Proxy::in_front_of(shared(), "");
    let client = connect_with(
        &proxy,
        &format!("options='-c pgspan.traceparent={TRACEPARENT}'"),
    )
    .await
    .unwrap();
    let row = client
        .query_one("SELECT current_query() || $1::text", &[&""])
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "SELECT current_query() || $1::text");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unnamed_statement_is_annotated_where_that_is_wished_for() {
    let config = "[annotation]\nunnamed_parse = true\nplacement = \"prefix\"\n";
    let proxy = Proxy::in_front_of(shared(), config);
    let options = format!("options='-c pgspan.traceparent={TRACEPARENT}'");
    let client = connect_with(&proxy, &options).await.unwrap();
    let text = "SELECT current_query() || $1::text";
    let row = client.query_typed(text, &[(&"", Type::TEXT)]).await;
    let told = row.unwrap()[0].get::<_, String>(0);
    assert!(told.contains(TRACEPARENT) && told.ends_with(text), "{told}");
    let error = client.query_typed("SELECT nosuch", &[]).await.unwrap_err();
    let position = error.as_db_error().unwrap().position();
    assert_eq!(position, Some(&ErrorPosition::Original(8)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_name_that_is_a_traceparent_stays_here() {
    let proxy = Proxy::in_front_of(shared(), "");
    let client = connect_with(&proxy, "application_name=shop").await.unwrap();
    client
        .batch_execute(&format!("SET application_name = '{TRACEPARENT}'"))
        .await
        .unwrap();
    assert_eq!(
        crate::value(
            &client,
            "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"
        )
        .await,
        "shop"
    );
    assert!(
        crate::value(&client, "SELECT current_query()")
            .await
            .contains(TRACE_ID)
    );
}

#[test]
fn psql_shows_the_same_caret() {
    let proxy = Proxy::in_front_of(shared(), "");
    let direct = format!(
        "host=127.0.0.1 port={} user=app dbname=app",
        shared().port()
    );
    for sql in [
        "SELECT 1 + nosuch",
        "SELECT 'äöü', nosuch FROM pg_class",
        "SELECT 1; SELECT 2; SELEC 3",
        "SELECT 1 FROM pg_class WHERE",
        "SELECT 1 +;",
        "SELECT 'abc",
    ] {
        let (expected, actual) = (psql(&direct, sql), psql(&traced(&proxy, ""), sql));
        assert_eq!(actual, expected, "{sql}");
    }
}

#[test]
fn a_prefix_is_at_the_start() {
    let proxy = Proxy::in_front_of(
        shared(),
        "[annotation]\nplacement = \"prefix\"\nformat = \"plain\"\n",
    );
    let said = psql(
        &traced(&proxy, "-c pgspan.correlation_id=order-7"),
        "SELECT current_query()",
    );
    assert_eq!(
        said.stdout,
        format!("/* trace_id: {TRACE_ID}, correlation_id: order-7 */ SELECT current_query()\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_context_ends_with_its_transaction() {
    let proxy = Proxy::in_front_of(shared(), "");
    let client = connect(&proxy).await;
    client
        .batch_execute(&format!(
            "BEGIN; SET LOCAL pgspan.traceparent = '{TRACEPARENT}'"
        ))
        .await
        .unwrap();
    assert!(
        crate::value(&client, "SELECT current_query()")
            .await
            .contains(TRACE_ID)
    );
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(
        crate::value(&client, "SELECT current_query()").await,
        "SELECT current_query()"
    );
}

#[test]
fn utility_statements_are_annotated_where_the_server_counts_them_by_what_they_do() {
    let proxy = Proxy::in_front_of(shared(), "");
    let version = shared().psql("app", "SHOW server_version_num").unwrap();
    let is_annotated = version.trim().parse::<u32>().unwrap() >= 160_000;
    let does = "DO $$ BEGIN RAISE NOTICE '%', current_query(); END $$";
    let said = psql(&traced(&proxy, ""), does);
    assert!(said.succeeded, "{said:?}");
    assert_eq!(said.stderr.contains(TRACE_ID), is_annotated, "{said:?}");
}
