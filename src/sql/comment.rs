//! The comment that says whose query it is: written behind or before a statement, and read where an application wrote one.
//!
//! Source: the sqlcommenter specification, open-telemetry/opentelemetry-sqlcommenter, docs/specifications; the
//! encoding is stricter than it asks for, so that no value can end the comment or open another.

use std::borrow::Cow;

use crate::config::choices::{CommentFormat, Placement};
use crate::trace_context::TraceContext;

/// The key of the application's span.
pub const TRACEPARENT: &str = "traceparent";
/// The key of the vendor's part.
pub const TRACESTATE: &str = "tracestate";
/// The key of the application's own id of the request.
pub const CORRELATION_ID: &str = "correlation_id";

/// Appends the comment for `context`, with the blank that separates it from the statement; nothing where there is nothing to say.
pub fn write_comment(
    context: &TraceContext,
    format: CommentFormat,
    placement: Placement,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    if placement == Placement::Suffix {
        out.push(b' ');
    }
    let body = out.len();
    match format {
        CommentFormat::Sqlcommenter => write_sqlcommenter(context, out),
        CommentFormat::Plain => write_plain(context, out),
    }
    if out.len() == body {
        out.truncate(start);
    } else if placement == Placement::Prefix {
        out.push(b' ');
    }
}

fn write_sqlcommenter(context: &TraceContext, out: &mut Vec<u8>) {
    let parent = context.parent.map(|parent| parent.to_ascii());
    let fields: [(&str, Option<&[u8]>); 3] = [
        (
            CORRELATION_ID,
            context.correlation_id.as_deref().map(str::as_bytes),
        ),
        (TRACEPARENT, parent.as_ref().map(|text| text.as_slice())),
        (TRACESTATE, context.tracestate.as_deref().map(str::as_bytes)),
    ];
    let mut fields = fields.into_iter().peekable();
    let mut separator: &[u8] = b"/*";
    let mut pair = |key: &str, value: &[u8]| {
        if value.is_empty() {
            return;
        }
        out.extend_from_slice(separator);
        encode(key.as_bytes(), is_unreserved, out);
        out.extend_from_slice(b"='");
        encode(value, is_unreserved, out);
        out.push(b'\'');
        separator = b",";
    };
    for (key, value) in &context.tags {
        while let Some((field, text)) = fields.next_if(|(field, _)| *field < &**key) {
            pair(field, text.unwrap_or_default());
        }
        if ![CORRELATION_ID, TRACEPARENT, TRACESTATE].contains(&&**key) {
            pair(key, value.as_bytes());
        }
    }
    for (field, text) in fields {
        pair(field, text.unwrap_or_default());
    }
    if separator == b"," {
        out.extend_from_slice(b"*/");
    }
}

fn write_plain(context: &TraceContext, out: &mut Vec<u8>) {
    let mut separator: &[u8] = b"/* ";
    if let Some(parent) = context.parent {
        out.extend_from_slice(separator);
        out.extend_from_slice(b"trace_id: ");
        parent.trace_id.write_to(out);
        separator = b", ";
    }
    if let Some(id) = context.correlation_id.as_deref() {
        out.extend_from_slice(separator);
        out.extend_from_slice(b"correlation_id: ");
        encode(id.as_bytes(), is_plain, out);
        separator = b", ";
    }
    if separator == b", " {
        out.extend_from_slice(b" */");
    }
}

/// Percent-encodes every byte that may not stand as it is.
fn encode(text: &[u8], may_stand: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
    let digit = |value: u8| match value {
        0..=9 => b'0' + value,
        _ => b'A' + value - 10,
    };
    let mut rest = text;
    loop {
        let standing = rest.iter().take_while(|byte| may_stand(**byte)).count();
        let (run, behind) = rest.split_at(standing);
        out.extend_from_slice(run);
        let [byte, behind @ ..] = behind else { return };
        out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        rest = behind;
    }
}

/// RFC 3986's unreserved characters: what every decoder leaves alone.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What may stand in the plain format: ids of all kinds, nothing that could end the comment.
fn is_plain(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b':' | b'+' | b'=')
}

/// The pairs of an existing comment in sqlcommenter's form.
#[derive(Clone, Copy, Debug)]
pub struct Comment<'a> {
    /// Well formed: `key='value'` once or more, separated by commas.
    pairs: &'a [u8],
}

impl<'a> Comment<'a> {
    /// Takes a comment with its `/*` and `*/`, if the whole of it is in the form: anything else is somebody's remark or hint.
    pub fn parse(comment: &'a [u8]) -> Option<Self> {
        Self::parse_pairs(comment.strip_prefix(b"/*")?.strip_suffix(b"*/")?)
    }

    /// Takes the pairs without `/*` and `*/`: the form of a setting.
    pub fn parse_pairs(text: &'a [u8]) -> Option<Self> {
        let pairs = text.trim_ascii();
        let mut rest = pairs;
        loop {
            let (_, _, behind) = split_pair(rest)?;
            match behind {
                [] => return Some(Self { pairs }),
                [b',', next @ ..] => rest = next,
                _ => return None,
            }
        }
    }

    /// Keys and values, decoded. What is not UTF-8 is left out.
    pub fn pairs(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
        let mut rest = self.pairs;
        std::iter::from_fn(move || {
            let (key, value, behind) = split_pair(rest)?;
            rest = behind.strip_prefix(b",").unwrap_or_default();
            Some((key, value))
        })
        .filter_map(|(key, value)| Some((decode(key)?, decode(value)?)))
    }

    /// The decoded value of a key; the last one where it is there twice.
    pub fn value(&self, key: &str) -> Option<Cow<'a, str>> {
        self.pairs()
            .filter(|(known, _)| known == key)
            .last()
            .map(|(_, value)| value)
    }
}

/// Key, value and what follows them, still encoded. Blanks around the parts are tolerated.
fn split_pair(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let text = text.trim_ascii_start();
    let end = text
        .iter()
        .position(|byte| !is_unreserved(*byte) && *byte != b'%')?;
    let (key, text) = text.split_at_checked(end)?;
    if key.is_empty() {
        return None;
    }
    let text = text.trim_ascii_start().strip_prefix(b"=")?;
    let text = text.trim_ascii_start().strip_prefix(b"'")?;
    let mut escaped = false;
    let end = text.iter().position(|byte| {
        let closes = *byte == b'\'' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    })?;
    let (value, behind) = text.split_at_checked(end)?;
    Some((key, value, behind.strip_prefix(b"'")?.trim_ascii_start()))
}

/// Takes away backslashes before quotes, then decodes `%XX` and `+`.
fn decode(text: &[u8]) -> Option<Cow<'_, str>> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+' | b'\\')) {
        return str::from_utf8(text).ok().map(Cow::Borrowed);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        let (byte, behind) = match rest {
            [] => break,
            [b'\\', escaped @ (b'\'' | b'\\'), behind @ ..] => (*escaped, behind),
            // Go and Java write a blank as "+", and everybody writes "+" as "%2B".
            [b'+', behind @ ..] => (b' ', behind),
            [b'%', behind @ ..] => decode_digits(behind).unwrap_or((b'%', behind)),
            [byte, behind @ ..] => (*byte, behind),
        };
        decoded.push(byte);
        rest = behind;
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

/// The byte that two hex digits stand for, and what follows them.
fn decode_digits(text: &[u8]) -> Option<(u8, &[u8])> {
    let [high, low, behind @ ..] = text else {
        return None;
    };
    Some((hex_digit(*high)? << 4 | hex_digit(*low)?, behind))
}

fn hex_digit(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trace_context::TraceParent;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn keys_are_sorted_over_everything_and_values_encoded() {
        let mut context = context(&[
            ("route", "/check out"),
            ("application", "pay"),
            ("uid", "7"),
        ]);
        context.correlation_id = Some("a*/b".into());
        context.tracestate = Some("x=1".into());
        assert_eq!(
            written(&context, CommentFormat::Sqlcommenter, Placement::Suffix),
            format!(
                " /*application='pay',correlation_id='a%2A%2Fb',route='%2Fcheck%20out',traceparent='{PARENT}',tracestate='x%3D1',uid='7'*/"
            )
        );
    }

    #[test]
    fn a_prefix_has_its_blank_behind() {
        assert_eq!(
            written(
                &context(&[]),
                CommentFormat::Sqlcommenter,
                Placement::Prefix
            ),
            format!("/*traceparent='{PARENT}'*/ ")
        );
    }

    #[test]
    fn the_plain_format_has_the_two_ids() {
        let mut context = context(&[("route", "/")]);
        assert_eq!(
            written(&context, CommentFormat::Plain, Placement::Suffix),
            " /* trace_id: 4bf92f3577b34da6a3ce929d0e0e4736 */"
        );
        context.correlation_id = Some("Root=1:2+3*/\u{e9}".into());
        assert_eq!(
            written(&context, CommentFormat::Plain, Placement::Suffix),
            " /* trace_id: 4bf92f3577b34da6a3ce929d0e0e4736, correlation_id: Root=1:2+3%2A%2F%C3%A9 */"
        );
        context.parent = None;
        assert_eq!(
            written(&context, CommentFormat::Plain, Placement::Prefix),
            "/* correlation_id: Root=1:2+3%2A%2F%C3%A9 */ "
        );
    }

    #[test]
    fn nothing_to_say_writes_nothing() {
        for format in [CommentFormat::Sqlcommenter, CommentFormat::Plain] {
            for placement in [Placement::Suffix, Placement::Prefix] {
                assert_eq!(written(&TraceContext::default(), format, placement), "");
            }
        }
        let mut only_tags = context(&[("route", "/")]);
        only_tags.parent = None;
        assert_eq!(
            written(&only_tags, CommentFormat::Plain, Placement::Suffix),
            ""
        );
    }

    #[test]
    fn a_tag_can_not_pass_itself_off_as_a_field() {
        let mut context = context(&[("traceparent", "00-x"), ("correlation_id", "y")]);
        context.parent = None;
        assert_eq!(
            written(&context, CommentFormat::Sqlcommenter, Placement::Suffix),
            ""
        );
    }

    #[test]
    fn comments_of_the_known_libraries_are_read() {
        for (comment, pairs) in [
            ("/*a='1',b='2'*/", vec![("a", "1"), ("b", "2")]),
            ("/* a='1', b='2' */", vec![("a", "1"), ("b", "2")]),
            (
                r"/*route='%2Fa%20b',name='it\'s'*/",
                vec![("route", "/a b"), ("name", "it's")],
            ),
            ("/*a='x+y%2Bz'*/", vec![("a", "x y+z")]),
            ("/*a='100%',b='%zz'*/", vec![("a", "100%"), ("b", "%zz")]),
            ("/*a=''*/", vec![("a", "")]),
            ("/*bad='%FF',good='1'*/", vec![("good", "1")]),
        ] {
            let read = Comment::parse(comment.as_bytes()).expect(comment);
            let read: Vec<_> = read.pairs().collect();
            let read: Vec<_> = read.iter().map(|(k, v)| (&**k, &**v)).collect();
            assert_eq!(read, pairs, "{comment}");
        }
    }

    #[test]
    fn ordinary_comments_are_not_taken_for_one() {
        for comment in [
            "/**/",
            "/* why = 'this' */ ",
            "/* where a='1' and b='2' */",
            "/* a='1' b='2' */",
            "/*a='1',*/",
            "/*a='1*/",
            "/*a=1*/",
            "/*='1'*/",
            "/*application:web,line:1*/",
            "/*+ SeqScan(a) */",
            "/* trace_id: 4bf92f35, correlation_id: x */",
            "-- a='1'",
            "/*/",
        ] {
            assert!(Comment::parse(comment.as_bytes()).is_none(), "{comment}");
        }
    }

    #[test]
    fn a_repeated_key_has_its_last_value() {
        let comment = Comment::parse(b"/*a='1',b='2',a='3'*/").unwrap();
        assert_eq!(comment.value("a").as_deref(), Some("3"));
        assert_eq!(comment.value("c"), None);
    }

    proptest! {
        #[test]
        fn no_value_ends_the_comment_early_and_all_are_read_again(
            tags in prop::collection::btree_map(".{1,12}", ".{1,20}", 0..5),
            correlation_id in prop::option::of(".{1,20}"),
            format in prop::sample::select(vec![CommentFormat::Sqlcommenter, CommentFormat::Plain]),
            placement in prop::sample::select(vec![Placement::Suffix, Placement::Prefix]),
        ) {
            let mut context = TraceContext {
                parent: TraceParent::parse(PARENT.as_bytes()).ok(),
                correlation_id: correlation_id.map(Into::into),
                ..TraceContext::default()
            };
            for (key, value) in &tags {
                context.set_tag(key, value);
            }
            let text = written(&context, format, placement);
            let comment = text.trim();
            prop_assert!(comment.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            let inside = comment.strip_prefix("/*").unwrap().strip_suffix("*/").unwrap();
            prop_assert!(!inside.contains("*/") && !inside.contains("/*"));
            prop_assert!(!inside.starts_with('/') && !inside.ends_with('*'));
            if format == CommentFormat::Sqlcommenter {
                let read = Comment::parse(comment.as_bytes()).unwrap();
                let is = |key: &str, value: Option<&str>| read.value(key).as_deref() == value;
                prop_assert!(is(TRACEPARENT, Some(PARENT)));
                prop_assert!(is(CORRELATION_ID, context.correlation_id.as_deref()));
                for (key, value) in &context.tags {
                    prop_assert!(is(key, Some(&**value)), "{key}");
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let comment = [b"/*", bytes.as_slice(), b"*/"].concat();
            if let Some(comment) = Comment::parse(&comment) {
                let _ = comment.pairs().count();
            }
            let _ = Comment::parse(&bytes);
        }

        #[test]
        fn what_is_nearly_a_comment_never_panics(text in "/\\*[a='%,\\\\ 1]{0,20}\\*/") {
            if let Some(comment) = Comment::parse(text.as_bytes()) {
                prop_assert!(comment.pairs().count() > 0 || text.contains('%'));
            }
        }
    }

    fn context(tags: &[(&str, &str)]) -> TraceContext {
        let mut context = TraceContext {
            parent: TraceParent::parse(PARENT.as_bytes()).ok(),
            ..TraceContext::default()
        };
        for (key, value) in tags {
            context.set_tag(key, value);
        }
        context
    }

    fn written(context: &TraceContext, format: CommentFormat, placement: Placement) -> String {
        let mut out = b"SELECT 1".to_vec();
        write_comment(context, format, placement, &mut out);
        String::from_utf8(out.split_off(8)).unwrap()
    }
}
