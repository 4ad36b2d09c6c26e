//! What one client leaves in its session, however it does so, is nothing that another one finds.

use crate::support::eventually;
use crate::support::messages::{self, Message};
use crate::support::postgres::shared;
use crate::support::proxy::Proxy;
use crate::support::wire::Wire;

/// All that a session can be told apart by, in one row.
const STATE: &str = "SELECT concat_ws('; ', current_setting('work_mem'), current_setting('search_path'), \
    coalesce(current_setting('app.x', true), ''), current_setting('xmloption'), current_user, \
    current_setting('default_transaction_read_only'), \
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), \
    (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()), \
    (SELECT count(*) FROM pg_proc WHERE pronamespace = pg_my_temp_schema()), \
    (SELECT count(*) FROM pg_type WHERE typnamespace = pg_my_temp_schema()), \
    (SELECT count(*) FROM pg_prepared_statements WHERE from_sql), \
    (SELECT count(*) FROM pg_cursors WHERE is_holdable))";

const LOCK_OID: u32 = 2880;

fn log_in(proxy: &Proxy) -> Wire {
    let mut wire = Wire::connect(proxy.address());
    wire.send(messages::startup(&[("user", "app"), ("database", "app")]));
    while wire.receive().tag() != b'Z' {}
    wire
}

/// The first value of a reply.
fn value_of(reply: &[Message]) -> String {
    let row = reply.iter().find(|message| message.tag() == b'D').unwrap();
    String::from_utf8_lossy(&row.body()[6..]).into_owned()
}

/// What is sent, in how many round trips: everything up to a Query, a Sync or a FunctionCall is one.
fn send(wire: &mut Wire, messages: Vec<Message>) {
    for message in messages {
        let is_answered = matches!(message.tag(), b'Q' | b'S' | b'F');
        wire.send(message);
        if is_answered {
            while wire.receive().tag() != b'Z' {}
        }
    }
}

fn suspended(sql: &str) -> Vec<Message> {
    vec![
        messages::parse("", sql),
        messages::bind("", "", &[]),
        messages::execute("", 1),
        messages::sync(),
    ]
}

fn queries(texts: &[&str]) -> Vec<Message> {
    texts.iter().map(|text| messages::query(text)).collect()
}

#[test]
fn nothing_that_a_client_leaves_is_found_by_the_next_one() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    let long = format!("/*{}*/", "x".repeat(5_000));
    let late = |sql: &str| format!("SELECT '{}'; {sql}", "x".repeat(5_000));
    let ways: Vec<(&str, Vec<Message>)> = vec![
        (
            "two calls, the first local",
            queries(&[
                "SELECT set_config('app.x', '1', true), set_config('work_mem', '3MB', false)",
            ]),
        ),
        (
            "two calls, the second local",
            queries(&[
                "SELECT set_config('work_mem', '3MB', false), set_config('app.x', '1', true)",
            ]),
        ),
        (
            "two calls",
            queries(&[
                "SELECT set_config('work_mem', '3MB', false), set_config('app.x', '1', false)",
            ]),
        ),
        (
            "a value that looks like an end",
            queries(&["SELECT set_config('app.x', '(true)', false)"]),
        ),
        (
            "a comment that looks like one",
            queries(&["SELECT set_config('app.x', '1', false /* true) */)"]),
        ),
        (
            "a lock and a setting",
            queries(&[
                "SELECT pg_advisory_lock(1), set_config('app.x', '1', false)",
                "SELECT pg_advisory_unlock(1)",
            ]),
        ),
        (
            "a call behind a long comment",
            queries(&[&format!("SELECT {long} set_config('app.x', '1', false)")]),
        ),
        (
            "a lock behind a long comment",
            queries(&[&format!("SELECT {long} pg_advisory_lock(1)")]),
        ),
        (
            "a temporary table behind a long comment",
            queries(&[&format!("CREATE {long} TEMP TABLE mine (a int)")]),
        ),
        (
            "a SET behind others",
            queries(&[&late("SET work_mem = '3MB'; SET app.x = 1")]),
        ),
        (
            "a SET behind a SET",
            queries(&[&format!("SET work_mem = '3MB'; {long} SET app.x = 1")]),
        ),
        (
            "a SET behind a comment",
            queries(&["SET work_mem = '3MB'; /* ; */ SET app.x = 1"]),
        ),
        (
            "a SET behind a line comment",
            queries(&["SET work_mem = '3MB'; -- now\nSET app.x = 1"]),
        ),
        (
            "a quoted name",
            queries(&["SET \"work_mem\" = '3MB'; SET \"app\".\"x\" = 1"]),
        ),
        ("SET SCHEMA", queries(&["SET SCHEMA 'mine'"])),
        ("SET XML OPTION", queries(&["SET XML OPTION DOCUMENT"])),
        (
            "SET SESSION CHARACTERISTICS",
            queries(&["SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"]),
        ),
        (
            "through the view",
            queries(&["UPDATE pg_settings SET setting = '3072' WHERE name = 'work_mem'"]),
        ),
        (
            "a lock in an UPDATE",
            queries(&[
                "BEGIN; CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1 AS a; UPDATE t SET a = 2 WHERE pg_try_advisory_lock(1); COMMIT",
            ]),
        ),
        (
            "a lock in an EXPLAIN",
            queries(&["EXPLAIN ANALYZE SELECT pg_advisory_lock(1)"]),
        ),
        (
            "a setting in a COPY",
            queries(&["COPY (SELECT set_config('app.x', '1', false)) TO STDOUT"]),
        ),
        (
            "a lock that a failed statement took",
            queries(&["SELECT pg_advisory_lock(1), 1 / (random() * 0)::int"]),
        ),
        (
            "a lock of a transaction that failed",
            queries(&[
                "BEGIN",
                "SELECT pg_advisory_lock(1), 1 / (random() * 0)::int",
                "ROLLBACK",
            ]),
        ),
        (
            "a lock by a cursor",
            queries(&[
                "BEGIN",
                "DECLARE c CURSOR FOR SELECT pg_advisory_lock(1)",
                "FETCH c",
                "COMMIT",
            ]),
        ),
        (
            "a setting by a prepared statement",
            queries(&[
                "PREPARE p AS SELECT set_config($1, $2, false)",
                "EXECUTE p('app.x', '1')",
                "DEALLOCATE p",
            ]),
        ),
        (
            "a lock by a portal that is suspended",
            suspended("SELECT pg_advisory_lock(1)"),
        ),
        (
            "a setting by a portal that is suspended",
            suspended("SELECT set_config('app.x', '1', false)"),
        ),
        (
            "a lock by a portal behind a long comment",
            suspended(&format!("SELECT {long} pg_advisory_lock(1)")),
        ),
        (
            "a lock by a function call",
            vec![messages::function_call(LOCK_OID, &[Some("1")])],
        ),
        (
            "a function in pg_temp",
            queries(&[
                "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
                "CREATE TEMP TABLE t (a int)",
                "DROP TABLE t",
            ]),
        ),
        (
            "a type in pg_temp",
            queries(&[
                "CREATE TYPE pg_temp.mood AS ENUM ('good')",
                "CREATE TEMP TABLE t (a int)",
                "DROP TABLE t",
            ]),
        ),
    ];
    let mut found = Vec::new();
    let clean = value_of(&{
        let mut bob = log_in(&proxy);
        bob.send(messages::query(STATE)).receive_reply()
    });
    for (what, sent) in ways {
        let mut ann = log_in(&proxy);
        send(&mut ann, sent);
        let mut bob = log_in(&proxy);
        bob.send(messages::query(STATE));
        // The server is anybody's, or it stays with its client until that has left.
        let pinned = || proxy.metric("pgspan_pool_pinned_servers", &["user=\"app\""]) == 1.0;
        let mut is_pinned = false;
        eventually(|| {
            is_pinned = pinned();
            (is_pinned || !bob.has_received_nothing()).then_some(())
        })
        .expect(what);
        if is_pinned {
            drop(ann);
        }
        let state = value_of(&bob.receive_reply());
        if state != clean {
            found.push(format!("{what}: {state}"));
            // The rest begins with a server of its own.
            let end = "SELECT pg_terminate_backend(pg_backend_pid())";
            bob.send(messages::query(end)).expect_end();
        }
    }
    assert!(found.is_empty(), "clean: {clean}\n{}", found.join("\n"));
}

#[test]
fn whatever_setting_a_client_sets_it_and_others_go_on() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    let mut ann = log_in(&proxy);
    let names = "SELECT string_agg(name, ' ') FROM pg_settings WHERE context = 'user'";
    let names = value_of(&ann.send(messages::query(names)).receive_reply());
    let names: Vec<&str> = names.split(' ').collect();
    assert!(names.len() > 100, "{names:?}");
    let again = |name| format!("SELECT set_config('{name}', current_setting('{name}'), false)");
    let sets = names.into_iter().map(again);
    let others = [
        "SET seed = 0.5",
        "SET transaction_isolation = 'serializable'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE",
        "SET XML OPTION DOCUMENT",
        "SET ROLE NONE",
    ];
    let mut failed = Vec::new();
    for set in sets.chain(others.map(str::to_owned)) {
        let mut bob = log_in(&proxy);
        // Some can be set at the beginning of a transaction alone; to go on is all that counts.
        ann.send(messages::query(&set)).receive_reply();
        let one = messages::query("SELECT 1");
        let replies = [&mut bob, &mut ann].map(|client| client.send(one.clone()).receive_reply());
        let is_answered = |reply: &Vec<Message>| reply.iter().any(|message| message.tag() == b'D');
        if !replies.iter().all(is_answered) {
            failed.push(format!("{set}: {replies:?}"));
            ann = log_in(&proxy);
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
