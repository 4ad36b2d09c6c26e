//! Fingerprints beside pg_stat_statements' queryids: what is one statement there is one here.

use std::collections::BTreeMap;

use pgspan::sql::encoding::ClientEncoding;
use pgspan::sql::fingerprint::Fingerprint;
use pgspan::sql::lexer::StandardConformingStrings;

use crate::support::postgres::{run, shared};

/// Statements that are one and such that are not, as one list: every pair of them is compared.
const STATEMENTS: &[&str] = &[
    "SELECT a FROM f WHERE a = 1",
    "select A\n\tfrom F where a=-2",
    "SELECT /* b */ a FROM f WHERE a = 3 -- c",
    "SELECT \"a\" FROM \"f\" WHERE \"a\" = 4;",
    "SELECT a FROM f WHERE a <> 1",
    "SELECT a FROM f WHERE a != 2",
    "SELECT a FROM f WHERE a > 1",
    "SELECT c FROM f WHERE a = 1",
    "SELECT b FROM f WHERE b = 'x'",
    "SELECT b FROM f WHERE b = 'it''s'",
    "SELECT b FROM f WHERE b = E'\\n'",
    "SELECT b FROM f WHERE b = $$y$$",
    "SELECT b FROM f WHERE b = NULL",
    "SELECT b FROM f WHERE b IS NULL",
    "SELECT b FROM f WHERE b IS NOT NULL",
    "SELECT b FROM f WHERE b LIKE 'x%'",
    "SELECT b FROM f WHERE b LIKE 'y%'",
    "SELECT b FROM f WHERE b NOT LIKE 'y%'",
    "SELECT a FROM f WHERE d",
    "SELECT a FROM f WHERE NOT d",
    "SELECT a FROM f WHERE d IS TRUE",
    "SELECT a FROM f WHERE d IS NOT TRUE",
    "SELECT a FROM f WHERE d = true",
    "SELECT a FROM f WHERE d = false",
    "SELECT a FROM f WHERE a BETWEEN 1 AND 2",
    "SELECT a FROM f WHERE a BETWEEN 3 AND -4",
    "SELECT a FROM f WHERE a = 1 AND c = 2",
    "SELECT a FROM f WHERE a = 1 OR c = 2",
    "SELECT a + 1 FROM f",
    "SELECT a + 22 FROM f",
    "SELECT a - 1 FROM f",
    "SELECT a -2 FROM f",
    "SELECT a * -2 FROM f",
    "SELECT - a FROM f",
    "SELECT + a FROM f",
    "SELECT 1",
    "SELECT -1",
    "SELECT +1",
    "SELECT 1, 2",
    "SELECT a FROM f ORDER BY a",
    "SELECT a FROM f ORDER BY a DESC",
    "SELECT a, c FROM f ORDER BY 1",
    "SELECT a, c FROM f ORDER BY 2",
    "SELECT a, c FROM f ORDER BY 2, 1",
    "SELECT a, count(*) FROM f GROUP BY 1",
    "SELECT a, count(*) FROM f GROUP BY 1 HAVING count(*) > 1",
    "SELECT a, count(*) FROM f GROUP BY 1 HAVING count(*) > 2",
    "SELECT a FROM f LIMIT 1",
    "SELECT a FROM f LIMIT 2",
    "SELECT a FROM f LIMIT 1 OFFSET 5",
    "SELECT count(a) FROM f",
    "SELECT count(DISTINCT a) FROM f",
    "SELECT COUNT(A) FROM F",
    "SELECT coalesce(a, 1) FROM f",
    "SELECT coalesce(a, 2) FROM f",
    "SELECT coalesce(a, c, 2) FROM f",
    "SELECT CASE WHEN a = 1 THEN 'x' ELSE 'y' END FROM f",
    "SELECT CASE WHEN a = 2 THEN 'z' ELSE 'w' END FROM f",
    "SELECT f.a FROM f JOIN g ON f.a = g.a WHERE g.a = 1",
    "SELECT f.a FROM f JOIN g ON f.a = g.a WHERE g.a = 2",
    "SELECT f.a FROM f LEFT JOIN g ON f.a = g.a WHERE g.a = 2",
    "SELECT a FROM f UNION SELECT a FROM g",
    "SELECT a FROM f UNION ALL SELECT a FROM g",
    "WITH w AS (SELECT a FROM f WHERE a = 1) SELECT a FROM w",
    "WITH w AS (SELECT a FROM f WHERE a = 2) SELECT a FROM w",
    "SELECT a FROM f WHERE a IN (SELECT a FROM g)",
    "SELECT a FROM f WHERE a NOT IN (SELECT a FROM g)",
    "SELECT a FROM f WHERE EXISTS (SELECT 1 FROM g)",
    "SELECT a FROM f WHERE EXISTS (SELECT 2 FROM g)",
    "SELECT a FROM f FOR UPDATE",
    "SELECT a FROM f FOR SHARE",
    "INSERT INTO f (a, b) VALUES (1, 'x')",
    "insert into f (a, b) values (2, NULL)",
    "INSERT INTO f (a, b) VALUES (3, 'x'), (4, 'y')",
    "INSERT INTO f (a) VALUES (5)",
    "INSERT INTO f (a) VALUES (6) RETURNING a",
    "INSERT INTO f (a) SELECT a FROM g WHERE a = 7",
    "INSERT INTO f (a) SELECT a FROM g WHERE a = 8",
    "UPDATE f SET a = 1 WHERE a = 2",
    "UPDATE f SET a = 3 WHERE a = 4",
    "UPDATE f SET a = a + 1 WHERE a = 2",
    "UPDATE f SET c = 1 WHERE a = 2",
    "DELETE FROM f WHERE a = -100",
    "DELETE FROM f WHERE a = -101",
    "DELETE FROM f WHERE c = -101",
    "VALUES (1)",
    "VALUES (2)",
    "SELECT a FROM f WHERE a IN (1)",
    "SELECT a FROM f WHERE a NOT IN (1)",
];

/// They are one since PostgreSQL 18.
const LISTS: &[&str] = &[
    "SELECT a FROM f WHERE a IN (1, 2)",
    "SELECT a FROM f WHERE a IN (1, 2, 3)",
    "SELECT a FROM f WHERE a IN (-1, 2, 3, 4)",
    "SELECT a FROM f WHERE a NOT IN (1, 2)",
    "SELECT a FROM f WHERE a NOT IN (1, 2, 3)",
    "SELECT a FROM f WHERE b IN ('x', 'y')",
    "SELECT a FROM f WHERE b IN ('x', 'y', 'z')",
    "SELECT a FROM f WHERE a IN (1, 2, c)",
    "SELECT a FROM f WHERE a IN (1, 2, abs(3))",
    "SELECT ARRAY[1]",
    "SELECT ARRAY[1, 2]",
    "SELECT ARRAY[1, 2, 3]",
    "SELECT a FROM f WHERE a = ANY ('{1,2,3}')",
    "SELECT a FROM f WHERE a = ANY ('{1}')",
    "SELECT a FROM f WHERE (a, c) IN ((1, 2), (3, 4))",
];

#[test]
fn statements_are_one_here_where_they_are_one_in_pg_stat_statements() {
    let postgres = shared();
    postgres
        .psql("postgres", "CREATE DATABASE fingerprints")
        .unwrap();
    let version: u32 = postgres
        .psql(
            "postgres",
            "SELECT current_setting('server_version_num')::int / 10000",
        )
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let lists = if version >= 18 { LISTS } else { &[] };
    let statements: Vec<&str> = STATEMENTS.iter().chain(lists).copied().collect();

    let mut script = String::from(
        "CREATE EXTENSION pg_stat_statements; CREATE TABLE f (a int, b text, c int, d bool); CREATE TABLE g (a int);\n",
    );
    for (number, statement) in statements.iter().enumerate() {
        script += &format!(
            "SELECT pg_stat_statements_reset(0, oid, 0) IS NULL FROM pg_database WHERE datname = 'fingerprints';\n{}\n;\nSELECT 'found', {number}, queryid FROM pg_stat_statements \
             JOIN pg_database ON pg_database.oid = dbid AND datname = 'fingerprints' WHERE query !~ 'pg_stat_statements';\n",
            statement.trim_end_matches(';'),
        );
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script).unwrap();
    let port = postgres.port().to_string();
    let said = run(postgres
        .binaries()
        .command("psql")
        .args(["-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-p", &port])
        .args(["-U", "postgres", "-d", "fingerprints", "-f"])
        .arg(file.path()));
    assert_eq!(said.stderr, "");
    let queryids: BTreeMap<usize, i64> = said
        .stdout
        .lines()
        .filter_map(|line| {
            let (number, queryid) = line.strip_prefix("found|")?.split_once('|')?;
            Some((number.parse().ok()?, queryid.parse().ok()?))
        })
        .collect();
    assert_eq!(queryids.len(), statements.len(), "{said:?}");

    let mut different = Vec::new();
    for (at, one) in statements.iter().enumerate() {
        for (to, other) in statements.iter().enumerate().skip(at + 1) {
            let is_one = fingerprint(one) == fingerprint(other);
            if is_one != (queryids[&at] == queryids[&to]) {
                different.push(format!("one here: {is_one}: {one} | {other}"));
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert_ne!(fingerprint("SELECT 1"), fingerprint("SELECT $1"));
}

fn fingerprint(sql: &str) -> Fingerprint {
    let strings = StandardConformingStrings::On;
    Fingerprint::of(sql.as_bytes(), strings, ClientEncoding::Utf8)
}
