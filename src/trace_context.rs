//! Whose query it is: W3C trace context, correlation id and tags.
//!
//! Source: <https://www.w3.org/TR/trace-context/>.

mod correlation_id;
mod hex;
mod trace_parent;
mod trace_state;

use std::fmt;

pub use correlation_id::{InvalidCorrelationId, parse_correlation_id};
pub use trace_parent::InvalidTraceParent;
pub use trace_state::{InvalidTraceState, parse_trace_state};

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
    /// The application passed one that has been in use for suspiciously long.
    Stale,
    /// The application passed one that breaks the rules.
    Invalid,
    /// There is none.
    None,
}

impl TraceContext {
    /// Whether nothing at all is known.
    pub fn is_empty(&self) -> bool {
        self.parent.is_none()
            && self.tracestate.is_none()
            && self.correlation_id.is_none()
            && self.tags.is_empty()
    }

    /// The value of a tag.
    pub fn tag(&self, key: &str) -> Option<&str> {
        let at = self.find_tag(key).ok()?;
        self.tags.get(at).map(|(_, value)| &**value)
    }

    /// Sets a tag, or takes it away where the value is empty. The tags stay sorted.
    pub fn set_tag(&mut self, key: &str, value: &str) {
        match (self.find_tag(key), value.is_empty()) {
            (Ok(at), true) => drop(self.tags.remove(at)),
            (Ok(at), false) => self.tags[at].1 = value.into(),
            (Err(_), true) => {}
            (Err(at), false) => self.tags.insert(at, (key.into(), value.into())),
        }
    }

    fn find_tag(&self, key: &str) -> Result<usize, usize> {
        self.tags.binary_search_by(|(known, _)| (**known).cmp(key))
    }
}

impl TraceId {
    /// The id, or `None` for the invalid one of zeros.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Reads 32 lower-case hex digits that are not all zero.
    pub fn parse(text: &[u8]) -> Option<Self> {
        hex::decode(text).and_then(Self::from_bytes)
    }

    /// Its bytes.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Appends its 32 hex digits.
    pub fn write_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(hex::encode(self.0, &mut [0; 32]).as_bytes());
    }
}

impl SpanId {
    /// The id, or `None` for the invalid one of zeros.
    pub fn from_bytes(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// Reads 16 lower-case hex digits that are not all zero.
    pub fn parse(text: &[u8]) -> Option<Self> {
        hex::decode(text).and_then(Self::from_bytes)
    }

    /// Its bytes.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0
    }

    /// Appends its 16 hex digits.
    pub fn write_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(hex::encode(self.0, &mut [0; 16]).as_bytes());
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(hex::encode(self.0, &mut [0; 32]))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(hex::encode(self.0, &mut [0; 16]))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_in_lower_case_and_never_zero() {
        let id = TraceId::parse(b"4bf92f3577b34da6a3ce929d0e0e4736").unwrap();
        assert_eq!(id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(TraceId::parse(&[b'0'; 32]), None);
        assert_eq!(TraceId::parse(b"4BF92F3577B34DA6A3CE929D0E0E4736"), None);
        assert_eq!(SpanId::parse(b"00f067aa0ba902b"), None);
        let mut out = Vec::new();
        SpanId::parse(b"00f067aa0ba902b7")
            .unwrap()
            .write_to(&mut out);
        assert_eq!(out, b"00f067aa0ba902b7");
    }

    #[test]
    fn tags_stay_sorted_and_an_empty_value_takes_one_away() {
        let mut context = TraceContext::default();
        context.set_tag("route", "/a");
        context.set_tag("action", "b");
        context.set_tag("route", "/c");
        context.set_tag("framework", "");
        assert_eq!(
            context.tags,
            [("action".into(), "b".into()), ("route".into(), "/c".into())]
        );
        context.set_tag("action", "");
        assert_eq!(context.tag("action"), None);
        assert_eq!(context.tag("route"), Some("/c"));
    }
}
