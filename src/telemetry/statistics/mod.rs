//! What pgspan remembers of queries: figures by statement, the latest queries of each trace, the latest slow ones.
//!
//! A worker looks a text up by its shape (`Shapes`), which costs one walk over it, and counts into cells of its own: no lock, no
//! allocation. Only a shape that it does not know goes, copied, through a bounded queue to a thread that works out the
//! fingerprint, enters the statement into the `Book`, and tells the worker's table which cells are its own. Readers add up.

mod book;
mod cells;
mod counts;
mod ring;
mod shape;
mod spread;

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::session::query_record::{Outcome, Phases, QueryKind, QueryRecord};
use crate::sql::fingerprint::Fingerprint;
use crate::telemetry::instrument::nanoseconds;
use crate::telemetry::labels::Uncounted;
use crate::telemetry::metrics::{PoolMetrics, ProcessMetrics};
use crate::telemetry::query_text::QueryText;
use crate::telemetry::registry::PoolName;
use crate::telemetry::slow_query::NotableQuery;
use crate::telemetry::statistics::book::{Book, Sighting};
use crate::telemetry::statistics::cells::Observation;
use crate::telemetry::statistics::counts::Counts;
use crate::telemetry::statistics::shape::Shapes;
use crate::trace_context::{ContextState, SpanId, TraceContext, TraceId};

pub use self::cells::{Figures, PHASES, RECENT_TRACES, TAG_SETS, TracedQuery};
pub use self::spread::{SPREAD_BUCKETS, SpreadSnapshot};

/// How much is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatisticsSettings {
    /// The most statements with figures; 0: none have.
    pub statements: usize,
    /// The most queries that are found by their trace, of all workers together; 0: none are.
    pub traced_queries: usize,
    /// The most slow queries.
    pub slow_queries: usize,
    /// How many workers share the room for traced queries.
    pub workers: usize,
    /// Whether literals are left out of texts.
    pub masked: bool,
}

impl Default for StatisticsSettings {
    fn default() -> Self {
        Self {
            statements: 1_000,
            traced_queries: 100_000,
            slow_queries: 200,
            workers: 1,
            masked: true,
        }
    }
}

/// New texts that may wait for being read.
pub const SIGHTING_QUEUE: usize = 1_024;

/// What is remembered. Shared; no lock of it is ever taken by a worker.
#[derive(Debug)]
pub struct Statistics {
    settings: StatisticsSettings,
    shapes: Shapes,
    /// Times are measured from here, which was then.
    epoch: Instant,
    epoch_at: SystemTime,
    book: Mutex<Book>,
    slow: Mutex<VecDeque<SlowQuery>>,
}

/// One worker's way to its counts.
#[derive(Clone, Debug)]
pub struct WorkerStatistics {
    statistics: Arc<Statistics>,
    counts: Arc<Counts>,
    worker: usize,
    sightings: SyncSender<Sighting>,
    process: Arc<ProcessMetrics>,
}

/// Starts statistics; makes the workers' ways to them.
#[derive(Debug)]
pub struct StatisticsKeeper {
    statistics: Arc<Statistics>,
    sightings: SyncSender<Sighting>,
    process: Arc<ProcessMetrics>,
}

/// A slow query, or one that is notable for another reason.
#[derive(Clone, Debug)]
pub struct SlowQuery {
    /// What is kept of it.
    pub query: Arc<NotableQuery>,
    /// What may be told of its text.
    pub text: QueryText,
}

/// A statement and what was counted for it.
#[derive(Clone, Debug)]
pub struct StatementFigures {
    /// The database and the user.
    pub pool: PoolName,
    /// The same for all queries that differ in constants only; `None` where that can't be told.
    pub fingerprint: Option<Fingerprint>,
    /// The text of the first one, without literals unless they are wanted.
    pub text: Option<String>,
    /// In a few words.
    pub summary: Option<String>,
    /// What was counted.
    pub figures: Figures,
    /// When it was seen last.
    pub last_seen: SystemTime,
    /// Calls by tag: key, value, calls.
    pub tags: Vec<(Box<str>, Box<str>, u64)>,
}

/// A query found by its trace.
#[derive(Clone, Debug)]
pub struct FoundQuery {
    /// Its trace.
    pub trace_id: TraceId,
    /// The proxy's span, where it made one.
    pub span_id: Option<SpanId>,
    /// The application's span.
    pub parent_span_id: Option<SpanId>,
    /// The database and the user.
    pub pool: Option<PoolName>,
    /// Of its statement, as far as that is still known.
    pub fingerprint: Option<Fingerprint>,
    /// Of its statement: no literals unless they are wanted, and then those of the first one.
    pub text: Option<String>,
    /// In a few words.
    pub summary: Option<String>,
    /// How it came.
    pub kind: QueryKind,
    /// Where its time went.
    pub phases: Phases,
    /// How it ended.
    pub outcome: Outcome,
    /// Rows returned or affected.
    pub rows: u64,
    /// How its context came about.
    pub context: ContextState,
    /// The server process that ran it, 0 where none did.
    pub server_pid: i32,
    /// When it ended.
    pub ended: SystemTime,
}

impl StatisticsKeeper {
    /// Starts the thread that reads texts; it ends with the last way to it. `now` is the time of both clocks.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(
        settings: StatisticsSettings,
        process: Arc<ProcessMetrics>,
        (epoch, epoch_at): (Instant, SystemTime),
    ) -> io::Result<Self> {
        let statistics = Arc::new(Statistics {
            settings,
            shapes: Shapes::default(),
            epoch,
            epoch_at,
            book: Mutex::new(Book::new(settings.statements, Arc::clone(&process))),
            slow: Mutex::default(),
        });
        let (sightings, received) = sync_channel(SIGHTING_QUEUE);
        let for_thread = Arc::clone(&statistics);
        std::thread::Builder::new()
            .name("statistics".to_owned())
            .spawn(move || for_thread.read_texts(&received))?;
        Ok(Self {
            statistics,
            sightings,
            process,
        })
    }

    /// For those who want to know.
    pub fn statistics(&self) -> &Arc<Statistics> {
        &self.statistics
    }

    /// For another worker.
    pub fn worker(&self) -> WorkerStatistics {
        let settings = self.statistics.settings;
        let counts = Arc::new(Counts::new(
            Book::slots(settings.statements),
            settings.traced_queries.div_ceil(settings.workers.max(1)),
        ));
        let worker = self.statistics.book().add_worker(Arc::clone(&counts));
        WorkerStatistics {
            statistics: Arc::clone(&self.statistics),
            counts,
            worker,
            sightings: self.sightings.clone(),
            process: Arc::clone(&self.process),
        }
    }
}

impl WorkerStatistics {
    /// Counts an answered query. `trace` is the one that it is found by, and the proxy's span of it, where there are such. Waits
    /// for nothing, and allocates only for a text that is new.
    #[inline]
    pub fn observe(
        &self,
        pool: &PoolMetrics,
        record: &QueryRecord<'_>,
        trace: Option<(TraceId, Option<SpanId>)>,
        now: Instant,
    ) {
        let statistics = &*self.statistics;
        let shape = statistics.shapes.of(pool.number, record.sql);
        let at = nanoseconds(now.saturating_duration_since(statistics.epoch));
        if let Some(trace) = trace {
            (self.counts.ring).keep(record, shape, pool.number, trace, at);
        }
        if statistics.settings.statements == 0 {
            return;
        }
        let observation = Observation::of(record, trace.map(|(id, _)| id), at);
        let tags = (record.trace)
            .filter(|trace| !trace.tags.is_empty())
            .map(|trace| (statistics.shapes.of_tags(&trace.tags), trace));
        let Some(cells) = self.counts.find(shape) else {
            return self.ask(pool, shape, record.sql, observation, tags);
        };
        cells.observe(&observation);
        if let Some((hash, trace)) = tags
            && !cells.count_tags(hash)
        {
            let trace = Arc::clone(trace);
            let sighting = Sighting::Tags { shape, hash, trace };
            // If the queue is full, the next query with these tags asks again.
            if self.sightings.try_send(sighting).is_ok() {
                cells.learn_tags(hash);
            }
        }
    }

    /// Asks about a text. What is observed here is counted there.
    #[cold]
    fn ask(
        &self,
        pool: &PoolMetrics,
        shape: u64,
        text: &[u8],
        observation: Observation,
        tags: Option<(u64, &Arc<TraceContext>)>,
    ) {
        let uncounted = &self.process.uncounted_queries;
        if !self.counts.may_ask(observation.at / 1_000_000_000) {
            return uncounted.of(Uncounted::RateLimited).increase();
        }
        let worker = self.worker;
        let tags = tags.map(|(hash, trace)| (hash, Arc::clone(trace)));
        let sighting = match self.counts.was_asked(shape) {
            true => Sighting::Again {
                worker,
                shape,
                observation,
                tags,
            },
            false => Sighting::Text {
                worker,
                pool: pool.number,
                name: pool.name.clone(),
                shape,
                text: text.into(),
                observation,
                tags,
            },
        };
        if self.sightings.try_send(sighting).is_err() {
            self.counts.ask_again(shape);
            uncounted.of(Uncounted::QueueFull).increase();
        }
    }
}

impl Statistics {
    /// All statements, those with the most time first. Costs milliseconds: not for workers.
    pub fn statements(&self) -> Vec<StatementFigures> {
        let book = self.book();
        let mut statements: Vec<StatementFigures> = (book.figures())
            .map(|(statement, figures)| StatementFigures {
                pool: statement.key.0.clone(),
                fingerprint: statement.key.1,
                text: statement.text.clone(),
                summary: statement.summary.clone(),
                last_seen: self.time(figures.last_at),
                tags: statement.tag_calls(&figures),
                figures,
            })
            .collect();
        drop(book);
        statements.sort_by_key(|statement| std::cmp::Reverse(statement.figures.total.sum()));
        statements
    }

    /// The queries of a trace, as far as they are still known, in the order in which they began. Costs milliseconds: not for workers.
    pub fn trace(&self, id: TraceId) -> Vec<FoundQuery> {
        let counts = self.book().counts();
        let kept: Vec<_> = (counts.iter())
            .flat_map(|counts| counts.ring.find(id))
            .collect();
        let book = self.book();
        let mut found: Vec<FoundQuery> = (kept.into_iter())
            .map(|kept| {
                let statement = book.statement_of(kept.shape);
                FoundQuery {
                    trace_id: kept.trace_id,
                    span_id: kept.span_id,
                    parent_span_id: kept.parent_span_id,
                    pool: (statement.map(|statement| &statement.key.0))
                        .or_else(|| book.pool(kept.pool))
                        .cloned(),
                    fingerprint: statement.and_then(|statement| statement.key.1),
                    text: statement.and_then(|statement| statement.text.clone()),
                    summary: statement.and_then(|statement| statement.summary.clone()),
                    kind: kept.kind,
                    phases: kept.phases,
                    outcome: kept.outcome,
                    rows: kept.rows,
                    context: kept.context,
                    server_pid: kept.server_pid,
                    ended: self.time(kept.at),
                }
            })
            .collect();
        drop(book);
        found.sort_by_key(|query| query.ended.checked_sub(query.phases.total()));
        found
    }

    /// The latest slow queries, the newest first.
    pub fn slow(&self) -> Vec<SlowQuery> {
        let slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        slow.iter().cloned().collect()
    }

    /// Keeps a slow query, in place of the oldest. For the task that writes their lines.
    pub(crate) fn keep_slow(&self, query: SlowQuery) {
        let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        slow.push_front(query);
        slow.truncate(self.settings.slow_queries);
    }

    fn read_texts(&self, sightings: &Receiver<Sighting>) {
        while let Ok(sighting) = sightings.recv() {
            let text = book::read(&sighting, self.settings.masked);
            self.book().enter(sighting, text, now());
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn time(&self, nanoseconds: u64) -> SystemTime {
        let since = Duration::from_nanos(nanoseconds);
        self.epoch_at.checked_add(since).unwrap_or(self.epoch_at)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge: cells rest by the clock, and no query waits for it"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;
