//! TLS as it is set up on either side, made of the configuration's files. Replaced whole on reload; connections keep theirs.

mod issuers;
mod verifier;

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, IpAddr, PrivateKeyDer, ServerName,
};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, InconsistentKeys, RootCertStore, ServerConfig,
    ServerConnection, SupportedProtocolVersion,
};
use thiserror::Error;

use crate::config::tls::{
    Authorities, ChannelBinding, TextFile, Tls, TlsMode, TlsNegotiation, TlsVersion,
};
use crate::net::certificate::end_point_hash;
use crate::net::tls_session::TlsSession;

use self::issuers::Issuers;
use self::verifier::{ClientVerifier, ServerTrust, ServerVerifier};

/// What both sides say by ALPN.
pub const ALPN: &[u8] = b"postgresql";

/// What clients are offered.
#[derive(Clone)]
pub struct ClientTls {
    /// How far.
    pub mode: TlsMode,
    config: Option<Arc<ServerConfig>>,
    /// What SCRAM can be bound to: the hash of our certificate.
    pub binding: Option<Box<[u8]>>,
}

/// How servers are connected to.
#[derive(Clone)]
pub struct ServerTls {
    /// How far.
    pub mode: TlsMode,
    /// How it begins.
    pub negotiation: TlsNegotiation,
    /// Whether SCRAM is bound to it.
    pub channel_binding: ChannelBinding,
    config: Option<Arc<ClientConfig>>,
    /// What it was made of.
    settings: Tls,
}

/// Whether clients are asked for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// As the mode says.
    ByMode,
    /// Whoever has one shall show it: some prove by it who they are.
    Welcome,
}

/// Why TLS can't be set up: the file and what is wrong with it, or what else is.
#[derive(Debug, Error)]
pub enum TlsError {
    /// Something in a file.
    #[error("{file}: {why}")]
    File {
        /// The file's name.
        file: Box<str>,
        /// What is wrong.
        why: String,
    },
    /// No cipher suite is left.
    #[error("ciphers: none of {0:?} is known")]
    NoCiphers(Box<str>),
    /// A mode without what it needs.
    #[error("{0}")]
    Incomplete(&'static str),
    /// What rustls says.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

impl ClientTls {
    /// Nothing is offered.
    pub fn disabled() -> Self {
        Self {
            mode: TlsMode::Disable,
            config: None,
            binding: None,
        }
    }

    /// What the configuration offers.
    ///
    /// # Errors
    /// If a file does not hold what it should.
    pub fn new(tls: &Tls, certificates: ClientCertificates) -> Result<Self, TlsError> {
        if tls.mode == TlsMode::Disable {
            return Ok(Self::disabled());
        }
        let provider = Arc::new(provider(tls)?);
        let own = own_certificate(tls, &provider)?.ok_or(TlsError::Incomplete(
            "a certificate and its key are missing",
        ))?;
        let binding = own.cert.first().and_then(|own| end_point_hash(own));
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions(tls))?;
        let must_verify = tls.mode >= TlsMode::VerifyCa;
        let builder = match &tls.ca {
            Some(ca) if must_verify || certificates == ClientCertificates::Welcome => {
                let algorithms = provider.signature_verification_algorithms;
                let Trusted { roots, trusted } = Trusted::by(ca)?;
                let revoked = revoked(tls)?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                        .with_crls(revoked.clone())
                        .enforce_revocation_expiration();
                let verifier = match must_verify {
                    true => verifier,
                    false => verifier.allow_unauthenticated(),
                };
                let chains = verifier
                    .build()
                    .map_err(|error| in_authorities(ca, error))?;
                let issuers = Issuers { trusted, revoked };
                let verifier = ClientVerifier::new(chains, issuers, algorithms);
                builder.with_client_cert_verifier(Arc::new(verifier))
            }
            None if must_verify => {
                return Err(TlsError::Incomplete("the authorities to trust are missing"));
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.ignore_client_order = true;
        config.ticketer = Ticketer::new()?;
        Ok(Self {
            mode: tls.mode,
            config: Some(Arc::new(config)),
            binding,
        })
    }

    /// Whether a client that asks for TLS gets it.
    pub fn is_offered(&self) -> bool {
        self.config.is_some()
    }

    /// Begins TLS with a client.
    pub fn session(&self) -> Option<TlsSession> {
        let config = Arc::clone(self.config.as_ref()?);
        ServerConnection::new(config).ok().map(TlsSession::new)
    }
}

impl ServerTls {
    /// What remains of settings that can't be kept to: every handshake fails.
    pub fn broken(tls: &Tls) -> Self {
        Self {
            mode: tls.mode.max(TlsMode::Require),
            ..Self::without_config(tls)
        }
    }

    fn without_config(tls: &Tls) -> Self {
        Self {
            mode: tls.mode,
            negotiation: tls.negotiation,
            channel_binding: tls.channel_binding,
            config: None,
            settings: tls.clone(),
        }
    }

    /// What the configuration says.
    ///
    /// # Errors
    /// If a file does not hold what it should.
    pub fn new(tls: &Tls) -> Result<Self, TlsError> {
        let mut made = Self::without_config(tls);
        if tls.mode == TlsMode::Disable {
            return Ok(made);
        }
        let provider = Arc::new(provider(tls)?);
        let own = own_certificate(tls, &provider)?;
        let trust = match (&tls.ca, tls.mode) {
            (Some(ca), TlsMode::VerifyCa | TlsMode::VerifyFull) => {
                let Trusted { roots, trusted } = Trusted::by(ca)?;
                let revoked = revoked(tls)?;
                let chains = WebPkiServerVerifier::builder_with_provider(
                    Arc::new(roots),
                    Arc::clone(&provider),
                )
                .with_crls(revoked.clone())
                .enforce_revocation_expiration()
                .build()
                .map_err(|error| in_authorities(ca, error))?;
                let issuers = Issuers { trusted, revoked };
                match tls.mode {
                    TlsMode::VerifyFull => ServerTrust::Named(chains, issuers),
                    _ => ServerTrust::Issued(chains, issuers),
                }
            }
            (None, TlsMode::VerifyCa | TlsMode::VerifyFull) => {
                return Err(TlsError::Incomplete("the authorities to trust are missing"));
            }
            _ => ServerTrust::Anyone,
        };
        let verifier = ServerVerifier::new(trust, provider.signature_verification_algorithms);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(tls))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match own {
            Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        made.config = Some(Arc::new(config));
        Ok(made)
    }

    /// Begins TLS with the server at this name or address.
    ///
    /// # Errors
    /// If the name is none that a certificate could hold, and it would have to.
    pub fn session(&self, host: &str) -> Result<TlsSession, rustls::Error> {
        let nameless = ServerName::IpAddress(IpAddr::from(std::net::Ipv4Addr::UNSPECIFIED));
        let name = match ServerName::try_from(host) {
            Ok(name) => name.to_owned(),
            Err(_) if self.mode < TlsMode::VerifyFull => nameless,
            Err(error) => return Err(rustls::Error::General(error.to_string())),
        };
        let config = self
            .config
            .as_ref()
            .ok_or_else(|| rustls::Error::General("TLS is not set up".to_owned()))?;
        ClientConnection::new(Arc::clone(config), name).map(TlsSession::new)
    }
}

/// TLS with a web server, which is known by its name: by the authorities in `tls`, or without any by those that the system trusts.
///
/// # Errors
/// If a file does not hold what it should, or the system trusts nobody.
pub fn for_https(tls: &Tls) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(provider(tls)?);
    let own = own_certificate(tls, &provider)?;
    let Trusted { roots, .. } = Trusted::by(tls.ca.as_ref().unwrap_or(&Authorities::System))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(tls))?
        .with_root_certificates(roots);
    Ok(match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        None => builder.with_no_client_auth(),
    })
}

/// Names in `ciphers` that are not known, which are left out.
pub fn unknown_ciphers(tls: &Tls) -> Vec<&str> {
    let names = tls.ciphers.as_deref().unwrap_or_default().split(':');
    let suites = default_provider().cipher_suites;
    names
        .filter(|name| !name.is_empty())
        .filter(|name| !suites.iter().any(|suite| is_called(suite.suite(), name)))
        .collect()
}

fn provider(tls: &Tls) -> Result<CryptoProvider, TlsError> {
    let mut provider = default_provider();
    if let Some(ciphers) = &tls.ciphers {
        let is_wanted =
            |suite: rustls::CipherSuite| ciphers.split(':').any(|name| is_called(suite, name));
        provider
            .cipher_suites
            .retain(|suite| is_wanted(suite.suite()));
        if provider.cipher_suites.is_empty() {
            return Err(TlsError::NoCiphers(ciphers.clone()));
        }
    }
    Ok(provider)
}

/// `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256` is OpenSSL's `ECDHE-RSA-AES128-GCM-SHA256`.
fn is_called(suite: rustls::CipherSuite, name: &str) -> bool {
    let registered = suite.as_str().unwrap_or_default().replace("TLS13_", "TLS_");
    let openssl = registered
        .trim_start_matches("TLS_")
        .replace("_WITH_", "-")
        .replace("AES_", "AES")
        .replace('_', "-")
        .replace("CHACHA20-POLY1305-SHA256", "CHACHA20-POLY1305");
    registered.eq_ignore_ascii_case(name) || openssl.eq_ignore_ascii_case(name)
}

fn versions(tls: &Tls) -> Vec<&'static SupportedProtocolVersion> {
    let known = [
        (TlsVersion::Tls12, &rustls::version::TLS12),
        (TlsVersion::Tls13, &rustls::version::TLS13),
    ];
    known
        .into_iter()
        .filter(|(version, _)| (tls.min_protocol..=tls.max_protocol).contains(version))
        .map(|(_, version)| version)
        .collect()
}

fn own_certificate(tls: &Tls, provider: &CryptoProvider) -> Result<Option<CertifiedKey>, TlsError> {
    let (Some(cert), Some(key)) = (&tls.cert, &tls.key) else {
        return Ok(None);
    };
    let chain = certificates(cert)?;
    let pem = key.text.expose();
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| {
        match pem.contains("ENCRYPTED") {
            true => in_file(key, "keys with a passphrase are not supported"),
            false => in_file(key, format!("no private key: {error}")),
        }
    })?;
    let signing = provider
        .key_provider
        .load_private_key(der)
        .map_err(|error| in_file(key, error))?;
    let own = CertifiedKey::new(chain, signing);
    // What it can't tell (a certificate of version 1, say) it does not have to.
    if let Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) = own.keys_match() {
        let why = format!("it is not the key of the certificate in {}", cert.name);
        return Err(in_file(key, why));
    }
    Ok(Some(own))
}

fn certificates(file: &TextFile) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(file.text.expose().as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| in_file(file, error))?;
    match certificates.is_empty() {
        true => Err(in_file(file, "there is no certificate in it")),
        false => Ok(certificates),
    }
}

/// Authorities that are trusted: as rustls wants them, and the certificates of those that are named.
struct Trusted {
    roots: RootCertStore,
    trusted: Vec<CertificateDer<'static>>,
}

impl Trusted {
    fn by(authorities: &Authorities) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        let Authorities::Of(file) = authorities else {
            // Some that the system has may be too old to be read.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return match roots.is_empty() {
                true => Err(TlsError::Incomplete(
                    "the system has no authorities to trust",
                )),
                false => Ok(Self {
                    roots,
                    trusted: Vec::new(),
                }),
            };
        };
        let trusted = certificates(file)?;
        for certificate in &trusted {
            roots
                .add(certificate.clone())
                .map_err(|error| in_file(file, error))?;
        }
        Ok(Self { roots, trusted })
    }
}

fn in_authorities(authorities: &Authorities, why: impl fmt::Display) -> TlsError {
    match authorities {
        Authorities::Of(file) => in_file(file, why),
        Authorities::System => TlsError::File {
            file: Authorities::SYSTEM.into(),
            why: why.to_string(),
        },
    }
}

fn revoked(tls: &Tls) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let Some(file) = &tls.crl else {
        return Ok(Vec::new());
    };
    let lists = CertificateRevocationListDer::pem_slice_iter(file.text.expose().as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| in_file(file, error))?;
    match lists.is_empty() {
        true => Err(in_file(
            file,
            "there is no list of revoked certificates in it",
        )),
        false => Ok(lists),
    }
}

fn in_file(file: &TextFile, why: impl fmt::Display) -> TlsError {
    TlsError::File {
        file: file.name.clone(),
        why: why.to_string(),
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// Equal settings make equal connections.
impl PartialEq for ServerTls {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings
    }
}

impl Eq for ServerTls {}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
