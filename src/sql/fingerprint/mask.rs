//! A query's text without its literals.

use super::super::encoding::ClientEncoding;
use super::super::lexer::{Lexer, StandardConformingStrings, TokenKind, Unterminated};

/// The text on one line with `?` for every literal (strings of all flavours, bit strings, numbers), without comments, and of no
/// more than `limit` characters; the last of them is `…` if something was cut off.
///
/// What is left open at the end is masked from where it begins. Bytes that are no UTF-8 and control characters are shown as
/// U+FFFD. Names are shown as they are, also the double-quoted ones, and so are parameters such as `$1`.
pub fn mask(
    sql: &[u8],
    strings: StandardConformingStrings,
    encoding: ClientEncoding,
    limit: usize,
) -> String {
    let mut line = Line::new(limit);
    let mut number_end = None;
    for token in Lexer::new(sql, strings, encoding) {
        match token.kind {
            TokenKind::Whitespace
            | TokenKind::LineComment
            | TokenKind::BlockComment
            | TokenKind::Unterminated(Unterminated::BlockComment) => line.is_blank_due = true,
            TokenKind::Number
            | TokenKind::String
            | TokenKind::BitString
            | TokenKind::DollarString
            | TokenKind::Unterminated(_) => line.push(b"?"),
            // Letters at the end of a number, as of a UUID without quotes: to the server they are junk of that number.
            TokenKind::Identifier if number_end == Some(token.start) => {}
            _ => line.push(token.text(sql)),
        }
        number_end = (token.kind == TokenKind::Number).then_some(token.end);
        if line.is_full {
            break;
        }
    }
    line.text
}

/// A text under way that never has more characters than its limit.
struct Line {
    text: String,
    /// How many characters there is room for.
    room: usize,
    is_blank_due: bool,
    is_full: bool,
}

impl Line {
    fn new(limit: usize) -> Self {
        Self {
            text: String::new(),
            room: limit,
            is_blank_due: false,
            is_full: limit == 0,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if std::mem::take(&mut self.is_blank_due) && !self.text.is_empty() {
            self.push_character(' ');
        }
        for chunk in bytes.utf8_chunks() {
            let broken = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
            for character in chunk.valid().chars().chain(broken) {
                if self.is_full {
                    return;
                }
                self.push_character(match character.is_control() {
                    true => char::REPLACEMENT_CHARACTER,
                    false => character,
                });
            }
        }
    }

    fn push_character(&mut self, character: char) {
        match self.room.checked_sub(1) {
            Some(room) => {
                self.room = room;
                self.text.push(character);
            }
            None => {
                self.text.pop();
                self.text.push('…');
                self.is_full = true;
            }
        }
    }
}
