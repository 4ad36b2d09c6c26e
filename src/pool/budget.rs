//! How many connections a database and a user may have together over all their pools, and a pool over all its parts.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroUsize;

/// Connections by pool, by database and by user. A pool belongs to one of each.
#[derive(Debug, Default)]
pub struct Budget {
    pools: HashMap<Account, usize>,
    databases: HashMap<Box<str>, usize>,
    users: HashMap<Box<str>, usize>,
}

/// Whose connections are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Account {
    /// The database.
    pub database: Box<str>,
    /// The user.
    pub user: Box<str>,
}

/// How many there may be; `None` is as many as there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ceilings {
    /// For the pool itself, where more than one worker connects for it.
    pub pool: Option<NonZeroUsize>,
    /// For the database.
    pub database: Option<NonZeroUsize>,
    /// For the user.
    pub user: Option<NonZeroUsize>,
}

/// How many of those that there may be are kept for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Of the database's.
    pub database: usize,
    /// Of the user's.
    pub user: usize,
}

/// As many are there as may be: of the pool, of the database, or of the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Full {
    /// Of the pool.
    Pool,
    /// Of the database.
    Database,
    /// Of the user.
    User,
}

impl Budget {
    /// One more.
    ///
    /// # Errors
    /// What has as many as it may; nothing is counted then.
    pub fn take(&mut self, account: &Account, ceilings: Ceilings, kept: Kept) -> Result<(), Full> {
        let is_full = |count: usize, ceiling: Option<NonZeroUsize>| {
            ceiling.is_some_and(|ceiling| count >= ceiling.get())
        };
        if is_full(self.of_pool(account), ceilings.pool) {
            return Err(Full::Pool);
        }
        if is_full(
            self.of_database(&account.database) + kept.database,
            ceilings.database,
        ) {
            return Err(Full::Database);
        }
        if is_full(self.of_user(&account.user) + kept.user, ceilings.user) {
            return Err(Full::User);
        }
        match self.pools.get_mut(account) {
            Some(count) => *count += 1,
            None => drop(self.pools.insert(account.clone(), 1)),
        }
        for (counts, name) in [
            (&mut self.databases, &account.database),
            (&mut self.users, &account.user),
        ] {
            *counts.entry(name.clone()).or_default() += 1;
        }
        Ok(())
    }

    /// One fewer.
    pub fn give_back(&mut self, account: &Account) {
        one_fewer(&mut self.pools, account);
        one_fewer(&mut self.databases, &*account.database);
        one_fewer(&mut self.users, &*account.user);
    }

    /// How many a pool has.
    pub fn of_pool(&self, account: &Account) -> usize {
        self.pools.get(account).copied().unwrap_or(0)
    }

    /// How many a database has.
    pub fn of_database(&self, name: &str) -> usize {
        self.databases.get(name).copied().unwrap_or(0)
    }

    /// How many a user has.
    pub fn of_user(&self, name: &str) -> usize {
        self.users.get(name).copied().unwrap_or(0)
    }
}

fn one_fewer<K, Q>(counts: &mut HashMap<K, usize>, key: &Q)
where
    K: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    match counts.get_mut(key) {
        Some(count) if *count > 1 => *count -= 1,
        Some(_) => drop(counts.remove(key)),
        None => debug_assert!(false, "gave back what was not taken"),
    }
}

impl Account {
    /// Whether giving back one of theirs makes room where `other` found none.
    pub fn makes_room_for(&self, other: &Self, full: Full) -> bool {
        match full {
            Full::Pool => self == other,
            Full::Database => self.database == other.database,
            Full::User => self.user == other.user,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(database: &str, user: &str) -> Account {
        Account {
            database: database.into(),
            user: user.into(),
        }
    }

    const TWO: Ceilings = Ceilings {
        pool: None,
        database: NonZeroUsize::new(2),
        user: NonZeroUsize::new(2),
    };

    #[test]
    fn a_databases_pools_share_what_it_may_have() {
        let mut budget = Budget::default();
        assert_eq!(
            budget.take(&account("shop", "ann"), TWO, Kept::default()),
            Ok(())
        );
        assert_eq!(
            budget.take(&account("shop", "bob"), TWO, Kept::default()),
            Ok(())
        );
        assert_eq!(
            budget.take(&account("shop", "cyd"), TWO, Kept::default()),
            Err(Full::Database)
        );
        budget.give_back(&account("shop", "ann"));
        assert_eq!(
            budget.take(&account("shop", "cyd"), TWO, Kept::default()),
            Ok(())
        );
    }

    #[test]
    fn a_users_pools_share_what_the_user_may_have() {
        let mut budget = Budget::default();
        assert_eq!(
            budget.take(&account("shop", "ann"), TWO, Kept::default()),
            Ok(())
        );
        assert_eq!(
            budget.take(&account("wiki", "ann"), TWO, Kept::default()),
            Ok(())
        );
        assert_eq!(
            budget.take(&account("blog", "ann"), TWO, Kept::default()),
            Err(Full::User)
        );
        assert_eq!(budget.of_database("blog"), 0);
        assert_eq!(budget.of_user("ann"), 2);
    }

    #[test]
    fn a_pools_parts_share_what_it_may_have() {
        let mut budget = Budget::default();
        let one = Ceilings {
            pool: NonZeroUsize::new(1),
            ..Ceilings::default()
        };
        let (ann, bob) = (account("shop", "ann"), account("shop", "bob"));
        assert_eq!(budget.take(&ann, one, Kept::default()), Ok(()));
        assert_eq!(budget.take(&ann, one, Kept::default()), Err(Full::Pool));
        assert_eq!(budget.take(&bob, one, Kept::default()), Ok(()));
        assert_eq!((budget.of_pool(&ann), budget.of_database("shop")), (1, 2));
        budget.give_back(&ann);
        assert_eq!(budget.of_pool(&ann), 0);
        assert_eq!(budget.take(&ann, one, Kept::default()), Ok(()));
    }

    #[test]
    fn without_a_ceiling_it_only_counts() {
        let mut budget = Budget::default();
        for _ in 0..5 {
            assert_eq!(
                budget.take(
                    &account("shop", "ann"),
                    Ceilings::default(),
                    Kept::default()
                ),
                Ok(())
            );
        }
        assert_eq!(budget.of_database("shop"), 5);
    }

    #[test]
    fn room_is_made_within_the_database_or_the_user() {
        let (ann, bob) = (account("shop", "ann"), account("shop", "bob"));
        assert!(ann.makes_room_for(&bob, Full::Database));
        assert!(!ann.makes_room_for(&bob, Full::User));
    }
}
