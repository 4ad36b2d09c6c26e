//! What clients say to PostgreSQL.

use crate::support::messages::*;

/// A name, and what is sent before what is awaited.
pub(crate) struct Conversation {
    pub(crate) name: &'static str,
    pub(crate) steps: Vec<(Vec<Message>, Awaited)>,
}

/// What must have come before the conversation goes on.
pub(crate) enum Awaited {
    /// So many ReadyForQuery.
    Ready(usize),
    /// A message with this tag.
    Tag(u8),
    /// The end of the connection.
    End,
    /// Nothing: what follows is sent at once.
    Nothing,
}

/// What must be there before; run as the superuser.
pub(crate) const SETUP: &str = "
    CREATE TABLE items (id int PRIMARY KEY, name text NOT NULL, price numeric(10, 2));
    INSERT INTO items SELECT n, 'item ' || n, n * 1.5 FROM generate_series(1, 100) AS n;
    CREATE FUNCTION fails(what text) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RAISE NOTICE 'about to fail'; PERFORM 1 / 0; RETURN what; END $$;
    CREATE FUNCTION warns(what text) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RAISE WARNING '% is odd', what USING DETAIL = 'a detail', HINT = 'a hint', ERRCODE = '01P01'; RETURN what; END $$;
    CREATE FUNCTION misspelt() RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN EXECUTE 'SELECT nosuch FROM items'; RETURN 1; END $$;
    GRANT ALL ON items TO app;
    CREATE SCHEMA AUTHORIZATION app;
";

/// All of them. They leave no trace in the database, and their replies are the same each time.
pub(crate) fn conversations() -> Vec<Conversation> {
    let mut all = Vec::new();
    all.extend(SIMPLE.iter().map(|(name, sql)| simple(name, &[sql])));
    all.extend(
        SEQUENCES
            .iter()
            .map(|(name, queries)| simple(name, queries)),
    );
    all.extend(simple_with_odd_bytes());
    all.extend(copies());
    all.extend(extended());
    all.extend(settings());
    all.extend(large());
    all.extend(others());
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

fn simple(name: &'static str, queries: &[&str]) -> Conversation {
    Conversation {
        name,
        steps: queries
            .iter()
            .map(|sql| (vec![query(sql)], Awaited::Ready(1)))
            .collect(),
    }
}

fn conversation(
    name: &'static str,
    steps: impl Into<Vec<(Vec<Message>, Awaited)>>,
) -> Conversation {
    Conversation {
        name,
        steps: steps.into(),
    }
}

fn simple_with_odd_bytes() -> Vec<Conversation> {
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

fn copies() -> Vec<Conversation> {
    let copy_in = |sql: &str| (vec![query(sql)], Awaited::Tag(b'G'));
    let begin = || (vec![query("BEGIN")], Awaited::Ready(1));
    let rollback = || (vec![query("ROLLBACK")], Awaited::Ready(1));
    vec![
        simple(
            "copy out",
            &["COPY (SELECT id, name FROM items ORDER BY id) TO STDOUT"],
        ),
        simple(
            "copy out, csv",
            &[
                "COPY (SELECT id, name FROM items ORDER BY id LIMIT 3) TO STDOUT WITH (FORMAT csv, HEADER)",
            ],
        ),
        simple(
            "copy out, binary",
            &[
                "COPY (SELECT id, name FROM items ORDER BY id LIMIT 3) TO STDOUT WITH (FORMAT binary)",
            ],
        ),
        simple(
            "copy out with an error on the way",
            &["COPY (SELECT 10 / (5 - n) FROM generate_series(1, 9) AS n) TO STDOUT"],
        ),
        simple(
            "copy out and a select",
            &["COPY (SELECT 1) TO STDOUT; SELECT 2"],
        ),
        conversation(
            "copy in",
            [
                begin(),
                copy_in("COPY items FROM STDIN"),
                (
                    vec![
                        copy_data(b"700\tseven"),
                        copy_data(b" hundred\t7.5\n701\tx\t\\N\n"),
                        copy_done(),
                    ],
                    Awaited::Ready(1),
                ),
                (
                    vec![query("SELECT * FROM items WHERE id >= 700 ORDER BY id")],
                    Awaited::Ready(1),
                ),
                rollback(),
            ],
        ),
        conversation(
            "copy in looks like messages",
            [
                begin(),
                copy_in("COPY items (id, name) FROM STDIN"),
                (
                    vec![copy_data(b"702\tQ\0\0\0\x0eSELECT 1\0\n"), copy_done()],
                    Awaited::Ready(1),
                ),
                rollback(),
            ],
        ),
        conversation(
            "copy in given up by the client",
            [
                begin(),
                copy_in("COPY items FROM STDIN"),
                (
                    vec![copy_data(b"703\tx\t1\n"), copy_fail("changed my mind")],
                    Awaited::Ready(1),
                ),
                rollback(),
            ],
        ),
        conversation(
            "copy in refused by the server",
            [
                copy_in("COPY items FROM STDIN"),
                (
                    vec![
                        copy_data(b"not a number\tx\t1\n"),
                        copy_data(b"704\ty\t1\n"),
                        copy_done(),
                    ],
                    Awaited::Ready(1),
                ),
                (vec![query("SELECT 1")], Awaited::Ready(1)),
            ],
        ),
        conversation(
            "copy in between two selects",
            [
                copy_in("SELECT 1; COPY items FROM STDIN; SELECT 2"),
                (vec![copy_done()], Awaited::Ready(1)),
            ],
        ),
        conversation(
            "copy in with Flush and Sync on the way",
            [
                begin(),
                copy_in("COPY items FROM STDIN"),
                (
                    vec![copy_data(b"705\tx\t1\n"), flush(), sync(), copy_done()],
                    Awaited::Ready(1),
                ),
                rollback(),
            ],
        ),
        conversation(
            "a query during copy in",
            [
                copy_in("COPY items FROM STDIN"),
                (
                    vec![copy_data(b"706\tx\t1\n"), query("SELECT 1")],
                    Awaited::End,
                ),
            ],
        ),
        conversation(
            "copy in by the extended protocol",
            [
                begin(),
                (
                    vec![
                        parse("", "COPY items FROM STDIN"),
                        bind("", "", &[]),
                        execute("", 0),
                        sync(),
                    ],
                    Awaited::Tag(b'G'),
                ),
                (
                    vec![copy_data(b"707\tx\t1\n"), copy_done(), sync()],
                    Awaited::Ready(1),
                ),
                rollback(),
            ],
        ),
        conversation(
            "copy in by the extended protocol, refused",
            [
                (
                    vec![
                        parse("", "COPY items FROM STDIN"),
                        bind("", "", &[]),
                        execute("", 0),
                        flush(),
                    ],
                    Awaited::Tag(b'G'),
                ),
                (
                    vec![copy_data(b"x\n"), copy_done(), sync()],
                    Awaited::Ready(1),
                ),
            ],
        ),
        conversation(
            "copy out by the extended protocol",
            [(
                vec![
                    parse("", "COPY (SELECT 1) TO STDOUT"),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                ],
                Awaited::Ready(1),
            )],
        ),
    ]
}

/// The proxy's own settings over the extended protocol. PostgreSQL keeps what it does not know for an extension.
fn settings() -> Vec<Conversation> {
    let ready = |messages: &[Message]| (messages.to_vec(), Awaited::Ready(1));
    let run = |sql: &str| vec![parse("", sql), bind("", "", &[]), execute("", 0)];
    let set = || run("SET pgspan.route = '/pay'");
    let show = || run("SHOW pgspan.route");
    let begin = || ready(&[query("BEGIN")]);
    let end = || ready(&[query("ROLLBACK")]);
    let fails = || run("SELECT 1 / 0");
    let set_config = "SELECT set_config('pgspan.route', $1, false)";
    vec![
        conversation(
            "a setting of the proxy's set, shown and reset",
            [
                ready(&[
                    parse("", "SET pgspan.route = '/pay'"),
                    describe_statement(""),
                    bind("", "", &[]),
                    describe_portal(""),
                    execute("", 0),
                    sync(),
                ]),
                ready(&[
                    parse("", "SHOW pgspan.route"),
                    describe_statement(""),
                    bind("", "", &[]),
                    describe_portal(""),
                    execute("", 0),
                    sync(),
                ]),
                ready(&[&run("RESET pgspan.route")[..], &[sync()]].concat()),
            ],
        ),
        conversation(
            "a setting of the proxy's that was never set, as NULL",
            [ready(
                &[
                    &run("SELECT current_setting('pgspan.route', true)")[..],
                    &[sync()],
                ]
                .concat(),
            )],
        ),
        conversation(
            "a setting of the proxy's in a pipeline",
            [
                ready(
                    &[
                        &run("SELECT 1")[..],
                        &set(),
                        &show(),
                        &run("SELECT 2"),
                        &[sync()],
                    ]
                    .concat(),
                ),
                ready(&[&show()[..], &fails(), &set(), &[sync()]].concat()),
                ready(&[&show()[..], &[sync()]].concat()),
            ],
        ),
        conversation(
            "a setting of the proxy's undone with its pipeline",
            [
                ready(&[&set()[..], &[sync()]].concat()),
                ready(&[&run("SET pgspan.route = '/b'")[..], &fails(), &[sync()]].concat()),
                ready(&[&show()[..], &[sync()]].concat()),
            ],
        ),
        conversation(
            "a value of the proxy's setting as a parameter",
            [
                ready(&[
                    parse("s", set_config),
                    describe_statement("s"),
                    bind("p", "s", &[Some("/a")]),
                    describe_portal("p"),
                    execute("p", 0),
                    sync(),
                ]),
                ready(&[
                    bind("", "s", &[Some("/b")]),
                    execute("", 1),
                    execute("", 0),
                    sync(),
                ]),
                ready(&[&show()[..], &[sync()]].concat()),
                ready(&[bind("", "s", &[]), execute("", 0), sync()]),
                ready(&[close_statement("s"), close_statement("s"), sync()]),
                ready(&[bind("", "s", &[Some("/c")]), sync()]),
            ],
        ),
        conversation(
            "an unknown setting of the proxy's outside of a transaction",
            [
                ready(&[&show()[..], &set(), &[sync()]].concat()),
                ready(&[
                    parse("", "SHOW pgspan.route"),
                    describe_statement(""),
                    sync(),
                ]),
                ready(&[&run("SELECT 1")[..], &show(), &run("SELECT 2"), &[sync()]].concat()),
            ],
        ),
        conversation(
            "an unknown setting of the proxy's in a transaction",
            [
                begin(),
                ready(&[&show()[..], &run("SELECT 1"), &[sync()]].concat()),
                ready(&[&set()[..], &[sync()]].concat()),
                ready(&[query("SELECT 1")]),
                end(),
                ready(&[&set()[..], &show(), &[sync()]].concat()),
            ],
        ),
        conversation(
            "the proxy's settings in transactions",
            [
                begin(),
                ready(
                    &[
                        &run("SET LOCAL pgspan.route = '/local'")[..],
                        &show(),
                        &[sync()],
                    ]
                    .concat(),
                ),
                ready(&[&run("SELECT 1")[..], &show(), &[sync()]].concat()),
                ready(&[query("COMMIT")]),
                begin(),
                ready(&[&set()[..], &[sync()]].concat()),
                ready(&[&run("ROLLBACK")[..], &[sync()]].concat()),
                ready(
                    &[
                        &run("SELECT current_setting('pgspan.route', true) IS NULL OR true")[..],
                        &[sync()],
                    ]
                    .concat(),
                ),
            ],
        ),
        conversation(
            "a local setting of the proxy's behind the begin of its pipeline",
            [
                ready(
                    &[
                        &run("BEGIN")[..],
                        &run("SET LOCAL pgspan.route = '/local'"),
                        &show(),
                        &[sync()],
                    ]
                    .concat(),
                ),
                ready(&[&run("COMMIT")[..], &[sync()]].concat()),
            ],
        ),
        conversation(
            "a local setting of the proxy's outside of a transaction",
            [ready(
                &[&run("SET LOCAL pgspan.route = '/local'")[..], &[sync()]].concat(),
            )],
        ),
        conversation(
            "a name for two statements, one of them the proxy's",
            [
                ready(&[parse("s", "SET pgspan.route = '/pay'"), sync()]),
                ready(&[parse("s", "SELECT 1"), bind("", "s", &[]), sync()]),
                ready(&[parse("s", "RESET pgspan.route"), sync()]),
                begin(),
                ready(&[parse("s", "SELECT 1"), sync()]),
                ready(&[query("SELECT 1")]),
                end(),
                ready(&[bind("", "s", &[]), execute("", 0), sync()]),
                ready(&[&show()[..], &[sync()]].concat()),
                ready(&[query("DEALLOCATE ALL")]),
                ready(&[
                    parse("s", "SELECT 1"),
                    bind("", "s", &[]),
                    execute("", 0),
                    sync(),
                ]),
            ],
        ),
        conversation(
            "too many values for the proxy's setting",
            [
                ready(&[
                    parse("s", "SET pgspan.route = '/pay'"),
                    bind("", "s", &[Some("1")]),
                    execute("", 0),
                    sync(),
                ]),
                begin(),
                ready(&[bind("", "s", &[Some("1")]), execute("", 0), sync()]),
                end(),
            ],
        ),
        conversation(
            "a setting of the proxy's run twice from one portal",
            [ready(&[&set()[..], &[execute("", 0), sync()]].concat())],
        ),
        conversation(
            "a setting of the proxy's flushed",
            [
                ([&set()[..], &[flush()]].concat(), Awaited::Tag(b'C')),
                ready(&[&show()[..], &[sync()]].concat()),
            ],
        ),
    ]
}

fn extended() -> Vec<Conversation> {
    let ready = |messages: &[Message]| (messages.to_vec(), Awaited::Ready(1));
    let select = || {
        [
            parse(
                "",
                "SELECT id, name FROM items WHERE id < $1::int ORDER BY id",
            ),
            bind("", "", &[Some("4")]),
        ]
    };
    let named = || parse("s", "SELECT id + $1::int FROM items WHERE id = 1");
    vec![
        conversation(
            "unnamed",
            [ready(
                &[
                    &select()[..],
                    &[describe_portal(""), execute("", 0), sync()],
                ]
                .concat(),
            )],
        ),
        conversation(
            "unnamed without describing",
            [ready(&[&select()[..], &[execute("", 0), sync()]].concat())],
        ),
        conversation(
            "described first",
            [
                ready(&[select()[0].clone(), describe_statement(""), sync()]),
                ready(&[select()[1].clone(), execute("", 0), sync()]),
            ],
        ),
        conversation(
            "flushed",
            [
                (
                    vec![select()[0].clone(), describe_statement(""), flush()],
                    Awaited::Tag(b'T'),
                ),
                (
                    vec![select()[1].clone(), execute("", 0), flush()],
                    Awaited::Tag(b'C'),
                ),
                ready(&[sync()]),
            ],
        ),
        conversation(
            "no rows described",
            [ready(&[
                parse("", "CREATE TEMP TABLE nobody_sees (a int)"),
                describe_statement(""),
                sync(),
            ])],
        ),
        conversation(
            "parameter types",
            [ready(&[
                parse_typed("", "SELECT $1, $2", &[23, 1043]),
                describe_statement(""),
                bind("", "", &[Some("7"), None]),
                execute("", 0),
                sync(),
            ])],
        ),
        conversation(
            "named",
            [
                ready(&[named(), sync()]),
                ready(&[bind("", "s", &[Some("10")]), execute("", 0), sync()]),
                ready(&[
                    bind("", "s", &[Some("20")]),
                    describe_portal(""),
                    execute("", 0),
                    sync(),
                ]),
                ready(&[describe_statement("s"), sync()]),
                ready(&[close_statement("s"), sync()]),
                ready(&[bind("", "s", &[Some("30")]), execute("", 0), sync()]),
            ],
        ),
        conversation(
            "a name again after closing",
            [ready(&[
                named(),
                close_statement("s"),
                parse("s", "SELECT 'other'"),
                bind("", "s", &[]),
                execute("", 0),
                sync(),
            ])],
        ),
        conversation(
            "a name twice",
            [
                ready(&[named(), sync()]),
                ready(&[named(), sync()]),
                ready(&[bind("", "s", &[Some("1")]), execute("", 0), sync()]),
            ],
        ),
        conversation(
            "a name twice with another text",
            [
                ready(&[named(), sync()]),
                ready(&[parse("s", "SELECT 2"), sync()]),
            ],
        ),
        conversation(
            "a name that failed",
            [
                ready(&[parse("s", "SELECT nosuch"), sync()]),
                ready(&[bind("", "s", &[]), execute("", 0), sync()]),
                ready(&[named(), sync()]),
            ],
        ),
        conversation(
            "an unknown name bound",
            [ready(&[bind("", "nobody", &[]), execute("", 0), sync()])],
        ),
        conversation(
            "an unknown name described",
            [ready(&[describe_statement("nobody"), sync()])],
        ),
        conversation(
            "an unknown name closed",
            [ready(&[close_statement("nobody"), sync()])],
        ),
        conversation(
            "an unknown portal",
            [
                ready(&[execute("nobody", 0), sync()]),
                ready(&[describe_portal("nobody"), sync()]),
                ready(&[close_portal("nobody"), sync()]),
            ],
        ),
        conversation(
            "too few parameters",
            [
                ready(&[named(), sync()]),
                ready(&[bind("", "s", &[]), execute("", 0), sync()]),
            ],
        ),
        conversation(
            "a parameter of the wrong type",
            [ready(&[
                named(),
                bind("", "s", &[Some("many")]),
                execute("", 0),
                sync(),
            ])],
        ),
        conversation(
            "names listed",
            [
                ready(&[named(), sync()]),
                ready(&[
                    parse(
                        "",
                        "SELECT statement, parameter_types FROM pg_prepared_statements WHERE NOT from_sql",
                    ),
                    bind("", "", &[]),
                    sync(),
                ]),
            ],
        ),
        conversation(
            "names after DEALLOCATE ALL",
            [
                ready(&[named(), sync()]),
                ready(&[query("DEALLOCATE ALL")]),
                ready(&[bind("", "s", &[Some("1")]), execute("", 0), sync()]),
            ],
        ),
        conversation(
            "names after DISCARD ALL",
            [
                ready(&[named(), sync()]),
                ready(&[query("DISCARD ALL")]),
                ready(&[bind("", "s", &[Some("1")]), sync()]),
                ready(&[named(), sync()]),
            ],
        ),
        conversation(
            "an error and what follows it until Sync",
            [(
                vec![
                    parse("", "SELECT 1"),
                    bind("", "", &[]),
                    execute("", 0),
                    parse("", "SELECT nosuch"),
                    bind("", "", &[]),
                    execute("", 0),
                    parse("later", "SELECT 2"),
                    bind("", "later", &[]),
                    execute("", 0),
                    sync(),
                    parse("", "SELECT 3"),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                    bind("", "later", &[]),
                    execute("", 0),
                    sync(),
                ],
                Awaited::Ready(3),
            )],
        ),
        conversation(
            "an error at runtime in a pipeline",
            [(
                vec![
                    parse("", "SELECT 10 / $1::int"),
                    bind("", "", &[Some("0")]),
                    execute("", 0),
                    bind("", "", &[Some("5")]),
                    execute("", 0),
                    sync(),
                    bind("", "", &[Some("5")]),
                    execute("", 0),
                    sync(),
                ],
                Awaited::Ready(2),
            )],
        ),
        conversation(
            "the position of an error",
            [ready(&[parse("", "SELECT 'ä', nosuch FROM items"), sync()])],
        ),
        conversation(
            "only Sync",
            [(vec![sync(), sync(), sync()], Awaited::Ready(3))],
        ),
        conversation(
            "an empty query",
            [ready(&[
                parse("", ""),
                bind("", "", &[]),
                describe_portal(""),
                execute("", 0),
                sync(),
            ])],
        ),
        conversation(
            "two statements in a Parse",
            [ready(&[parse("", "SELECT 1; SELECT 2"), sync()])],
        ),
        conversation(
            "a portal a few rows at a time",
            [
                ready(&[query("BEGIN")]),
                ready(&[
                    parse("", "SELECT id FROM items ORDER BY id LIMIT 5"),
                    bind("p", "", &[]),
                    execute("p", 2),
                    sync(),
                ]),
                ready(&[execute("p", 2), sync()]),
                ready(&[execute("p", 2), sync()]),
                ready(&[execute("p", 2), sync()]),
                ready(&[close_portal("p"), sync()]),
                ready(&[execute("p", 2), sync()]),
                ready(&[query("ROLLBACK")]),
            ],
        ),
        conversation(
            "a portal ends with its transaction",
            [
                ready(&[
                    parse("", "SELECT id FROM items ORDER BY id"),
                    bind("p", "", &[]),
                    execute("p", 2),
                    sync(),
                ]),
                ready(&[execute("p", 2), sync()]),
            ],
        ),
        conversation(
            "portals taking turns",
            [(
                vec![
                    parse("a", "SELECT id FROM items ORDER BY id"),
                    parse("b", "SELECT name FROM items ORDER BY id"),
                    bind("pa", "a", &[]),
                    bind("pb", "b", &[]),
                    execute("pa", 1),
                    execute("pb", 1),
                    execute("pa", 1),
                    execute("pb", 1),
                    sync(),
                ],
                Awaited::Ready(1),
            )],
        ),
        conversation(
            "BEGIN before the statement",
            [
                ready(&[
                    parse("", "BEGIN"),
                    bind("", "", &[]),
                    execute("", 0),
                    parse("", "SELECT 1"),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                ]),
                ready(&[
                    parse("", "COMMIT"),
                    bind("", "", &[]),
                    execute("", 0),
                    sync(),
                ]),
            ],
        ),
        conversation(
            "Sync between Parse and Bind",
            [
                ready(&[select()[0].clone(), sync()]),
                ready(&[select()[1].clone(), execute("", 0), sync()]),
            ],
        ),
        conversation(
            "a simple query before a pipeline",
            [(
                vec![
                    query("BEGIN"),
                    named(),
                    bind("", "s", &[Some("1")]),
                    execute("", 0),
                    sync(),
                    query("COMMIT"),
                ],
                Awaited::Ready(3),
            )],
        ),
        conversation(
            "a simple query ends the unnamed statement",
            [
                ready(&[select()[0].clone(), sync()]),
                ready(&[query("SELECT 1")]),
                ready(&[select()[1].clone(), execute("", 0), sync()]),
            ],
        ),
        conversation(
            "a vacuum alone",
            [ready(&[
                parse("", "VACUUM (ANALYZE) pg_catalog.pg_am"),
                bind("", "", &[]),
                execute("", 0),
                sync(),
            ])],
        ),
        conversation(
            "a notice in a pipeline",
            [ready(&[
                parse("", "SELECT warns($1)"),
                bind("", "", &[Some("x")]),
                execute("", 0),
                sync(),
            ])],
        ),
        conversation(
            "a known text in a failed transaction",
            [
                ready(&[
                    parse("known", "SELECT 'known'"),
                    parse("end", "ROLLBACK"),
                    sync(),
                ]),
                ready(&[query("BEGIN")]),
                ready(&[query("SELECT 1 / 0")]),
                ready(&[parse("again", "SELECT 'known'"), sync()]),
                ready(&[parse("over", "ROLLBACK"), sync()]),
                ready(&[bind("", "over", &[]), execute("", 0), sync()]),
                ready(&[
                    parse("again", "SELECT 'known'"),
                    bind("", "again", &[]),
                    execute("", 0),
                    sync(),
                ]),
            ],
        ),
        conversation(
            "a statement that changes under its name",
            [
                ready(&[query("BEGIN; CREATE TEMP TABLE changing (a int)")]),
                ready(&[
                    parse("c", "SELECT * FROM changing"),
                    bind("", "c", &[]),
                    execute("", 0),
                    sync(),
                ]),
                ready(&[query("ALTER TABLE changing ADD b int")]),
                ready(&[bind("", "c", &[]), execute("", 0), sync()]),
                ready(&[query("ROLLBACK")]),
            ],
        ),
        conversation(
            "many at once",
            [(
                (0..200)
                    .flat_map(|n| {
                        [
                            parse("", "SELECT $1::int * 2"),
                            bind("", "", &[Some(&n.to_string())]),
                            execute("", 0),
                            sync(),
                        ]
                    })
                    .collect(),
                Awaited::Ready(200),
            )],
        ),
        conversation(
            "many names",
            [
                (
                    (0..300)
                        .flat_map(|n| [parse(&format!("n{n}"), &format!("SELECT {n}")), sync()])
                        .collect(),
                    Awaited::Ready(300),
                ),
                (
                    (0..300)
                        .flat_map(|n| [bind("", &format!("n{n}"), &[]), execute("", 0), sync()])
                        .collect(),
                    Awaited::Ready(300),
                ),
            ],
        ),
    ]
}

fn large() -> Vec<Conversation> {
    let megabyte = "x".repeat(1 << 20);
    vec![
        simple(
            "large rows",
            &["SELECT n, repeat(chr(96 + n), 3000000) FROM generate_series(1, 3) AS n"],
        ),
        simple(
            "many rows",
            &["SELECT n, 'row ' || n FROM generate_series(1, 20000) AS n"],
        ),
        simple(
            "many columns",
            &[
                "SELECT 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
            ],
        ),
        conversation(
            "a large query",
            [(
                vec![query(&format!("SELECT length('{megabyte}')"))],
                Awaited::Ready(1),
            )],
        ),
        conversation(
            "a large query with an error at its end",
            [(
                vec![query(&format!("SELECT length('{megabyte}'), nosuch"))],
                Awaited::Ready(1),
            )],
        ),
        conversation(
            "a large parameter",
            [(
                vec![
                    parse("", "SELECT length($1), $1"),
                    bind("", "", &[Some(&megabyte)]),
                    execute("", 0),
                    sync(),
                ],
                Awaited::Ready(1),
            )],
        ),
        conversation(
            "a large copy",
            [
                (
                    vec![query(
                        "BEGIN; CREATE TEMP TABLE t (a text); COPY t FROM STDIN",
                    )],
                    Awaited::Tag(b'G'),
                ),
                (
                    (0..200)
                        .map(|n| copy_data(format!("{n}{}\n", "y".repeat(20_000)).as_bytes()))
                        .chain([copy_done()])
                        .collect(),
                    Awaited::Ready(1),
                ),
                (
                    vec![query(
                        "SELECT count(*), sum(length(a)) FROM t; COPY t TO STDOUT; ROLLBACK",
                    )],
                    Awaited::Ready(1),
                ),
            ],
        ),
        conversation(
            "large rows answered while large queries are sent",
            [(
                (0..10)
                    .map(|_| query(&format!("SELECT '{megabyte}'")))
                    .collect(),
                Awaited::Ready(10),
            )],
        ),
    ]
}

fn others() -> Vec<Conversation> {
    const INT4PL: u32 = 177;
    const INT4DIV: u32 = 154;
    let then_select = || (vec![query("SELECT 1")], Awaited::Ready(1));
    vec![
        conversation(
            "a function call",
            [
                (
                    vec![function_call(INT4PL, &[Some("40"), Some("2")])],
                    Awaited::Ready(1),
                ),
                then_select(),
            ],
        ),
        conversation(
            "a function call that fails",
            [
                (
                    vec![function_call(INT4DIV, &[Some("40"), Some("0")])],
                    Awaited::Ready(1),
                ),
                then_select(),
            ],
        ),
        conversation(
            "a function call with null",
            [
                (
                    vec![function_call(INT4PL, &[Some("40"), None])],
                    Awaited::Ready(1),
                ),
                then_select(),
            ],
        ),
        conversation(
            "a function call of no function",
            [
                (vec![function_call(1, &[])], Awaited::Ready(1)),
                then_select(),
            ],
        ),
        conversation(
            "a function call in a transaction",
            [(
                vec![
                    query("BEGIN"),
                    function_call(INT4PL, &[Some("1"), Some("1")]),
                    query("COMMIT"),
                ],
                Awaited::Ready(3),
            )],
        ),
        conversation(
            "a malformed Bind",
            [
                (vec![Message::tagged(b'B', b"x"), sync()], Awaited::Ready(1)),
                then_select(),
            ],
        ),
        conversation(
            "a malformed Describe",
            [
                (
                    vec![Message::tagged(b'D', b"Xname\0"), sync()],
                    Awaited::Ready(1),
                ),
                then_select(),
            ],
        ),
        conversation(
            "copy messages outside a copy",
            [(
                vec![
                    copy_data(b"x"),
                    copy_done(),
                    copy_fail("x"),
                    query("SELECT 1"),
                ],
                Awaited::Ready(1),
            )],
        ),
        conversation(
            "an unknown message",
            [(vec![Message::tagged(b'z', b"what")], Awaited::End)],
        ),
        conversation(
            "goodbye",
            [then_select(), (vec![terminate()], Awaited::End)],
        ),
        conversation(
            "goodbye in a transaction",
            [
                (vec![query("BEGIN")], Awaited::Ready(1)),
                (vec![terminate()], Awaited::End),
            ],
        ),
        conversation(
            "the server ends the connection",
            [(
                vec![query("SELECT pg_terminate_backend(pg_backend_pid())")],
                Awaited::End,
            )],
        ),
        conversation(
            "an asynchronous notification",
            [
                (vec![query("LISTEN news")], Awaited::Ready(1)),
                (vec![query("NOTIFY news, 'one'")], Awaited::Ready(1)),
                (vec![query("BEGIN; NOTIFY news, 'two'")], Awaited::Ready(1)),
                (vec![], Awaited::Nothing),
                (vec![query("COMMIT")], Awaited::Ready(1)),
            ],
        ),
    ]
}
