//! The proxy is not seen: the same bytes get the same replies from PostgreSQL directly and through the proxy, in every pool mode and
//! with every way of annotating.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod conversations;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once, OnceLock, PoisonError};

use conversations::{Awaited, Conversation, conversations};
use support::authority::Authority;
use support::messages::{Message, authentication_ok, field_of, startup};
use support::postgres::{Postgres, shared};
use support::proxy::Proxy;
use support::wire::Wire;
use support::{TRACEPARENT, eventually, messages};

#[test]
fn a_conversation_is_the_same_each_time() {
    compare(direct(), "directly, again");
}

#[test]
fn session_pooling_with_sqlcommenter_suffixes() {
    compare_through("session", "sqlcommenter", "suffix");
}

#[test]
fn session_pooling_with_sqlcommenter_prefixes() {
    compare_through("session", "sqlcommenter", "prefix");
}

#[test]
fn session_pooling_with_plain_suffixes() {
    compare_through("session", "plain", "suffix");
}

#[test]
fn session_pooling_with_plain_prefixes() {
    compare_through("session", "plain", "prefix");
}

#[test]
fn transaction_pooling_with_sqlcommenter_suffixes() {
    compare_through("transaction", "sqlcommenter", "suffix");
}

#[test]
fn transaction_pooling_with_sqlcommenter_prefixes() {
    compare_through("transaction", "sqlcommenter", "prefix");
}

#[test]
fn transaction_pooling_with_plain_suffixes() {
    compare_through("transaction", "plain", "suffix");
}

#[test]
fn transaction_pooling_with_plain_prefixes() {
    compare_through("transaction", "plain", "prefix");
}

#[test]
fn transaction_pooling_without_annotation() {
    let proxy = Proxy::in_front_of(
        server(),
        "[pool]\nmode = \"transaction\"\n[annotation]\nenabled = false\n",
    );
    compare(proxy.address(), "without annotation");
}

#[test]
fn two_in_a_row_with_tls_between_them() {
    let authority = Authority::new();
    authority.issue("pgspan", "pgspan", &["localhost"]);
    let [ca, cert, key] = ["ca.crt", "pgspan.crt", "pgspan.key"].map(|file| authority.quoted(file));
    for mode in ["session", "transaction"] {
        let tls = format!("[listen.tls]\nmode = \"require\"\ncert = {cert}\nkey = {key}\n");
        let behind = Proxy::in_front_of(server(), &format!("{tls}[pool]\nsize = 5\n"));
        let config = format!(
            "[auth]\nmethod = \"trust\"\n[server_tls]\nmode = \"verify-full\"\nca = {ca}\n\
             [databases.\"*\"]\nhost = \"localhost\"\nport = {}\n[users.app]\n\
             [pool]\nmode = \"{mode}\"\nsize = 5\n",
            behind.port()
        );
        let proxy = Proxy::start(&config);
        compare(proxy.address(), &format!("in front of another one, {mode}"));
    }
}

#[test]
fn transaction_pooling_with_another_client_between_all_messages() {
    let proxy = Proxy::in_front_of(server(), "[pool]\nmode = \"transaction\"\nsize = 2\n");
    let (mut other, _) = log_in(proxy.address(), &[("user", "app"), ("database", "app")]);
    let mut interferes = || {
        for text in INTERFERING_QUERIES {
            other.send(messages::query(text)).receive_reply();
        }
        for name in INTERFERING_NAMES {
            other.send_all([
                messages::close_statement(name),
                messages::parse(name, "SELECT 'other' AS others"),
                messages::bind("", name, &[]),
                messages::execute("", 0),
                messages::sync(),
            ]);
            let reply = other.receive_reply();
            assert!(
                reply.iter().any(|message| message.tag() == b'D'),
                "{reply:?}"
            );
        }
    };
    let what = "with another client between";
    compare_beside(proxy.address(), what, false, &mut interferes);
}

/// What another client does that nobody else may notice.
const INTERFERING_QUERIES: &[&str] = &[
    "SET search_path = nowhere; SET DateStyle = 'German'; SET extra_float_digits = 0; SET bytea_output = 'escape'",
    "SET client_encoding = 'LATIN1'; SET TimeZone = 'Asia/Tokyo'; SET IntervalStyle = 'iso_8601'",
    "SELECT set_config('statement_timeout', '1h', false), set_config('row_security', 'off', false)",
    "BEGIN; SET LOCAL standard_conforming_strings = off; SELECT 1 / 0",
    "ROLLBACK",
];

/// Names that conversations use, too.
const INTERFERING_NAMES: &[&str] = &["", "s", "p", "a", "b", "one", "two"];

#[test]
fn whoever_breaks_off_anywhere_leaves_nothing_to_the_next_one() {
    breaks_off("transaction", "left", &mut drop);
}

#[test]
fn whoever_breaks_off_a_session_anywhere_leaves_nothing_to_the_next_one() {
    breaks_off("session", "left", &mut drop);
}

#[test]
fn whoevers_server_is_killed_anywhere_leaves_nothing_to_the_next_one() {
    const KILL: &str =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'";
    let parameters = [("user", "postgres"), ("database", "app")];
    let (mut killer, _) = log_in(direct(), &parameters);
    breaks_off("transaction", "victim", &mut |victim| {
        killer.send(messages::query(KILL)).receive_reply();
        // Whoever has not been sent away leaves.
        let _ = victim.stream().shutdown(Shutdown::Write);
        let _ = victim.stream().read_to_end(&mut Vec::new());
        // Whose server is on the point of ending may be told so, as on a direct connection.
        let is_gone = || {
            let reply = killer.send(messages::query(KILL)).receive_reply();
            (!reply.iter().any(|message| message.tag() == b'D')).then_some(())
        };
        eventually(is_gone).unwrap();
    });
}

/// Breaks all conversations off at all places, and ends them in this way.
fn breaks_off(mode: &str, application: &str, ends: &mut dyn FnMut(Wire)) {
    /// What another one would notice: settings, locks, temporary objects, cursors, statements, listeners, an open transaction.
    const STATE: &str = "SELECT (SELECT string_agg(name || '=' || setting, ',') FROM pg_settings WHERE setting <> reset_val), \
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), \
        (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()), \
        (SELECT count(*) FROM pg_cursors), (SELECT count(*) FROM pg_prepared_statements WHERE from_sql), \
        (SELECT count(*) FROM pg_listening_channels()), now() = statement_timestamp()";
    let config = format!("[pool]\nmode = \"{mode}\"\nsize = 1\n");
    let proxy = Proxy::in_front_of(server(), &config);
    let state = || {
        let (mut wire, _) = log_in(proxy.address(), &[("user", "app"), ("database", "app")]);
        let mut reply = wire.send(messages::query(STATE)).receive_reply();
        wire.send(messages::terminate());
        reply.retain(|message| message.tag() != b'S');
        reply
    };
    let clean = state();
    assert_eq!(clean.len(), 4, "{clean:?}");
    let parameters = [
        ("user", "app"),
        ("database", "app"),
        ("application_name", application),
    ];
    let mut cuts = 0;
    for conversation in conversations() {
        let sent: Vec<Message> = conversation
            .steps
            .into_iter()
            .flat_map(|(sent, _)| sent)
            .collect();
        for (cut, message) in sent.iter().enumerate().take(MOST_CUTS) {
            let name = conversation.name;
            for part in [0, message.0.len() / 2] {
                let (wire, _) = log_in(proxy.address(), &parameters);
                let mut begun: Vec<u8> = sent[..cut].iter().flat_map(|it| it.0.clone()).collect();
                begun.extend_from_slice(&message.0[..part]);
                // It may be sent away before it has said all.
                let _ = wire.stream().write_all(&begun);
                ends(wire);
                assert_eq!(
                    state(),
                    clean,
                    "{name}, behind {cut} messages and {part} bytes"
                );
                cuts += 1;
            }
        }
    }
    println!("{cuts} cuts");
}

/// Of a conversation, those behind its first messages.
const MOST_CUTS: usize = 12;

#[test]
fn the_login_reports_the_same_parameters() {
    let proxy = Proxy::in_front_of(server(), "");
    for parameters in LOGINS {
        let reported = |address| {
            let mut messages = log_in(address, parameters).1;
            messages.sort_by_key(|message| message.0.clone());
            messages
        };
        assert_eq!(
            reported(proxy.address()),
            reported(direct()),
            "{parameters:?}"
        );
    }
}

#[test]
fn a_refused_login_says_the_same() {
    let proxy = Proxy::in_front_of(server(), "");
    for parameters in [
        &[("user", "app"), ("database", "nosuch")][..],
        &[
            ("user", "app"),
            ("database", "app"),
            ("options", "-c work_mem=nonsense"),
        ],
        &[
            ("user", "app"),
            ("database", "app"),
            ("options", "-c nosuch=1"),
        ],
        &[("user", "app"), ("database", "app"), ("nosuch", "1")],
    ] {
        let refusal = |address| {
            let message = log_in(address, parameters).1.pop().unwrap();
            [b'S', b'C', b'M'].map(|code| field_of(&message, code))
        };
        assert_eq!(
            refusal(proxy.address()),
            refusal(direct()),
            "{parameters:?}"
        );
    }
}

const LOGINS: &[&[(&str, &str)]] = &[
    &[("user", "app"), ("database", "app")],
    &[("user", "app")],
    &[
        ("user", "app"),
        ("database", "app"),
        ("application_name", "shop"),
        ("client_encoding", "LATIN1"),
    ],
    &[
        ("user", "app"),
        ("database", "app"),
        ("options", "-c datestyle=german --timezone=Asia/Tokyo"),
        ("extra_float_digits", "2"),
    ],
    &[
        ("user", "postgres"),
        ("database", "app"),
        ("options", "-c standard_conforming_strings=off"),
    ],
];

/// The shared server, with what the conversations are about.
fn server() -> &'static Postgres {
    static PREPARED: Once = Once::new();
    PREPARED.call_once(|| {
        shared().psql("app", conversations::SETUP).unwrap();
    });
    shared()
}

fn direct() -> SocketAddr {
    ([127, 0, 0, 1], server().port()).into()
}

fn compare_through(mode: &str, format: &str, placement: &str) {
    let annotation = format!("[annotation]\nformat = \"{format}\"\nplacement = \"{placement}\"\n");
    let proxy = Proxy::in_front_of(
        server(),
        &format!("[pool]\nmode = \"{mode}\"\nsize = 5\n{annotation}"),
    );
    compare(proxy.address(), &format!("{mode}, {format}, {placement}"));
}

fn compare(address: SocketAddr, what: &str) {
    compare_beside(address, what, true, &mut || {});
}

/// pg_prepared_statements shows what others have prepared on a server, too.
const SHOWS_SERVERS: [&str; 1] = ["what is prepared"];

/// The same while something else goes on between the steps.
fn compare_beside(address: SocketAddr, what: &str, is_alone: bool, between: &mut dyn FnMut()) {
    let differences: Vec<String> = conversations()
        .iter()
        .zip(postgres_says())
        .filter(|(conversation, _)| is_alone || !SHOWS_SERVERS.contains(&conversation.name))
        .filter_map(|(conversation, expected)| difference(conversation, address, expected, between))
        .collect();
    assert!(
        differences.is_empty(),
        "{what}: {} differ\n\n{}",
        differences.len(),
        differences.join("\n\n")
    );
}

/// Where the replies part, readable.
fn difference(
    conversation: &Conversation,
    address: SocketAddr,
    expected: &[Message],
    between: &mut dyn FnMut(),
) -> Option<String> {
    /// Who listens hears whoever notifies in the same database: one at a time.
    static NOTIFYING: Mutex<()> = Mutex::new(());
    let name = conversation.name;
    let _one_at_a_time = (name.contains("notif") || name.contains("listen"))
        .then(|| NOTIFYING.lock().unwrap_or_else(PoisonError::into_inner));
    let said = AssertUnwindSafe(|| transcript(conversation, address, between));
    let Ok(actual) = catch_unwind(said) else {
        let count = expected.len();
        return Some(format!(
            "{name}: it broke off (see above), where PostgreSQL sent {count} messages"
        ));
    };
    if expected == actual {
        return None;
    }
    let same = expected
        .iter()
        .zip(&actual)
        .take_while(|(expected, actual)| expected == actual)
        .count();
    Some(format!(
        "{name}: after {same} equal messages\n  PostgreSQL: {}\n  pgspan:     {}",
        shown(expected.get(same)),
        shown(actual.get(same))
    ))
}

fn shown(message: Option<&Message>) -> String {
    let mut text = message.map_or_else(|| "the end".to_owned(), |message| format!("{message:?}"));
    if text.len() > 500 {
        text.truncate(500);
        text += "…";
    }
    text
}

/// What PostgreSQL answers to each conversation.
fn postgres_says() -> &'static [Vec<Message>] {
    static SAID: OnceLock<Vec<Vec<Message>>> = OnceLock::new();
    SAID.get_or_init(|| {
        let transcripts = conversations();
        transcripts
            .iter()
            .map(|conversation| transcript(conversation, direct(), &mut || {}))
            .collect()
    })
}

/// All that came back, without what must differ.
fn transcript(
    conversation: &Conversation,
    address: SocketAddr,
    between: &mut dyn FnMut(),
) -> Vec<Message> {
    let parameters = [
        ("user", "app"),
        ("database", "app"),
        ("options", &*format!("-c pgspan.traceparent={TRACEPARENT}")),
    ];
    let (mut wire, _) = log_in(address, &parameters);
    let mut received = Vec::new();
    for (sent, awaited) in &conversation.steps {
        let mut writer = wire.duplicate();
        let sent = sent.clone();
        // Beside the reading: neither side may be kept from sending by the other's full buffers.
        let writing = std::thread::spawn(move || {
            writer.send_all(sent);
        });
        match awaited {
            Awaited::Ready(count) => {
                (0..*count).for_each(|_| received.extend(wire.receive_reply()))
            }
            Awaited::Tag(tag) => loop {
                received.push(wire.receive());
                if received.last().is_some_and(|message| message.tag() == *tag) {
                    break;
                }
            },
            Awaited::End => received.extend(std::iter::from_fn(|| wire.receive_or_end())),
            Awaited::Nothing => {}
        }
        let _ = writing.join();
        between();
    }
    received.into_iter().map(masked).collect()
}

/// Without what is another process's, or of no concern to a client: the notifying server's process id; where in PostgreSQL's source
/// an error arose, which an error of the proxy's own can't have.
fn masked(mut message: Message) -> Message {
    match message.tag() {
        b'A' => message.0[5..9].fill(0),
        b'E' | b'N' => {
            let is_told = |field: &&[u8]| !matches!(field, [b'F' | b'L' | b'R', ..]);
            let fields: Vec<&[u8]> = message
                .body()
                .split(|byte| *byte == 0)
                .filter(is_told)
                .collect();
            return Message::tagged(message.tag(), &fields.join(&0));
        }
        _ => {}
    }
    message
}

/// The connection and what came with the login, save the authentication and the key.
fn log_in(address: SocketAddr, parameters: &[(&str, &str)]) -> (Wire, Vec<Message>) {
    let mut wire = Wire::connect(address);
    wire.send(startup(parameters));
    let mut messages = wire.receive_reply();
    messages.retain(|message| *message != authentication_ok() && message.tag() != b'K');
    (wire, messages)
}

#[test]
fn an_encryption_request_is_answered_with_one_byte() {
    let proxy = Proxy::in_front_of(server(), "");
    for address in [direct(), proxy.address()] {
        let mut wire = Wire::connect(address);
        wire.send(messages::ssl_request());
        assert_eq!(wire.receive_bytes(1), b"N");
        wire.send(startup(&[("user", "app"), ("database", "app")]));
        assert_eq!(wire.receive_reply().last(), Some(&messages::ready(b'I')));
    }
}
