//! The proxy's own login at a server: from the startup message to ReadyForQuery.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>.

mod error;
#[cfg(test)]
mod tests;

use crate::auth::md5::Md5Hash;
use crate::auth::scram::{
    CachedKeys, ClientBinding, MAX_SASL_MESSAGE_LENGTH, MECHANISM, MECHANISM_PLUS, Nonce,
    ScramClient, ScramClientFinal,
};
use crate::auth::verifier::Verifier;
use crate::config::secret::Secret;
use crate::protocol::backend::TransactionStatus;
use crate::protocol::cancel_key::CancelKey;
use crate::protocol::encode;
use crate::protocol::frame::{Frame, split_cstr};
use crate::protocol::startup::{Parameter, ProtocolVersion, Replication};

pub use error::{ServerLoginError, ServerRefusal};

/// The longest body of a message that a server may send before its first ReadyForQuery. A longer one is not to be read.
pub const MAX_SERVER_LOGIN_MESSAGE_LENGTH: usize = 65_535;

/// How many parameters a server may report while we log in; PostgreSQL 15 reports 13.
pub const MAX_REPORTED_PARAMETERS: usize = 256;

/// Who logs in, where, and by what.
#[derive(Clone, Debug)]
pub struct ServerLoginRequest {
    /// What to speak: [`ProtocolVersion::V3_0`] unless there is a reason.
    pub version: ProtocolVersion,
    /// The role. Like all that follows it holds no NUL.
    pub user: Box<[u8]>,
    /// The database.
    pub database: Box<[u8]>,
    /// What the session shall be set to, `options` among them.
    pub parameters: Vec<Parameter>,
    /// Whether it shall be a session for replication.
    pub replication: Replication,
    /// The password, or `md5` and 32 digits, which serves for MD5 alone.
    pub password: Option<Secret>,
    /// Keys of an earlier login with this password, here or by a client. They spare SCRAM's computation, and the password.
    pub scram_keys: Option<CachedKeys>,
    /// What the connection is, for SCRAM.
    pub channel: ServerChannel,
    /// Random bytes for this login alone.
    pub nonce: Nonce,
}

/// What a connection to a server gives SCRAM to be bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerChannel {
    /// Nothing: it is not encrypted, or it shall not be bound.
    Unbound,
    /// The hash of the server's certificate (`tls-server-end-point`), if the server can.
    EndPoint(Box<[u8]>),
    /// The same; a server that can't, or lets us in by other means, is not trusted. Without a hash none is.
    Required(Option<Box<[u8]>>),
}

/// Awaits a server's next message.
#[derive(Debug)]
pub struct ServerLogin {
    credentials: Credentials,
    /// As far as it is known; its version is the one asked for until the server says otherwise.
    identity: ServerIdentity,
    awaiting: Awaiting,
}

#[derive(Debug)]
struct Credentials {
    channel: ServerChannel,
    user: Box<[u8]>,
    password: Option<Verifier>,
    scram_keys: Option<CachedKeys>,
    nonce: Nonce,
}

#[derive(Debug)]
enum Awaiting {
    /// The server says how we shall prove ourselves, or that we need not.
    Authentication,
    SaslContinue(ScramClient),
    SaslFinal(ScramClientFinal),
    /// We have said our part.
    AuthenticationOk,
    /// We are in.
    ReadyForQuery,
}

/// How far a login is.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "moved a dozen times per connection to a server, and never kept in numbers"
)]
pub enum ServerProgress {
    /// Send what was written, if anything, and await the next message.
    Continue(ServerLogin),
    /// The server is ready, and idle.
    Done(ServerIdentity),
}

/// What a server says of itself when one logs in.
#[derive(Debug)]
pub struct ServerIdentity {
    /// What it speaks with us.
    pub version: ProtocolVersion,
    /// What it reported by ParameterStatus, each name once.
    pub parameters: Vec<Parameter>,
    /// What cancels a query there. PostgreSQL always gives one.
    pub cancel_key: Option<CancelKey>,
    /// After SCRAM: the keys, for the next login with the same password.
    pub scram_keys: Option<CachedKeys>,
}

impl ServerLogin {
    /// Writes the startup message.
    pub fn begin(request: ServerLoginRequest, out: &mut Vec<u8>) -> Self {
        let replication: &[Parameter] = match request.replication {
            Replication::None => &[],
            Replication::Physical => &[((*b"replication").into(), (*b"true").into())],
            Replication::Logical => &[((*b"replication").into(), (*b"database").into())],
        };
        encode::startup_message(
            out,
            request.version,
            &request.user,
            &request.database,
            replication.iter().chain(&request.parameters),
        );
        Self {
            credentials: Credentials {
                channel: request.channel,
                user: request.user,
                password: request.password.as_ref().map(Verifier::parse),
                scram_keys: request.scram_keys,
                nonce: request.nonce,
            },
            identity: ServerIdentity {
                version: request.version,
                parameters: Vec::new(),
                cancel_key: None,
                scram_keys: None,
            },
            awaiting: Awaiting::Authentication,
        }
    }

    /// Takes the server's message; writes the answer, if there is one.
    ///
    /// SCRAM without fitting keys takes its time here: some milliseconds for PostgreSQL's 4096 iterations.
    pub fn on_message(
        mut self,
        frame: Frame<'_>,
        out: &mut Vec<u8>,
    ) -> Result<ServerProgress, ServerLoginError> {
        if frame.body.len() > MAX_SERVER_LOGIN_MESSAGE_LENGTH {
            return Err(ServerLoginError::TooLong);
        }
        match (frame.tag, &self.awaiting) {
            (b'E', _) => return Err(ServerLoginError::Refused(ServerRefusal::parse(frame.body)?)),
            // NoticeResponse: nobody is there yet to read it.
            (b'N', _) => {}
            (b'R', Awaiting::ReadyForQuery) => {
                return Err(ServerLoginError::UnexpectedMessage(frame.tag));
            }
            (b'R', _) => self = self.on_authentication(frame.body, out)?,
            (b'v', Awaiting::Authentication) => self.on_negotiation(frame.body)?,
            (b'S', Awaiting::ReadyForQuery) => self.identity.set_parameter(frame.body)?,
            (b'K', Awaiting::ReadyForQuery) => {
                self.identity.cancel_key = Some(
                    CancelKey::from_bytes(frame.body)
                        .ok_or(ServerLoginError::Malformed("BackendKeyData"))?,
                );
            }
            (b'Z', Awaiting::ReadyForQuery) => {
                let &[status] = frame.body else {
                    return Err(ServerLoginError::Malformed("ReadyForQuery"));
                };
                return match TransactionStatus::from_byte(status) {
                    Some(TransactionStatus::Idle) => Ok(ServerProgress::Done(self.identity)),
                    _ => Err(ServerLoginError::Malformed("ReadyForQuery")),
                };
            }
            (tag, _) => return Err(ServerLoginError::UnexpectedMessage(tag)),
        }
        Ok(ServerProgress::Continue(self))
    }

    fn on_authentication(
        mut self,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Self, ServerLoginError> {
        let malformed = ServerLoginError::Malformed("Authentication");
        let Some((kind, rest)) = body.split_first_chunk() else {
            return Err(malformed);
        };
        self.awaiting = match (i32::from_be_bytes(*kind), self.awaiting) {
            // AuthenticationOk
            (0, Awaiting::Authentication | Awaiting::AuthenticationOk) => {
                if self.credentials.must_bind() && self.identity.scram_keys.is_none() {
                    return Err(ServerLoginError::NotBound);
                }
                Awaiting::ReadyForQuery
            }
            (0, _) => return Err(ServerLoginError::SkippedScram),
            // None of these can be bound: the password is not shown to a server that must be.
            (3 | 5, Awaiting::Authentication) if self.credentials.must_bind() => {
                return Err(ServerLoginError::NotBound);
            }
            // AuthenticationCleartextPassword
            (3, Awaiting::Authentication) => {
                encode::password_message(out, self.credentials.clear_password()?);
                Awaiting::AuthenticationOk
            }
            // AuthenticationMD5Password
            (5, Awaiting::Authentication) => {
                let salt = rest.try_into().map_err(|_| malformed)?;
                encode::password_message(out, &self.credentials.md5_answer(salt)?);
                Awaiting::AuthenticationOk
            }
            // AuthenticationSASL
            (10, Awaiting::Authentication) => {
                let (mechanism, binding) = self.credentials.pick(offered(rest)?)?;
                self.credentials.check_scram()?;
                let (scram, client_first) = ScramClient::begin(self.credentials.nonce, binding);
                encode::sasl_initial_response(out, mechanism, client_first.as_bytes());
                Awaiting::SaslContinue(scram)
            }
            // AuthenticationSASLContinue
            (11, Awaiting::SaslContinue(scram)) => {
                let (scram, client_final) = scram.on_server_first(
                    checked_sasl(rest)?,
                    self.credentials.scram_password(),
                    self.credentials.scram_keys.as_ref(),
                )?;
                encode::sasl_response(out, client_final.as_bytes());
                Awaiting::SaslFinal(scram)
            }
            // AuthenticationSASLFinal
            (12, Awaiting::SaslFinal(scram)) => {
                self.identity.scram_keys = Some(scram.on_server_final(checked_sasl(rest)?)?);
                Awaiting::AuthenticationOk
            }
            (kind, Awaiting::Authentication) if !matches!(kind, 8 | 11 | 12) => {
                return Err(ServerLoginError::UnsupportedAuthentication(
                    authentication_name(kind),
                ));
            }
            _ => return Err(ServerLoginError::UnexpectedMessage(b'R')),
        };
        Ok(self)
    }

    /// NegotiateProtocolVersion: the server speaks an older minor version than we asked for.
    fn on_negotiation(&mut self, body: &[u8]) -> Result<(), ServerLoginError> {
        let malformed = ServerLoginError::Malformed("NegotiateProtocolVersion");
        let Some((code, rest)) = body.split_first_chunk() else {
            return Err(malformed);
        };
        let version = ProtocolVersion::from_code(u32::from_be_bytes(*code));
        let asked = self.identity.version;
        if version.major != asked.major || version > asked {
            return Err(ServerLoginError::UnsupportedProtocol(version));
        }
        // We ask for no options, so there are none to be refused.
        if rest != [0; 4] {
            return Err(malformed);
        }
        self.identity.version = version;
        Ok(())
    }
}

impl Credentials {
    fn must_bind(&self) -> bool {
        matches!(self.channel, ServerChannel::Required(_))
    }

    /// The best of the mechanisms that are offered, and what it is bound to.
    fn pick(
        &self,
        offered: Offered<'_>,
    ) -> Result<(&'static str, ClientBinding<'_>), ServerLoginError> {
        match &self.channel {
            ServerChannel::EndPoint(hash) | ServerChannel::Required(Some(hash))
                if offered.scram_plus =>
            {
                Ok((MECHANISM_PLUS, ClientBinding::EndPoint(hash)))
            }
            ServerChannel::Required(_) => Err(ServerLoginError::NotBound),
            _ if !offered.scram => Err(ServerLoginError::UnsupportedAuthentication(
                format!("SASL ({})", offered.others.join(", ")).into(),
            )),
            ServerChannel::EndPoint(_) => Ok((MECHANISM, ClientBinding::NotOffered)),
            ServerChannel::Unbound => Ok((MECHANISM, ClientBinding::Impossible)),
        }
    }

    fn clear_password(&self) -> Result<&[u8], ServerLoginError> {
        match &self.password {
            Some(Verifier::Plain(password)) => Ok(password.expose().as_bytes()),
            Some(_) => Err(ServerLoginError::WrongKindOfPassword("password")),
            None => Err(ServerLoginError::NoPassword("password")),
        }
    }

    fn md5_answer(&self, salt: [u8; 4]) -> Result<Vec<u8>, ServerLoginError> {
        match &self.password {
            Some(Verifier::Plain(password)) => {
                Ok(Md5Hash::of(&self.user, password.expose().as_bytes()).answer(salt))
            }
            Some(Verifier::Md5(hash)) => Ok(hash.answer(salt)),
            Some(Verifier::Scram(_)) => Err(ServerLoginError::WrongKindOfPassword("MD5")),
            None => Err(ServerLoginError::NoPassword("MD5")),
        }
    }

    fn scram_password(&self) -> Option<&[u8]> {
        match &self.password {
            Some(Verifier::Plain(password)) => Some(password.expose().as_bytes()),
            _ => None,
        }
    }

    /// Whether there is anything to begin SCRAM with.
    fn check_scram(&self) -> Result<(), ServerLoginError> {
        match &self.password {
            Some(Verifier::Plain(_)) => Ok(()),
            _ if self.scram_keys.is_some() => Ok(()),
            Some(_) => Err(ServerLoginError::WrongKindOfPassword(MECHANISM)),
            None => Err(ServerLoginError::NoPassword(MECHANISM)),
        }
    }
}

impl ServerIdentity {
    fn set_parameter(&mut self, body: &[u8]) -> Result<(), ServerLoginError> {
        let Some((name, value)) = parameter(body) else {
            return Err(ServerLoginError::Malformed("ParameterStatus"));
        };
        if let Some((_, known)) = self
            .parameters
            .iter_mut()
            .find(|(known, _)| **known == *name)
        {
            *known = value.into();
        } else if self.parameters.len() < MAX_REPORTED_PARAMETERS {
            self.parameters.push((name.into(), value.into()));
        } else {
            return Err(ServerLoginError::TooManyParameters);
        }
        Ok(())
    }
}

fn parameter(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = split_cstr(body)?;
    let (value, rest) = split_cstr(rest)?;
    rest.is_empty().then_some((name, value))
}

/// The mechanisms that a server offers.
#[derive(Default)]
struct Offered<'a> {
    scram: bool,
    scram_plus: bool,
    others: Vec<std::borrow::Cow<'a, str>>,
}

fn offered(mut list: &[u8]) -> Result<Offered<'_>, ServerLoginError> {
    let mut offered = Offered::default();
    loop {
        let (mechanism, rest) =
            split_cstr(list).ok_or(ServerLoginError::Malformed("AuthenticationSASL"))?;
        match mechanism {
            b"" => return Ok(offered),
            name if name == MECHANISM.as_bytes() => offered.scram = true,
            name => {
                offered.scram_plus |= name == MECHANISM_PLUS.as_bytes();
                offered.others.push(String::from_utf8_lossy(name));
            }
        }
        list = rest;
    }
}

fn checked_sasl(message: &[u8]) -> Result<&[u8], ServerLoginError> {
    if message.len() > MAX_SASL_MESSAGE_LENGTH {
        return Err(ServerLoginError::TooLong);
    }
    Ok(message)
}

fn authentication_name(kind: i32) -> Box<str> {
    match kind {
        2 => "Kerberos V5".into(),
        4 => "crypt".into(),
        6 => "SCM credential".into(),
        7 => "GSSAPI".into(),
        9 => "SSPI".into(),
        other => format!("unknown ({other})").into(),
    }
}
