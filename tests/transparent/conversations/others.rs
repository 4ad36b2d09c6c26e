//! What else there is: function calls, malformed and misplaced messages, notifications, ends of connections.

use super::{Awaited, Conversation, conversation};
use crate::support::messages::*;

pub(super) fn conversations() -> Vec<Conversation> {
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
