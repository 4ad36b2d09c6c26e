//! Who broke which rule of the protocol.

use thiserror::Error;

use crate::protocol::error_response::{ErrorResponse, SqlState};

/// A broken rule that ends the connection, and, between linked peers, both.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Violation {
    /// The client sent a message that PostgreSQL does not know.
    #[error("invalid frontend message type {0}")]
    ClientMessageType(u8),
    /// The client sent a message with a length that it can't have.
    #[error("invalid message length for frontend message type {0}")]
    ClientMessageLength(u8),
    /// The client named a statement or a portal with more bytes than are looked at.
    #[error("name of a statement or portal is too long")]
    ClientNameTooLong,
    /// The client named a statement whose text is larger than what is kept.
    #[error("text of a named prepared statement is too long")]
    ClientStatementTooLong,
    /// The client has prepared more statements than are kept.
    #[error("too many prepared statements")]
    ClientTooManyStatements,
    /// The client has begun a transaction where each statement stands alone. The text is PgBouncer's.
    #[error("transaction blocks not allowed in statement pooling mode")]
    ClientTransaction,
    /// The server sent a message that PostgreSQL does not send.
    #[error("invalid backend message type {0}")]
    ServerMessageType(u8),
    /// The server sent a message with a length that it can't have.
    #[error("invalid message length for backend message type {0}")]
    ServerMessageLength(u8),
    /// The server answered what nobody asked.
    #[error("unexpected backend message type {0}")]
    ServerUnexpected(u8),
    /// The server sent a message that does not hold what it has to.
    #[error("malformed backend message type {0}")]
    ServerMalformed(u8),
    /// The server refused to take over the client's parameters.
    #[error("server refused the session's parameters ({0})")]
    ServerRefusedParameters(SqlState),
}

impl Violation {
    /// Whether the client is to blame. The server is, otherwise.
    pub fn is_clients(&self) -> bool {
        match self {
            Self::ClientMessageType(_)
            | Self::ClientMessageLength(_)
            | Self::ClientNameTooLong
            | Self::ClientStatementTooLong
            | Self::ClientTooManyStatements
            | Self::ClientTransaction => true,
            Self::ServerMessageType(_)
            | Self::ServerMessageLength(_)
            | Self::ServerUnexpected(_)
            | Self::ServerMalformed(_)
            | Self::ServerRefusedParameters(_) => false,
        }
    }

    /// What the client reads.
    pub fn response(&self) -> ErrorResponse {
        let code = match self {
            Self::ClientNameTooLong
            | Self::ClientStatementTooLong
            | Self::ClientTooManyStatements => SqlState::PROGRAM_LIMIT_EXCEEDED,
            Self::ServerRefusedParameters(code) => *code,
            _ => SqlState::PROTOCOL_VIOLATION,
        };
        ErrorResponse::fatal(code, self.to_string())
    }
}
