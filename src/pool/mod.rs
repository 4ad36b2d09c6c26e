//! Who gets which server: a pool's idle servers, its queue of waiting clients, and its limits.

pub mod budget;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// What a pool may hold, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Servers at most, those being connected included; `None`: as many as there are clients.
    pub size: Option<NonZeroUsize>,
    /// Servers that are kept even if nobody needs them.
    pub min_size: usize,
    /// Servers beyond `size`, for clients that have waited for `reserve_timeout`.
    pub reserve_size: usize,
    /// How long a client waits before a server of the reserve is connected for it; `None`: for ever.
    pub reserve_timeout: Option<Duration>,
    /// Clients that may wait at a time.
    pub max_waiting: usize,
    /// How long a client may wait; `None` is for ever.
    pub checkout_timeout: Option<Duration>,
    /// How long a client waits before it is told that it does; `None`: it is not told.
    pub wait_notice: Option<Duration>,
    /// How long a server may stay idle; `None` is for ever.
    pub server_idle_timeout: Option<Duration>,
    /// How old an idle server may be before it is closed.
    pub server_lifetime: Duration,
    /// How long after a connection that could not be made the next one is tried.
    pub login_retry: Duration,
    /// How long a server may have been idle and still be used unchecked; `None`: for ever.
    pub check_after: Option<Duration>,
    /// Whether one server is connected after the other: the next one goes where the last one led.
    pub connects_in_turn: bool,
    /// Which of the idle servers is used next.
    pub turn: Turn,
}

/// Room in the queue that is kept when nobody waits.
const QUEUE_KEPT: usize = 1024;

/// Which of the idle servers is used next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The most recently used one: the others grow old enough to be closed.
    LastUsed,
    /// The one that has rested longest: all get their share.
    LongestIdle,
}

/// The servers `S` of one database and user, and the clients `W` that wait for one.
///
/// A server is idle, in use, being checked or being connected. Nobody waits while a server is idle that can be used; whoever
/// waited longest is served first.
#[derive(Debug)]
pub struct Pool<S, W> {
    limits: Limits,
    /// Longest resting first.
    idle: Vec<Idle<S>>,
    /// Longest waiting first.
    waiting: VecDeque<Waiting<W>>,
    in_use: usize,
    checking: usize,
    connecting: usize,
    is_paused: bool,
    /// When a connection could last not be made; `None` where the last one could.
    failed_at: Option<Instant>,
    /// Somebody wants to know whether connections can be made again.
    wants_probe: bool,
    /// When a server was last closed for its age.
    aged_at: Option<Instant>,
    /// The pool's other parts have the servers that there may be.
    has_no_room: bool,
    /// Servers of the pool's other parts: they may come here.
    elsewhere: usize,
}

/// How much longer than ours a client of another part may have waited before it is served by a server of ours: as much of the
/// order between them is given up for servers that stay where they are.
pub const OVERTAKING: Duration = Duration::from_millis(5);

/// How long a client waits for a server of its own part before one that rests at another part comes.
pub const PATIENCE: Duration = Duration::from_millis(1);

/// That clients of a part wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// How many, for whom no server is being checked.
    pub clients: usize,
    /// Since when the first one does.
    pub since: Instant,
    /// No server is there that would come back to them.
    pub is_urgent: bool,
}

#[derive(Debug)]
struct Idle<S> {
    server: S,
    since: Instant,
}

#[derive(Debug)]
struct Waiting<W> {
    waiter: W,
    since: Instant,
    is_told: bool,
}

/// What came of asking for a server.
#[derive(Debug, PartialEq, Eq)]
pub enum Checkout<S> {
    /// This server is yours.
    Use(S),
    /// You wait. [`Pool::next_step`] says what is to be done for it.
    Wait,
    /// The queue is full: you can't even wait.
    QueueFull,
    /// Connections can't be made at the moment, and there is no server that would come back.
    LoginFailing,
}

/// What is to be done for a pool.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<S, W> {
    /// This client has waited for this server, which is in use now.
    Serve(W, S),
    /// This server has rested for long: whether it still answers has to be found out. Then [`Pool::on_checked`] or
    /// [`Pool::on_check_failed`].
    Check(S),
    /// A connection is wanted: [`Pool::on_connecting`], if it may be made.
    Connect(Wanted),
}

/// What a connection is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// For clients that wait.
    ByClients,
    /// For clients that have waited for so long that the reserve is there for them.
    FromReserve,
    /// To have `min_size` servers.
    ForMinimum,
}

/// Why a connection could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectOutcome {
    /// Nobody answered, or nobody can be served yet: that may be over in a moment.
    Unreachable,
    /// The server does not let us in.
    Refused,
}

/// How many servers and clients there are, for the gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Servers that nobody uses.
    pub idle: usize,
    /// Those of them that have to be checked before they are used (PgBouncer's `sv_used`).
    pub unchecked: usize,
    /// Servers that are linked to a client.
    pub in_use: usize,
    /// Servers that are being reset or checked (PgBouncer's `sv_tested`).
    pub checking: usize,
    /// Servers that are being connected.
    pub connecting: usize,
    /// Clients that wait.
    pub waiting: usize,
}

impl Occupancy {
    /// Counts these too.
    pub fn add(&mut self, other: Self) {
        self.idle += other.idle;
        self.unchecked += other.unchecked;
        self.in_use += other.in_use;
        self.checking += other.checking;
        self.connecting += other.connecting;
        self.waiting += other.waiting;
    }
}

impl<S, W> Pool<S, W> {
    /// An empty pool.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            idle: Vec::new(),
            waiting: VecDeque::new(),
            in_use: 0,
            checking: 0,
            connecting: 0,
            is_paused: false,
            failed_at: None,
            wants_probe: false,
            aged_at: None,
            has_no_room: false,
            elsewhere: 0,
        }
    }

    /// What it may hold.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// From now on it may hold this. [`Pool::remove_excess`] has what is too much.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// How many there are of each.
    pub fn occupancy(&self, now: Instant) -> Occupancy {
        let is_unchecked = |idle: &&Idle<S>| !self.limits.is_fresh(idle.since, now);
        Occupancy {
            idle: self.idle.len(),
            unchecked: self.idle.iter().filter(is_unchecked).count(),
            in_use: self.in_use,
            checking: self.checking,
            connecting: self.connecting,
            waiting: self.waiting.len(),
        }
    }

    /// The servers that rest, the longest resting first, and whether they have to be checked before they are used.
    pub fn resting(&self, now: Instant) -> impl Iterator<Item = (&S, bool)> {
        self.idle
            .iter()
            .map(move |idle| (&idle.server, !self.limits.is_fresh(idle.since, now)))
    }

    /// How many servers rest.
    pub fn resting_count(&self) -> usize {
        self.idle.len()
    }

    /// Since when the client in front of the queue waits.
    pub fn oldest_wait(&self) -> Option<Instant> {
        self.waiting.front().map(|waiting| waiting.since)
    }

    /// Since when its longest resting server rests.
    pub fn oldest_rest(&self) -> Option<Instant> {
        self.idle.first().map(|idle| idle.since)
    }

    /// Whether the last connection could not be made.
    pub fn is_failing(&self) -> bool {
        self.failed_at.is_some()
    }

    /// Connections are made elsewhere, or in another way, from now on: that the last one failed tells nothing of the next.
    pub fn forget_failure(&mut self) {
        self.failed_at = None;
    }

    /// Whether nobody is given a server.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// From now on nobody is given a server. The idle ones are returned: they are to be closed.
    pub fn pause(&mut self) -> Vec<S> {
        self.is_paused = true;
        self.remove_idle(|_| true)
    }

    /// Clients are given servers again.
    pub fn resume(&mut self) {
        self.is_paused = false;
    }

    /// Whether no client has a server, and none is being checked.
    pub fn is_released(&self) -> bool {
        self.in_use == 0 && self.checking == 0
    }

    /// A client asks for a server. `waiter` is only made, and queued, if there is none at once.
    pub fn checkout(&mut self, waiter: impl FnOnce() -> W, now: Instant) -> Checkout<S> {
        // Whoever waits already comes first.
        if self.waiting.is_empty()
            && let Some(server) = self.take_fresh(now)
        {
            self.in_use += 1;
            return Checkout::Use(server);
        }
        if self.is_failing() && !self.is_paused && self.connected() + self.elsewhere == 0 {
            self.wants_probe = true;
            return Checkout::LoginFailing;
        }
        if self.waiting.len() >= self.limits.max_waiting {
            return Checkout::QueueFull;
        }
        self.waiting.push_back(Waiting {
            waiter: waiter(),
            since: now,
            is_told: false,
        });
        Checkout::Wait
    }

    /// What is to be done next, until there is nothing: after each change, and whenever time has passed. `has_clients` says whether
    /// anybody uses the pool, or may be expected to.
    pub fn next_step(&mut self, has_clients: bool, now: Instant) -> Option<Step<S, W>> {
        if self.is_paused {
            return None;
        }
        if !self.waiting.is_empty()
            && let Some(server) = self.take_fresh(now)
            && let Some(next) = self.waiting.pop_front()
        {
            self.in_use += 1;
            return Some(Step::Serve(next.waiter, server));
        }
        // Sooner done than a connection that is being made.
        if self.checking < self.waiting.len() && !self.idle.is_empty() {
            self.checking += 1;
            return Some(Step::Check(self.take_next()));
        }
        let coming = self.connecting + self.checking;
        self.wanted(coming, has_clients, now).map(Step::Connect)
    }

    fn wanted(&self, coming: usize, has_clients: bool, now: Instant) -> Option<Wanted> {
        if let Some(failed_at) = self.failed_at
            && (self.connecting > 0 || now < failed_at + self.limits.login_retry)
        {
            // One attempt at a time, until one comes to something.
            return None;
        }
        if self.limits.connects_in_turn && self.connecting > 0 {
            return None;
        }
        let servers = self.servers();
        let size = self.limits.size.map_or(usize::MAX, NonZeroUsize::get);
        let is_full = servers >= size || self.has_no_room;
        let is_wanted = coming < self.waiting.len() || self.wants_probe && coming == 0;
        if is_wanted && !is_full {
            return Some(Wanted::ByClients);
        }
        let has_waited_long = |waiting: &Waiting<W>| {
            let waited = now.saturating_duration_since(waiting.since);
            self.limits
                .reserve_timeout
                .is_some_and(|timeout| waited >= timeout)
        };
        if servers < size.saturating_add(self.limits.reserve_size)
            && self.waiting.get(coming).is_some_and(has_waited_long)
        {
            return Some(Wanted::FromReserve);
        }
        let is_below = servers < self.limits.min_size.min(size);
        (has_clients && is_below && !self.has_no_room).then_some(Wanted::ForMinimum)
    }

    /// A connection that [`Pool::next_step`] wanted is being made.
    pub fn on_connecting(&mut self) {
        self.wants_probe = false;
        self.connecting += 1;
    }

    /// A server comes back, clean: to the client that waited longest, who is returned with it, or to rest.
    #[must_use = "the waiter has to be given its server"]
    pub fn checkin(&mut self, server: S, now: Instant) -> Option<(W, S)> {
        debug_assert!(self.in_use > 0, "checked in what was not checked out");
        // Where every server is checked before it is used, this one is too.
        let is_checked = self.limits.check_after != Some(Duration::ZERO);
        if is_checked && let Some(next) = self.next_waiting() {
            return Some((next.waiter, server));
        }
        self.in_use -= 1;
        self.idle.push(Idle { server, since: now });
        None
    }

    /// A connection was made: to the client that waited longest, who is returned with it, or to rest.
    #[must_use = "the waiter has to be given its server"]
    pub fn on_connected(&mut self, server: S, now: Instant) -> Option<(W, S)> {
        debug_assert!(self.connecting > 0, "connected without having been asked");
        self.connecting -= 1;
        self.failed_at = None;
        self.serve_first(server, now)
    }

    /// A connection could not be made. Where the server refuses to let us in, and the pool has none left that could still serve
    /// them, those who wait are returned: they are to be told why.
    pub fn on_connect_failed(&mut self, outcome: ConnectOutcome, now: Instant) -> Vec<W> {
        debug_assert!(self.connecting > 0, "failed without having been asked");
        self.connecting -= 1;
        self.failed_at = Some(now);
        if outcome == ConnectOutcome::Unreachable || self.connected() + self.elsewhere > 0 {
            return Vec::new();
        }
        self.waiting
            .drain(..)
            .map(|waiting| waiting.waiter)
            .collect()
    }

    /// The pool's other parts have the servers that there may be: until [`Pool::on_room`] none but those of the reserve are wanted.
    pub fn on_no_room(&mut self) {
        self.has_no_room = true;
    }

    /// There may be room for a server again.
    pub fn on_room(&mut self) {
        self.has_no_room = false;
    }

    /// All parts of the pool have so many servers together. Who waits here may be served by one of the others'.
    pub fn set_all_servers(&mut self, servers: usize) {
        self.elsewhere = servers.saturating_sub(self.servers());
    }

    /// Whether somebody waits for room that the pool's other parts have.
    pub fn lacks_room(&self) -> bool {
        self.has_no_room && !self.is_paused && !self.waiting.is_empty()
    }

    /// Who waits. `None` also while it is paused: nobody is to be served then.
    pub fn need(&self) -> Option<Need> {
        let clients = self.waiting.len().saturating_sub(self.checking);
        let since = self.oldest_wait()?;
        (clients > 0 && !self.is_paused).then_some(Need {
            clients,
            since,
            is_urgent: self.in_use + self.checking + self.connecting == 0,
        })
    }

    /// From when on a server of ours is to go to another part, where this is the need. `None`: not as things stand.
    pub fn goes_elsewhere_at(&self, need: Need) -> Option<Instant> {
        Some(match self.oldest_wait() {
            Some(ours) if ours.saturating_duration_since(need.since) > OVERTAKING => need.since,
            Some(_) => return None,
            None if need.is_urgent => need.since,
            None => need.since + PATIENCE,
        })
    }

    /// A server of another part comes, which has rested since then: to the client that waited longest, who is returned with it,
    /// or to rest.
    #[must_use = "the waiter has to be given its server"]
    pub fn on_moved_in(&mut self, server: S, since: Instant, now: Instant) -> Option<(W, S)> {
        match self.limits.is_fresh(since, now) {
            true => self.serve_first(server, now),
            false => {
                self.idle.push(Idle { server, since });
                None
            }
        }
    }

    /// A connection that was being made is not needed any more: it is dropped.
    pub fn on_connecting_given_up(&mut self) {
        debug_assert!(self.connecting > 0, "given up without having been asked");
        self.connecting -= 1;
    }

    /// A server that was in use is being reset: afterwards [`Pool::on_checked`] or [`Pool::on_check_failed`].
    pub fn on_resetting(&mut self) {
        debug_assert!(self.in_use > 0, "reset what was not checked out");
        self.in_use -= 1;
        self.checking += 1;
    }

    /// A server that was reset, or checked, is fine: to the client that waited longest, who is returned with it, or to rest.
    #[must_use = "the waiter has to be given its server"]
    pub fn on_checked(&mut self, server: S, now: Instant) -> Option<(W, S)> {
        debug_assert!(self.checking > 0, "checked without having been asked");
        self.checking -= 1;
        self.serve_first(server, now)
    }

    /// A server that was reset, or checked, is of no use any more.
    pub fn on_check_failed(&mut self) {
        debug_assert!(self.checking > 0, "checked without having been asked");
        self.checking -= 1;
    }

    /// Takes a place for a server that somebody else connects, and uses alone. Whether there was one for who does not wait:
    /// then it counts as in use, until [`Pool::on_lost`].
    pub fn occupy(&mut self) -> bool {
        let taken = self.idle.len() + self.in_use + self.checking + self.connecting;
        let has_place = self.waiting.is_empty()
            && !self.is_paused
            && self.limits.size.is_none_or(|size| taken < size.get());
        self.in_use += usize::from(has_place);
        has_place
    }

    /// A server that was in use is gone.
    pub fn on_lost(&mut self) {
        debug_assert!(self.in_use > 0, "lost what was not checked out");
        self.in_use -= 1;
    }

    /// Takes out the idle servers that `is_gone` says can't be used any more.
    pub fn remove_idle(&mut self, mut is_gone: impl FnMut(&mut S) -> bool) -> Vec<S> {
        let gone = self.idle.extract_if(.., |idle| is_gone(&mut idle.server));
        gone.map(|idle| idle.server).collect()
    }

    /// Takes out the server that has rested longest, where its place is needed by another pool.
    pub fn evict(&mut self) -> Option<S> {
        (!self.idle.is_empty()).then(|| self.idle.remove(0).server)
    }

    /// Takes out the server that would be used next, for a client of another part, and since when it has rested. None while
    /// somebody waits here.
    pub fn take_for_another(&mut self) -> Option<(S, Instant)> {
        if self.is_paused || !self.waiting.is_empty() || self.idle.is_empty() {
            return None;
        }
        let Idle { server, since } = self.idle.remove(self.next_idle());
        Some((server, since))
    }

    /// Takes out idle servers as far as there are more than there may be.
    pub fn remove_excess(&mut self) -> Vec<S> {
        let Some(size) = self.limits.size else {
            return Vec::new();
        };
        let most = size.get().saturating_add(self.limits.reserve_size);
        let servers = self.servers() + self.elsewhere;
        let excess = servers.saturating_sub(most).min(self.idle.len());
        self.idle.drain(..excess).map(|idle| idle.server).collect()
    }

    /// Takes out the idle servers that have been idle, or alive, for too long. `connected_at` tells a server's age.
    ///
    /// For idleness alone no fewer than `min_size` stay. For its age one is taken out at a time, so that not all are connected anew
    /// at once.
    pub fn remove_aged(&mut self, connected_at: impl Fn(&S) -> Instant, now: Instant) -> Vec<S> {
        let mut removed = Vec::new();
        let mut at = 0;
        while let Some(idle) = self.idle.get(at) {
            let idle_for = now.saturating_duration_since(idle.since);
            let is_idle_too_long = self
                .limits
                .server_idle_timeout
                .is_some_and(|limit| idle_for >= limit)
                && (self.limits.min_size == 0 || self.connected() > self.limits.min_size);
            if is_idle_too_long {
                removed.push(self.idle.remove(at).server);
            } else if self.is_life_over(connected_at(&idle.server), now) {
                self.aged_at = Some(now);
                removed.push(self.idle.remove(at).server);
            } else {
                at += 1;
            }
        }
        removed
    }

    /// Whether a server that is connected since then is to be closed for its age when it comes back.
    ///
    /// As in PgBouncer, `server_lifetime` / `size` lies between two of them.
    pub fn is_life_over(&self, connected_at: Instant, now: Instant) -> bool {
        let since = |at| now.saturating_duration_since(at);
        let lifetime = self.limits.server_lifetime;
        if since(connected_at) < lifetime {
            return false;
        }
        let gap = match self.limits.size.map(NonZeroUsize::get) {
            Some(size) => lifetime / u32::try_from(size).unwrap_or(u32::MAX),
            None => Duration::ZERO,
        };
        self.aged_at.is_none_or(|at| since(at) >= gap)
    }

    /// A server that came back is closed for its age.
    pub fn on_life_over(&mut self, now: Instant) {
        self.aged_at = Some(now);
    }

    /// Takes out the clients that have waited for too long.
    pub fn remove_overdue(&mut self, now: Instant) -> Vec<W> {
        let mut overdue = Vec::new();
        let Some(timeout) = self.limits.checkout_timeout else {
            return overdue;
        };
        let is_overdue =
            |first: &mut Waiting<W>| now.saturating_duration_since(first.since) >= timeout;
        while let Some(first) = self.waiting.pop_front_if(is_overdue) {
            overdue.push(first.waiter);
        }
        overdue
    }

    /// Tells those who have waited for `wait_notice` that they do, each once.
    pub fn tell_waiting(&mut self, now: Instant, mut tell: impl FnMut(&W)) {
        let Some(notice) = self.limits.wait_notice else {
            return;
        };
        for waiting in &mut self.waiting {
            if now.saturating_duration_since(waiting.since) < notice {
                break;
            }
            if !std::mem::replace(&mut waiting.is_told, true) {
                tell(&waiting.waiter);
            }
        }
    }

    /// Takes out those clients that `is_it` says of.
    pub fn take_waiting(&mut self, mut is_it: impl FnMut(&W) -> bool) -> Vec<W> {
        let mut taken = Vec::new();
        let waiting = std::mem::take(&mut self.waiting);
        for waiting in waiting {
            match is_it(&waiting.waiter) {
                true => taken.push(waiting.waiter),
                false => self.waiting.push_back(waiting),
            }
        }
        taken
    }

    /// Takes out all clients that wait: the pool ends.
    pub fn remove_waiting(&mut self) -> Vec<W> {
        self.waiting
            .drain(..)
            .map(|waiting| waiting.waiter)
            .collect()
    }

    /// A client that waits has left.
    pub fn forget(&mut self, is_it: impl Fn(&W) -> bool) {
        self.waiting.retain(|waiting| !is_it(&waiting.waiter));
    }

    /// When something changes for those who wait if nothing else happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        let front = self.waiting.front()?;
        let untold = self.waiting.iter().find(|waiting| !waiting.is_told);
        let next = self.waiting.get(self.connecting + self.checking);
        let retry = self.failed_at.map(|at| at + self.limits.login_retry);
        [
            self.limits
                .checkout_timeout
                .map(|timeout| front.since + timeout),
            self.limits
                .wait_notice
                .and_then(|notice| Some(untold?.since + notice)),
            self.limits
                .reserve_timeout
                .filter(|_| self.limits.reserve_size > 0)
                .and_then(|timeout| Some(next?.since + timeout)),
            retry,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether waiting can end by time alone before `round` is over: then somebody has to look sooner.
    pub fn is_pressing(&self, round: Duration) -> bool {
        let Limits {
            checkout_timeout,
            wait_notice,
            reserve_timeout,
            ..
        } = self.limits;
        [checkout_timeout, wait_notice, reserve_timeout]
            .into_iter()
            .flatten()
            .any(|limit| limit < round)
    }

    fn serve_first(&mut self, server: S, now: Instant) -> Option<(W, S)> {
        match self.next_waiting() {
            Some(next) => {
                self.in_use += 1;
                Some((next.waiter, server))
            }
            None => {
                self.idle.push(Idle { server, since: now });
                None
            }
        }
    }

    fn next_waiting(&mut self) -> Option<Waiting<W>> {
        if self.is_paused {
            return None;
        }
        let next = self.waiting.pop_front();
        if self.waiting.is_empty() {
            self.waiting.shrink_to(QUEUE_KEPT);
        }
        next
    }

    /// The idle server whose turn it is, if one can be used unchecked.
    fn take_fresh(&mut self, now: Instant) -> Option<S> {
        if self.is_paused {
            return None;
        }
        let is_fresh = |idle: &Idle<S>| self.limits.is_fresh(idle.since, now);
        let at = match self.limits.turn {
            Turn::LastUsed => self.idle.iter().rposition(is_fresh),
            Turn::LongestIdle => self.idle.iter().position(is_fresh),
        }?;
        Some(self.idle.remove(at).server)
    }

    /// The idle server whose turn it is; there must be one.
    fn take_next(&mut self) -> S {
        self.idle.remove(self.next_idle()).server
    }

    fn next_idle(&self) -> usize {
        match self.limits.turn {
            Turn::LastUsed => self.idle.len() - 1,
            Turn::LongestIdle => 0,
        }
    }

    fn connected(&self) -> usize {
        self.idle.len() + self.in_use + self.checking
    }

    fn servers(&self) -> usize {
        self.connected() + self.connecting
    }
}

impl Limits {
    fn is_fresh(&self, since: Instant, now: Instant) -> bool {
        self.check_after
            .is_none_or(|after| now.saturating_duration_since(since) < after)
    }
}
