//! From an accepted socket to a client that has proved who it is, or to nothing.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use bytes::{Buf, BytesMut};
use thiserror::Error;

use crate::allowance::{Allowance, Allowances};
use crate::auth::scram::{DEFAULT_ITERATIONS, MockSecret, Nonce, SALT_LENGTH, ScramVerifier};
use crate::auth::verifier::Verifier;
use crate::config::choices::AuthMethod;
use crate::config::{CONSOLE_NAMES, Config, ConsoleRole};
use crate::net::socket::{Detached, Peer, Socket};
use crate::net::tls_session::TlsSession;
use crate::pool::budget::{Account, Ceilings, Full};
use crate::protocol::cancel_key::CancelKey;
use crate::protocol::encode;
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::protocol::frame::{Frame, FrameHeader};
use crate::protocol::startup::{Parameter, ProtocolVersion, Replication, StartupMessage};
use crate::session::client_login::{
    ClientLogin, ClientLoginRequest, LoginError, MAX_LOGIN_MESSAGE_LENGTH, Progress,
};
use crate::session::greeting::{
    Encryption, Greeted, Greeting, GreetingError, GreetingStep, Negotiated,
};
use crate::telemetry::metrics::ProcessMetrics;

/// Who comes over a unix socket by this name, and is the system user that runs the proxy, may use the console without proof.
const CONSOLE_USER: &str = "pgbouncer";

/// A client that has logged in, on its way to its worker.
#[derive(Debug)]
pub struct Admitted {
    /// Its connection, of no runtime.
    pub socket: Detached,
    /// Where it is, or who.
    pub peer: Peer,
    /// How the connection is encrypted, if it is: `TLSv1.3/TLS_AES_256_GCM_SHA384/ECDH=X25519`.
    pub encryption: Option<Box<str>>,
    /// Who it is.
    pub user: Box<str>,
    /// What it wants to use.
    pub database: Box<str>,
    /// What it wants set, in the order sent.
    pub parameters: Vec<Parameter>,
    /// Whether it is for replication.
    pub replication: Replication,
    /// What is spoken with it.
    pub version: ProtocolVersion,
    /// What it sent ahead.
    pub ahead: Vec<u8>,
    /// When it was accepted.
    pub accepted_at: Instant,
    /// Its place among the clients.
    pub place: Place,
}

/// A client that has logged in to the console.
#[derive(Debug)]
pub struct Visitor {
    /// Its connection. AuthenticationOk has been sent.
    pub socket: Socket,
    /// Who it is.
    pub user: Box<str>,
    /// What it may do.
    pub role: ConsoleRole,
    /// What it sent ahead.
    pub ahead: Vec<u8>,
}

/// A place among the clients that there may be; given up when it is dropped.
#[derive(Debug)]
pub struct Place {
    process: Arc<ProcessMetrics>,
    taken: Arc<AtomicUsize>,
    /// Its place among those of its database and its user, once these are known.
    allowance: Option<Allowance>,
}

impl Place {
    /// One more of at most `limit`, of which `taken` counts those that are taken.
    fn take(taken: &Arc<AtomicUsize>, limit: usize, process: &Arc<ProcessMetrics>) -> Option<Self> {
        let one_more = |count: usize| (count < limit).then_some(count + 1);
        taken.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        process.clients.increase();
        Some(Self {
            process: Arc::clone(process),
            taken: Arc::clone(taken),
            allowance: None,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Relaxed);
        self.process.clients.decrease();
    }
}

/// What a connection turned out to be.
#[derive(Debug)]
pub enum Arrival {
    /// A client that has logged in. Boxed: it is passed from thread to thread.
    Client(Box<Admitted>),
    /// Somebody who wants a query cancelled, and reads nothing but the end of the connection.
    Cancel(CancelKey, Socket),
    /// A client of the console.
    Console(Visitor),
}

/// Why a connection came to nothing.
#[derive(Debug, Error)]
pub enum AdmissionError {
    /// It broke, or the client left.
    #[error("client connection lost: {0}")]
    Lost(#[from] io::Error),
    /// What it said first was not understood.
    #[error(transparent)]
    Greeting(#[from] GreetingError),
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
    #[error("role \"{}\" does not exist", String::from_utf8_lossy(.0))]
    UnknownUser(Box<[u8]>),
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
            Self::Lost(_) => None,
            Self::Greeting(error) => error.response(),
            Self::Login(error) => error.response(),
            // PgBouncer's SQLSTATE.
            Self::Full | Self::DatabaseFull | Self::UserFull => {
                Some(self.fatal(SqlState::PROTOCOL_VIOLATION))
            }
            Self::UnknownUser(_) => Some(self.fatal(SqlState::INVALID_AUTHORIZATION_SPECIFICATION)),
            Self::UnknownDatabase(_) => Some(self.fatal(SqlState::INVALID_CATALOG_NAME)),
            Self::NotAllowed => Some(self.fatal(SqlState::PROTOCOL_VIOLATION)),
        }
    }

    fn fatal(&self, code: SqlState) -> ErrorResponse {
        ErrorResponse::fatal(code, self.to_string())
    }
}

/// Admits clients. Shared by all that log in.
#[derive(Debug)]
pub struct Gate {
    /// What those who arrive now go by. Locked only to copy or replace the reference.
    rules: RwLock<Arc<Rules>>,
    mock_secret: MockSecret,
    /// How many clients there are.
    taken: Arc<AtomicUsize>,
    /// How many of them by database and by user.
    clients: Arc<Allowances>,
    process: Arc<ProcessMetrics>,
}

/// What is let in, until the next reload.
#[derive(Debug)]
struct Rules {
    config: Arc<Config>,
    /// Made of the configured passwords when they are first needed: it takes milliseconds.
    verifiers: HashMap<Box<str>, OnceLock<Verifier>>,
}

impl Gate {
    /// By the configuration's users.
    pub fn new(config: Arc<Config>, process: Arc<ProcessMetrics>) -> Self {
        Self {
            rules: RwLock::new(Arc::new(Rules::new(config))),
            mock_secret: MockSecret::new(random()),
            taken: Arc::default(),
            clients: Arc::default(),
            process,
        }
    }

    /// Whoever arrives from now on goes by another configuration.
    pub fn reload(&self, config: Arc<Config>) {
        let rules = Arc::new(Rules::new(config));
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// The configuration that those who arrive now go by.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.rules().config)
    }

    /// How many clients there are by database and by user.
    pub fn clients(&self) -> &Arc<Allowances> {
        &self.clients
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Greets a client and lets it log in. The socket comes back where the client is to read why it was refused.
    pub async fn admit(
        &self,
        socket: Socket,
        accepted_at: Instant,
    ) -> Result<Arrival, (AdmissionError, Option<Socket>)> {
        let mut entrance = Entrance {
            socket,
            input: BytesMut::with_capacity(512),
            out: Vec::new(),
        };
        match self.admit_at(&mut entrance).await {
            Ok(Admission::Cancel(key)) => Ok(Arrival::Cancel(key, entrance.socket)),
            Ok(Admission::Console(user, role)) => Ok(Arrival::Console(Visitor {
                socket: entrance.socket,
                user,
                role,
                ahead: entrance.input.to_vec(),
            })),
            Ok(Admission::Client {
                message,
                version,
                place,
            }) => {
                let socket = entrance.socket;
                let peer = socket.stream().peer();
                let encryption = socket.tls().and_then(TlsSession::description);
                let StartupMessage {
                    user,
                    database,
                    parameters,
                    replication,
                    ..
                } = message;
                Ok(Arrival::Client(Box::new(Admitted {
                    socket: socket.detach(),
                    peer,
                    encryption,
                    user: text(&user),
                    database: text(&database),
                    parameters,
                    replication,
                    version,
                    // Hardly anybody sends anything ahead; those who don't need not keep the buffer.
                    ahead: entrance.input.to_vec(),
                    accepted_at,
                    place,
                })))
            }
            Err(error) => Err((error, Some(entrance.socket))),
        }
    }

    async fn admit_at(&self, entrance: &mut Entrance) -> Result<Admission, AdmissionError> {
        let message = match entrance.greet().await? {
            Greeted::Cancel(key) => return Ok(Admission::Cancel(key)),
            Greeted::Client(message) => message,
        };
        let rules = self.rules();
        let is_for_console = CONSOLE_NAMES
            .iter()
            .any(|name| name.as_bytes() == &*message.database);
        let place = match is_for_console {
            // Whoever wants to know why the proxy is full can ask it.
            true => None,
            false => {
                let limit = rules.config.listen.max_client_connections.get();
                let place = Place::take(&self.taken, limit, &self.process);
                Some(place.ok_or(AdmissionError::Full)?)
            }
        };
        let Negotiated { version, reply } = Negotiated::with(&message);
        entrance.out.extend_from_slice(&reply);
        let user = str::from_utf8(&message.user).ok();
        if is_for_console && user == Some(CONSOLE_USER) && entrance.is_of_this_user() {
            encode::authentication_ok(&mut entrance.out);
            entrance.flush().await?;
            return Ok(Admission::Console(CONSOLE_USER.into(), ConsoleRole::Admin));
        }
        let verifier = user.and_then(|user| rules.verifier(user));
        let request = ClientLoginRequest {
            user: &message.user,
            method: rules.config.auth.method,
            verifier,
            nonce: random::<{ size_of::<Nonce>() }>(),
            mock_secret: &self.mock_secret,
        };
        entrance.log_in(request).await?;
        if !user.is_some_and(|user| rules.config.users.contains_key(user)) {
            return Err(AdmissionError::UnknownUser(message.user));
        }
        let Some(mut place) = place else {
            let user = text(&message.user);
            let role = rules
                .config
                .console
                .role_of(&user)
                .ok_or(AdmissionError::NotAllowed)?;
            entrance.flush().await?;
            return Ok(Admission::Console(user, role));
        };
        if !str::from_utf8(&message.database)
            .is_ok_and(|name| rules.config.database(name).is_some())
        {
            return Err(AdmissionError::UnknownDatabase(message.database));
        }
        let account = Account {
            database: text(&message.database),
            user: text(&message.user),
        };
        let settings = rules.config.pool_settings(&account.database, &account.user);
        let ceilings = Ceilings {
            database: settings.max_database_client_connections,
            user: settings.max_user_client_connections,
        };
        let allowance = self.clients.take(&Arc::new(account), ceilings);
        place.allowance = Some(allowance.map_err(|full| match full {
            Full::Database => AdmissionError::DatabaseFull,
            Full::User => AdmissionError::UserFull,
        })?);
        entrance.flush().await?;
        Ok(Admission::Client {
            message,
            version,
            place,
        })
    }
}

impl Rules {
    fn new(config: Arc<Config>) -> Self {
        let verifiers = config
            .users
            .keys()
            .map(|user| (user.clone(), OnceLock::new()))
            .collect();
        Self { config, verifiers }
    }

    fn verifier(&self, user: &str) -> Option<&Verifier> {
        let password = self.config.user(user)?.password.as_ref()?;
        let known = self.verifiers.get(user)?;
        Some(known.get_or_init(
            || match (self.config.auth.method, Verifier::parse(password)) {
                (AuthMethod::ScramSha256, Verifier::Plain(password)) => {
                    let iterations = DEFAULT_ITERATIONS.try_into().expect("not zero");
                    let salt = random::<SALT_LENGTH>();
                    Verifier::Scram(ScramVerifier::from_password(
                        password.expose().as_bytes(),
                        &salt,
                        iterations,
                    ))
                }
                (_, verifier) => verifier,
            },
        ))
    }
}

enum Admission {
    Client {
        message: StartupMessage,
        version: ProtocolVersion,
        place: Place,
    },
    Cancel(CancelKey),
    /// Who wants to use the console, and what they may do there.
    Console(Box<str>, ConsoleRole),
}

/// A connection that is being admitted.
struct Entrance {
    socket: Socket,
    /// Read, but not yet used.
    input: BytesMut,
    /// To be sent.
    out: Vec<u8>,
}

impl Entrance {
    async fn greet(&mut self) -> Result<Greeted, AdmissionError> {
        let mut greeting = Greeting::new(Encryption::Refused);
        loop {
            let mut rest = &*self.input;
            let step = greeting.advance(&mut rest)?;
            let used = self.input.len() - rest.len();
            self.input.advance(used);
            match step {
                GreetingStep::NeedMore => self.read().await?,
                GreetingStep::Reply(reply) => self.socket.write_all(&[reply]).await?,
                GreetingStep::Done(greeted) => return Ok(greeted),
            }
        }
    }

    /// AuthenticationOk stands in `out` at the end.
    async fn log_in(&mut self, request: ClientLoginRequest<'_>) -> Result<(), AdmissionError> {
        let mut progress = ClientLogin::begin(request, &mut self.out);
        while let Progress::Continue(login) = progress {
            self.flush().await?;
            let len = loop {
                match frame_len(&self.input)? {
                    Some(len) if self.input.len() >= len => break len,
                    _ => self.read().await?,
                }
            };
            let message = self.input.get(..len).unwrap_or_default();
            let (&tag, body) = message.split_first().expect("at least a header");
            let body = body.get(FrameHeader::LEN - 1..).unwrap_or_default();
            progress = login.on_message(Frame { tag, body }, &mut self.out)?;
            self.input.advance(len);
        }
        Ok(())
    }

    /// Whether it comes from the system user that this process runs as.
    fn is_of_this_user(&self) -> bool {
        self.socket.stream().peer_user() == Some(rustix::process::getuid().as_raw())
    }

    async fn read(&mut self) -> Result<(), AdmissionError> {
        match self.socket.read_buf(&mut self.input).await? {
            0 => Err(AdmissionError::Lost(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), AdmissionError> {
        self.socket.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }
}

/// How long the first message in `input` is, once that can be told. Refused before anything is kept for it.
fn frame_len(input: &[u8]) -> Result<Option<usize>, LoginError> {
    let Some(&header) = input.first_chunk() else {
        return Ok(None);
    };
    match FrameHeader::parse(header) {
        Some(header) if header.body_len <= MAX_LOGIN_MESSAGE_LENGTH => {
            Ok(Some(FrameHeader::LEN + header.body_len))
        }
        _ => Err(LoginError::TooLong),
    }
}

/// Names were checked against the configuration, which is text.
fn text(name: &[u8]) -> Box<str> {
    String::from_utf8_lossy(name).into()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    bytes
}
