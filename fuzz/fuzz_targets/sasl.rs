//! A client's messages while it logs in: nobody gets in who does not know the password, whatever is asked of it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgspan_fuzz::auth::scram::MockSecret;
use pgspan_fuzz::auth::verifier::{Likeness, Verifier};
use pgspan_fuzz::config::secret::Secret;
use pgspan_fuzz::protocol::frame::Frame;
use pgspan_fuzz::session::client_login::{Challenge, ClientLogin, ClientLoginRequest, Progress};

fuzz_target!(|input: (u8, Vec<(u8, &[u8])>)| {
    let (kind, messages) = input;
    let challenge = [Challenge::Password, Challenge::Md5, Challenge::Scram][usize::from(kind % 3)];
    let verifier = match kind & 4 {
        0 => Some(Verifier::parse(&Secret::new("a password that nobody guesses"))),
        _ => None,
    };
    let request = ClientLoginRequest {
        user: b"ann",
        challenge,
        verifier: verifier.as_ref().filter(|_| challenge != Challenge::Scram),
        nonce: [7; 18],
        mock_secret: &MockSecret::new([5; 32]),
        likeness: Likeness::Md5,
        binding: (kind & 8 == 8).then_some(&b"hash of a certificate"[..]),
    };
    let mut out = Vec::new();
    let mut progress = ClientLogin::begin(request, &mut out);
    for (tag, body) in messages {
        let Progress::Continue(login) = progress else {
            panic!("somebody got in");
        };
        let tag = if tag & 1 == 0 { b'p' } else { tag };
        match login.on_message(Frame { tag, body }, &mut out) {
            Ok(next) => progress = next,
            Err(error) => {
                let _ = error.response();
                return;
            }
        }
    }
    assert!(matches!(progress, Progress::Continue(_)), "somebody got in");
});
