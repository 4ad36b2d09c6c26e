//! The proxy as a process of its own, with its log at hand.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{env, fs, thread};

/// A running `pgspan run`. Dropping it, and the death of this process, end it by SIGTERM.
pub(super) struct Proxy {
    port: u16,
    http_port: u16,
    log: Log,
    keeper: Child,
}

/// The latest lines.
type Log = Arc<Mutex<VecDeque<String>>>;

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("pgspan could not be started: {0}")]
    Io(#[from] io::Error),
    #[error("pgspan did not become ready. It said:\n{0}")]
    NotReady(String),
}

impl Proxy {
    /// Starts this very program with a configuration that has these two ports, and waits until it is ready.
    pub(super) fn start(
        directory: &Path,
        config: &str,
        port: u16,
        http_port: u16,
    ) -> Result<Self, ProxyError> {
        let file = directory.join("config.toml");
        fs::write(&file, config)?;
        let mut keeper = Command::new("/bin/sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(env::current_exe()?)
            .arg("run")
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let log = Log::default();
        if let Some(stderr) = keeper.stderr.take() {
            let log = Arc::clone(&log);
            thread::spawn(move || collect(stderr, &log));
        }
        let mut proxy = Self {
            port,
            http_port,
            log,
            keeper,
        };
        for _ in 0..START_DEADLINE.as_millis() / POLL_PAUSE.as_millis() {
            if proxy.keeper.try_wait()?.is_some() {
                break;
            }
            if proxy.http("/readyz", "").is_ok() {
                return Ok(proxy);
            }
            thread::sleep(POLL_PAUSE);
        }
        Err(ProxyError::NotReady(proxy.log_lines().join("\n")))
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn http_port(&self) -> u16 {
        self.http_port
    }

    /// The latest lines of its log, oldest first.
    pub(super) fn log_lines(&self) -> Vec<String> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// The body that a GET is answered with. Any status but 200 is an error.
    pub(super) fn http(&self, path: &str, headers: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http_port))?;
        stream.set_read_timeout(Some(START_DEADLINE))?;
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n{headers}\r\n"
        )?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        match reply.split_once("\r\n\r\n") {
            Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
            _ => Err(io::Error::other(reply)),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn collect(pipe: impl Read, log: &Log) {
    for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
        let mut lines = log.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(String::from_utf8_lossy(&line).into_owned());
        if lines.len() > MOST_LINES_KEPT {
            lines.pop_front();
        }
    }
}

/// Ends with the proxy, and the proxy with our end: then the input ends. Ctrl-C at the terminal is for us alone to follow.
const KEEPER: &str = r#"
trap '' INT HUP
exec 3<&0
"$@" </dev/null 3<&- &
proxy=$!
{ cat <&3 >/dev/null; kill -TERM $proxy; } 2>/dev/null &
watcher=$!
wait $proxy
ended=$?
kill $watcher 2>/dev/null
exit $ended
"#;

const START_DEADLINE: Duration = Duration::from_secs(20);
const POLL_PAUSE: Duration = Duration::from_millis(20);
const MOST_LINES_KEPT: usize = 10_000;
