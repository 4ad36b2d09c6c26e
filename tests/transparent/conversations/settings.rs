//! The proxy's own settings over the extended protocol.

use super::{Awaited, Conversation, conversation};
use crate::support::messages::*;

/// The proxy's own settings over the extended protocol. PostgreSQL keeps what it does not know for an extension.
pub(super) fn conversations() -> Vec<Conversation> {
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
