//! What the startup packet says of the trace, and what is left of the packet for the server.
//!
//! `options` are split as PostgreSQL's pg_split_opts (utils/init/postinit.c) does, and read as process_postgres_switches
//! (tcop/postgres.c) does.

use std::borrow::Cow;
use std::sync::Arc;

use super::SessionTrace;
use super::layers::Settings;
use super::policy::{Field, TracePolicy};
use crate::protocol::error_response::ErrorResponse;
use crate::trace_context::TraceParent;

/// A session's beginning.
#[derive(Debug)]
pub struct Startup<'a> {
    /// The session's trace, with its startup values.
    pub trace: SessionTrace,
    /// What is left to forward, in the client's order.
    pub parameters: Vec<(&'a [u8], Cow<'a, [u8]>)>,
    /// For the client, once it is logged in: values that break their rules, names that nobody knows.
    pub warnings: Vec<ErrorResponse>,
}

impl SessionTrace {
    /// Takes what is the proxy's own out of the startup parameters.
    pub fn at_startup<'a>(
        policy: Arc<TracePolicy>,
        parameters: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Startup<'a> {
        let mut reading = Reading {
            policy: &policy,
            settings: Settings::default(),
            warnings: Vec::new(),
        };
        let mut forwarded = Vec::new();
        for (name, value) in parameters {
            match name {
                b"options" => match reading.take_options(value) {
                    Some(left) if left.is_empty() => {}
                    Some(left) => forwarded.push((name, Cow::Owned(left))),
                    None => forwarded.push((name, Cow::Borrowed(value))),
                },
                _ if reading.take(name, value) => {}
                _ => forwarded.push((name, Cow::Borrowed(value))),
            }
        }
        let Reading {
            settings, warnings, ..
        } = reading;
        let mut trace = Self::new(policy);
        trace.startup = settings;
        Startup {
            trace,
            parameters: forwarded,
            warnings,
        }
    }
}

struct Reading<'p> {
    policy: &'p TracePolicy,
    settings: Settings,
    warnings: Vec<ErrorResponse>,
}

impl Reading<'_> {
    /// Whether the parameter is the proxy's own.
    fn take(&mut self, name: &[u8], value: &[u8]) -> bool {
        if name.eq_ignore_ascii_case(b"application_name") {
            let is_trace =
                self.policy.rules().absorb_application_name && TraceParent::parse(value).is_ok();
            if is_trace {
                self.set(Field::TraceParent, value);
            }
            return is_trace;
        }
        let Some((prefix, field)) = name.split_at_checked(PREFIX.len()) else {
            return false;
        };
        if !prefix.eq_ignore_ascii_case(PREFIX) {
            return false;
        }
        match self.policy.field(field) {
            Some(field) => self.set(field, value),
            None => self.warnings.push(self.policy.unknown_field(field)),
        }
        true
    }

    fn set(&mut self, field: Field, value: &[u8]) {
        let checked = self.policy.check(field, value);
        let warning = match (field, &checked) {
            (_, Err(invalid)) => Some(invalid.to_warning()),
            (Field::Tags, Ok(text)) => self
                .policy
                .tags_left_out(text)
                .map(|left| left.to_warning()),
            _ => None,
        };
        self.warnings.extend(warning);
        self.settings.set(field, checked.ok());
    }

    /// What is left of the options; `None` where all of it is.
    fn take_options(&mut self, options: &[u8]) -> Option<Vec<u8>> {
        let arguments = split_options(options);
        let mut left: Vec<&[u8]> = Vec::new();
        let mut rest = arguments.as_slice();
        while let [(written, argument), behind @ ..] = rest {
            rest = behind;
            let setting = match &**argument {
                b"-c" => behind
                    .first()
                    .map(|(written, value)| (Some(*written), &**value)),
                [b'-', b'c', setting @ ..] | [b'-', b'-', setting @ ..] => Some((None, setting)),
                _ => None,
            };
            let Some((value_written, setting)) = setting else {
                left.push(written);
                continue;
            };
            if value_written.is_some() {
                rest = rest.get(1..).unwrap_or_default();
            }
            if !self.take_setting(setting) {
                left.push(written);
                left.extend(value_written);
            }
        }
        let untouched = arguments.len() == left.len();
        (!untouched).then(|| left.join(&b' '))
    }

    /// `name=value`, as ParseLongOption takes it: a dash in the name stands for an underscore.
    fn take_setting(&mut self, setting: &[u8]) -> bool {
        let Some(equals) = setting.iter().position(|byte| *byte == b'=') else {
            return false;
        };
        let (name, value) = setting.split_at(equals);
        let name: Vec<u8> = name
            .iter()
            .map(|byte| if *byte == b'-' { b'_' } else { *byte })
            .collect();
        self.take(&name, value.get(1..).unwrap_or_default())
    }
}

/// The arguments, each as written and with its backslashes taken away.
pub fn split_options(options: &[u8]) -> Vec<(&[u8], Vec<u8>)> {
    let mut arguments = Vec::new();
    let mut rest = options;
    loop {
        let blanks = rest.iter().take_while(|byte| is_space(**byte)).count();
        rest = rest.get(blanks..).unwrap_or_default();
        if rest.is_empty() {
            return arguments;
        }
        let mut argument = Vec::new();
        let mut length = 0;
        let mut escaped = false;
        for &byte in rest {
            match byte {
                _ if escaped => {
                    argument.push(byte);
                    escaped = false;
                }
                b'\\' => escaped = true,
                _ if is_space(byte) => break,
                _ => argument.push(byte),
            }
            length += 1;
        }
        let (written, behind) = rest.split_at(length);
        arguments.push((written, argument));
        rest = behind;
    }
}

/// C's isspace.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

const PREFIX: &[u8] = b"pgspan.";
