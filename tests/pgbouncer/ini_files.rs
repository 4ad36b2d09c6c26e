//! Ini files of the kind that people have, run as they are.

use std::fs;

use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use crate::bouncer::{Bouncer, value};
use crate::support::authority::Authority;
use crate::support::postgres::{psql, shared};

/// Everybody in userlist.txt is trusted, every database is served.
fn ini(more: &str) -> String {
    format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nauth_type = trust\nauth_file = userlist.txt\n{more}",
        shared().port()
    )
}

const USERS: [(&str, &str); 1] = [("userlist.txt", "\"postgres\" \"\"\n\"app\" \"\"\n")];

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_served_and_the_log_has_pgbouncers_words() {
    let bouncer = Bouncer::start(&ini(""), &USERS);
    let client = bouncer.connect("user=app dbname=app").await.unwrap();
    assert_eq!(value(&client, "SELECT 41 + 1").await, "42");
    drop(client);
    let login = bouncer.wait_for_log(&["login attempt: db=app user=app tls=no"]);
    assert!(login.contains("] LOG C-0x"), "{login}");
    assert!(login.contains(": app/app@127.0.0.1:"), "{login}");
    let server = bouncer.wait_for_log(&["new connection to server (from 127.0.0.1:"]);
    assert!(server.contains("] LOG S-0x"), "{server}");
    let parting = bouncer.wait_for_log(&["closing because: client close request (age="]);
    assert!(parting.contains("] LOG C-0x"), "{parting}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_answers_user_pgbouncer_over_the_unix_socket() {
    let bouncer = Bouncer::start(&ini(""), &USERS);
    let console = bouncer
        .connect_unix("user=pgbouncer dbname=pgbouncer")
        .await
        .unwrap();
    assert!(
        value(&console, "SHOW VERSION")
            .await
            .starts_with("PgBouncer ")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_are_for_sessions_unless_told_otherwise() {
    let bouncer = Bouncer::start(
        &ini("default_pool_size = 1\nquery_wait_timeout = 0.3\n"),
        &USERS,
    );
    let first = bouncer.connect("user=app dbname=app").await.unwrap();
    first.simple_query("SELECT 1").await.unwrap();
    let second = bouncer.connect("user=app dbname=app").await;
    let refused = match second {
        Ok(client) => client.simple_query("SELECT 1").await.unwrap_err(),
        Err(error) => error,
    };
    let message = refused.as_db_error().unwrap().message();
    assert!(message.contains("query_wait_timeout"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_new_settings_and_a_wrong_file_changes_nothing() {
    let bouncer = Bouncer::start(&ini("max_client_conn = 10\n"), &USERS);
    let _client = bouncer.connect("user=app dbname=app").await.unwrap();
    bouncer.write_ini(&ini("max_client_conn = 1\npool_mod = session\n"));
    bouncer.signal("HUP");
    bouncer.wait_for_log(&["unknown parameter pool_mod"]);
    drop(bouncer.connect("user=app dbname=app").await.unwrap());

    bouncer.write_ini(&ini("max_client_conn = 1\n"));
    bouncer.signal("HUP");
    bouncer.wait_for_log(&["the configuration was read again"]);
    let refused = loop {
        // The second client may still be leaving.
        if let Err(error) = bouncer.connect("user=app dbname=app").await {
            break error;
        }
    };
    let message = refused.as_db_error().unwrap().message();
    assert!(
        message.contains("no more connections allowed (max_client_conn)"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_file_is_begun_anew_after_it_was_moved_away() {
    let bouncer = Bouncer::start(&ini(""), &USERS);
    fs::rename(bouncer.path("pgbouncer.log"), bouncer.path("old.log")).unwrap();
    bouncer.signal("HUP");
    bouncer.wait_for_log(&["the configuration was read again"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pid_file_is_there_while_it_runs_and_a_second_one_does_not_start() {
    let mut bouncer = Bouncer::start(&ini(""), &USERS);
    let text = fs::read_to_string(bouncer.path("pgbouncer.pid")).unwrap();
    assert!(text.trim().parse::<u32>().is_ok());
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_pgspan"))
        .arg(bouncer.path("pgbouncer.ini"))
        .current_dir(bouncer.path(""))
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another instance running?"), "{said}");
    bouncer.signal("QUIT");
    bouncer.wait_for_exit();
    assert!(!bouncer.path("pgbouncer.pid").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_waits_for_the_clients_and_a_second_one_does_not() {
    let mut bouncer = Bouncer::start(&ini(""), &USERS);
    let client = bouncer.connect("user=app dbname=app").await.unwrap();
    bouncer.signal("TERM");
    bouncer.wait_for_log(&["got SIGTERM, shutting down, waiting for all clients disconnect"]);
    assert_eq!(value(&client, "SELECT 1").await, "1");
    assert!(bouncer.is_running());
    drop(client);
    assert!(bouncer.wait_for_exit().success());

    let mut bouncer = Bouncer::start(&ini(""), &USERS);
    let _client = bouncer.connect("user=app dbname=app").await.unwrap();
    bouncer.signal("TERM");
    bouncer.wait_for_log(&["got SIGTERM"]);
    bouncer.signal("TERM");
    assert!(bouncer.wait_for_exit().success());
}

/// The message that a login is refused with.
async fn refused(bouncer: &Bouncer, conninfo: &str) -> String {
    let refused = bouncer.connect(conninfo).await.unwrap_err();
    refused.as_db_error().unwrap().message().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_tls_are_changed_one_after_the_other() {
    let bouncer = Bouncer::start(&ini("admin_users = app\n"), &USERS);
    let authority = Authority::new();
    authority.issue("own", "bouncer", &[]);
    let [cert, key, ca] =
        ["own.crt", "own.key", "ca.crt"].map(|file| authority.path(file).display().to_string());
    let console = bouncer.connect("user=app dbname=pgbouncer").await.unwrap();
    let shown = async |key: &str| {
        let rows = console.simple_query("SHOW CONFIG").await.unwrap();
        let value = rows.iter().find_map(|row| match row {
            SimpleQueryMessage::Row(row) if row.get("key") == Some(key) => row.get("value"),
            _ => None,
        });
        value.unwrap().to_owned()
    };
    // Without server_tls_ca_file it is the system's authorities that verify.
    let set = async |setting: String| console.batch_execute(&format!("SET {setting}")).await;
    set("server_tls_sslmode = 'verify-full'".into())
        .await
        .unwrap();
    assert_eq!(shown("server_tls_sslmode").await, "verify-full");
    set(format!("server_tls_ca_file = '{ca}'")).await.unwrap();
    // A key alone is nothing yet.
    set(format!("server_tls_key_file = '{key}'")).await.unwrap();
    assert_eq!(shown("server_tls_key_file").await, "");
    set("query_timeout = 7".into()).await.unwrap();
    set(format!("server_tls_cert_file = '{cert}'"))
        .await
        .unwrap();
    assert_eq!(shown("server_tls_key_file").await, key);
    assert_eq!(shown("server_tls_cert_file").await, cert);
    assert_eq!(shown("query_timeout").await, "7");
    assert!(set("server_tls_sslmode = perhaps".into()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_the_section_of_users_alone_is_nobody() {
    let users = "[users]\nsomebody = max_user_client_connections = 5\napp = max_user_client_connections = 5\n";
    let ini = ini("").replace("[pgbouncer]", &format!("{users}[pgbouncer]"));
    let bouncer = Bouncer::start(&ini, &USERS);
    assert_eq!(
        refused(&bouncer, "user=somebody dbname=app").await,
        "\"trust\" authentication failed"
    );
    bouncer.connect("user=app dbname=app").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_the_console_count_too_but_administrators_are_let_in() {
    let limits = "max_user_client_connections = 1\nstats_users = app\nadmin_users = postgres\n";
    let bouncer = Bouncer::start(&ini(limits), &USERS);
    let console = "dbname=pgbouncer user=";
    let _one = bouncer.connect(&format!("{console}app")).await.unwrap();
    assert_eq!(
        refused(&bouncer, &format!("{console}app")).await,
        "client connections exceeded (max_user_client_connections)"
    );
    let administrators = [
        bouncer.connect(&format!("{console}postgres")).await,
        bouncer.connect(&format!("{console}postgres")).await,
    ];
    assert!(administrators.iter().all(Result::is_ok));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_used_once_is_not_used_up_by_a_login() {
    let bouncer = Bouncer::start(&ini("server_lifetime = 0\nadmin_users = app\n"), &USERS);
    let client = bouncer.connect("user=app dbname=app").await.unwrap();
    let opened = || {
        let log = bouncer.log();
        log.matches("new connection to server").count()
    };
    assert_eq!(value(&client, "SELECT 1").await, "1");
    assert_eq!(opened(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_addresses_that_names_lead_to_are_shown() {
    let named =
        ini("admin_users = app\ndns_max_ttl = 300\n").replace("host=127.0.0.1", "host=localhost");
    let bouncer = Bouncer::start(&named, &USERS);
    let client = bouncer.connect("user=app dbname=app").await.unwrap();
    assert_eq!(value(&client, "SELECT 1").await, "1");
    let console = bouncer.connect("user=app dbname=pgbouncer").await.unwrap();
    let rows = console.simple_query("SHOW DNS_HOSTS").await.unwrap();
    let shown = rows.iter().find_map(|row| match row {
        SimpleQueryMessage::Row(row) if row.get("hostname") == Some("localhost") => {
            Some((row.get("ttl")?.parse::<u64>().ok()?, row.get("addrs")?))
        }
        _ => None,
    });
    let (ttl, addresses) = shown.unwrap();
    assert!(ttl > 200 && ttl <= 300, "{ttl}");
    assert!(
        addresses.split(',').any(|address| address == "127.0.0.1:0"),
        "{addresses}"
    );
}

/// What pgbouncer_exporter asks, and reads: numbers of columns that it knows by their names.
#[tokio::test(flavor = "multi_thread")]
async fn pgbouncer_exporter_finds_its_numbers() {
    let bouncer = Bouncer::start(&ini("stats_users = app\n"), &USERS);
    let client = bouncer.connect("user=app dbname=app").await.unwrap();
    assert_eq!(value(&client, "SELECT 1").await, "1");
    let console = bouncer.connect("user=app dbname=pgbouncer").await.unwrap();
    let rows = async |query: &str| -> Vec<SimpleQueryRow> {
        let messages = console.simple_query(query).await.unwrap();
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        rows.collect()
    };
    let is_number = |text: Option<&str>| text.is_none_or(|text| text.parse::<f64>().is_ok());
    for (query, labels, numbers) in [
        (
            "SHOW databases;",
            "name host port database force_user pool_mode",
            "pool_size max_connections current_connections paused disabled",
        ),
        (
            "SHOW stats_totals;",
            "database",
            "query_count query_time bytes_received bytes_sent wait_time xact_count xact_time client_parse_count \
             server_parse_count bind_count",
        ),
        (
            "SHOW pools;",
            "database user",
            "cl_active cl_active_cancel_req cl_waiting cl_waiting_cancel_req sv_active sv_active_cancel sv_being_canceled \
             sv_idle sv_used sv_tested sv_login maxwait",
        ),
    ] {
        let rows = rows(query).await;
        assert!(!rows.is_empty(), "{query}");
        for row in &rows {
            let is_there = |label: &str| row.columns().iter().any(|column| column.name() == label);
            assert!(labels.split(' ').all(is_there), "{query}");
            for number in numbers.split(' ') {
                assert!(is_number(row.get(number)), "{query} {number}");
            }
        }
    }
    assert!(!rows("SHOW STATS").await.is_empty());
    let lists = rows("SHOW LISTS;").await;
    assert!(
        lists
            .iter()
            .all(|row| row.len() == 2 && is_number(row.get(1)))
    );
    for name in "databases users pools free_clients used_clients login_clients free_servers used_servers dns_names".split(' ') {
        assert!(lists.iter().any(|row| row.get(0) == Some(name)), "{name}");
    }
    let config = rows("SHOW CONFIG;").await;
    assert!(config.iter().all(|row| row.len() == 4));
    for name in ["max_client_conn", "max_user_connections"] {
        let row = config.iter().find(|row| row.get(0) == Some(name)).unwrap();
        assert!(is_number(row.get(1)), "{name}");
    }
    assert_eq!(rows("SHOW VERSION;").await.len(), 1);
}

#[test]
fn clients_are_encrypted_where_the_file_says_so() {
    let authority = Authority::new();
    authority.issue("own", "localhost", &["localhost"]);
    let file = |name: &str| authority.path(name).display().to_string();
    let bouncer = Bouncer::start(
        &ini(&format!(
            "client_tls_sslmode = require\nclient_tls_key_file = {}\nclient_tls_cert_file = {}\n",
            file("own.key"),
            file("own.crt")
        )),
        &USERS,
    );
    let login = |mode: &str| {
        let port = bouncer.port();
        let ca = file("ca.crt");
        psql(
            &format!(
                "host=localhost port={port} user=app dbname=app sslmode={mode} sslrootcert={ca}"
            ),
            "SELECT 41 + 1",
        )
    };
    let verified = login("verify-full");
    assert_eq!(verified.stdout.trim(), "42", "{}", verified.stderr);
    assert!(!login("disable").succeeded);
    bouncer.wait_for_log(&["login attempt: db=app user=app tls=TLSv1.3/"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_are_none_are_refused_in_pgbouncers_words() {
    let bouncer = Bouncer::start(&ini(""), &USERS);
    assert_eq!(
        refused(&bouncer, "user=app dbname=app options=-d").await,
        "unsupported options startup parameter: only '-c config=val' and '--config=val' are allowed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_for_in_the_console_or_in_a_database_that_is_not_there() {
    let asks = "auth_user = postgres\nauth_type = md5\nadmin_users = postgres\n";
    let ini =
        |dbname: &str| ini(&format!("{asks}auth_dbname = {dbname}\n")).replace("* =", "app =");
    let bouncer = Bouncer::start(&ini("nowhere"), &USERS);
    let login = "user=nobody password=x dbname=app";
    assert_eq!(refused(&bouncer, login).await, "bouncer config error");
    bouncer.wait_for_log(&["authentication database \"nowhere\" is not configured"]);
    bouncer.write_ini(&ini("pgbouncer"));
    bouncer.signal("HUP");
    bouncer.wait_for_log(&["cannot use the reserved \"pgbouncer\" database as an auth_dbname"]);
    bouncer.wait_for_log(&["the configuration was read again"]);
    assert_eq!(refused(&bouncer, login).await, "bouncer config error");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_without_the_main_section_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.ini");
    fs::write(&file, "[databases]\n").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pgspan"))
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("the section [pgbouncer] is missing"),
        "{said}"
    );
}

/// What clients read who are not let in.
async fn refusal(bouncer: &Bouncer, parameters: &str) -> String {
    let Err(error) = bouncer.connect(parameters).await else {
        panic!("{parameters} was let in");
    };
    error.as_db_error().unwrap().message().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_log_in_by_auth_query_with_a_password_that_only_the_server_knows() {
    let ini = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nauth_type = scram-sha-256\nauth_file = userlist.txt\n\
         auth_user = postgres\npool_mode = transaction\n",
        shared().port()
    );
    let bouncer = Bouncer::start(&ini, &[("userlist.txt", "\"postgres\" \"unused\"\n")]);
    let login = |password: &str| format!("user=scram_user dbname=app password={password}");
    let client = bouncer.connect(&login("sesame")).await.unwrap();
    assert_eq!(value(&client, "SELECT current_user").await, "scram_user");
    assert_eq!(
        refusal(&bouncer, &login("wrong")).await,
        "SASL authentication failed"
    );
    bouncer.wait_for_log(&["closing because: SASL authentication failed (age="]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hba_rules_decide_who_comes_in_and_how() {
    let ini = format!(
        "[databases]\napp = host=127.0.0.1 port={}\n[pgbouncer]\nauth_type = hba\nauth_file = userlist.txt\n\
         auth_hba_file = hba.conf\n",
        shared().port()
    );
    let files = [
        ("userlist.txt", "\"app\" \"\"\n\"md5_user\" \"sesame\"\n"),
        (
            "hba.conf",
            "host app app 127.0.0.1/32 trust\nhost app md5_user 127.0.0.1/32 md5\nhost all all 0.0.0.0/0 reject\n",
        ),
    ];
    let bouncer = Bouncer::start(&ini, &files);
    let client = bouncer.connect("user=app dbname=app").await.unwrap();
    assert_eq!(value(&client, "SELECT current_user").await, "app");
    let client = bouncer
        .connect("user=md5_user dbname=app password=sesame")
        .await
        .unwrap();
    assert_eq!(value(&client, "SELECT current_user").await, "md5_user");
    assert_eq!(
        refusal(&bouncer, "user=postgres dbname=app").await,
        "login rejected"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_user_serves_everyone_and_other_databases_are_unknown() {
    let ini = format!(
        "[databases]\nfront = host=127.0.0.1 port={} dbname=app user=app connect_query='SET work_mem = ''5MB'''\n\
         [pgbouncer]\nauth_type = trust\nauth_file = userlist.txt\n",
        shared().port()
    );
    let bouncer = Bouncer::start(&ini, &[("userlist.txt", "\"anybody\" \"\"\n")]);
    let client = bouncer.connect("user=anybody dbname=front").await.unwrap();
    assert_eq!(
        value(&client, "SELECT current_database() || current_user").await,
        "appapp"
    );
    assert_eq!(value(&client, "SHOW work_mem").await, "5MB");
    assert_eq!(
        refusal(&bouncer, "user=anybody dbname=app").await,
        "no such database: app"
    );
    assert_eq!(
        refusal(&bouncer, "user=nobody dbname=front").await,
        "\"trust\" authentication failed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn set_on_the_console_lasts_until_the_file_is_read_again() {
    let bouncer = Bouncer::start(&ini("max_client_conn = 10\n"), &USERS);
    let console = bouncer
        .connect_unix("user=pgbouncer dbname=pgbouncer")
        .await
        .unwrap();
    let _client = bouncer.connect("user=app dbname=app").await.unwrap();
    console.simple_query("SET max_client_conn=1").await.unwrap();
    assert_eq!(
        refusal(&bouncer, "user=app dbname=app").await,
        "no more connections allowed (max_client_conn)"
    );
    console.simple_query("RELOAD").await.unwrap();
    assert!(bouncer.connect("user=app dbname=app").await.is_ok());
    let refused = console.simple_query("SET nothing=1").await.unwrap_err();
    assert_eq!(refused.as_db_error().unwrap().message(), "SET failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigint_waits_for_the_servers_only() {
    let mut bouncer = Bouncer::start(&ini("pool_mode = transaction\n"), &USERS);
    let busy = bouncer.connect("user=app dbname=app").await.unwrap();
    let idle = bouncer.connect("user=app dbname=app").await.unwrap();
    busy.simple_query("BEGIN").await.unwrap();
    bouncer.signal("INT");
    bouncer.wait_for_log(&["got SIGINT, shutting down, waiting for all servers connections"]);
    let refused = idle.simple_query("SELECT 1").await.unwrap_err();
    assert_eq!(
        refused.as_db_error().unwrap().message(),
        "server shutting down"
    );
    assert!(bouncer.is_running());
    busy.simple_query("COMMIT").await.unwrap();
    assert!(bouncer.wait_for_exit().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn importing_a_file_prints_a_configuration_that_is_good() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pgbouncer.ini");
    fs::write(&file, ini("pool_mode = transaction\n")).unwrap();
    fs::write(folder.path().join("userlist.txt"), USERS[0].1).unwrap();
    let pgspan = |arguments: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_pgspan"))
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap()
    };
    let imported = pgspan(&["import", "pgbouncer.ini"]);
    assert!(imported.status.success());
    fs::write(folder.path().join("config.toml"), imported.stdout).unwrap();
    let checked = pgspan(&["check", "config.toml"]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success(), "{said}");
}
