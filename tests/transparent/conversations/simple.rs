//! Queries of the simple protocol.

use super::{Awaited, Conversation, conversation, simple};
use crate::support::messages::*;

pub(super) fn conversations() -> Vec<Conversation> {
    let mut all = Vec::new();
    all.extend(SIMPLE.iter().map(|(name, sql)| simple(name, &[sql])));
    all.extend(
        SEQUENCES
            .iter()
            .map(|(name, queries)| simple(name, queries)),
    );
    all.extend(with_odd_bytes());
    all
}

/// One Query each.
const SIMPLE: &[(&str, &str)] = &[
    (
        "select",
        "SELECT id, name, price FROM items ORDER BY id LIMIT 3",
    ),
    ("select with semicolon", "SELECT 1;"),
    ("select with semicolon and blanks", "SELECT 1 ; \n "),
    ("select of no columns", "SELECT FROM items LIMIT 2"),
    ("null and empty", "SELECT NULL, '', ' '"),
    ("parenthesised", "(SELECT 1) UNION ALL (SELECT 2)"),
    ("values", "VALUES (1, 'a'), (2, 'b')"),
    ("table", "TABLE items"),
    ("with", "WITH a AS (SELECT 1 AS x) SELECT x FROM a"),
    ("comment in front", "/* first */ SELECT 1"),
    ("comment behind", "SELECT 1 /* last */"),
    ("comment behind the semicolon", "SELECT 1; /* last */"),
    ("line comment behind", "SELECT 1 -- last"),
    ("line comment with newline", "SELECT 1 -- last\n"),
    ("nested comment", "SELECT /* a /* b */ c */ 1"),
    ("hint", "/*+ SeqScan(items) */ SELECT count(*) FROM items"),
    (
        "has a sqlcommenter comment",
        "SELECT 1 /*application='other',traceparent='00-11111111111111111111111111111111-2222222222222222-01'*/",
    ),
    ("dollar quotes", "SELECT $$a;b$$, $x$ $$ ; $x$"),
    ("escape string", r"SELECT E'it\'s; fine', 'a''b;c'"),
    ("quoted identifier", r#"SELECT 1 AS "a;b""c""#),
    ("operator at the end of the text", "SELECT 1 +"),
    ("operator before the semicolon", "SELECT 1 +;"),
    ("where without condition", "SELECT 1 FROM items WHERE"),
    ("misspelt keyword", "SELEC 1"),
    ("unknown column", "SELECT id, nosuch FROM items"),
    (
        "unknown column of a long statement",
        "SELECT id, name, price, id, name, price, id, name, price, nosuch, id, name FROM items WHERE id > 0",
    ),
    (
        "unknown column behind other characters",
        "SELECT 'äöü€𝄞' AS ü, nosuch FROM items",
    ),
    ("unknown table", "SELECT * FROM nosuch"),
    ("unknown function", "SELECT nosuch(1, 'a')"),
    ("type mismatch", "SELECT 1 + 'a'"),
    ("division by zero", "SELECT 1 / 0"),
    (
        "error after rows",
        "SELECT 10 / (5 - n) FROM generate_series(1, 9) AS n",
    ),
    ("unterminated string", "SELECT 'abc"),
    ("unterminated identifier", "SELECT \"abc"),
    ("unterminated dollar quote", "SELECT $x$abc"),
    ("unterminated comment", "SELECT 1 /* abc"),
    ("error in a function", "SELECT fails('x')"),
    ("error in a statement of a function", "SELECT misspelt()"),
    ("warning with all fields", "SELECT warns('x')"),
    (
        "unique violation",
        "INSERT INTO items VALUES (1, 'again', 0)",
    ),
    (
        "not null violation",
        "INSERT INTO items VALUES (1000, NULL, 0)",
    ),
    ("notice of a command", "DROP TABLE IF EXISTS nosuch"),
    (
        "two notices",
        "DROP TABLE IF EXISTS nosuch; DROP VIEW IF EXISTS nosuch",
    ),
    ("do with notice", "DO $$ BEGIN RAISE NOTICE 'hello'; END $$"),
    (
        "do with error",
        "DO $$ BEGIN RAISE EXCEPTION 'sorry' USING ERRCODE = 'P0042'; END $$",
    ),
    ("do with syntax error inside", "DO $$ BEGIN SELEC 1; END $$"),
    (
        "explain",
        "EXPLAIN (COSTS OFF) SELECT * FROM items WHERE id = 1",
    ),
    ("show", "SHOW server_encoding"),
    ("show unknown", "SHOW nosuch"),
    ("two statements", "SELECT 1; SELECT 2"),
    (
        "three statements with blanks",
        " SELECT 1 ;; SELECT 2 ; \n SELECT 3;",
    ),
    (
        "error in the second statement",
        "SELECT 1; SELECT nosuch; SELECT 3",
    ),
    (
        "error in the second statement, syntax",
        "SELECT 1; SELEC 2; SELECT 3",
    ),
    (
        "position in the third statement",
        "SELECT 'ä'; SELECT 'ö'; SELECT nosuch",
    ),
    (
        "runtime error in the second statement",
        "SELECT 1; SELECT 1 / 0; SELECT 3",
    ),
    (
        "data and utility mixed",
        "BEGIN; INSERT INTO items VALUES (500, 'x', 1); SELECT count(*) FROM items; ROLLBACK",
    ),
    (
        "insert returning",
        "BEGIN; INSERT INTO items VALUES (501, 'x', 1) RETURNING id; ROLLBACK",
    ),
    (
        "update",
        "BEGIN; UPDATE items SET price = price + 1 WHERE id < 10; ROLLBACK",
    ),
    ("delete", "BEGIN; DELETE FROM items WHERE id < 10; ROLLBACK"),
    (
        "merge",
        "BEGIN; MERGE INTO items USING (VALUES (1)) AS n (id) ON items.id = n.id WHEN MATCHED THEN DELETE; ROLLBACK",
    ),
    (
        "select into",
        "BEGIN; SELECT 1 AS a INTO TEMP copy_of_one; ROLLBACK",
    ),
    (
        "create table as",
        "BEGIN; CREATE TEMP TABLE t AS SELECT 1 AS a; ROLLBACK",
    ),
    (
        "create function begin atomic",
        "BEGIN; CREATE FUNCTION app.two() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT app.two(); ROLLBACK",
    ),
    (
        "create rule with two commands",
        "BEGIN; CREATE TEMP TABLE t (a int); CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2); ROLLBACK",
    ),
    ("commit outside a transaction", "COMMIT"),
    ("empty", ""),
    ("blanks", "  \n "),
    ("semicolon", ";"),
    ("semicolons", " ; ; "),
    ("only a comment", "/* nothing */"),
    ("only a line comment", "-- nothing"),
    ("discard all", "DISCARD ALL"),
    ("vacuum in a string of statements", "SELECT 1; VACUUM items"),
    ("non-breaking space", "SELECT\u{a0}1"),
    ("byte order mark", "\u{feff}SELECT 1"),
    (
        "listen and notify",
        "LISTEN news; NOTIFY news, 'hello'; UNLISTEN news",
    ),
    ("a copy of nothing", "COPY (SELECT 1 WHERE false) TO STDOUT"),
];

/// One Query after the other, each awaited.
const SEQUENCES: &[(&str, &[&str])] = &[
    ("a transaction", &["BEGIN", "SELECT 1", "COMMIT"]),
    (
        "a failed transaction",
        &["BEGIN", "SELECT nosuch", "SELECT 1", "COMMIT"],
    ),
    (
        "savepoints",
        &[
            "BEGIN",
            "SAVEPOINT a",
            "SELECT 1 / 0",
            "ROLLBACK TO a",
            "SELECT 2",
            "RELEASE a",
            "COMMIT",
        ],
    ),
    (
        "a setting is reported",
        &[
            "SET application_name = 'shop'",
            "SHOW application_name",
            "RESET application_name",
            "SHOW application_name",
        ],
    ),
    (
        "a setting is undone",
        &[
            "BEGIN",
            "SET datestyle = 'german'",
            "SHOW datestyle",
            "ROLLBACK",
            "SHOW datestyle",
        ],
    ),
    (
        "a setting for a transaction",
        &[
            "BEGIN",
            "SET LOCAL timezone = 'Asia/Tokyo'",
            "SHOW timezone",
            "COMMIT",
            "SHOW timezone",
        ],
    ),
    (
        "a setting stays",
        &[
            "SET intervalstyle = 'iso_8601'",
            "SELECT interval '1 day 2 hours'",
            "SELECT interval '3 days'",
        ],
    ),
    (
        "an unreported setting stays",
        &[
            "SET work_mem = '5MB'",
            "SHOW work_mem",
            "SELECT 1",
            "SHOW work_mem",
        ],
    ),
    (
        "a search path stays",
        &[
            "SET search_path = pg_catalog",
            "SHOW search_path",
            "SELECT * FROM items LIMIT 1",
        ],
    ),
    (
        "client encoding",
        &[
            "SET client_encoding = 'LATIN1'",
            "SELECT chr(228)",
            "SELECT nosuch, chr(228)",
            "RESET client_encoding",
            "SELECT chr(228)",
        ],
    ),
    (
        "backslashes in strings",
        &[
            "SET standard_conforming_strings = off",
            r"SELECT 'it\'s'",
            r"SELECT '\\', nosuch",
            r"SELECT 'a\\'; SELECT 'b\''",
        ],
    ),
    (
        "prepare and execute",
        &[
            "PREPARE p (int) AS SELECT $1 + 1",
            "EXECUTE p (1)",
            "EXECUTE p ('x')",
            "DEALLOCATE p",
            "EXECUTE p (1)",
        ],
    ),
    (
        "what is prepared",
        &[
            "PREPARE p AS SELECT 1",
            "SELECT name, statement, from_sql FROM pg_prepared_statements",
            "DEALLOCATE ALL",
        ],
    ),
    (
        "a cursor",
        &[
            "BEGIN",
            "DECLARE c CURSOR FOR SELECT id FROM items ORDER BY id",
            "FETCH 2 FROM c",
            "MOVE 3 IN c",
            "FETCH 2 FROM c",
            "SELECT statement FROM pg_cursors",
            "CLOSE c",
            "COMMIT",
        ],
    ),
    (
        "a cursor with hold",
        &[
            "BEGIN",
            "DECLARE c CURSOR WITH HOLD FOR SELECT id FROM items ORDER BY id",
            "COMMIT",
            "FETCH 2 FROM c",
            "FETCH 2 FROM c",
            "CLOSE c",
        ],
    ),
    (
        "a temporary table",
        &[
            "CREATE TEMP TABLE t (a int)",
            "INSERT INTO t VALUES (1), (2)",
            "SELECT a + 0 AS a FROM t ORDER BY a",
            "DROP TABLE t",
            "SELECT a FROM t",
        ],
    ),
    (
        "a session lock",
        &[
            "SELECT pg_advisory_lock(42)",
            "SELECT pg_advisory_unlock(42)",
            "SELECT pg_advisory_unlock(42)",
        ],
    ),
    (
        "read only",
        &[
            "SET default_transaction_read_only = on",
            "INSERT INTO items VALUES (600, 'x', 1)",
            "SET default_transaction_read_only = off",
        ],
    ),
    (
        "isolation level",
        &[
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
            "SHOW transaction_isolation",
            "COMMIT",
            "SHOW transaction_isolation",
        ],
    ),
    (
        "reset all",
        &["SET work_mem = '5MB'", "RESET ALL", "SHOW work_mem"],
    ),
];

fn with_odd_bytes() -> Vec<Conversation> {
    let raw = |name, body: &[u8]| {
        conversation(
            name,
            [
                (vec![Message::tagged(b'Q', body)], Awaited::Ready(1)),
                (vec![query("SELECT 1")], Awaited::Ready(1)),
            ],
        )
    };
    vec![
        raw("a NUL in a query", b"SELECT 1\0; SELECT 2\0"),
        raw("no NUL behind a query", b"SELECT 1"),
        raw("an empty body", b""),
        raw("not UTF-8", b"SELECT '\xff\xfe'\0"),
        raw("not UTF-8 in a comment", b"SELECT 1 /* \xff */\0"),
        conversation(
            "queries sent at once",
            [(
                vec![
                    query("SELECT 1"),
                    query("SELECT nosuch"),
                    query("BEGIN"),
                    query("SELECT 2;"),
                    query("COMMIT"),
                ],
                Awaited::Ready(5),
            )],
        ),
    ]
}
