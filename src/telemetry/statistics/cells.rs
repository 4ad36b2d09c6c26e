//! What one worker counts for one statement.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*, fence};
use std::time::Duration;

use crate::session::query_record::{Outcome, Phases, QueryRecord};
use crate::telemetry::instrument::{Counter, Number, nanoseconds_of};
use crate::telemetry::statistics::spread::{Spread, SpreadSnapshot};
use crate::trace_context::TraceId;

/// The phases by name, in their order.
pub const PHASES: [&str; 4] = [
    "queue_wait",
    "server_first_byte",
    "server_last_byte",
    "client_drain",
];

/// How many of the latest traces are kept of a statement, for each worker that runs it.
pub const RECENT_TRACES: usize = 4;

/// How many sets of tags are told apart for a statement; the calls of others are in the total alone.
pub const TAG_SETS: usize = 8;

/// One query, as far as statistics count it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observation {
    pub(super) phases: Phases,
    pub(super) is_failed: bool,
    pub(super) rows: u64,
    pub(super) trace_id: Option<TraceId>,
    /// When it ended, in nanoseconds since the beginning of the statistics.
    pub(super) at: u64,
}

impl Observation {
    #[inline]
    pub(super) fn of(record: &QueryRecord<'_>, trace_id: Option<TraceId>, at: u64) -> Self {
        Self {
            phases: record.phases,
            is_failed: record.outcome != Outcome::Completed,
            rows: record.rows,
            trace_id,
            at,
        }
    }
}

/// What one worker counts for one statement. One writer.
#[derive(Debug)]
pub(super) struct Cells {
    calls: Counter,
    errors: Counter,
    rows: Counter,
    /// When it was seen last.
    last_at: AtomicU64,
    total: Spread,
    phases: [Spread; 4],
    /// Odd while the examples are written.
    sequence: AtomicU64,
    slowest: Example,
    recent: [Example; RECENT_TRACES],
    next_recent: AtomicU32,
    tag_sets: [TagSet; TAG_SETS],
}

/// A query that stands for its statement.
#[derive(Debug, Default)]
struct Example {
    nanoseconds: AtomicU64,
    trace_id: [AtomicU64; 2],
    at: AtomicU64,
}

#[derive(Debug, Default)]
struct TagSet {
    /// 0: free.
    hash: AtomicU64,
    calls: Counter,
}

/// What was counted for a statement.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// How often it ran.
    pub calls: u64,
    /// How often it failed, or a connection broke.
    pub errors: u64,
    /// Rows returned or affected.
    pub rows: u64,
    /// Its times from the client's message to the last byte written to it.
    pub total: SpreadSnapshot,
    /// Its times by phase, as [`PHASES`] names them.
    pub phases: [SpreadSnapshot; 4],
    /// The slowest of those that have a trace.
    pub slowest: Option<TracedQuery>,
    /// The latest of those that have a trace, newest first.
    pub recent: Vec<TracedQuery>,
    /// Calls by the number of their set of tags.
    pub(super) tag_sets: Vec<(u64, u64)>,
    /// When it was seen last, in nanoseconds since the beginning of the statistics.
    pub(super) last_at: u64,
}

/// A query with a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedQuery {
    /// Its trace.
    pub trace_id: TraceId,
    /// How long it took.
    pub duration: Duration,
    /// When it ended, in nanoseconds since the beginning of the statistics.
    pub(super) at: u64,
}

impl Cells {
    pub(super) fn new() -> Self {
        Self {
            calls: Counter::default(),
            errors: Counter::default(),
            rows: Counter::default(),
            last_at: AtomicU64::new(0),
            total: Spread::new(),
            phases: std::array::from_fn(|_| Spread::new()),
            sequence: AtomicU64::new(0),
            slowest: Example::default(),
            recent: Default::default(),
            next_recent: AtomicU32::new(0),
            tag_sets: Default::default(),
        }
    }

    #[inline]
    pub(super) fn observe(&self, query: &Observation) {
        let times = nanoseconds_of(&query.phases);
        let total = times.iter().sum();
        self.calls.increase();
        self.rows.add(query.rows);
        self.last_at.store(query.at, Relaxed);
        self.total.observe(total);
        for (spread, time) in self.phases.iter().zip(times) {
            spread.observe(time);
        }
        if query.is_failed {
            self.errors.increase();
        }
        if let Some(trace_id) = query.trace_id {
            self.keep_example(trace_id, total, query.at);
        }
    }

    #[inline]
    fn keep_example(&self, trace_id: TraceId, total: u64, at: u64) {
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence | 1, Relaxed);
        fence(Release);
        let next = self.next_recent.load(Relaxed) as usize % RECENT_TRACES;
        self.next_recent.store((next + 1) as u32, Relaxed);
        if let Some(recent) = self.recent.get(next) {
            recent.set(trace_id, total, at);
        }
        if total >= self.slowest.nanoseconds.load(Relaxed) {
            self.slowest.set(trace_id, total, at);
        }
        self.sequence.store((sequence | 1) + 1, Release);
    }

    /// Counts a query with these tags. False where the set is not known yet and there is room for it: the caller tells what it is.
    #[inline]
    pub(super) fn count_tags(&self, hash: u64) -> bool {
        for set in &self.tag_sets {
            match set.hash.load(Relaxed) {
                0 => return false,
                known if known == hash => {
                    set.calls.increase();
                    return true;
                }
                _ => {}
            }
        }
        true
    }

    /// From now on these tags are known, and counted once.
    pub(super) fn learn_tags(&self, hash: u64) {
        let free = (self.tag_sets.iter()).find(|set| set.hash.load(Relaxed) == 0);
        if let Some(set) = free {
            set.calls.increase();
            set.hash.store(hash, Relaxed);
        }
    }

    /// Back to nothing. Nobody else may write meanwhile.
    pub(super) fn clear(&self) {
        self.calls.reset();
        self.errors.reset();
        self.rows.reset();
        self.last_at.store(0, Relaxed);
        self.total.clear();
        self.phases.iter().for_each(Spread::clear);
        self.slowest.clear();
        self.recent.iter().for_each(Example::clear);
        self.next_recent.store(0, Relaxed);
        for set in &self.tag_sets {
            set.hash.store(0, Relaxed);
            set.calls.reset();
        }
    }
}

impl Example {
    #[inline]
    fn set(&self, trace_id: TraceId, total: u64, at: u64) {
        let [high, low] = words(trace_id);
        let [to_high, to_low] = &self.trace_id;
        self.nanoseconds.store(total, Relaxed);
        to_high.store(high, Relaxed);
        to_low.store(low, Relaxed);
        self.at.store(at, Relaxed);
    }

    fn read(&self) -> Option<TracedQuery> {
        let [high, low] = &self.trace_id;
        Some(TracedQuery {
            trace_id: trace_id_of([high.load(Relaxed), low.load(Relaxed)])?,
            duration: Duration::from_nanos(self.nanoseconds.load(Relaxed)),
            at: self.at.load(Relaxed),
        })
    }

    fn clear(&self) {
        self.nanoseconds.store(0, Relaxed);
        self.trace_id.iter().for_each(|word| word.store(0, Relaxed));
        self.at.store(0, Relaxed);
    }
}

impl Figures {
    /// Counts a query that no worker had cells for.
    pub(super) fn observe(&mut self, query: &Observation) {
        let phases = &query.phases;
        let total = phases.total();
        self.calls += 1;
        self.errors += u64::from(query.is_failed);
        self.rows += query.rows;
        self.last_at = self.last_at.max(query.at);
        self.total.observe(total);
        let times = [
            phases.queue_wait,
            phases.first_byte,
            phases.last_byte,
            phases.client_drain,
        ];
        for (spread, time) in self.phases.iter_mut().zip(times) {
            spread.observe(time);
        }
        if let Some(trace_id) = query.trace_id {
            self.keep_example(TracedQuery {
                trace_id,
                duration: total,
                at: query.at,
            });
        }
    }

    /// Counts a query with these tags.
    pub(super) fn count_tags(&mut self, hash: u64, calls: u64) {
        if let Some((_, known)) = self.tag_sets.iter_mut().find(|(known, _)| *known == hash) {
            *known += calls;
        } else if self.tag_sets.len() < TAG_SETS {
            self.tag_sets.push((hash, calls));
        }
    }

    /// Takes in what a worker has counted.
    pub(super) fn add(&mut self, cells: &Cells) {
        self.calls += cells.calls.value();
        self.errors += cells.errors.value();
        self.rows += cells.rows.value();
        self.last_at = self.last_at.max(cells.last_at.load(Relaxed));
        self.total.add(&cells.total);
        for (mine, theirs) in self.phases.iter_mut().zip(&cells.phases) {
            mine.add(theirs);
        }
        for example in cells.examples() {
            self.keep_example(example);
        }
        for set in &cells.tag_sets {
            match set.hash.load(Relaxed) {
                0 => {}
                hash => self.count_tags(hash, set.calls.value()),
            }
        }
    }

    fn keep_example(&mut self, query: TracedQuery) {
        if (self.slowest).is_none_or(|slowest| query.duration >= slowest.duration) {
            self.slowest = Some(query);
        }
        if !self.recent.contains(&query) {
            let at = (self.recent).partition_point(|known| known.at >= query.at);
            self.recent.insert(at, query);
            self.recent.truncate(RECENT_TRACES);
        }
    }
}

impl Cells {
    /// The recent ones and the slowest, as they were at one time.
    fn examples(&self) -> impl Iterator<Item = TracedQuery> {
        const ATTEMPTS: usize = 100;
        for _ in 0..ATTEMPTS {
            let before = self.sequence.load(Acquire);
            let slowest = self.slowest.read();
            let recent: [_; RECENT_TRACES] =
                std::array::from_fn(|index| self.recent.get(index).and_then(Example::read));
            fence(Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Relaxed) == before {
                return (recent.into_iter().flatten())
                    .chain(slowest)
                    .collect::<Vec<_>>()
                    .into_iter();
            }
        }
        Vec::new().into_iter()
    }
}

/// A trace id as two words.
#[inline]
pub(super) fn words(trace_id: TraceId) -> [u64; 2] {
    let id = u128::from_be_bytes(trace_id.to_bytes());
    [(id >> 64) as u64, id as u64]
}

/// A trace id from two words; `None` for zeros.
pub(super) fn trace_id_of([high, low]: [u64; 2]) -> Option<TraceId> {
    TraceId::from_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
}
