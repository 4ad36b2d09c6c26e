//! One pool of a worker, alive: its servers, its queue, and the tasks that connect, reset and watch servers.

pub mod census;
mod checking;
mod connecting;
mod control;
mod dedicated;
pub mod neighbours;
mod pin;
mod sharing;
mod terms;
mod ticket;
mod welcome;

use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use self::neighbours::Neighbours;
use crate::auth::credentials::Credentials;
use crate::auth::scram::CachedKeys;
use crate::auth::verifier::Verifier;
use crate::pool::budget::Account;
use crate::pool::{Checkout, Pool, Step, Wanted};
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::protocol::startup::Parameter;
use crate::schema_changes::SchemaWatch;
use crate::server::{PasswordOf, ServerCard, ServerConnection};
use crate::session::parameters::ParameterSet;
use crate::session::query_record::QueueCause;
use crate::session::statements::Definitions;
use crate::spread::Share;
use crate::telemetry::labels::{Limit, ServerClose, ServerState};
use crate::telemetry::metrics::PoolMetrics;

pub use self::pin::Pin;
pub use self::terms::{Fraction, Terms};
pub use self::ticket::{Refusal, Ticket};
pub use self::welcome::Welcome;

/// The pool of one database and user on one worker.
#[derive(Debug)]
pub struct ServerPool {
    /// The database that its clients ask for, and the user that its servers are counted for.
    pub account: Arc<Account>,
    /// What it goes by, until the next reload.
    terms: RefCell<Rc<Terms>>,
    /// What is counted.
    pub metrics: Arc<PoolMetrics>,
    /// The prepared statements of its clients.
    definitions: RefCell<Definitions>,
    /// What they are made of may change.
    pub schema: SchemaWatch,
    neighbours: Rc<Neighbours>,
    /// Its other parts, on other workers.
    share: Option<Share>,
    /// Its servers, wherever they are.
    servers: RefCell<Vec<Weak<ServerCard>>>,
    pool: RefCell<Pool<Box<ServerConnection>, Rc<Ticket>>>,
    /// Clients that are logged in.
    clients: Cell<usize>,
    /// Whether the configuration has no such database any more.
    is_removed: Cell<bool>,
    /// Whether nobody who has no server gets one any more: the process ends.
    is_closing: Cell<bool>,
    /// Rises when servers that are connected already are of no use any more.
    generation: Cell<u64>,
    /// When it last did.
    renewed_at: Cell<Option<Instant>>,
    /// Servers of this generation that are connected.
    current: Cell<usize>,
    /// Told when a server was closed, or has come back.
    on_closed: Notify,
    /// The host that is connected to next.
    next_host: Cell<usize>,
    /// Why the last connection could not be made.
    login_failure: RefCell<Option<Box<str>>>,
    /// Others have what its database or user may have.
    wants_room: Cell<bool>,
    /// What the last server reported when it was logged in to.
    reported: RefCell<Vec<Parameter>>,
    /// Servers report something else by now than when they were logged in to: they are asked.
    reports_have_changed: Cell<bool>,
    /// What clients are told that log in, by what they want set.
    welcomes: RefCell<HashMap<ParameterSet, Rc<Welcome>>>,
    /// Sets that clients want, so that equal ones are one.
    parameter_sets: RefCell<Vec<Weak<ParameterSet>>>,
    /// Servers that stay with one client each.
    pinned: Cell<usize>,
    /// Keys of the last login at the server: they spare the next one its computation.
    scram_keys: RefCell<Option<CachedKeys>>,
    /// What the last client to log in has shown of its password.
    offered: RefCell<Credentials>,
    /// Wakes the task that watches idle servers.
    watcher: RefCell<Option<Waker>>,
}

/// How often limits of time are looked at, unless one ends earlier.
pub const TIME_ROUND: Duration = Duration::from_secs(1);

impl ServerPool {
    /// An empty pool, and the task that watches its idle servers. Must be called on the worker's thread.
    pub fn start(
        account: Account,
        terms: Terms,
        metrics: Arc<PoolMetrics>,
        (definitions, schema): (Definitions, SchemaWatch),
        share: Option<Share>,
        neighbours: Rc<Neighbours>,
    ) -> Rc<Self> {
        let mut servers = Pool::new(terms.limits());
        if neighbours.is_paused(&account.database) {
            servers.pause();
        }
        let pool = Rc::new(Self {
            account: Arc::new(account),
            terms: RefCell::new(Rc::new(terms)),
            metrics,
            definitions: RefCell::new(definitions),
            schema,
            neighbours,
            share,
            servers: RefCell::default(),
            pool: RefCell::new(servers),
            clients: Cell::new(0),
            is_removed: Cell::new(false),
            is_closing: Cell::new(false),
            generation: Cell::new(0),
            renewed_at: Cell::new(None),
            current: Cell::new(0),
            on_closed: Notify::new(),
            next_host: Cell::new(0),
            login_failure: RefCell::default(),
            wants_room: Cell::new(false),
            reported: RefCell::default(),
            reports_have_changed: Cell::new(false),
            welcomes: RefCell::default(),
            parameter_sets: RefCell::default(),
            pinned: Cell::new(0),
            scram_keys: RefCell::default(),
            offered: RefCell::default(),
            watcher: RefCell::default(),
        });
        pool.neighbours.add(&pool);
        tokio::task::spawn_local(watch_idle(Rc::downgrade(&pool)));
        pool
    }

    /// A client has shown what it can log in with. Where the configuration has no password of its own, the next server is
    /// logged in at by it.
    pub fn offer(&self, credentials: Credentials) {
        if self.terms.borrow().target.password_of == PasswordOf::Client && !credentials.is_empty() {
            // Keys of an earlier login may be of an earlier password.
            self.scram_keys.borrow_mut().take();
            *self.offered.borrow_mut() = credentials;
        }
    }

    /// What the next server is logged in at by.
    pub(super) fn credentials(&self, terms: &Terms) -> Credentials {
        let offered = self.offered.borrow();
        let found = self.scram_keys.borrow().clone();
        Credentials {
            password: match &terms.target.password {
                // A verifier logs nobody in.
                Some(password) if !Verifier::is_scram(password) => Some(password.clone()),
                password => offered.password.clone().or_else(|| password.clone()),
            },
            scram_keys: found.or_else(|| offered.scram_keys.clone()),
        }
    }

    /// The prepared statements of its clients, as far as they are still what their texts mean.
    pub fn definitions(&self) -> RefMut<'_, Definitions> {
        let definitions = self.definitions.borrow_mut();
        if self.schema.has_changed() {
            definitions.on_schema_changed();
        }
        definitions
    }

    /// What it goes by now.
    pub fn terms(&self) -> Rc<Terms> {
        Rc::clone(&self.terms.borrow())
    }

    /// Goes by other terms from now on. Servers that are elsewhere now, or that somebody else logs in to, are replaced.
    pub fn reload(self: &Rc<Self>, terms: Terms) {
        self.is_removed.set(false);
        let limits = terms.limits();
        let before = self.terms.replace(Rc::new(terms));
        self.pool.borrow_mut().set_limits(limits);
        if before.target != self.terms.borrow().target {
            self.scram_keys.borrow_mut().take();
            self.login_failure.take();
            self.pool.borrow_mut().forget_failure();
            self.reconnect();
        }
        self.advance((self.neighbours.clock)());
    }

    /// A client has logged in.
    pub fn on_client_came(&self) {
        self.metrics.clients.increase();
        self.clients.set(self.clients.get() + 1);
    }

    /// A client that had logged in has left.
    pub fn on_client_left(&self) {
        self.metrics.clients.decrease();
        self.clients.set(self.clients.get() - 1);
    }

    /// A client asks for a server: it gets one, or a place in the queue with the cause of its waiting.
    pub fn checkout(self: &Rc<Self>, now: Instant) -> Asked {
        if self.is_removed() {
            return Asked::Refused(Refusal::Removed);
        }
        if self.is_closing.get() {
            return Asked::Refused(Refusal::ShuttingDown);
        }
        if self.pool.borrow().is_failing() {
            self.count_elsewhere();
        }
        let ticket = || Rc::new(Ticket::default());
        let mut place = None;
        let outcome = self
            .pool
            .borrow_mut()
            .checkout(|| Rc::clone(place.insert(ticket())), now);
        match (outcome, place) {
            (Checkout::Use(mut server), _) => {
                // It may have closed in the same moment, with the watcher's turn still to come.
                let mut cx = Context::from_waker(Waker::noop());
                if server.lane.socket.may_be_read() && server.poll_idle(&mut cx).is_ready() {
                    self.discard(server, ServerClose::Lost);
                    return self.checkout(now);
                }
                self.metrics.checkouts.increase();
                self.tell_others();
                Asked::Server(server)
            }
            (Checkout::LoginFailing, _) => {
                let refusal = Refusal::LoginFailing(self.cached_login_failure());
                self.advance(now);
                Asked::Refused(refusal)
            }
            (Checkout::Wait, Some(place)) => {
                self.advance(now);
                self.ask_others();
                let cause = self.queue_cause(now);
                self.metrics.waits.of(cause).increase();
                // Only whose wait may end before the next round has to be told of.
                if self.pool.borrow().is_pressing(TIME_ROUND) {
                    self.neighbours.on_waiting.notify_one();
                }
                Asked::Wait(place, cause)
            }
            _ => {
                let limits = &self.neighbours.process.limits;
                limits.of(Limit::Waiters).increase();
                Asked::Refused(Refusal::QueueFull)
            }
        }
    }

    /// The same, waiting for it.
    pub async fn checkout_server(self: &Rc<Self>) -> Result<Box<ServerConnection>, Refusal> {
        match self.checkout((self.neighbours.clock)()) {
            Asked::Server(server) => Ok(server),
            Asked::Refused(refusal) => Err(refusal),
            Asked::Wait(ticket, _) => {
                ticket.set_login();
                // If the caller is dropped while it waits, the place in the queue is given up.
                let place = Place {
                    pool: Rc::clone(self),
                    ticket,
                };
                poll_fn(|cx| place.ticket.poll(cx)).await
            }
        }
    }

    /// A client that waits has left. What it was granted meanwhile goes back.
    pub fn give_up(self: &Rc<Self>, ticket: &Rc<Ticket>) {
        self.pool
            .borrow_mut()
            .forget(|waiting| Rc::ptr_eq(waiting, ticket));
        let now = (self.neighbours.clock)();
        match ticket.take() {
            Some(Ok(server)) => self.release(server, now),
            _ => self.advance(now),
        }
    }

    /// A server comes back from a client that owes it nothing.
    pub fn release(self: &Rc<Self>, server: Box<ServerConnection>, now: Instant) {
        if self.terms.borrow().settings.server_reset_query_always {
            self.release_to_reset(server);
        } else {
            self.return_clean(server, now);
        }
    }

    /// A server comes back that needs no reset.
    fn return_clean(self: &Rc<Self>, mut server: Box<ServerConnection>, now: Instant) {
        if server.card.cancels.get() > 0 {
            let pool = Rc::clone(self);
            tokio::task::spawn_local(async move {
                pool.wait_for_cancels(&server).await;
                pool.return_clean(server, (pool.neighbours.clock)());
            });
        } else if let Some(why) = self.is_unwanted(&server, now) {
            self.discard(server, why);
        } else if !self.is_to_rest(&mut server) {
            self.discard(server, ServerClose::Lost);
        } else if let Some(worker) = self.is_wanted_elsewhere(&server, now) {
            self.pool.borrow_mut().on_lost();
            self.move_to(worker, server, now);
            self.advance(now);
        } else if self.owes_room() {
            self.discard(server, ServerClose::Evicted);
        } else {
            let given = self.pool.borrow_mut().checkin(server, now);
            let rests = given.is_none();
            self.give(given);
            self.tell_others();
            if rests {
                self.on_rest(now);
            }
        }
    }

    /// A server is of no use any more.
    pub fn discard(self: &Rc<Self>, server: Box<ServerConnection>, why: ServerClose) {
        self.pool.borrow_mut().on_lost();
        self.close(server, why);
        self.advance((self.neighbours.clock)());
    }

    /// Closes a server that the pool does not count any more.
    fn close(&self, server: Box<ServerConnection>, why: ServerClose) {
        self.metrics.servers_closed.of(why).increase();
        let identity = &self.terms.borrow().identity;
        let now = (self.neighbours.clock)();
        let age = now.saturating_duration_since(server.connected_at);
        tracing::info!(
            database = &*identity.database,
            user = &*identity.user,
            server_pid = server.process_id(),
            server = %server.card.address,
            "closing because: {} (age={}s)",
            why.in_words(),
            age.as_secs(),
        );
        if server.generation == self.generation.get() {
            self.current.set(self.current.get().saturating_sub(1));
        }
        server.close();
        self.on_closed.notify_waiters();
    }

    /// Does what is to be done for those who wait, and for the pool's size.
    fn advance(self: &Rc<Self>, now: Instant) {
        let has_clients = self.clients.get() > 0 || self.terms.borrow().has_own_user;
        loop {
            let step = match self.is_removed() {
                true => None,
                false => self.pool.borrow_mut().next_step(has_clients, now),
            };
            match step {
                Some(Step::Serve(ticket, server)) => self.give(Some((ticket, server))),
                Some(Step::Check(server)) => self.check(server),
                Some(Step::Connect(wanted)) => {
                    let Some(allowance) = self.allowance(wanted) else {
                        return;
                    };
                    if wanted == Wanted::FromReserve {
                        self.say_reserve_is_used();
                    }
                    self.pool.borrow_mut().on_connecting();
                    self.connect(allowance);
                }
                None => return self.settle(),
            }
        }
    }

    /// There is nothing more to be done for those who wait.
    fn settle(&self) {
        if !self.pool.borrow().lacks_room() {
            self.pool.borrow_mut().on_room();
            self.unwant_room();
        }
        self.tell_others();
    }

    fn say_reserve_is_used(&self) {
        let limits = &self.neighbours.process.limits;
        limits.of(Limit::PoolServers).increase();
        let identity = &self.terms.borrow().identity;
        tracing::warn!(
            database = &*identity.database,
            user = &*identity.user,
            "taking connection from reserve_pool"
        );
    }

    /// Keeps the limits of time: ends waits that are too long, closes servers that are idle or alive for too long.
    pub fn keep_time(self: &Rc<Self>, now: Instant) {
        let overdue = self.pool.borrow_mut().remove_overdue(now);
        if let Some((_, why)) = self.terms.borrow().patience() {
            let why = match (why, &*self.login_failure.borrow()) {
                (Refusal::TimedOut, Some(failure)) => Refusal::Unconnected(failure.as_ref().into()),
                (why, _) => why,
            };
            for ticket in overdue {
                ticket.grant(Err(why.clone()));
            }
        }
        self.pool
            .borrow_mut()
            .tell_waiting(now, |ticket| ticket.tell_waiting());
        let aged = self
            .pool
            .borrow_mut()
            .remove_aged(|server| server.connected_at, now);
        let lifetime = self.terms.borrow().settings.server_lifetime;
        for server in aged {
            let why = match now.saturating_duration_since(server.connected_at) >= lifetime {
                true => ServerClose::Lifetime,
                false => ServerClose::IdleTimeout,
            };
            self.close(server, why);
        }
        self.count_elsewhere();
        let excess = self.pool.borrow_mut().remove_excess();
        for server in excess {
            self.close(server, ServerClose::Excess);
        }
        self.advance(now);
        self.give_to_others(now);
        self.show(now);
    }

    /// Shows how many there are of each in the gauges.
    pub fn show(&self, now: Instant) {
        let pool = self.pool.borrow();
        let occupancy = pool.occupancy(now);
        let servers = &self.metrics.servers;
        let count = |number: usize| number as u64;
        servers
            .of(ServerState::Idle)
            .set(count(occupancy.idle - occupancy.unchecked));
        servers
            .of(ServerState::Used)
            .set(count(occupancy.unchecked));
        servers.of(ServerState::Active).set(count(occupancy.in_use));
        servers
            .of(ServerState::Resetting)
            .set(count(occupancy.checking));
        servers
            .of(ServerState::Connecting)
            .set(count(occupancy.connecting));
        self.metrics.waiting_clients.set(count(occupancy.waiting));
        self.metrics.set_oldest_wait(pool.oldest_wait());
    }

    /// How long until something changes for those who wait.
    pub fn next_deadline(&self, now: Instant) -> Option<Duration> {
        let deadline = self.pool.borrow().next_deadline();
        let deadline = deadline.into_iter().chain(self.gives_at()).min()?;
        Some(deadline.saturating_duration_since(now))
    }

    /// Closes every server that rests.
    pub fn close_idle(&self) {
        let idle = self.pool.borrow_mut().remove_idle(|_| true);
        for server in idle {
            self.close(server, ServerClose::Shutdown);
        }
    }

    /// Whether a server that is about to rest, if nobody waits for it, is still there. It is watched from now on.
    fn is_to_rest(&self, server: &mut ServerConnection) -> bool {
        server.lane.socket.on_new_reader();
        if self.pool.borrow().oldest_wait().is_some() {
            return true;
        }
        let watcher = self.watcher.borrow();
        watcher.as_ref().is_none_or(|watcher| {
            let mut cx = Context::from_waker(watcher);
            server.poll_idle(&mut cx).is_pending()
        })
    }

    /// A server rests. Another pool may need its place more, or it may have to be checked for somebody.
    /// Whether a server is to go although clients wait for it: others have waited for longer for room.
    fn owes_room(&self) -> bool {
        let waits = self.pool.borrow().oldest_wait();
        waits.is_some_and(|since| {
            let allowances = &self.neighbours.allowances;
            allowances.promise_ahead_of(&self.account, since)
        })
    }

    fn on_rest(self: &Rc<Self>, now: Instant) {
        if self.neighbours.allowances.promise(&self.account) {
            let evicted = self.pool.borrow_mut().evict();
            if let Some(server) = evicted {
                self.close(server, ServerClose::Evicted);
            }
        }
        if self.pool.borrow().oldest_wait().is_some() {
            self.advance(now);
        }
        self.give_to_others(now);
    }

    fn give(&self, given: Option<(Rc<Ticket>, Box<ServerConnection>)>) {
        if let Some((ticket, server)) = given {
            self.metrics.checkouts.increase();
            ticket.grant(Ok(server));
        }
    }

    /// Why the client that has just come waits.
    fn queue_cause(&self, now: Instant) -> QueueCause {
        let pool = self.pool.borrow();
        let occupancy = pool.occupancy(now);
        if pool.is_paused() {
            QueueCause::Paused
        } else if pool.is_failing() {
            QueueCause::LoginFailing
        } else if occupancy.connecting + occupancy.checking >= occupancy.waiting {
            QueueCause::Connecting
        } else {
            QueueCause::PoolFull
        }
    }

    fn cached_login_failure(&self) -> Rc<str> {
        let failure = self.login_failure.borrow();
        failure.as_deref().unwrap_or("connect failed").into()
    }

    /// Closes idle servers that have closed, or that say what an idle server does not say.
    fn remove_gone(&self, cx: &mut Context<'_>) {
        let gone = self
            .pool
            .borrow_mut()
            .remove_idle(|server| server.poll_idle(cx).is_ready());
        for server in gone {
            self.close(server, ServerClose::Lost);
        }
    }
}

/// What came of asking for a server.
#[derive(Debug)]
pub enum Asked {
    /// Here it is.
    Server(Box<ServerConnection>),
    /// Wait for it, for this reason.
    Wait(Rc<Ticket>, QueueCause),
    /// There won't be one.
    Refused(Refusal),
}

/// A place in the queue that is given up when it is dropped.
struct Place {
    pool: Rc<ServerPool>,
    ticket: Rc<Ticket>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.give_up(&self.ticket);
    }
}

/// What a client reads whose server is suddenly gone.
pub fn lost_server() -> ErrorResponse {
    ErrorResponse::fatal(
        SqlState::CONNECTION_FAILURE,
        "server closed the connection unexpectedly",
    )
}

async fn watch_idle(pool: Weak<ServerPool>) {
    poll_fn(|cx| {
        let Some(pool) = pool.upgrade() else {
            return Poll::Ready(());
        };
        let mut watcher = pool.watcher.borrow_mut();
        if !watcher
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *watcher = Some(cx.waker().clone());
        }
        drop(watcher);
        pool.remove_gone(cx);
        Poll::Pending
    })
    .await;
}
