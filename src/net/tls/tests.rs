use std::io;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, SigningKey as _,
    date_time_ymd,
};

use super::*;
use crate::config::secret::Secret;

/// An authority, in PEM, with its key.
struct Authority(String, Issuer<'static, KeyPair>);

/// A certificate and its key.
#[derive(Clone)]
struct Issued(TextFile, TextFile);

fn file(name: &str, text: String) -> TextFile {
    TextFile {
        name: name.into(),
        text: Secret::new(text),
    }
}

fn named(common_name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = named("authority", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self(pem, Issuer::new(params, key))
    }

    fn issue(&self, serial: u64, common_name: &str, hosts: &[&str]) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = named(common_name, hosts);
        params.serial_number = Some(SerialNumber::from(serial));
        let certificate = params.signed_by(&key, &self.1).unwrap();
        Issued(
            file("x.crt", certificate.pem()),
            file("x.key", key.serialize_pem()),
        )
    }

    /// Of version 1, as `openssl x509 -req` makes it: without extensions.
    fn issue_of_version_1(&self, serial: u64, common_name: &str) -> Issued {
        let Issued(certificate, key) = self.issue(serial, common_name, &[]);
        let der = CertificateDer::from_pem_slice(certificate.text.expose().as_bytes()).unwrap();
        let [tbs, algorithm, _signature] = elements(&der).try_into().unwrap();
        let fields = elements(&tbs).into_iter();
        // Its version and its extensions carry tags of their own.
        let fields = fields.filter(|field| !matches!(field.first(), Some(0xa0 | 0xa3)));
        let tbs = sequence(0x30, fields);
        let signature = [vec![0], self.1.key().sign(&tbs).unwrap()].concat();
        let signature = sequence(0x03, [signature].into_iter());
        let der = sequence(0x30, [tbs, algorithm, signature].into_iter());
        let text = BASE64_STANDARD.encode(der);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        Issued(file("x.crt", pem), key)
    }

    fn trusted(&self) -> Option<TextFile> {
        Some(file("ca.crt", self.0.clone()))
    }

    fn revoke(&self, serial: u64) -> Option<TextFile> {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2120, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Some(file(
            "ca.crl",
            list.signed_by(&self.1).unwrap().pem().unwrap(),
        ))
    }
}

/// What a DER sequence is made of.
fn elements(der: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = content(der).0;
    let mut elements = Vec::new();
    while !rest.is_empty() {
        let (_, len) = content(rest);
        let (element, behind) = rest.split_at(len);
        elements.push(element.to_vec());
        rest = behind;
    }
    elements
}

/// The content of a DER element, and how long all of it is.
fn content(der: &[u8]) -> (&[u8], usize) {
    let (header, len) = match der[1] {
        short @ 0..=0x7f => (2, usize::from(short)),
        0x81 => (3, usize::from(der[2])),
        0x82 => (4, usize::from(u16::from_be_bytes([der[2], der[3]]))),
        other => panic!("a length of {other:x}"),
    };
    (&der[header..header + len], header + len)
}

fn sequence(tag: u8, elements: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let content: Vec<u8> = elements.flatten().collect();
    let len = u16::try_from(content.len()).unwrap().to_be_bytes();
    let header = match len {
        [0, short @ 0..=0x7f] => vec![tag, short],
        [0, long] => vec![tag, 0x81, long],
        [high, low] => vec![tag, 0x82, high, low],
    };
    [header, content].concat()
}

fn tls(mode: TlsMode, own: Option<&Issued>, ca: Option<TextFile>) -> Tls {
    Tls {
        cert: own.map(|own| own.0.clone()),
        key: own.map(|own| own.1.clone()),
        ca: ca.map(Authorities::Of),
        ..Tls::of(mode)
    }
}

/// Lets both sides shake hands, and each say a word to the other.
fn shake(
    client: &Tls,
    host: &str,
    server: &Tls,
    certificates: ClientCertificates,
) -> io::Result<(TlsSession, TlsSession)> {
    let server = ClientTls::new(server, certificates).unwrap();
    let mut client = ServerTls::new(client).unwrap().session(host).unwrap();
    let mut server = server.session().unwrap();
    client.put(&[io::IoSlice::new(b"ping")])?;
    for _ in 0..10 {
        pass(&mut client, &mut server)?;
        pass(&mut server, &mut client)?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    server.put(&[io::IoSlice::new(b"po"), io::IoSlice::new(b"ng")])?;
    pass(&mut server, &mut client)?;
    for (session, word) in [(&mut server, b"ping"), (&mut client, b"pong")] {
        let mut buffer = [0; 8];
        assert_eq!(session.take(&mut buffer)?, 4);
        assert_eq!(&buffer[..4], word);
    }
    Ok((client, server))
}

fn pass(from: &mut TlsSession, to: &mut TlsSession) -> io::Result<()> {
    let mut bytes = Vec::new();
    while from.has_unsent() {
        from.push(&mut bytes)?;
    }
    to.feed(&bytes)
}

fn trusts(client: &Tls, host: &str, server: &Issued) -> Result<(), String> {
    let server = tls(TlsMode::Require, Some(server), None);
    shake(client, host, &server, ClientCertificates::ByMode)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

#[test]
fn require_trusts_anyone_and_the_verifying_modes_only_whom_they_should() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let right = ours.issue(1, "x", &["db.example.com", "127.0.0.1"]);
    let other = ours.issue(2, "x", &["other.example.com"]);
    let foreign = theirs.issue(3, "x", &["db.example.com"]);
    let require = tls(TlsMode::Require, None, None);
    let verify_ca = tls(TlsMode::VerifyCa, None, ours.trusted());
    let verify_full = tls(TlsMode::VerifyFull, None, ours.trusted());
    for (server, expected) in [
        (&right, [true, true, true]),
        (&other, [true, true, false]),
        (&foreign, [true, false, false]),
    ] {
        let modes = [&require, &verify_ca, &verify_full];
        let trusted = modes.map(|mode| trusts(mode, "db.example.com", server).is_ok());
        assert_eq!(trusted, expected);
    }
    assert_eq!(trusts(&verify_full, "127.0.0.1", &right), Ok(()));
    assert!(trusts(&verify_full, "127.0.0.2", &right).is_err());
}

#[test]
fn a_host_may_stand_in_the_common_name_where_there_is_no_other_name() {
    let ours = Authority::new();
    let verify_full = tls(TlsMode::VerifyFull, None, ours.trusted());
    let by_common_name = ours.issue(1, "db.example.com", &[]);
    assert_eq!(
        trusts(&verify_full, "db.example.com", &by_common_name),
        Ok(())
    );
    assert!(trusts(&verify_full, "other.example.com", &by_common_name).is_err());
    let named_otherwise = ours.issue(2, "db.example.com", &["other.example.com"]);
    assert!(trusts(&verify_full, "db.example.com", &named_otherwise).is_err());
}

#[test]
fn a_certificate_that_is_trusted_itself_needs_no_authority() {
    let key = KeyPair::generate().unwrap();
    let mut params = named("x", &["db.example.com"]);
    // As `openssl req -x509` makes them.
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    let own = Issued(
        file("x.crt", pem.clone()),
        file("x.key", key.serialize_pem()),
    );
    let trust = |mode| tls(mode, None, Some(file("ca.crt", pem.clone())));
    assert_eq!(
        trusts(&trust(TlsMode::VerifyFull), "db.example.com", &own),
        Ok(())
    );
    assert!(trusts(&trust(TlsMode::VerifyFull), "other.example.com", &own).is_err());
    assert_eq!(
        trusts(&trust(TlsMode::VerifyCa), "other.example.com", &own),
        Ok(())
    );
}

#[test]
fn a_revoked_certificate_is_not_trusted() {
    let ours = Authority::new();
    let server = ours.issue(7, "x", &["db.example.com"]);
    let with_list = |serial| Tls {
        crl: ours.revoke(serial),
        ..tls(TlsMode::VerifyFull, None, ours.trusted())
    };
    assert_eq!(trusts(&with_list(8), "db.example.com", &server), Ok(()));
    assert!(trusts(&with_list(7), "db.example.com", &server).is_err());
}

#[test]
fn an_authority_may_have_issued_a_certificate_of_version_1() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = ours.issue_of_version_1(7, "db.example.com");
    let foreign = theirs.issue_of_version_1(7, "db.example.com");
    for max_protocol in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let trust = |mode, crl| Tls {
            max_protocol,
            crl,
            ..tls(mode, None, ours.trusted())
        };
        let (issued, named) = (TlsMode::VerifyCa, TlsMode::VerifyFull);
        let require = tls(TlsMode::Require, None, None);
        assert_eq!(trusts(&require, "db.example.com", &foreign), Ok(()));
        assert_eq!(
            trusts(&trust(named, None), "db.example.com", &server),
            Ok(())
        );
        assert_eq!(
            trusts(&trust(issued, None), "other.example.com", &server),
            Ok(())
        );
        assert!(trusts(&trust(named, None), "other.example.com", &server).is_err());
        assert!(trusts(&trust(issued, None), "db.example.com", &foreign).is_err());
        let revoked = |serial| trust(issued, ours.revoke(serial));
        assert_eq!(trusts(&revoked(8), "db.example.com", &server), Ok(()));
        assert!(trusts(&revoked(7), "db.example.com", &server).is_err());
        // A list that is not its issuer's tells nothing.
        let unlisted = trust(issued, theirs.revoke(8));
        assert!(trusts(&unlisted, "db.example.com", &server).is_err());
    }
    let seen = |client: &Issued| {
        let client = tls(TlsMode::Require, Some(client), None);
        let server = tls(TlsMode::VerifyFull, Some(&server), ours.trusted());
        shake(&client, "localhost", &server, ClientCertificates::ByMode)
            .ok()
            .map(|(_, server)| server.peer_certificate().is_some())
    };
    assert_eq!(seen(&ours.issue_of_version_1(2, "ann")), Some(true));
    assert_eq!(seen(&theirs.issue_of_version_1(2, "ann")), None);
}

#[test]
fn whoever_is_no_authority_issues_no_certificate_of_version_1() {
    let ours = Authority::new();
    let key = KeyPair::generate().unwrap();
    let params = named("authority", &[]);
    let pem = params.self_signed(&key).unwrap().pem();
    let no_authority = Authority(pem, Issuer::new(params, key));
    let server = no_authority.issue_of_version_1(7, "db.example.com");
    let verify_ca = tls(TlsMode::VerifyCa, None, no_authority.trusted());
    assert!(trusts(&verify_ca, "db.example.com", &server).is_err());
    // Of the same name, with another key.
    let verify_ca = tls(TlsMode::VerifyCa, None, ours.trusted());
    assert!(trusts(&verify_ca, "db.example.com", &server).is_err());
}

#[test]
fn clients_show_certificates_as_the_mode_says() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = ours.issue(1, "server", &["localhost"]);
    let ann = ours.issue(2, "ann", &[]);
    let eve = theirs.issue(3, "ann", &[]);
    let seen = |mode, certificates, client: Option<&Issued>| {
        let client = tls(TlsMode::Require, client, None);
        let server = tls(mode, Some(&server), ours.trusted());
        shake(&client, "localhost", &server, certificates)
            .ok()
            .map(|(_, server)| server.peer_certificate().is_some())
    };
    let by_mode = ClientCertificates::ByMode;
    assert_eq!(seen(TlsMode::VerifyFull, by_mode, Some(&ann)), Some(true));
    assert_eq!(seen(TlsMode::VerifyFull, by_mode, Some(&eve)), None);
    assert_eq!(seen(TlsMode::VerifyCa, by_mode, None), None);
    // Nobody is asked: what a client has does not matter.
    assert_eq!(seen(TlsMode::Require, by_mode, Some(&eve)), Some(false));
    let welcome = ClientCertificates::Welcome;
    assert_eq!(seen(TlsMode::Require, welcome, Some(&ann)), Some(true));
    assert_eq!(seen(TlsMode::Require, welcome, None), Some(false));
    assert_eq!(seen(TlsMode::Require, welcome, Some(&eve)), None);
}

#[test]
fn versions_and_ciphers_are_those_that_are_wanted() {
    let ours = Authority::new();
    let server = ours.issue(1, "x", &["localhost"]);
    let agreed = |client: Tls| {
        let server = tls(TlsMode::Require, Some(&server), None);
        shake(&client, "localhost", &server, ClientCertificates::ByMode)
            .unwrap()
            .1
            .description()
            .unwrap()
            .into_string()
    };
    let require = || tls(TlsMode::Require, None, None);
    assert_eq!(
        agreed(require()),
        "TLSv1.3/TLS_AES_256_GCM_SHA384/ECDH=X25519"
    );
    assert_eq!(
        agreed(Tls {
            max_protocol: TlsVersion::Tls12,
            ciphers: Some("ECDHE-ECDSA-AES128-GCM-SHA256:unheard-of".into()),
            ..require()
        }),
        "TLSv1.2/TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256/ECDH=X25519"
    );
    let odd = Tls {
        ciphers: Some("TLS_CHACHA20_POLY1305_SHA256:unheard-of".into()),
        ..require()
    };
    assert_eq!(unknown_ciphers(&odd), ["unheard-of"]);
    assert_eq!(
        agreed(odd),
        "TLSv1.3/TLS_CHACHA20_POLY1305_SHA256/ECDH=X25519"
    );
    let none = Tls {
        ciphers: Some("HIGH:!aNULL".into()),
        ..require()
    };
    assert!(matches!(ServerTls::new(&none), Err(TlsError::NoCiphers(_))));
}

#[test]
fn what_is_wrong_with_a_file_is_told_without_its_text() {
    let ours = Authority::new();
    let (one, other) = (ours.issue(1, "x", &[]), ours.issue(2, "x", &[]));
    let error = |own: Issued, ca: Option<TextFile>| {
        let tls = tls(TlsMode::VerifyFull, Some(&own), ca);
        ServerTls::new(&tls).unwrap_err().to_string()
    };
    assert_eq!(
        error(Issued(one.0.clone(), other.1), ours.trusted()),
        "x.key: it is not the key of the certificate in x.crt"
    );
    let empty = file("empty", "nothing".to_owned());
    assert_eq!(
        error(Issued(empty.clone(), one.1.clone()), ours.trusted()),
        "empty: there is no certificate in it"
    );
    assert_eq!(
        error(one.clone(), Some(empty.clone())),
        "empty: there is no certificate in it"
    );
    assert!(error(Issued(one.0, empty), ours.trusted()).starts_with("empty: no private key"));
}

#[test]
fn a_second_session_resumes_the_first() {
    let ours = Authority::new();
    let server = ours.issue(1, "x", &["localhost"]);
    let server = tls(TlsMode::Require, Some(&server), None);
    let server = ClientTls::new(&server, ClientCertificates::ByMode).unwrap();
    let client = ServerTls::new(&tls(TlsMode::Require, None, None)).unwrap();
    let kinds: Vec<_> = (0..2)
        .map(|_| {
            let mut client = client.session("localhost").unwrap();
            let mut server = server.session().unwrap();
            for _ in 0..5 {
                pass(&mut client, &mut server).unwrap();
                pass(&mut server, &mut client).unwrap();
            }
            server.is_resumed()
        })
        .collect();
    assert_eq!(kinds, [false, true]);
}
