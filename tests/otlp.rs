//! Spans as a collector gets them: over gRPC and over HTTP, and what becomes of them where the collector is none.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends where something is not as expected"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service;
use tonic::transport::server::TcpIncoming;

use pgspan::config::choices::OtlpProtocol;
use pgspan::config::secret::Secret;
use pgspan::config::tls::{Authorities, TextFile};
use pgspan::protocol::error_response::SqlState;
use pgspan::session::query_record::{Outcome, Phases, QueryKind, QueryRecord, QueueCause};
use pgspan::telemetry::exporter::{OtlpEndpoint, OtlpSettings};
use pgspan::telemetry::instrument::Number;
use pgspan::telemetry::labels::SpanDrop;
use pgspan::telemetry::log::Lines;
use pgspan::telemetry::metrics::{PoolMetrics, ProcessMetrics};
use pgspan::telemetry::registry::{MetricLabels, Registry};
use pgspan::telemetry::slow_query::{PoolIdentity, ServerAddress, SlowQueryPolicy};
use pgspan::telemetry::statistics::StatisticsSettings;
use pgspan::telemetry::{Telemetry, TelemetryError, WorkerTelemetry};
use pgspan::trace_context::{ContextState, SpanId, TraceContext, TraceId, TraceParent};

#[tokio::test]
async fn a_slow_query_reaches_a_grpc_collector_as_a_child_of_the_applications_span() {
    let mut collector = Collector::grpc().await;
    let mut settings = settings(&collector.base(), OtlpProtocol::Grpc);
    settings.headers = vec![("X-Tenant".into(), "blue".into())];
    settings.resource_attributes = vec![("deployment.environment.name".into(), "test".into())];
    let proxy = Proxy::start(&settings);

    let application = application(true);
    let mut slow = slow_query();
    slow.trace = Some(&application);
    slow.context = ContextState::Provided;
    slow.phases.queue_wait = Duration::from_millis(50);
    slow.phases.queue_cause = Some(QueueCause::PoolFull);
    proxy.observe(&slow);

    let export = collector.exports.recv().await.unwrap();
    assert_eq!(export.tenant.as_deref(), Some("blue"));
    let resource = export.request.resource_spans[0].resource.clone().unwrap();
    assert_eq!(
        attributes(&resource.attributes),
        BTreeMap::from([
            ("deployment.environment.name".into(), "test".into()),
            ("service.name".into(), "shop-db".into()),
        ])
    );

    let spans = spans(&export.request);
    assert_eq!(
        spans.iter().map(|span| &*span.name).collect::<Vec<_>>(),
        ["SELECT orders", "queue wait", "server first byte"]
    );
    let own = &spans[0];
    assert_eq!(own.trace_id, [0xaa; 16]);
    assert_eq!(own.parent_span_id, [0xbb; 8]);
    assert_eq!(own.kind, SpanKind::Client as i32);
    assert_eq!(own.trace_state, "vendor=1");
    assert_eq!(
        own.end_time_unix_nano - own.start_time_unix_nano,
        250_000_000
    );
    // Sampled; has a parent, and one in another process.
    assert_eq!(own.flags, 0x301);
    let told = attributes(&own.attributes);
    assert_eq!(told["db.system.name"], "postgresql");
    assert_eq!(told["db.query.text"], "SELECT * FROM orders WHERE card = ?");
    assert_eq!(told["pgspan.queue_cause"], "pool_full");
    assert_eq!(told["pgspan.correlation_id"], "order-7");
    for phase in &spans[1..] {
        assert_eq!(phase.trace_id, own.trace_id);
        assert_eq!(phase.parent_span_id, own.span_id);
        assert_eq!(phase.kind, SpanKind::Internal as i32);
    }
    assert_eq!(spans[1].start_time_unix_nano, own.start_time_unix_nano);
    assert_eq!(spans[2].start_time_unix_nano, spans[1].end_time_unix_nano);

    proxy.shutdown().await;
    assert_eq!(proxy.registry.process.spans_exported.value(), 1);
    assert_eq!(proxy.registry.process.span_queue_length.value(), 0);
}

#[tokio::test]
async fn a_failed_query_reaches_an_http_collector_with_its_sqlstate() {
    for gzip in [false, true] {
        let mut collector = Collector::http().await;
        let mut settings = settings(&collector.base(), OtlpProtocol::HttpProtobuf);
        settings.headers = vec![("X-Tenant".into(), "blue".into())];
        settings.gzip = gzip;
        let proxy = Proxy::start(&settings);

        let mut failed = slow_query();
        failed.outcome = Outcome::Failed(SqlState::SYNTAX_ERROR);
        proxy.observe(&failed);

        let export = collector.exports.recv().await.unwrap();
        assert_eq!(export.tenant.as_deref(), Some("blue"));
        assert_eq!(export.path, "/v1/traces");
        let spans = spans(&export.request);
        let own = &spans[0];
        assert_eq!(own.parent_span_id, [0_u8; 0]);
        assert_ne!(own.trace_id, [0; 16]);
        assert_eq!(own.status.as_ref().unwrap().code, StatusCode::Error as i32);
        let told = attributes(&own.attributes);
        assert_eq!(told["db.response.status_code"], "42601");
        assert_eq!(told["error.type"], "42601");
        proxy.shutdown().await;
        assert_eq!(proxy.registry.process.spans_exported.value(), 1);
    }
}

#[tokio::test]
async fn a_grpc_export_can_be_packed() {
    let mut collector = Collector::grpc().await;
    let mut settings = settings(&collector.base(), OtlpProtocol::Grpc);
    settings.gzip = true;
    let proxy = Proxy::start(&settings);
    proxy.observe(&slow_query());
    let export = collector.exports.recv().await.unwrap();
    assert_eq!(spans(&export.request)[0].name, "SELECT orders");
}

#[tokio::test]
async fn a_fast_query_and_an_unsampled_trace_leave_no_span() {
    let mut collector = Collector::grpc().await;
    let proxy = Proxy::start(&settings(&collector.base(), OtlpProtocol::Grpc));
    let mut fast = slow_query();
    fast.phases.first_byte = Duration::from_millis(1);
    proxy.observe(&fast);
    let application = application(false);
    let mut unsampled = slow_query();
    unsampled.trace = Some(&application);
    unsampled.context = ContextState::Provided;
    proxy.observe(&unsampled);

    proxy.shutdown().await;
    assert!(collector.exports.try_recv().is_err());
    assert_eq!(proxy.dropped(SpanDrop::Unsampled), 1);
    assert_eq!(proxy.registry.process.spans_exported.value(), 0);
}

#[tokio::test]
async fn spans_that_wait_are_exported_in_batches_on_shutdown() {
    let mut collector = Collector::grpc().await;
    let mut settings = settings(&collector.base(), OtlpProtocol::Grpc);
    settings.schedule_delay = Duration::from_secs(3600);
    settings.max_export_batch_size = 2;
    let proxy = Proxy::start(&settings);
    for _ in 0..5 {
        proxy.observe(&slow_query());
    }
    proxy.shutdown().await;

    let mut sizes = Vec::new();
    while let Ok(export) = collector.exports.try_recv() {
        let spans = spans(&export.request);
        sizes.push(spans.iter().filter(|span| span.kind == 3).count());
    }
    assert_eq!(sizes, [2, 2, 1]);
    assert_eq!(proxy.registry.process.spans_exported.value(), 5);
}

#[tokio::test]
async fn a_full_batch_does_not_wait_for_the_delay() {
    let mut collector = Collector::grpc().await;
    let mut settings = settings(&collector.base(), OtlpProtocol::Grpc);
    settings.schedule_delay = Duration::from_secs(3600);
    settings.max_export_batch_size = 3;
    let proxy = Proxy::start(&settings);
    for _ in 0..3 {
        proxy.observe(&slow_query());
    }
    let export = collector.exports.recv().await.unwrap();
    assert_eq!(spans(&export.request).len(), 6);
}

#[tokio::test]
async fn long_queries_are_spread_over_exports_that_a_collector_takes() {
    let mut collector = Collector::grpc().await;
    let proxy = Proxy::start(&settings(&collector.base(), OtlpProtocol::Grpc));
    let text = format!("SELECT {}", "column, ".repeat(2_000));
    let mut long = slow_query();
    long.sql = text.as_bytes();
    for _ in 0..300 {
        proxy.observe(&long);
    }
    proxy.shutdown().await;
    assert_eq!(proxy.registry.process.spans_exported.value(), 300);
    let mut exports = 0;
    while collector.exports.try_recv().is_ok() {
        exports += 1;
    }
    // 128 of 4 KiB each are half a MiB.
    assert_eq!(exports, 3);
}

#[tokio::test]
async fn a_collector_that_never_answers_costs_the_timeout_and_a_bounded_queue() {
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf] {
        // Connections are taken by the kernel, and nobody reads from them.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = settings(&base(silent.local_addr().unwrap()), protocol);
        settings.queue_size = 4;
        settings.max_export_batch_size = 1;
        settings.export_timeout = Duration::from_millis(50);
        let proxy = Proxy::start(&settings);

        // The first is being exported; the exporter may or may not have taken it when the others come.
        for _ in 0..20 {
            proxy.observe(&slow_query());
        }
        let full = proxy.dropped(SpanDrop::QueueFull);
        assert_eq!(full, 16, "nothing was taken out in between");

        let started = now();
        proxy.shutdown().await;
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(proxy.dropped(SpanDrop::Timeout), 4);
        assert_eq!(proxy.registry.process.span_queue_length.value(), 0);
        assert_eq!(proxy.registry.process.spans_exported.value(), 0);
    }
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_collector_that_never_answers() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(&base(silent.local_addr().unwrap()), OtlpProtocol::Grpc);
    settings.export_timeout = Duration::from_secs(3600);
    settings.max_export_batch_size = 1;
    let proxy = Proxy::start(&settings);
    for _ in 0..3 {
        proxy.observe(&slow_query());
    }
    let started = now();
    proxy.shutdown_within(Duration::from_millis(50)).await;
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(proxy.dropped(SpanDrop::Shutdown), 3);
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_spans_and_nothing_else() {
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf] {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = gone.local_addr().unwrap();
        drop(gone);
        let mut settings = settings(&base(address), protocol);
        settings.export_timeout = Duration::from_secs(60);
        let proxy = Proxy::start(&settings);
        proxy.observe(&slow_query());
        proxy.shutdown_within(Duration::from_secs(60)).await;
        assert_eq!(proxy.dropped(SpanDrop::ExportFailed), 1);
    }
}

#[tokio::test]
async fn an_endpoint_or_header_that_can_not_work_is_refused_at_the_start() {
    let process = registry().process;
    let lines = Lines::start(std::io::sink(), 1, Arc::clone(&process)).unwrap();
    let refusal = |settings: &OtlpSettings| {
        start(settings, lines.clone(), Arc::clone(&process))
            .unwrap_err()
            .to_string()
    };
    let mut https = settings("https://collector.example", OtlpProtocol::HttpProtobuf);
    https.tls.ca = Some(Authorities::Of(TextFile {
        name: "ca.crt".into(),
        text: Secret::new("rubbish"),
    }));
    assert_eq!(
        refusal(&https),
        "otlp: ca.crt: there is no certificate in it"
    );
    https.endpoint = OtlpEndpoint::Base("http://127.0.0.1:1".into());
    https.headers = vec![("no name".into(), "secret".into())];
    assert_eq!(
        refusal(&https),
        "otlp: the OTLP header \"no name\" has an invalid name or value"
    );
    assert!(!format!("{https:?}").contains("secret"));
}

/// A proxy as far as telemetry sees it: one worker with one pool.
struct Proxy {
    telemetry: std::cell::RefCell<Option<Telemetry>>,
    worker: std::cell::RefCell<Option<WorkerTelemetry>>,
    registry: Registry,
    pool: Arc<PoolMetrics>,
    identity: Arc<PoolIdentity>,
}

impl Proxy {
    fn start(settings: &OtlpSettings) -> Self {
        let registry = registry();
        let process = Arc::clone(&registry.process);
        let lines = Lines::start(std::io::sink(), 1_000, Arc::clone(&process)).unwrap();
        let telemetry = start(settings, lines, process).unwrap();
        Self {
            worker: Some(telemetry.worker(SlowQueryPolicy::default())).into(),
            telemetry: Some(telemetry).into(),
            pool: registry.register_pool(0, "shop", "ann"),
            registry,
            identity: Arc::new(PoolIdentity {
                database: "shop".into(),
                user: "ann".into(),
                server: ServerAddress {
                    host: "db.internal".into(),
                    port: 5432,
                    peer: None,
                },
            }),
        }
    }

    fn observe(&self, record: &QueryRecord<'_>) {
        let worker = self.worker.borrow();
        let worker = worker.as_ref().unwrap();
        worker.observe(&self.pool, &self.identity, record, now());
    }

    async fn shutdown(&self) {
        self.shutdown_within(Duration::from_secs(10)).await;
    }

    async fn shutdown_within(&self, limit: Duration) {
        self.worker.take();
        let telemetry = self.telemetry.take().unwrap();
        telemetry.shutdown(limit).await;
    }

    fn dropped(&self, reason: SpanDrop) -> u64 {
        self.registry.process.spans_dropped.of(reason).value()
    }
}

/// A collector that hands on what it gets.
struct Collector {
    address: SocketAddr,
    exports: mpsc::UnboundedReceiver<Export>,
}

struct Export {
    tenant: Option<String>,
    path: String,
    request: ExportTraceServiceRequest,
}

impl Collector {
    async fn grpc() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, exports) = mpsc::unbounded_channel();
        let serving = tonic::transport::Server::builder()
            .serve_with_incoming(service(sender), TcpIncoming::from(listener));
        tokio::spawn(serving);
        Self { address, exports }
    }

    /// Passes the body of each request to the same service, as the one message of a gRPC request.
    async fn http() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, exports) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                let sender = sender.clone();
                let answer =
                    service_fn(move |request| answer_http(service(sender.clone()), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(connection), answer),
                );
            }
        });
        Self { address, exports }
    }

    fn base(&self) -> String {
        base(self.address)
    }
}

async fn answer_http(
    mut service: TraceServiceServer<Collecting>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, std::convert::Infallible> {
    let (parts, body) = request.into_parts();
    assert_eq!(parts.headers["content-type"], "application/x-protobuf");
    let is_packed = match parts.headers.get("content-encoding") {
        Some(encoding) => encoding == "gzip",
        None => false,
    };
    let body = body.collect().await.unwrap().to_bytes();
    let mut message = vec![u8::from(is_packed)];
    message.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    message.extend(&body);

    let mut grpc = hyper::Request::new(tonic::body::Body::new(Full::new(Bytes::from(message))));
    *grpc.uri_mut() = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
        .parse()
        .unwrap();
    *grpc.headers_mut() = parts.headers;
    let path = parts.uri.path().parse().unwrap();
    grpc.headers_mut().insert("x-path", path);
    if is_packed {
        let gzip = "gzip".parse().unwrap();
        grpc.headers_mut().insert("grpc-encoding", gzip);
    }
    service.call(grpc).await.unwrap();
    Ok(hyper::Response::default())
}

fn service(sender: mpsc::UnboundedSender<Export>) -> TraceServiceServer<Collecting> {
    TraceServiceServer::new(Collecting(sender)).accept_compressed(CompressionEncoding::Gzip)
}

struct Collecting(mpsc::UnboundedSender<Export>);

#[tonic::async_trait]
impl TraceService for Collecting {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let header = |name: &str| {
            let value = request.metadata().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let export = Export {
            tenant: header("x-tenant"),
            path: header("x-path").unwrap_or_default(),
            request: request.into_inner(),
        };
        // A test that is over has stopped listening.
        let _ = self.0.send(export);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

fn base(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn settings(endpoint: &str, protocol: OtlpProtocol) -> OtlpSettings {
    OtlpSettings {
        service_name: "shop-db".into(),
        schedule_delay: Duration::from_millis(1),
        ..OtlpSettings::new(OtlpEndpoint::Base(endpoint.into()), protocol)
    }
}

fn registry() -> Registry {
    let labels = MetricLabels {
        annotation_reasons: &["annotated"],
        pgbouncer_version: "PgBouncer 1.25.2".into(),
    };
    Registry::new(labels, now())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test of what waits for a real clock"
)]
fn now() -> Instant {
    Instant::now()
}

fn start(
    settings: &OtlpSettings,
    lines: Lines,
    process: Arc<ProcessMetrics>,
) -> Result<Telemetry, TelemetryError> {
    let statistics = StatisticsSettings::default();
    let now = (now(), SystemTime::now());
    Telemetry::start(Some(settings), statistics, lines, process, now)
}

/// A query of 200 ms that nobody said anything about.
fn slow_query() -> QueryRecord<'static> {
    QueryRecord {
        sql: b"SELECT * FROM orders WHERE card = '4111'",
        kind: QueryKind::Simple,
        phases: Phases {
            first_byte: Duration::from_millis(200),
            ..Phases::default()
        },
        outcome: Outcome::Completed,
        rows: 3,
        trace: None,
        context: ContextState::None,
        server_pid: 42,
        warnings: &[],
    }
}

fn application(sampled: bool) -> Arc<TraceContext> {
    Arc::new(TraceContext {
        parent: Some(TraceParent {
            trace_id: TraceId::from_bytes([0xaa; 16]).unwrap(),
            span_id: SpanId::from_bytes([0xbb; 8]).unwrap(),
            sampled,
        }),
        tracestate: Some("vendor=1".into()),
        correlation_id: Some("order-7".into()),
        tags: Vec::new(),
    })
}

fn spans(request: &ExportTraceServiceRequest) -> Vec<Span> {
    (request.resource_spans.iter())
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| scope.spans.clone())
        .collect()
}

fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    (attributes.iter())
        .map(|attribute| {
            let value = attribute.value.clone().unwrap().value.unwrap();
            let text = match value {
                Value::StringValue(text) => text,
                other => format!("{other:?}"),
            };
            (attribute.key.clone(), text)
        })
        .collect()
}
