//! The conversation with a client of the console: messages in, commands and replies out. It knows no socket.
//!
//! PgBouncer answers simple queries only. The extended protocol works here too, since most drivers speak nothing else.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::admin::command::{Command, CommandError};
use crate::admin::select::SelectError;
use crate::admin::show::Show;
use crate::admin::table::{Column, Format, Table, Type, write_description, write_row};
use crate::protocol::backend::TransactionStatus;
use crate::protocol::encode;
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::protocol::frame::{Frame, split_cstr};
use crate::protocol::frontend::{Bind, FrontendTag, Parse, Target};

/// Statements, and portals, that a client may have.
const MAX_NAMES: usize = 100;

/// What the console remembers of a client.
#[derive(Debug, Default)]
pub struct Conversation {
    statements: HashMap<Box<[u8]>, Command>,
    portals: HashMap<Box<[u8]>, Portal>,
    /// After an error in the extended protocol nothing is done until Sync.
    is_skipping: bool,
    /// Whose answer is awaited.
    asked: Option<Asked>,
    cursors: HashMap<Box<str>, Table>,
    is_in_transaction: bool,
}

#[derive(Debug)]
struct Portal {
    command: Command,
    formats: Box<[Format]>,
    /// What was not sent yet, once it was executed.
    rest: Option<Table>,
}

#[derive(Debug)]
enum Asked {
    Query,
    Execute {
        portal: Box<[u8]>,
        max_rows: usize,
    },
    /// The columns come with the rows: of this portal, or of a statement.
    Describe {
        portal: Option<Box<[u8]>>,
    },
    Declare {
        cursor: Box<str>,
        purpose: Purpose,
    },
}

/// What is to be done about a message.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Go on with the next one.
    Next,
    /// Run this, and give the answer to [`Conversation::on_answer`] before the next one.
    Run(Command),
    /// The client has said good-bye.
    Left,
}

/// What a command comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Rows, and the tag of the command.
    Rows(Table),
    /// Done: the tag of the command.
    Done(Cow<'static, str>),
    /// Done, with a word to the client before it.
    Noticed(ErrorResponse, Cow<'static, str>),
    /// There was nothing to do.
    Empty,
    /// It can't be done.
    Failed(ErrorResponse),
}

impl Answer {
    /// An error with PgBouncer's SQLSTATE for all of its own.
    pub fn failed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::Failed(ErrorResponse::error(SqlState::PROTOCOL_VIOLATION, message))
    }
}

impl From<CommandError> for ErrorResponse {
    fn from(error: CommandError) -> Self {
        let code = match &error {
            CommandError::Unknown(_) | CommandError::BadArguments => SqlState::PROTOCOL_VIOLATION,
            CommandError::Select(error) => return Self::from(error.clone()),
        };
        Self::error(code, error.to_string())
    }
}

impl From<SelectError> for ErrorResponse {
    fn from(error: SelectError) -> Self {
        let code = match &error {
            SelectError::Syntax(_) => SqlState::SYNTAX_ERROR,
            SelectError::NoColumn(_) => SqlState::UNDEFINED_COLUMN,
        };
        Self::error(code, error.to_string())
    }
}

/// What is known of a command's columns before it is run.
enum Columns {
    /// It returns no rows.
    None,
    /// These.
    Known(Cow<'static, [Column]>),
    /// They come with the rows.
    Unknown,
}

impl Command {
    /// The columns of what it returns; `None` where it returns no rows.
    pub fn columns(&self) -> Option<Cow<'static, [Column]>> {
        match self {
            Self::Show(show) => Some(show.columns()).filter(|columns| !columns.is_empty()),
            Self::ShowSetting(setting) => {
                Some(Cow::Owned(vec![Column::new(setting.name, Type::Text)]))
            }
            _ => None,
        }
    }
}

impl Command {
    fn known_columns(&self) -> Columns {
        match self {
            Self::Select(_)
            | Self::Trace(_)
            | Self::Show(Show::Queries | Show::Slow | Show::Holders | Show::Context) => {
                Columns::Unknown
            }
            _ => self.columns().map_or(Columns::None, Columns::Known),
        }
    }
}

impl Conversation {
    /// A message of the client.
    ///
    /// # Errors
    /// What the client reads before its connection is closed.
    pub fn on_message(
        &mut self,
        frame: Frame<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Step, ErrorResponse> {
        debug_assert!(self.asked.is_none(), "an answer is awaited");
        let malformed =
            || ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, "invalid message format");
        let tag = FrontendTag::from_byte(frame.tag);
        match tag {
            Some(FrontendTag::Terminate) => return Ok(Step::Left),
            Some(FrontendTag::Sync) => {
                self.is_skipping = false;
                self.portals.clear();
                encode::ready_for_query(out, self.status());
                return Ok(Step::Next);
            }
            Some(FrontendTag::Query) => {
                self.is_skipping = false;
                self.portals.clear();
                let (text, _) = split_cstr(frame.body).ok_or_else(malformed)?;
                return Ok(match Command::parse(&String::from_utf8_lossy(text)) {
                    Ok(command) => {
                        return Ok(self.on_query(command, out));
                    }
                    Err(error) => {
                        ErrorResponse::from(error).encode(out);
                        encode::ready_for_query(out, self.status());
                        Step::Next
                    }
                });
            }
            _ if self.is_skipping => return Ok(Step::Next),
            _ => {}
        }
        let outcome = match tag {
            Some(FrontendTag::Parse) => {
                let parse = Parse::read(frame.body).ok_or_else(malformed)?;
                self.on_parse(&parse, out)
            }
            Some(FrontendTag::Bind) => {
                let bind = Bind::read(frame.body).ok_or_else(malformed)?;
                let rest = frame.body.get(bind.names_len..).ok_or_else(malformed)?;
                let bound = Bound::read(rest).ok_or_else(malformed)?;
                self.on_bind(&bind, bound, out)
            }
            Some(FrontendTag::Describe) => {
                match self.on_describe(Target::read(frame.body).ok_or_else(malformed)?, out) {
                    Ok(step) => return Ok(step),
                    Err(error) => Err(error),
                }
            }
            Some(FrontendTag::Execute) => {
                let (portal, rest) = split_cstr(frame.body).ok_or_else(malformed)?;
                let max_rows = rest.first_chunk().ok_or_else(malformed)?;
                // Zero is without limit; a negative number, too.
                let max_rows = usize::try_from(i32::from_be_bytes(*max_rows)).unwrap_or(0);
                match self.on_execute(portal, max_rows, out) {
                    Ok(step) => return Ok(step),
                    Err(error) => Err(error),
                }
            }
            Some(FrontendTag::Close) => {
                match Target::read(frame.body).ok_or_else(malformed)? {
                    Target::Statement(name) => drop(self.statements.remove(name)),
                    Target::Portal(name) => drop(self.portals.remove(name)),
                }
                encode::close_complete(out);
                Ok(())
            }
            Some(FrontendTag::Flush) => Ok(()),
            _ => {
                let message = format!(
                    "unsupported packet type for admin console: {}",
                    char::from(frame.tag).escape_default()
                );
                return Err(ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, message));
            }
        };
        if let Err(error) = outcome {
            self.is_skipping = true;
            error.encode(out);
        }
        Ok(Step::Next)
    }

    /// The answer to what [`Step::Run`] asked for.
    pub fn on_answer(&mut self, answer: Answer, out: &mut Vec<u8>) {
        let asked = self.asked.take();
        debug_assert!(asked.is_some(), "an answer without a question");
        match asked.unwrap_or(Asked::Query) {
            Asked::Query => {
                match answer {
                    Answer::Rows(table) => {
                        let format = |_| Format::Text;
                        write_description(&table.columns, format, out);
                        for row in &table.rows {
                            write_row(&table.columns, row, format, out);
                        }
                        encode::command_complete(out, ROWS_TAG);
                    }
                    Answer::Done(tag) => encode::command_complete(out, &tag),
                    Answer::Noticed(notice, tag) => {
                        notice.encode(out);
                        encode::command_complete(out, &tag);
                    }
                    Answer::Empty => encode::empty_query_response(out),
                    Answer::Failed(error) => error.encode(out),
                }
                encode::ready_for_query(out, self.status());
            }
            Asked::Declare { cursor, purpose } => {
                let mut has_failed = false;
                match answer {
                    Answer::Rows(table) if self.cursors.len() < MAX_NAMES => {
                        self.cursors.insert(cursor, table);
                        encode::command_complete(out, "DECLARE CURSOR");
                    }
                    answer => {
                        has_failed = true;
                        match answer {
                            Answer::Failed(error) => error.encode(out),
                            _ => too_many().encode(out),
                        }
                    }
                }
                match purpose {
                    Purpose::Query => encode::ready_for_query(out, self.status()),
                    Purpose::Execute => self.is_skipping |= has_failed,
                }
            }
            Asked::Describe { portal } => match (answer, portal) {
                (Answer::Rows(table), Some(name)) => {
                    if let Some(portal) = self.portals.get_mut(&name) {
                        write_description(&table.columns, |number| portal.format(number), out);
                        portal.rest = Some(table);
                    }
                }
                (Answer::Rows(table), None) => {
                    write_description(&table.columns, |_| Format::Text, out);
                }
                (Answer::Failed(error), _) => {
                    self.is_skipping = true;
                    error.encode(out);
                }
                _ => encode::no_data(out),
            },
            Asked::Execute { portal, max_rows } => match answer {
                Answer::Rows(table) => {
                    if let Some(portal) = self.portals.get_mut(&portal) {
                        portal.rest = Some(table);
                        portal.send(max_rows, out);
                    }
                }
                Answer::Done(tag) => encode::command_complete(out, &tag),
                Answer::Noticed(notice, tag) => {
                    notice.encode(out);
                    encode::command_complete(out, &tag);
                }
                Answer::Empty => encode::empty_query_response(out),
                Answer::Failed(error) => {
                    self.is_skipping = true;
                    error.encode(out);
                }
            },
        }
    }

    fn status(&self) -> TransactionStatus {
        match self.is_in_transaction {
            true => TransactionStatus::InTransaction,
            false => TransactionStatus::Idle,
        }
    }

    fn on_query(&mut self, command: Command, out: &mut Vec<u8>) -> Step {
        if let Some(done) = self.here(&command, Purpose::Query, out) {
            if let Err(error) = done {
                error.encode(out);
            }
            encode::ready_for_query(out, self.status());
            return Step::Next;
        }
        match command {
            Command::Declare(cursor, select) => {
                let purpose = Purpose::Query;
                self.asked = Some(Asked::Declare { cursor, purpose });
                Step::Run(Command::Select(select))
            }
            command => {
                self.asked = Some(Asked::Query);
                Step::Run(command)
            }
        }
    }

    /// Does what is only of this conversation: `None` where the command is to be run.
    fn here(
        &mut self,
        command: &Command,
        purpose: Purpose,
        out: &mut Vec<u8>,
    ) -> Option<Result<(), ErrorResponse>> {
        match command {
            Command::Begin(tag) => {
                self.is_in_transaction = true;
                encode::command_complete(out, tag);
            }
            Command::End(tag) => {
                self.is_in_transaction = false;
                self.cursors.clear();
                encode::command_complete(out, tag);
            }
            Command::Forget(tag) => {
                self.statements.clear();
                self.cursors.clear();
                encode::command_complete(out, tag);
            }
            Command::Close(cursor) => {
                match cursor {
                    None => self.cursors.clear(),
                    Some(name) if self.cursors.remove(name).is_some() => {}
                    Some(name) => return Some(Err(no_cursor(name))),
                }
                encode::command_complete(out, "CLOSE CURSOR");
            }
            Command::Fetch(count, name) => {
                let Some(table) = self.cursors.get_mut(name) else {
                    return Some(Err(no_cursor(name)));
                };
                let format = |_| Format::Text;
                if purpose == Purpose::Query {
                    write_description(&table.columns, format, out);
                }
                let count = count.unwrap_or(usize::MAX).min(table.rows.len());
                for row in table.rows.drain(..count) {
                    write_row(&table.columns, &row, format, out);
                }
                encode::command_complete(out, &format!("FETCH {count}"));
            }
            _ => return None,
        }
        Some(Ok(()))
    }

    fn on_parse(&mut self, parse: &Parse<'_>, out: &mut Vec<u8>) -> Result<(), ErrorResponse> {
        let command = Command::parse(&String::from_utf8_lossy(parse.text()))?;
        if !parse.name.is_empty() && self.statements.contains_key(parse.name) {
            let name = String::from_utf8_lossy(parse.name);
            return Err(ErrorResponse::error(
                SqlState::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        keep(&mut self.statements, parse.name, command)?;
        encode::parse_complete(out);
        Ok(())
    }

    fn on_bind(
        &mut self,
        bind: &Bind<'_>,
        bound: Bound,
        out: &mut Vec<u8>,
    ) -> Result<(), ErrorResponse> {
        let command = self.statement(bind.statement)?.clone();
        if bound.parameters > 0 {
            return Err(ErrorResponse::error(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {} parameters, but commands of the console have none",
                    bound.parameters
                ),
            ));
        }
        let portal = Portal {
            command,
            formats: bound.formats,
            rest: None,
        };
        keep(&mut self.portals, bind.portal, portal)?;
        encode::bind_complete(out);
        Ok(())
    }

    fn on_describe(
        &mut self,
        target: Target<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Step, ErrorResponse> {
        let (command, portal) = match target {
            Target::Statement(name) => (self.statement(name)?, None),
            Target::Portal(name) => {
                let portal = self.portal(name)?;
                (&portal.command, Some((name, portal)))
            }
        };
        let columns = command.known_columns();
        let mut described = None;
        match &columns {
            Columns::Unknown => {
                described = Some((
                    command.clone(),
                    portal.map(|(name, _)| Box::<[u8]>::from(name)),
                ));
            }
            Columns::None | Columns::Known(_) => {}
        }
        if matches!(target, Target::Statement(_)) {
            // No parameters.
            encode::message(out, b't', |body| body.extend_from_slice(&[0, 0]));
        }
        match columns {
            Columns::Known(columns) => write_description(
                &columns,
                |number| portal.map_or(Format::Text, |(_, portal)| portal.format(number)),
                out,
            ),
            Columns::None => encode::no_data(out),
            Columns::Unknown => {}
        }
        Ok(match described {
            Some((command, portal)) => {
                self.asked = Some(Asked::Describe { portal });
                Step::Run(command)
            }
            None => Step::Next,
        })
    }

    fn on_execute(
        &mut self,
        name: &[u8],
        max_rows: usize,
        out: &mut Vec<u8>,
    ) -> Result<Step, ErrorResponse> {
        let command = self.portal(name)?.command.clone();
        if let Some(portal) = self.portals.get_mut(name)
            && portal.rest.is_some()
        {
            portal.send(max_rows, out);
            return Ok(Step::Next);
        }
        if let Some(done) = self.here(&command, Purpose::Execute, out) {
            return done.map(|()| Step::Next);
        }
        if let Command::Declare(cursor, select) = command {
            let purpose = Purpose::Execute;
            self.asked = Some(Asked::Declare { cursor, purpose });
            return Ok(Step::Run(Command::Select(select)));
        }
        self.asked = Some(Asked::Execute {
            portal: name.into(),
            max_rows,
        });
        Ok(Step::Run(command))
    }

    fn statement(&self, name: &[u8]) -> Result<&Command, ErrorResponse> {
        self.statements.get(name).ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            ErrorResponse::error(
                SqlState::INVALID_SQL_STATEMENT_NAME,
                format!("prepared statement \"{name}\" does not exist"),
            )
        })
    }

    fn portal(&self, name: &[u8]) -> Result<&Portal, ErrorResponse> {
        self.portals.get(name).ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            ErrorResponse::error(
                SqlState::INVALID_CURSOR_NAME,
                format!("portal \"{name}\" does not exist"),
            )
        })
    }
}

/// How a command came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Query,
    Execute,
}

fn no_cursor(name: &str) -> ErrorResponse {
    ErrorResponse::error(
        SqlState::INVALID_CURSOR_NAME,
        format!("cursor \"{name}\" does not exist"),
    )
}

/// The tag of everything that returns rows, also under the name SELECT.
const ROWS_TAG: &str = "SHOW";

impl Portal {
    /// One format stands for all columns.
    fn format(&self, number: usize) -> Format {
        match &*self.formats {
            [] => Format::Text,
            [format] => *format,
            formats => formats.get(number).copied().unwrap_or_default(),
        }
    }

    /// Sends what is left of its rows; with a limit no more than that.
    fn send(&mut self, max_rows: usize, out: &mut Vec<u8>) {
        let Some(mut table) = self.rest.take() else {
            return;
        };
        let count = match max_rows {
            0 => table.rows.len(),
            limit => limit.min(table.rows.len()),
        };
        for row in table.rows.drain(..count) {
            write_row(&table.columns, &row, |number| self.format(number), out);
        }
        let is_suspended = max_rows > 0 && count == max_rows;
        self.rest = Some(table);
        match is_suspended {
            true => encode::message(out, b's', |_| {}),
            false => encode::command_complete(out, ROWS_TAG),
        }
    }
}

/// What a Bind says behind the names.
struct Bound {
    parameters: u16,
    formats: Box<[Format]>,
}

impl Bound {
    fn read(mut rest: &[u8]) -> Option<Self> {
        fn number(rest: &mut &[u8]) -> Option<u16> {
            let (number, behind) = rest.split_first_chunk()?;
            *rest = behind;
            Some(u16::from_be_bytes(*number))
        }
        for _ in 0..number(&mut rest)? {
            number(&mut rest)?;
        }
        let parameters = number(&mut rest)?;
        for _ in 0..parameters {
            let (length, behind) = rest.split_first_chunk()?;
            // -1 is null.
            let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
            rest = behind.get(length..)?;
        }
        let formats = (0..number(&mut rest)?)
            .map(|_| {
                number(&mut rest).map(|code| match code {
                    0 => Format::Text,
                    _ => Format::Binary,
                })
            })
            .collect::<Option<_>>()?;
        Some(Self {
            parameters,
            formats,
        })
    }
}

fn too_many() -> ErrorResponse {
    ErrorResponse::error(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        format!("a console session has at most {MAX_NAMES} statements, portals and cursors"),
    )
}

/// Keeps what has this name; the empty name can be taken again.
fn keep<T>(named: &mut HashMap<Box<[u8]>, T>, name: &[u8], value: T) -> Result<(), ErrorResponse> {
    if named.len() >= MAX_NAMES && !named.contains_key(name) {
        return Err(too_many());
    }
    named.insert(name.into(), value);
    Ok(())
}

#[cfg(test)]
mod tests;
