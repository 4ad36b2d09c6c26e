//! What planning a simple query costs in the steady state: the session's context stays as it is.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use pgspan::config::choices::{CommentFormat, Placement, PreparedChannel};
use pgspan::protocol::backend::TransactionStatus;
use pgspan::session::annotator::{AnnotationPolicy, Annotator, QueryPlan, Surroundings};
use pgspan::session::trace::{SessionTrace, TracePolicy, TraceRules};
use pgspan::sql::comment::write_comment;
use pgspan::sql::encoding::ClientEncoding;
use pgspan::sql::lexer::StandardConformingStrings;

fn plan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    for (name, sql) in [
        (
            "pgbench_select",
            "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;",
        ),
        (
            "pgbench_update",
            "UPDATE pgbench_accounts SET abalance = abalance + -1234 WHERE aid = 4711;",
        ),
        ("begin", "BEGIN;"),
        (
            "set_local_and_select",
            "SET LOCAL pgspan.route = '/a'; SELECT 1",
        ),
    ] {
        let mut annotator = Annotator::new();
        let mut trace = session();
        let mut plan = QueryPlan::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                annotator.plan(
                    &POLICY,
                    black_box(sql.as_bytes()),
                    &mut trace,
                    &SURROUNDINGS,
                    &mut plan,
                );
                trace.on_command_complete(b"SELECT 1");
                trace.on_ready(TransactionStatus::Idle);
                black_box(plan.verdict())
            });
        });
    }
    group.finish();
}

fn comment(criterion: &mut Criterion) {
    let mut trace = session();
    let (context, _) = trace.context();
    let mut out = Vec::with_capacity(256);
    criterion.bench_function("write_comment", |bencher| {
        bencher.iter(|| {
            out.clear();
            write_comment(
                black_box(context),
                POLICY.format,
                POLICY.placement,
                &mut out,
            );
            black_box(out.len())
        });
    });
}

const POLICY: AnnotationPolicy = AnnotationPolicy {
    enabled: true,
    format: CommentFormat::Sqlcommenter,
    placement: Placement::Suffix,
    max_query_bytes: 1 << 20,
    unnamed_parse: false,
    prepared: PreparedChannel::None,
};

const SURROUNDINGS: Surroundings = Surroundings {
    server_version: 150_020,
    strings: StandardConformingStrings::On,
    encoding: ClientEncoding::Utf8,
    status: TransactionStatus::Idle,
    replication: false,
};

/// With a traceparent and two tags.
fn session() -> SessionTrace {
    let policy = Arc::new(TracePolicy::new(TraceRules::default()));
    let parameters: [(&[u8], &[u8]); 3] = [
        (
            b"pgspan.traceparent",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        (b"pgspan.application", b"billing"),
        (b"pgspan.route", b"/invoices/{id}"),
    ];
    SessionTrace::at_startup(policy, parameters).trace
}

criterion_group!(benches, plan, comment);
criterion_main!(benches);
