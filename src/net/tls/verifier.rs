//! Which servers are trusted, in libpq's sense: anyone's word, an authority's, or an authority's about the very host.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use crate::net::certificate::Certificate;

/// Whom to trust. With the authorities' own certificates: a server may have one of these, as self-signed ones do.
#[derive(Debug)]
pub(super) enum ServerTrust {
    /// Whoever is there.
    Anyone,
    /// Whoever has a certificate of an authority.
    Issued(Arc<WebPkiServerVerifier>, Vec<CertificateDer<'static>>),
    /// Whoever has one that names the host.
    Named(Arc<WebPkiServerVerifier>, Vec<CertificateDer<'static>>),
}

/// Checks servers' certificates.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    trust: ServerTrust,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerVerifier {
    pub(super) fn new(trust: ServerTrust, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { trust, algorithms }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (chains, trusted, must_be_named) = match &self.trust {
            ServerTrust::Anyone => return Ok(ServerCertVerified::assertion()),
            ServerTrust::Issued(chains, trusted) => (chains, trusted, false),
            ServerTrust::Named(chains, trusted) => (chains, trusted, true),
        };
        let Err(error) =
            chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        else {
            return Ok(ServerCertVerified::assertion());
        };
        let certificate = Certificate::parse(end_entity)
            .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let is_named = !must_be_named
            || certificate.is_of_host_by_common_name(&server_name.to_str())
            || is_named(end_entity, server_name);
        let is_trusted = match &error {
            // The name is looked at last: the rest is right.
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => true,
            Error::InvalidCertificate(CertificateError::Revoked) => false,
            _ => trusted.contains(end_entity) && certificate.is_valid_at(now.as_secs()),
        };
        match is_trusted && is_named {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    /// The key is what counts. Certificates of version 1, which PostgreSQL's own manual used to make, are read for it.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match verify_tls13_signature(message, cert, dss, &self.algorithms) {
            Err(Error::InvalidCertificate(error)) if error != CertificateError::BadSignature => {
                let certificate =
                    Certificate::parse(cert).ok_or(Error::InvalidCertificate(error))?;
                let key = SubjectPublicKeyInfoDer::from(certificate.public_key());
                verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms)
            }
            verified => verified,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn is_named(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    rustls::server::ParsedCertificate::try_from(certificate)
        .is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, name).is_ok())
}
