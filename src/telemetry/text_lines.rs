//! Log lines for people: `2026-11-25T22:30:24.123Z  INFO pgspan::client: closing because: … database="app" user="ann"`.
//!
//! As tracing-subscriber writes them, but for a fifth of the cost: connections that come and go bring two lines each, and
//! the lines were a fifth of what such a connection costs the processor.

use std::fmt::{self, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::telemetry::log::{Lines, civil_from_days, push_visible};

/// Writes events as lines of text.
#[derive(Debug)]
pub struct TextLines {
    lines: Lines,
}

impl TextLines {
    /// To this log.
    pub fn new(lines: Lines) -> Self {
        Self { lines }
    }
}

impl<S: Subscriber> Layer<S> for TextLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = String::with_capacity(USUAL_LENGTH);
        write_time(SystemTime::now(), &mut line);
        line.push_str(level(*metadata.level()));
        line.push_str(metadata.target());
        line.push_str(": ");
        let mut parts = Parts {
            line,
            fields: String::new(),
        };
        event.record(&mut parts);
        let Parts { mut line, fields } = parts;
        line.push_str(&fields);
        line.push('\n');
        self.lines.write(line.into_bytes());
    }
}

/// How long most lines are, in bytes.
const USUAL_LENGTH: usize = 256;

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => " ERROR ",
        Level::WARN => "  WARN ",
        Level::INFO => "  INFO ",
        Level::DEBUG => " DEBUG ",
        Level::TRACE => " TRACE ",
    }
}

/// A line up to the end of its message, and the fields that follow.
struct Parts {
    line: String,
    fields: String,
}

impl Parts {
    fn begin_field(&mut self, field: &Field) {
        self.fields.push(' ');
        self.fields.push_str(field.name());
        self.fields.push('=');
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            return push_visible(value, &mut self.line);
        }
        self.begin_field(field);
        // Writing to a String cannot fail.
        let _ = write!(self.fields, "{value:?}");
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let into = match field.name() {
            MESSAGE => &mut self.line,
            _ => {
                self.begin_field(field);
                &mut self.fields
            }
        };
        let _ = write!(Visible(into), "{value:?}");
    }
}

/// What tracing calls the text of an event.
const MESSAGE: &str = "message";

/// Keeps what is written to it on one line.
struct Visible<'a>(&'a mut String);

impl fmt::Write for Visible<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        push_visible(text, self.0);
        Ok(())
    }
}

/// RFC 3339 in UTC with milliseconds; what lies before 1970 becomes 1970.
fn write_time(time: SystemTime, out: &mut String) {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, milliseconds) = (since_epoch.as_secs(), since_epoch.subsec_millis());
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    for (end, mut number) in [
        (4, year),
        (7, month),
        (10, day),
        (13, seconds / 3600 % 24),
        (16, seconds / 60 % 60),
        (19, seconds % 60),
        (23, milliseconds.into()),
    ] {
        let digits = text.iter_mut().take(end).rev();
        for digit in digits.take_while(|digit| digit.is_ascii_digit()) {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }
    out.push_str(str::from_utf8(&text).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_is_written_as_the_other_formats_write_it() {
        for seconds in [0, 951_782_399, 1_795_383_367, 4_107_542_400] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(7);
            let mut out = String::new();
            write_time(time, &mut out);
            assert_eq!(out, crate::telemetry::log::rfc3339(time));
        }
    }

    #[test]
    fn nothing_in_a_message_ends_its_line() {
        let mut out = String::new();
        push_visible("one\ntwo \u{1b}[31mred\u{9b} ä", &mut out);
        assert_eq!(out, "one\\ntwo \\u{1b}[31mred\\u{9b} ä");
    }
}
