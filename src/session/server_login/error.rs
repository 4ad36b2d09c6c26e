//! Why a login at a server failed.

use std::fmt;

use crate::auth::scram::ScramClientError;
use crate::protocol::error_response::SqlState;
use crate::protocol::frame::split_cstr;
use crate::protocol::startup::ProtocolVersion;

/// Why a login at a server failed. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerLoginError {
    /// The server's own words: what waits for it may be told them.
    #[error("{0}")]
    Refused(ServerRefusal),
    /// It wants to be convinced in a way that we don't know.
    #[error("server requests {0} authentication, which is not supported")]
    UnsupportedAuthentication(Box<str>),
    /// It wants a password, and we hold none.
    #[error("server requests {0} authentication, but there is no password for the user")]
    NoPassword(&'static str),
    /// It wants a password, and we hold only something that was made of it in another way.
    #[error("server requests {0} authentication, but the stored password is of another kind")]
    WrongKindOfPassword(&'static str),
    /// The exchange of SCRAM broke.
    #[error("{0}")]
    Scram(#[from] ScramClientError),
    /// It says that we are in before it has proved that it knows the password.
    #[error("server skipped its part of SCRAM authentication")]
    SkippedScram,
    /// It does not bind SCRAM to the TLS connection, which it must: it may not be the server at all.
    #[error("channel binding is required, but the server has not authenticated with it")]
    NotBound,
    /// It speaks no version of the protocol that we do.
    #[error("server does not speak protocol {0}")]
    UnsupportedProtocol(ProtocolVersion),
    /// A message that has no place here, with its tag.
    #[error("unexpected message type {0} while logging in")]
    UnexpectedMessage(u8),
    /// A message that says nothing that can be understood.
    #[error("malformed {0} message while logging in")]
    Malformed(&'static str),
    /// A message over [`MAX_SERVER_LOGIN_MESSAGE_LENGTH`](super::MAX_SERVER_LOGIN_MESSAGE_LENGTH), or one of SASL over [`MAX_SASL_MESSAGE_LENGTH`](crate::auth::scram::MAX_SASL_MESSAGE_LENGTH).
    #[error("message is too long while logging in")]
    TooLong,
    /// More than [`MAX_REPORTED_PARAMETERS`](super::MAX_REPORTED_PARAMETERS).
    #[error("server reports too many parameters")]
    TooManyParameters,
}

/// An ErrorResponse in the server's words, in whatever encoding it wrote them.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerRefusal {
    /// FATAL or ERROR; not translated where the server says so.
    pub severity: Box<[u8]>,
    /// The SQLSTATE, if it is one.
    pub code: Option<SqlState>,
    /// What happened.
    pub message: Box<[u8]>,
}

impl ServerRefusal {
    /// Reads an ErrorResponse: fields, each a letter and a string, up to an empty one.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(mut fields: &[u8]) -> Result<Self, ServerLoginError> {
        let mut refusal = Self {
            severity: Box::default(),
            code: None,
            message: Box::default(),
        };
        let mut is_translated = true;
        loop {
            let Some((kind, rest)) = fields.split_first() else {
                return Err(ServerLoginError::Malformed("ErrorResponse"));
            };
            if *kind == 0 {
                return Ok(refusal);
            }
            let Some((value, rest)) = split_cstr(rest) else {
                return Err(ServerLoginError::Malformed("ErrorResponse"));
            };
            match kind {
                b'V' => {
                    refusal.severity = value.into();
                    is_translated = false;
                }
                b'S' if is_translated => refusal.severity = value.into(),
                b'C' => refusal.code = SqlState::from_bytes(value),
                b'M' => refusal.message = value.into(),
                _ => {}
            }
            fields = rest;
        }
    }
}

impl fmt::Display for ServerRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}",
            String::from_utf8_lossy(&self.severity),
            String::from_utf8_lossy(&self.message)
        )
    }
}

impl fmt::Debug for ServerRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerRefusal({:?}, {self})", self.code)
    }
}
