//! A session's trace context: startup values under SET under SET LOCAL, as PostgreSQL would keep them.
//!
//! Commands take effect when they are planned, since queries behind them in a pipeline must carry them; a journal keeps what
//! the server has not answered yet, so that an error takes back exactly what PostgreSQL takes back.

mod layers;
mod policy;
mod startup;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

pub use layers::Scope;
pub use policy::{Field, InvalidValue, TracePolicy, TraceRules};
pub use startup::{Startup, split_options};

use self::layers::{Change, Layers, Settings};
use crate::config::choices::{CommentFormat, Placement};
use crate::protocol::backend::TransactionStatus;
use crate::session::transaction_command::TransactionCommand;
use crate::sql::comment::{self, Comment, write_comment};
use crate::trace_context::{
    ContextState, TraceContext, TraceId, TraceParent, parse_correlation_id, parse_trace_state,
};

/// Whose queries a session sends.
#[derive(Debug)]
pub struct SessionTrace {
    policy: Arc<TracePolicy>,
    startup: Settings,
    /// As it is when everything that was sent succeeds.
    planned: Layers,
    /// As the server's answers have left it.
    answered: Layers,
    /// What lies between the two, in order.
    journal: Journal,
    /// Whether the two may differ although the journal is empty.
    diverged: bool,
    /// Messages that a ReadyForQuery answers.
    messages_sent: u64,
    messages_answered: u64,
    /// Statements completed of the message being answered.
    completed: u32,
    /// Whether a transaction was rolled back, perhaps only to a savepoint.
    rolled_back: bool,
    /// The status behind everything that was sent, where the texts tell.
    predicted: Option<TransactionStatus>,
    /// The trace made up for this transaction.
    generated: Option<TraceParent>,
    effective: Effective,
    /// The trace that application_name was set to last.
    application_name: Option<Box<str>>,
    /// How long the trace has been in use, where there has been one. Most sessions that rest have none.
    use_of_trace: Option<Box<UseOfTrace>>,
}

/// How long a trace has been in use: a trace that many transactions have is one that somebody forgot to change.
#[derive(Debug, Default)]
struct UseOfTrace {
    /// Since the end of its first transaction.
    since: Option<(TraceId, Instant)>,
    transactions: u32,
    is_stale: bool,
}

/// What the planned layers say together.
#[derive(Debug)]
struct Effective {
    context: Arc<TraceContext>,
    state: ContextState,
    is_current: bool,
    /// The comment for it, and how it was written.
    comment: Vec<u8>,
    comment_form: Option<(CommentFormat, Placement)>,
}

/// What lies between what was sent and what was answered. Without memory until something does.
#[derive(Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "one word for the many sessions that rest"
)]
struct Journal(Option<Box<VecDeque<Entry>>>);

impl Journal {
    fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |entries| entries.len())
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().flat_map(|entries| entries.iter())
    }

    fn push(&mut self, entry: Entry) {
        self.0.get_or_insert_default().push_back(entry);
    }

    fn pop_if(&mut self, is_due: impl FnOnce(&mut Entry) -> bool) -> Option<Entry> {
        self.0.as_mut()?.pop_front_if(is_due)
    }

    fn retain(&mut self, stays: impl FnMut(&Entry) -> bool) {
        if let Some(entries) = &mut self.0 {
            entries.retain(stays);
        }
    }
}

/// A change, and what must have been answered for it to hold.
#[derive(Debug)]
struct Entry {
    message: u64,
    statements: u32,
    change: Change,
}

impl SessionTrace {
    /// A session that said nothing at its start.
    pub fn new(policy: Arc<TracePolicy>) -> Self {
        let context = policy.base().clone();
        Self {
            policy,
            startup: Settings::default(),
            planned: Layers::default(),
            answered: Layers::default(),
            journal: Journal::default(),
            diverged: false,
            messages_sent: 0,
            messages_answered: 0,
            completed: 0,
            rolled_back: false,
            predicted: None,
            generated: None,
            effective: Effective {
                context,
                state: ContextState::None,
                is_current: false,
                comment: Vec::new(),
                comment_form: None,
            },
            application_name: None,
            use_of_trace: None,
        }
    }

    /// The rules that hold for this session.
    pub fn policy(&self) -> &TracePolicy {
        &self.policy
    }

    /// Whose query comes next, and how that is known. The context is empty where nothing is known.
    pub fn context(&mut self) -> (&Arc<TraceContext>, ContextState) {
        self.refresh();
        (&self.effective.context, self.effective.state)
    }

    /// The comment for the next query, with its blank; empty where there is nothing to say. Written only when it changed.
    pub fn comment(&mut self, format: CommentFormat, placement: Placement) -> &[u8] {
        self.refresh();
        let effective = &mut self.effective;
        if effective.comment_form != Some((format, placement)) {
            effective.comment.clear();
            write_comment(
                &effective.context,
                format,
                placement,
                &mut effective.comment,
            );
            effective.comment_form = Some((format, placement));
        }
        &effective.comment
    }

    /// Whose query a text is that has a comment of its own: field by field, the comment is nearer than the session.
    ///
    /// Behind a named prepared statement the comment's trace is as old as the Parse: [`Self::context_with_tags`].
    pub fn context_with_comment(
        &mut self,
        comment: &Comment<'_>,
    ) -> (Arc<TraceContext>, ContextState) {
        let (context, mut state) = self.context_with_tags(comment);
        let mut context = Arc::unwrap_or_clone(context);
        let rules = self.policy.rules();
        if let Some(text) = comment.value(comment::CORRELATION_ID) {
            let id = parse_correlation_id(text.as_bytes(), rules.correlation_id_length);
            context.correlation_id = id.ok().flatten();
            if state == ContextState::None && context.correlation_id.is_some() {
                state = ContextState::Provided;
            }
        }
        if let Some(text) = comment.value(comment::TRACEPARENT) {
            context.parent = TraceParent::parse(text.as_bytes()).ok();
            state = match context.parent {
                Some(_) => ContextState::Provided,
                None => ContextState::Invalid,
            };
            context.tracestate = None;
        }
        if let (Some(text), Some(_)) = (comment.value(comment::TRACESTATE), context.parent) {
            let list = parse_trace_state(text.as_bytes(), rules.tracestate_length);
            context.tracestate = list.ok().flatten();
        }
        (Arc::new(context), state)
    }

    /// The session's context with the tags of a comment, and nothing else of it.
    pub fn context_with_tags(
        &mut self,
        comment: &Comment<'_>,
    ) -> (Arc<TraceContext>, ContextState) {
        self.refresh();
        let mut context = TraceContext::clone(&self.effective.context);
        for (key, value) in comment.pairs() {
            if self.policy.accepts_tag(&key, &value) {
                context.set_tag(&key, &value);
            }
        }
        (Arc::new(context), self.effective.state)
    }

    /// The value of a field as SHOW gives it: empty where it was emptied or is invalid, `None` where it was never set.
    pub fn value(&self, field: Field) -> Option<&str> {
        match self.planned.value(field, &self.startup) {
            Some(value) => Some(value.as_deref().unwrap_or_default()),
            None => self.planned.has_named(field).then_some(""),
        }
    }

    /// Sets a field, behind everything sent so far and `statements` of the message now being planned. An invalid value
    /// empties it; of several tags, those that are not allowed are left out.
    ///
    /// # Errors
    /// Which rule the value breaks, or what was left out: a warning for the client.
    pub fn set(
        &mut self,
        scope: Scope,
        field: Field,
        text: &[u8],
        statements: u32,
    ) -> Result<(), InvalidValue> {
        let checked = self.policy.check(field, text);
        let left_out = match (field, &checked) {
            (Field::Tags, Ok(text)) => self.policy.tags_left_out(text),
            _ => None,
        };
        let value = checked.as_ref().ok().cloned();
        self.record(statements, Change::Set(scope, field, value));
        checked.and_then(|_| left_out.map_or(Ok(()), Err))
    }

    /// Sets the trace by way of application_name, as [`Self::set`].
    ///
    /// # Errors
    /// Which rule the value breaks: a warning for the client.
    pub fn set_by_application_name(
        &mut self,
        scope: Scope,
        field: Field,
        text: &[u8],
        statements: u32,
    ) -> Result<(), InvalidValue> {
        let done = self.set(scope, field, text, statements);
        self.application_name = self.value(field).map(Box::from);
        done
    }

    /// application_name gets another value: where it has told the trace, it does not any more.
    pub fn end_application_name(&mut self, statements: u32) {
        if let Some(told) = self.application_name.take()
            && self.value(Field::TraceParent) == Some(&*told)
        {
            self.reset(Scope::Session, Field::TraceParent, statements);
        }
    }

    /// Gives a field its startup value, as [`Self::set`] with DEFAULT and as RESET do.
    pub fn reset(&mut self, scope: Scope, field: Field, statements: u32) {
        let change = match scope {
            Scope::Session => Change::Reset(field),
            Scope::Local => {
                let startup = self.startup.value(field).cloned();
                Change::Set(scope, field, startup.unwrap_or_else(|| Some(Arc::from(""))))
            }
        };
        self.record(statements, change);
    }

    /// Gives all fields their startup values: RESET ALL and DISCARD ALL.
    pub fn reset_all(&mut self, statements: u32) {
        self.record(statements, Change::ResetAll);
    }

    /// A command that begins or ends a transaction or a part of it, in the text being planned. Its effect holds once
    /// `statements` of the message have completed, itself included.
    pub fn on_transaction_command(&mut self, command: &TransactionCommand<'_>, statements: u32) {
        let change = match command {
            TransactionCommand::Begin => return,
            TransactionCommand::Commit { .. } => Change::Commit,
            TransactionCommand::Rollback { .. } => Change::Rollback,
            TransactionCommand::Savepoint(name) => Change::Savepoint(name.as_ref().into()),
            TransactionCommand::Release(name) => Change::Release(name.as_ref().into()),
            TransactionCommand::RollbackTo(name) => Change::RollbackTo(name.as_ref().into()),
        };
        if matches!(change, Change::Commit | Change::Rollback) {
            self.forget_generated();
        }
        if !self.planned.is_settled() || !self.journal.is_empty() {
            self.record(statements, change);
        }
    }

    /// The status behind everything that was sent: what the texts say, else what the server said last.
    pub fn status(&self, answered: TransactionStatus) -> TransactionStatus {
        match self.predicted {
            Some(predicted) if self.messages_sent > self.messages_answered => predicted,
            _ => answered,
        }
    }

    /// A message was planned that goes to a server; behind it, the transaction is in this status if all goes well.
    pub fn on_query_sent(&mut self, predicted: TransactionStatus) {
        if predicted == TransactionStatus::Idle {
            self.end_transaction(u32::MAX);
        }
        self.messages_sent += 1;
        self.predicted = Some(predicted);
    }

    /// A message was answered here, without a server, in this status.
    pub fn on_query_answered_here(&mut self, status: TransactionStatus) {
        if status == TransactionStatus::Idle {
            self.end_transaction(0);
        }
        self.advance();
        self.settle();
    }

    /// A message other than a planned Query goes to a server, and a ReadyForQuery will answer it: Sync, FunctionCall.
    pub fn on_request_sent(&mut self) {
        self.messages_sent += 1;
        self.predicted = None;
    }

    /// The next message that a ReadyForQuery was awaited for is ignored by the server: a Sync while it copies.
    pub fn on_request_ignored(&mut self) {
        self.messages_answered = self.messages_sent.min(self.messages_answered + 1);
        self.advance();
    }

    /// The next message that a ReadyForQuery was awaited for is ignored since the server skips everything up to a Sync.
    pub fn on_request_skipped(&mut self) {
        self.on_error();
        self.on_request_ignored();
    }

    /// The server completed a statement.
    pub fn on_command_complete(&mut self, tag: &[u8]) {
        self.advance();
        self.completed = self.completed.saturating_add(1);
        if tag == b"ROLLBACK" && !self.answered.is_settled() && !self.is_next_journaled() {
            self.rolled_back = true;
        }
        self.advance();
    }

    /// The server answered with an error: the rest of the message is skipped, and what its transaction did is undone.
    pub fn on_error(&mut self) {
        self.advance();
        let message = self.messages_answered;
        let before = self.journal.len();
        self.journal.retain(|entry| entry.message != message);
        self.answered.fail();
        self.diverged |= before != self.journal.len() || self.answered.is_failed();
    }

    /// The server is done with a message. The ReadyForQuery that ends a login answers none.
    pub fn on_ready(&mut self, status: TransactionStatus) {
        self.advance();
        if !self.answered.is_settled() {
            match status {
                TransactionStatus::Idle if self.rolled_back || self.answered.is_failed() => {
                    self.answered.rollback();
                }
                TransactionStatus::Idle => self.answered.commit(),
                TransactionStatus::InTransaction => self.answered.recover(),
                TransactionStatus::Failed => {}
            }
            self.diverged = true;
        }
        self.rolled_back = false;
        self.completed = 0;
        debug_assert!(
            self.messages_answered < self.messages_sent,
            "an answer belongs to a message"
        );
        self.messages_answered = self.messages_sent.min(self.messages_answered + 1);
        self.advance();
        self.settle();
        if status == TransactionStatus::Idle && self.messages_answered == self.messages_sent {
            self.forget_generated();
        }
    }

    /// A transaction of the client's has ended at this time.
    pub fn on_transaction_end(&mut self, now: Instant) {
        let Effective { context, state, .. } = &mut self.effective;
        let is_provided = matches!(state, ContextState::Provided | ContextState::Stale);
        let Some(parent) = context.parent.filter(|_| is_provided) else {
            if let Some(used) = &mut self.use_of_trace {
                **used = UseOfTrace::default();
            }
            return;
        };
        let used = &mut **self.use_of_trace.get_or_insert_default();
        match used.since {
            Some((trace_id, since)) if trace_id == parent.trace_id => {
                used.transactions = used.transactions.saturating_add(1);
                let rules = self.policy.rules();
                used.is_stale = used.transactions > rules.stale_transactions
                    || now.saturating_duration_since(since) > rules.stale_after;
                if used.is_stale {
                    *state = ContextState::Stale;
                }
            }
            _ => {
                *used = UseOfTrace {
                    since: Some((parent.trace_id, now)),
                    transactions: 1,
                    is_stale: false,
                };
            }
        }
    }

    /// The transaction being planned ends with the message.
    fn end_transaction(&mut self, statements: u32) {
        self.forget_generated();
        if !self.planned.is_settled() {
            self.record(statements, Change::Commit);
        }
    }

    fn forget_generated(&mut self) {
        if self.generated.take().is_some() {
            self.effective.is_current = false;
        }
    }

    fn record(&mut self, statements: u32, change: Change) {
        self.planned.apply(&change);
        self.effective.is_current = false;
        self.journal.push(Entry {
            message: self.messages_sent,
            statements,
            change,
        });
    }

    /// Whether the text said what the statement that has just completed does to the transaction.
    fn is_next_journaled(&self) -> bool {
        self.journal.iter().any(|entry| {
            entry.message == self.messages_answered
                && entry.statements == self.completed
                && matches!(
                    entry.change,
                    Change::Commit | Change::Rollback | Change::RollbackTo(_)
                )
        })
    }

    /// Moves what has been answered from the journal into the layers.
    fn advance(&mut self) {
        let answered = (self.messages_answered, self.completed);
        let is_answered = |entry: &mut Entry| (entry.message, entry.statements) <= answered;
        while let Some(entry) = self.journal.pop_if(is_answered) {
            self.answered.apply(&entry.change);
            self.diverged = true;
        }
    }

    /// Plans anew from what the server answered, and from what it has not answered yet.
    fn settle(&mut self) {
        if !self.diverged {
            return;
        }
        let mut planned = self.answered.clone();
        for entry in self.journal.iter() {
            planned.apply(&entry.change);
        }
        if planned != self.planned {
            self.planned = planned;
            self.effective.is_current = false;
        }
        self.diverged = false;
    }

    fn refresh(&mut self) {
        if self.effective.is_current {
            return;
        }
        let (mut context, mut state) = self.planned.effective(&self.policy, &self.startup);
        if let (None, Some(random)) = (context.parent, self.policy.rules().generate) {
            let mut made = self.generated;
            while made.is_none() {
                made = TraceParent::from_random(random());
            }
            self.generated = made;
            Arc::make_mut(&mut context).parent = made;
            if state != ContextState::Invalid {
                state = ContextState::Generated;
            }
        }
        if let Some(used) = &self.use_of_trace
            && used.is_stale
            && state == ContextState::Provided
            && context.parent.map(|parent| parent.trace_id)
                == used.since.map(|(trace_id, _)| trace_id)
        {
            state = ContextState::Stale;
        }
        let effective = &mut self.effective;
        effective.context = context;
        effective.state = state;
        effective.comment_form = None;
        effective.is_current = true;
    }
}

#[cfg(test)]
mod tests;
