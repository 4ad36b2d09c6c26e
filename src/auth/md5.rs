//! The old exchange: MD5 over the password, the user's name and a salt.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>, AuthenticationMD5Password.

use std::fmt;

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// What PostgreSQL keeps of an MD5 password: enough to log in with, so as secret as the password. `Debug` shows nothing.
#[derive(Clone)]
pub struct Md5Hash(Zeroizing<[u8; 32]>);

impl Md5Hash {
    /// The hash of a password: `md5(password || user)` in hexadecimal digits.
    pub fn of(user: &[u8], password: &[u8]) -> Self {
        Self(Zeroizing::new(hexadecimal(&[password, user])))
    }

    /// The hash out of `md5` and 32 small hexadecimal digits; anything else is none.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: [u8; 32] = text.strip_prefix("md5")?.as_bytes().try_into().ok()?;
        digits
            .iter()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
            .then(|| Self(Zeroizing::new(digits)))
    }

    /// The answer to AuthenticationMD5Password: `md5` and `md5(hash || salt)`.
    pub fn answer(&self, salt: [u8; 4]) -> Vec<u8> {
        [&b"md5"[..], &hexadecimal(&[&*self.0, &salt])].concat()
    }

    /// Whether that is the answer to this salt, in the same time whatever it is.
    pub fn is_answer(&self, answer: &[u8], salt: [u8; 4]) -> bool {
        Zeroizing::new(self.answer(salt)).ct_eq(answer).into()
    }

    /// Whether this is the hash of that password, in the same time whatever the answer.
    pub fn is_of(&self, user: &[u8], password: &[u8]) -> bool {
        Self::of(user, password).0.ct_eq(&*self.0).into()
    }
}

impl fmt::Debug for Md5Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Hash(..)")
    }
}

fn hexadecimal(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part);
    }
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(hash.finalize()) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 0xf)]);
    }
    digits
}

fn digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'a' + nibble - 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // SET password_encryption = md5; CREATE ROLE md5_user PASSWORD 'password'; SELECT rolpassword FROM pg_authid.
    const STORED: &str = "md57cd2b9a92689eab2e58caf2da80afa15";

    #[test]
    fn the_hash_is_what_postgresql_stores() {
        assert!(
            Md5Hash::parse(STORED)
                .unwrap()
                .is_of(b"md5_user", b"password")
        );
        assert!(
            !Md5Hash::parse(STORED)
                .unwrap()
                .is_of(b"md5_user", b"passwort")
        );
        assert!(!Md5Hash::parse(STORED).unwrap().is_of(b"other", b"password"));
    }

    #[test]
    fn the_answer_is_libpqs() {
        // postgres-protocol 0.6, authentication::md5_hash.
        assert_eq!(
            Md5Hash::of(b"md5_user", b"password").answer([0x2a, 0x3d, 0x8f, 0xe0]),
            b"md562af4dd09bbb41884907a838a3233294"
        );
    }

    #[test]
    fn only_md5_and_32_digits_is_a_hash() {
        for text in [
            "md5",
            "7cd2b9a92689eab2e58caf2da80afa15",
            "md57cd2b9a92689eab2e58caf2da80afa1",
            "md57cd2b9a92689eab2e58caf2da80afa111",
            "md57CD2B9A92689EAB2E58CAF2DA80AFA15",
        ] {
            assert!(Md5Hash::parse(text).is_none(), "{text}");
        }
    }
}
