//! Every series by name: the one table from which `/metrics` and `docs/metrics.md` come.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Instant;

use smallvec::SmallVec;

use crate::telemetry::instrument::{By, HistogramSnapshot, Label, Number, seconds};
use crate::telemetry::labels::ServerState;
use crate::telemetry::metrics::{PoolMetrics, ProcessMetrics};

/// One metric family.
pub struct Family {
    /// Its name, in base units.
    pub name: &'static str,
    /// What it says, in a sentence.
    pub help: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// Its labels beside the ones that its source gives.
    pub labels: &'static [&'static str],
    /// Where its samples come from.
    pub source: Source,
}

/// What kind of number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls; what several workers have is added up.
    Gauge,
    /// Rises and falls; of what several workers have the largest counts.
    GaugeMax,
    /// Times by bucket.
    Histogram,
}

/// Where samples come from, and so which labels they have first.
pub enum Source {
    /// Each (database, user) pair.
    Pool(fn(&PoolMetrics, &Scrape<'_>, &mut Samples)),
    /// Each database: all its users together.
    Database(fn(&PoolMetrics, &Scrape<'_>, &mut Samples)),
    /// The process.
    Process(fn(&ProcessMetrics, &Scrape<'_>, &mut Samples)),
}

/// What a scrape knows beside the numbers.
pub struct Scrape<'a> {
    /// When it happens.
    pub now: Instant,
    /// The labels of the annotation counters.
    pub annotation_reasons: &'a [&'static str],
    /// The program's version.
    pub version: &'a str,
    /// The version of PgBouncer that it passes for.
    pub pgbouncer_version: &'a str,
    /// (database, user) pairs.
    pub pools: usize,
    /// Server connections of all pools.
    pub servers: u64,
}

/// The samples of one family and one source.
#[derive(Debug, Default, PartialEq)]
pub struct Samples(pub Vec<Sample>);

/// One sample.
#[derive(Debug, PartialEq)]
pub struct Sample {
    /// The values of the family's own labels.
    pub labels: SmallVec<[Cow<'static, str>; 2]>,
    /// Its value.
    pub value: Value,
}

/// The value of a sample.
#[derive(Debug, PartialEq)]
pub enum Value {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a histogram.
    Histogram(Box<HistogramSnapshot>),
}

impl Samples {
    fn number(&mut self, value: f64) {
        self.0.push(Sample {
            labels: SmallVec::new(),
            value: Value::Number(value),
        });
    }

    fn count(&mut self, number: &impl Number) {
        self.number(number.value() as f64);
    }

    fn time(&mut self, nanoseconds: &impl Number) {
        self.number(seconds(nanoseconds.value()));
    }

    fn labelled<const N: usize>(&mut self, labels: [&'static str; N], value: f64) {
        self.0.push(Sample {
            labels: labels.into_iter().map(Cow::Borrowed).collect(),
            value: Value::Number(value),
        });
    }

    fn by<L: Label, N: Number>(&mut self, numbers: &By<L, N>) {
        for (label, value) in numbers.iter() {
            self.labelled([label], value as f64);
        }
    }

    fn info(&mut self, text: &str) {
        self.0.push(Sample {
            labels: SmallVec::from_iter([Cow::Owned(text.to_owned())]),
            value: Value::Number(1.0),
        });
    }

    fn histogram<const N: usize>(&mut self, labels: [&'static str; N], value: HistogramSnapshot) {
        self.0.push(Sample {
            labels: labels.into_iter().map(Cow::Borrowed).collect(),
            value: Value::Histogram(Box::new(value)),
        });
    }

    /// Takes in what another worker has. Both come from the same family, so they have the same labels in the same order.
    pub fn merge(&mut self, other: Self, kind: Kind) {
        if self.0.is_empty() {
            *self = other;
            return;
        }
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            debug_assert_eq!(mine.labels, theirs.labels);
            match (&mut mine.value, theirs.value) {
                (Value::Number(mine), Value::Number(theirs)) if kind == Kind::GaugeMax => {
                    *mine = mine.max(theirs);
                }
                (Value::Number(mine), Value::Number(theirs)) => *mine += theirs,
                (Value::Histogram(mine), Value::Histogram(theirs)) => mine.add(&theirs),
                (Value::Number(_), Value::Histogram(_))
                | (Value::Histogram(_), Value::Number(_)) => {
                    debug_assert!(false, "a family has one kind of value");
                }
            }
        }
    }
}

/// The series whose buckets carry trace ids in OpenMetrics.
pub const WITH_EXEMPLARS: &str = "pgspan_query_duration_seconds";

/// pgspan's own series.
#[rustfmt::skip] // One series, two lines: a table.
pub const FAMILIES: &[Family] = &[
    // Queries.
    pool("pgspan_query_duration_seconds", "Time of a query from the client's message to the last byte written to it; in OpenMetrics with trace ids of slow queries as exemplars.", Kind::Histogram, &[],
        |pool, _, samples| samples.histogram([], pool.total().snapshot())),
    pool("pgspan_query_phase_seconds", "Time of a query by phase: queue_wait, server_first_byte, server_last_byte, client_drain.", Kind::Histogram, &["phase"],
        |pool, _, samples| for (phase, histogram) in pool.phases() { samples.histogram([phase], histogram.snapshot()); }),
    pool("pgspan_queries_total", "Queries by how their trace context came about (provided, generated, invalid, none, stale) and how they ended (completed, failed, lost).", Kind::Counter, &["context", "outcome"],
        |pool, _, samples| for (context, outcome, count) in pool.queries() { samples.labelled([context, outcome], count as f64); }),
    pool("pgspan_driver_queries_total", "Queries by driver, where the tag db_driver or the application_name of the startup packet tells, and by how their trace context came about.", Kind::Counter, &["driver", "context"],
        |pool, _, samples| for (driver, context, count) in pool.driver_queries() { samples.labelled([driver, context], count as f64); }),
    pool("pgspan_query_rows_total", "Rows returned or affected.", Kind::Counter, &[],
        |pool, _, samples| samples.count(&pool.rows)),
    pool("pgspan_query_annotations_total", "Queries by what became of their annotation: annotated, or the reason for leaving them alone.", Kind::Counter, &["reason"],
        |pool, scrape, samples| for (reason, count) in scrape.annotation_reasons.iter().zip(pool.annotations()) { samples.labelled([reason], count as f64); }),
    pool("pgspan_transactions_total", "Transactions that ended; a statement outside of one counts as one.", Kind::Counter, &[],
        |pool, _, samples| samples.count(&pool.transactions)),
    pool("pgspan_transaction_seconds_total", "Time that servers were in transactions.", Kind::Counter, &[],
        |pool, _, samples| samples.time(&pool.transaction_time)),
    pool("pgspan_errors_total", "Errors that ended a client or server connection, by who is to blame.", Kind::Counter, &["blame"],
        |pool, _, samples| samples.by(&pool.errors)),
    // Clients.
    pool("pgspan_pool_clients", "Clients logged in to the pool.", Kind::Gauge, &[],
        |pool, _, samples| samples.count(&pool.clients)),
    pool("pgspan_pool_waiting_clients", "Clients that wait for a server.", Kind::Gauge, &[],
        |pool, _, samples| samples.count(&pool.waiting_clients)),
    pool("pgspan_pool_oldest_wait_seconds", "How long the longest waiting client has waited.", Kind::GaugeMax, &[],
        |pool, scrape, samples| samples.number(pool.oldest_wait_seconds(scrape.now))),
    pool("pgspan_pool_waits_total", "Queries that waited for a server, by what they waited for.", Kind::Counter, &["cause"],
        |pool, _, samples| samples.by(pool.waits())),
    pool("pgspan_client_received_bytes_total", "Bytes received from clients.", Kind::Counter, &[],
        |pool, _, samples| samples.count(&pool.client_received_bytes)),
    pool("pgspan_client_sent_bytes_total", "Bytes sent to clients.", Kind::Counter, &[],
        |pool, _, samples| samples.count(&pool.client_sent_bytes)),
    // Servers.
    pool("pgspan_pool_servers", "Server connections by state.", Kind::Gauge, &["state"],
        |pool, _, samples| samples.by(&pool.servers)),
    pool("pgspan_pool_checkouts_total", "Server connections handed to clients.", Kind::Counter, &[],
        |pool, _, samples| samples.count(&pool.checkouts)),
    pool("pgspan_servers_opened_total", "Server connections that logged in.", Kind::Counter, &[],
        |pool, _, samples| samples.count(&pool.servers_opened)),
    pool("pgspan_servers_moved_total", "Server connections that went to another worker, where a client waited.", Kind::Counter, &[],
        |pool, _, samples| samples.count(&pool.servers_moved)),
    pool("pgspan_pool_pinned_servers", "Servers that stay with one client, for what it has left there.", Kind::Gauge, &[],
        |pool, _, samples| samples.count(&pool.pinned_servers)),
    pool("pgspan_pins_refused_total", "Clients that were sent away since as many servers stay with one client as may.", Kind::Counter, &[],
        |pool, _, samples| samples.count(&pool.pins_refused)),
    pool("pgspan_servers_closed_total", "Server connections closed, by why.", Kind::Counter, &["reason"],
        |pool, _, samples| samples.by(&pool.servers_closed)),
    pool("pgspan_server_connect_failures_total", "Attempts at a server connection that came to nothing, by where.", Kind::Counter, &["reason"],
        |pool, _, samples| samples.by(&pool.server_connect_failures)),
    pool("pgspan_server_received_bytes_total", "Bytes received from servers.", Kind::Counter, &[],
        |pool, _, samples| samples.count(&pool.server_received_bytes)),
    pool("pgspan_server_sent_bytes_total", "Bytes sent to servers.", Kind::Counter, &[],
        |pool, _, samples| samples.count(&pool.server_sent_bytes)),
    // Prepared statements.
    pool("pgspan_client_parses_total", "Parse messages from clients.", Kind::Counter, &[],
        |pool, _, samples| samples.count(&pool.client_parses)),
    pool("pgspan_server_parses_total", "Parse messages to servers.", Kind::Counter, &[],
        |pool, _, samples| samples.count(&pool.server_parses)),
    pool("pgspan_binds_total", "Bind messages to servers.", Kind::Counter, &[],
        |pool, _, samples| samples.count(&pool.binds)),
    pool("pgspan_statement_evictions_total", "Prepared statements closed on a server to make room for others.", Kind::Counter, &[],
        |pool, _, samples| samples.count(&pool.statement_evictions)),
    pool("pgspan_announcements_total", "Times that a server was told of a trace ahead of prepared work (annotation.prepared).", Kind::Counter, &[],
        |pool, _, samples| samples.count(&pool.announcements)),
    pool("pgspan_unrecognised_commands_total", "Messages with a command on pgspan.* in a form that only the server understands.", Kind::Counter, &[],
        |pool, _, samples| samples.count(&pool.unrecognised_commands)),
    // The process.
    process("pgspan_clients", "Clients connected, those that log in included.", Kind::Gauge, &[],
        |process, _, samples| samples.count(&process.clients)),
    process("pgspan_clients_logging_in", "Clients that log in.", Kind::Gauge, &[],
        |process, _, samples| samples.count(&process.clients_logging_in)),
    process("pgspan_clients_accepted_total", "Clients that connected.", Kind::Counter, &[],
        |process, _, samples| samples.count(&process.clients_accepted)),
    process("pgspan_clients_rejected_total", "Clients turned away, by why.", Kind::Counter, &["reason"],
        |process, _, samples| samples.by(&process.clients_rejected)),
    process("pgspan_logins_total", "Logins of clients, by how they ended.", Kind::Counter, &["outcome"],
        |process, _, samples| samples.by(process.logins())),
    process("pgspan_login_duration_seconds", "Time of a client's login, however it ended.", Kind::Histogram, &[],
        |process, _, samples| samples.histogram([], process.login_duration())),
    process("pgspan_login_phase_seconds", "Time of a client's login by phase: startup (accepted to startup packet), tls, authentication, welcome (to ReadyForQuery).", Kind::Histogram, &["phase"],
        |process, _, samples| for (phase, histogram) in process.login_phases() { samples.histogram([phase], histogram); }),
    process("pgspan_logins_in_phase", "Clients that log in, by how far they are.", Kind::Gauge, &["phase"],
        |process, _, samples| samples.by(&process.logins_in_phase)),
    process("pgspan_cancels_total", "Cancel requests, by what became of them.", Kind::Counter, &["outcome"],
        |process, _, samples| samples.by(&process.cancels)),
    process("pgspan_auth_queries_total", "Questions to servers about users (auth_query), by what became of them.", Kind::Counter, &["outcome"],
        |process, _, samples| samples.by(&process.auth_queries)),
    process("pgspan_auth_query_connections", "Server connections on which they are asked.", Kind::Gauge, &[],
        |process, _, samples| samples.count(&process.auth_query_connections)),
    process("pgspan_auth_query_answers", "Answers that are kept.", Kind::Gauge, &[],
        |process, _, samples| samples.count(&process.auth_query_answers)),
    process("pgspan_limits_hit_total", "Limits that were hit, by name.", Kind::Counter, &["limit"],
        |process, _, samples| samples.by(&process.limits)),
    process("pgspan_draining", "1 while the proxy lets its clients finish and takes no others.", Kind::Gauge, &[],
        |process, _, samples| samples.count(&process.draining)),
    process("pgspan_build_info", "1, with the program's version.", Kind::Gauge, &["version"],
        |_, scrape, samples| samples.info(scrape.version)),
    // Telemetry itself.
    process("pgspan_notable_queries_total", "Queries that were slow, failed, were cancelled, waited long or were sampled.", Kind::Counter, &["reason"],
        |process, _, samples| samples.by(&process.notable_queries)),
    process("pgspan_query_statements", "Statements (by database, user and fingerprint) that have statistics.", Kind::Gauge, &[],
        |process, _, samples| samples.count(&process.query_statements)),
    process("pgspan_query_statements_evicted_total", "Statements whose statistics made room for others.", Kind::Counter, &[],
        |process, _, samples| samples.count(&process.query_statements_evicted)),
    process("pgspan_query_statistics_evicted_queries_total", "Queries that those statements had counted.", Kind::Counter, &[],
        |process, _, samples| samples.count(&process.evicted_queries)),
    process("pgspan_query_statistics_uncounted_total", "Queries that no statement counted, by why.", Kind::Counter, &["reason"],
        |process, _, samples| samples.by(&process.uncounted_queries)),
    process("pgspan_slow_query_lines_dropped_total", "Lines of the slow-query log that were left out, by why.", Kind::Counter, &["reason"],
        |process, _, samples| samples.by(&process.slow_query_lines_dropped)),
    process("pgspan_log_lines_total", "Lines logged, by level.", Kind::Counter, &["level"],
        |process, _, samples| samples.by(&process.log_lines)),
    process("pgspan_log_lines_dropped_total", "Lines that found the log's queue full.", Kind::Counter, &[],
        |process, _, samples| samples.count(&process.log_lines_dropped)),
    process("pgspan_spans_exported_total", "Query spans that the collector has taken; a query and its phases count as one.", Kind::Counter, &[],
        |process, _, samples| samples.count(&process.spans_exported)),
    process("pgspan_spans_dropped_total", "Query spans that no collector got, by why.", Kind::Counter, &["reason"],
        |process, _, samples| samples.by(&process.spans_dropped)),
    process("pgspan_span_queue_length", "Query spans that wait for export.", Kind::Gauge, &[],
        |process, _, samples| samples.count(&process.span_queue_length)),
    process("pgspan_span_queue_capacity", "How many query spans may wait for export.", Kind::Gauge, &[],
        |process, _, samples| samples.count(&process.span_queue_capacity)),
];

/// The series that dashboards for PgBouncer read, named as prometheus-community/pgbouncer_exporter names them. Only those whose
/// numbers are known here; `pgbouncer_stats_*` and `pgbouncer_stats_totals_*` are its older and newer name of the same.
///
/// As with PgBouncer, a query's duration contains its wait and a slow reader; "received" is what clients sent, "sent" what servers answered.
#[rustfmt::skip] // One series, two lines: a table.
pub const PGBOUNCER_FAMILIES: &[Family] = &[
    process("pgbouncer_up", "1: the proxy answers.", Kind::Gauge, &[], |_, _, samples| samples.number(1.0)),
    process("pgbouncer_version_info", "1, with the version of PgBouncer that the console names.", Kind::Gauge, &["version"],
        |_, scrape, samples| samples.info(scrape.pgbouncer_version)),
    process("pgbouncer_config_max_client_connections", "How many clients may connect.", Kind::Gauge, &[],
        |process, _, samples| samples.count(&process.max_client_connections)),
    process("pgbouncer_config_max_user_connections", "How many server connections a user may have, 0 without limit.", Kind::Gauge, &[],
        |process, _, samples| samples.count(&process.max_user_connections)),
    process("pgbouncer_databases", "Databases of the configuration.", Kind::Gauge, &[],
        |process, _, samples| samples.count(&process.configured_databases)),
    process("pgbouncer_users", "Users of the configuration.", Kind::Gauge, &[],
        |process, _, samples| samples.count(&process.configured_users)),
    process("pgbouncer_pools", "Pools.", Kind::Gauge, &[], |_, scrape, samples| samples.number(scrape.pools as f64)),
    process("pgbouncer_used_clients", "Clients connected.", Kind::Gauge, &[],
        |process, _, samples| samples.count(&process.clients)),
    process("pgbouncer_login_clients", "Clients that log in.", Kind::Gauge, &[],
        |process, _, samples| samples.count(&process.clients_logging_in)),
    process("pgbouncer_used_servers", "Server connections.", Kind::Gauge, &[],
        |_, scrape, samples| samples.number(scrape.servers as f64)),
    pool("pgbouncer_pools_client_active_connections", "Clients that do not wait for a server.", Kind::Gauge, &[],
        |pool, _, samples| samples.number(pool.clients.value().saturating_sub(pool.waiting_clients.value()) as f64)),
    pool("pgbouncer_pools_client_waiting_connections", "Clients that wait for a server.", Kind::Gauge, &[],
        |pool, _, samples| samples.count(&pool.waiting_clients)),
    pool("pgbouncer_pools_client_maxwait_seconds", "How long the longest waiting client has waited.", Kind::GaugeMax, &[],
        |pool, scrape, samples| samples.number(pool.oldest_wait_seconds(scrape.now))),
    pool("pgbouncer_pools_server_active_connections", "Servers that serve a client.", Kind::Gauge, &[],
        |pool, _, samples| samples.count(pool.servers.of(ServerState::Active))),
    pool("pgbouncer_pools_server_idle_connections", "Servers that wait for work.", Kind::Gauge, &[],
        |pool, _, samples| samples.count(pool.servers.of(ServerState::Idle))),
    pool("pgbouncer_pools_server_used_connections", "Servers that have to be checked before they are used again.", Kind::Gauge, &[],
        |pool, _, samples| samples.number(pool.servers.of(ServerState::Used).value() as f64)),
    pool("pgbouncer_pools_server_login_connections", "Servers that are being connected or log in.", Kind::Gauge, &[],
        |pool, _, samples| samples.count(pool.servers.of(ServerState::Connecting))),
    pool("pgbouncer_pools_server_testing_connections", "Servers that are being reset or checked.", Kind::Gauge, &[],
        |pool, _, samples| samples.count(pool.servers.of(ServerState::Resetting))),
    stats("pgbouncer_stats_queries_total", QUERIES.0, QUERIES.1),
    stats("pgbouncer_stats_totals_queries_total", QUERIES.0, QUERIES.1),
    stats("pgbouncer_stats_queries_pooled_total", QUERIES.0, QUERIES.1),
    stats("pgbouncer_stats_totals_queries_pooled_total", QUERIES.0, QUERIES.1),
    stats("pgbouncer_stats_queries_duration_seconds_total", DURATION.0, DURATION.1),
    stats("pgbouncer_stats_totals_queries_duration_seconds_total", DURATION.0, DURATION.1),
    stats("pgbouncer_stats_client_wait_seconds_total", CLIENT_WAIT.0, CLIENT_WAIT.1),
    stats("pgbouncer_stats_totals_client_wait_seconds_total", CLIENT_WAIT.0, CLIENT_WAIT.1),
    stats("pgbouncer_stats_sql_transactions_pooled_total", TRANSACTIONS.0, TRANSACTIONS.1),
    stats("pgbouncer_stats_totals_sql_transactions_pooled_total", TRANSACTIONS.0, TRANSACTIONS.1),
    stats("pgbouncer_stats_server_in_transaction_seconds_total", IN_TRANSACTION.0, IN_TRANSACTION.1),
    stats("pgbouncer_stats_totals_server_in_transaction_seconds_total", IN_TRANSACTION.0, IN_TRANSACTION.1),
    stats("pgbouncer_stats_received_bytes_total", RECEIVED.0, RECEIVED.1),
    stats("pgbouncer_stats_totals_received_bytes_total", RECEIVED.0, RECEIVED.1),
    stats("pgbouncer_stats_sent_bytes_total", SENT.0, SENT.1),
    stats("pgbouncer_stats_totals_sent_bytes_total", SENT.0, SENT.1),
    stats("pgbouncer_stats_totals_server_assignments_total", "Servers handed to clients.", |pool, _, samples| samples.count(&pool.pgbouncer.assignments)),
    stats("pgbouncer_stats_totals_client_parses_total", "Parse messages from clients.", |pool, _, samples| samples.count(&pool.client_parses)),
    stats("pgbouncer_stats_totals_server_parses_total", "Parse messages to servers.", |pool, _, samples| samples.count(&pool.server_parses)),
    stats("pgbouncer_stats_totals_binds_total", "Bind messages to servers.", |pool, _, samples| samples.count(&pool.binds)),
];

type ReadPool = fn(&PoolMetrics, &Scrape<'_>, &mut Samples);

const QUERIES: (&str, ReadPool) = ("Queries.", |pool, _, samples| {
    samples.count(&pool.pgbouncer.queries);
});
const DURATION: (&str, ReadPool) = (
    "Time of queries, waiting and writing included.",
    |pool, _, samples| samples.time(&pool.pgbouncer.query_time),
);
const CLIENT_WAIT: (&str, ReadPool) = (
    "Time that clients waited for a server.",
    |pool, _, samples| samples.time(&pool.pgbouncer.wait_time),
);
const TRANSACTIONS: (&str, ReadPool) = ("Transactions.", |pool, _, samples| {
    samples.count(&pool.pgbouncer.transactions);
});
const IN_TRANSACTION: (&str, ReadPool) = (
    "Time of transactions, waiting for a server included.",
    |pool, _, samples| samples.time(&pool.pgbouncer.transaction_time),
);
const RECEIVED: (&str, ReadPool) = ("Bytes received from clients.", |pool, _, samples| {
    samples.count(&pool.client_received_bytes);
});
const SENT: (&str, ReadPool) = ("Bytes received from servers.", |pool, _, samples| {
    samples.count(&pool.server_received_bytes);
});

const fn pool(
    name: &'static str,
    help: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    read: ReadPool,
) -> Family {
    Family {
        name,
        help,
        kind,
        labels,
        source: Source::Pool(read),
    }
}

const fn process(
    name: &'static str,
    help: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    read: fn(&ProcessMetrics, &Scrape<'_>, &mut Samples),
) -> Family {
    Family {
        name,
        help,
        kind,
        labels,
        source: Source::Process(read),
    }
}

const fn stats(name: &'static str, help: &'static str, read: ReadPool) -> Family {
    Family {
        name,
        help,
        kind: Kind::Counter,
        labels: &[],
        source: Source::Database(read),
    }
}

impl Source {
    /// The labels that its samples have first.
    pub fn labels(&self) -> &'static [&'static str] {
        match self {
            Self::Pool(_) => &["database", "user"],
            Self::Database(_) => &["database"],
            Self::Process(_) => &[],
        }
    }
}

/// The reference in `docs/metrics.md`, from the tables.
pub fn reference() -> String {
    let mut text = String::from(
        "# Metrics\n\n\
         `GET /metrics` answers in the Prometheus text format, and in OpenMetrics 1.0 with exemplars where the `Accept` header prefers it.\n\
         All values are in base units. Counters start at zero with the process. `database` and `user` are those of the configuration;\n\
         whoever comes by another name is `other`, unless `http.fold_unknown_names` is off, and then there is the limit `metric_pools`.\n\n\
         ## pgspan's own\n\n",
    );
    write_table(&mut text, FAMILIES);
    text.push_str(
        "\n## For dashboards that know PgBouncer\n\n\
         Named as prometheus-community/pgbouncer_exporter names them; `pgbouncer_stats_*` and `pgbouncer_stats_totals_*` are its older and newer\n\
         name of the same number. As with PgBouncer, a query's duration contains its wait and a slow reader: the true split is\n\
         `pgspan_query_phase_seconds`. Series that the exporter has and that are not here have no number in pgspan.\n\n",
    );
    write_table(&mut text, PGBOUNCER_FAMILIES);
    text
}

fn write_table(text: &mut String, families: &[Family]) {
    text.push_str("| name | type | labels | what it says |\n|---|---|---|---|\n");
    for family in families {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge | Kind::GaugeMax => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels: Vec<String> = (family.source.labels().iter().chain(family.labels))
            .map(|label| format!("`{label}`"))
            .collect();
        let (name, help, labels) = (family.name, family.help, labels.join(" "));
        writeln!(text, "| `{name}` | {kind} | {labels} | {help} |")
            .expect("a String takes everything");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_reference_names_every_series_as_the_code_does() {
        let written = std::fs::read_to_string("docs/metrics.md").unwrap_or_default();
        if written != reference() {
            if std::env::var_os("WRITE_REFERENCE").is_some() {
                std::fs::write("docs/metrics.md", reference()).unwrap();
            } else {
                panic!(
                    "docs/metrics.md differs from the tables: run this test with WRITE_REFERENCE=1"
                );
            }
        }
    }

    #[test]
    fn every_name_is_unique_and_says_its_unit() {
        let mut names = BTreeSet::new();
        for family in FAMILIES.iter().chain(PGBOUNCER_FAMILIES) {
            assert!(names.insert(family.name), "{} twice", family.name);
            assert!(
                (family.name.bytes()).all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{}",
                family.name
            );
            assert_eq!(
                family.name.ends_with("_total"),
                family.kind == Kind::Counter,
                "{}",
                family.name
            );
            if family.kind == Kind::Histogram {
                assert!(family.name.ends_with("_seconds"), "{}", family.name);
            }
        }
    }
}
