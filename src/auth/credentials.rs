//! What can log a user in at a server.

use super::scram::CachedKeys;
use crate::config::secret::Secret;

/// What can log a user in at a server: what the configuration or a server holds of the password, or what the client has shown
/// of it. `Debug` shows nothing of it.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The password, or what PostgreSQL keeps of it: an MD5 hash serves for MD5 alone, a SCRAM verifier for nothing.
    pub password: Option<Secret>,
    /// What a SCRAM proof has disclosed: it serves wherever the same verifier is kept.
    pub scram_keys: Option<CachedKeys>,
}

impl Credentials {
    /// Whether there is nothing to log in with but trust.
    pub fn is_empty(&self) -> bool {
        self.password.is_none() && self.scram_keys.is_none()
    }
}
