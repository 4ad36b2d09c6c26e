//! A cheap number for a query's text that does not see constants: what a worker looks a statement up by.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::RandomState;

use crate::sql::fingerprint::ends_columns;

/// Numbers texts. Two workers with the same one give the same text the same number.
#[derive(Clone, Debug, Default)]
pub(super) struct Shapes(RandomState);

/// What a byte can begin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Other,
    Word,
    Digit,
    Quote,
    DoubleQuote,
    Slash,
    Dash,
    Dollar,
}

impl Shapes {
    /// The shape of a text of one pool. Texts of one shape have the same fingerprint; a fingerprint may have many shapes, as
    /// neither case nor blanks nor the length of a list are looked at. Where a constant's end is in doubt, it counts.
    #[inline]
    pub(super) fn of(&self, pool: u32, text: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write_u32(pool);
        write_shape(text, &mut hasher);
        hasher.finish()
    }

    /// A number for tags; never 0.
    pub(super) fn of_tags(&self, tags: &[(Box<str>, Box<str>)]) -> u64 {
        let mut hasher = self.0.build_hasher();
        for (key, value) in tags {
            hasher.write(key.as_bytes());
            hasher.write_u8(0);
            hasher.write(value.as_bytes());
            hasher.write_u8(0);
        }
        hasher.finish().max(1)
    }
}

/// The text in stretches, with a mark for each constant and without comments.
fn write_shape(text: &[u8], out: &mut impl Hasher) {
    // Where the stretch begins that is not written yet.
    let mut from = 0;
    let mut at = 0;
    // Behind ORDER BY or GROUP BY, where numbers may be columns'.
    let mut has_columns = false;
    let write = |out: &mut _, from: usize, to: usize| {
        Hasher::write(out, text.get(from..to).unwrap_or_default());
    };
    loop {
        // Most bytes begin nothing.
        at = match has_columns {
            false => end_of(text, at, |byte| PLAIN[usize::from(byte)]),
            true => end_of(text, at, |byte| byte == b' '),
        };
        let Some(&byte) = text.get(at) else { break };
        let next = text.get(at + 1).copied();
        match class(byte) {
            Class::Word if has_columns => {
                let end = end_of_word(text, at);
                has_columns = !ends_columns(text.get(at..end).unwrap_or_default());
                at = end;
            }
            // The end of a word, perhaps of BY.
            Class::Word => {
                at += 1;
                has_columns = is_by(text, at);
            }
            Class::Other => {
                has_columns &= byte != b';';
                at += 1;
            }
            // Of a word, or perhaps a column's number.
            Class::Digit if has_columns || is_in_word(text, at) => at = end_of_word(text, at),
            Class::Digit => {
                write(out, from, at);
                out.write_u8(NUMBER);
                at = end_of(text, at, |byte| byte.is_ascii_digit());
                from = at;
            }
            // Of a word.
            Class::Dollar if is_in_word(text, at) => at = end_of_word(text, at),
            // A parameter, which counts; or else a string whose end is not looked for.
            Class::Dollar if next.is_some_and(|next| next.is_ascii_digit()) => {
                at = end_of_word(text, at);
            }
            Class::Dollar => break,
            Class::Quote => match end_of_string(text, at) {
                Some(end) => {
                    write(out, from, at);
                    out.write_u8(STRING);
                    at = end;
                    from = end;
                }
                None => break,
            },
            Class::DoubleQuote => match find(text, at + 1, b'"') {
                Some(end) => at = end + 1,
                None => break,
            },
            Class::Dash if next == Some(b'-') => {
                write(out, from, at);
                at = end_of(text, at, |byte| !matches!(byte, b'\n' | b'\r'));
                from = at;
            }
            Class::Slash if next == Some(b'*') => match end_of_comment(text, at) {
                Some(end) => {
                    write(out, from, at);
                    out.write_u8(b' ');
                    at = end;
                    from = end;
                }
                None => break,
            },
            Class::Dash | Class::Slash => at += 1,
        }
    }
    write(out, from, text.len());
}

/// Bytes that can't begin anything, nor end a BY.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        plain[byte] = match class(byte as u8) {
            Class::Word => !matches!(byte as u8, b'y' | b'Y'),
            Class::Other => true,
            _ => false,
        };
        byte += 1;
    }
    plain
};

/// Whether the word BY ends here.
#[cold]
fn is_by(text: &[u8], end: usize) -> bool {
    let is_word = |at: Option<usize>| {
        let byte = at.and_then(|at| text.get(at));
        byte.is_some_and(|byte| matches!(class(*byte), Class::Word | Class::Digit | Class::Dollar))
    };
    let Some(begin) = end.checked_sub(2) else {
        return false;
    };
    (text.get(begin..end)).is_some_and(|word| word.eq_ignore_ascii_case(b"by"))
        && !is_word(begin.checked_sub(1))
        && !is_word(Some(end))
}

/// Whether what begins here goes on with a word.
#[inline]
fn is_in_word(text: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| text.get(before));
    before.is_some_and(|byte| matches!(class(*byte), Class::Word))
}

/// Stands for digits. A sign in front of them belongs to the constant, so they are no strings.
const NUMBER: u8 = 1;

/// Stands for a string.
const STRING: u8 = 2;

#[inline]
const fn class(byte: u8) -> Class {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => Class::Word,
        b'0'..=b'9' => Class::Digit,
        b'\'' => Class::Quote,
        b'"' => Class::DoubleQuote,
        b'/' => Class::Slash,
        b'-' => Class::Dash,
        b'$' => Class::Dollar,
        _ => Class::Other,
    }
}

fn end_of_word(text: &[u8], at: usize) -> usize {
    end_of(text, at, |byte| {
        matches!(class(byte), Class::Word | Class::Digit | Class::Dollar)
    })
}

#[inline]
fn end_of(text: &[u8], at: usize, belongs: impl Fn(u8) -> bool) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    let len = rest.iter().position(|&byte| !belongs(byte));
    at + len.unwrap_or(rest.len())
}

fn find(text: &[u8], at: usize, byte: u8) -> Option<usize> {
    Some(at + memchr::memchr(byte, text.get(at..)?)?)
}

/// Behind the string that begins at `at`; `None` where there is a backslash in it, which may or may not mean something.
fn end_of_string(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let from = at + 1;
        let end = from + memchr::memchr2(b'\'', b'\\', text.get(from..)?)?;
        match (text.get(end), text.get(end + 1)) {
            (Some(b'\\'), _) => return None,
            (_, Some(b'\'')) => at = end + 1,
            _ => return Some(end + 1),
        }
    }
}

/// Behind the comment that begins at `at`, and those in it.
fn end_of_comment(text: &[u8], at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = at;
    loop {
        at += memchr::memchr2(b'*', b'/', text.get(at..)?)?;
        match text.get(at..at + 2)? {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sql::encoding::ClientEncoding;
    use crate::sql::fingerprint::Fingerprint;
    use crate::sql::lexer::StandardConformingStrings;

    #[test]
    fn texts_that_differ_in_constants_and_comments_have_one_shape() {
        for (one, other) in [
            ("SELECT 1", "SELECT 2345"),
            (
                "SELECT a FROM t WHERE b = 'x'",
                "SELECT a FROM t WHERE b = 'it''s'",
            ),
            (
                "SELECT 1 /* a /* b */ c */",
                "SELECT 2 /*traceparent='00-1-2-01'*/",
            ),
            ("SELECT 1 -- a\n, 2", "SELECT 1 -- b 7\n, 3"),
            ("SELECT 1.5", "SELECT 22.75"),
            ("SELECT $1, 'a'", "SELECT $1, ''"),
        ] {
            assert_eq!(of(one), of(other), "{one} | {other}");
        }
    }

    #[test]
    fn what_is_no_constant_counts() {
        for (one, other) in [
            ("SELECT a1", "SELECT a2"),
            ("SELECT $1", "SELECT $2"),
            ("SELECT \"a 1\"", "SELECT \"a 2\""),
            ("SELECT $$a$$", "SELECT $$b$$"),
            ("SELECT E'\\'' || 'a'", "SELECT E'\\'' || 'b'"),
            ("SELECT 1, 2", "SELECT 1"),
            ("SELECT a", "SELECT b"),
            (
                "SELECT a, b FROM t ORDER BY 1",
                "SELECT a, b FROM t ORDER BY 2",
            ),
        ] {
            assert_ne!(of(one), of(other), "{one} | {other}");
        }
        let shapes = Shapes::default();
        assert_ne!(shapes.of(1, b"SELECT 1"), shapes.of(2, b"SELECT 1"));
    }

    proptest! {
        /// The shape is only a shortcut to the fingerprint.
        #[test]
        fn texts_of_one_shape_have_one_fingerprint(
            one in proptest::collection::vec(piece(), 0..12),
            other in proptest::collection::vec(piece(), 0..12),
        ) {
            // The same words, other constants.
            let words = |constants: usize| -> String {
                (one.iter().map(|piece| piece[constants.min(piece.len() - 1)])).collect()
            };
            for (one, other) in [(words(0), words(1)), (words(0), other.iter().map(|piece| piece[0]).collect())] {
                if of(&one) == of(&other) {
                    for strings in [StandardConformingStrings::On, StandardConformingStrings::Off] {
                        let of = |sql: &str| Fingerprint::of(sql.as_bytes(), strings, ClientEncoding::Utf8);
                        prop_assert_eq!(of(&one), of(&other), "{} | {}", one, other);
                    }
                }
            }
        }
    }

    fn piece() -> impl Strategy<Value = &'static [&'static str]> {
        prop_oneof![
            Just(&["1", "23"][..]),
            Just(&["'a'", "'it''s'"][..]),
            Just(&["'a\\'", "'b\\'"][..]),
            Just(&["/* a */", "/* b */"][..]),
            Just(&["-- a", "-- b"][..]),
            Just(&["$1", "$2"][..]),
            Just(&["$a$", "$b$"][..]),
            Just(&["\"a 1\"", "\"a 2\""][..]),
            Just(&["e", "E"][..]),
            Just(&[" ", "  "][..]),
            Just(&["\n"][..]),
            Just(&["."][..]),
            Just(&["-", "+"][..]),
            Just(&["*", "/"][..]),
            Just(&["'", "\""][..]),
            Just(&["IN (1, 2)", "IN (3, 4)"][..]),
            Just(&["ORDER BY "][..]),
            Just(&[", "][..]),
            Just(&["LIMIT "][..]),
            Just(&["x1F", "_000"][..]),
        ]
    }

    fn of(text: &str) -> u64 {
        thread_local! { static SHAPES: Shapes = Shapes::default(); }
        SHAPES.with(|shapes| shapes.of(7, text.as_bytes()))
    }
}
