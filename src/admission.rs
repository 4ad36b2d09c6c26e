//! From an accepted socket to a client that has proved who it is, or to nothing.

mod entrance;
mod error;
mod key_makers;
mod rules;
mod standing;

use std::collections::HashSet;
use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use crate::allowance::{Allowance, Allowances};
use crate::auth::backoff::Backoff;
use crate::auth::credentials::Credentials;
use crate::auth::hba;
use crate::auth::scram::{MockSecret, Nonce};
use crate::auth_query::Inquiries;
use crate::config::tls::TlsMode;
use crate::config::{CONSOLE_NAMES, Config, ConsoleRole};
use crate::net::socket::{Detached, Peer, Socket, Stream};
use crate::net::tls_session::TlsSession;
use crate::pool::budget::{Account, Ceilings, Full};
use crate::protocol::cancel_key::CancelKey;
use crate::protocol::encode;
use crate::protocol::startup::{Parameter, ProtocolVersion, Replication, StartupMessage};
use crate::session::client_login::{Challenge, ClientLoginRequest, LoggedIn, LoginError};
use crate::session::greeting::{Greeted, Negotiated};
use crate::spread::Seat;
use crate::telemetry::login_clock::{LoginClock, LoginPhase};
use crate::telemetry::metrics::ProcessMetrics;

use self::entrance::{Entrance, clock};
use self::key_makers::KeyMakers;
use self::rules::{NotWelcome, Proof, Rules};
use self::standing::Standing;

pub use self::error::AdmissionError;
pub use self::rules::{RulesError, check};

/// Who comes over a unix socket by this name, and is the system user that runs the proxy, may use the console without proof.
const CONSOLE_USER: &str = "pgbouncer";

/// A client that has logged in, on its way to its worker.
#[derive(Debug)]
pub struct Admitted {
    /// Its connection, of no runtime.
    pub socket: Detached,
    /// Its number among all connections.
    pub serial: u64,
    /// Where it is, or who.
    pub peer: Peer,
    /// How the connection is encrypted, if it is: `TLSv1.3/TLS_AES_256_GCM_SHA384/ECDH=X25519`.
    pub encryption: Option<Box<str>>,
    /// Who it is.
    pub user: Box<str>,
    /// What it wants to use.
    pub database: Box<str>,
    /// What it has shown us of its password: it may log in at the server too.
    pub credentials: Credentials,
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
    /// Times its login.
    pub login: LoginClock,
    /// Its place among the clients.
    pub place: Place,
}

/// A client that has logged in to the console.
#[derive(Debug)]
pub struct Visitor {
    /// Its connection. AuthenticationOk has been sent.
    pub socket: Socket,
    /// Who it is.
    pub visit: Visit,
    /// What it sent ahead.
    pub ahead: Vec<u8>,
    /// Its number among all connections.
    pub serial: u64,
    /// When it was accepted.
    pub accepted_at: Instant,
}

/// Who wants to use the console.
#[derive(Debug)]
pub struct Visit {
    /// Who it is.
    pub user: Box<str>,
    /// What it may do.
    pub role: ConsoleRole,
    /// Its place among the clients of the console and its user. `None`: it does not count.
    pub allowance: Option<Allowance>,
}

/// A place among the clients that there may be; given up when it is dropped.
#[derive(Debug)]
pub struct Place {
    process: Arc<ProcessMetrics>,
    taken: Arc<AtomicUsize>,
    /// Its place among those of its database and its user, once these are known.
    allowance: Option<Allowance>,
    /// Its place at a worker, where there is more than one.
    seat: Option<Seat>,
}

impl Place {
    /// It is at this worker.
    pub fn sit(&mut self, seat: Seat) {
        self.seat = Some(seat);
    }

    /// One more of at most `limit`, of which `taken` counts those that are taken.
    fn take(taken: &Arc<AtomicUsize>, limit: usize, process: &Arc<ProcessMetrics>) -> Option<Self> {
        let one_more = |count: usize| (count < limit).then_some(count + 1);
        taken.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        process.clients.increase();
        Some(Self {
            process: Arc::clone(process),
            taken: Arc::clone(taken),
            allowance: None,
            seat: None,
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

/// Admits clients. Shared by all that log in.
#[derive(Debug)]
pub struct Gate {
    /// What those who arrive now go by. Locked only to copy or replace the reference.
    rules: RwLock<Arc<Rules>>,
    mock_secret: MockSecret,
    /// What servers have said about users.
    inquiries: Arc<Inquiries>,
    /// Whose logins have failed.
    backoff: Mutex<Backoff>,
    clock: fn() -> Instant,
    key_makers: KeyMakers,
    /// Databases that nobody new may use.
    disabled: Mutex<HashSet<Box<str>>>,
    /// How many clients there are.
    taken: Arc<AtomicUsize>,
    /// How many of them by database and by user.
    clients: Arc<Allowances>,
    process: Arc<ProcessMetrics>,
}

impl Gate {
    /// By the configuration's users.
    pub fn new(config: Arc<Config>, process: Arc<ProcessMetrics>, clock: fn() -> Instant) -> Self {
        let mock_secret = mock_secret_of(&config);
        Self {
            inquiries: Arc::new(Inquiries::new(Arc::clone(&process))),
            backoff: Mutex::default(),
            clock,
            key_makers: KeyMakers::new(),
            rules: RwLock::new(Arc::new(rules_of(config, &mock_secret, None))),
            mock_secret,
            disabled: Mutex::default(),
            taken: Arc::default(),
            clients: Arc::default(),
            process,
        }
    }

    /// Whoever arrives from now on goes by another configuration.
    pub fn reload(&self, config: Arc<Config>) {
        let former = self.rules();
        let rules = Arc::new(rules_of(config, &self.mock_secret, Some(&former)));
        self.inquiries.forget();
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// The configuration that those who arrive now go by.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.rules().config)
    }

    /// From now on nobody new may use the database, or everybody again. Its clients are turned away by the workers; here nobody is
    /// asked about in it.
    pub fn set_disabled(&self, database: &str, is_disabled: bool) {
        let mut disabled = self.disabled.lock().unwrap_or_else(PoisonError::into_inner);
        match is_disabled {
            true => drop(disabled.insert(database.into())),
            false => drop(disabled.remove(database)),
        }
    }

    fn is_disabled(&self, database: &str) -> bool {
        let disabled = self.disabled.lock().unwrap_or_else(PoisonError::into_inner);
        disabled.contains(database)
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
        let serial = self.process.next_serial();
        let login = LoginClock::start(Arc::clone(&self.process), accepted_at);
        let mut entrance = Entrance::new(socket, login);
        match self.admit_at(&mut entrance).await {
            Ok(Admission::Cancel(key)) => Ok(Arrival::Cancel(key, entrance.socket)),
            Ok(Admission::Console(visit)) => Ok(Arrival::Console(Visitor {
                socket: entrance.socket,
                visit,
                ahead: entrance.input.to_vec(),
                serial,
                accepted_at,
            })),
            Ok(Admission::Client {
                message,
                version,
                credentials,
                place,
            }) => {
                let Entrance {
                    socket,
                    input,
                    mut login,
                    ..
                } = entrance;
                login.enter(LoginPhase::Welcome, clock());
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
                    serial,
                    peer,
                    encryption,
                    user: text(&user),
                    database: text(&database),
                    credentials,
                    parameters,
                    replication,
                    version,
                    // Hardly anybody sends anything ahead; those who don't need not keep the buffer.
                    ahead: input.to_vec(),
                    accepted_at,
                    login,
                    place,
                })))
            }
            Err(error) => Err((error, Some(entrance.socket))),
        }
    }

    async fn admit_at(&self, entrance: &mut Entrance) -> Result<Admission, AdmissionError> {
        let rules = self.rules();
        let message = match entrance.greet(&rules.tls).await? {
            Greeted::Cancel(key) => return Ok(Admission::Cancel(key)),
            Greeted::Client(message) => message,
        };
        entrance.login.enter(LoginPhase::Authentication, clock());
        let is_encrypted = entrance.socket.tls().is_some();
        let is_remote = matches!(entrance.socket.stream(), Stream::Tcp(_));
        if rules.tls.mode >= TlsMode::Require && is_remote && !is_encrypted {
            return Err(AdmissionError::TlsRequired);
        }
        let user = String::from_utf8_lossy(&message.user);
        let database = String::from_utf8_lossy(&message.database);
        let is_for_console = CONSOLE_NAMES.contains(&&*database);
        let limit = rules.config.listen.max_client_connections.get();
        // Whoever wants to know why the proxy is full can ask it. The others need not prove anything where there is no place; it
        // is taken only by those who have: a crowd that never logs in takes none.
        if !is_for_console && self.taken.load(Relaxed) >= limit {
            return Err(AdmissionError::Full);
        }
        let Negotiated { version, reply } = Negotiated::with(&message);
        entrance.out.extend_from_slice(&reply);
        if is_for_console && user == CONSOLE_USER && entrance.is_of_this_user() {
            encode::authentication_ok(&mut entrance.out);
            entrance.flush().await?;
            return Ok(Admission::Console(Visit {
                user: CONSOLE_USER.into(),
                role: ConsoleRole::Admin,
                allowance: None,
            }));
        }
        let address = match entrance.socket.stream().peer() {
            Peer::Tcp(address) => Some(address.ip()),
            Peer::Unix { .. } => None,
            Peer::Gone => return Err(AdmissionError::Lost(io::ErrorKind::NotConnected.into())),
        };
        let visitor = hba::Visitor {
            address,
            is_encrypted,
            is_physical_replication: message.replication == Replication::Physical,
            database: &database,
            user: &user,
        };
        let credentials = self
            .identify_unless_backed_off(&rules, entrance, &visitor, &message)
            .await?;
        if is_for_console {
            let role = rules.config.console.role_of(&user);
            let role = role.ok_or(AdmissionError::NotAllowed)?;
            let allowance = match role {
                // Whoever may set the limits is not kept out by them.
                ConsoleRole::Admin => self.allow(account_of(&message), Ceilings::default())?,
                ConsoleRole::Stats => self.allow_within_limits(&rules.config, &message)?,
            };
            entrance.flush().await?;
            let visit = Visit {
                user: (*user).into(),
                role,
                allowance: Some(allowance),
            };
            return Ok(Admission::Console(visit));
        }
        let mut place =
            Place::take(&self.taken, limit, &self.process).ok_or(AdmissionError::Full)?;
        if rules.config.database(&database).is_none() {
            return Err(AdmissionError::UnknownDatabase(message.database));
        }
        place.allowance = Some(self.allow_within_limits(&rules.config, &message)?);
        entrance.flush().await?;
        Ok(Admission::Client {
            message,
            version,
            credentials,
            place,
        })
    }

    /// A place among the clients of the database and the user, as far as the configuration lets them be.
    fn allow_within_limits(
        &self,
        config: &Config,
        message: &StartupMessage,
    ) -> Result<Allowance, AdmissionError> {
        let account = account_of(message);
        let settings = config.pool_settings(&account.database, &account.user);
        let ceilings = Ceilings {
            pool: None,
            database: settings.max_database_client_connections,
            user: settings.max_user_client_connections,
        };
        self.allow(account, ceilings)
    }

    fn allow(&self, account: Account, ceilings: Ceilings) -> Result<Allowance, AdmissionError> {
        let allowance = self.clients.take(&Arc::new(account), ceilings);
        allowance.map_err(|full| match full {
            Full::Database | Full::Pool => AdmissionError::DatabaseFull,
            Full::User => AdmissionError::UserFull,
        })
    }

    /// Has the client prove who it is, unless too many from its address have failed to.
    async fn identify_unless_backed_off(
        &self,
        rules: &Rules,
        entrance: &mut Entrance,
        visitor: &hba::Visitor<'_>,
        message: &StartupMessage,
    ) -> Result<Credentials, AdmissionError> {
        let base = rules.config.auth.failed_login_backoff;
        let Some(address) = visitor.address.filter(|_| !base.is_zero()) else {
            return self.identify(rules, entrance, visitor, message).await;
        };
        if self.must_wait(rules, visitor) {
            return Err(AdmissionError::BackedOff);
        }
        let identified = self.identify(rules, entrance, visitor, message).await;
        if identified
            .as_ref()
            .is_err_and(AdmissionError::is_failed_proof)
        {
            self.backoff().on_failure(address, base, (self.clock)());
        }
        identified
    }

    /// Whether too many from its address have failed. Asked again before each message is judged: guesses that came in together would
    /// else all be heard.
    fn must_wait(&self, rules: &Rules, visitor: &hba::Visitor<'_>) -> bool {
        let is_on = !rules.config.auth.failed_login_backoff.is_zero();
        let address = visitor.address.filter(|_| is_on);
        address.is_some_and(|address| self.backoff().must_wait(address, (self.clock)()))
    }

    fn backoff(&self) -> MutexGuard<'_, Backoff> {
        self.backoff.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the client prove who it is. AuthenticationOk stands in `out` at the end.
    async fn identify(
        &self,
        rules: &Rules,
        entrance: &mut Entrance,
        visitor: &hba::Visitor<'_>,
        message: &StartupMessage,
    ) -> Result<Credentials, AdmissionError> {
        let demand = rules.demand(visitor).map_err(|why| match why {
            NotWelcome::NoRule => AdmissionError::NoRule,
            NotWelcome::Rejected => AdmissionError::Rejected,
        })?;
        let user = visitor.user;
        let Standing {
            is_known,
            was_asked,
            password: kept_password,
            held,
            unanswered,
        } = self.standing(rules, visitor, demand.proof).await?;
        let challenge = match demand.proof {
            Proof::Challenge(challenge) => challenge,
            Proof::Any => {
                let database = rules.config.database(visitor.database);
                if database.is_some_and(|database| database.user.is_none()) {
                    return Err(AdmissionError::NobodyToBe);
                }
                Challenge::Nothing
            }
            Proof::Trust => Challenge::Nothing,
            Proof::Cert => {
                let names = entrance.certificate_names().unwrap_or_default();
                if !is_known || !demand.allows(rules, &names, user) {
                    return Err(AdmissionError::Certificate);
                }
                Challenge::Nothing
            }
            Proof::Peer => {
                let names = Vec::from_iter(entrance.system_user());
                if !is_known || !demand.allows(rules, &names, user) {
                    return Err(AdmissionError::Peer);
                }
                Challenge::Nothing
            }
        };
        if challenge == Challenge::Scram && !held.is_ready() {
            let held = Arc::clone(&held);
            let making = move || {
                held.scram();
            };
            // If it could not be done there, it is done when they are needed.
            let _ = self.key_makers.run(making).await;
        }
        let request = ClientLoginRequest {
            user: &message.user,
            challenge,
            held: &held,
            nonce: match challenge {
                Challenge::Nothing => Nonce::default(),
                _ => random(),
            },
            binding: rules
                .tls
                .binding
                .as_deref()
                .filter(|_| visitor.is_encrypted),
        };
        let may_go_on = || !self.must_wait(rules, visitor);
        let LoggedIn {
            password,
            scram_keys,
        } = match entrance.log_in(request, may_go_on, &self.key_makers).await {
            Ok(shown) => shown,
            Err(AdmissionError::Login(error @ LoginError::WrongPassword { .. })) => {
                let is_of_user = unanswered.is_none();
                let unanswered = match unanswered {
                    None if !was_asked => self.unanswered(rules, visitor).await,
                    unanswered => unanswered,
                };
                // Nobody can be told which names are configured while nothing is known of the others.
                return Err(match unanswered {
                    Some(error) => AdmissionError::Inquiry { error, is_of_user },
                    None => error.into(),
                });
            }
            Err(error) => return Err(error),
        };
        if !is_known && demand.proof != Proof::Any {
            return Err(AdmissionError::UnknownUser {
                name: message.user.clone(),
                was_asked,
            });
        }
        Ok(Credentials {
            password: password.or(kept_password),
            scram_keys,
        })
    }
}

/// The rules of a configuration. One that has been checked has some; else nobody is let in.
fn rules_of(config: Arc<Config>, secret: &MockSecret, former: Option<&Rules>) -> Rules {
    let rules = Rules::new(Arc::clone(&config), secret, former).unwrap_or_else(|error| {
        tracing::error!("nobody is let in: {error}");
        Rules::closed(config, secret)
    });
    rules.make_keys();
    rules
}

/// What salts are made of. It should be the same after a restart, and in another process for the same clients: a salt that changes is
/// not that of a user whose verifier is kept. And nobody should guess it: passwords would be found out from salts, so that it is
/// made of the private key that clients know the proxy by, else of what this machine is known by (machine-id(5)).
fn mock_secret_of(config: &Config) -> MockSecret {
    if let Some(key) = &config.listen.tls.key {
        return MockSecret::derived_from(key.text.expose().as_bytes());
    }
    match std::fs::read("/etc/machine-id") {
        Ok(id) if id.len() >= 32 => MockSecret::derived_from(&id),
        _ => MockSecret::new(random()),
    }
}

#[expect(clippy::large_enum_variant, reason = "moved once per login")]
enum Admission {
    Client {
        message: StartupMessage,
        version: ProtocolVersion,
        credentials: Credentials,
        place: Place,
    },
    Cancel(CancelKey),
    Console(Visit),
}

fn account_of(message: &StartupMessage) -> Account {
    Account {
        database: text(&message.database),
        user: text(&message.user),
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
