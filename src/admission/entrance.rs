//! The connection of a client that is being admitted: what it says, and what it is told.

use std::io;
use std::time::Instant;

use bytes::{Buf, BytesMut};
use nix::unistd::{Uid, User};
use zeroize::{Zeroize as _, Zeroizing};

use super::AdmissionError;
use super::key_makers::KeyMakers;
use crate::net::certificate::Certificate;
use crate::net::socket::{Socket, Stream};
use crate::net::tls::{ALPN, ClientTls};
use crate::net::tls_session::TlsSession;
use crate::protocol::frame::{Frame, FrameHeader};
use crate::session::client_login::{
    ClientLogin, ClientLoginRequest, LoggedIn, LoginError, MAX_LOGIN_MESSAGE_LENGTH, Progress,
};
use crate::session::greeting::{Encryption, Greeted, Greeting, GreetingError, GreetingStep};
use crate::telemetry::login_clock::{LoginClock, LoginPhase};

/// A connection that is being admitted.
pub(super) struct Entrance {
    pub(super) socket: Socket,
    /// Read, but not yet used.
    pub(super) input: BytesMut,
    /// To be sent.
    pub(super) out: Vec<u8>,
    /// Times the login.
    pub(super) login: LoginClock,
}

/// The time, for the login's.
pub(super) fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Entrance {
    pub(super) fn new(socket: Socket, login: LoginClock) -> Self {
        Self {
            socket,
            input: BytesMut::with_capacity(512),
            out: Vec::new(),
            login,
        }
    }

    /// Finds out what the client wants, over TLS if it asks for that.
    pub(super) async fn greet(&mut self, tls: &ClientTls) -> Result<Greeted, AdmissionError> {
        let is_offered = tls.is_offered() && matches!(self.socket.stream(), Stream::Tcp(_));
        let mut greeting = Greeting::new(match is_offered {
            true => Encryption::Offered,
            false => Encryption::Refused,
        });
        loop {
            let mut rest = &*self.input;
            let step = greeting.advance(&mut rest)?;
            let used = self.input.len() - rest.len();
            self.input.advance(used);
            match step {
                GreetingStep::NeedMore => self.read().await?,
                GreetingStep::Reply(reply) => {
                    self.socket.write_all(&[reply]).await?;
                    if reply == Greeting::TLS_ACCEPTED {
                        self.encrypt(tls).await?;
                    }
                }
                GreetingStep::DirectTls => {
                    self.encrypt(tls).await?;
                    if self.socket.tls().and_then(TlsSession::alpn) != Some(ALPN) {
                        return Err(GreetingError::NoAlpn.into());
                    }
                }
                GreetingStep::Done(greeted) => return Ok(greeted),
            }
        }
    }

    /// What has been read already is the beginning of the handshake.
    async fn encrypt(&mut self, tls: &ClientTls) -> Result<(), AdmissionError> {
        self.login.enter(LoginPhase::Tls, clock());
        let session = tls
            .session()
            .ok_or_else(|| AdmissionError::Tls(io::ErrorKind::Unsupported.into()))?;
        let ahead = self.input.split();
        self.socket
            .start_tls(session, &ahead)
            .map_err(AdmissionError::Tls)?;
        self.socket.handshake().await.map_err(AdmissionError::Tls)?;
        self.login.enter(LoginPhase::Startup, clock());
        Ok(())
    }

    /// AuthenticationOk stands in `out` at the end. `may_go_on` is asked before each message of the client is judged.
    pub(super) async fn log_in(
        &mut self,
        request: ClientLoginRequest<'_>,
        may_go_on: impl Fn() -> bool,
        key_makers: &KeyMakers,
    ) -> Result<LoggedIn, AdmissionError> {
        let mut progress = ClientLogin::begin(request, &mut self.out);
        loop {
            let login = match progress {
                Progress::LoggedIn(client) => return Ok(client),
                Progress::Continue(login) => login,
            };
            self.flush().await?;
            let len = loop {
                match frame_len(&self.input)? {
                    Some(len) if self.input.len() >= len => break len,
                    _ => self.read().await?,
                }
            };
            if !may_go_on() {
                self.forget(len);
                return Err(AdmissionError::BackedOff);
            }
            let message = self.input.get_mut(..len).unwrap_or_default();
            let (&mut tag, body) = message.split_first_mut().expect("at least a header");
            let body = body.get_mut(FrameHeader::LEN - 1..).unwrap_or_default();
            if !login.takes_time() {
                let answer = login.on_message(Frame { tag, body }, &mut self.out);
                self.forget(len);
                progress = answer?;
                continue;
            }
            let body = Zeroizing::new(body.to_vec());
            self.forget(len);
            let judge = move || {
                let mut out = Vec::new();
                let answer = login.on_message(Frame { tag, body: &body }, &mut out);
                answer.map(|progress| (progress, out))
            };
            let judged = key_makers.run(judge).await;
            // Others have been judged meanwhile.
            if !may_go_on() {
                return Err(AdmissionError::BackedOff);
            }
            let lost = || AdmissionError::Lost(io::ErrorKind::Other.into());
            let (next, out) = judged.ok_or_else(lost)??;
            self.out.extend_from_slice(&out);
            progress = next;
        }
    }

    /// A message is done with. It may have been a password.
    fn forget(&mut self, len: usize) {
        self.input.get_mut(..len).unwrap_or_default().zeroize();
        self.input.advance(len);
    }

    /// The names in the client's certificate, if it has shown one. It was verified in the handshake.
    pub(super) fn certificate_names(&self) -> Option<Vec<Box<str>>> {
        let der = self.socket.tls()?.peer_certificate()?;
        Some(Certificate::parse(der)?.names())
    }

    /// The name of the system's user at the other end of a unix socket.
    pub(super) fn system_user(&self) -> Option<Box<str>> {
        let uid = self.socket.stream().peer_user()?;
        let user = User::from_uid(Uid::from_raw(uid)).ok()??;
        Some(user.name.into())
    }

    /// Whether it comes from the system user that this process runs as.
    pub(super) fn is_of_this_user(&self) -> bool {
        self.socket.stream().peer_user() == Some(rustix::process::getuid().as_raw())
    }

    async fn read(&mut self) -> Result<(), AdmissionError> {
        match self.socket.read_buf(&mut self.input).await? {
            0 => Err(AdmissionError::Lost(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    pub(super) async fn flush(&mut self) -> Result<(), AdmissionError> {
        self.socket.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }
}

/// How long the first message in `input` is, once that can be told. Refused before anything is kept for it.
fn frame_len(input: &[u8]) -> Result<Option<usize>, LoginError> {
    let Some(&header) = input.first_chunk() else {
        return Ok(None);
    };
    match FrameHeader::parse(header) {
        Some(header) if header.body_len <= MAX_LOGIN_MESSAGE_LENGTH => {
            Ok(Some(FrameHeader::LEN + header.body_len))
        }
        _ => Err(LoginError::TooLong),
    }
}
