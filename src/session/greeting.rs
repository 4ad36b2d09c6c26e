//! From the first byte to a startup message or a cancel key.
//!
//! ```text
//!        ┌── SSLRequest: N ──┐   (each at most once, in either order)
//!        ├ GSSENCRequest: N ─┤
//! ── Greeting ──┬── StartupMessage ── Greeted::Client
//!     │         └── CancelRequest ─── Greeted::Cancel
//!     ├ SSLRequest: S, TLS handshake, Greeting goes on inside
//!     └ a TLS handshake at once, Greeting goes on inside
//! ```
//!
//! Source: `ProcessStartupPacket` in PostgreSQL's src/backend/tcop/backend_startup.c.

use crate::protocol::cancel_key::CancelKey;
use crate::protocol::encode;
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::protocol::startup::{
    GSSENC_REQUEST_CODE, ProtocolVersion, SSL_REQUEST_CODE, StartupError, StartupMessage,
    StartupPacket,
};

/// The content type of a TLS handshake record: what a client sends first that wants TLS without asking.
const TLS_HANDSHAKE: u8 = 0x16;

/// What an SSLRequest is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// `N`: the client goes on in clear, or away.
    Refused,
    /// `S`: a TLS handshake follows.
    Offered,
}

/// Reads what a client says first. Keeps at most one packet, and nothing of one that is too long.
#[derive(Debug)]
pub struct Greeting {
    encryption: Encryption,
    ssl: Request,
    gss: Request,
    /// The beginning of the packet that is awaited, its length word included.
    packet: Vec<u8>,
    /// Whether anything was read before this packet.
    is_first: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Possible,
    Answered,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum GreetingStep {
    /// Nothing until more bytes are there; all that were given are used up.
    NeedMore,
    /// Send this byte, then go on with the bytes that are left. After [`Greeting::TLS_ACCEPTED`] the TLS handshake comes
    /// first, and the bytes to go on with are those that come out of it.
    Reply(u8),
    /// Do the TLS handshake at once, without a word: the bytes that are left are its beginning. The client must have agreed on
    /// this protocol by ALPN. Then go on with those that come out of it.
    DirectTls,
    /// It is known what the client wants; the bytes that are left are the next step's.
    Done(Greeted),
}

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Greeted {
    /// A session.
    Client(StartupMessage),
    /// To cancel another session's query. It gets no answer.
    Cancel(CancelKey),
}

/// Why a client was not understood; the client is to blame for all of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GreetingError {
    /// A packet that can't come first, or not again.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// Bytes in clear behind an SSLRequest that is answered by TLS: they are not the client's, or it is broken (CVE-2021-23222).
    #[error("received unencrypted data after SSL request")]
    UnencryptedBytes,
    /// TLS without an SSLRequest.
    #[error("direct TLS is not offered")]
    DirectTls,
    /// TLS without an SSLRequest, and without the name of this protocol: it may be meant for another one.
    #[error("received direct SSL connection request without ALPN protocol negotiation extension")]
    NoAlpn,
}

impl GreetingError {
    /// What the client reads, or `None` where it gets no word: what it speaks is not this protocol.
    pub fn response(&self) -> Option<ErrorResponse> {
        match self {
            Self::Startup(error) => Some(error.response()),
            Self::UnencryptedBytes => Some(
                ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, self.to_string()).with_detail(
                    "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
                ),
            ),
            Self::DirectTls | Self::NoAlpn => None,
        }
    }
}

impl Greeting {
    /// The reply that a TLS handshake follows.
    pub const TLS_ACCEPTED: u8 = b'S';
    /// The reply that leaves things as they are.
    pub const ENCRYPTION_REFUSED: u8 = b'N';

    /// Awaits a client's first byte.
    pub fn new(encryption: Encryption) -> Self {
        Self {
            encryption,
            ssl: Request::Possible,
            gss: Request::Possible,
            packet: Vec::new(),
            is_first: true,
        }
    }

    /// Takes bytes from the front of `received` up to the end of a packet, or all of them.
    ///
    /// How the bytes were cut on their way makes no difference. After an error nothing more is to be read.
    pub fn advance(&mut self, received: &mut &[u8]) -> Result<GreetingStep, GreetingError> {
        if self.is_first && received.first() == Some(&TLS_HANDSHAKE) {
            if self.encryption == Encryption::Refused {
                return Err(GreetingError::DirectTls);
            }
            self.is_first = false;
            self.ssl = Request::Answered;
            self.gss = Request::Answered;
            return Ok(GreetingStep::DirectTls);
        }
        self.is_first &= received.is_empty();

        self.take(received, 4);
        let Some(length_word) = self.packet.first_chunk() else {
            return Ok(GreetingStep::NeedMore);
        };
        let length = 4 + StartupPacket::body_length(*length_word)?;
        self.take(received, length);
        if self.packet.len() < length {
            return Ok(GreetingStep::NeedMore);
        }
        let packet = std::mem::take(&mut self.packet);
        let body = packet.get(4..).expect("the length word is there");
        Ok(match StartupPacket::parse(body)? {
            StartupPacket::SslRequest => self.on_ssl_request(received)?,
            StartupPacket::GssEncRequest => self.on_gssenc_request()?,
            StartupPacket::Startup(message) => GreetingStep::Done(Greeted::Client(message)),
            StartupPacket::Cancel(key) => GreetingStep::Done(Greeted::Cancel(key)),
        })
    }

    fn on_ssl_request(&mut self, received: &[u8]) -> Result<GreetingStep, GreetingError> {
        if self.ssl == Request::Answered {
            return Err(unsupported(SSL_REQUEST_CODE));
        }
        self.ssl = Request::Answered;
        match self.encryption {
            Encryption::Refused => Ok(GreetingStep::Reply(Self::ENCRYPTION_REFUSED)),
            Encryption::Offered if received.is_empty() => {
                // One encryption is enough.
                self.gss = Request::Answered;
                Ok(GreetingStep::Reply(Self::TLS_ACCEPTED))
            }
            Encryption::Offered => Err(GreetingError::UnencryptedBytes),
        }
    }

    fn on_gssenc_request(&mut self) -> Result<GreetingStep, GreetingError> {
        if self.gss == Request::Answered {
            return Err(unsupported(GSSENC_REQUEST_CODE));
        }
        self.gss = Request::Answered;
        Ok(GreetingStep::Reply(Self::ENCRYPTION_REFUSED))
    }

    /// Moves bytes into the packet until it has `length` of them.
    fn take(&mut self, received: &mut &[u8], length: usize) {
        let missing = length.saturating_sub(self.packet.len());
        let (taken, rest) = received.split_at(missing.min(received.len()));
        self.packet.extend_from_slice(taken);
        *received = rest;
    }
}

/// A request that comes again is no request any more but a version, and one that nobody speaks.
fn unsupported(code: u32) -> GreetingError {
    StartupError::UnsupportedProtocol(ProtocolVersion::from_code(code)).into()
}

/// Which version is spoken with a client, and what it must be told about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// What the client asked for, or our newest where that is older.
    pub version: ProtocolVersion,
    /// NegotiateProtocolVersion, to be sent before authentication; empty where the client gets all that it asked for.
    pub reply: Vec<u8>,
}

impl Negotiated {
    /// Settles on the version, and refuses every protocol option: none is known yet.
    pub fn with(message: &StartupMessage) -> Self {
        let version = message.version.min(ProtocolVersion::V3_2);
        let mut reply = Vec::new();
        if version < message.version || !message.protocol_options.is_empty() {
            encode::negotiate_protocol_version(
                &mut reply,
                version,
                message.protocol_options.iter().map(|(name, _)| &**name),
            );
        }
        Self { version, reply }
    }
}

#[cfg(test)]
mod tests;
