//! What the pools of one worker share: the limits that span pools, who has to make room for whom, and what an administrator ordered.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use super::{Refusal, ServerPool};
use crate::allowance::Allowances;
use crate::pool::budget::{Account, Full};
use crate::resolver::Resolver;
use crate::telemetry::labels::ServerClose;
use crate::telemetry::metrics::ProcessMetrics;

/// What the pools of one worker share.
#[derive(Debug)]
pub struct Neighbours {
    /// The time.
    pub clock: fn() -> Instant,
    /// Told when a client begins to wait whose wait may end before the next round.
    pub on_waiting: Notify,
    /// What is counted for the process.
    pub process: Arc<ProcessMetrics>,
    /// Where names of servers lead.
    pub resolver: Resolver,
    /// The servers that there may be over all pools and workers.
    pub allowances: Arc<Allowances>,
    /// Rung when there may be room for a server, when room is wanted, and by other parts of this worker's pools.
    pub bell: Arc<Notify>,
    pools: RefCell<Vec<Weak<ServerPool>>>,
    orders: RefCell<Orders>,
}

/// What an administrator ordered. It holds for pools that are made later too.
#[derive(Debug, Default)]
struct Orders {
    all_paused: bool,
    paused: HashSet<Box<str>>,
    disabled: HashSet<Box<str>>,
}

impl Neighbours {
    /// Nobody yet.
    pub fn new(
        clock: fn() -> Instant,
        process: Arc<ProcessMetrics>,
        allowances: Arc<Allowances>,
        bell: Arc<Notify>,
    ) -> Self {
        allowances.join(Arc::clone(&bell));
        Self {
            clock,
            on_waiting: Notify::new(),
            process,
            resolver: Resolver::new(clock),
            allowances,
            bell,
            pools: RefCell::default(),
            orders: RefCell::default(),
        }
    }

    /// A pool was made.
    pub(super) fn add(&self, pool: &Rc<ServerPool>) {
        self.pools.borrow_mut().push(Rc::downgrade(pool));
    }

    /// The pools of a database, or all.
    pub fn pools(&self, database: Option<&str>) -> Vec<Rc<ServerPool>> {
        let pools = self.pools.borrow();
        let all = pools.iter().filter_map(Weak::upgrade);
        all.filter(|pool| database.is_none_or(|name| name == &*pool.account.database))
            .collect()
    }

    /// Closes the one server that has rested longest among those whose closing makes room for `account`. Whether there was one.
    pub(super) fn evict(&self, account: &Account, full: Full) -> bool {
        let pools = self.pools(None).into_iter();
        let others = pools.filter(|pool| pool.account.makes_room_for(account, full));
        let resting = others.filter_map(|pool| Some((pool.oldest_rest()?, pool)));
        let longest = resting.min_by_key(|(since, _)| *since);
        longest.is_some_and(|(_, pool)| pool.evict())
    }

    /// The bell was rung: there may be room for those who wait here, and room may be wanted elsewhere.
    pub fn on_bell(&self) {
        let now = (self.clock)();
        for (account, full) in self.allowances.wanted() {
            let pools = self.pools(None).into_iter();
            let may_give = |pool: &Rc<ServerPool>| {
                *pool.account != *account
                    && pool.account.makes_room_for(&account, full)
                    && pool.oldest_rest().is_some()
            };
            if let Some(pool) = pools.filter(may_give).min_by_key(|pool| pool.oldest_rest())
                && self.allowances.promise(&pool.account)
            {
                pool.evict();
            }
        }
        for pool in self.pools(None) {
            pool.on_bell(now);
        }
    }

    /// Whether nobody of this database is given a server.
    pub fn is_paused(&self, database: &str) -> bool {
        let orders = self.orders.borrow();
        orders.all_paused || orders.paused.contains(database)
    }

    /// Whether no new client may use this database.
    pub fn is_disabled(&self, database: &str) -> bool {
        self.orders.borrow().disabled.contains(database)
    }

    /// PAUSE: nobody is given a server of the database, or of any. Ready when all servers in use have come back and are closed.
    pub async fn pause(&self, database: Option<&str>) {
        match database {
            Some(name) => drop(self.orders.borrow_mut().paused.insert(name.into())),
            None => self.orders.borrow_mut().all_paused = true,
        }
        for pool in self.pools(database) {
            pool.pause();
        }
        for pool in self.pools(database) {
            pool.released().await;
        }
    }

    /// RESUME, for the database or for all. Whether anything was paused.
    pub fn resume(&self, database: Option<&str>) -> bool {
        let was_paused = {
            let orders = &mut *self.orders.borrow_mut();
            match database {
                Some(name) => orders.paused.remove(name),
                None => {
                    let any = !orders.paused.is_empty();
                    orders.paused.clear();
                    std::mem::take(&mut orders.all_paused) || any
                }
            }
        };
        for pool in self.pools(database) {
            if !self.is_paused(&pool.account.database) {
                pool.resume();
            }
        }
        was_paused
    }

    /// RECONNECT: every server of the database, or of all, is replaced when it comes back.
    pub fn reconnect(&self, database: Option<&str>) {
        for pool in self.pools(database) {
            pool.reconnect();
        }
    }

    /// WAIT_CLOSE: ready when every server that was to be replaced is closed.
    pub async fn wait_close(&self, database: Option<&str>) {
        for pool in self.pools(database) {
            pool.all_replaced().await;
        }
    }

    /// DISABLE: no new client may use the database.
    pub fn disable(&self, database: &str) {
        self.orders.borrow_mut().disabled.insert(database.into());
    }

    /// ENABLE: new clients may use the database again.
    pub fn enable(&self, database: &str) {
        self.orders.borrow_mut().disabled.remove(database);
    }

    /// KILL: the database is paused, and its servers that rest are closed. Its clients are to be sent away by the caller.
    pub fn kill(&self, database: Option<&str>) {
        match database {
            Some(name) => drop(self.orders.borrow_mut().paused.insert(name.into())),
            None => self.orders.borrow_mut().all_paused = true,
        }
        for pool in self.pools(database) {
            pool.pause();
            pool.turn_away_waiting(&Refusal::Removed);
        }
    }
}

impl ServerPool {
    /// Since when its longest resting server rests.
    fn oldest_rest(&self) -> Option<Instant> {
        self.pool.borrow().oldest_rest()
    }

    /// Closes the server that has rested longest, for another pool's sake. Whether there was one.
    fn evict(&self) -> bool {
        let evicted = self.pool.borrow_mut().evict();
        let is_evicted = evicted.is_some();
        if let Some(server) = evicted {
            self.close(server, ServerClose::Evicted);
        }
        is_evicted
    }
}
