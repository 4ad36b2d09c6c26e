//! What was set, and what PostgreSQL's rules leave of it: SET LOCAL ends with the transaction, ROLLBACK undoes SET.

use std::rc::Rc;
use std::sync::Arc;

use thin_vec::ThinVec;

use super::policy::{Field, TracePolicy};
use crate::sql::comment::Comment;
use crate::trace_context::{ContextState, SpanId, TraceContext, TraceId, TraceParent};

/// Values in the order of their setting; a field is there once. One pointer where there are none, as in most layers of most
/// sessions: each session has seven.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings(ThinVec<(Field, Value)>);

/// A valid text, empty where the field was emptied; `None` for an invalid one, which hides what was there before.
pub(super) type Value = Option<Arc<str>>;

impl Settings {
    pub(super) fn set(&mut self, field: Field, value: Value) {
        self.remove(field);
        self.0.push((field, value));
    }

    fn remove(&mut self, field: Field) {
        self.0.retain(|(known, _)| *known != field);
    }

    pub(super) fn value(&self, field: Field) -> Option<&Value> {
        self.0
            .iter()
            .find(|(known, _)| *known == field)
            .map(|(_, value)| value)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How far a SET reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To the end of the session.
    Session,
    /// To the end of the transaction.
    Local,
}

/// Something that a command did to the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Set(Scope, Field, Value),
    /// Back to the startup value.
    Reset(Field),
    /// Everything back to the startup values.
    ResetAll,
    /// The transaction ended well; one that had failed was rolled back instead.
    Commit,
    Rollback,
    Savepoint(Box<[u8]>),
    Release(Box<[u8]>),
    RollbackTo(Box<[u8]>),
}

/// The layers above the startup values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layers {
    now: Now,
    /// The session's settings before this transaction changed them.
    undo: Option<Settings>,
    /// The innermost last. One that was made while there was nothing to restore is not kept.
    savepoints: ThinVec<(Box<[u8]>, Now)>,
    /// Whether the transaction can only be rolled back.
    failed: bool,
    /// Fields that a command has named: PostgreSQL keeps an empty parameter for each, whatever becomes of its value.
    /// Shared: layers are cloned with each SET, and these hardly ever change.
    named: Option<Rc<Vec<Field>>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Now {
    session: Settings,
    local: Settings,
}

impl Layers {
    /// Whether the end of the transaction, good or bad, changes nothing.
    pub(super) fn is_settled(&self) -> bool {
        self.now.local.is_empty()
            && self.undo.is_none()
            && self.savepoints.is_empty()
            && !self.failed
    }

    pub(super) fn apply(&mut self, change: &Change) {
        if let Change::Set(_, field, _) | Change::Reset(field) = change
            && !self.has_named(*field)
        {
            Rc::make_mut(self.named.get_or_insert_default()).push(*field);
        }
        match change {
            Change::Set(Scope::Session, field, value) => {
                self.keep_for_undo();
                self.now.local.remove(*field);
                self.now.session.set(*field, value.clone());
            }
            Change::Set(Scope::Local, field, value) => self.now.local.set(*field, value.clone()),
            Change::Reset(field) => {
                self.keep_for_undo();
                self.now.local.remove(*field);
                self.now.session.remove(*field);
            }
            Change::ResetAll => {
                self.keep_for_undo();
                self.now = Now::default();
            }
            Change::Commit if self.failed => self.rollback(),
            Change::Commit => self.commit(),
            Change::Rollback => self.rollback(),
            Change::Savepoint(name) if !self.is_settled() => {
                self.savepoints.push((name.clone(), self.now.clone()));
            }
            Change::Savepoint(_) => {}
            Change::Release(name) => {
                if let Some(at) = self.savepoint(name) {
                    self.savepoints.truncate(at);
                }
            }
            Change::RollbackTo(name) => match self.savepoint(name) {
                Some(at) => {
                    self.failed = false;
                    self.savepoints.truncate(at + 1);
                    if let Some((_, then)) = self.savepoints.get(at) {
                        self.now = then.clone();
                    }
                }
                // It is older than the first change.
                None => self.rollback(),
            },
        }
    }

    pub(super) fn commit(&mut self) {
        self.now.local.0.clear();
        self.undo = None;
        self.savepoints.clear();
        self.failed = false;
    }

    pub(super) fn rollback(&mut self) {
        if let Some(session) = self.undo.take() {
            self.now.session = session;
        }
        self.commit();
    }

    /// An error: what the transaction did is undone with its end, or by going back to a savepoint.
    pub(super) fn fail(&mut self) {
        self.failed = !self.is_settled();
    }

    /// The failed transaction goes on: it went back to a savepoint, and nobody said to which.
    pub(super) fn recover(&mut self) {
        self.failed = false;
    }

    pub(super) fn is_failed(&self) -> bool {
        self.failed
    }

    /// Whether a command has named the field.
    pub(super) fn has_named(&self, field: Field) -> bool {
        let named = self.named.as_ref();
        named.is_some_and(|named| named.contains(&field))
    }

    /// The nearest value of a field.
    pub(super) fn value<'a>(&'a self, field: Field, startup: &'a Settings) -> Option<&'a Value> {
        let Now { session, local } = &self.now;
        [local, session, startup]
            .into_iter()
            .find_map(|settings| settings.value(field))
    }

    /// What the layers say together; the policy's own trace where they say nothing.
    pub(super) fn effective(
        &self,
        policy: &TracePolicy,
        startup: &Settings,
    ) -> (Arc<TraceContext>, ContextState) {
        let Now { session, local } = &self.now;
        let layers = [startup, session, local];
        if layers.iter().all(|settings| settings.is_empty()) {
            return (policy.base().clone(), ContextState::None);
        }
        let mut gathered = Gathered::new(TraceContext::clone(policy.base()));
        for (depth, settings) in layers.into_iter().enumerate() {
            for (field, value) in &settings.0 {
                gathered.take(policy, depth, *field, value.as_deref());
            }
        }
        gathered.finish()
    }

    fn keep_for_undo(&mut self) {
        self.undo.get_or_insert_with(|| self.now.session.clone());
    }

    fn savepoint(&self, name: &[u8]) -> Option<usize> {
        self.savepoints
            .iter()
            .rposition(|(known, _)| **known == *name)
    }
}

/// The context while the layers are walked, the farthest first.
struct Gathered {
    context: TraceContext,
    /// The layer that the parent, or its absence, comes from.
    parent_depth: usize,
    tracestate_depth: usize,
    trace_id: Option<TraceId>,
    span_id: Option<SpanId>,
    trace_is_invalid: bool,
    correlation_id_is_invalid: bool,
}

impl Gathered {
    fn new(context: TraceContext) -> Self {
        Self {
            context,
            parent_depth: 0,
            tracestate_depth: 0,
            trace_id: None,
            span_id: None,
            trace_is_invalid: false,
            correlation_id_is_invalid: false,
        }
    }

    fn take(&mut self, policy: &TracePolicy, depth: usize, field: Field, value: Option<&str>) {
        let text = value.unwrap_or_default();
        match field {
            Field::TraceParent => {
                self.context.parent = TraceParent::parse(text.as_bytes()).ok();
                (self.trace_id, self.span_id) = (None, None);
                self.parent_depth = depth;
                self.trace_is_invalid = value.is_none();
            }
            Field::TraceId | Field::SpanId => {
                match field {
                    Field::TraceId => self.trace_id = TraceId::parse(text.as_bytes()),
                    _ => self.span_id = SpanId::parse(text.as_bytes()),
                }
                // The application records what it names.
                let pair = self.trace_id.zip(self.span_id);
                self.context.parent = pair.map(|(trace_id, span_id)| TraceParent {
                    trace_id,
                    span_id,
                    sampled: true,
                });
                self.parent_depth = depth;
                self.trace_is_invalid = value.is_none();
            }
            Field::TraceState => {
                self.context.tracestate = (!text.is_empty()).then(|| text.into());
                self.tracestate_depth = depth;
            }
            Field::CorrelationId => {
                self.context.correlation_id = (!text.is_empty()).then(|| text.into());
                self.correlation_id_is_invalid = value.is_none();
            }
            Field::Tags => {
                for (key, value) in Comment::parse_pairs(text.as_bytes())
                    .iter()
                    .flat_map(Comment::pairs)
                {
                    if policy.accepts_tag(&key, &value) {
                        self.context.set_tag(&key, &value);
                    }
                }
            }
            Field::Tag(_) => {
                if let Some(key) = policy.tag_key(field) {
                    self.context.set_tag(key, text);
                }
            }
        }
    }

    fn finish(mut self) -> (Arc<TraceContext>, ContextState) {
        let context = &mut self.context;
        // A tracestate belongs to its traceparent; an older one is another trace's.
        if context.parent.is_none() || self.tracestate_depth < self.parent_depth {
            context.tracestate = None;
        }
        let state = if self.trace_is_invalid {
            ContextState::Invalid
        } else if context.parent.is_some() {
            ContextState::Provided
        } else if self.correlation_id_is_invalid {
            ContextState::Invalid
        } else if context.correlation_id.is_some() {
            ContextState::Provided
        } else {
            ContextState::None
        };
        (Arc::new(self.context), state)
    }
}
