//! How a pool behaves: what `[pool]` says, what a database and a user say instead.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::Deserialize;

use super::choices::{ListenMode, LoadBalanceHosts, PoolMode, SessionState, UnnamedStatements};
use super::units::{Count, CountLimit, Number, PositiveTime, Time, TimeLimit};

/// How the check query is written that is empty (PgBouncer's word for it).
pub const EMPTY_QUERY: &str = "<empty>";

/// How one pool, that of a database and a user, behaves. The names and defaults are PgBouncer's where it has the setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// When a server goes back to the pool.
    pub mode: PoolMode,
    /// The most servers of the pool; `None` is as many as there are clients.
    pub size: Option<NonZeroUsize>,
    /// The servers that are kept open while the pool has a client, or its database a `user` of its own.
    pub min_size: usize,
    /// The servers beyond `size` for clients that have waited for `reserve_timeout`.
    pub reserve_size: usize,
    /// How long a client waits before it may have one of the reserve; `None` is for ever.
    pub reserve_timeout: Option<Duration>,
    /// The most servers of the database, over all its pools; `None` is as many as they have.
    pub max_database_connections: Option<NonZeroUsize>,
    /// The most clients of the database; `None` is as many as come.
    pub max_database_client_connections: Option<NonZeroUsize>,
    /// The most servers of the user, over all databases; `None` is as many as they have.
    pub max_user_connections: Option<NonZeroUsize>,
    /// The most clients of the user; `None` is as many as come.
    pub max_user_client_connections: Option<NonZeroUsize>,
    /// How long a client waits for a server (PgBouncer's `query_wait_timeout`); `None` is for ever.
    pub checkout_timeout: Option<Duration>,
    /// How long a client waits for a server before a notice tells it so; `None` is never.
    pub query_wait_notify: Option<Duration>,
    /// How long an unused server stays open; `None` is for ever.
    pub server_idle_timeout: Option<Duration>,
    /// How long connecting and logging in to a server may take.
    pub server_connect_timeout: Duration,
    /// How long after a connection that could not be made the next attempt is made.
    pub server_login_retry: Duration,
    /// The age at which a server is closed when it comes back; zero: after its first use, as in PgBouncer.
    pub server_lifetime: Duration,
    /// What a server that has rested for `server_check_delay` is asked before it is used; `None`: nothing.
    pub server_check_query: Option<Box<str>>,
    /// How long a server may rest and be used without being asked first.
    pub server_check_delay: Duration,
    /// Whether a client of a session pool loses a server that is to be closed as soon as it is not in a transaction.
    pub server_fast_close: bool,
    /// Whether the longest resting server is used next, not the last used one.
    pub server_round_robin: bool,
    /// What a new server is asked before it is used; `None`: nothing.
    pub connect_query: Option<Box<str>>,
    /// Which of several hosts is connected to.
    pub load_balance_hosts: LoadBalanceHosts,
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
    /// What becomes of unnamed statements in transaction mode.
    pub unnamed_statements: UnnamedStatements,
    /// What becomes of what a client leaves in a server's session, in transaction mode.
    pub session_state: SessionState,
    /// The most servers that stay with one client each, in transaction mode; 0: all but one.
    pub max_pinned_servers: usize,
    /// What becomes of LISTEN in transaction mode.
    pub listen_in_transaction_mode: ListenMode,
    /// Parameters that follow a client beside the usual ones, where the server reports them.
    pub track_extra_parameters: Vec<Box<str>>,
    /// Startup parameters that are left out.
    pub ignore_startup_parameters: Vec<Box<str>>,
    /// What a server runs between two clients of a session pool; `None`: nothing.
    pub server_reset_query: Option<Box<str>>,
    /// Whether it runs that in the other modes too, after each transaction.
    pub server_reset_query_always: bool,
    /// The most clients that wait for a server; the next one is refused.
    pub max_waiting_clients: NonZeroUsize,
}

/// The part of a pool's settings that is written at one place; `None` leaves it to the place before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "a table")]
pub struct PoolOverrides {
    pub(super) mode: Option<PoolMode>,
    pub(super) size: Option<CountLimit>,
    pub(super) min_size: Option<Number>,
    pub(super) reserve_size: Option<Number>,
    pub(super) reserve_timeout: Option<TimeLimit>,
    pub(super) max_database_connections: Option<CountLimit>,
    pub(super) max_database_client_connections: Option<CountLimit>,
    pub(super) max_user_connections: Option<CountLimit>,
    pub(super) max_user_client_connections: Option<CountLimit>,
    pub(super) checkout_timeout: Option<TimeLimit>,
    pub(super) query_wait_notify: Option<TimeLimit>,
    pub(super) server_idle_timeout: Option<TimeLimit>,
    pub(super) server_connect_timeout: Option<PositiveTime>,
    pub(super) server_login_retry: Option<Time>,
    pub(super) server_lifetime: Option<Time>,
    pub(super) server_check_query: Option<Box<str>>,
    pub(super) server_check_delay: Option<Time>,
    pub(super) server_fast_close: Option<bool>,
    pub(super) server_round_robin: Option<bool>,
    pub(super) connect_query: Option<Box<str>>,
    pub(super) load_balance_hosts: Option<LoadBalanceHosts>,
    pub(super) client_idle_timeout: Option<TimeLimit>,
    pub(super) idle_transaction_timeout: Option<TimeLimit>,
    pub(super) query_timeout: Option<TimeLimit>,
    pub(super) transaction_timeout: Option<TimeLimit>,
    pub(super) max_prepared_statements: Option<Number>,
    pub(super) unnamed_statements: Option<UnnamedStatements>,
    pub(super) session_state: Option<SessionState>,
    pub(super) max_pinned_servers: Option<Number>,
    pub(super) listen_in_transaction_mode: Option<ListenMode>,
    pub(super) track_extra_parameters: Option<Vec<Box<str>>>,
    pub(super) ignore_startup_parameters: Option<Vec<Box<str>>>,
    pub(super) server_reset_query: Option<Box<str>>,
    pub(super) server_reset_query_always: Option<bool>,
    pub(super) max_waiting_clients: Option<Count>,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            mode: PoolMode::Transaction,
            size: NonZeroUsize::new(20),
            min_size: 0,
            reserve_size: 0,
            reserve_timeout: Some(Duration::from_secs(5)),
            max_database_connections: None,
            max_database_client_connections: None,
            max_user_connections: None,
            max_user_client_connections: None,
            checkout_timeout: Some(Duration::from_secs(120)),
            query_wait_notify: Some(Duration::from_secs(5)),
            server_idle_timeout: Some(Duration::from_secs(600)),
            server_connect_timeout: Duration::from_secs(15),
            server_login_retry: Duration::from_secs(15),
            server_lifetime: Duration::from_secs(3600),
            server_check_query: Some(EMPTY_QUERY.into()),
            server_check_delay: Duration::from_secs(30),
            server_fast_close: false,
            server_round_robin: false,
            connect_query: None,
            load_balance_hosts: LoadBalanceHosts::RoundRobin,
            client_idle_timeout: None,
            idle_transaction_timeout: None,
            query_timeout: None,
            transaction_timeout: None,
            max_prepared_statements: 200,
            unnamed_statements: UnnamedStatements::Pass,
            session_state: SessionState::Track,
            max_pinned_servers: 0,
            listen_in_transaction_mode: ListenMode::Pin,
            track_extra_parameters: Vec::new(),
            ignore_startup_parameters: Vec::new(),
            server_reset_query: Some("DISCARD ALL".into()),
            server_reset_query_always: false,
            max_waiting_clients: const { NonZeroUsize::new(10_000).expect("not zero") },
        }
    }
}

impl PoolOverrides {
    /// The mode, where one is written here.
    pub fn mode(&self) -> Option<PoolMode> {
        self.mode
    }

    /// The size, where one is written here; 0 is without limit.
    pub fn size(&self) -> Option<usize> {
        self.size
            .as_ref()
            .map(|size| size.0.map_or(0, NonZeroUsize::get))
    }

    /// The size of the reserve, where one is written here.
    pub fn reserve_size(&self) -> Option<usize> {
        self.reserve_size.as_ref().map(|size| size.0)
    }
}

impl PoolSettings {
    /// The most servers that stay with one client each.
    pub fn pin_limit(&self) -> usize {
        match self.max_pinned_servers {
            0 => self.size.map_or(usize::MAX, |size| (size.get() - 1).max(1)),
            limit => limit,
        }
    }

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
        /// The same for a query: an empty one is none.
        macro_rules! query {
            ($name:ident) => {
                match &overrides.$name {
                    Some(query) => (!query.trim().is_empty()).then(|| query.clone()),
                    None => self.$name.clone(),
                }
            };
        }
        Self {
            mode: overrides.mode.unwrap_or(self.mode),
            size: setting!(size),
            min_size: setting!(min_size),
            reserve_size: setting!(reserve_size),
            reserve_timeout: setting!(reserve_timeout),
            max_database_connections: setting!(max_database_connections),
            max_database_client_connections: setting!(max_database_client_connections),
            max_user_connections: setting!(max_user_connections),
            max_user_client_connections: setting!(max_user_client_connections),
            checkout_timeout: setting!(checkout_timeout),
            query_wait_notify: setting!(query_wait_notify),
            server_idle_timeout: setting!(server_idle_timeout),
            server_connect_timeout: setting!(server_connect_timeout),
            server_login_retry: setting!(server_login_retry),
            server_lifetime: setting!(server_lifetime),
            server_check_query: query!(server_check_query),
            server_check_delay: setting!(server_check_delay),
            server_fast_close: overrides
                .server_fast_close
                .unwrap_or(self.server_fast_close),
            server_round_robin: overrides
                .server_round_robin
                .unwrap_or(self.server_round_robin),
            connect_query: query!(connect_query),
            load_balance_hosts: overrides
                .load_balance_hosts
                .unwrap_or(self.load_balance_hosts),
            client_idle_timeout: setting!(client_idle_timeout),
            idle_transaction_timeout: setting!(idle_transaction_timeout),
            query_timeout: setting!(query_timeout),
            transaction_timeout: setting!(transaction_timeout),
            max_prepared_statements: setting!(max_prepared_statements),
            unnamed_statements: overrides
                .unnamed_statements
                .unwrap_or(self.unnamed_statements),
            session_state: overrides.session_state.unwrap_or(self.session_state),
            max_pinned_servers: setting!(max_pinned_servers),
            listen_in_transaction_mode: overrides
                .listen_in_transaction_mode
                .unwrap_or(self.listen_in_transaction_mode),
            track_extra_parameters: listed!(track_extra_parameters),
            ignore_startup_parameters: listed!(ignore_startup_parameters),
            server_reset_query: query!(server_reset_query),
            server_reset_query_always: overrides
                .server_reset_query_always
                .unwrap_or(self.server_reset_query_always),
            max_waiting_clients: setting!(max_waiting_clients),
        }
    }
}
