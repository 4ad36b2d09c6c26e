//! The latest queries that have a trace, found by its id.
//!
//! One worker writes, anybody reads: each record has a number that is odd while it is written, so a reader who sees the same
//! even number before and behind has read one record and not parts of two.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::*, fence};
use std::time::Duration;

use crate::protocol::error_response::SqlState;
use crate::session::query_record::{Outcome, Phases, QueryKind, QueryRecord, QueueCause};
use crate::telemetry::instrument::nanoseconds;
use crate::telemetry::statistics::cells::words;
use crate::trace_context::{ContextState, SpanId, TraceId};

/// The latest queries that have a trace.
#[derive(Debug)]
pub(super) struct Ring {
    /// Made when they are first needed.
    segments: Box<[OnceLock<Box<[Record]>>]>,
    size: usize,
    /// Where the next record goes.
    next: AtomicU64,
}

/// A query as the ring has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Kept {
    pub(super) trace_id: TraceId,
    /// The proxy's span, where it made one.
    pub(super) span_id: Option<SpanId>,
    /// The application's span.
    pub(super) parent_span_id: Option<SpanId>,
    pub(super) shape: u64,
    pub(super) pool: u32,
    pub(super) phases: Phases,
    pub(super) outcome: Outcome,
    pub(super) rows: u64,
    pub(super) kind: QueryKind,
    pub(super) context: ContextState,
    pub(super) server_pid: i32,
    /// When it ended, in nanoseconds since the beginning of the statistics.
    pub(super) at: u64,
}

const WORDS: usize = 14;

#[derive(Debug)]
struct Record {
    sequence: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// Records that are made at a time.
const SEGMENT: usize = 1024;

impl Ring {
    /// For so many records.
    pub(super) fn new(size: usize) -> Self {
        Self {
            segments: (0..size.div_ceil(SEGMENT))
                .map(|_| OnceLock::new())
                .collect(),
            size,
            next: AtomicU64::new(0),
        }
    }

    /// Keeps a query, in place of the oldest one. Allocates for the first ones only. For the one writer.
    #[inline]
    pub(super) fn keep(
        &self,
        record: &QueryRecord<'_>,
        shape: u64,
        pool: u32,
        trace: (TraceId, Option<SpanId>),
        at: u64,
    ) {
        let Some(number) = (self.next.load(Relaxed) as usize).checked_rem(self.size) else {
            return;
        };
        self.next.store((number + 1) as u64, Relaxed);
        let Some(segment) = self.segments.get(number / SEGMENT) else {
            return;
        };
        let segment = segment.get_or_init(|| (0..SEGMENT).map(|_| Record::new()).collect());
        if let Some(slot) = segment.get(number % SEGMENT) {
            slot.write(encode(record, shape, pool, trace, at));
        }
    }

    /// The queries of this trace, unordered.
    pub(super) fn find(&self, trace_id: TraceId) -> Vec<Kept> {
        let [high, low] = words(trace_id);
        let mut found = Vec::new();
        for record in self
            .segments
            .iter()
            .filter_map(OnceLock::get)
            .flat_map(|segment| segment.iter())
        {
            let [to_high, to_low, ..] = &record.words;
            if to_low.load(Relaxed) == low && to_high.load(Relaxed) == high {
                found.extend(
                    record
                        .read()
                        .and_then(decode)
                        .filter(|kept| kept.trace_id == trace_id),
                );
            }
        }
        found
    }
}

impl Record {
    fn new() -> Self {
        Self {
            sequence: AtomicU64::new(0),
            words: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    #[inline]
    fn write(&self, words: [u64; WORDS]) {
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence | 1, Relaxed);
        fence(Release);
        for (to, from) in self.words.iter().zip(words) {
            to.store(from, Relaxed);
        }
        self.sequence.store((sequence | 1) + 1, Release);
    }

    /// `None` while it is written.
    fn read(&self) -> Option<[u64; WORDS]> {
        let before = self.sequence.load(Acquire);
        let words =
            std::array::from_fn(|index| self.words.get(index).map_or(0, |word| word.load(Relaxed)));
        fence(Acquire);
        (before.is_multiple_of(2) && self.sequence.load(Relaxed) == before).then_some(words)
    }
}

fn encode(
    record: &QueryRecord<'_>,
    shape: u64,
    pool: u32,
    (trace_id, span_id): (TraceId, Option<SpanId>),
    at: u64,
) -> [u64; WORDS] {
    let [high, low] = words(trace_id);
    let span = |id: Option<SpanId>| id.map_or(0, |id| u64::from_be_bytes(id.to_bytes()));
    let parent = match record.context {
        ContextState::Provided | ContextState::Stale => {
            record.trace.and_then(|trace| Some(trace.parent?.span_id))
        }
        ContextState::Generated | ContextState::Invalid | ContextState::None => None,
    };
    let (outcome, state) = match record.outcome {
        Outcome::Completed => (0, 0),
        Outcome::Failed(state) => (1, word_of(state)),
        Outcome::Lost => (2, 0),
    };
    let kind = (KINDS.iter().position(|kind| *kind == record.kind)).unwrap_or_default() as u64;
    let context = (CONTEXTS.iter().position(|state| *state == record.context)).unwrap_or_default();
    let cause = record
        .phases
        .queue_cause
        .and_then(|cause| Some(1 + CAUSES.iter().position(|known| *known == cause)?));
    let packed = outcome
        | kind << 2
        | (context as u64) << 12
        | (cause.unwrap_or_default() as u64) << 8
        | state << 16;
    [
        high,
        low,
        span(span_id),
        span(parent),
        shape,
        at,
        nanoseconds(record.phases.queue_wait),
        nanoseconds(record.phases.first_byte),
        nanoseconds(record.phases.last_byte),
        nanoseconds(record.phases.client_drain),
        record.rows,
        packed,
        u64::from(pool),
        u64::from(record.server_pid.cast_unsigned()),
    ]
}

fn decode(words: [u64; WORDS]) -> Option<Kept> {
    let [
        high,
        low,
        span,
        parent,
        shape,
        at,
        queue_wait,
        first_byte,
        last_byte,
        client_drain,
        rows,
        packed,
        pool,
        server_pid,
    ] = words;
    let at_bits = |from: u32, count: u32| ((packed >> from) & ((1 << count) - 1)) as usize;
    Some(Kept {
        trace_id: super::cells::trace_id_of([high, low])?,
        span_id: SpanId::from_bytes(span.to_be_bytes()),
        parent_span_id: SpanId::from_bytes(parent.to_be_bytes()),
        shape,
        pool: pool as u32,
        phases: Phases {
            queue_wait: Duration::from_nanos(queue_wait),
            queue_cause: (at_bits(8, 4).checked_sub(1)).and_then(|at| CAUSES.get(at).copied()),
            first_byte: Duration::from_nanos(first_byte),
            last_byte: Duration::from_nanos(last_byte),
            client_drain: Duration::from_nanos(client_drain),
        },
        outcome: match at_bits(0, 2) {
            0 => Outcome::Completed,
            1 => Outcome::Failed(state_of(packed >> 16)?),
            _ => Outcome::Lost,
        },
        rows,
        kind: *KINDS.get(at_bits(2, 4))?,
        context: *CONTEXTS.get(at_bits(12, 4))?,
        server_pid: (server_pid as u32).cast_signed(),
        at,
    })
}

const KINDS: [QueryKind; 3] = [
    QueryKind::Simple,
    QueryKind::Execute,
    QueryKind::FunctionCall,
];

const CONTEXTS: [ContextState; 5] = [
    ContextState::Provided,
    ContextState::Generated,
    ContextState::Invalid,
    ContextState::None,
    ContextState::Stale,
];

const CAUSES: [QueueCause; 4] = [
    QueueCause::PoolFull,
    QueueCause::Connecting,
    QueueCause::Paused,
    QueueCause::LoginFailing,
];

fn word_of(state: SqlState) -> u64 {
    (state.as_str().bytes()).fold(0, |word, byte| word << 8 | u64::from(byte))
}

fn state_of(word: u64) -> Option<SqlState> {
    let [_, _, _, code @ ..] = word.to_be_bytes();
    SqlState::from_bytes(&code)
}
