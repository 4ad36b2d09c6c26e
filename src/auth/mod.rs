//! Who knows a password: what is kept of it, and the exchanges that prove it. No IO, no randomness: nonces come in.

pub mod md5;
pub mod scram;
pub mod verifier;
