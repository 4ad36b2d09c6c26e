//! The proxy as its users run it: `pgspan run config.toml`.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use pgspan::dev::postgres::free_port;
use tempfile::TempDir;

use super::postgres::Postgres;
use super::{PATIENCE, eventually};

/// A running proxy. Dropping it sends SIGTERM and waits for its end.
pub(crate) struct Proxy {
    process: Child,
    port: u16,
    http_port: u16,
    lines: Arc<Mutex<Vec<String>>>,
    directory: TempDir,
}

/// A configuration that grows table by table.
#[derive(Clone, Default)]
pub(crate) struct ConfigText {
    listen: String,
    tables: String,
}

impl Proxy {
    /// Starts the proxy and waits until it is ready.
    ///
    /// The configuration is text without the tables `[listen]` and `[http]`, which get free ports.
    pub(crate) fn start(config: &str) -> Self {
        Self::with(&ConfigText::default().and(config))
    }

    /// Starts the proxy in front of a server: everybody is trusted, every database is served.
    pub(crate) fn in_front_of(postgres: &Postgres, config: &str) -> Self {
        Self::with(&ConfigText::for_port(postgres.port()).and(config))
    }

    /// Starts the proxy and waits until it is ready.
    pub(crate) fn with(config: &ConfigText) -> Self {
        for _ in 1..PORT_ATTEMPTS {
            match Self::try_start(config) {
                Err(said) if said.contains("in use") => {}
                outcome => {
                    return outcome.unwrap_or_else(|said| panic!("pgspan did not start:\n{said}"));
                }
            }
        }
        Self::try_start(config).unwrap_or_else(|said| panic!("pgspan did not start:\n{said}"))
    }

    /// What the proxy said, where it ended or was not ready in time.
    fn try_start(config: &ConfigText) -> Result<Self, String> {
        let directory = tempfile::tempdir().unwrap();
        let (port, http_port) = (free_port().unwrap(), free_port().unwrap());
        let file = directory.path().join("config.toml");
        fs::write(&file, config.complete(port, http_port)).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_pgspan"))
            .arg("run")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::default();
        collect(process.stdout.take().unwrap(), &lines);
        collect(process.stderr.take().unwrap(), &lines);
        let mut proxy = Self {
            process,
            port,
            http_port,
            lines,
            directory,
        };
        let ready = eventually(|| match proxy.process.try_wait().unwrap() {
            Some(_) => Some(false),
            None => proxy
                .http("/readyz")
                .filter(|(status, _)| *status == 200)
                .map(|_| true),
        });
        match ready {
            Some(true) => Ok(proxy),
            Some(false) | None => Err(proxy.log().join("\n")),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn http_port(&self) -> u16 {
        self.http_port
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// A conninfo for libpq and tokio-postgres, with more parameters appended: `user=app dbname=app options='-c …'`.
    pub(crate) fn conninfo(&self, parameters: &str) -> String {
        format!("host=127.0.0.1 port={} {parameters}", self.port)
    }

    /// Writes a new configuration, for the next SIGHUP.
    pub(crate) fn rewrite_config(&self, config: &ConfigText) {
        fs::write(
            self.directory.path().join("config.toml"),
            config.complete(self.port, self.http_port),
        )
        .unwrap();
    }

    /// All lines of stdout and stderr so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The first line that contains all of the parts, as soon as there is one.
    pub(crate) fn wait_for_log(&self, parts: &[&str]) -> String {
        eventually(|| {
            self.log()
                .into_iter()
                .find(|line| parts.iter().all(|part| line.contains(part)))
        })
        .unwrap_or_else(|| {
            panic!(
                "no log line with {parts:?} within {PATIENCE:?} in:\n{}",
                self.log().join("\n")
            )
        })
    }

    /// The answer to a GET: status and body; `None` where nobody answers.
    pub(crate) fn http(&self, path: &str) -> Option<(u16, String)> {
        self.http_with(path, "")
    }

    /// The answer to a GET with more header lines, each ended by CR LF.
    pub(crate) fn http_with(&self, path: &str, headers: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http_port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n{headers}\r\n"
        )
        .ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        let (head, body) = reply.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// The metrics in the plain text format.
    pub(crate) fn metrics(&self) -> String {
        let (status, body) = self.http("/metrics").unwrap();
        assert_eq!(status, 200, "{body}");
        body
    }

    /// The metrics in the OpenMetrics format, which has exemplars.
    pub(crate) fn open_metrics(&self) -> String {
        let (status, body) = self
            .http_with(
                "/metrics",
                "Accept: application/openmetrics-text; version=1.0.0\r\n",
            )
            .unwrap();
        assert_eq!(status, 200, "{body}");
        body
    }

    /// The sum of all samples of a metric whose labels contain all of the parts; 0 where there is none.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let metrics = self.metrics();
        let samples = metrics
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name));
        let samples = samples.filter(|line| labels.iter().all(|label| line.contains(label)));
        samples
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// The largest memory that the process ever had resident, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Sends a signal by name, without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        // A shell has `kill` built in; the command may be missing.
        let sent = Command::new("/bin/sh")
            .arg("-c")
            .arg(format!("kill -{name} {}", self.process.id()))
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// How the process ended, as soon as it has.
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        eventually(|| self.process.try_wait().unwrap())
            .unwrap_or_else(|| panic!("still running:\n{}", self.log().join("\n")))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.signal("TERM");
            // Clients that are still there keep a graceful drain waiting; a second signal ends it.
            let is_ended = |process: &mut Child| process.try_wait().ok().flatten();
            if (0..20).all(|_| is_ended(&mut self.process).is_none() && pause()) {
                self.signal("TERM");
                if (0..100).all(|_| is_ended(&mut self.process).is_none() && pause()) {
                    let _ = self.process.kill();
                }
            }
            let _ = self.process.wait();
        }
        if thread::panicking() {
            let log = self.log();
            let last = log
                .get(log.len().saturating_sub(LINES_SHOWN)..)
                .unwrap_or_default();
            eprintln!("--- what pgspan said last:\n{}", last.join("\n"));
        }
    }
}

impl ConfigText {
    /// Everybody is trusted, every database is served from this port of 127.0.0.1.
    pub(crate) fn for_port(port: u16) -> Self {
        Self::default().and(&format!(
            "[auth]\nmethod = \"trust\"\n[databases.\"*\"]\nhost = \"127.0.0.1\"\nport = {port}\n\
             [users.postgres]\n[users.app]\n[users.password_user]\npassword = \"sesame\"\n[users.md5_user]\npassword = \"sesame\"\n\
             [users.scram_user]\npassword = \"sesame\"\n"
        ))
    }

    /// More tables.
    pub(crate) fn and(mut self, tables: &str) -> Self {
        writeln!(self.tables, "{tables}").unwrap();
        self
    }

    /// More keys of the table `[listen]`.
    pub(crate) fn listen(mut self, keys: &str) -> Self {
        writeln!(self.listen, "{keys}").unwrap();
        self
    }

    fn complete(&self, port: u16, http_port: u16) -> String {
        let Self { listen, tables } = self;
        format!(
            "[listen]\naddress = \"127.0.0.1:{port}\"\n{listen}\n[http]\naddress = \"127.0.0.1:{http_port}\"\n\n{tables}"
        )
    }
}

fn collect(pipe: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            lines
                .lock()
                .unwrap()
                .push(String::from_utf8_lossy(&line).into_owned());
        }
    });
}

fn pause() -> bool {
    thread::sleep(std::time::Duration::from_millis(50));
    true
}

const PORT_ATTEMPTS: usize = 5;
const LINES_SHOWN: usize = 20;
