use std::collections::BTreeSet;

use tokio_postgres::types::Type;

use crate::support::eventually;
use crate::support::messages::{query, startup, terminate};
use crate::support::postgres::shared;
use crate::support::proxy::Proxy;
use crate::support::wire::Wire;
use crate::{connect, connect_with, value};

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_statement_survives_a_change_of_server() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 3\n");
    let client = connect(&proxy).await;
    let statement = client
        .prepare("SELECT $1::int + 1, pg_backend_pid()")
        .await
        .unwrap();
    let mut servers = BTreeSet::new();
    let mut holders = Vec::new();
    for number in 0..3 {
        let row = client.query_one(&statement, &[&number]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), number + 1);
        servers.insert(row.get::<_, i32>(1));
        // Takes the server that has just been used: the client must go on with another one.
        if number < 2 {
            let holder = connect(&proxy).await;
            holder.batch_execute("BEGIN").await.unwrap();
            holders.push(holder);
        }
    }
    assert!(servers.len() >= 2, "{servers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_with_the_same_names_keep_their_own_statements() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    let (ann, bob) = (connect(&proxy).await, connect(&proxy).await);
    // tokio-postgres names them s0, s1, … in each connection.
    let of_ann = ann.prepare("SELECT 'ann'").await.unwrap();
    let of_bob = bob.prepare("SELECT 'bob'").await.unwrap();
    for _ in 0..3 {
        assert_eq!(
            ann.query_one(&of_ann, &[]).await.unwrap().get::<_, &str>(0),
            "ann"
        );
        assert_eq!(
            bob.query_one(&of_bob, &[]).await.unwrap().get::<_, &str>(0),
            "bob"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_statements_than_a_server_keeps() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\nmax_prepared_statements = 10\n");
    let client = connect(&proxy).await;
    let mut statements = Vec::new();
    for number in 0..50 {
        statements.push(client.prepare(&format!("SELECT {number}")).await.unwrap());
    }
    for _ in 0..2 {
        for (number, statement) in (0..).zip(&statements) {
            assert_eq!(
                client
                    .query_one(statement, &[])
                    .await
                    .unwrap()
                    .get::<_, i32>(0),
                number
            );
        }
    }
    let kept: u32 = value(&client, "SELECT count(*) FROM pg_prepared_statements")
        .await
        .parse()
        .unwrap();
    assert!(kept <= 10, "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_fails_leaves_the_others_alone() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    let client = connect(&proxy).await;
    let good = client.prepare("SELECT 1").await.unwrap();
    let error = client.prepare("SELECT nosuch").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42703");
    assert_eq!(
        client.query_one(&good, &[]).await.unwrap().get::<_, i32>(0),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_whose_result_has_changed_works_for_who_prepares_it_again() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    let (ann, bob) = (connect(&proxy).await, connect(&proxy).await);
    ann.batch_execute("CREATE TABLE changing (a int); INSERT INTO changing VALUES (1)")
        .await
        .unwrap();
    let sql = "SELECT * FROM changing";
    let (of_ann, of_bob) = (
        ann.prepare(sql).await.unwrap(),
        bob.prepare(sql).await.unwrap(),
    );
    assert_eq!(ann.query_one(&of_ann, &[]).await.unwrap().len(), 1);
    bob.batch_execute("ALTER TABLE changing ADD b int DEFAULT 7")
        .await
        .unwrap();
    for (client, statement) in [(&ann, &of_ann), (&bob, &of_bob), (&ann, &of_ann)] {
        let error = client.query_one(statement, &[]).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "0A000");
    }
    for client in [&ann, &bob] {
        let again = client.prepare(sql).await.unwrap();
        assert_eq!(
            client
                .query_one(&again, &[])
                .await
                .unwrap()
                .get::<_, i32>(1),
            7
        );
    }
    ann.batch_execute("DROP TABLE changing").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unnamed_statement_that_comes_again_is_parsed_once() {
    let config = "[pool]\nsize = 1\nunnamed_statements = \"cache\"\n";
    let proxy = Proxy::in_front_of(shared(), config);
    let client = connect(&proxy).await;
    for number in 0..20_i32 {
        let rows = client
            .query_typed("SELECT $1 + 1", &[(&number, Type::INT4)])
            .await
            .unwrap();
        assert_eq!(rows[0].get::<_, i32>(0), number + 1);
    }
    assert_eq!(
        proxy.metric("pgspan_server_parses_total", &["user=\"app\""]),
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_means_to_each_client_what_its_own_settings_make_of_it() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    let (berlin, tokyo) = (connect(&proxy).await, connect(&proxy).await);
    for (client, zone) in [(&berlin, "Europe/Berlin"), (&tokyo, "Asia/Tokyo")] {
        let set = format!(
            "SET TimeZone = '{zone}'; CREATE SCHEMA \"{zone}\"; SET search_path = \"{zone}\""
        );
        client.batch_execute(&set).await.unwrap();
    }
    berlin
        .batch_execute("CREATE TABLE t AS SELECT 1 AS a")
        .await
        .unwrap();
    tokyo
        .batch_execute("CREATE TABLE t AS SELECT 'one' AS a, 2 AS b")
        .await
        .unwrap();
    let moment = "SELECT extract(epoch FROM timestamptz '2020-01-01 00:00')::int";
    for (client, seconds, columns) in [(&berlin, 1_577_833_200, 1), (&tokyo, 1_577_804_400, 2)] {
        for _ in 0..2 {
            let row = client.query_one(moment, &[]).await.unwrap();
            assert_eq!(row.get::<_, i32>(0), seconds);
            let row = client.query_one("SELECT * FROM t", &[]).await.unwrap();
            assert_eq!(row.len(), columns);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_prepares_a_text_after_a_change_of_its_table_reads_the_new_one() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    let (ann, bob) = (connect(&proxy).await, connect(&proxy).await);
    // Who migrates has another pool.
    let owner = connect_with(&proxy, "user=md5_user").await.unwrap();
    shared()
        .psql("app", "GRANT CREATE ON SCHEMA public TO md5_user")
        .unwrap();
    owner
        .batch_execute("CREATE TABLE changing AS SELECT 1 AS a")
        .await
        .unwrap();
    owner
        .batch_execute("GRANT SELECT ON changing TO app")
        .await
        .unwrap();
    let text = "SELECT * FROM changing";
    let before = ann.prepare(text).await.unwrap();
    assert_eq!(ann.query_one(&before, &[]).await.unwrap().len(), 1);
    owner
        .batch_execute("ALTER TABLE changing ADD b int")
        .await
        .unwrap();
    assert_eq!(bob.query_one(text, &[]).await.unwrap().len(), 2);
    // Who was told of one column is not given two: as on a connection of its own.
    let error = ann.query_one(&before, &[]).await.unwrap_err();
    let told = error.as_db_error().unwrap().message();
    assert_eq!(told, "cached plan must not change result type");
    assert_eq!(ann.query_one(text, &[]).await.unwrap().len(), 2);
    // Who changes it may be gone before it has read so.
    let mut leaving = Wire::connect(proxy.address());
    leaving.send(startup(&[("user", "md5_user"), ("database", "app")]));
    leaving.receive_reply();
    leaving.send_all([query("ALTER TABLE changing ADD c int"), terminate()]);
    let labels = ["user=\"md5_user\"", "state=\"idle\""];
    eventually(|| {
        let is_done = shared().psql("app", "SELECT c FROM changing").is_ok();
        (is_done && proxy.metric("pgspan_pool_servers", &labels) == 1.0).then_some(())
    })
    .unwrap();
    assert_eq!(bob.query_one(text, &[]).await.unwrap().len(), 3);
}
