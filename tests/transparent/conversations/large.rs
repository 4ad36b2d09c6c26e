//! What fills buffers.

use super::{Awaited, Conversation, conversation, simple};
use crate::support::messages::*;

pub(super) fn conversations() -> Vec<Conversation> {
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
