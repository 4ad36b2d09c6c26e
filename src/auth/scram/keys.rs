//! What is computed from a password, once, and proves it.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use hmac::{Hmac, KeyInit, Mac};
use pbkdf2::pbkdf2_hmac;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{base64_of, from_base64};

/// As long as what SHA-256 makes.
pub(super) type Key = Zeroizing<[u8; 32]>;

/// The keys of one password, salt and iteration count: as good as the password itself. `Debug` shows nothing.
#[derive(Clone)]
pub struct ScramKeys {
    /// Proves us to a server.
    pub(super) client_key: Key,
    /// Its hash: what a server needs to check the proof.
    pub(super) stored_key: Key,
    /// Proves a server to us.
    pub(super) server_key: Key,
}

impl ScramKeys {
    /// Computes the keys. The time it takes grows with `iterations`: some milliseconds for PostgreSQL's 4096.
    ///
    /// The password is normalised by SASLprep where it can be, and taken as it is where it can't, as PostgreSQL does.
    pub fn derive(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted_password = Zeroizing::new([0; 32]);
        pbkdf2_hmac::<Sha256>(
            &normalized(password),
            salt,
            iterations.get(),
            &mut *salted_password,
        );
        let client_key = hmac(&salted_password, &[b"Client Key"]);
        Self {
            stored_key: hash(&client_key),
            server_key: hmac(&salted_password, &[b"Server Key"]),
            client_key,
        }
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramKeys(..)")
    }
}

/// Keys together with what they were made with, so that the next exchange need not compute them again.
///
/// They stand for one password: forget them when it changes.
#[derive(Clone, Debug)]
pub struct CachedKeys {
    salt: Box<[u8]>,
    iterations: NonZeroU32,
    keys: ScramKeys,
}

impl CachedKeys {
    /// Keys that were derived from a password with this salt and iteration count.
    pub fn new(salt: impl Into<Box<[u8]>>, iterations: NonZeroU32, keys: ScramKeys) -> Self {
        Self {
            salt: salt.into(),
            iterations,
            keys,
        }
    }

    /// The keys, if they were made with this salt and iteration count.
    pub(super) fn matching(&self, salt: &[u8], iterations: NonZeroU32) -> Option<&ScramKeys> {
        (*self.salt == *salt && self.iterations == iterations).then_some(&self.keys)
    }
}

/// What a server keeps to check a password: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`. `Debug` shows no key.
#[derive(Clone)]
pub struct ScramVerifier {
    pub(super) salt: Box<[u8]>,
    pub(super) iterations: NonZeroU32,
    pub(super) stored_key: Key,
    pub(super) server_key: Key,
}

impl ScramVerifier {
    /// Makes the verifier of a password, which is as slow as [`ScramKeys::derive`].
    pub fn from_password(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Self {
        let keys = ScramKeys::derive(password, salt, iterations);
        Self {
            salt: salt.into(),
            iterations,
            stored_key: keys.stored_key,
            server_key: keys.server_key,
        }
    }

    /// Reads what PostgreSQL keeps in pg_authid.rolpassword; anything else is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("SCRAM-SHA-256$")?.split('$');
        let (making, keys) = (parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let (iterations, salt) = making.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        // PostgreSQL counts in an int.
        let iterations = u32::try_from(iterations.parse::<i32>().ok()?).ok()?;
        let key = |text: &str| {
            let key: [u8; 32] = from_base64(text.as_bytes())?.try_into().ok()?;
            Some(Zeroizing::new(key))
        };
        Some(Self {
            salt: from_base64(salt.as_bytes())?.into(),
            iterations: NonZeroU32::new(iterations)?,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }

    /// How many rounds its keys got.
    pub fn iterations(&self) -> NonZeroU32 {
        self.iterations
    }

    /// The text that PostgreSQL keeps. It is a secret.
    pub fn expose(&self) -> Zeroizing<String> {
        Zeroizing::new(format!(
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            base64_of(&self.salt),
            base64_of(&*self.stored_key),
            base64_of(&*self.server_key),
        ))
    }

    /// Whether the verifier is this password's; as slow as [`ScramKeys::derive`].
    pub fn is_of(&self, password: &[u8]) -> bool {
        let keys = ScramKeys::derive(password, &self.salt, self.iterations);
        // ServerKey, not StoredKey, is what PostgreSQL compares; each is as good.
        is_equal(&*keys.server_key, &*self.server_key)
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramVerifier")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

pub(super) fn hash(bytes: &[u8; 32]) -> Key {
    Zeroizing::new(Sha256::digest(bytes).into())
}

pub(super) fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> Key {
    let mut hmac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        hmac.update(part);
    }
    Zeroizing::new(hmac.finalize().into_bytes().into())
}

pub(super) fn xor(left: &[u8; 32], right: &[u8; 32]) -> Key {
    let mut out = Zeroizing::new(*left);
    for (byte, other) in out.iter_mut().zip(right) {
        *byte ^= other;
    }
    out
}

/// Compares in the same time wherever the two differ.
pub(super) fn is_equal(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

/// SASLprep where the password is UTF-8, has no prohibited character and something is left of it; else the password as it is.
fn normalized(password: &[u8]) -> Zeroizing<Vec<u8>> {
    let prepared = str::from_utf8(password)
        .ok()
        .and_then(|text| stringprep::saslprep(text).ok())
        .filter(|text| !text.is_empty())
        .map(|text| match text {
            Cow::Borrowed(text) => text.as_bytes().to_vec(),
            Cow::Owned(text) => text.into_bytes(),
        });
    Zeroizing::new(prepared.unwrap_or_else(|| password.to_vec()))
}
