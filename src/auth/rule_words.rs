//! The words of a line in a file of rules or of name maps.

use std::borrow::Cow;

/// A word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word<'a> {
    /// As it stands: it may be a keyword.
    Bare(&'a str),
    /// In quotes: it is a name, whatever it says.
    Quoted(Cow<'a, str>),
    /// Between the names of a list.
    Comma,
}

/// A quote that is not closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unclosed;

/// The words of a line, without its comment. A quote within quotes is doubled.
pub(super) fn words(line: &str) -> Result<Vec<Word<'_>>, Unclosed> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    loop {
        let Some(first) = rest.chars().next().filter(|first| *first != '#') else {
            return Ok(words);
        };
        rest = match first {
            ',' => {
                words.push(Word::Comma);
                rest.get(1..)
            }
            '"' => {
                let (text, behind) = quoted(rest)?;
                words.push(Word::Quoted(text));
                Some(behind)
            }
            _ => {
                let ends = |letter: char| letter.is_whitespace() || ",#\"".contains(letter);
                let (word, behind) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
                words.push(Word::Bare(word));
                Some(behind)
            }
        }
        .unwrap_or_default()
        .trim_start();
    }
}

fn quoted(text: &str) -> Result<(Cow<'_, str>, &str), Unclosed> {
    let inside = text.get(1..).unwrap_or_default();
    let mut from = 0;
    loop {
        let behind = inside.get(from..).unwrap_or_default();
        let end = from + behind.find('"').ok_or(Unclosed)?;
        let (text, rest) = (
            inside.get(..end).unwrap_or_default(),
            inside.get(end + 1..).unwrap_or_default(),
        );
        if rest.starts_with('"') {
            from = end + 2;
            continue;
        }
        return Ok(match text.contains('"') {
            true => (text.replace("\"\"", "\"").into(), rest),
            false => (text.into(), rest),
        });
    }
}

/// Why a line says nothing that can be held to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct LineError {
    /// The line's number, from 1.
    pub line: usize,
    /// What is wrong.
    pub why: Box<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_at_blanks_commas_quotes_and_comments() {
        assert_eq!(
            words(" a,b \"c \"\"d\"\" #\",e#f"),
            Ok(vec![
                Word::Bare("a"),
                Word::Comma,
                Word::Bare("b"),
                Word::Quoted("c \"d\" #".into()),
                Word::Comma,
                Word::Bare("e"),
            ])
        );
        assert_eq!(words(" \t# all of it"), Ok(vec![]));
        assert_eq!(words("a \"b"), Err(Unclosed));
    }
}
