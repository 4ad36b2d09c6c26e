use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use super::super::choices::{LogFormat, PoolMode};
use super::super::secret::Secret;
use super::super::{Checked, Config, Layer, PasswordFile};
use super::*;

#[test]
fn an_ini_file_has_pgbouncers_defaults() {
    let config = good("[pgbouncer]\n");
    assert_eq!(config.pool.mode, PoolMode::Session);
    assert_eq!(config.listen.addresses, []);
    assert_eq!(config.listen.max_client_connections.get(), 100);
    let socket = config.listen.unix_socket.as_ref().expect("in /tmp");
    assert_eq!(socket.path(), Path::new("/tmp/.s.PGSQL.6432"));
    assert_eq!(config.http.address, None);
    assert_eq!(config.log.format, LogFormat::PgBouncer);
    assert_eq!(config.log.syslog_ident, "pgbouncer".into());
    assert_eq!(config.pool.track_extra_parameters, ["IntervalStyle".into()]);
}

#[test]
fn every_setting_is_accepted_with_its_default() {
    let mut text = String::from("[pgbouncer]\n");
    for setting in SETTINGS {
        let value = setting.default.expect("a default");
        text.push_str(&format!("{} = {value}\n", setting.key));
    }
    let Checked { config, warnings } = load(&text, &[], None).expect("good");
    assert_eq!(config.pool, good("[pgbouncer]\n").pool);
    let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert!(
        warnings
            .iter()
            .all(|warning| !warning.contains("no effect")),
        "{warnings:?}"
    );
}

#[test]
fn settings_are_by_name_and_each_once() {
    assert!(SETTINGS.is_sorted_by(|one, other| one.key < other.key));
}

#[test]
fn what_has_no_effect_is_said_once_where_it_differs() {
    let warnings = warnings("[pgbouncer]\npkt_buf = 8192\nsuspend_timeout = 10\n");
    let about: Vec<_> = warnings
        .iter()
        .filter(|it| it.contains("no effect"))
        .collect();
    assert_eq!(
        about,
        [
            "pgbouncer.ini:2:1: pkt_buf has no effect: there is one buffer of 64 KiB for all clients of a worker"
        ]
    );
}

#[test]
fn settings_become_those_of_the_configuration() {
    let config = good(
        "[pgbouncer]\nlisten_addr = 127.0.0.1, ::1\nlisten_port = 7000\nunix_socket_dir =\npool_mode = Transaction\n\
         default_pool_size = 5\nquery_wait_timeout = 0.5\nserver_lifetime = 0\nadmin_users = ann, bob\n\
         ignore_startup_parameters = extra_float_digits, search_path\nlogfile = pgb.log\npidfile = /run/p.pid\n\
         log_connections = 0\nserver_reset_query =\n",
    );
    let addresses: Vec<_> = config
        .listen
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(addresses, ["127.0.0.1:7000", "[::1]:7000"]);
    assert_eq!(config.listen.unix_socket, None);
    assert_eq!(config.pool.mode, PoolMode::Transaction);
    assert_eq!(config.pool.size.map(|size| size.get()), Some(5));
    assert_eq!(
        config.pool.checkout_timeout,
        Some(Duration::from_millis(500))
    );
    assert_eq!(config.pool.server_lifetime, Duration::ZERO);
    assert_eq!(config.console.admin_users, ["ann".into(), "bob".into()]);
    assert_eq!(
        config.pool.ignore_startup_parameters,
        ["extra_float_digits".into(), "search_path".into()]
    );
    assert_eq!(config.log.file.as_deref(), Some(Path::new("/srv/pgb.log")));
    assert_eq!(
        config.process.pid_file.as_deref(),
        Some(Path::new("/run/p.pid"))
    );
    assert!(!config.log.connections);
    assert_eq!(config.pool.server_reset_query, None);
}

#[test]
fn every_address_is_a_star() {
    let config = good("[pgbouncer]\nlisten_addr = *\n");
    let addresses: Vec<_> = config
        .listen
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(addresses, ["0.0.0.0:6432", "[::]:6432"]);
}

#[test]
fn databases_lead_where_they_say() {
    let config = good(
        "[databases]\nforced = host=10.0.0.1 port=5433 dbname=app user=bob password='it''s ${x}' pool_size=3 pool_mode=statement\n\
         local =\n* = host=10.0.0.2\n[pgbouncer]\nunix_socket_dir = /run/pg\n",
    );
    let forced = config.database("forced").expect("there");
    assert_eq!(forced.port, 5433);
    assert_eq!(forced.name_on_server("forced"), "app");
    assert_eq!(forced.user.as_deref(), Some("bob"));
    assert_eq!(forced.password, Some(Secret::new("it's ${x}")));
    assert_eq!(forced.pool.mode, PoolMode::Statement);
    assert_eq!(forced.pool.size.map(|size| size.get()), Some(3));
    let local = toml("[databases]\nlocal =\n[pgbouncer]\nunix_socket_dir = /run/pg\n");
    assert!(local.contains("host = \"/run/pg\""), "{local}");
    assert_eq!(
        config
            .database("other")
            .expect("by *")
            .name_on_server("other"),
        "other"
    );
}

#[test]
fn users_have_limits_of_their_own() {
    let config = good(
        "[databases]\na = host=h\n[users]\nann = pool_mode=session pool_size=2 query_timeout=5 idle_transaction_timeout=0\n\
         [pgbouncer]\nauth_type = trust\npool_mode = transaction\nidle_transaction_timeout = 7\n",
    );
    let ann = config.pool_settings("a", "ann");
    assert_eq!(ann.mode, PoolMode::Session);
    assert_eq!(ann.size.map(|size| size.get()), Some(2));
    assert_eq!(ann.query_timeout, Some(Duration::from_secs(5)));
    assert_eq!(ann.idle_transaction_timeout, Some(Duration::from_secs(7)));
}

#[test]
fn what_is_wrong_is_found_in_the_ini_file() {
    for (text, expected) in [
        (
            "[pgbouncer]\npool_mod = session\n",
            "pgbouncer.ini:2:1: unknown parameter pool_mod in [pgbouncer], did you mean pool_mode?",
        ),
        (
            "[pgbouncer]\npool_mode = fast\n",
            "pgbouncer.ini:2:1: pool_mode: expected one of session, transaction, statement, found \"fast\"",
        ),
        (
            "[pgbouncer]\nserver_lifetime = 5s\n",
            "pgbouncer.ini:2:1: server_lifetime: expected seconds such as 15 or 0.5, found \"5s\"",
        ),
        (
            "[databases]\na = hots=x\n[pgbouncer]\n",
            "pgbouncer.ini:2:1: a: unrecognized connection parameter: hots",
        ),
        (
            "[databases]\na = host\n[pgbouncer]\n",
            "pgbouncer.ini:2:1: a: expected key=value pairs, separated by blanks",
        ),
        (
            "[users]\na = pool_sice=1\n[pgbouncer]\n",
            "pgbouncer.ini:2:1: a: unrecognized user parameter: pool_sice",
        ),
        (
            "[pgbouncer]\nmax_client_conn = 0\n",
            "pgbouncer.ini:2:1: `max_client_connections` in [listen]: expected a whole number of 1 or more, found 0",
        ),
        (
            "[databases]\npgbouncer = host=x\n[pgbouncer]\n",
            "pgbouncer.ini:2:1: [databases.pgbouncer]: this name is the console's",
        ),
    ] {
        let error = load(text, &[], None).expect_err(text);
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn what_stands_beside_wins() {
    let ini = "[databases]\na = host=h\n[pgbouncer]\n";
    let beside = "http.address = \"127.0.0.1:9127\"\npool.size = 7\ndatabases.a.tags = { application = \"pay\" }\n";
    let config = load(ini, &[], Some(beside)).expect("good").config;
    assert!(config.http.address.is_some());
    assert_eq!(config.pool.mode, PoolMode::Session);
    assert_eq!(config.pool.size.map(|size| size.get()), Some(7));
    assert_eq!(
        config.tags("a", "ann"),
        [("application".into(), "pay".into())]
    );

    let wrong = load(ini, &[], Some("pool.sice = 7")).expect_err("wrong");
    assert_eq!(
        wrong.to_string(),
        "beside.toml:1:6: unknown key `sice` in [pool], did you mean `size`?"
    );
}

#[test]
fn importing_and_running_an_ini_file_are_the_same() {
    let files = [("/srv/userlist.txt", "\"ann\" \"secret\"\n")];
    let ini = "[databases]\n\"my db\" = host=10.0.0.1 dbname=app connect_query='select 1'\n* = host=10.0.0.2\n\
               [users]\nann = pool_size=2\n[pgbouncer]\nlisten_addr = *\nauth_file = userlist.txt\nauth_type = trust\n\
               pool_mode = transaction\nserver_idle_timeout = 30.5\n";
    let mut run = load(ini, &files, None).expect("good").config;
    run.written = BTreeMap::new();
    let imported = translated(ini, &files).to_toml();
    let imported = Config::from_toml(&imported, "/elsewhere/config.toml", &|_| None, &|path| {
        read(&files, path)
    });
    assert_eq!(imported.expect("good").config, run);
}

#[test]
fn a_missing_file_of_users_is_warned_about() {
    let warnings = warnings("[pgbouncer]\nauth_file = nowhere.txt\n");
    assert!(
        warnings[0].starts_with("pgbouncer.ini:2:1: auth_file: /srv/nowhere.txt cannot be read"),
        "{warnings:?}"
    );
}

#[test]
fn a_set_setting_is_a_line_of_the_other_configuration() {
    let line = |key, value| line_of(key, value, Path::new("/srv"));
    assert_eq!(
        line("query_timeout", "5").unwrap(),
        "pool.query_timeout = \"5s\""
    );
    assert_eq!(line("pkt_buf", "5").unwrap(), "");
    assert_eq!(
        line("nothing", "5").unwrap_err(),
        "unknown parameter: nothing"
    );
    assert!(line("query_timeout", "x").is_err());
}

fn good(text: &str) -> Config {
    load(text, &[], None).expect("a good configuration").config
}

fn warnings(text: &str) -> Vec<String> {
    let warnings = load(text, &[], None)
        .expect("a good configuration")
        .warnings;
    warnings.iter().map(ToString::to_string).collect()
}

fn toml(text: &str) -> String {
    translated(text, &[]).to_toml()
}

fn translated(text: &str, files: &[(&str, &str)]) -> Translation {
    let files = [files, &[("pgbouncer.ini", text)]].concat();
    let reader = |path: &Path| read(&files, path);
    let document = Document::read("pgbouncer.ini", &reader).expect("good");
    Config::translated(&document, &surroundings(&reader)).expect("good")
}

fn load(
    text: &str,
    files: &[(&str, &str)],
    beside: Option<&str>,
) -> Result<Checked, super::super::ConfigErrors> {
    let files = [files, &[("pgbouncer.ini", text)]].concat();
    let reader = |path: &Path| read(&files, path);
    let document = Document::read("pgbouncer.ini", &reader)?;
    let with = beside.map(|text| Layer {
        name: "beside.toml",
        text,
    });
    Config::from_ini(
        &document,
        "pgbouncer.ini",
        with,
        &surroundings(&reader),
        &|_| None,
    )
}

fn surroundings<'a>(read: &'a dyn Fn(&Path) -> io::Result<PasswordFile>) -> Surroundings<'a> {
    Surroundings {
        folder: Path::new("/srv"),
        resolve: &|_| Ok(vec![IpAddr::from([127, 0, 0, 1])]),
        read,
    }
}

fn read(files: &[(&str, &str)], path: &Path) -> io::Result<PasswordFile> {
    let found = files.iter().find(|(name, _)| Path::new(name) == path);
    let (_, text) = found.ok_or(io::ErrorKind::NotFound)?;
    Ok(PasswordFile {
        text: Secret::new(*text),
        is_readable_by_everyone: false,
    })
}
