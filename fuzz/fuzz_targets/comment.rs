//! Trace contexts from outside: whatever is in them, the comment they become is one comment, and says what was put in.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgspan_fuzz::config::choices::{CommentFormat, Placement};
use pgspan_fuzz::sql::comment::{Comment, write_comment};
use pgspan_fuzz::sql::encoding::ClientEncoding;
use pgspan_fuzz::sql::lexer::{Lexer, StandardConformingStrings, TokenKind};
use pgspan_fuzz::trace_context::{TraceContext, TraceParent, parse_trace_state};

type Input<'a> = (
    bool,
    bool,
    &'a [u8],
    Option<&'a str>,
    Option<&'a str>,
    Vec<(&'a str, &'a str)>,
);

fuzz_target!(|input: Input<'_>| {
    let (is_plain, is_prefix, bytes, tracestate, correlation_id, tags) = input;
    if let Ok(parent) = TraceParent::parse(bytes) {
        assert_eq!(TraceParent::parse(&parent.to_ascii()), Ok(parent));
    }
    let _ = parse_trace_state(bytes, 512);
    let _ = Comment::parse(bytes).map(|comment| comment.pairs().count());
    let _ = Comment::parse_pairs(bytes).map(|comment| comment.pairs().count());

    let mut context = TraceContext {
        parent: TraceParent::parse(bytes).ok(),
        tracestate: tracestate.map(Into::into),
        correlation_id: correlation_id.map(Into::into),
        ..TraceContext::default()
    };
    for (key, value) in tags {
        context.set_tag(key, value);
    }
    let format = if is_plain {
        CommentFormat::Plain
    } else {
        CommentFormat::Sqlcommenter
    };
    let placement = if is_prefix {
        Placement::Prefix
    } else {
        Placement::Suffix
    };
    let mut written = Vec::new();
    write_comment(&context, format, placement, &mut written);

    let kinds: Vec<TokenKind> = Lexer::new(
        &written,
        StandardConformingStrings::On,
        ClientEncoding::Utf8,
    )
    .map(|token| token.kind)
    .collect();
    let expected: &[TokenKind] = match placement {
        _ if written.is_empty() => &[],
        Placement::Suffix => &[TokenKind::Whitespace, TokenKind::BlockComment],
        Placement::Prefix => &[TokenKind::BlockComment, TokenKind::Whitespace],
    };
    assert_eq!(kinds, expected, "{}", written.escape_ascii());
    assert!(
        written.iter().all(|byte| (b' '..=b'~').contains(byte)),
        "{}",
        written.escape_ascii()
    );

    if let (false, Some(parent), Some(comment)) = (
        is_plain,
        context.parent,
        Comment::parse(written.trim_ascii()),
    ) {
        let traceparent = comment
            .value("traceparent")
            .map(|text| text.into_owned().into_bytes());
        assert_eq!(traceparent.as_deref(), Some(&parent.to_ascii()[..]));
    }
});
