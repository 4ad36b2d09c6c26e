//! What a pool goes by: settings, policies, and where its servers are. Replaced whole on reload.

use std::sync::Arc;

use crate::config::PoolSettings;
use crate::pool::Limits;
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
}

impl Terms {
    /// What the pool may hold.
    pub fn limits(&self) -> Limits {
        let settings = &self.settings;
        Limits {
            size: settings.size.get(),
            max_waiting: settings.max_waiting_clients.get(),
            checkout_timeout: settings.checkout_timeout,
            server_idle_timeout: settings.server_idle_timeout,
            server_lifetime: settings.server_lifetime,
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
