//! The configuration: what config.toml says, checked and complete.
//!
//! Two steps: `file` is config.toml as written, [`Config`] is what holds. A `Config` is a plain value that is handed
//! down in parts and replaced whole on reload. This floor reads no file and no environment: both come in as closures.

pub mod choices;
pub mod ini;
pub mod secret;

mod check;
mod defaults;
mod file;
mod findings;
mod otlp;
mod pool;
mod problem;
mod reader;
mod resolve;
pub mod tls;
mod units;
pub mod userlist;

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

pub use self::otlp::Otlp;
pub use self::pool::{EMPTY_QUERY, PoolOverrides, PoolSettings};
pub use self::problem::{ConfigErrors, Position, Problem};

use self::choices::{
    AuthMethod, CommentFormat, ErrorTexts, LogFormat, LogLevel, OnMissing, OnSigterm, Placement,
    PreparedChannel, SyslogFacility, WorkerCount,
};
use self::file::ConfigFile;
use self::findings::{Document, Finding, Findings, problems_of};
use self::resolve::Surroundings;
use self::secret::Secret;
use self::tls::{TextFile, Tls};

/// Everything that can be set, complete and consistent. Its `Debug` shows no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect.
    pub listen: Listen,
    /// Where metrics, health and traces are served.
    pub http: Http,
    /// How clients prove who they are.
    pub auth: Auth,
    /// Who may use the console.
    pub console: Console,
    /// Who does the work.
    pub workers: Workers,
    /// The settings of a pool whose database and user say nothing else.
    pub pool: PoolSettings,
    /// How connections to servers are encrypted whose database says nothing else.
    pub server_tls: Tls,
    /// The databases by the name that clients ask for; `*` serves every other name.
    pub databases: BTreeMap<Box<str>, Database>,
    /// The users by name.
    pub users: BTreeMap<Box<str>, User>,
    /// The other processes that clients may reach at the same address, by their [`Listen::peer_id`]: cancels are passed on to them.
    pub peers: BTreeMap<u8, Peer>,
    /// Which trace context is accepted.
    pub trace: Trace,
    /// How queries are annotated.
    pub annotation: Annotation,
    /// Which queries are worth a span and a line in the log.
    pub slow_query: SlowQuery,
    /// What is remembered of queries.
    pub statistics: Statistics,
    /// Where spans go.
    pub otlp: Otlp,
    /// How the log looks.
    pub log: Log,
    /// How a shutdown goes.
    pub drain: Drain,
    /// What the process is beside a proxy.
    pub process: Process,
    /// How TCP connections are kept.
    pub tcp: Tcp,
    /// How long it holds where names lead.
    pub dns: Dns,
    /// The settings of PgBouncer as its ini file wrote them, if it was one: what the console shows of those without a
    /// counterpart.
    pub written: BTreeMap<Box<str>, Box<str>>,
}

/// `[listen]`: where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The TCP addresses; with port 0 the system chooses one.
    pub addresses: Vec<SocketAddr>,
    /// Whether other processes may listen on the same addresses, and the kernel deals connections among all.
    pub reuse_port: bool,
    /// The unix socket, if there is to be one.
    pub unix_socket: Option<UnixSocket>,
    /// Which of several processes this is that clients reach at the same address, 1 to 127; 0: it is the only one.
    pub peer_id: u8,
    /// The most clients at a time; the next one is refused.
    pub max_client_connections: NonZeroUsize,
    /// How long a client may take to log in.
    pub login_timeout: Duration,
    /// The length of the kernel's queue of connections not yet accepted, 1 to 2³¹-1.
    pub backlog: u32,
    /// The most connections that have not proved yet who they are; beyond it the oldest of them is closed.
    pub max_unauthenticated_connections: NonZeroUsize,
    /// What encryption clients are offered.
    pub tls: Tls,
}

impl Listen {
    /// The port of the first address, or the one in the unix socket's name.
    pub fn port(&self) -> u16 {
        match (self.addresses.first(), &self.unix_socket) {
            (Some(address), _) => address.port(),
            (None, Some(socket)) => socket.port,
            (None, None) => 0,
        }
    }
}

/// The unix socket that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// The folder that it is in; an abstract one begins with `@`.
    pub folder: Box<str>,
    /// The number in its name: `.s.PGSQL.<port>`.
    pub port: u16,
    /// Who may connect: the bits of its mode.
    pub mode: u32,
    /// The group that it belongs to; `None`: the process's.
    pub group: Option<Box<str>>,
}

impl UnixSocket {
    /// Its path; an abstract one's is its name.
    pub fn path(&self) -> PathBuf {
        format!("{}/.s.PGSQL.{}", self.folder, self.port).into()
    }

    /// Whether it is a name only, and no file.
    pub fn is_abstract(&self) -> bool {
        self.folder.starts_with('@')
    }
}

/// `[http]`: metrics, health and traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The address; `None`: they are served nowhere.
    pub address: Option<SocketAddr>,
    /// Whether databases and users that the configuration does not name share one label in the metrics, `other`.
    pub fold_unknown_names: bool,
}

/// `[auth]`: how clients prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// The way.
    pub method: AuthMethod,
    /// In whose words a client is told why it is not let in.
    pub error_texts: ErrorTexts,
    /// The file that further users came from; they stand among [`Config::users`].
    pub userlist: Option<Box<str>>,
    /// Who may come from where, and how: with [`AuthMethod::Hba`].
    pub hba: Option<HbaFile>,
    /// Which names of systems and certificates are which users.
    pub ident: Option<TextFile>,
    /// Who asks a server about users that are not configured; `None`: nobody does.
    pub user: Option<Box<str>>,
    /// What is asked: a name and a password for `$1`.
    pub query: Box<str>,
    /// The database in which it is asked; `None`: the one that the client wants.
    pub dbname: Option<Box<str>>,
    /// How many answers are kept.
    pub cache_size: usize,
    /// How long an answer is kept; zero: not at all.
    pub cache_ttl: Duration,
    /// How many rounds a SCRAM key gets that is made of a configured password.
    pub scram_iterations: NonZeroU32,
    /// How long an address has to wait after a failed login, doubled by each further one; zero: it need not.
    pub failed_login_backoff: Duration,
}

/// A file of rules, and those that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HbaFile {
    /// The file itself.
    pub file: TextFile,
    /// The files of names (`@file`), by what stands in the rules.
    pub included: BTreeMap<Box<str>, TextFile>,
}

/// `[console]`: who may use the database `pgbouncer`, beside the user `pgbouncer` of the same system user over a unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Console {
    /// Users who may do everything there.
    pub admin_users: Vec<Box<str>>,
    /// Users who may ask there, and change nothing.
    pub stats_users: Vec<Box<str>>,
}

/// What a user of the console may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleRole {
    /// Everything.
    Admin,
    /// Ask, and change nothing.
    Stats,
}

/// The names of the console among the databases.
pub const CONSOLE_NAMES: [&str; 2] = ["pgbouncer", "pgspan"];

/// `[workers]`: the threads that serve clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    /// How many.
    pub count: WorkerCount,
    /// A pool is spread over as many workers as it has so many servers for.
    pub min_servers_each: NonZeroUsize,
}

/// `[databases.NAME]`: where a name leads, and what holds there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Where its servers are, at least one.
    pub hosts: Vec<Host>,
    /// The server's port, also the number in the name of a unix socket.
    pub port: u16,
    /// The database's name on the server; `None`, which only `*` has: the name that the client asked for.
    pub dbname: Option<Box<str>>,
    /// Who logs in there on behalf of every client; `None`: the client's user.
    pub user: Option<Box<str>>,
    /// That user's password, if the server asks for one; `None`: the one in [`Config::users`], if any.
    pub password: Option<Secret>,
    /// What holds here instead of [`Auth::user`].
    pub auth_user: Option<Box<str>>,
    /// What holds here instead of [`Auth::query`].
    pub auth_query: Option<Box<str>>,
    /// What holds here instead of [`Auth::dbname`].
    pub auth_dbname: Option<Box<str>>,
    /// How connections to its server are encrypted.
    pub tls: Tls,
    /// Tags that every query gets.
    pub tags: BTreeMap<Box<str>, Box<str>>,
    /// The settings of its pools, those of [`Config::pool`] included.
    pub pool: PoolSettings,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// At a name or an IP address, without brackets.
    Tcp(Box<str>),
    /// On the unix socket `.s.PGSQL.<port>` in this folder.
    SocketFolder(PathBuf),
    /// On an abstract unix socket: `@`, this name, and `/.s.PGSQL.<port>`.
    Abstract(Box<str>),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host) => f.write_str(host),
            Self::SocketFolder(folder) => write!(f, "{}", folder.display()),
            Self::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

/// `[users.NAME]`: who may log in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The password, or a SCRAM verifier in PostgreSQL's form; `None` only when nobody is asked for one.
    pub password: Option<Secret>,
    /// Whether there is such a user. Else these are settings of one that a userlist or `auth_query` may tell of.
    pub is_known: bool,
    /// Tags that every query gets; they win over the database's.
    pub tags: BTreeMap<Box<str>, Box<str>>,
    /// What differs in this user's pools, in every database.
    pub pool: PoolOverrides,
}

/// `[peers.ID]`: another process that clients may reach at the same address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it is, and nobody else.
    pub host: Host,
    /// Its port there, also the number in the name of a unix socket.
    pub port: u16,
}

/// `[trace]`: which trace context is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// What becomes of a transaction without one.
    pub on_missing: OnMissing,
    /// Whether an `application_name` that is a traceparent is taken as one, and kept from the server.
    pub absorb_application_name: bool,
    /// The keys that a tag may have.
    pub allowed_tags: Vec<Box<str>>,
    /// The longest value of a tag, in bytes.
    pub max_tag_length: NonZeroUsize,
    /// The longest tracestate, in bytes.
    pub max_tracestate_length: NonZeroUsize,
    /// A trace that more transactions of a session have than these is counted as stale.
    pub stale_transactions: NonZeroUsize,
    /// So is one that is in use for longer.
    pub stale_after: Duration,
}

/// `[annotation]`: how queries are annotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// Whether they are.
    pub enabled: bool,
    /// How the comment is written.
    pub format: CommentFormat,
    /// Where it stands.
    pub placement: Placement,
    /// The longest query that gets one, in bytes.
    pub max_query_bytes: NonZeroUsize,
    /// Whether unnamed statements of the extended protocol get one too.
    pub unnamed_parse: bool,
    /// How servers are told of the trace of prepared statements.
    pub prepared: PreparedChannel,
}

/// `[slow_query]`: which queries are worth a span and a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowQuery {
    /// Those that took at least this long; zero: all.
    pub threshold: Duration,
    /// Those that waited at least this long for a server; zero: all.
    pub wait_threshold: Duration,
    /// Whether there is a line in the log.
    pub log: bool,
    /// The share of the traces whose other queries become spans too.
    pub ratio: Share,
    /// How much of a query the log shows, in characters.
    pub text_limit: usize,
    /// Whether literals are left out of what is shown of a query, in the log and in spans.
    pub masked: bool,
}

/// `[statistics]`: what is remembered of queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// The most statements (by database, user and fingerprint) with figures; 0: none have.
    pub max_statements: usize,
    /// The most queries that can be looked up by their trace; 0: none can.
    pub max_traced_queries: usize,
    /// The most slow queries that can be shown; 0: none can.
    pub max_slow_queries: usize,
}

/// A share from none to all, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    millionths: u32,
}

impl Share {
    /// A number from 0 to 1; `None` for others.
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then(|| Self {
            millionths: (share * 1e6).round() as u32,
        })
    }

    /// From 0 to 1.
    pub fn as_f64(self) -> f64 {
        f64::from(self.millionths) / 1e6
    }
}

/// `[log]`: how the log looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How lines are written.
    pub format: LogFormat,
    /// Which are.
    pub level: LogLevel,
    /// The file that they are appended to; `None`: standard error.
    pub file: Option<PathBuf>,
    /// Whether logins are among them.
    pub connections: bool,
    /// Whether partings are, of clients and of servers.
    pub disconnections: bool,
    /// Whether errors are that the proxy itself answers clients.
    pub pooler_errors: bool,
    /// Whether there is a line with averages in each `stats_period`.
    pub stats: bool,
    /// How long averages are taken over.
    pub stats_period: Duration,
    /// Whether the system's log gets them, too.
    pub syslog: bool,
    /// What the program is called there.
    pub syslog_ident: Box<str>,
    /// Which kind of program it is there.
    pub syslog_facility: SyslogFacility,
}

/// `[process]`: what the process is beside a proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// The file that its id is written to.
    pub pid_file: Option<PathBuf>,
    /// Who it becomes when root has started it.
    pub user: Option<Box<str>>,
}

/// `[tcp]`: how TCP connections are kept, those of clients and those to servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Whether a silent peer is asked now and then whether it is still there.
    pub keepalive: bool,
    /// How long it may be silent before that; `None`: as the system has it.
    pub keepalive_idle: Option<Duration>,
    /// How long it is waited for an answer; `None`: as the system has it.
    pub keepalive_interval: Option<Duration>,
    /// How often it may give none; `None`: as the system has it.
    pub keepalive_retries: Option<NonZeroUsize>,
    /// How long what was sent may go unacknowledged; `None`: as the system has it.
    pub user_timeout: Option<Duration>,
}

/// `[dns]`: how long it holds where names of servers lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dns {
    /// An answer with addresses.
    pub max_ttl: Duration,
    /// An answer that there are none.
    pub nxdomain_ttl: Duration,
}

/// `[drain]`: how a shutdown goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// What SIGTERM means.
    pub on_sigterm: OnSigterm,
    /// How long clients may stay after SIGTERM; `None`: as long as they like.
    pub timeout: Option<Duration>,
}

/// Puts what a later file says over what an earlier one says, key by key.
fn merge<'i>(earlier: &mut DeTable<'i>, later: &DeTable<'i>) {
    for (key, value) in later {
        match (earlier.get_mut(key), value.get_ref()) {
            (Some(known), DeValue::Table(table)) if known.get_ref().is_table() => {
                if let DeValue::Table(known) = known.get_mut() {
                    merge(known, table);
                }
            }
            _ => {
                earlier.insert(key.clone(), value.clone());
            }
        }
    }
}

/// What a reader of password files hands over.
pub struct PasswordFile {
    /// The file's text, as it is.
    pub text: Secret,
    /// Whether users of the system other than its owner and group may read it.
    pub is_readable_by_everyone: bool,
}

/// A config.toml: its name, which stands in messages, and its text.
#[derive(Clone, Copy)]
pub struct Layer<'a> {
    /// The name.
    pub name: &'a str,
    /// The text; it may hold secrets.
    pub text: &'a str,
}

/// A configuration, and what is doubtful about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The configuration.
    pub config: Config,
    /// What its author should know, in the order of the file.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// Reads a configuration.
    ///
    /// `name` is the file's name: it stands in messages, and relative password files start from its folder.
    /// `environment` answers the variables that secrets name, and the OTEL_* variables. `read` reads password files.
    ///
    /// # Errors
    /// Everything that is wrong: all mistakes of grammar, or else all wrong keys and values, or else all that do not
    /// fit together.
    pub fn from_toml(
        text: &str,
        name: &str,
        environment: &dyn Fn(&str) -> Option<String>,
        read: &dyn Fn(&Path) -> io::Result<PasswordFile>,
    ) -> Result<Checked, ConfigErrors> {
        let folder = Path::new(name).parent().unwrap_or_else(|| Path::new(""));
        let layer = Layer { name, text };
        Self::from_layers(&[layer], folder, environment, read)
    }

    /// Reads a configuration, and another one beside it whose settings win.
    ///
    /// # Errors
    /// As [`Config::from_toml`].
    pub fn from_toml_with(
        file: Layer<'_>,
        with: &[Layer<'_>],
        environment: &dyn Fn(&str) -> Option<String>,
        read: &dyn Fn(&Path) -> io::Result<PasswordFile>,
    ) -> Result<Checked, ConfigErrors> {
        let folder = Path::new(file.name)
            .parent()
            .unwrap_or_else(|| Path::new(""));
        let layers: Vec<_> = std::iter::once(file).chain(with.iter().copied()).collect();
        Self::from_layers(&layers, folder, environment, read)
    }

    /// Reads a PgBouncer configuration: what `ini` says, and `with` beside it, a config.toml whose settings win.
    ///
    /// # Errors
    /// As [`Config::from_toml`].
    pub fn from_ini(
        document: &ini::Document,
        name: &str,
        with: Option<Layer<'_>>,
        surroundings: &ini::Surroundings<'_>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Checked, ConfigErrors> {
        let translation = Self::translated(document, surroundings)?;
        let text = translation.to_toml();
        let layers: Vec<_> = std::iter::once(Layer { name, text: &text })
            .chain(with)
            .collect();
        let locate = |problem: Problem| match *problem.source == *name {
            true => translation.locate(problem),
            false => problem,
        };
        let checked =
            Self::from_layers(&layers, surroundings.folder, environment, surroundings.read);
        let mut checked = checked.map_err(|ConfigErrors(problems)| {
            ConfigErrors(problems.into_iter().map(&locate).collect())
        })?;
        checked.config.written = translation.written.clone();
        let warnings = checked.warnings.into_iter().map(locate);
        checked.warnings = translation
            .warnings
            .iter()
            .cloned()
            .chain(warnings)
            .collect();
        Ok(checked)
    }

    /// The config.toml that means what a PgBouncer configuration means.
    ///
    /// # Errors
    /// Everything that is wrong in its own terms.
    pub fn translated(
        document: &ini::Document,
        surroundings: &ini::Surroundings<'_>,
    ) -> Result<ini::Translation, ConfigErrors> {
        let mut translation = ini::Translation::of(document, surroundings).map_err(ConfigErrors)?;
        let text = translation.to_toml();
        if let Ok(table) = DeTable::parse(&text) {
            let (_, refusals) = reader::read::<ConfigFile>(table.get_ref());
            let unknown = refusals
                .iter()
                .filter(|refusal| matches!(refusal.reason, reader::Reason::UnknownKey(_)));
            translation.leave_out(unknown.map(|refusal| refusal.path.as_slice()));
        }
        Ok(translation)
    }

    /// Reads several files as one: what a later one says wins. Relative names of files start from `folder`.
    fn from_layers(
        layers: &[Layer<'_>],
        folder: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
        read: &dyn Fn(&Path) -> io::Result<PasswordFile>,
    ) -> Result<Checked, ConfigErrors> {
        let parsed: Vec<_> = layers
            .iter()
            .map(|layer| DeTable::parse_recoverable(layer.text))
            .collect();
        let mut documents = Vec::new();
        let mut problems = Vec::new();
        for (layer, (table, syntax_errors)) in layers.iter().zip(&parsed) {
            let document = Document {
                name: layer.name,
                text: layer.text,
                table: table.get_ref(),
            };
            problems.extend(syntax_errors.iter().map(|it| document.syntax_problem(it)));
            documents.push(document);
        }
        if problems.is_empty() {
            for document in &documents {
                let (_, refusals) = reader::read::<ConfigFile>(document.table);
                let findings = refusals.into_iter().map(Finding::from).collect();
                problems.extend(document.problems(findings));
            }
        }
        if !problems.is_empty() {
            return Err(ConfigErrors(problems));
        }
        let mut merged = DeTable::new();
        for document in &documents {
            merge(&mut merged, document.table);
        }
        let (file, _) = reader::read::<ConfigFile>(&merged);

        let is_exposed = |layer: &&Layer<'_>| {
            let content = read(Path::new(layer.name));
            content.is_ok_and(|content| content.is_readable_by_everyone)
        };
        let exposed = layers.iter().find(is_exposed).map(|layer| layer.name);
        let surroundings = Surroundings {
            environment,
            read,
            folder,
            exposed: Cell::new(exposed),
        };
        let mut findings = Findings::default();
        let config = Self::resolve(file, &surroundings, &mut findings);
        if findings.errors.is_empty() {
            config.check(&mut findings);
        }
        if !findings.errors.is_empty() {
            return Err(ConfigErrors(problems_of(&documents, findings.errors)));
        }
        let warnings = problems_of(&documents, findings.warnings);
        Ok(Checked { config, warnings })
    }

    /// Where the name that a client asked for leads. Its name on the server is [`Database::name_on_server`].
    pub fn database(&self, name: &str) -> Option<&Database> {
        self.databases.get(name).or_else(|| self.databases.get("*"))
    }

    /// Who may log in by this name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// Whose servers a user's queries run on in a database: a database with a `user` of its own has one pool for all.
    pub fn pool_user<'a>(&'a self, database: &str, user: &'a str) -> &'a str {
        let own = self.database(database).and_then(|it| it.user.as_deref());
        own.unwrap_or(user)
    }

    /// How the pool of a database and a user behaves: the user's word before the database's before that of `[pool]`.
    pub fn pool_settings(&self, database: &str, user: &str) -> PoolSettings {
        let settings = self
            .database(database)
            .map_or(&self.pool, |found| &found.pool);
        match self.user(user) {
            Some(user) => settings.overridden_by(&user.pool),
            None => settings.clone(),
        }
    }

    /// The tags that every query of a user in a database gets, sorted by key; the user's before the database's.
    pub fn tags(&self, database: &str, user: &str) -> Vec<(Box<str>, Box<str>)> {
        resolve::merge_tags(
            self.database(database).map(|found| &found.tags),
            self.user(user).map(|found| &found.tags),
        )
    }
}

impl Console {
    /// What this user may do; `None`: nothing, not even log in.
    pub fn role_of(&self, user: &str) -> Option<ConsoleRole> {
        let names = |users: &[Box<str>]| users.iter().any(|name| **name == *user);
        if names(&self.admin_users) {
            Some(ConsoleRole::Admin)
        } else {
            names(&self.stats_users).then_some(ConsoleRole::Stats)
        }
    }
}

impl Database {
    /// Its hosts as they are written, with commas between them.
    pub fn hosts_in_words(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(ToString::to_string).collect();
        hosts.join(",")
    }

    /// The database's name on the server, for a client that asked for `requested`.
    pub fn name_on_server<'a>(&'a self, requested: &'a str) -> &'a str {
        self.dbname.as_deref().unwrap_or(requested)
    }
}

impl Host {
    /// A name, an IP address or a folder; the reason says what else was written.
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.starts_with('/') {
            return match text.contains("/.s.PGSQL.") {
                true => Err("expected the folder of the unix socket, not the socket"),
                false => Ok(Self::SocketFolder(text.into())),
            };
        }
        let is_name = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        };
        match text {
            "" => Err("expected a host name, an IP address or the folder of a unix socket"),
            _ if text.parse::<IpAddr>().is_ok() || is_name(text) => Ok(Self::Tcp(text.into())),
            _ if text.contains("://") => Err("expected a host, not a URL"),
            "@" => Err("expected the name of an abstract unix socket behind the @"),
            _ if text.starts_with('@') && !text.contains('\0') => {
                Ok(Self::Abstract(text.trim_start_matches('@').into()))
            }
            _ if text.starts_with('[') => {
                Err("an IPv6 address stands here without brackets and port")
            }
            _ if text.contains(':') => Err("the port has a key of its own, `port`"),
            _ => Err("expected a host name, an IP address or the folder of a unix socket"),
        }
    }
}
