use proptest::prelude::*;

use super::*;
use crate::auth::held::Held;
use crate::auth::held::tests::making;
use crate::auth::scram::{DEFAULT_ITERATIONS, ScramClientError};
use crate::protocol::error_response::SqlState;
use crate::session::client_login::{Challenge, ClientLogin, ClientLoginRequest, Progress};

fn request(password: Option<&str>) -> ServerLoginRequest {
    ServerLoginRequest {
        version: ProtocolVersion::V3_0,
        user: (*b"md5_user").into(),
        database: (*b"shop").into(),
        parameters: vec![],
        replication: Replication::None,
        password: password.map(Secret::new),
        scram_keys: None,
        channel: ServerChannel::Unbound,
        nonce: [1; 18],
    }
}

fn begin(request: ServerLoginRequest) -> ServerLogin {
    ServerLogin::begin(request, &mut Vec::new())
}

/// Cuts messages out of bytes that hold whole ones.
fn frames(mut bytes: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    while let [tag, rest @ ..] = bytes {
        let (length, rest) = rest.split_first_chunk().unwrap();
        let (body, rest) = rest.split_at(u32::from_be_bytes(*length) as usize - 4);
        frames.push(Frame { tag: *tag, body });
        bytes = rest;
    }
    frames
}

/// Lets the server say this; gives back what it came to and what we said.
fn hear(
    mut login: ServerLogin,
    messages: &[u8],
) -> (Result<ServerProgress, ServerLoginError>, Vec<u8>) {
    let mut out = Vec::new();
    for frame in frames(messages) {
        match login.on_message(frame, &mut out) {
            Ok(ServerProgress::Continue(next)) => login = next,
            other => return (other, out),
        }
    }
    (Ok(ServerProgress::Continue(login)), out)
}

fn error(password: Option<&str>, messages: &[u8]) -> ServerLoginError {
    hear(begin(request(password)), messages).0.unwrap_err()
}

const OK: &[u8] = b"R\0\0\0\x08\0\0\0\0";
const WANTS_SCRAM: &[u8] = b"R\0\0\0\x2a\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
/// As PostgreSQL 15 answers, shortened.
const WELCOME: &[u8] = b"S\0\0\0\x16application_name\0\0S\0\0\0\x19client_encoding\0UTF8\0S\0\0\0\x11TimeZone\0UTC\0K\0\0\0\x0c\0\0\x12\x34abcdZ\0\0\0\x05I";

#[test]
fn the_startup_message_says_who_and_where() {
    let mut out = Vec::new();
    ServerLogin::begin(
        ServerLoginRequest {
            parameters: vec![((*b"application_name").into(), (*b"app").into())],
            replication: Replication::Logical,
            ..request(None)
        },
        &mut out,
    );
    assert_eq!(
        out,
        b"\0\0\0\x4f\0\x03\0\0user\0md5_user\0database\0shop\0replication\0database\0application_name\0app\0\0"
    );
}

#[test]
fn a_trusting_server_is_ready_at_once() {
    let (progress, out) = hear(begin(request(None)), &[OK, WELCOME].concat());
    let Ok(ServerProgress::Done(identity)) = progress else {
        panic!("{progress:?}");
    };
    assert_eq!(out, b"");
    assert_eq!(identity.version, ProtocolVersion::V3_0);
    assert_eq!(identity.cancel_key, CancelKey::new(0x1234, b"abcd"));
    assert_eq!(
        identity.parameters,
        [
            ((*b"application_name").into(), (*b"").into()),
            ((*b"client_encoding").into(), (*b"UTF8").into()),
            ((*b"TimeZone").into(), (*b"UTC").into()),
        ]
    );
}

#[test]
fn the_last_report_of_a_parameter_holds() {
    let again = b"S\0\0\0\x11TimeZone\0CET\0";
    let (progress, _) = hear(begin(request(None)), &[OK, again, WELCOME].concat());
    let Ok(ServerProgress::Done(identity)) = progress else {
        panic!("{progress:?}");
    };
    assert_eq!(
        identity.parameters[0],
        ((*b"TimeZone").into(), (*b"UTC").into())
    );
    assert_eq!(identity.parameters.len(), 3);
}

#[test]
fn a_password_is_sent_as_it_is_when_asked_for() {
    let asks = b"R\0\0\0\x08\0\0\0\x03";
    let (progress, out) = hear(begin(request(Some("hunter2"))), asks);
    assert!(progress.is_ok());
    assert_eq!(out, b"p\0\0\0\x0chunter2\0");
    assert_eq!(error(None, asks), ServerLoginError::NoPassword("password"));
    assert_eq!(
        error(Some("md57cd2b9a92689eab2e58caf2da80afa15"), asks),
        ServerLoginError::WrongKindOfPassword("password")
    );
}

#[test]
fn md5_is_answered_from_a_password_or_its_hash() {
    let asks = b"R\0\0\0\x0c\0\0\0\x05\x2a\x3d\x8f\xe0";
    for password in ["password", "md57cd2b9a92689eab2e58caf2da80afa15"] {
        let (_, out) = hear(begin(request(Some(password))), asks);
        assert_eq!(out, b"p\0\0\0\x28md562af4dd09bbb41884907a838a3233294\0");
    }
    assert_eq!(error(None, asks), ServerLoginError::NoPassword("MD5"));
    assert_eq!(
        error(Some("x"), b"R\0\0\0\x0b\0\0\0\x05\x2a\x3d\x8f"),
        ServerLoginError::Malformed("Authentication")
    );
}

#[test]
fn scram_without_channel_binding_is_picked_from_the_list() {
    let (_, out) = hear(begin(request(Some("hunter2"))), WANTS_SCRAM);
    assert_eq!(
        out,
        b"p\0\0\0\x36SCRAM-SHA-256\0\0\0\0\x20n,,n=,r=AQEBAQEBAQEBAQEBAQEBAQEB"
    );
    assert_eq!(
        error(None, WANTS_SCRAM),
        ServerLoginError::NoPassword("SCRAM-SHA-256")
    );
    assert_eq!(
        error(Some("md57cd2b9a92689eab2e58caf2da80afa15"), WANTS_SCRAM),
        ServerLoginError::WrongKindOfPassword("SCRAM-SHA-256")
    );
    assert_eq!(
        error(Some("x"), b"R\0\0\0\x15\0\0\0\x0aOAUTHBEARER\0\0"),
        ServerLoginError::UnsupportedAuthentication("SASL (OAUTHBEARER)".into())
    );
}

#[test]
fn a_server_cannot_skip_its_part_of_scram() {
    let first = b"R\0\0\0\x32\0\0\0\x0br=AQEBAQEBAQEBAQEBAQEBAQEBx,s=c2FsdA==,i=2";
    assert_eq!(
        error(Some("hunter2"), &[WANTS_SCRAM, OK].concat()),
        ServerLoginError::SkippedScram
    );
    assert_eq!(
        error(Some("hunter2"), &[WANTS_SCRAM, first, OK].concat()),
        ServerLoginError::SkippedScram
    );
    assert_eq!(
        error(
            Some("hunter2"),
            &[WANTS_SCRAM, first, b"R\0\0\0\x10\0\0\0\x0cv=AAAAAA"].concat()
        ),
        ServerLoginError::Scram(ScramClientError::WrongSignature)
    );
}

#[test]
fn other_authentication_is_named_and_refused() {
    for (kind, name) in [
        (2u8, "Kerberos V5"),
        (7, "GSSAPI"),
        (9, "SSPI"),
        (99, "unknown (99)"),
    ] {
        assert_eq!(
            error(Some("x"), &[b"R\0\0\0\x08\0\0\0", &[kind][..]].concat()).to_string(),
            format!("server requests {name} authentication, which is not supported")
        );
    }
}

#[test]
fn a_refusal_is_kept_in_the_servers_words() {
    let mut refused = Vec::new();
    encode::message(&mut refused, b'E', |body| {
        body.extend_from_slice(
            b"SFATAL\0VFATAL\0C28000\0Mrole \"md5_user\" does not exist\0Fmiscinit.c\0L756\0\0",
        );
    });
    assert_eq!(
        error(None, &refused),
        ServerLoginError::Refused(ServerRefusal {
            severity: (*b"FATAL").into(),
            code: Some(SqlState::INVALID_AUTHORIZATION_SPECIFICATION),
            message: (*b"role \"md5_user\" does not exist").into(),
        })
    );
    assert_eq!(
        error(None, &refused).to_string(),
        "FATAL: role \"md5_user\" does not exist"
    );
    assert_eq!(
        error(None, b"E\0\0\0\x08Mno\0"),
        ServerLoginError::Malformed("ErrorResponse")
    );
}

#[test]
fn notices_are_passed_over() {
    let notice = b"N\0\0\0\x0dSNOTICE\0\0";
    let messages = [&notice[..], OK, notice, WELCOME].concat();
    assert!(matches!(
        hear(begin(request(None)), &messages).0,
        Ok(ServerProgress::Done(_))
    ));
}

#[test]
fn an_older_version_is_accepted_and_a_newer_one_is_not() {
    let asks = |version| {
        begin(ServerLoginRequest {
            version,
            ..request(None)
        })
    };
    let offers_3_0 = b"v\0\0\0\x0c\0\x03\0\0\0\0\0\0";
    let offers_3_2 = b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0";
    let (progress, _) = hear(
        asks(ProtocolVersion::V3_2),
        &[offers_3_0, OK, WELCOME].concat(),
    );
    let Ok(ServerProgress::Done(identity)) = progress else {
        panic!("{progress:?}");
    };
    assert_eq!(identity.version, ProtocolVersion::V3_0);
    assert_eq!(
        hear(asks(ProtocolVersion::V3_0), offers_3_2).0.unwrap_err(),
        ServerLoginError::UnsupportedProtocol(ProtocolVersion::V3_2)
    );
}

#[test]
fn long_cancel_keys_are_kept_whole() {
    let key = [b"K\0\0\0\x28\0\0\0\x07", &[b's'; 32][..]].concat();
    let messages = [OK, &key, b"Z\0\0\0\x05I"].concat();
    let (progress, _) = hear(begin(request(None)), &messages);
    let Ok(ServerProgress::Done(identity)) = progress else {
        panic!("{progress:?}");
    };
    assert_eq!(identity.cancel_key, CancelKey::new(7, &[b's'; 32]));
}

#[test]
fn messages_out_of_place_are_refused() {
    for (messages, tag) in [
        (WELCOME.to_vec(), b'S'),
        (b"Z\0\0\0\x05I".to_vec(), b'Z'),
        ([OK, OK].concat(), b'R'),
        ([OK, b"v\0\0\0\x0c\0\x03\0\0\0\0\0\0"].concat(), b'v'),
        ([OK, b"T\0\0\0\x06\0\0"].concat(), b'T'),
        (b"R\0\0\0\x0b\0\0\0\x0br=x".to_vec(), b'R'),
    ] {
        assert_eq!(
            error(None, &messages),
            ServerLoginError::UnexpectedMessage(tag)
        );
    }
    assert_eq!(
        error(None, &[OK, b"Z\0\0\0\x05T"].concat()),
        ServerLoginError::Malformed("ReadyForQuery")
    );
}

#[test]
fn what_a_server_may_send_is_bounded() {
    let login = begin(request(None));
    let body = vec![0; MAX_SERVER_LOGIN_MESSAGE_LENGTH + 1];
    let frame = Frame {
        tag: b'N',
        body: &body,
    };
    assert_eq!(
        login.on_message(frame, &mut Vec::new()).unwrap_err(),
        ServerLoginError::TooLong
    );

    let mut messages = OK.to_vec();
    for nth in 0..=MAX_REPORTED_PARAMETERS {
        encode::parameter_status(&mut messages, nth.to_string().as_bytes(), b"x");
    }
    assert_eq!(error(None, &messages), ServerLoginError::TooManyParameters);
}

#[test]
fn debug_output_shows_no_password() {
    let request = request(Some("hunter2"));
    assert!(!format!("{request:?}").contains("hunter2"));
    assert!(!format!("{:?}", begin(request)).contains("hunter2"));
}

/// Lets the proxy log in at itself.
fn log_in(server: &Verifier, client: ServerLoginRequest, nonce: Nonce) -> (CachedKeys, CachedKeys) {
    let (mut to_client, mut to_server) = (Vec::new(), Vec::new());
    let mut client = begin(client);
    let begun = ClientLogin::begin(
        ClientLoginRequest {
            user: b"ann",
            challenge: Challenge::Scram,
            held: &Held::of_user(b"ann", server.clone(), &making(DEFAULT_ITERATIONS)),
            nonce,
            binding: None,
        },
        &mut to_client,
    );
    let Progress::Continue(mut server) = begun else {
        panic!("{begun:?}");
    };
    let of_server = loop {
        for frame in frames(&std::mem::take(&mut to_client)) {
            match client.on_message(frame, &mut to_server).unwrap() {
                ServerProgress::Continue(next) => client = next,
                ServerProgress::Done(_) => unreachable!("nobody said ReadyForQuery"),
            }
        }
        let said = std::mem::take(&mut to_server);
        match server.on_message(frames(&said)[0], &mut to_client).unwrap() {
            Progress::Continue(next) => server = next,
            Progress::LoggedIn(logged_in) => break logged_in.scram_keys.unwrap(),
        }
    };
    encode::ready_for_query(&mut to_client, TransactionStatus::Idle);
    match hear(client, &to_client).0.unwrap() {
        ServerProgress::Done(identity) => (of_server, identity.scram_keys.unwrap()),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_logins_agree_on_any_password(
        password in "[^\0]{1,20}", salt in proptest::collection::vec(any::<u8>(), 1..32), nonces: (Nonce, Nonce)
    ) {
        // What looks like a verifier is taken for one.
        prop_assume!(matches!(Verifier::parse(&Secret::new(&*password)), Verifier::Plain(_)));
        let verifier = Verifier::Scram(crate::auth::scram::ScramVerifier::from_password(
            password.as_bytes(), &salt, 2.try_into().unwrap(),
        ));
        let with_password = ServerLoginRequest { nonce: nonces.0, ..request(Some(&password)) };
        let (of_server, of_client) = log_in(&verifier, with_password, nonces.1);
        // Either side's keys pass in the password's stead.
        for keys in [of_server, of_client] {
            log_in(&verifier, ServerLoginRequest { scram_keys: Some(keys), ..request(None) }, nonces.1);
        }
    }

    #[test]
    fn any_messages_are_taken_or_refused(
        messages in proptest::collection::vec(
            (proptest::sample::select(b"RRRRSKZENvT".to_vec()), 0u8..13, any::<Vec<u8>>()), 0..8
        )
    ) {
        let mut login = begin(request(Some("hunter2")));
        for (tag, kind, rest) in messages {
            let body = [&[0, 0, 0, kind], &*rest].concat();
            match login.on_message(Frame { tag, body: &body }, &mut Vec::new()) {
                Ok(ServerProgress::Continue(next)) => login = next,
                _ => break,
            }
        }
    }
}
