//! The slow-query log: one JSON object per notable query, written away from the workers and not too many of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::session::query_record::Outcome;
use crate::telemetry::labels::{LineDrop, OutcomeKind, label_of};
use crate::telemetry::log::{Lines, rfc3339};
use crate::telemetry::metrics::ProcessMetrics;
use crate::telemetry::query_text::{QueryText, cut};
use crate::telemetry::slow_query::{MAX_KEPT_TEXT, NotableQuery, kind_name};
use crate::telemetry::statistics::{SlowQuery, Statistics};

/// How many notable queries may wait for their line.
pub const LOG_QUEUE: usize = 1_000;

/// How many lines are written in one second; of the others their number is.
pub const LINES_PER_SECOND: u32 = 100;

const WINDOW: Duration = Duration::from_secs(1);

/// Writes a line for each query that comes, until all senders are gone, or `stop` is called for and those that have come are written.
pub(crate) async fn run(
    mut queries: mpsc::Receiver<Arc<NotableQuery>>,
    stop: CancellationToken,
    lines: Lines,
    statistics: Arc<Statistics>,
    process: Arc<ProcessMetrics>,
) {
    let mut budget = Budget::new(Instant::now());
    loop {
        let query = tokio::select! {
            biased;
            () = stop.cancelled(), if !queries.is_closed() => {
                queries.close();
                continue;
            }
            query = queries.recv() => query,
            () = tokio::time::sleep_until(budget.window_end), if budget.left_out > 0 => {
                write_left_out(&lines, budget.begin(Instant::now()));
                continue;
            }
        };
        let Some(query) = query else {
            write_left_out(&lines, budget.left_out);
            return;
        };
        let now = Instant::now();
        if now >= budget.window_end {
            write_left_out(&lines, budget.begin(now));
        }
        if budget.admits() {
            let text = QueryText::of(&query.sql, query.telling.masked, MAX_KEPT_TEXT);
            if query.telling.is_logged {
                lines.write(line(&query, &text));
            }
            statistics.keep_slow(SlowQuery { query, text });
        } else {
            let dropped = &process.slow_query_lines_dropped;
            dropped.of(LineDrop::RateLimited).increase();
        }
    }
}

/// How many lines may still be written in this second.
#[derive(Debug, PartialEq)]
struct Budget {
    window_end: Instant,
    written: u32,
    left_out: u64,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            window_end: now + WINDOW,
            written: 0,
            left_out: 0,
        }
    }

    /// Begins another window; how many lines the last one left out.
    fn begin(&mut self, now: Instant) -> u64 {
        std::mem::replace(self, Self::new(now)).left_out
    }

    fn admits(&mut self) -> bool {
        let admits = self.written < LINES_PER_SECOND;
        if admits {
            self.written += 1;
        } else {
            self.left_out += 1;
        }
        admits
    }
}

fn write_left_out(lines: &Lines, count: u64) {
    if count > 0 {
        lines.write(json_line(&LeftOutLine {
            event: "slow_query_left_out",
            timestamp: rfc3339(SystemTime::now()),
            count,
        }));
    }
}

/// The line of one query, its newline included.
fn line(query: &NotableQuery, text: &QueryText) -> Vec<u8> {
    let shown = (text.text.as_deref()).map(|text| cut(text, query.telling.line_limit));
    let phases = &query.phases;
    let trace = query.trace.as_deref();
    let sqlstate = match &query.outcome {
        Outcome::Failed(sqlstate) => Some(sqlstate.as_str()),
        Outcome::Completed | Outcome::Lost => None,
    };
    json_line(&SlowQueryLine {
        event: "slow_query",
        timestamp: rfc3339(query.ended),
        reason: query.reason.as_str(),
        trace_id: query.trace_id.to_string(),
        span_id: query.span_id.to_string(),
        parent_span_id: query.parent_span_id().map(|id| id.to_string()),
        context: label_of(query.context),
        correlation_id: trace.and_then(|trace| trace.correlation_id.as_deref()),
        database: &query.identity.database,
        user: &query.identity.user,
        duration_ms: milliseconds(phases.total()),
        queue_wait_ms: milliseconds(phases.queue_wait),
        queue_cause: phases.queue_cause.map(label_of),
        server_first_byte_ms: milliseconds(phases.first_byte),
        server_last_byte_ms: milliseconds(phases.last_byte),
        client_drain_ms: milliseconds(phases.client_drain),
        fingerprint: text.fingerprint.map(|fingerprint| fingerprint.to_string()),
        query: shown.as_deref(),
        kind: kind_name(query.kind),
        outcome: OutcomeKind::from(query.outcome).as_str(),
        sqlstate,
        rows: query.rows,
        server_pid: query.server_pid,
        tags: (trace.iter())
            .flat_map(|trace| &trace.tags)
            .map(|(key, value)| (key.as_ref(), value.as_ref()))
            .collect(),
    })
}

fn json_line(object: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(object).expect("strings and numbers are JSON");
    line.push(b'\n');
    line
}

/// To the microsecond.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

/// The names are a promise to whoever reads the log; what is not known is null.
#[derive(Serialize)]
struct SlowQueryLine<'a> {
    event: &'static str,
    timestamp: String,
    reason: &'static str,
    trace_id: String,
    span_id: String,
    parent_span_id: Option<String>,
    context: &'static str,
    correlation_id: Option<&'a str>,
    database: &'a str,
    user: &'a str,
    duration_ms: f64,
    queue_wait_ms: f64,
    queue_cause: Option<&'static str>,
    server_first_byte_ms: f64,
    server_last_byte_ms: f64,
    client_drain_ms: f64,
    fingerprint: Option<String>,
    query: Option<&'a str>,
    kind: &'static str,
    outcome: &'static str,
    sqlstate: Option<&'a str>,
    rows: u64,
    server_pid: i32,
    tags: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct LeftOutLine {
    event: &'static str,
    timestamp: String,
    count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::error_response::SqlState;
    use crate::session::query_record::QueueCause;
    use crate::telemetry::instrument::Number;
    use crate::telemetry::log::tests::Output;
    use crate::telemetry::registry::{self, tests::record};
    use crate::telemetry::slow_query::tests::{notable, provided};
    use crate::telemetry::statistics::{StatisticsKeeper, StatisticsSettings};

    #[test]
    fn a_slow_query_is_one_line_with_these_names() {
        let trace = provided(0x10, true);
        let mut slow = record(Duration::from_micros(180_500));
        slow.trace = Some(&trace);
        slow.phases.queue_wait = Duration::from_millis(20);
        slow.phases.queue_cause = Some(QueueCause::PoolFull);
        let mut kept = notable(&slow);
        kept.telling.masked = false;
        kept.telling.line_limit = 6;
        let line = String::from_utf8(line_of(&kept)).unwrap();
        assert_eq!(
            line,
            concat!(
                r#"{"event":"slow_query","timestamp":"1970-01-01T00:01:40.000Z","reason":"slow","#,
                r#""trace_id":"aaaaaaaaaaaaaaaa10aaaaaaaaaaaaaa","span_id":"0909090909090909","#,
                r#""parent_span_id":"bbbbbbbbbbbbbbbb","context":"provided","correlation_id":"order-7","#,
                r#""database":"app","user":"ann","duration_ms":200.5,"queue_wait_ms":20.0,"#,
                r#""queue_cause":"pool_full","server_first_byte_ms":180.5,"server_last_byte_ms":0.0,"#,
                r#""client_drain_ms":0.0,"fingerprint":"6beb5f1ac7f479e8","query":"SELEC…","kind":"simple","#,
                r#""outcome":"completed","sqlstate":null,"rows":1,"server_pid":42,"#,
                r#""tags":{"application":"pay","route":"/checkout"}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_failed_query_tells_its_sqlstate() {
        let mut failed = record(Duration::from_millis(1));
        failed.outcome = Outcome::Failed(SqlState::SYNTAX_ERROR);
        let line: serde_json::Value = serde_json::from_slice(&line_of(&notable(&failed))).unwrap();
        assert_eq!(line["reason"], "failed");
        assert_eq!(line["outcome"], "failed");
        assert_eq!(line["sqlstate"], "42601");
    }

    #[tokio::test]
    async fn more_lines_than_a_second_may_have_are_counted_and_their_number_is_logged() {
        let output = Output::default();
        let process = Arc::<ProcessMetrics>::default();
        let lines = Lines::start(output.clone(), 1_000, Arc::clone(&process)).unwrap();
        let (sender, receiver) = mpsc::channel(LOG_QUEUE);
        let query = Arc::new(notable(&record(Duration::from_millis(200))));
        for _ in 0..LINES_PER_SECOND + 20 {
            sender.try_send(Arc::clone(&query)).unwrap();
        }
        // The sender lives on, as that of a worker which is not waited for.
        let stop = CancellationToken::new();
        stop.cancel();
        let now = (registry::tests::now(), SystemTime::now());
        let settings = StatisticsSettings {
            slow_queries: 7,
            ..StatisticsSettings::default()
        };
        let keeper = StatisticsKeeper::start(settings, Arc::clone(&process), now).unwrap();
        let statistics = keeper.statistics();
        run(
            receiver,
            stop,
            lines.clone(),
            Arc::clone(statistics),
            Arc::clone(&process),
        )
        .await;
        assert_eq!(statistics.slow().len(), 7);
        assert!(lines.flush(Duration::from_secs(10)));

        let text = output.text();
        let dropped = (process.slow_query_lines_dropped).of(LineDrop::RateLimited);
        assert_eq!(dropped.value(), 20);
        assert_eq!(text.lines().count(), 101);
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["event"], "slow_query_left_out");
        assert_eq!(last["count"], 20);
    }

    fn line_of(query: &NotableQuery) -> Vec<u8> {
        let text = QueryText::of(&query.sql, query.telling.masked, MAX_KEPT_TEXT);
        line(query, &text)
    }

    #[test]
    fn a_window_admits_again_what_the_last_left_out() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        let admitted = (0..LINES_PER_SECOND + 3).filter(|_| budget.admits());
        assert_eq!(admitted.count() as u32, LINES_PER_SECOND);
        assert_eq!(budget.begin(now + WINDOW), 3);
        assert!(budget.admits());
    }
}
