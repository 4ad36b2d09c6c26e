//! What a configuration means, what is said about a wrong one, and that nothing said shows a secret.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use pgspan::config::choices::{Compression, OnMissing, OtlpProtocol, PoolMode, WorkerCount};
use pgspan::config::secret::Secret;
use pgspan::config::tls::{Authorities, TextFile};
use pgspan::config::{Config, ConfigErrors, ConsoleRole, Host, Otlp, PasswordFile};

// What is written.

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

// What is wrong.

#[test]
fn a_misspelt_key_is_named_with_the_nearest_one_and_its_place() {
    assert_eq!(
        wrong("[pool]\nmode = \"session\"\nsice = 20"),
        "config.toml:3:1: unknown key `sice` in [pool], did you mean `size`?"
    );
    assert_eq!(
        wrong("[databases.app]\npool.sizes = 20"),
        "config.toml:2:6: unknown key `sizes` in [databases.app.pool], did you mean `size`?"
    );
    assert_eq!(
        wrong("[databse.app]\nport = 1"),
        "config.toml:1:2: unknown table [databse], did you mean [databases]?"
    );
    assert_eq!(
        wrong("[drain]\npatience = \"1s\""),
        "config.toml:2:1: unknown key `patience` in [drain]; known are `on_sigterm`, `timeout`"
    );
}

#[test]
fn a_value_of_the_wrong_type_or_range_is_told_what_is_expected() {
    assert_eq!(
        wrong("[pool]\nsize = \"20\""),
        "config.toml:2:8: `size` in [pool]: expected a whole number of 1 or more, or 0 for no limit, found a string"
    );
    assert_eq!(
        wrong("[pool]\nsize = -1"),
        "config.toml:2:8: `size` in [pool]: expected a whole number of 1 or more, or 0 for no limit, found -1"
    );
    assert_eq!(
        wrong("pool.mode = \"transactoin\""),
        "config.toml:1:13: `mode` in [pool]: \"transactoin\" is not one of `session`, `transaction`, `statement`, \
         did you mean `transaction`?"
    );
    assert_eq!(
        wrong("pool.mode = 1"),
        "config.toml:1:13: `mode` in [pool]: expected one of `session`, `transaction`, `statement`"
    );
    assert_eq!(
        wrong("[slow_query]\nthreshold = \"100\""),
        "config.toml:2:13: `threshold` in [slow_query]: expected a duration such as \
         \"250ms\", \"15s\", \"2m\", \"1h\" or \"0\", found \"100\""
    );
    assert_eq!(
        wrong("listen.address = \"localhost\""),
        "config.toml:1:18: `address` in [listen]: expected an IP address and a port such as \
         \"127.0.0.1:6432\", \"0.0.0.0:6432\" or \"[::]:6432\", or a list of them, found \"localhost\""
    );
    assert_eq!(
        wrong("databases.app.port = 70_000"),
        "config.toml:1:22: `port` in [databases.app]: expected a port from 1 to 65535, found 70000"
    );
    assert_eq!(
        wrong("pool = 3"),
        "config.toml:1:8: [pool]: expected a table, found a number"
    );
    assert_eq!(
        wrong("pool = [\"session\", 20]"),
        "config.toml:1:8: [pool]: expected a table, found a list"
    );
    assert_eq!(
        wrong("[[users.bob]]\npassword = \"x\""),
        "config.toml:1:1: `bob` in [users]: expected a table, found a list"
    );
    assert_eq!(
        wrong("trace.allowed_tags = [\"route\", 5]"),
        "config.toml:1:32: `allowed_tags` in [trace]: expected a string, found a number"
    );
}

#[test]
fn everything_wrong_is_said_at_once_in_the_order_of_the_file() {
    let errors = errors(
        "[pool]\nsize = -1\nmoed = \"session\"\n[workers]\ncount = \"all\"\n[users.app]\npasword = \"x\"",
    );
    let keys: Vec<&str> = errors
        .problems()
        .iter()
        .map(|problem| &*problem.key)
        .collect();
    assert_eq!(
        keys,
        [
            "pool.size",
            "pool.moed",
            "workers.count",
            "users.app.pasword"
        ]
    );
}

#[test]
fn mistakes_of_grammar_have_their_place() {
    let errors = errors("[pool]\nsize = 20\nsize = 30\nmode = ");
    let places: Vec<String> = errors.problems().iter().map(ToString::to_string).collect();
    assert_eq!(
        places,
        [
            "config.toml:3:1: duplicate key",
            "config.toml:4:8: string values must be quoted, expected literal string"
        ]
    );
}

#[test]
fn hosts_of_other_forms_are_told_the_form() {
    for (host, why) in [
        (
            "",
            "expected a host name, an IP address or the folder of a unix socket",
        ),
        ("db:5432", "the port has a key of its own, `port`"),
        (
            "[::1]:5432",
            "an IPv6 address stands here without brackets and port",
        ),
        ("postgres://db/app", "expected a host, not a URL"),
        (
            "@",
            "expected the name of an abstract unix socket behind the @",
        ),
        (
            "db1,",
            "expected a host name, an IP address or the folder of a unix socket",
        ),
        (
            "/tmp/.s.PGSQL.5432",
            "expected the folder of the unix socket, not the socket",
        ),
    ] {
        assert_eq!(
            wrong(&format!("[databases.\"*\"]\nhost = {host:?}")),
            format!("config.toml:2:8: `host` in [databases.\"*\"]: {why}")
        );
    }
}

#[test]
fn addresses_that_collide_are_refused() {
    assert_eq!(
        wrong("listen.address = \"0.0.0.0:9127\""),
        "config.toml: `address` in [http]: clients connect to 0.0.0.0:9127 already, see [listen]"
    );
}

#[test]
fn a_database_that_leads_back_to_the_proxy_is_warned_about() {
    let said = warnings("[databases.app]\nhost = \"localhost\"\nport = 6432");
    let back =
        "config.toml:2:8: `host` in [databases.app]: localhost:6432 is where pgspan itself listens";
    assert!(said.iter().any(|warning| warning == back), "{said:?}");
}

#[test]
fn names_of_the_console_are_taken() {
    assert_eq!(
        wrong("[databases.pgbouncer]"),
        "config.toml:1:12: [databases.pgbouncer]: this name is the console's"
    );
}

#[test]
fn a_tag_must_be_allowed_and_short_enough() {
    assert_eq!(
        wrong("[databases.app]\ntags = { team = \"x\" }"),
        "config.toml:2:17: `team` in [databases.app.tags]: `allowed_tags` in [trace] does not name it"
    );
    assert_eq!(
        wrong(
            "trace.max_tag_length = 3\nusers.ann = { password = \"x\", tags = { route = \"/pay\" } }"
        ),
        "config.toml:2:48: `route` in [users.ann.tags]: it is longer than `max_tag_length` in [trace]: 3"
    );
    assert_eq!(
        wrong("trace.allowed_tags = [\"trace_id\"]"),
        "config.toml:1:22: `allowed_tags` in [trace]: \"trace_id\" is a field of the trace context, not a tag"
    );
}

#[test]
fn a_user_needs_a_password_unless_nobody_is_asked_for_one() {
    assert_eq!(
        wrong("[users.ann]"),
        "config.toml:1:8: [users.ann]: `password` or `password_file` is missing, and [auth] asks for one"
    );
    assert_eq!(
        good("auth.method = \"trust\"\n[users.ann]")
            .user("ann")
            .unwrap()
            .password,
        None
    );
}

#[test]
fn hashes_that_cannot_work_are_refused() {
    let verifier = "SCRAM-SHA-256$4096:2wRk4E0sGhqTMVwNR2yGzQ==$\
                    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let config = good(&format!("users.ann.password = {verifier:?}"));
    assert_eq!(
        config.user("ann").unwrap().password,
        Some(Secret::new(verifier))
    );
    assert_eq!(
        wrong("users.ann.password = \"SCRAM-SHA-256$4096:abc\""),
        "config.toml:1:7: [users.ann]: its password begins like a SCRAM verifier, but is not \
         SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>"
    );
    assert_eq!(
        wrong("users.ann.password = \"md50123456789abcdef0123456789abcdef\""),
        "config.toml:1:7: [users.ann]: its password is an md5 hash: the password or a SCRAM verifier is needed"
    );
}

// What is doubtful.

#[test]
fn what_is_harmless_only_on_one_machine_is_warned_about() {
    let text = "listen.address = \"0.0.0.0:6432\"\nauth.method = \"trust\"\ndatabases.app = {}\nusers.ann.password = \"ann\"";
    assert_eq!(
        warnings(text),
        [
            "config.toml:2:15: `method` in [auth]: everyone who reaches 0.0.0.0:6432 can log in as any of [users]",
            "config.toml:4:7: [users.ann]: its password is its name, and 0.0.0.0:6432 is not this machine's own"
        ]
    );
    assert_eq!(warnings(&text.replace("0.0.0.0", "127.0.0.1")), [""; 0]);
}

#[test]
fn a_configuration_that_lets_nobody_in_is_warned_about() {
    assert_eq!(
        warnings(""),
        [
            "config.toml: [databases]: there is none, so no client can log in",
            "config.toml: [users]: there is none, so no client can log in"
        ]
    );
}

// Secrets.

#[test]
fn a_secret_names_variables_of_the_environment() {
    let environment = [("PASSWORD", "p${X}"), ("HALF", "lf")];
    let password = |text: &str| {
        let text = format!("users.ann.password = {text:?}");
        let config = load(&text, &environment, &[]).map(|(config, _)| config);
        config.map(|config| {
            config
                .user("ann")
                .unwrap()
                .password
                .as_ref()
                .unwrap()
                .expose()
                .to_owned()
        })
    };
    assert_eq!(password("${PASSWORD}").unwrap(), "p${X}");
    assert_eq!(password("ha${HALF}-$1").unwrap(), "half-$1");
    assert_eq!(password("$${PASSWORD}").unwrap(), "${PASSWORD}");
    for (text, why) in [
        ("${MISSING}", "the environment variable MISSING is not set"),
        ("", "it cannot be empty"),
        (
            "hush${PASSWORD",
            "expected ${NAME} with the name of a variable, or $${ for the characters themselves",
        ),
        (
            "hush${1}",
            "expected ${NAME} with the name of a variable, or $${ for the characters themselves",
        ),
    ] {
        assert_eq!(
            password(text).unwrap_err().to_string(),
            format!("config.toml:1:22: `password` in [users.ann]: {why}")
        );
    }
}

#[test]
fn a_password_file_holds_one_line_and_starts_from_the_configurations_folder() {
    let files = [
        ("/etc/pgspan/ann", "ann's\n"),
        ("/secret/bob", "bob's\r\n"),
        ("/etc/pgspan/two", "a\nb\n"),
    ];
    let load = |text: &str| load_as("/etc/pgspan/config.toml", text, &[], &files);
    let password = |text: &str| {
        let (config, _) = load(text).unwrap();
        config
            .user("x")
            .unwrap()
            .password
            .as_ref()
            .unwrap()
            .expose()
            .to_owned()
    };
    assert_eq!(password("users.x.password_file = \"ann\""), "ann's");
    assert_eq!(password("users.x.password_file = \"/secret/bob\""), "bob's");
    let why = |text: &str| load(text).unwrap_err().to_string();
    assert_eq!(
        why("users.x.password_file = \"two\""),
        "/etc/pgspan/config.toml:1:25: `password_file` in [users.x]: /etc/pgspan/two should hold the password in one line"
    );
    assert_eq!(
        why("users.x.password_file = \"none\""),
        "/etc/pgspan/config.toml:1:25: `password_file` in [users.x]: /etc/pgspan/none cannot be read: entity not found"
    );
    assert_eq!(
        why("users.x.password = \"a\"\nusers.x.password_file = \"ann\""),
        "/etc/pgspan/config.toml:2:25: `password_file` in [users.x]: either it or `password`, not both"
    );
}

#[test]
fn nothing_shows_a_secret() {
    let text = r#"
        databases.app = { user = "app", password = "hush" }
        users.ann.password = "${SECRET}"
        otlp.headers = { authorization = "hush" }
    "#;
    let (config, _) = load(text, &[("SECRET", "hush")], &[]).unwrap();
    assert!(!format!("{config:?}").contains("hush"));

    for wrong in [
        "users.ann.password = 7357",
        "users.ann.password = [7357]",
        "users.ann.password = 7357.5",
        "users.ann.password = 7357\nusers.ann.password = 7357",
        "users.ann.password = a7357",
        "users.ann.password = \"7357",
        "users.ann.password = \"7357${\"",
        "databases.app.password = \"7357\"",
        "otlp.headers.key = 7357",
        "otlp.headers.key = \"7357\\n\"",
        "otlp.endpoint = \"http://user:7357@collector\"",
        "otlp.endpoint = \"http://collector?key=7357\"",
        "users.ann.password = \"SCRAM-SHA-256$7357\"",
    ] {
        let errors = errors(wrong);
        assert!(
            !format!("{errors} {errors:?}").contains("7357"),
            "{errors:?}"
        );
    }
}

// OpenTelemetry.

#[test]
fn without_an_endpoint_no_spans_leave() {
    assert_eq!(otlp("", &[]), Otlp::default());
    assert_eq!(otlp("endpoint = \"\"", &[]).endpoint, None);
}

#[test]
fn the_files_endpoint_gets_the_standard_path_if_it_has_none() {
    let endpoint = |text: &str| otlp(text, &[]).endpoint.unwrap();
    assert_eq!(&*endpoint("endpoint = \"http://c:4317\""), "http://c:4317/");
    let http = "protocol = \"http/protobuf\"\nendpoint = ";
    assert_eq!(
        &*endpoint(&format!("{http}\"http://c:4318\"")),
        "http://c:4318/v1/traces"
    );
    assert_eq!(
        &*endpoint(&format!("{http}\"http://c:4318/otlp\"")),
        "http://c:4318/otlp"
    );
}

#[test]
fn a_general_endpoint_is_a_base_and_that_of_traces_is_used_as_it_is() {
    let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
    let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:4318/otlp/");
    let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:4318");
    let endpoint = |variables: &[(&str, &str)]| {
        otlp("endpoint = \"http://file:4317\"", variables)
            .endpoint
            .unwrap()
    };
    assert_eq!(&*endpoint(&[http, base]), "https://c:4318/otlp/v1/traces");
    assert_eq!(&*endpoint(&[http, base, own]), "http://t:4318/");
    assert_eq!(&*endpoint(&[base]), "https://c:4318/otlp/");
    assert_eq!(
        &*endpoint(&[http]),
        "http://file:4318/v1/traces".replace("4318", "4317")
    );
}

#[test]
fn the_files_for_tls_come_from_the_table_or_the_variables() {
    let table = "[otlp]\nca = \"/ca\"\ncert = \"/cert\"\nkey = \"/key\"\n";
    let files = [
        ("/ca", "A"),
        ("/cert", "B"),
        ("/key", "C"),
        ("/own", "D"),
        ("/general", "E"),
    ];
    let load = |table: &str, variables: &[(&str, &str)]| load(table, variables, &files);
    let texts = |variables: &[(&str, &str)]| {
        let tls = load(table, variables).unwrap().0.otlp.tls;
        let text = |file: Option<TextFile>| file.map(|file| file.text.expose().to_owned());
        let ca = tls.ca.as_ref().and_then(Authorities::file).cloned();
        [text(ca), text(tls.cert), text(tls.key)].map(Option::unwrap)
    };
    assert_eq!(texts(&[]), ["A", "B", "C"]);
    let general = ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/general");
    assert_eq!(texts(&[general]), ["E", "B", "C"]);
    let own = ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/own");
    let cert = ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/own");
    let key = ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/general");
    assert_eq!(texts(&[general, own, cert, key]), ["D", "D", "E"]);

    let lost = ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/lost");
    assert!(
        load(table, &[lost])
            .unwrap_err()
            .to_string()
            .contains("/lost cannot be read")
    );
    let half = load("[otlp]\ncert = \"/cert\"\n", &[]).unwrap_err();
    assert!(
        half.to_string()
            .contains("`cert` and `key` belong together")
    );
}

#[test]
fn variables_override_the_file() {
    let otlp = otlp(
        r#"
        endpoint = "http://file:4317"
        queue_size = 7
        service_name = "file"
        headers = { a = "file", b = "file" }
        resource_attributes = { region = "file", zone = "file" }
        "#,
        &[
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", ""),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Key=a%20b,"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "service.name=attribute,zone=b%2C1",
            ),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "200"),
            ("OTEL_BSP_SCHEDULE_DELAY", "250"),
        ],
    );
    assert_eq!(otlp.protocol, OtlpProtocol::HttpProtobuf);
    assert_eq!(otlp.export_timeout, Duration::from_secs(2));
    assert_eq!(otlp.headers, [("key".into(), Secret::new("a b"))]);
    assert_eq!(otlp.compression, Compression::Gzip);
    assert_eq!(otlp.service_name, "attribute".into());
    assert_eq!(
        otlp.resource_attributes,
        [
            ("region".into(), "file".into()),
            ("zone".into(), "b,1".into())
        ]
    );
    assert_eq!(otlp.queue_size.get(), 200);
    assert_eq!(otlp.max_export_batch_size.get(), 200);
    assert_eq!(otlp.schedule_delay, Duration::from_millis(250));
}

#[test]
fn the_service_name_wins_over_the_attribute() {
    let variables = [
        ("OTEL_SERVICE_NAME", "name"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=attribute"),
    ];
    assert_eq!(otlp("", &variables).service_name, "name".into());
}

#[test]
fn spans_can_be_switched_off_by_a_variable() {
    for variable in [
        ("OTEL_SDK_DISABLED", "TRUE"),
        ("OTEL_TRACES_EXPORTER", "none"),
    ] {
        assert_eq!(
            otlp("endpoint = \"http://file:4317\"", &[variable]).endpoint,
            None
        );
    }
    let on = otlp(
        "endpoint = \"http://file:4317\"",
        &[("OTEL_SDK_DISABLED", "false")],
    );
    assert_eq!(on.endpoint, Some("http://file:4317/".into()));
}

#[test]
fn a_wrong_variable_is_ignored_with_a_warning() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "3s"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hush"),
    ];
    let (config, warnings) = load(
        "databases.app = {}\nusers.x.password = \"y\"",
        &variables,
        &[],
    )
    .unwrap();
    assert_eq!(config.otlp, Otlp::default());
    assert_eq!(
        warnings,
        [
            "environment: OTEL_EXPORTER_OTLP_PROTOCOL is ignored: expected `grpc` or `http/protobuf`",
            "environment: OTEL_EXPORTER_OTLP_TIMEOUT is ignored: expected milliseconds, 1 or more",
            "environment: OTEL_EXPORTER_OTLP_HEADERS is ignored: expected name=value,name=value with values \
             percent-encoded"
        ]
    );
}

#[test]
fn a_batch_fits_into_the_queue() {
    assert_eq!(
        wrong("[otlp]\nqueue_size = 10\nmax_export_batch_size = 11"),
        "config.toml:3:25: `max_export_batch_size` in [otlp]: a batch cannot be larger than the queue of 10"
    );
    assert_eq!(otlp("queue_size = 10", &[]).max_export_batch_size.get(), 10);
}

// The program.

#[test]
fn check_says_good_and_warns_of_a_password_file_that_everyone_reads() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("ann");
    fs::write(&password, "hush\n").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
    let config = folder.path().join("pgspan.toml");
    fs::write(
        &config,
        "[databases.app]\n[users.ann]\npassword_file = \"ann\"\n",
    )
    .unwrap();

    let output = pgspan(&["check", &config.display().to_string()]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), format!("{}: good\n", config.display()));
    assert_eq!(
        stderr(&output),
        format!(
            "{}:3:17: `password_file` in [users.ann]: {} can be read by everyone: chmod 600 (warning)\n",
            config.display(),
            password.display()
        )
    );
}

#[test]
fn check_warns_of_a_secret_in_a_configuration_that_everyone_reads() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("pgspan.toml");
    let users = "[users.ann]\npassword = \"${HUSH}\"\n[users.bob]\npassword = \"hush\"\n";
    fs::write(&config, format!("[databases.app]\n{users}")).unwrap();
    let check = |mode| {
        fs::set_permissions(&config, fs::Permissions::from_mode(mode)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgspan"));
        let output = command
            .arg("check")
            .arg(&config)
            .env("HUSH", "hush")
            .output();
        stderr(&output.unwrap()).to_owned()
    };
    assert_eq!(check(0o640), "");
    let name = config.display();
    assert_eq!(
        check(0o644),
        format!(
            "{name}:5:12: `password` in [users.bob]: a secret stands in {name}, which everyone can read: chmod 600 (warning)\n"
        )
    );
}

#[test]
fn check_warns_of_rules_that_trust_everyone_or_that_nobody_can_keep_to() {
    let folder = tempfile::tempdir().unwrap();
    let hba = "local all all trust\nhost all all all trust\nhostssl all ann all cert\n";
    fs::write(folder.path().join("hba"), hba).unwrap();
    let config = folder.path().join("pgspan.toml");
    let text = "[auth]\nmethod = \"hba\"\nhba_file = \"hba\"\n[databases.app]\n[users.ann]\n";
    fs::write(&config, text).unwrap();
    let output = pgspan(&["check", &config.display().to_string()]);
    assert_eq!(output.status.code(), Some(0));
    let told = stderr(&output);
    let rules = folder.path().join("hba").display().to_string();
    for warning in [
        format!("{rules}:2: everyone who reaches this machine can log in without proof (warning)"),
        format!(
            "{rules}:3: nobody can show a certificate: [listen.tls] needs a mode and `ca` (warning)"
        ),
    ] {
        assert!(told.contains(&warning), "{told}");
    }
    assert_eq!(told.lines().count(), 2, "{told}");
}

#[test]
fn a_wrong_configuration_ends_every_command_with_2_and_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("pgspan.toml");
    fs::write(&config, "[pool]\nsice = 20\n").unwrap();
    let name = config.display().to_string();
    for arguments in [&["check", &name][..], &["run", &name], &[&name]] {
        let output = pgspan(arguments);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(stdout(&output), "");
        assert_eq!(
            stderr(&output),
            format!("{name}:2:1: unknown key `sice` in [pool], did you mean `size`?\n")
        );
    }
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let output = pgspan(&["check", "/nowhere/config.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        stderr(&output),
        "/nowhere/config.toml: No such file or directory (os error 2)\n"
    );
}

#[test]
fn without_a_name_the_usual_places_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.toml"), "pool = 1").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pgspan"))
        .env_clear()
        .current_dir(folder.path())
        .output()
        .expect("pgspan starts");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        stderr(&output),
        "config.toml:1:8: [pool]: expected a table, found a number\n"
    );
}

fn pgspan(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pgspan"))
        .args(arguments)
        .env_clear()
        .output()
        .expect("pgspan starts")
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).expect("UTF-8")
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).expect("UTF-8")
}

fn good(text: &str) -> Config {
    load(text, &[], &[]).expect("a good configuration").0
}

fn errors(text: &str) -> ConfigErrors {
    load(text, &[], &[]).expect_err("a wrong configuration")
}

/// The one thing that is wrong.
fn wrong(text: &str) -> String {
    let errors = errors(text);
    assert_eq!(errors.problems().len(), 1, "{errors}");
    errors.to_string()
}

fn warnings(text: &str) -> Vec<String> {
    load(text, &[], &[]).expect("a good configuration").1
}

fn otlp(table: &str, environment: &[(&str, &str)]) -> Otlp {
    load(&format!("[otlp]\n{table}"), environment, &[])
        .expect("a good configuration")
        .0
        .otlp
}

fn load(
    text: &str,
    environment: &[(&str, &str)],
    files: &[(&str, &str)],
) -> Result<(Config, Vec<String>), ConfigErrors> {
    load_as("config.toml", text, environment, files)
}

fn load_as(
    name: &str,
    text: &str,
    environment: &[(&str, &str)],
    files: &[(&str, &str)],
) -> Result<(Config, Vec<String>), ConfigErrors> {
    let environment: BTreeMap<&str, &str> = environment.iter().copied().collect();
    let files: BTreeMap<&Path, &str> = files
        .iter()
        .map(|&(path, text)| (Path::new(path), text))
        .collect();
    let variable = |name: &str| environment.get(name).map(|&value| value.to_owned());
    let read = |path: &Path| {
        let text = files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(PasswordFile {
            text: Secret::new(*text),
            is_readable_by_everyone: false,
        })
    };
    let checked = Config::from_toml(text, name, &variable, &read)?;
    let warnings = checked.warnings.iter().map(ToString::to_string).collect();
    Ok((checked.config, warnings))
}
