//! A client's messages while it logs in: nobody gets in who does not know the password, whatever is asked of it.

#![no_main]

use std::num::NonZeroU32;

use libfuzzer_sys::fuzz_target;
use pgspan_fuzz::auth::held::{Held, KeyMaking};
use pgspan_fuzz::auth::scram::MockSecret;
use pgspan_fuzz::auth::verifier::{Likeness, Verifier};
use pgspan_fuzz::config::secret::Secret;
use pgspan_fuzz::protocol::frame::Frame;
use pgspan_fuzz::session::client_login::{Challenge, ClientLogin, ClientLoginRequest, Progress};

fuzz_target!(|input: (u8, Vec<(u8, &[u8])>)| {
    let (kind, messages) = input;
    let challenge = [Challenge::Password, Challenge::Md5, Challenge::Scram][usize::from(kind % 3)];
    let making = KeyMaking {
        secret: MockSecret::new([5; 32]),
        iterations: NonZeroU32::MIN,
    };
    let held = match kind & 4 {
        0 => {
            let password = Secret::new("a password that nobody guesses");
            Held::of_user(b"ann", Verifier::parse(&password), &making)
        }
        _ => Held::ready_stand_in(b"ann", Likeness::Md5, &making),
    };
    let request = ClientLoginRequest {
        user: b"ann",
        challenge,
        held: &held,
        nonce: [7; 18],
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
