//! What must be set on a server before a client uses it.

use std::rc::Rc;

use crate::protocol::startup::Parameter;
use crate::sql::encoding::ClientEncoding;
use crate::sql::lexer::StandardConformingStrings;

/// The parameters that follow a client from server to server although it never asked: drivers rely on the values they were told.
///
/// They are those that PgBouncer tracks, of which PostgreSQL reports every change.
const FOLLOWING: [&[u8]; 6] = [
    b"DateStyle",
    b"IntervalStyle",
    b"TimeZone",
    b"application_name",
    b"client_encoding",
    b"standard_conforming_strings",
];

/// Parameters with their values, of a client (what it wants) or of a server (what is set there).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ParameterSet {
    /// Sorted by name, no name twice by PostgreSQL's rules (ASCII case does not count).
    values: Vec<Parameter>,
    /// Names beyond [`FOLLOWING`] that follow too: the server reports them, and the configuration wants it.
    extra: Vec<Box<[u8]>>,
}

impl ParameterSet {
    /// Of what a server reports, that which follows clients: `extra` names are among it.
    pub fn following<'a>(
        reported: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        extra: &[Box<str>],
    ) -> Self {
        let mut set = Self::default();
        let is_extra = |name: &[u8]| {
            extra
                .iter()
                .any(|extra| extra.as_bytes().eq_ignore_ascii_case(name))
        };
        for (name, value) in reported {
            if !follows(name) {
                if !is_extra(name) {
                    continue;
                }
                set.extra.push(name.into());
            }
            set.insert(name, value);
        }
        set
    }

    /// Whether a parameter follows the client from server to server.
    pub fn follows(&self, name: &[u8]) -> bool {
        follows(name)
            || self
                .extra
                .iter()
                .any(|extra| extra.eq_ignore_ascii_case(name))
    }

    /// The value of a parameter.
    pub fn value(&self, name: &[u8]) -> Option<&[u8]> {
        let at = self.position(name).ok()?;
        self.values.get(at).map(|(_, value)| &**value)
    }

    /// How these have strings read.
    pub fn strings(&self) -> StandardConformingStrings {
        match self.value(b"standard_conforming_strings") {
            Some(b"off") => StandardConformingStrings::Off,
            _ => StandardConformingStrings::On,
        }
    }

    /// How these have texts encoded.
    pub fn encoding(&self) -> ClientEncoding {
        ClientEncoding::from_name(self.value(b"client_encoding").unwrap_or(b"UTF8"))
    }

    /// Of these names alone.
    pub fn only<'a>(&self, names: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut only = Self::default();
        for name in names {
            if let Some(value) = self.value(name) {
                only.insert(name, value);
            }
        }
        only
    }

    /// Sets a parameter.
    pub fn insert(&mut self, name: &[u8], value: &[u8]) {
        match self.position(name) {
            Ok(at) => {
                if let Some(slot) = self.values.get_mut(at) {
                    slot.1 = value.into();
                }
            }
            Err(at) => self.values.insert(at, (name.into(), value.into())),
        }
    }

    /// Forgets a parameter.
    pub fn remove(&mut self, name: &[u8]) {
        self.values
            .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    }

    /// Forgets all but those that follow clients.
    pub fn retain_following(&mut self) {
        let Self { values, extra } = self;
        values.retain(|(name, _)| {
            follows(name) || extra.iter().any(|extra| extra.eq_ignore_ascii_case(name))
        });
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.values.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Appends the SQL that makes a server with `self` set one with `wanted` set. Appends nothing if there is nothing to do.
    ///
    /// One SELECT of set_config() calls, since pg_stat_statements keeps one entry for it, whatever the values; up to
    /// PostgreSQL 17 it keeps one for every value of a SET.
    pub fn write_change_to(&self, wanted: &Self, out: &mut Vec<u8>) {
        let changed = wanted
            .iter()
            .filter(|(name, value)| self.value(name) != Some(value));
        let start = out.len();
        for parameter in changed {
            write_set_config(parameter, Scope::Session, start, out);
        }
        let mut separator: &[u8] = if out.len() > start { b"; " } else { b"" };
        for (name, _) in self.iter().filter(|(name, _)| wanted.value(name).is_none()) {
            out.extend_from_slice(separator);
            out.extend_from_slice(b"RESET ");
            out.extend_from_slice(name);
            separator = b"; ";
        }
    }

    fn position(&self, name: &[u8]) -> Result<usize, usize> {
        let folded = |bytes: &[u8]| bytes.to_ascii_lowercase();
        // Few and short: a scan is faster than folding both sides for a binary search.
        match self
            .values
            .iter()
            .position(|(known, _)| known.eq_ignore_ascii_case(name))
        {
            Some(at) => Ok(at),
            None => Err(self
                .values
                .partition_point(|(known, _)| folded(known) < folded(name))),
        }
    }
}

/// Makes `server` equal to `wanted`, with the SQL for it appended to `out`. Sets that are equal become one set,
/// so that the next comparison is one of two addresses.
pub fn restore(server: &mut Rc<ParameterSet>, wanted: &Rc<ParameterSet>, out: &mut Vec<u8>) {
    if Rc::ptr_eq(server, wanted) {
        return;
    }
    if server != wanted {
        server.write_change_to(wanted, out);
    }
    *server = Rc::clone(wanted);
}

/// Whether a parameter follows the client from server to server.
pub fn follows(name: &[u8]) -> bool {
    FOLLOWING
        .iter()
        .any(|following| following.eq_ignore_ascii_case(name))
}

/// Whether a name can be one of a parameter: what `SET` takes without quotes.
///
/// Source: `valid_custom_variable_name` in src/backend/utils/misc/guc.c.
pub fn is_parameter_name(name: &[u8]) -> bool {
    let is_part = |part: &[u8]| {
        part.first()
            .is_some_and(|first| first.is_ascii_alphabetic() || *first == b'_')
            && part
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$'))
    };
    name.split(|byte| *byte == b'.').all(is_part)
}

/// How long a setting lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Until it is set again.
    Session,
    /// Until the transaction ends.
    Transaction,
}

/// Appends a call that sets a parameter to the SELECT that begins at `start`, and the SELECT itself ahead of the first.
pub fn write_set_config(
    (name, value): (&[u8], &[u8]),
    scope: Scope,
    start: usize,
    out: &mut Vec<u8>,
) {
    let is_first = out.len() == start;
    out.extend_from_slice(if is_first { b"SELECT " } else { b", " });
    out.extend_from_slice(b"pg_catalog.set_config(");
    write_literal(name, out);
    out.extend_from_slice(b", ");
    write_literal(value, out);
    out.extend_from_slice(match scope {
        Scope::Session => b", false)",
        Scope::Transaction => b", true)",
    });
}

/// Appends a string constant that is the same under both values of standard_conforming_strings.
fn write_literal(text: &[u8], out: &mut Vec<u8>) {
    if text.contains(&b'\\') {
        out.push(b'E');
    }
    out.push(b'\'');
    for byte in text {
        if matches!(byte, b'\'' | b'\\') {
            out.push(*byte);
        }
        out.push(*byte);
    }
    out.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: &[(&str, &str)]) -> ParameterSet {
        let mut set = ParameterSet::default();
        for (name, value) in values {
            set.insert(name.as_bytes(), value.as_bytes());
        }
        set
    }

    fn change(from: &ParameterSet, to: &ParameterSet) -> String {
        let mut out = Vec::new();
        from.write_change_to(to, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_what_differs_is_set() {
        let server = set(&[("TimeZone", "UTC"), ("DateStyle", "ISO, MDY")]);
        let wanted = set(&[("timezone", "Europe/Berlin"), ("DateStyle", "ISO, MDY")]);
        assert_eq!(
            change(&server, &wanted),
            "SELECT pg_catalog.set_config('timezone', 'Europe/Berlin', false)"
        );
        assert_eq!(change(&server, &server), "");
    }

    #[test]
    fn what_only_the_one_before_wanted_is_reset() {
        let server = set(&[
            ("TimeZone", "UTC"),
            ("statement_timeout", "5s"),
            ("work_mem", "1MB"),
        ]);
        let wanted = set(&[("TimeZone", "UTC")]);
        assert_eq!(
            change(&server, &wanted),
            "RESET statement_timeout; RESET work_mem"
        );
        let wanted = set(&[("TimeZone", "GMT"), ("work_mem", "1MB")]);
        assert_eq!(
            change(&server, &wanted),
            "SELECT pg_catalog.set_config('TimeZone', 'GMT', false); RESET statement_timeout"
        );
    }

    #[test]
    fn a_value_cannot_end_its_literal() {
        let wanted = set(&[("application_name", r"it's \'; DROP")]);
        assert_eq!(
            change(&ParameterSet::default(), &wanted),
            r"SELECT pg_catalog.set_config('application_name', E'it''s \\''; DROP', false)"
        );
    }

    #[test]
    fn what_is_to_be_tracked_follows_where_the_server_reports_it() {
        let reported = [
            ("TimeZone", "UTC"),
            ("search_path", "app"),
            ("is_superuser", "on"),
        ];
        let reported = reported
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let extra = ["Search_path".into(), "statement_timeout".into()];
        let mut set = ParameterSet::following(reported, &extra);
        let names: Vec<_> = set.iter().map(|(name, _)| name.to_vec()).collect();
        assert_eq!(names, [&b"search_path"[..], b"TimeZone"]);
        assert!(set.follows(b"search_path") && !set.follows(b"statement_timeout"));
        set.insert(b"work_mem", b"1MB");
        set.retain_following();
        assert_eq!(set.iter().count(), 2);
    }

    #[test]
    fn equal_sets_become_one() {
        let (wanted, mut server) = (
            Rc::new(set(&[("TimeZone", "UTC")])),
            Rc::new(set(&[("TimeZone", "UTC")])),
        );
        let mut out = Vec::new();
        restore(&mut server, &wanted, &mut out);
        assert!(out.is_empty() && Rc::ptr_eq(&server, &wanted));
    }

    #[test]
    fn a_parameter_name_is_what_set_takes() {
        assert!(is_parameter_name(b"search_path") && is_parameter_name(b"app.user_id"));
        assert!(
            !is_parameter_name(b"")
                && !is_parameter_name(b"a b")
                && !is_parameter_name(b"a.")
                && !is_parameter_name(b"x;y")
        );
    }
}
