use proptest::prelude::*;

use super::StatementKind as Kind;
use super::*;

#[test]
fn every_statement_has_its_kind() {
    for (sql, kinds) in [
        ("select 1", &[Kind::Data][..]),
        ("(((SELECT 1)))", &[Kind::Data]),
        ("( values (1) )", &[Kind::Data]),
        (
            "INSERT INTO t SELECT 1; update t set a=1; Delete from t; MERGE INTO t USING s ON true WHEN MATCHED THEN DO NOTHING",
            &[Kind::Data; 4],
        ),
        (
            "TABLE t; VALUES (1); WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
            &[Kind::Data; 3],
        ),
        (
            "BEGIN; START TRANSACTION; COMMIT; END; ROLLBACK; ABORT; SAVEPOINT a; RELEASE a; ROLLBACK TO a",
            &[Kind::TransactionControl; 9],
        ),
        (
            "PREPARE TRANSACTION 'x'; COMMIT PREPARED 'x'; ROLLBACK PREPARED 'x'",
            &[Kind::TransactionControl; 3],
        ),
        (
            "PREPARE a AS SELECT 1; PREPARE /* t */ \"transaction\" AS SELECT 1",
            &[Kind::Prepare; 2],
        ),
        (
            "SET a = 1; SET LOCAL a TO b; SET TRANSACTION READ ONLY",
            &[Kind::Set; 3],
        ),
        (
            "RESET ALL; SHOW ALL; DISCARD ALL",
            &[Kind::Reset, Kind::Show, Kind::Discard],
        ),
        (
            "EXECUTE a(1); DEALLOCATE a; DECLARE c CURSOR FOR SELECT 1",
            &[Kind::Execute, Kind::Deallocate, Kind::Declare],
        ),
        ("FETCH c; MOVE c; CLOSE c", &[Kind::Cursor; 3]),
        ("LISTEN a; NOTIFY a; UNLISTEN *", &[Kind::Notification; 3]),
        (
            "COPY t FROM stdin; COPY (SELECT 1) TO STDOUT",
            &[Kind::Copy; 2],
        ),
        (
            "EXPLAIN SELECT 1; CALL p(); CREATE TABLE a AS SELECT 1; SELEC 1; \"select\" 1; 'select'; [1",
            &[Kind::Utility; 7],
        ),
        ("(SET a = 1); (commit)", &[Kind::Utility; 2]),
    ] {
        assert_eq!(kinds_of(sql), kinds, "{sql}");
    }
}

#[test]
fn select_into_is_told_from_other_intos() {
    for sql in [
        "SELECT 1 INTO t",
        "select a, b into temp t from s",
        "WITH x AS (SELECT 1) SELECT * INTO t FROM x",
        "(SELECT 1 AS a INTO t)",
        "SELECT(1)INTO t",
    ] {
        assert_eq!(kinds_of(sql), [Kind::SelectInto], "{sql}");
    }
    for sql in [
        "SELECT 1 AS into",
        "SELECT t.into FROM t",
        "SELECT 'into', \"into\" /* into */",
        "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        "WITH x AS (SELECT 1) MERGE /* y */ INTO t USING x ON true WHEN MATCHED THEN DELETE",
        "INSERT INTO t SELECT 1",
    ] {
        assert_eq!(kinds_of(sql), [Kind::Data], "{sql}");
    }
}

#[test]
fn a_statement_goes_from_its_first_to_its_last_token() {
    let sql = "/* a */ SELECT 1 -- b\n ;; /*+ c */ COMMIT; ";
    let script = read(sql);
    let statement = |kind, start, end| Statement { kind, start, end };
    assert_eq!(
        script.statements(),
        [
            statement(Kind::Data, 8, 16),
            statement(Kind::TransactionControl, 35, 41)
        ]
    );
    assert_eq!(script.comments(), [0..7, 17..21, 26..34]);
    assert_eq!(script.end(), ScriptEnd::Complete);
    assert!(script.has_hint(sql.as_bytes()));
}

#[test]
fn the_body_of_a_routine_is_part_of_its_statement() {
    for sql in [
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 END; END",
        "create or replace procedure p() begin /* x */ atomic select (case 1 when 1 then 2 end); end",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 AS end; SELECT t.case FROM t; END",
        "CREATE FUNCTION begin() RETURNS int RETURN 1",
        "CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)",
    ] {
        assert_eq!(kinds_of(sql), [Kind::Utility], "{sql}");
        assert_eq!(
            kinds_of(&format!("{sql}; SELECT 2")),
            [Kind::Utility, Kind::Data],
            "{sql}"
        );
    }
    assert_eq!(kinds_of("CREATE VIEW v AS SELECT 1; BEGIN; END").len(), 3);
    assert_eq!(kinds_of("SELECT [1; SELECT 2]").len(), 2);
}

#[test]
fn an_open_token_at_the_end_is_told_but_no_statement_of_its_own_if_a_comment() {
    let script = read("SELECT 1; /* x");
    assert_eq!(
        script.end(),
        ScriptEnd::Unterminated(Unterminated::BlockComment)
    );
    assert_eq!(script.statements().len(), 1);
    let script = read("SELECT \"x");
    assert_eq!(
        script.end(),
        ScriptEnd::Unterminated(Unterminated::QuotedIdentifier)
    );
    assert_eq!(
        script.statements(),
        [Statement {
            kind: Kind::Data,
            start: 0,
            end: 9
        }]
    );
}

#[test]
fn a_text_with_a_zero_byte_has_no_statements() {
    let script = read("SELECT '\0'");
    assert_eq!(script.end(), ScriptEnd::Nul);
    assert_eq!(script.statements(), []);
}

#[test]
fn a_script_can_be_read_again() {
    let mut script = read("SELECT 'x");
    script.read(
        b"COMMIT",
        StandardConformingStrings::On,
        ClientEncoding::Utf8,
    );
    assert_eq!(script.end(), ScriptEnd::Complete);
    assert_eq!(
        script.statements(),
        [Statement {
            kind: Kind::TransactionControl,
            start: 0,
            end: 6
        }]
    );
}

fn read(sql: &str) -> Script {
    let mut script = Script::new();
    script.read(
        sql.as_bytes(),
        StandardConformingStrings::On,
        ClientEncoding::Utf8,
    );
    script
}

fn kinds_of(sql: &str) -> Vec<Kind> {
    read(sql)
        .statements()
        .iter()
        .map(|statement| statement.kind)
        .collect()
}

/// Words and marks of which most texts are no plain statement.
const FRAGMENTS: &[&str] = &[
    "SELECT", "insert", "with", "begin", "create", "prepare", "INTO", "into", "i", "e", "U&", "N",
    "a", "_", "x$", "$1", "$$", "$t$", "1", "0", ".", ",", "=", "-", "--", "/", "/*", "*/", "*",
    "(", ")", ";", "'", "''", "\"", "\\", " ", "  ", "\n", "\x0B", "\u{e9}", ":", "{", "&",
];

proptest! {
    #[test]
    fn the_short_way_finds_what_the_tokens_tell(
        first in proptest::sample::select(vec!["SELECT ", "update ", "show ", " select\n", "with(", ""]),
        words in proptest::collection::vec(proptest::sample::select(FRAGMENTS), 0..12),
        strings in proptest::sample::select(vec![StandardConformingStrings::On, StandardConformingStrings::Off]),
    ) {
        let sql = [first, &words.concat()].concat();
        let mut by_tokens = Script::new();
        by_tokens.read_tokens(sql.as_bytes(), strings, ClientEncoding::Utf8);
        if let Some(statement) = plain::read(sql.as_bytes(), strings, ClientEncoding::Utf8) {
            prop_assert_eq!(by_tokens.statements(), &[statement][..]);
            prop_assert_eq!(by_tokens.end(), ScriptEnd::Complete);
            prop_assert!(by_tokens.comments().is_empty());
        }
    }
}

#[test]
fn the_short_way_is_taken_by_what_applications_send() {
    for (sql, end) in [
        ("SELECT abalance FROM pgbench_accounts WHERE aid = 1;", 51),
        (
            "  UPDATE t SET a = a - 1, b = 'it''s; /* here */' WHERE \"c\" = 2.5e3 ;  ",
            67,
        ),
        (
            "select count(*) from t where a / 2 > (b + 1) and c = $1",
            55,
        ),
        ("INSERT INTO t (a) VALUES ('x')", 30),
        ("COMMIT", 6),
    ] {
        let statement = plain::read(
            sql.as_bytes(),
            StandardConformingStrings::On,
            ClientEncoding::Utf8,
        );
        assert_eq!(statement.map(|statement| statement.end), Some(end), "{sql}");
    }
}
