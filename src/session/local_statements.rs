//! A client's statements that no server has: commands on the trace context that came over the extended protocol.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use smallvec::SmallVec;

use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::protocol::frame::split_cstr;
use crate::protocol::frontend::Parse;
use crate::session::annotator::Surroundings;
use crate::session::trace::{Scope, SessionTrace};
use crate::session::trace_command::{Answer, TraceCommand, parse_boolean};
use crate::sql::lexer::{Lexer, StandardConformingStrings, TokenKind, strings_matter};

/// The statements and portals of one client. Made with its first such statement: most clients never have one.
#[derive(Debug, Default)]
pub struct LocalStatements {
    statements: HashMap<Box<[u8]>, Rc<LocalStatement>>,
    portals: HashMap<Box<[u8]>, LocalPortal>,
    /// Whether messages since the last Sync were answered that no server knows of.
    answered: bool,
    /// Whether one of them was an Execute.
    executed: bool,
    /// Whether one of them was answered with an error: everything up to the next Sync is ignored.
    skips_to_sync: bool,
}

/// A prepared command on the trace context.
#[derive(Debug, PartialEq, Eq)]
pub struct LocalStatement {
    /// With an empty value, and to the session, where those are parameters.
    command: TraceCommand<'static>,
    /// The types of its parameters.
    parameters: SmallVec<[u32; 2]>,
    /// What each of them is.
    uses: SmallVec<[Use; 2]>,
}

/// What a parameter is: an argument of one of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Use {
    /// The parameter's number, from 0.
    parameter: usize,
    /// The call's number, from 0.
    call: usize,
    argument: Argument,
}

/// An argument of set_config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Argument {
    Value,
    IsLocal,
}

/// A value as it is bound.
#[derive(Clone, Copy, Debug)]
pub struct BoundValue<'a> {
    /// `None` for NULL.
    pub bytes: Option<&'a [u8]>,
    /// Its format code.
    pub format: i16,
}

/// Format codes: none for text, one for all, or one each.
#[derive(Clone, Debug, Default)]
pub struct Formats(SmallVec<[i16; 2]>);

impl Formats {
    /// As a Bind has them.
    pub fn new(codes: impl Iterator<Item = i16>) -> Self {
        Self(codes.collect())
    }

    /// The code of one column or value.
    pub fn of(&self, at: usize) -> i16 {
        match self.0.as_slice() {
            [code] => *code,
            codes => codes.get(at).copied().unwrap_or_default(),
        }
    }
}

/// A command that is bound, and can be executed.
#[derive(Debug)]
pub struct LocalPortal {
    statement: Rc<LocalStatement>,
    /// With the bound values in it.
    command: TraceCommand<'static>,
    /// The format codes of its columns.
    pub formats: Formats,
    /// Whether it has been run.
    pub is_executed: bool,
}

impl LocalStatements {
    /// Statements of a client at most. Beyond it, commands are prepared on a server, where they do no good.
    pub const MAX_STATEMENTS: usize = 1024;

    /// Portals of a client at most.
    pub const MAX_PORTALS: usize = 256;

    /// The longest Parse of a command, and the longest Bind of its value, in bytes.
    pub const MAX_COMMAND_LEN: usize = 16 * 1024;

    /// The statement of this name, the empty one being the unnamed statement.
    pub fn statement(&self, name: &[u8]) -> Option<&Rc<LocalStatement>> {
        self.statements.get(name)
    }

    /// Whether there may be another one.
    pub fn has_room(&self) -> bool {
        self.statements.len() < Self::MAX_STATEMENTS
    }

    /// A name gets another meaning, or none. What it stood for before.
    pub fn replace(
        &mut self,
        name: &[u8],
        statement: Option<Rc<LocalStatement>>,
    ) -> Option<Rc<LocalStatement>> {
        match statement {
            Some(statement) => self.statements.insert(name.into(), statement),
            None => self.statements.remove(name),
        }
    }

    /// All statements are gone, as with DEALLOCATE ALL.
    pub fn deallocate_all(&mut self) {
        self.statements.clear();
    }

    /// The portal of this name.
    pub fn portal(&mut self, name: &[u8]) -> Option<&mut LocalPortal> {
        self.portals.get_mut(name)
    }

    /// A portal is bound. Whether there was room for it.
    pub fn bind(&mut self, name: &[u8], portal: LocalPortal) -> bool {
        let has_room = self.portals.len() < Self::MAX_PORTALS || self.portals.contains_key(name);
        if has_room {
            self.portals.insert(name.into(), portal);
        }
        has_room
    }

    /// A portal is closed, or a server has one of its name. Whether there was one.
    pub fn close_portal(&mut self, name: &[u8]) -> bool {
        self.portals.remove(name).is_some()
    }

    /// All portals are gone: the transaction is over.
    pub fn close_portals(&mut self) {
        self.portals.clear();
    }

    /// A message was answered that no server knows of.
    pub fn on_answered(&mut self) {
        self.answered = true;
    }

    /// One of them was an Execute.
    pub fn on_executed(&mut self) {
        self.executed = true;
    }

    /// Whether one of them was an Execute.
    pub fn has_executed(&self) -> bool {
        self.executed
    }

    /// One was answered with an error.
    pub fn on_error(&mut self) {
        self.answered = true;
        self.skips_to_sync = true;
    }

    /// Whether everything up to the next Sync is ignored.
    pub fn skips_to_sync(&self) -> bool {
        self.skips_to_sync
    }

    /// A Sync came. Whether messages in front of it were answered that no server knows of.
    pub fn on_sync(&mut self) -> bool {
        self.skips_to_sync = false;
        self.executed = false;
        std::mem::take(&mut self.answered)
    }

    /// Whether there is nothing left to remember.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty() && self.portals.is_empty() && !self.answered
    }
}

impl LocalStatement {
    /// Parameters that a command has at most.
    pub const MAX_PARAMETERS: usize = 2 * TraceCommand::MOST_CALLS;

    /// Reads a Parse. `None`: it is not exactly one command on the trace context that the proxy answers.
    pub fn recognise(
        parse: &Parse<'_>,
        trace: &SessionTrace,
        around: &Surroundings,
    ) -> Option<Self> {
        if parse.definition.len() > LocalStatements::MAX_COMMAND_LEN
            || !may_be_command(parse.text())
        {
            return None;
        }
        let (text, types) = split_cstr(parse.definition)?;
        let read = |strings| Self::read(text, types, strings, around);
        let statement = read(around.strings)?;
        // The setting may be changing in the same pipeline.
        let is_certain = !strings_matter(text)
            || [
                StandardConformingStrings::On,
                StandardConformingStrings::Off,
            ]
            .into_iter()
            .all(|strings| read(strings).as_ref() == Some(&statement));
        let is_ours = statement.command.is_answered_here(trace)
            && (text.is_ascii() || !around.encoding.is_client_only());
        (is_certain && is_ours).then_some(statement)
    }

    fn read(
        text: &[u8],
        types: &[u8],
        strings: StandardConformingStrings,
        around: &Surroundings,
    ) -> Option<Self> {
        let (_, declared) = types.split_first_chunk::<2>()?;
        let (declared, rest) = declared.as_chunks();
        if !rest.is_empty() {
            return None;
        }
        let mut uses = SmallVec::<[Use; 2]>::new();
        let mut template = Vec::new();
        let (mut from, mut depth, mut call, mut commas) = (0, 0_usize, 0, 0);
        for token in Lexer::new(text, strings, around.encoding) {
            match token.kind {
                TokenKind::OpenParenthesis => depth += 1,
                TokenKind::CloseParenthesis => depth = depth.checked_sub(1)?,
                TokenKind::Comma if depth == 0 => (call, commas) = (call + 1, 0),
                TokenKind::Comma => commas += 1,
                TokenKind::Parameter => {
                    let number = str::from_utf8(text.get(token.start + 1..token.end)?).ok()?;
                    let parameter = number.parse::<usize>().ok()?.checked_sub(1)?;
                    // Only these two of set_config's arguments may be parameters.
                    let (argument, constant) = match commas {
                        1 => (Argument::Value, "''"),
                        2 => (Argument::IsLocal, "false"),
                        _ => return None,
                    };
                    if uses.iter().any(|used| used.parameter == parameter) {
                        return None;
                    }
                    uses.push(Use {
                        parameter,
                        call,
                        argument,
                    });
                    template.extend_from_slice(text.get(from..token.start)?);
                    template.extend_from_slice(constant.as_bytes());
                    from = token.end;
                }
                _ => {}
            }
        }
        if declared.len() > uses.len() {
            return None;
        }
        template.extend_from_slice(text.get(from..)?);
        let command = TraceCommand::recognise(&template, strings, around.encoding)?.into_owned();
        let mut parameters = SmallVec::from_elem(0, uses.len());
        for used in &uses {
            if !command.is_set_by_call(used.call) {
                return None;
            }
            let wanted: &[u32] = match used.argument {
                Argument::Value => &[TEXT_OID, VARCHAR_OID, UNKNOWN_OID],
                Argument::IsLocal => &[BOOLEAN_OID],
            };
            let declared = declared.get(used.parameter);
            // Numbers with a gap are not ours.
            let slot = parameters.get_mut(used.parameter)?;
            *slot = match declared.copied().map_or(0, u32::from_be_bytes) {
                0 => *wanted.first()?,
                oid => *wanted.iter().find(|wanted| **wanted == oid)?,
            };
        }
        Some(Self {
            command,
            parameters,
            uses,
        })
    }

    /// Reads a statement with the values of its parameters in their places: a definition as a Parse has it, and what a Bind holds.
    /// `None`: it is not exactly one command on the trace context that the proxy answers, or the server would refuse it.
    pub fn told_by_values(
        definition: &[u8],
        values: &[BoundValue<'_>],
        trace: &SessionTrace,
        around: &Surroundings,
    ) -> Option<Self> {
        let (text, _) = split_cstr(definition)?;
        // Strings mean the same under either setting, so the one is as good as the other.
        let strings = StandardConformingStrings::On;
        let mut told = Vec::with_capacity(2 * text.len());
        let (mut from, mut most, mut depth, mut argument) = (0, 0, 0_usize, 0);
        // Which argument of the function is a boolean.
        let mut boolean = None;
        for token in Lexer::new(text, strings, around.encoding) {
            match token.kind {
                TokenKind::Identifier if depth == 0 => {
                    let name = text.get(token.start..token.end)?;
                    boolean = FLAGS
                        .iter()
                        .find(|(function, _)| name.eq_ignore_ascii_case(function))
                        .map(|(_, argument)| *argument);
                }
                TokenKind::OpenParenthesis => (depth, argument) = (depth + 1, 0),
                TokenKind::CloseParenthesis => depth = depth.checked_sub(1)?,
                TokenKind::Comma => argument += 1,
                TokenKind::Parameter => {
                    let number = str::from_utf8(text.get(token.start + 1..token.end)?).ok()?;
                    let number = number.parse::<usize>().ok()?;
                    let value = values.get(number.checked_sub(1)?)?;
                    most = most.max(number);
                    told.extend_from_slice(text.get(from..token.start)?);
                    write_value(value, boolean == Some(argument), &mut told)?;
                    from = token.end;
                }
                _ => {}
            }
        }
        told.extend_from_slice(text.get(from..)?);
        let is_unsure = !told.is_ascii() && around.encoding.is_client_only();
        if most != values.len() || is_unsure {
            return None;
        }
        let command = TraceCommand::recognise(&told, strings, around.encoding)?.into_owned();
        command.is_answered_here(trace).then_some(Self {
            command,
            parameters: SmallVec::new(),
            uses: SmallVec::new(),
        })
    }

    /// The types of its parameters.
    pub fn parameters(&self) -> &[u32] {
        &self.parameters
    }

    /// What Describe says of it: an answer without a value.
    ///
    /// # Errors
    /// The error that PostgreSQL would answer.
    pub fn describe(&self, trace: &mut SessionTrace) -> Result<Answer, ErrorResponse> {
        self.command.describe(trace)
    }
}

impl LocalPortal {
    /// A portal for a statement, with the values of its parameters.
    ///
    /// # Errors
    /// The error that PostgreSQL would answer to a value that is none of its type.
    pub fn new(
        statement: Rc<LocalStatement>,
        values: &[BoundValue<'_>],
        formats: Formats,
    ) -> Result<Self, ErrorResponse> {
        let mut command = statement.command.clone();
        for Use {
            parameter,
            call,
            argument,
        } in &statement.uses
        {
            let Some(value) = values.get(*parameter) else {
                continue;
            };
            match (argument, value.bytes) {
                // A text is the same bytes in both formats. NULL means DEFAULT, in set_config.
                (Argument::Value, bytes) => {
                    command.set_value(*call, bytes.map(|bytes| Cow::Owned(bytes.to_vec())));
                }
                // NULL means the session.
                (Argument::IsLocal, None) => command.set_scope(*call, Scope::Session),
                (Argument::IsLocal, Some(bytes)) => {
                    command.set_scope(*call, read_scope(bytes, value.format)?);
                }
            }
        }
        Ok(Self {
            command,
            statement,
            formats,
            is_executed: false,
        })
    }

    /// Its statement.
    pub fn statement(&self) -> &Rc<LocalStatement> {
        &self.statement
    }

    /// The command to execute, with the bound values in it.
    pub fn command(&self) -> &TraceCommand<'static> {
        &self.command
    }
}

/// Appends a value as a constant.
fn write_value(value: &BoundValue<'_>, is_boolean: bool, out: &mut Vec<u8>) -> Option<()> {
    let text = match (value.bytes, value.format) {
        (None, _) => {
            out.extend_from_slice(b"NULL");
            return Some(());
        }
        (Some([flag]), 1) if is_boolean => match flag {
            0 => &b"false"[..],
            _ => b"true",
        },
        (Some(_), 1) if is_boolean => return None,
        // A text is the same bytes in both formats.
        (Some(bytes), _) => bytes,
    };
    out.push(b'\'');
    for part in text.split_inclusive(|byte| *byte == b'\'') {
        out.extend_from_slice(part);
        if part.ends_with(b"'") {
            out.push(b'\'');
        }
    }
    out.push(b'\'');
    Some(())
}

/// The third argument of set_config, which is true for SET LOCAL.
fn read_scope(bytes: &[u8], format: i16) -> Result<Scope, ErrorResponse> {
    let is_local = match (format, bytes) {
        (0, text) => parse_boolean(text),
        (_, [byte]) => Some(*byte != 0),
        (_, _) => None,
    };
    match is_local {
        Some(true) => Ok(Scope::Local),
        Some(false) => Ok(Scope::Session),
        None if format == 0 => Err(ErrorResponse::error(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!(
                "invalid input syntax for type boolean: \"{}\"",
                String::from_utf8_lossy(bytes)
            ),
        )),
        None => Err(ErrorResponse::error(
            SqlState::PROTOCOL_VIOLATION,
            "insufficient data left in message",
        )),
    }
}

/// Whether a statement may turn out to be a command on the trace context when it is bound: what it names, or what it sets
/// `application_name` to, is a parameter.
pub fn is_told_when_bound(text: &[u8]) -> bool {
    text.len() <= LocalStatements::MAX_COMMAND_LEN
        && begins_as_function(text)
        && memchr::memchr(b'$', text).is_some()
        && !strings_matter(text)
}

/// Whether a value names a field of the trace context.
pub fn is_field_name(value: &[u8]) -> bool {
    const PREFIX: &[u8] = b"pgspan.";
    (value.get(..PREFIX.len())).is_some_and(|begin| begin.eq_ignore_ascii_case(PREFIX))
}

/// Whether a text may be a command on the trace context. Most texts are told apart by their first words, at next to no cost.
pub fn may_be_command(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    let begins = match text.get(..SELECT.len()) {
        Some(first) if first.eq_ignore_ascii_case(SELECT) => begins_as_function(text),
        // SET, SHOW, RESET.
        _ => is_comment(text) || matches!(text, [b's' | b'S' | b'r' | b'R', ..]),
    };
    begins && mentions(text)
}

/// Whether it is a SELECT that may begin with one of the functions.
fn begins_as_function(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    let Some((first, rest)) = text.split_at_checked(SELECT.len()) else {
        return false;
    };
    let rest = rest.trim_ascii_start();
    first.eq_ignore_ascii_case(SELECT)
        && (is_comment(rest)
            || FUNCTIONS.iter().any(|name| {
                rest.get(..name.len())
                    .is_some_and(|word| word.eq_ignore_ascii_case(name))
            }))
}

fn is_comment(text: &[u8]) -> bool {
    matches!(text, [b'/' | b'-', ..])
}

/// Whether `pgspan.` or `application_name` stands in a text.
fn mentions(text: &[u8]) -> bool {
    let ends_with = |end: usize, word: &[u8]| {
        end.checked_sub(word.len())
            .and_then(|start| text.get(start..end))
            .is_some_and(|found| found.eq_ignore_ascii_case(word))
    };
    memchr::memchr2_iter(b'.', b'_', text).any(|at| match text.get(at) {
        Some(b'.') => ends_with(at, b"pgspan"),
        _ => ends_with(at, b"application") && ends_with(at + b"_name".len(), b"name"),
    })
}

/// Which of the functions' arguments, from 0, are no texts.
const FLAGS: [(&[u8], usize); 2] = [(b"set_config", 2), (b"current_setting", 1)];

const SELECT: &[u8] = b"select";
/// How the functions begin that SELECT may call.
const FUNCTIONS: [&[u8]; 3] = [b"set_config", b"current_setting", b"pg_catalog"];

/// pg_type.oid of the types that a text may be declared as.
const TEXT_OID: u32 = 25;
const BOOLEAN_OID: u32 = 16;
const UNKNOWN_OID: u32 = 705;
const VARCHAR_OID: u32 = 1043;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_texts_are_told_apart_by_their_first_words() {
        for text in [
            "SET pgspan.traceparent = 'x'",
            "  set LOCAL Application_Name to 'x'",
            "/* why */ SHOW PGSPAN.route",
            "-- why\nRESET pgspan.route",
            "SELECT set_config('pgspan.route', $1, false)",
            "select /**/ pg_catalog.current_setting('pgspan.route')",
        ] {
            assert!(may_be_command(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            "SELECT",
            "SELECT pgspan.route FROM pgspan",
            "SELECT set_config('work_mem', $1, false)",
            "SET application_ = 'name'",
            "UPDATE t SET application_name = $1",
            "SHOW application_nam",
            "INSERT INTO pgspan.events VALUES ($1)",
        ] {
            assert!(!may_be_command(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn there_is_room_for_so_many_statements_and_portals() {
        let statement = || {
            Rc::new(LocalStatement {
                command: TraceCommand::ResetAll,
                parameters: SmallVec::new(),
                uses: SmallVec::new(),
            })
        };
        let portal = || LocalPortal::new(statement(), &[], Formats::default()).unwrap();
        let mut local = LocalStatements::default();
        for number in 0..LocalStatements::MAX_STATEMENTS {
            assert!(local.has_room());
            local.replace(&number.to_be_bytes(), Some(statement()));
        }
        assert!(!local.has_room());
        for number in 0..LocalStatements::MAX_PORTALS {
            let portal = portal();
            assert!(local.bind(&number.to_be_bytes(), portal));
        }
        assert!(!local.bind(b"another", portal()));
        assert!(local.bind(&[0; 8], portal()));
    }
}
