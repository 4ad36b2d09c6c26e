//! PostgreSQL servers for tests.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

use pgspan::dev::postgres::Settings;
pub(crate) use pgspan::dev::postgres::{Binaries, Postgres};

/// The server that all tests of a binary share. It ends with the process.
///
/// It has a database `app`; besides the superuser `postgres` the roles `app`, `password_user`, `md5_user` and `scram_user`, each
/// with the password [`PASSWORD`], logging in over TCP as their names say (`app` and the superuser by trust).
pub(crate) fn shared() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(|| {
        let postgres = started(Settings {
            configuration: "",
            host_based_authentication: HBA,
        });
        for sql in SETUP {
            postgres.psql("postgres", sql).unwrap();
        }
        postgres
            .psql("app", "CREATE EXTENSION pg_stat_statements")
            .unwrap();
        postgres
    })
}

/// A server for one test alone.
pub(crate) fn started(settings: Settings<'_>) -> Postgres {
    Postgres::start(settings).unwrap_or_else(|error| panic!("{error}"))
}

/// What pg_stat_statements of the database `app` holds of the statements whose text contains `part`, oldest first.
pub(crate) fn statements_with(postgres: &Postgres, part: &str) -> Vec<String> {
    let sql = format!(
        "SELECT regexp_replace(query, E'\\n', ' ', 'g') FROM pg_stat_statements WHERE strpos(query, $part${part}$part$) > 0 \
         AND strpos(query, 'pg_stat_statements') = 0 ORDER BY query"
    );
    postgres
        .psql("app", &sql)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// What a run of a PostgreSQL program said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) succeeded: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs psql against any address with the given conninfo and SQL.
pub(crate) fn psql(conninfo: &str, sql: &str) -> Said {
    let mut command = Binaries::find().unwrap().command("psql");
    run(command.args(["-X", "-A", "-t", "-d", conninfo, "-c", sql]))
}

/// Runs a command to its end, without input.
pub(crate) fn run(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Said {
        succeeded: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The password of every role that has one.
pub(crate) const PASSWORD: &str = "sesame";

const SETUP: &[&str] = &[
    "CREATE ROLE app LOGIN PASSWORD 'sesame'",
    "CREATE ROLE password_user LOGIN PASSWORD 'sesame'",
    "SET password_encryption = 'md5'; CREATE ROLE md5_user LOGIN PASSWORD 'sesame'",
    "SET password_encryption = 'scram-sha-256'; CREATE ROLE scram_user LOGIN PASSWORD 'sesame'",
    "GRANT pg_read_all_stats TO app",
    "CREATE DATABASE app OWNER app",
];

const HBA: &str = "
local all all trust
host all password_user 127.0.0.1/32 password
host all md5_user      127.0.0.1/32 md5
host all scram_user    127.0.0.1/32 scram-sha-256
host all all           127.0.0.1/32 trust
";

/// A psql that stays, and is asked one line after the other.
pub(crate) struct Session {
    process: std::process::Child,
    replies: std::io::BufReader<std::process::ChildStdout>,
}

/// Starts a psql that stays.
pub(crate) fn psql_session(conninfo: &str) -> Session {
    let mut command = Binaries::find().unwrap().command("psql");
    let mut process = command
        .args(["-X", "-A", "-t", "-q", "-d", conninfo])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let replies = std::io::BufReader::new(process.stdout.take().unwrap());
    Session { process, replies }
}

impl Session {
    /// The one line that a query gives.
    pub(crate) fn ask(&mut self, sql: &str) -> String {
        use std::io::{BufRead as _, Write as _};
        let input = self.process.stdin.as_mut().unwrap();
        writeln!(input, "{sql};").unwrap();
        let mut line = String::new();
        self.replies.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
