//! Commands on the trace context over the extended protocol: answered here, in their turn.
//!
//! Where the server has been sent nothing since its last ReadyForQuery, or there is no server, answers leave at once. Behind
//! messages that a server has not answered yet they stand in its queue, and are skipped with them if one of those fails.

use std::rc::Rc;

use smallvec::SmallVec;

use super::prepared::{CLOSE_COMPLETE, PARSE_COMPLETE, parse_in_flight};
use super::{Pause, Requests};
use crate::protocol::backend::TransactionStatus;
use crate::protocol::encode;
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::protocol::forwarder::{Arrived, Disposition};
use crate::protocol::frame::{FrameHeader, split_cstr};
use crate::protocol::frontend::{Bind, FrontendTag, Parse, Target};
use crate::protocol::outbound::Outbound;
use crate::session::client_session::ClientSession;
use crate::session::local_statements::{
    BoundValue, Formats, LocalPortal, LocalStatement, LocalStatements, is_field_name,
    is_told_when_bound,
};
use crate::session::outstanding::{Delivery, Effect, OutstandingRequest, RequestKind};
use crate::session::server_session::ServerSession;
use crate::session::trace_command::{Block, TraceCommand};
use crate::session::transaction_command::TransactionCommand;

impl Requests<'_> {
    /// Whether a Bind may have a value that is for the proxy to read.
    pub(super) fn needs_bound_values(&self, header: FrameHeader) -> bool {
        let may_be_ours = self.client.local.is_some() || self.client.told_when_bound.is_some();
        may_be_ours && header.body_len <= LocalStatements::MAX_COMMAND_LEN
    }

    /// Answers a message that is about a statement or a portal that no server has. `None`: it is not.
    pub(super) fn answer_locally(
        &mut self,
        tag: FrontendTag,
        arrived: &Arrived<'_>,
        out: &mut Outbound,
    ) -> Option<Disposition> {
        if tag == FrontendTag::Parse && !self.skips_locally() {
            return self.parse_locally(arrived, out);
        }
        if tag == FrontendTag::Bind
            && self.client.told_when_bound.is_some()
            && !self.skips_locally()
            && let Some(disposition) = self.bind_what_is_told(arrived, out)
        {
            return Some(disposition);
        }
        // Most clients have no such statement.
        self.client.local.as_ref()?;
        if self.skips_locally() {
            return Some(Disposition::Discard);
        }
        match tag {
            FrontendTag::Bind => self.bind_locally(arrived, out),
            FrontendTag::Describe => self.describe_locally(arrived, out),
            FrontendTag::Execute => self.execute_locally(arrived, out),
            FrontendTag::Close => self.close_locally(arrived),
            _ => None,
        }
    }

    /// An Execute of RESET ALL, DISCARD ALL or SET application_name goes to the server, and clears the trace context, or a part of it.
    pub(super) fn reset_with(client: &mut ClientSession, server: &ServerSession, portal: &[u8]) {
        let text = server.portal_command(portal);
        let is_select = |text: &[u8]| {
            let word = text.get(..6).unwrap_or_default();
            word.eq_ignore_ascii_case(b"select")
        };
        let may_be = match text {
            [b'd' | b'D' | b'r' | b'R' | b's' | b'S', ..] => {
                text.len() <= LONGEST_SELECT || !is_select(text)
            }
            _ => false,
        };
        if !may_be {
            return;
        }
        let around = client.surroundings(server.exchange.status());
        let command = TraceCommand::recognise(text, around.strings, around.encoding);
        if let Some(command @ (TraceCommand::ResetAll | TraceCommand::OtherApplicationName)) =
            command
        {
            let _ = command.execute(&mut client.trace, Block::Inside, server.executes);
        }
    }

    /// An Execute of BEGIN, COMMIT, SAVEPOINT and the like does to the trace context what it does to the transaction.
    pub(super) fn on_transaction_command(
        client: &mut ClientSession,
        server: &mut ServerSession,
        portal: &[u8],
    ) {
        let text = server.portal_command(portal);
        let around = client.surroundings(server.exchange.status());
        let command = TransactionCommand::recognise(text, around.strings, around.encoding);
        let Some(command) = command else {
            server.has_executed = true;
            return;
        };
        client
            .trace
            .on_transaction_command(&command, server.executes);
        let before = server.group_status;
        let before = before.unwrap_or_else(|| client.trace.status(server.exchange.status()));
        let after = command.status_after(before);
        server.has_executed &= after != TransactionStatus::Idle;
        server.group_status = Some(after);
    }

    /// Answers a Sync in front of which nothing was asked of a server. Whether it did.
    pub(super) fn sync_locally(&mut self) -> bool {
        let is_quiet = self.is_quiet();
        let status = self.status();
        let ClientSession { local, trace, .. } = &mut *self.client;
        let Some(statements) = local else {
            return false;
        };
        let was_answered = statements.on_sync();
        if trace.status(status) != TransactionStatus::InTransaction {
            statements.close_portals();
        }
        if statements.is_empty() {
            *local = None;
        }
        if !was_answered || !is_quiet {
            return false;
        }
        trace.on_query_answered_here(status);
        self.to_client
            .write(|out| encode::ready_for_query(out, status));
        true
    }

    fn parse_locally(&mut self, arrived: &Arrived<'_>, out: &mut Outbound) -> Option<Disposition> {
        arrived.whole()?;
        let parse = Parse::read(arrived.body)?;
        let is_told_when_bound = is_told_when_bound(parse.text());
        if is_told_when_bound || (self.client.told_when_bound.is_some() && parse.name.is_empty()) {
            let unnamed = self.client.told_when_bound.get_or_insert_default();
            if parse.name.is_empty() {
                **unnamed = is_told_when_bound.then(|| parse.definition.into());
            }
        }
        let around = self.client.surroundings(self.status());
        let statement = LocalStatement::recognise(&parse, &self.client.trace, &around);
        let is_named = !parse.name.is_empty();
        let local = self.client.local.as_deref_mut();
        let is_known = local
            .as_ref()
            .is_some_and(|local| local.statement(parse.name).is_some());
        let Some(statement) = statement else {
            if is_known && is_named {
                return Some(self.refuse(duplicate_statement(parse.name), parse.text(), out));
            }
            // The server gets an unnamed statement, which takes the place of the one here.
            if let Some(local) = local.filter(|_| is_known) {
                local.replace(parse.name, None);
            }
            return None;
        };
        if self.may_have_failed() {
            return Some(self.pause_unsettled(out));
        }
        if self.is_failed() {
            return Some(self.refuse(failed_transaction(), parse.text(), out));
        }
        // PostgreSQL looks for what SHOW returns as soon as it is parsed.
        if let Err(error) = statement.describe(&mut self.client.trace) {
            return Some(self.refuse(error, parse.text(), out));
        }
        if is_named && (is_known || self.client.statements.find(parse.name).is_some()) {
            return Some(self.refuse(duplicate_statement(parse.name), parse.text(), out));
        }
        let local = self.client.local.get_or_insert_default();
        if !local.has_room() && !is_known {
            return None;
        }
        let before = local.replace(parse.name, Some(Rc::new(statement)));
        let effect = Effect::Local {
            name: parse.name.into(),
            before,
        };
        Some(self.reply(RequestKind::Parse, effect, |out| {
            out.extend_from_slice(&PARSE_COMPLETE);
        }))
    }

    /// A Bind of a statement that the server has, which its values make a command on the trace context: the portal is here.
    fn bind_what_is_told(
        &mut self,
        arrived: &Arrived<'_>,
        out: &mut Outbound,
    ) -> Option<Disposition> {
        arrived.whole()?;
        let bind = Bind::read(arrived.body)?;
        let is_local = |local: &LocalStatements| local.statement(bind.statement).is_some();
        if self.client.local.as_deref().is_some_and(is_local) {
            return None;
        }
        let definition = match self.client.statement(bind.statement) {
            Some(statement) => statement.definition(),
            None if bind.statement.is_empty() => {
                let unnamed = self.client.told_when_bound.as_deref()?;
                unnamed.as_deref()?
            }
            None => return None,
        };
        if !is_told_when_bound(split_cstr(definition)?.0) {
            return None;
        }
        let bound = BoundValues::read(arrived.body.get(bind.names_len..)?)?;
        if bound.count > bound.values.len() {
            return None;
        }
        let around = self.client.surroundings(self.status());
        let trace = &self.client.trace;
        let told = LocalStatement::told_by_values(definition, &bound.values, trace, &around);
        let Some(statement) = told else {
            return self.pass_stray_names(&bound.values);
        };
        if self.may_have_failed() {
            return Some(self.pause_unsettled(out));
        }
        if self.is_failed() {
            return Some(self.refuse(failed_transaction(), b"", out));
        }
        let portal = match LocalPortal::new(Rc::new(statement), &[], bound.formats) {
            Ok(portal) => portal,
            Err(error) => return Some(self.refuse(error, b"", out)),
        };
        let local = self.client.local.get_or_insert_default();
        if !local.bind(bind.portal, portal) {
            return Some(self.refuse(too_many_portals(), b"", out));
        }
        if bind.statement.is_empty()
            && let Some(server) = self.server.as_deref_mut()
        {
            server.on_unnamed_done();
        }
        Some(self.reply(RequestKind::Bind, Effect::None, |out| {
            encode::bind_complete(out);
        }))
    }

    /// A Bind in a form that is not understood goes to the server, which must not keep what it sets for others.
    fn pass_stray_names(&mut self, values: &[BoundValue<'_>]) -> Option<Disposition> {
        let names = values.iter().filter_map(|value| value.bytes);
        for name in names.filter(|name| is_field_name(name)) {
            let Some(server) = self.server.as_deref_mut() else {
                return Some(self.pause(Pause::NeedsServer));
            };
            self.bench.tally.unrecognised += 1;
            server.on_stray_commands(&[b"set_config('", name, b"'"].concat());
        }
        None
    }

    fn bind_locally(&mut self, arrived: &Arrived<'_>, out: &mut Outbound) -> Option<Disposition> {
        let bind = Bind::read(arrived.body)?;
        let local = self.client.local.as_deref_mut()?;
        let Some(statement) = local.statement(bind.statement).cloned() else {
            // The server gets a portal of that name, which takes the place of the one here.
            local.close_portal(bind.portal);
            return None;
        };
        if self.may_have_failed() {
            return Some(self.pause_unsettled(out));
        }
        let refusal = if self.is_failed() {
            failed_transaction()
        } else if arrived.whole().is_none() {
            too_long()
        } else {
            let values = arrived
                .body
                .get(bind.names_len..)
                .and_then(BoundValues::read);
            let wanted = statement.parameters().len();
            match values {
                Some(values) if values.count == wanted => {
                    let portal = match LocalPortal::new(statement, &values.values, values.formats) {
                        Ok(portal) => portal,
                        Err(error) => return Some(self.refuse(error, b"", out)),
                    };
                    let local = self.client.local.get_or_insert_default();
                    if local.bind(bind.portal, portal) {
                        return Some(self.reply(RequestKind::Bind, Effect::None, |out| {
                            encode::bind_complete(out);
                        }));
                    }
                    too_many_portals()
                }
                Some(values) => wrong_count(values.count, bind.statement, wanted),
                None => malformed(),
            }
        };
        Some(self.refuse(refusal, b"", out))
    }

    fn describe_locally(
        &mut self,
        arrived: &Arrived<'_>,
        out: &mut Outbound,
    ) -> Option<Disposition> {
        let is_failed = self.is_failed();
        let ClientSession { local, trace, .. } = &mut *self.client;
        let local = local.as_deref_mut()?;
        let (statement, formats) = match Target::read(arrived.body)? {
            Target::Statement(name) => (Rc::clone(local.statement(name)?), None),
            Target::Portal(name) => {
                let portal = local.portal(name)?;
                let formats = portal.formats.clone();
                (Rc::clone(portal.statement()), Some(formats))
            }
        };
        let answer = match statement.describe(trace) {
            Ok(answer) if answer.has_row() && is_failed => Err(failed_transaction()),
            answer => answer,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Some(self.refuse(error, b"", out)),
        };
        Some(self.reply(RequestKind::Describe, Effect::None, |out| {
            if formats.is_none() {
                parameter_description(out, &statement);
            }
            let formats = formats.unwrap_or_default();
            if !answer.has_row() {
                return encode::no_data(out);
            }
            answer.encode_row_description_with(|at| formats.of(at), out);
        }))
    }

    fn execute_locally(
        &mut self,
        arrived: &Arrived<'_>,
        out: &mut Outbound,
    ) -> Option<Disposition> {
        let (name, max_rows) = split_cstr(arrived.body)?;
        let max_rows = i32::from_be_bytes(max_rows.try_into().ok()?);
        if self.may_have_failed() && self.client.local.as_deref_mut()?.portal(name).is_some() {
            return Some(self.pause_unsettled(out));
        }
        let (block, executes) = self.block();
        let ClientSession { local, trace, .. } = &mut *self.client;
        let portal = local.as_deref_mut()?.portal(name)?;
        let was_executed = std::mem::replace(&mut portal.is_executed, true);
        let answer = match was_executed {
            false => portal.command().execute(trace, block, executes),
            // There are no rows left, or it can't be run again.
            true => portal
                .statement()
                .describe(trace)
                .and_then(|answer| match answer.has_row() {
                    true => Ok(answer),
                    false => Err(run_again(name)),
                }),
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Some(self.refuse(error, b"", out)),
        };
        self.client.local.get_or_insert_default().on_executed();
        self.bench.tally.on_answered();
        Some(self.reply(RequestKind::Execute, Effect::None, |out| {
            for warning in &answer.warnings {
                warning.encode(out);
            }
            if !was_executed {
                answer.encode_row(out);
            }
            // Whether that was all is found out by asking for more.
            if !was_executed && max_rows == 1 && answer.has_row() {
                out.extend_from_slice(&PORTAL_SUSPENDED);
            } else {
                answer.encode_command_complete(out);
            }
        }))
    }

    fn close_locally(&mut self, arrived: &Arrived<'_>) -> Option<Disposition> {
        let local = self.client.local.as_deref_mut()?;
        let effect = match Target::read(arrived.body)? {
            Target::Statement(name) => Effect::Local {
                name: name.into(),
                before: Some(local.replace(name, None)?),
            },
            Target::Portal(name) => local.close_portal(name).then_some(Effect::None)?,
        };
        Some(self.reply(RequestKind::Close, effect, |out| {
            out.extend_from_slice(&CLOSE_COMPLETE);
        }))
    }

    /// Answers a message: at once, or in its turn.
    fn reply(
        &mut self,
        kind: RequestKind,
        effect: Effect,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Disposition {
        match self.server.as_deref_mut() {
            Some(server) if !server.exchange.is_quiet() => {
                let mut messages = Vec::new();
                write(&mut messages);
                server.exchange.on_request(OutstandingRequest {
                    effect,
                    ..OutstandingRequest::fabricated(kind, messages)
                });
                self.emit_fabricated();
            }
            _ => {
                self.to_client.write(write);
                self.client.local.get_or_insert_default().on_answered();
            }
        }
        Disposition::Discard
    }

    /// Answers a message with an error. A transaction that is open on the server must fail with it.
    pub(super) fn refuse(
        &mut self,
        error: ErrorResponse,
        text: &[u8],
        out: &mut Outbound,
    ) -> Disposition {
        let is_quiet = self.is_quiet();
        match self.server.as_deref_mut() {
            Some(server)
                if !is_quiet || server.exchange.status() == TransactionStatus::InTransaction =>
            {
                // The text is none that PostgreSQL's grammar takes, and tells readers of its log why.
                let refused = format!("pgspan: {}", error.message);
                out.write(|out| encode::parse(out, b"", refused.as_bytes(), &[]));
                server.on_unnamed_parse(refused.as_bytes(), None);
                let parse = Parse {
                    name: b"",
                    definition: text,
                };
                let query = parse_in_flight(server, self.client, &parse, self.received, self.now);
                server.exchange.on_request(OutstandingRequest {
                    delivery: Delivery::Refuse(Box::new(error)),
                    query: Some(query),
                    ..OutstandingRequest::forwarded(RequestKind::Parse)
                });
            }
            _ => {
                self.to_client.write(|out| error.encode(out));
                self.client.trace.on_error();
                self.client.local.get_or_insert_default().on_error();
            }
        }
        Disposition::Discard
    }

    /// The transaction that a command runs in, and how many statements of the same pipeline are ahead of it.
    fn block(&self) -> (Block, u32) {
        // From 18 on, a command behind another one of the same pipeline is not alone in its transaction.
        let version = self
            .client
            .surroundings(TransactionStatus::Idle)
            .server_version;
        let local = self.client.local.as_ref();
        let mut has_executed = local.is_some_and(|local| local.has_executed());
        let (status, executes) = match self.server.as_deref() {
            None => (TransactionStatus::Idle, 0),
            Some(server) => {
                has_executed |= server.has_executed;
                let before = || self.client.trace.status(server.exchange.status());
                (server.group_status.unwrap_or_else(before), server.executes)
            }
        };
        let block = match status {
            TransactionStatus::Failed if self.is_failed() => Block::Failed,
            TransactionStatus::Idle if !has_executed || version < PIPELINES_ARE_BLOCKS => {
                Block::Outside
            }
            _ => Block::Inside,
        };
        (block, executes)
    }

    /// Whether the command in hand may find a failed transaction, which is not known yet.
    pub(super) fn may_have_failed(&self) -> bool {
        let server = self.server.as_deref();
        server.is_some_and(|server| server.exchange.may_have_failed())
    }

    fn is_quiet(&self) -> bool {
        self.server
            .as_deref()
            .is_none_or(|server| server.exchange.is_quiet())
    }

    /// Whether the transaction has failed for certain: what is still on its way may end it.
    fn is_failed(&self) -> bool {
        self.is_quiet() && self.status() == TransactionStatus::Failed
    }

    fn skips_locally(&self) -> bool {
        self.client
            .local
            .as_ref()
            .is_some_and(|local| local.skips_to_sync())
    }
}

/// What a Bind holds behind its names.
struct BoundValues<'a> {
    count: usize,
    /// As many as a command may have.
    values: SmallVec<[BoundValue<'a>; 2]>,
    formats: Formats,
}

impl<'a> BoundValues<'a> {
    /// Reads a Bind's body behind the names.
    fn read(mut rest: &'a [u8]) -> Option<Self> {
        let formats = Formats::take(&mut rest)?;
        let count = take_count(&mut rest)?;
        let mut values = SmallVec::new();
        for at in 0..count {
            let (length, behind) = rest.split_first_chunk()?;
            rest = behind;
            let mut bytes = None;
            // A negative length is NULL.
            if let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) {
                let (value, behind) = rest.split_at_checked(length)?;
                rest = behind;
                bytes = Some(value);
            }
            if at < LocalStatement::MAX_PARAMETERS {
                values.push(BoundValue {
                    bytes,
                    format: formats.of(at),
                });
            }
        }
        let formats = Formats::take(&mut rest)?;
        rest.is_empty().then_some(Self {
            count,
            values,
            formats,
        })
    }
}

fn take_count(rest: &mut &[u8]) -> Option<usize> {
    let (count, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(u16::from_be_bytes(*count).into())
}

impl Formats {
    fn take(rest: &mut &[u8]) -> Option<Self> {
        let count = take_count(rest)?;
        let (codes, behind) = rest.split_at_checked(2 * count)?;
        *rest = behind;
        let (codes, _) = codes.as_chunks();
        Some(Self::new(
            codes.iter().map(|code| i16::from_be_bytes(*code)),
        ))
    }
}

fn parameter_description(out: &mut Vec<u8>, statement: &LocalStatement) {
    encode::message(out, b't', |body| {
        let types = statement.parameters();
        let count = u16::try_from(types.len()).unwrap_or(u16::MAX);
        body.extend_from_slice(&count.to_be_bytes());
        for oid in types {
            body.extend_from_slice(&oid.to_be_bytes());
        }
    });
}

// PostgreSQL's words: plancache and prepare.c, exec_bind_message in postgres.c, PortalRun in pquery.c.

fn duplicate_statement(name: &[u8]) -> ErrorResponse {
    ErrorResponse::error(
        SqlState::DUPLICATE_PREPARED_STATEMENT,
        format!(
            "prepared statement \"{}\" already exists",
            String::from_utf8_lossy(name)
        ),
    )
}

fn wrong_count(count: usize, statement: &[u8], wanted: usize) -> ErrorResponse {
    ErrorResponse::error(
        SqlState::PROTOCOL_VIOLATION,
        format!(
            "bind message supplies {count} parameters, but prepared statement \"{}\" requires {wanted}",
            String::from_utf8_lossy(statement)
        ),
    )
}

fn malformed() -> ErrorResponse {
    ErrorResponse::error(SqlState::PROTOCOL_VIOLATION, "invalid message format")
}

fn run_again(portal: &[u8]) -> ErrorResponse {
    ErrorResponse::error(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "portal \"{}\" cannot be run",
            String::from_utf8_lossy(portal)
        ),
    )
}

fn failed_transaction() -> ErrorResponse {
    ErrorResponse::error(
        SqlState::IN_FAILED_SQL_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

// The proxy's own limits.

fn too_long() -> ErrorResponse {
    ErrorResponse::error(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        format!(
            "value of a pgspan parameter is longer than {} bytes",
            LocalStatements::MAX_COMMAND_LEN
        ),
    )
}

fn too_many_portals() -> ErrorResponse {
    ErrorResponse::error(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        format!(
            "more than {} portals for pgspan parameters",
            LocalStatements::MAX_PORTALS
        ),
    )
}

/// `set_config('application_name', …)`, with a name of the longest.
const LONGEST_SELECT: usize = 128;

/// From here on a pipeline is an implicit transaction block.
const PIPELINES_ARE_BLOCKS: u32 = 180_000;

const PORTAL_SUSPENDED: [u8; 5] = *b"s\0\0\0\x04";

#[cfg(test)]
mod tests;
