//! Conversations between a client and a server through the judges of both, without a socket and with a pretended clock.
//!
//! A message is written as its tag, a colon, and its body with `|` for NUL: `Q:SELECT 1|`.

mod belongings;
mod copying;
mod errors;
mod extended;
mod invariants;
mod pooling;
mod resetting;
mod simple;
mod statements;
mod timing;
mod unnamed;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::choices::{
    CommentFormat, Placement, PoolMode, PreparedChannel, UnnamedStatements,
};
use crate::protocol::encode;
use crate::protocol::forwarder::Forwarder;
use crate::protocol::frame::FrameHeader;
use crate::protocol::outbound::Outbound;
use crate::session::annotator::AnnotationPolicy;
use crate::session::client_session::ClientSession;
use crate::session::outstanding::Received;
use crate::session::parameters::ParameterSet;
use crate::session::query_record::{Outcome, QueryKind, QueueCause};
use crate::session::replies::Replies;
use crate::session::requests::{Pause, RequestPolicy, Requests, Workbench};
use crate::session::server_session::ServerSession;
use crate::session::statements::Definitions;
use crate::session::trace::{SessionTrace, TracePolicy, TraceRules};
use crate::session::violation::Violation;

/// A client and the server that it is linked to.
struct Pair {
    client: ClientSession,
    server: Option<ServerSession>,
    definitions: Definitions,
    policy: RequestPolicy,
    bench: Workbench,
    requests: Forwarder,
    replies: Forwarder,
    held: Vec<u8>,
    pause: Option<Pause>,
    epoch: Instant,
    now: Instant,
    is_newly_linked: bool,
    /// What went to the server, and to the client, since it was last looked at.
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    records: Vec<Record>,
}

/// What telemetry is shown of a query; times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    sql: String,
    kind: QueryKind,
    /// Queue wait, first byte, last byte.
    phases: [u128; 3],
    outcome: Outcome,
    rows: u64,
}

impl Pair {
    /// In transaction mode, with a server already there.
    fn new() -> Self {
        Self::with(PoolMode::Transaction, 100)
    }

    fn in_session_mode() -> Self {
        Self::with(PoolMode::Session, 100)
    }

    fn with(mode: PoolMode, max_prepared_statements: usize) -> Self {
        let parameters = Rc::new(parameters(&[("TimeZone", "UTC")]));
        let trace = SessionTrace::new(Arc::new(TracePolicy::new(TraceRules::default())));
        let epoch = epoch();
        Self {
            client: ClientSession::new(mode, trace, Rc::clone(&parameters), 150_000),
            server: Some(ServerSession::new(parameters)),
            definitions: Definitions::new(),
            policy: RequestPolicy {
                annotation: AnnotationPolicy {
                    enabled: true,
                    format: CommentFormat::Sqlcommenter,
                    placement: Placement::Suffix,
                    max_query_bytes: 4000,
                    unnamed_parse: false,
                    prepared: PreparedChannel::None,
                },
                max_prepared_statements,
                unnamed_statements: UnnamedStatements::Pass,
            },
            bench: Workbench::new(),
            requests: Forwarder::new(),
            replies: Forwarder::new(),
            held: Vec::new(),
            pause: None,
            epoch,
            now: epoch,
            is_newly_linked: true,
            to_server: Vec::new(),
            to_client: Vec::new(),
            records: Vec::new(),
        }
    }

    fn at(&mut self, milliseconds: u64) -> &mut Self {
        self.now = self.epoch + Duration::from_millis(milliseconds);
        self
    }

    /// The client sends this; what goes to the server.
    fn client(&mut self, messages: &[&str]) -> Vec<String> {
        self.client_bytes(&bytes_of(messages))
            .expect("the client keeps to the rules");
        self.sent()
    }

    /// The server sends this; what goes to the client.
    fn server(&mut self, messages: &[&str]) -> Vec<String> {
        self.server_bytes(&bytes_of(messages))
            .expect("the server keeps to the rules");
        self.received()
    }

    /// What went to the server since it was last looked at.
    fn sent(&mut self) -> Vec<String> {
        texts_of(&std::mem::take(&mut self.to_server))
    }

    /// What went to the client since it was last looked at.
    fn received(&mut self) -> Vec<String> {
        texts_of(&std::mem::take(&mut self.to_client))
    }

    fn records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    fn is_releasable(&self) -> bool {
        self.server
            .as_ref()
            .is_some_and(ServerSession::is_releasable)
    }

    /// The server goes to somebody else, who gets another one for it.
    fn unlink(&mut self) -> ServerSession {
        assert!(self.is_releasable() && self.held.is_empty() && self.pause.is_none());
        self.server.take().expect("it was linked")
    }

    /// The client gets a server; what it sent meanwhile goes there.
    fn link(&mut self, server: ServerSession) -> Vec<String> {
        self.server = Some(server);
        self.is_newly_linked = true;
        let held = std::mem::take(&mut self.held);
        self.judge(&held).expect("the client keeps to the rules");
        self.sent()
    }

    fn client_bytes(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        if self.pause.is_some() {
            self.held.extend_from_slice(bytes);
            return Ok(());
        }
        self.judge(bytes)
    }

    fn judge(&mut self, input: &[u8]) -> Result<(), Violation> {
        let (mut to_server, mut to_client) = (Outbound::new(), Outbound::new());
        if let Some(server) = &mut self.server
            && std::mem::take(&mut self.is_newly_linked)
        {
            to_server.write(|out| server.on_link(&self.client.parameters, out));
        }
        let mut judge = Requests::new(
            &mut self.client,
            self.server.as_mut(),
            &mut self.definitions,
            &self.policy,
            &mut self.bench,
            &mut to_client,
            self.now,
        );
        let resumed = self.pause.take().is_some();
        let outcome = match resumed.then(|| self.requests.resume(&mut judge, &mut to_server)) {
            Some(Err(violation)) => Err(violation),
            Some(Ok(true)) => Ok(0),
            Some(Ok(false)) | None => self
                .requests
                .advance(input, &mut judge, &mut to_server)
                .map(|advanced| advanced.consumed),
        };
        self.pause = judge.paused();
        to_server.copy_rest(input, 0, &mut self.to_server);
        to_client.copy_rest(&[], 0, &mut self.to_client);
        self.held = input[outcome?..].to_vec();
        if self.pause == Some(Pause::NeedsServer) {
            self.client.waited = Some(Received {
                at: self.now,
                queue_cause: Some(QueueCause::PoolFull),
            });
        }
        Ok(())
    }

    fn server_bytes(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let mut out = Outbound::new();
        let server = self.server.as_mut().expect("it is linked");
        let mut judge = Replies::new(&mut self.client, server, self.now);
        let advanced = self.replies.advance(bytes, &mut judge, &mut out);
        out.copy_rest(bytes, 0, &mut self.to_client);
        advanced?;
        let Self {
            records, server, ..
        } = self;
        if let Some(server) = server {
            server.exchange.observe_answered(self.now, 7, |record| {
                records.push(Record {
                    sql: String::from_utf8_lossy(record.sql).into_owned(),
                    kind: record.kind,
                    phases: [
                        record.phases.queue_wait.as_millis(),
                        record.phases.first_byte.as_millis(),
                        record.phases.last_byte.as_millis(),
                    ],
                    outcome: record.outcome,
                    rows: record.rows,
                });
            });
            let must_wait = match self.pause {
                Some(Pause::Throttled) => server.exchange.is_full(),
                Some(Pause::Unsettled) => server.exchange.has_unsettled(),
                Some(Pause::NeedsServer | Pause::Terminated) | None => true,
            };
            if !must_wait {
                let held = std::mem::take(&mut self.held);
                self.judge(&held)?;
            }
        }
        Ok(())
    }
}

fn parameters(values: &[(&str, &str)]) -> ParameterSet {
    let mut set = ParameterSet::default();
    for (name, value) in values {
        set.insert(name.as_bytes(), value.as_bytes());
    }
    set
}

#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
fn epoch() -> Instant {
    Instant::now()
}

/// An ErrorResponse.
fn error(code: &str) -> String {
    format!("E:SERROR|VERROR|C{code}|Moops||")
}

fn bytes_of(messages: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        let (tag, body) = message.split_once(':').expect("a tag and a body");
        encode::message(&mut bytes, tag.as_bytes()[0], |out| {
            out.extend(body.bytes().map(|byte| match byte {
                b'|' => 0,
                byte => byte,
            }));
        });
    }
    bytes
}

fn texts_of(mut bytes: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(header) = bytes.first_chunk() {
        let header = FrameHeader::parse(*header).expect("a message");
        let end = FrameHeader::LEN + header.body_len;
        let body = &bytes[FrameHeader::LEN..end];
        let body = String::from_utf8_lossy(body).replace('\0', "|");
        texts.push(format!("{}:{body}", char::from(header.tag)));
        bytes = &bytes[end..];
    }
    assert!(bytes.is_empty(), "whole messages only");
    texts
}
