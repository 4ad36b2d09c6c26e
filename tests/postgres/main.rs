//! The proxy with a real server behind it and real clients in front. A file a feature.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod annotation;
mod announcements;
mod authentication;
mod belongings;
mod cancel;
mod chaos;
mod drain;
mod extended;
mod fingerprints;
mod leftovers;
mod logins;
mod pooling;
mod prepared;
mod prometheus;
mod streaming;
mod tags;
mod tracing;
mod workers;

use support::postgres::PASSWORD;
use support::proxy::Proxy;
use tokio_postgres::{Client, NoTls};

/// A client that is logged in as `app`. Its connection ends when it is dropped.
async fn connect(proxy: &Proxy) -> Client {
    connect_with(proxy, "").await.unwrap()
}

/// A client that is logged in as `app`, with more parameters.
async fn connect_with(proxy: &Proxy, parameters: &str) -> Result<Client, tokio_postgres::Error> {
    let conninfo = proxy.conninfo(&format!(
        "user=app dbname=app password={PASSWORD} {parameters}"
    ));
    let (client, connection) = tokio_postgres::connect(&conninfo, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The only value of the only row.
async fn value(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    rows.last().unwrap()
}
