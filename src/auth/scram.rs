//! SCRAM-SHA-256: both sides prove that they know the password, and neither says it.
//!
//! [`ScramServer`] speaks to clients, [`ScramClient`] to servers. Each step uses the exchange up and gives back the next.
//!
//! Sources: RFC 5802, RFC 7677, and PostgreSQL's src/backend/libpq/auth-scram.c and src/interfaces/libpq/fe-auth-scram.c.

mod client;
mod keys;
mod server;
#[cfg(test)]
mod tests;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub use client::{ClientBinding, MAX_ITERATIONS, ScramClient, ScramClientError, ScramClientFinal};
pub use keys::{CachedKeys, ScramKeys, ScramVerifier};
pub use server::{
    MockSecret, ScramServer, ScramServerError, ScramServerFinal, ServerBinding, Truth,
};

/// The mechanism's name in SASL.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// The name of the one that is bound to the TLS connection.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// How an exchange is bound to the TLS connection: to the hash of the server's certificate.
const END_POINT: &str = "tls-server-end-point";

/// The longest SASL message that is read, from either peer (PostgreSQL's PG_MAX_SASL_MESSAGE_LENGTH).
pub const MAX_SASL_MESSAGE_LENGTH: usize = 1024;

/// How many rounds a key gets unless somebody says otherwise (PostgreSQL's SCRAM_SHA_256_DEFAULT_ITERATIONS).
pub const DEFAULT_ITERATIONS: u32 = 4096;

/// How many bytes of salt a key gets (PostgreSQL's SCRAM_DEFAULT_SALT_LEN).
pub const SALT_LENGTH: usize = 16;

/// Random bytes that make one exchange unlike all others: 18, as PostgreSQL takes (SCRAM_RAW_NONCE_LEN).
pub type Nonce = [u8; 18];

/// `a=value` at the start of a message; `found` is what stood there instead.
enum Attribute<'a> {
    /// The name, the value, and what stands behind the comma.
    Found(u8, &'a [u8], Option<&'a [u8]>),
    /// There is none: the text ends or begins with something else.
    Missing(Option<u8>),
    /// The name is there, the equals sign is not.
    NoEquals(u8),
}

fn attribute(text: &[u8]) -> Attribute<'_> {
    let Some((name, rest)) = text.split_first() else {
        return Attribute::Missing(None);
    };
    if !name.is_ascii_alphabetic() {
        return Attribute::Missing(Some(*name));
    }
    let Some(rest) = rest.strip_prefix(b"=") else {
        return Attribute::NoEquals(*name);
    };
    let mut parts = rest.splitn(2, |byte| *byte == b',');
    Attribute::Found(*name, parts.next().unwrap_or_default(), parts.next())
}

/// RFC 5802 `printable`: visible ASCII but the comma.
fn is_printable(text: &[u8]) -> bool {
    text.iter()
        .all(|byte| byte.is_ascii_graphic() && *byte != b',')
}

fn base64_of(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}
