//! Query text: its tokens follow one another without a gap, its statements lie within it, and a comment written behind each of
//! them changes no token.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgspan_fuzz::sql::encoding::ClientEncoding;
use pgspan_fuzz::sql::lexer::{
    Lexer, StandardConformingStrings, Token, identifier_value, string_value,
};
use pgspan_fuzz::sql::script::{Script, ScriptEnd};

const COMMENT: &[u8] =
    b" /*route='%2Fx',traceparent='00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'*/";

fuzz_target!(|input: (bool, bool, &[u8])| {
    let (strings_are_plain, is_utf8, sql) = input;
    let strings = match strings_are_plain {
        true => StandardConformingStrings::On,
        false => StandardConformingStrings::Off,
    };
    let encoding = match is_utf8 {
        true => ClientEncoding::Utf8,
        false => ClientEncoding::from_name(b"SJIS"),
    };

    let mut end = 0;
    for token in Lexer::new(sql, strings, encoding) {
        assert_eq!(token.start, end);
        assert!(token.end > token.start);
        let _ = string_value(token.text(sql), strings);
        let _ = identifier_value(token.text(sql));
        end = token.end;
    }
    assert_eq!(end, sql.len());

    let mut script = Script::new();
    script.read(sql, strings, encoding);
    let mut end = 0;
    for statement in script.statements() {
        assert!(
            end <= statement.start && statement.start < statement.end && statement.end <= sql.len()
        );
        end = statement.end;
    }
    if script.end() == ScriptEnd::Complete && !encoding.is_client_only() {
        let annotated = with_comments(sql, &script);
        assert_eq!(
            tokens(&annotated, strings, encoding),
            tokens(sql, strings, encoding)
        );
        let mut again = Script::new();
        again.read(&annotated, strings, encoding);
        let kinds = |script: &Script| {
            script
                .statements()
                .iter()
                .map(|statement| statement.kind)
                .collect::<Vec<_>>()
        };
        assert_eq!(kinds(&again), kinds(&script));
    }
});

fn with_comments(sql: &[u8], script: &Script) -> Vec<u8> {
    let (mut annotated, mut copied) = (Vec::new(), 0);
    for statement in script.statements() {
        annotated.extend_from_slice(&sql[copied..statement.end]);
        annotated.extend_from_slice(COMMENT);
        copied = statement.end;
    }
    annotated.extend_from_slice(&sql[copied..]);
    annotated
}

/// What the server's parser gets to see.
fn tokens(
    sql: &[u8],
    strings: StandardConformingStrings,
    encoding: ClientEncoding,
) -> Vec<(String, Vec<u8>)> {
    let seen = Lexer::new(sql, strings, encoding).filter(|token: &Token| !token.kind.is_blank());
    seen.map(|token| (format!("{:?}", token.kind), token.text(sql).to_vec()))
        .collect()
}
