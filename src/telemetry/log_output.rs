//! Where log lines go: standard error, a file that may be moved away, and the system's log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use crate::config::choices::SyslogFacility;

/// All places that lines go to.
#[derive(Debug, Default)]
pub struct LogOutput {
    to_stderr: bool,
    file: Option<LogFile>,
    syslog: Option<Syslog>,
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
}

#[derive(Debug)]
struct Syslog {
    /// `None`: the system's log was not there when it was looked for last.
    socket: Option<UnixDatagram>,
    ident: Box<str>,
    facility: SyslogFacility,
}

impl LogOutput {
    /// Standard error.
    pub fn stderr() -> Self {
        Self {
            to_stderr: true,
            ..Self::default()
        }
    }

    /// Nothing but what is added.
    pub fn nowhere() -> Self {
        Self::default()
    }

    /// And a file, made if it is not there.
    ///
    /// # Errors
    /// If it can't be opened.
    pub fn and_file(mut self, path: &Path) -> io::Result<Self> {
        self.file = Some(LogFile {
            path: path.to_owned(),
            file: open(path)?,
        });
        Ok(self)
    }

    /// And the system's log.
    #[must_use]
    pub fn and_syslog(mut self, ident: &str, facility: SyslogFacility) -> Self {
        self.syslog = Some(Syslog {
            socket: None,
            ident: ident.into(),
            facility,
        });
        self
    }
}

impl Write for LogOutput {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // One of them that fails must not keep the line from the others.
        if self.to_stderr {
            let _ = io::stderr().write_all(line);
        }
        if let Some(file) = &mut self.file {
            let _ = file.write(line);
        }
        if let Some(syslog) = &mut self.syslog {
            syslog.write(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

impl LogFile {
    /// Where the file was moved away, as logrotate does before SIGHUP, a new one is begun.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let opened = self.file.metadata().map(|it| (it.dev(), it.ino())).ok();
        let named = fs::metadata(&self.path).map(|it| (it.dev(), it.ino())).ok();
        if opened != named
            && let Ok(file) = open(&self.path)
        {
            self.file = file;
        }
        self.file.write_all(line)
    }
}

impl Syslog {
    /// As RFC 3164 and the C library have it: the time is added by the log.
    fn write(&mut self, line: &[u8]) {
        const SOCKET: &str = "/dev/log";
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        // PgBouncer's lines have the time and the process ahead of the level.
        let text = text.split_once("] ").map_or(text, |(_, rest)| rest);
        let (severity, text) = match text.split_once(' ') {
            Some(("ERROR", rest)) => (3, rest),
            Some(("WARNING", rest)) => (4, rest),
            Some(("LOG", rest)) => (6, rest),
            Some(("DEBUG" | "NOISE", rest)) => (7, rest),
            _ => (6, text),
        };
        let priority = (self.facility as u8) << 3 | severity;
        let process = std::process::id();
        let message = format!("<{priority}>{}[{process}]: {text}", self.ident);
        let sent = |socket: &UnixDatagram| socket.send(message.as_bytes()).is_ok();
        if self.socket.as_ref().is_some_and(sent) {
            return;
        }
        self.socket = UnixDatagram::unbound()
            .and_then(|socket| {
                socket.connect(SOCKET)?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })
            .ok();
        // Who is not there hears nothing.
        let _ = self.socket.as_ref().is_some_and(sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pgspan.log");
        let mut output = LogOutput::nowhere().and_file(&path).expect("a file");
        output.write_all(b"one\n").expect("written");
        let moved = folder.path().join("pgspan.log.1");
        fs::rename(&path, &moved).expect("moved");
        output.write_all(b"two\n").expect("written");
        assert_eq!(fs::read_to_string(&moved).expect("read"), "one\n");
        assert_eq!(fs::read_to_string(&path).expect("read"), "two\n");
    }
}
