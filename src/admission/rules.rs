//! Who is let in, and how they prove it: made of a configuration, replaced whole on reload.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::auth::hba::{Hba, HbaMethod, Visitor};
use crate::auth::ident::IdentMaps;
use crate::auth::rule_words::LineError;
use crate::auth::scram::{MockSecret, SALT_LENGTH, ScramVerifier};
use crate::auth::verifier::{Likeness, Verifier};
use crate::auth_query::{Inquiry, InquiryError};
use crate::config::choices::AuthMethod;
use crate::config::tls::TextFile;
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
    known: HashMap<Box<str>, Known>,
    /// Those of the known users: who is not known looks like one who is.
    likenesses: Vec<Likeness>,
}

/// What is held of a user's password.
#[derive(Debug)]
struct Known {
    verifier: Verifier,
    /// Made of a password when it is first needed: it takes milliseconds.
    scram: OnceLock<Verifier>,
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
    pub(super) fn new(config: Arc<Config>) -> Result<Self, RulesError> {
        let (hba, maps) = hba_of(&config)?;
        let certificates = match hba.has_method(HbaMethod::Cert) {
            true => ClientCertificates::Welcome,
            false => ClientCertificates::ByMode,
        };
        let tls =
            ClientTls::new(&config.listen.tls, certificates).map_err(RulesError::ListenTls)?;
        Ok(Self::with(config, tls, hba, maps))
    }

    /// What remains where the configuration can't be kept to: nobody is let in.
    pub(super) fn closed(config: Arc<Config>) -> Self {
        let mut config = Config::clone(&config);
        config.auth.method = AuthMethod::Hba;
        Self::with(
            Arc::new(config),
            ClientTls::disabled(),
            Hba::default(),
            IdentMaps::default(),
        )
    }

    fn with(config: Arc<Config>, tls: ClientTls, hba: Hba, maps: IdentMaps) -> Self {
        let known: HashMap<_, _> = config
            .users
            .iter()
            .filter_map(|(name, user)| {
                let verifier = Verifier::parse(user.password.as_ref()?);
                let scram = OnceLock::new();
                Some((name.clone(), Known { verifier, scram }))
            })
            .collect();
        let usual = config.auth.scram_iterations;
        let likeness = |known: &Known| match (config.auth.method, &known.verifier) {
            (AuthMethod::ScramSha256, Verifier::Plain(_)) => Likeness::Scram(usual),
            (_, verifier) => Likeness::of(verifier),
        };
        let mut likenesses: Vec<_> = known.values().map(likeness).collect();
        if likenesses.is_empty() {
            likenesses.push(Likeness::Scram(usual));
        }
        Self {
            tls,
            hba,
            maps,
            known,
            likenesses,
            config,
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

    /// What is held of a configured user's password, in the form that the challenge needs.
    pub(super) fn verifier(&self, user: &str, challenge: Challenge) -> Option<&Verifier> {
        let known = self.known.get(user)?;
        let Verifier::Plain(password) = &known.verifier else {
            return Some(&known.verifier);
        };
        if challenge != Challenge::Scram {
            return Some(&known.verifier);
        }
        Some(known.scram.get_or_init(|| {
            Verifier::Scram(ScramVerifier::from_password(
                password.expose().as_bytes(),
                &super::random::<SALT_LENGTH>(),
                self.config.auth.scram_iterations,
            ))
        }))
    }

    /// Which server is asked about users that are not configured, and what, for clients of this database.
    pub(super) fn inquiry(&self, database: &str) -> Result<Option<Inquiry>, InquiryError> {
        let config = &self.config;
        let auth = &config.auth;
        let Some(own) = config.database(database) else {
            return Ok(None);
        };
        let Some(asker) = own.auth_user.as_ref().or(auth.user.as_ref()) else {
            return Ok(None);
        };
        let place = own.auth_dbname.as_ref().or(auth.dbname.as_ref());
        let place = place.map_or(database, |name| name);
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
            query: own.auth_query.as_ref().unwrap_or(&auth.query).clone(),
            timeout: config.pool_settings(place, asker).server_connect_timeout,
            cache_size: auth.cache_size,
            cache_ttl: auth.cache_ttl,
        }))
    }

    /// What a user looks like who is not known.
    pub(super) fn likeness(&self, user: &[u8], secret: &MockSecret) -> Likeness {
        let number = secret.number(user) % self.likenesses.len();
        *self
            .likenesses
            .get(number)
            .expect("a remainder of the length")
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
    let rules = Rules::new(Arc::new(config.clone()))?;
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
    }
    Ok(doubts)
}
