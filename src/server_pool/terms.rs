//! What a pool goes by: settings, policies, and where its servers are. Replaced whole on reload.

use std::sync::Arc;

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
}

impl Terms {
    /// What the pool may hold.
    pub fn limits(&self) -> Limits {
        let settings = &self.settings;
        Limits {
            size: settings.size,
            min_size: settings.min_size,
            reserve_size: settings.reserve_size,
            reserve_timeout: settings.reserve_timeout,
            max_waiting: settings.max_waiting_clients.get(),
            checkout_timeout: settings.checkout_timeout,
            wait_notice: settings.query_wait_notify,
            server_idle_timeout: settings.server_idle_timeout,
            server_lifetime: settings.server_lifetime,
            login_retry: settings.server_login_retry,
            check_after: settings
                .server_check_query
                .is_some()
                .then_some(settings.server_check_delay),
            turn: match settings.server_round_robin {
                true => Turn::LongestIdle,
                false => Turn::LastUsed,
            },
        }
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
