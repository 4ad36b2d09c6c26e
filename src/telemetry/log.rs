//! The log: one line per event to stderr, through a bounded queue, so that a reader who stands still stops nobody.
//!
//! The slow-query log shares the queue and so the stream: its lines are JSON objects whatever the format of the other lines
//! is, and tell themselves apart by `"event":"slow_query"`.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};

use crate::telemetry::labels::LogLevel;
use crate::telemetry::metrics::ProcessMetrics;
use crate::telemetry::pgbouncer_lines::PgBouncerLines;
use crate::telemetry::text_lines::TextLines;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
    /// As PgBouncer writes them.
    PgBouncer,
}

/// How many lines may wait for being written.
pub const LINE_QUEUE: usize = 8_192;

/// A subscriber for `tracing::subscriber::set_global_default`: pgspan's own events from `level` on, what the libraries warn
/// about, and nothing from OpenTelemetry, whose failures are counted (`pgspan_spans_dropped_total`).
pub fn subscriber(
    format: LogFormat,
    level: LogLevel,
    lines: Lines,
) -> impl Subscriber + Send + Sync + for<'a> LookupSpan<'a> {
    let filter = EnvFilter::new(format!(
        "warn,pgspan={},opentelemetry=off,opentelemetry_sdk=off,opentelemetry-otlp=off,\
         h2=error,hyper=error,hyper_util=error,tonic=error,tower=error",
        level.as_str()
    ));
    let counting = CountLines(Arc::clone(&lines.process));
    let (text, json, pgbouncer) = match format {
        LogFormat::Text => (Some(TextLines::new(lines)), None, None),
        LogFormat::Json => {
            let json = tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false);
            (None, Some(json.with_writer(lines)), None)
        }
        LogFormat::PgBouncer => (None, None, Some(PgBouncerLines::new(lines))),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(counting)
        .with(text)
        .with(json)
        .with(pgbouncer)
}

struct CountLines(Arc<ProcessMetrics>);

impl<S: Subscriber> Layer<S> for CountLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            Level::INFO => LogLevel::Info,
            Level::DEBUG => LogLevel::Debug,
            Level::TRACE => LogLevel::Trace,
        };
        self.0.log_lines.of(level).increase();
    }
}

/// The way to the log's stream. Writing never waits: where the queue is full the line is dropped and counted.
#[derive(Clone)]
pub struct Lines {
    sender: SyncSender<Vec<u8>>,
    progress: Arc<Progress>,
    process: Arc<ProcessMetrics>,
}

#[derive(Default)]
struct Progress {
    queued: AtomicU64,
    written: Mutex<u64>,
    rose: Condvar,
}

impl Lines {
    /// Starts a thread that writes lines to `output` until all clones of this are gone; at most `queue` lines wait for it.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(
        output: impl Write + Send + 'static,
        queue: usize,
        process: Arc<ProcessMetrics>,
    ) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(queue);
        let progress = Arc::<Progress>::default();
        let thread_progress = Arc::clone(&progress);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(output, &receiver, &thread_progress))?;
        Ok(Self {
            sender,
            progress,
            process,
        })
    }

    /// Queues one line, its newline included.
    pub fn write(&self, line: Vec<u8>) {
        // Counted first, so that a flush does not overlook a line that is just being queued.
        self.progress.queued.fetch_add(1, SeqCst);
        if self.sender.try_send(line).is_err() {
            self.progress.queued.fetch_sub(1, SeqCst);
            self.process.log_lines_dropped.increase();
        }
    }

    /// Waits until everything queued so far is written, for no longer than `limit`. Blocks the thread: for the end of the process.
    /// Whether everything was.
    pub fn flush(&self, limit: Duration) -> bool {
        let queued = self.progress.queued.load(SeqCst);
        let written = (self.progress.written.lock()).unwrap_or_else(PoisonError::into_inner);
        let waited = (self.progress.rose).wait_timeout_while(written, limit, |w| *w < queued);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

fn write_lines(mut output: impl Write, receiver: &Receiver<Vec<u8>>, progress: &Progress) {
    for line in receiver {
        // Nobody is left to be told that the log can't be written.
        let _ = output.write_all(&line).and_then(|()| output.flush());
        *(progress.written.lock()).unwrap_or_else(PoisonError::into_inner) += 1;
        progress.rose.notify_all();
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = OneLine;

    fn make_writer(&self) -> OneLine {
        OneLine {
            lines: self.clone(),
            line: Vec::new(),
        }
    }
}

/// Collects what is written and queues it as one line when dropped.
#[derive(Debug)]
pub struct OneLine {
    lines: Lines,
    line: Vec<u8>,
}

impl Write for OneLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for OneLine {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.lines.write(std::mem::take(&mut self.line));
        }
    }
}

/// A time as RFC 3339 in UTC, with milliseconds: `2026-11-22T21:36:07.250Z`. What lies before 1970 becomes 1970.
pub fn rfc3339(time: SystemTime) -> String {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, milliseconds) = (since_epoch.as_secs(), since_epoch.subsec_millis());
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z")
}

/// Year, month and day of a number of days since 1970, in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day comes last.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
pub(super) fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// Writes text with its control characters escaped: they could make a line look like two, or make a terminal do things.
pub(super) fn push_visible(text: &str, out: &mut String) {
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if is_plain || !text.contains(char::is_control) {
        return out.push_str(text);
    }
    for character in text.chars() {
        match character.is_control() {
            true => out.extend(character.escape_default()),
            false => out.push(character),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::telemetry::instrument::Number;

    #[test]
    fn times_are_written_in_utc() {
        let at = |seconds, milliseconds| {
            rfc3339(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(milliseconds))
        };
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_399, 7), "2000-02-28T23:59:59.007Z");
        assert_eq!(at(951_782_400, 0), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(1_795_383_367, 250), "2026-11-22T21:36:07.250Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn a_json_log_has_one_object_per_event() {
        let output = Output::default();
        let lines = Lines::start(output.clone(), 10, Arc::default()).unwrap();
        let subscriber = subscriber(LogFormat::Json, LogLevel::Info, lines.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "pgspan", database = "app", "pool is full\nreally");
            tracing::debug!(target: "pgspan", "not asked for");
            tracing::info!(target: "hyper", "not ours");
        });
        assert!(lines.flush(Duration::from_secs(10)));

        let text = output.text();
        assert_eq!(text.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "pool is full\nreally");
        assert_eq!(line["database"], "app");
        assert_eq!(lines.process.log_lines.of(LogLevel::Info).value(), 1);
    }

    #[test]
    fn a_text_log_has_one_line_per_event_and_no_colours() {
        let output = Output::default();
        let lines = Lines::start(output.clone(), 10, Arc::default()).unwrap();
        let subscriber = subscriber(LogFormat::Text, LogLevel::Info, lines.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "pgspan", database = "app", "pool is full");
        });
        assert!(lines.flush(Duration::from_secs(10)));
        let text = output.text();
        assert!(
            text.ends_with(" WARN pgspan: pool is full database=\"app\"\n"),
            "{text}"
        );
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_nothing_else() {
        let (release, blocked) = mpsc::channel();
        let output = Stuck(blocked);
        let lines = Lines::start(output, 2, Arc::default()).unwrap();
        for _ in 0..10 {
            lines.write(b"line\n".to_vec());
        }
        assert!(!lines.flush(Duration::from_millis(1)));
        // One is being written, or still waits with two others.
        assert!((7..=8).contains(&lines.process.log_lines_dropped.value()));

        drop(release);
        assert!(lines.flush(Duration::from_secs(10)));
    }

    /// Keeps what is written.
    #[derive(Clone, Default)]
    pub(crate) struct Output(Arc<Mutex<Vec<u8>>>);

    impl Output {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Does not write before the other end of the channel is gone.
    struct Stuck(Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
