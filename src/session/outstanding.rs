//! What is outstanding on a server: a request, what becomes of its reply, what it does when it is done, and the query that it is of.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::session::kept_texts::KeptText;
use crate::session::local_statements::LocalStatement;
use crate::session::position_map::PositionMap;
use crate::session::query_record::{QueryKind, QueueCause};
use crate::session::reset_command::Again;
use crate::session::statements::{Statement, UnnamedStatement};
use crate::trace_context::{ContextState, TraceContext};

/// A request that awaits its reply.
#[derive(Debug)]
pub struct OutstandingRequest {
    /// What was asked for.
    pub kind: RequestKind,
    /// Where the reply goes.
    pub delivery: Delivery,
    /// What was taken for done when it was sent, and has to be undone if it fails.
    pub effect: Effect,
    /// The statement that a Bind is of, where clients share it.
    pub bound: Option<Rc<Statement>>,
    /// What telemetry wants to know of it, where it is a query.
    pub query: Option<QueryInFlight>,
    /// Whether the server has said what must come before ReadyForQuery.
    pub has_outcome: bool,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// A Query: ends with ReadyForQuery.
    Query,
    /// A FunctionCall: ends with ReadyForQuery.
    FunctionCall,
    /// A Parse.
    Parse,
    /// A Bind.
    Bind,
    /// A Describe of a statement or a portal.
    Describe,
    /// An Execute.
    Execute,
    /// A Close.
    Close,
    /// A Sync: ends with ReadyForQuery.
    Sync,
    /// Not a request: here the client's COPY data ended.
    CopyEnd,
}

/// Where a reply goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Delivery {
    /// To the client.
    Forward,
    /// To the client, but for ReadyForQuery: the query of the proxy's own behind it ends the reply.
    ForwardUnready,
    /// Nowhere, but for ReadyForQuery, and an error that the client's transaction fails with.
    ReadyOnly,
    /// Nowhere: the proxy asked, not the client.
    Withhold,
    /// Nowhere, not even an error.
    Swallow,
    /// To the proxy, which asked for the values of these parameters.
    Learn(Box<[Box<[u8]>]>),
    /// To the proxy, which asked whether the client's belongings are still there.
    CountBelongings,
    /// The server was not asked: these messages are the reply.
    Fabricate(Box<[u8]>),
    /// The server was not asked: these messages are the reply, and ReadyForQuery.
    FabricateReady(Box<[u8]>),
    /// The server was sent what it can only answer with an error, so that its transaction fails: the client gets this one.
    Refuse(Box<ErrorResponse>),
}

impl Delivery {
    /// Whether it goes to the client.
    pub fn is_to_client(&self) -> bool {
        match self {
            Self::Withhold
            | Self::Swallow
            | Self::Learn(_)
            | Self::CountBelongings
            | Self::ReadyOnly => false,
            Self::Forward
            | Self::ForwardUnready
            | Self::Fabricate(_)
            | Self::FabricateReady(_)
            | Self::Refuse(_) => true,
        }
    }

    /// Whether its ReadyForQuery goes to the client.
    pub fn is_ready_to_client(&self) -> bool {
        match self {
            Self::ReadyOnly => true,
            Self::ForwardUnready => false,
            _ => self.is_to_client(),
        }
    }
}

/// What was taken for done when a request was sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The client has this name for a statement.
    Named {
        /// The client's name.
        name: Box<[u8]>,
        /// The statement.
        statement: Rc<Statement>,
    },
    /// The server has this statement, and the client this name for it, unless the proxy sent the Parse of its own accord.
    Prepared {
        /// The client's name.
        name: Option<Box<[u8]>>,
        /// The statement.
        statement: Rc<Statement>,
    },
    /// The client's unnamed statement is another.
    Unnamed {
        /// What it was before.
        before: UnnamedStatement,
        /// The statement that the server has for it from now on, where it had not before.
        prepared: Option<Rc<Statement>>,
    },
    /// The server does not have this statement any more.
    Evicted(Rc<Statement>),
    /// The client's name for a statement that no server has got another meaning, or none.
    Local {
        /// The client's name.
        name: Box<[u8]>,
        /// What it stood for before.
        before: Option<Rc<LocalStatement>>,
    },
    /// The client's name for a statement is free again.
    Closed {
        /// The client's name.
        name: Box<[u8]>,
        /// What it stood for.
        statement: Rc<Statement>,
    },
    /// The server has these parameters set, and the client wants them so.
    SetAgain(Rc<Again>),
    /// The client's name for a statement is free again if it succeeds, and the server has forgotten the statement: DEALLOCATE.
    Deallocated {
        /// The client's name.
        name: Box<[u8]>,
        /// What it stood for.
        statement: Rc<Statement>,
    },
    /// Perhaps the server forgets all statements (DISCARD ALL, DEALLOCATE ALL): its CommandComplete will tell.
    MayForget,
}

impl Effect {
    /// Whether nothing is taken for done before the server has said that it is.
    pub(super) fn is_settled_by_success(&self) -> bool {
        matches!(self, Self::MayForget | Self::Deallocated { .. })
    }
}

impl Effect {
    /// Which statement the server gets by it (`true`), or loses.
    pub fn of_statement(&self) -> Option<(&Rc<Statement>, bool)> {
        match self {
            Self::Prepared { statement, .. }
            | Self::Unnamed {
                prepared: Some(statement),
                ..
            } => Some((statement, true)),
            Self::Evicted(statement) => Some((statement, false)),
            Self::Unnamed { prepared: None, .. }
            | Self::None
            | Self::Named { .. }
            | Self::Local { .. }
            | Self::Closed { .. }
            | Self::SetAgain(_)
            | Self::Deallocated { .. }
            | Self::MayForget => None,
        }
    }

    /// Whether the server gets this statement by it (`true`), or loses it.
    pub(super) fn on(&self, wanted: &Statement) -> Option<bool> {
        let (statement, has) = self.of_statement()?;
        statement.is(wanted).then_some(has)
    }
}

/// What telemetry wants to know of a query.
#[derive(Debug)]
pub struct QueryInFlight {
    /// How it came.
    pub kind: QueryKind,
    /// Its text.
    pub text: KeptText,
    /// When the client's message was read.
    pub received_at: Instant,
    /// When it left for the server.
    pub sent_at: Instant,
    /// Why it waited in between.
    pub queue_cause: Option<QueueCause>,
    /// Whose query it is.
    pub trace: Option<Arc<TraceContext>>,
    /// How that came about.
    pub context: ContextState,
    /// Brings the server's error positions back to the client's text.
    pub positions: PositionMap,
    /// Replies of the proxy's own between those of the server.
    pub local_replies: VecDeque<LocalReply>,
    /// When the first byte of the reply came.
    pub(super) first_byte_at: Option<Instant>,
    /// When the server asked for COPY data.
    pub(super) copy_asked_at: Option<Instant>,
    /// When the client had sent them all.
    pub(super) copy_sent_at: Option<Instant>,
    /// What the server warned of, and when. There is hardly ever anything.
    pub(super) warnings: Vec<(SqlState, Instant)>,
    /// Statements done so far.
    pub(super) statements_done: usize,
    /// Of a long text, which kinds of its statements were looked at.
    pub(super) kinds_seen: u8,
    pub(super) rows: u64,
    pub(super) failed: Option<SqlState>,
}

/// A reply of the proxy's own, in the middle of a server's.
#[derive(Debug, PartialEq, Eq)]
pub struct LocalReply {
    /// It goes out when this many statements of the message are done.
    pub after_statements: usize,
    /// The messages.
    pub messages: Box<[u8]>,
}

impl OutstandingRequest {
    /// Of the client's, answered by the server.
    pub fn forwarded(kind: RequestKind) -> Self {
        Self {
            kind,
            delivery: Delivery::Forward,
            effect: Effect::None,
            bound: None,
            query: None,
            has_outcome: false,
        }
    }

    /// Of the proxy's own, whose reply nobody gets.
    pub fn withheld(kind: RequestKind, effect: Effect) -> Self {
        Self {
            kind,
            delivery: Delivery::Withhold,
            effect,
            bound: None,
            query: None,
            has_outcome: false,
        }
    }

    /// Of the client's, answered by the proxy.
    pub fn fabricated(kind: RequestKind, messages: impl Into<Box<[u8]>>) -> Self {
        Self {
            kind,
            delivery: Delivery::Fabricate(messages.into()),
            effect: Effect::None,
            bound: None,
            query: None,
            has_outcome: false,
        }
    }
}

impl QueryInFlight {
    /// A query that leaves now.
    pub fn new(kind: QueryKind, text: KeptText, received: Received, now: Instant) -> Self {
        Self {
            kind,
            text,
            received_at: received.at,
            sent_at: now,
            queue_cause: received.queue_cause,
            trace: None,
            context: ContextState::None,
            positions: PositionMap::default(),
            local_replies: VecDeque::new(),
            first_byte_at: None,
            copy_asked_at: None,
            copy_sent_at: None,
            warnings: Vec::new(),
            statements_done: 0,
            kinds_seen: 0,
            rows: 0,
            failed: None,
        }
    }

    /// Says whose query it is, and how that came about.
    pub fn set_context(&mut self, (trace, context): (&Arc<TraceContext>, ContextState)) {
        self.trace = Some(Arc::clone(trace));
        self.context = context;
    }
}

/// When a message came from the client, and what it waited for since.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// When it was read.
    pub at: Instant,
    /// Why it waited for a server; `None` where there was one at once.
    pub queue_cause: Option<QueueCause>,
}

impl Received {
    /// How long it has waited.
    pub fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }
}
