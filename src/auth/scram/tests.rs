use std::num::NonZeroU32;

use proptest::prelude::*;

use super::keys::{hmac, xor};
use super::*;

const FEW: NonZeroU32 = NonZeroU32::new(2).unwrap();

// The exchange of RFC 7677, section 3.
const CLIENT_FIRST_BARE: &str = "n=user,r=rOprNGfwEbeRWgbNEkqO";
const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_FIRST: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const BOTH_NONCES: &str = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn rfc_client() -> ScramClient {
    ScramClient {
        nonce: CLIENT_NONCE.to_owned(),
        first_bare: CLIENT_FIRST_BARE.to_owned(),
        channel_binding: "biws".to_owned(),
    }
}

fn rfc_server() -> ScramServerFinal {
    ScramServerFinal {
        channel_binding: "biws".to_owned(),
        is_bound: false,
        client_first_bare: CLIENT_FIRST_BARE.into(),
        server_first: SERVER_FIRST.to_owned(),
        nonce: BOTH_NONCES.into(),
        verifier: ScramVerifier::from_password(
            b"pencil",
            &from_base64(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(),
            NonZeroU32::new(4096).unwrap(),
        ),
        truth: Truth::Genuine,
    }
}

fn server_of(password: &[u8]) -> ScramServer {
    ScramServer::new(
        ScramVerifier::from_password(password, b"salt", FEW),
        Truth::Genuine,
        ServerBinding::Impossible,
        [7; 18],
    )
}

fn malformed(detail: &'static str) -> ScramServerError {
    ScramServerError::Malformed(detail.into())
}

fn client_first_error(message: &[u8]) -> ScramServerError {
    server_of(b"pencil").on_client_first(message).unwrap_err()
}

fn client_final_error(message: &str) -> ScramServerError {
    rfc_server()
        .on_client_final(message.as_bytes())
        .unwrap_err()
}

fn server_first_error(message: &str) -> ScramClientError {
    rfc_client()
        .on_server_first(message.as_bytes(), Some(b"pencil"), None)
        .unwrap_err()
}

#[test]
fn the_client_speaks_as_rfc_7677_does() {
    let (client, client_final) = rfc_client()
        .on_server_first(SERVER_FIRST.as_bytes(), Some(b"pencil"), None)
        .unwrap();
    assert_eq!(client_final, CLIENT_FINAL);
    assert!(client.on_server_final(SERVER_FINAL.as_bytes()).is_ok());
}

#[test]
fn the_server_speaks_as_rfc_7677_does() {
    let (server_final, _) = rfc_server()
        .on_client_final(CLIENT_FINAL.as_bytes())
        .unwrap();
    assert_eq!(server_final, SERVER_FINAL);
}

#[test]
fn the_server_challenges_with_both_nonces_salt_and_iterations() {
    let (_, server_first) = server_of(b"pencil")
        .on_client_first(b"n,,n=,r=abc")
        .unwrap();
    assert_eq!(server_first, "r=abcBwcHBwcHBwcHBwcHBwcHBwcH,s=c2FsdA==,i=2");
}

#[test]
fn postgresqls_verifiers_are_those_of_their_passwords() {
    // Made by PostgreSQL 15: normalised by SASLprep, and as they are where that is prohibited or leaves nothing.
    for (verifier, password) in [
        (
            "SCRAM-SHA-256$4096:s0Yvc5vRTwvyvu7Q15Bcew==$XWzfIX725EEQnhIH4YopTq5TqUr7zy4RmOe19mOaews=:IPmXQzXqqO7yLDWfGvhVaUeJGv75dP62ukN9omDmaes=",
            "I\u{ad}X\u{2168}\u{e9} p\u{a0}q",
        ),
        (
            "SCRAM-SHA-256$4096:7ebz3fT20YFgk8zECSDGYw==$VSKYEvu19NUyPToOfVC+MUSXUE6Sfi0ucBcGvOK6duo=:ObxLLlb0SwvN8HC5GTnOX0VI0MbTh7+14n+7sz50ox4=",
            "a\x01\x7f",
        ),
        (
            "SCRAM-SHA-256$4096:dbUuc0Ah1vCtXY6NlzsKMw==$A4GwxxRpDnVnTMQu5m8eVwtMw4/ehotOqRaZCIjI0hM=:59p0rbH0sRmmU7lDkaIhONB0o1j6U6nROYPQtvBuibU=",
            "\u{ad}",
        ),
    ] {
        let parsed = ScramVerifier::parse(verifier).unwrap();
        assert!(parsed.is_of(password.as_bytes()), "{password:?}");
        assert!(!parsed.is_of(b"password"));
        assert_eq!(*parsed.expose(), verifier);
    }
}

#[test]
fn only_a_whole_verifier_is_one() {
    let key = base64_of(&[1; 32]);
    assert!(ScramVerifier::parse(&format!("SCRAM-SHA-256$4096:c2FsdA==${key}:{key}")).is_some());
    for text in [
        "SCRAM-SHA-256$".to_owned(),
        format!("SCRAM-SHA-256$0:c2FsdA==${key}:{key}"),
        format!("SCRAM-SHA-256$-1:c2FsdA==${key}:{key}"),
        format!("SCRAM-SHA-256$2147483648:c2FsdA==${key}:{key}"),
        format!("SCRAM-SHA-256$4096:c2FsdA==${key}"),
        format!("SCRAM-SHA-256$4096:c2FsdA==${key}:{key}$"),
        format!("SCRAM-SHA-256$4096:c2FsdA==${key}:AAAA"),
        format!("SCRAM-SHA-256$4096:!${key}:{key}"),
    ] {
        assert!(ScramVerifier::parse(&text).is_none(), "{text}");
    }
}

#[test]
fn a_client_may_say_that_it_could_bind_to_a_channel() {
    let (server, server_first) = server_of(b"pencil")
        .on_client_first(b"y,,n=,r=abc")
        .unwrap();
    let without_proof = "c=eSws,r=abcBwcHBwcHBwcHBwcHBwcHBwcH";
    let keys = ScramKeys::derive(b"pencil", b"salt", FEW);
    let auth_message = format!("n=,r=abc,{server_first},{without_proof}");
    let signature = hmac(&keys.stored_key, &[auth_message.as_bytes()]);
    let proof = base64_of(&*xor(&keys.client_key, &signature));
    let client_final = format!("{without_proof},p={proof}");
    assert!(server.on_client_final(client_final.as_bytes()).is_ok());
}

#[test]
fn a_client_must_repeat_what_it_said_of_channel_binding() {
    let (client, _) = ScramClient::begin([1; 18], ClientBinding::Impossible);
    let first = format!("y,,{}", client.first_bare);
    let (server, server_first) = server_of(b"pencil")
        .on_client_first(first.as_bytes())
        .unwrap();
    let (_, client_final) = client
        .on_server_first(server_first.as_bytes(), Some(b"pencil"), None)
        .unwrap();
    // This one repeats "n,,".
    assert_eq!(
        server.on_client_final(client_final.as_bytes()).unwrap_err(),
        ScramServerError::WrongChannelBinding
    );
}

/// Goes through an exchange with each side's own idea of the channel.
fn bound(
    client: ClientBinding<'_>,
    server: ServerBinding,
) -> Result<(String, CachedKeys), ScramServerError> {
    let verifier = ScramVerifier::from_password(b"pencil", b"salt", FEW);
    let (client, client_first) = ScramClient::begin([1; 18], client);
    let (server, server_first) = ScramServer::new(verifier, Truth::Genuine, server, [7; 18])
        .on_client_first(client_first.as_bytes())?;
    let (_, client_final) = client
        .on_server_first(server_first.as_bytes(), Some(b"pencil"), None)
        .unwrap();
    server.on_client_final(client_final.as_bytes())
}

#[test]
fn an_exchange_is_bound_to_the_certificate_that_both_have_seen() {
    let hash = |text: &[u8]| Box::<[u8]>::from(text);
    assert!(
        bound(
            ClientBinding::EndPoint(b"ours"),
            ServerBinding::EndPoint(hash(b"ours"))
        )
        .is_ok()
    );
    assert_eq!(
        bound(
            ClientBinding::EndPoint(b"theirs"),
            ServerBinding::EndPoint(hash(b"ours"))
        )
        .unwrap_err(),
        ScramServerError::ChannelBindingFailed
    );
}

#[test]
fn a_client_that_has_been_told_that_we_cannot_bind_is_told_of_the_lie() {
    let declined = || ServerBinding::Declined((*b"ours").into());
    assert_eq!(
        bound(ClientBinding::NotOffered, declined()).unwrap_err(),
        ScramServerError::Downgraded
    );
    assert!(bound(ClientBinding::Impossible, declined()).is_ok());
    assert!(bound(ClientBinding::NotOffered, ServerBinding::Impossible).is_ok());
}

#[test]
fn what_is_picked_and_what_is_said_must_be_the_same() {
    let end_point = || ServerBinding::EndPoint((*b"ours").into());
    assert_eq!(
        bound(ClientBinding::Impossible, end_point()).unwrap_err(),
        malformed(
            "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data."
        )
    );
    assert_eq!(
        bound(ClientBinding::EndPoint(b"ours"), ServerBinding::Impossible).unwrap_err(),
        malformed(
            "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data."
        )
    );
    let verifier = || ScramVerifier::from_password(b"pencil", b"salt", FEW);
    let first = |message: &[u8]| {
        ScramServer::new(verifier(), Truth::Genuine, end_point(), [7; 18])
            .on_client_first(message)
            .unwrap_err()
    };
    assert_eq!(
        first(b"p=tls-unique,,n=,r=abc"),
        ScramServerError::UnsupportedBinding
    );
    assert!(matches!(
        first(b"p=tls-server-end-point"),
        ScramServerError::Malformed(_)
    ));
}

#[test]
fn a_broken_first_message_is_refused_in_postgresqls_words() {
    assert_eq!(client_first_error(b""), malformed("The message is empty."));
    assert_eq!(
        client_first_error(b"n,,n=,r=a\0"),
        malformed("Message length does not match input length.")
    );
    assert_eq!(
        client_first_error(b"p=tls-server-end-point,,n=,r=a"),
        malformed(
            "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data."
        )
    );
    assert_eq!(
        client_first_error(b"x,,n=,r=a"),
        malformed("Unexpected channel-binding flag \"'x'\".")
    );
    assert_eq!(
        client_first_error(b"n"),
        malformed("Comma expected, but found character \"0x00\".")
    );
    assert_eq!(
        client_first_error(b"n,a=admin,n=,r=a"),
        ScramServerError::AuthorizationIdentity
    );
    assert_eq!(
        client_first_error(b"n,n=,r=a"),
        malformed("Unexpected attribute \"'n'\" in client-first-message.")
    );
    assert_eq!(
        client_first_error(b"n,,m=x,n=,r=a"),
        ScramServerError::UnsupportedExtension
    );
    assert_eq!(
        client_first_error(b"n,,r=a"),
        malformed("Expected attribute \"n\" but found \"'r'\".")
    );
    assert_eq!(
        client_first_error(b"n,,n=,r"),
        malformed("Expected character \"=\" for attribute \"r\".")
    );
    assert_eq!(
        client_first_error(b"n,,n="),
        malformed("Expected attribute \"r\" but found \"0x00\".")
    );
    assert_eq!(
        client_first_error("n,,n=,r=ä".as_bytes()),
        ScramServerError::UnprintableNonce
    );
    assert_eq!(
        client_first_error(b"n,,n=,r="),
        ScramServerError::UnprintableNonce
    );
    assert_eq!(
        client_first_error(b"n,,n=,r=a,1=x"),
        malformed("Attribute expected, but found invalid character \"'1'\".")
    );
}

#[test]
fn a_message_over_the_limit_is_refused() {
    let mut message = b"n,,n=,r=".to_vec();
    message.resize(MAX_SASL_MESSAGE_LENGTH, b'r');
    assert!(server_of(b"pencil").on_client_first(&message).is_ok());
    message.push(b'r');
    assert_eq!(
        client_first_error(&message),
        malformed("Message length does not match input length.")
    );
    let mut message = SERVER_FIRST.to_owned();
    message.push_str(",x=");
    message.extend(std::iter::repeat_n('x', MAX_SASL_MESSAGE_LENGTH));
    assert_eq!(server_first_error(&message), ScramClientError::Malformed);
}

#[test]
fn a_broken_final_message_is_refused_in_postgresqls_words() {
    assert_eq!(client_final_error(""), malformed("The message is empty."));
    assert_eq!(
        client_final_error(&CLIENT_FINAL.replace("ndVQ=", "")),
        malformed("Malformed proof in client-final-message.")
    );
    assert_eq!(
        client_final_error(&format!("{CLIENT_FINAL},x=y")),
        malformed("Garbage found at the end of client-final-message.")
    );
    assert_eq!(
        client_final_error(&format!("c=biws,r={BOTH_NONCES}")),
        malformed("Attribute expected, but found end of string.")
    );
    assert_eq!(
        client_final_error(&CLIENT_FINAL.replace("biws", "eSws")),
        ScramServerError::WrongChannelBinding
    );
    assert_eq!(
        client_final_error(&CLIENT_FINAL.replace("lF$k0", "lF$k1")),
        ScramServerError::WrongNonce
    );
    assert_eq!(
        client_final_error(&CLIENT_FINAL.replace("dHzb", "dHzc")),
        ScramServerError::WrongProof
    );
    assert_eq!(
        client_final_error(&CLIENT_FINAL.replace(",p=", ",x=y,p=")),
        ScramServerError::WrongProof
    );
}

#[test]
fn a_recorded_exchange_cannot_be_played_again() {
    let (client, client_first) = ScramClient::begin([1; 18], ClientBinding::Impossible);
    let (server, server_first) = server_of(b"pencil")
        .on_client_first(client_first.as_bytes())
        .unwrap();
    let (_, client_final) = client
        .on_server_first(server_first.as_bytes(), Some(b"pencil"), None)
        .unwrap();
    assert!(server.on_client_final(client_final.as_bytes()).is_ok());

    let verifier = ScramVerifier::from_password(b"pencil", b"salt", FEW);
    let (server, _) =
        ScramServer::new(verifier, Truth::Genuine, ServerBinding::Impossible, [8; 18])
            .on_client_first(client_first.as_bytes())
            .unwrap();
    assert_eq!(
        server.on_client_final(client_final.as_bytes()).unwrap_err(),
        ScramServerError::WrongNonce
    );
}

#[test]
fn a_doomed_exchange_looks_like_any_other_until_its_end() {
    let secret = MockSecret::new([5; 32]);
    let challenge = |user: &[u8]| {
        let (client, client_first) = ScramClient::begin([1; 18], ClientBinding::Impossible);
        let (server, server_first) = ScramServer::new(
            secret.verifier(user, NonZeroU32::new(4096).unwrap()),
            Truth::Doomed,
            ServerBinding::Impossible,
            [7; 18],
        )
        .on_client_first(client_first.as_bytes())
        .unwrap();
        (client, server, server_first)
    };
    let (client, server, server_first) = challenge(b"nobody");
    assert_eq!(server_first, challenge(b"nobody").2);
    assert_ne!(server_first, challenge(b"somebody").2);
    assert!(server_first.ends_with(",i=4096"));

    let (_, client_final) = client
        .on_server_first(server_first.as_bytes(), Some(b""), None)
        .unwrap();
    assert_eq!(
        server.on_client_final(client_final.as_bytes()).unwrap_err(),
        ScramServerError::WrongProof
    );
}

#[test]
fn a_hostile_server_is_not_answered() {
    let with = |from: &str, to: &str| server_first_error(&SERVER_FIRST.replace(from, to));
    assert_eq!(with("i=4096", "i=0"), ScramClientError::Malformed);
    assert_eq!(with("i=4096", "i=-1"), ScramClientError::Malformed);
    assert_eq!(with("i=4096", "i=+1"), ScramClientError::Malformed);
    assert_eq!(with("i=4096", "i=99999999999"), ScramClientError::Malformed);
    assert_eq!(
        with("i=4096", "i=1000001"),
        ScramClientError::TooManyIterations(NonZeroU32::new(1_000_001).unwrap())
    );
    assert_eq!(with("rOpr", "rOps"), ScramClientError::WrongNonce);
    assert_eq!(
        with("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", ""),
        ScramClientError::WrongNonce
    );
    assert_eq!(with("lF$k0", "lF k0"), ScramClientError::Malformed);
    assert_eq!(with("s=W22Z", "s=!22Z"), ScramClientError::Malformed);
    assert_eq!(
        with("W22ZaJ0SNY7soEsUEjb6gQ==", ""),
        ScramClientError::Malformed
    );
    assert_eq!(with("r=rOpr", "m=x,r=rOpr"), ScramClientError::Malformed);
}

#[test]
fn a_server_that_does_not_know_the_password_is_found_out() {
    let last = |message: &str| {
        rfc_client()
            .on_server_first(SERVER_FIRST.as_bytes(), Some(b"pencil"), None)
            .unwrap()
            .0
            .on_server_final(message.as_bytes())
            .unwrap_err()
    };
    assert_eq!(
        last("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5="),
        ScramClientError::WrongSignature
    );
    assert_eq!(last("v="), ScramClientError::WrongSignature);
    assert_eq!(last(""), ScramClientError::Malformed);
    assert_eq!(
        last("e=invalid-proof"),
        ScramClientError::Refused("invalid-proof".into())
    );
}

#[test]
fn keys_of_one_exchange_serve_the_next_without_the_password() {
    let (client, _) = rfc_client()
        .on_server_first(SERVER_FIRST.as_bytes(), Some(b"pencil"), None)
        .unwrap();
    let of_client = client.on_server_final(SERVER_FINAL.as_bytes()).unwrap();
    let (_, of_server) = rfc_server()
        .on_client_final(CLIENT_FINAL.as_bytes())
        .unwrap();
    for keys in [of_client, of_server] {
        let (_, client_final) = rfc_client()
            .on_server_first(SERVER_FIRST.as_bytes(), None, Some(&keys))
            .unwrap();
        assert_eq!(client_final, CLIENT_FINAL);
        assert_eq!(
            rfc_client()
                .on_server_first(
                    SERVER_FIRST.replace("i=4096", "i=4097").as_bytes(),
                    None,
                    Some(&keys)
                )
                .unwrap_err(),
            ScramClientError::NoPassword
        );
    }
}

#[test]
fn debug_output_shows_no_key() {
    let keys = ScramKeys::derive(b"pencil", b"salt", FEW);
    assert_eq!(format!("{keys:?}"), "ScramKeys(..)");
    assert_eq!(format!("{:?}", MockSecret::new([5; 32])), "MockSecret(..)");
    let shown = format!("{:?}", rfc_server());
    assert!(
        shown.contains("ScramVerifier { iterations: 4096, .. }"),
        "{shown}"
    );
}

fn scram_like() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(
        prop_oneof![
            proptest::sample::select(b"nypacrsivem=,,==,".to_vec()),
            any::<u8>()
        ],
        0..80,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_are_a_message_or_an_error(message in scram_like()) {
        let _ = server_of(b"pencil").on_client_first(&message);
        let _ = server_of(b"pencil").on_client_first(&[b"n,,n=,r=a", &*message].concat());
        let (server, _) = server_of(b"pencil").on_client_first(b"n,,n=,r=a").unwrap();
        prop_assert!(server.on_client_final(&message).is_err());
        let (server, _) = server_of(b"pencil").on_client_first(b"n,,n=,r=a").unwrap();
        prop_assert!(server.on_client_final(&[b"c=biws,r=a", &*message].concat()).is_err());
        let (client, _) = ScramClient::begin([1; 18], ClientBinding::Impossible);
        prop_assert!(client.on_server_first(&message, None, None).is_err());
        let (client, _) = ScramClient::begin([1; 18], ClientBinding::Impossible);
        let first = format!("r={}x,s=c2FsdA==,i=2", client.nonce);
        let (client, _) = client.on_server_first(first.as_bytes(), Some(b"pencil"), None).unwrap();
        prop_assert!(client.on_server_final(&message).is_err());
    }

    #[test]
    fn both_sides_agree_on_any_password(
        password: String, salt in proptest::collection::vec(any::<u8>(), 1..32), nonces: (Nonce, Nonce)
    ) {
        let verifier = ScramVerifier::from_password(password.as_bytes(), &salt, FEW);
        let (client, client_first) = ScramClient::begin(nonces.0, ClientBinding::Impossible);
        let (server, server_first) = ScramServer::new(verifier, Truth::Genuine, ServerBinding::Impossible, nonces.1)
            .on_client_first(client_first.as_bytes()).unwrap();
        let (client, client_final) = client
            .on_server_first(server_first.as_bytes(), Some(password.as_bytes()), None).unwrap();
        let (server_final, _) = server.on_client_final(client_final.as_bytes()).unwrap();
        prop_assert!(client.on_server_final(server_final.as_bytes()).is_ok());
    }
}
