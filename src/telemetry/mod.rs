//! What the people in front of the screen see: metrics, slow queries, spans, log lines.
//!
//! Workers call [`WorkerTelemetry::observe`] for each answered query. It counts into histograms, and only a notable query
//! is copied and put into two bounded queues, never waiting for room; tasks behind them write its line and its spans.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::session::query_record::QueryRecord;
use crate::telemetry::exporter::{OtlpError, OtlpSettings, Room, SpanExporter, SpanQueue};
use crate::telemetry::labels::{LineDrop, SpanDrop};
use crate::telemetry::log::Lines;
use crate::telemetry::metrics::{Exemplar, PoolMetrics, ProcessMetrics};
use crate::telemetry::slow_query::{
    NotableQuery, PoolIdentity, RandomIds, Reason, SlowQueryPolicy,
};
use crate::telemetry::slow_query_log::LOG_QUEUE;
use crate::telemetry::statistics::{
    Statistics, StatisticsKeeper, StatisticsSettings, WorkerStatistics,
};

pub mod exporter;
pub mod exposition;
pub mod families;
pub mod instrument;
pub mod labels;
pub mod log;
pub mod log_output;
pub mod login_clock;
pub mod metrics;
pub mod pgbouncer_lines;
pub mod query_text;
pub mod registry;
pub mod slow_query;
pub mod slow_query_log;
pub mod span;
pub mod statistics;
pub mod tables;
pub mod text_lines;

/// The tasks that write lines and export spans. Owned by the application; workers get handles.
#[derive(Debug)]
pub struct Telemetry {
    log: mpsc::Sender<Arc<NotableQuery>>,
    log_task: tokio::task::JoinHandle<()>,
    stop_log: CancellationToken,
    exporter: Option<SpanExporter>,
    statistics: StatisticsKeeper,
    process: Arc<ProcessMetrics>,
}

/// One worker's handle.
#[derive(Clone, Debug)]
pub struct WorkerTelemetry {
    policy: SlowQueryPolicy,
    log: mpsc::Sender<Arc<NotableQuery>>,
    spans: Option<SpanQueue>,
    statistics: WorkerStatistics,
    process: Arc<ProcessMetrics>,
}

/// Why telemetry could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The settings for spans make no exporter.
    #[error("otlp: {0}")]
    Otlp(#[from] OtlpError),
    /// The system has no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

impl Telemetry {
    /// Starts the tasks on the runtime that this is called on. Without `otlp` no span leaves. `now` is the time of both clocks.
    ///
    /// # Errors
    /// The settings for spans make no exporter, or the system has no thread.
    pub fn start(
        otlp: Option<&OtlpSettings>,
        statistics: StatisticsSettings,
        lines: Lines,
        process: Arc<ProcessMetrics>,
        now: (Instant, SystemTime),
    ) -> Result<Self, TelemetryError> {
        let statistics = StatisticsKeeper::start(statistics, Arc::clone(&process), now)?;
        let exporter = otlp
            .map(|settings| SpanExporter::start(settings, Arc::clone(&process)))
            .transpose()?;
        let (log, queries) = mpsc::channel(LOG_QUEUE);
        let stop_log = CancellationToken::new();
        let log_task = tokio::spawn(slow_query_log::run(
            queries,
            stop_log.clone(),
            lines,
            Arc::clone(statistics.statistics()),
            Arc::clone(&process),
        ));
        Ok(Self {
            log,
            log_task,
            stop_log,
            exporter,
            statistics,
            process,
        })
    }

    /// What is remembered of queries, for those who want to know.
    pub fn statistics(&self) -> &Arc<Statistics> {
        self.statistics.statistics()
    }

    /// A handle for a worker.
    pub fn worker(&self, policy: SlowQueryPolicy) -> WorkerTelemetry {
        WorkerTelemetry {
            policy,
            log: self.log.clone(),
            spans: self.exporter.as_ref().map(SpanExporter::queue),
            statistics: self.statistics.worker(),
            process: Arc::clone(&self.process),
        }
    }

    /// Writes the lines and exports the spans that wait, for no longer than `limit`. What workers that go on still have to tell is
    /// left out.
    pub async fn shutdown(self, limit: Duration) {
        self.stop_log.cancel();
        drop(self.log);
        let lines = async {
            // Past the limit the rest is left out; the task ends with the runtime.
            let _ = tokio::time::timeout(limit, self.log_task).await;
        };
        let spans = async {
            if let Some(exporter) = self.exporter {
                exporter.shutdown(limit).await;
            }
        };
        tokio::join!(lines, spans);
    }
}

impl WorkerTelemetry {
    /// From now on other queries are notable.
    pub fn set_policy(&mut self, policy: SlowQueryPolicy) {
        self.policy = policy;
    }

    /// Counts an answered query into its pool's metrics, and puts it into the queues where it is notable. Waits for nothing.
    /// A query that is not notable costs no clock, no lock, no allocation.
    #[inline]
    pub fn observe(
        &self,
        pool: &PoolMetrics,
        identity: &Arc<PoolIdentity>,
        record: &QueryRecord<'_>,
        now: Instant,
    ) {
        pool.observe(record);
        let kept = self
            .policy
            .is_notable(record)
            .and_then(|reason| self.keep(pool, identity, record, reason));
        let own = |query: Arc<NotableQuery>| (query.trace_id, Some(query.span_id));
        let trace = kept.map(own).or_else(|| {
            let parent = record.trace?.parent?;
            Some((parent.trace_id, None))
        });
        self.statistics.observe(pool, record, trace, now);
    }

    #[cold]
    fn keep(
        &self,
        pool: &PoolMetrics,
        identity: &Arc<PoolIdentity>,
        record: &QueryRecord<'_>,
        reason: Reason,
    ) -> Option<Arc<NotableQuery>> {
        self.process.notable_queries.of(reason).increase();
        let is_exported = NotableQuery::is_exported(record);
        let ended = SystemTime::now();
        // Room first: nothing is copied for full queues.
        let line = self.line_room(reason);
        let spans = self.span_room(is_exported, ended);
        let query = (line.is_some() || spans.is_some())
            .then(|| self.copy(identity, record, reason, ended))
            .flatten();

        if let Some(parent) = record.trace.and_then(|trace| trace.parent)
            && is_exported
        {
            let has_span = spans.is_some();
            pool.keep_exemplar(Exemplar {
                trace_id: parent.trace_id,
                span_id: (query.as_ref().filter(|_| has_span)).map(|query| query.span_id),
                duration: record.phases.total(),
                at: ended,
            });
        }
        let query = query?;
        if let Some(room) = spans {
            room.send(Arc::clone(&query));
        }
        if let Some(room) = line {
            room.send(Arc::clone(&query));
        }
        Some(query)
    }

    /// Room for a line, where there is to be one. A full queue is counted.
    fn line_room(&self, reason: Reason) -> Option<mpsc::Permit<'_, Arc<NotableQuery>>> {
        if !reason.is_logged() {
            return None;
        }
        let room = self.log.try_reserve().ok();
        if room.is_none() {
            let dropped = &self.process.slow_query_lines_dropped;
            dropped.of(LineDrop::QueueFull).increase();
        }
        room
    }

    /// Room for spans, where there are to be some. What gets none is counted.
    fn span_room(&self, is_exported: bool, now: SystemTime) -> Option<Room<'_>> {
        let queue = self.spans.as_ref()?;
        if !is_exported {
            let dropped = &self.process.spans_dropped;
            dropped.of(SpanDrop::Unsampled).increase();
            return None;
        }
        queue.reserve(now)
    }

    /// `None` where the system has no random bytes: all ids would be the same.
    fn copy(
        &self,
        identity: &Arc<PoolIdentity>,
        record: &QueryRecord<'_>,
        reason: Reason,
        ended: SystemTime,
    ) -> Option<Arc<NotableQuery>> {
        let mut random = RandomIds::default();
        getrandom::fill(&mut random).ok()?;
        let telling = self.policy.telling;
        let query = NotableQuery::to_owned(record, reason, telling, identity, ended, random);
        Some(Arc::new(query))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::instrument::Number;
    use crate::telemetry::log::tests::Output;
    use crate::telemetry::registry::tests::{now, record, registry};
    use crate::telemetry::slow_query::Telling;
    use crate::telemetry::slow_query::tests::{identity, milliseconds, provided};

    #[tokio::test]
    async fn a_slow_query_becomes_a_line_and_a_fast_one_a_number() {
        let output = Output::default();
        let registry = registry();
        let pool = registry.register_pool(0, "app", "ann");
        let telemetry = start(&registry, output.clone());
        let worker = telemetry.0.worker(SlowQueryPolicy::default());
        worker.observe(&pool, &identity(), &record(milliseconds(1)), now());
        worker.observe(&pool, &identity(), &record(milliseconds(200)), now());
        drop(worker);
        telemetry.stop().await;

        let counts = pool.queries().map(|(_, _, count)| count);
        assert_eq!(counts.sum::<u64>(), 2);
        let notable = &registry.process.notable_queries;
        assert_eq!(notable.of(Reason::Slow).value(), 1);
        let text = output.text();
        assert_eq!(text.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["query"], "SELECT ?");
        assert_eq!(line["duration_ms"], 200.0);
    }

    #[tokio::test]
    async fn a_full_queue_costs_lines_and_is_counted() {
        let registry = registry();
        let pool = registry.register_pool(0, "app", "ann");
        let telemetry = start(&registry, io::sink());
        let worker = telemetry.0.worker(SlowQueryPolicy::default());
        // The task does not run before this one waits.
        for _ in 0..LOG_QUEUE + 3 {
            worker.observe(&pool, &identity(), &record(milliseconds(200)), now());
        }
        let dropped = &registry.process.slow_query_lines_dropped;
        assert_eq!(dropped.of(LineDrop::QueueFull).value(), 3);
    }

    #[tokio::test]
    async fn a_slow_traced_query_is_an_exemplar_even_where_neither_line_nor_span_is_wanted() {
        let output = Output::default();
        let registry = registry();
        let pool = registry.register_pool(0, "app", "ann");
        let telemetry = start(&registry, output.clone());
        let worker = telemetry.0.worker(SlowQueryPolicy {
            telling: Telling {
                is_logged: false,
                ..SlowQueryPolicy::default().telling
            },
            ..SlowQueryPolicy::default()
        });
        let trace = provided(0x10, true);
        let mut slow = record(milliseconds(200));
        worker.observe(&pool, &identity(), &slow, now());
        assert_eq!(pool.exemplars().iter().flatten().count(), 0);
        slow.trace = Some(&trace);
        worker.observe(&pool, &identity(), &slow, now());
        drop(worker);
        telemetry.stop().await;

        let exemplars = pool.exemplars();
        let exemplar = exemplars.iter().flatten().next().unwrap();
        assert_eq!(exemplar.trace_id, trace.parent.unwrap().trace_id);
        assert_eq!(exemplar.span_id, None);
        assert_eq!(output.text(), "");
    }

    struct Started(Telemetry, Lines);

    impl Started {
        async fn stop(self) {
            self.0.shutdown(Duration::from_secs(10)).await;
            assert!(self.1.flush(Duration::from_secs(10)));
        }
    }

    fn start(registry: &registry::Registry, output: impl io::Write + Send + 'static) -> Started {
        let process = &registry.process;
        let lines = Lines::start(output, LOG_QUEUE, Arc::clone(process)).unwrap();
        let telemetry = Telemetry::start(
            None,
            StatisticsSettings::default(),
            lines.clone(),
            Arc::clone(process),
            (now(), SystemTime::now()),
        )
        .unwrap();
        Started(telemetry, lines)
    }
}
