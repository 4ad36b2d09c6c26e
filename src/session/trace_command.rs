//! Commands on the trace context, recognised in a statement and answered as PostgreSQL would.

mod answer;

use std::borrow::Cow;

use smallvec::SmallVec;

pub use answer::Answer;

use super::trace::{Scope, SessionTrace};
use super::words::Words;
use crate::protocol::backend::TransactionStatus;
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::sql::encoding::ClientEncoding;
use crate::sql::lexer::{StandardConformingStrings, TokenKind};
use crate::trace_context::TraceParent;

/// A command on the trace context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceCommand<'a> {
    /// `SET pgspan.<field>`, `set_config('pgspan.<field>', …)`.
    Set {
        /// How far it reaches.
        scope: Scope,
        /// The field's name, without `pgspan.`.
        name: Cow<'a, [u8]>,
        /// The new value; `None` for DEFAULT.
        value: Option<Cow<'a, [u8]>>,
        /// How it was written.
        form: Form,
    },
    /// `SET application_name` to a traceparent, `set_config('application_name', …)` with one.
    SetApplicationName {
        /// How far it reaches.
        scope: Scope,
        /// The traceparent.
        value: Cow<'a, [u8]>,
        /// How it was written.
        form: Form,
    },
    /// `SET application_name` to another value, or RESET of it: the server's to answer. A traceparent that it was set to before is over.
    OtherApplicationName,
    /// `RESET pgspan.<field>`.
    Reset {
        /// The field's name, without `pgspan.`.
        name: Cow<'a, [u8]>,
    },
    /// `SHOW pgspan.<field>`, `current_setting('pgspan.<field>')`.
    Show {
        /// The field's name, without `pgspan.`.
        name: Cow<'a, [u8]>,
        /// How it was written.
        form: Form,
        /// What becomes of a field that was never set.
        missing: Missing,
    },
    /// A SELECT of several of the functions, or with names of its own for its columns.
    Select(Vec<Call<'a>>),
    /// RESET ALL, DISCARD ALL: they clear the context, and are the server's to answer.
    ResetAll,
}

/// A column of a SELECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// The column's name; `None`: the function's.
    column: Option<Cow<'a, [u8]>>,
    /// The function.
    command: TraceCommand<'a>,
}

/// How a command was written, which decides the shape of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As a command of its own.
    Command,
    /// As a function in a SELECT.
    Function,
}

/// What `current_setting` answers for a field that was never set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// An error.
    IsAnError,
    /// NULL.
    IsNull,
}

/// Whether it is a SELECT of something that is called neither `set_config` nor `current_setting` nor `pg_catalog.…`, as
/// most are: told by a look at one letter.
fn selects_a_name_of_no_command(statement: &[u8]) -> bool {
    const SELECT: &[u8] = b"SELECT ";
    let Some((select, rest)) = statement.split_at_checked(SELECT.len()) else {
        return false;
    };
    if !select.eq_ignore_ascii_case(SELECT) {
        return false;
    }
    match rest.first() {
        Some(b'*' | b'0'..=b'9') => true,
        Some(letter) if letter.is_ascii_alphabetic() => {
            !matches!(letter.to_ascii_lowercase(), b's' | b'c' | b'p')
        }
        _ => false,
    }
}

impl<'a> TraceCommand<'a> {
    /// More functions in one SELECT than anybody calls.
    pub const MOST_CALLS: usize = 16;

    /// Reads one statement, with or without its semicolon. `None`: it is not on the trace context, or not in a form that can
    /// be answered without a server.
    pub fn recognise(
        statement: &'a [u8],
        strings: StandardConformingStrings,
        encoding: ClientEncoding,
    ) -> Option<Self> {
        if selects_a_name_of_no_command(statement) {
            return None;
        }
        let mut words = Words::new(statement, strings, encoding);
        let first = words.next()?;
        if first.kind != TokenKind::Identifier {
            return None;
        }
        let command = match first.text {
            word if word.eq_ignore_ascii_case(b"select") => Self::recognise_select(&mut words)?,
            word if word.eq_ignore_ascii_case(b"set") => Self::recognise_set(&mut words)?,
            word if word.eq_ignore_ascii_case(b"show") => Self::Show {
                name: take_field(&mut words)?,
                form: Form::Command,
                missing: Missing::IsAnError,
            },
            word if word.eq_ignore_ascii_case(b"reset") => match words.take_keyword("all") {
                true => Self::ResetAll,
                false if words.take_keyword("application_name") => Self::OtherApplicationName,
                false => Self::Reset {
                    name: take_field(&mut words)?,
                },
            },
            word if word.eq_ignore_ascii_case(b"discard") && words.take_keyword("all") => {
                Self::ResetAll
            }
            _ => return None,
        };
        words.is_at_end().then_some(command)
    }

    fn recognise_set(words: &mut Words<'a>) -> Option<Self> {
        let scope = match words.take_keyword("local") {
            true => Scope::Local,
            false => {
                words.take_keyword("session");
                Scope::Session
            }
        };
        let mut application_name = words.clone();
        if application_name
            .take_identifier()
            .is_some_and(|name| name.eq_ignore_ascii_case(b"application_name"))
        {
            *words = application_name;
            take_equals(words)?;
            let value = words.take_string().or_else(|| words.take_identifier())?;
            let form = Form::Command;
            return match (TraceParent::parse(&value), scope) {
                (Ok(_), _) => Some(Self::SetApplicationName { scope, value, form }),
                (Err(_), Scope::Session) => Some(Self::OtherApplicationName),
                (Err(_), Scope::Local) => None,
            };
        }
        let name = take_field(words)?;
        take_equals(words)?;
        let value = match words.take_keyword("default") {
            true => None,
            false => Some(take_value(words)?),
        };
        let form = Form::Command;
        Some(Self::Set {
            scope,
            name,
            value,
            form,
        })
    }

    fn recognise_select(words: &mut Words<'a>) -> Option<Self> {
        let mut calls = Vec::new();
        loop {
            let command = Self::recognise_function(words)?;
            let column = match words.take_keyword("as") {
                true => Some(words.take_identifier()?),
                false => None,
            };
            if calls.len() >= Self::MOST_CALLS {
                return None;
            }
            calls.push(Call { column, command });
            if !words.take_kind(TokenKind::Comma) {
                break;
            }
        }
        match calls.as_slice() {
            [Call { column: None, .. }] => calls.pop().map(|call| call.command),
            _ => Some(Self::Select(calls)),
        }
    }

    fn recognise_function(words: &mut Words<'a>) -> Option<Self> {
        let mut function = words.next()?;
        if function.is_keyword("pg_catalog") && words.take_kind(TokenKind::Dot) {
            function = words.next()?;
        }
        let form = Form::Function;
        let is_set = function.is_keyword("set_config");
        if !is_set && !function.is_keyword("current_setting") {
            return None;
        }
        let open = words.take_kind(TokenKind::OpenParenthesis);
        let parameter = take_text(words).filter(|_| open)?;
        let command = if is_set {
            let value = take_argument(words, take_text_or_null)?;
            let scope = match take_argument(words, take_boolean)? {
                true => Scope::Local,
                false => Scope::Session,
            };
            if parameter.eq_ignore_ascii_case(b"application_name") {
                let value = value.filter(|value| TraceParent::parse(value).is_ok())?;
                Self::SetApplicationName { scope, value, form }
            } else {
                Self::Set {
                    scope,
                    name: without_prefix(parameter)?,
                    value,
                    form,
                }
            }
        } else {
            let missing = match take_argument(words, take_boolean) {
                Some(true) => Missing::IsNull,
                Some(false) | None => Missing::IsAnError,
            };
            Self::Show {
                name: without_prefix(parameter)?,
                form,
                missing,
            }
        };
        words
            .take_kind(TokenKind::CloseParenthesis)
            .then_some(command)
    }

    /// The same without the text that it was read from.
    pub fn into_owned(self) -> TraceCommand<'static> {
        let owned = |text: Cow<'a, [u8]>| Cow::Owned(text.into_owned());
        match self {
            Self::Set {
                scope,
                name,
                value,
                form,
            } => TraceCommand::Set {
                scope,
                name: owned(name),
                value: value.map(owned),
                form,
            },
            Self::SetApplicationName { scope, value, form } => TraceCommand::SetApplicationName {
                scope,
                value: owned(value),
                form,
            },
            Self::Select(calls) => TraceCommand::Select(
                calls
                    .into_iter()
                    .map(|Call { column, command }| Call {
                        column: column.map(owned),
                        command: command.into_owned(),
                    })
                    .collect(),
            ),
            Self::Reset { name } => TraceCommand::Reset { name: owned(name) },
            Self::Show {
                name,
                form,
                missing,
            } => TraceCommand::Show {
                name: owned(name),
                form,
                missing,
            },
            Self::OtherApplicationName => TraceCommand::OtherApplicationName,
            Self::ResetAll => TraceCommand::ResetAll,
        }
    }

    /// What it will be answered with, without a value, as far as Describe tells it. Nothing is carried out.
    ///
    /// # Errors
    /// The error that PostgreSQL would answer: it has no description for SHOW of what it does not know.
    pub fn describe(&self, trace: &mut SessionTrace) -> Result<Answer, ErrorResponse> {
        let columns = match self {
            Self::Show {
                form: Form::Command,
                ..
            } => return self.execute(trace, Block::Inside, 0),
            Self::Select(calls) => calls.iter().map(Call::column).collect(),
            _ => self.function().map(Box::from).into_iter().collect(),
        };
        Ok(Answer {
            warnings: SmallVec::new(),
            values: SmallVec::new(),
            columns,
            tag: "SELECT 0",
        })
    }

    /// Whether this call, counted from 0, is a set_config of a field.
    pub fn is_set_by_call(&self, call: usize) -> bool {
        match self {
            Self::Select(calls) => calls
                .get(call)
                .is_some_and(|call| call.command.is_set_by_call(0)),
            Self::Set {
                form: Form::Function,
                ..
            } => call == 0,
            _ => false,
        }
    }

    /// Gives a call of set_config another value; `None` is DEFAULT.
    pub fn set_value(&mut self, call: usize, to: Option<Cow<'a, [u8]>>) {
        match self {
            Self::Select(calls) => {
                if let Some(call) = calls.get_mut(call) {
                    call.command.set_value(0, to);
                }
            }
            Self::Set { value, .. } => *value = to,
            _ => {}
        }
    }

    /// Gives a call of set_config another scope.
    pub fn set_scope(&mut self, call: usize, to: Scope) {
        match self {
            Self::Select(calls) => {
                if let Some(call) = calls.get_mut(call) {
                    call.command.set_scope(0, to);
                }
            }
            Self::Set { scope, .. } => *scope = to,
            _ => {}
        }
    }

    /// The function that it was written as.
    fn function(&self) -> Option<&'static str> {
        match self {
            Self::Show {
                form: Form::Function,
                ..
            } => Some("current_setting"),
            Self::Set {
                form: Form::Function,
                ..
            }
            | Self::SetApplicationName {
                form: Form::Function,
                ..
            } => Some("set_config"),
            _ => None,
        }
    }

    /// Whether the proxy answers it; otherwise the server does.
    pub fn is_answered_here(&self, trace: &SessionTrace) -> bool {
        match self {
            Self::Set { .. } | Self::Reset { .. } | Self::Show { .. } => true,
            Self::SetApplicationName { .. } => trace.policy().rules().absorb_application_name,
            Self::Select(calls) => calls
                .iter()
                .all(|call| call.command.is_answered_here(trace)),
            Self::OtherApplicationName | Self::ResetAll => false,
        }
    }

    /// Carries it out behind everything sent so far and `statements` of the message being planned.
    ///
    /// # Errors
    /// The error that PostgreSQL would answer; nothing has changed then.
    pub fn execute(
        &self,
        trace: &mut SessionTrace,
        surroundings: Block,
        statements: u32,
    ) -> Result<Answer, ErrorResponse> {
        if surroundings == Block::Failed {
            return Err(ErrorResponse::error(
                SqlState::IN_FAILED_SQL_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            ));
        }
        let mut answer = Answer {
            warnings: SmallVec::new(),
            columns: SmallVec::new(),
            values: SmallVec::new(),
            tag: "SET",
        };
        match self {
            Self::Set {
                scope,
                name,
                value,
                form,
            } => {
                if (*scope, *form, surroundings) == (Scope::Local, Form::Command, Block::Outside) {
                    answer.warnings.push(local_outside_transaction());
                }
                let field = trace.policy().field(name);
                match (field, value) {
                    (Some(field), Some(value)) => {
                        let done = trace.set(*scope, field, value, statements);
                        answer
                            .warnings
                            .extend(done.err().map(|invalid| invalid.to_warning()));
                    }
                    (Some(field), None) => trace.reset(*scope, field, statements),
                    (None, _) => answer.warnings.push(trace.policy().unknown_field(name)),
                }
                if *form == Form::Function {
                    let now = match field {
                        Some(field) => trace.value(field).map(str::as_bytes),
                        None => value.as_deref(),
                    };
                    answer.add_column("set_config", now.map(Box::from));
                    answer.tag = "SELECT 1";
                }
            }
            Self::SetApplicationName { scope, value, form } => {
                if (*scope, *form, surroundings) == (Scope::Local, Form::Command, Block::Outside) {
                    answer.warnings.push(local_outside_transaction());
                }
                if *form == Form::Function {
                    answer.add_column("set_config", Some(Box::from(&**value)));
                    answer.tag = "SELECT 1";
                }
                if let Some(field) = trace.policy().field(b"traceparent") {
                    let done = trace.set_by_application_name(*scope, field, value, statements);
                    answer
                        .warnings
                        .extend(done.err().map(|invalid| invalid.to_warning()));
                }
            }
            Self::Reset { name } => {
                match trace.policy().field(name) {
                    Some(field) => trace.reset(Scope::Session, field, statements),
                    None => answer.warnings.push(trace.policy().unknown_field(name)),
                }
                answer.tag = "RESET";
            }
            Self::Show {
                name,
                form,
                missing,
            } => {
                let field = trace.policy().field(name);
                let value = field
                    .and_then(|field| trace.value(field))
                    .map(|value| value.as_bytes().into());
                if value.is_none() && *missing == Missing::IsAnError {
                    return Err(ErrorResponse::error(
                        SqlState::UNDEFINED_OBJECT,
                        format!(
                            "unrecognized configuration parameter \"pgspan.{}\"",
                            String::from_utf8_lossy(name)
                        ),
                    ));
                }
                let (column, tag) = match (form, field) {
                    (Form::Function, _) => ("current_setting".to_owned(), "SELECT 1"),
                    (Form::Command, Some(field)) => {
                        (format!("pgspan.{}", trace.policy().name(field)), "SHOW")
                    }
                    (Form::Command, None) => (String::new(), "SHOW"),
                };
                answer.add_column(&column, value);
                answer.tag = tag;
            }
            Self::Select(calls) => {
                // An error would take back what the calls in front have set: those that may fail come first.
                for call in calls {
                    if let Self::Show { .. } = call.command {
                        call.command.execute(trace, surroundings, statements)?;
                    }
                }
                for call in calls {
                    let Answer {
                        warnings, values, ..
                    } = call.command.execute(trace, surroundings, statements)?;
                    answer.warnings.extend(warnings);
                    for value in values {
                        answer.add_column(&call.column(), value);
                    }
                }
                answer.tag = "SELECT 1";
            }
            Self::OtherApplicationName => trace.end_application_name(statements),
            Self::ResetAll => {
                trace.reset_all(statements);
                answer.tag = "RESET";
            }
        }
        Ok(answer)
    }
}

impl Call<'_> {
    fn column(&self) -> Box<str> {
        match &self.column {
            Some(name) => String::from_utf8_lossy(name).into(),
            None => self.command.function().unwrap_or_default().into(),
        }
    }
}

/// The transaction that a command runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// None but its own.
    Outside,
    /// One with other commands: a transaction block, or a message of several statements.
    Inside,
    /// One that has failed.
    Failed,
}

impl From<TransactionStatus> for Block {
    fn from(status: TransactionStatus) -> Self {
        match status {
            TransactionStatus::Idle => Self::Outside,
            TransactionStatus::InTransaction => Self::Inside,
            TransactionStatus::Failed => Self::Failed,
        }
    }
}

fn local_outside_transaction() -> ErrorResponse {
    ErrorResponse::warning(
        SqlState::NO_ACTIVE_SQL_TRANSACTION,
        "SET LOCAL can only be used in transaction blocks",
    )
}

/// A parameter's name that begins with `pgspan.`, without that.
fn take_field<'a>(words: &mut Words<'a>) -> Option<Cow<'a, [u8]>> {
    let first = words.take_identifier()?;
    if !first.eq_ignore_ascii_case(b"pgspan") {
        return without_prefix(first);
    }
    let name = words
        .take_kind(TokenKind::Dot)
        .then(|| words.take_identifier())??;
    let mut longer = Vec::new();
    while words.take_kind(TokenKind::Dot) {
        longer.push(b'.');
        longer.extend_from_slice(&words.take_identifier()?);
    }
    Some(match longer.is_empty() {
        true => name,
        false => [&*name, &longer].concat().into(),
    })
}

fn without_prefix(name: Cow<'_, [u8]>) -> Option<Cow<'_, [u8]>> {
    const PREFIX: &[u8] = b"pgspan.";
    let prefix = name.get(..PREFIX.len())?;
    if !prefix.eq_ignore_ascii_case(PREFIX) {
        return None;
    }
    Some(match name {
        Cow::Borrowed(name) => name.get(PREFIX.len()..)?.into(),
        Cow::Owned(name) => name.get(PREFIX.len()..)?.to_vec().into(),
    })
}

fn take_equals(words: &mut Words<'_>) -> Option<()> {
    let mut ahead = words.clone();
    let word = ahead.next()?;
    if word.kind != TokenKind::Operator || word.text != b"=" {
        return words.take_keyword("to").then_some(());
    }
    *words = ahead;
    Some(())
}

/// A string, a name or a number.
fn take_value<'a>(words: &mut Words<'a>) -> Option<Cow<'a, [u8]>> {
    if let Some(value) = words.take_string().or_else(|| words.take_identifier()) {
        return Some(value);
    }
    let word = words.next()?;
    match (word.kind, word.text) {
        (TokenKind::Number, number) => Some(number.into()),
        (TokenKind::Operator, sign @ (b"-" | b"+")) => {
            let number = words.next().filter(|word| word.kind == TokenKind::Number)?;
            match sign {
                b"-" => Some([b"-", number.text].concat().into()),
                _ => Some(number.text.into()),
            }
        }
        _ => None,
    }
}

/// A string constant, perhaps cast to a text type.
fn take_text<'a>(words: &mut Words<'a>) -> Option<Cow<'a, [u8]>> {
    let text = words.take_string()?;
    let is_cast = words.take_kind(TokenKind::Typecast);
    let is_known = !is_cast || words.take_keyword("text") || words.take_keyword("varchar");
    is_known.then_some(text)
}

/// The same, or NULL, which is `None`.
fn take_text_or_null<'a>(words: &mut Words<'a>) -> Option<Option<Cow<'a, [u8]>>> {
    if !words.take_keyword("null") {
        return take_text(words).map(Some);
    }
    let is_cast = words.take_kind(TokenKind::Typecast);
    let is_known = !is_cast || words.take_keyword("text") || words.take_keyword("varchar");
    is_known.then_some(None)
}

fn take_argument<'a, T>(
    words: &mut Words<'a>,
    take: impl FnOnce(&mut Words<'a>) -> Option<T>,
) -> Option<T> {
    words.take_kind(TokenKind::Comma).then(|| take(words))?
}

/// A constant, perhaps in quotes, perhaps cast.
fn take_boolean(words: &mut Words<'_>) -> Option<bool> {
    let value = match words.take_string() {
        Some(text) => parse_boolean(&text)?,
        None => {
            let is_true = words.take_keyword("true");
            (is_true || words.take_keyword("false")).then_some(is_true)?
        }
    };
    let is_cast = words.take_kind(TokenKind::Typecast);
    let is_known = !is_cast || words.take_keyword("bool") || words.take_keyword("boolean");
    is_known.then_some(value)
}

/// The text of a boolean. Source: `parse_bool_with_len` in PostgreSQL's bool.c.
pub(super) fn parse_boolean(text: &[u8]) -> Option<bool> {
    let text = text.trim_ascii().to_ascii_lowercase();
    let begins = |word: &[u8], shortest: usize| text.len() >= shortest && word.starts_with(&text);
    if begins(b"true", 1) || begins(b"yes", 1) || text == b"on" || text == b"1" {
        Some(true)
    } else if begins(b"false", 1) || begins(b"no", 1) || begins(b"off", 2) || text == b"0" {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
