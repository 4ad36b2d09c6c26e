//! PgBouncer's settings and what they are here: one row each, which the translation, its documentation and `SET` share.

use super::values::Kind;

/// A setting of `[pgbouncer]`.
#[derive(Debug)]
pub struct Setting {
    /// Its name.
    pub key: &'static str,
    /// What it is where nothing is written; `None`: nothing.
    pub default: Option<&'static str>,
    /// What it is here.
    pub(super) effect: Effect,
    /// What a user of it should know.
    pub note: &'static str,
}

/// What a setting is here.
#[derive(Debug)]
pub(super) enum Effect {
    /// This key, with the same meaning.
    Same(&'static str, Kind),
    /// This key, which does not mean quite the same.
    Mapped(&'static str, Kind),
    /// Part of these keys, which several settings make together.
    Together(&'static str),
    /// Nothing.
    None,
}

impl Setting {
    /// `same`, `mapped` or `no effect`.
    pub fn grade(&self) -> &'static str {
        match self.effect {
            Effect::Same(..) => "same",
            Effect::Mapped(..) | Effect::Together(_) => "mapped",
            Effect::None => "no effect",
        }
    }

    /// The keys of config.toml that it becomes.
    pub fn becomes(&self) -> Option<&'static str> {
        match self.effect {
            Effect::Same(key, _) | Effect::Mapped(key, _) | Effect::Together(key) => Some(key),
            Effect::None => None,
        }
    }
}

const fn same(
    key: &'static str,
    default: &'static str,
    here: &'static str,
    kind: Kind,
    note: &'static str,
) -> Setting {
    Setting {
        key,
        default: Some(default),
        effect: Effect::Same(here, kind),
        note,
    }
}

const fn mapped(
    key: &'static str,
    default: &'static str,
    here: &'static str,
    kind: Kind,
    note: &'static str,
) -> Setting {
    Setting {
        key,
        default: Some(default),
        effect: Effect::Mapped(here, kind),
        note,
    }
}

const fn together(
    key: &'static str,
    default: &'static str,
    here: &'static str,
    note: &'static str,
) -> Setting {
    Setting {
        key,
        default: Some(default),
        effect: Effect::Together(here),
        note,
    }
}

const fn none(key: &'static str, default: &'static str, why: &'static str) -> Setting {
    Setting {
        key,
        default: Some(default),
        effect: Effect::None,
        note: why,
    }
}

/// The setting of this name.
pub fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

const AUTH_QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL ELSE rolpassword END FROM pg_catalog.pg_authid WHERE rolname=$1 AND rolcanlogin";

const AUTH_TYPES: &[(&str, &str)] = &[
    ("any", "any"),
    ("trust", "trust"),
    ("plain", "password"),
    ("md5", "md5"),
    ("cert", "cert"),
    ("hba", "hba"),
    ("scram-sha-256", "scram-sha-256"),
];

pub(super) const POOL_MODES: &[(&str, &str)] = &[
    ("session", "session"),
    ("transaction", "transaction"),
    ("statement", "statement"),
];

pub(super) const LOAD_BALANCE_HOSTS: &[(&str, &str)] =
    &[("round-robin", "round-robin"), ("disable", "disable")];

const SSL_MODES: &[(&str, &str)] = &[
    ("disable", "disable"),
    ("allow", "allow"),
    ("prefer", "prefer"),
    ("require", "require"),
    ("verify-ca", "verify-ca"),
    ("verify-full", "verify-full"),
];

const LEVELS: &[(&str, &str)] = &[
    ("0", "info"),
    ("1", "debug"),
    ("2", "trace"),
    ("3", "trace"),
];

const KERNEL: &str = "the kernel's own way is kept";
const RUSTLS: &str = "rustls chooses";

/// All of them, by name.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    same("admin_users", "", "console.admin_users", Kind::Names, ""),
    none("application_name_add_host", "0", "the client's address is in SHOW CLIENTS, in the log and in spans"),
    same("auth_dbname", "", "auth.dbname", Kind::Text, ""),
    same("auth_file", "", "auth.userlist", Kind::File, ""),
    same("auth_hba_file", "", "auth.hba_file", Kind::File, "read with auth_type = hba only, as in PgBouncer"),
    same("auth_ident_file", "", "auth.ident_file", Kind::File, ""),
    none("auth_ldap_options", "", "LDAP is not supported"),
    same("auth_query", AUTH_QUERY, "auth.query", Kind::Text, "its answers are not kept (auth.cache_ttl = \"0\")"),
    same("auth_type", "md5", "auth.method", Kind::Word(AUTH_TYPES), "pam and ldap are refused"),
    same("auth_user", "", "auth.user", Kind::Text, ""),
    none("autodb_idle_timeout", "3600", "an unused database of `*` costs nothing but its pool's metrics"),
    none("cancel_wait_timeout", "10", "a cancel request is passed on at once, on a connection of its own"),
    same("client_idle_timeout", "0", "pool.client_idle_timeout", Kind::Seconds, ""),
    same("client_login_timeout", "60", "listen.login_timeout", Kind::PositiveSeconds, ""),
    mapped("client_tls13_ciphers", "", "listen.tls.ciphers", Kind::Ciphers, "together with client_tls_ciphers"),
    same("client_tls_ca_file", "", "listen.tls.ca", Kind::File, ""),
    same("client_tls_cert_file", "", "listen.tls.cert", Kind::File, ""),
    mapped("client_tls_ciphers", "default", "listen.tls.ciphers", Kind::Ciphers, "names only; OpenSSL's keywords and operators mean all that rustls finds good"),
    none("client_tls_dheparams", "auto", RUSTLS),
    none("client_tls_ecdhcurve", "auto", RUSTLS),
    same("client_tls_key_file", "", "listen.tls.key", Kind::File, ""),
    together("client_tls_protocols", "secure", "listen.tls.min_protocol, listen.tls.max_protocol", "TLS 1.2 and 1.3 are all that there is"),
    same("client_tls_sslmode", "disable", "listen.tls.mode", Kind::Word(SSL_MODES), ""),
    none("conffile", "", "a reload reads the file that was named on the command line"),
    same("default_pool_size", "20", "pool.size", Kind::Count, ""),
    none("disable_pqexec", "0", "several statements in a query are always let through"),
    same("dns_max_ttl", "15", "dns.max_ttl", Kind::Seconds, ""),
    same("dns_nxdomain_ttl", "15", "dns.nxdomain_ttl", Kind::Seconds, ""),
    none("dns_zone_check_period", "0", "the serial numbers of zones are not looked at; names are resolved anew after dns_max_ttl"),
    same("idle_transaction_timeout", "0", "pool.idle_transaction_timeout", Kind::Seconds, ""),
    same("ignore_startup_parameters", "", "pool.ignore_startup_parameters", Kind::Names, ""),
    none("job_name", "pgbouncer", "it names a Windows service"),
    together("listen_addr", "", "listen.address", "names are resolved when pgspan starts"),
    same("listen_backlog", "128", "listen.backlog", Kind::Count, ""),
    together("listen_port", "6432", "listen.address, listen.unix_socket_port", ""),
    same("log_connections", "1", "log.connections", Kind::Flag, ""),
    same("log_disconnections", "1", "log.disconnections", Kind::Flag, ""),
    same("log_pooler_errors", "1", "log.pooler_errors", Kind::Flag, ""),
    same("log_stats", "1", "log.stats", Kind::Flag, ""),
    same("logfile", "", "log.file", Kind::File, "opened again on SIGHUP and RELOAD"),
    same("max_client_conn", "100", "listen.max_client_connections", Kind::Count, ""),
    same("max_db_client_connections", "0", "pool.max_database_client_connections", Kind::Count, ""),
    same("max_db_connections", "0", "pool.max_database_connections", Kind::Count, "a pool whose servers never rest gives one up for another's clients who have waited 100 ms longer than its own"),
    none("max_packet_size", "2147483647", "a message of any size passes through a buffer of 64 KiB"),
    same("max_prepared_statements", "200", "pool.max_prepared_statements", Kind::Count, ""),
    same("max_user_client_connections", "0", "pool.max_user_client_connections", Kind::Count, ""),
    same("max_user_connections", "0", "pool.max_user_connections", Kind::Count, ""),
    same("min_pool_size", "0", "pool.min_size", Kind::Count, ""),
    mapped("peer_id", "0", "listen.peer_id", Kind::Count, "127 at most"),
    same("pidfile", "", "process.pid_file", Kind::File, ""),
    none("pkt_buf", "4096", "there is one buffer of 64 KiB for all clients of a worker"),
    same("pool_mode", "session", "pool.mode", Kind::Word(POOL_MODES), ""),
    same("query_timeout", "0", "pool.query_timeout", Kind::Seconds, ""),
    same("query_wait_notify", "5", "pool.query_wait_notify", Kind::Seconds, ""),
    same("query_wait_timeout", "120", "pool.checkout_timeout", Kind::Seconds, ""),
    same("reserve_pool_size", "0", "pool.reserve_size", Kind::Count, ""),
    same("reserve_pool_timeout", "5", "pool.reserve_timeout", Kind::Seconds, ""),
    none("resolv_conf", "", "the system's resolver is asked"),
    none("sbuf_loopcnt", "5", "each client has its turn by itself"),
    same("scram_iterations", "4096", "auth.scram_iterations", Kind::Count, ""),
    same("server_check_delay", "30", "pool.server_check_delay", Kind::Seconds, ""),
    same("server_check_query", "<empty>", "pool.server_check_query", Kind::Text, ""),
    same("server_connect_timeout", "15", "pool.server_connect_timeout", Kind::PositiveSeconds, ""),
    same("server_fast_close", "0", "pool.server_fast_close", Kind::Flag, ""),
    same("server_idle_timeout", "600", "pool.server_idle_timeout", Kind::Seconds, ""),
    same("server_lifetime", "3600", "pool.server_lifetime", Kind::Seconds, ""),
    same("server_login_retry", "15", "pool.server_login_retry", Kind::Seconds, ""),
    same("server_reset_query", "DISCARD ALL", "pool.server_reset_query", Kind::Text, ""),
    same("server_reset_query_always", "0", "pool.server_reset_query_always", Kind::Flag, ""),
    same("server_round_robin", "0", "pool.server_round_robin", Kind::Flag, ""),
    mapped("server_tls13_ciphers", "", "server_tls.ciphers", Kind::Ciphers, "together with server_tls_ciphers"),
    same("server_tls_ca_file", "", "server_tls.ca", Kind::File, ""),
    same("server_tls_cert_file", "", "server_tls.cert", Kind::File, ""),
    mapped("server_tls_ciphers", "default", "server_tls.ciphers", Kind::Ciphers, "names only; OpenSSL's keywords and operators mean all that rustls finds good"),
    same("server_tls_key_file", "", "server_tls.key", Kind::File, ""),
    together("server_tls_protocols", "secure", "server_tls.min_protocol, server_tls.max_protocol", "TLS 1.2 and 1.3 are all that there is"),
    same("server_tls_sslmode", "prefer", "server_tls.mode", Kind::Word(SSL_MODES), ""),
    none("service_name", "pgbouncer", "it names a Windows service"),
    same("so_reuseport", "0", "listen.reuse_port", Kind::Flag, ""),
    same("stats_period", "60", "log.stats_period", Kind::PositiveSeconds, ""),
    same("stats_users", "", "console.stats_users", Kind::Names, ""),
    none("suspend_timeout", "10", "there is no SUSPEND"),
    same("syslog", "0", "log.syslog", Kind::Flag, ""),
    same("syslog_facility", "daemon", "log.syslog_facility", Kind::Text, ""),
    same("syslog_ident", "pgbouncer", "log.syslog_ident", Kind::Text, ""),
    none("tcp_defer_accept", "1", KERNEL),
    same("tcp_keepalive", "1", "tcp.keepalive", Kind::Flag, ""),
    same("tcp_keepcnt", "0", "tcp.keepalive_retries", Kind::Count, ""),
    same("tcp_keepidle", "0", "tcp.keepalive_idle", Kind::Seconds, ""),
    same("tcp_keepintvl", "0", "tcp.keepalive_interval", Kind::Seconds, ""),
    none("tcp_socket_buffer", "0", KERNEL),
    same("tcp_user_timeout", "0", "tcp.user_timeout", Kind::Milliseconds, ""),
    same("track_extra_parameters", "IntervalStyle", "pool.track_extra_parameters", Kind::Names, ""),
    same("transaction_timeout", "0", "pool.transaction_timeout", Kind::Seconds, ""),
    together("unix_socket_dir", "/tmp", "listen.unix_socket_dir", "also where a database without a host is"),
    same("unix_socket_group", "", "listen.unix_socket_group", Kind::Text, ""),
    same("unix_socket_mode", "0777", "listen.unix_socket_mode", Kind::Mode, ""),
    same("user", "", "process.user", Kind::Text, ""),
    mapped("verbose", "0", "log.level", Kind::Word(LEVELS), "0 is info, 1 debug, 2 and 3 trace; -v raises it, too"),
];
