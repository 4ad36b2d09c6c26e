//! What a query does to what, in a few words.

use std::borrow::Cow;

use super::super::encoding::ClientEncoding;
use super::super::lexer::{Lexer, StandardConformingStrings, Token, TokenKind, identifier_value};
use super::super::script::Script;

/// Operations and their targets in the order of the text, such as `INSERT orders SELECT songs artists`: OpenTelemetry's
/// `db.query.summary`, of at most 255 characters, never cut within a word. Statements are parted by `; `.
///
/// It knows tables, views and functions in FROM, and leaves out the names of common table expressions. Where it can't tell a
/// target it gives the bare operation, and for what is no command at all nothing: then the text may be empty.
///
/// Source: the section "Generating a summary of the query" of OpenTelemetry's database span conventions.
pub fn summary(sql: &[u8], strings: StandardConformingStrings, encoding: ClientEncoding) -> String {
    let mut script = Script::new();
    script.read(sql, strings, encoding);
    let mut summary = Summary::default();
    for statement in script.statements() {
        let text = sql.get(statement.start..statement.end).unwrap_or_default();
        let words: Vec<Word<'_>> = Lexer::new(text, strings, encoding)
            .filter(|token| !token.kind.is_blank())
            .take(MOST_TOKENS)
            .map(|token| Word::new(token, text))
            .collect();
        summary.is_statement_due = !summary.text.is_empty();
        summarise_statement(&words, &mut summary);
        if summary.is_full {
            break;
        }
    }
    summary.text
}

fn summarise_statement(words: &[Word<'_>], summary: &mut Summary) {
    let mut first = 0;
    while words
        .get(first)
        .is_some_and(|word| word.kind == TokenKind::OpenParenthesis)
    {
        first += 1;
    }
    let Some(command) = words.get(first) else {
        return;
    };
    match command.upper() {
        "SELECT" | "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "WITH" | "TABLE" => {
            Walk::new(words, summary).walk(0)
        }
        "VALUES" => {
            summary.push(b"VALUES");
            Walk::new(words, summary).walk(first + 1);
        }
        operation @ ("EXPLAIN" | "PREPARE" | "DECLARE") => {
            summary.push(operation.as_bytes());
            Walk::new(words, summary).walk(first + 1);
        }
        "COPY" => {
            summary.push(b"COPY");
            match words.get(first + 1) {
                Some(next) if next.is_name() => push_name(words, first + 1, summary),
                _ => Walk::new(words, summary).walk(first + 1),
            }
        }
        operation @ ("CREATE" | "ALTER" | "DROP" | "REFRESH") => {
            summary.push(operation.as_bytes());
            let behind = push_object(words, first + 1, summary);
            if operation == "CREATE" {
                Walk::new(words, summary).walk(behind);
            }
        }
        operation @ ("TRUNCATE" | "LOCK" | "CALL") => {
            summary.push(operation.as_bytes());
            push_name(words, skip(words, first + 1, &["TABLE", "ONLY"]), summary);
        }
        operation => {
            if BARE.contains(&operation) {
                summary.push(operation.as_bytes());
            }
        }
    }
}

/// `[OR REPLACE] [UNIQUE …] TABLE|… [IF NOT EXISTS] name`, and where it ends.
fn push_object(words: &[Word<'_>], at: usize, summary: &mut Summary) -> usize {
    let at = skip(words, at, &BEFORE_OBJECT);
    let Some(object) = words
        .get(at)
        .map(Word::upper)
        .filter(|word| OBJECTS.contains(word))
    else {
        return words.len();
    };
    summary.push(object.as_bytes());
    let name = skip(
        words,
        at + 1,
        &["CONCURRENTLY", "IF", "NOT", "EXISTS", "ONLY"],
    );
    match words.get(name).map(Word::upper) {
        // CREATE INDEX without a name.
        Some("ON") => push_name(words, skip(words, name + 1, &["ONLY"]), summary),
        _ => push_name(words, name, summary),
    }
    // Only these go on with a query.
    match object {
        "TABLE" | "VIEW" => name,
        _ => words.len(),
    }
}

/// Follows a query through its clauses.
struct Walk<'a, 'b> {
    words: &'a [Word<'a>],
    summary: &'b mut Summary,
    levels: Vec<Level>,
    common_table_expressions: Vec<Cow<'a, [u8]>>,
    awaits_target: bool,
}

/// What is known of the query in one pair of parentheses.
#[derive(Clone, Copy, Default)]
struct Level {
    /// A FROM here is a clause, not part of a function's syntax as in `extract(year FROM t)`.
    is_query: bool,
    /// USING names a table, as in DELETE and MERGE.
    has_using: bool,
    /// A comma leads to a further table.
    is_from: bool,
    /// A comma leads to a further common table expression.
    is_with: bool,
}

impl<'a, 'b> Walk<'a, 'b> {
    fn new(words: &'a [Word<'a>], summary: &'b mut Summary) -> Self {
        Self {
            words,
            summary,
            levels: vec![Level::default()],
            common_table_expressions: Vec::new(),
            awaits_target: false,
        }
    }

    fn walk(mut self, start: usize) {
        let mut at = start;
        while let Some(word) = self.words.get(at) {
            if self.summary.is_full {
                return;
            }
            match word.kind {
                TokenKind::OpenParenthesis => self.levels.push(Level::default()),
                TokenKind::CloseParenthesis => {
                    self.awaits_target = false;
                    if self.levels.len() > 1 {
                        self.levels.pop();
                    }
                }
                TokenKind::Comma => {
                    self.awaits_target = self.levels.last().is_some_and(|level| level.is_from);
                }
                TokenKind::Identifier | TokenKind::QuotedIdentifier => at = self.on_word(at, word),
                _ => self.awaits_target = false,
            }
            at += 1;
        }
    }

    /// Gives the position of the last word that it took.
    fn on_word(&mut self, at: usize, word: &'a Word<'a>) -> usize {
        let before = at.checked_sub(1).and_then(|at| self.words.get(at));
        let next = self.words.get(at + 1);
        let before_is =
            |wanted: &[&str]| before.is_some_and(|before| wanted.contains(&before.upper()));
        let next_is = |wanted: &str| next.is_some_and(|next| next.upper() == wanted);
        let level = *self.level();
        // `SELECT a AS update` and `t.update` are names, but not `PREPARE p AS UPDATE`.
        let is_name = before_is(&["."])
            || before_is(&["AS"]) && (level.is_query || !may_begin_query(word.upper()));
        if is_name {
            return at;
        }
        match word.upper() {
            "WITH" if self.is_common_table_expression(at + 1) => {
                let name = at + 1 + usize::from(next_is("RECURSIVE"));
                self.add_common_table_expression(name);
                return name;
            }
            "SELECT" => self.begin(
                "SELECT",
                Level {
                    is_query: true,
                    ..Level::default()
                },
                false,
            ),
            "INSERT" if next_is("INTO") => {
                self.begin("INSERT", Level::default(), true);
                return at + 1;
            }
            "MERGE" if next_is("INTO") => {
                let level = Level {
                    is_query: true,
                    has_using: true,
                    ..Level::default()
                };
                self.begin("MERGE", level, true);
                return at + 1;
            }
            "DELETE" if next_is("FROM") => {
                let level = Level {
                    is_query: true,
                    has_using: true,
                    ..Level::default()
                };
                self.begin("DELETE", level, true);
                return at + 1;
            }
            // Not those of ON UPDATE, FOR UPDATE, DO UPDATE and of triggers.
            "UPDATE"
                if before.is_none()
                    || before_is(&["(", ")", "AS", "EXPLAIN", "ANALYZE", "VERBOSE"]) =>
            {
                self.begin(
                    "UPDATE",
                    Level {
                        is_query: true,
                        ..Level::default()
                    },
                    true,
                );
            }
            "TABLE" if before.is_none() || before_is(&["(", ")"]) => {
                self.begin("TABLE", Level::default(), true)
            }
            "FROM" if level.is_query && !before_is(&["DISTINCT"]) => {
                self.level().is_from = true;
                self.awaits_target = true;
            }
            "JOIN" | "INTO" => self.awaits_target = true,
            "USING" if level.has_using => {
                self.level().is_from = true;
                self.awaits_target = true;
            }
            "WHERE" | "GROUP" | "HAVING" | "WINDOW" | "UNION" | "INTERSECT" | "EXCEPT"
            | "ORDER" | "LIMIT" | "OFFSET" | "FETCH" | "FOR" | "RETURNING" | "SET" | "WHEN" => {
                self.level().is_from = false;
                self.awaits_target = false;
            }
            "ONLY" | "LATERAL" | "TEMP" | "TEMPORARY" | "UNLOGGED" | "TABLE"
                if self.awaits_target => {}
            _ if self.awaits_target => {
                self.awaits_target = false;
                let name = name_at(self.words, at);
                if !self
                    .common_table_expressions
                    .iter()
                    .any(|known| known[..] == name.text[..])
                {
                    self.summary.push(&name.text);
                }
                return name.last;
            }
            _ if level.is_with && before_is(&[","]) => self.add_common_table_expression(at),
            _ => {}
        }
        at
    }

    fn level(&mut self) -> &mut Level {
        self.levels.last_mut().expect("the ground is never left")
    }

    fn begin(&mut self, operation: &str, level: Level, awaits_target: bool) {
        self.summary.push(operation.as_bytes());
        *self.level() = level;
        self.awaits_target = awaits_target;
    }

    /// Tells WITH x AS (…) from WITH ORDINALITY, WITH TIME ZONE and their like.
    fn is_common_table_expression(&self, name: usize) -> bool {
        let is = |at: usize, wanted: &[&str]| {
            self.words
                .get(at)
                .is_some_and(|word| wanted.contains(&word.upper()))
        };
        is(name, &["RECURSIVE"])
            || is(name + 1, &["AS", "("])
                && !is(name, &["ORDINALITY"])
                && self.words.get(name).is_some_and(Word::is_name)
    }

    fn add_common_table_expression(&mut self, at: usize) {
        if let Some(name) = self
            .words
            .get(at)
            .and_then(|word| identifier_value(word.text))
        {
            self.common_table_expressions.push(name);
        }
        self.level().is_with = true;
    }
}

/// A token that the grammar sees.
struct Word<'a> {
    kind: TokenKind,
    text: &'a [u8],
    /// In upper case, if it is short enough to be a keyword; quoted names never are.
    upper: [u8; LONGEST_KEYWORD],
    upper_length: usize,
}

impl<'a> Word<'a> {
    fn new(token: Token, sql: &'a [u8]) -> Self {
        let text = token.text(sql);
        let mut upper = [0; LONGEST_KEYWORD];
        let mut upper_length = 0;
        if token.kind != TokenKind::QuotedIdentifier
            && text.is_ascii()
            && let Some(room) = upper.get_mut(..text.len())
        {
            room.copy_from_slice(text);
            room.make_ascii_uppercase();
            upper_length = text.len();
        }
        Self {
            kind: token.kind,
            text,
            upper,
            upper_length,
        }
    }

    /// Empty for what can't be a keyword.
    fn upper(&self) -> &str {
        let upper = self.upper.get(..self.upper_length).unwrap_or_default();
        str::from_utf8(upper).unwrap_or_default()
    }

    fn is_name(&self) -> bool {
        matches!(
            self.kind,
            TokenKind::Identifier | TokenKind::QuotedIdentifier
        )
    }
}

/// A name with its qualifiers, without quotes.
struct Name {
    text: Vec<u8>,
    /// Where its last word is.
    last: usize,
}

fn name_at(words: &[Word<'_>], at: usize) -> Name {
    let mut name = Name {
        text: Vec::new(),
        last: at,
    };
    while let Some(word) = words.get(name.last).filter(|word| word.is_name()) {
        match word.kind {
            TokenKind::QuotedIdentifier => name
                .text
                .extend_from_slice(&identifier_value(word.text).unwrap_or_default()),
            _ => name.text.extend_from_slice(word.text),
        }
        let is_qualifier = words
            .get(name.last + 1)
            .is_some_and(|word| word.kind == TokenKind::Dot);
        if !is_qualifier || !words.get(name.last + 2).is_some_and(Word::is_name) {
            break;
        }
        name.text.push(b'.');
        name.last += 2;
    }
    name
}

fn push_name(words: &[Word<'_>], at: usize, summary: &mut Summary) {
    summary.push(&name_at(words, at).text);
}

/// The first position from `at` that holds none of these words.
fn skip(words: &[Word<'_>], mut at: usize, skipped: &[&str]) -> usize {
    while words
        .get(at)
        .is_some_and(|word| skipped.contains(&word.upper()))
    {
        at += 1;
    }
    at
}

fn may_begin_query(word: &str) -> bool {
    matches!(
        word,
        "SELECT" | "INSERT" | "UPDATE" | "DELETE" | "MERGE" | "WITH" | "TABLE"
    )
}

/// A summary under way.
#[derive(Default)]
struct Summary {
    text: String,
    characters: usize,
    is_statement_due: bool,
    is_full: bool,
}

impl Summary {
    /// Takes a word whole or, once it is full, not at all.
    fn push(&mut self, word: &[u8]) {
        if word.is_empty() || self.is_full {
            return;
        }
        let separator = match (
            self.text.is_empty(),
            std::mem::take(&mut self.is_statement_due),
        ) {
            (true, _) => "",
            (false, true) => "; ",
            (false, false) => " ",
        };
        let word = String::from_utf8_lossy(word);
        self.characters += separator.len() + word.chars().count();
        if self.characters > MOST_CHARACTERS {
            self.is_full = true;
            return;
        }
        self.text.push_str(separator);
        self.text
            .extend(word.chars().map(|character| match character.is_control() {
                true => char::REPLACEMENT_CHARACTER,
                false => character,
            }));
    }
}

/// OpenTelemetry's limit of db.query.summary.
const MOST_CHARACTERS: usize = 255;

/// How far a statement is looked at.
const MOST_TOKENS: usize = 4096;

/// CONCURRENTLY, MATERIALIZED.
const LONGEST_KEYWORD: usize = 12;

/// Words between CREATE and what is created.
const BEFORE_OBJECT: [&str; 12] = [
    "OR",
    "REPLACE",
    "TEMP",
    "TEMPORARY",
    "LOCAL",
    "GLOBAL",
    "UNLOGGED",
    "UNIQUE",
    "RECURSIVE",
    "MATERIALIZED",
    "FOREIGN",
    "EVENT",
];

const OBJECTS: [&str; 19] = [
    "TABLE",
    "VIEW",
    "INDEX",
    "SEQUENCE",
    "SCHEMA",
    "DATABASE",
    "FUNCTION",
    "PROCEDURE",
    "TRIGGER",
    "TYPE",
    "DOMAIN",
    "EXTENSION",
    "ROLE",
    "USER",
    "POLICY",
    "PUBLICATION",
    "SUBSCRIPTION",
    "STATISTICS",
    "RULE",
];

/// Commands that are a summary of their own.
const BARE: [&str; 36] = [
    "BEGIN",
    "START",
    "COMMIT",
    "END",
    "ROLLBACK",
    "ABORT",
    "SAVEPOINT",
    "RELEASE",
    "SET",
    "RESET",
    "SHOW",
    "DISCARD",
    "EXECUTE",
    "DEALLOCATE",
    "FETCH",
    "MOVE",
    "CLOSE",
    "LISTEN",
    "UNLISTEN",
    "NOTIFY",
    "DO",
    "VACUUM",
    "ANALYZE",
    "ANALYSE",
    "CLUSTER",
    "REINDEX",
    "CHECKPOINT",
    "GRANT",
    "REVOKE",
    "COMMENT",
    "SECURITY",
    "IMPORT",
    "LOAD",
    "REASSIGN",
    "WAIT",
    "REPACK",
];
