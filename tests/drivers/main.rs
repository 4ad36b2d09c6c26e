//! The drivers that applications use, through a transaction pool of two servers. `make drivers` installs them.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use ::tokio_postgres::{NoTls, Row, SimpleQueryMessage};
use support::authority::Authority;
use support::postgres::{run, shared};
use support::proxy::Proxy;
use support::{TRACEPARENT, postgres};

#[test]
#[ignore = "needs the drivers: make drivers"]
fn psycopg2() {
    succeeds(&python(), "check_psycopg2.py");
}

#[test]
#[ignore = "needs the drivers: make drivers"]
fn psycopg_3() {
    succeeds(&python(), "check_psycopg.py");
}

#[test]
#[ignore = "needs the drivers: make drivers"]
fn asyncpg() {
    succeeds(&python(), "check_asyncpg.py");
}

#[test]
#[ignore = "needs the drivers: make drivers"]
fn pg8000() {
    succeeds(&python(), "check_pg8000.py");
}

#[test]
#[ignore = "needs the drivers: make drivers"]
fn sqlalchemy() {
    succeeds(&python(), "check_sqlalchemy.py");
}

#[test]
#[ignore = "needs the drivers: make drivers"]
fn django() {
    succeeds(&python(), "check_django.py");
}

#[test]
#[ignore = "needs the drivers: make drivers"]
fn pgjdbc() {
    succeeds(Path::new("java"), "CheckJdbc.java");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokio_postgres() {
    let proxy = Proxy::in_front_of(shared(), POOL);
    let conninfo = proxy.conninfo(&format!(
        "user=app dbname=app options='-c pgspan.traceparent={TRACEPARENT}'"
    ));
    let (mut client, connection) = ::tokio_postgres::connect(&conninfo, NoTls).await.unwrap();
    tokio::spawn(connection);
    let query = "SELECT current_query()";
    let value = |row: Row| row.get::<_, String>(0);
    assert_eq!(value(client.query_one(query, &[]).await.unwrap()), query);
    let said = client.simple_query(query).await.unwrap();
    let annotated = said.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    assert!(annotated.unwrap().contains(TRACEPARENT), "{annotated:?}");

    let other = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let shown = "SELECT current_setting('pgspan.traceparent', true)";
    let set = client.prepare("SELECT set_config('pgspan.traceparent', $1, $2)");
    let set = set.await.unwrap();
    for _ in 0..3 {
        let transaction = client.transaction().await.unwrap();
        transaction.query_one(&set, &[&other, &true]).await.unwrap();
        assert_eq!(
            value(transaction.query_one(shown, &[]).await.unwrap()),
            other
        );
        transaction.commit().await.unwrap();
        assert_eq!(
            value(client.query_one(shown, &[]).await.unwrap()),
            TRACEPARENT
        );
    }
}

/// PostgreSQL's own tests of pipelines, with what libpq traces of the protocol.
#[test]
#[ignore = "needs the drivers: make drivers"]
fn libpq_pipelines() {
    let program = installed().join("libpq_pipeline/libpq_pipeline");
    if !program.exists() {
        assert!(program.with_file_name("done").exists(), "make drivers");
        return println!("libpq_pipeline: there is no source of it for this system");
    }
    let traces = tempfile::tempdir().unwrap();
    let trace_of = |name: &str, port: u16| {
        // A notice tells whether the last run's table was there.
        let forget = "DROP TABLE IF EXISTS pq_pipeline_demo, pq_pipeline_tst, ppln_uniqviol";
        shared().psql("app", forget).unwrap();
        let trace = traces.path().join(name);
        let mut command = Command::new(&program);
        command.args(["-r", "700", "-t"]).arg(&trace);
        let conninfo = format!("host=127.0.0.1 port={port} user=postgres dbname=app");
        assert_success(command.args([name, &conninfo]));
        fs::read_to_string(trace).unwrap()
    };
    let tests = run(Command::new(&program).arg("tests")).stdout;
    assert!(tests.split_whitespace().count() > 10, "{tests}");
    let proxies = ["session", "transaction"].map(|mode| {
        let config = format!("[pool]\nmode = \"{mode}\"\nsize = 2\n");
        Proxy::in_front_of(shared(), &config)
    });
    for name in tests.split_whitespace() {
        let directly = trace_of(name, shared().port());
        for proxy in &proxies {
            let proxied = trace_of(name, proxy.port());
            // Both send and read at once: how one falls on the other differs from run to run.
            if name != "pipelined_insert" && name != "uniqviol" {
                assert_eq!(proxied, directly, "{name}");
            }
        }
    }
}

#[test]
#[ignore = "needs the drivers: make drivers"]
fn node_postgres() {
    succeeds(Path::new("node"), "check_pg.js");
}

#[test]
#[ignore = "needs the drivers: make drivers"]
fn postgres_js() {
    succeeds(Path::new("node"), "check_postgres.js");
}

#[test]
#[ignore = "needs the drivers: make drivers"]
fn prisma() {
    succeeds(Path::new("node"), "check_prisma.js");
}

#[test]
#[ignore = "needs the drivers: make drivers"]
fn pgx() {
    succeeds(&installed().join("check_pgx"), "");
}

#[test]
#[ignore = "needs the drivers: make drivers"]
fn sqlx() {
    succeeds(&installed().join("sqlx/debug/check-sqlx"), "");
}

#[test]
#[ignore = "needs the drivers: make drivers"]
fn active_record() {
    succeeds(Path::new("ruby"), "check_active_record.rb");
}

#[test]
#[ignore = "needs the drivers: make drivers"]
fn logins_over_tls() {
    for method in ["trust", "password", "md5", "scram-sha-256"] {
        let scripts: &[(PathBuf, &str)] = match method {
            "scram-sha-256" => &[
                (python(), "check_tls.py"),
                ("node".into(), "check_tls.js"),
                ("java".into(), "CheckTls.java"),
            ],
            _ => &[(python(), "check_tls.py")],
        };
        let authority = Authority::new();
        authority.issue("pgspan", "pgspan", &["localhost"]);
        let config = format!(
            "{POOL}[listen.tls]\nmode = \"prefer\"\ncert = {}\nkey = {}\n\
             [auth]\nmethod = \"{method}\"\n[databases.\"*\"]\nhost = \"127.0.0.1\"\nport = {}\n\
             [users.password_user]\npassword = \"sesame\"\n[users.md5_user]\npassword = \"sesame\"\n\
             [users.scram_user]\npassword = \"sesame\"\n",
            authority.quoted("pgspan.crt"),
            authority.quoted("pgspan.key"),
            shared().port(),
        );
        let proxy = Proxy::start(&config);
        for (interpreter, script) in scripts {
            let mut command = script_at(&proxy, interpreter, script);
            command
                .env("METHOD", method)
                .env("CA_FILE", authority.path("ca.crt"));
            assert_success(&mut command);
        }
    }
}

const POOL: &str = "[pool]\nmode = \"transaction\"\nsize = 2\n";

fn python() -> PathBuf {
    installed().join("venv/bin/python")
}

/// Where `make drivers` puts them.
fn installed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/drivers")
}

/// Runs a script, or with an empty name a program, which ends with 0 if everything was as it should be.
fn succeeds(interpreter: &Path, script: &str) {
    /// One of the tests, which run at the same time, makes the schema for all.
    static SCHEMA: Once = Once::new();
    let server = shared();
    SCHEMA.call_once(|| {
        let sql = "CREATE SCHEMA app AUTHORIZATION app";
        server.psql("app", sql).unwrap();
    });
    let proxy = Proxy::in_front_of(server, POOL);
    assert_success(&mut script_at(&proxy, interpreter, script));
}

fn script_at(proxy: &Proxy, interpreter: &Path, script: &str) -> Command {
    let address = proxy.address();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers");
    let mut command = Command::new(interpreter);
    command
        .args((!script.is_empty()).then(|| scripts.join(script)))
        .env("PROXY_HOST", address.ip().to_string())
        .env("PROXY_PORT", address.port().to_string())
        .env("TRACEPARENT", TRACEPARENT)
        .env(
            "CLASSPATH",
            installed().join("jdbc/usr/share/java/postgresql.jar"),
        )
        .env("NODE_PATH", installed().join("node/node_modules"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // What a connection asks of an unresponsive proxy ends, and with it the test.
        .env("PGCONNECT_TIMEOUT", "10");
    command
}

fn assert_success(command: &mut Command) {
    let postgres::Said {
        succeeded,
        stdout,
        stderr,
    } = run(command);
    assert!(succeeded, "{stdout}\n{stderr}");
    print!("{stdout}");
}
