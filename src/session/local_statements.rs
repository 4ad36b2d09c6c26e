//! A client's statements that no server has: commands on the trace context that came over the extended protocol.

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use crate::protocol::error_response::ErrorResponse;
use crate::protocol::frame::split_cstr;
use crate::protocol::frontend::Parse;
use crate::session::annotator::Surroundings;
use crate::session::trace::SessionTrace;
use crate::session::trace_command::{Answer, Form, TraceCommand};
use crate::sql::lexer::{Lexer, StandardConformingStrings, TokenKind, strings_matter};

/// The statements and portals of one client. Made with its first such statement: most clients never have one.
#[derive(Debug, Default)]
pub struct LocalStatements {
    statements: HashMap<Box<[u8]>, Rc<LocalStatement>>,
    portals: HashMap<Box<[u8]>, LocalPortal>,
    /// Whether messages since the last Sync were answered that no server knows of.
    answered: bool,
    /// Whether one of them was answered with an error: everything up to the next Sync is ignored.
    skips_to_sync: bool,
}

/// A prepared command on the trace context.
#[derive(Debug, PartialEq, Eq)]
pub struct LocalStatement {
    /// With an empty value where the value is a parameter.
    command: TraceCommand<'static>,
    /// The type of its only parameter, the value, where it has one.
    parameter: Option<u32>,
}

/// A command that is bound, and can be executed.
#[derive(Debug)]
pub struct LocalPortal {
    statement: Rc<LocalStatement>,
    /// The bound value; `None` for NULL, or where none is wanted.
    value: Option<Box<[u8]>>,
    /// The format code of its column.
    pub format: i16,
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
        std::mem::take(&mut self.answered)
    }

    /// Whether there is nothing left to remember.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty() && self.portals.is_empty() && !self.answered
    }
}

impl LocalStatement {
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
        let (types, rest) = types.split_first_chunk::<2>()?;
        let declared = match (u16::from_be_bytes(*types), rest) {
            (0, []) => None,
            (1, rest) => Some(u32::from_be_bytes(rest.try_into().ok()?)),
            _ => return None,
        };
        let is_parameter = |kind| kind == TokenKind::Parameter;
        let parameter =
            Lexer::new(text, strings, around.encoding).find(|token| is_parameter(token.kind));
        let Some(token) = parameter else {
            let command = TraceCommand::recognise(text, strings, around.encoding)?.into_owned();
            return declared.is_none().then_some(Self {
                command,
                parameter: None,
            });
        };
        let oid = match declared {
            None | Some(0) => TEXT_OID,
            Some(oid @ (TEXT_OID | VARCHAR_OID | UNKNOWN_OID)) => oid,
            Some(_) => return None,
        };
        let (front, behind) = (text.get(..token.start)?, text.get(token.end..)?);
        if text.get(token.start..token.end) != Some(b"$1") {
            return None;
        }
        // Only a value may be empty, and be given by a parameter.
        let template = [front, b"''", behind].concat();
        let command = TraceCommand::recognise(&template, strings, around.encoding)?.into_owned();
        let takes_value = matches!(
            &command,
            TraceCommand::Set { form: Form::Function, value: Some(value), .. } if value.is_empty()
        );
        takes_value.then_some(Self {
            command,
            parameter: Some(oid),
        })
    }

    /// The type of its only parameter, where it has one.
    pub fn parameter(&self) -> Option<u32> {
        self.parameter
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
    /// A portal for a statement, with the value of its parameter.
    pub fn new(statement: Rc<LocalStatement>, value: Option<&[u8]>, format: i16) -> Self {
        Self {
            statement,
            value: value.map(Box::from),
            format,
            is_executed: false,
        }
    }

    /// Its statement.
    pub fn statement(&self) -> &Rc<LocalStatement> {
        &self.statement
    }

    /// The command to execute, with the bound value in it.
    pub fn command(&self) -> TraceCommand<'_> {
        match &self.statement.command {
            TraceCommand::Set {
                scope, name, form, ..
            } if self.statement.parameter.is_some() => TraceCommand::Set {
                scope: *scope,
                name: Cow::Borrowed(name),
                // NULL means DEFAULT, in set_config.
                value: self.value.as_deref().map(Cow::Borrowed),
                form: *form,
            },
            command => command.clone(),
        }
    }
}

/// Whether a text may be a command on the trace context. Most texts are told apart by their first words, at next to no cost.
fn may_be_command(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    let begins = match text.split_at_checked(SELECT.len()) {
        Some((first, rest)) if first.eq_ignore_ascii_case(SELECT) => {
            let rest = rest.trim_ascii_start();
            is_comment(rest)
                || FUNCTIONS.iter().any(|name| {
                    rest.get(..name.len())
                        .is_some_and(|word| word.eq_ignore_ascii_case(name))
                })
        }
        // SET, SHOW, RESET.
        _ => is_comment(text) || matches!(text, [b's' | b'S' | b'r' | b'R', ..]),
    };
    begins && mentions(text)
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

const SELECT: &[u8] = b"select";
/// How the functions begin that SELECT may call.
const FUNCTIONS: [&[u8]; 3] = [b"set_config", b"current_setting", b"pg_catalog"];

/// pg_type.oid of the types that a text may be declared as.
const TEXT_OID: u32 = 25;
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
                parameter: None,
            })
        };
        let mut local = LocalStatements::default();
        for number in 0..LocalStatements::MAX_STATEMENTS {
            assert!(local.has_room());
            local.replace(&number.to_be_bytes(), Some(statement()));
        }
        assert!(!local.has_room());
        for number in 0..LocalStatements::MAX_PORTALS {
            let portal = LocalPortal::new(statement(), None, 0);
            assert!(local.bind(&number.to_be_bytes(), portal));
        }
        assert!(!local.bind(b"another", LocalPortal::new(statement(), None, 0)));
        assert!(local.bind(&[0; 8], LocalPortal::new(statement(), None, 0)));
    }
}
