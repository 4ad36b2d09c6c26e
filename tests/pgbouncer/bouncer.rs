//! pgspan as PgBouncer is started: `pgspan --quiet pgbouncer.ini`, with a log file and a unix socket.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use pgspan::dev::postgres::free_port;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::support::{PATIENCE, eventually};

/// A running one. Dropping it ends it at once.
pub(crate) struct Bouncer {
    process: Child,
    port: u16,
    folder: TempDir,
}

impl Bouncer {
    /// Starts it and waits until it is ready. `ini` is all but where it listens and logs; `files` are put beside it, by
    /// their names.
    pub(crate) fn start(ini: &str, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let mut bouncer = Self {
            process: Command::new("true").spawn().unwrap(),
            port,
            folder,
        };
        bouncer.write_ini(ini);
        bouncer.process = Command::new(env!("CARGO_BIN_EXE_pgspan"))
            .arg("--quiet")
            .arg(bouncer.path("pgbouncer.ini"))
            .current_dir(bouncer.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        bouncer.wait_for_log(&["process up"]);
        bouncer
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the ini file, for the next reload.
    pub(crate) fn write_ini(&self, ini: &str) {
        let text = format!(
            "{ini}\nlisten_addr = 127.0.0.1\nlisten_port = {}\nunix_socket_dir = {}\nlogfile = pgbouncer.log\n\
             pidfile = pgbouncer.pid\n",
            self.port,
            self.folder.path().display()
        );
        fs::write(self.path("pgbouncer.ini"), text).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("pgbouncer.log")).unwrap_or_default()
    }

    /// The first line of the log that has all of the parts, as soon as there is one.
    pub(crate) fn wait_for_log(&self, parts: &[&str]) -> String {
        eventually(|| {
            let log = self.log();
            let mut lines = log.lines();
            lines
                .find(|line| parts.iter().all(|part| line.contains(part)))
                .map(str::to_owned)
        })
        .unwrap_or_else(|| {
            panic!(
                "no line with {parts:?} within {PATIENCE:?} in:\n{}",
                self.log()
            )
        })
    }

    /// A connection over TCP.
    pub(crate) async fn connect(&self, parameters: &str) -> Result<Client, tokio_postgres::Error> {
        connect(&format!("host=127.0.0.1 port={} {parameters}", self.port)).await
    }

    /// A connection over the unix socket.
    pub(crate) async fn connect_unix(
        &self,
        parameters: &str,
    ) -> Result<Client, tokio_postgres::Error> {
        let folder = self.folder.path().display();
        connect(&format!("host={folder} port={} {parameters}", self.port)).await
    }

    /// Sends a signal by name, without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.process.id());
        let sent = Command::new("/bin/sh").arg("-c").arg(kill).status();
        assert!(sent.unwrap().success());
    }

    /// How the process ended, as soon as it has.
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        eventually(|| self.process.try_wait().unwrap())
            .unwrap_or_else(|| panic!("still running:\n{}", self.log()))
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- pgspan's log:\n{}", self.log());
        }
    }
}

/// A connection to anywhere.
pub(crate) async fn connect(conninfo: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(conninfo, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The first value of the first row.
pub(crate) async fn value(client: &Client, query: &str) -> String {
    let messages = client.simple_query(query).await.unwrap();
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.unwrap().get(0).unwrap_or_default().to_owned()
}
