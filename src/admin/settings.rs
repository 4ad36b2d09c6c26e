//! SHOW CONFIG: the settings under PgBouncer's names, with PgBouncer's defaults.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::admin::table::Value;
use crate::config::choices::{AuthMethod, PoolMode};
use crate::config::tls::{TextFile, TlsMode};
use crate::config::{Config, PoolSettings, UnixSocket};

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

/// Changes a setting as `SET key = value` does. It holds until the configuration is read again.
///
/// A setting of `[pool]` changes for each database, too, that has no other value of its own.
///
/// # Errors
/// Why it can't be done, for the administrator.
pub(super) fn set(config: &mut Config, key: &str, value: &str) -> Result<(), String> {
    let known = SETTINGS
        .iter()
        .find(|setting| setting.key.eq_ignore_ascii_case(key))
        .ok_or("There is no such setting.")?;
    if !known.changeable {
        return Err("It can only be changed by a restart.".into());
    }
    let mut pool = Pools {
        own: &mut config.pool,
        databases: config
            .databases
            .values_mut()
            .map(|it| &mut it.pool)
            .collect(),
    };
    match known.key {
        "admin_users" => config.console.admin_users = list(value),
        "stats_users" => config.console.stats_users = list(value),
        "stats_period" => config.log.stats_period = positive(value)?,
        "log_stats" => config.log.stats = switch(value)?,
        "max_client_conn" => {
            let limit = NonZeroUsize::new(number(value)?);
            config.listen.max_client_connections = limit.ok_or("It must be positive.")?;
        }
        "client_login_timeout" => config.listen.login_timeout = positive(value)?,
        "default_pool_size" => pool.set(|it| &mut it.size, &NonZeroUsize::new(number(value)?)),
        "min_pool_size" => pool.set(|it| &mut it.min_size, &number(value)?),
        "reserve_pool_size" => pool.set(|it| &mut it.reserve_size, &number(value)?),
        "reserve_pool_timeout" => pool.set(|it| &mut it.reserve_timeout, &time_limit(value)?),
        "max_db_connections" => {
            pool.set(
                |it| &mut it.max_database_connections,
                &NonZeroUsize::new(number(value)?),
            );
        }
        "max_db_client_connections" => pool.set(
            |it| &mut it.max_database_client_connections,
            &NonZeroUsize::new(number(value)?),
        ),
        "max_user_connections" => {
            pool.set(
                |it| &mut it.max_user_connections,
                &NonZeroUsize::new(number(value)?),
            );
        }
        "max_user_client_connections" => pool.set(
            |it| &mut it.max_user_client_connections,
            &NonZeroUsize::new(number(value)?),
        ),
        "max_prepared_statements" => {
            pool.set(|it| &mut it.max_prepared_statements, &number(value)?);
        }
        "pool_mode" => {
            let mode = [
                PoolMode::Session,
                PoolMode::Transaction,
                PoolMode::Statement,
            ]
            .into_iter()
            .find(|known| mode(*known).eq_ignore_ascii_case(value))
            .ok_or("It is session, transaction or statement.")?;
            pool.set(|it| &mut it.mode, &mode);
        }
        "query_wait_timeout" => pool.set(|it| &mut it.checkout_timeout, &time_limit(value)?),
        "query_wait_notify" => pool.set(|it| &mut it.query_wait_notify, &time_limit(value)?),
        "query_timeout" => pool.set(|it| &mut it.query_timeout, &time_limit(value)?),
        "transaction_timeout" => pool.set(|it| &mut it.transaction_timeout, &time_limit(value)?),
        "idle_transaction_timeout" => {
            pool.set(|it| &mut it.idle_transaction_timeout, &time_limit(value)?);
        }
        "client_idle_timeout" => pool.set(|it| &mut it.client_idle_timeout, &time_limit(value)?),
        "server_idle_timeout" => pool.set(|it| &mut it.server_idle_timeout, &time_limit(value)?),
        "server_lifetime" => pool.set(|it| &mut it.server_lifetime, &time(value)?),
        "server_connect_timeout" => {
            pool.set(|it| &mut it.server_connect_timeout, &positive(value)?);
        }
        "server_login_retry" => pool.set(|it| &mut it.server_login_retry, &time(value)?),
        "server_check_delay" => pool.set(|it| &mut it.server_check_delay, &time(value)?),
        "server_check_query" => pool.set(|it| &mut it.server_check_query, &query(value)),
        "server_reset_query" => pool.set(|it| &mut it.server_reset_query, &query(value)),
        "server_reset_query_always" => {
            pool.set(|it| &mut it.server_reset_query_always, &switch(value)?);
        }
        "server_round_robin" => pool.set(|it| &mut it.server_round_robin, &switch(value)?),
        "server_fast_close" => pool.set(|it| &mut it.server_fast_close, &switch(value)?),
        _ => return Err("pgspan can change it by its configuration file only, if at all.".into()),
    }
    Ok(())
}

/// The settings of pools, at all places that have them complete.
struct Pools<'a> {
    own: &'a mut PoolSettings,
    databases: Vec<&'a mut PoolSettings>,
}

impl Pools<'_> {
    fn set<T: Clone + PartialEq>(
        &mut self,
        setting: impl Fn(&mut PoolSettings) -> &mut T,
        value: &T,
    ) {
        let before = std::mem::replace(setting(self.own), value.clone());
        for pool in &mut self.databases {
            let place = setting(pool);
            if *place == before {
                *place = value.clone();
            }
        }
    }
}

fn list(text: &str) -> Vec<Box<str>> {
    let names = text.split(',').map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(Box::from)
        .collect()
}

fn query(text: &str) -> Option<Box<str>> {
    (!text.trim().is_empty()).then(|| text.into())
}

fn number(text: &str) -> Result<usize, &'static str> {
    text.trim().parse().map_err(|_| "It is a whole number.")
}

fn switch(text: &str) -> Result<bool, &'static str> {
    number(text).map(|number| number != 0)
}

/// Seconds, perhaps with a fraction.
fn time(text: &str) -> Result<Duration, &'static str> {
    let seconds = text.trim().parse().ok();
    seconds
        .and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok())
        .ok_or("It is a number of seconds.")
}

fn positive(text: &str) -> Result<Duration, &'static str> {
    time(text).and_then(|time| match time.is_zero() {
        true => Err("It must be positive."),
        false => Ok(time),
    })
}

/// Zero is for ever.
fn time_limit(text: &str) -> Result<Option<Duration>, &'static str> {
    time(text).map(|time| (!time.is_zero()).then_some(time))
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
        file(config.listen.tls.ca.as_ref())
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
    unset("dns_max_ttl", Some("15"), true),
    unset("dns_nxdomain_ttl", Some("15"), true),
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
        file(config.server_tls.ca.as_ref())
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
    unset("tcp_keepalive", Some("1"), true),
    unset("tcp_keepcnt", Some("0"), true),
    unset("tcp_keepidle", Some("0"), true),
    unset("tcp_keepintvl", Some("0"), true),
    unset("tcp_socket_buffer", Some("0"), true),
    unset("tcp_user_timeout", Some("0"), true),
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
    use crate::config::Database;

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

    #[test]
    fn what_is_set_holds_for_databases_that_say_nothing_else() {
        let mut config = Config::default();
        let mut database = Database::default();
        config
            .databases
            .insert("like the others".into(), database.clone());
        database.pool.size = NonZeroUsize::new(7);
        config.databases.insert("of its own".into(), database);
        set(&mut config, "Default_Pool_Size", "5").unwrap();
        let size = |name| config.databases[name].pool.size.map(NonZeroUsize::get);
        assert_eq!(config.pool.size, NonZeroUsize::new(5));
        assert_eq!(size("like the others"), Some(5));
        assert_eq!(size("of its own"), Some(7));
    }

    #[test]
    fn every_setting_that_is_set_is_shown_as_it_was_set() {
        let settable = SETTINGS
            .iter()
            .filter(|setting| setting.value.is_some() && setting.changeable);
        let by_file = ["auth_", "client_tls_", "server_tls_", "ignore_", "scram_"];
        let by_file = |key: &str| by_file.iter().any(|prefix| key.starts_with(prefix));
        for setting in settable.filter(|setting| !by_file(setting.key)) {
            let mut config = Config::default();
            let value = match setting.key {
                "pool_mode" => "statement",
                "admin_users" | "stats_users" => "ann, bob",
                key if key.ends_with("_query") => "SELECT 1",
                _ => "1",
            };
            set(&mut config, setting.key, value).unwrap();
            let shown = setting.value.map(|shown| shown(&config));
            assert_eq!(shown.as_deref(), Some(value), "{}", setting.key);
        }
    }

    #[test]
    fn what_can_not_be_set_is_told_why() {
        let mut config = Config::default();
        for (key, value, why) in [
            ("nothing", "1", "There is no such setting."),
            ("listen_port", "1", "It can only be changed by a restart."),
            ("query_timeout", "soon", "It is a number of seconds."),
            ("query_timeout", "-1", "It is a number of seconds."),
            ("default_pool_size", "many", "It is a whole number."),
            (
                "pool_mode",
                "none",
                "It is session, transaction or statement.",
            ),
            ("max_client_conn", "0", "It must be positive."),
        ] {
            assert_eq!(set(&mut config, key, value), Err(why.to_owned()));
        }
        assert_eq!(config, Config::default());
    }
}
