//! How long a client may say nothing, and how long it may keep a server.
//!
//! The settings are PgBouncer's, and so are the texts and the SQLSTATE, which people match on.

use std::time::{Duration, Instant};

use crate::protocol::error_response::{ErrorResponse, SqlState};

/// The limits of a pool's clients. `None` is for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeLimits {
    /// Of silence between transactions.
    pub client_idle: Option<Duration>,
    /// Of silence within a transaction.
    pub idle_transaction: Option<Duration>,
    /// Of a query, from its leaving for the server to the end of its reply.
    pub query: Option<Duration>,
    /// Of a transaction, from its first message to its end.
    pub transaction: Option<Duration>,
}

/// What a client has done for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Since when nobody owes it a reply and it has said nothing.
    pub silent_since: Option<Instant>,
    /// Since when the oldest of its queries is with the server.
    pub query_since: Option<Instant>,
    /// Since when it has been in a transaction; a query on its own is one too.
    pub transaction_since: Option<Instant>,
}

/// A limit that was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeLimit {
    /// `client_idle_timeout`
    ClientIdle,
    /// `idle_transaction_timeout`
    IdleTransaction,
    /// `query_timeout`
    Query,
    /// `transaction_timeout`
    Transaction,
}

impl TimeLimits {
    /// Whether there is none.
    pub fn are_off(&self) -> bool {
        *self == Self::default()
    }

    /// The limit that is passed first if all stays as it is, and when.
    pub fn next(&self, standing: Standing) -> Option<(Instant, TimeLimit)> {
        let silence = match standing.transaction_since {
            Some(_) => (self.idle_transaction, TimeLimit::IdleTransaction),
            None => (self.client_idle, TimeLimit::ClientIdle),
        };
        [
            (standing.silent_since, silence),
            (standing.query_since, (self.query, TimeLimit::Query)),
            (
                standing.transaction_since,
                (self.transaction, TimeLimit::Transaction),
            ),
        ]
        .into_iter()
        .filter_map(|(since, (limit, name))| Some((since?.checked_add(limit?)?, name)))
        .min_by_key(|(at, _)| *at)
    }
}

impl TimeLimit {
    /// PgBouncer's words for it, to the client and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientIdle => "client_idle_timeout",
            Self::IdleTransaction => "idle transaction timeout",
            Self::Query => "query timeout",
            Self::Transaction => "transaction timeout",
        }
    }

    /// What the client reads before its connection is closed.
    pub fn response(self) -> ErrorResponse {
        ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    const ALL: TimeLimits = TimeLimits {
        client_idle: Some(Duration::from_secs(60)),
        idle_transaction: Some(Duration::from_secs(10)),
        query: Some(Duration::from_secs(5)),
        transaction: Some(Duration::from_secs(30)),
    };

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn silence_between_transactions_is_the_clients_and_within_one_the_transactions() {
        let start = start();
        let rests = Standing {
            silent_since: Some(start),
            ..Standing::default()
        };
        assert_eq!(
            ALL.next(rests),
            Some((start + 60 * SECOND, TimeLimit::ClientIdle))
        );
        let in_transaction = Standing {
            transaction_since: Some(start),
            ..rests
        };
        assert_eq!(
            ALL.next(in_transaction),
            Some((start + 10 * SECOND, TimeLimit::IdleTransaction))
        );
    }

    #[test]
    fn the_limit_that_comes_first_counts() {
        let start = start();
        let queries = |after: u32| Standing {
            query_since: Some(start + after * SECOND),
            transaction_since: Some(start),
            silent_since: None,
        };
        assert_eq!(
            ALL.next(queries(2)),
            Some((start + 7 * SECOND, TimeLimit::Query))
        );
        assert_eq!(
            ALL.next(queries(26)),
            Some((start + 30 * SECOND, TimeLimit::Transaction))
        );
    }

    #[test]
    fn without_limits_nothing_ends() {
        let standing = Standing {
            silent_since: Some(start()),
            query_since: Some(start()),
            transaction_since: Some(start()),
        };
        assert_eq!(TimeLimits::default().next(standing), None);
        let endless = TimeLimits {
            query: Some(Duration::MAX),
            ..TimeLimits::default()
        };
        assert_eq!(endless.next(standing), None);
        assert!(TimeLimits::default().are_off());
        assert!(!ALL.are_off());
    }

    #[test]
    fn each_says_what_pgbouncer_says() {
        let told = |limit: TimeLimit| {
            let response = limit.response();
            (response.code, response.message)
        };
        for (limit, words) in [
            (TimeLimit::ClientIdle, "client_idle_timeout"),
            (TimeLimit::IdleTransaction, "idle transaction timeout"),
            (TimeLimit::Query, "query timeout"),
            (TimeLimit::Transaction, "transaction timeout"),
        ] {
            assert_eq!(told(limit), (SqlState::PROTOCOL_VIOLATION, words.into()));
        }
    }
}
