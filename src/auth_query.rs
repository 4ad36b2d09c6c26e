//! Asks servers about users that are not configured: PgBouncer's auth_query.
//!
//! It is asked on a connection of its own that no client ever uses: whatever clients set, search_path above all, is not there
//! (CVE-2025-12819). The user's name goes as a parameter.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use thiserror::Error;
use zeroize::Zeroize as _;

use crate::auth::credentials::Credentials;
use crate::auth::scram::Nonce;
use crate::auth::verifier::{Likeness, Verifier};
use crate::config::Tcp;
use crate::config::secret::Secret;
use crate::net::socket::Socket;
use crate::net::timer;
use crate::protocol::encode;
use crate::protocol::frame::Frame;
use crate::server::dial::open_any;
use crate::server::{ConnectError, ServerStartup, ServerTarget, log_in_at, take_frame};
use crate::session::server_login::ServerRefusal;

/// What is asked, and where.
#[derive(Clone, Debug)]
pub struct Inquiry {
    /// The configuration's name of the database that it is asked in.
    pub place: Box<str>,
    /// The server, and who asks there.
    pub target: ServerTarget,
    /// The query: a name and a password for `$1`.
    pub query: Box<str>,
    /// How long connecting, and the answer, may take.
    pub timeout: Duration,
    /// How many answers are kept.
    pub cache_size: usize,
    /// How long they are.
    pub cache_ttl: Duration,
}

/// What a server holds of a user. `Debug` shows nothing of it.
#[derive(Clone, Debug)]
pub struct FoundUser {
    /// What it keeps of the password, as it is; `None`: nobody can log in by one.
    pub password: Option<Secret>,
    /// The same, as it is checked.
    pub verifier: Option<Verifier>,
}

/// Why nothing could be found out.
#[derive(Debug, Error)]
pub enum InquiryError {
    /// There is no such database to ask in. The text is PgBouncer's.
    #[error("authentication database \"{0}\" is not configured")]
    Unconfigured(Box<str>),
    /// Nobody new may use the database to ask in. The text is PgBouncer's.
    #[error("authentication database \"{0}\" is disabled")]
    Disabled(Box<str>),
    /// The console is no database to ask in. The text is PgBouncer's.
    #[error("cannot use the reserved \"{0}\" database as an auth_dbname")]
    Reserved(Box<str>),
    /// The server can't be asked.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// The connection broke, or the server did not answer in time.
    #[error("the connection broke, or took too long")]
    Broken,
    /// The server's own words.
    #[error("{0}")]
    Refused(ServerRefusal),
    /// The query gives something else than a name and a password.
    #[error("expected 2 columns from auth_query, not {0}")]
    Columns(usize),
    /// The answer is none.
    #[error("auth_query was answered in a way that is not understood")]
    Malformed,
}

/// Asks about users, and keeps the answers for a while.
#[derive(Default)]
pub struct Inquiries {
    connections: Mutex<HashMap<Box<str>, Arc<Line>>>,
    answers: Mutex<Answers>,
    likeness: Mutex<Option<Likeness>>,
}

/// A connection that questions take turns on; `None` until the first, and after a while without.
type Line = tokio::sync::Mutex<Option<Open>>;

struct Open {
    socket: Socket,
    target: ServerTarget,
    used_at: Instant,
}

type Key = (Box<str>, Box<str>);

#[derive(Default)]
struct Answers {
    /// The user in a place; when it was found out.
    known: HashMap<Key, (Option<FoundUser>, Instant)>,
    /// Longest known first.
    order: VecDeque<Key>,
}

/// How long a connection is kept without a question.
const IDLE: Duration = Duration::from_secs(30);

impl Inquiries {
    /// What the server holds of this user; `None` if there is no such user.
    pub async fn ask(
        self: &Arc<Self>,
        inquiry: &Inquiry,
        user: &str,
        clock: fn() -> Instant,
    ) -> Result<Option<FoundUser>, InquiryError> {
        let place = format!(
            "{:?}/{}/{}/{}",
            inquiry.target.in_words(),
            inquiry.target.database,
            inquiry.target.user,
            inquiry.query
        );
        let key = (Box::from(place), Box::from(user));
        if let Some(found) = self.answers().get(&key, inquiry.cache_ttl, clock()) {
            return Ok(found);
        }
        let line = Arc::clone(
            self.connections
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(key.0.clone())
                .or_default(),
        );
        let asking = ask_on(&line, inquiry, user, clock);
        let found = timer::timeout(2 * inquiry.timeout, asking)
            .await
            .unwrap_or(Err(InquiryError::Broken))?;
        if let Some(verifier) = found.as_ref().and_then(|found| found.verifier.as_ref()) {
            let mut likeness = self.likeness.lock().unwrap_or_else(PoisonError::into_inner);
            *likeness = Some(Likeness::of(verifier));
        }
        self.answers().keep(key, found.clone(), inquiry, clock());
        Ok(found)
    }

    /// What a user looks like that was found: so do those that were not.
    pub fn likeness(&self) -> Option<Likeness> {
        *self.likeness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all answers: passwords may have changed.
    pub fn forget(&self) {
        *self.answers() = Answers::default();
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers {
    fn get(&self, key: &Key, ttl: Duration, now: Instant) -> Option<Option<FoundUser>> {
        let (found, at) = self.known.get(key)?;
        (now.saturating_duration_since(*at) < ttl).then(|| found.clone())
    }

    fn keep(&mut self, key: Key, found: Option<FoundUser>, inquiry: &Inquiry, now: Instant) {
        if inquiry.cache_ttl.is_zero() {
            return;
        }
        if self.known.insert(key.clone(), (found, now)).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > inquiry.cache_size {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

/// Waits for its turn, and asks. A connection that was kept may have broken meanwhile: then a new one is asked.
async fn ask_on(
    line: &Arc<Line>,
    inquiry: &Inquiry,
    user: &str,
    clock: fn() -> Instant,
) -> Result<Option<FoundUser>, InquiryError> {
    let mut kept = line.lock().await;
    let usable = kept
        .take()
        .filter(|open| open.target == inquiry.target && clock() < open.used_at + IDLE);
    if let Some(mut open) = usable
        && let Ok(found) = ask_at(&mut open.socket, &inquiry.query, user).await
    {
        open.used_at = clock();
        *kept = Some(open);
        return Ok(found);
    }
    let credentials = Credentials {
        password: inquiry.target.password.clone(),
        scram_keys: None,
    };
    let startup = ServerStartup::pooled(&[]);
    let connecting = async {
        let tcp = Tcp::default();
        let opened = open_any(&inquiry.target.addresses, &tcp).await?;
        log_in_at(&inquiry.target, opened, &tcp, credentials, nonce, startup).await
    };
    let logged_in = timer::timeout(inquiry.timeout, connecting)
        .await
        .unwrap_or(Err(ConnectError::TimedOut))
        .inspect_err(|error| log_failure(inquiry, error))?;
    let mut socket = logged_in.socket;
    let found = ask_at(&mut socket, &inquiry.query, user).await?;
    *kept = Some(Open {
        socket,
        target: inquiry.target.clone(),
        used_at: clock(),
    });
    drop(kept);
    let line = Arc::downgrade(line);
    tokio::spawn(async move {
        loop {
            timer::sleep(IDLE).await;
            let Some(line) = line.upgrade() else { return };
            let mut kept = line.lock().await;
            match &*kept {
                Some(open) if clock() < open.used_at + IDLE => {}
                _ => {
                    *kept = None;
                    return;
                }
            }
        }
    });
    Ok(found)
}

async fn ask_at(
    socket: &mut Socket,
    query: &str,
    user: &str,
) -> Result<Option<FoundUser>, InquiryError> {
    let mut out = Vec::new();
    encode::parse(&mut out, b"", query.as_bytes(), &[]);
    encode::bind_and_execute(&mut out, user.as_bytes());
    encode::sync(&mut out);
    let broken = |_| InquiryError::Broken;
    socket.write_all(&out).await.map_err(broken)?;
    let mut input = BytesMut::new();
    let mut answer = Answer::default();
    loop {
        while let Some((frame, len)) = take_frame(&input).map_err(|_| InquiryError::Malformed)? {
            let is_done = answer.on_message(frame);
            // It may have been a password.
            input.get_mut(..len).unwrap_or_default().zeroize();
            input.advance(len);
            if is_done {
                return answer.found;
            }
        }
        if socket.read_buf(&mut input).await.map_err(broken)? == 0 {
            return Err(InquiryError::Broken);
        }
    }
}

/// In PgBouncer's words, as when a pool's server can't be logged in to.
fn log_failure(inquiry: &Inquiry, error: &ConnectError) {
    let target = &inquiry.target;
    if let Some((severity, message)) = error.refusal() {
        tracing::warn!(
            database = &*target.database,
            user = &*target.user,
            server = %target.in_words(),
            "server login failed: {severity} {message}",
        );
    }
    tracing::info!(
        database = &*target.database,
        user = &*target.user,
        server = %target.in_words(),
        %error,
        "closing because: {} (age=0s)",
        error.reason(),
    );
}

/// What the server has said so far.
struct Answer {
    found: Result<Option<FoundUser>, InquiryError>,
}

impl Default for Answer {
    fn default() -> Self {
        Self { found: Ok(None) }
    }
}

impl Answer {
    /// Whether that was all.
    fn on_message(&mut self, frame: Frame<'_>) -> bool {
        match (frame.tag, &self.found) {
            (b'Z', _) => return true,
            (b'E', _) => {
                self.found = match ServerRefusal::parse(frame.body) {
                    Ok(refusal) => Err(InquiryError::Refused(refusal)),
                    Err(_) => Err(InquiryError::Malformed),
                };
            }
            // The first row counts.
            (b'D', Ok(None)) => self.found = row(frame.body).map(Some),
            _ => {}
        }
        false
    }
}

/// DataRow: a name, which says only that there is such a user, and a password.
fn row(body: &[u8]) -> Result<FoundUser, InquiryError> {
    let (count, rest) = body.split_first_chunk().ok_or(InquiryError::Malformed)?;
    match u16::from_be_bytes(*count) {
        2 => {}
        count => return Err(InquiryError::Columns(count.into())),
    }
    let (_, rest) = column(rest)?;
    let (password, _) = column(rest)?;
    let password = match password {
        None => None,
        Some(text) => {
            let text = str::from_utf8(text).map_err(|_| InquiryError::Malformed)?;
            Some(Secret::new(text)).filter(|text| !text.expose().is_empty())
        }
    };
    Ok(FoundUser {
        verifier: password.as_ref().map(Verifier::parse),
        password,
    })
}

fn column(body: &[u8]) -> Result<(Option<&[u8]>, &[u8]), InquiryError> {
    let (length, rest) = body.split_first_chunk().ok_or(InquiryError::Malformed)?;
    match i32::from_be_bytes(*length) {
        -1 => Ok((None, rest)),
        length => usize::try_from(length)
            .ok()
            .and_then(|length| rest.split_at_checked(length))
            .map(|(value, rest)| (Some(value), rest))
            .ok_or(InquiryError::Malformed),
    }
}

fn nonce() -> Nonce {
    let mut nonce = Nonce::default();
    getrandom::fill(&mut nonce).expect("the system has random bytes");
    nonce
}

impl fmt::Debug for Inquiries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inquiries").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_row(columns: &[Option<&[u8]>]) -> Vec<u8> {
        let mut row = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
        for column in columns {
            let length = column.map_or(-1, |column| i32::try_from(column.len()).unwrap());
            row.extend_from_slice(&length.to_be_bytes());
            row.extend_from_slice(column.unwrap_or_default());
        }
        row
    }

    #[test]
    fn a_row_is_a_name_and_a_password() {
        let found = row(&data_row(&[Some(b"ann"), Some(b"secret")])).unwrap();
        assert_eq!(found.password, Some(Secret::new("secret")));
        assert!(matches!(found.verifier, Some(Verifier::Plain(_))));
        let found = row(&data_row(&[Some(b"ann"), None])).unwrap();
        assert!(found.password.is_none() && found.verifier.is_none());
    }

    #[test]
    fn anything_else_is_an_error() {
        let error = |body: &[u8]| row(body).unwrap_err().to_string();
        assert_eq!(
            error(&data_row(&[Some(b"ann")])),
            "expected 2 columns from auth_query, not 1"
        );
        for body in [&b""[..], b"\0\x02\0\0\0\x09ann", b"\0\x02\xff\xff\xff\xfe"] {
            assert!(matches!(row(body), Err(InquiryError::Malformed)));
        }
    }
}
