//! The rows of PgBouncer's tables, from what there is at a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use crate::admin::settings;
use crate::admin::show::CLIENT_COLUMNS;
use crate::admin::snapshot::{Connection, PoolView, Snapshot, State};
use crate::admin::statistics::{ByDatabase, History, sum};
use crate::admin::table::Value;
use crate::config::choices::LoadBalanceHosts;
use crate::config::{CONSOLE_NAMES, Config, Database, User};
use crate::protocol::startup::Replication;
use crate::resolver::KnownName;

/// Rows of a table.
pub(super) type Rows = Vec<Vec<Value>>;

/// What the tables are made of.
#[derive(Debug)]
pub(super) struct Sight<'a> {
    pub(super) config: &'a Config,
    pub(super) snapshot: &'a Snapshot,
    /// The clients of the console.
    pub(super) visitors: Vec<Connection>,
    pub(super) paused: &'a BTreeSet<Box<str>>,
    pub(super) disabled: &'a BTreeSet<Box<str>>,
    pub(super) logging_in: u64,
    pub(super) now: Instant,
    pub(super) wall: SystemTime,
}

const fn word(text: &'static str) -> Value {
    Value::Text(std::borrow::Cow::Borrowed(text))
}

/// The console's own database and user.
const CONSOLE: &str = CONSOLE_NAMES[0];

impl Sight<'_> {
    pub(super) fn pools(&self) -> Rows {
        let mut rows = Vec::new();
        for ((database, user), pool) in &self.snapshot.pools {
            rows.push((database.clone(), self.pool(database, user, pool)));
        }
        let clients = Value::count(self.visitors.len());
        let mut own = vec![word(CONSOLE), word(CONSOLE), clients];
        own.extend(vec![Value::Int(0); 12]);
        own.extend([word("statement"), Value::Null]);
        rows.push((CONSOLE.into(), own));
        rows.sort_by(|(one, _), (other, _)| one.cmp(other));
        rows.into_iter().map(|(_, row)| row).collect()
    }

    fn pool(&self, database: &str, user: &str, pool: &PoolView) -> Vec<Value> {
        let of = &pool.occupancy;
        let hosts = self.config.database(database).and_then(hosts_order);
        let counts = [
            pool.clients.saturating_sub(of.waiting),
            of.waiting,
            pool.cancels,
            // Nothing limits how many cancels are passed on at a time, so none waits.
            0,
            of.in_use,
            pool.cancels,
            pool.being_canceled,
            of.idle - of.unchecked,
            of.unchecked,
            of.checking,
            of.connecting,
        ];
        let mut row = vec![Value::text(database), Value::text(user)];
        row.extend(counts.map(Value::count));
        row.push(Value::count(pool.longest_wait.as_secs()));
        row.push(Value::Int(pool.longest_wait.subsec_micros().into()));
        row.push(word(settings::mode(pool.mode)));
        row.push(hosts.map_or(Value::Null, word));
        row
    }

    pub(super) fn databases(&self) -> Rows {
        let mut rows = BTreeMap::new();
        for (name, database) in &self.config.databases {
            if &**name != "*" {
                rows.insert(&**name, self.database(name, database));
            }
        }
        // Those that `*` serves are shown while they have a pool.
        for (name, _) in self.snapshot.pools.keys() {
            if let Some(database) = self.config.database(name) {
                rows.entry(name)
                    .or_insert_with(|| self.database(name, database));
            }
        }
        rows.insert(CONSOLE, self.own_database());
        rows.into_values().collect()
    }

    fn database(&self, name: &str, database: &Database) -> Vec<Value> {
        let pool = &database.pool;
        let limit =
            |limit: Option<std::num::NonZeroUsize>| Value::count(limit.map_or(0, |it| it.get()));
        let servers = (self.snapshot.allowances.as_ref())
            .map_or(0, |allowances| allowances.of_database(name));
        let clients = self.snapshot.clients.iter();
        let clients = clients.filter(|client| &*client.database == name).count();
        let mode = (pool.mode != self.config.pool.mode).then(|| settings::mode(pool.mode));
        vec![
            Value::text(name),
            Value::text(database.hosts_in_words()),
            Value::Int(database.port.into()),
            Value::text(database.name_on_server(name)),
            Value::text_or_null(database.user.as_deref()),
            limit(pool.size),
            Value::count(pool.min_size),
            Value::count(pool.reserve_size),
            Value::count(pool.server_lifetime.as_secs()),
            mode.map_or(Value::Null, word),
            hosts_order(database).map_or(Value::Null, word),
            limit(pool.max_database_connections),
            Value::count(servers),
            limit(pool.max_database_client_connections),
            Value::count(clients),
            Value::Int(self.paused.contains(name).into()),
            Value::Int(self.disabled.contains(name).into()),
        ]
    }

    fn own_database(&self) -> Vec<Value> {
        let lifetime = self.config.pool.server_lifetime.as_secs();
        let port = self.config.listen.port();
        vec![
            word(CONSOLE),
            Value::Null,
            Value::Int(port.into()),
            word(CONSOLE),
            word(CONSOLE),
            Value::Int(2),
            Value::Int(0),
            Value::Int(0),
            Value::count(lifetime),
            word("statement"),
            Value::Null,
            Value::Int(0),
            Value::Int(0),
            Value::count(
                self.config
                    .pool
                    .max_database_client_connections
                    .map_or(0, |limit| limit.get()),
            ),
            Value::count(self.visitors.len()),
            Value::Int(0),
            Value::Int(0),
        ]
    }

    pub(super) fn clients(&self) -> Rows {
        let clients = self.visitors.iter().chain(&self.snapshot.clients);
        clients
            .map(|client| self.connection("C", client, client.state.as_str()))
            .collect()
    }

    pub(super) fn servers(&self) -> Rows {
        let servers = self.snapshot.servers.iter();
        servers
            .map(|server| self.connection("S", server, server.state.as_str()))
            .collect()
    }

    /// Clients and servers; `is_shown` says which.
    pub(super) fn sockets(&self, is_shown: impl Fn(&Connection) -> bool) -> Rows {
        let clients = self.visitors.iter().chain(&self.snapshot.clients);
        let clients = clients.map(|client| ("C", "cl", client));
        let servers = self.snapshot.servers.iter();
        let all = clients.chain(servers.map(|server| ("S", "sv", server)));
        let shown = all.filter(|(_, _, connection)| is_shown(connection));
        shown
            .map(|(kind, prefix, connection)| {
                let state = format!("{prefix}_{}", connection.state.as_str());
                let mut row = self.connection(kind, connection, &state);
                // What PgBouncer's buffers hold at the moment: between two turns there is nothing in ours.
                row.extend(vec![Value::Int(0); 7]);
                row
            })
            .collect()
    }

    fn connection(&self, kind: &'static str, it: &Connection, state: &str) -> Vec<Value> {
        let since = |at: Instant| self.now.saturating_duration_since(at);
        let moment = |at: Instant| Value::text(written(self.wall - since(at)));
        let wait = it.query_since.map(since).unwrap_or_default();
        let port = |address: Option<SocketAddr>| {
            let port = address.map_or_else(|| self.config.listen.port(), |it| it.port());
            Value::Int(port.into())
        };
        let address = |address: Option<SocketAddr>| {
            Value::text(address.map_or_else(|| "unix".into(), |it| it.ip().to_string()))
        };
        let row = vec![
            word(kind),
            Value::text(&*it.user),
            Value::text(&*it.database),
            word(match it.replication {
                Replication::None => "none",
                Replication::Logical => "logical",
                Replication::Physical => "physical",
            }),
            Value::text(state),
            address(it.peer),
            port(it.peer),
            address(it.local),
            port(it.local),
            moment(it.connected_at),
            moment(it.request_at),
            Value::count(wait.as_secs()),
            Value::Int(wait.subsec_micros().into()),
            Value::Int(it.close_needed.into()),
            Value::text(pointer(it.serial)),
            Value::text(it.link.map(pointer).unwrap_or_default()),
            Value::Int(it.process.into()),
            Value::text(&*it.encryption),
            Value::text(&*it.application_name),
            Value::count(it.statements),
            Value::count(it.serial),
        ];
        debug_assert_eq!(row.len(), CLIENT_COLUMNS);
        row
    }

    pub(super) fn users(&self) -> Rows {
        let own = User::default();
        let mut users: BTreeMap<&str, &User> = (self.config.users.iter())
            .map(|(name, user)| (&**name, user))
            .collect();
        users.entry(CONSOLE).or_insert(&own);
        let rows = users.into_iter().map(|(name, user)| self.user(name, user));
        rows.collect()
    }

    fn user(&self, name: &str, user: &User) -> Vec<Value> {
        let settings = self.config.pool.overridden_by(&user.pool);
        let limit =
            |limit: Option<std::num::NonZeroUsize>| Value::count(limit.map_or(0, |it| it.get()));
        // PgBouncer's width.
        let number = |number: Option<usize>| {
            Value::text(
                number
                    .map(|number| format!("{number:9}"))
                    .unwrap_or_default(),
            )
        };
        let servers =
            (self.snapshot.allowances.as_ref()).map_or(0, |allowances| allowances.of_user(name));
        let clients = self.visitors.iter().chain(&self.snapshot.clients);
        let clients = clients.filter(|client| &*client.user == name).count();
        vec![
            Value::text(name),
            number(user.pool.size()),
            number(user.pool.reserve_size()),
            user.pool
                .mode()
                .map_or(Value::Null, |mode| word(settings::mode(mode))),
            limit(settings.max_user_connections),
            Value::count(servers),
            limit(settings.max_user_client_connections),
            Value::count(clients),
        ]
    }

    pub(super) fn dns_hosts(&self) -> Rows {
        let ttl = self.config.dns;
        let row = |known: &KnownName| {
            let holds = match known.addresses.is_empty() {
                true => ttl.nxdomain_ttl,
                false => ttl.max_ttl,
            };
            // With a port, which is none, as PgBouncer has it.
            let addresses = known.addresses.iter();
            let addresses = addresses.map(|address| SocketAddr::new(*address, 0).to_string());
            vec![
                Value::text(&*known.name),
                Value::count(holds.saturating_sub(known.age).as_secs()),
                Value::text(addresses.collect::<Vec<_>>().join(",")),
            ]
        };
        self.snapshot.names.values().map(row).collect()
    }

    pub(super) fn lists(&self) -> Rows {
        let databases = self.databases().len();
        let users = self.users().len();
        let pools = self.snapshot.pools.len() + 1;
        let clients = self.snapshot.clients.len() + self.visitors.len();
        let connecting = self.snapshot.pools.values();
        let connecting: usize = connecting.map(|pool| pool.occupancy.connecting).sum();
        let items = [
            ("databases", databases),
            ("users", users),
            ("peers", self.config.peers.len()),
            ("pools", pools),
            ("peer_pools", self.config.peers.len()),
            // Nothing is kept for clients and servers that are not there.
            ("free_clients", 0),
            ("used_clients", clients),
            (
                "login_clients",
                usize::try_from(self.logging_in).unwrap_or(usize::MAX),
            ),
            ("free_servers", 0),
            ("used_servers", self.snapshot.servers.len() + connecting),
            ("dns_names", self.snapshot.names.len()),
            ("dns_zones", 0),
            ("dns_queries", 0),
            ("dns_pending", 0),
        ];
        let rows = items.map(|(list, items)| vec![word(list), Value::count(items)]);
        rows.to_vec()
    }

    /// The sizes of what is kept for each; how many there are.
    pub(super) fn memory(&self) -> Rows {
        use crate::link::Link;
        use crate::server::{ServerCard, ServerConnection};
        use crate::server_pool::ServerPool;
        use crate::shard::SessionCard;
        let kinds = [
            (
                "client_cache",
                size_of::<Link>() + size_of::<SessionCard>(),
                self.snapshot.clients.len(),
            ),
            (
                "server_cache",
                size_of::<ServerConnection>() + size_of::<ServerCard>(),
                self.snapshot.servers.len(),
            ),
            (
                "pool_cache",
                size_of::<ServerPool>(),
                self.snapshot.pools.len(),
            ),
            ("user_cache", size_of::<User>(), self.config.users.len()),
            (
                "db_cache",
                size_of::<Database>(),
                self.config.databases.len(),
            ),
        ];
        let rows = kinds.map(|(name, size, used)| {
            let all = size * used;
            vec![
                word(name),
                Value::count(size),
                Value::count(used),
                Value::Int(0),
                Value::count(all),
            ]
        });
        rows.to_vec()
    }
}

pub(super) fn peers(config: &Config) -> Rows {
    let rows = config.peers.iter().map(|(id, peer)| {
        vec![
            Value::Int((*id).into()),
            Value::text(peer.host.to_string()),
            Value::Int(peer.port.into()),
            // As many connections as there are cancels.
            Value::Int(0),
        ]
    });
    rows.collect()
}

/// Cancels are passed on at once, over a connection for each: there is nothing to count between two turns.
pub(super) fn peer_pools(config: &Config) -> Rows {
    let row = |id: &u8| {
        vec![
            Value::Int((*id).into()),
            Value::Int(0),
            Value::Int(0),
            Value::Int(0),
            Value::Int(0),
        ]
    };
    config.peers.keys().map(row).collect()
}

/// Whether something goes on with it.
pub(super) fn is_at_work(connection: &Connection) -> bool {
    connection.query_since.is_some() || connection.state == State::Waiting
}

pub(super) fn stats(counted: &ByDatabase, history: &History, now: Instant) -> Rows {
    let rows = counted.iter().map(|(database, totals)| {
        let averages = history.averages(database, totals, now);
        let numbers = totals.in_order().into_iter().chain(averages.in_order());
        numbered(database, numbers)
    });
    rows.collect()
}

pub(super) fn stats_totals(counted: &ByDatabase) -> Rows {
    let rows = counted.iter();
    rows.map(|(database, totals)| numbered(database, totals.in_order().into_iter()))
        .collect()
}

pub(super) fn stats_averages(counted: &ByDatabase, history: &History, now: Instant) -> Rows {
    let rows = counted.iter().map(|(database, totals)| {
        let averages = history.averages(database, totals, now);
        numbered(database, averages.in_order().into_iter())
    });
    rows.collect()
}

pub(super) fn totals(counted: &ByDatabase, history: &History, now: Instant) -> Rows {
    const NAMES: [&str; 12] = [
        "server_assignment_count",
        "xact_count",
        "query_count",
        "client_bytes",
        "server_bytes",
        "xact_time",
        "query_time",
        "wait_time",
        "ps_client_parse_count",
        "ps_server_parse_count",
        "ps_bind_count",
        "client_login_count",
    ];
    let rows = |prefix: &'static str, numbers: [u64; 12]| {
        let named = NAMES.into_iter().zip(numbers);
        named.map(move |(name, number)| {
            vec![
                Value::text(format!("{prefix}_{name}")),
                Value::count(number),
            ]
        })
    };
    let averages = history.averages_of_all(counted, now);
    rows("total", sum(counted).in_order())
        .chain(rows("avg", averages.in_order()))
        .collect()
}

fn numbered(database: &str, numbers: impl Iterator<Item = u64>) -> Vec<Value> {
    let mut row = vec![Value::text(database)];
    row.extend(numbers.map(Value::count));
    row
}

/// What stands for a connection where PgBouncer has its address in memory: `ptr` and `link` join.
fn pointer(serial: u64) -> String {
    format!("{serial:#x}")
}

/// How several hosts are tried, where there are several.
fn hosts_order(database: &Database) -> Option<&'static str> {
    let order = match database.pool.load_balance_hosts {
        LoadBalanceHosts::RoundRobin => "round-robin",
        LoadBalanceHosts::Disable => "disable",
    };
    (database.hosts.len() > 1).then_some(order)
}

/// `2026-11-25 22:30:25 UTC`, as PgBouncer writes times where the zone is UTC.
fn written(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.unwrap_or(Duration::ZERO).as_secs();
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's days_to_civil: years begin in March, eras are of 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests;
