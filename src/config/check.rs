//! What a configuration must not be although each value of it is right.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::choices::AuthMethod;
use super::findings::Findings;
use super::tls::TlsMode;
use super::{CONSOLE_NAMES, Config, Host};

impl Config {
    /// Adds what does not fit together.
    pub(super) fn check(&self, findings: &mut Findings) {
        self.check_addresses(findings);
        self.check_databases(findings);
        self.check_users(findings);
        self.check_auth(findings);
        self.check_exposure(findings);
        self.check_encryption(findings);
        self.check_tags(findings);
    }

    fn check_addresses(&self, findings: &mut Findings) {
        let listen = &self.listen.addresses;
        let taken = |http: SocketAddr| listen.iter().find(|listen| overlap(http, **listen));
        if let Some(listen) = self.http.address.and_then(taken) {
            let message = format!("clients connect to {listen} already, see [listen]");
            findings.error(&["http", "address"], message);
        }
        let hosts = self.databases.iter().flat_map(|(name, database)| {
            let hosts = database.hosts.iter();
            hosts.map(move |host| (name, database, host))
        });
        for (name, database, host) in hosts {
            let Host::Tcp(host) = host else {
                continue;
            };
            let ip = match &**host {
                "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
                host => host.parse().ok(),
            };
            // An unspecified address stands for those of all interfaces; of these only loopback is known here.
            let leads_here = |ip: IpAddr| {
                listen.iter().any(|listen| {
                    database.port == listen.port()
                        && (ip == listen.ip() || ip.is_loopback() && listen.ip().is_unspecified())
                })
            };
            if ip.is_some_and(leads_here) {
                // One database may lead to another one on purpose, as with PgBouncer.
                let message = format!("{host}:{} is where pgspan itself listens", database.port);
                findings.warn(&["databases", name, "host"], message);
            }
        }
    }

    fn check_databases(&self, findings: &mut Findings) {
        if self.databases.is_empty() {
            findings.warn(&["databases"], "there is none, so no client can log in");
        }
        for (name, database) in &self.databases {
            let path = ["databases", name];
            match &**name {
                "" => findings.error(&path, "a database has a name"),
                name if CONSOLE_NAMES.contains(&name) => {
                    findings.error(&path, "this name is the console's")
                }
                _ => {}
            }
            for (key, value) in [("dbname", &database.dbname), ("user", &database.user)] {
                if value
                    .as_deref()
                    .is_some_and(|value| !is_startup_value(value))
                {
                    let path = ["databases", name, key];
                    findings.error(&path, "it cannot be empty or hold a zero byte");
                }
            }
        }
    }

    fn check_users(&self, findings: &mut Findings) {
        if self.users.is_empty() {
            findings.warn(&["users"], "there is none, so no client can log in");
        }
        for (name, user) in &self.users {
            if &**name == "*" {
                findings.error(&["users", name], "each user is named: `*` stands for none");
            }
            let Some(password) = user.password.as_ref().map(|secret| secret.expose()) else {
                let asks_here = matches!(
                    self.auth.method,
                    AuthMethod::Password | AuthMethod::Md5 | AuthMethod::ScramSha256
                );
                // Users of a userlist may have settings here and no password anywhere, as in PgBouncer: they just cannot log in.
                if asks_here && !self.asks_servers() && self.auth.userlist.is_none() {
                    let message =
                        "`password` or `password_file` is missing, and [auth] asks for one";
                    findings.error(&["users", name], message);
                }
                continue;
            };
            if password.starts_with("SCRAM-SHA-256$") && !is_scram_verifier(password) {
                let message = "its password begins like a SCRAM verifier, but is not \
                               SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>";
                findings.error(&["users", name], message);
            }
            if is_md5_hash(password) && self.auth.method == AuthMethod::ScramSha256 {
                let message =
                    "its password is an md5 hash: the password or a SCRAM verifier is needed";
                // Not all who are in a file need to be able to log in.
                match self.auth.userlist {
                    Some(_) => findings.warn(&["users", name], message),
                    None => findings.error(&["users", name], message),
                }
            }
            if password.contains('\0') {
                findings.error(&["users", name], "its password holds a zero byte");
            }
        }
    }

    /// Whether servers are asked about users that are not configured.
    fn asks_servers(&self) -> bool {
        self.auth.user.is_some() || self.databases.values().any(|it| it.auth_user.is_some())
    }

    /// What does not fit together in how clients prove who they are.
    fn check_auth(&self, findings: &mut Findings) {
        let method = ["auth", "method"];
        match self.auth.method {
            AuthMethod::Hba if self.auth.hba.is_none() => {
                findings.error(&method, "\"hba\" needs `hba_file`");
            }
            AuthMethod::Cert if self.listen.tls.mode < TlsMode::VerifyCa => {
                let message = "\"cert\" needs [listen] tls.mode = \"verify-full\"";
                findings.error(&method, message);
            }
            AuthMethod::Any => {
                for (name, database) in &self.databases {
                    if database.user.is_none() {
                        let message = "[auth] method \"any\" needs a `user` to log in as";
                        findings.error(&["databases", name], message);
                    }
                }
            }
            _ => {}
        }
    }

    /// Encrypted, but with whom nobody knows.
    fn check_encryption(&self, findings: &mut Findings) {
        for (name, database) in &self.databases {
            let is_elsewhere = |host: &&str| {
                **host != *"localhost" && !host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            };
            let mut hosts = database.hosts.iter().filter_map(|host| match host {
                Host::Tcp(host) => Some(&**host),
                Host::SocketFolder(_) | Host::Abstract(_) => None,
            });
            if let Some(host) = hosts.find(is_elsewhere)
                && database.tls.mode < TlsMode::VerifyFull
            {
                let message = format!(
                    "whoever sits between here and {host} can pose as it: only `mode = \"verify-full\"` knows the server"
                );
                findings.warn(&["databases", name, "tls", "mode"], message);
            }
        }
    }

    /// What is harmless on one machine only.
    fn check_exposure(&self, findings: &mut Findings) {
        let exposed = self.listen.addresses.iter();
        let Some(address) = exposed.copied().find(|address| !address.ip().is_loopback()) else {
            return;
        };
        let method = ["auth", "method"];
        match self.auth.method {
            AuthMethod::ScramSha256 | AuthMethod::Cert | AuthMethod::Peer | AuthMethod::Hba => {}
            AuthMethod::Any => findings.warn(
                &method,
                format!("everyone who reaches {address} can log in"),
            ),
            AuthMethod::Trust => findings.warn(
                &method,
                format!("everyone who reaches {address} can log in as any of [users]"),
            ),
            AuthMethod::Md5 => findings.warn(
                &method,
                format!("md5 can be broken by whoever listens at {address}: scram-sha-256 can't"),
            ),
            AuthMethod::Password if self.listen.tls.mode >= TlsMode::Require => {}
            AuthMethod::Password => findings.warn(
                &method,
                format!("passwords travel to {address} readable: scram-sha-256 hides them"),
            ),
        }
        for (name, user) in &self.users {
            if user
                .password
                .as_ref()
                .is_some_and(|secret| secret.expose() == &**name)
            {
                let message =
                    format!("its password is its name, and {address} is not this machine's own");
                findings.warn(&["users", name], message);
            }
        }
    }

    fn check_tags(&self, findings: &mut Findings) {
        let allowed = &self.trace.allowed_tags;
        for key in allowed {
            if let Err(why) = check_tag_key(key) {
                findings.error(&["trace", "allowed_tags"], format!("{key:?} {why}"));
            }
        }
        let databases = self
            .databases
            .iter()
            .map(|(name, it)| ("databases", name, &it.tags));
        let users = self
            .users
            .iter()
            .map(|(name, it)| ("users", name, &it.tags));
        for (table, name, tags) in databases.chain(users) {
            for (key, value) in tags {
                let path = [table, name, "tags", key];
                if !allowed.contains(key) {
                    findings.error(&path, "`allowed_tags` in [trace] does not name it");
                }
                if value.len() > self.trace.max_tag_length.get() {
                    let limit = self.trace.max_tag_length;
                    let message = format!("it is longer than `max_tag_length` in [trace]: {limit}");
                    findings.error(&path, message);
                }
            }
        }
    }
}

/// Whether both cannot be listened on at once.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let is_everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (is_everywhere || one.ip() == other.ip())
}

/// A tag can be set as `pgspan.<key>`, so it is the name of a setting, and none that means something else.
fn check_tag_key(key: &str) -> Result<(), &'static str> {
    let is_identifier = key
        .starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '_')
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match key {
        "traceparent" | "tracestate" | "trace_id" | "span_id" | "correlation_id" | "tags" => {
            Err("is a field of the trace context, not a tag")
        }
        _ if !is_identifier => Err("is no key: letters, digits and _ make one"),
        _ => Ok(()),
    }
}

/// What a startup packet can carry: strings there end with a zero byte.
fn is_startup_value(value: &str) -> bool {
    !value.is_empty() && !value.contains('\0')
}

/// PostgreSQL's form, `parse_scram_secret` in src/backend/libpq/auth-scram.c.
fn is_scram_verifier(text: &str) -> bool {
    let parts = || {
        let (_, rest) = text.split_once('$')?;
        let (iterations_and_salt, keys) = rest.split_once('$')?;
        let (iterations, salt) = iterations_and_salt.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        Some((iterations, salt, stored_key, server_key))
    };
    let length = |text| BASE64_STANDARD.decode(text).map(|bytes| bytes.len());
    parts().is_some_and(|(iterations, salt, stored_key, server_key)| {
        iterations.parse::<u32>().is_ok_and(|count| count > 0)
            && length(salt).is_ok_and(|bytes| bytes > 0)
            && length(stored_key) == Ok(32)
            && length(server_key) == Ok(32)
    })
}

/// PostgreSQL's `get_password_type` takes such a text for a hash, never for a password.
fn is_md5_hash(text: &str) -> bool {
    text.strip_prefix("md5").is_some_and(|digits| {
        digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}
