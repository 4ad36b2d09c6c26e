//! A query told apart from its constants: a fingerprint to count by, a text fit for a log, a name fit for a span.

use std::fmt;
use std::ops::Range;

use super::encoding::ClientEncoding;
use super::lexer::{Lexer, StandardConformingStrings, Token, TokenKind};

mod mask;
mod summary;

pub use mask::mask;
pub use summary::summary;

/// The same number for all queries that differ in nothing but constants, parameters, blanks, comments and the case of
/// words, and in how many constants a list has: `IN (…)`, `ARRAY[…]` or the rows of `VALUES`.
///
/// It is the same in every process and every release. Shown as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// The fingerprint of a text, which may hold several statements. It allocates, so it is not for the hot path.
    pub fn of(sql: &[u8], strings: StandardConformingStrings, encoding: ClientEncoding) -> Self {
        let mut normal_form = NormalForm::new(sql.len());
        for token in Lexer::new(sql, strings, encoding).filter(|token| !token.kind.is_blank()) {
            normal_form.on_token(token, token.text(sql));
        }
        Self(fnv_1a(&normal_form.finish()))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// The tokens that count, each followed by a blank, with `$` for a constant.
struct NormalForm {
    text: Vec<u8>,
    /// The ground, and one more for each open parenthesis or bracket.
    levels: Vec<Level>,
    before: Before,
    /// A sign that will not be written if a number follows.
    sign: Option<u8>,
    /// A `;` that will not be written if nothing follows.
    semicolon: bool,
}

/// What is between two parentheses.
#[derive(Default)]
struct Level {
    list: Option<List>,
}

/// A list whose equal neighbours are written once.
struct List {
    /// Whether the elements are the rows of VALUES, which nothing but a comma may part.
    is_values: bool,
    /// Where the element begins that is being written.
    element: usize,
    /// The element before.
    previous: Option<Range<usize>>,
}

/// What stands before a token, as far as that decides what the token means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Something with a value: a sign behind it adds or subtracts.
    Operand,
    /// A sign behind it is part of a number.
    NoOperand,
    /// IN: the parenthesis behind it is a list.
    In,
    /// IS or NOT: NULL, TRUE and FALSE behind it are no constants.
    IsOrNot,
}

impl NormalForm {
    fn new(capacity: usize) -> Self {
        Self {
            text: Vec::with_capacity(capacity),
            levels: vec![Level::default()],
            before: Before::NoOperand,
            sign: None,
            semicolon: false,
        }
    }

    fn on_token(&mut self, token: Token, text: &[u8]) {
        if token.kind == TokenKind::Semicolon {
            self.write_sign();
            self.semicolon = !self.text.is_empty();
            self.before = Before::NoOperand;
            return;
        }
        if std::mem::take(&mut self.semicolon) {
            self.write(b";");
        }
        if token.kind != TokenKind::Number {
            self.write_sign();
        }
        self.leave_values(token.kind);
        self.before = match token.kind {
            TokenKind::Number => {
                self.sign = None;
                self.write(CONSTANT)
            }
            TokenKind::String
            | TokenKind::BitString
            | TokenKind::DollarString
            | TokenKind::Parameter
            | TokenKind::Unterminated(_) => self.write(CONSTANT),
            TokenKind::Operator => match text {
                [sign @ (b'+' | b'-')] if self.before != Before::Operand => {
                    self.sign = Some(*sign);
                    Before::NoOperand
                }
                _ => self.write_symbol(text),
            },
            TokenKind::Identifier => self.on_word(text),
            TokenKind::OpenParenthesis => self.open(text, self.before == Before::In),
            TokenKind::OpenBracket => self.open(text, true),
            TokenKind::CloseParenthesis | TokenKind::CloseBracket => self.close(text),
            TokenKind::Comma => {
                self.end_element();
                self.write(text);
                self.begin_element();
                Before::NoOperand
            }
            TokenKind::QuotedIdentifier => self.write(text),
            _ => self.write_symbol(text),
        };
    }

    fn on_word(&mut self, word: &[u8]) -> Before {
        let start = self.text.len();
        self.text.extend(word.iter().map(u8::to_ascii_lowercase));
        let before = match self.text.get(start..).unwrap_or_default() {
            b"null" | b"true" | b"false" if self.before != Before::IsOrNot => {
                self.text.truncate(start);
                return self.write(CONSTANT);
            }
            b"in" => Before::In,
            b"is" | b"not" => Before::IsOrNot,
            b"values" => {
                if let Some(level) = self.levels.last_mut() {
                    level.list = Some(List {
                        is_values: true,
                        element: start + b"values ".len(),
                        previous: None,
                    });
                }
                Before::NoOperand
            }
            b"select" | b"where" | b"and" | b"or" | b"when" | b"then" | b"else" | b"case"
            | b"between" | b"limit" | b"offset" | b"like" | b"ilike" | b"on" | b"by"
            | b"having" | b"returning" | b"default" | b"to" | b"distinct" | b"all" | b"return" => {
                Before::NoOperand
            }
            _ => Before::Operand,
        };
        self.text.push(b' ');
        before
    }

    fn open(&mut self, text: &[u8], is_list: bool) -> Before {
        self.write(text);
        let list = is_list.then_some(List {
            is_values: false,
            element: self.text.len(),
            previous: None,
        });
        self.levels.push(Level { list });
        Before::NoOperand
    }

    fn close(&mut self, text: &[u8]) -> Before {
        self.end_element();
        // A closing parenthesis too many does not end the ground.
        if self.levels.len() > 1 {
            self.levels.pop();
        }
        self.write(text);
        if self.list().is_some_and(|list| list.is_values) {
            self.end_element();
        }
        Before::Operand
    }

    /// Behind a row of VALUES anything but a comma ends the list of rows.
    fn leave_values(&mut self, kind: TokenKind) {
        let belongs = matches!(
            kind,
            TokenKind::Comma | TokenKind::OpenParenthesis | TokenKind::CloseParenthesis
        );
        if let Some(level) = self.levels.last_mut()
            && !belongs
            && level.list.as_ref().is_some_and(|list| list.is_values)
        {
            level.list = None;
        }
    }

    fn list(&mut self) -> Option<&mut List> {
        self.levels.last_mut()?.list.as_mut()
    }

    fn begin_element(&mut self) {
        let element = self.text.len();
        if let Some(list) = self.list() {
            list.element = element;
        }
    }

    /// Takes the element back, comma included, if it equals the one before.
    fn end_element(&mut self) {
        let Some(list) = self.levels.last_mut().and_then(|level| level.list.as_mut()) else {
            return;
        };
        let element = self.text.get(list.element..).unwrap_or_default();
        match list.previous.clone() {
            Some(previous) if self.text.get(previous.clone()) == Some(element) => {
                self.text.truncate(previous.end);
                list.element = previous.start;
            }
            _ if element.is_empty() => {}
            _ => list.previous = Some(list.element..self.text.len()),
        }
    }

    fn write_sign(&mut self) {
        if let Some(sign) = self.sign.take() {
            self.write(&[sign]);
        }
    }

    fn write_symbol(&mut self, text: &[u8]) -> Before {
        self.write(text);
        Before::NoOperand
    }

    fn write(&mut self, text: &[u8]) -> Before {
        self.text.extend_from_slice(text);
        self.text.push(b' ');
        Before::Operand
    }

    fn finish(mut self) -> Vec<u8> {
        self.write_sign();
        self.text
    }
}

/// FNV-1a of 64 bits. Source: RFC 9923.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Stands for a constant or a parameter; no token that the server accepts looks like it.
const CONSTANT: &[u8] = b"$";

#[cfg(test)]
mod tests;
