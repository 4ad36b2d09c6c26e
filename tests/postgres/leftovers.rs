//! What one client leaves in its session, however it does so, is nothing that another one finds, and all that it finds again itself.

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
    (SELECT count(*) FROM pg_cursors WHERE is_holdable), \
    (SELECT count(*) FROM pg_listening_channels()))";

/// What a client sends, one message a text; `LONG` is a comment that is longer than what is kept of most texts.
const WAYS: &[&[&str]] = &[
    // set_config
    &["SELECT set_config('app.x', '1', true), set_config('work_mem', '3MB', false)"],
    &["SELECT set_config('work_mem', '3MB', false), set_config('app.x', '1', true)"],
    &["SELECT set_config('work_mem', '3MB', false), set_config('app.x', '1', false)"],
    &["SELECT set_config('app.x', '(true)', false)"],
    &["SELECT set_config('app.x', '1', false /* true) */)"],
    &["SELECT LONG set_config('app.x', '1', false)"],
    &["SELECT set_config('app.' || 'x', '1', false)"],
    &["SELECT 1 WHERE set_config('app.x', '1', false) = ''"],
    &["COPY (SELECT set_config('app.x', '1', false)) TO STDOUT"],
    &[
        "PREPARE p AS SELECT set_config($1, $2, false)",
        "EXECUTE p('app.x', '1')",
        "DEALLOCATE p",
    ],
    &["UPDATE pg_settings SET setting = '3072' WHERE name = 'work_mem'"],
    // SET
    &["SET work_mem = '3MB'"],
    &["SET work_mem = '3MB'", "SET work_mem TO DEFAULT"],
    &["SET work_mem = '3MB'", "RESET work_mem"],
    &["SET work_mem = '3MB'", "SET app.x = 1", "RESET ALL"],
    &["SET work_mem = '3MB'", "DISCARD ALL"],
    &["SET work_mem = '3MB'", "/* now */ RESET work_mem"],
    &["SET work_mem = '3MB'", "/* now */ SET work_mem = DEFAULT"],
    &["SET work_mem = '3MB'", "-- now\n RESET ALL"],
    &["SET work_mem = '3MB'", "LONG RESET ALL"],
    &["SET work_mem = '3MB'", "RESET ALL LONG"],
    &["SET work_mem = '3MB'", "RESET work_mem LONG"],
    &["SET work_mem = '3MB'", "/* now */ DISCARD ALL"],
    &["SET work_mem = '3MB'", "LONG DISCARD ALL"],
    &["SET work_mem = '3MB'; LONG RESET ALL"],
    &["SET work_mem = '3MB'", "SELECT 'LONG'; RESET work_mem"],
    &["BEGIN", "SET LOCAL work_mem TO DEFAULT", "COMMIT"],
    &["BEGIN", "RESET ALL", "COMMIT"],
    &["BEGIN", "RESET ALL", "SET app.x = 1", "ROLLBACK"],
    &["SET LOCAL work_mem = '3MB'"],
    &["SET SCHEMA 'mine'"],
    &["SET search_path = a, \"B\", public"],
    &["SET XML OPTION DOCUMENT"],
    &["SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"],
    &["SET ROLE NONE"],
    &["SELECT 'LONG'; SET work_mem = '3MB'; SET app.x = 1"],
    &["SET work_mem = '3MB'; LONG SET app.x = 1"],
    &["SET work_mem = '3MB'; /* ; */ SET app.x = 1"],
    &["SET work_mem = '3MB'; -- now\nSET app.x = 1"],
    &["SET \"work_mem\" = '3MB'; SET \"app\".\"x\" = 1"],
    &["SET work_mem = '3MB'; SELECT 1 / (random() * 0)::int; SET app.x = 1"],
    &["BEGIN", "SET work_mem = '3MB'", "COMMIT"],
    &["BEGIN", "SET work_mem = '3MB'", "ROLLBACK"],
    &["BEGIN", "SET work_mem = '3MB'", "nonsense", "COMMIT"],
    &[
        "BEGIN",
        "SET LOCAL work_mem = '3MB'",
        "SET work_mem = '5MB'",
        "COMMIT",
    ],
    &[
        "BEGIN",
        "SET work_mem = '3MB'",
        "SET LOCAL work_mem = '5MB'",
        "COMMIT",
    ],
    &[
        "BEGIN",
        "SAVEPOINT a",
        "SET work_mem = '3MB'",
        "ROLLBACK TO a",
        "SET app.x = 1",
        "COMMIT",
    ],
    &[
        "BEGIN",
        "SAVEPOINT a",
        "SET work_mem = '3MB'",
        "RELEASE a",
        "COMMIT AND CHAIN",
        "SET app.x = 1",
        "ROLLBACK",
    ],
    &["SET work_mem = '3MB'", "BEGIN", "RESET ALL", "ROLLBACK"],
    &[
        "SET work_mem = '3MB'",
        "BEGIN",
        "RESET work_mem",
        "SAVEPOINT a",
        "SET work_mem = '5MB'",
        "ROLLBACK TO a",
        "COMMIT",
    ],
    &["SET work_mem = 'nonsense'"],
    &["SET no_such_setting = 1"],
    &["BEGIN; SET work_mem = '3MB'; COMMIT; BEGIN; SET app.x = 1; ROLLBACK"],
    // Locks
    &["SELECT pg_advisory_lock(1)"],
    &["SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)"],
    &[
        "SELECT pg_advisory_lock(1), pg_advisory_lock(2)",
        "SELECT pg_advisory_unlock_all()",
    ],
    &[
        "SELECT pg_advisory_lock(1), set_config('app.x', '1', false)",
        "SELECT pg_advisory_unlock(1)",
    ],
    &["SELECT LONG pg_advisory_lock(1)"],
    &["EXPLAIN ANALYZE SELECT pg_advisory_lock(1)"],
    &[
        "BEGIN; CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1 AS a; UPDATE t SET a = 2 WHERE pg_try_advisory_lock(1); COMMIT",
    ],
    &["SELECT pg_advisory_lock(1), 1 / (random() * 0)::int"],
    &[
        "BEGIN",
        "SELECT pg_advisory_lock(1), 1 / (random() * 0)::int",
        "ROLLBACK",
    ],
    &[
        "BEGIN",
        "SELECT pg_advisory_lock(1)",
        "SAVEPOINT a",
        "SELECT pg_advisory_lock(2)",
        "ROLLBACK TO a",
        "COMMIT",
    ],
    &["BEGIN", "SELECT pg_advisory_xact_lock(1)", "COMMIT"],
    &[
        "BEGIN",
        "DECLARE c CURSOR FOR SELECT pg_advisory_lock(1)",
        "FETCH c",
        "COMMIT",
    ],
    // Temporary objects
    &["CREATE TEMP TABLE mine (a int)"],
    &["CREATE LONG TEMP TABLE mine (a int)"],
    &["CREATE TEMP TABLE mine (a int)", "DROP TABLE mine"],
    &["CREATE TEMP TABLE mine (a int)", "DISCARD TEMP"],
    &["BEGIN", "CREATE TEMP TABLE mine (a int)", "ROLLBACK"],
    &["CREATE TEMP VIEW mine AS SELECT 1 AS a"],
    &["CREATE TEMP SEQUENCE mine"],
    &["SELECT 1 AS a INTO TEMP mine"],
    &[
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TEMP TABLE t (a int)",
        "DROP TABLE t",
    ],
    &[
        "CREATE TYPE pg_temp.mood AS ENUM ('good')",
        "CREATE TEMP TABLE t (a int)",
        "DROP TABLE t",
    ],
    // The rest
    &["LISTEN a", "LISTEN b", "UNLISTEN a"],
    &["BEGIN", "LISTEN a", "ROLLBACK"],
    &[
        "PREPARE p AS SELECT 1",
        "PREPARE q AS SELECT 2",
        "DEALLOCATE p",
    ],
    &["PREPARE p AS SELECT 1", "DEALLOCATE ALL"],
    &["BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "COMMIT"],
    &[
        "BEGIN",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "COMMIT",
        "CLOSE c",
    ],
    &[
        "BEGIN",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "ROLLBACK",
    ],
    &[
        "SET work_mem = '3MB'",
        "LISTEN a",
        "PREPARE p AS SELECT 1",
        "SET app.x = 1",
        "DISCARD ALL",
    ],
];

/// What the client asks for when it connects: to this it comes back.
const OPTIONS: &str = "-c work_mem=7MB -c app.x=own";

/// How the texts are sent.
#[derive(Clone, Copy, Debug)]
enum Protocol {
    Simple,
    Extended,
    /// With one row asked for, and no more.
    OneRow,
    /// By a name.
    Named,
    /// In one go, with a Sync at the end: what may not stand in a transaction block fails.
    Pipelined,
}

const PROTOCOLS: [Protocol; 5] = [
    Protocol::Simple,
    Protocol::Extended,
    Protocol::OneRow,
    Protocol::Named,
    Protocol::Pipelined,
];

fn log_in(port: u16) -> Wire {
    log_in_with(port, "")
}

fn log_in_with(port: u16, options: &str) -> Wire {
    let mut wire = Wire::connect(([127, 0, 0, 1], port).into());
    let parameters = [("user", "app"), ("database", "app"), ("options", options)];
    wire.send(messages::startup(&parameters));
    while wire.receive().tag() != b'Z' {}
    wire
}

/// The first value of a reply.
fn value_of(reply: &[Message]) -> String {
    let row = reply.iter().find(|message| message.tag() == b'D').unwrap();
    String::from_utf8_lossy(&row.body()[6..]).into_owned()
}

fn send(wire: &mut Wire, way: &[&str], protocol: Protocol) {
    let long = format!("/*{}*/", "x".repeat(5_000));
    let mut last = Vec::new();
    for (at, text) in way.iter().enumerate() {
        let text = text.replace("LONG", &long);
        let (name, rows) = match protocol {
            Protocol::Simple => {
                last = wire.send(messages::query(&text)).receive_reply();
                continue;
            }
            Protocol::Extended | Protocol::Pipelined => (String::new(), 0),
            Protocol::OneRow => (String::new(), 1),
            Protocol::Named => (format!("s{at}"), 0),
        };
        wire.send_all([
            messages::parse(&name, &text),
            messages::bind("", &name, &[]),
            messages::execute("", rows),
        ]);
        if !matches!(protocol, Protocol::Pipelined) || at + 1 == way.len() {
            last = wire.send(messages::sync()).receive_reply();
        }
    }
    if last.last() != Some(&messages::ready(b'I')) {
        wire.send(messages::query("ROLLBACK")).receive_reply();
    }
}

#[test]
fn what_a_client_leaves_it_finds_again_and_nobody_else() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    let state = |wire: &mut Wire| value_of(&wire.send(messages::query(STATE)).receive_reply());
    let clean = state(&mut log_in(proxy.port()));
    let mut found = Vec::new();
    for (way, protocol) in WAYS
        .iter()
        .flat_map(|way| PROTOCOLS.map(|protocol| (way, protocol)))
    {
        let mut direct = log_in_with(shared().port(), OPTIONS);
        send(&mut direct, way, protocol);
        let expected = state(&mut direct);
        // Its locks are free when it has ended.
        direct.send(messages::terminate()).expect_end();

        let mut ann = log_in_with(proxy.port(), OPTIONS);
        send(&mut ann, way, protocol);
        let mut bob = log_in(proxy.port());
        bob.send(messages::query(STATE));
        // The server is anybody's, or it stays with its client until that has left.
        let pinned = || proxy.metric("pgspan_pool_pinned_servers", &["user=\"app\""]) == 1.0;
        let mut is_pinned = false;
        eventually(|| {
            is_pinned = pinned();
            (is_pinned || !bob.has_received_nothing()).then_some(())
        })
        .unwrap();
        let mut check = |who, state: String, expected: &String| {
            if state != *expected {
                found.push(format!(
                    "{way:?} {protocol:?}, {who}: {state}, not {expected}"
                ));
            }
        };
        if is_pinned {
            check("itself", state(&mut ann), &expected);
            drop(ann);
            check("another", value_of(&bob.receive_reply()), &clean);
        } else {
            check("another", value_of(&bob.receive_reply()), &clean);
            check("itself", state(&mut ann), &expected);
        }
        // The next one has a server of its own.
        let end = "SELECT pg_terminate_backend(pg_backend_pid())";
        bob.send(messages::query(end));
        while bob.receive_or_end().is_some() {}
    }
    assert!(found.is_empty(), "clean: {clean}\n{}", found.join("\n"));
}

#[test]
fn a_lock_by_a_function_call_stays_with_its_client() {
    const PG_ADVISORY_LOCK: u32 = 2880;
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 2\n");
    let mut ann = log_in(proxy.port());
    ann.send(messages::function_call(PG_ADVISORY_LOCK, &[Some("1")]))
        .receive_reply();
    let pinned = || proxy.metric("pgspan_pool_pinned_servers", &["user=\"app\""]) == 1.0;
    eventually(|| pinned().then_some(())).unwrap();
    ann.send(messages::query("SELECT pg_advisory_unlock(1)"))
        .receive_reply();
    eventually(|| (!pinned()).then_some(())).unwrap();
}

#[test]
fn whatever_setting_a_client_sets_it_and_others_go_on() {
    let proxy = Proxy::in_front_of(shared(), "[pool]\nsize = 1\n");
    let mut ann = log_in(proxy.port());
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
        let mut bob = log_in(proxy.port());
        // Some can be set at the beginning of a transaction alone; to go on is all that counts.
        ann.send(messages::query(&set)).receive_reply();
        let one = messages::query("SELECT 1");
        let replies = [&mut bob, &mut ann].map(|client| client.send(one.clone()).receive_reply());
        let is_answered = |reply: &Vec<Message>| reply.iter().any(|message| message.tag() == b'D');
        if !replies.iter().all(is_answered) {
            failed.push(format!("{set}: {replies:?}"));
            ann = log_in(proxy.port());
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
