//! A query told apart from its constants: a fingerprint to count by, a text fit for a log, a name fit for a span.

use std::fmt;

use super::encoding::ClientEncoding;
use super::lexer::{Lexer, StandardConformingStrings, Token, TokenKind};

mod mask;
mod summary;

pub use mask::mask;
pub use summary::summary;

/// The same number for all queries that are one to pg_stat_statements: that differ in nothing but constants, blanks, comments
/// and the case of words, and, as since PostgreSQL 18, in how many constants or parameters a list has: `IN (…)`, `ARRAY[…]`.
///
/// It is read from the text alone, where PostgreSQL knows the tables and the types: constants of two types are one here and two
/// there; `SELECT *` and the columns written out, or a column with and without its table's name, are one there and two here.
///
/// It is the same in every process and every release. Shown as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u64);

impl Fingerprint {
    /// The fingerprint of a text, which may hold several statements. It allocates, so it is not for the hot path.
    pub fn of(sql: &[u8], strings: StandardConformingStrings, encoding: ClientEncoding) -> Self {
        Self(fnv_1a(&NormalForm::of(sql, strings, encoding).finish()))
    }

    /// The fingerprint of a text whose end was cut off: nothing counts from a list on that is not complete, nor from the rows of
    /// VALUES on, so that long ones have one fingerprint wherever the cut is.
    pub fn of_cut(
        sql: &[u8],
        strings: StandardConformingStrings,
        encoding: ClientEncoding,
    ) -> Self {
        let mut normal_form = NormalForm::of(sql, strings, encoding);
        let list = (normal_form.levels.iter()).find_map(|level| level.list.as_ref());
        let list = list.filter(|list| list.elements > 0 && list.are_constants);
        if let Some(start) = list
            .map(|list| list.start)
            .into_iter()
            .chain(normal_form.rows)
            .min()
        {
            normal_form.text.truncate(start);
            normal_form.write(b"(...)");
        }
        Self(fnv_1a(&normal_form.finish()))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// The tokens that count, each followed by a blank, with `?` for a constant.
struct NormalForm {
    text: Vec<u8>,
    /// The ground, and one more for each open parenthesis or bracket.
    levels: Vec<Level>,
    before: Before,
    /// ORDER BY or GROUP BY has begun: a number behind it or behind a comma is a column's.
    has_columns: bool,
    /// Where the first row of VALUES begins.
    rows: Option<usize>,
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

/// A list of constants, which counts as one with two elements whatever it has.
struct List {
    /// Where its IN begins; nothing for ARRAY.
    word: Option<usize>,
    /// Whether that IN stands behind NOT.
    is_not: bool,
    /// Where its parenthesis begins.
    start: usize,
    /// Where the element begins that is being written.
    element: usize,
    elements: usize,
    /// Nothing but constants so far.
    are_constants: bool,
}

/// What stands before a token, as far as that decides what the token means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Something with a value: a sign behind it adds or subtracts.
    Operand,
    /// A sign behind it is part of a number.
    NoOperand,
    /// IN, which begins there: the parenthesis behind it is a list.
    In(usize),
    /// NOT IN, which begins there.
    NotIn(usize),
    /// ARRAY: the bracket behind it is a list.
    Array,
    /// IS: NULL, TRUE and FALSE behind it are no constants.
    Is,
    /// NOT, which begins there.
    Not(usize),
    /// IS NOT.
    IsNot,
    /// ORDER or GROUP.
    OrderOrGroup,
    /// Where a number is a column's.
    Column,
}

impl NormalForm {
    fn of(sql: &[u8], strings: StandardConformingStrings, encoding: ClientEncoding) -> Self {
        let mut normal_form = Self::new(sql.len());
        for token in Lexer::new(sql, strings, encoding).filter(|token| !token.kind.is_blank()) {
            normal_form.on_token(token, token.text(sql));
        }
        normal_form
    }

    fn new(capacity: usize) -> Self {
        Self {
            text: Vec::with_capacity(capacity),
            levels: vec![Level::default()],
            before: Before::NoOperand,
            has_columns: false,
            rows: None,
            sign: None,
            semicolon: false,
        }
    }

    fn on_token(&mut self, token: Token, text: &[u8]) {
        if token.kind == TokenKind::Semicolon {
            self.write_sign();
            self.semicolon = !self.text.is_empty();
            self.before = Before::NoOperand;
            self.has_columns = false;
            return;
        }
        if std::mem::take(&mut self.semicolon) {
            self.write(b";");
        }
        if token.kind != TokenKind::Number {
            self.write_sign();
        }
        self.before = match token.kind {
            TokenKind::Number if self.before == Before::Column && self.sign.is_none() => {
                self.write(text)
            }
            TokenKind::Number => {
                self.sign = None;
                self.write(CONSTANT)
            }
            TokenKind::String
            | TokenKind::BitString
            | TokenKind::DollarString
            | TokenKind::Unterminated(_) => self.write(CONSTANT),
            TokenKind::Parameter => self.write(text),
            TokenKind::Operator => match text {
                b"-" if self.before != Before::Operand => {
                    self.sign = Some(b'-');
                    self.before
                }
                b"!=" => self.write_symbol(b"<>"),
                _ => self.write_symbol(text),
            },
            TokenKind::Identifier => self.on_word(text),
            TokenKind::OpenParenthesis => self.open(text),
            TokenKind::OpenBracket => self.open(text),
            TokenKind::CloseParenthesis | TokenKind::CloseBracket => self.close(text),
            TokenKind::Comma => {
                self.end_element();
                self.write(text);
                self.begin_element();
                match self.has_columns && self.level().list.is_none() {
                    true => Before::Column,
                    false => Before::NoOperand,
                }
            }
            TokenKind::QuotedIdentifier => match unquoted(text) {
                Some(name) => self.write(name),
                None => self.write(text),
            },
            _ => self.write_symbol(text),
        };
    }

    fn on_word(&mut self, word: &[u8]) -> Before {
        let start = self.text.len();
        self.text.extend(word.iter().map(u8::to_ascii_lowercase));
        let before = match (self.text.get(start..).unwrap_or_default(), self.before) {
            (b"null" | b"true" | b"false", before)
                if !matches!(before, Before::Is | Before::IsNot) =>
            {
                self.text.truncate(start);
                return self.write(CONSTANT);
            }
            (b"in", Before::Not(not)) => Before::NotIn(not),
            (b"in", _) => Before::In(start),
            (b"array", _) => Before::Array,
            (b"is", _) => Before::Is,
            (b"not", Before::Is) => Before::IsNot,
            (b"not", _) => Before::Not(start),
            (b"order" | b"group", _) => Before::OrderOrGroup,
            (b"by", Before::OrderOrGroup) => {
                self.has_columns = true;
                Before::Column
            }
            (word, _) if ends_columns(word) => {
                self.has_columns = false;
                Before::NoOperand
            }
            (b"values", _) => {
                self.rows.get_or_insert(start + b"values ".len());
                Before::NoOperand
            }
            (
                b"where" | b"and" | b"or" | b"when" | b"then" | b"else" | b"case" | b"between"
                | b"like" | b"ilike" | b"on" | b"by" | b"returning" | b"default" | b"to"
                | b"distinct" | b"all" | b"return",
                _,
            ) => Before::NoOperand,
            _ => Before::Operand,
        };
        self.text.push(b' ');
        before
    }

    fn open(&mut self, text: &[u8]) -> Before {
        let word = match (text, self.before) {
            (b"(", Before::In(word)) => Some((Some(word), false)),
            (b"(", Before::NotIn(word)) => Some((Some(word), true)),
            (b"[", Before::Array) => Some((None, false)),
            _ => None,
        };
        let start = self.text.len();
        self.write(text);
        let list = word.map(|(word, is_not)| List {
            word,
            is_not,
            start,
            element: self.text.len(),
            elements: 0,
            are_constants: true,
        });
        self.levels.push(Level { list });
        Before::NoOperand
    }

    fn close(&mut self, text: &[u8]) -> Before {
        self.end_element();
        // A closing parenthesis too many does not end the ground.
        let level = (self.levels.len() > 1).then(|| self.levels.pop()).flatten();
        match level.and_then(|level| level.list) {
            // To the server it is a comparison.
            Some(List {
                word: Some(word),
                is_not,
                elements: 1,
                are_constants: true,
                element,
                ..
            }) => {
                let element = self.text.split_off(element);
                self.text.truncate(word);
                self.write(if is_not { b"<>" } else { b"=" });
                self.text.extend_from_slice(&element);
            }
            Some(list) if list.elements > 1 && list.are_constants => {
                self.text.truncate(list.start);
                self.write(b"(...)");
            }
            _ => {
                self.write(text);
            }
        }
        Before::Operand
    }

    fn level(&mut self) -> &mut Level {
        if self.levels.is_empty() {
            self.levels.push(Level::default());
        }
        self.levels.last_mut().expect("the ground is there")
    }

    fn begin_element(&mut self) {
        let element = self.text.len();
        if let Some(list) = &mut self.level().list {
            list.element = element;
        }
    }

    fn end_element(&mut self) {
        let Some(list) = self.levels.last_mut().and_then(|level| level.list.as_mut()) else {
            return;
        };
        let element = self.text.get(list.element..).unwrap_or_default();
        list.elements += 1;
        list.are_constants &= is_constant(element);
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

/// Whether a word ends what ORDER BY or GROUP BY has begun.
pub(crate) fn ends_columns(word: &[u8]) -> bool {
    [
        &b"limit"[..],
        b"offset",
        b"having",
        b"select",
        b"union",
        b"intersect",
        b"except",
        b"window",
        b"for",
        b"fetch",
    ]
    .iter()
    .any(|known| known.eq_ignore_ascii_case(word))
}

/// Whether an element of a list is a constant or a parameter, perhaps with casts behind it.
fn is_constant(element: &[u8]) -> bool {
    let mut words = element
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    let is_constant = match words.next() {
        Some([b'$', digits @ ..]) => digits.iter().all(u8::is_ascii_digit),
        word => word == Some(CONSTANT),
    };
    let mut is_type = false;
    is_constant
        && words.all(|word| match word {
            b"::" => !std::mem::replace(&mut is_type, true),
            [b'a'..=b'z' | b'_', ..] => std::mem::take(&mut is_type),
            _ => false,
        })
}

/// The name in quotes that is the same without them.
fn unquoted(quoted: &[u8]) -> Option<&[u8]> {
    let name = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let (first, rest) = name.split_first()?;
    let is_plain = (first.is_ascii_lowercase() || *first == b'_')
        && rest.iter().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'$')
        });
    (is_plain && !RESERVED.contains(&name)).then_some(name)
}

/// Words that are another thing without quotes. Source: PostgreSQL's reserved key words, appendix C.
#[rustfmt::skip]
const RESERVED: &[&[u8]] = &[
    b"all", b"analyse", b"analyze", b"and", b"any", b"array", b"as", b"asc", b"asymmetric", b"both", b"case", b"cast",
    b"check", b"collate", b"column", b"constraint", b"create", b"current_catalog", b"current_date", b"current_role",
    b"current_time", b"current_timestamp", b"current_user", b"default", b"deferrable", b"desc", b"distinct", b"do", b"else",
    b"end", b"except", b"false", b"fetch", b"for", b"foreign", b"from", b"grant", b"group", b"having", b"in", b"initially",
    b"intersect", b"into", b"is", b"isnull", b"lateral", b"leading", b"like", b"limit", b"localtime", b"localtimestamp", b"not",
    b"notnull", b"null", b"offset", b"on", b"only", b"or", b"order", b"placing", b"primary", b"references", b"returning",
    b"select", b"session_user", b"some", b"symmetric", b"system_user", b"table", b"then", b"to", b"trailing", b"true", b"union",
    b"unique", b"user", b"using", b"values", b"variadic", b"when", b"where", b"window", b"with",
];

/// FNV-1a of 64 bits. Source: RFC 9923.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Stands for a constant; no operand that the server accepts looks like it.
const CONSTANT: &[u8] = b"?";

#[cfg(test)]
mod tests;
