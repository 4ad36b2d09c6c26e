use proptest::prelude::*;

use super::*;

#[test]
fn queries_that_differ_in_constants_alone_have_one_fingerprint() {
    for (one, other) in [
        (
            "SELECT * FROM t WHERE a = 1",
            "select *\n from T where A=-77 -- x",
        ),
        (
            "SELECT 'a', E'\\'', $$b$$, B'1', 1.5e3",
            "SELECT 2, N'x', U&'y', 'z'\n'z', 0x1F",
        ),
        ("SELECT 1", "/* a */ ;; SELECT /* b */ -1 ;"),
        (
            "SELECT a FROM t WHERE b = -1",
            "SELECT a FROM t WHERE b = 1",
        ),
        ("SELECT true, NULL", "SELECT 'x', 1"),
        (
            "SELECT 1 WHERE a IN (1, 2, 3)",
            "SELECT 1 WHERE a in (4,-5)",
        ),
        (
            "SELECT 1 WHERE a IN ($1, $2)",
            "SELECT 1 WHERE a IN ($1, $2, $3)",
        ),
        ("SELECT 1 WHERE a NOT IN (1)", "SELECT 1 WHERE a <> 1"),
        ("SELECT 1 WHERE a != 1", "SELECT 1 WHERE a <> 1"),
        (
            "SELECT 1 WHERE a = ANY (ARRAY[1, -2])",
            "SELECT 1 WHERE a = ANY (ARRAY['x', 'y', 'z'::text])",
        ),
        ("SELECT \"a\" FROM \"t\"", "SELECT A FROM t"),
        ("BEGIN; SELECT 1", "begin;; select 2;"),
        ("SELECT 'open", "SELECT 'open and shut'"),
    ] {
        assert_eq!(of(one), of(other), "{one} | {other}");
    }
}

#[test]
fn queries_that_differ_in_more_than_constants_have_fingerprints_of_their_own() {
    let queries = [
        "SELECT a FROM t",
        "SELECT b FROM t",
        "SELECT \"A\" FROM t",
        "SELECT \"user\" FROM t",
        "SELECT user FROM t",
        "SELECT a FROM t WHERE b = 1",
        "SELECT a FROM t WHERE b = $1",
        "SELECT a FROM t WHERE b = $2",
        "SELECT a FROM t WHERE b = +1",
        "SELECT a FROM t WHERE b IS NULL",
        "SELECT a FROM t WHERE b IS NOT NULL",
        "SELECT a FROM t WHERE b IS TRUE",
        "SELECT a FROM t WHERE b IN (1, c)",
        "SELECT a FROM t WHERE b IN (1, 2)",
        "SELECT a FROM t WHERE b IN (1, f(2))",
        "SELECT a FROM t WHERE b NOT IN (1, 2)",
        "SELECT a FROM t WHERE (a, b) IN ((1, 2))",
        "SELECT a FROM t WHERE (a, b) IN ((1, 2), (3, 4))",
        "SELECT ARRAY[1]",
        "SELECT ARRAY[1, 2]",
        "SELECT f(1)",
        "SELECT f(1, 2)",
        "SELECT 1, 2",
        "SELECT a - 1",
        "SELECT a, 1",
        "SELECT a ? 'b'",
        "SELECT a; SELECT b",
        "SELECT a SELECT b",
        "SELECT a, b FROM t ORDER BY 1",
        "SELECT a, b FROM t ORDER BY 2",
        "SELECT a, b FROM t ORDER BY 1, 2",
        "INSERT INTO t VALUES (1)",
        "INSERT INTO t VALUES (1), (2)",
        "INSERT INTO t VALUES (1, 2)",
        "INSERT INTO t VALUES (1) RETURNING a, a",
        "INSERT INTO t VALUES (1) RETURNING a",
        "",
    ];
    for (at, one) in queries.iter().enumerate() {
        for other in queries.iter().skip(at + 1) {
            assert_ne!(of(one), of(other), "{one} | {other}");
        }
    }
}

#[test]
fn a_long_list_has_one_fingerprint_wherever_it_is_cut() {
    let cut = |text: &str| {
        let strings = StandardConformingStrings::On;
        Fingerprint::of_cut(text.as_bytes(), strings, ClientEncoding::Utf8)
    };
    for (one, other) in [
        (
            "SELECT 1 WHERE a IN (1, 2, 3",
            "SELECT 1 WHERE a IN (1, 2, 'ab",
        ),
        (
            "INSERT INTO t VALUES (1, 'a'), (2",
            "INSERT INTO t VALUES (1, 'abc')",
        ),
    ] {
        assert_eq!(cut(one), cut(other), "{one} | {other}");
    }
    assert_ne!(cut("SELECT a"), cut("SELECT b"));
}

#[test]
fn a_fingerprint_never_changes() {
    assert_eq!(of("").to_string(), "cbf29ce484222325");
    assert_eq!(of("SELECT 1"), Fingerprint(fnv_1a(b"select ? ")));
    assert_eq!(Fingerprint(0x1F).to_string(), "000000000000001f");
}

#[test]
fn a_masked_query_shows_no_literal() {
    for (sql, masked) in [
        (
            "SELECT  *\n FROM t -- secret\nWHERE a = 'it''s' AND b=-1.5",
            "SELECT * FROM t WHERE a = ? AND b=-?",
        ),
        ("/* a */ SELECT/**/1;", "SELECT ?;"),
        (
            "SELECT E'\\'', N'x', B'1', X'F', U&'y', $a$z$a$, $1",
            "SELECT ?, ?, ?, ?, ?, ?, $1",
        ),
        ("SELECT 'a'\n  'b', \"C\"", "SELECT ?, \"C\""),
        ("SELECT 'open", "SELECT ?"),
        ("SELECT $a$ open $b$", "SELECT ?"),
        ("SELECT \"open", "SELECT ?"),
        ("SELECT 1 /* open", "SELECT ?"),
        ("SELECT 550e8400abc", "SELECT ?"),
        ("SELECT a\x07b, \x1B", "SELECT a\u{FFFD}b, \u{FFFD}"),
        ("", ""),
    ] {
        assert_eq!(masked_to(sql, 100), masked, "{sql}");
    }
    assert_eq!(
        mask(b"SELECT \xFF\xC3", ON, ClientEncoding::Utf8, 100),
        "SELECT \u{FFFD}\u{FFFD}"
    );
}

#[test]
fn a_masked_query_is_cut_at_a_character() {
    assert_eq!(masked_to("SELECT é", 8), "SELECT é");
    assert_eq!(masked_to("SELECT éé", 8), "SELECT …");
    assert_eq!(masked_to("SELECT é  /* x */ ", 8), "SELECT é");
    assert_eq!(masked_to("SELECT", 1), "…");
    assert_eq!(masked_to("SELECT", 0), "");
}

#[test]
fn a_summary_names_operations_and_targets_in_order() {
    for (sql, expected) in [
        ("SELECT * FROM wuser_table", "SELECT wuser_table"),
        (
            "select a.b from Songs s, \"Artists\" AS a where x = 1",
            "SELECT Songs Artists",
        ),
        ("SELECT 1", "SELECT"),
        (
            "SELECT * FROM a JOIN b ON a.x = b.x LEFT JOIN c USING (x), d",
            "SELECT a b c d",
        ),
        (
            "SELECT * FROM (SELECT * FROM public.a) s WHERE b IN (SELECT c FROM d)",
            "SELECT SELECT public.a SELECT d",
        ),
        (
            "(SELECT 1 FROM a) UNION (SELECT 2 FROM b)",
            "SELECT a SELECT b",
        ),
        (
            "SELECT extract(year FROM d), trim(both FROM e) FROM t",
            "SELECT t",
        ),
        ("SELECT 1 FROM t WHERE a IS DISTINCT FROM b", "SELECT t"),
        (
            "SELECT * FROM generate_series(1, n) WITH ORDINALITY AS g(a, b), LATERAL f(g.a)",
            "SELECT generate_series f",
        ),
        (
            "INSERT INTO orders SELECT * FROM songs",
            "INSERT orders SELECT songs",
        ),
        (
            "INSERT INTO t (a, b) VALUES (1, 2) ON CONFLICT (a) DO UPDATE SET b = 3 RETURNING a, b",
            "INSERT t",
        ),
        (
            "UPDATE ONLY t SET a = 1, b = 2 FROM s WHERE t.i = s.i",
            "UPDATE t s",
        ),
        ("DELETE FROM t USING s, r WHERE 1 = 1", "DELETE t s r"),
        (
            "MERGE INTO t USING s ON t.i = s.i WHEN MATCHED THEN UPDATE SET a = 1",
            "MERGE t s",
        ),
        (
            "WITH x AS (SELECT * FROM a), y (i) AS (SELECT 1) SELECT * FROM x, y, b",
            "SELECT a SELECT SELECT b",
        ),
        (
            "WITH x AS (DELETE FROM q RETURNING *) INSERT INTO l SELECT * FROM x",
            "DELETE q INSERT l SELECT",
        ),
        ("SELECT a FROM t FOR UPDATE", "SELECT t"),
        ("SELECT a INTO TEMP n FROM t", "SELECT n t"),
        ("SELECT 1 AS from_, a AS update FROM t", "SELECT t"),
        ("TABLE t", "TABLE t"),
        ("VALUES (1), (2)", "VALUES"),
        ("EXPLAIN (ANALYZE) UPDATE t SET a = 1", "EXPLAIN UPDATE t"),
        ("COPY t (a) FROM stdin", "COPY t"),
        ("COPY (SELECT * FROM t) TO stdout", "COPY SELECT t"),
        ("PREPARE p AS SELECT * FROM t", "PREPARE SELECT t"),
        (
            "CREATE UNLOGGED TABLE IF NOT EXISTS s.t (a int REFERENCES u ON DELETE CASCADE)",
            "CREATE TABLE s.t",
        ),
        (
            "CREATE TABLE n AS SELECT * FROM t",
            "CREATE TABLE n SELECT t",
        ),
        (
            "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)",
            "CREATE INDEX i",
        ),
        ("DROP TABLE IF EXISTS t", "DROP TABLE t"),
        ("TRUNCATE TABLE t", "TRUNCATE t"),
        ("CALL p(1)", "CALL p"),
        (
            "BEGIN; UPDATE t SET a = 1; COMMIT",
            "BEGIN; UPDATE t; COMMIT",
        ),
        ("GRANT SELECT ON t TO u", "GRANT"),
        ("SELEC 1", ""),
        ("", ""),
    ] {
        assert_eq!(
            summary(sql.as_bytes(), ON, ClientEncoding::Utf8),
            expected,
            "{sql}"
        );
    }
}

#[test]
fn a_summary_is_never_cut_within_a_name() {
    let sql = format!("SELECT * FROM {0}1, {0}2, {0}3", "t".repeat(120));
    assert_eq!(
        summary(sql.as_bytes(), ON, ClientEncoding::Utf8),
        format!("SELECT {0}1 {0}2", "t".repeat(120))
    );
}

proptest! {
    #[test]
    fn no_literal_shows_in_what_is_masked(
        literals in proptest::collection::vec(proptest::sample::select(LITERALS), 1..8),
        cut in 0..400_usize,
    ) {
        let sql: String = literals.iter().map(|literal| format!("SELECT {literal} FROM t; ")).collect();
        let whole = masked_to(&sql, 10_000);
        prop_assert!(!whole.contains("sentinel") && !whole.contains("4242"), "{}", whole);
        let cut = masked_to(&sql[..cut.min(sql.len())], 10_000);
        prop_assert!(!cut.contains("sent") && !cut.contains("4242"), "{}", cut);
    }

    #[test]
    fn any_bytes_can_be_masked_and_summed_up(sql in proptest::collection::vec(any::<u8>(), 0..64), limit in 0..40_usize) {
        for name in ["UTF8", "SJIS", "GB18030"] {
            let encoding = ClientEncoding::from_name(name.as_bytes());
            prop_assert!(mask(&sql, ON, encoding, limit).chars().count() <= limit);
            prop_assert!(summary(&sql, ON, encoding).chars().count() <= 255);
            let _ = Fingerprint::of(&sql, ON, encoding);
        }
    }

    #[test]
    fn words_in_any_order_can_be_summed_up(words in proptest::collection::vec(proptest::sample::select(WORDS), 0..24)) {
        let sql = words.join(" ");
        prop_assert!(summary(sql.as_bytes(), ON, ClientEncoding::Utf8).chars().count() <= 255);
        prop_assert_eq!(of(&sql), of(&sql.to_lowercase().replace(' ', "/* x */\n")));
    }
}

const ON: StandardConformingStrings = StandardConformingStrings::On;

const LITERALS: &[&str] = &[
    "'sentinel'",
    "'it''s sentinel'",
    "E'\\'sentinel'",
    "N'sentinel'",
    "U&'sentinel'",
    "$$sentinel$$",
    "$a$'sentinel$$sentinel$a$",
    "B'4242'",
    "X'4242'",
    "-4242.5e3",
    "'a'\n--x\n'sentinel'",
    "/* sentinel */ 1 -- sentinel\n",
    "e'\\\\sentinel\\\\'",
];

const WORDS: &[&str] = &[
    "SELECT", "FROM", "t", "(", ")", ",", "WITH", "x", "AS", "INSERT", "INTO", "VALUES", "IN", "1",
    "-", "UPDATE", "SET", "JOIN", "USING", ";", "[", "]", "NULL", "IS", "CREATE", "TABLE",
    "EXPLAIN", ".", "DELETE", "MERGE", "\"q\"",
];

fn of(sql: &str) -> Fingerprint {
    Fingerprint::of(sql.as_bytes(), ON, ClientEncoding::Utf8)
}

fn masked_to(sql: &str, limit: usize) -> String {
    mask(sql.as_bytes(), ON, ClientEncoding::Utf8, limit)
}
