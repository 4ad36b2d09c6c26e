//! The short way through most texts: one plain statement, without comments, found without cutting it into tokens.

use super::{Awaits, Statement, StatementKind, first_word};
use crate::sql::encoding::ClientEncoding;
use crate::sql::lexer::StandardConformingStrings;

/// The one statement of a text that is nothing else. `None`: the text has to be read token by token; that is never wrong.
///
/// The text has no zero byte. What is looked at are the bytes that can begin a comment, a string or a name in quotes, or end a statement, and `into`,
/// wherever it stands.
pub(super) fn read(
    sql: &[u8],
    strings: StandardConformingStrings,
    encoding: ClientEncoding,
) -> Option<Statement> {
    if encoding.is_client_only() {
        return None;
    }
    let start = sql.iter().position(|byte| !is_blank(*byte))?;
    let text = sql.get(start..)?;
    let word_len = text
        .iter()
        .position(|byte| !byte.is_ascii_alphabetic())
        .unwrap_or(text.len());
    // A longer name, or the letter in front of a string.
    if text
        .get(word_len)
        .is_some_and(|byte| !matches!(byte, b' ' | b'\n' | b';' | b'('))
    {
        return None;
    }
    let word = text.get(..word_len).filter(|word| !word.is_empty())?;
    let into = match first_word(word) {
        (kind, Awaits::End) => Into::MeansNothing(kind),
        (StatementKind::Data, Awaits::Into) => Into::MakesTable,
        _ => return None,
    };
    let kind = match into {
        Into::MeansNothing(kind) => kind,
        Into::MakesTable => StatementKind::Data,
    };
    let mut parentheses = 0_usize;
    let mut at = start + word_len;
    let mut text_end = sql.len();
    while let Some(plain) = find_stop(sql.get(at..)?) {
        at += plain;
        let byte = *sql.get(at)?;
        let next = sql.get(at + 1).copied();
        at += match stop(byte) {
            Stop::Not => 1,
            Stop::OpenParenthesis => {
                parentheses += 1;
                1
            }
            Stop::CloseParenthesis => {
                parentheses = parentheses.saturating_sub(1);
                1
            }
            Stop::I if into == Into::MakesTable => {
                let word = sql.get(at..at + 4).unwrap_or_default();
                if word.eq_ignore_ascii_case(b"into") {
                    return None;
                }
                1
            }
            Stop::I => 1,
            // `$1`; anything else may open a string.
            Stop::Dollar if next.is_some_and(|next| next.is_ascii_digit()) => 1,
            Stop::Dollar => return None,
            Stop::Dash if next == Some(b'-') => return None,
            Stop::Slash if next == Some(b'*') => return None,
            Stop::Dash | Stop::Slash => 1,
            Stop::Quote => {
                let before = *sql.get(at.checked_sub(1)?)?;
                // E'…', U&'…': not before it is known how they end.
                if before == b'&'
                    || before == b'$'
                    || before == b'_'
                    || before.is_ascii_alphanumeric()
                    || !before.is_ascii()
                    || byte == b'\'' && strings == StandardConformingStrings::Off
                {
                    return None;
                }
                memchr::memchr(byte, sql.get(at + 1..)?)? + 2
            }
            Stop::Semicolon => {
                let behind = sql.get(at + 1..)?;
                if parentheses > 0 || !behind.iter().all(|byte| is_blank(*byte)) {
                    return None;
                }
                text_end = at;
                break;
            }
        };
    }
    let text = sql.get(..text_end)?;
    let end = text.iter().rposition(|byte| !is_blank(*byte))? + 1;
    Some(Statement { kind, start, end })
}

/// What INTO does in a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Into {
    /// SELECT INTO is another kind of statement.
    MakesTable,
    /// Nothing; the statement is of this kind.
    MeansNothing(StatementKind),
}

/// Whether, and why, a byte has to be looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Not,
    OpenParenthesis,
    CloseParenthesis,
    I,
    Dollar,
    Dash,
    Slash,
    Quote,
    Semicolon,
}

/// Where the first byte is that has to be looked at. Goes by eight: that is a branch for eight bytes.
#[inline]
fn find_stop(sql: &[u8]) -> Option<usize> {
    let (eights, rest) = sql.as_chunks::<8>();
    let is_stop = |byte: &u8| stop(*byte) != Stop::Not;
    for (number, eight) in eights.iter().enumerate() {
        let stops = eight.iter().map(|byte| stop(*byte) as u8);
        if stops.fold(0, |all, one| all | one) != 0 {
            return eight.iter().position(is_stop).map(|at| number * 8 + at);
        }
    }
    let at = rest.iter().position(is_stop)?;
    Some(sql.len() - rest.len() + at)
}

#[inline]
#[expect(
    clippy::indexing_slicing,
    reason = "there is an entry for each of the 256 bytes"
)]
fn stop(byte: u8) -> Stop {
    STOPS[byte as usize]
}

const STOPS: [Stop; 256] = {
    let mut stops = [Stop::Not; 256];
    let mut byte = 0;
    #[expect(
        clippy::indexing_slicing,
        reason = "the loop ends with the table, and the compiler runs it"
    )]
    while byte < 256 {
        stops[byte] = match byte as u8 {
            b'(' => Stop::OpenParenthesis,
            b')' => Stop::CloseParenthesis,
            b'i' | b'I' => Stop::I,
            b'$' => Stop::Dollar,
            b'-' => Stop::Dash,
            b'/' => Stop::Slash,
            b'\'' | b'"' => Stop::Quote,
            b';' => Stop::Semicolon,
            _ => Stop::Not,
        };
        byte += 1;
    }
    stops
};

#[inline]
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0C' | b'\x0B')
}
