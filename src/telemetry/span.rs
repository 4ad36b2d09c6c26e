//! A notable query as OpenTelemetry spans: one of the query, and one of each phase that took time.
//!
//! Names and attributes follow the semantic conventions for database client spans
//! (<https://opentelemetry.io/docs/specs/semconv/database/postgresql/>), the proxy's own begin with `pgspan.`.
//! `server.*` and `network.peer.*` are the PostgreSQL behind the pool.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, trace};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::protocol::error_response::SqlState;
use crate::session::query_record::{Outcome, Warning};
use crate::telemetry::labels::label_of;
use crate::telemetry::query_text::QueryText;
use crate::telemetry::slow_query::{NotableQuery, kind_name};
use crate::trace_context::{ContextState, SpanId};

/// The spans of one query, its own first. `text` is what may be told of its text.
pub fn spans_of(query: &NotableQuery, text: &QueryText) -> Vec<SpanData> {
    let total = query.phases.total();
    let started = before(query.ended, total);
    let parent = query.parent_span_id();
    let own = SpanData {
        span_context: context_of(query, query.span_id),
        parent_span_id: parent.map_or(trace::SpanId::INVALID, |id| {
            trace::SpanId::from_bytes(id.to_bytes())
        }),
        parent_span_is_remote: parent.is_some(),
        span_kind: SpanKind::Client,
        name: (text.summary.clone())
            .unwrap_or_else(|| query.identity.database.to_string())
            .into(),
        start_time: started,
        end_time: query.ended,
        attributes: attributes_of(query, text),
        dropped_attributes_count: 0,
        events: warnings_of(query),
        links: SpanLinks::default(),
        status: status_of(query.outcome),
        instrumentation_scope: scope(),
    };
    let mut spans = vec![own];
    spans.extend(phase_spans(query, started));
    spans
}

fn warnings_of(query: &NotableQuery) -> SpanEvents {
    let event = |warning: &Warning| {
        let attributes = vec![
            KeyValue::new("pgspan.notice.severity", "WARNING"),
            KeyValue::new(
                "db.response.status_code",
                warning.sqlstate.as_str().to_owned(),
            ),
        ];
        let at = before(query.ended, warning.before_end);
        trace::Event::new("pgspan.notice", at, attributes, 0)
    };
    let mut events = SpanEvents::default();
    events.events = query.warnings.iter().map(event).collect();
    events
}

fn phase_spans(query: &NotableQuery, mut start: SystemTime) -> impl Iterator<Item = SpanData> {
    let phases = [
        ("queue wait", query.phases.queue_wait),
        ("server first byte", query.phases.first_byte),
        ("server last byte", query.phases.last_byte),
        ("client drain", query.phases.client_drain),
    ];
    (1..)
        .zip(phases)
        .filter(|(_, (_, length))| !length.is_zero())
        .map(move |(number, (name, length))| {
            let end = start.checked_add(length).unwrap_or(start);
            let phase = SpanData {
                span_context: context_of(query, phase_span_id(query.span_id, number)),
                parent_span_id: trace::SpanId::from_bytes(query.span_id.to_bytes()),
                parent_span_is_remote: false,
                span_kind: SpanKind::Internal,
                name: name.into(),
                start_time: start,
                end_time: end,
                attributes: (query.phases.queue_cause)
                    .filter(|_| name == "queue wait")
                    .map(|cause| KeyValue::new("pgspan.queue_cause", label_of(cause)))
                    .into_iter()
                    .collect(),
                dropped_attributes_count: 0,
                events: SpanEvents::default(),
                links: SpanLinks::default(),
                status: Status::Unset,
                instrumentation_scope: scope(),
            };
            start = end;
            phase
        })
}

fn attributes_of(query: &NotableQuery, text: &QueryText) -> Vec<KeyValue> {
    let identity = &query.identity;
    let server = &identity.server;
    let phases = &query.phases;
    let mut attributes = vec![
        KeyValue::new("db.system.name", "postgresql"),
        KeyValue::new("db.namespace", identity.database.to_string()),
        KeyValue::new("server.address", server.host.to_string()),
        KeyValue::new("server.port", i64::from(server.port)),
        KeyValue::new("pgspan.user", identity.user.to_string()),
        KeyValue::new("pgspan.reason", query.reason.as_str()),
        KeyValue::new("pgspan.context", label_of(query.context)),
        KeyValue::new("pgspan.query.kind", kind_name(query.kind)),
        KeyValue::new("pgspan.queue_wait_ms", milliseconds(phases.queue_wait)),
        KeyValue::new(
            "pgspan.server_first_byte_ms",
            milliseconds(phases.first_byte),
        ),
        KeyValue::new("pgspan.server_last_byte_ms", milliseconds(phases.last_byte)),
        KeyValue::new("pgspan.client_drain_ms", milliseconds(phases.client_drain)),
    ];
    if let Some(cause) = phases.queue_cause {
        attributes.push(KeyValue::new("pgspan.queue_cause", label_of(cause)));
    }
    if let Some(peer) = server.peer {
        attributes.push(KeyValue::new("network.peer.address", peer.ip().to_string()));
        attributes.push(KeyValue::new("network.peer.port", i64::from(peer.port())));
    }
    if let Some(text) = &text.text {
        attributes.push(KeyValue::new("db.query.text", text.clone()));
    }
    if let Some(summary) = &text.summary {
        attributes.push(KeyValue::new("db.query.summary", summary.clone()));
    }
    if let Some(fingerprint) = text.fingerprint {
        attributes.push(KeyValue::new(
            "pgspan.query.fingerprint",
            fingerprint.to_string(),
        ));
    }
    match &query.outcome {
        Outcome::Completed => {
            let rows = i64::try_from(query.rows).unwrap_or(i64::MAX);
            attributes.push(KeyValue::new("db.response.returned_rows", rows));
        }
        Outcome::Failed(sqlstate) => {
            let code = sqlstate.as_str().to_owned();
            attributes.push(KeyValue::new("db.response.status_code", code.clone()));
            attributes.push(KeyValue::new("error.type", code));
        }
        Outcome::Lost => attributes.push(KeyValue::new("error.type", "connection_lost")),
    }
    if query.server_pid != 0 {
        let pid = i64::from(query.server_pid);
        attributes.push(KeyValue::new("pgspan.server_pid", pid));
    }
    if let Some(trace) = &query.trace {
        if let Some(id) = &trace.correlation_id {
            attributes.push(KeyValue::new("pgspan.correlation_id", id.to_string()));
        }
        for (key, value) in &trace.tags {
            attributes.push(KeyValue::new(
                format!("pgspan.tag.{key}"),
                value.to_string(),
            ));
        }
    }
    attributes
}

fn status_of(outcome: Outcome) -> Status {
    match outcome {
        Outcome::Completed => Status::Unset,
        Outcome::Failed(SqlState::QUERY_CANCELED) => {
            Status::error("57014: the query was cancelled")
        }
        // The server's message may hold literals.
        Outcome::Failed(sqlstate) => Status::error(sqlstate.as_str().to_owned()),
        Outcome::Lost => Status::error("the connection was lost"),
    }
}

/// What is exported is sampled. The tracestate is that of the application's trace, as it came.
fn context_of(query: &NotableQuery, span_id: SpanId) -> SpanContext {
    let state = match query.context {
        ContextState::Provided | ContextState::Stale => (query.trace.as_ref())
            .and_then(|trace| TraceState::from_str(trace.tracestate.as_deref()?).ok())
            .unwrap_or_default(),
        ContextState::Generated | ContextState::Invalid | ContextState::None => {
            TraceState::default()
        }
    };
    SpanContext::new(
        trace::TraceId::from_bytes(query.trace_id.to_bytes()),
        trace::SpanId::from_bytes(span_id.to_bytes()),
        TraceFlags::SAMPLED,
        false,
        state,
    )
}

/// An id for a phase of a span, made of the span's own: one that is random again, and not its parent's.
///
/// Source of the mixing: SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators").
fn phase_span_id(span_id: SpanId, number: u64) -> SpanId {
    let mut mixed = u64::from_be_bytes(span_id.to_bytes())
        .wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    SpanId::from_bytes(mixed.to_be_bytes()).unwrap_or(span_id)
}

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("pgspan")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
}

fn before(end: SystemTime, length: Duration) -> SystemTime {
    end.checked_sub(length).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// To the microsecond.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use opentelemetry::Value;

    use super::*;
    use crate::session::query_record::{Phases, QueueCause};
    use crate::sql::fingerprint::Fingerprint;
    use crate::telemetry::registry::tests::record;
    use crate::telemetry::slow_query::tests::{milliseconds, notable, provided};
    use crate::trace_context::TraceContext;

    #[test]
    fn a_span_is_the_child_of_the_applications_and_keeps_its_tracestate() {
        let trace = provided(0x10, true);
        let mut slow = record(milliseconds(200));
        slow.trace = Some(&trace);
        let spans = spans_of(&notable(&slow), &QueryText::default());
        let own = &spans[0];
        assert_eq!(
            own.span_context.trace_id().to_string(),
            "aaaaaaaaaaaaaaaa10aaaaaaaaaaaaaa"
        );
        assert_eq!(own.span_context.span_id().to_string(), "0909090909090909");
        assert_eq!(own.parent_span_id.to_string(), "bbbbbbbbbbbbbbbb");
        assert!(own.parent_span_is_remote);
        assert_eq!(own.span_kind, SpanKind::Client);
        assert_eq!(own.span_context.trace_state().header(), "vendor=1");
        assert!(own.span_context.is_sampled());
    }

    #[test]
    fn a_span_without_a_context_is_the_root_of_a_trace_of_its_own() {
        let mut slow = record(milliseconds(200));
        slow.context = ContextState::None;
        let spans = spans_of(&notable(&slow), &QueryText::default());
        assert_eq!(
            spans[0].span_context.trace_id().to_string(),
            "09".repeat(16)
        );
        assert_eq!(spans[0].parent_span_id, trace::SpanId::INVALID);
        assert!(!spans[0].parent_span_is_remote);
    }

    #[test]
    fn a_phase_is_a_child_and_one_without_length_is_left_out() {
        let mut slow = record(milliseconds(100));
        slow.phases = Phases {
            queue_wait: milliseconds(40),
            queue_cause: Some(QueueCause::Paused),
            first_byte: milliseconds(100),
            last_byte: Duration::ZERO,
            client_drain: milliseconds(10),
        };
        let spans = spans_of(&notable(&slow), &QueryText::default());
        let ended = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let told: Vec<_> = (spans.iter())
            .map(|span| {
                (
                    span.name.as_ref(),
                    before_end(ended, span.start_time),
                    before_end(ended, span.end_time),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("app", 150, 0),
                ("queue wait", 150, 110),
                ("server first byte", 110, 10),
                ("client drain", 10, 0),
            ]
        );
        assert_eq!(
            attribute(&spans[1], "pgspan.queue_cause"),
            Some("paused".into())
        );
        let ids: BTreeSet<_> = (spans.iter())
            .map(|span| span.span_context.span_id().to_bytes())
            .collect();
        assert_eq!(ids.len(), 4);
        for phase in &spans[1..] {
            assert_eq!(phase.parent_span_id, spans[0].span_context.span_id());
            assert_eq!(phase.span_kind, SpanKind::Internal);
        }
    }

    #[test]
    fn the_attributes_are_those_of_the_conventions_and_the_proxys_own() {
        let trace = provided(0x10, true);
        let mut slow = record(milliseconds(200));
        slow.trace = Some(&trace);
        let text = QueryText {
            text: Some("SELECT ?".into()),
            summary: Some("SELECT".into()),
            fingerprint: Some(Fingerprint(0x0123_4567_89ab_cdef)),
        };
        let spans = spans_of(&notable(&slow), &text);
        assert_eq!(spans[0].name, "SELECT");
        let told: Vec<String> = (spans[0].attributes.iter())
            .map(|attribute| format!("{}={}", attribute.key, attribute.value))
            .collect();
        assert_eq!(
            told,
            [
                "db.system.name=postgresql",
                "db.namespace=app",
                "server.address=db.internal",
                "server.port=5433",
                "pgspan.user=ann",
                "pgspan.reason=slow",
                "pgspan.context=provided",
                "pgspan.query.kind=simple",
                "pgspan.queue_wait_ms=0",
                "pgspan.server_first_byte_ms=200",
                "pgspan.server_last_byte_ms=0",
                "pgspan.client_drain_ms=0",
                "network.peer.address=10.0.0.7",
                "network.peer.port=5433",
                "db.query.text=SELECT ?",
                "db.query.summary=SELECT",
                "pgspan.query.fingerprint=0123456789abcdef",
                "db.response.returned_rows=1",
                "pgspan.server_pid=42",
                "pgspan.correlation_id=order-7",
                "pgspan.tag.application=pay",
                "pgspan.tag.route=/checkout",
            ]
        );
        assert_eq!(spans[0].status, Status::Unset);
    }

    #[test]
    fn an_error_tells_its_sqlstate_and_nothing_of_the_message() {
        let mut failed = record(milliseconds(1));
        failed.outcome = Outcome::Failed(SqlState::SYNTAX_ERROR);
        let spans = spans_of(&notable(&failed), &QueryText::default());
        assert_eq!(spans[0].status, Status::error("42601"));
        assert_eq!(
            attribute(&spans[0], "db.response.status_code"),
            Some("42601".into())
        );
        assert_eq!(attribute(&spans[0], "error.type"), Some("42601".into()));
        assert_eq!(attribute(&spans[0], "db.response.returned_rows"), None);
    }

    #[test]
    fn a_warning_is_an_event_without_its_text() {
        let warnings = [Warning {
            sqlstate: SqlState::NO_ACTIVE_SQL_TRANSACTION,
            before_end: Duration::from_millis(50),
        }];
        let mut slow = record(milliseconds(200));
        slow.warnings = &warnings;
        let spans = spans_of(&notable(&slow), &QueryText::default());
        let [event] = &spans[0].events.events[..] else {
            panic!("{:?}", spans[0].events);
        };
        assert_eq!(event.name, "pgspan.notice");
        let ended = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        assert_eq!(before_end(ended, event.timestamp), 50);
        assert_eq!(event.attributes.len(), 2);
        assert_eq!(event.attributes[1].value.as_str(), "25P01");
        assert!(spans[1].events.events.is_empty());
    }

    #[test]
    fn a_tracestate_that_is_none_is_left_out() {
        let trace = std::sync::Arc::new(TraceContext {
            tracestate: Some("no separator".into()),
            ..(*provided(0x10, true)).clone()
        });
        let mut slow = record(milliseconds(200));
        slow.trace = Some(&trace);
        let spans = spans_of(&notable(&slow), &QueryText::default());
        assert_eq!(spans[0].span_context.trace_state().header(), "");
    }

    fn attribute(span: &SpanData, key: &str) -> Option<Value> {
        (span.attributes.iter())
            .find(|attribute| attribute.key.as_str() == key)
            .map(|attribute| attribute.value.clone())
    }

    fn before_end(ended: SystemTime, time: SystemTime) -> u128 {
        ended.duration_since(time).unwrap().as_millis()
    }
}
