//! The texts of the queries on a server: their beginning for telemetry, and all of a text that may leave something in the session.

use std::ops::Range;

use crate::session::alteration;
use crate::session::query_record::TEXT_LIMIT;

/// Texts, one behind the other.
#[derive(Debug, Default)]
pub struct KeptTexts(Vec<u8>);

/// One of them.
#[derive(Clone, Debug)]
pub struct KeptText {
    range: Range<usize>,
    /// Whether nothing is left out of it that may leave something in the session.
    pub is_whole: bool,
}

impl KeptTexts {
    /// How much is kept of all; those that come when it is full are left out.
    const LIMIT: usize = 1 << 20;

    /// For how much there is room while there are none.
    const ROOM: usize = 64 << 10;

    /// Keeps a text.
    pub fn keep(&mut self, text: &[u8]) -> KeptText {
        let start = self.0.len();
        let (mut kept, mut is_whole) = kept_of(text);
        if start + kept.len() > Self::LIMIT {
            kept = b"";
            is_whole = !alteration::may_be_by(text);
        }
        self.0.extend_from_slice(kept);
        KeptText {
            range: start..self.0.len(),
            is_whole,
        }
    }

    /// Keeps a text of which no more is known than its beginning.
    pub fn keep_beginning(&mut self, text: &[u8]) -> KeptText {
        KeptText {
            is_whole: false,
            ..self.keep(text)
        }
    }

    /// As much of a text as is kept.
    pub fn of(&self, text: &KeptText) -> &[u8] {
        self.0.get(text.range.clone()).unwrap_or_default()
    }

    /// As much of a text as telemetry wants.
    pub fn beginning(&self, text: &KeptText) -> &[u8] {
        let text = self.of(text);
        text.get(..TEXT_LIMIT).unwrap_or(text)
    }

    /// Nobody asks for any of them any more.
    pub fn clear(&mut self) {
        self.0.clear();
        self.0.shrink_to(Self::ROOM);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What is to be kept of a text, and whether nothing is left out that may leave something in the session.
pub fn kept_of(text: &[u8]) -> (&[u8], bool) {
    let Some(beginning) = text.get(..TEXT_LIMIT) else {
        return (text, true);
    };
    match alteration::may_be_by(text) {
        true if text.len() <= KeptTexts::LIMIT => (text, true),
        may_be => (beginning, !may_be),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_kept_whole_where_it_may_matter_and_told_where_it_is_not() {
        let mut texts = KeptTexts::default();
        let long = "x".repeat(TEXT_LIMIT);
        for (text, len, is_whole) in [
            ("SELECT 1".to_owned(), 8, true),
            (format!("SELECT '{long}'"), TEXT_LIMIT, true),
            (format!("SELECT '{long}'; SET a = 1"), TEXT_LIMIT + 20, true),
            (
                format!("SET a = '{}'", "x".repeat(KeptTexts::LIMIT)),
                TEXT_LIMIT,
                false,
            ),
        ] {
            let kept = texts.keep(text.as_bytes());
            assert_eq!((texts.of(&kept).len(), kept.is_whole), (len, is_whole));
            assert!(text.as_bytes().starts_with(texts.of(&kept)));
            assert!(texts.beginning(&kept).len() <= TEXT_LIMIT);
        }
        assert!(!texts.keep_beginning(b"SELECT").is_whole);
        texts.clear();
        assert!(texts.is_empty());
    }

    #[test]
    fn what_finds_no_room_is_left_out() {
        let mut texts = KeptTexts::default();
        let full = "x".repeat(TEXT_LIMIT);
        for _ in 0..KeptTexts::LIMIT / TEXT_LIMIT {
            texts.keep(full.as_bytes());
        }
        for (text, is_whole) in [("SELECT 1", true), ("SET a = 1", false)] {
            let kept = texts.keep(text.as_bytes());
            assert_eq!((texts.of(&kept), kept.is_whole), (&b""[..], is_whole));
        }
    }
}
