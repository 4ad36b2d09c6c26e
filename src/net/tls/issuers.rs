//! Certificates of version 1, which `openssl x509 -req` makes where it is told of no extensions, as PostgreSQL's manual had it for years.
//!
//! The rules of the web, which rustls goes by, know only version 3. libpq and PgBouncer take both; so here an authority that the
//! configuration names may have issued one of version 1 itself. Chains over further authorities need version 3.

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error};

use crate::net::certificate::{Certificate, RevocationList};

/// The authorities that are trusted, and what they have revoked.
#[derive(Debug)]
pub(super) struct Issuers {
    pub(super) trusted: Vec<CertificateDer<'static>>,
    pub(super) revoked: Vec<CertificateRevocationListDer<'static>>,
}

impl Issuers {
    /// Whether one of the authorities has issued this certificate, which is of version 1, and it is valid now. `None`: it is of
    /// another version, and not judged here.
    pub(super) fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Option<Result<(), CertificateError>> {
        let certificate = Certificate::parse(end_entity).filter(Certificate::is_of_version_1)?;
        let mut issuers = self
            .trusted
            .iter()
            .filter_map(|der| Certificate::parse(der));
        let Some(issuer) = issuers.find(|issuer| certificate.is_issued_by(issuer)) else {
            return Some(Err(CertificateError::UnknownIssuer));
        };
        let now = now.as_secs();
        Some(match () {
            () if !certificate.is_valid_at(now) || !issuer.is_valid_at(now) => {
                Err(CertificateError::Expired)
            }
            () if self.revoked.is_empty() => Ok(()),
            () => self.revocation(&certificate, &issuer, now),
        })
    }

    /// Where there are lists, one of them has to be the issuer's.
    fn revocation(
        &self,
        certificate: &Certificate<'_>,
        issuer: &Certificate<'_>,
        now: u64,
    ) -> Result<(), CertificateError> {
        let mut lists = self
            .revoked
            .iter()
            .filter_map(|der| RevocationList::parse(der));
        let list = lists
            .find(|list| list.is_issued_by(issuer))
            .ok_or(CertificateError::UnknownRevocationStatus)?;
        match list {
            list if list.contains(certificate) => Err(CertificateError::Revoked),
            list if !list.is_current_at(now) => Err(CertificateError::UnknownRevocationStatus),
            _ => Ok(()),
        }
    }
}

/// Whether the owner of a certificate's key has signed what the handshake says, for a certificate that rustls does not read.
pub(super) fn verify_signature(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), Error> {
    let bad = |why| Error::InvalidCertificate(why);
    let certificate = Certificate::parse(cert).ok_or(bad(CertificateError::BadEncoding))?;
    let (key_algorithm, key) = certificate.key();
    let schemes = algorithms.mapping.iter();
    let fitting = schemes
        .filter(|(scheme, _)| *scheme == dss.scheme)
        .flat_map(|(_, algorithms)| *algorithms)
        .filter(|algorithm| algorithm.public_key_alg_id().as_ref() == key_algorithm);
    for algorithm in fitting {
        if algorithm
            .verify_signature(key, message, dss.signature())
            .is_ok()
        {
            return Ok(());
        }
    }
    Err(bad(CertificateError::BadSignature))
}
