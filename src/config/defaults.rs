//! What holds where nothing is written.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::choices::{
    AuthMethod, CommentFormat, ErrorTexts, LogFormat, LogLevel, OnMissing, OnSigterm, Placement,
    PreparedChannel, SyslogFacility, WorkerCount,
};
use super::tls::{Tls, TlsMode};
use super::{
    Annotation, Auth, Database, Dns, Drain, Host, Http, Listen, Log, PoolSettings, SlowQuery, Tcp,
    Trace, Workers,
};
use super::{Share, Statistics};

const fn count(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).expect("not zero")
}

/// PgBouncer's port.
pub(super) const DEFAULT_PORT: u16 = 6432;

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            addresses: vec![loopback(DEFAULT_PORT)],
            reuse_port: false,
            unix_socket: None,
            peer_id: 0,
            max_client_connections: count(1000),
            login_timeout: Duration::from_secs(60),
            backlog: 128,
            max_unauthenticated_connections: count(1000),
            tls: Tls::of(TlsMode::Disable),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            address: Some(loopback(9127)),
            fold_unknown_names: true,
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            method: AuthMethod::ScramSha256,
            error_texts: ErrorTexts::PostgreSql,
            userlist: None,
            hba: None,
            ident: None,
            user: None,
            query: AUTH_QUERY.into(),
            dbname: None,
            cache_size: 10_000,
            cache_ttl: Duration::from_secs(10),
            scram_iterations: const { NonZeroU32::new(4096).expect("not zero") },
            failed_login_backoff: Duration::ZERO,
        }
    }
}

/// Names and operators are PostgreSQL's own, whatever the role's search_path says.
const AUTH_QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil OPERATOR(pg_catalog.<) pg_catalog.now() \
    THEN NULL ELSE rolpassword END FROM pg_catalog.pg_authid \
    WHERE rolname OPERATOR(pg_catalog.=) $1 AND rolcanlogin";

impl Default for Workers {
    fn default() -> Self {
        Self {
            count: WorkerCount::Fixed(NonZeroUsize::MIN),
            min_servers_each: count(8),
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            hosts: vec![Host::Tcp("127.0.0.1".into())],
            port: 5432,
            dbname: None,
            user: None,
            password: None,
            auth_user: None,
            auth_query: None,
            auth_dbname: None,
            tls: Tls::of(TlsMode::Prefer),
            tags: BTreeMap::new(),
            pool: PoolSettings::default(),
        }
    }
}

impl Default for Trace {
    fn default() -> Self {
        let tags = [
            "application",
            "route",
            "controller",
            "action",
            "framework",
            "db_driver",
        ];
        Self {
            on_missing: OnMissing::None,
            absorb_application_name: true,
            allowed_tags: tags.map(Box::from).to_vec(),
            max_tag_length: count(256),
            max_tracestate_length: count(512),
            stale_transactions: count(1000),
            stale_after: Duration::from_secs(3600),
        }
    }
}

impl Default for Annotation {
    fn default() -> Self {
        Self {
            enabled: true,
            format: CommentFormat::Sqlcommenter,
            placement: Placement::Suffix,
            max_query_bytes: count(1 << 20),
            unnamed_parse: false,
            prepared: PreparedChannel::None,
        }
    }
}

impl Default for SlowQuery {
    fn default() -> Self {
        Self {
            threshold: Duration::from_millis(100),
            wait_threshold: Duration::from_millis(100),
            log: true,
            ratio: Share::default(),
            text_limit: 100,
            masked: true,
        }
    }
}

impl Default for Statistics {
    fn default() -> Self {
        Self {
            max_statements: 1_000,
            max_traced_queries: 100_000,
            max_slow_queries: 200,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: LogLevel::Info,
            file: None,
            connections: true,
            disconnections: true,
            pooler_errors: true,
            stats: true,
            stats_period: Duration::from_secs(60),
            syslog: false,
            syslog_ident: "pgspan".into(),
            syslog_facility: SyslogFacility::Daemon,
        }
    }
}

/// A peer that vanished without a word is noticed after some minutes.
impl Default for Tcp {
    fn default() -> Self {
        Self {
            keepalive: true,
            keepalive_idle: Some(Duration::from_secs(120)),
            keepalive_interval: Some(Duration::from_secs(30)),
            keepalive_retries: NonZeroUsize::new(4),
            user_timeout: None,
        }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            max_ttl: Duration::from_secs(15),
            nxdomain_ttl: Duration::from_secs(15),
        }
    }
}

impl Default for Drain {
    /// Less than the 30 s after which Kubernetes kills what is still there: the goodbye stays ours.
    fn default() -> Self {
        Self {
            on_sigterm: OnSigterm::Drain,
            timeout: Some(Duration::from_secs(25)),
        }
    }
}
