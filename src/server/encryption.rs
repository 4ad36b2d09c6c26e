//! TLS with a server: asked for, begun, or done without, as the mode says.

use std::io;

use bytes::BytesMut;

use super::{ConnectError, ServerAddress};
use crate::config::tls::{ChannelBinding, TlsMode, TlsNegotiation};
use crate::net::certificate::end_point_hash;
use crate::net::socket::Socket;
use crate::net::tls::{ALPN, ServerTls};
use crate::net::tls_session::TlsSession;
use crate::protocol::encode;
use crate::protocol::error_response::SqlState;
use crate::session::server_login::{ServerChannel, ServerLoginError};

/// How one attempt at a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Not.
    Clear,
    /// If the server can.
    IfOffered,
    /// In any case.
    Encrypted,
}

impl Attempt {
    /// What is tried at an address: the second only after [`is_worth_another`].
    pub(super) fn at(address: &ServerAddress, mode: TlsMode) -> (Self, Option<Self>) {
        match (address, mode) {
            // As in libpq, and in PostgreSQL itself.
            (ServerAddress::Unix(_), _) | (_, TlsMode::Disable) => (Self::Clear, None),
            (_, TlsMode::Allow) => (Self::Clear, Some(Self::Encrypted)),
            (_, TlsMode::Prefer) => (Self::IfOffered, Some(Self::Clear)),
            (_, TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull) => {
                (Self::Encrypted, None)
            }
        }
    }
}

/// Whether it was for its encryption, or for the lack of it, that the server did not want a connection.
pub(super) fn is_worth_another(error: &ConnectError) -> bool {
    match error {
        ConnectError::Tls(_) => true,
        ConnectError::Login(ServerLoginError::Refused(refusal)) => {
            refusal.code == Some(SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
        }
        _ => false,
    }
}

/// Has a new connection encrypted, as far as this attempt wants that. `host` is whom the server's certificate must name.
pub async fn encrypt(
    socket: &mut Socket,
    attempt: Attempt,
    tls: &ServerTls,
    host: &str,
) -> Result<(), ConnectError> {
    if attempt == Attempt::Clear {
        return Ok(());
    }
    let is_direct = tls.negotiation == TlsNegotiation::Direct && attempt == Attempt::Encrypted;
    if !is_direct && !is_accepted(socket).await? {
        return match attempt {
            Attempt::Encrypted => Err(ConnectError::Tls(io::Error::other("server refused SSL"))),
            Attempt::IfOffered | Attempt::Clear => Ok(()),
        };
    }
    let session = tls
        .session(host)
        .map_err(|error| ConnectError::Tls(io::Error::other(error)))?;
    socket.start_tls(session, &[]).map_err(ConnectError::Tls)?;
    socket.handshake().await.map_err(ConnectError::Tls)?;
    if is_direct && socket.tls().and_then(TlsSession::alpn) != Some(ALPN) {
        return Err(ConnectError::Tls(io::Error::other(
            "the server has not agreed on the protocol (ALPN)",
        )));
    }
    Ok(())
}

/// Asks for TLS. Nothing but the answer's one byte may come: more would be somebody else's words, in clear, taken for the
/// server's inside (CVE-2021-23222).
async fn is_accepted(socket: &mut Socket) -> Result<bool, ConnectError> {
    let mut request = Vec::new();
    encode::ssl_request(&mut request);
    socket
        .write_all(&request)
        .await
        .map_err(ConnectError::Tls)?;
    let mut answer = BytesMut::new();
    socket
        .read_buf(&mut answer)
        .await
        .map_err(ConnectError::Tls)?;
    match *answer {
        [b'S'] => Ok(true),
        [b'N'] => Ok(false),
        [] => Err(ConnectError::Tls(io::ErrorKind::UnexpectedEof.into())),
        [b'S' | b'N', ..] => Err(ConnectError::Tls(io::Error::other(
            "received unencrypted data after SSL response",
        ))),
        // What an error says here nobody has signed: it is not passed on.
        _ => Err(ConnectError::Tls(io::Error::other(
            "server sent an error response during SSL exchange",
        ))),
    }
}

/// What SCRAM can be bound to on this connection.
pub(super) fn channel(socket: &Socket, binding: ChannelBinding) -> ServerChannel {
    let hash = || {
        let certificate = socket.tls().and_then(TlsSession::peer_certificate);
        certificate.and_then(end_point_hash)
    };
    match binding {
        ChannelBinding::Disable => ServerChannel::Unbound,
        ChannelBinding::Prefer => hash().map_or(ServerChannel::Unbound, ServerChannel::EndPoint),
        ChannelBinding::Require => ServerChannel::Required(hash()),
    }
}
