//! What is written, and what it means.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use pgspan::config::choices::{OnMissing, PoolMode, WorkerCount};
use pgspan::config::{ConsoleRole, Host};

use crate::{good, wrong};

#[test]
fn written_values_replace_the_defaults() {
    let config = good(
        r#"
        listen = { address = "[::1]:7000", max_client_connections = 5, login_timeout = "1m", backlog = 10 }
        http.address = ""
        workers.count = "auto"
        trace = { on_missing = "generate", allowed_tags = ["tenant"] }
        annotation.max_query_bytes = "64KiB"
        slow_query = { threshold = "0", text_limit = 0, ratio = 0.25 }
        drain.timeout = "0"
        "#,
    );
    assert_eq!(
        config.listen.addresses,
        ["[::1]:7000".parse::<SocketAddr>().unwrap()]
    );
    assert_eq!(config.listen.max_client_connections.get(), 5);
    assert_eq!(config.listen.login_timeout, Duration::from_secs(60));
    assert_eq!(config.listen.backlog, 10);
    assert_eq!(config.http.address, None);
    assert_eq!(config.workers.count, WorkerCount::Auto);
    assert_eq!(config.trace.on_missing, OnMissing::Generate);
    assert_eq!(config.trace.allowed_tags, ["tenant".into()]);
    assert_eq!(config.annotation.max_query_bytes.get(), 65_536);
    assert_eq!(config.slow_query.threshold, Duration::ZERO);
    assert_eq!(config.slow_query.text_limit, 0);
    assert_eq!(config.slow_query.ratio.as_f64(), 0.25);
    assert_eq!(config.drain.timeout, None);
}

#[test]
fn an_admin_of_the_console_may_do_what_others_may_only_ask_about() {
    let config = good(
        r#"
        [console]
        admin_users = ["root", "both"]
        stats_users = ["watch", "both"]
        "#,
    );
    let role = |user| config.console.role_of(user);
    assert_eq!(role("root"), Some(ConsoleRole::Admin));
    assert_eq!(role("both"), Some(ConsoleRole::Admin));
    assert_eq!(role("watch"), Some(ConsoleRole::Stats));
    assert_eq!(role("ann"), None);
}

#[test]
fn clients_may_connect_to_several_addresses_and_to_a_unix_socket() {
    let listen = good(
        r#"listen = { address = ["127.0.0.1:7000", "[::1]:7000"], unix_socket_dir = "/run/pgspan" }"#,
    )
    .listen;
    assert_eq!(listen.addresses.len(), 2);
    let socket = listen.unix_socket.unwrap();
    assert_eq!(socket.path(), Path::new("/run/pgspan/.s.PGSQL.7000"));
    assert_eq!((socket.mode, socket.group), (0o777, None));

    let listen = good(
        r#"listen = { address = "", unix_socket_dir = "@pool", unix_socket_port = 7, unix_socket_mode = "0770",
           unix_socket_group = "dba" }"#,
    )
    .listen;
    assert_eq!(listen.addresses, []);
    let socket = listen.unix_socket.unwrap();
    assert!(socket.is_abstract());
    assert_eq!(socket.path(), Path::new("@pool/.s.PGSQL.7"));
    assert_eq!((socket.mode, socket.group), (0o770, Some("dba".into())));

    assert_eq!(
        wrong("listen.address = []"),
        "config.toml:1:18: `address` in [listen]: clients can connect nowhere: give an address or `unix_socket_dir`"
    );
    assert_eq!(
        wrong("listen.unix_socket_dir = \"run\""),
        "config.toml:1:26: `unix_socket_dir` in [listen]: expected a folder's whole path, or @ and a name for an \
         abstract socket"
    );
}

#[test]
fn a_users_pool_settings_win_over_the_databases_and_those_over_the_pools() {
    let config = good(
        r#"
        [pool]
        size = 10
        mode = "session"
        checkout_timeout = "1s"
        [databases.app]
        pool.size = 50
        pool.checkout_timeout = "0"
        [users.ann]
        password = "ann's"
        pool.size = 2
        [users.bob]
        password = "bob's"
        pool.mode = "transaction"
        "#,
    );
    let facts = |database, user| {
        let settings = config.pool_settings(database, user);
        (
            settings.size.map_or(0, |size| size.get()),
            settings.mode,
            settings.checkout_timeout,
        )
    };
    let second = Some(Duration::from_secs(1));
    assert_eq!(facts("app", "ann"), (2, PoolMode::Session, None));
    assert_eq!(facts("app", "bob"), (50, PoolMode::Transaction, None));
    assert_eq!(facts("app", "eve"), (50, PoolMode::Session, None));
    assert_eq!(facts("other", "ann"), (2, PoolMode::Session, second));
    assert_eq!(facts("other", "eve"), (10, PoolMode::Session, second));
}

#[test]
fn a_limit_of_nothing_is_none() {
    let config = good(
        "[pool]\nsize = 0\nmax_database_connections = 7\n[users.ann]\npassword = \"x\"\npool.max_user_connections = 3",
    );
    let settings = config.pool_settings("app", "ann");
    assert_eq!(settings.size, None);
    assert_eq!(
        settings.max_database_connections.map(|it| it.get()),
        Some(7)
    );
    assert_eq!(settings.max_user_connections.map(|it| it.get()), Some(3));
    assert_eq!(settings.max_user_client_connections, None);
}

#[test]
fn a_database_with_a_user_of_its_own_has_one_pool_for_all() {
    let config = good("[databases.app]\nuser = \"owner\"\n[databases.wiki]");
    assert_eq!(config.pool_user("app", "ann"), "owner");
    assert_eq!(config.pool_user("wiki", "ann"), "ann");
}

#[test]
fn an_empty_reset_query_is_none() {
    let config = good("[databases.app]\npool.server_reset_query = \"\"");
    assert_eq!(config.pool_settings("app", "ann").server_reset_query, None);
    assert_eq!(config.pool.server_reset_query, Some("DISCARD ALL".into()));
}

#[test]
fn a_database_has_its_own_name_on_the_server_unless_told_otherwise() {
    let config =
        good("[databases.app]\n[databases.old]\ndbname = \"new\"\n[databases.\"*\"]\nport = 5433");
    let name = |database: &'static str| config.database(database).unwrap().name_on_server(database);
    assert_eq!(name("app"), "app");
    assert_eq!(name("old"), "new");
    assert_eq!(name("any"), "any");
    assert_eq!(config.database("any").unwrap().port, 5433);
}

#[test]
fn without_a_star_other_names_lead_nowhere() {
    assert_eq!(good("[databases.app]").database("any"), None);
}

#[test]
fn a_host_is_a_name_an_address_or_a_socket_folder() {
    let host = |host: &str| {
        let config = good(&format!("databases.app.host = {host:?}"));
        config.database("app").unwrap().hosts[0].clone()
    };
    assert_eq!(host("db.example.com"), Host::Tcp("db.example.com".into()));
    assert_eq!(host("::1"), Host::Tcp("::1".into()));
    assert_eq!(
        host("/run/postgresql"),
        Host::SocketFolder("/run/postgresql".into())
    );
}

#[test]
fn several_hosts_are_written_with_commas_or_as_a_list() {
    let hosts = |written: &str| {
        good(&format!("databases.app.host = {written}"))
            .database("app")
            .unwrap()
            .hosts_in_words()
    };
    assert_eq!(
        hosts("\"db1, 10.0.0.2,/run/postgresql\""),
        "db1,10.0.0.2,/run/postgresql"
    );
    assert_eq!(hosts("[\"db1\", \"@pg\"]"), "db1,@pg");
    assert_eq!(
        wrong("databases.app.host = []"),
        "config.toml:1:22: `host` in [databases.app]: invalid length 0, expected a host name, an IP address or the folder of a unix \
         socket, or a list of them"
    );
}

#[test]
fn a_users_tags_win_over_the_databases() {
    let config = good(
        r#"
        databases.app.tags = { framework = "rails", application = "app" }
        users.ann = { password = "x", tags = { application = "reports" } }
        "#,
    );
    let pair = |key: &str, value: &str| (key.into(), value.into());
    assert_eq!(
        config.tags("app", "ann"),
        [pair("application", "reports"), pair("framework", "rails")]
    );
    assert_eq!(
        config.tags("app", "bob"),
        [pair("application", "app"), pair("framework", "rails")]
    );
    assert_eq!(config.tags("other", "bob"), []);
}
