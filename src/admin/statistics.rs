//! What PgBouncer counts for each database, and its averages over `stats_period`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::telemetry::instrument::Number;
use crate::telemetry::metrics::PoolMetrics;
use crate::telemetry::registry::Registry;

/// What is counted of one database, or of all. Times are in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) assignments: u64,
    pub(super) transactions: u64,
    pub(super) queries: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) transaction_time: u64,
    pub(super) query_time: u64,
    pub(super) wait_time: u64,
    pub(super) client_parses: u64,
    pub(super) server_parses: u64,
    pub(super) binds: u64,
    pub(super) logins: u64,
}

/// Counted by database.
pub(super) type ByDatabase = BTreeMap<Box<str>, Totals>;

/// What was counted at the last two rounds. Averages are those since the older one.
#[derive(Debug)]
pub(super) struct History {
    older: (Instant, ByDatabase),
    newer: (Instant, ByDatabase),
}

impl Totals {
    fn of(pool: &PoolMetrics) -> Self {
        let own = &pool.pgbouncer;
        let microseconds = |nanoseconds: &dyn Fn() -> u64| nanoseconds() / 1000;
        Self {
            assignments: own.assignments.value(),
            transactions: own.transactions.value(),
            queries: own.queries.value(),
            received: pool.client_received_bytes.value(),
            sent: pool.server_received_bytes.value(),
            transaction_time: microseconds(&|| own.transaction_time.value()),
            query_time: microseconds(&|| own.query_time.value()),
            wait_time: microseconds(&|| own.wait_time.value()),
            client_parses: pool.client_parses.value(),
            server_parses: pool.server_parses.value(),
            binds: pool.binds.value(),
            logins: own.logins.value(),
        }
    }

    /// In the order of PgBouncer's columns.
    pub(super) fn in_order(&self) -> [u64; 12] {
        [
            self.assignments,
            self.transactions,
            self.queries,
            self.received,
            self.sent,
            self.transaction_time,
            self.query_time,
            self.wait_time,
            self.client_parses,
            self.server_parses,
            self.binds,
            self.logins,
        ]
    }

    /// Takes in what is counted elsewhere.
    pub(super) fn add(&mut self, other: &Self) {
        self.assignments += other.assignments;
        self.transactions += other.transactions;
        self.queries += other.queries;
        self.received += other.received;
        self.sent += other.sent;
        self.transaction_time += other.transaction_time;
        self.query_time += other.query_time;
        self.wait_time += other.wait_time;
        self.client_parses += other.client_parses;
        self.server_parses += other.server_parses;
        self.binds += other.binds;
        self.logins += other.logins;
    }

    /// Numbers per second, and times per transaction, query and assignment, as they were in `elapsed` since `old`.
    pub(super) fn averages(&self, old: &Self, elapsed: Duration) -> Self {
        let elapsed = u128::from(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
        if elapsed == 0 {
            return Self::default();
        }
        let per_second = |new: u64, old: u64| {
            let average = 1_000_000 * u128::from(new.saturating_sub(old)) / elapsed;
            u64::try_from(average).unwrap_or(u64::MAX)
        };
        let per_one = |new: u64, old: u64, new_count: u64, old_count: u64| {
            let count = new_count.saturating_sub(old_count);
            new.saturating_sub(old).checked_div(count).unwrap_or(0)
        };
        Self {
            assignments: per_second(self.assignments, old.assignments),
            transactions: per_second(self.transactions, old.transactions),
            queries: per_second(self.queries, old.queries),
            received: per_second(self.received, old.received),
            sent: per_second(self.sent, old.sent),
            transaction_time: per_one(
                self.transaction_time,
                old.transaction_time,
                self.transactions,
                old.transactions,
            ),
            query_time: per_one(self.query_time, old.query_time, self.queries, old.queries),
            wait_time: per_one(
                self.wait_time,
                old.wait_time,
                self.assignments,
                old.assignments,
            ),
            client_parses: per_second(self.client_parses, old.client_parses),
            server_parses: per_second(self.server_parses, old.server_parses),
            binds: per_second(self.binds, old.binds),
            logins: per_second(self.logins, old.logins),
        }
    }

    /// PgBouncer's line in the log.
    pub(super) fn in_words(&self) -> String {
        let Self {
            transactions,
            queries,
            client_parses,
            server_parses,
            binds,
            received,
            sent,
            transaction_time,
            query_time,
            wait_time,
            ..
        } = self;
        format!(
            "stats: {transactions} xacts/s, {queries} queries/s, {client_parses} client parses/s, {server_parses} server parses/s, \
             {binds} binds/s, in {received} B/s, out {sent} B/s, xact {transaction_time} us, query {query_time} us, wait {wait_time} us"
        )
    }
}

/// What is counted now.
pub(super) fn count(registry: &Registry) -> ByDatabase {
    let mut counted = ByDatabase::new();
    for ((database, _), workers) in registry.pools_by_name() {
        let totals = counted.entry(Box::from(&*database)).or_default();
        for pool in &workers {
            totals.add(&Totals::of(Arc::as_ref(pool)));
        }
    }
    counted
}

/// All databases together.
pub(super) fn sum(counted: &ByDatabase) -> Totals {
    let mut all = Totals::default();
    counted.values().for_each(|totals| all.add(totals));
    all
}

impl History {
    /// Nothing was counted before `now`. As in PgBouncer, the first averages are those of a second.
    pub(super) fn new(now: Instant) -> Self {
        let before = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        Self {
            older: (before, ByDatabase::new()),
            newer: (now, ByDatabase::new()),
        }
    }

    /// A period is over.
    pub(super) fn turn(&mut self, counted: ByDatabase, now: Instant) {
        self.older = std::mem::replace(&mut self.newer, (now, counted));
    }

    /// The averages of a database until now.
    pub(super) fn averages(&self, database: &str, totals: &Totals, now: Instant) -> Totals {
        let (since, counted) = &self.older;
        let old = counted.get(database).copied().unwrap_or_default();
        totals.averages(&old, now.saturating_duration_since(*since))
    }

    /// The averages of all databases together until now.
    pub(super) fn averages_of_all(&self, counted: &ByDatabase, now: Instant) -> Totals {
        let (since, old) = &self.older;
        sum(counted).averages(&sum(old), now.saturating_duration_since(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_per_second_per_transaction_per_query_and_per_assignment() {
        let old = Totals {
            transactions: 10,
            queries: 20,
            query_time: 1000,
            ..Totals::default()
        };
        let new = Totals {
            assignments: 5,
            transactions: 30,
            queries: 60,
            received: 2_000,
            sent: 1_000,
            transaction_time: 400,
            query_time: 5_000,
            wait_time: 100,
            logins: 1,
            ..Totals::default()
        };
        let averages = new.averages(&old, Duration::from_secs(2));
        assert_eq!(
            averages,
            Totals {
                assignments: 2,
                transactions: 10,
                queries: 20,
                received: 1_000,
                sent: 500,
                transaction_time: 20,
                query_time: 100,
                wait_time: 20,
                ..Totals::default()
            }
        );
        assert_eq!(new.averages(&old, Duration::ZERO), Totals::default());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "std has no other moment")]
    fn averages_reach_back_to_the_round_before_the_last() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let totals = |queries| Totals {
            queries,
            ..Totals::default()
        };
        let counted = |queries| ByDatabase::from([("app".into(), totals(queries))]);
        let mut history = History::new(start);
        assert_eq!(history.averages("app", &totals(50), after(4)).queries, 10);
        history.turn(counted(100), after(10));
        assert_eq!(history.averages("app", &totals(150), after(15)).queries, 10);
        history.turn(counted(200), after(20));
        assert_eq!(history.averages("app", &totals(300), after(30)).queries, 10);
        assert_eq!(
            history.averages_of_all(&counted(300), after(30)).queries,
            10
        );
    }

    #[test]
    fn the_line_in_the_log_is_pgbouncers() {
        let averages = Totals {
            transactions: 1,
            queries: 2,
            received: 3,
            sent: 4,
            transaction_time: 5,
            query_time: 6,
            wait_time: 7,
            ..Totals::default()
        };
        assert_eq!(
            averages.in_words(),
            "stats: 1 xacts/s, 2 queries/s, 0 client parses/s, 0 server parses/s, 0 binds/s, in 3 B/s, out 4 B/s, xact 5 us, query 6 us, wait 7 us"
        );
    }
}
