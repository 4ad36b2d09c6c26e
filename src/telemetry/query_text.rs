//! What may be told of a query's text.

use crate::session::query_record::QueryKind;
use crate::sql::encoding::ClientEncoding;
use crate::sql::fingerprint::{Fingerprint, mask, summary};
use crate::sql::lexer::{Lexer, StandardConformingStrings, TokenKind, strings_matter};
use crate::telemetry::slow_query::MAX_KEPT_TEXT;

/// A query as lines and spans tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryText {
    /// The text, without literals where they are masked; `None` where nothing may be told.
    pub text: Option<String>,
    /// In a few words: `SELECT orders`.
    pub summary: Option<String>,
    /// The same for all queries that differ in their literals only; of a text that was cut, as far as it goes. `None` where it
    /// can't be told what is a literal.
    pub fingerprint: Option<Fingerprint>,
}

impl QueryText {
    /// Tells of `sql` what may be told, in at most `limit` characters. Costs a few walks over the text: not for workers.
    ///
    /// Where a literal ends can depend on standard_conforming_strings and on the encoding, and neither is known here.
    /// So a text that can be read in two ways is told only as far as both ways agree: a literal never gets out because
    /// it was taken for something else.
    pub fn of(sql: &[u8], masked: bool, limit: usize) -> Self {
        let Some(encoding) = encoding_of(sql) else {
            return Self {
                text: (!masked).then(|| cut(&String::from_utf8_lossy(sql), limit)),
                ..Self::default()
            };
        };
        let text = if masked {
            // As a whole: two readings may differ in what is cut off only, and yet differ.
            agreed(sql, |strings| mask(sql, strings, encoding, MAX_KEPT_TEXT))
                .map(|text| cut(&text, limit))
        } else {
            Some(cut(&String::from_utf8_lossy(sql), limit))
        };
        let is_whole = sql.len() < MAX_KEPT_TEXT;
        Self {
            text,
            summary: agreed(sql, |strings| summary(sql, strings, encoding))
                .filter(|summary| !summary.is_empty()),
            fingerprint: agreed(sql, |strings| match is_whole {
                true => Fingerprint::of(sql, strings, encoding),
                false => Fingerprint::of_cut(sql, strings, encoding),
            }),
        }
    }
}

impl QueryText {
    /// A parameterised text that holds no literal: it may be told as it is, masked or not, as OpenTelemetry's conventions have it.
    pub fn parameterised(sql: &[u8], kind: QueryKind, limit: usize) -> Option<String> {
        if kind != QueryKind::Execute || strings_matter(sql) || sql.len() >= MAX_KEPT_TEXT {
            return None;
        }
        let text = str::from_utf8(sql).ok()?;
        let mut has_parameter = false;
        for token in Lexer::new(sql, StandardConformingStrings::On, ClientEncoding::Utf8) {
            match token.kind {
                TokenKind::Parameter => has_parameter = true,
                TokenKind::Number
                | TokenKind::String
                | TokenKind::BitString
                | TokenKind::DollarString
                | TokenKind::LineComment
                | TokenKind::BlockComment
                | TokenKind::Unterminated(_) => return None,
                _ => {}
            }
        }
        has_parameter.then(|| cut(text, limit))
    }
}

/// What both settings of standard_conforming_strings make of `sql`, where it is the same.
fn agreed<T: PartialEq>(sql: &[u8], read: impl Fn(StandardConformingStrings) -> T) -> Option<T> {
    let told = read(StandardConformingStrings::On);
    (!strings_matter(sql) || read(StandardConformingStrings::Off) == told).then_some(told)
}

/// An encoding under which `sql` falls into the right tokens, whatever its own is; `None` where there is none. A character cut
/// off at the end does no harm.
///
/// In the encodings that are not ASCII's supersets byte for byte, a later byte of a character can look like a backslash,
/// but not like a quote.
fn encoding_of(sql: &[u8]) -> Option<ClientEncoding> {
    match str::from_utf8(sql) {
        Ok(_) => Some(ClientEncoding::Utf8),
        Err(error) if error.error_len().is_none() => Some(ClientEncoding::Utf8),
        Err(_) => (!strings_matter(sql)).then_some(ClientEncoding::SingleByte),
    }
}

/// A text of at most `limit` characters; the last is an ellipsis where something was cut off.
pub(crate) fn cut(text: &str, limit: usize) -> String {
    if text.char_indices().nth(limit).is_none() {
        return text.to_owned();
    }
    let kept = text.chars().take(limit.saturating_sub(1));
    kept.chain((limit > 0).then_some('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_told_without_its_literals() {
        let told = QueryText::of(b"SELECT * FROM orders WHERE card = '4111'", true, 100);
        assert_eq!(
            told.text.as_deref(),
            Some("SELECT * FROM orders WHERE card = ?")
        );
        assert_eq!(told.summary.as_deref(), Some("SELECT orders"));
        let other = QueryText::of(b"SELECT * FROM orders WHERE card = '5500'", true, 100);
        assert_eq!(told, other);
        assert!(told.fingerprint.is_some());
    }

    #[test]
    fn a_parameterised_text_is_told_as_it_is_unless_it_has_literals() {
        let told = |sql: &[u8]| QueryText::parameterised(sql, QueryKind::Execute, 100);
        let text = "SELECT a\n  FROM t\n WHERE b = $1";
        assert_eq!(told(text.as_bytes()).as_deref(), Some(text));
        assert_eq!(told(b"SELECT a FROM t WHERE b = $1 AND c = 'secret'"), None);
        assert_eq!(told(b"SELECT a FROM t WHERE b = $1 LIMIT 10"), None);
        assert_eq!(told(b"SELECT a FROM t"), None);
        let simple = QueryText::parameterised(text.as_bytes(), QueryKind::Simple, 100);
        assert_eq!(simple, None);
    }

    #[test]
    fn literals_are_told_only_where_they_are_wanted() {
        let told = QueryText::of(b"SELECT 'secret'", false, 100);
        assert_eq!(told.text.as_deref(), Some("SELECT 'secret'"));
    }

    #[test]
    fn nothing_is_told_of_a_text_whose_literals_end_here_or_there() {
        let sql = br"SELECT 'it\' AS a, secret, 'x' FROM t";
        assert_eq!(QueryText::of(sql, true, 100).text, None);
        assert_eq!(QueryText::of(sql, true, 6).text, None);

        let escaped = br"SELECT E'it\'s secret'";
        let told = QueryText::of(escaped, true, 100);
        assert_eq!(told.text.as_deref(), Some("SELECT ?"));
    }

    #[test]
    fn a_text_in_another_encoding_is_masked_as_well() {
        // LATIN1: an e with an acute accent, directly before the quote.
        let told = QueryText::of(b"SELECT 'caf\xe9', secret FROM t", true, 100);
        assert_eq!(told.text.as_deref(), Some("SELECT ?, secret FROM t"));

        // Shift JIS: the second byte of the character is a backslash.
        let told = QueryText::of(b"SELECT E'\x95\x5c', 'secret'", true, 100);
        assert_eq!(told.text, None);
    }

    #[test]
    fn a_cut_text_has_the_fingerprint_of_its_beginning_and_leaks_no_open_literal() {
        let mut sql = b"SELECT 'secret".to_vec();
        sql.resize(MAX_KEPT_TEXT, b'x');
        let told = QueryText::of(&sql, true, 100);
        assert_eq!(told.text.as_deref(), Some("SELECT ?"));
        let other = QueryText::of(b"SELECT 'other", true, 100);
        assert_eq!(told.fingerprint, other.fingerprint);
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("größer", 4), "grö…");
        assert_eq!(cut("größer", 6), "größer");
        assert_eq!(cut("größer", 0), "");
        assert_eq!(cut("", 0), "");
    }
}
