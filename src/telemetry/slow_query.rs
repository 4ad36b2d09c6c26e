//! Which queries are worth a line and a span, and what is kept of one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::config;
use crate::protocol::error_response::SqlState;
use crate::session::query_record::{Outcome, Phases, QueryKind, QueryRecord, TEXT_LIMIT, Warning};
use crate::telemetry::instrument::label;
use crate::trace_context::{ContextState, SpanId, TraceContext, TraceId};

/// When a query is notable, and how much of it may be told.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowQueryPolicy {
    /// A query that takes this long is slow. `Duration::MAX`: none is.
    pub threshold: Duration,
    /// A query that waits this long for a server has waited long. `Duration::MAX`: none has.
    pub wait_threshold: Duration,
    /// The share of the traces whose other queries get spans too, 0 to 1. All queries of one trace are in or out,
    /// as OpenTelemetry's TraceIdRatioBased sampler decides; a query without a trace is out.
    pub ratio: f64,
    /// How much of a query may be told, and where.
    pub telling: Telling,
}

/// How much of a query may be told, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Telling {
    /// Whether it gets a line in the log.
    pub is_logged: bool,
    /// Whether literals are left out of lines and spans.
    pub masked: bool,
    /// How many characters of a query a line has; a span has all that is kept.
    pub line_limit: usize,
}

impl From<&config::SlowQuery> for SlowQueryPolicy {
    fn from(config: &config::SlowQuery) -> Self {
        Self {
            threshold: config.threshold,
            wait_threshold: config.wait_threshold,
            ratio: config.ratio.as_f64(),
            telling: Telling {
                is_logged: config.log,
                masked: config.masked,
                line_limit: config.text_limit,
            },
        }
    }
}

impl Default for SlowQueryPolicy {
    fn default() -> Self {
        Self {
            threshold: Duration::from_millis(100),
            wait_threshold: Duration::from_millis(100),
            ratio: 0.0,
            telling: Telling {
                is_logged: true,
                masked: true,
                line_limit: 100,
            },
        }
    }
}

label! {
    /// Why a query is notable. Where there are several reasons, the first of these that holds.
    Reason {
        /// It was cancelled, or ran into statement_timeout: SQLSTATE 57014.
        Cancelled = "cancelled",
        /// It failed, or a connection broke.
        Failed = "failed",
        /// It took long, its wait not counted; or its wait and its work together did, and neither alone.
        Slow = "slow",
        /// It waited long for a server.
        LongWait = "long_wait",
        /// One of the share that is always taken.
        Sampled = "sampled",
    }
}

impl Reason {
    /// Whether it belongs into the slow-query log. A sampled query only gets a span.
    pub fn is_logged(self) -> bool {
        self != Self::Sampled
    }
}

impl SlowQueryPolicy {
    /// Why `record` is notable, or `None` where it is not.
    #[inline]
    pub fn is_notable(&self, record: &QueryRecord<'_>) -> Option<Reason> {
        match record.outcome {
            Outcome::Failed(SqlState::QUERY_CANCELED) => return Some(Reason::Cancelled),
            Outcome::Failed(_) | Outcome::Lost => return Some(Reason::Failed),
            Outcome::Completed => {}
        }
        let total = record.phases.total();
        let queue_wait = record.phases.queue_wait;
        if total.saturating_sub(queue_wait) >= self.threshold {
            Some(Reason::Slow)
        } else if queue_wait >= self.wait_threshold {
            Some(Reason::LongWait)
        } else if total >= self.threshold {
            Some(Reason::Slow)
        } else if self.ratio > 0.0 && is_sampled(record, self.ratio) {
            Some(Reason::Sampled)
        } else {
            None
        }
    }
}

/// Source: OpenTelemetry specification, TraceIdRatioBased: the lower 8 bytes of the trace id, their highest bit left out.
fn is_sampled(record: &QueryRecord<'_>, ratio: f64) -> bool {
    let Some(parent) = record.trace.and_then(|trace| trace.parent) else {
        return false;
    };
    let lower = u128::from_be_bytes(parent.trace_id.to_bytes()) as u64 >> 1;
    (lower as f64) < ratio * (1_u64 << 63) as f64
}

/// Whose pool it is and which server stands behind it. Shared by all queries of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolIdentity {
    /// The database as the client named it.
    pub database: Arc<str>,
    /// The user that the client logged in as.
    pub user: Arc<str>,
    /// The PostgreSQL behind the pool.
    pub server: ServerAddress,
}

/// Where a PostgreSQL server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// As configured: a host name, an address, or the folder of a unix socket.
    pub host: Arc<str>,
    /// The port.
    pub port: u16,
    /// What the connection leads to; `None` for a unix socket or where it is not known.
    pub peer: Option<SocketAddr>,
}

/// What is kept of a notable query once the worker has gone on. Holds literals: mask the text before it leaves the process.
#[derive(Clone, Debug)]
pub struct NotableQuery {
    /// Why it is notable.
    pub reason: Reason,
    /// Whose it is.
    pub identity: Arc<PoolIdentity>,
    /// The client's text, not longer than [`MAX_KEPT_TEXT`].
    pub sql: Box<[u8]>,
    /// How it came.
    pub kind: QueryKind,
    /// Where its time went.
    pub phases: Phases,
    /// How it ended.
    pub outcome: Outcome,
    /// Rows returned or affected.
    pub rows: u64,
    /// What the client said about itself.
    pub trace: Option<Arc<TraceContext>>,
    /// How its context came about.
    pub context: ContextState,
    /// The server process that ran it, 0 where none did.
    pub server_pid: i32,
    /// The trace it belongs to: the application's, or one that begins here.
    pub trace_id: TraceId,
    /// The proxy's span of it.
    pub span_id: SpanId,
    /// When its last byte was written.
    pub ended: SystemTime,
    /// What the server warned of meanwhile.
    pub warnings: Box<[Warning]>,
    /// How much of its text may be told.
    pub telling: Telling,
}

/// How many bytes of a query's text are kept for its line and its span.
pub const MAX_KEPT_TEXT: usize = TEXT_LIMIT;

/// 24 random bytes, for the ids of a span and of a trace that begins with it.
pub type RandomIds = [u8; 24];

impl NotableQuery {
    /// Copies what is needed of `record`, which ended at `ended`. `random` becomes the span's id, and the trace's where the
    /// record has none.
    pub fn to_owned(
        record: &QueryRecord<'_>,
        reason: Reason,
        telling: Telling,
        identity: &Arc<PoolIdentity>,
        ended: SystemTime,
        random: RandomIds,
    ) -> Self {
        let (own_trace, own_span) = ids(random);
        let kept = record.sql.get(..MAX_KEPT_TEXT).unwrap_or(record.sql);
        let parent = record.trace.and_then(|trace| trace.parent);
        Self {
            reason,
            identity: Arc::clone(identity),
            sql: kept.into(),
            kind: record.kind,
            phases: record.phases,
            outcome: record.outcome,
            rows: record.rows,
            trace: record.trace.map(Arc::clone),
            context: record.context,
            server_pid: record.server_pid,
            trace_id: parent.map_or(own_trace, |parent| parent.trace_id),
            span_id: own_span,
            ended,
            warnings: record.warnings.into(),
            telling,
        }
    }

    /// The application's span; `None` where there is none. A parent that the proxy made up is never exported, so it is
    /// no parent.
    pub fn parent_span_id(&self) -> Option<SpanId> {
        match self.context {
            ContextState::Provided | ContextState::Stale => {
                Some(self.trace.as_ref()?.parent?.span_id)
            }
            ContextState::Generated | ContextState::Invalid | ContextState::None => None,
        }
    }

    /// Whether a span of `record` may leave: not where the application has decided against recording its trace, since the
    /// span would hang in the air. Source: OpenTelemetry specification, ParentBased sampler.
    pub fn is_exported(record: &QueryRecord<'_>) -> bool {
        let parent = record.trace.and_then(|trace| trace.parent);
        let is_provided = matches!(record.context, ContextState::Provided | ContextState::Stale);
        !is_provided || parent.is_none_or(|parent| parent.sampled)
    }
}

/// Zeros are no valid ids; the chance is 1 in 2^64, the way out a constant.
fn ids(random: RandomIds) -> (TraceId, SpanId) {
    let (trace, span) = random
        .split_first_chunk::<16>()
        .expect("24 bytes have 16 at their start");
    let span = *span.first_chunk::<8>().expect("16 and 8 are 24");
    (
        TraceId::from_bytes(*trace)
            .or_else(|| TraceId::from_bytes([1; 16]))
            .expect("ones are not zeros"),
        SpanId::from_bytes(span)
            .or_else(|| SpanId::from_bytes([1; 8]))
            .expect("ones are not zeros"),
    )
}

/// `Simple` as `simple`: how a query came, for lines and spans.
pub fn kind_name(kind: QueryKind) -> &'static str {
    match kind {
        QueryKind::Simple => "simple",
        QueryKind::Execute => "execute",
        QueryKind::FunctionCall => "function_call",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::telemetry::registry::tests::record;
    use crate::trace_context::TraceParent;

    #[test]
    fn a_query_is_slow_from_the_threshold_on() {
        let policy = SlowQueryPolicy::default();
        assert_eq!(policy.is_notable(&record(milliseconds(99))), None);
        assert_eq!(
            policy.is_notable(&record(milliseconds(100))),
            Some(Reason::Slow)
        );
    }

    #[test]
    fn a_query_that_only_waited_is_a_long_wait() {
        let policy = SlowQueryPolicy::default();
        let mut waited = record(milliseconds(5));
        waited.phases.queue_wait = milliseconds(150);
        assert_eq!(policy.is_notable(&waited), Some(Reason::LongWait));

        waited.phases.first_byte = milliseconds(100);
        assert_eq!(policy.is_notable(&waited), Some(Reason::Slow));
    }

    #[test]
    fn a_query_whose_wait_and_work_are_slow_only_together_is_slow() {
        let policy = SlowQueryPolicy::default();
        let mut both = record(milliseconds(60));
        both.phases.queue_wait = milliseconds(60);
        assert_eq!(policy.is_notable(&both), Some(Reason::Slow));
    }

    #[test]
    fn a_failed_query_is_notable_however_fast_it_was() {
        let policy = SlowQueryPolicy::default();
        let mut failed = record(milliseconds(1));
        failed.outcome = Outcome::Failed(SqlState::SYNTAX_ERROR);
        assert_eq!(policy.is_notable(&failed), Some(Reason::Failed));
        failed.outcome = Outcome::Failed(SqlState::QUERY_CANCELED);
        assert_eq!(policy.is_notable(&failed), Some(Reason::Cancelled));
        failed.outcome = Outcome::Lost;
        assert_eq!(policy.is_notable(&failed), Some(Reason::Failed));
    }

    #[test]
    fn a_threshold_that_is_off_makes_nothing_slow() {
        let policy = SlowQueryPolicy {
            threshold: Duration::MAX,
            wait_threshold: Duration::MAX,
            ..SlowQueryPolicy::default()
        };
        let mut slow = record(Duration::from_secs(3600));
        slow.phases.queue_wait = Duration::from_secs(3600);
        assert_eq!(policy.is_notable(&slow), None);
    }

    #[test]
    fn the_ratio_takes_whole_traces() {
        let policy = SlowQueryPolicy {
            ratio: 0.5,
            ..SlowQueryPolicy::default()
        };
        let low = provided(0x10, true);
        let high = provided(0xf0, true);
        let mut fast = record(milliseconds(1));
        assert_eq!(policy.is_notable(&fast), None);
        fast.trace = Some(&low);
        assert_eq!(policy.is_notable(&fast), Some(Reason::Sampled));
        fast.trace = Some(&high);
        assert_eq!(policy.is_notable(&fast), None);
    }

    #[test]
    fn a_provided_trace_is_the_parent_and_decides_about_the_span() {
        let trace = provided(0x10, false);
        let mut slow = record(milliseconds(200));
        slow.trace = Some(&trace);
        let kept = notable(&slow);
        assert_eq!(kept.trace_id, trace.parent.unwrap().trace_id);
        assert_eq!(kept.parent_span_id(), Some(trace.parent.unwrap().span_id));
        assert!(!NotableQuery::is_exported(&slow));
    }

    #[test]
    fn a_generated_trace_keeps_its_id_and_has_no_parent() {
        let trace = provided(0x10, false);
        let mut slow = record(milliseconds(200));
        slow.trace = Some(&trace);
        slow.context = ContextState::Generated;
        let kept = notable(&slow);
        assert_eq!(kept.trace_id, trace.parent.unwrap().trace_id);
        assert_eq!(kept.parent_span_id(), None);
        assert!(NotableQuery::is_exported(&slow));
    }

    #[test]
    fn a_query_without_a_trace_begins_one() {
        let mut slow = record(milliseconds(200));
        slow.context = ContextState::None;
        let kept = notable(&slow);
        assert_eq!(kept.trace_id.to_string(), "09".repeat(16));
        assert_eq!(kept.span_id.to_string(), "09".repeat(8));
        assert_eq!(kept.parent_span_id(), None);
        assert!(NotableQuery::is_exported(&slow));
    }

    #[test]
    fn random_zeros_make_valid_ids_all_the_same() {
        let (trace, span) = ids([0; 24]);
        assert_eq!(trace.to_string(), "01".repeat(16));
        assert_eq!(span.to_string(), "01".repeat(8));
    }

    #[test]
    fn a_long_text_is_cut_before_it_is_kept() {
        let text = vec![b'x'; MAX_KEPT_TEXT + 1];
        let mut slow = record(milliseconds(200));
        slow.sql = &text;
        assert_eq!(notable(&slow).sql.len(), MAX_KEPT_TEXT);
    }

    /// A trace whose lower half begins with `first`.
    pub(crate) fn provided(first: u8, sampled: bool) -> Arc<TraceContext> {
        let mut trace_id = [0xaa; 16];
        trace_id[8] = first;
        Arc::new(TraceContext {
            parent: Some(TraceParent {
                trace_id: TraceId::from_bytes(trace_id).unwrap(),
                span_id: SpanId::from_bytes([0xbb; 8]).unwrap(),
                sampled,
            }),
            tracestate: Some("vendor=1".into()),
            correlation_id: Some("order-7".into()),
            tags: vec![
                ("application".into(), "pay".into()),
                ("route".into(), "/checkout".into()),
            ],
        })
    }

    pub(crate) fn identity() -> Arc<PoolIdentity> {
        Arc::new(PoolIdentity {
            database: "app".into(),
            user: "ann".into(),
            server: ServerAddress {
                host: "db.internal".into(),
                port: 5433,
                peer: Some(([10, 0, 0, 7], 5433).into()),
            },
        })
    }

    /// What is kept of `record`, which ended 100 s after the epoch.
    pub(crate) fn notable(record: &QueryRecord<'_>) -> NotableQuery {
        let policy = SlowQueryPolicy::default();
        let reason = policy.is_notable(record);
        NotableQuery::to_owned(
            record,
            reason.expect("the test's query is notable"),
            policy.telling,
            &identity(),
            SystemTime::UNIX_EPOCH + Duration::from_secs(100),
            [9; 24],
        )
    }

    pub(crate) fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }
}
