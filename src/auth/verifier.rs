//! What is held of a user's password.

use std::num::NonZeroU32;

use subtle::ConstantTimeEq;

use super::md5::Md5Hash;
use super::scram::{MockSecret, ScramVerifier};
use crate::config::secret::Secret;

/// A user's password as the configuration has it: itself, or what proves it. `Debug` shows nothing of it.
#[derive(Clone, Debug)]
pub enum Verifier {
    /// The password.
    Plain(Secret),
    /// `md5` and 32 digits, as PostgreSQL keeps it.
    Md5(Md5Hash),
    /// `SCRAM-SHA-256$…`, as PostgreSQL keeps it.
    Scram(ScramVerifier),
}

impl Verifier {
    /// Tells the kinds apart as PostgreSQL does (`get_password_type`): what is neither of the two forms is a password.
    pub fn parse(text: &Secret) -> Self {
        if let Some(hash) = Md5Hash::parse(text.expose()) {
            Self::Md5(hash)
        } else if let Some(verifier) = ScramVerifier::parse(text.expose()) {
            Self::Scram(verifier)
        } else {
            Self::Plain(text.clone())
        }
    }

    /// Whether the text is a SCRAM verifier, by which nobody can log in.
    pub fn is_scram(text: &Secret) -> bool {
        matches!(Self::parse(text), Self::Scram(_))
    }

    /// Whether this is the user's password. Slow for [`Verifier::Scram`].
    pub fn is_password(&self, user: &[u8], password: &[u8]) -> bool {
        match self {
            Self::Plain(secret) => secret.expose().as_bytes().ct_eq(password).into(),
            Self::Md5(hash) => hash.is_of(user, password),
            Self::Scram(verifier) => verifier.is_of(password),
        }
    }
}

/// What can be told of a user's verifier from outside: how long it takes, and which exchange it calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// A password.
    Plain,
    /// An MD5 hash.
    Md5,
    /// A SCRAM verifier with this count.
    Scram(NonZeroU32),
}

impl Likeness {
    /// That of a verifier.
    pub fn of(verifier: &Verifier) -> Self {
        match verifier {
            Verifier::Plain(_) => Self::Plain,
            Verifier::Md5(_) => Self::Md5,
            Verifier::Scram(verifier) => Self::Scram(verifier.iterations()),
        }
    }

    /// A verifier of this kind, the same for the same user every time. Nobody is to be let in by it.
    pub fn verifier(self, user: &[u8], secret: &MockSecret) -> Verifier {
        match self {
            Self::Plain => Verifier::Plain(Secret::new(format!("{:x?}", secret.salt(user)))),
            Self::Md5 => Verifier::Md5(Md5Hash::of(user, &secret.salt(user))),
            Self::Scram(iterations) => Verifier::Scram(secret.verifier(user, iterations)),
        }
    }
}

/// Those that users have: who is none looks like one of them. At most [`Likenesses::MAX`] are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Likenesses(Vec<Likeness>);

impl Likenesses {
    /// The most that are told apart: three kinds, and counts of rounds, of which there is rarely more than one.
    pub const MAX: usize = 16;

    /// There is a user like this.
    pub fn add(&mut self, likeness: Likeness) {
        if self.0.len() < Self::MAX && !self.0.contains(&likeness) {
            self.0.push(likeness);
        }
    }

    /// What somebody of this name looks like, the same every time: when one more comes in, it changes for its share of the names.
    pub fn of(&self, user: &[u8], secret: &MockSecret) -> Option<Likeness> {
        let weight = |likeness: &&Likeness| match likeness {
            Likeness::Plain => secret.number(user, b"plain"),
            Likeness::Md5 => secret.number(user, b"md5"),
            Likeness::Scram(iterations) => secret.number(user, &iterations.get().to_le_bytes()),
        };
        self.0.iter().max_by_key(weight).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made by PostgreSQL 15 for the user scram_user.
    const SCRAM: &str = "SCRAM-SHA-256$4096:bcAuFeHwpFj1RTmiZ6iYBA==$qZyO75RkyBYbT0S04pamfJZKSoJnhCr4XWfdfYkA6Do=:GJwhCZh4bYwhxVSNJ7JHC3eRhjjb6qaRQzAXlqcbqXs=";
    const MD5: &str = "md57cd2b9a92689eab2e58caf2da80afa15";

    fn verifier(text: &str) -> Verifier {
        Verifier::parse(&Secret::new(text))
    }

    #[test]
    fn each_kind_knows_the_password() {
        for text in [SCRAM, MD5, "password"] {
            assert!(
                verifier(text).is_password(b"md5_user", b"password"),
                "{text}"
            );
            assert!(
                !verifier(text).is_password(b"md5_user", b"passwort"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_verifier_is_a_password() {
        assert!(matches!(verifier(SCRAM), Verifier::Scram(_)));
        assert!(matches!(verifier(MD5), Verifier::Md5(_)));
        for text in [
            "",
            "md5",
            "SCRAM-SHA-256",
            "SCRAM-SHA-256$4096:AA==$AA==:AA==",
        ] {
            assert!(matches!(verifier(text), Verifier::Plain(_)), "{text}");
        }
    }

    #[test]
    fn a_name_looks_like_one_of_the_users_and_keeps_to_it() {
        let secret = MockSecret::new([5; 32]);
        let scram = |rounds| Likeness::Scram(NonZeroU32::new(rounds).expect("some"));
        let mut likenesses = Likenesses::default();
        assert_eq!(likenesses.of(b"ann", &secret), None);
        likenesses.add(Likeness::Plain);
        likenesses.add(Likeness::Plain);
        likenesses.add(scram(4096));
        let names: Vec<_> = (0..100).map(|number| format!("user{number}")).collect();
        let looks = |likenesses: &Likenesses| -> Vec<_> {
            let look = |name: &String| likenesses.of(name.as_bytes(), &secret).expect("one");
            names.iter().map(look).collect()
        };
        let before = looks(&likenesses);
        let plain = before.iter().filter(|look| **look == Likeness::Plain);
        assert!((20..80).contains(&plain.count()), "{before:?}");
        likenesses.add(scram(10_000));
        for (before, after) in before.iter().zip(looks(&likenesses)) {
            assert!(after == *before || after == scram(10_000));
        }
        for rounds in 1..100 {
            likenesses.add(scram(rounds));
        }
        assert_eq!(likenesses.0.len(), Likenesses::MAX);
    }

    #[test]
    fn debug_output_shows_no_password_and_no_key() {
        assert_eq!(format!("{:?}", verifier("hunter2")), "Plain(Secret(..))");
        assert_eq!(format!("{:?}", verifier(MD5)), "Md5(Md5Hash(..))");
        assert_eq!(
            format!("{:?}", verifier(SCRAM)),
            "Scram(ScramVerifier { iterations: 4096, .. })"
        );
    }
}
