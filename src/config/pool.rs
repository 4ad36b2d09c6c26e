//! How a pool behaves: what `[pool]` says, what a database and a user say instead.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::Deserialize;

use super::choices::PoolMode;
use super::units::{Count, Number, PositiveTime, Time, TimeLimit};

/// How one pool, that of a database and a user, behaves. The names and defaults are PgBouncer's where it has the setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// When a server goes back to the pool.
    pub mode: PoolMode,
    /// The most servers of the pool.
    pub size: NonZeroUsize,
    /// How long a client waits for a server (PgBouncer's `query_wait_timeout`); `None` is for ever.
    pub checkout_timeout: Option<Duration>,
    /// How long an unused server stays open; `None` is for ever.
    pub server_idle_timeout: Option<Duration>,
    /// How long connecting and logging in to a server may take.
    pub server_connect_timeout: Duration,
    /// The age at which a server is closed when it comes back; zero: after its first use, as in PgBouncer.
    pub server_lifetime: Duration,
    /// How long a client may say nothing between transactions; `None` is for ever.
    pub client_idle_timeout: Option<Duration>,
    /// How long a client may say nothing within a transaction; `None` is for ever.
    pub idle_transaction_timeout: Option<Duration>,
    /// How long a query may be with the server; `None` is for ever.
    pub query_timeout: Option<Duration>,
    /// How long a transaction may take; `None` is for ever.
    pub transaction_timeout: Option<Duration>,
    /// The most prepared statements that a server keeps for its clients; 0: names are not mapped.
    pub max_prepared_statements: usize,
    /// Parameters that follow a client beside the usual ones, where the server reports them.
    pub track_extra_parameters: Vec<Box<str>>,
    /// Startup parameters that are left out.
    pub ignore_startup_parameters: Vec<Box<str>>,
    /// What a server runs between two clients of a session pool; `None`: nothing.
    pub server_reset_query: Option<Box<str>>,
    /// The most clients that wait for a server; the next one is refused.
    pub max_waiting_clients: NonZeroUsize,
}

/// The part of a pool's settings that is written at one place; `None` leaves it to the place before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct PoolOverrides {
    pub(super) mode: Option<PoolMode>,
    pub(super) size: Option<Count>,
    pub(super) checkout_timeout: Option<TimeLimit>,
    pub(super) server_idle_timeout: Option<TimeLimit>,
    pub(super) server_connect_timeout: Option<PositiveTime>,
    pub(super) server_lifetime: Option<Time>,
    pub(super) client_idle_timeout: Option<TimeLimit>,
    pub(super) idle_transaction_timeout: Option<TimeLimit>,
    pub(super) query_timeout: Option<TimeLimit>,
    pub(super) transaction_timeout: Option<TimeLimit>,
    pub(super) max_prepared_statements: Option<Number>,
    pub(super) track_extra_parameters: Option<Vec<Box<str>>>,
    pub(super) ignore_startup_parameters: Option<Vec<Box<str>>>,
    pub(super) server_reset_query: Option<Box<str>>,
    pub(super) max_waiting_clients: Option<Count>,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            mode: PoolMode::Transaction,
            size: const { NonZeroUsize::new(20).expect("not zero") },
            checkout_timeout: Some(Duration::from_secs(120)),
            server_idle_timeout: Some(Duration::from_secs(600)),
            server_connect_timeout: Duration::from_secs(15),
            server_lifetime: Duration::from_secs(3600),
            client_idle_timeout: None,
            idle_transaction_timeout: None,
            query_timeout: None,
            transaction_timeout: None,
            max_prepared_statements: 200,
            track_extra_parameters: Vec::new(),
            ignore_startup_parameters: Vec::new(),
            server_reset_query: Some("DISCARD ALL".into()),
            max_waiting_clients: const { NonZeroUsize::new(10_000).expect("not zero") },
        }
    }
}

impl PoolSettings {
    /// These, save what `overrides` says.
    pub fn overridden_by(&self, overrides: &PoolOverrides) -> Self {
        /// The written value in the type of the setting, or the setting as it is.
        macro_rules! setting {
            ($name:ident) => {
                match &overrides.$name {
                    Some(written) => written.0,
                    None => self.$name,
                }
            };
        }
        macro_rules! listed {
            ($name:ident) => {
                overrides.$name.as_ref().unwrap_or(&self.$name).clone()
            };
        }
        Self {
            mode: overrides.mode.unwrap_or(self.mode),
            size: setting!(size),
            checkout_timeout: setting!(checkout_timeout),
            server_idle_timeout: setting!(server_idle_timeout),
            server_connect_timeout: setting!(server_connect_timeout),
            server_lifetime: setting!(server_lifetime),
            client_idle_timeout: setting!(client_idle_timeout),
            idle_transaction_timeout: setting!(idle_transaction_timeout),
            query_timeout: setting!(query_timeout),
            transaction_timeout: setting!(transaction_timeout),
            max_prepared_statements: setting!(max_prepared_statements),
            track_extra_parameters: listed!(track_extra_parameters),
            ignore_startup_parameters: listed!(ignore_startup_parameters),
            server_reset_query: match &overrides.server_reset_query {
                Some(query) => (!query.trim().is_empty()).then(|| query.clone()),
                None => self.server_reset_query.clone(),
            },
            max_waiting_clients: setting!(max_waiting_clients),
        }
    }
}
