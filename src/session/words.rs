//! A statement's tokens, blanks and comments left out, for recognising the few commands that matter here.

use std::borrow::Cow;

use crate::sql::encoding::ClientEncoding;
use crate::sql::lexer::{
    Lexer, StandardConformingStrings, TokenKind, identifier_value, string_value,
};

/// Reads a statement word by word.
#[derive(Clone, Debug)]
pub(super) struct Words<'a> {
    statement: &'a [u8],
    lexer: Lexer<'a>,
    strings: StandardConformingStrings,
}

/// One token that is not blank.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'a> {
    pub(super) kind: TokenKind,
    pub(super) text: &'a [u8],
    strings: StandardConformingStrings,
}

/// A text from its first word on: without the blanks and comments in front of it, which most texts don't have.
pub(super) fn from_first_word(text: &[u8]) -> &[u8] {
    if text.first().is_some_and(u8::is_ascii_alphabetic) {
        return text;
    }
    let mut tokens = Lexer::new(text, StandardConformingStrings::On, ClientEncoding::Utf8);
    let first = tokens.find(|token| !token.kind.is_blank());
    first
        .and_then(|first| text.get(first.start..))
        .unwrap_or_default()
}

impl<'a> Words<'a> {
    pub(super) fn new(
        statement: &'a [u8],
        strings: StandardConformingStrings,
        encoding: ClientEncoding,
    ) -> Self {
        Self {
            statement,
            lexer: Lexer::new(statement, strings, encoding),
            strings,
        }
    }

    /// Takes the next word if it is this keyword, written in lower case here.
    pub(super) fn take_keyword(&mut self, keyword: &str) -> bool {
        self.take_if(|word| word.is_keyword(keyword)).is_some()
    }

    /// Takes the next word if it is of this kind.
    pub(super) fn take_kind(&mut self, kind: TokenKind) -> bool {
        self.take_if(|word| word.kind == kind).is_some()
    }

    /// Takes the next word if it is this operator.
    pub(super) fn take_operator(&mut self, operator: &str) -> bool {
        self.take_if(|word| word.kind == TokenKind::Operator && word.text == operator.as_bytes())
            .is_some()
    }

    /// Takes the next word if it is a name.
    pub(super) fn take_identifier(&mut self) -> Option<Cow<'a, [u8]>> {
        self.take_if(|word| word.identifier().is_some())?
            .identifier()
    }

    /// Takes the next word if it is a string constant.
    pub(super) fn take_string(&mut self) -> Option<Cow<'a, [u8]>> {
        self.take_if(|word| word.string().is_some())?.string()
    }

    /// Whether the next word is of this kind.
    pub(super) fn is_before(&self, kind: TokenKind) -> bool {
        self.clone().next().is_some_and(|word| word.kind == kind)
    }

    /// Whether nothing follows but semicolons.
    pub(super) fn is_at_end(&mut self) -> bool {
        while self.take_kind(TokenKind::Semicolon) {}
        self.clone().next().is_none()
    }

    fn take_if(&mut self, wanted: impl Fn(&Word<'a>) -> bool) -> Option<Word<'a>> {
        let mut ahead = self.clone();
        let word = ahead.next().filter(wanted)?;
        *self = ahead;
        Some(word)
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        let token = self.lexer.find(|token| !token.kind.is_blank())?;
        Some(Word {
            kind: token.kind,
            text: self.statement.get(token.start..token.end)?,
            strings: self.strings,
        })
    }
}

impl<'a> Word<'a> {
    pub(super) fn is_keyword(&self, keyword: &str) -> bool {
        self.kind == TokenKind::Identifier && self.text.eq_ignore_ascii_case(keyword.as_bytes())
    }

    pub(super) fn identifier(&self) -> Option<Cow<'a, [u8]>> {
        match self.kind {
            TokenKind::Identifier | TokenKind::QuotedIdentifier => identifier_value(self.text),
            _ => None,
        }
    }

    pub(super) fn string(&self) -> Option<Cow<'a, [u8]>> {
        match self.kind {
            TokenKind::String => string_value(self.text, self.strings),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_begins_with_its_first_word_whatever_is_in_front() {
        for text in [
            "RESET ALL",
            " \n RESET ALL",
            "/* a; /* b */ */ -- c\n RESET ALL",
        ] {
            assert_eq!(from_first_word(text.as_bytes()), b"RESET ALL");
        }
        assert_eq!(from_first_word(b"/* RESET ALL"), b"/* RESET ALL");
        assert_eq!(from_first_word(b"-- RESET ALL"), b"");
    }
}
