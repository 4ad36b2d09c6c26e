use proptest::prelude::*;

use super::super::script::{Script, ScriptEnd};
use super::TokenKind as Kind;
use super::*;

#[test]
fn numbers_end_where_the_server_ends_them() {
    for (sql, texts) in [
        (
            "1 .5 1.5 1. 1e5 1E-5 1.e+5",
            &["1", ".5", "1.5", "1.", "1e5", "1E-5", "1.e+5"][..],
        ),
        ("1..2", &["1", "..", "2"]),
        ("1e", &["1", "e"]),
        ("1e+", &["1", "e", "+"]),
        (
            "1_000 1_ 0x1F 0xG 0o17 0b1_0",
            &["1_000", "1", "_", "0x1F", "0", "xG", "0o17", "0b1_0"],
        ),
        ("0x'1'", &["0", "x'1'"]),
        ("-1", &["-", "1"]),
        ("1.5.6", &["1.5", ".6"]),
    ] {
        assert_eq!(texts_of(sql), texts, "{sql}");
    }
}

#[test]
fn operators_end_before_comments_and_signs() {
    for (sql, texts) in [
        ("1=-1", &["1", "=", "-", "1"][..]),
        ("1@-1", &["1", "@-", "1"]),
        ("1*-+-1", &["1", "*", "-", "+", "-", "1"]),
        ("@-/*c*/1", &["@-", "/*c*/", "1"]),
        ("*--c", &["*", "--c"]),
        ("+-*/", &["+-*/"]),
        ("<>=>", &["<>=>"]),
        (
            "a::b:=c[1:2]",
            &["a", "::", "b", ":=", "c", "[", "1", ":", "2", "]"],
        ),
        ("1 */ 2", &["1", "*/", "2"]),
    ] {
        assert_eq!(texts_of(sql), texts, "{sql}");
    }
}

#[test]
fn a_long_row_of_signs_takes_linear_time() {
    let signs = "+-".repeat(100_000);
    assert_eq!(texts_of(&signs).len(), 200_000);
}

#[test]
fn a_string_with_all_its_lines_is_one_token() {
    for (sql, kind) in [
        ("'a'", Kind::String),
        ("e'a\\''", Kind::String),
        ("N'a'", Kind::String),
        ("U&'a'", Kind::String),
        ("$$a$$", Kind::DollarString),
        ("$é$a$é$", Kind::DollarString),
        ("b'1'", Kind::BitString),
        ("X'1F'", Kind::BitString),
        ("'a'\n -- b\n 'c'", Kind::String),
        ("'a'--b\n'c'", Kind::String),
        ("b'1'\r'1'", Kind::BitString),
    ] {
        let kinds: Vec<Kind> = lexer(sql).map(|token| token.kind).collect();
        assert_eq!(kinds, [kind], "{sql}");
    }
}

#[test]
fn only_a_line_end_continues_a_string() {
    assert_eq!(texts_of("'a' 'b'"), ["'a'", "'b'"]);
    assert_eq!(texts_of("'a' /* c */\n'b'"), ["'a'", "/* c */", "'b'"]);
    assert_eq!(texts_of("'a'\n-'b'"), ["'a'", "-", "'b'"]);
    assert_eq!(texts_of("$$a$$\n'b'"), ["$$a$$", "'b'"]);
}

#[test]
fn a_bit_string_has_no_doubled_quotes() {
    assert_eq!(texts_of("b'1''2'"), ["b'1'", "'2'"]);
}

#[test]
fn a_dollar_belongs_to_the_identifier_before() {
    assert_eq!(texts_of("a$$b$$"), ["a$$b$$"]);
    assert_eq!(texts_of("$1$$;$$ $a $"), ["$1", "$$;$$", "$", "a", "$"]);
    assert_eq!(texts_of("$a$ $A$ $$ $a$b"), ["$a$ $A$ $$ $a$", "b"]);
}

#[test]
fn an_escape_character_is_one_only_where_the_setting_or_the_prefix_says_so() {
    let off = |sql: &'static str| {
        Lexer::new(
            sql.as_bytes(),
            StandardConformingStrings::Off,
            ClientEncoding::Utf8,
        )
        .map(|token| token.kind)
    };
    let plain = Kind::String;
    assert!(off(r"'a\';b'").eq([plain]));
    assert!(off(r"n'a\';b'").eq([Kind::String]));
    assert!(off(r"'a\").eq([Kind::Unterminated(Unterminated::String)]));
    assert!(lexer(r"'a\'").map(|token| token.kind).eq([plain]));
    assert!(
        lexer(r"xe'a\'")
            .map(|token| token.kind)
            .eq([Kind::Identifier, plain])
    );
    assert!(lexer(r"U&'\'").map(|token| token.kind).eq([Kind::String]));
    assert!(strings_matter(br"'\'"));
    assert!(!strings_matter(b"'/'"));
}

#[test]
fn a_backslash_in_a_client_only_character_escapes_nothing() {
    let sjis = ClientEncoding::from_name(b"SJIS");
    let ends: Vec<usize> = Lexer::new(b"E'\x95\\'; \x95\\", StandardConformingStrings::On, sjis)
        .map(|token| token.end)
        .collect();
    assert_eq!(ends, [5, 6, 7, 9]);
}

#[test]
fn the_value_of_a_string_is_what_the_server_sees() {
    for (token, value) in [
        (&b"'a''b'"[..], Some(&b"a'b"[..])),
        (b"''", Some(b"")),
        (b"'a'\n'b'", Some(b"ab")),
        (b"'a' --c'\n 'b'", Some(b"ab")),
        (br"'a\'", Some(br"a\")),
        (
            br"E'\b\f\n\r\t\'\\\q\x41\101\u0042\U00000043'",
            Some(b"\x08\x0C\n\r\t'\\qAABC".as_slice()),
        ),
        (br"e'\xg\377'", Some(b"xg\xFF")),
        (b"N'x'", Some(b"x")),
        (b"$$a$b$$", Some(b"a$b")),
        (b"$t$x$t$", Some(b"x")),
        (b"'a", None),
        (b"'", None),
        (b"E'", None),
        (b"$", None),
        (b"$$", None),
        (b"$$$", None),
        (b"$a$", None),
        (br"E'\0'", None),
        (br"E'\v'", None),
        (br"E'\u00e9'", None),
        (br"E'\u00'", None),
        (br"E'\'", None),
        (b"'a' 'b'", None),
        (b"U&'a'", None),
        (b"B'1'", None),
        (b"a", None),
        (b"", None),
    ] {
        let found = string_value(token, StandardConformingStrings::On);
        assert_eq!(found.as_deref(), value, "{}", token.escape_ascii());
    }
    assert_eq!(
        string_value(br"'a\'b'", StandardConformingStrings::Off).as_deref(),
        Some(&b"a'b"[..])
    );
}

#[test]
fn the_value_of_an_identifier_is_the_name() {
    for (token, value) in [
        (&b"Application_Name"[..], Some(&b"application_name"[..])),
        (b"a$1", Some(b"a$1")),
        (b"\"A b\"", Some(b"A b")),
        (b"\"A\"\"b\"", Some(b"A\"b")),
        (b"\"\"", None),
        (b"\"", None),
        (b"\"a\"b\"", None),
        (b"U&\"a\"", None),
        (b"1a", None),
        (b"a b", None),
        (b"", None),
    ] {
        assert_eq!(
            identifier_value(token).as_deref(),
            value,
            "{}",
            token.escape_ascii()
        );
    }
}

proptest! {
    #[test]
    fn tokens_lie_side_by_side_from_the_first_to_the_last_byte(sql in text(), strings in strings(), encoding in encoding()) {
        let mut position = 0;
        for token in Lexer::new(&sql, strings, encoding) {
            prop_assert_eq!(token.start, position);
            prop_assert!(token.end > token.start);
            position = token.end;
        }
        prop_assert_eq!(position, sql.len());
    }

    #[test]
    fn a_token_has_a_value_or_none_whatever_it_is(sql in text(), strings in strings()) {
        let _ = string_value(&sql, strings);
        let _ = identifier_value(&sql);
        for token in Lexer::new(&sql, strings, ClientEncoding::Utf8) {
            let value = identifier_value(token.text(&sql));
            prop_assert!(token.kind != Kind::Identifier || value.is_some());
        }
    }

    #[test]
    fn a_comment_behind_each_statement_changes_no_statement(sql in text(), strings in strings()) {
        let encoding = ClientEncoding::Utf8;
        let mut script = Script::new();
        script.read(&sql, strings, encoding);
        prop_assume!(script.end() == ScriptEnd::Complete);
        let mut annotated = sql.clone();
        for statement in script.statements().iter().rev() {
            annotated.splice(statement.end..statement.end, *b" /*x*/");
        }

        let mut again = Script::new();
        again.read(&annotated, strings, encoding);
        prop_assert_eq!(again.end(), ScriptEnd::Complete);
        let kinds = |script: &Script| script.statements().iter().map(|statement| statement.kind).collect::<Vec<_>>();
        prop_assert_eq!(kinds(&again), kinds(&script));
        prop_assert_eq!(significant(&annotated, strings), significant(&sql, strings));
    }
}

/// Bytes that look like SQL more often than not.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => proptest::sample::select(vec![
            "'", "\"", "$$", "$a$", "/*", "*/", "--", "\n", "\r", " ", "\\", ";", "(", ")", "E'", "U&'", "U&\"", "N'",
            "B'", "+", "-", "@", "*", "/", "1", ".", "e", "0x", "_", "$", "SELECT ", "INTO ", "CREATE ", "FUNCTION ",
            "BEGIN ", "ATOMIC ", "CASE ", "END ", "AS ", "é", "[", ":", "=", ",", "''", "'\n'",
        ]).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn strings() -> impl Strategy<Value = StandardConformingStrings> {
    proptest::sample::select(vec![
        StandardConformingStrings::On,
        StandardConformingStrings::Off,
    ])
}

fn encoding() -> impl Strategy<Value = ClientEncoding> {
    proptest::sample::select(vec![
        "UTF8", "LATIN1", "EUC_TW", "SJIS", "GB18030", "JOHAB", "?",
    ])
    .prop_map(|name| ClientEncoding::from_name(name.as_bytes()))
}

/// The texts of the tokens that the server's grammar sees.
fn significant(sql: &[u8], strings: StandardConformingStrings) -> Vec<Vec<u8>> {
    Lexer::new(sql, strings, ClientEncoding::Utf8)
        .filter(|token| !token.kind.is_blank())
        .map(|token| token.text(sql).to_vec())
        .collect()
}

fn lexer(sql: &str) -> Lexer<'_> {
    Lexer::new(
        sql.as_bytes(),
        StandardConformingStrings::On,
        ClientEncoding::Utf8,
    )
}

/// The tokens' texts, without whitespace.
fn texts_of(sql: &str) -> Vec<&str> {
    lexer(sql)
        .filter(|token| token.kind != Kind::Whitespace)
        .map(|token| &sql[token.start..token.end])
        .collect()
}
