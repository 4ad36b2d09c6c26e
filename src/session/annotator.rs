//! Plans a Query message: which of its statements get the comment, which commands are answered here, and why not.

mod query_plan;

use std::ops::Range;

pub use query_plan::{Edit, QueryPlan, Reply, SkipReason, Stray, Verdict};

use super::stray;
use super::trace::SessionTrace;
use super::trace_command::{Block, TraceCommand};
use super::transaction_command::TransactionCommand;
use crate::config::choices::{CommentFormat, Placement, PreparedChannel};
use crate::protocol::backend::TransactionStatus;
use crate::protocol::error_response::SqlState;
use crate::sql::comment::Comment;
use crate::sql::encoding::ClientEncoding;
use crate::sql::lexer::{Lexer, StandardConformingStrings, TokenKind, strings_matter};
use crate::sql::script::{Script, ScriptEnd, Statement, StatementKind};

/// Which queries get a comment, and which comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnotationPolicy {
    /// Whether any does. Commands on the trace context are answered either way.
    pub enabled: bool,
    /// How the comment is written.
    pub format: CommentFormat,
    /// Where it stands.
    pub placement: Placement,
    /// Longer texts are not read, in bytes.
    pub max_query_bytes: usize,
    /// Whether unnamed statements get one too.
    pub unnamed_parse: bool,
    /// How servers are told of the trace of prepared statements.
    pub prepared: PreparedChannel,
}

/// What else decides how a text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// server_version_num: 150020 is 15.20.
    pub server_version: u32,
    /// The client's standard_conforming_strings.
    pub strings: StandardConformingStrings,
    /// The client's client_encoding.
    pub encoding: ClientEncoding,
    /// What the server said last.
    pub status: TransactionStatus,
    /// Whether it is a replication connection.
    pub replication: bool,
}

/// Plans Query messages. Holds scratch memory only: one serves all sessions of a worker.
#[derive(Debug)]
pub struct Annotator {
    script: Script,
    /// The same text under the other value of standard_conforming_strings.
    other: Script,
    /// No message gets longer than this through its comments.
    longest_message: usize,
}

impl Default for Annotator {
    fn default() -> Self {
        Self::new()
    }
}

impl Annotator {
    /// An annotator with empty scratch memory.
    pub fn new() -> Self {
        Self {
            script: Script::new(),
            other: Script::new(),
            longest_message: LONGEST_MESSAGE,
        }
    }

    /// Plans a message with this text (without the zero byte that ends it), and tells the trace of it: what the text sets is
    /// set from here on. Allocates nothing while the session's context stays as it is.
    pub fn plan(
        &mut self,
        policy: &AnnotationPolicy,
        sql: &[u8],
        trace: &mut SessionTrace,
        around: &Surroundings,
        plan: &mut QueryPlan,
    ) {
        plan.clear();
        if let Some(unread) = self.read(policy, sql, around) {
            plan.set_context(trace.context());
            plan.set_verdict(Verdict::Untouched(unread));
            return trace.on_request_sent();
        }
        let status = trace.status(around.status);
        let refused = match self.script.end() {
            ScriptEnd::Complete if self.script.statements().is_empty() => Some(SkipReason::Empty),
            ScriptEnd::Complete => None,
            ScriptEnd::Unterminated(_) => Some(SkipReason::Unterminated),
            ScriptEnd::Nul => Some(SkipReason::Nul),
        };
        if let Some(refused) = refused {
            plan.set_context(trace.context());
            plan.set_verdict(Verdict::Untouched(refused));
            return trace.on_query_sent(status);
        }
        let own_comment = self.own_comment(sql);
        let skip = self.skip_reason(policy, sql, around, own_comment.is_some());
        let walk = Walk {
            policy,
            sql,
            around,
            statements: self.script.statements(),
            longest_message: self.longest_message,
            trace,
            plan,
            skip,
            status,
            forwarded: 0,
            comment: None,
            context_is_noted: false,
        };
        walk.finish(own_comment);
    }

    /// Plans an unnamed Parse with this text: one statement, in which nothing is answered here. The trace goes on as it is.
    pub fn plan_parse(
        &mut self,
        policy: &AnnotationPolicy,
        sql: &[u8],
        trace: &mut SessionTrace,
        around: &Surroundings,
        plan: &mut QueryPlan,
    ) {
        plan.clear();
        let verdict = match self.place_in_parse(policy, sql, around) {
            Ok(at) => {
                let comment = plan.keep(trace.comment(policy.format, policy.placement));
                let inserted = comment.len();
                plan.insert(at, comment);
                if inserted == 0 {
                    Verdict::Untouched(SkipReason::NothingToSay)
                } else if sql.len() + inserted + SHORTEST_PARSE > self.longest_message {
                    Verdict::Untouched(SkipReason::TooLong)
                } else {
                    plan.map_positions(sql, around.encoding);
                    Verdict::Edited
                }
            }
            Err(reason) => Verdict::Untouched(reason),
        };
        plan.set_verdict(verdict);
    }

    /// Where the comment goes.
    fn place_in_parse(
        &mut self,
        policy: &AnnotationPolicy,
        sql: &[u8],
        around: &Surroundings,
    ) -> Result<usize, SkipReason> {
        if let Some(unread) = self.read(policy, sql, around) {
            return Err(unread);
        }
        match self.script.end() {
            ScriptEnd::Complete => {}
            ScriptEnd::Unterminated(_) => return Err(SkipReason::Unterminated),
            ScriptEnd::Nul => return Err(SkipReason::Nul),
        }
        let has_own_comment = self.own_comment(sql).is_some();
        if let Some(skip) = self.skip_reason(policy, sql, around, has_own_comment) {
            return Err(skip);
        }
        match self.script.statements() {
            [] => Err(SkipReason::Empty),
            [statement] if is_annotated(statement.kind, around.server_version) => {
                Ok(match policy.placement {
                    Placement::Suffix => statement.end,
                    Placement::Prefix => 0,
                })
            }
            // Several are a mistake, which the server tells.
            _ => Err(SkipReason::Utility),
        }
    }

    /// The application's own comment in a text that is not a Query message's: the text of a Parse.
    pub fn own_comment_in<'a>(
        &mut self,
        sql: &'a [u8],
        around: &Surroundings,
    ) -> Option<Comment<'a>> {
        // Most have none.
        memchr::memmem::find(sql, b"/*")?;
        self.script.read(sql, around.strings, around.encoding);
        self.own_comment(sql)
    }

    /// Reads the text; the reason, if it can't be relied on.
    fn read(
        &mut self,
        policy: &AnnotationPolicy,
        sql: &[u8],
        around: &Surroundings,
    ) -> Option<SkipReason> {
        if around.replication {
            return Some(SkipReason::Replication);
        }
        if sql.len() > policy.max_query_bytes {
            return Some(SkipReason::TooLong);
        }
        self.script.read(sql, around.strings, around.encoding);
        if strings_matter(sql) {
            let other = match around.strings {
                StandardConformingStrings::On => StandardConformingStrings::Off,
                StandardConformingStrings::Off => StandardConformingStrings::On,
            };
            self.other.read(sql, other, around.encoding);
            if self.script.statements() != self.other.statements()
                || self.script.end() != self.other.end()
            {
                return Some(SkipReason::StringsDiffer);
            }
        }
        None
    }

    /// The application's own comment: the last one in sqlcommenter's form.
    fn own_comment<'a>(&self, sql: &'a [u8]) -> Option<Comment<'a>> {
        self.script
            .comments()
            .iter()
            .rev()
            .find_map(|range| Comment::parse(sql.get(range.clone())?))
    }

    /// Why no statement of the message gets a comment.
    fn skip_reason(
        &self,
        policy: &AnnotationPolicy,
        sql: &[u8],
        around: &Surroundings,
        has_own_comment: bool,
    ) -> Option<SkipReason> {
        let is_kept = |statement: &Statement| {
            matches!(
                statement.kind,
                StatementKind::Prepare | StatementKind::Declare
            )
        };
        if self.script.statements().iter().any(is_kept) {
            Some(SkipReason::PrepareOrDeclare)
        } else if has_own_comment {
            Some(SkipReason::AlreadyCommented)
        } else if !policy.enabled {
            Some(SkipReason::Disabled)
        } else if around.encoding.is_client_only() {
            Some(SkipReason::ClientEncoding)
        } else if policy.placement == Placement::Prefix && self.script.has_hint(sql) {
            Some(SkipReason::HintInFront)
        } else {
            None
        }
    }
}

/// Walks the statements of one message.
struct Walk<'a> {
    policy: &'a AnnotationPolicy,
    sql: &'a [u8],
    around: &'a Surroundings,
    statements: &'a [Statement],
    longest_message: usize,
    trace: &'a mut SessionTrace,
    plan: &'a mut QueryPlan,
    /// Why no statement of the message gets a comment.
    skip: Option<SkipReason>,
    /// The transaction's status where the walk stands, if all goes well.
    status: TransactionStatus,
    /// How many statements are left to the server.
    forwarded: u32,
    /// The current comment among the plan's inserts.
    comment: Option<Range<usize>>,
    /// Whether the plan has the current context.
    context_is_noted: bool,
}

/// What became of a statement.
enum Step {
    /// It is the server's.
    Forward,
    /// It is answered here, and cut out.
    Answered,
    /// It is answered with an error here, and nothing of the message is run.
    Refused,
}

impl<'a> Walk<'a> {
    fn finish(mut self, own_comment: Option<Comment<'_>>) {
        for statement in self.statements {
            match self.answer(statement) {
                Step::Forward => self.forward(statement),
                Step::Answered => {}
                Step::Refused => break,
            }
        }
        if self.forwarded == 0 {
            self.plan.set_context(self.trace.context());
        }
        if let Some(comment) = own_comment {
            let (context, state) = self.trace.context_with_comment(&comment);
            self.plan.set_context((&context, state));
        }
        if self.forwarded == 0 {
            self.plan.forget_edits();
            self.plan.set_verdict(Verdict::Answered);
            return self.trace.on_query_answered_here(self.status);
        }
        self.limit_length();
        self.plan.map_positions(self.sql, self.around.encoding);
        let reason = self.skip.unwrap_or(SkipReason::Utility);
        self.plan.set_verdict(match self.plan.is_edited() {
            true => Verdict::Edited,
            false => Verdict::Untouched(reason),
        });
        if self.plan.inserted_len() == 0 {
            self.plan.set_skipped(reason);
        }
        self.trace.on_query_sent(self.status);
    }

    /// Answers a command on the trace context.
    fn answer(&mut self, statement: &Statement) -> Step {
        match statement.kind {
            StatementKind::Data
            | StatementKind::Set
            | StatementKind::Reset
            | StatementKind::Show
            | StatementKind::Discard => {}
            _ => {
                self.look_for_stray(statement);
                return Step::Forward;
            }
        }
        let Surroundings {
            strings, encoding, ..
        } = *self.around;
        let text = self.text(statement);
        let Some(command) = TraceCommand::recognise(text, strings, encoding)
            .filter(|_| !encoding.is_client_only() || text.is_ascii())
        else {
            self.look_for_stray(statement);
            return Step::Forward;
        };
        if !command.is_answered_here(self.trace) {
            let has_effect = matches!(
                command,
                TraceCommand::ResetAll | TraceCommand::OtherApplicationName
            );
            if has_effect {
                let _ = command.execute(self.trace, Block::Inside, self.forwarded + 1);
                self.on_new_context();
            }
            return Step::Forward;
        }
        let block = match self.status {
            TransactionStatus::Idle if self.statements.len() > 1 => Block::Inside,
            status => status.into(),
        };
        // The server keeps the text as it is: what it is told to set there does no harm.
        if self.skip == Some(SkipReason::PrepareOrDeclare) {
            let _ = command.execute(self.trace, block, self.forwarded + 1);
            self.on_new_context();
            self.plan.on_stray(Stray::Known);
            return Step::Forward;
        }
        let after_statements = self.forwarded as usize;
        match command.execute(self.trace, block, self.forwarded) {
            Ok(answer) => {
                self.plan.reply(after_statements, |out| answer.encode(out));
                self.plan.remove(self.with_semicolon(statement));
                self.on_new_context();
                Step::Answered
            }
            Err(error)
                if block == Block::Failed && self.forwarded == 0 || block == Block::Outside =>
            {
                // A function fails when it is run: what it returns has been told by then.
                let told = match error.code {
                    SqlState::UNDEFINED_OBJECT => command.describe(self.trace).ok(),
                    _ => None,
                };
                self.plan.reply(after_statements, |out| {
                    if let Some(told) = told {
                        told.encode_row_description(out);
                    }
                    error.encode(out);
                });
                Step::Refused
            }
            // The transaction must fail where it is: the server knows the parameter as little, and says the same.
            Err(_) => Step::Forward,
        }
    }

    fn look_for_stray(&mut self, statement: &Statement) {
        if stray::is_in(self.text(statement)) {
            self.plan.on_stray(Stray::Unrecognised);
        }
    }

    fn forward(&mut self, statement: &Statement) {
        self.forwarded += 1;
        if !self.context_is_noted {
            self.plan.set_context(self.trace.context());
            self.context_is_noted = true;
        }
        if self.skip.is_none() && is_annotated(statement.kind, self.around.server_version) {
            self.annotate(statement);
        }
        if matches!(
            statement.kind,
            StatementKind::Discard | StatementKind::Deallocate
        ) {
            self.plan.set_may_forget_statements();
        }
        if matches!(
            statement.kind,
            StatementKind::Reset | StatementKind::Discard | StatementKind::Set
        ) {
            self.plan.set_may_reset();
        }
        if statement.kind == StatementKind::Notification {
            self.plan.set_may_listen();
        }
        if matches!(
            statement.kind,
            StatementKind::Execute | StatementKind::Deallocate
        ) {
            self.plan.set_names_statement();
        }
        if statement.kind == StatementKind::TransactionControl {
            let Surroundings {
                strings, encoding, ..
            } = *self.around;
            let text = self.text(statement);
            if let Some(command) = TransactionCommand::recognise(text, strings, encoding) {
                self.trace.on_transaction_command(&command, self.forwarded);
                self.status = command.status_after(self.status);
                self.on_new_context();
            }
        }
    }

    fn annotate(&mut self, statement: &Statement) {
        let AnnotationPolicy {
            format, placement, ..
        } = *self.policy;
        if placement == Placement::Prefix && self.forwarded > 1 {
            return;
        }
        let comment = match self.comment.clone() {
            Some(comment) => comment,
            None => {
                let comment = self.plan.keep(self.trace.comment(format, placement));
                self.comment = Some(comment.clone());
                comment
            }
        };
        if comment.is_empty() {
            self.skip = Some(SkipReason::NothingToSay);
            return;
        }
        match placement {
            Placement::Suffix => self.plan.insert(statement.end, comment),
            Placement::Prefix => self.plan.insert_in_front(comment),
        }
    }

    fn on_new_context(&mut self) {
        self.comment = None;
        self.context_is_noted = false;
        if self.skip == Some(SkipReason::NothingToSay) {
            self.skip = None;
        }
    }

    /// A message that can't be sent for its comments goes without them.
    fn limit_length(&mut self) {
        let plain = self.sql.len() + WORD_AND_ZERO;
        if plain + self.plan.inserted_len() - self.plan.removed_len() > self.longest_message {
            self.plan.forget_inserts();
            self.skip = Some(SkipReason::TooLong);
        }
    }

    fn text(&self, statement: &Statement) -> &'a [u8] {
        self.sql
            .get(statement.start..statement.end)
            .unwrap_or_default()
    }

    /// The statement up to and with the semicolon that ends it.
    fn with_semicolon(&self, statement: &Statement) -> Range<usize> {
        let behind = self.sql.get(statement.end..).unwrap_or_default();
        let next = Lexer::new(behind, self.around.strings, self.around.encoding)
            .find(|token| !token.kind.is_blank())
            .filter(|token| token.kind == TokenKind::Semicolon);
        statement.start..statement.end + next.map_or(0, |token| token.end)
    }
}

/// Whether a comment on this kind of statement does good. Before 16, each new comment on a utility statement makes an entry
/// of its own in pg_stat_statements.
fn is_annotated(kind: StatementKind, server_version: u32) -> bool {
    match kind {
        StatementKind::Data => true,
        StatementKind::SelectInto
        | StatementKind::Copy
        | StatementKind::Execute
        | StatementKind::Utility => server_version >= NORMALISED_UTILITY,
        StatementKind::TransactionControl
        | StatementKind::Set
        | StatementKind::Reset
        | StatementKind::Show
        | StatementKind::Discard
        | StatementKind::Prepare
        | StatementKind::Declare
        | StatementKind::Deallocate
        | StatementKind::Cursor
        | StatementKind::Notification => false,
    }
}

/// From here on pg_stat_statements knows utility statements by what they do, and not by their text.
const NORMALISED_UTILITY: u32 = 160_000;
/// The length word counts itself and the text's zero byte.
const WORD_AND_ZERO: usize = 5;
/// What a Parse has besides its text: the length word, two zero bytes and the number of types; and some types.
const SHORTEST_PARSE: usize = 4096;
/// The largest length word that the server accepts: it closes the connection over a longer one without a word.
const LONGEST_MESSAGE: usize = 0x3FFF_FFFE;

#[cfg(test)]
mod tests;
