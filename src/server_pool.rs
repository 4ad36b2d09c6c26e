//! One pool of a worker, alive: its servers, its queue, and the tasks that connect, reset and watch servers.

mod terms;
mod ticket;
mod welcome;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::auth::scram::{CachedKeys, Nonce};
use crate::pool::{Checkout, Pool};
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::server::{ConnectError, ServerConnection};
use crate::session::parameters::ParameterSet;
use crate::session::query_record::QueueCause;
use crate::session::statements::Definitions;
use crate::telemetry::labels::{ConnectFailure, ServerClose, ServerState};
use crate::telemetry::metrics::PoolMetrics;

pub use self::terms::Terms;
pub use self::ticket::{Refusal, Ticket};
pub use self::welcome::Welcome;

/// The pool of one database and user on one worker.
#[derive(Debug)]
pub struct ServerPool {
    /// What it goes by, until the next reload.
    terms: RefCell<Rc<Terms>>,
    /// What is counted.
    pub metrics: Arc<PoolMetrics>,
    /// The prepared statements of its clients.
    pub definitions: RefCell<Definitions>,
    /// Whether the configuration has no such database any more.
    is_removed: Cell<bool>,
    /// Rises when servers that are connected already are of no use any more.
    generation: Cell<u64>,
    clock: fn() -> Instant,
    pool: RefCell<Pool<Box<ServerConnection>, Rc<Ticket>>>,
    /// What clients are told that log in, by what they want set.
    welcomes: RefCell<HashMap<ParameterSet, Rc<Welcome>>>,
    /// Sets that clients want, so that equal ones are one.
    parameter_sets: RefCell<Vec<Weak<ParameterSet>>>,
    /// Keys of the last login at the server: they spare the next one its computation.
    scram_keys: RefCell<Option<CachedKeys>>,
    /// Wakes the task that watches idle servers.
    watcher: RefCell<Option<Waker>>,
    /// Told when a client begins to wait, so that its time is kept.
    pub on_waiting: Rc<tokio::sync::Notify>,
}

/// How often limits of time are looked at, unless one ends earlier.
pub const TIME_ROUND: Duration = Duration::from_secs(1);

impl ServerPool {
    /// An empty pool, and the task that watches its idle servers. Must be called on the worker's thread.
    pub fn start(
        terms: Terms,
        metrics: Arc<PoolMetrics>,
        clock: fn() -> Instant,
        on_waiting: Rc<tokio::sync::Notify>,
    ) -> Rc<Self> {
        let limits = terms.limits();
        let pool = Rc::new(Self {
            terms: RefCell::new(Rc::new(terms)),
            metrics,
            definitions: RefCell::new(Definitions::new()),
            is_removed: Cell::new(false),
            generation: Cell::new(0),
            clock,
            pool: RefCell::new(Pool::new(limits)),
            welcomes: RefCell::default(),
            parameter_sets: RefCell::default(),
            scram_keys: RefCell::default(),
            watcher: RefCell::default(),
            on_waiting,
        });
        tokio::task::spawn_local(watch_idle(Rc::downgrade(&pool)));
        pool
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
            self.welcomes.borrow_mut().clear();
            self.reconnect();
        }
        self.connect_as_wanted();
    }

    /// Its database is gone from the configuration: nobody gets a server any more, and resting clients are sent away.
    pub fn remove(self: &Rc<Self>) {
        self.is_removed.set(true);
        self.reconnect();
        for ticket in self.pool.borrow_mut().remove_waiting() {
            ticket.grant(Err(Refusal::Removed));
        }
    }

    /// Whether its database is gone from the configuration.
    pub fn is_removed(&self) -> bool {
        self.is_removed.get()
    }

    /// Replaces every server: those that rest are closed now, the others when they come back.
    pub fn reconnect(self: &Rc<Self>) {
        self.generation.set(self.generation.get() + 1);
        let idle = self.pool.borrow_mut().remove_idle(|_| true);
        for server in idle {
            self.say_closing(&server, ServerClose::Administrator);
            server.close();
        }
    }

    fn is_outdated(&self, server: &ServerConnection) -> bool {
        server.generation != self.generation.get()
    }

    /// Makes the connections that those who wait are to have, and that the limits allow.
    fn connect_as_wanted(self: &Rc<Self>) {
        while self.pool.borrow_mut().retries() {
            self.connect();
        }
    }

    /// A client asks for a server: it gets one, or a place in the queue with the cause of its waiting.
    pub fn checkout(self: &Rc<Self>, now: Instant) -> Asked {
        if self.is_removed() {
            return Asked::Refused(Refusal::Removed);
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
                Asked::Server(server)
            }
            (Checkout::Connect, Some(place)) => {
                self.connect();
                self.on_wait(QueueCause::Connecting);
                Asked::Wait(place, QueueCause::Connecting)
            }
            (Checkout::Wait, Some(place)) => {
                self.on_wait(QueueCause::PoolFull);
                Asked::Wait(place, QueueCause::PoolFull)
            }
            _ => Asked::Refused(Refusal::QueueFull),
        }
    }

    /// The same, waiting for it.
    pub async fn checkout_server(self: &Rc<Self>) -> Result<Box<ServerConnection>, Refusal> {
        match self.checkout((self.clock)()) {
            Asked::Server(server) => Ok(server),
            Asked::Refused(refusal) => Err(refusal),
            Asked::Wait(ticket, _) => {
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
        if let Some(Ok(server)) = ticket.take() {
            self.release(server, (self.clock)());
        }
    }

    /// A server comes back from a client that owes it nothing.
    pub fn release(self: &Rc<Self>, server: Box<ServerConnection>, now: Instant) {
        if server.card.cancels.get() > 0 {
            // A cancel that is still on its way must not hit the next client's query.
            let pool = Rc::clone(self);
            tokio::task::spawn_local(async move {
                while server.card.cancels.get() > 0 {
                    server.card.cancels_done.notified().await;
                }
                pool.release(server, (pool.clock)());
            });
            return;
        }
        if self.is_outdated(&server) {
            self.discard(server, ServerClose::Administrator);
            return;
        }
        let lifetime = self.terms.borrow().settings.server_lifetime;
        if now.saturating_duration_since(server.connected_at) >= lifetime {
            self.discard(server, ServerClose::Lifetime);
            return;
        }
        self.check_in(server, now);
    }

    /// A server comes back that a client has left something behind on, or may have: it is reset first.
    pub fn release_to_reset(self: &Rc<Self>, mut server: Box<ServerConnection>) {
        let terms = self.terms();
        let Some(reset) = terms.settings.server_reset_query.clone() else {
            self.release(server, (self.clock)());
            return;
        };
        let pool = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let reset = tokio::time::timeout(
                terms.settings.server_connect_timeout,
                server.ask(reset.as_bytes()),
            )
            .await;
            match reset {
                Ok(Ok(())) => {
                    let reported = server.reported.iter();
                    let reported = reported.map(|(name, value)| (&**name, &**value));
                    server
                        .session
                        .on_reset(reported, &pool.terms().settings.track_extra_parameters);
                    pool.release(server, (pool.clock)());
                }
                Ok(Err(_)) | Err(_) => pool.discard(server, ServerClose::CheckFailed),
            }
        });
    }

    /// A server is of no use any more.
    pub fn discard(self: &Rc<Self>, server: Box<ServerConnection>, why: ServerClose) {
        self.say_closing(&server, why);
        server.close();
        if self.pool.borrow_mut().on_lost() {
            self.connect();
        }
    }

    fn say_closing(&self, server: &ServerConnection, why: ServerClose) {
        self.metrics.servers_closed.of(why).increase();
        let identity = &self.terms.borrow().identity;
        tracing::info!(
            database = &*identity.database,
            user = &*identity.user,
            server_pid = server.process_id(),
            age_seconds = (self.clock)()
                .saturating_duration_since(server.connected_at)
                .as_secs(),
            "closing server connection because: {}",
            why.as_str(),
        );
    }

    /// Keeps the limits of time: ends waits that are too long, closes servers that are idle or alive for too long.
    pub fn keep_time(self: &Rc<Self>, now: Instant) {
        let overdue = self.pool.borrow_mut().remove_overdue(now);
        for ticket in overdue {
            ticket.grant(Err(Refusal::TimedOut));
        }
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
            self.metrics.servers_closed.of(why).increase();
            server.close();
        }
        // A connection that failed is tried again for those who still wait, once in a round.
        if self.pool.borrow_mut().retries() {
            self.connect();
        }
        self.show();
    }

    /// Shows how many there are of each in the gauges.
    pub fn show(&self) {
        let pool = self.pool.borrow();
        let occupancy = pool.occupancy();
        let count = |number: usize| number as u64;
        self.metrics
            .servers
            .of(ServerState::Idle)
            .set(count(occupancy.idle));
        self.metrics
            .servers
            .of(ServerState::Active)
            .set(count(occupancy.in_use));
        self.metrics
            .servers
            .of(ServerState::Connecting)
            .set(count(occupancy.connecting));
        self.metrics.waiting_clients.set(count(occupancy.waiting));
        self.metrics.set_oldest_wait(pool.oldest_wait());
    }

    /// How long until the client in front of the queue has waited for too long.
    pub fn next_deadline(&self, now: Instant) -> Option<Duration> {
        let since = self.pool.borrow().oldest_wait()?;
        let timeout = self.terms.borrow().settings.checkout_timeout?;
        Some((since + timeout).saturating_duration_since(now))
    }

    /// Closes every server that rests.
    pub fn close_idle(&self) {
        for server in self.pool.borrow_mut().remove_idle(|_| true) {
            self.metrics
                .servers_closed
                .of(ServerClose::Shutdown)
                .increase();
            server.close();
        }
    }

    /// A server that was in use goes to whoever waits longest, or rests, watched.
    fn check_in(self: &Rc<Self>, mut server: Box<ServerConnection>, now: Instant) {
        server.lane.socket.on_new_reader();
        let rests = self.pool.borrow().oldest_wait().is_none();
        if rests
            && let Some(watcher) = &*self.watcher.borrow()
            && server
                .poll_idle(&mut Context::from_waker(watcher))
                .is_ready()
        {
            self.discard(server, ServerClose::Lost);
            return;
        }
        if let Some((ticket, server)) = self.pool.borrow_mut().checkin(server, now) {
            self.metrics.checkouts.increase();
            ticket.grant(Ok(server));
        }
    }

    /// A client waits.
    fn on_wait(&self, cause: QueueCause) {
        self.metrics.waits.of(cause).increase();
        // Only whose wait may end before the next round of `keep_time` has to be told of.
        let timeout = self.terms.borrow().settings.checkout_timeout;
        if timeout.is_some_and(|timeout| timeout < TIME_ROUND) {
            self.on_waiting.notify_one();
        }
    }

    fn connect(self: &Rc<Self>) {
        let pool = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let keys = pool.scram_keys.borrow().clone();
            let (terms, generation) = (pool.terms(), pool.generation.get());
            let connecting = ServerConnection::connect(
                &terms.target,
                keys,
                nonce(),
                &terms.settings.track_extra_parameters,
                pool.clock,
            );
            let limit = terms.settings.server_connect_timeout;
            match tokio::time::timeout(limit, connecting)
                .await
                .unwrap_or(Err(ConnectError::TimedOut))
            {
                Ok((mut server, keys)) => {
                    server.generation = generation;
                    pool.on_connected(server, keys);
                }
                Err(error) => pool.on_connect_failed(&error),
            }
        });
    }

    fn on_connected(self: &Rc<Self>, server: ServerConnection, keys: Option<CachedKeys>) {
        if keys.is_some() {
            *self.scram_keys.borrow_mut() = keys;
        }
        self.metrics.servers_opened.increase();
        let terms = self.terms();
        tracing::info!(
            database = &*terms.identity.database,
            user = &*terms.identity.user,
            server_pid = server.process_id(),
            "new connection to server",
        );
        let now = (self.clock)();
        self.pool.borrow_mut().on_connected();
        self.release(Box::new(server), now);
    }

    fn on_connect_failed(self: &Rc<Self>, error: &ConnectError) {
        // Keys that did not help are of no use next time.
        self.scram_keys.borrow_mut().take();
        let at = match error {
            ConnectError::Unresolved(_) => ConnectFailure::Resolve,
            ConnectError::Unreachable(_) => ConnectFailure::Connect,
            ConnectError::TimedOut => ConnectFailure::Timeout,
            ConnectError::Broken(_) | ConnectError::Login(_) => ConnectFailure::Login,
        };
        self.metrics.server_connect_failures.of(at).increase();
        let terms = self.terms();
        tracing::warn!(
            database = &*terms.identity.database,
            user = &*terms.identity.user,
            server = ?terms.target.address,
            "server connection failed: {error}",
        );
        let turned_away = self.pool.borrow_mut().on_connect_failed();
        let why = Rc::new(error.response());
        for ticket in turned_away {
            ticket.grant(Err(Refusal::NoServer(Rc::clone(&why))));
        }
    }

    /// Closes idle servers that have closed, or that say what an idle server does not say.
    fn remove_gone(&self, cx: &mut Context<'_>) {
        let gone = self
            .pool
            .borrow_mut()
            .remove_idle(|server| server.poll_idle(cx).is_ready());
        for server in gone {
            self.metrics.servers_closed.of(ServerClose::Lost).increase();
            let terms = self.terms();
            tracing::info!(
                database = &*terms.identity.database,
                user = &*terms.identity.user,
                server_pid = server.process_id(),
                "idle server connection was closed by the server",
            );
            server.close();
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

fn nonce() -> Nonce {
    let mut nonce = Nonce::default();
    getrandom::fill(&mut nonce).expect("the system has random bytes");
    nonce
}
