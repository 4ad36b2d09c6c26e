//! Whose query it is: W3C trace context, correlation id and tags.
//!
//! Source: <https://www.w3.org/TR/trace-context/>.

use std::fmt;

/// The id of a trace: 16 bytes, never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// The id of a span: 8 bytes, never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

/// A `traceparent`: the application's span, which is the parent of what the proxy and the server do for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: TraceId,
    /// The application's span.
    pub span_id: SpanId,
    /// Whether the application records this trace.
    pub sampled: bool,
}

/// What is known of who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// The application's span.
    pub parent: Option<TraceParent>,
    /// The vendor's part, as received.
    pub tracestate: Option<Box<str>>,
    /// The application's own id of the request.
    pub correlation_id: Option<Box<str>>,
    /// Tags by key, sorted by key, not encoded.
    pub tags: Vec<(Box<str>, Box<str>)>,
}

/// How a query's context came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContextState {
    /// The application passed one.
    Provided,
    /// The proxy made one up.
    Generated,
    /// The application passed one that breaks the rules.
    Invalid,
    /// There is none.
    None,
}

impl TraceId {
    /// The id, or `None` for the invalid one of zeros.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl SpanId {
    /// The id, or `None` for the invalid one of zeros.
    pub fn from_bytes(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
