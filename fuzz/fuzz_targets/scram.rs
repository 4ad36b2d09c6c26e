//! The messages of SCRAM-SHA-256, in both directions: nothing but the right proof is accepted.

#![no_main]

use std::num::NonZeroU32;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use pgspan_fuzz::auth::scram::{
    ClientBinding, ScramClient, ScramServer, ScramVerifier, ServerBinding, Truth,
};

fuzz_target!(|input: (&[u8], &[u8], &str)| {
    let (first, last, text) = input;
    let _ = ScramVerifier::parse(text);
    let hash = || Box::<[u8]>::from(*b"hash of a certificate");
    for binding in [
        ServerBinding::Impossible,
        ServerBinding::Declined(hash()),
        ServerBinding::EndPoint(hash()),
    ] {
        let server = ScramServer::new(verifier().clone(), Truth::Genuine, binding, [7; 18]);
        if let Ok((server, _)) = server.on_client_first(first) {
            assert!(server.on_client_final(last).is_err(), "a proof was guessed");
        }
    }
    // Without a password nothing is computed: a server may ask for many rounds.
    let (client, client_first) = ScramClient::begin([7; 18], ClientBinding::Impossible);
    assert!(client.on_server_first(first, None, None).is_err());
    assert!(client_first.starts_with("n,,n=,r="));
});

/// Made once: it costs a key derivation.
fn verifier() -> &'static ScramVerifier {
    static VERIFIER: OnceLock<ScramVerifier> = OnceLock::new();
    VERIFIER.get_or_init(|| {
        ScramVerifier::from_password(b"sesame", b"0123456789abcdef", NonZeroU32::MIN)
    })
}
