//! What a string constant or an identifier stands for.

use std::borrow::Cow;

use super::class::{Class, class, is_identifier_part};
use super::{StandardConformingStrings, StringFlavour, continuation, has_escapes};

/// The value of a string constant as the server would see it: quotes, escapes and continuation lines undone.
///
/// `None` where it can't be told: not a string constant, a bit string, `U&'…'` (its escape character may stand behind it), an
/// escape that the server refuses, or one above ASCII that depends on the server's encoding (`E'\u00e9'`). Client-only
/// encodings are not for this function.
pub fn string_value(token: &[u8], strings: StandardConformingStrings) -> Option<Cow<'_, [u8]>> {
    let (flavour, body) = match *token {
        [b'\'', ..] => (StringFlavour::Plain, 1),
        [b'e' | b'E', b'\'', ..] => (StringFlavour::Escape, 2),
        [b'n' | b'N', b'\'', ..] => (StringFlavour::National, 2),
        [b'$', ..] => return dollar_string_value(token).map(Cow::Borrowed),
        _ => return None,
    };
    let escapes = has_escapes(flavour, strings);
    let inner = token.get(body..token.len().checked_sub(1)?)?;
    let is_special = |byte: &u8| *byte == b'\'' || escapes && *byte == b'\\';
    if !inner.iter().any(is_special) {
        return (token.last() == Some(&b'\'')).then_some(Cow::Borrowed(inner));
    }
    let mut value = Vec::with_capacity(inner.len());
    let mut position = body;
    loop {
        let byte = *token.get(position)?;
        let next = token.get(position + 1).copied();
        position += 1;
        match (byte, next) {
            (b'\'', Some(b'\'')) => {
                value.push(b'\'');
                position += 1;
            }
            (b'\'', None) => return Some(Cow::Owned(value)),
            (b'\'', Some(_)) => position = continuation(token, position)? + 1,
            (b'\\', _) if escapes => position += unescape(token.get(position..)?, &mut value)?,
            _ => value.push(byte),
        }
    }
}

/// The name that an identifier stands for: unquoted, or folded to lower case (ASCII only, which is what the server does in
/// multi-byte encodings).
///
/// `None` for what is no identifier, and for `U&"…"`, whose escape character may stand behind it.
pub fn identifier_value(token: &[u8]) -> Option<Cow<'_, [u8]>> {
    if let Some(quoted) = token.strip_prefix(b"\"") {
        let inner = quoted.strip_suffix(b"\"")?;
        if memchr::memchr(b'"', inner).is_none() {
            return (!inner.is_empty()).then_some(Cow::Borrowed(inner));
        }
        let mut value = Vec::with_capacity(inner.len());
        let mut bytes = inner.iter();
        while let Some(&byte) = bytes.next() {
            if byte == b'"' && bytes.next() != Some(&b'"') {
                return None;
            }
            value.push(byte);
        }
        return Some(Cow::Owned(value));
    }
    let first = *token.first()?;
    if class(first) != Class::Letter || !token.iter().all(|&byte| is_identifier_part(byte)) {
        return None;
    }
    Some(match token.iter().any(u8::is_ascii_uppercase) {
        true => Cow::Owned(token.to_ascii_lowercase()),
        false => Cow::Borrowed(token),
    })
}

fn dollar_string_value(token: &[u8]) -> Option<&[u8]> {
    let delimiter = memchr::memchr(b'$', token.get(1..)?)? + 2;
    let (tag, rest) = token.split_at_checked(delimiter)?;
    rest.strip_suffix(tag)
}

/// Appends what the escape behind a backslash stands for, and says how many bytes it took.
fn unescape(behind: &[u8], value: &mut Vec<u8>) -> Option<usize> {
    let first = *behind.first()?;
    let plain = match first {
        b'b' => b'\x08',
        b'f' => b'\x0C',
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        // A vertical tab since PostgreSQL 16, the letter before.
        b'v' => return None,
        b'0'..=b'7' => {
            let digits = behind
                .iter()
                .take(3)
                .take_while(|byte| matches!(byte, b'0'..=b'7'));
            let (code, length) = digits.fold((0_u32, 0), |(code, length), digit| {
                (code * 8 + u32::from(digit - b'0'), length + 1)
            });
            // The server keeps the lowest byte: \777 is \377.
            return push_byte((code & 0xFF) as u8, length, value);
        }
        b'x' if behind.get(1).is_some_and(u8::is_ascii_hexdigit) => {
            let length = 1 + behind
                .iter()
                .skip(1)
                .take(2)
                .take_while(|byte| byte.is_ascii_hexdigit())
                .count();
            return push_byte(hexadecimal(behind.get(1..length)?)? as u8, length, value);
        }
        b'u' | b'U' => {
            let length = if first == b'u' { 5 } else { 9 };
            let code = hexadecimal(behind.get(1..length)?)?;
            return push_byte(u8::try_from(code).ok().filter(u8::is_ascii)?, length, value);
        }
        other => other,
    };
    value.push(plain);
    Some(1)
}

/// A zero byte can't be part of a value.
fn push_byte(byte: u8, length: usize, value: &mut Vec<u8>) -> Option<usize> {
    value.push((byte != 0).then_some(byte)?);
    Some(length)
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0_u32, |code, &digit| {
        Some(code.checked_mul(16)? + char::from(digit).to_digit(16)?)
    })
}
