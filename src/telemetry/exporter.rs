//! Spans on their way to a collector: a bounded queue, batches, a time limit, and a count of what got lost.
//!
//! An own loop instead of the SDK's batch processor, which ignores the time limit of an export and hides what it drops.
//! One batch is under way at a time; meanwhile the queue fills, and once it is full further spans are dropped. So a
//! collector that is slow, dead or silent costs spans, and neither time nor memory.

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper_rustls::HttpsConnectorBuilder;
use opentelemetry::KeyValue;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    Compression, ExporterBuildError, Protocol, WithExportConfig, WithHttpConfig, WithTonicConfig,
    tonic_types::metadata::MetadataMap,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter as Export};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};
use tonic::transport::Endpoint;

use crate::config::choices::OtlpProtocol;
use crate::config::tls::{Tls, TlsMode};
use crate::net::tls::{self, TlsError};
use crate::telemetry::labels::SpanDrop;
use crate::telemetry::metrics::ProcessMetrics;
use crate::telemetry::query_text::QueryText;
use crate::telemetry::slow_query::{MAX_KEPT_TEXT, NotableQuery};
use crate::telemetry::span::spans_of;

/// Where spans go and how, with every `OTEL_*` variable resolved by the caller.
///
/// opentelemetry-otlp itself adds the headers of `OTEL_EXPORTER_OTLP_TRACES_HEADERS` or `OTEL_EXPORTER_OTLP_HEADERS`, over those
/// given here, and takes the compression of `…_COMPRESSION` where none is given here. It can not be told not to; a caller who lets
/// the variables override the configuration, as the specification has it, gets the same either way. Everything else is taken from here.
#[derive(Clone, PartialEq, Eq)]
pub struct OtlpSettings {
    /// Where the collector is.
    pub endpoint: OtlpEndpoint,
    /// How spans travel.
    pub protocol: OtlpProtocol,
    /// Whether they are packed with gzip.
    pub gzip: bool,
    /// Headers of every request; their values are secrets.
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// How a collector behind TLS is known, and we are.
    pub tls: Tls,
    /// `service.name`.
    pub service_name: Box<str>,
    /// The resource's other attributes.
    pub resource_attributes: Vec<(Box<str>, Box<str>)>,
    /// How many queries' spans may wait for export.
    pub queue_size: usize,
    /// How many queries' spans make a full batch.
    pub max_export_batch_size: usize,
    /// How long the first span of a batch waits for others.
    pub schedule_delay: Duration,
    /// How long one export may take, retries included.
    pub export_timeout: Duration,
    /// How many queries get spans in one second; 0: without limit.
    pub max_spans_per_second: usize,
    /// Which attributes spans may have.
    pub attributes: AttributeRules,
}

/// Which attributes spans may have. A name that ends with `*` stands for all that begin so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeRules {
    /// Those alone.
    pub include: Vec<Box<str>>,
    /// And of those not these.
    pub exclude: Vec<Box<str>>,
}

impl Default for AttributeRules {
    fn default() -> Self {
        Self {
            include: vec!["*".into()],
            exclude: Vec::new(),
        }
    }
}

impl AttributeRules {
    fn allow(&self, name: &str) -> bool {
        let matches = |rules: &[Box<str>]| {
            (rules.iter()).any(|rule| match rule.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                None => **rule == *name,
            })
        };
        matches(&self.include) && !matches(&self.exclude)
    }

    fn are_all(&self) -> bool {
        *self == Self::default()
    }
}

/// A collector's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OtlpEndpoint {
    /// For all signals; over HTTP `/v1/traces` is added. As `OTEL_EXPORTER_OTLP_ENDPOINT`.
    Base(Box<str>),
    /// For traces, taken as it is. As `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`.
    Traces(Box<str>),
}

impl OtlpSettings {
    /// The defaults of `config.toml` for a collector at `endpoint`.
    pub fn new(endpoint: OtlpEndpoint, protocol: OtlpProtocol) -> Self {
        Self {
            endpoint,
            protocol,
            gzip: false,
            headers: Vec::new(),
            tls: Tls::of(TlsMode::VerifyFull),
            service_name: "pgspan".into(),
            resource_attributes: Vec::new(),
            queue_size: 1_000,
            max_export_batch_size: 512,
            schedule_delay: Duration::from_secs(5),
            export_timeout: Duration::from_secs(3),
            max_spans_per_second: 1_000,
            attributes: AttributeRules::default(),
        }
    }

    fn url(&self) -> String {
        match (&self.endpoint, self.protocol) {
            (OtlpEndpoint::Base(base), OtlpProtocol::HttpProtobuf) => {
                format!("{}/v1/traces", base.trim_end_matches('/'))
            }
            (OtlpEndpoint::Base(url) | OtlpEndpoint::Traces(url), _) => url.to_string(),
        }
    }

    fn resource(&self) -> Resource {
        let attributes = (self.resource_attributes.iter())
            .map(|(key, value)| KeyValue::new(key.to_string(), value.to_string()));
        // Empty, as the other builder would read variables of its own.
        Resource::builder_empty()
            .with_attributes(attributes)
            .with_service_name(self.service_name.to_string())
            .build()
    }

    /// An exporter with these settings. Connects when it is used first. Needs a tokio runtime around it.
    fn build(&self) -> Result<opentelemetry_otlp::SpanExporter, OtlpError> {
        let url = self.url();
        let scheme = url.get(..8).unwrap_or_default();
        let tls = match scheme.eq_ignore_ascii_case("https://") {
            true => Some(tls::for_https(&self.tls)?),
            false => None,
        };
        // The time limit is the exporter's own; the transport's must not be there first, or a timeout would look like a failure.
        let transport_timeout = self.export_timeout.saturating_mul(2);
        let builder = opentelemetry_otlp::SpanExporter::builder();
        let mut exporter = match self.protocol {
            OtlpProtocol::Grpc => {
                let mut builder = builder
                    .with_tonic()
                    .with_endpoint(&url)
                    .with_timeout(transport_timeout)
                    .with_metadata(self.metadata()?);
                if let Some(tls) = tls {
                    let connector = HttpsConnectorBuilder::new()
                        .with_tls_config(tls)
                        .https_only()
                        .enable_http2()
                        .build();
                    let endpoint = Endpoint::from_shared(url).map_err(|_| OtlpError::Address)?;
                    let channel = endpoint
                        .timeout(transport_timeout)
                        .connect_with_connector_lazy(connector);
                    builder = builder.with_channel(channel);
                }
                if self.gzip {
                    builder = builder.with_compression(Compression::Gzip);
                }
                builder.build()
            }
            OtlpProtocol::HttpProtobuf => {
                self.metadata()?;
                let headers: HashMap<String, String> = (self.headers.iter())
                    .map(|(name, value)| (name.to_string(), value.to_string()))
                    .collect();
                let mut builder = builder
                    .with_http()
                    .with_protocol(Protocol::HttpBinary)
                    .with_endpoint(url)
                    .with_timeout(transport_timeout)
                    .with_headers(headers);
                if let Some(tls) = tls {
                    let connector = HttpsConnectorBuilder::new()
                        .with_tls_config(tls)
                        .https_only()
                        .enable_http1()
                        .build();
                    builder = builder.with_http_client(HyperClient::new(
                        connector,
                        transport_timeout,
                        None,
                    ));
                }
                if self.gzip {
                    builder = builder.with_compression(Compression::Gzip);
                }
                builder.build()
            }
        }?;
        exporter.set_resource(&self.resource());
        Ok(exporter)
    }

    /// The headers, checked: both transports would drop those that are none without a word.
    fn metadata(&self) -> Result<MetadataMap, OtlpError> {
        let mut metadata = MetadataMap::new();
        for (name, value) in &self.headers {
            let invalid = || OtlpError::Header { name: name.clone() };
            let key: MetadataKey<Ascii> =
                (name.to_ascii_lowercase().parse()).map_err(|_| invalid())?;
            let mut value: MetadataValue<Ascii> = value.parse().map_err(|_| invalid())?;
            value.set_sensitive(true);
            metadata.insert(key, value);
        }
        Ok(metadata)
    }
}

impl fmt::Debug for OtlpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("OtlpSettings")
            .field("endpoint", &self.endpoint)
            .field("protocol", &self.protocol)
            .field("gzip", &self.gzip)
            .field("headers", &names)
            .field("tls", &self.tls)
            .field("service_name", &self.service_name)
            .field("resource_attributes", &self.resource_attributes)
            .field("queue_size", &self.queue_size)
            .field("max_export_batch_size", &self.max_export_batch_size)
            .field("schedule_delay", &self.schedule_delay)
            .field("export_timeout", &self.export_timeout)
            .field("max_spans_per_second", &self.max_spans_per_second)
            .field("attributes", &self.attributes)
            .finish()
    }
}

/// Why there is no exporter.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// TLS with the collector can't be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No address of a collector.
    #[error("the OTLP endpoint is no URL")]
    Address,
    /// A header that HTTP would not take.
    #[error("the OTLP header {name:?} has an invalid name or value")]
    Header {
        /// The header's name.
        name: Box<str>,
    },
    /// The endpoint is not a URL, for one.
    #[error(transparent)]
    Build(#[from] ExporterBuildError),
}

/// The queue of spans and the task that empties it.
#[derive(Debug)]
pub struct SpanExporter {
    queue: SpanQueue,
    stop: watch::Sender<Option<Instant>>,
    task: tokio::task::JoinHandle<()>,
}

/// The way into the queue, for workers.
#[derive(Clone, Debug)]
pub struct SpanQueue {
    sender: mpsc::Sender<Arc<NotableQuery>>,
    budget: Arc<Budget>,
    process: Arc<ProcessMetrics>,
}

/// How many queries may still get spans in this second. Of all workers; only notable queries come here.
#[derive(Debug)]
struct Budget {
    per_second: u64,
    second: AtomicU64,
    spent: AtomicU64,
}

impl Budget {
    fn new(per_second: usize) -> Self {
        Self {
            per_second: per_second as u64,
            second: AtomicU64::new(0),
            spent: AtomicU64::new(0),
        }
    }

    fn admits(&self, now: SystemTime) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let second = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        if self.second.swap(second, Relaxed) != second {
            self.spent.store(0, Relaxed);
        }
        self.spent.fetch_add(1, Relaxed) < self.per_second
    }
}

impl SpanQueue {
    /// Room for one query's spans, or `None` where the queue is full or the budget of the second is spent, which is counted as a
    /// drop. Never waits.
    pub fn reserve(&self, now: SystemTime) -> Option<Room<'_>> {
        if !self.budget.admits(now) {
            self.process.spans_dropped.of(SpanDrop::Budget).increase();
            return None;
        }
        let dropped = match self.sender.try_reserve() {
            Ok(permit) => {
                return Some(Room {
                    permit,
                    process: &self.process,
                });
            }
            Err(mpsc::error::TrySendError::Full(())) => SpanDrop::QueueFull,
            Err(mpsc::error::TrySendError::Closed(())) => SpanDrop::Shutdown,
        };
        self.process.spans_dropped.of(dropped).increase();
        None
    }
}

/// Room in the queue for one query's spans.
#[derive(Debug)]
pub struct Room<'a> {
    permit: mpsc::Permit<'a, Arc<NotableQuery>>,
    process: &'a ProcessMetrics,
}

impl Room<'_> {
    /// Fills it.
    pub fn send(self, query: Arc<NotableQuery>) {
        // Before it can be taken out, so that the length never falls below zero.
        self.process.span_queue_length.increase();
        self.permit.send(query);
    }
}

impl SpanExporter {
    /// Starts exporting on the runtime that this is called on.
    ///
    /// # Errors
    /// The settings make no exporter. That the collector is not there is no error.
    pub fn start(settings: &OtlpSettings, process: Arc<ProcessMetrics>) -> Result<Self, OtlpError> {
        let export = settings.build()?;
        Ok(Self::start_with(export, settings, process))
    }

    fn start_with<E: Export + 'static>(
        export: E,
        settings: &OtlpSettings,
        process: Arc<ProcessMetrics>,
    ) -> Self {
        let (sender, queries) = mpsc::channel(settings.queue_size.max(1));
        process
            .span_queue_capacity
            .set(sender.max_capacity() as u64);
        let (stop, stopped) = watch::channel(None);
        let exporting = Exporting {
            export,
            queries,
            stopped,
            batch_size: settings.max_export_batch_size.max(1),
            schedule_delay: settings.schedule_delay,
            export_timeout: settings.export_timeout,
            attributes: settings.attributes.clone(),
            process: Arc::clone(&process),
            is_failing: false,
        };
        Self {
            queue: SpanQueue {
                sender,
                budget: Arc::new(Budget::new(settings.max_spans_per_second)),
                process,
            },
            stop,
            task: tokio::spawn(exporting.run()),
        }
    }

    /// The way into the queue.
    pub fn queue(&self) -> SpanQueue {
        self.queue.clone()
    }

    /// Takes no more spans and exports those that wait, for no longer than `limit`; what is left then is dropped and counted.
    /// Not cancel safe: the spans that wait are lost uncounted.
    pub async fn shutdown(self, limit: Duration) {
        self.stop.send_replace(Some(Instant::now() + limit));
        // Only a bug ends the task in another way than by returning; there is nothing left to do for it.
        let _ = self.task.await;
    }
}

struct Exporting<E> {
    export: E,
    queries: mpsc::Receiver<Arc<NotableQuery>>,
    /// When everything has to be over, once that is known.
    stopped: watch::Receiver<Option<Instant>>,
    batch_size: usize,
    schedule_delay: Duration,
    export_timeout: Duration,
    attributes: AttributeRules,
    process: Arc<ProcessMetrics>,
    /// Whether the last export failed.
    is_failing: bool,
}

enum Filled {
    Batch,
    Closed,
}

impl<E: Export> Exporting<E> {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(self.batch_size);
        loop {
            let filled = self.fill(&mut batch).await;
            while !batch.is_empty() {
                let export = batch.drain(..export_size(&batch)).collect();
                self.export(export).await;
            }
            if let Filled::Closed = filled {
                return;
            }
        }
    }

    /// Waits until a batch is full, or its first span has waited for the delay. `Closed` says that it is the last.
    async fn fill(&mut self, batch: &mut Vec<Arc<NotableQuery>>) -> Filled {
        let mut due: Option<Instant> = None;
        while batch.len() < self.batch_size {
            let room = self.batch_size - batch.len();
            // Far away where nothing waits: the other branches end that.
            let deadline = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400));
            let received = tokio::select! {
                biased;
                // The end first: a queue that is never empty must not hide it.
                () = stop_wanted(&mut self.stopped), if !self.queries.is_closed() => {
                    // What is in the queue still comes out of it, then 0 does.
                    self.queries.close();
                    continue;
                }
                received = self.queries.recv_many(batch, room) => received,
                () = tokio::time::sleep_until(deadline) => {
                    if due.is_some() { return Filled::Batch } else { continue }
                }
            };
            self.process.span_queue_length.subtract(received as u64);
            if received == 0 {
                return Filled::Closed;
            }
            due.get_or_insert_with(|| Instant::now() + self.schedule_delay);
        }
        Filled::Batch
    }

    async fn export(&mut self, queries: Vec<Arc<NotableQuery>>) {
        let count = queries.len() as u64;
        let mut spans: Vec<SpanData> = (queries.into_iter())
            .flat_map(|query| {
                let mut text = QueryText::of(&query.sql, query.telling.masked, MAX_KEPT_TEXT);
                if let Some(own) = QueryText::parameterised(&query.sql, query.kind, MAX_KEPT_TEXT) {
                    text.text = Some(own);
                }
                spans_of(&query, &text)
            })
            .collect();
        if !self.attributes.are_all() {
            for span in &mut spans {
                (span.attributes).retain(|attribute| self.attributes.allow(attribute.key.as_str()));
            }
        }
        let dropped = tokio::select! {
            biased;
            result = export_with_retries(&self.export, spans) => match result {
                Ok(()) => {
                    self.process.spans_exported.add(count);
                    self.on_success();
                    return;
                }
                Err(error) => {
                    self.on_failure(&error);
                    SpanDrop::ExportFailed
                }
            },
            () = deadline_passed(&mut self.stopped) => SpanDrop::Shutdown,
            () = tokio::time::sleep(self.export_timeout) => {
                self.on_failure(&"no answer in time");
                SpanDrop::Timeout
            }
        };
        self.process.spans_dropped.of(dropped).add(count);
    }

    fn on_success(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            tracing::info!("spans reach the collector again");
        }
    }

    /// Says it once, not for every batch: how many are lost is counted.
    fn on_failure(&mut self, error: &dyn Display) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(%error, "spans do not reach the collector");
        }
    }
}

/// What failed is tried again so often, as far as the time limit of the export lets it.
pub const MAX_RETRIES: u32 = 2;

/// How long the first retry waits, the second twice as long.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

async fn export_with_retries<E: Export>(export: &E, spans: Vec<SpanData>) -> OTelSdkResult {
    for attempt in 0..MAX_RETRIES {
        match export.export(spans.clone()).await {
            Err(OTelSdkError::InternalFailure(_) | OTelSdkError::Timeout(_)) => {
                tokio::time::sleep(RETRY_PAUSE * 2_u32.pow(attempt)).await;
            }
            result => return result,
        }
    }
    export.export(spans).await
}

/// How many queries of a batch go into the next export: as many as have [`MAX_EXPORT_TEXT`] together, and at least one.
fn export_size(batch: &[Arc<NotableQuery>]) -> usize {
    let mut text = 0;
    let fitting = batch.iter().take_while(|query| {
        text += query.sql.len();
        text <= MAX_EXPORT_TEXT
    });
    fitting.count().max(1)
}

/// How many bytes of queries one export has at most: collectors refuse a gRPC message of more than 4 MiB. A byte
/// that is no UTF-8 becomes three, and what comes with a query is about as long again.
const MAX_EXPORT_TEXT: usize = 512 * 1024;

/// Returns once the end is wanted, or nobody is left who could want it.
async fn stop_wanted(stopped: &mut watch::Receiver<Option<Instant>>) {
    // An error says that the exporter was dropped without a shutdown: that is an end too.
    let _ = stopped.wait_for(Option::is_some).await;
}

/// Returns at the deadline of the end; never where none is wanted.
async fn deadline_passed(stopped: &mut watch::Receiver<Option<Instant>>) {
    let deadline = (stopped.wait_for(Option::is_some).await).map_or(None, |deadline| *deadline);
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
