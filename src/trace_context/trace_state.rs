//! The `tracestate`: a list of vendors' members, most recent first.
//!
//! Source: W3C Trace Context, section 3.3.

/// Which rule a `tracestate` breaks. One that does is dropped as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTraceState {
    /// A member is not `key=value`.
    #[error("a tracestate is a list of key=value, separated by commas")]
    Member,
    /// A key is empty, too long, or has a character that keys can't have.
    #[error("a key of a tracestate has up to 256 characters out of a-z 0-9 _ - * / @")]
    Key,
    /// A value is empty, too long, or has a character that values can't have.
    #[error(
        "a value of a tracestate has up to 256 printable characters other than \",\" and \"=\""
    )]
    Value,
    /// A key is there twice.
    #[error("a key of a tracestate is there only once")]
    Repeated,
}

/// Reads a `tracestate` and cuts it to 32 members and to `limit` bytes (W3C asks for at least 512): members of more than
/// 128 characters go first, then those on the right; a member never loses a part. Without a member left: `None`.
pub fn parse_trace_state(text: &[u8], limit: usize) -> Result<Option<Box<str>>, InvalidTraceState> {
    let text = str::from_utf8(text).map_err(|_| InvalidTraceState::Value)?;
    let mut members: Vec<(&str, &str)> = Vec::new();
    for member in text.split(',') {
        let member = member.trim_matches([' ', '\t']);
        if member.is_empty() {
            continue;
        }
        let (key, value) = member.split_once('=').ok_or(InvalidTraceState::Member)?;
        if !is_key(key.as_bytes()) {
            return Err(InvalidTraceState::Key);
        }
        if !is_value(value.as_bytes()) {
            return Err(InvalidTraceState::Value);
        }
        // More than twice the allowed number is not worth comparing.
        if members.len() < 2 * MEMBERS {
            if members.iter().any(|(known, _)| *known == key) {
                return Err(InvalidTraceState::Repeated);
            }
            members.push((key, value));
        }
    }
    members.truncate(MEMBERS);
    if length(&members) > limit {
        members.retain(|(key, value)| key.len() + 1 + value.len() <= LONG_MEMBER);
    }
    while length(&members) > limit {
        members.pop();
    }
    if members.is_empty() {
        return Ok(None);
    }
    let mut list = String::with_capacity(length(&members));
    for (index, (key, value)) in members.iter().enumerate() {
        if index > 0 {
            list.push(',');
        }
        list.push_str(key);
        list.push('=');
        list.push_str(value);
    }
    Ok(Some(list.into_boxed_str()))
}

/// As long as the list would be with its commas.
fn length(members: &[(&str, &str)]) -> usize {
    let pairs: usize = members.iter().map(|(k, v)| k.len() + 1 + v.len()).sum();
    pairs + members.len().saturating_sub(1)
}

fn is_key(key: &[u8]) -> bool {
    key.len() <= 256
        && matches!(key.first(), Some(b'a'..=b'z' | b'0'..=b'9'))
        && key.iter().all(
            |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@'),
        )
}

fn is_value(value: &[u8]) -> bool {
    (1..=256).contains(&value.len())
        && value
            .iter()
            .all(|byte| matches!(byte, 0x20..=0x7e) && !matches!(byte, b',' | b'='))
}

/// A list has no more members than this.
const MEMBERS: usize = 32;
/// Members longer than this are dropped first.
const LONG_MEMBER: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blanks_and_empty_members_fall_away() {
        assert_eq!(
            parse(" a=1 ,, b*/c=2 3\t,"),
            Ok(Some("a=1,b*/c=2 3".into()))
        );
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse(" , "), Ok(None));
    }

    #[test]
    fn each_broken_rule_is_named() {
        assert_eq!(parse("a"), Err(InvalidTraceState::Member));
        assert_eq!(parse("A=1"), Err(InvalidTraceState::Key));
        assert_eq!(parse("=1"), Err(InvalidTraceState::Key));
        assert_eq!(parse("a="), Err(InvalidTraceState::Value));
        assert_eq!(parse("a=b=c"), Err(InvalidTraceState::Value));
        assert_eq!(parse("a=\u{e9}"), Err(InvalidTraceState::Value));
        assert_eq!(parse("a=1,b=2,a=3"), Err(InvalidTraceState::Repeated));
    }

    #[test]
    fn the_rightmost_of_more_than_32_members_are_dropped() {
        let members = |n: usize| {
            let list: Vec<String> = (0..n).map(|i| format!("k{i}=v")).collect();
            list.join(",")
        };
        assert_eq!(parse(&members(100)), Ok(Some(members(32).into())));
    }

    #[test]
    fn long_members_are_dropped_before_the_rightmost_and_never_cut() {
        let long = format!("long={}", "x".repeat(200));
        let short = |key| format!("{key}={}", "x".repeat(100));
        let text = [
            short("a"),
            long,
            short("b"),
            short("c"),
            short("d"),
            short("e"),
        ]
        .join(",");
        let kept = [short("a"), short("b"), short("c"), short("d")].join(",");
        assert_eq!(
            parse_trace_state(text.as_bytes(), 512),
            Ok(Some(kept.into()))
        );
        assert_eq!(parse_trace_state(b"a=123", 4), Ok(None));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), limit in 0_usize..100) {
            if let Ok(Some(list)) = parse_trace_state(&bytes, limit) {
                prop_assert!(list.len() <= limit);
                prop_assert_eq!(parse_trace_state(list.as_bytes(), limit), Ok(Some(list)));
            }
        }
    }

    fn parse(text: &str) -> Result<Option<Box<str>>, InvalidTraceState> {
        parse_trace_state(text.as_bytes(), 512)
    }
}
