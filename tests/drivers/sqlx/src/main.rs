//! sqlx: prepared statements behind names, raw texts, a pool.

use std::env;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, Executor, PgConnection, Row};

const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), sqlx::Error> {
    let variable = |name| env::var(name).expect("the test sets it");
    let traceparent = variable("TRACEPARENT");
    let options = PgConnectOptions::new_without_pgpass()
        .host(&variable("PROXY_HOST"))
        .port(variable("PROXY_PORT").parse().expect("a port"))
        .username("app")
        .password("sesame")
        .database("app")
        .options([("pgspan.traceparent", &traceparent)]);

    let mut connection = PgConnection::connect_with(&options).await?;
    let query = "SELECT current_query()";
    let row = connection.fetch_one(sqlx::raw_sql(query)).await?;
    let annotated = row.get::<String, _>(0).contains(&traceparent);
    check("a raw text carries the trace", annotated, true);
    for _ in 0..3 {
        let told: String = sqlx::query_scalar(query).fetch_one(&mut connection).await?;
        check("a prepared statement is untouched", &*told, query);
    }
    let error = sqlx::query("SELECT nosuch").execute(&mut connection).await;
    let code = match &error {
        Err(sqlx::Error::Database(error)) => error.code(),
        _ => None,
    };
    check("an error has its code", code.as_deref(), Some("42703"));
    connection.close().await?;

    let pool = PgPoolOptions::new()
        .max_connections(8)
        .connect_with(options)
        .await?;
    for _ in 0..8 {
        let mut transaction = pool.begin().await?;
        sqlx::query("SELECT set_config('pgspan.traceparent', $1, true)")
            .bind(OTHER)
            .execute(&mut *transaction)
            .await?;
        let row = transaction.fetch_one(sqlx::raw_sql(query)).await?;
        let annotated = row.get::<String, _>(0).contains(OTHER);
        check("a trace for a transaction", annotated, true);
        transaction.commit().await?;
    }
    let row = (&pool).fetch_one(sqlx::raw_sql(query)).await?;
    let annotated = row.get::<String, _>(0).contains(OTHER);
    check("and no longer", annotated, false);
    let mut sums = Vec::new();
    for number in 0..50 {
        let sum = sqlx::query_scalar::<_, i32>("SELECT $1 * 3").bind(number);
        sums.push(sum.fetch_one(&pool).await?);
    }
    check("a pool", sums, (0..50).map(|number| number * 3).collect());
    Ok(())
}

/// Ends the program where a thing is not as it should be.
fn check<T: PartialEq + std::fmt::Debug>(what: &str, actual: T, expected: T) {
    assert_eq!(actual, expected, "✗ {what}");
    println!("✓ {what}");
}
