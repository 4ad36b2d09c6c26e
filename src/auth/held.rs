//! What a client's password is checked by, whoever the client says it is: what is held of a user's, or what stands in for it, so
//! that nobody can tell who is a user.

use std::num::NonZeroU32;
use std::sync::OnceLock;

use super::scram::{MockSecret, ScramVerifier, Truth};
use super::verifier::{Likeness, Verifier};

/// How the keys are made that are made here.
#[derive(Clone, Debug)]
pub struct KeyMaking {
    /// What salts are made of.
    pub secret: MockSecret,
    /// How many rounds a key gets.
    pub iterations: NonZeroU32,
}

/// What a name's password is checked by. `Debug` shows nothing of it.
#[derive(Debug)]
pub struct Held {
    user: Box<[u8]>,
    verifier: Verifier,
    truth: Truth,
    making: KeyMaking,
    /// What is made of a password, once: it takes milliseconds.
    scram: OnceLock<ScramVerifier>,
}

impl Held {
    /// What is held of a user's password.
    pub fn of_user(user: &[u8], verifier: Verifier, making: &KeyMaking) -> Self {
        Self {
            user: user.into(),
            verifier,
            truth: Truth::Genuine,
            making: making.clone(),
            scram: OnceLock::new(),
        }
    }

    /// What looks like a user's of this likeness, and lets nobody in. In SCRAM it costs as much as a user's.
    pub fn stand_in(user: &[u8], likeness: Likeness, making: &KeyMaking) -> Self {
        Self {
            truth: Truth::Doomed,
            ..Self::of_user(user, likeness.verifier(user, &making.secret), making)
        }
    }

    /// The same, and costs nothing in SCRAM: as a user's whose keys are made before anybody asks.
    pub fn ready_stand_in(user: &[u8], likeness: Likeness, making: &KeyMaking) -> Self {
        let held = Self::stand_in(user, likeness, making);
        // It was empty.
        let _ = held.scram.set(held.mock());
        held
    }

    /// As it is kept, and whether it may let somebody in.
    pub fn verifier(&self) -> (&Verifier, Truth) {
        (&self.verifier, self.truth)
    }

    /// What SCRAM is spoken with, and whether it may let somebody in. A password takes as long as
    /// [`ScramVerifier::from_password`] the first time, see [`Held::is_ready`].
    pub fn scram(&self) -> (&ScramVerifier, Truth) {
        match &self.verifier {
            Verifier::Scram(verifier) => (verifier, self.truth),
            Verifier::Plain(password) => {
                let make = || {
                    let salt = self.making.secret.salt(&self.user);
                    let password = password.expose().as_bytes();
                    ScramVerifier::from_password(password, &salt, self.making.iterations)
                };
                (self.scram.get_or_init(make), self.truth)
            }
            // Nothing of SCRAM can be computed from an MD5 hash.
            Verifier::Md5(_) => (self.scram.get_or_init(|| self.mock()), Truth::Doomed),
        }
    }

    /// Whether [`Held::scram`] takes no time.
    pub fn is_ready(&self) -> bool {
        !matches!(self.verifier, Verifier::Plain(_)) || self.scram.get().is_some()
    }

    /// Whether this is made of the same as the other one, so that keys that were made for this one are that one's, too.
    pub fn is_made_as(&self, other: &Self) -> bool {
        let is_same_password = match (&self.verifier, &other.verifier) {
            (Verifier::Plain(own), Verifier::Plain(other)) => own == other,
            _ => false,
        };
        is_same_password
            && self.user == other.user
            && self.truth == other.truth
            && self.making.iterations == other.making.iterations
    }

    fn mock(&self) -> ScramVerifier {
        let KeyMaking { secret, iterations } = &self.making;
        secret.verifier(&self.user, *iterations)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::secret::Secret;

    pub(crate) fn making(iterations: u32) -> KeyMaking {
        KeyMaking {
            secret: MockSecret::new([5; 32]),
            iterations: NonZeroU32::new(iterations).expect("some"),
        }
    }

    fn plain(password: &str) -> Verifier {
        Verifier::parse(&Secret::new(password))
    }

    fn salt_and_rounds(held: &Held) -> String {
        let text = held.scram().0.expose();
        let (head, _) = text
            .strip_prefix("SCRAM-SHA-256$")
            .and_then(|text| text.split_once('$'))
            .expect("a verifier");
        head.to_owned()
    }

    #[test]
    fn whoever_is_a_user_or_not_shows_a_salt_that_stays_and_the_configured_rounds() {
        let making = making(77);
        let user = Held::of_user(b"ann", plain("sesame"), &making);
        assert_eq!(user.scram().1, Truth::Genuine);
        assert!(user.scram().0.is_of(b"sesame"));
        let hash = Verifier::parse(&Secret::new("md57cd2b9a92689eab2e58caf2da80afa15"));
        let hashed = Held::of_user(b"ann", hash, &making);
        assert_eq!(hashed.scram().1, Truth::Doomed);
        for likeness in [Likeness::Plain, Likeness::Md5] {
            for held in [
                Held::stand_in(b"ann", likeness, &making),
                Held::ready_stand_in(b"ann", likeness, &making),
            ] {
                assert_eq!(held.scram().1, Truth::Doomed);
                assert_eq!(held.verifier().1, Truth::Doomed);
                assert_eq!(salt_and_rounds(&held), salt_and_rounds(&user));
            }
        }
        assert_eq!(salt_and_rounds(&hashed), salt_and_rounds(&user));
        let again = Held::of_user(b"ann", plain("other"), &making);
        assert_eq!(salt_and_rounds(&again), salt_and_rounds(&user));
        let bob = Held::of_user(b"bob", plain("sesame"), &making);
        assert_ne!(salt_and_rounds(&bob), salt_and_rounds(&user));
    }

    #[test]
    fn the_keys_of_a_password_are_made_once() {
        let making = making(77);
        let user = Held::of_user(b"ann", plain("sesame"), &making);
        assert!(!user.is_ready());
        user.scram();
        assert!(user.is_ready());
        let ann = |password, rounds| Held::of_user(b"ann", plain(password), &tests::making(rounds));
        assert!(user.is_made_as(&ann("sesame", 77)));
        assert!(!user.is_made_as(&ann("other", 77)));
        assert!(!user.is_made_as(&ann("sesame", 78)));
        let stand_in = |likeness| Held::stand_in(b"ann", likeness, &making);
        assert!(!stand_in(Likeness::Plain).is_ready());
        assert!(!user.is_made_as(&stand_in(Likeness::Plain)));
        assert!(stand_in(Likeness::Plain).is_made_as(&stand_in(Likeness::Plain)));
        assert!(!stand_in(Likeness::Plain).is_made_as(&stand_in(Likeness::Md5)));
        assert!(Held::ready_stand_in(b"ann", Likeness::Plain, &making).is_ready());
    }
}
