//! When a client's queries and transactions begin and end in PgBouncer's way of counting, which dashboards go by.
//!
//! A query begins with the first message of a client that owes nothing, and ends when nothing is owed to it any more: a whole
//! pipeline is one query, and its wait for a server and a slow reader are part of it. A transaction begins with its first query.

use std::time::{Duration, Instant};

/// What goes on, and since when.
#[derive(Debug, Default)]
pub struct Ledger {
    query_since: Option<Instant>,
    transaction_since: Option<Instant>,
}

/// What has just begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nothing: it went on already.
    Nothing,
    /// A query of a transaction that goes on.
    Query,
    /// A transaction, with its first query.
    Transaction,
}

impl Ledger {
    /// Since when the query goes on, if one does.
    pub fn query_since(&self) -> Option<Instant> {
        self.query_since
    }

    /// The client waits for something: for a server, or for a reply.
    #[inline]
    pub fn on_busy(&mut self, now: Instant) -> Begun {
        if self.query_since.is_some() {
            return Begun::Nothing;
        }
        self.query_since = Some(now);
        match self.transaction_since {
            Some(_) => Begun::Query,
            None => {
                self.transaction_since = Some(now);
                Begun::Transaction
            }
        }
    }

    /// Nothing is owed to the client any more. How long the query took that has ended, if one went on.
    #[inline]
    pub fn on_answered(&mut self, now: Instant) -> Option<Duration> {
        let since = self.query_since.take()?;
        Some(now.saturating_duration_since(since))
    }

    /// No transaction is open any more. How long it took, if one went on.
    #[inline]
    pub fn on_transaction_end(&mut self, now: Instant) -> Option<Duration> {
        let since = self.transaction_since.take()?;
        Some(now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_holds_its_queries_and_what_lies_between_them() {
        let mut ledger = Ledger::default();
        let at = moments();
        assert_eq!(ledger.on_busy(at(0)), Begun::Transaction);
        assert_eq!(ledger.on_busy(at(1)), Begun::Nothing);
        assert_eq!(ledger.query_since(), Some(at(0)));
        assert_eq!(ledger.on_answered(at(2)), Some(Duration::from_secs(2)));
        assert_eq!(ledger.on_answered(at(3)), None);
        assert_eq!(ledger.on_busy(at(5)), Begun::Query);
        assert_eq!(ledger.on_answered(at(6)), Some(Duration::from_secs(1)));
        assert_eq!(
            ledger.on_transaction_end(at(6)),
            Some(Duration::from_secs(6))
        );
        assert_eq!(ledger.on_transaction_end(at(7)), None);
        assert_eq!(ledger.on_busy(at(8)), Begun::Transaction);
    }

    #[expect(clippy::disallowed_methods, reason = "std has no other moment")]
    fn moments() -> impl Fn(u64) -> Instant {
        let start = Instant::now();
        move |seconds| start + Duration::from_secs(seconds)
    }
}
