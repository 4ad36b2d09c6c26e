//! Query text cut into tokens, by the rules of PostgreSQL's `src/backend/parser/scan.l`.

use memchr::memmem;

use super::encoding::ClientEncoding;

mod class;
mod value;

use class::{Class, class, is_identifier_part, is_tag_part};
pub use value::{identifier_value, string_value};

/// The setting standard_conforming_strings: whether a backslash in `'…'` is just a backslash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StandardConformingStrings {
    /// A backslash is a backslash.
    On,
    /// A backslash escapes, as in `E'…'`.
    Off,
}

/// Whether [`StandardConformingStrings`] can make a difference to this text.
pub fn strings_matter(sql: &[u8]) -> bool {
    memchr::memchr(b'\\', sql).is_some()
}

/// One token: bytes `start..end` of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Offset of its first byte.
    pub start: usize,
    /// Offset behind its last byte; always more than `start`.
    pub end: usize,
}

impl Token {
    /// The token's bytes in the text that it was cut from.
    pub fn text(self, sql: &[u8]) -> &[u8] {
        sql.get(self.start..self.end).unwrap_or_default()
    }
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Blanks, tabs, line ends, form feeds and vertical tabs.
    Whitespace,
    /// `-- …`, without the end of the line.
    LineComment,
    /// `/* … */`, nested ones included.
    BlockComment,
    /// A keyword or an unquoted name.
    Identifier,
    /// `"…"` or `U&"…"`.
    QuotedIdentifier,
    /// `'…'`, `E'…'`, `N'…'` or `U&'…'` with all its continuation lines.
    String,
    /// `B'…'` or `X'…'` with all its continuation lines.
    BitString,
    /// `$tag$…$tag$`
    DollarString,
    /// A number without its sign.
    Number,
    /// `$1`.
    Parameter,
    /// Anything made of operator characters, `*` and `=` included.
    Operator,
    /// `::`
    Typecast,
    /// `:=`
    ColonEquals,
    /// `:`
    Colon,
    /// `;`
    Semicolon,
    /// `,`
    Comma,
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// `(`
    OpenParenthesis,
    /// `)`
    CloseParenthesis,
    /// `[`
    OpenBracket,
    /// `]`
    CloseBracket,
    /// A zero byte outside of any other token; a server refuses a query that has one.
    Nul,
    /// A character that no token can begin with, such as `{` or a lone `$`.
    Other,
    /// A token that the end of the text cuts short; always the last one.
    Unterminated(Unterminated),
}

impl TokenKind {
    /// Whether it is a string constant of any kind.
    pub fn is_string(self) -> bool {
        matches!(self, Self::String | Self::BitString | Self::DollarString)
    }

    /// Whether the server's grammar never sees it: whitespace and comments.
    pub fn is_blank(self) -> bool {
        matches!(
            self,
            Self::Whitespace | Self::LineComment | Self::BlockComment
        )
    }
}

/// What the end of the text left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unterminated {
    /// `/* …`
    BlockComment,
    /// `" …`
    QuotedIdentifier,
    /// `' …`, or with the prefix E, N or U&.
    String,
    /// `B' …` or `X' …`
    BitString,
    /// `$tag$ …`
    DollarString,
}

/// Cuts a text into tokens that follow one another without a gap.
///
/// It never fails: what the server would refuse is some token too. Time is linear in the length of the text.
#[derive(Clone, Debug)]
pub struct Lexer<'a> {
    sql: &'a [u8],
    strings: StandardConformingStrings,
    encoding: ClientEncoding,
    /// Where the next token begins.
    position: usize,
    /// Up to here every `+` and `-` is an operator of its own.
    lone_signs_end: usize,
}

impl<'a> Lexer<'a> {
    /// A lexer at the start of `sql`, the text without the zero byte that ends it in a message.
    pub fn new(
        sql: &'a [u8],
        strings: StandardConformingStrings,
        encoding: ClientEncoding,
    ) -> Self {
        Self {
            sql,
            strings,
            encoding,
            position: 0,
            lone_signs_end: 0,
        }
    }

    /// The next token that is no whitespace; a comment may be.
    #[inline]
    pub fn next_behind_whitespace(&mut self) -> Option<Token> {
        self.position = self.run_end(self.position, Class::Blank);
        self.next()
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    #[inline]
    fn next(&mut self) -> Option<Token> {
        let start = self.position;
        let first = self.at(start)?;
        let single = |kind| (kind, start + 1);
        let (kind, end) = match class(first) {
            Class::Letter => self.identifier_or_prefixed_string(start, first),
            Class::Blank => (TokenKind::Whitespace, self.run_end(start + 1, Class::Blank)),
            Class::Digit => (TokenKind::Number, self.number_end(start)),
            Class::Operator => self.operator_or_comment(start, first),
            Class::Quote => self.string(start + 1, StringFlavour::Plain),
            Class::DoubleQuote => self.quoted_identifier(start + 1),
            Class::Dollar => self.parameter_or_dollar_string(start),
            Class::Comma => single(TokenKind::Comma),
            Class::OpenParenthesis => single(TokenKind::OpenParenthesis),
            Class::CloseParenthesis => single(TokenKind::CloseParenthesis),
            Class::OpenBracket => single(TokenKind::OpenBracket),
            Class::CloseBracket => single(TokenKind::CloseBracket),
            Class::Semicolon => single(TokenKind::Semicolon),
            Class::Dot => match self.at(start + 1) {
                Some(b'0'..=b'9') => (TokenKind::Number, self.number_end(start)),
                Some(b'.') => (TokenKind::DotDot, start + 2),
                _ => single(TokenKind::Dot),
            },
            Class::Colon => match self.at(start + 1) {
                Some(b':') => (TokenKind::Typecast, start + 2),
                Some(b'=') => (TokenKind::ColonEquals, start + 2),
                _ => single(TokenKind::Colon),
            },
            Class::Nul => single(TokenKind::Nul),
            Class::Other => single(TokenKind::Other),
        };
        self.position = end;
        Some(Token { kind, start, end })
    }
}

impl Lexer<'_> {
    #[inline]
    fn at(&self, position: usize) -> Option<u8> {
        self.sql.get(position).copied()
    }

    fn rest(&self, position: usize) -> &[u8] {
        self.sql.get(position..).unwrap_or_default()
    }

    /// Behind the bytes of that class that begin at `position`.
    #[inline]
    fn run_end(&self, mut position: usize, wanted: Class) -> usize {
        while self.at(position).is_some_and(|byte| class(byte) == wanted) {
            position += 1;
        }
        position
    }

    #[inline]
    fn identifier_or_prefixed_string(&self, start: usize, first: u8) -> (TokenKind, usize) {
        let end = self.identifier_end(start);
        // Only a name of one letter can be the prefix of a string: in `xe'a'` it is the name `xe` and a plain string.
        if end == start + 1 {
            let flavour = match (first, self.at(end)) {
                (b'e' | b'E', Some(b'\'')) => StringFlavour::Escape,
                (b'n' | b'N', Some(b'\'')) => StringFlavour::National,
                (b'b' | b'B' | b'x' | b'X', Some(b'\'')) => StringFlavour::Bit,
                (b'u' | b'U', Some(b'&')) => match self.at(end + 1) {
                    Some(b'\'') => return self.string(end + 2, StringFlavour::Unicode),
                    Some(b'"') => return self.quoted_identifier(end + 2),
                    _ => return (TokenKind::Identifier, end),
                },
                _ => return (TokenKind::Identifier, end),
            };
            return self.string(end + 1, flavour);
        }
        (TokenKind::Identifier, end)
    }

    #[inline]
    fn identifier_end(&self, start: usize) -> usize {
        if self.encoding.is_client_only() {
            return self
                .find_character(start, |byte| !is_identifier_part(byte))
                .unwrap_or(self.sql.len());
        }
        let mut position = start;
        while self.at(position).is_some_and(is_identifier_part) {
            position += 1;
        }
        position
    }

    /// From the text behind the opening quote.
    fn quoted_identifier(&self, body: usize) -> (TokenKind, usize) {
        let mut position = body;
        while let Some(quote) = self.find(position, b'"') {
            if self.at(quote + 1) != Some(b'"') {
                return (TokenKind::QuotedIdentifier, quote + 1);
            }
            position = quote + 2;
        }
        self.unterminated(Unterminated::QuotedIdentifier)
    }

    /// From the text behind the opening quote.
    fn string(&self, body: usize, flavour: StringFlavour) -> (TokenKind, usize) {
        let (kind, open) = match flavour {
            StringFlavour::Bit => (TokenKind::BitString, Unterminated::BitString),
            _ => (TokenKind::String, Unterminated::String),
        };
        let escapes = has_escapes(flavour, self.strings);
        let mut position = body;
        loop {
            let found = match escapes {
                true => self.find_either(position, b'\'', b'\\'),
                false => self.find(position, b'\''),
            };
            let Some(found) = found else {
                return self.unterminated(open);
            };
            let behind = found + 1;
            position = match (self.at(found), self.at(behind)) {
                (Some(b'\\'), _) => behind + self.encoding.character_length(self.rest(behind)),
                // A bit string has no doubled quotes.
                (_, Some(b'\'')) if kind == TokenKind::String => behind + 1,
                _ => match continuation(self.sql, behind) {
                    Some(quote) => quote + 1,
                    None => return (kind, behind),
                },
            };
        }
    }

    fn parameter_or_dollar_string(&self, start: usize) -> (TokenKind, usize) {
        if self.at(start + 1).is_some_and(|byte| byte.is_ascii_digit()) {
            return (TokenKind::Parameter, self.run_end(start + 1, Class::Digit));
        }
        let Some(body) = self.dollar_tag_end(start) else {
            return (TokenKind::Other, start + 1);
        };
        let delimiter = self.sql.get(start..body).unwrap_or_default();
        match memmem::find(self.rest(body), delimiter) {
            Some(length) => (TokenKind::DollarString, body + length + delimiter.len()),
            None => self.unterminated(Unterminated::DollarString),
        }
    }

    /// Behind the second `$` of `$tag$`.
    fn dollar_tag_end(&self, start: usize) -> Option<usize> {
        let tag = start + 1;
        let end = match self.encoding.is_client_only() {
            true => self.find_character(tag, |byte| !is_tag_part(byte))?,
            false => tag + self.rest(tag).iter().position(|&byte| !is_tag_part(byte))?,
        };
        (self.at(end) == Some(b'$')).then_some(end + 1)
    }

    /// Behind a number that begins with a digit, or with a dot and a digit.
    fn number_end(&self, start: usize) -> usize {
        if let (Some(b'0'), Some(radix)) = (self.at(start), self.at(start + 1)) {
            let end = match radix {
                b'x' | b'X' => self.digits_end(start + 2, |byte| byte.is_ascii_hexdigit()),
                b'o' | b'O' => self.digits_end(start + 2, |byte| matches!(byte, b'0'..=b'7')),
                b'b' | b'B' => self.digits_end(start + 2, |byte| matches!(byte, b'0' | b'1')),
                _ => start + 2,
            };
            if end > start + 2 {
                return end;
            }
        }
        let decimal = |byte: u8| byte.is_ascii_digit();
        let mut end = match self.at(start) {
            Some(b'.') => start,
            Some(_) => self.digits_end(start, decimal),
            None => start,
        };
        // `1..2` is a range: the dots are not the number's.
        if self.at(end) == Some(b'.') && (end == start || self.at(end + 1) != Some(b'.')) {
            end = match self.at(end + 1) {
                Some(b'0'..=b'9') => self.digits_end(end + 1, decimal),
                _ => end + 1,
            };
        }
        if let Some(b'e' | b'E') = self.at(end) {
            let exponent = match self.at(end + 1) {
                Some(b'+' | b'-') => end + 2,
                _ => end + 1,
            };
            if self.at(exponent).is_some_and(decimal) {
                end = self.digits_end(exponent, decimal);
            }
        }
        end
    }

    /// Behind digits that single underscores may part, as PostgreSQL 16 and later allow.
    fn digits_end(&self, mut position: usize, is_digit: impl Fn(u8) -> bool) -> usize {
        loop {
            position = match (self.at(position), self.at(position + 1)) {
                (Some(byte), _) if is_digit(byte) => position + 1,
                (Some(b'_'), Some(byte)) if is_digit(byte) => position + 2,
                _ => return position,
            };
        }
    }

    #[inline]
    fn operator_or_comment(&mut self, start: usize, first: u8) -> (TokenKind, usize) {
        match (first, self.at(start + 1)) {
            (b'-', Some(b'-')) => return (TokenKind::LineComment, self.line_end(start)),
            (b'/', Some(b'*')) => return self.block_comment(start),
            (_, Some(second))
                if class(second) == Class::Operator && start >= self.lone_signs_end => {}
            _ => return (TokenKind::Operator, start + 1),
        }
        (TokenKind::Operator, self.long_operator_end(start))
    }

    fn line_end(&self, start: usize) -> usize {
        self.find_either(start, b'\n', b'\r')
            .unwrap_or(self.sql.len())
    }

    fn block_comment(&self, start: usize) -> (TokenKind, usize) {
        let mut depth = 1_usize;
        let mut position = start + 2;
        while let Some(found) = self.find_either(position, b'*', b'/') {
            position = found + 2;
            match (self.at(found), self.at(found + 1)) {
                (Some(b'*'), Some(b'/')) => depth -= 1,
                (Some(b'/'), Some(b'*')) => depth += 1,
                _ => position = found + 1,
            }
            if depth == 0 {
                return (TokenKind::BlockComment, position);
            }
        }
        self.unterminated(Unterminated::BlockComment)
    }

    /// Behind an operator of several characters. A comment ends it, and so does a sign at its end, unless there is a
    /// character in it that SQL's own operators don't have: `=-1` is `=` and `-`, but `@-` is one operator.
    fn long_operator_end(&mut self, start: usize) -> usize {
        let mut end = start;
        let mut has_foreign = false;
        while let Some(byte) = self.at(end).filter(|&byte| class(byte) == Class::Operator) {
            if let (b'-', Some(b'-')) | (b'/', Some(b'*')) = (byte, self.at(end + 1)) {
                break;
            }
            has_foreign |= matches!(
                byte,
                b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%'
            );
            end += 1;
        }
        if has_foreign {
            return end;
        }
        // What is cut off here is signs alone, each one an operator: noted, or a long row of them would be read anew for
        // each.
        self.lone_signs_end = end;
        while end > start + 1 && matches!(self.at(end - 1), Some(b'+' | b'-')) {
            end -= 1;
        }
        end
    }

    fn unterminated(&self, what: Unterminated) -> (TokenKind, usize) {
        (TokenKind::Unterminated(what), self.sql.len())
    }

    fn find(&self, position: usize, wanted: u8) -> Option<usize> {
        if self.encoding.is_client_only() {
            return self.find_character(position, |byte| byte == wanted);
        }
        Some(position + memchr::memchr(wanted, self.rest(position))?)
    }

    fn find_either(&self, position: usize, one: u8, other: u8) -> Option<usize> {
        if self.encoding.is_client_only() {
            return self.find_character(position, |byte| byte == one || byte == other);
        }
        Some(position + memchr::memchr2(one, other, self.rest(position))?)
    }

    /// The first character whose first byte is wanted: a later byte of a character may look like anything.
    fn find_character(&self, mut position: usize, wanted: impl Fn(u8) -> bool) -> Option<usize> {
        loop {
            if wanted(self.at(position)?) {
                return Some(position);
            }
            position += self.encoding.character_length(self.rest(position));
        }
    }
}

/// How a quoted string is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StringFlavour {
    Plain,
    Escape,
    National,
    Unicode,
    Bit,
}

fn has_escapes(flavour: StringFlavour, strings: StandardConformingStrings) -> bool {
    match flavour {
        StringFlavour::Escape => true,
        StringFlavour::Plain | StringFlavour::National => strings == StandardConformingStrings::Off,
        StringFlavour::Unicode | StringFlavour::Bit => false,
    }
}

/// The quote that takes a string up again, when nothing but blanks with a line end among them and line comments stand between.
fn continuation(sql: &[u8], behind_quote: usize) -> Option<usize> {
    let mut position = behind_quote;
    let mut is_new_line = false;
    loop {
        match *sql.get(position)? {
            b'\'' => return is_new_line.then_some(position),
            b'\n' | b'\r' => is_new_line = true,
            b'-' if sql.get(position + 1) == Some(&b'-') => {
                // Up to the line end, which the next round sees.
                position += memchr::memchr2(b'\n', b'\r', sql.get(position..)?)?;
                continue;
            }
            byte if class(byte) == Class::Blank => {}
            _ => return None,
        }
        position += 1;
    }
}

#[cfg(test)]
mod tests;
