//! SHOW CONFIG: the settings under PgBouncer's names, with PgBouncer's defaults.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::admin::table::Value;
use crate::config::choices::{AuthMethod, PoolMode};
use crate::config::tls::{Authorities, TextFile, TlsMode};
use crate::config::{Config, UnixSocket};

/// A setting.
struct Setting {
    /// PgBouncer's name of it.
    key: &'static str,
    /// What it is in PgBouncer where nothing is written.
    default: Option<&'static str>,
    /// Whether it can be changed while the proxy runs.
    changeable: bool,
    /// What it is now; `None`: it has no counterpart, and is what the ini file says, or else the default.
    value: Option<fn(&Config) -> String>,
}

/// The rows of SHOW CONFIG.
pub(super) fn rows(config: &Config) -> Vec<Vec<Value>> {
    SETTINGS
        .iter()
        .map(|setting| {
            let default = setting
                .default
                .map_or(Value::Null, |text| Value::Text(text.into()));
            let value = match (setting.value, config.written.get(setting.key)) {
                (Some(value), _) => Value::text(value(config)),
                (None, Some(written)) => Value::text(&**written),
                (None, None) => default.clone(),
            };
            let changeable = if setting.changeable { "yes" } else { "no" };
            vec![
                Value::Text(setting.key.into()),
                value,
                default,
                Value::Text(changeable.into()),
            ]
        })
        .collect()
}

/// Seconds, as PgBouncer writes them: with a fraction only where there is one.
pub(super) fn seconds(time: Duration) -> String {
    time.as_secs_f64().to_string()
}

fn limit(time: Option<Duration>) -> String {
    seconds(time.unwrap_or_default())
}

/// A number of which there may not be more; 0 is no limit.
fn count(most: Option<NonZeroUsize>) -> String {
    most.map_or(0, NonZeroUsize::get).to_string()
}

fn flag(is_on: bool) -> String {
    u8::from(is_on).to_string()
}

/// PgBouncer's word for a mode.
pub(super) fn mode(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
        PoolMode::Statement => "statement",
    }
}

fn names(users: &[Box<str>]) -> String {
    users.join(", ")
}

fn file(file: Option<&TextFile>) -> String {
    file.map(|file| file.name.to_string()).unwrap_or_default()
}

fn unix(config: &Config, said: impl Fn(&UnixSocket) -> String) -> String {
    config
        .listen
        .unix_socket
        .as_ref()
        .map(said)
        .unwrap_or_default()
}

/// PgBouncer's word for a mode of TLS.
fn tls_mode(mode: TlsMode) -> &'static str {
    match mode {
        TlsMode::Disable => "disable",
        TlsMode::Allow => "allow",
        TlsMode::Prefer => "prefer",
        TlsMode::Require => "require",
        TlsMode::VerifyCa => "verify-ca",
        TlsMode::VerifyFull => "verify-full",
    }
}

/// Can be changed, is what the configuration says, and has no default in PgBouncer.
const fn may_be(key: &'static str, value: fn(&Config) -> String) -> Setting {
    Setting {
        key,
        default: None,
        changeable: true,
        value: Some(value),
    }
}

/// Can be changed, and is what the configuration says.
const fn live(key: &'static str, default: &'static str, value: fn(&Config) -> String) -> Setting {
    Setting {
        key,
        default: Some(default),
        changeable: true,
        value: Some(value),
    }
}

/// Is what the configuration says until the proxy is started again.
const fn fixed(key: &'static str, default: &'static str, value: fn(&Config) -> String) -> Setting {
    Setting {
        key,
        default: Some(default),
        changeable: false,
        value: Some(value),
    }
}

/// Is always its default: it has no counterpart, or none that is set in this way.
const fn unset(key: &'static str, default: Option<&'static str>, changeable: bool) -> Setting {
    Setting {
        key,
        default,
        changeable,
        value: None,
    }
}

const AUTH_QUERY: &str = "SELECT rolname, CASE WHEN rolvaliduntil < now() THEN NULL ELSE rolpassword END FROM pg_authid WHERE rolname=$1 AND rolcanlogin";

/// In PgBouncer's order.
const SETTINGS: &[Setting] = &[
    live("admin_users", "", |config| {
        names(&config.console.admin_users)
    }),
    unset("application_name_add_host", Some("0"), true),
    may_be("auth_dbname", |config| {
        config.auth.dbname.as_deref().unwrap_or_default().into()
    }),
    may_be("auth_file", |config| {
        config.auth.userlist.as_deref().unwrap_or_default().into()
    }),
    live("auth_hba_file", "", |config| {
        file(config.auth.hba.as_ref().map(|hba| &hba.file))
    }),
    may_be("auth_ident_file", |config| file(config.auth.ident.as_ref())),
    unset("auth_ldap_options", None, true),
    live("auth_query", AUTH_QUERY, |config| {
        config.auth.query.to_string()
    }),
    live("auth_type", "md5", |config| {
        let method = match config.auth.method {
            AuthMethod::Any => "any",
            AuthMethod::Trust => "trust",
            AuthMethod::Md5 => "md5",
            AuthMethod::Cert => "cert",
            AuthMethod::Peer => "peer",
            AuthMethod::Hba => "hba",
            AuthMethod::Password => "plain",
            AuthMethod::ScramSha256 => "scram-sha-256",
        };
        method.into()
    }),
    may_be("auth_user", |config| {
        config.auth.user.as_deref().unwrap_or_default().into()
    }),
    unset("autodb_idle_timeout", Some("3600"), true),
    unset("cancel_wait_timeout", Some("10"), true),
    live("client_idle_timeout", "0", |config| {
        limit(config.pool.client_idle_timeout)
    }),
    live("client_login_timeout", "60", |config| {
        seconds(config.listen.login_timeout)
    }),
    unset("client_tls13_ciphers", Some(""), true),
    live("client_tls_ca_file", "", |config| {
        file((config.listen.tls.ca.as_ref()).and_then(Authorities::file))
    }),
    live("client_tls_cert_file", "", |config| {
        file(config.listen.tls.cert.as_ref())
    }),
    unset("client_tls_ciphers", Some("default"), true),
    unset("client_tls_dheparams", Some("auto"), true),
    unset("client_tls_ecdhcurve", Some("auto"), true),
    live("client_tls_key_file", "", |config| {
        file(config.listen.tls.key.as_ref())
    }),
    unset("client_tls_protocols", Some("secure"), true),
    live("client_tls_sslmode", "disable", |config| {
        tls_mode(config.listen.tls.mode).into()
    }),
    unset("conffile", None, true),
    live("default_pool_size", "20", |config| count(config.pool.size)),
    unset("disable_pqexec", Some("0"), false),
    live("dns_max_ttl", "15", |config| seconds(config.dns.max_ttl)),
    live("dns_nxdomain_ttl", "15", |config| {
        seconds(config.dns.nxdomain_ttl)
    }),
    unset("dns_zone_check_period", Some("0"), true),
    live("idle_transaction_timeout", "0", |config| {
        limit(config.pool.idle_transaction_timeout)
    }),
    live("ignore_startup_parameters", "", |config| {
        names(&config.pool.ignore_startup_parameters)
    }),
    unset("job_name", Some("pgbouncer"), false),
    fixed("listen_addr", "", |config| {
        let addresses = config.listen.addresses.iter();
        let texts: Vec<_> = addresses.map(|it| it.ip().to_string()).collect();
        texts.join(",")
    }),
    fixed("listen_backlog", "128", |config| {
        config.listen.backlog.to_string()
    }),
    fixed("listen_port", "6432", |config| {
        config.listen.port().to_string()
    }),
    fixed("log_connections", "1", |config| {
        flag(config.log.connections)
    }),
    fixed("log_disconnections", "1", |config| {
        flag(config.log.disconnections)
    }),
    fixed("log_pooler_errors", "1", |config| {
        flag(config.log.pooler_errors)
    }),
    live("log_stats", "1", |config| flag(config.log.stats)),
    unset("logfile", Some(""), true),
    live("max_client_conn", "100", |config| {
        config.listen.max_client_connections.to_string()
    }),
    live("max_db_client_connections", "0", |config| {
        count(config.pool.max_database_client_connections)
    }),
    live("max_db_connections", "0", |config| {
        count(config.pool.max_database_connections)
    }),
    unset("max_packet_size", Some("2147483647"), true),
    live("max_prepared_statements", "200", |config| {
        config.pool.max_prepared_statements.to_string()
    }),
    live("max_user_client_connections", "0", |config| {
        count(config.pool.max_user_client_connections)
    }),
    live("max_user_connections", "0", |config| {
        count(config.pool.max_user_connections)
    }),
    live("min_pool_size", "0", |config| {
        config.pool.min_size.to_string()
    }),
    fixed("peer_id", "0", |config| config.listen.peer_id.to_string()),
    unset("pidfile", Some(""), false),
    unset("pkt_buf", Some("4096"), false),
    live("pool_mode", "session", |config| {
        mode(config.pool.mode).into()
    }),
    live("query_timeout", "0", |config| {
        limit(config.pool.query_timeout)
    }),
    live("query_wait_notify", "5", |config| {
        limit(config.pool.query_wait_notify)
    }),
    live("query_wait_timeout", "120", |config| {
        limit(config.pool.checkout_timeout)
    }),
    live("reserve_pool_size", "0", |config| {
        config.pool.reserve_size.to_string()
    }),
    live("reserve_pool_timeout", "5", |config| {
        limit(config.pool.reserve_timeout)
    }),
    unset("resolv_conf", Some(""), false),
    unset("sbuf_loopcnt", Some("5"), true),
    live("scram_iterations", "4096", |config| {
        config.auth.scram_iterations.to_string()
    }),
    live("server_check_delay", "30", |config| {
        seconds(config.pool.server_check_delay)
    }),
    live("server_check_query", "<empty>", |config| {
        config
            .pool
            .server_check_query
            .as_deref()
            .unwrap_or_default()
            .into()
    }),
    live("server_connect_timeout", "15", |config| {
        seconds(config.pool.server_connect_timeout)
    }),
    live("server_fast_close", "0", |config| {
        flag(config.pool.server_fast_close)
    }),
    live("server_idle_timeout", "600", |config| {
        limit(config.pool.server_idle_timeout)
    }),
    live("server_lifetime", "3600", |config| {
        seconds(config.pool.server_lifetime)
    }),
    live("server_login_retry", "15", |config| {
        seconds(config.pool.server_login_retry)
    }),
    live("server_reset_query", "DISCARD ALL", |config| {
        config
            .pool
            .server_reset_query
            .as_deref()
            .unwrap_or_default()
            .into()
    }),
    live("server_reset_query_always", "0", |config| {
        flag(config.pool.server_reset_query_always)
    }),
    live("server_round_robin", "0", |config| {
        flag(config.pool.server_round_robin)
    }),
    unset("server_tls13_ciphers", Some(""), true),
    live("server_tls_ca_file", "", |config| {
        file((config.server_tls.ca.as_ref()).and_then(Authorities::file))
    }),
    live("server_tls_cert_file", "", |config| {
        file(config.server_tls.cert.as_ref())
    }),
    unset("server_tls_ciphers", Some("default"), true),
    live("server_tls_key_file", "", |config| {
        file(config.server_tls.key.as_ref())
    }),
    unset("server_tls_protocols", Some("secure"), true),
    live("server_tls_sslmode", "prefer", |config| {
        tls_mode(config.server_tls.mode).into()
    }),
    fixed("so_reuseport", "0", |config| flag(config.listen.reuse_port)),
    live("stats_period", "60", |config| {
        seconds(config.log.stats_period)
    }),
    live("stats_users", "", |config| {
        names(&config.console.stats_users)
    }),
    unset("suspend_timeout", Some("10"), true),
    unset("syslog", Some("0"), true),
    unset("syslog_facility", Some("daemon"), true),
    unset("syslog_ident", Some("pgbouncer"), true),
    unset("tcp_defer_accept", Some("1"), true),
    live("tcp_keepalive", "1", |config| flag(config.tcp.keepalive)),
    live("tcp_keepcnt", "0", |config| {
        count(config.tcp.keepalive_retries)
    }),
    live("tcp_keepidle", "0", |config| {
        limit(config.tcp.keepalive_idle)
    }),
    live("tcp_keepintvl", "0", |config| {
        limit(config.tcp.keepalive_interval)
    }),
    unset("tcp_socket_buffer", Some("0"), true),
    // In milliseconds.
    live("tcp_user_timeout", "0", |config| {
        let timeout = config.tcp.user_timeout.unwrap_or_default();
        timeout.as_millis().to_string()
    }),
    fixed("track_extra_parameters", "IntervalStyle", |config| {
        names(&config.pool.track_extra_parameters)
    }),
    live("transaction_timeout", "0", |config| {
        limit(config.pool.transaction_timeout)
    }),
    fixed("unix_socket_dir", "/tmp", |config| {
        unix(config, |socket| socket.folder.to_string())
    }),
    fixed("unix_socket_group", "", |config| {
        unix(config, |socket| {
            socket.group.as_deref().unwrap_or_default().into()
        })
    }),
    fixed("unix_socket_mode", "0777", |config| {
        unix(config, |socket| {
            format!("{:#05o}", socket.mode).replacen("0o", "0", 1)
        })
    }),
    unset("user", None, false),
    unset("verbose", None, true),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_shown_once_in_the_order_of_the_alphabet() {
        let keys: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(keys, sorted);
        assert_eq!(keys.len(), 98);
    }

    #[test]
    fn what_holds_stands_beside_the_default() {
        let mut config = Config::default();
        config.pool.query_timeout = Some(Duration::from_millis(1500));
        config.console.admin_users = vec!["ann".into(), "bob".into()];
        let rows = rows(&config);
        let row = |key: &str| {
            let row = rows
                .iter()
                .find(|row| row.first() == Some(&Value::text(key)));
            let texts = row
                .unwrap()
                .iter()
                .map(|value| value.to_text().map(|text| text.into_owned()));
            texts.collect::<Vec<_>>()
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            row("query_timeout"),
            [some("query_timeout"), some("1.5"), some("0"), some("yes")]
        );
        assert_eq!(row("admin_users")[1], some("ann, bob"));
        assert_eq!(
            row("pool_mode")[1..3],
            [some("transaction"), some("session")]
        );
        assert_eq!(row("verbose")[1..3], [None, None]);
        assert_eq!(row("listen_port")[3], some("no"));
    }
}
