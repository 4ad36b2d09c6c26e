//! The console: PgBouncer's tables column by column, the same counts as PgBouncer's own, and its orders obeyed.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use pgspan::dev::postgres::free_port;
use tempfile::TempDir;

use crate::bouncer::{Bouncer, value};
use crate::support::messages::{field_of, query};
use crate::support::postgres::shared;
use crate::support::proxy::Proxy;
use crate::support::scripted::ScriptedClient;
use crate::support::{TRACE_ID, TRACEPARENT, eventually};

/// The columns of PgBouncer 1.25 with their types: s is text, i integer, q bigint, n numeric, b bytea.
const COLUMNS: &[(&str, &str)] = &[
    (
        "STATS",
        "database:s total_server_assignment_count:n total_xact_count:n total_query_count:n total_received:n total_sent:n \
         total_xact_time:n total_query_time:n total_wait_time:n total_client_parse_count:n total_server_parse_count:n \
         total_bind_count:n total_client_login_count:n avg_server_assignment_count:n avg_xact_count:n avg_query_count:n \
         avg_recv:n avg_sent:n avg_xact_time:n avg_query_time:n avg_wait_time:n avg_client_parse_count:n \
         avg_server_parse_count:n avg_bind_count:n avg_client_login_count:n",
    ),
    (
        "STATS_TOTALS",
        "database:s server_assignment_count:n xact_count:n query_count:n bytes_received:n bytes_sent:n xact_time:n \
         query_time:n wait_time:n client_parse_count:n server_parse_count:n bind_count:n client_login_count:n",
    ),
    (
        "STATS_AVERAGES",
        "database:s server_assignment_count:n xact_count:n query_count:n bytes_received:n bytes_sent:n xact_time:n \
         query_time:n wait_time:n avg_client_parse_count:n avg_server_parse_count:n avg_bind_count:n avg_client_login_count:n",
    ),
    ("TOTALS", "name:s value:n"),
    (
        "POOLS",
        "database:s user:s cl_active:i cl_waiting:i cl_active_cancel_req:i cl_waiting_cancel_req:i sv_active:i \
         sv_active_cancel:i sv_being_canceled:i sv_idle:i sv_used:i sv_tested:i sv_login:i maxwait:i maxwait_us:i \
         pool_mode:s load_balance_hosts:s",
    ),
    (
        "DATABASES",
        "name:s host:s port:i database:s force_user:s pool_size:i min_pool_size:i reserve_pool_size:i server_lifetime:i \
         pool_mode:s load_balance_hosts:s max_connections:i current_connections:i max_client_connections:i \
         current_client_connections:i paused:i disabled:i",
    ),
    ("CLIENTS", CLIENTS),
    ("SERVERS", CLIENTS),
    (
        "USERS",
        "name:s pool_size:s reserve_pool_size:s pool_mode:s max_user_connections:i current_connections:i \
         max_user_client_connections:i current_client_connections:i",
    ),
    ("LISTS", "list:s items:i"),
    ("CONFIG", "key:s value:s default:s changeable:s"),
    ("STATE", "key:s value:s"),
    ("VERSION", "version:s"),
    ("PEERS", "peer_id:i host:s port:i pool_size:i"),
    (
        "PEER_POOLS",
        "peer_id:i cl_active_cancel_req:i cl_waiting_cancel_req:i sv_active_cancel:i sv_login:i",
    ),
    ("MEM", "name:s size:i used:i free:i memtotal:i"),
    ("DNS_HOSTS", "hostname:s ttl:q addrs:s"),
    ("DNS_ZONES", "zonename:s serial:q count:i"),
    (
        "FDS",
        "fd:i task:s user:s database:s addr:s port:i cancel:q link:i client_encoding:s std_strings:s datestyle:s \
         timezone:s password:s scram_client_key:b scram_server_key:b",
    ),
];

const CLIENTS: &str = "type:s user:s database:s replication:s state:s addr:s port:i local_addr:s local_port:i \
     connect_time:s request_time:s wait:i wait_us:i close_needed:i ptr:s link:s remote_pid:i tls:s application_name:s \
     prepared_statements:i id:i";

/// What SHOW SOCKETS has behind that.
const BUFFERS: &str =
    "recv_pos:i pkt_pos:i pkt_remain:i send_pos:i send_remain:i pkt_avail:i send_avail:i";

#[test]
fn every_table_has_pgbouncers_columns_in_its_order_with_its_types() {
    let bouncer = Bouncer::start(&ini(), &USERS);
    let mut console = console(bouncer.port());
    for (show, columns) in COLUMNS {
        assert_eq!(
            console.ask(&format!("SHOW {show}")).described(),
            *columns,
            "{show}"
        );
    }
    for show in ["SOCKETS", "ACTIVE_SOCKETS"] {
        let described = console.ask(&format!("SHOW {show}")).described();
        assert_eq!(described, format!("{CLIENTS} {BUFFERS}"), "{show}");
    }
}

#[test]
fn the_same_workload_is_shown_as_debians_pgbouncer_shows_it() {
    let ours = Bouncer::start(&ini(), &USERS);
    let theirs = Debians::start(&ini());
    let shown = [ours.port(), theirs.port].map(|port| {
        let parameters = [
            ("user", "app"),
            ("database", "app"),
            ("application_name", "job"),
        ];
        let mut client = ScriptedClient::connect_with(address(port), &parameters);
        for text in [
            "SELECT 1",
            "BEGIN",
            "SELECT 2",
            "SELECT 3",
            "COMMIT",
            "SELECT 4; SELECT 5",
            "SELECT 1/0",
        ] {
            client.send(query(text));
            client.receive_reply();
        }
        let mut console = console(port);
        [
            "POOLS",
            "STATS",
            "STATS_TOTALS",
            "DATABASES",
            "CLIENTS",
            "SERVERS",
            "LISTS",
            "CONFIG",
            "USERS",
        ]
        .map(|show| (show, console.ask(&format!("SHOW {show}"))))
    });
    let [ours, theirs] = shown;
    for ((show, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        // What both have, has the same type; 1.18 has fewer columns.
        for (name, oid) in &theirs.columns {
            let name = match &**name {
                // Its name until 1.24.
                "reserve_pool" => "reserve_pool_size",
                name => name,
            };
            let column = (name.to_owned(), *oid);
            assert!(ours.columns.contains(&column), "{show} lacks {column:?}");
        }
        let (ours, theirs) = (ours.row_of("app"), theirs.row_of("app"));
        let equal: &[&str] = match *show {
            "POOLS" => &[
                "user",
                "cl_active",
                "cl_waiting",
                "sv_active",
                "sv_idle",
                "sv_used",
                "maxwait",
                "pool_mode",
            ],
            "STATS" => &["total_xact_count", "total_query_count", "total_received"],
            "STATS_TOTALS" => &["xact_count", "query_count", "bytes_received"],
            "DATABASES" => &[
                "host",
                "port",
                "database",
                "force_user",
                "pool_size",
                "pool_mode",
                "max_connections",
                "current_connections",
                "paused",
                "disabled",
            ],
            "CLIENTS" | "SERVERS" => &[
                "type",
                "user",
                "database",
                "state",
                "addr",
                "local_addr",
                "wait",
                "close_needed",
                "tls",
                "application_name",
            ],
            _ => &[],
        };
        for column in equal {
            assert_eq!(ours.get(*column), theirs.get(*column), "{show}: {column}");
        }
    }
}

#[test]
fn the_metrics_are_what_the_console_shows() {
    let tables = format!(
        "[console]\nadmin_users = [\"app\"]\n[databases.app]\nport = {}",
        shared().port()
    );
    let proxy = Proxy::in_front_of(shared(), &tables);
    let parameters = [("user", "app"), ("database", "app")];
    let mut client = ScriptedClient::connect_with(proxy.address(), &parameters);
    for text in ["SELECT 1", "BEGIN", "SELECT 2", "COMMIT"] {
        client.send(query(text));
        client.receive_reply();
    }
    let shown = console(proxy.port()).ask("SHOW STATS_TOTALS").row_of("app");
    for (column, series, unit) in [
        ("query_count", "queries_pooled_total", 1.0),
        ("xact_count", "sql_transactions_pooled_total", 1.0),
        ("bytes_received", "received_bytes_total", 1.0),
        ("bytes_sent", "sent_bytes_total", 1.0),
        ("query_time", "queries_duration_seconds_total", 1e6),
        ("xact_time", "server_in_transaction_seconds_total", 1e6),
        ("wait_time", "client_wait_seconds_total", 1e6),
    ] {
        let number: f64 = shown[column].parse().unwrap();
        for generation in ["pgbouncer_stats", "pgbouncer_stats_totals"] {
            let metric = proxy.metric(&format!("{generation}_{series}"), &["\"app\""]);
            assert_eq!((metric * unit).floor(), number, "{generation}_{series}");
        }
    }
    assert_eq!(shown["query_count"], "4");
    assert_eq!(shown["xact_count"], "2");
}

#[tokio::test]
async fn a_paused_client_waits_until_resume() {
    let bouncer = Bouncer::start(&ini(), &USERS);
    let console = bouncer.connect("user=app dbname=pgbouncer").await.unwrap();
    let client = bouncer.connect("user=app dbname=app").await.unwrap();
    client.simple_query("SELECT 1").await.unwrap();
    console.simple_query("PAUSE app").await.unwrap();
    let waiting = tokio::spawn(async move { value(&client, "SELECT 41 + 1").await });
    while !console_row(&console, "SHOW POOLS", "app").await["cl_waiting"].eq("1") {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    console.simple_query("RESUME app").await.unwrap();
    assert_eq!(waiting.await.unwrap(), "42");
    let error = console.simple_query("RESUME app").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(
        (error.code().code(), error.message()),
        ("08P01", "database app is not paused")
    );
}

#[tokio::test]
async fn a_killed_client_reads_why() {
    let bouncer = Bouncer::start(&ini(), &USERS);
    let console = bouncer.connect("user=app dbname=pgbouncer").await.unwrap();
    let client = bouncer.connect("user=app dbname=app").await.unwrap();
    let id = console_row(&console, "SHOW CLIENTS", "app").await["id"].clone();
    let working = tokio::spawn(async move { client.simple_query("SELECT pg_sleep(60)").await });
    while !console_row(&console, "SHOW POOLS", "app").await["sv_active"].eq("1") {
        tokio::task::yield_now().await;
    }
    console
        .simple_query(&format!("KILL_CLIENT {id}"))
        .await
        .unwrap();
    let error = working.await.unwrap().unwrap_err();
    assert_eq!(
        error.as_db_error().unwrap().message(),
        "admin forced disconnect"
    );
    let error = console
        .simple_query(&format!("KILL_CLIENT {id}"))
        .await
        .unwrap_err();
    assert_eq!(error.as_db_error().unwrap().message(), "client not found");
}

#[tokio::test]
async fn what_is_set_holds_at_once() {
    let bouncer = Bouncer::start(&ini(), &USERS);
    let console = bouncer.connect("user=app dbname=pgbouncer").await.unwrap();
    console
        .simple_query("SET query_timeout = '0.2'")
        .await
        .unwrap();
    let client = bouncer.connect("user=app dbname=app").await.unwrap();
    let error = client
        .simple_query("SELECT pg_sleep(60)")
        .await
        .unwrap_err();
    assert_eq!(error.as_db_error().unwrap().message(), "query timeout");
}

#[tokio::test]
async fn a_driver_that_prepares_reads_typed_columns_and_selects_among_them() {
    let bouncer = Bouncer::start(&ini(), &USERS);
    let console = bouncer.connect("user=app dbname=pgbouncer").await.unwrap();
    let client = bouncer.connect("user=app dbname=app").await.unwrap();
    client.simple_query("SELECT 1").await.unwrap();
    let select =
        "SELECT database, sv_idle AS idle FROM pools WHERE sv_idle >= 1 ORDER BY database LIMIT 5";
    let rows = console.query(select, &[]).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<_, String>("database"), "app");
    assert_eq!(rows[0].get::<_, i32>("idle"), 1);
    let error = console
        .query("SELECT nothing FROM pools", &[])
        .await
        .unwrap_err();
    assert_eq!(error.as_db_error().unwrap().code().code(), "42703");
}

#[test]
fn postgres_fdw_reads_the_tables() {
    let proxy = Proxy::in_front_of(shared(), "[console]\nadmin_users = [\"app\"]");
    let mut client = ScriptedClient::connect(proxy.address());
    client.send(query("SELECT 1"));
    client.receive_reply();
    let said = shared().psql(
        "app",
        &format!(
            "CREATE EXTENSION IF NOT EXISTS postgres_fdw;
             CREATE SERVER console FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{}', dbname 'pgspan');
             CREATE USER MAPPING FOR CURRENT_USER SERVER console OPTIONS (user 'app');
             CREATE FOREIGN TABLE pools (database text, \"user\" text, cl_active int, pool_mode text) SERVER console;
             SELECT p.\"user\", p.cl_active + 1, d.datname FROM pools p JOIN pg_database d ON d.datname = p.database
             WHERE p.cl_active > 0 AND p.pool_mode = 'transaction' ORDER BY p.database;
             SELECT count(*) FROM pools WHERE database = 'pgbouncer';
             DROP SERVER console CASCADE;",
            proxy.port()
        ),
    );
    let said = said.unwrap();
    let rows: Vec<&str> = said
        .lines()
        .filter(|line| line.contains('|') || line.parse::<u32>().is_ok())
        .collect();
    assert_eq!(rows, ["app|2|app", "1"], "{said}");
}

#[tokio::test]
async fn a_trace_and_who_holds_a_server_are_looked_up() {
    let proxy = Proxy::in_front_of(shared(), "[console]\nadmin_users = [\"app\"]");
    let connect = async |database: &str| {
        let conninfo = proxy.conninfo(&format!("user=app dbname={database}"));
        crate::bouncer::connect(&conninfo).await.unwrap()
    };
    let (console, client) = (connect("pgspan").await, connect("app").await);
    let traceparent = format!("SET pgspan.traceparent = '{TRACEPARENT}'");
    client.simple_query(&traceparent).await.unwrap();
    client.simple_query("SELECT 41 + 1").await.unwrap();
    let trace = format!("SELECT query, outcome FROM trace WHERE trace_id = '{TRACE_ID}'");
    let found = loop {
        let rows = console.query(&trace, &[]).await.unwrap();
        if let Some(row) = rows.first() {
            break row.get::<_, String>("outcome");
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(found, "completed");
    let calls = console.query(
        "SELECT calls FROM queries WHERE database = 'app' ORDER BY calls DESC LIMIT 1",
        &[],
    );
    assert!(calls.await.unwrap()[0].get::<_, i64>(0) >= 1);

    let sleeping = tokio::spawn(async move { client.simple_query("SELECT pg_sleep(60)").await });
    let holder = loop {
        let holders = "SELECT trace_id FROM holders WHERE database = 'app'";
        let rows = console.query(holders, &[]).await.unwrap();
        if let Some(row) = rows.first() {
            break row.get::<_, String>("trace_id");
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(holder, TRACE_ID);
    sleeping.abort();
    let error = console.simple_query("SHOW TRACE 'no'").await.unwrap_err();
    assert_eq!(error.as_db_error().unwrap().code().code(), "22023");
}

#[tokio::test]
async fn who_may_only_ask_changes_nothing() {
    let ini = format!("{}stats_users = watch\n", ini());
    let bouncer = Bouncer::start(&ini, &USERS);
    let console = bouncer
        .connect("user=watch dbname=pgbouncer")
        .await
        .unwrap();
    console.simple_query("SHOW POOLS").await.unwrap();
    for order in [
        "PAUSE",
        "RELOAD",
        "SET query_timeout = 1",
        "KILL_CLIENT 1",
        "SHOW FDS",
    ] {
        let error = console.simple_query(order).await.unwrap_err();
        assert_eq!(
            error.as_db_error().unwrap().message(),
            "admin access needed",
            "{order}"
        );
    }
    let refused = bouncer
        .connect("user=nosy dbname=pgbouncer")
        .await
        .err()
        .unwrap();
    assert_eq!(refused.as_db_error().unwrap().message(), "not allowed");
}

/// A session pool of one database, as people have it.
fn ini() -> String {
    format!(
        "[databases]\napp = host=127.0.0.1 port={} dbname=app\n[pgbouncer]\nauth_type = trust\nauth_file = userlist.txt\n\
         pool_mode = transaction\nadmin_users = app\n",
        shared().port()
    )
}

const USERS: [(&str, &str); 1] = [("userlist.txt", USERLIST)];
const USERLIST: &str = "\"app\" \"\"\n\"watch\" \"\"\n\"nosy\" \"\"\n";

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A simple query's answer on the wire.
#[derive(Debug)]
struct Shown {
    /// Names and oids.
    columns: Vec<(String, u32)>,
    rows: Vec<Vec<Option<String>>>,
}

struct Console(ScriptedClient);

fn console(port: u16) -> Console {
    let parameters = [("user", "app"), ("database", "pgbouncer")];
    Console(ScriptedClient::connect_with(address(port), &parameters))
}

impl Console {
    fn ask(&mut self, text: &str) -> Shown {
        self.0.send(query(text));
        let mut shown = Shown {
            columns: Vec::new(),
            rows: Vec::new(),
        };
        for message in self.0.receive_reply() {
            match message.tag() {
                b'T' => shown.columns = columns(message.body()),
                b'D' => shown.rows.push(values(message.body())),
                b'E' => panic!("{text}: {:?}", field_of(&message, b'M')),
                _ => {}
            }
        }
        shown
    }
}

impl Shown {
    fn described(&self) -> String {
        let columns = self.columns.iter().map(|(name, oid)| {
            let kind = match oid {
                25 => 's',
                23 => 'i',
                20 => 'q',
                1700 => 'n',
                17 => 'b',
                other => panic!("{name} has the type {other}"),
            };
            format!("{name}:{kind}")
        });
        columns.collect::<Vec<_>>().join(" ")
    }

    /// The row of a database; an empty one where no column has it.
    fn row_of(&self, database: &str) -> BTreeMap<String, String> {
        let keys = ["database", "name"];
        let mut rows = self.rows.iter().map(|row| {
            let names = self.columns.iter().map(|(name, _)| name.clone());
            let texts = row.iter().map(|value| value.clone().unwrap_or_default());
            names.zip(texts).collect::<BTreeMap<_, _>>()
        });
        let is_it = |row: &BTreeMap<String, String>| {
            let key = keys.iter().find_map(|key| row.get(*key));
            key.is_some_and(|value| value == database)
        };
        rows.find(is_it).unwrap_or_default()
    }
}

fn columns(body: &[u8]) -> Vec<(String, u32)> {
    let mut rest = &body[2..];
    let mut columns = Vec::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == 0).unwrap();
        let name = String::from_utf8(rest[..end].to_vec()).unwrap();
        // Behind the name: table, column, type, length, modifier, format.
        let fields = &rest[end + 1..];
        columns.push((name, u32::from_be_bytes(fields[6..10].try_into().unwrap())));
        rest = &fields[18..];
    }
    columns
}

fn values(body: &[u8]) -> Vec<Option<String>> {
    let mut rest = &body[2..];
    let mut values = Vec::new();
    while !rest.is_empty() {
        let length = i32::from_be_bytes(rest[..4].try_into().unwrap());
        rest = &rest[4..];
        values.push(usize::try_from(length).ok().map(|length| {
            let (value, behind) = rest.split_at(length);
            rest = behind;
            String::from_utf8(value.to_vec()).unwrap()
        }));
    }
    values
}

async fn console_row(
    console: &tokio_postgres::Client,
    show: &str,
    database: &str,
) -> BTreeMap<String, String> {
    let messages = console.simple_query(show).await.unwrap();
    let mut rows = messages.into_iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = rows.find(|row| row.get("database") == Some(database));
    let row = row.unwrap_or_else(|| panic!("{show} does not show {database}"));
    let columns = row.columns().iter().enumerate();
    columns
        .map(|(at, column)| {
            (
                column.name().to_owned(),
                row.get(at).unwrap_or_default().to_owned(),
            )
        })
        .collect()
}

/// Debian's PgBouncer, which scripts/deps installs.
struct Debians {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Debians {
    fn start(ini: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port().unwrap();
        let path = |name: &str| folder.path().join(name);
        // As root it becomes another user, who has to read this.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(path("userlist.txt"), USERLIST).unwrap();
        let ini = ini.replace("userlist.txt", &path("userlist.txt").display().to_string());
        let text =
            format!("{ini}listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n");
        fs::write(path("pgbouncer.ini"), text).unwrap();
        let mut command = Command::new("/usr/sbin/pgbouncer");
        if rustix::process::getuid().is_root() {
            command.args(["-u", "postgres"]);
        }
        let process = command
            .arg("-q")
            .arg(path("pgbouncer.ini"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("scripts/deps installs pgbouncer");
        let answers = || std::net::TcpStream::connect(address(port)).ok();
        eventually(answers).expect("PgBouncer listens");
        Self {
            process,
            port,
            _folder: folder,
        }
    }
}

impl Drop for Debians {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
