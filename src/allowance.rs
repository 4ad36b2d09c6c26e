//! How many connections there may be over all pools and workers: a shared count, and those who wait for room.
//!
//! The count is exact: it is changed under a lock, when a connection is made or closed, never per query.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::pool::budget::{Account, Budget, Ceilings, Full, Kept};

/// The connections that databases and users may have together.
#[derive(Debug, Default)]
pub struct Allowances {
    state: Mutex<State>,
    /// Whether anybody waits for room; looked at without the lock when a server comes to rest.
    is_wanted: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    budget: Budget,
    wants: Vec<Want>,
    /// One of each worker.
    bells: Vec<Arc<Notify>>,
}

/// How much longer than a pool's own clients somebody else's have waited for room before one of its servers goes for them that its
/// own still ask for: as much of the order between them is given up for connections that stay.
pub const OVERTAKING: Duration = Duration::from_millis(100);

/// Somebody found no room.
#[derive(Clone, Debug)]
struct Want {
    account: Arc<Account>,
    full: Full,
    /// Since when its first client waits.
    since: Instant,
    /// Rung when there is room.
    bell: Arc<Notify>,
    /// Somebody closes a connection for it already: the room that it leaves is nobody else's.
    is_promised: bool,
}

/// A connection that counts; not any more when this is dropped.
pub struct Allowance {
    allowances: Arc<Allowances>,
    account: Arc<Account>,
}

impl Allowances {
    /// A worker takes part: its bell is rung when others need room.
    pub fn join(&self, bell: Arc<Notify>) {
        self.lock().bells.push(bell);
    }

    /// One more connection.
    ///
    /// # Errors
    /// What has as many as it may.
    pub fn take(
        self: &Arc<Self>,
        account: &Arc<Account>,
        ceilings: Ceilings,
    ) -> Result<Allowance, Full> {
        let mut state = self.lock();
        let kept = |full| {
            let is_others = |want: &&Want| {
                want.is_promised
                    && want.full == full
                    && *want.account != **account
                    && account.makes_room_for(&want.account, full)
            };
            state.wants.iter().filter(is_others).count()
        };
        let kept = Kept {
            database: kept(Full::Database),
            user: kept(Full::User),
        };
        state.budget.take(account, ceilings, kept)?;
        drop(state);
        Ok(Allowance {
            allowances: Arc::clone(self),
            account: Arc::clone(account),
        })
    }

    /// There was no room for `account`, whose first client waits since then: whoever can is to make some, and `bell` is rung when
    /// there is.
    ///
    /// Between finding none and saying so, some may have been made: ask once more afterwards.
    pub fn want(&self, account: &Arc<Account>, full: Full, since: Instant, bell: &Arc<Notify>) {
        let mut state = self.lock();
        state.wants.retain(|want| !want.is_of(account, bell));
        state.wants.push(Want {
            account: Arc::clone(account),
            full,
            since,
            bell: Arc::clone(bell),
            is_promised: false,
        });
        // Parts of one pool know of each other what they want: see [`crate::spread`].
        if full != Full::Pool {
            for other in &state.bells {
                if !Arc::ptr_eq(other, bell) {
                    other.notify_one();
                }
            }
        }
        self.is_wanted.store(true, Ordering::Relaxed);
    }

    /// It is not wanted any more.
    pub fn unwant(&self, account: &Account, bell: &Arc<Notify>) {
        let mut state = self.lock();
        state.wants.retain(|want| !want.is_of(account, bell));
        // Room that was kept for it may be there for others.
        for want in &state.wants {
            if account.makes_room_for(&want.account, want.full) {
                want.bell.notify_one();
            }
        }
        self.is_wanted
            .store(!state.wants.is_empty(), Ordering::Relaxed);
    }

    /// Who wants room that nobody makes yet.
    pub fn wanted(&self) -> Vec<(Arc<Account>, Full)> {
        if !self.is_wanted.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let state = self.lock();
        let open = state.wants.iter().filter(|want| !want.is_promised);
        open.map(|want| (Arc::clone(&want.account), want.full))
            .collect()
    }

    /// Whether the caller is the one to close a connection of `own`, that nobody asks for, for somebody else: then nobody else does.
    pub fn promise(&self, own: &Account) -> bool {
        self.promise_if(own, |_| true)
    }

    /// The same of a connection that clients of its own wait for, since then: for who has waited for [`OVERTAKING`] longer.
    #[inline]
    pub fn promise_ahead_of(&self, own: &Account, since: Instant) -> bool {
        self.promise_if(own, |want| want.since + OVERTAKING < since)
    }

    #[inline]
    fn promise_if(&self, own: &Account, is_due: impl Fn(&Want) -> bool) -> bool {
        if !self.is_wanted.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = self.lock();
        let want = state.wants.iter_mut().find(|want| {
            !want.is_promised
                && *want.account != *own
                && own.makes_room_for(&want.account, want.full)
                && is_due(want)
        });
        want.is_some_and(|want| !std::mem::replace(&mut want.is_promised, true))
    }

    /// The connections of a pool.
    pub fn of_pool(&self, account: &Account) -> usize {
        self.lock().budget.of_pool(account)
    }

    /// The connections of a database.
    pub fn of_database(&self, name: &str) -> usize {
        self.lock().budget.of_database(name)
    }

    /// The connections of a user.
    pub fn of_user(&self, name: &str) -> usize {
        self.lock().budget.of_user(name)
    }

    fn give_back(&self, account: &Account) {
        let mut state = self.lock();
        state.budget.give_back(account);
        for want in &state.wants {
            if account.makes_room_for(&want.account, want.full) {
                want.bell.notify_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Want {
    /// Whether the worker with this bell wants it.
    fn is_of(&self, account: &Account, bell: &Arc<Notify>) -> bool {
        Arc::ptr_eq(&self.bell, bell) && *self.account == *account
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        self.allowances.give_back(&self.account);
    }
}

impl fmt::Debug for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Allowance").field(&self.account).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    #[expect(clippy::disallowed_methods, reason = "std has no other moment")]
    fn now() -> Instant {
        Instant::now()
    }

    use super::*;

    fn account(user: &str) -> Arc<Account> {
        Arc::new(Account {
            database: "shop".into(),
            user: user.into(),
        })
    }

    const ONE: Ceilings = Ceilings {
        pool: None,
        database: NonZeroUsize::new(1),
        user: None,
    };

    #[test]
    fn a_connection_that_is_dropped_does_not_count() {
        let allowances = Arc::new(Allowances::default());
        let first = allowances.take(&account("ann"), ONE).unwrap();
        assert_eq!(
            allowances.take(&account("bob"), ONE).unwrap_err(),
            Full::Database
        );
        assert_eq!(allowances.of_database("shop"), 1);
        drop(first);
        assert!(allowances.take(&account("bob"), ONE).is_ok());
    }

    #[test]
    fn one_connection_is_closed_for_one_want() {
        let now = now();
        let allowances = Arc::new(Allowances::default());
        let bell = Arc::new(Notify::new());
        allowances.want(&account("bob"), Full::Database, now, &bell);
        assert!(!allowances.promise(&account("bob")), "its own are in use");
        assert!(allowances.promise(&account("ann")));
        assert!(!allowances.promise(&account("cyd")));
        assert!(allowances.wanted().is_empty());
        allowances.want(&account("bob"), Full::Database, now, &bell);
        assert!(
            allowances.promise(&account("cyd")),
            "somebody else was faster"
        );
        allowances.unwant(&account("bob"), &bell);
        assert!(!allowances.promise(&account("ann")));
    }

    #[test]
    fn who_has_waited_longer_gets_the_room_though_others_ask_for_the_server() {
        let began = now();
        let allowances = Arc::new(Allowances::default());
        let bell = Arc::new(Notify::new());
        let [ann, bob, cyd] = ["ann", "bob", "cyd"].map(account);
        let anns = allowances.take(&ann, ONE).unwrap();
        allowances.want(&bob, Full::Database, began, &bell);
        assert!(!allowances.promise_ahead_of(&ann, began + OVERTAKING));
        let later = began + OVERTAKING + Duration::from_nanos(1);
        assert!(allowances.promise_ahead_of(&ann, later));
        assert!(!allowances.promise_ahead_of(&ann, later), "once is enough");
        drop(anns);
        for other in [&ann, &cyd] {
            let full = allowances.take(other, ONE).unwrap_err();
            assert_eq!(full, Full::Database, "the room is bob's");
        }
        let bobs = allowances.take(&bob, ONE).unwrap();
        allowances.unwant(&bob, &bell);
        drop(bobs);
        assert!(allowances.take(&ann, ONE).is_ok());
    }

    #[test]
    fn room_that_is_not_wanted_any_more_is_there_for_others() {
        let allowances = Arc::new(Allowances::default());
        let [bobs, anns] = [(); 2].map(|()| Arc::new(Notify::new()));
        let [ann, bob] = ["ann", "bob"].map(account);
        let now = now();
        allowances.want(&bob, Full::Database, now, &bobs);
        assert!(allowances.promise(&ann));
        assert!(allowances.take(&ann, ONE).is_err());
        allowances.want(&ann, Full::Database, now, &anns);
        allowances.unwant(&bob, &bobs);
        let rung = std::pin::pin!(anns.notified()).enable();
        assert!(rung);
        assert!(allowances.take(&ann, ONE).is_ok());
    }
}
