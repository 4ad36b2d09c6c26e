//! What a byte of query text can begin, by the definitions at the head of `scan.l`.

pub(super) fn is_identifier_part(byte: u8) -> bool {
    matches!(class(byte), Class::Letter | Class::Digit | Class::Dollar)
}

/// The tag of a dollar-quoted string: an identifier without `$`.
pub(super) fn is_tag_part(byte: u8) -> bool {
    matches!(class(byte), Class::Letter | Class::Digit)
}

#[inline]
#[expect(
    clippy::indexing_slicing,
    reason = "there is a class for each of the 256 bytes"
)]
pub(super) fn class(byte: u8) -> Class {
    CLASSES[byte as usize]
}

/// What a byte can begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Letter,
    Digit,
    Dollar,
    Blank,
    Operator,
    Quote,
    DoubleQuote,
    Comma,
    OpenParenthesis,
    CloseParenthesis,
    OpenBracket,
    CloseBracket,
    Semicolon,
    Dot,
    Colon,
    Nul,
    Other,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Other; 256];
    let mut byte = 0;
    #[expect(
        clippy::indexing_slicing,
        reason = "the loop ends with the table, and the compiler runs it"
    )]
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xFF => Class::Letter,
            b'0'..=b'9' => Class::Digit,
            b'$' => Class::Dollar,
            // The vertical tab is a blank since PostgreSQL 16, and a syntax error before.
            b' ' | b'\t' | b'\n' | b'\r' | b'\x0C' | b'\x0B' => Class::Blank,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*'
            | b'/' | b'%' | b'<' | b'>' | b'=' => Class::Operator,
            b'\'' => Class::Quote,
            b'"' => Class::DoubleQuote,
            b',' => Class::Comma,
            b'(' => Class::OpenParenthesis,
            b')' => Class::CloseParenthesis,
            b'[' => Class::OpenBracket,
            b']' => Class::CloseBracket,
            b';' => Class::Semicolon,
            b'.' => Class::Dot,
            b':' => Class::Colon,
            b'\0' => Class::Nul,
            _ => Class::Other,
        };
        byte += 1;
    }
    classes
};
