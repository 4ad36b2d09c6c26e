//! One answered query, as telemetry gets to see it.

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::error_response::SqlState;
use crate::trace_context::{ContextState, TraceContext};

/// How much of a query's text is kept for telemetry, in bytes.
pub const TEXT_LIMIT: usize = 4096;

/// One answered query. Borrowed from the exchange: whoever wants to keep it copies what is needed.
#[derive(Debug)]
pub struct QueryRecord<'a> {
    /// The client's text, before annotation; cut at [`TEXT_LIMIT`]. Holds literals: mask before it leaves the process.
    pub sql: &'a [u8],
    /// How the query came.
    pub kind: QueryKind,
    /// Where its time went.
    pub phases: Phases,
    /// How it ended.
    pub outcome: Outcome,
    /// Rows returned or affected, as the CommandComplete tags tell.
    pub rows: u64,
    /// Whose query it is; `None` where nothing is known.
    pub trace: Option<&'a Arc<TraceContext>>,
    /// How the context came about.
    pub context: ContextState,
    /// The server process that ran it (its backend pid), 0 where none did.
    pub server_pid: i32,
    /// What the server warned of meanwhile, at most [`MAX_WARNINGS`].
    pub warnings: &'a [Warning],
}

/// How many warnings are kept of a query.
pub const MAX_WARNINGS: usize = 8;

/// A notice of severity WARNING. Its text may hold literals and is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it is about.
    pub sqlstate: SqlState,
    /// When it came, seen from the end of the query.
    pub before_end: Duration,
}

/// How a query came over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueryKind {
    /// A Query message.
    Simple,
    /// An Execute of an unnamed or a named statement.
    Execute,
    /// A FunctionCall message.
    FunctionCall,
}

/// Where a query's time went. The phases follow each other without a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// From the client's message to a server being there for it.
    pub queue_wait: Duration,
    /// Why it waited; `None` where it did not.
    pub queue_cause: Option<QueueCause>,
    /// From the message leaving for the server, or in a pipeline from the end of the reply before, to the first byte of its reply.
    pub first_byte: Duration,
    /// From the first byte of the reply to its last.
    pub last_byte: Duration,
    /// From the last byte of the reply to its having been written to the client: a slow reader. Of COPY FROM STDIN also the time in
    /// which the client sent its data.
    pub client_drain: Duration,
}

impl Phases {
    /// The whole time, from the client's message to the last byte written to it.
    pub fn total(&self) -> Duration {
        self.queue_wait + self.first_byte + self.last_byte + self.client_drain
    }
}

/// Why a client waited for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueueCause {
    /// All servers that the pool may have were in use.
    PoolFull,
    /// A new server connection was being made.
    Connecting,
    /// The pool was paused.
    Paused,
    /// Logging in at the server was failing.
    LoginFailing,
}

/// How a query ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server answered without an error.
    Completed,
    /// The server answered with an error.
    Failed(SqlState),
    /// A connection broke before the answer was complete.
    Lost,
}
