//! What lets somebody cancel a query: a process id and a secret.

use std::fmt;

use smallvec::SmallVec;
use subtle::ConstantTimeEq;

/// The key of a CancelRequest, as BackendKeyData handed it out.
///
/// Comparing takes the same time wherever two secrets differ. `Debug` shows the process id only.
///
/// Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS>.
#[derive(Clone)]
pub struct CancelKey {
    process_id: i32,
    // PostgreSQL 18 makes 32 bytes, older ones 4: neither needs the heap.
    secret: SmallVec<[u8; 32]>,
}

impl CancelKey {
    /// The shortest secret, and the only length that protocol 3.0 knows.
    pub const MIN_SECRET_LENGTH: usize = 4;
    /// The longest secret that protocol 3.2 allows.
    pub const MAX_SECRET_LENGTH: usize = 256;

    /// A key, or `None` where the secret's length is none that the protocol allows.
    pub fn new(process_id: i32, secret: &[u8]) -> Option<Self> {
        (Self::MIN_SECRET_LENGTH..=Self::MAX_SECRET_LENGTH)
            .contains(&secret.len())
            .then(|| Self {
                process_id,
                secret: SmallVec::from_slice(secret),
            })
    }

    /// The same, with as many hops left as a key has in the beginning. The last two bits of the secret count them.
    pub fn with_all_hops(mut self) -> Self {
        if let Some(last) = self.secret.last_mut() {
            *last |= HOPS;
        }
        self
    }

    /// The same, once passed on. `None`: it has been passed on as often as it may be.
    pub fn with_one_hop_less(&self) -> Option<Self> {
        let mut key = self.clone();
        let last = key.secret.last_mut()?;
        if *last & HOPS == 0 {
            return None;
        }
        *last -= 1;
        Some(key)
    }

    /// The key as it stands in BackendKeyData and behind a CancelRequest's code: four bytes of process id, the rest is the secret.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (process_id, secret) = bytes.split_first_chunk()?;
        Self::new(i32::from_be_bytes(*process_id), secret)
    }

    /// The process id, which is public.
    pub fn process_id(&self) -> i32 {
        self.process_id
    }

    /// The secret: for sending to its peer, never for showing.
    pub fn expose_secret(&self) -> &[u8] {
        &self.secret
    }
}

/// How often a key may be passed on from peer to peer, and the bits of a secret that count it.
const HOPS: u8 = 3;

impl PartialEq for CancelKey {
    fn eq(&self, other: &Self) -> bool {
        self.process_id == other.process_id && bool::from(self.secret.ct_eq(&other.secret))
    }
}

impl Eq for CancelKey {}

impl fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelKey")
            .field("process_id", &self.process_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_four_to_256_bytes() {
        assert_eq!(CancelKey::new(1, &[0; 3]), None);
        assert!(CancelKey::new(1, &[0; 4]).is_some());
        assert!(CancelKey::new(1, &[0; 256]).is_some());
        assert_eq!(CancelKey::new(1, &[0; 257]), None);
    }

    #[test]
    fn keys_are_equal_when_process_id_and_secret_are() {
        let key = CancelKey::from_bytes(b"\0\0\x01\x02abcd").unwrap();
        assert_eq!(key.process_id(), 258);
        assert_eq!(key, CancelKey::new(258, b"abcd").unwrap());
        assert_ne!(key, CancelKey::new(258, b"abce").unwrap());
        assert_ne!(key, CancelKey::new(258, b"abcde").unwrap());
        assert_ne!(key, CancelKey::new(257, b"abcd").unwrap());
    }

    #[test]
    fn a_key_is_passed_on_three_times() {
        let key = CancelKey::new(7, b"abc\xfc").unwrap().with_all_hops();
        assert_eq!(key.expose_secret(), b"abc\xff");
        let twice = key
            .with_one_hop_less()
            .and_then(|key| key.with_one_hop_less())
            .unwrap();
        assert_eq!(twice.expose_secret(), b"abc\xfd");
        let last = twice.with_one_hop_less().unwrap();
        assert_eq!(last.with_one_hop_less(), None);
        assert_eq!(last.with_all_hops(), key);
    }

    #[test]
    fn debug_output_does_not_show_the_secret() {
        let key = CancelKey::new(7, b"abcd").unwrap();
        assert_eq!(format!("{key:?}"), "CancelKey { process_id: 7, .. }");
    }
}
