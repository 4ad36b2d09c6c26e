//! From what is written to what holds: defaults, inheritance, secrets from variables and files.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::defaults::DEFAULT_PORT;
use super::file::StatisticsTable;
use super::file::{
    AnnotationTable, AuthTable, ConfigFile, DatabaseTable, ListenTable, LogTable, PeerTable,
    SlowQueryTable, TcpTable, TraceTable, UserTable,
};
use super::findings::Findings;
use super::pool::PoolSettings;
use super::secret::Secret;
use super::tls::{Secrecy, ServerTlsTable, TextFile, Tls, TlsMode};
use super::units::{Number, SecretText, TimeLimit};
use super::userlist::parse_userlist;
use super::{
    Annotation, Auth, Config, Console, Database, Dns, Drain, HbaFile, Host, Http, Listen, Log,
    Otlp, PasswordFile, Peer, Process, SlowQuery, Tcp, Trace, UnixSocket, User, Workers,
};
use super::{CONSOLE_NAMES, Statistics};

/// What a configuration may ask of the outside.
pub(super) struct Surroundings<'a> {
    /// The value of a variable.
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
    /// The content of a file.
    pub(super) read: &'a dyn Fn(&Path) -> io::Result<PasswordFile>,
    /// The folder that relative names of files start from: the one of the configuration.
    pub(super) folder: &'a Path,
    /// The name of a configuration that everyone can read, until somebody has been told.
    pub(super) exposed: Cell<Option<&'a str>>,
}

impl Config {
    /// What holds. With errors among the findings the value is not to be used.
    pub(super) fn resolve(
        file: ConfigFile,
        surroundings: &Surroundings<'_>,
        findings: &mut Findings,
    ) -> Self {
        let default = Self::default();
        let pool = default.pool.overridden_by(&file.pool);
        let server_tls =
            file.server_tls
                .resolve(&default.server_tls, &["server_tls"], surroundings, findings);
        let databases = file
            .databases
            .into_iter()
            .map(|(name, table)| {
                let database =
                    resolve_database(&name, table, &pool, &server_tls, surroundings, findings);
                (name, database)
            })
            .collect();
        let mut users: BTreeMap<Box<str>, User> = file
            .users
            .into_iter()
            .map(|(name, table)| {
                let user = resolve_user(&name, table, surroundings, findings);
                (name, user)
            })
            .collect();
        let auth = resolve_auth(file.auth, default.auth, &mut users, surroundings, findings);
        let peers = file
            .peers
            .into_iter()
            .filter_map(|(id, table)| resolve_peer(&id, table, findings))
            .collect();
        Self {
            peers,
            listen: resolve_listen(file.listen, default.listen, surroundings, findings),
            http: Http {
                address: file.http.address.map_or(default.http.address, |it| it.0),
                fold_unknown_names: file
                    .http
                    .fold_unknown_names
                    .unwrap_or(default.http.fold_unknown_names),
            },
            auth,
            console: Console {
                admin_users: file.console.admin_users,
                stats_users: file.console.stats_users,
            },
            workers: Workers {
                count: file.workers.count.map_or(default.workers.count, |it| it.0),
                min_servers_each: (file.workers.min_servers_each)
                    .map_or(default.workers.min_servers_each, |it| it.0),
            },
            pool,
            server_tls,
            databases,
            users,
            trace: resolve_trace(file.trace, default.trace),
            annotation: resolve_annotation(file.annotation, default.annotation),
            slow_query: resolve_slow_query(file.slow_query, default.slow_query),
            statistics: resolve_statistics(&file.statistics, default.statistics),
            otlp: Otlp::resolve(file.otlp, surroundings, findings),
            log: resolve_log(file.log, default.log, surroundings.folder),
            process: Process {
                pid_file: file_in(surroundings.folder, file.process.pid_file),
                user: file.process.user.filter(|user| !user.is_empty()),
            },
            written: default.written,
            tcp: resolve_tcp(&file.tcp, default.tcp),
            dns: Dns {
                max_ttl: file.dns.max_ttl.map_or(default.dns.max_ttl, |it| it.0),
                nxdomain_ttl: file
                    .dns
                    .nxdomain_ttl
                    .map_or(default.dns.nxdomain_ttl, |it| it.0),
            },
            drain: Drain {
                on_sigterm: file.drain.on_sigterm.unwrap_or(default.drain.on_sigterm),
                timeout: file.drain.timeout.map_or(default.drain.timeout, |it| it.0),
            },
        }
    }
}

fn resolve_listen(
    table: ListenTable,
    default: Listen,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> Listen {
    let path = ["listen", "tls"];
    let tls = ServerTlsTable::from(table.tls).resolve(&default.tls, &path, surroundings, findings);
    if tls.mode != TlsMode::Disable && tls.cert.is_none() {
        findings.error(
            &["listen", "tls", "mode"],
            "the mode needs `cert` and `key`",
        );
    }
    let addresses = table.address.map_or(default.addresses, |it| it.0);
    let unix_socket = table
        .unix_socket_dir
        .filter(|folder| !folder.is_empty())
        .map(|folder| {
            if !folder.starts_with(['/', '@']) {
                let message =
                    "expected a folder's whole path, or @ and a name for an abstract socket";
                findings.error(&["listen", "unix_socket_dir"], message);
            }
            let first = addresses.first().map(SocketAddr::port);
            let usual = first.filter(|port| *port != 0).unwrap_or(DEFAULT_PORT);
            UnixSocket {
                folder,
                port: table.unix_socket_port.map_or(usual, |it| it.0),
                mode: table.unix_socket_mode.map_or(0o777, |it| it.0),
                group: table.unix_socket_group.filter(|group| !group.is_empty()),
            }
        });
    if addresses.is_empty() && unix_socket.is_none() {
        let message = "clients can connect nowhere: give an address or `unix_socket_dir`";
        findings.error(&["listen", "address"], message);
    }
    let peer_id = table
        .peer_id
        .map_or_else(|| usize::from(default.peer_id), |it| it.0);
    let peer_id = u8::try_from(peer_id).ok().filter(|id| *id <= MAX_PEER_ID);
    if peer_id.is_none() {
        findings.error(&["listen", "peer_id"], "expected a number from 0 to 127");
    }
    Listen {
        peer_id: peer_id.unwrap_or_default(),
        addresses,
        reuse_port: table.reuse_port.unwrap_or(default.reuse_port),
        unix_socket,
        max_client_connections: table
            .max_client_connections
            .map_or(default.max_client_connections, |it| it.0),
        login_timeout: table.login_timeout.map_or(default.login_timeout, |it| it.0),
        backlog: table.backlog.map_or(default.backlog, |it| it.0),
        max_unauthenticated_connections: table
            .max_unauthenticated_connections
            .map_or(default.max_unauthenticated_connections, |it| it.0),
        tls,
    }
}

fn resolve_log(table: LogTable, default: Log, folder: &Path) -> Log {
    Log {
        format: table.format.unwrap_or(default.format),
        level: table.level.unwrap_or(default.level),
        file: file_in(folder, table.file),
        connections: table.connections.unwrap_or(default.connections),
        disconnections: table.disconnections.unwrap_or(default.disconnections),
        pooler_errors: table.pooler_errors.unwrap_or(default.pooler_errors),
        stats: table.stats.unwrap_or(default.stats),
        stats_period: table.stats_period.map_or(default.stats_period, |it| it.0),
        syslog: table.syslog.unwrap_or(default.syslog),
        syslog_ident: table.syslog_ident.unwrap_or(default.syslog_ident),
        syslog_facility: table.syslog_facility.unwrap_or(default.syslog_facility),
    }
}

/// A file's name from the folder of the configuration on; an empty one names none.
fn file_in(folder: &Path, name: Option<PathBuf>) -> Option<PathBuf> {
    let name = name.filter(|name| !name.as_os_str().is_empty())?;
    Some(folder.join(name))
}

fn resolve_auth(
    table: AuthTable,
    default: Auth,
    users: &mut BTreeMap<Box<str>, User>,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> Auth {
    let mut file = |key: &'static str, name: Option<PathBuf>, secrecy| {
        let name = name.filter(|name| !name.as_os_str().is_empty())?;
        read_file(&name, &["auth", key], secrecy, surroundings, findings)
    };
    let userlist = file("userlist", table.userlist, Secrecy::Secret);
    let ident = file("ident_file", table.ident_file, Secrecy::Public);
    let hba = file("hba_file", table.hba_file, Secrecy::Public);
    if let Some(userlist) = &userlist {
        add_users(userlist, users, findings);
    }
    let named = |name: Option<Box<str>>| name.filter(|name| !name.is_empty());
    if let Some(name) = (table.dbname.as_deref()).filter(|name| CONSOLE_NAMES.contains(name)) {
        let message = format!("cannot use the reserved \"{name}\" database as an auth_dbname");
        findings.warn(&["auth", "dbname"], message);
    }
    Auth {
        method: table.method.unwrap_or(default.method),
        error_texts: table.error_texts.unwrap_or(default.error_texts),
        userlist: userlist.map(|file| file.name),
        hba: hba.map(|file| HbaFile {
            included: included_files(&file, surroundings),
            file,
        }),
        ident,
        user: named(table.user),
        query: named(table.query).unwrap_or(default.query),
        dbname: named(table.dbname),
        cache_size: table.cache_size.map_or(default.cache_size, |it| it.0),
        cache_ttl: table.cache_ttl.map_or(default.cache_ttl, |it| it.0),
        scram_iterations: table
            .scram_iterations
            .map_or(default.scram_iterations, |it| it.0),
        failed_login_backoff: table
            .failed_login_backoff
            .map_or(default.failed_login_backoff, |it| it.0),
    }
}

/// The users of a userlist join the configured ones, whose own passwords win.
fn add_users(userlist: &TextFile, users: &mut BTreeMap<Box<str>, User>, findings: &mut Findings) {
    let lines = match parse_userlist(userlist.text.expose()) {
        Ok(lines) => lines,
        Err(line) => {
            let message = format!("{}:{line}: expected \"user\" \"password\"", userlist.name);
            findings.error(&["auth", "userlist"], message);
            return;
        }
    };
    for line in lines {
        let user = users.entry((*line.user).into()).or_default();
        user.is_known = true;
        if user.password.is_none() && !line.password.is_empty() {
            user.password = Some(Secret::new(&*line.password));
        }
    }
}

/// The files that stand for names in a file of rules: `@file`. Those that cannot be read are left out: the rules miss them.
fn included_files(
    file: &TextFile,
    surroundings: &Surroundings<'_>,
) -> BTreeMap<Box<str>, TextFile> {
    /// More than anybody keeps in order.
    const MAX_FILES: usize = 100;
    let mut included = BTreeMap::new();
    let folder = Path::new(&*file.name)
        .parent()
        .unwrap_or_else(|| Path::new(""));
    let mut texts = vec![file.text.clone()];
    while let Some(text) = texts.pop() {
        for line in text.expose().lines() {
            let line = line.split('#').next().unwrap_or_default();
            let names = line
                .split(|letter: char| letter == ',' || letter.is_whitespace())
                .filter_map(|word| word.strip_prefix('@'));
            for name in names {
                if included.contains_key(name) || included.len() >= MAX_FILES {
                    continue;
                }
                let path = folder.join(name);
                if let Ok(content) = (surroundings.read)(&path) {
                    texts.push(content.text.clone());
                    included.insert(
                        name.into(),
                        TextFile {
                            name: path.to_string_lossy().into(),
                            text: content.text,
                        },
                    );
                }
            }
        }
    }
    included
}

/// A file's text; `path` is the key that names it.
pub(super) fn read_file(
    name: &Path,
    path: &[&str],
    secrecy: Secrecy,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> Option<TextFile> {
    let name = surroundings.folder.join(name);
    let content = match (surroundings.read)(&name) {
        Ok(content) => content,
        Err(error) => {
            findings.error(path, format!("{} cannot be read: {error}", name.display()));
            return None;
        }
    };
    if content.is_readable_by_everyone && secrecy == Secrecy::Secret {
        let message = format!("{} can be read by everyone: chmod 600", name.display());
        findings.warn(path, message);
    }
    Some(TextFile {
        name: name.to_string_lossy().into(),
        text: content.text,
    })
}

/// What a process id has room for.
const MAX_PEER_ID: u8 = 127;

fn resolve_peer(id: &str, table: PeerTable, findings: &mut Findings) -> Option<(u8, Peer)> {
    let number = id.parse().ok().filter(|id| (1..=MAX_PEER_ID).contains(id));
    if number.is_none() {
        findings.error(&["peers", id], "a peer has a number from 1 to 127");
    }
    let host = match table.host.as_deref().map(Host::parse) {
        Some(Ok(host)) => Some(host),
        Some(Err(why)) => {
            findings.error(&["peers", id, "host"], why);
            None
        }
        None => {
            findings.error(&["peers", id], "`host` is missing");
            None
        }
    };
    let port = table.port.map_or(DEFAULT_PORT, |it| it.0);
    Some((number?, Peer { host: host?, port }))
}

fn resolve_tcp(table: &TcpTable, default: Tcp) -> Tcp {
    let or = |written: &Option<TimeLimit>, default| written.as_ref().map_or(default, |it| it.0);
    Tcp {
        keepalive: table.keepalive.unwrap_or(default.keepalive),
        keepalive_idle: or(&table.keepalive_idle, default.keepalive_idle),
        keepalive_interval: or(&table.keepalive_interval, default.keepalive_interval),
        keepalive_retries: table
            .keepalive_retries
            .as_ref()
            .map_or(default.keepalive_retries, |it| it.0),
        user_timeout: or(&table.user_timeout, default.user_timeout),
    }
}

fn resolve_trace(table: TraceTable, default: Trace) -> Trace {
    Trace {
        on_missing: table.on_missing.unwrap_or(default.on_missing),
        absorb_application_name: table
            .absorb_application_name
            .unwrap_or(default.absorb_application_name),
        allowed_tags: table.allowed_tags.unwrap_or(default.allowed_tags),
        max_tag_length: table
            .max_tag_length
            .map_or(default.max_tag_length, |it| it.0),
        max_tracestate_length: table
            .max_tracestate_length
            .map_or(default.max_tracestate_length, |it| it.0),
        stale_transactions: table
            .stale_transactions
            .map_or(default.stale_transactions, |it| it.0),
        stale_after: table.stale_after.map_or(default.stale_after, |it| it.0),
    }
}

fn resolve_annotation(table: AnnotationTable, default: Annotation) -> Annotation {
    Annotation {
        enabled: table.enabled.unwrap_or(default.enabled),
        format: table.format.unwrap_or(default.format),
        placement: table.placement.unwrap_or(default.placement),
        max_query_bytes: table
            .max_query_bytes
            .map_or(default.max_query_bytes, |it| it.0),
        unnamed_parse: table.unnamed_parse.unwrap_or(default.unnamed_parse),
        prepared: table.prepared.unwrap_or(default.prepared),
    }
}

fn resolve_slow_query(table: SlowQueryTable, default: SlowQuery) -> SlowQuery {
    SlowQuery {
        threshold: table.threshold.map_or(default.threshold, |it| it.0),
        wait_threshold: table
            .wait_threshold
            .map_or(default.wait_threshold, |it| it.0),
        log: table.log.unwrap_or(default.log),
        ratio: table.ratio.map_or(default.ratio, |it| it.0),
        text_limit: table.text_limit.map_or(default.text_limit, |it| it.0),
        masked: table.masked.unwrap_or(default.masked),
    }
}

fn resolve_statistics(table: &StatisticsTable, default: Statistics) -> Statistics {
    let limit = |written: &Option<Number>, default| written.as_ref().map_or(default, |it| it.0);
    Statistics {
        max_statements: limit(&table.max_statements, default.max_statements),
        max_traced_queries: limit(&table.max_traced_queries, default.max_traced_queries),
        max_slow_queries: limit(&table.max_slow_queries, default.max_slow_queries),
    }
}

fn resolve_database(
    name: &str,
    table: DatabaseTable,
    pool: &PoolSettings,
    server_tls: &Tls,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> Database {
    let default = Database::default();
    let mut hosts = Vec::new();
    for host in table.host.iter().flat_map(|list| &list.0) {
        match Host::parse(host) {
            Ok(host) => hosts.push(host),
            Err(why) => findings.error(&["databases", name, "host"], why),
        }
    }
    if hosts.is_empty() {
        hosts = default.hosts;
    }
    if table.password.is_some() && table.user.is_none() {
        let path = ["databases", name, "password"];
        findings.error(&path, "a password needs the `user` that it belongs to");
    }
    let path = ["databases", name, "password"];
    Database {
        hosts,
        port: table.port.map_or(default.port, |it| it.0),
        dbname: table.dbname.or_else(|| (name != "*").then(|| name.into())),
        user: table.user,
        password: table
            .password
            .and_then(|text| written_secret(&text, &path, surroundings, findings)),
        auth_user: table.auth_user,
        auth_query: table.auth_query,
        auth_dbname: table.auth_dbname,
        tls: table.tls.resolve(
            server_tls,
            &["databases", name, "tls"],
            surroundings,
            findings,
        ),
        tags: table.tags,
        pool: pool.overridden_by(&table.pool),
    }
}

fn resolve_user(
    name: &str,
    table: UserTable,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> User {
    let password = match (table.password, table.password_file) {
        (None, None) => None,
        (Some(_), Some(_)) => {
            let path = ["users", name, "password_file"];
            findings.error(&path, "either it or `password`, not both");
            None
        }
        (Some(text), None) => {
            written_secret(&text, &["users", name, "password"], surroundings, findings)
        }
        (None, Some(file)) => {
            let path = ["users", name, "password_file"];
            secret_from_file(&file, &path, surroundings, findings)
        }
    };
    User {
        is_known: table.known.unwrap_or(true) || password.is_some(),
        password,
        tags: table.tags,
        pool: table.pool,
    }
}

fn written_secret(
    text: &SecretText,
    path: &[&str],
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> Option<Secret> {
    if !text.0.expose().contains("${")
        && let Some(name) = surroundings.exposed.take()
    {
        let message = format!("a secret stands in {name}, which everyone can read: chmod 600");
        findings.warn(path, message);
    }
    match surroundings.expand(&text.0) {
        Ok(secret) if secret.expose().is_empty() => findings.error(path, "it cannot be empty"),
        Ok(secret) => return Some(secret),
        Err(why) => findings.error(path, why),
    }
    None
}

/// The file's text without the end of its last line.
fn secret_from_file(
    file: &Path,
    path: &[&str],
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> Option<Secret> {
    let file: PathBuf = surroundings.folder.join(file);
    let content = match (surroundings.read)(&file) {
        Ok(content) => content,
        Err(error) => {
            findings.error(path, format!("{} cannot be read: {error}", file.display()));
            return None;
        }
    };
    if content.is_readable_by_everyone {
        let message = format!("{} can be read by everyone: chmod 600", file.display());
        findings.warn(path, message);
    }
    let text = content.text.expose();
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() || text.contains('\n') {
        let message = format!("{} should hold the password in one line", file.display());
        findings.error(path, message);
        return None;
    }
    Some(Secret::new(text))
}

impl Surroundings<'_> {
    /// The secret with each `${NAME}` replaced by that variable; `$${` stands for `${`. Values are not expanded again.
    /// The reason names the variable, never the text.
    pub(super) fn expand(&self, secret: &Secret) -> Result<Secret, String> {
        let mut rest = secret.expose();
        let mut text = zeroize::Zeroizing::new(String::new());
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(escaped) = before.strip_suffix('$') {
                text.push_str(escaped);
                text.push_str("${");
                rest = after;
                continue;
            }
            text.push_str(before);
            let (name, behind) = after
                .split_once('}')
                .filter(|(name, _)| is_variable_name(name))
                .ok_or("expected ${NAME} with the name of a variable, or $${ for the characters themselves")?;
            let value = (self.environment)(name)
                .ok_or_else(|| format!("the environment variable {name} is not set"))?;
            text.push_str(&zeroize::Zeroizing::new(value));
            rest = behind;
        }
        text.push_str(rest);
        Ok(Secret::new(text.as_str()))
    }
}

fn is_variable_name(name: &str) -> bool {
    !name.starts_with(|letter: char| letter.is_ascii_digit())
        && !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Tags of a database, and those of a user that win.
pub(super) fn merge_tags(
    database: Option<&BTreeMap<Box<str>, Box<str>>>,
    user: Option<&BTreeMap<Box<str>, Box<str>>>,
) -> Vec<(Box<str>, Box<str>)> {
    let mut merged = BTreeMap::new();
    for tags in [database, user].into_iter().flatten() {
        merged.extend(tags.iter());
    }
    merged
        .into_iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
