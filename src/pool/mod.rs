//! Who gets which server: a pool's idle servers, its queue of waiting clients, and its limits.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// What a pool may hold, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Servers at most, those being connected included.
    pub size: usize,
    /// Clients that may wait at a time.
    pub max_waiting: usize,
    /// How long a client may wait; `None` is for ever.
    pub checkout_timeout: Option<Duration>,
    /// How long a server may stay idle; `None` is for ever.
    pub server_idle_timeout: Option<Duration>,
    /// How old an idle server may be before it is closed.
    pub server_lifetime: Duration,
}

/// The servers `S` of one database and user, and the clients `W` that wait for one.
///
/// A server is idle, in use, or being connected. Nobody waits while a server is idle; whoever waited longest is served first.
#[derive(Debug)]
pub struct Pool<S, W> {
    limits: Limits,
    /// Most recently used last: taking the last lets the others grow old enough to be closed.
    idle: Vec<Idle<S>>,
    /// Longest waiting first.
    waiting: VecDeque<Waiting<W>>,
    in_use: usize,
    connecting: usize,
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
}

/// What came of asking for a server.
#[derive(Debug, PartialEq, Eq)]
pub enum Checkout<S> {
    /// This server is yours.
    Use(S),
    /// You wait, and the caller has to make one more connection for the pool.
    Connect,
    /// You wait: every server that the pool may have is in use or being connected.
    Wait,
    /// The queue is full: you can't even wait.
    QueueFull,
}

/// How many servers and clients there are, for the gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Servers that nobody uses.
    pub idle: usize,
    /// Servers that are linked to a client, or being reset.
    pub in_use: usize,
    /// Servers that are being connected.
    pub connecting: usize,
    /// Clients that wait.
    pub waiting: usize,
}

impl<S, W> Pool<S, W> {
    /// An empty pool.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            idle: Vec::new(),
            waiting: VecDeque::new(),
            in_use: 0,
            connecting: 0,
        }
    }

    /// What it may hold.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Holds to other limits from now on. Servers beyond a smaller size leave as they come back.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// How many there are of each.
    pub fn occupancy(&self) -> Occupancy {
        Occupancy {
            idle: self.idle.len(),
            in_use: self.in_use,
            connecting: self.connecting,
            waiting: self.waiting.len(),
        }
    }

    /// Since when the client in front of the queue waits.
    pub fn oldest_wait(&self) -> Option<Instant> {
        self.waiting.front().map(|waiting| waiting.since)
    }

    /// A client asks for a server. `waiter` is only made, and queued, if there is none at once.
    pub fn checkout(&mut self, waiter: impl FnOnce() -> W, now: Instant) -> Checkout<S> {
        // Whoever waits already comes first.
        if self.waiting.is_empty()
            && let Some(idle) = self.idle.pop()
        {
            self.in_use += 1;
            return Checkout::Use(idle.server);
        }
        if self.waiting.len() >= self.limits.max_waiting {
            return Checkout::QueueFull;
        }
        self.waiting.push_back(Waiting {
            waiter: waiter(),
            since: now,
        });
        if self.connect_if_wanted() {
            Checkout::Connect
        } else {
            Checkout::Wait
        }
    }

    /// A server comes back, clean: to the client that waited longest, who is returned with it, or to rest.
    #[must_use = "the waiter has to be given its server"]
    pub fn checkin(&mut self, server: S, now: Instant) -> Option<(W, S)> {
        if let Some(next) = self.waiting.pop_front() {
            return Some((next.waiter, server));
        }
        debug_assert!(self.in_use > 0, "checked in what was not checked out");
        self.in_use -= 1;
        self.idle.push(Idle { server, since: now });
        None
    }

    /// A connection that [`Checkout::Connect`] or [`Pool::on_lost`] asked for was made: it is in use until it is checked in.
    pub fn on_connected(&mut self) {
        debug_assert!(self.connecting > 0, "connected without having been asked");
        self.connecting -= 1;
        self.in_use += 1;
    }

    /// A connection could not be made. Where the pool has no server left that could still serve them,
    /// those who wait are returned: they are to be told why.
    pub fn on_connect_failed(&mut self) -> Vec<W> {
        debug_assert!(self.connecting > 0, "failed without having been asked");
        self.connecting -= 1;
        if self.in_use > 0 || self.connecting > 0 {
            return Vec::new();
        }
        self.remove_waiting()
    }

    /// A server that was in use is gone. Whether the caller has to make another connection for those who wait.
    #[must_use = "somebody may be waiting for the connection"]
    pub fn on_lost(&mut self) -> bool {
        debug_assert!(self.in_use > 0, "lost what was not checked out");
        self.in_use -= 1;
        self.connect_if_wanted()
    }

    /// Some time has passed. Whether the caller has to make a connection for those who still wait, after one could not be made.
    #[must_use = "somebody waits for the connection"]
    pub fn retries(&mut self) -> bool {
        self.connect_if_wanted()
    }

    /// Takes out the idle servers that `is_gone` says can't be used any more.
    pub fn remove_idle(&mut self, mut is_gone: impl FnMut(&mut S) -> bool) -> Vec<S> {
        let gone = self.idle.extract_if(.., |idle| is_gone(&mut idle.server));
        gone.map(|idle| idle.server).collect()
    }

    /// Takes out the idle servers that have been idle, or alive, for too long. `connected_at` tells a server's age.
    pub fn remove_aged(&mut self, connected_at: impl Fn(&S) -> Instant, now: Instant) -> Vec<S> {
        let Limits {
            server_idle_timeout,
            server_lifetime,
            ..
        } = self.limits;
        let aged = self.idle.extract_if(.., |idle| {
            let age = now.saturating_duration_since(connected_at(&idle.server));
            let idle_for = now.saturating_duration_since(idle.since);
            age >= server_lifetime || server_idle_timeout.is_some_and(|limit| idle_for >= limit)
        });
        aged.map(|idle| idle.server).collect()
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

    /// Takes out every client that waits.
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

    fn connect_if_wanted(&mut self) -> bool {
        let servers = self.idle.len() + self.in_use + self.connecting;
        let wanted = self.connecting < self.waiting.len() && servers < self.limits.size;
        self.connecting += usize::from(wanted);
        wanted
    }
}
