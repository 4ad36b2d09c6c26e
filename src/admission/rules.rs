//! Who is let in, and how they prove it: made of a configuration, replaced whole on reload.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::auth::hba::{Hba, HbaMethod, Visitor};
use crate::auth::held::{Held, KeyMaking};
use crate::auth::ident::IdentMaps;
use crate::auth::rule_words::LineError;
use crate::auth::scram::MockSecret;
use crate::auth::verifier::{Likeness, Likenesses, Verifier};
use crate::auth_query::{Inquiry, InquiryError};
use crate::config::choices::AuthMethod;
use crate::config::tls::{TextFile, TlsMode};
use crate::config::{CONSOLE_NAMES, Config};
use crate::net::tls::{ClientCertificates, ClientTls, TlsError};
use crate::server::ServerTarget;
use crate::session::client_login::Challenge;

/// What is let in, until the next reload.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) config: Arc<Config>,
    /// What encryption is offered.
    pub(super) tls: ClientTls,
    hba: Hba,
    maps: IdentMaps,
    /// How keys of passwords are made.
    pub(super) making: KeyMaking,
    /// Whether servers are asked about users, of whichever database.
    pub(super) asks_servers: bool,
    /// Stands in for everybody where no password is checked.
    pub(super) nobody: Arc<Held>,
    known: HashMap<Box<str>, Arc<Held>>,
    /// Those of the known users: who is not known looks like one who is.
    likenesses: Likenesses,
}

/// How a client must prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Not at all, and its name does not matter.
    Any,
    /// Not at all, but there must be such a user.
    Trust,
    /// Within the protocol.
    Challenge(Challenge),
    /// By a certificate.
    Cert,
    /// By being somebody on this system.
    Peer,
}

/// What is asked of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demand<'a> {
    pub(super) proof: Proof,
    /// The map from names of systems and certificates to users.
    map: Option<&'a str>,
}

/// Why nothing is asked of a client: it is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotWelcome {
    /// No rule fits.
    NoRule,
    /// A rule says so.
    Rejected,
}

/// Why no rules can be made of a configuration.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// Something about the encryption of clients' connections.
    #[error("[listen] tls: {0}")]
    ListenTls(TlsError),
    /// Something about that of servers' connections.
    #[error("{0} tls: {1}")]
    ServerTls(Box<str>, TlsError),
    /// Lines of a file that are none.
    #[error("{file}: {}", .errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Lines {
        /// The file.
        file: Box<str>,
        /// The lines.
        errors: Vec<LineError>,
    },
}

impl Rules {
    /// What is made of passwords that were in the `former` rules is taken from there.
    pub(super) fn new(
        config: Arc<Config>,
        secret: &MockSecret,
        former: Option<&Self>,
    ) -> Result<Self, RulesError> {
        let (hba, maps) = hba_of(&config)?;
        let certificates = match hba.has_method(HbaMethod::Cert) {
            true => ClientCertificates::Welcome,
            false => ClientCertificates::ByMode,
        };
        let tls =
            ClientTls::new(&config.listen.tls, certificates).map_err(RulesError::ListenTls)?;
        let mut rules = Self::without_users(config, tls, secret);
        rules.hba = hba;
        rules.maps = maps;
        for (name, user) in &rules.config.users {
            let Some(password) = &user.password else {
                continue;
            };
            let verifier = Verifier::parse(password);
            rules.likenesses.add(Likeness::of(&verifier));
            let held = Held::of_user(name.as_bytes(), verifier, &rules.making);
            let made = former
                .and_then(|former| former.known.get(name))
                .filter(|made| made.is_made_as(&held));
            let held = made.map_or_else(|| Arc::new(held), Arc::clone);
            rules.known.insert(name.clone(), held);
        }
        Ok(rules)
    }

    /// What remains where the configuration can't be kept to: nobody is let in.
    pub(super) fn closed(config: Arc<Config>, secret: &MockSecret) -> Self {
        let mut config = Config::clone(&config);
        config.auth.method = AuthMethod::Hba;
        Self::without_users(Arc::new(config), ClientTls::disabled(), secret)
    }

    fn without_users(config: Arc<Config>, tls: ClientTls, secret: &MockSecret) -> Self {
        let mut databases = config.databases.values();
        let making = KeyMaking {
            secret: secret.clone(),
            iterations: config.auth.scram_iterations,
        };
        Self {
            tls,
            hba: Hba::default(),
            maps: IdentMaps::default(),
            nobody: Arc::new(Held::ready_stand_in(b"", Likeness::Plain, &making)),
            making,
            asks_servers: config.auth.user.is_some()
                || databases.any(|database| database.auth_user.is_some()),
            known: HashMap::new(),
            likenesses: Likenesses::default(),
            config,
        }
    }

    /// Has the keys made that SCRAM needs of passwords, by a thread that ends with that: it takes milliseconds each. A client that
    /// comes before waits for its own.
    pub(super) fn make_keys(&self) {
        let is_wanted = match self.config.auth.method {
            AuthMethod::ScramSha256 => true,
            AuthMethod::Hba => self.hba.has_method(HbaMethod::Scram),
            _ => false,
        };
        let unready: Vec<_> = self
            .known
            .values()
            .filter(|held| is_wanted && !held.is_ready())
            .map(Arc::downgrade)
            .collect();
        if unready.is_empty() {
            return;
        }
        let make = move || {
            // Those that a reload has done away with are left out.
            for held in unready.iter().filter_map(Weak::upgrade) {
                held.scram();
            }
        };
        let thread = std::thread::Builder::new().name("pgspan-keys".into());
        if let Err(error) = thread.spawn(make) {
            tracing::warn!(%error, "keys of passwords are made when they are needed");
        }
    }

    /// What is asked of this client.
    pub(super) fn demand(&self, visitor: &Visitor<'_>) -> Result<Demand<'_>, NotWelcome> {
        let proof = match self.config.auth.method {
            AuthMethod::Any => Proof::Any,
            AuthMethod::Trust => Proof::Trust,
            AuthMethod::Password => Proof::Challenge(Challenge::Password),
            AuthMethod::Md5 => Proof::Challenge(Challenge::Md5),
            AuthMethod::ScramSha256 => Proof::Challenge(Challenge::Scram),
            AuthMethod::Cert => Proof::Cert,
            AuthMethod::Peer => Proof::Peer,
            AuthMethod::Hba => {
                let rule = self.hba.rule_for(visitor).ok_or(NotWelcome::NoRule)?;
                let proof = match rule.method {
                    HbaMethod::Reject => return Err(NotWelcome::Rejected),
                    HbaMethod::Trust => Proof::Trust,
                    HbaMethod::Password => Proof::Challenge(Challenge::Password),
                    HbaMethod::Md5 => Proof::Challenge(Challenge::Md5),
                    HbaMethod::Scram => Proof::Challenge(Challenge::Scram),
                    HbaMethod::Cert => Proof::Cert,
                    HbaMethod::Peer => Proof::Peer,
                };
                return Ok(Demand {
                    proof,
                    map: rule.map.as_deref(),
                });
            }
        };
        Ok(Demand { proof, map: None })
    }

    /// What is held of a configured user's password.
    pub(super) fn held(&self, user: &str) -> Option<Arc<Held>> {
        self.known.get(user).map(Arc::clone)
    }

    /// Which server is asked about users that are not configured, and what, for clients of this database.
    pub(super) fn inquiry(&self, database: &str) -> Result<Option<Inquiry>, InquiryError> {
        let config = &self.config;
        let auth = &config.auth;
        let own = config.database(database);
        let asker = own
            .and_then(|own| own.auth_user.as_ref())
            .or(auth.user.as_ref());
        let place = own
            .and_then(|own| own.auth_dbname.as_ref())
            .or(auth.dbname.as_ref());
        // Who wants a database that is not there is asked about all the same, where that can be done.
        let place = match (place, own) {
            (Some(place), _) => &**place,
            (None, Some(_)) => database,
            (None, None) => return Ok(None),
        };
        let Some(asker) = asker else {
            return Ok(None);
        };
        if CONSOLE_NAMES.contains(&place) {
            return Err(InquiryError::Reserved(place.into()));
        }
        let mut target = ServerTarget::of(config, place, asker)
            .ok_or_else(|| InquiryError::Unconfigured(place.into()))?;
        target.user = asker.clone();
        target.password = config.user(asker).and_then(|user| user.password.clone());
        Ok(Some(Inquiry {
            place: place.into(),
            target,
            query: own
                .and_then(|own| own.auth_query.as_ref())
                .unwrap_or(&auth.query)
                .clone(),
            tcp: config.tcp,
            timeout: config.pool_settings(place, asker).server_connect_timeout,
            cache_size: auth.cache_size,
            cache_ttl: auth.cache_ttl,
            making: self.making.clone(),
        }))
    }

    /// What somebody of this name looks like who is not known.
    pub(super) fn likeness(&self, user: &str) -> Likeness {
        let usual = Likeness::Scram(self.making.iterations);
        let secret = &self.making.secret;
        self.likenesses.of(user.as_bytes(), secret).unwrap_or(usual)
    }
}

impl Demand<'_> {
    /// Whether somebody with one of these names, on the system or in a certificate, is that user.
    pub(super) fn allows(&self, rules: &Rules, names: &[Box<str>], user: &str) -> bool {
        names.iter().any(|name| match self.map {
            Some(map) => rules.maps.allows(map, name, user),
            None => **name == *user,
        })
    }
}

/// The rules in the configuration's files.
fn hba_of(config: &Config) -> Result<(Hba, IdentMaps), RulesError> {
    let lines = |file: &TextFile, errors| RulesError::Lines {
        file: file.name.clone(),
        errors,
    };
    let maps = match &config.auth.ident {
        Some(file) => IdentMaps::parse(file.text.expose()).map_err(|errors| lines(file, errors))?,
        None => IdentMaps::default(),
    };
    let hba = match (&config.auth.hba, config.auth.method) {
        (Some(hba), AuthMethod::Hba) => {
            let included = |name: &str| Some(hba.included.get(name)?.text.expose());
            Hba::parse(hba.file.text.expose(), &included, &maps)
                .map_err(|errors| lines(&hba.file, errors))?
        }
        _ => Hba::default(),
    };
    Ok((hba, maps))
}

/// Whether rules can be made of a configuration, and what is doubtful about them.
///
/// # Errors
/// If they can't: the files are not what they should be.
pub fn check(config: &Config) -> Result<Vec<String>, RulesError> {
    // Nobody logs in by these.
    let secret = MockSecret::new([0; 32]);
    let rules = Rules::new(Arc::new(config.clone()), &secret, None)?;
    let mut doubts = Vec::new();
    let servers = config
        .databases
        .iter()
        .map(|(name, database)| (format!("databases.{name}"), &database.tls))
        .chain([("server_tls".to_owned(), &config.server_tls)]);
    for (table, tls) in servers {
        crate::net::tls::ServerTls::new(tls)
            .map_err(|error| RulesError::ServerTls(table.as_str().into(), error))?;
        for name in crate::net::tls::unknown_ciphers(tls) {
            doubts.push(format!(
                "{table}: the cipher {name} is not known, and left out"
            ));
        }
    }
    for name in crate::net::tls::unknown_ciphers(&config.listen.tls) {
        doubts.push(format!(
            "listen.tls: the cipher {name} is not known, and left out"
        ));
    }
    if let Some(hba) = &config.auth.hba {
        for line in rules.hba.trusting_lines() {
            doubts.push(format!(
                "{}:{line}: everyone who reaches this machine can log in without proof",
                hba.file.name
            ));
        }
        let tls = &config.listen.tls;
        for line in rules.hba.lines_of(HbaMethod::Cert) {
            if tls.mode == TlsMode::Disable || tls.ca.is_none() {
                doubts.push(format!(
                    "{}:{line}: nobody can show a certificate: [listen.tls] needs a mode and `ca`",
                    hba.file.name
                ));
            }
        }
    }
    Ok(doubts)
}
