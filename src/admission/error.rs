//! Why a connection came to nothing, and in whose words.

use std::io;

use thiserror::Error;

use crate::auth_query::InquiryError;
use crate::config::choices::AuthMethod;
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::session::client_login::LoginError;
use crate::session::greeting::GreetingError;

/// Why a connection came to nothing.
#[derive(Debug, Error)]
pub enum AdmissionError {
    /// It broke, or the client left.
    #[error("client connection lost: {0}")]
    Lost(#[from] io::Error),
    /// What it said first was not understood.
    #[error(transparent)]
    Greeting(#[from] GreetingError),
    /// TLS did not come about.
    #[error("TLS handshake failed: {0}")]
    Tls(io::Error),
    /// It must use TLS. The text is PgBouncer's.
    #[error("SSL required")]
    TlsRequired,
    /// No rule lets it in. The text is PgBouncer's.
    #[error("no authentication method is found")]
    NoRule,
    /// A rule keeps it out. The text is PgBouncer's.
    #[error("login rejected")]
    Rejected,
    /// Its certificate is not that of the user, or it has none.
    #[error("certificate authentication failed")]
    Certificate,
    /// It is not that user of this system. The text is PgBouncer's.
    #[error("unix socket login rejected")]
    Peer,
    /// Everyone is let in, and nobody says as whom at the server. The text is PgBouncer's.
    #[error("bouncer config error")]
    NobodyToBe,
    /// The server can't be asked about it.
    #[error("auth_query failed: {error}")]
    Inquiry {
        /// Why.
        error: InquiryError,
        /// Whether it is a configured user who has failed to prove its name, and could not be told so.
        is_of_user: bool,
    },
    /// Too many logins from its address have failed lately.
    #[error("too many failed logins from this address, try again later")]
    BackedOff,
    /// It did not prove who it is.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// As many clients are there as may be. The text is PgBouncer's.
    #[error("no more connections allowed (max_client_conn)")]
    Full,
    /// As many clients use the database as may.
    #[error("client connections exceeded (max_db_client_connections)")]
    DatabaseFull,
    /// As many clients have logged in as the user as may.
    #[error("client connections exceeded (max_user_client_connections)")]
    UserFull,
    /// There is no such user, and nobody asked for a password.
    #[error("role \"{}\" does not exist", String::from_utf8_lossy(.name))]
    UnknownUser {
        /// The name.
        name: Box<[u8]>,
        /// Whether a server was asked for it.
        was_asked: bool,
    },
    /// There is no such database.
    #[error("database \"{}\" does not exist", String::from_utf8_lossy(.0))]
    UnknownDatabase(Box<[u8]>),
    /// It may not use the console. The text is PgBouncer's.
    #[error("not allowed")]
    NotAllowed,
}

impl AdmissionError {
    /// What the client reads, where somebody may still read it.
    pub fn response(&self) -> Option<ErrorResponse> {
        match self {
            Self::Lost(_) | Self::Tls(_) => None,
            Self::Greeting(error) => error.response(),
            Self::Login(error) => error.response(),
            // PgBouncer's SQLSTATE.
            Self::Full | Self::DatabaseFull | Self::UserFull | Self::NobodyToBe => {
                Some(self.fatal(SqlState::PROTOCOL_VIOLATION))
            }
            // What the server says stays in the log.
            Self::Inquiry { .. } => Some(ErrorResponse::fatal(
                SqlState::CONNECTION_FAILURE,
                "authentication query failed",
            )),
            Self::BackedOff => Some(self.fatal(SqlState::INVALID_AUTHORIZATION_SPECIFICATION)),
            Self::TlsRequired | Self::NoRule | Self::Rejected | Self::Certificate | Self::Peer => {
                Some(self.fatal(SqlState::INVALID_AUTHORIZATION_SPECIFICATION))
            }
            Self::UnknownUser { .. } => {
                Some(self.fatal(SqlState::INVALID_AUTHORIZATION_SPECIFICATION))
            }
            Self::UnknownDatabase(_) => Some(self.fatal(SqlState::INVALID_CATALOG_NAME)),
            Self::NotAllowed => Some(self.fatal(SqlState::PROTOCOL_VIOLATION)),
        }
    }

    /// Whether somebody has tried to be who it is not, or seems to.
    pub(super) fn is_failed_proof(&self) -> bool {
        matches!(
            self,
            Self::Login(_)
                | Self::Certificate
                | Self::UnknownUser { .. }
                | Self::Inquiry {
                    is_of_user: true,
                    ..
                }
        )
    }

    /// A server that can't be asked.
    pub(super) fn inquiry(error: InquiryError) -> Self {
        Self::Inquiry {
            error,
            is_of_user: false,
        }
    }

    /// What PgBouncer would say, where it has other words for it.
    pub fn words_of_pgbouncer(&self, method: AuthMethod) -> Option<String> {
        Some(match self {
            Self::UnknownUser {
                was_asked: true, ..
            } => "no such user".into(),
            Self::UnknownUser { .. } => "\"trust\" authentication failed".into(),
            Self::UnknownDatabase(name) => {
                format!("no such database: {}", String::from_utf8_lossy(name))
            }
            Self::Login(LoginError::WrongPassword { .. }) => match method {
                AuthMethod::ScramSha256 => "SASL authentication failed".into(),
                _ => "password authentication failed".into(),
            },
            Self::Inquiry { error, .. } => match error {
                InquiryError::Connect(error) if error.refusal().is_some() => {
                    error.reason().into_owned()
                }
                InquiryError::Disabled(_) => error.to_string(),
                _ => "bouncer config error".into(),
            },
            _ => return None,
        })
    }

    fn fatal(&self, code: SqlState) -> ErrorResponse {
        ErrorResponse::fatal(code, self.to_string())
    }
}
