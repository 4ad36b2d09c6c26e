use proptest::prelude::*;

use super::*;

const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSSENC_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";
const STARTUP: &[u8] = b"\0\0\0\x12\0\x03\0\0user\0ann\0\0";
const CANCEL: &[u8] = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07abcd";

/// What a conversation came to: the replies in clear, and the end with the bytes left over.
type Outcome = (Vec<u8>, Result<Option<(Greeted, Vec<u8>)>, GreetingError>);

/// Greets somebody who sends these bytes in these pieces, and does no TLS handshake.
fn greet_in(encryption: Encryption, pieces: &[&[u8]]) -> Outcome {
    let mut greeting = Greeting::new(encryption);
    let mut replies = Vec::new();
    for (nth, piece) in pieces.iter().enumerate() {
        let mut received = *piece;
        loop {
            match greeting.advance(&mut received) {
                Ok(GreetingStep::NeedMore) => break assert_eq!(received, b""),
                Ok(GreetingStep::Reply(byte)) => replies.push(byte),
                Ok(GreetingStep::DirectTls) => {
                    // The handshake takes all of it.
                    replies.extend_from_slice(b"tls");
                    break;
                }
                Ok(GreetingStep::Done(greeted)) => {
                    let later = pieces.get(nth + 1..).unwrap_or_default().concat();
                    return (replies, Ok(Some((greeted, [received, &later].concat()))));
                }
                Err(error) => return (replies, Err(error)),
            }
        }
    }
    (replies, Ok(None))
}

fn greet(bytes: &[u8]) -> Outcome {
    greet_in(Encryption::Refused, &[bytes])
}

fn user(outcome: &Outcome) -> &[u8] {
    match outcome {
        (_, Ok(Some((Greeted::Client(message), _)))) => &message.user,
        other => panic!("{other:?}"),
    }
}

fn unsupported_message(outcome: Outcome) -> String {
    let response = outcome.1.unwrap_err().response().unwrap();
    assert_eq!(response.code, SqlState::FEATURE_NOT_SUPPORTED);
    response.message.into_owned()
}

#[test]
fn a_client_may_start_at_once() {
    let outcome = greet(&[STARTUP, b"p\0"].concat());
    assert_eq!(user(&outcome), b"ann");
    assert_eq!(outcome.0, b"");
    assert_eq!(outcome.1.unwrap().unwrap().1, b"p\0");
}

#[test]
fn a_client_may_ask_for_encryption_in_either_order() {
    for requests in [[SSL_REQUEST, GSSENC_REQUEST], [GSSENC_REQUEST, SSL_REQUEST]] {
        let outcome = greet(&[requests[0], requests[1], STARTUP].concat());
        assert_eq!(user(&outcome), b"ann");
        assert_eq!(outcome.0, b"NN");
    }
}

#[test]
fn a_client_may_ask_for_an_encryption_once() {
    assert_eq!(
        unsupported_message(greet(&[SSL_REQUEST, SSL_REQUEST].concat())),
        "unsupported frontend protocol 1234.5679: server supports 3.0 to 3.2"
    );
    assert_eq!(
        unsupported_message(greet(&[GSSENC_REQUEST, GSSENC_REQUEST].concat())),
        "unsupported frontend protocol 1234.5680: server supports 3.0 to 3.2"
    );
}

#[test]
fn a_cancel_is_no_client() {
    assert_eq!(
        greet(&[SSL_REQUEST, CANCEL].concat()),
        (
            b"N".to_vec(),
            Ok(Some((
                Greeted::Cancel(CancelKey::new(7, b"abcd").unwrap()),
                vec![]
            )))
        )
    );
}

#[test]
fn offered_tls_is_accepted_and_ends_the_asking() {
    let offered = |pieces: &[&[u8]]| greet_in(Encryption::Offered, pieces);
    let outcome = offered(&[GSSENC_REQUEST, SSL_REQUEST, STARTUP]);
    assert_eq!(user(&outcome), b"ann");
    assert_eq!(outcome.0, b"NS");
    assert_eq!(
        unsupported_message(offered(&[SSL_REQUEST, GSSENC_REQUEST])),
        "unsupported frontend protocol 1234.5680: server supports 3.0 to 3.2"
    );
}

#[test]
fn tls_may_begin_at_once_where_it_is_offered() {
    let hello = &b"\x16\x03\x01\x02\0\x01"[..];
    let outcome = greet_in(Encryption::Offered, &[hello, STARTUP]);
    assert_eq!(user(&outcome), b"ann");
    assert_eq!(outcome.0, b"tls");
    // Inside there is nothing more to ask for.
    assert_eq!(
        unsupported_message(greet_in(Encryption::Offered, &[hello, SSL_REQUEST])),
        "unsupported frontend protocol 1234.5679: server supports 3.0 to 3.2"
    );
    let outcome = greet_in(Encryption::Offered, &[GSSENC_REQUEST, hello]);
    assert!(outcome.1.is_err(), "only as the first word");
}

#[test]
fn bytes_in_clear_before_the_handshake_are_refused() {
    let outcome = greet_in(Encryption::Offered, &[&[SSL_REQUEST, STARTUP].concat()]);
    assert_eq!(outcome, (vec![], Err(GreetingError::UnencryptedBytes)));
    let response = GreetingError::UnencryptedBytes.response().unwrap();
    assert_eq!(response.code, SqlState::PROTOCOL_VIOLATION);
    assert_eq!(
        response.message,
        "received unencrypted data after SSL request"
    );
}

#[test]
fn other_protocols_are_refused_and_only_tls_without_a_word() {
    for (bytes, error) in [
        (&b"\x16\x03\x01\x02\0\x01"[..], GreetingError::DirectTls),
        (
            b"GET / HTTP/1.1\r\n",
            GreetingError::Startup(StartupError::InvalidLength),
        ),
        (
            b"\0\0\0\x04",
            GreetingError::Startup(StartupError::InvalidLength),
        ),
        (
            b"\xff\xff\xff\xff",
            GreetingError::Startup(StartupError::InvalidLength),
        ),
    ] {
        assert_eq!(
            error.response().is_none(),
            error == GreetingError::DirectTls
        );
        assert_eq!(greet(bytes), (vec![], Err(error)));
    }
}

#[test]
fn nothing_of_a_packet_that_is_too_long_is_kept() {
    let mut greeting = Greeting::new(Encryption::Refused);
    let mut received = &b"\x7f\xff\xff\xff"[..];
    assert!(greeting.advance(&mut received).is_err());
    assert!(greeting.packet.capacity() < 64);
}

#[test]
fn both_versions_are_spoken_and_newer_ones_are_negotiated() {
    let negotiated = |minor: u8, options: &[u8]| {
        let body = [&[0, 3, 0, minor], &b"user\0ann\0"[..], options, b"\0"].concat();
        match StartupPacket::parse(&body) {
            Ok(StartupPacket::Startup(message)) => Negotiated::with(&message),
            other => panic!("{other:?}"),
        }
    };
    let (v3_1, v3_2) = (
        ProtocolVersion::from_code(0x0003_0001),
        ProtocolVersion::V3_2,
    );
    for (minor, version) in [(0, ProtocolVersion::V3_0), (1, v3_1), (2, v3_2)] {
        assert_eq!(
            negotiated(minor, b""),
            Negotiated {
                version,
                reply: vec![]
            }
        );
    }
    assert_eq!(
        negotiated(9, b""),
        Negotiated {
            version: v3_2,
            reply: b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0".to_vec()
        }
    );
    assert_eq!(
        negotiated(0, b"_pq_.a\0on\0_pq_.b\0on\0"),
        Negotiated {
            version: ProtocolVersion::V3_0,
            reply: b"v\0\0\0\x1a\0\x03\0\0\0\0\0\x02_pq_.a\0_pq_.b\0".to_vec()
        }
    );
}

fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let packet = prop_oneof![
        Just(SSL_REQUEST.to_vec()),
        Just(GSSENC_REQUEST.to_vec()),
        Just(STARTUP.to_vec()),
        Just(CANCEL.to_vec()),
        proptest::collection::vec(any::<u8>(), 0..12),
    ];
    proptest::collection::vec(packet, 0..5).prop_map(|packets| packets.concat())
}

proptest! {
    #[test]
    fn any_cut_gives_the_same(
        bytes in conversation(), cuts in proptest::collection::vec(0usize..80, 0..6)
    ) {
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect();
        prop_assert_eq!(greet_in(Encryption::Refused, &pieces), greet(&bytes));
    }
}
