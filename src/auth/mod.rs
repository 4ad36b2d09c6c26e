//! Who knows a password: what is kept of it, and the exchanges that prove it. No IO, no randomness: nonces come in.

pub mod backoff;
pub mod credentials;
pub mod hba;
pub mod held;
pub mod ident;
pub mod md5;
pub mod rule_words;
pub mod scram;
pub mod verifier;
