//! What a pool goes by: settings, policies, and where its servers are. Replaced whole on reload.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::Refusal;
use crate::config::choices::LoadBalanceHosts;
use crate::config::{Dns, PoolSettings, Tcp};
use crate::pool::{Limits, Turn};
use crate::server::ServerTarget;
use crate::session::requests::RequestPolicy;
use crate::session::time_limits::TimeLimits;
use crate::session::trace::TracePolicy;
use crate::telemetry::slow_query::PoolIdentity;

/// What a pool goes by, until the next reload.
#[derive(Debug)]
pub struct Terms {
    /// Whose pool it is.
    pub identity: Arc<PoolIdentity>,
    /// How it behaves.
    pub settings: PoolSettings,
    /// How requests are treated.
    pub policy: RequestPolicy,
    /// How trace contexts of clients that log in from now on are treated.
    pub trace_policy: Arc<TracePolicy>,
    /// Where its servers are, and who logs in there.
    pub target: ServerTarget,
    /// Whether its database has a user of its own, so that it is known whose servers to keep without a client.
    pub has_own_user: bool,
    /// How its connections are kept.
    pub tcp: Tcp,
    /// How long it holds where the names of its servers lead.
    pub dns: Dns,
    /// How much of the pool this is.
    pub fraction: Fraction,
}

/// How much of a pool lives on one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    /// Which part it is; `None`: of a pool that lives elsewhere by now.
    pub part: Option<usize>,
    /// How many parts there are.
    pub of: NonZeroUsize,
}

impl Fraction {
    /// Its part of so many that are needed together: all parts' add up to that.
    fn of_needed(self, count: usize) -> usize {
        let rest = |part| usize::from(part < count % self.of);
        self.part.map_or(0, |part| count / self.of + rest(part))
    }

    /// Its part of so many that are allowed together, rounded up.
    fn of_allowed(self, count: usize) -> usize {
        count.div_ceil(self.of.get())
    }
}

impl Terms {
    /// What the pool may hold.
    pub fn limits(&self) -> Limits {
        let settings = &self.settings;
        Limits {
            size: settings.size,
            min_size: self.fraction.of_needed(settings.min_size),
            reserve_size: settings.reserve_size,
            reserve_timeout: settings.reserve_timeout,
            max_waiting: self.fraction.of_allowed(settings.max_waiting_clients.get()),
            checkout_timeout: self.patience().map(|(timeout, _)| timeout),
            wait_notice: settings.query_wait_notify,
            server_idle_timeout: settings.server_idle_timeout,
            server_lifetime: settings.server_lifetime,
            login_retry: settings.server_login_retry,
            check_after: settings
                .server_check_query
                .is_some()
                .then_some(settings.server_check_delay),
            connects_in_turn: self.target.addresses.len() > 1
                && settings.load_balance_hosts == LoadBalanceHosts::Disable,
            turn: match settings.server_round_robin {
                true => Turn::LongestIdle,
                false => Turn::LastUsed,
            },
        }
    }

    /// How long a client waits for a server, and what it is told then. A query's time begins with the waiting.
    pub fn patience(&self) -> Option<(Duration, Refusal)> {
        let settings = &self.settings;
        let waiting = settings.checkout_timeout.map(|it| (it, Refusal::TimedOut));
        let query = settings
            .query_timeout
            .map(|it| (it, Refusal::QueryTimedOut));
        waiting.into_iter().chain(query).min_by_key(|(it, _)| *it)
    }

    /// The most servers that stay with one client each.
    pub fn pin_limit(&self) -> usize {
        // All parts' add up to it, so that some server stays free; a part that clients are still at has one.
        self.fraction.of_needed(self.settings.pin_limit()).max(1)
    }

    /// How long its clients may take.
    pub fn time_limits(&self) -> TimeLimits {
        let settings = &self.settings;
        TimeLimits {
            client_idle: settings.client_idle_timeout,
            idle_transaction: settings.idle_transaction_timeout,
            query: settings.query_timeout,
            transaction: settings.transaction_timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_pool_add_up() {
        let parts = |count| {
            [Some(0), Some(1), Some(2), None].map(|part| {
                let of = NonZeroUsize::new(3).unwrap();
                let fraction = Fraction { part, of };
                (fraction.of_needed(count), fraction.of_allowed(count))
            })
        };
        assert_eq!(parts(7), [(3, 3), (2, 3), (2, 3), (0, 3)]);
        assert_eq!(parts(1), [(1, 1), (0, 1), (0, 1), (0, 1)]);
    }
}
