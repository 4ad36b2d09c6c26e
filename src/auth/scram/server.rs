//! The server's part of the exchange: the proxy checks a client.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::keys::{hash, hmac, is_equal, xor};
use super::{
    Attribute, CachedKeys, END_POINT, MAX_SASL_MESSAGE_LENGTH, Nonce, SALT_LENGTH, ScramKeys,
    ScramVerifier, attribute, base64_of, from_base64, is_printable,
};
use crate::protocol::error_response::{ErrorResponse, SqlState};

/// What salts are made of, for users and for those who are none, so that nobody can tell them apart. `Debug` shows nothing.
#[derive(Clone)]
pub struct MockSecret(Zeroizing<[u8; 32]>);

impl MockSecret {
    /// Takes the random bytes into keeping.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The same for the same `source`, which can't be found out from it if it can't be guessed.
    pub fn derived_from(source: &[u8]) -> Self {
        Self(hmac(
            &Sha256::digest(source).into(),
            &[b"pgspan mock secret"],
        ))
    }

    /// The same salt for the same user, every time.
    pub fn salt(&self, user: &[u8]) -> [u8; SALT_LENGTH] {
        let mut salt = [0; SALT_LENGTH];
        for (byte, made) in salt.iter_mut().zip(hmac(&self.0, &[user]).iter()) {
            *byte = *made;
        }
        salt
    }

    /// A verifier that nobody's password fits, the same for the same user every time.
    pub fn verifier(&self, user: &[u8], iterations: NonZeroU32) -> ScramVerifier {
        ScramVerifier {
            salt: self.salt(user).into(),
            iterations,
            stored_key: Zeroizing::new([0; 32]),
            server_key: Zeroizing::new([0; 32]),
        }
    }

    /// A number that is the same every time for the same user and purpose.
    pub fn number(&self, user: &[u8], purpose: &[u8]) -> u64 {
        // No name has a zero byte.
        let key = hmac(&self.0, &[b"number\0", user, b"\0", purpose]);
        let first = *key.first_chunk().expect("a key is longer");
        u64::from_le_bytes(first)
    }
}

impl fmt::Debug for MockSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MockSecret(..)")
    }
}

/// Awaits client-first-message.
#[derive(Debug)]
pub struct ScramServer {
    verifier: ScramVerifier,
    truth: Truth,
    binding: ServerBinding,
    nonce: Nonce,
}

/// What a client can bind its exchange to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerBinding {
    /// Nothing: there is no TLS, or our certificate has no hash. Such an exchange is not offered.
    Impossible,
    /// To this hash of our certificate (`tls-server-end-point` of RFC 5929): it was offered, and the client has not picked it.
    Declined(Box<[u8]>),
    /// To this hash, which the client has picked.
    EndPoint(Box<[u8]>),
}

/// Whether an exchange can succeed at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// The verifier is a user's.
    Genuine,
    /// Nobody's: the exchange is gone through, and fails.
    Doomed,
}

impl ScramServer {
    /// An exchange with somebody of whom we hold this verifier; or one that looks like it and ends with a wrong password, for
    /// users who don't exist or have no usable password: with a verifier of [`MockSecret::verifier`].
    pub fn new(
        verifier: ScramVerifier,
        truth: Truth,
        binding: ServerBinding,
        nonce: Nonce,
    ) -> Self {
        Self {
            verifier,
            truth,
            binding,
            nonce,
        }
    }

    /// Reads client-first-message; gives back server-first-message to be sent.
    pub fn on_client_first(
        self,
        message: &[u8],
    ) -> Result<(ScramServerFinal, String), ScramServerError> {
        let ClientFirst {
            channel_binding,
            bare,
            nonce,
        } = ClientFirst::parse(message, &self.binding)?;
        let nonce = [nonce, base64_of(&self.nonce).as_bytes()].concat();
        let server_first = format!(
            "r={},s={},i={}",
            String::from_utf8_lossy(&nonce),
            base64_of(&self.verifier.salt),
            self.verifier.iterations
        );
        let next = ScramServerFinal {
            channel_binding,
            is_bound: matches!(self.binding, ServerBinding::EndPoint(_)),
            client_first_bare: bare.to_vec(),
            server_first: server_first.clone(),
            nonce,
            verifier: self.verifier,
            truth: self.truth,
        };
        Ok((next, server_first))
    }
}

/// Awaits client-final-message.
#[derive(Debug)]
pub struct ScramServerFinal {
    /// What client-final must repeat: its gs2-header in base64.
    pub(super) channel_binding: String,
    pub(super) is_bound: bool,
    pub(super) client_first_bare: Vec<u8>,
    pub(super) server_first: String,
    /// The client's part and ours.
    pub(super) nonce: Vec<u8>,
    pub(super) verifier: ScramVerifier,
    pub(super) truth: Truth,
}

impl ScramServerFinal {
    /// Reads client-final-message and checks the proof in it; gives back server-final-message to be sent, and the keys,
    /// which serve to log in wherever the same verifier is kept.
    pub fn on_client_final(self, message: &[u8]) -> Result<(String, CachedKeys), ScramServerError> {
        let ClientFinal {
            channel_binding,
            nonce,
            without_proof,
            proof,
        } = ClientFinal::parse(message)?;
        if !is_equal(channel_binding, self.channel_binding.as_bytes()) {
            return Err(match self.is_bound {
                true => ScramServerError::ChannelBindingFailed,
                false => ScramServerError::WrongChannelBinding,
            });
        }
        if !is_equal(nonce, &self.nonce) {
            return Err(ScramServerError::WrongNonce);
        }
        let auth_message: [&[u8]; 5] = [
            &self.client_first_bare,
            b",",
            self.server_first.as_bytes(),
            b",",
            without_proof,
        ];
        let verifier = self.verifier;
        let client_key = xor(&proof, &hmac(&verifier.stored_key, &auth_message));
        let is_proven = is_equal(&*hash(&client_key), &*verifier.stored_key);
        let signature = hmac(&verifier.server_key, &auth_message);
        if !is_proven || self.truth == Truth::Doomed {
            return Err(ScramServerError::WrongProof);
        }
        let keys = ScramKeys {
            client_key,
            stored_key: verifier.stored_key,
            server_key: verifier.server_key,
        };
        Ok((
            format!("v={}", base64_of(&*signature)),
            CachedKeys::new(verifier.salt, verifier.iterations, keys),
        ))
    }
}

/// Why a client's part of the exchange was refused; the client is to blame for all of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramServerError {
    /// A message that is none; why.
    #[error("malformed SCRAM message: {0}")]
    Malformed(Cow<'static, str>),
    /// It wants to act for somebody else.
    #[error("client uses authorization identity, but it is not supported")]
    AuthorizationIdentity,
    /// It insists on something that we don't know.
    #[error("client requires an unsupported SCRAM extension")]
    UnsupportedExtension,
    /// Its nonce has bytes that a nonce can't have.
    #[error("non-printable characters in SCRAM nonce")]
    UnprintableNonce,
    /// It could bind to the channel, and thinks that we can't: somebody in between has told it so, or it is broken.
    #[error("SCRAM channel binding negotiation error")]
    Downgraded,
    /// It wants to bind to the channel in a way that we don't know.
    #[error("unsupported SCRAM channel-binding type")]
    UnsupportedBinding,
    /// It is bound to another channel than this one: somebody is in between.
    #[error("SCRAM channel binding check failed")]
    ChannelBindingFailed,
    /// Its two messages disagree on channel binding.
    #[error("unexpected SCRAM channel-binding attribute in client-final-message")]
    WrongChannelBinding,
    /// Its last message belongs to another exchange.
    #[error("invalid SCRAM response: Nonce does not match.")]
    WrongNonce,
    /// It doesn't know the password, or there is none.
    #[error("wrong password")]
    WrongProof,
}

impl ScramServerError {
    /// What the client reads; `None` for a wrong password, which is told in the words of every other method.
    pub fn response(&self) -> Option<ErrorResponse> {
        let violation = |message| ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, message);
        Some(match self {
            Self::Malformed(detail) => {
                violation("malformed SCRAM message".to_owned()).with_detail(detail.clone())
            }
            Self::AuthorizationIdentity | Self::UnsupportedExtension => {
                ErrorResponse::fatal(SqlState::FEATURE_NOT_SUPPORTED, self.to_string())
            }
            Self::UnprintableNonce | Self::WrongChannelBinding | Self::UnsupportedBinding => {
                violation(self.to_string())
            }
            Self::ChannelBindingFailed => ErrorResponse::fatal(
                SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                self.to_string(),
            ),
            Self::Downgraded => ErrorResponse::fatal(
                SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                self.to_string(),
            )
            .with_detail(
                "The client supports SCRAM channel binding but thinks the server does not.  However, this server does support channel binding.",
            ),
            Self::WrongNonce => {
                violation("invalid SCRAM response".to_owned()).with_detail("Nonce does not match.")
            }
            Self::WrongProof => return None,
        })
    }
}

fn malformed(detail: impl Into<Cow<'static, str>>) -> ScramServerError {
    ScramServerError::Malformed(detail.into())
}

/// `gs2-cbind-flag "," [authzid] "," [mandatory extension ","] "n=" name "," "r=" nonce ["," extensions]`.
struct ClientFirst<'a> {
    /// What the client's last message must repeat: its header and the hash, in base64.
    channel_binding: String,
    bare: &'a [u8],
    nonce: &'a [u8],
}

impl<'a> ClientFirst<'a> {
    fn parse(message: &'a [u8], binding: &ServerBinding) -> Result<Self, ScramServerError> {
        check_whole(message)?;
        let (channel_binding, rest) = match (message, binding) {
            ([b'p', b'=', rest @ ..], ServerBinding::EndPoint(hash)) => {
                let end = rest.iter().position(|byte| *byte == b',');
                let (kind, rest) = rest.split_at(end.unwrap_or(rest.len()));
                if kind != END_POINT.as_bytes() {
                    return Err(ScramServerError::UnsupportedBinding);
                }
                let header = format!("p={END_POINT},,");
                (base64_of(&[header.as_bytes(), hash].concat()), rest)
            }
            ([b'n' | b'y', ..], ServerBinding::EndPoint(_)) => {
                return Err(malformed(
                    "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.",
                ));
            }
            ([b'y', ..], ServerBinding::Declined(_)) => return Err(ScramServerError::Downgraded),
            ([b'n', rest @ ..], _) => ("biws".to_owned(), rest),
            // The client could bind to a channel and thinks we can't, which is so.
            ([b'y', rest @ ..], ServerBinding::Impossible) => ("eSws".to_owned(), rest),
            ([b'p', ..], _) => {
                return Err(malformed(
                    "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.",
                ));
            }
            (other, _) => {
                return Err(malformed(format!(
                    "Unexpected channel-binding flag \"{}\".",
                    shown(other.first())
                )));
            }
        };
        let rest = rest.strip_prefix(b",").ok_or_else(|| {
            malformed(format!(
                "Comma expected, but found character \"{}\".",
                shown(rest.first())
            ))
        })?;
        let bare = match rest {
            [b',', bare @ ..] => bare,
            [b'a', ..] => return Err(ScramServerError::AuthorizationIdentity),
            other => {
                return Err(malformed(format!(
                    "Unexpected attribute \"{}\" in client-first-message.",
                    shown(other.first())
                )));
            }
        };
        if bare.starts_with(b"m") {
            return Err(ScramServerError::UnsupportedExtension);
        }
        // The name is not looked at: the one in the startup packet holds.
        let (_, rest) = expect(bare, b'n')?;
        let (nonce, mut rest) = expect(rest.unwrap_or_default(), b'r')?;
        if nonce.is_empty() || !is_printable(nonce) {
            return Err(ScramServerError::UnprintableNonce);
        }
        while let Some(extensions) = rest.filter(|rest| !rest.is_empty()) {
            (_, _, rest) = any(extensions)?;
        }
        Ok(Self {
            channel_binding,
            bare,
            nonce,
        })
    }
}

/// `"c=" base64 ",r=" nonce ["," extensions] ",p=" base64`.
struct ClientFinal<'a> {
    channel_binding: &'a [u8],
    nonce: &'a [u8],
    without_proof: &'a [u8],
    proof: [u8; 32],
}

impl<'a> ClientFinal<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, ScramServerError> {
        check_whole(message)?;
        let (channel_binding, rest) = expect(message, b'c')?;
        let (nonce, rest) = expect(rest.unwrap_or_default(), b'r')?;
        let mut rest = rest.unwrap_or_default();
        let (proof, proof_length) = loop {
            let length = rest.len();
            let (name, value, behind) = any(rest)?;
            if name == b'p' {
                if behind.is_some() {
                    return Err(malformed(
                        "Garbage found at the end of client-final-message.",
                    ));
                }
                break (value, length);
            }
            rest = behind.unwrap_or_default();
        };
        let proof = from_base64(proof)
            .and_then(|proof| <[u8; 32]>::try_from(proof).ok())
            .ok_or_else(|| malformed("Malformed proof in client-final-message."))?;
        Ok(Self {
            channel_binding,
            nonce,
            // The comma before the proof does not count.
            without_proof: message
                .get(..message.len() - proof_length - 1)
                .expect("the proof is the message's end, behind a comma"),
            proof,
        })
    }
}

fn check_whole(message: &[u8]) -> Result<(), ScramServerError> {
    if message.is_empty() {
        return Err(malformed("The message is empty."));
    }
    if message.len() > MAX_SASL_MESSAGE_LENGTH || message.contains(&0) {
        return Err(malformed("Message length does not match input length."));
    }
    Ok(())
}

type Rest<'a> = Option<&'a [u8]>;

fn expect(text: &[u8], expected: u8) -> Result<(&[u8], Rest<'_>), ScramServerError> {
    match attribute(text) {
        Attribute::Found(name, value, rest) if name == expected => Ok((value, rest)),
        Attribute::NoEquals(name) if name == expected => Err(no_equals(name)),
        _ => Err(malformed(format!(
            "Expected attribute \"{}\" but found \"{}\".",
            char::from(expected),
            shown(text.first())
        ))),
    }
}

fn any(text: &[u8]) -> Result<(u8, &[u8], Rest<'_>), ScramServerError> {
    match attribute(text) {
        Attribute::Found(name, value, rest) => Ok((name, value, rest)),
        Attribute::NoEquals(name) => Err(no_equals(name)),
        Attribute::Missing(None) => Err(malformed("Attribute expected, but found end of string.")),
        Attribute::Missing(found) => Err(malformed(format!(
            "Attribute expected, but found invalid character \"{}\".",
            shown(found.as_ref())
        ))),
    }
}

fn no_equals(name: u8) -> ScramServerError {
    malformed(format!(
        "Expected character \"=\" for attribute \"{}\".",
        char::from(name)
    ))
}

/// A character as PostgreSQL shows it (`sanitize_char`); the end of the text is a NUL there.
fn shown(character: Option<&u8>) -> String {
    match character.copied().unwrap_or_default() {
        visible @ 0x21..=0x7e => format!("'{}'", char::from(visible)),
        other => format!("0x{other:02x}"),
    }
}
