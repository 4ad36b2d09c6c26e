//! Log lines as PgBouncer writes them, for those who search for its words.
//!
//! `2026-11-25 22:30:24.123 UTC [4711] LOG C-0x5f3a…: app/ann@127.0.0.1:40000 login attempt: …`

use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, SystemTime};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::telemetry::log::{Lines, push_visible, rfc3339};

/// How long a line that can't be written keeps its thread waiting.
const PATIENCE: Duration = Duration::from_millis(20);

/// Writes events as PgBouncer's lines.
///
/// An event with `peer` is about a client, one with `server` about a server; `database` and `user` say which.
#[derive(Debug)]
pub struct PgBouncerLines {
    lines: Lines,
    process: u32,
}

impl PgBouncerLines {
    /// To this log.
    pub fn new(lines: Lines) -> Self {
        Self {
            lines,
            process: std::process::id(),
        }
    }
}

impl<S: Subscriber> Layer<S> for PgBouncerLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut parts = Parts::default();
        event.record(&mut parts);
        let mut line = format!(
            "{} [{}] {} ",
            timestamp(SystemTime::now()),
            self.process,
            tag(*event.metadata().level()),
        );
        push_visible(&parts.prefix(), &mut line);
        for (number, part) in parts.message.trim_end().split('\n').enumerate() {
            if number > 0 {
                line.push_str("\n\t");
            }
            push_visible(part, &mut line);
        }
        line.push('\n');
        self.lines.write(line.into_bytes());
        // Who reads why it was sent away finds the line in the file, as with PgBouncer.
        self.lines.flush(PATIENCE);
    }
}

/// `2026-11-25 22:30:24.123 UTC`.
fn timestamp(time: SystemTime) -> String {
    let time = rfc3339(time);
    format!("{} UTC", time.trim_end_matches('Z').replace('T', " "))
}

fn tag(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "LOG",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "NOISE",
    }
}

/// What an event says.
#[derive(Default)]
struct Parts {
    message: String,
    database: Option<String>,
    user: Option<String>,
    peer: Option<String>,
    server: Option<String>,
    server_pid: Option<String>,
    error: Option<String>,
}

impl Parts {
    fn prefix(&self) -> String {
        let (kind, address) = match (&self.server, &self.server_pid, &self.peer) {
            (Some(server), _, _) => ('S', server.as_str()),
            (None, Some(_), peer) => ('S', peer.as_deref().unwrap_or("(unknown)")),
            (None, None, Some(peer)) => ('C', peer.as_str()),
            (None, None, None) if self.database.is_some() => ('S', "(unknown)"),
            (None, None, None) => return String::new(),
        };
        // PgBouncer shows where in its memory the connection is: what is the same in the lines about the same one.
        let mut hasher = DefaultHasher::new();
        (kind, address, &self.server_pid).hash(&mut hasher);
        let place = hasher.finish() >> 16 | 0x5000_0000_0000;
        format!(
            "{kind}-{place:#x}: {}/{}@{address} ",
            self.database.as_deref().unwrap_or("(nodb)"),
            self.user.as_deref().unwrap_or("(nouser)"),
        )
    }

    fn record(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.message = text,
            "database" => self.database = Some(text),
            "user" => self.user = Some(text),
            "peer" => self.peer = Some(text),
            "server" => self.server = Some(text),
            "server_pid" => self.server_pid = Some(text),
            "error" => self.error = Some(text),
            _ => return,
        }
        if let Some(error) = self.error.take_if(|_| !self.message.is_empty()) {
            // Writing to a String cannot fail.
            let _ = write!(self.message, ": {error}");
        }
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::telemetry::log::tests::Output;
    use crate::telemetry::registry::tests::registry;

    fn lines_of(events: impl FnOnce()) -> Vec<String> {
        let output = Output::default();
        let lines =
            Lines::start(output.clone(), 100, registry().process).expect("there is a thread");
        let subscriber = tracing_subscriber::registry().with(PgBouncerLines::new(lines.clone()));
        tracing::subscriber::with_default(subscriber, events);
        assert!(lines.flush(Duration::from_secs(10)));
        output.text().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_clients_line_has_its_database_user_and_address() {
        let lines = lines_of(|| {
            tracing::info!(
                database = "app",
                user = "ann",
                peer = "127.0.0.1:40000",
                "closing because: x (age=1s)"
            );
        });
        let (time, rest) = lines[0].split_at(27);
        assert!(
            time.ends_with(" UTC") && time.as_bytes()[10] == b' ',
            "{time}"
        );
        let rest = rest
            .strip_prefix(&format!(" [{}] LOG C-0x", std::process::id()))
            .expect("the process, the level, the kind");
        let (_, rest) = rest.split_once(": ").expect("the place");
        assert_eq!(rest, "app/ann@127.0.0.1:40000 closing because: x (age=1s)");
    }

    #[test]
    fn a_name_is_no_line_and_no_command_to_a_terminal() {
        let lines = lines_of(|| {
            tracing::info!(
                database = "app\n2026-11-25 forged",
                user = "ann\u{1b}[2J",
                peer = "127.0.0.1:40000",
                "no such user: ann\u{1b}[2J\nsecond\rline"
            );
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].ends_with(
            ": app\\n2026-11-25 forged/ann\\u{1b}[2J@127.0.0.1:40000 no such user: ann\\u{1b}[2J"
        ));
        assert_eq!(lines[1], "\tsecond\\rline");
    }

    #[test]
    fn a_servers_line_begins_with_s_and_others_have_no_prefix() {
        let lines = lines_of(|| {
            tracing::warn!(
                database = "app",
                user = "ann",
                server = "10.0.0.1:5432",
                "gone"
            );
            tracing::info!("process up\nnext");
        });
        assert!(lines[0].contains("] WARNING S-0x"), "{}", lines[0]);
        assert!(
            lines[0].ends_with(": app/ann@10.0.0.1:5432 gone"),
            "{}",
            lines[0]
        );
        assert!(lines[1].ends_with("] LOG process up"), "{}", lines[1]);
        assert_eq!(lines[2], "\tnext");
    }
}
