//! Asks servers about users that are not configured: PgBouncer's auth_query.
//!
//! It is asked on a connection of its own that no client ever uses: whatever clients set, search_path above all, is not there
//! (CVE-2025-12819). The user's name goes as a parameter.

mod reply;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use thiserror::Error;
use zeroize::Zeroize as _;

use crate::auth::credentials::Credentials;
use crate::auth::held::{Held, KeyMaking};
use crate::auth::scram::Nonce;
use crate::auth::verifier::{Likeness, Likenesses, Verifier};
use crate::config::Tcp;
use crate::config::secret::Secret;
use crate::net::socket::Socket;
use crate::net::timer;
use crate::protocol::encode;
use crate::server::dial::open_any;
use crate::server::{ConnectError, ServerStartup, ServerTarget, log_in_at, take_frame};
use crate::session::server_login::ServerRefusal;
use crate::telemetry::labels::AuthQueryOutcome;
use crate::telemetry::metrics::ProcessMetrics;

use self::reply::{FoundUser, Reply};

/// What is asked, and where.
#[derive(Clone, Debug)]
pub struct Inquiry {
    /// The configuration's name of the database that it is asked in.
    pub place: Box<str>,
    /// The server, and who asks there.
    pub target: ServerTarget,
    /// The query: a name and a password for `$1`.
    pub query: Box<str>,
    /// How its connection is kept alive.
    pub tcp: Tcp,
    /// How long connecting, and the answer, may take.
    pub timeout: Duration,
    /// How many answers are kept.
    pub cache_size: usize,
    /// How long they are.
    pub cache_ttl: Duration,
    /// How keys of passwords are made.
    pub making: KeyMaking,
}

/// What a server says about a name. `Debug` shows nothing of a password.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Whether there is such a user.
    pub is_known: bool,
    /// What it keeps of the password, as it is; `None`: nobody can log in by one.
    pub password: Option<Secret>,
    /// What the password is checked by: something in either case.
    pub held: Arc<Held>,
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
pub struct Inquiries {
    lines: Mutex<HashMap<Box<str>, Arc<Line>>>,
    answers: Mutex<Answers>,
    /// What the users look like that were found.
    likenesses: Mutex<Likenesses>,
    process: Arc<ProcessMetrics>,
}

/// A connection that questions take turns on; `None` until the first, and after a while without.
type Line = tokio::sync::Mutex<Option<Open>>;

struct Open {
    socket: Socket,
    target: ServerTarget,
    used_at: Instant,
    _counted: CountedConnection,
}

type Key = (Box<str>, Box<str>);

#[derive(Default)]
struct Answers {
    /// The user in a place; when it was found out.
    known: HashMap<Key, (Answer, Instant)>,
    /// Longest known first.
    order: VecDeque<Key>,
}

/// How long a connection is kept without a question.
const IDLE: Duration = Duration::from_secs(30);

/// To how many places a connection is kept.
const MAX_LINES: usize = 64;

impl Inquiries {
    /// Nothing has been asked yet.
    pub fn new(process: Arc<ProcessMetrics>) -> Self {
        Self {
            lines: Mutex::default(),
            answers: Mutex::default(),
            likenesses: Mutex::default(),
            process,
        }
    }

    /// What the server says about this user. Who is none looks like those that were found, `otherwise` where none was.
    pub async fn ask(
        self: &Arc<Self>,
        inquiry: &Inquiry,
        user: &str,
        otherwise: Likeness,
        clock: fn() -> Instant,
    ) -> Result<Answer, InquiryError> {
        let place = format!(
            "{:?}/{}/{}/{}",
            inquiry.target.in_words(),
            inquiry.target.database,
            inquiry.target.user,
            inquiry.query
        );
        let key = (Box::from(place), Box::from(user));
        let queries = &self.process.auth_queries;
        if let Some(answer) = self.answers().get(&key, inquiry.cache_ttl, clock()) {
            queries.of(AuthQueryOutcome::Cached).increase();
            return Ok(answer);
        }
        let line = self.line(&key.0);
        let asking = async {
            let kept = line.lock().await;
            // Whoever was ahead may have asked about the same name.
            if let Some(answer) = self.answers().get(&key, inquiry.cache_ttl, clock()) {
                return Ok(Found::Meanwhile(answer));
            }
            ask_on(kept, inquiry, user, &self.process, clock).await
        };
        let found = timer::timeout(2 * inquiry.timeout, asking)
            .await
            .unwrap_or(Err(InquiryError::Broken));
        if let Ok(Found::OnNewLine(_)) = found {
            self.look_after(&key.0, &line, clock);
        }
        self.let_go(&key.0, line, found.is_ok());
        let (is_known, password) = match found {
            Ok(Found::Meanwhile(answer)) => {
                queries.of(AuthQueryOutcome::Cached).increase();
                return Ok(answer);
            }
            Ok(Found::OnLine(user) | Found::OnNewLine(user)) => match user {
                Some(FoundUser { password }) => (true, password),
                None => (false, None),
            },
            Err(error) => {
                queries.of(AuthQueryOutcome::Failed).increase();
                return Err(error);
            }
        };
        queries.of(AuthQueryOutcome::found(is_known)).increase();
        let held = match &password {
            Some(password) => {
                let verifier = Verifier::parse(password);
                self.likenesses().add(Likeness::of(&verifier));
                Held::of_user(user.as_bytes(), verifier, &inquiry.making)
            }
            None => {
                let likeness = self.likeness(user, &inquiry.making).unwrap_or(otherwise);
                Held::stand_in(user.as_bytes(), likeness, &inquiry.making)
            }
        };
        let held = self.answers().held(&key, held);
        let answer = Answer {
            is_known,
            password,
            held,
        };
        let kept = self.answers().keep(key, answer.clone(), inquiry, clock());
        self.process.auth_query_answers.set(kept);
        Ok(answer)
    }

    /// What somebody of this name looks like, if users were found.
    pub fn likeness(&self, user: &str, making: &KeyMaking) -> Option<Likeness> {
        self.likenesses().of(user.as_bytes(), &making.secret)
    }

    fn likenesses(&self) -> MutexGuard<'_, Likenesses> {
        lock(&self.likenesses)
    }

    /// The connection to a place that questions take turns on.
    fn line(&self, place: &str) -> Arc<Line> {
        Arc::clone(lock(&self.lines).entry(place.into()).or_default())
    }

    /// One question less. A place that can't be asked is forgotten, and so is one beyond the limit: clients may name any number of
    /// databases, where a `*` takes them all.
    fn let_go(&self, place: &str, line: Arc<Line>, is_good: bool) {
        let mut lines = lock(&self.lines);
        drop(line);
        if is_good && lines.len() <= MAX_LINES {
            return;
        }
        let is_idle = |line: &Arc<Line>| Arc::strong_count(line) == 1;
        if lines.get(place).is_some_and(is_idle) {
            lines.remove(place);
        }
    }

    /// Closes a new connection when nothing has been asked on it for a while.
    fn look_after(self: &Arc<Self>, place: &str, line: &Arc<Line>, clock: fn() -> Instant) {
        let (line, inquiries) = (Arc::downgrade(line), Arc::downgrade(self));
        let place = Box::from(place);
        tokio::spawn(async move {
            loop {
                timer::sleep(IDLE).await;
                let Some(line) = line.upgrade() else { return };
                let mut kept = line.lock().await;
                match &*kept {
                    Some(open) if clock() < open.used_at + IDLE => continue,
                    _ => *kept = None,
                }
                drop(kept);
                if let Some(inquiries) = inquiries.upgrade() {
                    inquiries.let_go(&place, line, false);
                }
                return;
            }
        });
    }

    /// Forgets all answers: passwords may have changed.
    pub fn forget(&self) {
        *self.answers() = Answers::default();
        self.process.auth_query_answers.set(0);
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        lock(&self.answers)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Answers {
    fn get(&self, key: &Key, ttl: Duration, now: Instant) -> Option<Answer> {
        let (answer, at) = self.known.get(key)?;
        (now.saturating_duration_since(*at) < ttl).then(|| answer.clone())
    }

    /// What was made of the same before, however long ago: keys are made once, also those of who is none.
    fn held(&self, key: &Key, held: Held) -> Arc<Held> {
        let known = self.known.get(key).map(|(answer, _)| &answer.held);
        let same = known.filter(|known| known.is_made_as(&held));
        same.map_or_else(|| Arc::new(held), Arc::clone)
    }

    /// How many there are then.
    fn keep(&mut self, key: Key, answer: Answer, inquiry: &Inquiry, now: Instant) -> u64 {
        if inquiry.cache_ttl.is_zero() {
            return 0;
        }
        if self.known.insert(key.clone(), (answer, now)).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > inquiry.cache_size {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
        self.order.len() as u64
    }
}

/// What came of a question.
enum Found {
    /// Somebody else has asked it meanwhile.
    Meanwhile(Answer),
    /// The user, if there is one.
    OnLine(Option<FoundUser>),
    /// The same, on a connection that is to be looked after.
    OnNewLine(Option<FoundUser>),
}

/// Asks. A connection that was kept may have broken meanwhile: then a new one is asked.
async fn ask_on(
    mut kept: tokio::sync::MutexGuard<'_, Option<Open>>,
    inquiry: &Inquiry,
    user: &str,
    process: &Arc<ProcessMetrics>,
    clock: fn() -> Instant,
) -> Result<Found, InquiryError> {
    let usable = kept
        .take()
        .filter(|open| open.target == inquiry.target && clock() < open.used_at + IDLE);
    if let Some(mut open) = usable
        && let Ok(found) = ask_at(&mut open.socket, &inquiry.query, user).await
    {
        open.used_at = clock();
        *kept = Some(open);
        return Ok(Found::OnLine(found));
    }
    let credentials = Credentials {
        password: inquiry.target.password.clone(),
        scram_keys: None,
    };
    let startup = ServerStartup::pooled(&[]);
    let connecting = async {
        let opened = open_any(&inquiry.target.addresses, &inquiry.tcp).await?;
        log_in_at(
            &inquiry.target,
            opened,
            &inquiry.tcp,
            credentials,
            nonce,
            startup,
        )
        .await
    };
    let logged_in = timer::timeout(inquiry.timeout, connecting)
        .await
        .unwrap_or(Err(ConnectError::TimedOut))
        .inspect_err(|error| log_failure(inquiry, error))?;
    let mut open = Open {
        socket: logged_in.socket,
        target: inquiry.target.clone(),
        used_at: clock(),
        _counted: CountedConnection::new(process),
    };
    let found = ask_at(&mut open.socket, &inquiry.query, user).await?;
    open.used_at = clock();
    *kept = Some(open);
    Ok(Found::OnNewLine(found))
}

/// An open connection, in the metrics.
struct CountedConnection(Arc<ProcessMetrics>);

impl CountedConnection {
    fn new(process: &Arc<ProcessMetrics>) -> Self {
        process.auth_query_connections.increase();
        Self(Arc::clone(process))
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.auth_query_connections.decrease();
    }
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
    let mut reply = Reply::default();
    loop {
        while let Some((frame, len)) = take_frame(&input).map_err(|_| InquiryError::Malformed)? {
            let is_done = reply.on_message(frame);
            // It may have been a password.
            input.get_mut(..len).unwrap_or_default().zeroize();
            input.advance(len);
            if is_done {
                return reply.found;
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
    use crate::auth::held::tests::making;

    #[expect(clippy::disallowed_methods, reason = "std has no other moment")]
    fn now() -> Instant {
        Instant::now()
    }

    fn answer(held: &Arc<Held>) -> Answer {
        Answer {
            is_known: false,
            password: None,
            held: Arc::clone(held),
        }
    }

    #[test]
    fn keys_are_made_once_for_users_and_for_those_who_are_none() {
        let key: Key = ("place".into(), "ann".into());
        let user = || {
            let verifier = Verifier::parse(&Secret::new("sesame"));
            Held::of_user(b"ann", verifier, &making(77))
        };
        let stand_in = || Held::stand_in(b"ann", Likeness::Plain, &making(77));
        for made in [user, stand_in] {
            let mut answers = Answers::default();
            let first = answers.held(&key, made());
            let entry = (answer(&first), now());
            answers.known.insert(key.clone(), entry);
            assert!(Arc::ptr_eq(&answers.held(&key, made()), &first));
        }
        let mut answers = Answers::default();
        let entry = (answer(&Arc::new(stand_in())), now());
        answers.known.insert(key.clone(), entry);
        assert!(answers.held(&key, user()).is_made_as(&user()));
    }
}
