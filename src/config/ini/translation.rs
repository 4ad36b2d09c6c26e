//! The lines of an ini file → the text of a config.toml that means the same, with a note where it does not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::super::PasswordFile;
use super::super::findings::dotted;
use super::super::problem::Problem;
use super::super::reader::nearest;
use super::super::tls::Authorities;
use super::document::{Document, Entry, Place, Section, pairs};
use super::settings::{Effect, LOAD_BALANCE_HOSTS, POOL_MODES, SETTINGS, setting};
use super::values::{duration, file, quoted, secret, whole_number, word, words};

/// What a translation may ask of the outside.
pub struct Surroundings<'a> {
    /// The folder that relative names of files start from: the process's.
    pub folder: &'a Path,
    /// The addresses of a host's name that is to be listened on.
    pub resolve: &'a dyn Fn(&str) -> io::Result<Vec<IpAddr>>,
    /// The content of a file.
    pub read: &'a dyn Fn(&Path) -> io::Result<PasswordFile>,
}

/// A config.toml that means what an ini file means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// Its tables in the order that they are written, by name.
    tables: BTreeMap<String, Vec<Line>>,
    /// Where the lines come from, by the whole key.
    places: BTreeMap<String, Place>,
    /// What its author should know.
    pub warnings: Vec<Problem>,
    /// The settings of `[pgbouncer]` as they were written.
    pub written: BTreeMap<Box<str>, Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    key: String,
    literal: String,
    note: String,
}

/// What PgBouncer does and config.toml would not do by itself.
const BESIDE: &[(&str, &str, &str)] = &[
    (
        "auth.cache_ttl",
        "\"0\"",
        "PgBouncer asks anew for each login",
    ),
    (
        "auth.error_texts",
        "\"pgbouncer\"",
        "\"postgresql\" says what clients know",
    ),
    (
        "drain.on_sigterm",
        "\"wait-for-clients\"",
        "\"drain\" sends resting clients away at once",
    ),
    (
        "http.address",
        "\"\"",
        "\"127.0.0.1:9127\" serves metrics, health and the page",
    ),
    ("log.format", "\"pgbouncer\"", "or \"text\", or \"json\""),
    (
        "pool.session_state",
        "\"leak\"",
        "\"track\" keeps what a client sets from the next one",
    ),
    (
        "slow_query.log",
        "false",
        "true adds lines in JSON to the log",
    ),
];

impl Translation {
    /// Of these lines.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn of(document: &Document, surroundings: &Surroundings<'_>) -> Result<Self, Vec<Problem>> {
        let mut translator = Translator {
            translation: Self::default(),
            settings: BTreeMap::new(),
            errors: Vec::new(),
            surroundings,
        };
        for entry in &document.entries {
            if entry.section == Section::PgBouncer {
                translator.collect(entry);
            }
        }
        translator.settings();
        let of = |section| {
            let entries = document.entries.iter();
            // A later line replaces an earlier one of the same name.
            entries
                .filter(move |entry| entry.section == section)
                .map(|entry| (&entry.key, entry))
                .collect::<BTreeMap<_, _>>()
        };
        for entry in of(Section::Databases).values() {
            translator.database(entry);
        }
        for entry in of(Section::Users).values() {
            translator.user(entry);
        }
        for entry in of(Section::Peers).values() {
            translator.peer(entry);
        }
        match translator.errors.is_empty() {
            true => Ok(translator.translation),
            false => Err(translator.errors),
        }
    }

    /// The config.toml, with a note behind each line that needs one.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for (table, lines) in &self.tables {
            if !text.is_empty() {
                text.push('\n');
            }
            // Writing to a String cannot fail.
            let _ = writeln!(text, "[{table}]");
            for Line { key, literal, note } in lines {
                let _ = match note.as_str() {
                    "" => writeln!(text, "{key} = {literal}"),
                    note => writeln!(text, "{key} = {literal} # {note}"),
                };
            }
        }
        text
    }

    /// Leaves out what this version has no key for. A warning says so where the ini file names it.
    pub(in super::super) fn leave_out<'a>(&mut self, paths: impl Iterator<Item = &'a [String]>) {
        for path in paths {
            let dotted_path = dotted(path);
            for (table, lines) in &mut self.tables {
                lines.retain(|line| {
                    let whole = format!("{table}.{}", line.key);
                    whole != dotted_path && !whole.starts_with(&format!("{dotted_path}."))
                });
            }
            if let Some(place) = self.places.get(&dotted_path)
                && &*place.file != DEFAULT
            {
                let message = format!("{dotted_path} is not supported by this version");
                self.warnings.push(place.problem(&dotted_path, message));
            }
        }
        let names = |table: &str| table.starts_with("databases.") || table.starts_with("users.");
        self.tables
            .retain(|table, lines| !lines.is_empty() || names(table));
    }

    /// The problem of the translated text as one of the ini file's line, where it comes from one.
    pub fn locate(&self, problem: Problem) -> Problem {
        let mut key = &*problem.key;
        loop {
            if let Some(place) = self.places.get(key) {
                return place.problem(&problem.key, problem.message);
            }
            match key.rsplit_once('.') {
                Some((table, _)) => key = table,
                None => return problem,
            }
        }
    }

    fn put(&mut self, place: &Place, path: &str, literal: String, note: &str) {
        self.places.insert(path.to_owned(), place.clone());
        let (table, key) = path.rsplit_once('.').unwrap_or(("", path));
        self.put_in(table.to_owned(), key, literal, note);
    }

    fn put_in(&mut self, table: String, key: &str, literal: String, note: &str) {
        let lines = self.tables.entry(table).or_default();
        lines.retain(|line| line.key != key);
        lines.push(Line {
            key: key.to_owned(),
            literal,
            note: note.to_owned(),
        });
    }
}

/// What a setting is, and where that is written.
struct Value<'a> {
    text: &'a str,
    place: Place,
    is_written: bool,
}

struct Translator<'a> {
    translation: Translation,
    settings: BTreeMap<&'static str, &'a Entry>,
    errors: Vec<Problem>,
    surroundings: &'a Surroundings<'a>,
}

impl<'a> Translator<'a> {
    fn collect(&mut self, entry: &'a Entry) {
        let Some(known) = setting(&entry.key) else {
            let names: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).collect();
            let message = match nearest(&entry.key, &names) {
                Some(name) => format!(
                    "unknown parameter {} in [pgbouncer], did you mean {name}?",
                    entry.key
                ),
                None => format!("unknown parameter {} in [pgbouncer]", entry.key),
            };
            self.errors.push(entry.place.problem(&entry.key, message));
            return;
        };
        self.settings.insert(known.key, entry);
        let value = entry.value.expose().into();
        self.translation.written.insert(known.key.into(), value);
    }

    fn value(&self, key: &'static str) -> Value<'a> {
        match self.settings.get(key) {
            Some(entry) => Value {
                text: entry.value.expose(),
                place: entry.place.clone(),
                is_written: true,
            },
            None => Value {
                text: setting(key).and_then(|it| it.default).unwrap_or_default(),
                place: Place {
                    file: DEFAULT.into(),
                    line: 1,
                },
                is_written: false,
            },
        }
    }

    fn settings(&mut self) {
        for &(path, literal, note) in BESIDE {
            let (table, key) = path.rsplit_once('.').expect("a key of a table");
            let literal = literal.to_owned();
            self.translation.put_in(table.into(), key, literal, note);
        }
        for setting in SETTINGS {
            let value = self.value(setting.key);
            let (path, kind) = match &setting.effect {
                Effect::Same(path, kind) | Effect::Mapped(path, kind) => (*path, kind),
                Effect::Together(_) => continue,
                Effect::None => {
                    if value.is_written && value.text != setting.default.unwrap_or_default() {
                        let message = format!("{} has no effect: {}", setting.key, setting.note);
                        let warning = value.place.problem(setting.key, message);
                        self.translation.warnings.push(warning);
                    }
                    continue;
                }
            };
            if self.is_left_out(setting.key, &value) || self.is_missing(setting.key, &value) {
                continue;
            }
            match kind.translate(value.text, self.surroundings.folder) {
                Ok(literal) => {
                    let name = if value.is_written {
                        ""
                    } else {
                        "PgBouncer's default"
                    };
                    self.translation.put(&value.place, path, literal, name);
                }
                Err(why) => {
                    let message = format!("{}: {why}", setting.key);
                    self.errors.push(value.place.problem(setting.key, message));
                }
            }
        }
        self.listening();
        self.protocols("client_tls_protocols", "listen.tls");
        self.protocols("server_tls_protocols", "server_tls");
        let mode = self.value("server_tls_sslmode");
        let verifies = mode.text.to_lowercase().starts_with("verify");
        if verifies && self.value("server_tls_ca_file").text.is_empty() {
            let system = quoted(Authorities::SYSTEM);
            let note = "as OpenSSL has it without server_tls_ca_file";
            self.translation
                .put(&mode.place, "server_tls.ca", system, note);
        }
        let clients = words(self.value("max_client_conn").text).concat();
        let waiting = whole_number(&clients).unwrap_or(100).max(1).to_string();
        let note = "PgBouncer has no limit but max_client_conn";
        self.translation
            .put_in("pool".into(), "max_waiting_clients", waiting, note);
    }

    /// What PgBouncer does not look at, given its other settings.
    fn is_left_out(&self, key: &str, value: &Value<'_>) -> bool {
        let is = |key, text: &str| self.value(key).text.eq_ignore_ascii_case(text);
        match key {
            "auth_hba_file" | "auth_ident_file" => !is("auth_type", "hba"),
            "auth_file" => is("auth_type", "any"),
            // Where both are written the newer one holds.
            "client_tls_ciphers"
            | "client_tls13_ciphers"
            | "client_tls_ca_file"
            | "client_tls_cert_file"
            | "client_tls_key_file"
                if is("client_tls_sslmode", "disable") =>
            {
                true
            }
            "client_tls13_ciphers" | "server_tls13_ciphers" => value.text.is_empty(),
            "client_tls_ciphers" => !self.value("client_tls13_ciphers").text.is_empty(),
            "server_tls_ciphers" => !self.value("server_tls13_ciphers").text.is_empty(),
            _ => false,
        }
    }

    /// PgBouncer goes on without the file of users; whoever is in it can't log in then.
    fn is_missing(&mut self, key: &'static str, value: &Value<'_>) -> bool {
        if key != "auth_file" || value.text.is_empty() {
            return false;
        }
        let name = file(value.text, self.surroundings.folder);
        let Err(error) = (self.surroundings.read)(&name) else {
            return false;
        };
        let message = format!("auth_file: {} cannot be read: {error}", name.display());
        let warning = value.place.problem(key, message);
        self.translation.warnings.push(warning);
        true
    }

    fn listening(&mut self) {
        let (addresses, port) = (self.value("listen_addr"), self.value("listen_port"));
        let Ok(Ok(port_number)) = whole_number(port.text).map(u16::try_from) else {
            let message = "listen_port: expected a port from 0 to 65535";
            self.errors.push(port.place.problem("listen_port", message));
            return;
        };
        let mut literals = Vec::new();
        for host in words(addresses.text) {
            let ips = match host {
                "*" => Ok(vec![IpAddr::from([0; 4]), IpAddr::from([0_u16; 8])]),
                host => match host.parse() {
                    Ok(ip) => Ok(vec![ip]),
                    Err(_) => (self.surroundings.resolve)(host),
                },
            };
            match ips {
                Ok(ips) => literals.extend(ips.into_iter().map(|ip| match ip {
                    IpAddr::V4(ip) => quoted(&format!("{ip}:{port_number}")),
                    IpAddr::V6(ip) => quoted(&format!("[{ip}]:{port_number}")),
                })),
                Err(error) => {
                    let message = format!("listen_addr: {host} has no address: {error}");
                    let problem = addresses.place.problem("listen_addr", message);
                    self.errors.push(problem);
                }
            }
        }
        literals.dedup();
        let literal = format!("[{}]", literals.join(", "));
        self.translation
            .put(&addresses.place, "listen.address", literal, "");
        if port_number != 0 {
            let literal = port_number.to_string();
            self.translation
                .put(&port.place, "listen.unix_socket_port", literal, "");
        }
        let folder = self.value("unix_socket_dir");
        let literal = quoted(&self.socket_folder(folder.text));
        self.translation
            .put(&folder.place, "listen.unix_socket_dir", literal, "");
    }

    fn socket_folder(&self, folder: &str) -> String {
        match folder {
            "" => String::new(),
            name if name.starts_with('@') => name.into(),
            name => file(name, self.surroundings.folder)
                .to_string_lossy()
                .into(),
        }
    }

    /// `secure`, `all`, or versions such as `tlsv1.2,tlsv1.3`.
    fn protocols(&mut self, key: &'static str, table: &str) {
        let value = self.value(key);
        let (mut oldest, mut newest) = (None, None);
        for protocol in words(value.text) {
            let range = match protocol.to_lowercase().as_str() {
                "secure" | "all" | "legacy" | "default" | "tlsv1" => ("1.2", "1.3"),
                "tlsv1.0" | "tlsv1.1" => {
                    let message = format!("{key}: {protocol} is not safe and left out");
                    let warning = value.place.problem(key, message);
                    self.translation.warnings.push(warning);
                    continue;
                }
                "tlsv1.2" => ("1.2", "1.2"),
                "tlsv1.3" => ("1.3", "1.3"),
                _ => {
                    let message = format!(
                        "{key}: expected secure, all, or of tlsv1.2 and tlsv1.3, found {protocol:?}"
                    );
                    self.errors.push(value.place.problem(key, message));
                    return;
                }
            };
            oldest = Some(oldest.map_or(range.0, |old: &str| old.min(range.0)));
            newest = Some(newest.map_or(range.1, |new: &str| new.max(range.1)));
        }
        let (oldest, newest) = (oldest.unwrap_or("1.2"), newest.unwrap_or("1.3"));
        for (name, version) in [("min_protocol", oldest), ("max_protocol", newest)] {
            let path = format!("{table}.{name}");
            self.translation
                .put(&value.place, &path, quoted(version), "");
        }
    }

    fn database(&mut self, entry: &Entry) {
        let name = &*entry.key;
        let table = table_of("databases", name);
        let path = dotted(&["databases".to_owned(), name.to_owned()]);
        self.translation.places.insert(path, entry.place.clone());
        let pairs = match pairs(entry.value.expose()) {
            Ok(pairs) => pairs,
            Err(why) => return self.wrong(entry, why),
        };
        let mut given = BTreeSet::new();
        let mut has_user = false;
        let mut password = None;
        self.translation.tables.entry(table.clone()).or_default();
        for (key, value) in pairs {
            given.insert(key.to_owned());
            let (here, literal) = match key {
                "dbname" => ("dbname", Ok(quoted(&value))),
                "host" => ("host", Ok(quoted(&value))),
                "port" => ("port", positive_number(&value)),
                "user" => {
                    has_user = true;
                    ("user", Ok(quoted(&value)))
                }
                "password" => {
                    password = Some(value);
                    continue;
                }
                "auth_user" | "auth_dbname" | "auth_query" => (key, Ok(quoted(&value))),
                "pool_mode" => ("pool.mode", word(&value, POOL_MODES).map(quoted)),
                "pool_size" => ("pool.size", number(&value)),
                "min_pool_size" => ("pool.min_size", number(&value)),
                "reserve_pool" | "reserve_pool_size" => ("pool.reserve_size", number(&value)),
                "max_db_connections" => ("pool.max_database_connections", number(&value)),
                "max_db_client_connections" => {
                    ("pool.max_database_client_connections", number(&value))
                }
                "server_lifetime" => ("pool.server_lifetime", time(&value)),
                "query_wait_timeout" => ("pool.checkout_timeout", time(&value)),
                "connect_query" => ("pool.connect_query", Ok(quoted(&value))),
                "load_balance_hosts" => (
                    "pool.load_balance_hosts",
                    word(&value, LOAD_BALANCE_HOSTS).map(quoted),
                ),
                "client_encoding" | "datestyle" | "timezone" | "application_name" => {
                    let message = format!("{key} has no effect: a client's own setting holds");
                    let warning = entry.place.problem(key, message);
                    self.translation.warnings.push(warning);
                    continue;
                }
                _ => {
                    let message = format!("unrecognized connection parameter: {key}");
                    self.wrong(entry, &message);
                    continue;
                }
            };
            self.line(entry, &table, key, here, literal);
        }
        if let Some(password) = password {
            match has_user {
                true => self.line(entry, &table, "password", "password", Ok(secret(&password))),
                false => {
                    let message = "password has no effect without a user";
                    let warning = entry.place.problem("password", message);
                    self.translation.warnings.push(warning);
                }
            }
        }
        if !given.contains("host") {
            let folder = match self.value("unix_socket_dir").text {
                "" => "/tmp",
                folder => folder,
            };
            let literal = quoted(&self.socket_folder(folder));
            let note = "without a host: unix_socket_dir";
            self.translation.put_in(table, "host", literal, note);
        }
    }

    fn user(&mut self, entry: &Entry) {
        let table = table_of("users", &entry.key);
        let path = dotted(&["users".to_owned(), entry.key.to_string()]);
        self.translation.places.insert(path, entry.place.clone());
        let pairs = match pairs(entry.value.expose()) {
            Ok(pairs) => pairs,
            Err(why) => return self.wrong(entry, why),
        };
        // Nobody is a user for having settings: that takes auth_file or auth_query.
        self.translation
            .put_in(table.clone(), "known", "false".into(), "");
        for (key, value) in pairs {
            let (here, literal) = match key {
                "pool_mode" => ("pool.mode", word(&value, POOL_MODES).map(quoted)),
                "pool_size" => ("pool.size", number(&value)),
                "reserve_pool_size" => ("pool.reserve_size", number(&value)),
                "max_user_connections" => ("pool.max_user_connections", number(&value)),
                "max_user_client_connections" => {
                    ("pool.max_user_client_connections", number(&value))
                }
                "query_timeout" => ("pool.query_timeout", time(&value)),
                "query_wait_timeout" => ("pool.checkout_timeout", time(&value)),
                "idle_transaction_timeout" => ("pool.idle_transaction_timeout", time(&value)),
                "transaction_timeout" => ("pool.transaction_timeout", time(&value)),
                "client_idle_timeout" => ("pool.client_idle_timeout", time(&value)),
                _ => {
                    let message = format!("unrecognized user parameter: {key}");
                    self.wrong(entry, &message);
                    continue;
                }
            };
            // Zero is no limit of the user's own in PgBouncer.
            if here.ends_with("_timeout") && literal.as_deref() == Ok("\"0\"") {
                continue;
            }
            self.line(entry, &table, key, here, literal);
        }
    }

    fn peer(&mut self, entry: &Entry) {
        let table = table_of("peers", &entry.key);
        let path = dotted(&["peers".to_owned(), entry.key.to_string()]);
        self.translation.places.insert(path, entry.place.clone());
        let pairs = match pairs(entry.value.expose()) {
            Ok(pairs) => pairs,
            Err(why) => return self.wrong(entry, why),
        };
        if !pairs.iter().any(|(key, _)| *key == "host") {
            self.wrong(entry, "host was not provided for the peer");
        }
        for (key, value) in pairs {
            let (here, literal) = match key {
                "host" => ("host", Ok(quoted(&value))),
                "port" => ("port", positive_number(&value)),
                // Cancel requests need no pool: each goes at once.
                "pool_size" => continue,
                _ => {
                    let message = format!("unrecognized connection parameter: {key}");
                    self.wrong(entry, &message);
                    continue;
                }
            };
            self.line(entry, &table, key, here, literal);
        }
    }

    fn line(
        &mut self,
        entry: &Entry,
        table: &str,
        key: &str,
        here: &str,
        literal: Result<String, String>,
    ) {
        match literal {
            // Below zero means what [pgbouncer] says.
            Err(why) if why == INHERITED => {}
            Ok(literal) => self.translation.put_in(table.into(), here, literal, ""),
            Err(why) => self.wrong(entry, &format!("{key}: {why}")),
        }
    }

    fn wrong(&mut self, entry: &Entry, message: &str) {
        let problem = entry
            .place
            .problem(&entry.key, format!("{}: {message}", entry.key));
        self.errors.push(problem);
    }
}

/// A setting of `[pgbouncer]` as a line of config.toml: what `SET` in the console means where config.toml was read.
///
/// # Errors
/// If there is no such setting, it can't be set alone, or not to this.
pub fn line_of(key: &str, value: &str, folder: &Path) -> Result<String, String> {
    let setting = setting(key).ok_or_else(|| format!("unknown parameter: {key}"))?;
    match &setting.effect {
        Effect::Same(path, kind) | Effect::Mapped(path, kind) => {
            let literal = kind.translate(value, folder)?;
            Ok(format!("{path} = {literal}"))
        }
        Effect::Together(path) => Err(format!("{key} is {path} in config.toml: change it there")),
        Effect::None => Ok(String::new()),
    }
}

/// Whether a setting of PgBouncer's is one of several that make TLS together.
pub fn is_of_tls(key: &str) -> bool {
    key.contains("_tls_")
}

/// `databases.app`, or `databases."my db"`: as problems name it, too.
fn table_of(kind: &str, name: &str) -> String {
    let is_bare = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    match is_bare {
        true => format!("{kind}.{name}"),
        false => format!("{kind}.{}", quoted(name)),
    }
}

/// Where a value comes from that nobody has written.
const DEFAULT: &str = "PgBouncer's default";

const INHERITED: &str = "inherited";

fn number(value: &str) -> Result<String, String> {
    match value.starts_with('-') {
        true => Err(INHERITED.into()),
        false => whole_number(value).map(|number| number.to_string()),
    }
}

fn positive_number(value: &str) -> Result<String, String> {
    match whole_number(value)? {
        0 => Err("expected a port".into()),
        number => Ok(number.to_string()),
    }
}

fn time(value: &str) -> Result<String, String> {
    duration(value).map(|time| quoted(&time))
}
