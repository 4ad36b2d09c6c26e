use proptest::prelude::*;

use super::*;
use crate::auth::held::tests::making;
use crate::auth::scram::{ClientBinding, DEFAULT_ITERATIONS, ScramClient};
use crate::auth::verifier::Likeness;
use crate::config::secret::Secret;

fn verifier(text: &str) -> Verifier {
    Verifier::parse(&Secret::new(text))
}

fn held(verifier: Option<&Verifier>) -> Held {
    let making = making(DEFAULT_ITERATIONS);
    match verifier {
        Some(verifier) => Held::of_user(b"ann", verifier.clone(), &making),
        None => Held::ready_stand_in(b"ann", Likeness::Plain, &making),
    }
}

fn begin(challenge: Challenge, verifier: Option<&Verifier>) -> (ClientLogin, Vec<u8>) {
    let mut out = Vec::new();
    let request = ClientLoginRequest {
        user: b"ann",
        challenge,
        held: &held(verifier),
        nonce: [7; 18],
        binding: None,
    };
    match ClientLogin::begin(request, &mut out) {
        Progress::Continue(login) => (login, out),
        Progress::LoggedIn(_) => panic!("logged in without a word"),
    }
}

fn password(body: &[u8]) -> Frame<'_> {
    Frame { tag: b'p', body }
}

/// What a client reads that sends this password.
fn told(stored: Option<&str>, sent: &[u8]) -> (String, String) {
    let stored = stored.map(verifier);
    let (login, _) = begin(Challenge::Password, stored.as_ref());
    let mut out = Vec::new();
    let error = login.on_message(password(sent), &mut out).unwrap_err();
    assert_eq!(out, b"");
    let response = error.response().unwrap();
    (response.code.to_string(), response.message.into_owned())
}

fn sasl_initial(mechanism: &str, response: &[u8]) -> Vec<u8> {
    let length = i32::try_from(response.len()).unwrap().to_be_bytes();
    [mechanism.as_bytes(), b"\0", &length, response].concat()
}

fn sasl_error(body: &[u8]) -> LoginError {
    let (login, _) = begin(Challenge::Scram, None);
    login
        .on_message(password(body), &mut Vec::new())
        .unwrap_err()
}

/// Goes through SCRAM with a password; gives back what was written last.
fn scram(stored: Option<&Verifier>, sent: &str) -> (Result<Progress, LoginError>, Vec<u8>) {
    let (login, out) = begin(Challenge::Scram, stored);
    assert_eq!(out, b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0");
    let (client, client_first) = ScramClient::begin([1; 18], ClientBinding::Impossible);
    let mut out = Vec::new();
    let body = sasl_initial(MECHANISM, client_first.as_bytes());
    let Progress::Continue(login) = login.on_message(password(&body), &mut out).unwrap() else {
        panic!("logged in too early");
    };
    let (_, client_final) = client
        .on_server_first(&out[9..], Some(sent.as_bytes()), None)
        .unwrap();
    let mut out = Vec::new();
    let progress = login.on_message(password(client_final.as_bytes()), &mut out);
    (progress, out)
}

#[test]
fn trust_asks_nothing() {
    let mut out = Vec::new();
    let request = ClientLoginRequest {
        user: b"ann",
        challenge: Challenge::Nothing,
        held: &held(None),
        nonce: [7; 18],
        binding: None,
    };
    assert!(matches!(
        ClientLogin::begin(request, &mut out),
        Progress::LoggedIn(LoggedIn {
            password: None,
            scram_keys: None
        })
    ));
    assert_eq!(out, b"R\0\0\0\x08\0\0\0\0");
}

#[test]
fn a_password_is_checked_against_whatever_is_stored() {
    for stored in [
        "password",
        // md5('password' || 'ann')
        "md578ad023990e356c4e2d37bf20912c4ea",
        "SCRAM-SHA-256$4096:bcAuFeHwpFj1RTmiZ6iYBA==$qZyO75RkyBYbT0S04pamfJZKSoJnhCr4XWfdfYkA6Do=:GJwhCZh4bYwhxVSNJ7JHC3eRhjjb6qaRQzAXlqcbqXs=",
    ] {
        let verifier = verifier(stored);
        let (login, out) = begin(Challenge::Password, Some(&verifier));
        assert_eq!(out, b"R\0\0\0\x08\0\0\0\x03");
        let mut out = Vec::new();
        assert!(
            matches!(
                login.on_message(password(b"password\0"), &mut out),
                Ok(Progress::LoggedIn(_))
            ),
            "{stored}"
        );
        assert_eq!(out, b"R\0\0\0\x08\0\0\0\0");
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_read_the_same() {
    let expected = (
        "28P01".to_owned(),
        "password authentication failed for user \"ann\"".to_owned(),
    );
    assert_eq!(told(Some("password"), b"passwort\0"), expected);
    assert_eq!(told(None, b"password\0"), expected);
    for stored in [Some(verifier("password")), None] {
        let (progress, out) = scram(stored.as_ref(), "passwort");
        let response = progress.unwrap_err().response().unwrap();
        assert_eq!(
            (response.code.to_string(), response.message.into_owned()),
            expected
        );
        assert_eq!(out, b"");
    }
}

#[test]
fn a_broken_password_message_is_refused_in_postgresqls_words() {
    let told = |sent| told(Some("password"), sent);
    assert_eq!(
        told(b"\0"),
        (
            "28P01".to_owned(),
            "empty password returned by client".to_owned()
        )
    );
    for sent in [&b""[..], b"password", b"pass\0word\0", b"password\0\0"] {
        assert_eq!(
            told(sent),
            (
                "08P01".to_owned(),
                "invalid password packet size".to_owned()
            )
        );
    }
}

#[test]
fn another_message_than_a_password_is_a_violation() {
    let query = Frame {
        tag: b'Q',
        body: b"SELECT 1\0",
    };
    for (method, message) in [
        (
            Challenge::Password,
            "expected password response, got message type 81",
        ),
        (
            Challenge::Scram,
            "expected SASL response, got message type 81",
        ),
    ] {
        let (login, _) = begin(method, None);
        let response = login
            .on_message(query, &mut Vec::new())
            .unwrap_err()
            .response()
            .unwrap();
        assert_eq!(response.code, SqlState::PROTOCOL_VIOLATION);
        assert_eq!(response.message, message);
    }
}

#[test]
fn a_message_over_the_limit_gets_no_word() {
    for (method, limit) in [
        (Challenge::Password, MAX_LOGIN_MESSAGE_LENGTH),
        (Challenge::Scram, MAX_SASL_MESSAGE_LENGTH),
    ] {
        let (login, _) = begin(method, None);
        let error = login
            .on_message(password(&vec![b'x'; limit + 1]), &mut Vec::new())
            .unwrap_err();
        assert_eq!(error, LoginError::TooLong);
        assert_eq!(error.response(), None);
    }
}

#[test]
fn a_broken_sasl_message_is_refused() {
    assert_eq!(
        sasl_error(&sasl_initial("SCRAM-SHA-256-PLUS", b"p=x,,n=,r=a")),
        LoginError::InvalidMechanism
    );
    for (body, message) in [
        (&b""[..], "invalid string in message"),
        (b"SCRAM-SHA-256", "invalid string in message"),
        (b"SCRAM-SHA-256\0", "insufficient data left in message"),
        (
            b"SCRAM-SHA-256\0\0\0\0\x09n,,n=",
            "insufficient data left in message",
        ),
        (
            b"SCRAM-SHA-256\0\x80\0\0\0",
            "insufficient data left in message",
        ),
        (b"SCRAM-SHA-256\0\0\0\0\x01n,", "invalid message format"),
        (
            b"SCRAM-SHA-256\0\xff\xff\xff\xffn",
            "invalid message format",
        ),
    ] {
        assert_eq!(
            sasl_error(body).response(),
            Some(ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, message))
        );
    }
    assert_eq!(
        sasl_error(&sasl_initial(MECHANISM, b"")).response(),
        Some(
            ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, "malformed SCRAM message")
                .with_detail("The message is empty.")
        )
    );
}

#[test]
fn a_client_may_keep_its_first_words_for_later() {
    let verifier = verifier("password");
    let (login, _) = begin(Challenge::Scram, Some(&verifier));
    let mut out = Vec::new();
    let progress = login.on_message(password(b"SCRAM-SHA-256\0\xff\xff\xff\xff"), &mut out);
    assert_eq!(out, b"R\0\0\0\x08\0\0\0\x0b");
    let Ok(Progress::Continue(login)) = progress else {
        panic!("{progress:?}");
    };
    let mut out = Vec::new();
    let progress = login.on_message(password(b"n,,n=,r=abc"), &mut out);
    assert!(matches!(progress, Ok(Progress::Continue(_))));
    assert!(out[9..].starts_with(b"r=abcBwcHBwcHBwcHBwcHBwcHBwcH,s="));
}

#[test]
fn scram_works_with_a_plain_password_and_not_with_an_md5_hash() {
    let (progress, out) = scram(Some(&verifier("päss wörd")), "päss wörd");
    assert!(matches!(
        progress,
        Ok(Progress::LoggedIn(LoggedIn {
            password: None,
            scram_keys: Some(_)
        }))
    ));
    assert!(out.starts_with(b"R\0\0\0\x36\0\0\0\x0cv="));
    assert!(out.ends_with(b"R\0\0\0\x08\0\0\0\0"));

    let (progress, _) = scram(
        Some(&verifier("md57cd2b9a92689eab2e58caf2da80afa15")),
        "password",
    );
    assert_eq!(
        progress.unwrap_err(),
        LoginError::WrongPassword {
            user: (*b"ann").into()
        }
    );
}

#[test]
fn debug_output_shows_no_password() {
    let verifier = verifier("hunter2");
    for method in [Challenge::Password, Challenge::Scram] {
        let (login, _) = begin(method, Some(&verifier));
        assert!(!format!("{login:?}").contains("hunter2"));
    }
}

proptest! {
    #[test]
    fn any_message_is_an_answer_or_an_error(tag in prop_oneof![Just(b'p'), any::<u8>()], body: Vec<u8>) {
        for method in [Challenge::Password, Challenge::Scram] {
            let (login, _) = begin(method, None);
            let _ = login.on_message(Frame { tag, body: &body }, &mut Vec::new());
        }
    }
}
