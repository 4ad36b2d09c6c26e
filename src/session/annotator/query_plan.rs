//! What becomes of one Query message.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::session::position_map::{CharacterEdit, PositionMap};
use crate::sql::encoding::ClientEncoding;
use crate::trace_context::{ContextState, TraceContext};

/// What becomes of one Query message. Meant to be used again: it keeps its allocations.
#[derive(Debug)]
pub struct QueryPlan {
    verdict: Verdict,
    skipped: Option<SkipReason>,
    edits: SmallVec<[PlannedEdit; 4]>,
    /// What the edits insert.
    inserts: Vec<u8>,
    replies: SmallVec<[PlannedReply; 1]>,
    /// What the replies say.
    messages: Vec<u8>,
    positions: PositionMap,
    trace: Option<Arc<TraceContext>>,
    context: ContextState,
    may_forget: bool,
    may_reset: bool,
    may_listen: bool,
    names_statement: bool,
    stray: Stray,
}

/// Whether the server is left to deal with commands on `pgspan.*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stray {
    /// It is not.
    None,
    /// With such as are understood, in a text that must stay as it is.
    Known,
    /// With such as are not understood.
    Unrecognised,
}

/// The short form of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The message goes to the server as it is.
    Untouched(SkipReason),
    /// The message goes to the server with the plan's edits.
    Edited,
    /// Nothing is left for a server: all replies are in the plan, but for ReadyForQuery.
    Answered,
}

/// Why a message got no comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SkipReason {
    /// The configuration says so.
    Disabled,
    /// Neither a trace nor a tag is known.
    NothingToSay,
    /// The application wrote its own comment.
    AlreadyCommented,
    /// There is no statement in it.
    Empty,
    /// There is a zero byte in it; the server refuses it.
    Nul,
    /// A comment, a string or a name has no end; the server refuses it.
    Unterminated,
    /// Its characters can't be read byte by byte.
    ClientEncoding,
    /// It is longer than the limit, or would be longer than a message can be.
    TooLong,
    /// Only statements that are better left alone.
    Utility,
    /// The server keeps the text of a PREPARE or DECLARE.
    PrepareOrDeclare,
    /// The walsender's grammar knows no comments.
    Replication,
    /// Where its strings end depends on standard_conforming_strings, which may be changing.
    StringsDiffer,
    /// Nothing may stand before a hint for pg_hint_plan.
    HintInFront,
}

impl SkipReason {
    /// As a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::NothingToSay => "nothing_to_say",
            Self::AlreadyCommented => "already_commented",
            Self::Empty => "empty",
            Self::Nul => "nul",
            Self::Unterminated => "unterminated",
            Self::ClientEncoding => "client_encoding",
            Self::TooLong => "too_long",
            Self::Utility => "utility",
            Self::PrepareOrDeclare => "prepare_or_declare",
            Self::Replication => "replication",
            Self::StringsDiffer => "strings_differ",
            Self::HintInFront => "hint_in_front",
        }
    }
}

/// A change to the client's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit<'a> {
    /// Where, in bytes of the client's text.
    pub at: usize,
    /// How many bytes of the client's text go.
    pub remove: usize,
    /// What comes in their place.
    pub insert: &'a [u8],
}

/// Messages that the proxy answers within the server's reply. Where the server answers with an error before its turn comes,
/// it is not sent: the server would not have run the command either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Goes out before the reply to the forwarded statement of this number, the first being 0.
    pub after_statements: usize,
    /// Whole messages.
    pub messages: &'a [u8],
}

#[derive(Debug)]
struct PlannedEdit {
    at: usize,
    remove: usize,
    insert: Range<usize>,
}

#[derive(Debug)]
struct PlannedReply {
    after_statements: usize,
    messages: Range<usize>,
}

impl Default for QueryPlan {
    fn default() -> Self {
        Self::new()
    }
}

impl QueryPlan {
    /// A plan that leaves an empty message as it is.
    pub fn new() -> Self {
        Self {
            verdict: Verdict::Untouched(SkipReason::Empty),
            skipped: None,
            edits: SmallVec::new(),
            inserts: Vec::new(),
            replies: SmallVec::new(),
            messages: Vec::new(),
            positions: PositionMap::default(),
            trace: None,
            context: ContextState::None,
            may_forget: false,
            may_reset: false,
            stray: Stray::None,
            may_listen: false,
            names_statement: false,
        }
    }

    /// The short form.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Why no statement that goes to the server got a comment; also where the message is edited since a command was cut out.
    pub fn skipped(&self) -> Option<SkipReason> {
        self.skipped
    }

    /// The changes to the client's text, in ascending order; where two are at the same place, the first comes first.
    pub fn edits(&self) -> impl Iterator<Item = Edit<'_>> {
        self.edits.iter().map(|edit| Edit {
            at: edit.at,
            remove: edit.remove,
            insert: self.inserts.get(edit.insert.clone()).unwrap_or_default(),
        })
    }

    /// How many bytes the edits insert.
    pub fn inserted_len(&self) -> usize {
        self.edits.iter().map(|edit| edit.insert.len()).sum()
    }

    /// How many bytes the edits remove.
    pub fn removed_len(&self) -> usize {
        self.edits.iter().map(|edit| edit.remove).sum()
    }

    /// What the proxy answers, in order.
    pub fn replies(&self) -> impl Iterator<Item = Reply<'_>> {
        self.replies.iter().map(|reply| Reply {
            after_statements: reply.after_statements,
            messages: self
                .messages
                .get(reply.messages.clone())
                .unwrap_or_default(),
        })
    }

    /// Where positions in the server's errors lie in the client's text.
    pub fn positions(&self) -> PositionMap {
        self.positions.clone()
    }

    /// Whose query it is, a comment in its text included; of several statements, the last that is forwarded.
    pub fn trace(&self) -> Option<&Arc<TraceContext>> {
        self.trace.as_ref()
    }

    /// How that is known.
    pub fn context(&self) -> ContextState {
        self.context
    }

    /// Whether the server may forget its prepared statements over it: there is a DISCARD or a DEALLOCATE in it.
    pub fn may_forget_statements(&self) -> bool {
        self.may_forget
    }

    /// Whether the server may bring settings back to what they were: there is a RESET, a DISCARD or a SET in it.
    pub fn may_reset(&self) -> bool {
        self.may_reset
    }

    /// Whether there is a LISTEN, an UNLISTEN or a NOTIFY in it.
    pub fn may_listen(&self) -> bool {
        self.may_listen
    }

    /// Whether there is an EXECUTE or a DEALLOCATE in it.
    pub fn names_statement(&self) -> bool {
        self.names_statement
    }

    /// Whether the server is left to deal with commands on `pgspan.*`.
    pub fn stray(&self) -> Stray {
        self.stray
    }

    pub(super) fn on_stray(&mut self, stray: Stray) {
        self.stray = self.stray.max(stray);
    }

    pub(super) fn clear(&mut self) {
        self.stray = Stray::None;
        self.may_forget = false;
        self.may_reset = false;
        self.may_listen = false;
        self.names_statement = false;
        self.skipped = None;
        self.edits.clear();
        self.inserts.clear();
        self.replies.clear();
        self.messages.clear();
        self.positions.clear();
        self.trace = None;
    }

    pub(super) fn set_verdict(&mut self, verdict: Verdict) {
        self.verdict = verdict;
        if let Verdict::Untouched(reason) = verdict {
            self.skipped = Some(reason);
        }
    }

    pub(super) fn set_context(&mut self, (context, state): (&Arc<TraceContext>, ContextState)) {
        self.trace = (!context.is_empty()).then(|| Arc::clone(context));
        self.context = state;
    }

    pub(super) fn set_may_forget_statements(&mut self) {
        self.may_forget = true;
    }

    pub(super) fn set_may_listen(&mut self) {
        self.may_listen = true;
    }

    pub(super) fn set_names_statement(&mut self) {
        self.names_statement = true;
    }

    pub(super) fn set_may_reset(&mut self) {
        self.may_reset = true;
    }

    pub(super) fn set_skipped(&mut self, reason: SkipReason) {
        self.skipped = Some(reason);
    }

    pub(super) fn is_edited(&self) -> bool {
        !self.edits.is_empty()
    }

    /// Keeps a comment for several edits.
    pub(super) fn keep(&mut self, comment: &[u8]) -> Range<usize> {
        let start = self.inserts.len();
        self.inserts.extend_from_slice(comment);
        start..self.inserts.len()
    }

    pub(super) fn insert(&mut self, at: usize, comment: Range<usize>) {
        self.edits.push(PlannedEdit {
            at,
            remove: 0,
            insert: comment,
        });
    }

    pub(super) fn insert_in_front(&mut self, comment: Range<usize>) {
        let edit = PlannedEdit {
            at: 0,
            remove: 0,
            insert: comment,
        };
        self.edits.insert(0, edit);
    }

    pub(super) fn remove(&mut self, range: Range<usize>) {
        self.edits.push(PlannedEdit {
            at: range.start,
            remove: range.len(),
            insert: 0..0,
        });
    }

    pub(super) fn forget_edits(&mut self) {
        self.edits.clear();
    }

    pub(super) fn forget_inserts(&mut self) {
        self.edits.retain(|edit| edit.remove > 0);
    }

    pub(super) fn reply(&mut self, after_statements: usize, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.messages.len();
        encode(&mut self.messages);
        let messages = start..self.messages.len();
        self.replies.push(PlannedReply {
            after_statements,
            messages,
        });
    }

    pub(super) fn map_positions(&mut self, sql: &[u8], encoding: ClientEncoding) {
        let count = |range: Range<usize>| {
            let characters = encoding.count_characters(sql.get(range).unwrap_or_default());
            u32::try_from(characters).unwrap_or(u32::MAX)
        };
        let (mut characters, mut bytes) = (0_u32, 0);
        for edit in &self.edits {
            characters = characters.saturating_add(count(bytes..edit.at));
            let removed = count(edit.at..edit.at + edit.remove);
            self.positions.push(CharacterEdit {
                at: characters,
                removed,
                // A comment is ASCII.
                inserted: u32::try_from(edit.insert.len()).unwrap_or(u32::MAX),
            });
            characters = characters.saturating_add(removed);
            bytes = edit.at + edit.remove;
        }
    }
}
