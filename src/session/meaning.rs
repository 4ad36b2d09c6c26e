//! The settings that the meaning of a text depends on.
//!
//! PostgreSQL analyses a text when it is prepared, by the settings of that moment, and keeps what it has made of it: which tables a
//! name means (`search_path`), what moment `'2020-01-01 00:00'` is (`TimeZone`), which characters the bytes are (`client_encoding`).
//! So clients share a statement only while these are the same.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use crate::session::alteration::words;
use crate::session::parameters::ParameterSet;
use crate::session::statements::Statement;

/// Those of a client: what is prepared with them. Clients with the same ones share it.
#[derive(Debug, Default)]
pub struct Meaning {
    by_definition: RefCell<HashMap<Box<[u8]>, Weak<Statement>>>,
    /// At this size, those that nobody knows any more are swept out.
    sweep_at: Cell<usize>,
}

/// What input functions, the parser and the search for names go by. With them whoever is somebody else by SET ROLE: `"$user"` in
/// search_path means that role.
const SETTINGS: [&[u8]; 13] = [
    b"array_nulls",
    b"backslash_quote",
    b"client_encoding",
    b"DateStyle",
    b"IntervalStyle",
    b"lc_monetary",
    b"role",
    b"search_path",
    b"standard_conforming_strings",
    b"TimeZone",
    b"timezone_abbreviations",
    b"transform_null_equals",
    b"xmloption",
];

/// Whether the meaning of a text depends on this setting.
pub fn depends_on(name: &[u8]) -> bool {
    is_one_of(name, &SETTINGS)
}

/// Appends the settings among these that meaning depends on: sets for which this is the same mean the same.
pub fn write_key(parameters: &ParameterSet, key: &mut Vec<u8>) {
    for (name, value) in parameters.iter().filter(|(name, _)| depends_on(name)) {
        key.extend(name.iter().map(u8::to_ascii_lowercase));
        key.push(0);
        key.extend_from_slice(value);
        key.push(0);
    }
}

/// Whether texts mean the same by both.
pub fn is_same_by(one: &ParameterSet, other: &ParameterSet) -> bool {
    let [mut this, mut that] = [const { Vec::new() }; 2];
    write_key(one, &mut this);
    write_key(other, &mut that);
    this == that
}

/// Whether a text that the server has not come to yet may change any setting.
pub fn may_be_changed_by_text(text: &[u8]) -> bool {
    const WORDS: [&[u8]; 9] = [
        b"set",
        b"reset",
        b"discard",
        b"rollback",
        b"abort",
        b"commit",
        b"end",
        b"do",
        b"call",
    ];
    let mut words = words(text);
    let is_one = |word: &[u8]| is_one_of(word, &WORDS);
    // There may be several statements, or a comment ahead of the first.
    let is_plain = text.first().is_some_and(u8::is_ascii_alphabetic) && !text.contains(&b';');
    words.next().is_some_and(is_one)
        || contains(text, b"set_config")
        || !is_plain && words.any(is_one)
}

fn is_one_of(word: &[u8], all: &[&[u8]]) -> bool {
    all.iter().any(|one| one.eq_ignore_ascii_case(word))
}

/// The word stands in the text, in whatever case. It has an underscore, of which most texts have few in the right place.
fn contains(text: &[u8], word: &[u8]) -> bool {
    let underscore = memchr::memchr(b'_', word).unwrap_or_default();
    memchr::memchr_iter(b'_', text).any(|at| {
        at.checked_sub(underscore)
            .and_then(|start| text.get(start..start + word.len()))
            .is_some_and(|found| found.eq_ignore_ascii_case(word))
    })
}

impl Meaning {
    /// The statement with this definition, unless its result may be another by now.
    pub(super) fn find(&self, definition: &[u8]) -> Option<Rc<Statement>> {
        let known = self.by_definition.borrow();
        let statement = known.get(definition)?.upgrade()?;
        (!statement.is_stale()).then_some(statement)
    }

    /// From now on this is the statement with its definition.
    pub(super) fn insert(&self, statement: &Rc<Statement>) {
        const SWEEP_AT_LEAST: usize = 256;
        let mut known = self.by_definition.borrow_mut();
        if known.len() >= self.sweep_at.get() {
            known.retain(|_, statement| statement.strong_count() > 0);
            self.sweep_at.set(SWEEP_AT_LEAST.max(2 * known.len()));
        }
        known.insert(statement.definition().into(), Rc::downgrade(statement));
    }

    /// Whoever prepares a text from now on gets another statement.
    pub(super) fn forget(&self) {
        self.by_definition.borrow_mut().clear();
    }

    /// How many definitions are kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_definition.borrow().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(values: &[(&str, &str)]) -> Vec<u8> {
        let mut set = ParameterSet::default();
        for (name, value) in values {
            set.insert(name.as_bytes(), value.as_bytes());
        }
        let mut key = Vec::new();
        write_key(&set, &mut key);
        key
    }

    #[test]
    fn only_what_a_text_is_read_by_makes_a_difference() {
        let utc = key(&[("TimeZone", "UTC"), ("application_name", "a")]);
        assert_eq!(
            utc,
            key(&[("work_mem", "1MB"), ("timezone", "UTC"), ("app.user", "7")])
        );
        assert_ne!(utc, key(&[("TimeZone", "Asia/Tokyo")]));
        assert_ne!(utc, key(&[("TimeZone", "UTC"), ("search_path", "a")]));
    }

    #[test]
    fn what_is_on_its_way_counts_if_it_may_set_anything() {
        for text in [
            "SET search_path = a",
            "commit",
            "/* x */ RESET ALL",
            "SELECT 1; SET TimeZone = 'UTC'",
            "SELECT set_config('a', 'b', false)",
        ] {
            assert!(may_be_changed_by_text(text.as_bytes()), "{text}");
        }
        for text in [
            "BEGIN",
            "SELECT 1",
            "UPDATE t SET a = 1",
            "INSERT INTO t VALUES (1);",
        ] {
            assert!(!may_be_changed_by_text(text.as_bytes()), "{text}");
        }
    }
}
