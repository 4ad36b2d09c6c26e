//! A connection to a server: made, logged in, asked now and then by the proxy itself, and closed.

pub mod dial;
pub mod encryption;
pub mod moving;
pub mod own_query;

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use bytes::{Buf, BytesMut};
use thiserror::Error;
use tokio::sync::Notify;
use zeroize::Zeroize as _;

use self::dial::{Opened, Route, open_at};
use self::encryption::Attempt;
use crate::allowance::Allowance;
use crate::auth::credentials::Credentials;
use crate::auth::scram::{CachedKeys, Nonce};
use crate::config::secret::Secret;
use crate::config::{Config, Host, Tcp};
use crate::net::lane::Lane;
use crate::net::socket::Socket;
use crate::net::tls::ServerTls;
use crate::net::tls_session::TlsSession;
use crate::protocol::cancel_key::CancelKey;
use crate::protocol::encode;
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::protocol::forwarder::Forwarder;
use crate::protocol::frame::{Frame, FrameHeader};
use crate::protocol::startup::{Parameter, ProtocolVersion, Replication};
use crate::session::parameters::ParameterSet;
use crate::session::server_login::{
    MAX_SERVER_LOGIN_MESSAGE_LENGTH, ServerIdentity, ServerLogin, ServerLoginError,
    ServerLoginRequest, ServerProgress,
};
use crate::session::server_session::ServerSession;

/// Where a server is, and who logs in there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTarget {
    /// Where it listens: one of these.
    pub addresses: Vec<ServerAddress>,
    /// The database's name there.
    pub database: Box<str>,
    /// The role.
    pub user: Box<str>,
    /// Its password, if there is one.
    pub password: Option<Secret>,
    /// Whose password counts.
    pub password_of: PasswordOf,
    /// How the connection is encrypted.
    pub tls: ServerTls,
}

/// Whose password logs in at a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordOf {
    /// The client's own user: what it has shown of its password serves too.
    Client,
    /// The one user that everybody is there.
    Database,
}

/// What a server is told when it is logged in to, beside who it is.
#[derive(Clone, Debug)]
pub struct ServerStartup<'a> {
    /// Parameters of its session.
    pub parameters: Vec<Parameter>,
    /// Whether it is for replication.
    pub replication: Replication,
    /// Of these, what it reports follows clients beside the usual ones.
    pub track_extra: &'a [Box<str>],
}

impl<'a> ServerStartup<'a> {
    /// Of a server that any client may use.
    pub fn pooled(track_extra: &'a [Box<str>]) -> Self {
        Self {
            parameters: Vec::new(),
            replication: Replication::None,
            track_extra,
        }
    }
}

impl ServerTarget {
    /// Where it listens, for the log.
    pub fn in_words(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        addresses.join(",")
    }
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// A name or an IP address, and a port.
    Tcp(Box<str>, u16),
    /// A unix socket; an abstract one begins with a zero byte.
    Unix(PathBuf),
}

/// A server that is logged in, and ready for the next query whenever it is in a pool.
#[derive(Debug)]
pub struct ServerConnection {
    /// Its socket, and what is on its way to it.
    pub lane: Lane,
    /// Where the stream of its replies stands.
    pub replies: Forwarder,
    /// What is known of it.
    pub session: ServerSession,
    /// What it reported when it was logged in to, and since.
    pub reported: Vec<Parameter>,
    /// Who it is, for those who want to cancel its query.
    pub card: Rc<ServerCard>,
    /// When it was connected.
    pub connected_at: Instant,
    /// Which of its pool's generations it is of: that of an earlier one is not used again.
    pub generation: u64,
    /// Its place among the servers that there may be.
    pub allowance: Option<Allowance>,
    /// No client has had it yet.
    pub is_unused: bool,
    /// When the client got it that has it now, or had it last; until then as `connected_at`.
    pub linked_at: Instant,
}

/// Who a server is, for those who want to cancel its query.
#[derive(Debug)]
pub struct ServerCard {
    /// Where the CancelRequest goes: the very address that was connected, since a name may lead elsewhere by now.
    pub address: PeerAddress,
    /// How the connection to it is encrypted, if it is: `TLSv1.3/TLS_AES_256_GCM_SHA384/ECDH=X25519`.
    pub encryption: Option<Box<str>>,
    /// How a CancelRequest to it is: like the connection itself.
    pub tls: Option<(ServerTls, Box<str>)>,
    /// What it must say; `None` where the server gave no key.
    pub cancel_key: Option<CancelKey>,
    /// Its number among all connections, once it is in a pool.
    pub serial: Cell<u64>,
    /// Our own address, where it has one.
    pub local: Option<SocketAddr>,
    /// When it was connected.
    pub connected_at: Instant,
    /// When it was last given to a client, or came back from one.
    pub request_at: Cell<Instant>,
    /// How many prepared statements it has, as of its client's last turn.
    pub statements: Cell<usize>,
    /// CancelRequests on their way: until they have arrived the server must not serve another client.
    pub cancels: Cell<usize>,
    /// Told when there are none any more.
    pub cancels_done: Notify,
    /// The name that led here leads elsewhere now.
    pub is_misplaced: Cell<bool>,
}

/// Where a server was connected.
#[derive(Clone, Debug)]
pub enum PeerAddress {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over a unix socket.
    Unix(PathBuf),
}

impl ServerAddress {
    /// A host with a port, which is also the number in the name of a unix socket.
    pub fn of(host: &Host, port: u16) -> Self {
        let socket = format!(".s.PGSQL.{port}");
        match host {
            Host::Tcp(host) => Self::Tcp(host.clone(), port),
            Host::SocketFolder(folder) => Self::Unix(folder.join(socket)),
            Host::Abstract(name) => Self::Unix(format!("\0{name}/{socket}").into()),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.to_string_lossy().replace('\0', "@")),
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.to_string_lossy().replace('\0', "@")),
        }
    }
}

/// Why a server could not be connected.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// Its name has no address.
    #[error("server DNS lookup failed: {0}")]
    Unresolved(io::Error),
    /// Nothing listens there, or it can't be reached.
    #[error("connect failed: {0}")]
    Unreachable(io::Error),
    /// It took longer than `server_connect_timeout`.
    #[error("connect timeout")]
    TimedOut,
    /// TLS did not come about.
    #[error("TLS handshake with server failed: {0}")]
    Tls(io::Error),
    /// The connection broke while logging in.
    #[error("connection to server lost while logging in: {0}")]
    Broken(io::Error),
    /// It does not let us in, or does not speak our language.
    #[error("server login failed: {0}")]
    Login(#[from] ServerLoginError),
    /// It did not take `connect_query`.
    #[error("exec_on_connect query failed")]
    ConnectQuery,
}

impl ServerTarget {
    /// Where a database's name leads, for a client of this user. `None` where there is no such database.
    pub fn of(config: &Config, name: &str, client: &str) -> Option<Self> {
        let database = config.database(name)?;
        let address = |host| ServerAddress::of(host, database.port);
        let addresses = database.hosts.iter().map(address).collect();
        let user: &str = database.user.as_deref().unwrap_or(client);
        let password = database
            .password
            .clone()
            .or_else(|| config.user(user)?.password.clone());
        Some(Self {
            addresses,
            database: database.name_on_server(name).into(),
            user: user.into(),
            password,
            password_of: match database.user {
                Some(_) => PasswordOf::Database,
                None => PasswordOf::Client,
            },
            tls: ServerTls::new(&database.tls).unwrap_or_else(|error| {
                tracing::error!(database = name, "no server is reached: {error}");
                ServerTls::broken(&database.tls)
            }),
        })
    }
}

impl ServerAddress {
    /// Whom a certificate must name.
    fn host(&self) -> &str {
        match self {
            Self::Tcp(host, _) => host,
            Self::Unix(_) => "",
        }
    }
}

impl ConnectError {
    /// What the clients read that waited for the connection: a server's own refusal in its own words.
    pub fn response(&self) -> ErrorResponse {
        let code = match self {
            Self::Login(ServerLoginError::Refused(refusal)) => refusal.code,
            _ => None,
        };
        ErrorResponse::fatal(
            code.unwrap_or(SqlState::PROTOCOL_VIOLATION),
            self.reason().into_owned(),
        )
    }

    /// The server's own words where it does not let us in: how bad it is, and why.
    pub fn refusal(&self) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
        match self {
            Self::Login(ServerLoginError::Refused(refusal)) => Some((
                String::from_utf8_lossy(&refusal.severity),
                String::from_utf8_lossy(&refusal.message),
            )),
            _ => None,
        }
    }

    /// Why, in PgBouncer's words. The address stays in the log: clients need not know what is behind the proxy.
    pub fn reason(&self) -> Cow<'static, str> {
        match self {
            Self::Unresolved(_) => "server DNS lookup failed".into(),
            Self::Unreachable(_) => "connect failed".into(),
            Self::TimedOut => "connect timeout".into(),
            Self::Tls(_) => "TLS handshake failed".into(),
            Self::Broken(_) => "server conn crashed?".into(),
            Self::Login(ServerLoginError::Refused(refusal)) => {
                String::from_utf8_lossy(&refusal.message)
                    .into_owned()
                    .into()
            }
            Self::Login(ServerLoginError::WrongKindOfPassword(_)) => "wrong password type".into(),
            Self::Login(error) => format!("server login failed: {error}").into(),
            Self::ConnectQuery => "exec_on_connect query failed".into(),
        }
    }
}

impl ServerConnection {
    /// Connects and logs in by `credentials`. The SCRAM keys that this login found come back, for the next one.
    ///
    /// Not cancel safe in the sense that a half-made connection is dropped, which the server takes for a client that left.
    pub async fn connect(
        target: &ServerTarget,
        credentials: Credentials,
        nonce: fn() -> Nonce,
        startup: ServerStartup<'_>,
        route: &Route<'_>,
        clock: impl Fn() -> Instant,
    ) -> Result<(Self, Option<CachedKeys>), ConnectError> {
        let track_extra = startup.track_extra;
        let opened = route.open(&target.addresses).await?;
        let host = opened.host.host();
        let LoggedInAt {
            socket,
            address,
            identity,
        } = log_in_at(target, opened, route.tcp, credentials, nonce, startup).await?;
        let encryption = socket.tls().and_then(TlsSession::description);
        let tls = encryption
            .is_some()
            .then(|| (target.tls.clone(), Box::from(host)));
        let ServerIdentity {
            parameters,
            cancel_key,
            scram_keys,
            ..
        } = identity;
        let reported = parameters.iter().map(|(name, value)| (&**name, &**value));
        let following = ParameterSet::following(reported, track_extra);
        let connected_at = clock();
        let local = socket.stream().local_address();
        let connection = Self {
            lane: Lane::new(socket),
            replies: Forwarder::new(),
            session: ServerSession::new(Rc::new(following)),
            reported: parameters,
            card: Rc::new(ServerCard {
                address,
                encryption,
                tls,
                cancel_key,
                serial: Cell::new(0),
                local,
                connected_at,
                request_at: Cell::new(connected_at),
                statements: Cell::new(0),
                cancels: Cell::new(0),
                cancels_done: Notify::new(),
                is_misplaced: Cell::new(false),
            }),
            connected_at,
            generation: 0,
            allowance: None,
            is_unused: true,
            linked_at: connected_at,
        };
        Ok((connection, scram_keys))
    }

    /// The server's process id, 0 where it gave none.
    pub fn process_id(&self) -> i32 {
        self.card
            .cancel_key
            .as_ref()
            .map_or(0, CancelKey::process_id)
    }

    /// The version as a number, 150004 say; 0 where the server reports none that can be read.
    pub fn version_number(&self) -> u32 {
        let reported = self
            .reported
            .iter()
            .find(|(name, _)| **name == *b"server_version");
        reported.map_or(0, |(_, version)| version_number(version))
    }

    /// Tells the server good-bye, as far as it takes it at once.
    pub fn close(mut self) {
        let mut goodbye = Vec::new();
        encode::terminate(&mut goodbye);
        // Whether it arrives or not: the connection is closed.
        let _ = self.lane.socket.write(&[io::IoSlice::new(&goodbye)]);
    }
}

/// A connection that is logged in, of no pool.
pub struct LoggedInAt {
    /// It.
    pub socket: Socket,
    /// Where it leads.
    pub address: PeerAddress,
    /// What the server said of itself.
    pub identity: ServerIdentity,
}

/// Logs in over a connection that is open. Where the mode leaves encryption open, a connection that is refused for the one reason is
/// tried the other way.
pub async fn log_in_at(
    target: &ServerTarget,
    opened: Opened<'_>,
    tcp: &Tcp,
    credentials: Credentials,
    nonce: fn() -> Nonce,
    startup: ServerStartup<'_>,
) -> Result<LoggedInAt, ConnectError> {
    let (peer, host) = (opened.peer.clone(), opened.host);
    let (first, second) = Attempt::at(host, target.tls.mode);
    let login = (credentials.clone(), nonce());
    let attempted = attempt(target, first, opened, login, startup.clone()).await;
    match (attempted, second) {
        (Err(error), Some(second)) if encryption::is_worth_another(&error) => {
            let socket = open_at(&peer, tcp).await?;
            let opened = Opened { socket, peer, host };
            attempt(target, second, opened, (credentials, nonce()), startup).await
        }
        (attempted, _) => attempted,
    }
}

async fn attempt(
    target: &ServerTarget,
    attempt: Attempt,
    opened: Opened<'_>,
    (credentials, nonce): (Credentials, Nonce),
    startup: ServerStartup<'_>,
) -> Result<LoggedInAt, ConnectError> {
    let Opened {
        mut socket,
        peer: address,
        host,
    } = opened;
    encryption::encrypt(&mut socket, attempt, &target.tls, host.host()).await?;
    let mut out = Vec::new();
    let login = ServerLogin::begin(
        ServerLoginRequest {
            version: ProtocolVersion::V3_0,
            user: target.user.as_bytes().into(),
            database: target.database.as_bytes().into(),
            parameters: startup.parameters,
            replication: startup.replication,
            password: credentials.password,
            scram_keys: credentials.scram_keys,
            channel: encryption::channel(&socket, target.tls.channel_binding),
            nonce,
        },
        &mut out,
    );
    let identity = log_in(login, &mut socket, out).await?;
    Ok(LoggedInAt {
        socket,
        address,
        identity,
    })
}

async fn log_in(
    mut login: ServerLogin,
    socket: &mut Socket,
    mut out: Vec<u8>,
) -> Result<ServerIdentity, ConnectError> {
    let mut input = BytesMut::with_capacity(4096);
    loop {
        let written = socket.write_all(&out).await;
        // It may have been a password.
        out.zeroize();
        written.map_err(ConnectError::Broken)?;
        while out.is_empty() {
            match take_frame(&input)? {
                Some((frame, len)) => match login.on_message(frame, &mut out)? {
                    ServerProgress::Continue(next) => {
                        login = next;
                        input.advance(len);
                    }
                    ServerProgress::Done(identity) => return Ok(identity),
                },
                None => match socket.read_buf(&mut input).await {
                    Ok(0) => return Err(lost()),
                    Ok(_) => {}
                    Err(error) => return Err(ConnectError::Broken(error)),
                },
            }
        }
    }
}

fn lost() -> ConnectError {
    ConnectError::Broken(io::ErrorKind::UnexpectedEof.into())
}

/// The first message in `input`, if it is complete, and how long it is.
pub fn take_frame(input: &[u8]) -> Result<Option<(Frame<'_>, usize)>, ServerLoginError> {
    let Some(header) = input.first_chunk() else {
        return Ok(None);
    };
    let header = FrameHeader::parse(*header).ok_or(ServerLoginError::Malformed("length of a"))?;
    if header.body_len > MAX_SERVER_LOGIN_MESSAGE_LENGTH {
        return Err(ServerLoginError::TooLong);
    }
    let len = FrameHeader::LEN + header.body_len;
    let body = input.get(FrameHeader::LEN..len);
    Ok(body.map(|body| {
        (
            Frame {
                tag: header.tag,
                body,
            },
            len,
        )
    }))
}

/// `15.4 (Debian 15.4-2)` → 150004, `17beta1` → 170000, `9.6.3` → 90603.
fn version_number(version: &[u8]) -> u32 {
    let mut numbers = version.split(|byte| *byte == b'.').map(|part| {
        let digits = part.iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0_u32, |number, digit| {
            number
                .saturating_mul(10)
                .saturating_add(u32::from(digit - b'0'))
        })
    });
    let mut next = || numbers.next().unwrap_or(0).min(9999);
    match next() {
        major @ 10.. => major * 10_000 + next(),
        major => major * 10_000 + next() * 100 + next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_as_server_version_num_has_it() {
        assert_eq!(version_number(b"15.4 (Debian 15.4-2.pgdg120+1)"), 150_004);
        assert_eq!(version_number(b"17beta1"), 170_000);
        assert_eq!(version_number(b"9.6.3"), 90_603);
        assert_eq!(version_number(b"unheard of"), 0);
    }

    #[test]
    fn a_message_is_taken_when_it_is_complete() {
        assert!(take_frame(b"R\0\0\0\x08\0\0\0").unwrap().is_none());
        let (frame, len) = take_frame(b"R\0\0\0\x08\0\0\0\0S").unwrap().unwrap();
        assert_eq!((frame.tag, frame.body, len), (b'R', &[0, 0, 0, 0][..], 9));
        assert!(take_frame(b"R\0\0\0\x03").is_err());
        assert!(take_frame(b"R\x7f\0\0\0").is_err());
    }
}
