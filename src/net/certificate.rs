//! What stands in a certificate, as far as rustls does not say it: names, the key, and what SCRAM is bound to.

use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::asn1_rs::{Any, oid};
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA, Oid};
use x509_parser::prelude::{FromDer, X509Version};
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::signature_algorithm::SignatureAlgorithm;
use x509_parser::time::ASN1Time;

/// A certificate that is who knows whose: nothing here says that it can be trusted.
pub struct Certificate<'a>(X509Certificate<'a>);

impl<'a> Certificate<'a> {
    /// Reads the DER of one.
    pub fn parse(der: &'a [u8]) -> Option<Self> {
        X509Certificate::from_der(der)
            .ok()
            .filter(|(rest, _)| rest.is_empty())
            .map(|(_, certificate)| Self(certificate))
    }

    /// Its subject's common name, and the host names in its subjectAltName.
    pub fn names(&self) -> Vec<Box<str>> {
        let common = self.common_names();
        let alternative = self.alternative_names().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(Box::from(*name)),
            _ => None,
        });
        // A name with a zero byte in it is meant to be taken for another one.
        common
            .chain(alternative)
            .filter(|name| !name.contains('\0'))
            .collect()
    }

    /// Whether it is a host's by its common name, which counts only where the certificate has no other names (as in libpq).
    pub fn is_of_host_by_common_name(&self, host: &str) -> bool {
        let has_other_names = self
            .alternative_names()
            .any(|name| matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_)));
        !has_other_names && self.common_names().any(|name| is_name_of(&name, host))
    }

    /// Whether it is valid at this time, in seconds since 1970.
    pub fn is_valid_at(&self, seconds: u64) -> bool {
        i64::try_from(seconds)
            .ok()
            .and_then(|seconds| ASN1Time::from_timestamp(seconds).ok())
            .is_some_and(|time| self.0.validity().is_valid_at(time))
    }

    /// Whether it is of the version that has no extensions.
    pub fn is_of_version_1(&self) -> bool {
        self.0.version() == X509Version::V1
    }

    /// Whether `issuer` is an authority, and has signed it, by an algorithm that is still thought to be safe.
    pub fn is_issued_by(&self, issuer: &Self) -> bool {
        let is_safe = self.0.signature_algorithm.algorithm != OID_PKCS1_SHA1WITHRSA
            && self.0.signature_algorithm.algorithm != OID_SHA1_WITH_RSA;
        is_safe
            && self.0.issuer().as_raw() == issuer.0.subject().as_raw()
            && issuer.is_authority()
            && self.0.verify_signature(Some(issuer.0.public_key())).is_ok()
    }

    /// Whether it may issue others. Of version 1 nobody knows; it is for whoever has named it as one.
    fn is_authority(&self) -> bool {
        let is_ca = match self.0.basic_constraints() {
            Ok(Some(constraints)) => constraints.value.ca,
            Ok(None) => self.is_of_version_1(),
            Err(_) => false,
        };
        let may_sign = match self.0.key_usage() {
            Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
            Err(_) => false,
        };
        // Nobody here would look whether the names are those that it may give.
        let is_bounded = !matches!(self.0.name_constraints(), Ok(None));
        is_ca && may_sign && !is_bounded
    }

    /// The key in it: its algorithm, as it stands in a SubjectPublicKeyInfo without the outer header, and its bits.
    pub fn key(&self) -> (&[u8], &[u8]) {
        let info = self.0.public_key();
        let algorithm = Any::from_der(info.raw)
            .and_then(|(_, info)| Any::from_der(info.data))
            .map_or(&[][..], |(_, algorithm)| algorithm.data);
        (algorithm, &info.subject_public_key.data)
    }

    fn common_names(&self) -> impl Iterator<Item = Box<str>> {
        self.0
            .subject()
            .iter_common_name()
            .filter_map(|name| name.as_str().ok())
            .map(Box::from)
    }

    fn alternative_names(&self) -> impl Iterator<Item = &GeneralName<'a>> {
        let extension = self.0.subject_alternative_name().ok().flatten();
        extension
            .map(|extension| &extension.value.general_names)
            .into_iter()
            .flatten()
    }
}

/// What an authority has revoked.
pub struct RevocationList<'a>(CertificateRevocationList<'a>);

impl<'a> RevocationList<'a> {
    /// Reads the DER of one.
    pub fn parse(der: &'a [u8]) -> Option<Self> {
        CertificateRevocationList::from_der(der)
            .ok()
            .map(|(_, list)| Self(list))
    }

    /// Whether this authority has signed it.
    pub fn is_issued_by(&self, issuer: &Certificate<'_>) -> bool {
        self.0.issuer().as_raw() == issuer.0.subject().as_raw()
            && self.0.verify_signature(issuer.0.public_key()).is_ok()
    }

    /// Whether it holds at this time, in seconds since 1970.
    pub fn is_current_at(&self, seconds: u64) -> bool {
        let next = self.0.next_update().map(|next| next.timestamp());
        next.is_some_and(|next| i64::try_from(seconds).is_ok_and(|now| now < next))
    }

    /// Whether the certificate, which is of the same authority, stands in it.
    pub fn contains(&self, certificate: &Certificate<'_>) -> bool {
        let serial = certificate.0.raw_serial();
        self.0
            .iter_revoked_certificates()
            .any(|revoked| revoked.raw_serial() == serial)
    }
}

/// What SCRAM is bound to: the certificate's hash by the algorithm of its signature, or by SHA-256 where that one is weak
/// (`tls-server-end-point`, RFC 5929 section 4.1). `None` where the algorithm has no hash of its own.
pub fn end_point_hash(der: &[u8]) -> Option<Box<[u8]>> {
    let certificate = Certificate::parse(der)?;
    let signed_by = &certificate.0.signature_algorithm;
    let hash = match SignatureAlgorithm::try_from(signed_by) {
        Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) => {
            Hash::of_digest(parameters.hash_algorithm_oid())
        }
        _ => Hash::of_signature(&signed_by.algorithm),
    }?;
    Some(match hash {
        Hash::Sha256 => Sha256::digest(der).as_slice().into(),
        Hash::Sha384 => Sha384::digest(der).as_slice().into(),
        Hash::Sha512 => Sha512::digest(der).as_slice().into(),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    fn of_digest(digest: &Oid<'_>) -> Option<Self> {
        Some(match digest {
            // SHA-1, SHA-256
            digest if *digest == oid!(1.3.14.3.2.26) || *digest == oid!(2.16.840.1.101.3.4.2.1) => {
                Self::Sha256
            }
            digest if *digest == oid!(2.16.840.1.101.3.4.2.2) => Self::Sha384,
            digest if *digest == oid!(2.16.840.1.101.3.4.2.3) => Self::Sha512,
            _ => return None,
        })
    }

    fn of_signature(signature: &Oid<'_>) -> Option<Self> {
        let known = [
            // md5WithRSA, sha1WithRSA, sha256WithRSA, ecdsa-with-SHA1, ecdsa-with-SHA256
            (oid!(1.2.840.113549.1.1.4), Self::Sha256),
            (oid!(1.2.840.113549.1.1.5), Self::Sha256),
            (oid!(1.2.840.113549.1.1.11), Self::Sha256),
            (oid!(1.2.840.10045.4.1), Self::Sha256),
            (oid!(1.2.840.10045.4.3.2), Self::Sha256),
            (oid!(1.2.840.113549.1.1.12), Self::Sha384),
            (oid!(1.2.840.10045.4.3.3), Self::Sha384),
            (oid!(1.2.840.113549.1.1.13), Self::Sha512),
            (oid!(1.2.840.10045.4.3.4), Self::Sha512),
        ];
        known
            .into_iter()
            .find(|(known, _)| known == signature)
            .map(|(_, hash)| hash)
    }
}

/// Whether a name in a certificate is that of a host; `*.` stands for one label.
fn is_name_of(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(domain) => host
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(domain)),
        None => name.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    fn made(common_name: &str, others: &[&str]) -> Vec<u8> {
        let others: Vec<String> = others.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(others).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_says_its_names() {
        let der = made("ann", &["ann.example.com", "10.0.0.1"]);
        let names = Certificate::parse(&der).unwrap().names();
        assert_eq!(names, ["ann".into(), "ann.example.com".into()]);
    }

    #[test]
    fn the_common_name_counts_where_there_is_no_other() {
        let is_of = |common: &str, others: &[&str], host: &str| {
            let der = made(common, others);
            Certificate::parse(&der)
                .unwrap()
                .is_of_host_by_common_name(host)
        };
        assert!(is_of("db.example.com", &[], "DB.example.com"));
        assert!(is_of("*.example.com", &[], "db.example.com"));
        assert!(!is_of("*.example.com", &[], "a.db.example.com"));
        assert!(!is_of("*.example.com", &[], "example.com"));
        assert!(!is_of(
            "db.example.com",
            &["other.example.com"],
            "db.example.com"
        ));
        assert!(is_of("10.0.0.1", &[], "10.0.0.1"));
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let of = |algorithm| {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let params = CertificateParams::new(Vec::new()).unwrap();
            end_point_hash(params.self_signed(&key).unwrap().der())
        };
        assert_eq!(end_point_hash(&made("x", &[])).unwrap().len(), 32);
        assert_eq!(of(&PKCS_ECDSA_P384_SHA384).unwrap().len(), 48);
        assert_eq!(of(&PKCS_ED25519), None);
        assert_eq!(end_point_hash(b"no certificate"), None);
    }
}
