//! The extended protocol.

use super::{Awaited, Conversation, conversation};
use crate::support::messages::*;

pub(super) fn conversations() -> Vec<Conversation> {
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
