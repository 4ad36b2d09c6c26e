//! The first packet of a connection: it has a length, but no tag.
//!
//! Sources: <https://www.postgresql.org/docs/current/protocol-message-formats.html> and `ProcessStartupPacket` in
//! PostgreSQL's src/backend/tcop/backend_startup.c.

use std::fmt;

use super::cancel_key::CancelKey;
use super::error_response::{ErrorResponse, SqlState};
use super::frame::split_cstr;

/// The longest startup packet, its length word not counted (PostgreSQL's MAX_STARTUP_PACKET_LENGTH).
pub const MAX_STARTUP_PACKET_LENGTH: usize = 10_000;

/// The longest name of a user or a database (PostgreSQL's NAMEDATALEN less the terminator); the rest is cut off.
pub const MAX_NAME_LENGTH: usize = 63;

/// The code of a CancelRequest, where other packets have their version.
pub const CANCEL_REQUEST_CODE: u32 = 1234 << 16 | 5678;
/// The code of an SSLRequest.
pub const SSL_REQUEST_CODE: u32 = 1234 << 16 | 5679;
/// The code of a GSSENCRequest.
pub const GSSENC_REQUEST_CODE: u32 = 1234 << 16 | 5680;

/// A name and its value, as sent.
pub type Parameter = (Box<[u8]>, Box<[u8]>);

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProtocolVersion {
    /// Another one is another protocol.
    pub major: u16,
    /// A newer one adds to an older one.
    pub minor: u16,
}

impl ProtocolVersion {
    /// What everybody speaks.
    pub const V3_0: Self = Self { major: 3, minor: 0 };
    /// The newest, since PostgreSQL 18: long cancel keys.
    pub const V3_2: Self = Self { major: 3, minor: 2 };

    /// The version in a startup packet.
    pub fn from_code(code: u32) -> Self {
        let [major_high, major_low, minor_high, minor_low] = code.to_be_bytes();
        Self {
            major: u16::from_be_bytes([major_high, major_low]),
            minor: u16::from_be_bytes([minor_high, minor_low]),
        }
    }

    /// The version as it stands in a startup packet.
    pub fn code(self) -> u32 {
        u32::from(self.major) << 16 | u32::from(self.minor)
    }

    /// Whether a cancel key may have more than four bytes of secret.
    pub fn has_long_cancel_keys(self) -> bool {
        self >= Self::V3_2
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What a client says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartupPacket {
    /// It wants a session.
    Startup(StartupMessage),
    /// It wants a query of another session to end, and no answer.
    Cancel(CancelKey),
    /// It wants TLS, and asks whether it may.
    SslRequest,
    /// It wants GSSAPI encryption, and asks whether it may.
    GssEncRequest,
}

/// Who wants a session, where, and how it shall be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartupMessage {
    /// The version that the client asked for: 3, any minor.
    pub version: ProtocolVersion,
    /// Never empty; at most [`MAX_NAME_LENGTH`] bytes.
    pub user: Box<[u8]>,
    /// The user's name where the client named none; at most [`MAX_NAME_LENGTH`] bytes.
    pub database: Box<[u8]>,
    /// What the session shall be set to, in the order sent, `options` among them; where a name comes twice, the last one holds.
    pub parameters: Vec<Parameter>,
    /// What the protocol shall be extended by: names that begin with `_pq_.`, in the order sent.
    pub protocol_options: Vec<Parameter>,
    /// Whether it is a session for replication.
    pub replication: Replication,
}

/// Whether a session is one for replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Replication {
    /// No: an ordinary session.
    None,
    /// `replication=true`: of the whole cluster.
    Physical,
    /// `replication=database`: of one database, where SQL works too.
    Logical,
}

impl Replication {
    fn from_bytes(value: &[u8]) -> Option<Self> {
        match value {
            b"database" => Some(Self::Logical),
            value => parse_bool(value).map(|on| if on { Self::Physical } else { Self::None }),
        }
    }
}

/// Why a first packet is none; the client is to blame for all of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The length word, or a length that doesn't fit the kind of packet.
    #[error("invalid length of startup packet")]
    InvalidLength,
    /// The list of parameters does not end where the packet does.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    MissingTerminator,
    /// Nobody to log in.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// Another protocol than 3, or a code that nobody knows, or one that was answered already.
    #[error("unsupported frontend protocol {0}: server supports 3.0 to 3.2")]
    UnsupportedProtocol(ProtocolVersion),
    /// `replication` is neither a boolean nor `database`.
    #[error("invalid value for parameter \"replication\": \"{}\"", String::from_utf8_lossy(.0))]
    InvalidReplication(Box<[u8]>),
}

impl StartupError {
    /// What the client reads, or `None` where PostgreSQL closes without a word.
    pub fn response(&self) -> ErrorResponse {
        let code = match self {
            // PostgreSQL logs it and closes without a word; whoever probes with a wrong client is better told.
            Self::InvalidLength | Self::MissingTerminator => SqlState::PROTOCOL_VIOLATION,
            Self::NoUser => SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            Self::UnsupportedProtocol(_) => SqlState::FEATURE_NOT_SUPPORTED,
            Self::InvalidReplication(_) => SqlState::INVALID_PARAMETER_VALUE,
        };
        let response = ErrorResponse::fatal(code, self.to_string());
        match self {
            Self::InvalidReplication(_) => {
                response.with_hint("Valid values are: \"false\", 0, \"true\", 1, \"database\".")
            }
            _ => response,
        }
    }
}

impl StartupPacket {
    /// How many bytes follow a length word: 4 to [`MAX_STARTUP_PACKET_LENGTH`]. Nothing need be read or kept of a longer packet.
    pub fn body_length(length_word: [u8; 4]) -> Result<usize, StartupError> {
        // On the wire the length counts itself.
        i32::from_be_bytes(length_word)
            .checked_sub(4)
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| (4..=MAX_STARTUP_PACKET_LENGTH).contains(length))
            .ok_or(StartupError::InvalidLength)
    }

    /// Parses what follows the length word, all of it.
    pub fn parse(body: &[u8]) -> Result<Self, StartupError> {
        let (code, body) = body
            .split_first_chunk()
            .ok_or(StartupError::InvalidLength)?;
        match u32::from_be_bytes(*code) {
            CANCEL_REQUEST_CODE => CancelKey::from_bytes(body)
                .map(Self::Cancel)
                .ok_or(StartupError::InvalidLength),
            // PostgreSQL, too, has no use for what may follow these codes.
            SSL_REQUEST_CODE => Ok(Self::SslRequest),
            GSSENC_REQUEST_CODE => Ok(Self::GssEncRequest),
            code => match ProtocolVersion::from_code(code) {
                version @ ProtocolVersion { major: 3, .. } => {
                    StartupMessage::parse(version, body).map(Self::Startup)
                }
                version => Err(StartupError::UnsupportedProtocol(version)),
            },
        }
    }
}

impl StartupMessage {
    fn parse(version: ProtocolVersion, mut rest: &[u8]) -> Result<Self, StartupError> {
        let mut user: &[u8] = b"";
        let mut database: &[u8] = b"";
        let mut parameters = Vec::new();
        let mut protocol_options = Vec::new();
        let mut replication = Replication::None;
        loop {
            let (name, behind) = split_cstr(rest).ok_or(StartupError::MissingTerminator)?;
            if name.is_empty() {
                rest = behind;
                break;
            }
            let (value, behind) = split_cstr(behind).ok_or(StartupError::MissingTerminator)?;
            rest = behind;
            match name {
                b"user" => user = value,
                b"database" => database = value,
                b"replication" => {
                    replication = Replication::from_bytes(value)
                        .ok_or_else(|| StartupError::InvalidReplication(value.into()))?;
                }
                name if name.starts_with(b"_pq_.") => {
                    protocol_options.push((name.into(), value.into()));
                }
                name => parameters.push((name.into(), value.into())),
            }
        }
        if !rest.is_empty() {
            return Err(StartupError::MissingTerminator);
        }
        if user.is_empty() {
            return Err(StartupError::NoUser);
        }
        if database.is_empty() {
            database = user;
        }
        Ok(Self {
            version,
            user: truncated(user).into(),
            database: truncated(database).into(),
            parameters,
            protocol_options,
            replication,
        })
    }
}

fn truncated(name: &[u8]) -> &[u8] {
    name.get(..MAX_NAME_LENGTH).unwrap_or(name)
}

/// PostgreSQL's booleans: any unambiguous beginning of these words, in any case (src/backend/utils/adt/bool.c).
fn parse_bool(value: &[u8]) -> Option<bool> {
    let begins = |word: &[u8], shortest: usize| {
        value.len() >= shortest
            && word
                .get(..value.len())
                .is_some_and(|word| word.eq_ignore_ascii_case(value))
    };
    if begins(b"true", 1) || begins(b"yes", 1) || begins(b"on", 2) || value == b"1" {
        Some(true)
    } else if begins(b"false", 1) || begins(b"no", 1) || begins(b"off", 2) || value == b"0" {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
