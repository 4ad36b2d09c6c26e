//! What there is at a moment: pools, clients and servers of all workers, as owned values.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::allowance::Allowances;
use crate::config::choices::PoolMode;
use crate::pool::Occupancy;
use crate::protocol::startup::Replication;
use crate::resolver::KnownName;
use crate::server::{PeerAddress, ServerCard};
use crate::server_pool::ServerPool;
use crate::server_pool::census::{Census, ServerPlace};
use crate::session::parameters::ParameterSet;
use crate::shard::{PoolKey, SessionCard, Shard};
use crate::worker::Worker;

/// What there is at a moment.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// By database and user.
    pub(super) pools: BTreeMap<(Box<str>, Box<str>), PoolView>,
    pub(super) clients: Vec<Connection>,
    pub(super) servers: Vec<Connection>,
    /// Where names of servers lead, of several workers' answers the latest.
    pub(super) names: BTreeMap<Box<str>, KnownName>,
    /// How many servers there are for each database and user.
    pub(super) allowances: Option<Arc<Allowances>>,
}

/// A pool.
#[derive(Clone, Debug)]
pub(super) struct PoolView {
    pub(super) occupancy: Occupancy,
    pub(super) clients: usize,
    /// CancelRequests on their way to servers.
    pub(super) cancels: usize,
    /// Servers that no client has any more and that a cancel is on its way to.
    pub(super) being_canceled: usize,
    pub(super) longest_wait: Duration,
    pub(super) mode: PoolMode,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Of a client that does not wait for a server, or of a server that serves a client.
    Active,
    /// Of a client that waits for a server.
    Waiting,
    /// Of a server that rests.
    Idle,
    /// Of one that is to be checked before it is used again.
    Used,
    /// Of one that is reset or checked.
    Tested,
    /// Of one that a cancel is on its way to.
    BeingCanceled,
}

/// A connection, of a client or to a server.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) serial: u64,
    /// The connection that it is linked to.
    pub(super) link: Option<u64>,
    pub(super) user: Box<str>,
    pub(super) database: Box<str>,
    pub(super) replication: Replication,
    pub(super) state: State,
    /// `None` over a unix socket.
    pub(super) peer: Option<SocketAddr>,
    pub(super) local: Option<SocketAddr>,
    pub(super) connected_at: Instant,
    pub(super) request_at: Instant,
    pub(super) query_since: Option<Instant>,
    pub(super) close_needed: bool,
    pub(super) process: i32,
    pub(super) encryption: Box<str>,
    pub(super) application_name: String,
    pub(super) statements: usize,
}

impl State {
    /// PgBouncer's word.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Waiting => "waiting",
            Self::Idle => "idle",
            Self::Used => "used",
            Self::Tested => "tested",
            Self::BeingCanceled => "being_canceled",
        }
    }
}

impl PoolView {
    /// Counts a part of the pool that another worker has.
    fn add(&mut self, part: Self) {
        self.occupancy.add(part.occupancy);
        self.clients += part.clients;
        self.cancels += part.cancels;
        self.being_canceled += part.being_canceled;
        self.longest_wait = self.longest_wait.max(part.longest_wait);
    }
}

impl Snapshot {
    /// Asks all workers.
    pub(super) async fn take(workers: &[Worker]) -> Self {
        let mut all = Self::default();
        for worker in workers {
            if let Some(one) = worker.ask(Self::of).await {
                all.merge(one);
            }
        }
        all.clients.sort_by_key(|client| client.serial);
        all.servers.sort_by_key(|server| server.serial);
        all
    }

    fn merge(&mut self, other: Self) {
        for (name, part) in other.pools {
            match self.pools.get_mut(&name) {
                Some(pool) => pool.add(part),
                None => drop(self.pools.insert(name, part)),
            }
        }
        for (name, known) in other.names {
            let is_older = |before: &KnownName| before.age > known.age;
            if self.names.get(&name).is_none_or(is_older) {
                self.names.insert(name, known);
            }
        }
        self.clients.extend(other.clients);
        self.servers.extend(other.servers);
        self.allowances = other.allowances.or_else(|| self.allowances.take());
    }

    fn of(shard: &Rc<Shard>) -> Self {
        let now = shard.now();
        let config = shard.config();
        let mut snapshot = Self {
            allowances: Some(Arc::clone(&shard.neighbours().allowances)),
            names: (shard.neighbours().resolver.known().into_iter())
                .map(|known| (known.name.clone(), known))
                .collect(),
            ..Self::default()
        };
        // By the serial of the server.
        let mut linked: HashMap<u64, Rc<SessionCard>> = HashMap::new();
        let mut clients: HashMap<PoolKey, usize> = HashMap::new();
        for card in shard.clients() {
            let key = PoolKey::new(&config, &card.about.database, &card.about.user);
            *clients.entry(key).or_default() += 1;
            snapshot.clients.push(client(&card));
            if let Some(server) = &*card.server.borrow() {
                linked.insert(server.serial.get(), Rc::clone(&card));
            }
        }
        for pool in shard.neighbours().pools(None) {
            let census = pool.census(now);
            let key = PoolKey {
                database: pool.account.database.clone(),
                user: pool.account.user.clone(),
            };
            let is_freed = |card: &ServerCard| {
                card.cancels.get() > 0 && !linked.contains_key(&card.serial.get())
            };
            let cards = || census.servers.iter().map(|counted| &counted.card);
            let view = PoolView {
                occupancy: census.occupancy,
                clients: clients.get(&key).copied().unwrap_or_default(),
                cancels: cards().map(|card| card.cancels.get()).sum(),
                being_canceled: cards().filter(|card| is_freed(card)).count(),
                longest_wait: census
                    .oldest_wait
                    .map(|since| now.saturating_duration_since(since))
                    .unwrap_or_default(),
                mode: pool.terms().settings.mode,
            };
            snapshot.servers.extend(servers(&pool, &census, &linked));
            snapshot.pools.insert((key.database, key.user), view);
        }
        snapshot
    }
}

fn client(card: &SessionCard) -> Connection {
    let about = &card.about;
    let doing = &card.doing;
    let server = card.server.borrow();
    Connection {
        serial: about.serial,
        link: server.as_ref().map(|server| server.serial.get()),
        user: (&*about.user).into(),
        database: (&*about.database).into(),
        replication: about.replication,
        state: match &*card.ticket.borrow() {
            Some(_) => State::Waiting,
            None => State::Active,
        },
        peer: about.peer,
        local: about.local,
        connected_at: about.accepted_at,
        request_at: doing.request_at.get(),
        query_since: doing.query_since.get(),
        close_needed: card.dismissed.get().is_some(),
        process: about.process.unwrap_or_default(),
        encryption: about.encryption.clone().unwrap_or_default(),
        application_name: application_name(&doing.parameters.borrow()),
        statements: doing.statements.get(),
    }
}

fn servers(
    pool: &Rc<ServerPool>,
    census: &Census,
    linked: &HashMap<u64, Rc<SessionCard>>,
) -> Vec<Connection> {
    let counted = census.servers.iter();
    let connections = counted.map(|counted| {
        let card = &counted.card;
        let client = linked.get(&card.serial.get());
        let (state, name) = match (&counted.place, client) {
            (_, Some(client)) => (
                State::Active,
                application_name(&client.doing.parameters.borrow()),
            ),
            (
                ServerPlace::Idle {
                    is_unchecked,
                    application_name,
                },
                None,
            ) => {
                let state = match is_unchecked {
                    true => State::Used,
                    false => State::Idle,
                };
                (
                    state,
                    String::from_utf8_lossy(application_name).into_owned(),
                )
            }
            (ServerPlace::Out, None) if card.cancels.get() > 0 => {
                (State::BeingCanceled, String::new())
            }
            (ServerPlace::Out, None) => (State::Tested, String::new()),
        };
        Connection {
            serial: card.serial.get(),
            link: client.map(|client| client.about.serial),
            user: pool.terms().target.user.clone(),
            database: pool.account.database.clone(),
            replication: client.map_or(Replication::None, |client| client.about.replication),
            state,
            peer: match card.address {
                PeerAddress::Tcp(address) => Some(address),
                PeerAddress::Unix(_) => None,
            },
            local: card.local,
            connected_at: card.connected_at,
            request_at: card.request_at.get(),
            query_since: client.and_then(|client| client.doing.query_since.get()),
            close_needed: false,
            process: card.cancel_key.as_ref().map_or(0, |key| key.process_id()),
            encryption: card.encryption.clone().unwrap_or_default(),
            application_name: name,
            statements: card.statements.get(),
        }
    });
    connections.collect()
}

fn application_name(parameters: &ParameterSet) -> String {
    let name = parameters.value(b"application_name").unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}
