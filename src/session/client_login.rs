//! A client proves who it is.
//!
//! ```text
//! trust ──────────────────────────────────────────────────────────────────── AuthenticationOk
//! password ─ CleartextPassword → PasswordMessage ─────────────────────────── AuthenticationOk
//! scram ──── SASL → SASLInitialResponse → SASLContinue → SASLResponse → SASLFinal, AuthenticationOk
//! ```
//!
//! Sources: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>, and PostgreSQL's
//! src/backend/libpq/auth.c and auth-sasl.c, whose words are taken where PgBouncer has others (it says
//! `SASL authentication failed` and `password authentication failed`, without the user's name).

use std::num::NonZeroU32;

use crate::auth::scram::{
    CachedKeys, DEFAULT_ITERATIONS, MAX_SASL_MESSAGE_LENGTH, MECHANISM, MockSecret, Nonce,
    ScramServer, ScramServerError, ScramServerFinal, ScramVerifier,
};
use crate::auth::verifier::Verifier;
use crate::config::choices::AuthMethod;
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
    pub method: AuthMethod,
    /// What is held of the user's password. `None`, for users who don't exist too, fails at the end, and not sooner.
    ///
    /// With SCRAM a [`Verifier::Plain`] costs a key derivation in every login: turn it into a [`Verifier::Scram`] once.
    pub verifier: Option<&'a Verifier>,
    /// Random bytes for this login alone.
    pub nonce: Nonce,
    /// Random bytes of the process.
    pub mock_secret: &'a MockSecret,
}

/// Awaits a client's answer.
#[derive(Debug)]
pub struct ClientLogin {
    user: Box<[u8]>,
    awaiting: Awaiting,
}

#[derive(Debug)]
enum Awaiting {
    Password(Option<Verifier>),
    SaslInitialResponse(ScramServer),
    /// The client picked the mechanism without saying its first words.
    ClientFirst(ScramServer),
    ClientFinal(ScramServerFinal),
}

/// How far a login is.
#[derive(Debug)]
pub enum Progress {
    /// Send what was written, and await the next message.
    Continue(ClientLogin),
    /// AuthenticationOk was written.
    LoggedIn(LoggedIn),
}

/// A client that is who it says.
#[derive(Debug)]
pub struct LoggedIn {
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
        let awaiting = match request.method {
            AuthMethod::Trust => {
                encode::authentication_ok(out);
                return Progress::LoggedIn(LoggedIn { scram_keys: None });
            }
            AuthMethod::Password => {
                encode::authentication_cleartext_password(out);
                Awaiting::Password(request.verifier.cloned())
            }
            AuthMethod::ScramSha256 => {
                encode::authentication_sasl(out, &[MECHANISM]);
                Awaiting::SaslInitialResponse(scram_server(&request))
            }
        };
        Progress::Continue(Self {
            user: request.user.into(),
            awaiting,
        })
    }

    /// Takes the client's answer; writes what it must be told, AuthenticationOk at the end.
    ///
    /// A password, in clear or behind SCRAM's rounds, takes its time here: some milliseconds with a [`Verifier::Scram`].
    pub fn on_message(self, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<Progress, LoginError> {
        let body = self.awaiting.response_in(frame)?;
        let Self { user, awaiting } = self;
        let awaiting = match awaiting {
            Awaiting::Password(verifier) => {
                return on_password(user, verifier.as_ref(), body, out);
            }
            Awaiting::SaslInitialResponse(scram) => match initial_response(body)? {
                Some(client_first) => on_client_first(user.clone(), scram, client_first, out)?,
                None => {
                    encode::authentication_sasl_continue(out, b"");
                    Awaiting::ClientFirst(scram)
                }
            },
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
            Self::Password(_) => (
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

fn scram_server(request: &ClientLoginRequest<'_>) -> ScramServer {
    match request.verifier {
        Some(Verifier::Scram(verifier)) => ScramServer::new(verifier.clone(), request.nonce),
        Some(Verifier::Plain(password)) => ScramServer::new(
            ScramVerifier::from_password(
                password.expose().as_bytes(),
                &request.mock_secret.salt(request.user),
                NonZeroU32::new(DEFAULT_ITERATIONS).expect("the default is not zero"),
            ),
            request.nonce,
        ),
        // Nothing of SCRAM can be computed from an MD5 hash.
        Some(Verifier::Md5(_)) | None => {
            ScramServer::doomed(request.user, request.mock_secret, request.nonce)
        }
    }
}

fn on_password(
    user: Box<[u8]>,
    verifier: Option<&Verifier>,
    body: &[u8],
    out: &mut Vec<u8>,
) -> Result<Progress, LoginError> {
    let Some((password, b"")) = split_cstr(body) else {
        return Err(LoginError::InvalidPasswordPacket);
    };
    if password.is_empty() {
        return Err(LoginError::EmptyPassword);
    }
    if !verifier.is_some_and(|verifier| verifier.is_password(&user, password)) {
        return Err(LoginError::WrongPassword { user });
    }
    encode::authentication_ok(out);
    Ok(Progress::LoggedIn(LoggedIn { scram_keys: None }))
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
    encode::authentication_ok(out);
    Ok(Progress::LoggedIn(LoggedIn {
        scram_keys: Some(keys),
    }))
}

fn login_error(error: ScramServerError, user: Box<[u8]>) -> LoginError {
    match error {
        ScramServerError::WrongProof => LoginError::WrongPassword { user },
        error => LoginError::Scram(error),
    }
}

/// SASLInitialResponse: the mechanism, and the client's first words unless it keeps them for later.
fn initial_response(body: &[u8]) -> Result<Option<&[u8]>, LoginError> {
    const CUT_SHORT: LoginError =
        LoginError::InvalidInitialResponse("insufficient data left in message");
    let (mechanism, rest) = split_cstr(body).ok_or(LoginError::InvalidInitialResponse(
        "invalid string in message",
    ))?;
    if mechanism != MECHANISM.as_bytes() {
        return Err(LoginError::InvalidMechanism);
    }
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
    Ok(response)
}

#[cfg(test)]
mod tests;
