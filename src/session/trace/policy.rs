//! What a session may say of its trace, and what holds where it says nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::sql::comment::Comment;
use crate::trace_context::{
    SpanId, TraceContext, TraceId, TraceParent, parse_correlation_id, parse_trace_state,
};

/// The rules of a database and user, as configured.
#[derive(Clone, Debug)]
pub struct TraceRules {
    /// Where the random bytes of a made-up trace come from; `None`: a transaction without a trace stays without one.
    pub generate: Option<fn() -> [u8; 24]>,
    /// Whether an application_name that is a traceparent is one.
    pub absorb_application_name: bool,
    /// The keys that tags may have.
    pub allowed_tags: Vec<Box<str>>,
    /// Tags of every query, unless the application says otherwise.
    pub static_tags: Vec<(Box<str>, Box<str>)>,
    /// Longest value of a tag, in bytes.
    pub tag_length: usize,
    /// Longest correlation id, in bytes.
    pub correlation_id_length: usize,
    /// Longest tracestate, in bytes.
    pub tracestate_length: usize,
    /// A trace that more transactions of a session have than these is stale.
    pub stale_transactions: u32,
    /// So is one that is in use for longer.
    pub stale_after: Duration,
}

impl Default for TraceRules {
    fn default() -> Self {
        let keys = [
            "application",
            "route",
            "controller",
            "action",
            "framework",
            "db_driver",
        ];
        Self {
            generate: None,
            absorb_application_name: true,
            allowed_tags: keys.map(Box::from).into(),
            static_tags: Vec::new(),
            tag_length: 128,
            correlation_id_length: 128,
            tracestate_length: 512,
            stale_transactions: u32::MAX,
            stale_after: Duration::MAX,
        }
    }
}

/// The rules, ready for use; shared by the sessions they hold for.
#[derive(Debug)]
pub struct TracePolicy {
    rules: TraceRules,
    /// What is known of a session that says nothing.
    base: Arc<TraceContext>,
}

impl TracePolicy {
    /// Prepares the rules.
    pub fn new(rules: TraceRules) -> Self {
        let mut base = TraceContext::default();
        for (key, value) in &rules.static_tags {
            base.set_tag(key, value);
        }
        Self {
            rules,
            base: Arc::new(base),
        }
    }

    /// The rules as configured.
    pub fn rules(&self) -> &TraceRules {
        &self.rules
    }

    pub(super) fn base(&self) -> &Arc<TraceContext> {
        &self.base
    }

    /// The field of that name, without `pgspan.`; like PostgreSQL's parameters, names have no case.
    pub fn field(&self, name: &[u8]) -> Option<Field> {
        let fixed = FIXED
            .iter()
            .find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name));
        if let Some((_, field)) = fixed {
            return Some(*field);
        }
        let tag = self
            .rules
            .allowed_tags
            .iter()
            .position(|tag| tag.as_bytes().eq_ignore_ascii_case(name))?;
        u16::try_from(tag).ok().map(Field::Tag)
    }

    /// The field's name, without `pgspan.`.
    pub fn name(&self, field: Field) -> &str {
        match field {
            Field::Tag(_) => self.tag_key(field).unwrap_or_default(),
            _ => FIXED
                .iter()
                .find(|(_, known)| *known == field)
                .map_or("", |(name, _)| name),
        }
    }

    pub(super) fn tag_key(&self, field: Field) -> Option<&str> {
        let Field::Tag(index) = field else {
            return None;
        };
        self.rules
            .allowed_tags
            .get(usize::from(index))
            .map(|key| &**key)
    }

    /// Whether a tag may be kept: its key is allowed, and its value is not too long.
    pub(super) fn accepts_tag(&self, key: &str, value: &str) -> bool {
        self.allows_tag(key) && value.len() <= self.rules.tag_length
    }

    /// What is left out of a valid text for [`Field::Tags`].
    pub(super) fn tags_left_out(&self, text: &str) -> Option<InvalidValue> {
        let tags = Comment::parse_pairs(text.as_bytes())?;
        let is_complete = tags
            .pairs()
            .all(|(key, value)| self.accepts_tag(&key, &value));
        (!is_complete).then(|| {
            let TraceRules {
                allowed_tags,
                tag_length,
                ..
            } = &self.rules;
            InvalidValue::new(
                "pgspan.tags".to_owned(),
                &format_args!(
                    "only the tags {} are kept, with values of up to {tag_length} bytes",
                    allowed_tags.join(", ")
                ),
            )
        })
    }

    /// Whether the key is one of the allowed tags.
    pub fn allows_tag(&self, key: &str) -> bool {
        self.rules.allowed_tags.iter().any(|known| **known == *key)
    }

    /// The warning for a name that is no field's; it says which is the nearest.
    pub fn unknown_field(&self, name: &[u8]) -> ErrorResponse {
        let name = String::from_utf8_lossy(name);
        let warning = ErrorResponse::warning(
            SqlState::UNDEFINED_OBJECT,
            format!("unrecognized configuration parameter \"pgspan.{name}\""),
        );
        // Comparing takes the product of both lengths.
        if name.len() > 63 {
            return warning;
        }
        let names = FIXED.iter().map(|(name, _)| *name);
        let tags = self.rules.allowed_tags.iter().map(|tag| &**tag);
        match names
            .chain(tags)
            .min_by_key(|known| strsim::levenshtein(&name, known))
        {
            Some(nearest) => warning.with_hint(format!("Perhaps you meant \"pgspan.{nearest}\".")),
            None => warning,
        }
    }

    /// Checks a value by its field's rules. An empty one says that there is none.
    pub(super) fn check(&self, field: Field, text: &[u8]) -> Result<Arc<str>, InvalidValue> {
        let parameter = || format!("pgspan.{}", self.name(field));
        let invalid = |rule: &dyn fmt::Display| InvalidValue::new(parameter(), rule);
        let as_text = |text| str::from_utf8(text).map_err(|_| invalid(&"it must be UTF-8"));
        if text.is_empty() {
            return Ok(Arc::from(""));
        }
        let rules = &self.rules;
        match field {
            Field::TraceParent => {
                let parent = TraceParent::parse(text).map_err(|rule| invalid(&rule))?;
                Ok(parent.to_string().into())
            }
            Field::TraceState => Ok(parse_trace_state(text, rules.tracestate_length)
                .map_err(|rule| invalid(&rule))?
                .unwrap_or_default()
                .into()),
            Field::TraceId => match TraceId::parse(text) {
                Some(id) => Ok(id.to_string().into()),
                None => Err(invalid(
                    &"it must be 32 lower-case hex digits, not all zero",
                )),
            },
            Field::SpanId => match SpanId::parse(text) {
                Some(id) => Ok(id.to_string().into()),
                None => Err(invalid(
                    &"it must be 16 lower-case hex digits, not all zero",
                )),
            },
            Field::CorrelationId => Ok(parse_correlation_id(text, rules.correlation_id_length)
                .map_err(|rule| invalid(&rule))?
                .unwrap_or_default()
                .into()),
            Field::Tag(_) if text.len() > rules.tag_length => Err(invalid(&"it is too long")),
            Field::Tag(_) => as_text(text).map(Arc::from),
            Field::Tags if text.len() > TAGS_LENGTH => Err(invalid(&"it is too long")),
            Field::Tags => {
                Comment::parse_pairs(text)
                    .ok_or_else(|| invalid(&"it must be key='value', separated by commas"))?;
                as_text(text).map(Arc::from)
            }
        }
    }
}

/// What can be set, `pgspan.<field>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The application's span, W3C.
    TraceParent,
    /// The vendor's part, W3C.
    TraceState,
    /// One half of the plain pair.
    TraceId,
    /// The other half.
    SpanId,
    /// The application's own id of the request.
    CorrelationId,
    /// Several tags at once, in sqlcommenter's syntax.
    Tags,
    /// One tag: its place among the allowed ones.
    Tag(u16),
}

/// A value that breaks its field's rules. The value itself is not repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidValue {
    parameter: String,
    rule: String,
}

impl InvalidValue {
    fn new(parameter: String, rule: &dyn fmt::Display) -> Self {
        Self {
            parameter,
            rule: rule.to_string(),
        }
    }

    /// The warning that is answered; the command itself succeeds.
    pub fn to_warning(&self) -> ErrorResponse {
        let Self { parameter, rule } = self;
        ErrorResponse::warning(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid value for parameter \"{parameter}\": {rule}"),
        )
    }
}

const FIXED: [(&str, Field); 6] = [
    ("traceparent", Field::TraceParent),
    ("tracestate", Field::TraceState),
    ("trace_id", Field::TraceId),
    ("span_id", Field::SpanId),
    ("correlation_id", Field::CorrelationId),
    ("tags", Field::Tags),
];

/// Longest text of `pgspan.tags`, in bytes.
const TAGS_LENGTH: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_case_and_the_nearest_is_named() {
        let policy = TracePolicy::new(TraceRules::default());
        assert_eq!(policy.field(b"TraceParent"), Some(Field::TraceParent));
        assert_eq!(policy.field(b"ROUTE"), Some(Field::Tag(1)));
        assert_eq!(policy.field(b"rout"), None);
        assert_eq!(
            policy.unknown_field(b"trace_parent").hint.as_deref(),
            Some("Perhaps you meant \"pgspan.traceparent\".")
        );
        assert_eq!(policy.unknown_field(&[b'x'; 1000]).hint, None);
    }

    #[test]
    fn each_field_has_its_rules() {
        let policy = TracePolicy::new(TraceRules {
            tag_length: 4,
            ..TraceRules::default()
        });
        let check = |field, text: &str| policy.check(field, text.as_bytes()).ok();
        assert_eq!(check(Field::Tag(0), "pay!"), Some("pay!".into()));
        assert_eq!(check(Field::Tag(0), "pay!!"), None);
        assert_eq!(
            check(Field::Tags, "route='%2Fa'"),
            Some("route='%2Fa'".into())
        );
        assert_eq!(policy.tags_left_out("route='%2Fa'"), None);
        assert!(policy.tags_left_out("route='%2Fabcd'").is_some());
        let left_out = policy.tags_left_out("user='1'").unwrap().to_warning();
        assert_eq!(
            left_out.message,
            "invalid value for parameter \"pgspan.tags\": only the tags application, route, controller, action, framework, db_driver are kept, with values of up to 4 bytes"
        );
        assert_eq!(check(Field::Tags, "route=1"), None);
        assert_eq!(
            check(Field::TraceState, " a=1,, b=2"),
            Some("a=1,b=2".into())
        );
        assert_eq!(check(Field::SpanId, "0"), None);
        assert_eq!(check(Field::CorrelationId, ""), Some("".into()));
        let invalid = policy.check(Field::TraceParent, b"secret").unwrap_err();
        assert_eq!(
            invalid.to_warning().message,
            "invalid value for parameter \"pgspan.traceparent\": a traceparent of version 00 has exactly 55 characters"
        );
    }
}
