//! A trace collector of one's own: takes spans over OTLP/gRPC and keeps the latest.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// A running collector; it ends when dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    kept: Kept,
    task: JoinHandle<()>,
}

/// The latest spans, shared between whoever receives and whoever reads them.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<Mutex<VecDeque<ReceivedSpan>>>);

/// A span, and who sent it.
#[derive(Clone, Debug)]
pub struct ReceivedSpan {
    /// The attributes of the resource, `service.name` among them.
    pub resource: Vec<KeyValue>,
    /// The span as it came.
    pub span: Span,
}

impl Collector {
    /// Listens on a free port of 127.0.0.1. Needs a tokio runtime to live in.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let kept = Kept::default();
        let service =
            TraceServiceServer::new(kept.clone()).accept_compressed(CompressionEncoding::Gzip);
        let task = tokio::spawn(async move {
            // Ends only by being aborted: a broken connection is its own affair.
            let _ = Server::builder()
                .serve_with_incoming(service, TcpIncoming::from(listener))
                .await;
        });
        Ok(Self {
            address,
            kept,
            task,
        })
    }

    /// What to configure as `otlp.endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans that have come so far.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kept {
    /// All of them, in the order of their coming.
    pub fn spans(&self) -> Vec<ReceivedSpan> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// Takes over what a request brings, and forgets the oldest in excess of the limit.
    pub fn take(&self, request: ExportTraceServiceRequest) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for resource_spans in request.resource_spans {
            let resource = resource_spans
                .resource
                .map(|resource| resource.attributes)
                .unwrap_or_default();
            let spans = resource_spans
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans);
            kept.extend(spans.map(|span| ReceivedSpan {
                resource: resource.clone(),
                span,
            }));
        }
        let excess = kept.len().saturating_sub(MOST_SPANS_KEPT);
        kept.drain(..excess);
    }
}

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse {
            partial_success: None,
        }))
    }
}

impl ReceivedSpan {
    /// An attribute of the span as text.
    pub fn attribute(&self, key: &str) -> Option<String> {
        text_of(&self.span.attributes, key)
    }

    /// An attribute of the resource as text.
    pub fn resource_attribute(&self, key: &str) -> Option<String> {
        text_of(&self.resource, key)
    }

    /// The trace id as everybody writes it: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        hexadecimal(&self.span.trace_id)
    }

    /// The span's own id.
    pub fn span_id(&self) -> String {
        hexadecimal(&self.span.span_id)
    }

    /// The parent's id; empty for a root.
    pub fn parent_span_id(&self) -> String {
        hexadecimal(&self.span.parent_span_id)
    }

    /// How long it took, in milliseconds.
    pub fn milliseconds(&self) -> f64 {
        let nanoseconds = self
            .span
            .end_time_unix_nano
            .saturating_sub(self.span.start_time_unix_nano);
        nanoseconds as f64 / 1e6
    }
}

fn text_of(attributes: &[KeyValue], key: &str) -> Option<String> {
    let AnyValue { value } = attributes
        .iter()
        .find(|attribute| attribute.key == key)?
        .value
        .as_ref()?;
    match value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        any_value::Value::DoubleValue(number) => Some(number.to_string()),
        any_value::Value::BoolValue(truth) => Some(truth.to_string()),
        other => Some(format!("{other:?}")),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const MOST_SPANS_KEPT: usize = 10_000;
