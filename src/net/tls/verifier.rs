//! Which servers are trusted, in libpq's sense: anyone's word, an authority's, or an authority's about the very host. And which clients.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::issuers::{Issuers, verify_signature};
use crate::net::certificate::Certificate;

/// Whom to trust. With the authorities' own certificates: a server may have one of these, as self-signed ones do.
#[derive(Debug)]
pub(super) enum ServerTrust {
    /// Whoever is there.
    Anyone,
    /// Whoever has a certificate of an authority.
    Issued(Arc<WebPkiServerVerifier>, Issuers),
    /// Whoever has one that names the host.
    Named(Arc<WebPkiServerVerifier>, Issuers),
}

/// Checks servers' certificates.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    trust: ServerTrust,
    signatures: Signatures,
}

impl ServerVerifier {
    pub(super) fn new(trust: ServerTrust, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self {
            trust,
            signatures: Signatures(algorithms),
        }
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
        let (chains, issuers, must_be_named) = match &self.trust {
            ServerTrust::Anyone => return Ok(ServerCertVerified::assertion()),
            ServerTrust::Issued(chains, issuers) => (chains, issuers, false),
            ServerTrust::Named(chains, issuers) => (chains, issuers, true),
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
        // The name is looked at last: the rest is right.
        let is_of_name = matches!(
            error,
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )
        );
        let is_trusted = match &error {
            _ if is_of_name => true,
            Error::InvalidCertificate(CertificateError::Revoked) => false,
            _ if issuers.trusted.contains(end_entity) => certificate.is_valid_at(now.as_secs()),
            _ => match issuers.verify(end_entity, now) {
                Some(verified) => verified.map(|()| true).map_err(Error::InvalidCertificate)?,
                None => false,
            },
        };
        match (is_trusted, is_named) {
            (true, true) => Ok(ServerCertVerified::assertion()),
            (true, false) if !is_of_name => {
                Err(Error::InvalidCertificate(CertificateError::NotValidForName))
            }
            (_, _) => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.0.supported_schemes()
    }
}

/// Checks clients' certificates.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    chains: Arc<dyn ClientCertVerifier>,
    issuers: Issuers,
    signatures: Signatures,
}

impl ClientVerifier {
    pub(super) fn new(
        chains: Arc<dyn ClientCertVerifier>,
        issuers: Issuers,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self {
            chains,
            issuers,
            signatures: Signatures(algorithms),
        }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.chains.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chains.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.issuers.verify(end_entity, now) {
            Some(verified) => verified
                .map(|()| ClientCertVerified::assertion())
                .map_err(Error::InvalidCertificate),
            None => self
                .chains
                .verify_client_cert(end_entity, intermediates, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signatures.verify_tls13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.0.supported_schemes()
    }
}

/// Whether the owner of a certificate's key has signed the handshake. The key is what counts: a certificate that rustls can't read, of
/// version 1 say, is read for it.
#[derive(Debug)]
struct Signatures(WebPkiSupportedAlgorithms);

impl Signatures {
    fn verify_tls12(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = verify_tls12_signature(message, cert, dss, &self.0);
        self.or_by_key(verified, message, cert, dss)
    }

    fn verify_tls13(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = verify_tls13_signature(message, cert, dss, &self.0);
        self.or_by_key(verified, message, cert, dss)
    }

    fn or_by_key(
        &self,
        verified: Result<HandshakeSignatureValid, Error>,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match verified {
            Err(Error::InvalidCertificate(error)) if error != CertificateError::BadSignature => {
                verify_signature(message, cert, dss, &self.0)
                    .map(|()| HandshakeSignatureValid::assertion())
            }
            verified => verified,
        }
    }
}

fn is_named(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    rustls::server::ParsedCertificate::try_from(certificate)
        .is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, name).is_ok())
}
