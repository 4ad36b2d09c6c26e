//! TLS as configured, on either side. The files are read here, so that a reload sees what has changed in them.

use std::path::PathBuf;

use serde::Deserialize;

use super::findings::Findings;
use super::resolve::{Surroundings, read_file};
use super::secret::Secret;

/// How far a connection is encrypted, and the peer known by it. The names are libpq's and PgBouncer's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Not encrypted.
    #[default]
    Disable,
    /// Clients may ask for it. Servers: only those that want nothing else.
    Allow,
    /// Clients may ask for it. Servers: where they can.
    Prefer,
    /// Always encrypted; whoever the peer is.
    Require,
    /// And the peer's certificate comes from a trusted authority.
    VerifyCa,
    /// And names the server that was meant. For clients the same as [`TlsMode::VerifyCa`].
    VerifyFull,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum TlsVersion {
    /// 1.2.
    #[serde(rename = "1.2")]
    Tls12,
    /// 1.3.
    #[serde(rename = "1.3")]
    Tls13,
}

/// Whether SCRAM is bound to the TLS connection that it goes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where the server can.
    #[default]
    Prefer,
    /// A server that does not is not logged in at.
    Require,
}

/// How TLS begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsNegotiation {
    /// After the server has been asked for it.
    #[default]
    Postgres,
    /// At once (PostgreSQL 17 and later).
    Direct,
}

/// A file's text, and its name for messages. `Debug` does not show the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// Its name as it is found from the working directory.
    pub name: Box<str>,
    /// What stands in it.
    pub text: Secret,
}

/// Authorities that are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorities {
    /// Those that the system trusts.
    System,
    /// Those in a file, in PEM.
    Of(TextFile),
}

impl Authorities {
    /// What stands for the system's, in place of a file's name, as libpq has it in `sslrootcert`.
    pub const SYSTEM: &'static str = "system";

    /// The file.
    pub fn file(&self) -> Option<&TextFile> {
        match self {
            Self::System => None,
            Self::Of(file) => Some(file),
        }
    }
}

/// TLS on one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// How far.
    pub mode: TlsMode,
    /// Our certificate, with those that lead to its authority, in PEM.
    pub cert: Option<TextFile>,
    /// Its private key, in PEM.
    pub key: Option<TextFile>,
    /// The authorities that peers' certificates may come from.
    pub ca: Option<Authorities>,
    /// Which of their certificates are revoked, in PEM.
    pub crl: Option<TextFile>,
    /// The oldest version spoken.
    pub min_protocol: TlsVersion,
    /// The newest version spoken.
    pub max_protocol: TlsVersion,
    /// The cipher suites, with a colon in between, by OpenSSL's or their registered names; `None`: those that are good.
    pub ciphers: Option<Box<str>>,
    /// Servers only: whether SCRAM is bound to it.
    pub channel_binding: ChannelBinding,
    /// Servers only: how it begins. Clients may begin as they like.
    pub negotiation: TlsNegotiation,
}

impl Tls {
    /// TLS of this mode, with nothing else set.
    pub fn of(mode: TlsMode) -> Self {
        Self {
            mode,
            cert: None,
            key: None,
            ca: None,
            crl: None,
            min_protocol: TlsVersion::Tls12,
            max_protocol: TlsVersion::Tls13,
            ciphers: None,
            channel_binding: ChannelBinding::Prefer,
            negotiation: TlsNegotiation::Postgres,
        }
    }
}

/// As it is with servers of which nothing is said.
impl Default for Tls {
    fn default() -> Self {
        Self::of(TlsMode::Prefer)
    }
}

/// `[listen.tls]` as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct ListenTlsTable {
    mode: Option<TlsMode>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    crl: Option<PathBuf>,
    min_protocol: Option<TlsVersion>,
    max_protocol: Option<TlsVersion>,
    ciphers: Option<Box<str>>,
}

/// `[server_tls]`, or a database's `tls`, as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub(super) struct ServerTlsTable {
    mode: Option<TlsMode>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    crl: Option<PathBuf>,
    min_protocol: Option<TlsVersion>,
    max_protocol: Option<TlsVersion>,
    ciphers: Option<Box<str>>,
    channel_binding: Option<ChannelBinding>,
    negotiation: Option<TlsNegotiation>,
}

impl From<ListenTlsTable> for ServerTlsTable {
    fn from(table: ListenTlsTable) -> Self {
        Self {
            mode: table.mode,
            cert: table.cert,
            key: table.key,
            ca: table.ca,
            crl: table.crl,
            min_protocol: table.min_protocol,
            max_protocol: table.max_protocol,
            ciphers: table.ciphers,
            channel_binding: None,
            negotiation: None,
        }
    }
}

impl ServerTlsTable {
    /// What holds: what is written here, or else `default`. `path` is the table's.
    pub(super) fn resolve(
        self,
        default: &Tls,
        path: &[&str],
        surroundings: &Surroundings<'_>,
        findings: &mut Findings,
    ) -> Tls {
        let key_path = |key: &'static str| [path, &[key]].concat();
        // "" takes back what stands elsewhere.
        let mut file = |key: &'static str,
                        name: Option<PathBuf>,
                        default: &Option<TextFile>,
                        secrecy| match name {
            None => default.clone(),
            Some(name) if name.as_os_str().is_empty() => None,
            Some(name) => read_file(&name, &key_path(key), secrecy, surroundings, findings),
        };
        let tls = Tls {
            mode: self.mode.unwrap_or(default.mode),
            cert: file("cert", self.cert, &default.cert, Secrecy::Public),
            key: file("key", self.key, &default.key, Secrecy::Secret),
            ca: match self.ca {
                Some(name) if name.as_os_str() == Authorities::SYSTEM => Some(Authorities::System),
                None => default.ca.clone(),
                Some(name) => file("ca", Some(name), &None, Secrecy::Public).map(Authorities::Of),
            },
            crl: file("crl", self.crl, &default.crl, Secrecy::Public),
            min_protocol: self.min_protocol.unwrap_or(default.min_protocol),
            max_protocol: self.max_protocol.unwrap_or(default.max_protocol),
            ciphers: match self.ciphers {
                None => default.ciphers.clone(),
                Some(ciphers) => Some(ciphers).filter(|ciphers| !ciphers.is_empty()),
            },
            channel_binding: self.channel_binding.unwrap_or(default.channel_binding),
            negotiation: self.negotiation.unwrap_or(default.negotiation),
        };
        if path == ["listen", "tls"] && tls.ca == Some(Authorities::System) {
            let message =
                "clients' certificates come from authorities of your own: name their file";
            findings.error(&key_path("ca"), message);
        }
        if tls.min_protocol > tls.max_protocol {
            findings.error(&key_path("min_protocol"), "it is newer than `max_protocol`");
        }
        if tls.cert.is_some() != tls.key.is_some() {
            let (missing, other) = match tls.cert {
                Some(_) => ("key", "cert"),
                None => ("cert", "key"),
            };
            findings.error(
                &key_path(missing),
                format!("it is missing, and `{other}` is there"),
            );
        }
        if tls.mode >= TlsMode::VerifyCa && tls.ca.is_none() {
            let message = "the mode needs `ca`: the authorities to trust, or \"system\"";
            findings.error(&key_path("mode"), message);
        }
        tls
    }
}

/// Whether everyone may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// Everyone may.
    Public,
    /// Nobody but us may.
    Secret,
}
