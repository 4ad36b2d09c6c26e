//! `pgspan dev`: a throwaway PostgreSQL, the proxy in front of it, and eyes to see what comes out.

pub mod collector;
mod demo;
pub mod postgres;
mod proxy;
mod spans;

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use self::collector::Collector;
use self::postgres::{Postgres, PostgresError, Settings, free_port};
use self::proxy::{Proxy, ProxyError};

/// What `pgspan dev` can be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The port that clients connect to; `None`: PgBouncer's 6432, or another where that is taken.
    pub port: Option<u16>,
    /// The port of metrics and the page; `None`: 9127, or another where that is taken.
    pub http_port: Option<u16>,
    /// Whether an example application sends queries, and what came of them is shown.
    pub demo: bool,
    /// Whether it ends then, instead of going on until it is stopped.
    pub once: bool,
}

/// Why nothing could be tried out.
#[derive(Debug, thiserror::Error)]
enum DevError {
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("the trace collector could not be started: {0}")]
    Collector(io::Error),
}

/// All that runs. The fields are dropped, and so ended, in this order.
struct Stage {
    proxy: Proxy,
    collector: Collector,
    postgres: Postgres,
    /// Last: the collector lives in it.
    runtime: Runtime,
}

/// Runs until SIGINT or SIGTERM, or with `once` until everything has been shown. Whatever was started ends with it, and so do the
/// server's files.
///
/// The exit code is 0 where everything started and, with `demo`, everything that is to be seen was seen.
pub fn run(options: Options) -> ExitCode {
    println!("Starting PostgreSQL in a temporary directory, and pgspan in front of it …");
    let stage = match Stage::set(options) {
        Ok(stage) => stage,
        Err(error) => {
            eprintln!("pgspan dev: {error}");
            return ExitCode::FAILURE;
        }
    };
    stage.print_addresses();
    if options.demo && !demo::show(&stage) {
        return ExitCode::FAILURE;
    }
    if !options.once {
        if options.demo {
            stage.print_addresses();
        }
        println!(
            "Slow queries will be shown here. Ctrl-C ends it all and leaves nothing behind.\n"
        );
        stage
            .runtime
            .block_on(show_spans_until_stopped(&stage.collector));
    }
    ExitCode::SUCCESS
}

impl Stage {
    fn set(options: Options) -> Result<Self, DevError> {
        let postgres = Postgres::start(Settings::default())?;
        for sql in SETUP {
            postgres.psql("postgres", sql)?;
        }
        postgres.psql("app", APPLICATION_SETUP)?;

        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(DevError::Collector)?;
        let collector = runtime
            .block_on(Collector::start())
            .map_err(DevError::Collector)?;
        let port = preferred_port(options.port, USUAL_PORT)?;
        let http_port = preferred_port(options.http_port, USUAL_HTTP_PORT)?;
        let config = config(port, http_port, postgres.port(), &collector.endpoint());
        let proxy = Proxy::start(postgres.directory(), &config, port, http_port)?;
        Ok(Self {
            proxy,
            collector,
            postgres,
            runtime,
        })
    }

    /// What an application would be told to connect to.
    fn database_url(&self, database: &str) -> String {
        format!(
            "postgres://app:app@127.0.0.1:{}/{database}",
            self.proxy.port()
        )
    }

    fn print_addresses(&self) {
        let url = self.database_url("app");
        let console = self.database_url("pgbouncer");
        println!(
            "
  DATABASE_URL={url}
  with a trace:  psql '{url}?options=-c%20pgspan.traceparent%3D{EXAMPLE_TRACEPARENT}'
  metrics:       http://127.0.0.1:{http_port}/metrics
  console:       psql {console}   (SHOW POOLS, SHOW QUERIES, SHOW HOLDERS, …)
  PostgreSQL:    postgres://postgres@127.0.0.1:{postgres_port}/app   (directly, as the superuser)
",
            http_port = self.proxy.http_port(),
            postgres_port = self.postgres.port(),
        );
    }
}

async fn show_spans_until_stopped(collector: &Collector) {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return;
    };
    let mut shown = collector.kept().spans();
    loop {
        tokio::select! {
            _ = interrupt.recv() => return,
            _ = terminate.recv() => return,
            () = tokio::time::sleep(LOOK_PAUSE) => {
                let spans = collector.kept().spans();
                for root in spans::roots(&spans).filter(|root| !shown.iter().any(|span| span.span_id() == root.span_id())) {
                    println!("{}", spans::tree(root, &spans));
                }
                shown = spans;
            }
        }
    }
}

/// The port that was asked for; else the usual one; else any.
fn preferred_port(asked: Option<u16>, usual: u16) -> Result<u16, PostgresError> {
    match asked {
        Some(port) => Ok(port),
        None if TcpListener::bind((Ipv4Addr::LOCALHOST, usual)).is_ok() => Ok(usual),
        None => free_port(),
    }
}

fn config(port: u16, http_port: u16, postgres_port: u16, endpoint: &str) -> String {
    format!(
        r#"[listen]
address = "127.0.0.1:{port}"
[http]
address = "127.0.0.1:{http_port}"
[pool]
size = 4
[databases.app]
host = "127.0.0.1"
port = {postgres_port}
[databases."*"]
host = "127.0.0.1"
port = {postgres_port}
[users.app]
password = "app"
[console]
admin_users = ["app"]
[slow_query]
threshold = "100ms"
[otlp]
endpoint = "{endpoint}"
schedule_delay = "200ms"
[drain]
timeout = "1s"
"#
    )
}

const SETUP: &[&str] = &[
    "CREATE ROLE app LOGIN PASSWORD 'app'",
    "GRANT pg_monitor TO app",
    "CREATE DATABASE app OWNER app",
];

const APPLICATION_SETUP: &str = "
    CREATE EXTENSION pg_stat_statements;
    SET ROLE app;
    CREATE SCHEMA AUTHORIZATION app;
    CREATE TABLE orders (id int PRIMARY KEY, customer int NOT NULL, paid boolean NOT NULL DEFAULT false);
    INSERT INTO orders SELECT n, n % 100 FROM generate_series(1, 10000) AS n;
";

/// PgBouncer's port, and that of its exporter.
const USUAL_PORT: u16 = 6432;
const USUAL_HTTP_PORT: u16 = 9127;

/// The example of the W3C recommendation.
const EXAMPLE_TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

const LOOK_PAUSE: Duration = Duration::from_millis(200);
