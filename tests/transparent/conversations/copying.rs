//! COPY, both ways, whole and broken off.

use super::{Awaited, Conversation, conversation, simple};
use crate::support::messages::*;

pub(super) fn conversations() -> Vec<Conversation> {
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
