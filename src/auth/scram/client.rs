//! The client's part of the exchange: the proxy logs in at a server, and checks it in turn.

use std::fmt;
use std::num::NonZeroU32;

use super::keys::{Key, hmac, is_equal, xor};
use super::{
    Attribute, CachedKeys, END_POINT, MAX_SASL_MESSAGE_LENGTH, Nonce, ScramKeys, attribute,
    base64_of, from_base64, is_printable,
};

/// How many rounds a server may ask of us: it is their number that decides how long we compute.
pub const MAX_ITERATIONS: u32 = 1_000_000;

/// Whether the exchange is bound to the TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientBinding<'a> {
    /// It can't be: there is no TLS, or no hash of the server's certificate.
    Impossible,
    /// It could be, but the server has not offered it. It says so if it has after all: somebody is in between.
    NotOffered,
    /// To this hash of the server's certificate: `tls-server-end-point` of RFC 5929.
    EndPoint(&'a [u8]),
}

/// Awaits server-first-message.
#[derive(Debug)]
pub struct ScramClient {
    pub(super) nonce: String,
    pub(super) first_bare: String,
    /// What the last message repeats: the header of the first, and the hash.
    pub(super) channel_binding: String,
}

impl ScramClient {
    /// Begins an exchange; gives back client-first-message to be sent.
    ///
    /// Who logs in is not said: the name stands in the startup packet.
    pub fn begin(nonce: Nonce, binding: ClientBinding<'_>) -> (Self, String) {
        let nonce = base64_of(&nonce);
        let first_bare = format!("n=,r={nonce}");
        let (header, hash) = match binding {
            ClientBinding::Impossible => ("n,,".to_owned(), &[][..]),
            ClientBinding::NotOffered => ("y,,".to_owned(), &[][..]),
            ClientBinding::EndPoint(hash) => (format!("p={END_POINT},,"), hash),
        };
        let client_first = format!("{header}{first_bare}");
        let exchange = Self {
            nonce,
            first_bare,
            channel_binding: base64_of(&[header.as_bytes(), hash].concat()),
        };
        (exchange, client_first)
    }

    /// Reads server-first-message; gives back client-final-message to be sent.
    ///
    /// Keys in `cached` that were made with this server's salt and iteration count spare the slow computation, and the password.
    pub fn on_server_first(
        self,
        message: &[u8],
        password: Option<&[u8]>,
        cached: Option<&CachedKeys>,
    ) -> Result<(ScramClientFinal, String), ScramClientError> {
        let ServerFirst {
            nonce,
            salt,
            iterations,
        } = ServerFirst::parse(message)?;
        let own_part = nonce
            .strip_prefix(self.nonce.as_bytes())
            .ok_or(ScramClientError::WrongNonce)?;
        if own_part.is_empty() {
            return Err(ScramClientError::WrongNonce);
        }
        if iterations.get() > MAX_ITERATIONS {
            return Err(ScramClientError::TooManyIterations(iterations));
        }
        let keys = match (
            cached.and_then(|keys| keys.matching(&salt, iterations)),
            password,
        ) {
            (Some(keys), _) => keys.clone(),
            (None, Some(password)) => ScramKeys::derive(password, &salt, iterations),
            (None, None) => return Err(ScramClientError::NoPassword),
        };
        let without_proof = format!(
            "c={},r={}",
            self.channel_binding,
            str::from_utf8(nonce).expect("a nonce is printable ASCII")
        );
        let auth_message: [&[u8]; 5] = [
            self.first_bare.as_bytes(),
            b",",
            message,
            b",",
            without_proof.as_bytes(),
        ];
        let proof = xor(&keys.client_key, &hmac(&keys.stored_key, &auth_message));
        let client_final = format!("{without_proof},p={}", base64_of(&*proof));
        let next = ScramClientFinal {
            signature: hmac(&keys.server_key, &auth_message),
            keys: CachedKeys::new(salt, iterations, keys),
        };
        Ok((next, client_final))
    }
}

/// Awaits server-final-message. `Debug` shows nothing.
pub struct ScramClientFinal {
    /// What only a server that knows the password's keys can send.
    signature: Key,
    keys: CachedKeys,
}

impl ScramClientFinal {
    /// Reads server-final-message and checks the signature in it; gives back the keys to use the next time.
    pub fn on_server_final(self, message: &[u8]) -> Result<CachedKeys, ScramClientError> {
        if message.len() > MAX_SASL_MESSAGE_LENGTH {
            return Err(ScramClientError::Malformed);
        }
        match attribute(message) {
            Attribute::Found(b'v', signature, _) => from_base64(signature)
                .filter(|signature| is_equal(signature, &*self.signature))
                .map(|_| self.keys)
                .ok_or(ScramClientError::WrongSignature),
            Attribute::Found(b'e', reason, _) if is_printable(reason) => Err(
                ScramClientError::Refused(String::from_utf8_lossy(reason).into_owned().into()),
            ),
            _ => Err(ScramClientError::Malformed),
        }
    }
}

impl fmt::Debug for ScramClientFinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramClientFinal(..)")
    }
}

/// Why the exchange with a server failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramClientError {
    /// The server sent what no message of the exchange is.
    #[error("malformed SCRAM message")]
    Malformed,
    /// The server's message belongs to another exchange.
    #[error("invalid SCRAM response (nonce mismatch)")]
    WrongNonce,
    /// The server asks for more than [`MAX_ITERATIONS`].
    #[error("SCRAM iteration count {0} is over the limit of {MAX_ITERATIONS}")]
    TooManyIterations(NonZeroU32),
    /// We hold no password, nor keys that fit this server's salt and iteration count.
    #[error("no password and no matching SCRAM keys")]
    NoPassword,
    /// The server says, within the exchange, why it won't.
    #[error("error received from server in SCRAM exchange: {0}")]
    Refused(Box<str>),
    /// The server doesn't know the password: it is not the one we mean.
    #[error("incorrect server signature")]
    WrongSignature,
}

/// `"r=" nonce ",s=" base64 ",i=" number ["," extensions]`.
struct ServerFirst<'a> {
    nonce: &'a [u8],
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

impl<'a> ServerFirst<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, ScramClientError> {
        Self::parse_attributes(message).ok_or(ScramClientError::Malformed)
    }

    fn parse_attributes(message: &'a [u8]) -> Option<Self> {
        if message.len() > MAX_SASL_MESSAGE_LENGTH {
            return None;
        }
        let (nonce, rest) = expect(message, b'r')?;
        let (salt, rest) = expect(rest?, b's')?;
        let (iterations, rest) = expect(rest?, b'i')?;
        // Extensions may follow, and none is known: they are skipped if they are well-formed.
        let mut rest = rest;
        while let Some(extensions) = rest {
            match attribute(extensions) {
                Attribute::Found(_, _, behind) => rest = behind,
                _ => return None,
            }
        }
        if !is_printable(nonce) || !iterations.first()?.is_ascii_digit() {
            return None;
        }
        Some(Self {
            nonce,
            salt: from_base64(salt).filter(|salt| !salt.is_empty())?,
            iterations: str::from_utf8(iterations).ok()?.parse().ok()?,
        })
    }
}

fn expect(text: &[u8], expected: u8) -> Option<(&[u8], Option<&[u8]>)> {
    match attribute(text) {
        Attribute::Found(name, value, rest) if name == expected => Some((value, rest)),
        _ => None,
    }
}
