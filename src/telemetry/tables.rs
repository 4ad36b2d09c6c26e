//! What is remembered of queries as rows, for the console; and as JSON, for HTTP.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde_json::{Value as Json, json};

use crate::session::query_record::{Outcome, Phases};
use crate::telemetry::labels::{OutcomeKind, label_of};
use crate::telemetry::log::rfc3339;
use crate::telemetry::query_text::QueryText;
use crate::telemetry::registry::{PoolName, Registry};
use crate::telemetry::slow_query::kind_name;
use crate::telemetry::statistics::{
    FoundQuery, PHASES, SlowQuery, SpreadSnapshot, StatementFigures, Statistics, TracedQuery,
};
use crate::trace_context::TraceId;

/// Rows with names and kinds for their columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// What stands in which column.
    pub columns: &'static [Column],
    /// As many values in each as there are columns.
    pub rows: Vec<Vec<Value>>,
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name: a promise to whoever reads it.
    pub name: &'static str,
    /// What its values are, where they are not null.
    pub kind: ColumnKind,
}

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Texts.
    Text,
    /// Whole numbers.
    Integer,
    /// Numbers.
    Real,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Not known, or there is none.
    Null,
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number.
    Real(f64),
}

const fn text(name: &'static str) -> Column {
    Column {
        name,
        kind: ColumnKind::Text,
    }
}

const fn integer(name: &'static str) -> Column {
    Column {
        name,
        kind: ColumnKind::Integer,
    }
}

const fn real(name: &'static str) -> Column {
    Column {
        name,
        kind: ColumnKind::Real,
    }
}

/// The statements with their figures, those with the most time first. Times are in milliseconds.
pub fn queries(statistics: &Statistics) -> Table {
    const COLUMNS: &[Column] = &[
        text("database"),
        text("user"),
        text("fingerprint"),
        integer("calls"),
        integer("errors"),
        integer("rows"),
        real("total_ms"),
        real("mean_ms"),
        real("p50_ms"),
        real("p95_ms"),
        real("p99_ms"),
        real("queue_wait_p95_ms"),
        real("server_first_byte_p95_ms"),
        real("server_last_byte_p95_ms"),
        real("client_drain_p95_ms"),
        real("slowest_ms"),
        text("slowest_trace_id"),
        text("recent_trace_ids"),
        text("applications"),
        text("routes"),
        text("last_seen"),
        text("query"),
    ];
    let row = |statement: StatementFigures| {
        let figures = &statement.figures;
        let total = &figures.total;
        let slowest = figures.slowest;
        let mut row = vec![
            statement.pool.0.to_string().into(),
            statement.pool.1.to_string().into(),
            (statement
                .fingerprint
                .map(|fingerprint| fingerprint.to_string()))
            .into(),
            figures.calls.into(),
            figures.errors.into(),
            figures.rows.into(),
            milliseconds(total.sum()).into(),
            (milliseconds(total.sum()) / figures.calls.max(1) as f64).into(),
        ];
        row.extend([0.5, 0.95, 0.99].map(|share| quantile(total, share, figures.calls)));
        row.extend((figures.phases.iter()).map(|phase| quantile(phase, 0.95, figures.calls)));
        row.extend([
            slowest.map(|slowest| milliseconds(slowest.duration)).into(),
            slowest.map(|slowest| slowest.trace_id.to_string()).into(),
            words(
                figures
                    .recent
                    .iter()
                    .map(|query| query.trace_id.to_string()),
            ),
            tag_values(&statement, "application"),
            tag_values(&statement, "route"),
            rfc3339(statement.last_seen).into(),
            statement.text.into(),
        ]);
        row
    };
    Table {
        columns: COLUMNS,
        rows: statistics.statements().into_iter().map(row).collect(),
    }
}

/// The queries of a trace, as far as they are still known, in the order in which they began. Times are in milliseconds.
pub fn trace(statistics: &Statistics, id: TraceId) -> Table {
    const COLUMNS: &[Column] = &[
        text("started"),
        text("database"),
        text("user"),
        real("duration_ms"),
        real("queue_wait_ms"),
        text("queue_cause"),
        real("server_first_byte_ms"),
        real("server_last_byte_ms"),
        real("client_drain_ms"),
        text("outcome"),
        text("sqlstate"),
        integer("rows"),
        text("kind"),
        integer("server_pid"),
        text("parent_span_id"),
        text("span_id"),
        text("fingerprint"),
        text("query"),
    ];
    let row = |query: FoundQuery| {
        let (database, user) = query.pool.clone().unzip();
        let phases = &query.phases;
        let mut row = vec![
            started(&query).into(),
            database.map(|name| name.to_string()).into(),
            user.map(|name| name.to_string()).into(),
        ];
        row.extend(phase_values(phases));
        row.extend([
            OutcomeKind::from(query.outcome).as_str().to_owned().into(),
            sqlstate(query.outcome).into(),
            query.rows.into(),
            kind_name(query.kind).to_owned().into(),
            server_pid(query.server_pid).into(),
            query.parent_span_id.map(|id| id.to_string()).into(),
            query.span_id.map(|id| id.to_string()).into(),
            query
                .fingerprint
                .map(|fingerprint| fingerprint.to_string())
                .into(),
            query.text.into(),
        ]);
        row
    };
    Table {
        columns: COLUMNS,
        rows: statistics.trace(id).into_iter().map(row).collect(),
    }
}

/// The latest slow, failed, cancelled and long-waiting queries, the newest first. Times are in milliseconds.
pub fn slow(statistics: &Statistics) -> Table {
    const COLUMNS: &[Column] = &[
        text("ended"),
        text("reason"),
        text("database"),
        text("user"),
        real("duration_ms"),
        real("queue_wait_ms"),
        text("queue_cause"),
        real("server_first_byte_ms"),
        real("server_last_byte_ms"),
        real("client_drain_ms"),
        text("outcome"),
        text("sqlstate"),
        integer("rows"),
        text("kind"),
        integer("server_pid"),
        text("trace_id"),
        text("parent_span_id"),
        text("span_id"),
        text("correlation_id"),
        text("application"),
        text("route"),
        text("fingerprint"),
        text("query"),
    ];
    let row = |SlowQuery { query, text }: SlowQuery| {
        let trace = query.trace.as_deref();
        let tag = |key| trace.and_then(|trace| trace.tag(key)).map(str::to_owned);
        let mut row = vec![
            rfc3339(query.ended).into(),
            query.reason.as_str().to_owned().into(),
            query.identity.database.to_string().into(),
            query.identity.user.to_string().into(),
        ];
        row.extend(phase_values(&query.phases));
        row.extend([
            OutcomeKind::from(query.outcome).as_str().to_owned().into(),
            sqlstate(query.outcome).into(),
            query.rows.into(),
            kind_name(query.kind).to_owned().into(),
            server_pid(query.server_pid).into(),
            query.trace_id.to_string().into(),
            query.parent_span_id().map(|id| id.to_string()).into(),
            query.span_id.to_string().into(),
            (trace.and_then(|trace| trace.correlation_id.as_deref()))
                .map(str::to_owned)
                .into(),
            tag("application").into(),
            tag("route").into(),
            text.fingerprint
                .map(|fingerprint| fingerprint.to_string())
                .into(),
            text.text.into(),
        ]);
        row
    };
    Table {
        columns: COLUMNS,
        rows: statistics.slow().into_iter().map(row).collect(),
    }
}

/// How the trace contexts of the queries came about, by database and user.
pub fn context(registry: &Registry) -> Table {
    const COLUMNS: &[Column] = &[
        text("database"),
        text("user"),
        integer("provided"),
        integer("generated"),
        integer("invalid"),
        integer("none"),
        integer("stale"),
        real("lost_share"),
    ];
    let row = |(name, counts): (PoolName, [u64; 5])| {
        let [provided, generated, invalid, none, stale] = counts;
        let all: u64 = counts.iter().sum();
        let lost = (all > 0).then(|| (all - provided) as f64 / all as f64);
        vec![
            name.0.to_string().into(),
            name.1.to_string().into(),
            provided.into(),
            generated.into(),
            invalid.into(),
            none.into(),
            stale.into(),
            lost.into(),
        ]
    };
    Table {
        columns: COLUMNS,
        rows: registry.contexts().into_iter().map(row).collect(),
    }
}

/// Who holds a server connection, and what for. Holds literals: only [`holders`] may show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Holder {
    /// The database as the client named it.
    pub database: String,
    /// The user that the client logged in as.
    pub user: String,
    /// The process id of the client's cancel key.
    pub client_id: i32,
    /// The server's process.
    pub server_pid: Option<i32>,
    /// How long it has held it.
    pub held: Duration,
    /// What it is doing with it.
    pub state: HolderState,
    /// The trace of the client.
    pub trace_id: Option<TraceId>,
    /// The application's own id of the request.
    pub correlation_id: Option<String>,
    /// Which application.
    pub application: Option<String>,
    /// What is asked of the server.
    pub query: Option<Box<[u8]>>,
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holder")
            .field("client_id", &self.client_id)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// What a client does with the server that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolderState {
    /// The server works for it.
    Active,
    /// It has read its reply, and a transaction is open.
    IdleInTransaction,
    /// The same, and the transaction has failed.
    IdleInFailedTransaction,
    /// It does not read its reply.
    Reading,
    /// Nothing is open, and yet the server stays: session mode, or what it has left in the session.
    Idle,
}

impl HolderState {
    /// As PostgreSQL calls it in pg_stat_activity, where it does.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::IdleInTransaction => "idle in transaction",
            Self::IdleInFailedTransaction => "idle in transaction (aborted)",
            Self::Reading => "client reads",
            Self::Idle => "idle",
        }
    }
}

/// How much is shown of what is asked of a server, in characters.
const HOLDER_TEXT_LIMIT: usize = 1_000;

/// Who holds the server connections, the longest first, with literals left out. Times are in milliseconds.
pub fn holders(mut holders: Vec<Holder>) -> Table {
    const COLUMNS: &[Column] = &[
        text("database"),
        text("user"),
        integer("client_id"),
        integer("server_pid"),
        real("held_ms"),
        text("state"),
        text("trace_id"),
        text("correlation_id"),
        text("application"),
        text("query"),
    ];
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.held));
    let row = |holder: Holder| {
        vec![
            holder.database.into(),
            holder.user.into(),
            Value::Integer(holder.client_id.into()),
            (holder.server_pid.map(i64::from)).into(),
            milliseconds(holder.held).into(),
            holder.state.as_str().to_owned().into(),
            holder.trace_id.map(|id| id.to_string()).into(),
            holder.correlation_id.into(),
            holder.application.into(),
            (holder.query)
                .and_then(|query| QueryText::of(&query, true, HOLDER_TEXT_LIMIT).text)
                .into(),
        ]
    };
    Table {
        columns: COLUMNS,
        rows: holders.into_iter().map(row).collect(),
    }
}

/// The statements as JSON, at most `limit` of them. Times are in milliseconds.
pub fn queries_json(statistics: &Statistics, limit: usize) -> Json {
    let statements = statistics.statements();
    let count = statements.len();
    let statement = |statement: StatementFigures| {
        let figures = &statement.figures;
        let spread = |spread: &SpreadSnapshot| {
            let quantile = |share| milliseconds(spread.quantile(share, figures.calls));
            json!({
                "total_ms": milliseconds(spread.sum()),
                "mean_ms": milliseconds(spread.sum()) / figures.calls.max(1) as f64,
                "p50_ms": quantile(0.5),
                "p95_ms": quantile(0.95),
                "p99_ms": quantile(0.99),
            })
        };
        let phases: serde_json::Map<String, Json> = (PHASES.iter().zip(&figures.phases))
            .map(|(name, phase)| ((*name).to_owned(), spread(phase)))
            .collect();
        let traced = |query: &TracedQuery| {
            json!({
                "trace_id": query.trace_id.to_string(),
                "duration_ms": milliseconds(query.duration),
            })
        };
        let mut tags = serde_json::Map::new();
        for (key, value, calls) in &statement.tags {
            let values = tags
                .entry(&**key)
                .or_insert_with(|| Json::Array(Vec::new()));
            if let Json::Array(values) = values {
                values.push(json!({ "value": value, "calls": calls }));
            }
        }
        json!({
            "database": &*statement.pool.0,
            "user": &*statement.pool.1,
            "fingerprint": statement.fingerprint.map(|fingerprint| fingerprint.to_string()),
            "query": statement.text,
            "summary": statement.summary,
            "calls": figures.calls,
            "errors": figures.errors,
            "rows": figures.rows,
            "duration": spread(&figures.total),
            "phases": phases,
            "slowest": figures.slowest.as_ref().map(traced),
            "recent": figures.recent.iter().map(traced).collect::<Vec<_>>(),
            "tags": tags,
            "last_seen": rfc3339(statement.last_seen),
        })
    };
    json!({
        "statements": count,
        "queries": statements.into_iter().take(limit).map(statement).collect::<Vec<_>>(),
    })
}

/// The queries of a trace as JSON. Times are in milliseconds.
pub fn trace_json(statistics: &Statistics, id: TraceId) -> Json {
    let query = |query: FoundQuery| {
        let (database, user) = query.pool.clone().unzip();
        let phases = &query.phases;
        json!({
            "started": started(&query),
            "ended": rfc3339(query.ended),
            "database": database.as_deref(),
            "user": user.as_deref(),
            "fingerprint": query.fingerprint.map(|fingerprint| fingerprint.to_string()),
            "query": query.text,
            "summary": query.summary,
            "kind": kind_name(query.kind),
            "outcome": OutcomeKind::from(query.outcome).as_str(),
            "sqlstate": sqlstate(query.outcome),
            "rows": query.rows,
            "context": label_of(query.context),
            "server_pid": server_pid(query.server_pid),
            "parent_span_id": query.parent_span_id.map(|id| id.to_string()),
            "span_id": query.span_id.map(|id| id.to_string()),
            "duration_ms": milliseconds(phases.total()),
            "phases": {
                "queue_wait_ms": milliseconds(phases.queue_wait),
                "queue_cause": phases.queue_cause.map(label_of),
                "server_first_byte_ms": milliseconds(phases.first_byte),
                "server_last_byte_ms": milliseconds(phases.last_byte),
                "client_drain_ms": milliseconds(phases.client_drain),
            },
        })
    };
    let queries = statistics.trace(id);
    json!({
        "trace_id": id.to_string(),
        "queries": queries.into_iter().map(query).collect::<Vec<_>>(),
    })
}

fn phase_values(phases: &Phases) -> [Value; 6] {
    [
        milliseconds(phases.total()).into(),
        milliseconds(phases.queue_wait).into(),
        phases
            .queue_cause
            .map(|cause| label_of(cause).to_owned())
            .into(),
        milliseconds(phases.first_byte).into(),
        milliseconds(phases.last_byte).into(),
        milliseconds(phases.client_drain).into(),
    ]
}

fn quantile(spread: &SpreadSnapshot, share: f64, calls: u64) -> Value {
    milliseconds(spread.quantile(share, calls)).into()
}

fn started(query: &FoundQuery) -> String {
    let started = query.ended.checked_sub(query.phases.total());
    rfc3339(started.unwrap_or(SystemTime::UNIX_EPOCH))
}

fn sqlstate(outcome: Outcome) -> Option<String> {
    match outcome {
        Outcome::Failed(state) => Some(state.as_str().to_owned()),
        Outcome::Completed | Outcome::Lost => None,
    }
}

fn server_pid(pid: i32) -> Option<i64> {
    (pid != 0).then_some(pid.into())
}

fn tag_values(statement: &StatementFigures, key: &str) -> Value {
    let values = statement
        .tags
        .iter()
        .filter(|(known, _, _)| **known == *key);
    words(values.map(|(_, value, _)| value.to_string()))
}

fn words(words: impl Iterator<Item = String>) -> Value {
    let words: Vec<String> = words.collect();
    (!words.is_empty()).then(|| words.join(" ")).into()
}

/// To the microsecond.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
mod tests;
