//! The statements of one Query message: where each begins and ends, and what kind it is.

mod plain;

use std::ops::Range;

use super::encoding::ClientEncoding;
use super::lexer::{Lexer, StandardConformingStrings, Token, TokenKind, Unterminated};

/// The statements of a text. Meant to be kept and used again: it keeps its allocations from one
/// [`read`](Self::read) to the next, within a bound.
#[derive(Debug)]
pub struct Script {
    statements: Vec<Statement>,
    comments: Vec<Range<usize>>,
    end: ScriptEnd,
}

/// One top-level statement: bytes `start..end` of the text, without blanks and comments around it and without its `;`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// What kind of statement it is.
    pub kind: StatementKind,
    /// Offset of its first token.
    pub start: usize,
    /// Offset behind its last token: where a suffix goes.
    pub end: usize,
}

/// What a statement does, as far as it matters for annotation and for session state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatementKind {
    /// SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES, TABLE, WITH, also in parentheses.
    Data,
    /// SELECT … INTO, which makes a table: a utility statement to the server.
    ///
    /// INTO is looked for outside of all parentheses but those that the whole statement begins with. Within another
    /// statement (EXPLAIN, PREPARE, EXECUTE) it is not: there the first word decides.
    SelectInto,
    /// BEGIN, START, COMMIT, END, ROLLBACK, ABORT, SAVEPOINT, RELEASE, PREPARE TRANSACTION.
    TransactionControl,
    /// SET, with SET TRANSACTION, SET CONSTRAINTS, SET ROLE and SET SESSION AUTHORIZATION.
    Set,
    /// RESET
    Reset,
    /// SHOW
    Show,
    /// DISCARD
    Discard,
    /// PREPARE of a statement.
    Prepare,
    /// EXECUTE
    Execute,
    /// DEALLOCATE
    Deallocate,
    /// DECLARE of a cursor.
    Declare,
    /// FETCH, MOVE, CLOSE.
    Cursor,
    /// LISTEN, UNLISTEN, NOTIFY.
    Notification,
    /// COPY, in any direction.
    Copy,
    /// Everything else, syntax errors included.
    Utility,
}

/// How the text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptEnd {
    /// Every token is whole.
    Complete,
    /// The last token is cut short: the server refuses the text, and nothing may be appended to it.
    Unterminated(Unterminated),
    /// There is a zero byte: the server refuses the message. No statement is told.
    Nul,
}

impl Default for Script {
    fn default() -> Self {
        Self::new()
    }
}

impl Script {
    /// A script of no statements.
    pub fn new() -> Self {
        Self {
            statements: Vec::new(),
            comments: Vec::new(),
            end: ScriptEnd::Complete,
        }
    }

    /// Reads a text (without the zero byte that ends it in a message) in place of the one before.
    ///
    /// A `;` ends a statement, but not in parentheses (CREATE RULE … DO (a; b)) and not in the BEGIN ATOMIC … END of CREATE
    /// FUNCTION or PROCEDURE, where BEGIN ATOMIC and CASE are counted against END as psql does (`psqlscan.l`). What this
    /// counting can't tell is a column in such a body that is called `end` or `case` without an AS before.
    pub fn read(
        &mut self,
        sql: &[u8],
        strings: StandardConformingStrings,
        encoding: ClientEncoding,
    ) {
        self.statements.clear();
        self.statements.shrink_to(MOST_KEPT);
        self.comments.clear();
        self.comments.shrink_to(MOST_KEPT);
        self.end = ScriptEnd::Complete;
        if memchr::memchr(0, sql).is_some() {
            self.end = ScriptEnd::Nul;
            return;
        }
        match plain::read(sql, strings, encoding) {
            Some(statement) => self.statements.push(statement),
            None => self.read_tokens(sql, strings, encoding),
        }
    }

    /// Reads a text of any kind that has no zero byte.
    fn read_tokens(
        &mut self,
        sql: &[u8],
        strings: StandardConformingStrings,
        encoding: ClientEncoding,
    ) {
        let mut current = None;
        let mut lexer = Lexer::new(sql, strings, encoding);
        while let Some(token) = lexer.next_behind_whitespace() {
            match token.kind {
                TokenKind::LineComment | TokenKind::BlockComment => {
                    self.comments.push(token.start..token.end);
                    continue;
                }
                TokenKind::Unterminated(what) => {
                    self.end = ScriptEnd::Unterminated(what);
                    if what == Unterminated::BlockComment {
                        continue;
                    }
                }
                TokenKind::Semicolon if current.as_ref().is_none_or(Reading::is_at_top) => {
                    self.statements.extend(current.take().map(Reading::finish));
                    continue;
                }
                _ => {}
            }
            match &mut current {
                Some(reading) => reading.on_token(token, sql),
                None => current = Some(Reading::new(token, sql)),
            }
        }
        self.statements.extend(current.map(Reading::finish));
    }

    /// The statements in order, without the empty ones.
    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }

    /// How the text ends.
    pub fn end(&self) -> ScriptEnd {
        self.end
    }

    /// Every whole comment in the text, in order.
    pub fn comments(&self) -> &[Range<usize>] {
        &self.comments
    }

    /// Whether one of the comments of the text that was read is a hint for pg_hint_plan: `/*+ … */`.
    pub fn has_hint(&self, sql: &[u8]) -> bool {
        self.comments.iter().any(|comment| {
            sql.get(comment.clone())
                .is_some_and(|text| text.starts_with(b"/*+"))
        })
    }
}

/// A statement of which not all has been seen.
struct Reading {
    start: usize,
    kind: StatementKind,
    awaits: Awaits,
    /// Where the last token that was no blank begins.
    last_start: usize,
    /// Where the last token that was no blank ends.
    last_end: usize,
    /// How many parentheses are open.
    parentheses: usize,
    /// How many BEGIN ATOMIC and CASE are open.
    blocks: usize,
    /// The INTO of SELECT INTO is in no more parentheses than these.
    into_parentheses: usize,
}

/// What may still change the reading of a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaits {
    /// The first word, behind any opening parentheses.
    FirstWord,
    /// The second word of PREPARE.
    PrepareWhat,
    /// FUNCTION, PROCEDURE, or OR REPLACE.
    CreateWhat,
    /// BEGIN ATOMIC, and in it CASE and END.
    Routine,
    /// The INTO of SELECT INTO.
    Into,
    /// Nothing.
    End,
}

impl Reading {
    fn new(first: Token, sql: &[u8]) -> Self {
        let mut reading = Self {
            start: first.start,
            kind: StatementKind::Utility,
            awaits: Awaits::FirstWord,
            last_start: first.start,
            last_end: first.end,
            parentheses: 0,
            blocks: 0,
            into_parentheses: 0,
        };
        reading.on_token(first, sql);
        reading
    }

    fn is_at_top(&self) -> bool {
        self.parentheses == 0 && self.blocks == 0
    }

    fn finish(self) -> Statement {
        Statement {
            kind: self.kind,
            start: self.start,
            end: self.last_end,
        }
    }

    #[inline]
    fn on_token(&mut self, token: Token, sql: &[u8]) {
        match token.kind {
            TokenKind::Identifier => self.on_word(token.text(sql), sql),
            TokenKind::OpenParenthesis => self.parentheses += 1,
            TokenKind::CloseParenthesis => self.parentheses = self.parentheses.saturating_sub(1),
            _ => {
                if let Awaits::FirstWord | Awaits::PrepareWhat | Awaits::CreateWhat = self.awaits {
                    self.awaits = Awaits::End;
                }
            }
        }
        self.last_start = token.start;
        self.last_end = token.end;
    }

    #[inline]
    fn on_word(&mut self, word: &[u8], sql: &[u8]) {
        match self.awaits {
            Awaits::End => {}
            Awaits::Into => {
                if is_word(word, b"into")
                    && self.parentheses <= self.into_parentheses
                    && !self.is_behind(INTO_IS_NOT_SELECTS, sql)
                {
                    self.kind = StatementKind::SelectInto;
                    self.awaits = Awaits::End;
                }
            }
            Awaits::FirstWord => self.on_first_word(word),
            Awaits::PrepareWhat => {
                if is_word(word, b"transaction") {
                    self.kind = StatementKind::TransactionControl;
                }
                self.awaits = Awaits::End;
            }
            Awaits::CreateWhat => {
                self.awaits = match word.len() {
                    8 if is_word(word, b"function") => Awaits::Routine,
                    9 if is_word(word, b"procedure") => Awaits::Routine,
                    2 if is_word(word, b"or") => Awaits::CreateWhat,
                    7 if is_word(word, b"replace") => Awaits::CreateWhat,
                    _ => Awaits::End,
                };
            }
            // BEGIN, CASE and END in parentheses come in pairs.
            Awaits::Routine if self.parentheses > 0 => {}
            Awaits::Routine => match word.len() {
                6 if is_word(word, b"atomic") && self.is_behind(&[b"begin"], sql) => {
                    self.blocks += 1
                }
                4 if self.blocks > 0 && is_word(word, b"case") && !self.is_behind(LABEL, sql) => {
                    self.blocks += 1
                }
                3 if is_word(word, b"end") && !self.is_behind(LABEL, sql) => {
                    self.blocks = self.blocks.saturating_sub(1);
                }
                _ => {}
            },
        }
    }

    #[inline]
    fn on_first_word(&mut self, word: &[u8]) {
        let (kind, awaits) = first_word(word);
        // The grammar has no other statement in parentheses.
        if self.parentheses == 0 || kind == StatementKind::Data {
            self.kind = kind;
        }
        self.awaits = awaits;
        self.into_parentheses = self.parentheses;
    }

    /// Whether the token before is one of these.
    fn is_behind(&self, words: &[&[u8]], sql: &[u8]) -> bool {
        let last = sql.get(self.last_start..self.last_end).unwrap_or_default();
        words.iter().any(|word| is_word(last, word))
    }
}

/// What a statement is by its first word, and what may still change that.
fn first_word(word: &[u8]) -> (StatementKind, Awaits) {
    use StatementKind as Kind;

    let mut buffer = [0; LONGEST_FIRST_WORD];
    let Some(lower) = buffer.get_mut(..word.len()) else {
        return (Kind::Utility, Awaits::End);
    };
    for (lower, byte) in lower.iter_mut().zip(word) {
        *lower = byte.to_ascii_lowercase();
    }
    let kind = match &*lower {
        b"select" | b"with" => return (Kind::Data, Awaits::Into),
        b"insert" | b"update" | b"delete" | b"merge" | b"values" | b"table" => Kind::Data,
        b"begin" | b"start" | b"commit" | b"end" | b"rollback" | b"abort" | b"savepoint"
        | b"release" => Kind::TransactionControl,
        b"set" => Kind::Set,
        b"reset" => Kind::Reset,
        b"show" => Kind::Show,
        b"discard" => Kind::Discard,
        b"prepare" => return (Kind::Prepare, Awaits::PrepareWhat),
        b"execute" => Kind::Execute,
        b"deallocate" => Kind::Deallocate,
        b"declare" => Kind::Declare,
        b"fetch" | b"move" | b"close" => Kind::Cursor,
        b"listen" | b"unlisten" | b"notify" => Kind::Notification,
        b"copy" => Kind::Copy,
        b"create" => return (Kind::Utility, Awaits::CreateWhat),
        _ => Kind::Utility,
    };
    (kind, Awaits::End)
}

/// Compares without regard to case; `wanted` is in lower case.
#[inline]
fn is_word(word: &[u8], wanted: &[u8]) -> bool {
    word.eq_ignore_ascii_case(wanted)
}

/// How many statements and comments there stays room for, however many the text before had.
const MOST_KEPT: usize = 256;

/// DEALLOCATE.
const LONGEST_FIRST_WORD: usize = 10;

/// Behind these a keyword is only a name: `AS into`, `x.into`.
const LABEL: &[&[u8]] = &[b"as", b"."];

/// Behind these INTO does not make a table: INSERT INTO, MERGE INTO, or only a name.
const INTO_IS_NOT_SELECTS: &[&[u8]] = &[b"insert", b"merge", b"as", b"."];

#[cfg(test)]
mod tests;
