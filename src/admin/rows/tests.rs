use super::*;
use crate::admin::show::Show;
use crate::config::choices::PoolMode;
use crate::pool::Occupancy;

#[test]
fn every_row_has_a_value_for_each_column() {
    let world = World::new();
    let sight = world.sight();
    for (show, rows) in [
        (Show::Pools, sight.pools()),
        (Show::Databases, sight.databases()),
        (Show::Clients, sight.clients()),
        (Show::Servers, sight.servers()),
        (Show::Sockets, sight.sockets(|_| true)),
        (Show::Users, sight.users()),
        (Show::Lists, sight.lists()),
        (Show::Mem, sight.memory()),
    ] {
        assert!(!rows.is_empty(), "{show:?}");
        for row in rows {
            assert_eq!(row.len(), show.columns().len(), "{show:?}");
        }
    }
    let counted = ByDatabase::from([("app".into(), Default::default())]);
    let history = History::new(world.now);
    for (show, rows) in [
        (Show::Stats, stats(&counted, &history, world.now)),
        (Show::StatsTotals, stats_totals(&counted)),
        (
            Show::StatsAverages,
            stats_averages(&counted, &history, world.now),
        ),
    ] {
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].len(), show.columns().len(), "{show:?}");
    }
    assert_eq!(totals(&counted, &history, world.now).len(), 24);
}

#[test]
fn a_pool_is_counted_by_the_states_of_its_connections() {
    let world = World::new();
    let rows = texts(world.sight().pools());
    assert_eq!(
        rows,
        [
            "app|ann|3|2|1|0|4|1|0|3|2|1|1|1|500000|transaction|",
            "pgbouncer|pgbouncer|1|0|0|0|0|0|0|0|0|0|0|0|0|statement|"
        ]
    );
}

#[test]
fn a_database_is_shown_as_it_is_configured_and_used() {
    let world = World::new();
    let rows = texts(world.sight().databases());
    assert_eq!(
        rows,
        [
            "app|db.example|5433|app_on_server||20|0|0|3600|session||0|0|0|1|1|0",
            "pgbouncer||6432|pgbouncer|pgbouncer|2|0|0|3600|statement||0|0|0|1|0|0"
        ]
    );
}

#[test]
fn clients_and_servers_join_by_ptr_and_link() {
    let world = World::new();
    let clients = texts(world.sight().clients());
    assert_eq!(
        clients[1],
        "C|ann|app|none|active|192.0.2.1|5000|192.0.2.2|6432|2026-11-25 22:30:15 UTC|2026-11-25 22:30:20 UTC|2|250000|0|0x7|0x8|0|TLSv1.3|billing|3|7"
    );
    let servers = texts(world.sight().servers());
    assert_eq!(
        servers[0],
        "S|ann|app|none|active|unix|6432|unix|6432|2026-11-25 22:30:15 UTC|2026-11-25 22:30:20 UTC|2|250000|0|0x8|0x7|4242||billing|3|8"
    );
    let sockets = texts(world.sight().sockets(is_at_work));
    assert_eq!(sockets.len(), 2);
    assert!(sockets[0].contains("|cl_active|"), "{}", sockets[0]);
    assert!(sockets[1].contains("|sv_active|"), "{}", sockets[1]);
}

#[test]
fn a_time_is_written_as_pgbouncer_writes_it() {
    let at = |seconds| written(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    assert_eq!(at(0), "1970-01-01 00:00:00 UTC");
    assert_eq!(at(951_782_399), "2000-02-28 23:59:59 UTC");
    assert_eq!(at(951_782_400), "2000-02-29 00:00:00 UTC");
    assert_eq!(at(4_102_444_800), "2100-01-01 00:00:00 UTC");
}

/// A database with a user, and a client that works with a server.
struct World {
    config: Config,
    snapshot: Snapshot,
    paused: BTreeSet<Box<str>>,
    now: Instant,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "std has no other moment")]
    fn new() -> Self {
        let now = Instant::now() + Duration::from_secs(60);
        let mut config = Config::default();
        config.users.insert("ann".into(), User::default());
        let mut database = Database {
            hosts: vec![crate::config::Host::Tcp("db.example".into())],
            port: 5433,
            dbname: Some("app_on_server".into()),
            ..Database::default()
        };
        database.pool.mode = PoolMode::Session;
        config.databases.insert("app".into(), database);
        let client = Connection {
            serial: 7,
            link: Some(8),
            user: "ann".into(),
            database: "app".into(),
            replication: Replication::None,
            state: State::Active,
            peer: Some("192.0.2.1:5000".parse().unwrap()),
            local: Some("192.0.2.2:6432".parse().unwrap()),
            connected_at: now - Duration::from_secs(10),
            request_at: now - Duration::from_secs(5),
            query_since: Some(now - Duration::from_millis(2250)),
            close_needed: false,
            process: 0,
            encryption: "TLSv1.3".into(),
            application_name: "billing".into(),
            statements: 3,
        };
        let server = Connection {
            serial: 8,
            link: Some(7),
            peer: None,
            local: None,
            process: 4242,
            encryption: "".into(),
            ..client.clone()
        };
        let pool = PoolView {
            occupancy: Occupancy {
                idle: 5,
                unchecked: 2,
                in_use: 4,
                checking: 1,
                connecting: 1,
                waiting: 2,
            },
            clients: 5,
            cancels: 1,
            being_canceled: 0,
            longest_wait: Duration::from_millis(1500),
            mode: PoolMode::Transaction,
        };
        let snapshot = Snapshot {
            pools: BTreeMap::from([(("app".into(), "ann".into()), pool)]),
            clients: vec![client],
            servers: vec![server],
            names: BTreeMap::new(),
            allowances: None,
        };
        Self {
            config,
            snapshot,
            paused: BTreeSet::from(["app".into()]),
            now,
        }
    }

    fn sight(&self) -> Sight<'_> {
        static NONE: BTreeSet<Box<str>> = BTreeSet::new();
        let client = &self.snapshot.clients[0];
        Sight {
            config: &self.config,
            snapshot: &self.snapshot,
            visitors: vec![Connection {
                serial: 1,
                link: None,
                user: "root".into(),
                database: "pgbouncer".into(),
                query_since: None,
                ..client.clone()
            }],
            paused: &self.paused,
            disabled: &NONE,
            logging_in: 0,
            now: self.now,
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_645_825),
        }
    }
}

fn texts(rows: Rows) -> Vec<String> {
    let row = |row: Vec<Value>| {
        let texts = row.iter().map(|value| value.to_text().unwrap_or_default());
        texts.collect::<Vec<_>>().join("|")
    };
    rows.into_iter().map(row).collect()
}
