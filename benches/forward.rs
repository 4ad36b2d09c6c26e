//! What passing messages on costs, without IO: rows by the read, and one whole query with its annotation and its record.

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pgspan::config::choices::{CommentFormat, Placement, PoolMode, PreparedChannel};
use pgspan::protocol::encode;
use pgspan::protocol::forwarder::Forwarder;
use pgspan::protocol::outbound::Outbound;
use pgspan::session::annotator::AnnotationPolicy;
use pgspan::session::client_session::ClientSession;
use pgspan::session::parameters::ParameterSet;
use pgspan::session::replies::Replies;
use pgspan::session::requests::{RequestPolicy, Requests, Workbench};
use pgspan::session::server_session::ServerSession;
use pgspan::session::statements::Definitions;
use pgspan::session::trace::{SessionTrace, TracePolicy, TraceRules};

const TRACEPARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A client and a server, linked, without sockets.
struct Pair {
    client: ClientSession,
    server: ServerSession,
    definitions: Definitions,
    policy: RequestPolicy,
    bench: Workbench,
    requests: Forwarder,
    replies: Forwarder,
    to_server: Outbound,
    to_client: Outbound,
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let tags = [("application".into(), "bench".into())];
        let rules = TraceRules {
            static_tags: tags.into(),
            ..TraceRules::default()
        };
        let parameters = [(&b"pgspan.traceparent"[..], TRACEPARENT)];
        let trace = SessionTrace::at_startup(Arc::new(TracePolicy::new(rules)), parameters).trace;
        let parameters = Rc::new(ParameterSet::default());
        Self {
            client: ClientSession::new(
                PoolMode::Transaction,
                trace,
                Rc::clone(&parameters),
                150_000,
            ),
            server: ServerSession::new(parameters),
            definitions: Definitions::new(),
            policy: RequestPolicy {
                annotation: AnnotationPolicy {
                    enabled: true,
                    format: CommentFormat::Sqlcommenter,
                    placement: Placement::Suffix,
                    max_query_bytes: 1 << 20,
                    unnamed_parse: false,
                    prepared: PreparedChannel::None,
                },
                max_prepared_statements: 200,
                unnamed_statements: pgspan::config::choices::UnnamedStatements::Pass,
            },
            bench: Workbench::new(),
            requests: Forwarder::new(),
            replies: Forwarder::new(),
            to_server: Outbound::new(),
            to_client: Outbound::new(),
            #[expect(clippy::disallowed_methods, reason = "a bench is its own edge")]
            now: Instant::now(),
        }
    }

    fn request(&mut self, bytes: &[u8]) {
        let mut judge = Requests::new(
            &mut self.client,
            Some(&mut self.server),
            &mut self.definitions,
            &self.policy,
            &mut self.bench,
            &mut self.to_client,
            self.now,
        );
        let advanced = self
            .requests
            .advance(bytes, &mut judge, &mut self.to_server);
        assert!(advanced.is_ok_and(|advanced| advanced.consumed == bytes.len()));
        self.bench.tally.take_annotations().for_each(drop);
        black_box(self.to_server.single(bytes));
        self.to_server.clear();
    }

    fn reply(&mut self, bytes: &[u8]) {
        let mut judge = Replies::new(&mut self.client, &mut self.server, self.now);
        let advanced = self.replies.advance(bytes, &mut judge, &mut self.to_client);
        assert!(advanced.is_ok_and(|advanced| advanced.consumed == bytes.len()));
        black_box(self.to_client.single(bytes));
        self.to_client.clear();
        self.server
            .exchange
            .observe_answered(self.now, 1, |record| {
                black_box(record);
            });
    }
}

fn forward(c: &mut Criterion) {
    let mut query = Vec::new();
    encode::query(
        &mut query,
        b"SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
    );
    let reply = b"T\0\0\0\x21\0\x01abalance\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0D\0\0\0\x0b\0\x01\0\0\0\x010C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";
    let mut pair = Pair::new();
    c.bench_function("forward/one annotated query and its reply", |b| {
        b.iter(|| {
            pair.request(black_box(&query));
            pair.reply(black_box(reply));
        });
    });

    let mut rows = Vec::new();
    while rows.len() < 64 * 1024 {
        encode::message(&mut rows, b'D', |body| body.extend_from_slice(&[b'x'; 95]));
    }
    let mut pair = Pair::new();
    pair.request(&query);
    let mut group = c.benchmark_group("forward");
    group.throughput(Throughput::Bytes(rows.len() as u64));
    group.bench_function("64 KiB of rows of 100 bytes", |b| {
        b.iter(|| pair.reply(black_box(&rows)))
    });
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);
