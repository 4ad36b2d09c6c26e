//! The insertion points of a corpus of statements, each one verified against PostgreSQL 15, 17 and 18.

use pgspan::sql::encoding::ClientEncoding;
use pgspan::sql::lexer::StandardConformingStrings;
use pgspan::sql::script::{Script, ScriptEnd};
use serde_json::Value;

#[test]
fn every_statement_of_the_corpus_has_its_verified_insertion_points() {
    let mut script = Script::new();
    let mut lines = 0;
    for line in include_str!("corpus/annotation-corpus.jsonl").lines() {
        let case: Value = serde_json::from_str(line).expect("a line is a JSON object");
        let expect = &case["expect"];
        let note = &case["note"];
        let sql = text_of(&case);
        let encoding = ClientEncoding::from_name(
            case["client_encoding"]
                .as_str()
                .unwrap_or("UTF8")
                .as_bytes(),
        );
        let strings = match case["standard_conforming_strings"].as_str() {
            Some("off") => StandardConformingStrings::Off,
            _ => StandardConformingStrings::On,
        };

        script.read(&sql, strings, encoding);
        let ends: Vec<usize> = match script.end() {
            ScriptEnd::Complete => script
                .statements()
                .iter()
                .map(|statement| statement.end)
                .collect(),
            ScriptEnd::Unterminated(_) | ScriptEnd::Nul => Vec::new(),
        };
        let suffix = ends.last().copied();

        assert_eq!(
            script.statements().is_empty(),
            expect["prefix"].is_null(),
            "prefix: {note}"
        );
        assert_eq!(
            suffix.map_or(Value::Null, Value::from),
            expect["suffix"],
            "suffix: {note}"
        );
        assert_eq!(Value::from(ends), expect["all"], "all: {note}");
        if let (Some(suffix), Some(characters)) = (suffix, expect["suffix_char"].as_u64()) {
            assert_eq!(
                encoding.count_characters(&sql[..suffix]) as u64,
                characters,
                "suffix_char: {note}"
            );
        }
        lines += 1;
    }
    assert_eq!(lines, 117);
}

fn text_of(case: &Value) -> Vec<u8> {
    match (case["sql"].as_str(), case["sql_hex"].as_str()) {
        (Some(sql), _) => sql.as_bytes().to_vec(),
        (None, Some(hex)) => (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits"))
            .collect(),
        (None, None) => panic!("a line has a text"),
    }
}
