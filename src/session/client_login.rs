//! A client proves who it is.
//!
//! ```text
//! nothing ────────────────────────────────────────────────────────────────── AuthenticationOk
//! password ─ CleartextPassword → PasswordMessage ─────────────────────────── AuthenticationOk
//! md5 ────── MD5Password → PasswordMessage ───────────────────────────────── AuthenticationOk
//! scram ──── SASL → SASLInitialResponse → SASLContinue → SASLResponse → SASLFinal, AuthenticationOk
//! ```
//!
//! Sources: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>, and PostgreSQL's
//! src/backend/libpq/auth.c and auth-sasl.c, whose words are taken where PgBouncer has others (it says
//! `SASL authentication failed` and `password authentication failed`, without the user's name).

use crate::auth::held::Held;
use crate::auth::md5::Md5Hash;
use crate::auth::scram::{
    CachedKeys, MAX_SASL_MESSAGE_LENGTH, MECHANISM, MECHANISM_PLUS, Nonce, ScramServer,
    ScramServerError, ScramServerFinal, ScramVerifier, ServerBinding, Truth,
};
use crate::auth::verifier::Verifier;
use crate::config::secret::Secret;
use crate::protocol::encode;
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::protocol::frame::{Frame, split_cstr};

/// The longest body of a message before the login is done (PostgreSQL's PG_MAX_AUTH_TOKEN_LENGTH). A longer one is not to be
/// read: the connection is closed, without a word as PostgreSQL does.
pub const MAX_LOGIN_MESSAGE_LENGTH: usize = 65_535;

/// The tag of PasswordMessage, SASLInitialResponse and SASLResponse.
const PASSWORD_TAG: u8 = b'p';

/// Who wants to log in, and what is held of them.
#[derive(Debug)]
pub struct ClientLoginRequest<'a> {
    /// The name in the startup message.
    pub user: &'a [u8],
    /// How it shall be proved.
    pub challenge: Challenge,
    /// What its password is checked by.
    ///
    /// With SCRAM it should be ready: else it costs a key derivation here.
    pub held: &'a Held,
    /// Random bytes for this login alone.
    pub nonce: Nonce,
    /// The hash of our certificate that SCRAM can be bound to, where the connection is encrypted by it.
    pub binding: Option<&'a [u8]>,
}

/// How a client shall prove who it is, within the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Not at all, or it has done so by other means.
    Nothing,
    /// By its password.
    Password,
    /// By a hash of it; by SCRAM where a SCRAM verifier is held, of which nothing else can be computed.
    Md5,
    /// By SCRAM-SHA-256, or SCRAM-SHA-256-PLUS where there is something to bind to.
    Scram,
}

/// Awaits a client's answer.
#[derive(Debug)]
pub struct ClientLogin {
    user: Box<[u8]>,
    awaiting: Awaiting,
}

#[derive(Debug)]
enum Awaiting {
    Password(Verifier, Truth),
    Md5(Md5Hash, Truth, [u8; 4]),
    SaslInitialResponse(Box<Offer>),
    /// The client picked the mechanism without saying its first words.
    ClientFirst(ScramServer),
    ClientFinal(ScramServerFinal),
}

/// SCRAM, before the client has picked one of its two kinds.
#[derive(Debug)]
struct Offer {
    verifier: ScramVerifier,
    truth: Truth,
    binding: Option<Box<[u8]>>,
    nonce: Nonce,
}

/// How far a login is.
#[derive(Debug)]
pub enum Progress {
    /// Send what was written, and await the next message.
    Continue(ClientLogin),
    /// AuthenticationOk was written.
    LoggedIn(LoggedIn),
}

/// A client that is who it says, and what it has shown us of its password.
#[derive(Debug, Default)]
pub struct LoggedIn {
    /// After a password in clear: the password.
    pub password: Option<Secret>,
    /// After SCRAM: the keys that its proof disclosed. They log in at any server that keeps the same verifier.
    pub scram_keys: Option<CachedKeys>,
}

/// Why a login failed; the client is to blame for all of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Another message than a password, with its tag.
    #[error("expected password response, got message type {0}")]
    ExpectedPassword(u8),
    /// Another message than one of SASL, with its tag.
    #[error("expected SASL response, got message type {0}")]
    ExpectedSasl(u8),
    /// A PasswordMessage that is not one string.
    #[error("invalid password packet size")]
    InvalidPasswordPacket,
    /// A password without a character.
    #[error("empty password returned by client")]
    EmptyPassword,
    /// A message longer than [`MAX_LOGIN_MESSAGE_LENGTH`], or one of SASL longer than [`MAX_SASL_MESSAGE_LENGTH`].
    #[error("invalid message length")]
    TooLong,
    /// A SASLInitialResponse whose parts don't fit together; how.
    #[error("{0}")]
    InvalidInitialResponse(&'static str),
    /// A mechanism that was not offered.
    #[error("client selected an invalid SASL authentication mechanism")]
    InvalidMechanism,
    /// A message that is none of SCRAM's.
    #[error(transparent)]
    Scram(ScramServerError),
    /// A wrong password, no such user, or a user without a password: nobody can tell which.
    #[error("password authentication failed for user \"{}\"", String::from_utf8_lossy(.user))]
    WrongPassword {
        /// Who the client said it was.
        user: Box<[u8]>,
    },
}

impl LoginError {
    /// What the client reads, or `None` where PostgreSQL closes without a word.
    pub fn response(&self) -> Option<ErrorResponse> {
        let code = match self {
            Self::TooLong => return None,
            Self::Scram(error) => return error.response(),
            Self::EmptyPassword | Self::WrongPassword { .. } => SqlState::INVALID_PASSWORD,
            Self::ExpectedPassword(_)
            | Self::ExpectedSasl(_)
            | Self::InvalidPasswordPacket
            | Self::InvalidInitialResponse(_)
            | Self::InvalidMechanism => SqlState::PROTOCOL_VIOLATION,
        };
        Some(ErrorResponse::fatal(code, self.to_string()))
    }
}

impl ClientLogin {
    /// Asks for what the method wants; with trust there is nothing to ask, and whether the user is known is the caller's to see to.
    pub fn begin(request: ClientLoginRequest<'_>, out: &mut Vec<u8>) -> Progress {
        let awaiting = match request.challenge {
            Challenge::Nothing => {
                encode::authentication_ok(out);
                return Progress::LoggedIn(LoggedIn::default());
            }
            Challenge::Password => {
                let (verifier, truth) = request.held.verifier();
                encode::authentication_cleartext_password(out);
                Awaiting::Password(verifier.clone(), truth)
            }
            Challenge::Md5 => match request.held.verifier() {
                (Verifier::Scram(verifier), truth) => request.offer_scram(verifier, truth, out),
                (Verifier::Md5(hash), truth) => request.ask_md5(hash.clone(), truth, out),
                (Verifier::Plain(password), truth) => {
                    let hash = Md5Hash::of(request.user, password.expose().as_bytes());
                    request.ask_md5(hash, truth, out)
                }
            },
            Challenge::Scram => {
                let (verifier, truth) = request.held.scram();
                request.offer_scram(verifier, truth, out)
            }
        };
        Progress::Continue(Self {
            user: request.user.into(),
            awaiting,
        })
    }

    /// Whether [`ClientLogin::on_message`] takes milliseconds: a password is told from a SCRAM verifier by as many rounds as it has.
    pub fn takes_time(&self) -> bool {
        matches!(self.awaiting, Awaiting::Password(Verifier::Scram(_), _))
    }

    /// Takes the client's answer; writes what it must be told, AuthenticationOk at the end.
    ///
    /// A password, in clear or behind SCRAM's rounds, takes its time here: some milliseconds with a [`Verifier::Scram`].
    pub fn on_message(self, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<Progress, LoginError> {
        let body = self.awaiting.response_in(frame)?;
        let Self { user, awaiting } = self;
        let awaiting = match awaiting {
            Awaiting::Password(verifier, truth) => {
                return on_password(user, &verifier, truth, body, out);
            }
            Awaiting::Md5(hash, truth, salt) => {
                let answer = password_in(body)?;
                let is_right = hash.is_answer(answer, salt);
                return match is_right && truth == Truth::Genuine {
                    true => Ok(logged_in(LoggedIn::default(), out)),
                    false => Err(LoginError::WrongPassword { user }),
                };
            }
            Awaiting::SaslInitialResponse(offer) => {
                let (mechanism, response) = initial_response(body)?;
                let scram = offer.accept(mechanism)?;
                match response {
                    Some(client_first) => on_client_first(user.clone(), scram, client_first, out)?,
                    None => {
                        encode::authentication_sasl_continue(out, b"");
                        Awaiting::ClientFirst(scram)
                    }
                }
            }
            Awaiting::ClientFirst(scram) => on_client_first(user.clone(), scram, body, out)?,
            Awaiting::ClientFinal(scram) => return on_client_final(user, scram, body, out),
        };
        Ok(Progress::Continue(Self { user, awaiting }))
    }
}

impl Awaiting {
    /// The body of the message, if it is of the kind and size that is awaited.
    fn response_in<'a>(&self, frame: Frame<'a>) -> Result<&'a [u8], LoginError> {
        let (limit, unexpected) = match self {
            Self::Password(..) | Self::Md5(..) => (
                MAX_LOGIN_MESSAGE_LENGTH,
                LoginError::ExpectedPassword(frame.tag),
            ),
            Self::SaslInitialResponse(_) | Self::ClientFirst(_) | Self::ClientFinal(_) => {
                (MAX_SASL_MESSAGE_LENGTH, LoginError::ExpectedSasl(frame.tag))
            }
        };
        if frame.tag != PASSWORD_TAG {
            Err(unexpected)
        } else if frame.body.len() > limit {
            Err(LoginError::TooLong)
        } else {
            Ok(frame.body)
        }
    }
}

impl ClientLoginRequest<'_> {
    fn ask_md5(&self, hash: Md5Hash, truth: Truth, out: &mut Vec<u8>) -> Awaiting {
        let salt = *self.nonce.first_chunk().expect("a nonce is longer");
        encode::authentication_md5_password(out, salt);
        Awaiting::Md5(hash, truth, salt)
    }

    fn offer_scram(&self, verifier: &ScramVerifier, truth: Truth, out: &mut Vec<u8>) -> Awaiting {
        match self.binding {
            Some(_) => encode::authentication_sasl(out, &[MECHANISM_PLUS, MECHANISM]),
            None => encode::authentication_sasl(out, &[MECHANISM]),
        }
        Awaiting::SaslInitialResponse(Box::new(Offer {
            verifier: verifier.clone(),
            truth,
            binding: self.binding.map(Box::from),
            nonce: self.nonce,
        }))
    }
}

impl Offer {
    fn accept(self, mechanism: &[u8]) -> Result<ScramServer, LoginError> {
        let binding = match (mechanism, self.binding) {
            (mechanism, Some(hash)) if mechanism == MECHANISM_PLUS.as_bytes() => {
                ServerBinding::EndPoint(hash)
            }
            (mechanism, Some(hash)) if mechanism == MECHANISM.as_bytes() => {
                ServerBinding::Declined(hash)
            }
            (mechanism, None) if mechanism == MECHANISM.as_bytes() => ServerBinding::Impossible,
            _ => return Err(LoginError::InvalidMechanism),
        };
        Ok(ScramServer::new(
            self.verifier,
            self.truth,
            binding,
            self.nonce,
        ))
    }
}

/// The one string of a PasswordMessage.
fn password_in(body: &[u8]) -> Result<&[u8], LoginError> {
    match split_cstr(body) {
        Some((b"", b"")) => Err(LoginError::EmptyPassword),
        Some((password, b"")) => Ok(password),
        _ => Err(LoginError::InvalidPasswordPacket),
    }
}

fn logged_in(client: LoggedIn, out: &mut Vec<u8>) -> Progress {
    encode::authentication_ok(out);
    Progress::LoggedIn(client)
}

fn on_password(
    user: Box<[u8]>,
    verifier: &Verifier,
    truth: Truth,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<Progress, LoginError> {
    let password = password_in(body)?;
    let is_right = verifier.is_password(&user, password);
    if !is_right || truth == Truth::Doomed {
        return Err(LoginError::WrongPassword { user });
    }
    let shown = LoggedIn {
        password: str::from_utf8(password).ok().map(Secret::new),
        scram_keys: None,
    };
    Ok(logged_in(shown, out))
}

fn on_client_first(
    user: Box<[u8]>,
    scram: ScramServer,
    message: &[u8],
    out: &mut Vec<u8>,
) -> Result<Awaiting, LoginError> {
    let (scram, server_first) = scram
        .on_client_first(message)
        .map_err(|error| login_error(error, user))?;
    encode::authentication_sasl_continue(out, server_first.as_bytes());
    Ok(Awaiting::ClientFinal(scram))
}

fn on_client_final(
    user: Box<[u8]>,
    scram: ScramServerFinal,
    message: &[u8],
    out: &mut Vec<u8>,
) -> Result<Progress, LoginError> {
    let (server_final, keys) = scram
        .on_client_final(message)
        .map_err(|error| login_error(error, user))?;
    encode::authentication_sasl_final(out, server_final.as_bytes());
    let shown = LoggedIn {
        password: None,
        scram_keys: Some(keys),
    };
    Ok(logged_in(shown, out))
}

fn login_error(error: ScramServerError, user: Box<[u8]>) -> LoginError {
    match error {
        ScramServerError::WrongProof => LoginError::WrongPassword { user },
        error => LoginError::Scram(error),
    }
}

/// SASLInitialResponse: the mechanism, and the client's first words unless it keeps them for later.
fn initial_response(body: &[u8]) -> Result<(&[u8], Option<&[u8]>), LoginError> {
    const CUT_SHORT: LoginError =
        LoginError::InvalidInitialResponse("insufficient data left in message");
    let (mechanism, rest) = split_cstr(body).ok_or(LoginError::InvalidInitialResponse(
        "invalid string in message",
    ))?;
    let (length, response) = rest.split_first_chunk().ok_or(CUT_SHORT)?;
    let (response, rest) = match i32::from_be_bytes(*length) {
        -1 => (None, response),
        length => usize::try_from(length)
            .ok()
            .and_then(|length| response.split_at_checked(length))
            .map(|(response, rest)| (Some(response), rest))
            .ok_or(CUT_SHORT)?,
    };
    if !rest.is_empty() {
        return Err(LoginError::InvalidInitialResponse("invalid message format"));
    }
    Ok((mechanism, response))
}

#[cfg(test)]
mod tests;
