//! A pool that is spread over workers: what its parts know of each other, and servers on their way from one to another.
//!
//! Each worker has a part of its own: servers, a queue, and clients that never leave it. A part whose clients wait says so. Another
//! one gives it a server that rests, at once where the part has none that would come back, else after [`PATIENCE`]; and one that
//! comes back to clients of its own, where the other's first one has waited for [`OVERTAKING`] longer.
//!
//! [`PATIENCE`]: crate::pool::PATIENCE
//! [`OVERTAKING`]: crate::pool::OVERTAKING

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::pool::Need;
use crate::pool::budget::Account;
use crate::schema_changes::SchemaChanges;
use crate::server::moving::Moving;

/// The pools of all workers, as far as their parts know of each other.
#[derive(Debug)]
pub struct Spreads {
    /// Rung for a worker when a server comes, or one is wanted of it.
    bells: Arc<[Arc<Notify>]>,
    /// Times are counted from here.
    began: Instant,
    /// As many as there are pools, which are never forgotten either.
    pools: Mutex<HashMap<Account, Arc<Spread>>>,
    /// What they know of their databases.
    pub schema_changes: SchemaChanges,
}

/// What the parts of one pool know of each other.
pub struct Spread {
    bells: Arc<[Arc<Notify>]>,
    began: Instant,
    parts: Box<[Part]>,
}

/// A part of a pool, as the others see it. In cache lines of its own: it is written to for each query that waits.
#[derive(Default)]
#[repr(align(128))]
struct Part {
    /// Clients that were dealt to its worker.
    clients: AtomicUsize,
    /// Clients that wait, for whom no server is being checked.
    waiting: AtomicUsize,
    /// Since when the first one does, in nanoseconds.
    waiting_since: AtomicU64,
    /// Whether no server is there that would come back to them.
    is_urgent: AtomicBool,
    /// Servers that rest.
    resting: AtomicUsize,
    /// Servers that have come: at most as many as clients waited when they were sent.
    incoming: Mutex<Vec<Moving>>,
}

/// A client's place at a worker; given up when it is dropped.
#[derive(Debug)]
pub struct Seat {
    spread: Arc<Spread>,
    worker: usize,
}

/// A part's own view of its pool's others.
#[derive(Debug)]
pub struct Share {
    spread: Arc<Spread>,
    worker: usize,
}

impl Spreads {
    /// Of so many workers.
    pub fn new(workers: usize, began: Instant) -> Self {
        Self {
            bells: (0..workers).map(|_| Arc::default()).collect(),
            began,
            pools: Mutex::default(),
            schema_changes: SchemaChanges::default(),
        }
    }

    /// What is rung for a worker.
    pub fn bell(&self, worker: usize) -> Arc<Notify> {
        self.bells.get(worker).map(Arc::clone).unwrap_or_default()
    }

    /// One worker's view of a pool. `None` where there is no other worker.
    pub fn share(&self, account: &Account, worker: usize) -> Option<Share> {
        let spread = self.spread(account)?;
        Some(Share { spread, worker })
    }

    /// A place for a client at that of these workers which has the fewest of the pool's. `None` where there is but one.
    pub fn seat(&self, account: &Account, among: impl Iterator<Item = usize>) -> Option<Seat> {
        let spread = self.spread(account)?;
        let clients = |worker: &usize| spread.clients(*worker).map(|clients| clients.load(Relaxed));
        let worker = among.min_by_key(clients)?;
        spread.clients(worker)?.fetch_add(1, Relaxed);
        Some(Seat { spread, worker })
    }

    fn spread(&self, account: &Account) -> Option<Arc<Spread>> {
        if self.bells.len() < 2 {
            return None;
        }
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pools.get(account) {
            return Some(Arc::clone(known));
        }
        let spread = Arc::new(Spread {
            bells: Arc::clone(&self.bells),
            began: self.began,
            parts: self.bells.iter().map(|_| Part::default()).collect(),
        });
        pools.insert(account.clone(), Arc::clone(&spread));
        Some(spread)
    }
}

impl Spread {
    fn clients(&self, worker: usize) -> Option<&AtomicUsize> {
        self.parts.get(worker).map(|part| &part.clients)
    }
}

impl Seat {
    /// Which worker it is at.
    pub fn worker(&self) -> usize {
        self.worker
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(clients) = self.spread.clients(self.worker) {
            clients.fetch_sub(1, Relaxed);
        }
    }
}

impl Share {
    /// These clients wait here.
    pub fn tell_waiting(&self, need: Option<Need>) {
        let own = self.own();
        let Some(need) = need else {
            if own.waiting.load(Relaxed) > 0 {
                own.waiting.store(0, SeqCst);
            }
            return;
        };
        let nanos = need.since.saturating_duration_since(self.spread.began);
        let nanos = u64::try_from(nanos.as_nanos()).unwrap_or(u64::MAX);
        own.waiting_since.store(nanos, SeqCst);
        own.is_urgent.store(need.is_urgent, SeqCst);
        // In one order with what the others say of servers that rest: either they see that somebody waits, or we see those.
        own.waiting.store(need.clients, SeqCst);
    }

    /// So many servers rest here.
    pub fn tell_resting(&self, resting: usize) {
        self.own().resting.store(resting, SeqCst);
    }

    /// Asks those for a server where some rest.
    pub fn ask(&self) {
        for (worker, part) in self.others() {
            if part.resting.load(SeqCst) > 0 {
                self.ring(worker);
            }
        }
    }

    /// The other part whose first client has waited longest; `None` where nobody waits.
    pub fn neediest(&self) -> Option<(usize, Need)> {
        let needs = self.others().filter_map(|(worker, part)| {
            let clients = part.waiting.load(SeqCst);
            let since = Duration::from_nanos(part.waiting_since.load(SeqCst));
            let need = Need {
                clients,
                since: self.spread.began + since,
                is_urgent: part.is_urgent.load(SeqCst),
            };
            (clients > 0).then_some((worker, need))
        });
        needs.min_by_key(|(_, need)| need.since)
    }

    /// Sends a server to another part. It comes back where as many are on their way there already as clients wait.
    pub fn send(&self, worker: usize, server: Box<Moving>) -> Result<(), Box<Moving>> {
        let Some(part) = self.spread.parts.get(worker) else {
            return Err(server);
        };
        let mut incoming = part.incoming();
        if incoming.len() >= part.waiting.load(SeqCst) {
            return Err(server);
        }
        incoming.push(*server);
        drop(incoming);
        self.ring(worker);
        Ok(())
    }

    /// Whether another part takes one more server.
    pub fn takes(&self, worker: usize) -> bool {
        let part = self.spread.parts.get(worker);
        part.is_some_and(|part| part.incoming().len() < part.waiting.load(SeqCst))
    }

    /// The servers that have come.
    pub fn take_incoming(&self) -> Vec<Moving> {
        std::mem::take(&mut *self.own().incoming())
    }

    fn own(&self) -> &Part {
        let own = self.spread.parts.get(self.worker);
        own.expect("there is a part for each worker")
    }

    fn others(&self) -> impl Iterator<Item = (usize, &Part)> {
        let parts = self.spread.parts.iter().enumerate();
        parts.filter(|(worker, _)| *worker != self.worker)
    }

    fn ring(&self, worker: usize) {
        if let Some(bell) = self.spread.bells.get(worker) {
            bell.notify_one();
        }
    }
}

impl Part {
    fn incoming(&self) -> MutexGuard<'_, Vec<Moving>> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spread").finish_non_exhaustive()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any time will do")]
mod tests {
    use super::*;

    fn account() -> Account {
        Account {
            database: "shop".into(),
            user: "ann".into(),
        }
    }

    #[test]
    fn clients_are_dealt_to_the_worker_with_the_fewest() {
        let spreads = Spreads::new(3, Instant::now());
        let seat = || spreads.seat(&account(), 0..3).unwrap();
        let seats = [seat(), seat(), seat(), seat()];
        assert_eq!([0, 1, 2, 0], seats.each_ref().map(Seat::worker));
        let [_first, second, third, _fourth] = seats;
        drop(second);
        assert_eq!(seat().worker(), 1);
        drop(third);
        assert_eq!(spreads.seat(&account(), 0..2).unwrap().worker(), 1);
    }

    #[test]
    fn a_single_worker_shares_with_nobody() {
        let spreads = Spreads::new(1, Instant::now());
        assert!(spreads.share(&account(), 0).is_none());
        assert!(spreads.seat(&account(), 0..1).is_none());
    }

    #[test]
    fn the_part_whose_client_has_waited_longest_is_the_neediest() {
        let began = Instant::now();
        let spreads = Spreads::new(3, began);
        let [one, two, three] = [0, 1, 2].map(|worker| spreads.share(&account(), worker).unwrap());
        assert!(one.neediest().is_none());
        let need = |clients, millis| Need {
            clients,
            since: began + Duration::from_millis(millis),
            is_urgent: millis == 10,
        };
        two.tell_waiting(Some(need(4, 20)));
        three.tell_waiting(Some(need(1, 10)));
        assert_eq!(one.neediest(), Some((2, need(1, 10))));
        assert_eq!(three.neediest(), Some((1, need(4, 20))));
        three.tell_waiting(None);
        assert_eq!(one.neediest(), Some((1, need(4, 20))));
    }

    #[test]
    fn only_parts_with_resting_servers_are_asked() {
        let spreads = Spreads::new(3, Instant::now());
        let [one, two, _] = [0, 1, 2].map(|worker| spreads.share(&account(), worker).unwrap());
        two.tell_resting(1);
        one.ask();
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let is_rung = |worker| {
            let bell = spreads.bell(worker);
            let mut rung = std::pin::pin!(bell.notified());
            rung.as_mut().poll(&mut cx).is_ready()
        };
        assert_eq!([0, 1, 2].map(is_rung), [false, true, false]);
    }
}
