//! Sends statements to one address over the raw protocol, and keeps every message that comes back.

use std::cell::RefCell;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::psql_script::{PsqlScript, Step};
use crate::support::messages::{self, Message};
use crate::support::wire::Wire;

/// Where statements go, and how.
pub(crate) struct Route {
    pub(crate) address: SocketAddr,
    pub(crate) database: String,
    /// More startup parameters.
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) protocol: Protocol,
    /// Another client that uses the same servers in between.
    pub(crate) other: Option<Other>,
}

/// A client that sets and prepares what nobody else may notice.
pub(crate) struct Other(RefCell<Wire>);

impl Other {
    pub(crate) fn new(address: SocketAddr, database: &str) -> Self {
        let mut wire = Wire::connect(address);
        wire.send(messages::startup(&[
            ("user", "postgres"),
            ("database", database),
        ]));
        wire.receive_reply();
        Self(RefCell::new(wire))
    }

    fn interfere(&self) {
        const QUERIES: [&str; 3] = [
            "SET search_path = nowhere; SET DateStyle = 'German'; SET extra_float_digits = -3; SET TimeZone = 'Asia/Tokyo'",
            "SELECT set_config('work_mem', '64kB', false), set_config('enable_seqscan', 'off', false)",
            "BEGIN; SET LOCAL standard_conforming_strings = off; SELECT 1 / 0",
        ];
        let mut wire = self.0.borrow_mut();
        for text in QUERIES {
            wire.send(messages::query(text)).receive_reply();
        }
        wire.send_all([
            messages::query("ROLLBACK"),
            messages::parse("", "SELECT 'other'"),
            messages::bind("", "", &[]),
            messages::execute("", 0),
            messages::sync(),
        ]);
        wire.receive_reply();
        let reply = wire.receive_reply();
        assert!(
            reply.iter().any(|message| message.tag() == b'D'),
            "{reply:?}"
        );
    }
}

/// How statements are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Simple,
    /// Unnamed Parse, Bind, Describe, Execute, Sync.
    Extended,
    /// So many statements in one Query message.
    Joined(usize),
}

/// A message that was sent, and what came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exchanged {
    pub(crate) sql: Vec<u8>,
    pub(crate) received: Vec<Message>,
}

/// Replays a file on a connection of its own.
pub(crate) fn replay(file: &[u8], environment: &[(&str, &str)], route: &Route) -> Vec<Exchanged> {
    let mut script = PsqlScript::new(file, environment);
    let mut session = Session::new(route, "postgres");
    let mut exchanged = Vec::new();
    let joined = match route.protocol {
        Protocol::Joined(count) => count,
        Protocol::Simple | Protocol::Extended => 1,
    };
    let mut waiting: Vec<u8> = Vec::new();
    let mut count = 0;
    loop {
        let step = script.next();
        if let Some(Step::Query(sql)) = &step {
            waiting.extend_from_slice(sql);
            count += 1;
            // Its data follow.
            let is_copy = sql
                .to_ascii_lowercase()
                .windows(5)
                .any(|word| word == b"stdin");
            if count < joined && !is_copy && sql.ends_with(b";") {
                continue;
            }
        }
        if !waiting.is_empty() {
            let sql = std::mem::take(&mut waiting);
            count = 0;
            let received = session.ask(&sql, &mut script);
            exchanged.push(Exchanged { sql, received });
        }
        match step {
            Some(Step::Query(_)) => {}
            Some(Step::Connect(user)) => {
                session.leave();
                session = Session::new(route, user.as_deref().unwrap_or("postgres"));
            }
            None => break,
        }
    }
    session.leave();
    exchanged
}

/// Sends each of these as a message of its own.
pub(crate) fn replay_queries(queries: &[Vec<u8>], route: &Route) -> Vec<Exchanged> {
    let mut session = Session::new(route, "postgres");
    let mut nothing = PsqlScript::new(b"", &[]);
    let ask = |sql: &Vec<u8>| Exchanged {
        sql: sql.clone(),
        received: session.ask(sql, &mut nothing),
    };
    let exchanged = queries.iter().map(ask).collect();
    session.leave();
    exchanged
}

struct Session<'a> {
    route: &'a Route,
    user: String,
    /// `None` where the server has closed it.
    wire: Option<Wire>,
}

impl<'a> Session<'a> {
    fn new(route: &'a Route, user: &str) -> Self {
        Self {
            route,
            user: user.to_owned(),
            wire: None,
        }
    }

    /// Sends one message, or group of messages; what came back, with `b"!"` for an end of the connection.
    fn ask(&mut self, sql: &[u8], script: &mut PsqlScript<'_>) -> Vec<Message> {
        let route = self.route;
        let mut received = Vec::new();
        if self.wire.is_none() {
            let (wire, refusal) = log_in(route, &self.user);
            received.extend(refusal);
            self.wire = wire;
        }
        let Some(wire) = &mut self.wire else {
            return received;
        };
        let text = [sql, b"\0"].concat();
        match route.protocol {
            Protocol::Simple | Protocol::Joined(_) => {
                wire.send(Message::tagged(b'Q', &text));
            }
            Protocol::Extended => {
                wire.send_all([
                    Message::tagged(b'P', &[b"\0", &text[..], b"\0\0"].concat()),
                    messages::bind("", "", &[]),
                    messages::describe_portal(""),
                    messages::execute("", 0),
                    messages::sync(),
                ]);
            }
        }
        loop {
            let Some(message) = wire.receive_or_end() else {
                self.wire = None;
                received.push(Message(b"!".to_vec()));
                return received;
            };
            let tag = message.tag();
            received.push(masked(message));
            match tag {
                b'G' => {
                    let data = script.copy_data();
                    if !data.is_empty() {
                        wire.send_if_open(messages::copy_data(data));
                    }
                    wire.send_if_open(messages::copy_done());
                    if route.protocol == Protocol::Extended {
                        // The one before was ignored.
                        wire.send_if_open(messages::sync());
                    }
                }
                b'Z' => break,
                _ => {}
            }
        }
        if let Some(other) = &route.other {
            other.interfere();
        }
        received
    }

    fn leave(&mut self) {
        if let Some(mut wire) = self.wire.take() {
            wire.send(messages::terminate());
        }
    }
}

fn log_in(route: &Route, user: &str) -> (Option<Wire>, Vec<Message>) {
    let stream = TcpStream::connect(route.address).unwrap();
    let mut wire = Wire::new(stream);
    wire.stream().set_read_timeout(Some(LONGEST)).unwrap();
    let mut parameters = vec![("user", user), ("database", &route.database)];
    parameters.extend(
        route
            .parameters
            .iter()
            .map(|(name, value)| (&**name, &**value)),
    );
    wire.send(messages::startup(&parameters));
    let reply = wire.receive_reply();
    match reply.last() {
        Some(last) if last.tag() == b'Z' => (Some(wire), Vec::new()),
        // How logins are refused has tests of its own.
        _ => (None, vec![Message(b"?".to_vec())]),
    }
}

/// Without what is another server's or process's: object ids in RowDescription, the notifying process, temporary schemas.
fn masked(mut message: Message) -> Message {
    // The schema of temporary tables has the number of the server process in its name.
    let schemas = (0..message.0.len()).filter(|at| message.0[*at..].starts_with(b"pg_temp_"));
    for at in schemas.collect::<Vec<_>>() {
        let digits = message.0[at + 8..]
            .iter_mut()
            .take_while(|byte| byte.is_ascii_digit());
        digits.for_each(|digit| *digit = b'#');
    }
    match message.tag() {
        b'A' => message.0[5..9].fill(0),
        b'T' => {
            let mut at = 7;
            while at < message.0.len() {
                let name = message.0[at..].iter().position(|byte| *byte == 0);
                at += name.unwrap() + 1;
                // The table, and the type where it is not built in.
                message.0[at..at + 4].fill(0);
                let oid = u32::from_be_bytes(message.0[at + 6..at + 10].try_into().unwrap());
                if oid >= FIRST_NORMAL_OID {
                    message.0[at + 6..at + 10].fill(0);
                }
                at += 18;
            }
        }
        _ => {}
    }
    message
}

/// The types of a RowDescription's columns.
pub(crate) fn column_types(description: &Message) -> Vec<u32> {
    let mut types = Vec::new();
    let mut rest = &description.0[7..];
    while let Some(name) = rest.iter().position(|byte| *byte == 0) {
        types.push(u32::from_be_bytes(
            rest[name + 7..name + 11].try_into().unwrap(),
        ));
        rest = &rest[name + 19..];
    }
    types
}

/// A DataRow without the identifiers of objects that are not built in, in its columns of type oid.
pub(crate) fn with_rows_oids_masked(row: &Message, types: &[u32]) -> Message {
    const OID_OID: u32 = 26;
    if u16::from_be_bytes([row.0[5], row.0[6]]) != types.len() as u16 {
        return row.clone();
    }
    let mut masked = row.0[..7].to_vec();
    // The message's length.
    masked[1..5].fill(0);
    let mut rest = &row.0[7..];
    for column in types {
        let len = i32::from_be_bytes(rest[..4].try_into().unwrap());
        let (value, behind) = rest[4..].split_at(usize::try_from(len).unwrap_or(0));
        let oid = str::from_utf8(value).ok().and_then(|oid| oid.parse().ok());
        match oid {
            Some(FIRST_NORMAL_OID..) if *column == OID_OID => masked.push(b'#'),
            _ => masked.extend_from_slice(&rest[..4 + value.len()]),
        }
        rest = behind;
    }
    Message(masked)
}

const FIRST_NORMAL_OID: u32 = 16_384;

/// For one message. Generous: some of PostgreSQL's statements work for a while.
const LONGEST: Duration = Duration::from_secs(180);
