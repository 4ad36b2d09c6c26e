//! What is counted: per pool by its worker, and for the process by anybody.
//!
//! The series that come of it, with their names, stand in [`crate::telemetry::families`].

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant, SystemTime};

use crate::session::driver::Driver;
use crate::session::query_record::{QueryRecord, QueueCause};
use crate::telemetry::instrument::{
    BUCKETS, By, Counter, Gauge, Histogram, HistogramSnapshot, Label, Number, SharedCounter,
    SharedGauge, bucket_of, nanoseconds, nanoseconds_of, seconds,
};
use crate::telemetry::labels::{
    AuthQueryOutcome, Blame, CancelOutcome, ConnectFailure, Limit, LineDrop, LogLevel,
    LoginOutcome, OutcomeKind, Rejection, ServerClose, ServerState, SpanDrop, Uncounted,
};
use crate::telemetry::login_clock::LoginPhase;
use crate::telemetry::registry::{OTHER, PoolName};
use crate::telemetry::slow_query::Reason;
use crate::trace_context::{ContextState, SpanId, TraceId};

/// What one worker counts for one (database, user) pool. **Only that worker's thread writes**; the scrape reads.
#[derive(Debug)]
pub struct PoolMetrics {
    /// Its number, which no other one has.
    pub number: u32,
    /// Whose they are.
    pub name: PoolName,
    queue_wait: Histogram,
    server_first_byte: Histogram,
    server_last_byte: Histogram,
    client_drain: Histogram,
    total: Histogram,
    queries: [[Counter; OUTCOMES]; CONTEXTS],
    driver_queries: [[Counter; CONTEXTS]; DRIVERS],
    /// Clients that had to wait for a server, by why.
    pub waits: By<QueueCause, Counter>,
    /// Rows returned or affected.
    pub rows: Counter,
    /// By what became of the annotation; the labels are [`MetricLabels::annotation_reasons`].
    ///
    /// [`MetricLabels::annotation_reasons`]: crate::telemetry::registry::MetricLabels::annotation_reasons
    annotations: Box<[Counter]>,
    /// Bytes from clients.
    pub client_received_bytes: Counter,
    /// Bytes to clients.
    pub client_sent_bytes: Counter,
    /// Bytes from servers.
    pub server_received_bytes: Counter,
    /// Bytes to servers.
    pub server_sent_bytes: Counter,
    /// Transactions that ended, a statement outside of one included.
    pub transactions: Counter,
    /// Time that servers were in transactions: add with `add_time`.
    pub transaction_time: Counter,
    /// Servers handed to clients.
    pub checkouts: Counter,
    /// Errors that ended a client or a server connection, by who is to blame.
    pub errors: By<Blame, Counter>,
    /// Clients logged in to this pool.
    pub clients: Gauge,
    /// Those of them that wait for a server.
    pub waiting_clients: Gauge,
    /// Server connections by state.
    pub servers: By<ServerState, Gauge>,
    /// Server connections that logged in.
    pub servers_opened: Counter,
    /// Servers that went to another worker, where a client waited.
    pub servers_moved: Counter,
    /// Servers that stay with one client, for what it has left there.
    pub pinned_servers: Gauge,
    /// Clients that were sent away since as many servers stay with one client as may.
    pub pins_refused: Counter,
    /// Server connections closed, by why.
    pub servers_closed: By<ServerClose, Counter>,
    /// Attempts at a server connection that came to nothing, by where.
    pub server_connect_failures: By<ConnectFailure, Counter>,
    /// Parse messages from clients.
    pub client_parses: Counter,
    /// Parse messages to servers.
    pub server_parses: Counter,
    /// Bind messages to servers.
    pub binds: Counter,
    /// Prepared statements closed on a server to make room for others.
    pub statement_evictions: Counter,
    /// Times that a server was told of a trace ahead of prepared work.
    pub announcements: Counter,
    /// Messages with a command on `pgspan.*` in a form that is not understood.
    pub unrecognised_commands: Counter,
    /// What PgBouncer counts in a way of its own.
    pub pgbouncer: PgBouncerCounters,
    /// When the longest waiting client began to wait, in nanoseconds since `epoch`, plus one; 0 where none waits.
    oldest_wait: Gauge,
    epoch: Instant,
    exemplars: Mutex<Exemplars>,
}

/// What PgBouncer counts in a way of its own; see [`crate::session::ledger`].
#[derive(Debug, Default)]
pub struct PgBouncerCounters {
    /// Servers given to clients for work, not for what a login asks.
    pub assignments: Counter,
    /// Transactions that began.
    pub transactions: Counter,
    /// Queries that began.
    pub queries: Counter,
    /// Time of transactions that ended: add with `add_time`.
    pub transaction_time: Counter,
    /// Time of queries that ended, their wait and a slow reader included: add with `add_time`.
    pub query_time: Counter,
    /// Time that clients waited for the servers that they got: add with `add_time`.
    pub wait_time: Counter,
    /// Clients that logged in.
    pub logins: Counter,
}

/// For each bucket of the duration histogram the query that was seen there last and has a trace.
pub type Exemplars = [Option<Exemplar>; BUCKETS + 1];

/// A query that stands for its bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// Its trace.
    pub trace_id: TraceId,
    /// The proxy's span of it, where one goes to a collector.
    pub span_id: Option<SpanId>,
    /// How long it took.
    pub duration: Duration,
    /// When it ended.
    pub at: SystemTime,
}

const LOGIN_PHASES: usize = LoginPhase::VALUES.len();
const CONTEXTS: usize = 5;
const DRIVERS: usize = 19;
const OUTCOMES: usize = 3;

impl PoolMetrics {
    /// All zero, for `annotation_reasons` different reasons. `epoch` is a time before any wait.
    pub(crate) fn new(
        number: u32,
        name: PoolName,
        annotation_reasons: usize,
        epoch: Instant,
    ) -> Self {
        Self {
            number,
            name,
            queue_wait: Histogram::default(),
            server_first_byte: Histogram::default(),
            server_last_byte: Histogram::default(),
            client_drain: Histogram::default(),
            total: Histogram::default(),
            queries: Default::default(),
            driver_queries: Default::default(),
            waits: By::default(),
            rows: Counter::default(),
            annotations: (0..annotation_reasons)
                .map(|_| Counter::default())
                .collect(),
            client_received_bytes: Counter::default(),
            client_sent_bytes: Counter::default(),
            server_received_bytes: Counter::default(),
            server_sent_bytes: Counter::default(),
            transactions: Counter::default(),
            transaction_time: Counter::default(),
            checkouts: Counter::default(),
            errors: By::default(),
            clients: Gauge::default(),
            waiting_clients: Gauge::default(),
            servers: By::default(),
            servers_opened: Counter::default(),
            servers_moved: Counter::default(),
            pinned_servers: Gauge::default(),
            pins_refused: Counter::default(),
            servers_closed: By::default(),
            server_connect_failures: By::default(),
            client_parses: Counter::default(),
            server_parses: Counter::default(),
            binds: Counter::default(),
            statement_evictions: Counter::default(),
            announcements: Counter::default(),
            unrecognised_commands: Counter::default(),
            pgbouncer: PgBouncerCounters::default(),
            oldest_wait: Gauge::default(),
            epoch,
            exemplars: Mutex::default(),
        }
    }

    /// Counts one answered query: its phases, its context and outcome, its rows.
    #[inline]
    pub fn observe(&self, record: &QueryRecord<'_>) {
        let phases = &record.phases;
        let times = nanoseconds_of(phases);
        for ((_, histogram), time) in self.phases().into_iter().zip(times) {
            histogram.observe_nanoseconds(time);
        }
        self.total.observe_nanoseconds(times.iter().sum());
        self.queries[record.context.index()][OutcomeKind::from(record.outcome).index()].increase();
        self.rows.add(record.rows);
    }

    /// Counts how a driver's query came by its context.
    #[inline]
    pub fn observe_driver(&self, driver: Driver, context: ContextState) {
        self.driver_queries[driver.index()][context.index()].increase();
    }

    /// Counts what became of an annotation; `reason` is the index of its label. One that has no label is not counted.
    #[inline]
    pub fn annotated(&self, reason: usize) {
        debug_assert!(
            reason < self.annotations.len(),
            "every reason was registered"
        );
        if let Some(counter) = self.annotations.get(reason) {
            counter.increase();
        }
    }

    /// Says since when the longest waiting client waits; `None` where none does.
    #[inline]
    pub fn set_oldest_wait(&self, since: Option<Instant>) {
        self.oldest_wait.set(since.map_or(0, |since| {
            nanoseconds(since.saturating_duration_since(self.epoch)) + 1
        }));
    }

    /// How long the longest waiting client has waited by `now`, in seconds.
    pub(crate) fn oldest_wait_seconds(&self, now: Instant) -> f64 {
        match self.oldest_wait.value() {
            0 => 0.0,
            since => seconds(
                nanoseconds(now.saturating_duration_since(self.epoch)).saturating_sub(since - 1),
            ),
        }
    }

    /// Keeps `exemplar` for its bucket. Takes a lock, so only for queries that are notable anyway; gives up where
    /// the scrape holds it.
    pub fn keep_exemplar(&self, exemplar: Exemplar) {
        let mut exemplars = match self.exemplars.try_lock() {
            Ok(exemplars) => exemplars,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if let Some(slot) = exemplars.get_mut(bucket_of(nanoseconds(exemplar.duration))) {
            *slot = Some(exemplar);
        }
    }

    pub(crate) fn exemplars(&self) -> Exemplars {
        *self
            .exemplars
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The phases by name.
    pub(crate) fn phases(&self) -> [(&'static str, &Histogram); 4] {
        [
            ("queue_wait", &self.queue_wait),
            ("server_first_byte", &self.server_first_byte),
            ("server_last_byte", &self.server_last_byte),
            ("client_drain", &self.client_drain),
        ]
    }

    pub(crate) fn total(&self) -> &Histogram {
        &self.total
    }

    /// The queries by context and outcome.
    pub(crate) fn queries(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        ContextState::VALUES
            .iter()
            .zip(&self.queries)
            .flat_map(|(context, outcomes)| {
                OutcomeKind::VALUES
                    .iter()
                    .zip(outcomes)
                    .map(|(outcome, counter)| (*context, *outcome, counter.value()))
            })
    }

    /// The queries by driver and context; only those that there are.
    pub(crate) fn driver_queries(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let drivers = Driver::VALUES.iter().zip(&self.driver_queries);
        drivers.flat_map(|(driver, contexts)| {
            let contexts = ContextState::VALUES.iter().zip(contexts);
            contexts
                .map(|(context, counter)| (*driver, *context, counter.value()))
                .filter(|(_, _, count)| *count > 0)
        })
    }

    /// The queries by context alone.
    pub(crate) fn queries_by_context(&self) -> [u64; CONTEXTS] {
        self.queries
            .each_ref()
            .map(|outcomes| outcomes.iter().map(Counter::value).sum())
    }

    pub(crate) fn waits(&self) -> &By<QueueCause, Counter> {
        &self.waits
    }

    pub(crate) fn annotations(&self) -> impl Iterator<Item = u64> {
        self.annotations.iter().map(Counter::value)
    }
}

/// What is counted once for the process, from any thread; nothing here is touched per query.
#[derive(Debug, Default)]
pub struct ProcessMetrics {
    /// Clients that connected.
    pub clients_accepted: SharedCounter,
    /// Clients connected now, those that log in included.
    pub clients: SharedGauge,
    /// Clients that log in now.
    pub clients_logging_in: SharedGauge,
    /// Clients turned away, by why.
    pub clients_rejected: By<Rejection, SharedCounter>,
    /// Cancel requests, by what became of them.
    pub cancels: By<CancelOutcome, SharedCounter>,
    /// Questions to servers about users, by what became of them.
    pub auth_queries: By<AuthQueryOutcome, SharedCounter>,
    /// Connections on which they are asked.
    pub auth_query_connections: SharedGauge,
    /// Answers that are kept.
    pub auth_query_answers: SharedGauge,
    /// Limits that were hit, by name.
    pub limits: By<Limit, SharedCounter>,
    /// Lines logged, by level.
    pub log_lines: By<LogLevel, SharedCounter>,
    /// Lines that found the log's queue full.
    pub log_lines_dropped: SharedCounter,
    /// Notable queries, by why they are.
    pub notable_queries: By<Reason, SharedCounter>,
    /// Lines of the slow-query log that were left out, by why.
    pub slow_query_lines_dropped: By<LineDrop, SharedCounter>,
    /// Query spans that a collector has taken. A query and its phases count as one.
    pub spans_exported: SharedCounter,
    /// Query spans that no collector got, by why.
    pub spans_dropped: By<SpanDrop, SharedCounter>,
    /// Query spans that wait for export.
    pub span_queue_length: SharedGauge,
    /// How many may wait.
    pub span_queue_capacity: SharedGauge,
    /// Statements that have statistics.
    pub query_statements: SharedGauge,
    /// Statements that lost theirs to others with more time.
    pub query_statements_evicted: SharedCounter,
    /// The queries that those had counted.
    pub evicted_queries: SharedCounter,
    /// Queries that no statement counted, by why.
    pub uncounted_queries: By<Uncounted, SharedCounter>,
    /// Databases of the configuration.
    pub configured_databases: SharedGauge,
    /// Users of the configuration.
    pub configured_users: SharedGauge,
    /// How many clients may connect.
    pub max_client_connections: SharedGauge,
    /// How many server connections a user may have, 0 without limit.
    pub max_user_connections: SharedGauge,
    /// The names that series may have; `None`: any.
    known_names: Mutex<Option<KnownNames>>,
    /// 1 while the proxy lets its clients finish and takes no others.
    pub draining: SharedGauge,
    /// The last number that a connection got.
    serial: AtomicU64,
    logins: By<LoginOutcome, SharedCounter>,
    /// Behind a lock, as logins end on several threads.
    login_duration: Mutex<Histogram>,
    /// The same for each of [`LoginPhase`].
    login_phases: Mutex<[Histogram; LOGIN_PHASES]>,
    /// Clients that log in, by how far they are.
    pub logins_in_phase: By<LoginPhase, SharedGauge>,
}

/// The databases and users of the configuration. Whoever comes by another name is counted under "other".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownNames {
    /// The databases.
    pub databases: BTreeSet<Box<str>>,
    /// The users.
    pub users: BTreeSet<Box<str>>,
}

impl ProcessMetrics {
    /// A number for a connection, of a client or to a server: those of all workers differ.
    pub fn next_serial(&self) -> u64 {
        self.serial.fetch_add(1, Relaxed) + 1
    }

    /// From now on other names than these are folded; with `None` none is.
    pub fn set_known_names(&self, names: Option<KnownNames>) {
        *(self.known_names.lock()).unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// The name under which a pool is shown.
    pub(crate) fn shown_name(&self, (database, user): &PoolName) -> PoolName {
        let known = (self.known_names.lock()).unwrap_or_else(PoisonError::into_inner);
        let Some(known) = &*known else {
            return (Arc::clone(database), Arc::clone(user));
        };
        let fold = |name: &Arc<str>, known: &BTreeSet<Box<str>>| match known.contains(&**name) {
            true => Arc::clone(name),
            false => Arc::from(OTHER),
        };
        (fold(database, &known.databases), fold(user, &known.users))
    }

    /// Counts one login that has ended.
    pub fn logged_in(&self, outcome: LoginOutcome, duration: Duration) {
        self.logins.of(outcome).increase();
        self.login_duration
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .observe(duration);
    }

    /// Counts a part of a login that is over.
    pub(crate) fn login_phase_ended(&self, phase: LoginPhase, time: Duration) {
        let phases = (self.login_phases.lock()).unwrap_or_else(PoisonError::into_inner);
        if let Some(histogram) = phases.get(phase.index()) {
            histogram.observe(time);
        }
    }

    /// The parts of logins by name.
    pub(crate) fn login_phases(&self) -> [(&'static str, HistogramSnapshot); LOGIN_PHASES] {
        let phases = (self.login_phases.lock()).unwrap_or_else(PoisonError::into_inner);
        std::array::from_fn(|at| {
            let name = LoginPhase::VALUES.get(at).copied().unwrap_or_default();
            let histogram = phases.get(at).map(Histogram::snapshot);
            (name, histogram.expect("there is one for each phase"))
        })
    }

    pub(crate) fn logins(&self) -> &By<LoginOutcome, SharedCounter> {
        &self.logins
    }

    pub(crate) fn login_duration(&self) -> HistogramSnapshot {
        self.login_duration
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .snapshot()
    }
}
