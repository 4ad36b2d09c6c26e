//! What the clients of one worker share: its pools, its scratch, and who is there. Never seen by another thread.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::allowance::Allowances;
use crate::cancel;
use crate::config::Config;
use crate::config::choices::OnMissing;
use crate::net::timer;
use crate::pool::budget::Account;
use crate::protocol::cancel_key::CancelKey;
use crate::protocol::startup::Replication;
use crate::scratch::Scratch;
use crate::server::{ServerCard, ServerTarget};
use crate::server_pool::neighbours::Neighbours;
use crate::server_pool::{Fraction, ServerPool, TIME_ROUND, Terms, Ticket};
use crate::session::annotator::AnnotationPolicy;
use crate::session::parameters::ParameterSet;
use crate::session::requests::RequestPolicy;
use crate::session::statements::Definitions;
use crate::session::trace::{TracePolicy, TraceRules};
use crate::spread::Spreads;
use crate::telemetry::WorkerTelemetry;
use crate::telemetry::metrics::ProcessMetrics;
use crate::telemetry::registry::Registry;
use crate::telemetry::slow_query::{PoolIdentity, SlowQueryPolicy};
use crate::telemetry::tables::Holder;

/// How long a client may take to read why it is sent away.
pub const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// The pools and the clients of one worker.
#[derive(Debug)]
pub struct Shard {
    number: u8,
    /// How many workers there are.
    workers: usize,
    config: RefCell<Arc<Config>>,
    registry: Arc<Registry>,
    /// What the parts of its pools on other workers know of each other.
    spreads: Arc<Spreads>,
    telemetry: RefCell<WorkerTelemetry>,
    scratch: RefCell<Scratch>,
    pools: RefCell<HashMap<PoolKey, Rc<ServerPool>>>,
    /// By the process id of their cancel keys.
    sessions: RefCell<HashMap<i32, Rc<SessionCard>>>,
    next_session: Cell<u32>,
    is_draining: Cell<bool>,
    /// Whether the worker ends with its last client.
    ends_when_left: Cell<bool>,
    /// What its pools share.
    neighbours: Rc<Neighbours>,
    /// Trace policies of clients whose user is not that of their pool.
    trace_policies: RefCell<HashMap<PoolKey, Arc<TracePolicy>>>,
    /// Told when a client has left.
    on_left: Notify,
}

/// Which pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The database that the client asked for.
    pub database: Box<str>,
    /// The user that it logged in as, or that the database has for all.
    pub user: Box<str>,
}

/// A client, as others on its worker see it.
#[derive(Debug)]
pub struct SessionCard {
    /// What cancels its query.
    pub cancel_key: CancelKey,
    /// Who it is.
    pub about: ClientAbout,
    /// What it is doing, as of the end of its last turn.
    pub doing: ClientDoing,
    /// Why it is to leave at once, if it is.
    pub dismissed: Cell<Option<Dismissal>>,
    /// The server that it is linked to.
    pub server: RefCell<Option<Rc<ServerCard>>>,
    /// Its place in the queue.
    pub ticket: RefCell<Option<Rc<Ticket>>>,
    /// When it will have passed a limit of time, if it goes on as it does.
    pub overdue_at: Cell<Option<Instant>>,
    /// Wakes its task.
    pub waker: RefCell<Option<Waker>>,
    /// Somebody wants to know how it stands.
    pub is_asked: Cell<bool>,
    /// How it stood when somebody wanted to know; `None` without a server.
    pub standing: RefCell<Option<Box<Holder>>>,
}

/// Who a client is, for the console.
#[derive(Debug)]
pub struct ClientAbout {
    /// Its number among all connections.
    pub serial: u64,
    /// The database that it asked for.
    pub database: Arc<str>,
    /// The user that it logged in as.
    pub user: Arc<str>,
    /// Where it is; `None` over a unix socket.
    pub peer: Option<SocketAddr>,
    /// Where it came in; `None` over a unix socket.
    pub local: Option<SocketAddr>,
    /// Its process, over a unix socket.
    pub process: Option<i32>,
    /// Whether it is for replication.
    pub replication: Replication,
    /// Its TLS, in words.
    pub encryption: Option<Box<str>>,
    /// When it was accepted.
    pub accepted_at: Instant,
}

impl ClientAbout {
    /// Has the names from its pool, where they are the same: clients rest by the thousand.
    pub fn share_names(&mut self, pool: &PoolIdentity) {
        for (own, pools) in [
            (&mut self.database, &pool.database),
            (&mut self.user, &pool.user),
        ] {
            if *own == *pools {
                *own = Arc::clone(pools);
            }
        }
    }

    /// Where it is, or which process of this machine, as PgBouncer writes it.
    pub fn whereabouts(&self) -> String {
        match (self.peer, self.process) {
            (Some(peer), _) => peer.to_string(),
            (None, Some(process)) => format!("unix({process})"),
            (None, None) => "unix".into(),
        }
    }
}

/// What a client is doing, as of the end of its last turn.
#[derive(Debug)]
pub struct ClientDoing {
    /// When it last sent something.
    pub request_at: Cell<Instant>,
    /// Since when something has been owed to it.
    pub query_since: Cell<Option<Instant>>,
    /// What it has set, its application_name among it.
    pub parameters: RefCell<Rc<ParameterSet>>,
    /// How many prepared statements it has.
    pub statements: Cell<usize>,
}

/// Why a client is sent away on an administrator's command. The words are PgBouncer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dismissal {
    /// KILL_CLIENT.
    Killed,
    /// KILL of its database.
    DatabaseKilled,
}

impl Dismissal {
    /// What the client reads, and the log says.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Killed => "admin forced disconnect",
            Self::DatabaseKilled => "database removed",
        }
    }
}

/// The time. The edge reads it; everything below is told.
#[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn clock() -> Instant {
    Instant::now()
}

/// For a trace that the proxy makes up.
fn random_ids() -> [u8; 24] {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    bytes
}

/// How trace contexts of a database's and a user's clients are treated.
fn trace_policy(config: &Config, database: &str, user: &str) -> TracePolicy {
    TracePolicy::new(TraceRules {
        generate: (config.trace.on_missing == OnMissing::Generate)
            .then_some(random_ids as fn() -> [u8; 24]),
        absorb_application_name: config.trace.absorb_application_name,
        allowed_tags: config.trace.allowed_tags.clone(),
        static_tags: config.tags(database, user),
        tag_length: config.trace.max_tag_length.get(),
        tracestate_length: config.trace.max_tracestate_length.get(),
        stale_transactions: u32::try_from(config.trace.stale_transactions.get())
            .unwrap_or(u32::MAX),
        stale_after: config.trace.stale_after,
        ..TraceRules::default()
    })
}

impl PoolKey {
    /// The pool that serves a user in a database.
    pub fn new(config: &Config, database: &str, user: &str) -> Self {
        Self {
            database: database.into(),
            user: config.pool_user(database, user).into(),
        }
    }

    /// Whose connections its servers are.
    pub fn account(&self) -> Account {
        Account {
            database: self.database.clone(),
            user: self.user.clone(),
        }
    }

    /// The workers, of so many, that the pool lives on: as many as it has enough servers for.
    pub fn workers(&self, config: &Config, workers: usize) -> impl Iterator<Item = usize> + use<> {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        let first = hasher.finish() % workers as u64;
        let first = usize::try_from(first).expect("smaller than a length");
        let size = config.pool_settings(&self.database, &self.user).size;
        let each = config.workers.min_servers_each;
        let parts = size.map_or(workers, |size| (size.get() / each).clamp(1, workers));
        (0..parts).map(move |part| (first + part) % workers)
    }

    /// Which fraction of the pool lives on a worker.
    fn fraction(&self, config: &Config, workers: usize, worker: usize) -> Fraction {
        let living: Vec<_> = self.workers(config, workers).collect();
        Fraction {
            part: living.iter().position(|living| *living == worker),
            of: NonZeroUsize::new(living.len()).unwrap_or(NonZeroUsize::MIN),
        }
    }
}

impl Shard {
    /// Of worker `number` of so many, without a client.
    pub fn new(
        number: u8,
        workers: usize,
        config: Arc<Config>,
        registry: Arc<Registry>,
        allowances: Arc<Allowances>,
        spreads: Arc<Spreads>,
        telemetry: WorkerTelemetry,
    ) -> Self {
        Self {
            number,
            workers,
            config: RefCell::new(config),
            neighbours: Rc::new(Neighbours::new(
                clock,
                Arc::clone(&registry.process),
                allowances,
                spreads.bell(number.into()),
            )),
            spreads,
            trace_policies: RefCell::default(),
            registry,
            telemetry: RefCell::new(telemetry),
            scratch: RefCell::new(Scratch::new()),
            pools: RefCell::default(),
            sessions: RefCell::default(),
            next_session: Cell::new(0),
            is_draining: Cell::new(false),
            ends_when_left: Cell::new(false),
            on_left: Notify::new(),
        }
    }

    /// The client with this cancel key.
    pub fn session(&self, key: &CancelKey) -> Option<Rc<SessionCard>> {
        let sessions = self.sessions.borrow();
        let card = sessions
            .get(&key.process_id())
            .filter(|card| card.cancel_key == *key);
        card.map(Rc::clone)
    }

    /// The clients that have logged in.
    pub fn clients(&self) -> Vec<Rc<SessionCard>> {
        self.sessions.borrow().values().map(Rc::clone).collect()
    }

    /// Closes the servers that rest.
    pub fn close_idle_servers(&self) {
        self.pools
            .borrow()
            .values()
            .for_each(|pool| pool.close_idle());
    }

    /// Reads the clock: once per wake-up.
    pub fn now(&self) -> Instant {
        clock()
    }

    /// What a client reads into and writes from. Nobody may hold it over an await.
    pub fn scratch(&self) -> RefMut<'_, Scratch> {
        self.scratch.borrow_mut()
    }

    /// Who is shown answered queries.
    pub fn telemetry(&self) -> Ref<'_, WorkerTelemetry> {
        self.telemetry.borrow()
    }

    /// Whether resting clients are sent away.
    pub fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// What is counted for the process.
    pub fn process(&self) -> &ProcessMetrics {
        &self.registry.process
    }

    /// The configuration, until the next reload.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Goes by another configuration from now on. Clients of a database that is not there any more are sent away when they rest.
    pub fn reload(&self, config: Arc<Config>) {
        self.telemetry
            .borrow_mut()
            .set_policy(SlowQueryPolicy::from(&config.slow_query));
        self.config.replace(config);
        let pools: Vec<_> = self
            .pools
            .borrow()
            .iter()
            .map(|(key, pool)| (key.clone(), Rc::clone(pool)))
            .collect();
        self.trace_policies.borrow_mut().clear();
        for (key, pool) in pools {
            match self.terms(&key) {
                Some(terms) => pool.reload(terms),
                None => pool.remove(),
            }
        }
        self.start_minimums();
        self.wake_all();
    }

    /// A cancel key for a new client: no other one of this process has its process id, which also says which worker it is on.
    pub fn new_card(
        &self,
        secret_len: usize,
        about: ClientAbout,
        parameters: &Rc<ParameterSet>,
    ) -> Rc<SessionCard> {
        let mut secret = vec![0; secret_len];
        getrandom::fill(&mut secret).expect("the system has random bytes");
        let mut sessions = self.sessions.borrow_mut();
        let peer = self.config.borrow().listen.peer_id;
        let process_id = loop {
            let number = self.next_session.get();
            self.next_session.set(number.wrapping_add(1));
            let process_id = cancel::process_id(number, self.number, peer);
            if process_id > 0 && !sessions.contains_key(&process_id) {
                break process_id;
            }
        };
        let key = CancelKey::new(process_id, &secret).expect("a length that the protocol allows");
        let card = Rc::new(SessionCard {
            cancel_key: match peer {
                0 => key,
                _ => key.with_all_hops(),
            },
            doing: ClientDoing {
                request_at: Cell::new(about.accepted_at),
                query_since: Cell::new(None),
                parameters: RefCell::new(Rc::clone(parameters)),
                statements: Cell::new(0),
            },
            about,
            dismissed: Cell::new(None),
            server: RefCell::default(),
            ticket: RefCell::default(),
            overdue_at: Cell::new(None),
            waker: RefCell::default(),
            is_asked: Cell::new(false),
            standing: RefCell::default(),
        });
        sessions.insert(process_id, Rc::clone(&card));
        card
    }

    /// Who holds a server, what for and since when. Each client is asked, and answers when it has its turn.
    pub async fn holders(self: &Rc<Self>) -> Vec<Holder> {
        let is_holder = |card: &&Rc<SessionCard>| card.server.borrow().is_some();
        let cards: Vec<_> = (self.sessions.borrow().values())
            .filter(is_holder)
            .map(Rc::clone)
            .collect();
        for card in &cards {
            card.is_asked.set(true);
            card.wake();
        }
        // A client that does not come to it in so many turns is not told of.
        const TURNS: usize = 8;
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
            if cards.iter().all(|card| !card.is_asked.get()) {
                break;
            }
        }
        (cards.iter())
            .filter_map(|card| card.standing.take().map(|holder| *holder))
            .collect()
    }

    /// A client has left.
    pub fn forget(&self, card: &SessionCard) {
        self.sessions
            .borrow_mut()
            .remove(&card.cancel_key.process_id());
        self.on_left.notify_one();
    }

    /// The pool of a database and a user, made when it is first asked for. `None` where there is no such database.
    pub fn pool(&self, key: &PoolKey) -> Option<Rc<ServerPool>> {
        if let Some(pool) = self.pools.borrow().get(key) {
            // It may be of a database that is not there any more.
            return self
                .config()
                .database(&key.database)
                .map(|_| Rc::clone(pool));
        }
        let terms = self.terms(key)?;
        let metrics = self
            .registry
            .register_pool(self.number.into(), &key.database, &key.user);
        let account = key.account();
        if !self.config().databases.contains_key(&*key.database) {
            tracing::info!(
                database = &*key.database,
                user = &*key.user,
                "registered new auto-database: db={}",
                key.database
            );
        }
        let spread = self.spreads.share(&account, self.number.into());
        let schema = self.spreads.schema_changes.of(&key.database);
        let definitions = Definitions::of_worker(self.number.into(), self.workers as u64);
        let definitions = (definitions, schema);
        let neighbours = Rc::clone(&self.neighbours);
        let pool = ServerPool::start(account, terms, metrics, definitions, spread, neighbours);
        self.pools
            .borrow_mut()
            .insert(key.clone(), Rc::clone(&pool));
        Some(pool)
    }

    /// What this worker's pools share, and what an administrator may order of them.
    pub fn neighbours(&self) -> &Rc<Neighbours> {
        &self.neighbours
    }

    /// Starts the pools of this worker that keep servers without a client: those of databases with a `user` of their own.
    pub fn start_minimums(&self) {
        let config = self.config();
        for (name, database) in &config.databases {
            let Some(user) = database.user.as_ref().filter(|_| &**name != "*") else {
                continue;
            };
            let key = PoolKey {
                database: name.clone(),
                user: user.clone(),
            };
            let is_kept = config.pool_settings(name, user).min_size > 0;
            let mut living = key.workers(&config, self.workers);
            if is_kept && living.any(|worker| worker == usize::from(self.number)) {
                self.pool(&key);
            }
        }
    }

    /// How trace contexts of a client are treated that logs in by this name.
    pub fn trace_policy(&self, database: &str, user: &str) -> Arc<TracePolicy> {
        /// Users that are told apart; further ones get a policy of their own.
        const POLICIES: usize = 256;
        let key = PoolKey {
            database: database.into(),
            user: user.into(),
        };
        let mut known = self.trace_policies.borrow_mut();
        if let Some(policy) = known.get(&key) {
            return Arc::clone(policy);
        }
        let policy = Arc::new(trace_policy(&self.config(), database, user));
        if known.len() < POLICIES {
            known.insert(key, Arc::clone(&policy));
        }
        policy
    }

    /// Listens for the bell: there may be room for a server, or somebody needs some.
    pub async fn make_room(self: Rc<Self>) {
        loop {
            self.neighbours.bell.notified().await;
            self.neighbours.on_bell();
        }
    }

    /// What the configuration says of a pool.
    fn terms(&self, key: &PoolKey) -> Option<Terms> {
        let config = &*self.config();
        let database = config.database(&key.database)?;
        let settings = config.pool_settings(&key.database, &key.user);
        let identity = PoolIdentity {
            database: Arc::from(&*key.database),
            user: Arc::from(&*key.user),
            server: crate::telemetry::slow_query::ServerAddress {
                host: database.hosts_in_words().into(),
                port: database.port,
                peer: None,
            },
        };
        let policy = RequestPolicy {
            annotation: AnnotationPolicy {
                enabled: config.annotation.enabled,
                format: config.annotation.format,
                placement: config.annotation.placement,
                max_query_bytes: config.annotation.max_query_bytes.get(),
                unnamed_parse: config.annotation.unnamed_parse,
                prepared: config.annotation.prepared,
            },
            max_prepared_statements: settings.max_prepared_statements,
            unnamed_statements: settings.unnamed_statements,
        };
        let target = ServerTarget::of(config, &key.database, &key.user)?;
        Some(Terms {
            identity: Arc::new(identity),
            settings,
            policy,
            trace_policy: Arc::new(trace_policy(config, &key.database, &key.user)),
            target,
            has_own_user: database.user.is_some(),
            tcp: config.tcp,
            dns: config.dns,
            fraction: key.fraction(config, self.workers, self.number.into()),
        })
    }

    /// Ready when it drains and its last client has left.
    pub async fn all_left(&self) {
        let is_ending = || self.is_draining() || self.ends_when_left.get();
        while !is_ending() || !self.sessions.borrow().is_empty() {
            self.on_left.notified().await;
        }
    }

    /// Nobody comes any more: the worker ends when the last client has left, whenever that is.
    pub fn end_when_left(&self) {
        self.ends_when_left.set(true);
        self.on_left.notify_one();
    }

    /// Nobody who has no server gets one any more, or goes on waiting.
    pub fn close_doors(&self) {
        let pools: Vec<_> = self.pools.borrow().values().map(Rc::clone).collect();
        pools.iter().for_each(|pool| pool.close_doors());
    }

    /// From now on clients are sent away when they rest.
    pub fn drain(&self) {
        self.is_draining.set(true);
        self.close_idle_servers();
        self.wake_all();
        self.on_left.notify_one();
    }

    /// RECONNECT: every server of the database, or of all, is replaced when it comes back.
    pub fn reconnect(&self, database: Option<&str>) {
        self.neighbours.reconnect(database);
        // Sessions may lose theirs at once.
        self.wake_all();
    }

    /// Wakes every client: limits of time or its right to be here may have changed.
    fn wake_all(&self) {
        for card in self.sessions.borrow().values() {
            card.wake();
        }
    }

    /// Keeps the limits of time: coarsely, as nobody's query depends on it.
    pub async fn keep_time(self: Rc<Self>) {
        const FINE: Duration = Duration::from_millis(5);
        loop {
            let now = self.now();
            let pools: Vec<_> = self.pools.borrow().values().map(Rc::clone).collect();
            let next = pools.iter().filter_map(|pool| {
                pool.keep_time(now);
                pool.next_deadline(now)
            });
            let pause = next
                .min()
                .map_or(TIME_ROUND, |deadline| deadline.clamp(FINE, TIME_ROUND));
            self.wake_overdue(now);
            // Woken early only by somebody whose wait may end before the next round.
            tokio::select! {
                () = timer::sleep(pause) => {}
                () = self.neighbours.on_waiting.notified(), if pause == TIME_ROUND => {}
            }
        }
    }

    /// Wakes those who have passed a limit: they find out which, and leave.
    fn wake_overdue(&self, now: Instant) {
        for card in self.sessions.borrow().values() {
            if card.is_overdue(now) {
                card.wake();
            }
        }
    }
}

impl SessionCard {
    /// The client is to leave at once.
    pub fn dismiss(&self, why: Dismissal) {
        self.dismissed.set(Some(why));
        self.wake();
    }

    /// Whether it has passed a limit of time.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.overdue_at.get().is_some_and(|at| at <= now)
    }

    /// Wakes the client's task.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}
