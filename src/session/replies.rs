//! What becomes of each message that a server sends.

use std::rc::Rc;
use std::time::Instant;

use crate::config::choices::PoolMode;
use crate::protocol::backend::{
    BackendTag, ErrorFields, TransactionStatus, command_tag, data_row, parameter_status, rows_of,
};
use crate::protocol::encode;
use crate::protocol::error_response::SqlState;
use crate::protocol::forwarder::{Arrived, BodyNeeded, Disposition, Judge};
use crate::protocol::frame::FrameHeader;
use crate::protocol::outbound::Outbound;
use crate::session::announcement::Reported;
use crate::session::client_session::ClientSession;
use crate::session::outstanding::{Delivery, Effect, RequestKind};
use crate::session::parameters::ParameterSet;
use crate::session::position_map::PositionMap;
use crate::session::server_session::ServerSession;
use crate::session::statements::{Statement, UnnamedStatement};
use crate::session::violation::Violation;

/// Whether the server stands by (PostgreSQL 14 and later). It is reported, and nobody can set it: the server has been promoted.
const IN_HOT_STANDBY: &[u8] = b"in_hot_standby";

/// Judges what a server sends to the client that it is linked to.
#[derive(Debug)]
pub struct Replies<'a> {
    client: &'a mut ClientSession,
    server: &'a mut ServerSession,
    now: Instant,
    /// The request in front may not have had its first byte yet.
    fresh_front: bool,
    fatal: Option<SqlState>,
}

/// Messages that are needed whole are at most this long, or pass without a closer look where that is harmless.
const WHOLE_LIMIT: usize = 1 << 20;

impl<'a> Replies<'a> {
    /// For one read that has brought something, at this time.
    pub fn new(client: &'a mut ClientSession, server: &'a mut ServerSession, now: Instant) -> Self {
        Self {
            client,
            server,
            now,
            fresh_front: true,
            fatal: None,
        }
    }

    /// The SQLSTATE with which the server ended the session, if it did.
    pub fn fatal(&self) -> Option<SqlState> {
        self.fatal
    }
}

impl Judge for Replies<'_> {
    type Violation = Violation;

    fn malformed(&mut self, tag: u8) -> Violation {
        Violation::ServerMessageLength(tag)
    }

    fn body_needed(&mut self, header: FrameHeader) -> Result<BodyNeeded, Violation> {
        let tag =
            BackendTag::from_byte(header.tag).ok_or(Violation::ServerMessageType(header.tag))?;
        if self.fresh_front {
            self.fresh_front = false;
            self.server.exchange.on_bytes(self.now);
        }
        Ok(match tag {
            // Data: there will be more of it.
            BackendTag::DataRow if self.learns() => BodyNeeded::Whole,
            BackendTag::DataRow | BackendTag::CopyData => BodyNeeded::Nothing,
            BackendTag::ParameterDescription
            | BackendTag::CopyInResponse
            | BackendTag::CopyOutResponse
            | BackendTag::CopyBothResponse
            | BackendTag::CopyDone
            | BackendTag::FunctionCallResponse
            | BackendTag::NotificationResponse => BodyNeeded::Nothing,
            // The end of a Describe, which may be followed by an answer of the proxy's own.
            BackendTag::RowDescription if self.front_is(RequestKind::Describe) => {
                if header.body_len > WHOLE_LIMIT {
                    return Err(Violation::ServerMessageLength(header.tag));
                }
                BodyNeeded::Whole
            }
            BackendTag::RowDescription => BodyNeeded::Nothing,
            BackendTag::ErrorResponse | BackendTag::NoticeResponse
                if header.body_len > WHOLE_LIMIT =>
            {
                BodyNeeded::Prefix(WHOLE_LIMIT)
            }
            BackendTag::ErrorResponse | BackendTag::NoticeResponse => BodyNeeded::Whole,
            BackendTag::ParseComplete
            | BackendTag::BindComplete
            | BackendTag::CloseComplete
            | BackendTag::NoData
            | BackendTag::CommandComplete
            | BackendTag::EmptyQueryResponse
            | BackendTag::PortalSuspended
            | BackendTag::ParameterStatus
            | BackendTag::ReadyForQuery => {
                if header.body_len > WHOLE_LIMIT {
                    return Err(Violation::ServerMessageLength(header.tag));
                }
                BodyNeeded::Whole
            }
        })
    }

    fn on_frame(
        &mut self,
        arrived: Arrived<'_>,
        out: &mut Outbound,
    ) -> Result<Disposition, Violation> {
        let tag =
            BackendTag::from_byte(arrived.header.tag).expect("a tag that was judged by its header");
        match tag {
            // At any time, whoever is in front.
            BackendTag::NotificationResponse => return Ok(Disposition::Forward),
            BackendTag::NoticeResponse => return Ok(self.on_notice(&arrived, out)),
            BackendTag::ParameterStatus => return self.on_parameter_status(&arrived, out),
            BackendTag::ErrorResponse => return self.on_error(&arrived, out),
            _ => {}
        }
        self.emit_local_replies(out);
        if tag == BackendTag::ReadyForQuery && !self.server.exchange.may_be_ready() {
            let status = status_in(&arrived)?;
            return match self.server.exchange.take_doubtful_sync(status) {
                true => Ok(Disposition::Forward),
                false => Err(Violation::ServerUnexpected(arrived.header.tag)),
            };
        }
        let Some(front) = self.server.exchange.front() else {
            return Err(Violation::ServerUnexpected(arrived.header.tag));
        };
        let kind = front.kind;
        let delivers = match tag {
            BackendTag::ReadyForQuery => front.delivery.is_ready_to_client(),
            _ => front.delivery.is_to_client(),
        };
        if tag == BackendTag::DataRow
            && let Delivery::Learn(names) = &front.delivery
        {
            let values =
                data_row(arrived.body).ok_or(Violation::ServerMalformed(arrived.header.tag))?;
            learn(names, &values, self.client, &mut self.server.parameters);
            return Ok(Disposition::Discard);
        }
        if tag == BackendTag::DataRow && front.delivery == Delivery::CountBelongings {
            let values =
                data_row(arrived.body).ok_or(Violation::ServerMalformed(arrived.header.tag))?;
            if let [Some(count)] = *values {
                self.server.left.on_count(count);
            }
            return Ok(Disposition::Discard);
        }
        match (tag, kind) {
            // In the middle of a reply.
            (
                BackendTag::RowDescription
                | BackendTag::DataRow
                | BackendTag::CopyData
                | BackendTag::CopyDone,
                RequestKind::Query | RequestKind::Execute,
            )
            | (BackendTag::CopyOutResponse, RequestKind::Query | RequestKind::Execute)
            | (BackendTag::ParameterDescription, RequestKind::Describe) => Ok(pass_if(delivers)),
            (BackendTag::CopyInResponse, RequestKind::Query | RequestKind::Execute) => {
                self.server.exchange.on_copy_asked(self.now);
                for _ in 0..self.server.exchange.on_copy_in() {
                    self.client.trace.on_request_ignored();
                }
                Ok(pass_if(delivers))
            }
            (BackendTag::CopyBothResponse, RequestKind::Query) if self.client.is_replication => {
                self.server.exchange.on_copy_in();
                Ok(Disposition::Forward)
            }
            (BackendTag::FunctionCallResponse, RequestKind::FunctionCall)
            | (BackendTag::EmptyQueryResponse, RequestKind::Query) => {
                self.server.exchange.on_outcome();
                Ok(pass_if(delivers))
            }
            // A statement of a Query is done, or the Execute is.
            (BackendTag::CommandComplete, RequestKind::Query) => {
                self.on_command(&arrived)?;
                if delivers {
                    arrived.pass_whole(out);
                }
                self.emit_local_replies(out);
                Ok(Disposition::Discard)
            }
            (BackendTag::CommandComplete, RequestKind::Execute) => {
                self.on_command(&arrived)?;
                Ok(self.on_answered(&arrived, delivers, out))
            }
            // The end of a reply.
            (BackendTag::ParseComplete, RequestKind::Parse)
            | (BackendTag::BindComplete, RequestKind::Bind)
            | (BackendTag::CloseComplete, RequestKind::Close)
            | (BackendTag::RowDescription | BackendTag::NoData, RequestKind::Describe)
            | (BackendTag::EmptyQueryResponse, RequestKind::Execute) => {
                Ok(self.on_answered(&arrived, delivers, out))
            }
            (BackendTag::PortalSuspended, RequestKind::Execute) => {
                // It has run as far as it was asked to, and may never be asked for more.
                self.server.on_command(b"SELECT", self.client.session_state);
                Ok(self.on_answered(&arrived, delivers, out))
            }
            (
                BackendTag::ReadyForQuery,
                RequestKind::Query | RequestKind::FunctionCall | RequestKind::Sync,
            ) => {
                let status = status_in(&arrived)?;
                self.server.on_ready(status);
                if self.client.mode == PoolMode::Statement && status != TransactionStatus::Idle {
                    return Err(Violation::ClientTransaction);
                }
                if delivers {
                    self.client.trace.on_ready(status);
                    if status == TransactionStatus::Idle {
                        self.client.trace.on_transaction_end(self.now);
                    }
                }
                if delivers
                    && status == TransactionStatus::Idle
                    && !self.server.named_portals.is_empty()
                {
                    self.server.named_portals.clear();
                }
                Ok(self.on_answered(&arrived, delivers, out))
            }
            _ => Err(Violation::ServerUnexpected(arrived.header.tag)),
        }
    }
}

impl Replies<'_> {
    fn front_is(&self, kind: RequestKind) -> bool {
        self.server
            .exchange
            .front()
            .is_some_and(|front| front.kind == kind)
    }

    /// The request in front has all of its reply with this message, which is whole.
    fn on_answered(
        &mut self,
        arrived: &Arrived<'_>,
        delivers: bool,
        out: &mut Outbound,
    ) -> Disposition {
        if delivers {
            arrived.pass_whole(out);
        }
        self.server.exchange.on_answered(self.now);
        self.fresh_front = true;
        let exchange = &mut self.server.exchange;
        out.write(|out| while exchange.take_fabricated(out) {});
        Disposition::Discard
    }

    fn on_command(&mut self, arrived: &Arrived<'_>) -> Result<(), Violation> {
        let tag =
            command_tag(arrived.body).ok_or(Violation::ServerMalformed(arrived.header.tag))?;
        self.server.exchange.on_statement_done(rows_of(tag));
        if let Some(front) = self.server.exchange.front()
            && let Effect::SetAgain(again) = &front.effect
        {
            for (name, value) in again.session.iter() {
                // Of those that follow, the server reports what they are.
                if !self.client.parameters.follows(name) {
                    Rc::make_mut(&mut self.server.parameters).insert(name, value);
                    Rc::make_mut(&mut self.client.parameters).insert(name, value);
                }
            }
            return Ok(());
        }
        if self.server.exchange.is_delivering() {
            self.client.trace.on_command_complete(tag);
            if let Some(front) = self.server.exchange.front()
                && let Effect::Deallocated { name, statement } = &front.effect
            {
                self.client.statements.remove(name);
                self.server.statements.remove(statement);
            }
            let forgotten = self.server.on_command(tag, self.client.session_state);
            if forgotten.statements {
                self.client.statements.clear();
                if let Some(local) = &mut self.client.local {
                    local.deallocate_all();
                }
                self.prepare_again();
            }
            if forgotten.parameters {
                self.client.on_reset_all();
            }
        }
        Ok(())
    }

    /// What was taken for done behind a DISCARD ALL will be done behind it.
    fn prepare_again(&mut self) {
        for effect in self.server.exchange.effects() {
            match effect {
                Effect::Prepared { name, statement } => {
                    self.server.statements.insert(Rc::clone(statement));
                    if let Some(name) = name {
                        self.client.statements.insert(name, Rc::clone(statement));
                    }
                }
                Effect::Named { name, statement } => {
                    self.client.statements.insert(name, Rc::clone(statement));
                }
                Effect::Unnamed { prepared, .. } => {
                    if let Some(statement) = prepared {
                        self.server.statements.insert(Rc::clone(statement));
                    }
                }
                Effect::Evicted(statement) => self.server.statements.remove(statement),
                Effect::Closed { name, .. } => self.client.statements.remove(name),
                Effect::None
                | Effect::Local { .. }
                | Effect::SetAgain(_)
                | Effect::Deallocated { .. }
                | Effect::MayForget => {}
            }
        }
    }

    fn on_parameter_status(
        &mut self,
        arrived: &Arrived<'_>,
        out: &mut Outbound,
    ) -> Result<Disposition, Violation> {
        let (name, value) =
            parameter_status(arrived.body).ok_or(Violation::ServerMalformed(arrived.header.tag))?;
        if name == IN_HOT_STANDBY {
            self.server.stood_by = Some(value.into());
        }
        if !self.server.parameters.follows(name) {
            // What the proxy has set for the client, the client was told when it logged in.
            return Ok(pass_if(self.server.exchange.is_delivering()));
        }
        if name == b"application_name"
            && let Reported::Own(own) = self.server.announced.on_report(value)
        {
            if self.client.parameters.value(name) != Some(own) {
                // The client's own name is back: it had set another one.
                out.write(|out| encode::parameter_status(out, name, own));
                self.client.on_parameter_status(name, own);
                Rc::make_mut(&mut self.server.parameters).insert(name, own);
            }
            return Ok(Disposition::Discard);
        }
        // A report of what the proxy itself has set: the client knows.
        let is_known = self.client.parameters.value(name) == Some(value);
        if self.server.parameters.value(name) != Some(value) {
            Rc::make_mut(&mut self.server.parameters).insert(name, value);
        }
        let delivery = self.server.exchange.front().map(|front| &front.delivery);
        let is_for_client = match delivery {
            // It is set again with the next query: on a direct connection it would not have changed.
            Some(Delivery::ForwardUnready) => self.client.own.value(name).is_none(),
            Some(Delivery::ReadyOnly) => true,
            _ => self.server.exchange.is_delivering(),
        };
        if is_known || !is_for_client {
            return Ok(Disposition::Discard);
        }
        self.client.on_parameter_status(name, value);
        if self.client.parameters == self.server.parameters {
            self.server.parameters = Rc::clone(&self.client.parameters);
        }
        Ok(Disposition::Forward)
    }

    fn on_notice(&mut self, arrived: &Arrived<'_>, out: &mut Outbound) -> Disposition {
        if !self.server.exchange.is_delivering() {
            return Disposition::Discard;
        }
        let fields = ErrorFields::new(arrived.body);
        let code = fields.sql_state();
        if fields.field(b'V').or_else(|| fields.field(b'S')) == Some(b"WARNING") {
            self.server.exchange.on_warning(code, self.now);
        }
        // The scanner's come before any statement runs.
        if ![SqlState::NONSTANDARD_ESCAPE, SqlState::NAME_TOO_LONG].contains(&code) {
            self.emit_local_replies(out);
        }
        self.pass_mapped(arrived, out)
    }

    fn on_error(
        &mut self,
        arrived: &Arrived<'_>,
        out: &mut Outbound,
    ) -> Result<Disposition, Violation> {
        let fields = ErrorFields::new(arrived.body);
        let state = fields.sql_state();
        if fields.is_fatal() {
            self.fatal = Some(state);
        }
        let exchange = &mut self.server.exchange;
        if exchange
            .front()
            .is_some_and(|front| front.delivery == Delivery::Swallow)
            && self.fatal.is_none()
        {
            exchange.on_error(state, false, self.now, |_| {});
            self.server.announced.on_error();
            self.fresh_front = true;
            return Ok(Disposition::Discard);
        }
        let mut is_expected = false;
        if let Some(front) = exchange.front()
            && !front.delivery.is_to_client()
            && front.kind == RequestKind::Query
            && self.fatal.is_none()
        {
            is_expected = match front.delivery {
                // The client's command has failed before it, and the client knows.
                Delivery::ReadyOnly => state == SqlState::IN_FAILED_SQL_TRANSACTION,
                // What is not known to be gone is there.
                Delivery::CountBelongings => true,
                _ => return Err(Violation::ServerRefusedParameters(state)),
            };
        }
        // A syntax error is found before any statement runs; any other one after those in front have been done.
        if state != SqlState::SYNTAX_ERROR {
            self.emit_local_replies(out);
        }
        let (state, disposition) = match self.server.exchange.front().map(|front| &front.delivery) {
            Some(Delivery::Refuse(refusal)) if self.fatal.is_none() => {
                out.write(|out| refusal.encode(out));
                (refusal.code, Disposition::Discard)
            }
            _ if is_expected => (state, Disposition::Discard),
            _ => (state, self.pass_mapped(arrived, out)),
        };
        if state == SqlState::FEATURE_NOT_SUPPORTED
            && fields.field(b'R') == Some(b"RevalidateCachedQuery")
            && let Some(front) = self.server.exchange.front()
            && let Some(statement) = &front.bound
            && (statement.is_private() || self.client.means(statement))
        {
            // Whoever prepares it anew is to find the new result on every server.
            statement.set_stale();
        }
        // "COPY t, line 3": also where it is translated.
        let in_copy_data = fields.field(b'W').is_some_and(|at| {
            at.split(|byte| *byte == b'\n')
                .any(|line| line.starts_with(b"COPY "))
        });
        self.server.on_failure(self.client.session_state);
        // PostgreSQL forgets the unnamed statement before it looks at the next one's text.
        let ends_unnamed = self.server.exchange.front().is_some_and(|front| {
            front.kind == RequestKind::Parse && matches!(front.effect, Effect::Unnamed { .. })
        });
        let mut undone: Vec<Effect> = Vec::new();
        let ignored = self
            .server
            .exchange
            .on_error(state, in_copy_data, self.now, |effect| undone.push(effect));
        self.server.undo(&undone);
        for effect in undone {
            if let Effect::Closed { name, statement } = &effect {
                self.client.statements.insert(name, Rc::clone(statement));
            }
            if let Effect::Named { name, statement }
            | Effect::Prepared {
                name: Some(name),
                statement,
            } = &effect
                && let Some(known) = self.client.statements.find(name)
                // Perhaps one that was prepared anew behind it, where it was used.
                && known.definition() == statement.definition()
            {
                self.client.statements.forget_failed(name);
            }
            if let Effect::Unnamed { before, .. } = effect {
                self.client.unnamed = before;
                continue;
            }
            if let Effect::Local { name, before } = effect {
                self.client
                    .local
                    .get_or_insert_default()
                    .replace(&name, before);
            }
        }
        if ends_unnamed {
            self.client.unnamed = UnnamedStatement::Gone;
        }
        for _ in 0..ignored {
            self.client.trace.on_request_skipped();
        }
        self.client.trace.on_error();
        self.server.on_unnamed_done();
        self.fresh_front = true;
        let exchange = &mut self.server.exchange;
        if arrived.whole().is_some() {
            out.write(|out| while exchange.take_fabricated(out) {});
        }
        Ok(disposition)
    }

    /// Passes an error or a notice on in the client's terms: its position in the text that the client sent, the statement's name
    /// as the client gave it.
    fn pass_mapped(&self, arrived: &Arrived<'_>, out: &mut Outbound) -> Disposition {
        let Some(frame) = arrived.whole() else {
            return Disposition::Forward;
        };
        let query = self
            .server
            .exchange
            .front()
            .and_then(|front| front.query.as_ref());
        let positions = query
            .map(|query| &query.positions)
            .filter(|positions| !positions.is_identity());
        let names_statement =
            memchr::memmem::find(frame.body, Statement::NAME_PREFIX.as_bytes()).is_some();
        if positions.is_none() && !names_statement {
            arrived.pass_whole(out);
            return Disposition::Discard;
        }
        out.write(|out| {
            encode::message(out, frame.tag, |out| {
                for (kind, text) in ErrorFields::new(frame.body) {
                    out.push(kind);
                    match (kind, positions) {
                        (b'P', Some(positions)) => write_mapped(text, positions, out),
                        (b'M', _) if names_statement => {
                            self.client.statements.write_with_client_names(text, out)
                        }
                        _ => out.extend_from_slice(text),
                    }
                    out.push(0);
                }
                out.push(0);
            });
        });
        Disposition::Discard
    }

    /// Whether the proxy wants to know what is in the rows.
    fn learns(&self) -> bool {
        matches!(self.server.exchange.front(), Some(front)
            if matches!(front.delivery, Delivery::Learn(_) | Delivery::CountBelongings))
    }

    fn emit_local_replies(&mut self, out: &mut Outbound) {
        while let Some(reply) = self.server.exchange.take_local_reply() {
            out.copy(&reply.messages);
        }
    }
}

fn status_in(arrived: &Arrived<'_>) -> Result<TransactionStatus, Violation> {
    let &[status] = arrived.body else {
        return Err(Violation::ServerMalformed(arrived.header.tag));
    };
    TransactionStatus::from_byte(status).ok_or(Violation::ServerMalformed(arrived.header.tag))
}

fn pass_if(delivers: bool) -> Disposition {
    if delivers {
        Disposition::Forward
    } else {
        Disposition::Discard
    }
}

/// Values of parameters that the client has set become its own, and are known of the server.
fn learn(
    names: &[Box<[u8]>],
    values: &[Option<&[u8]>],
    client: &mut ClientSession,
    server: &mut Rc<ParameterSet>,
) {
    let mut learnt = (*client.parameters).clone();
    for (name, value) in names.iter().zip(values) {
        match value {
            // What PostgreSQL leaves of a parameter of nobody's when its transaction ends is not set.
            Some(b"") if name.to_ascii_lowercase().starts_with(b"pgspan.") => learnt.remove(name),
            Some(value) => learnt.insert(name, value),
            None => learnt.remove(name),
        }
    }
    *server = Rc::new(learnt);
    client.parameters = Rc::clone(server);
}

/// A position in the server's text as one in the client's; one that is no number stays what it is.
fn write_mapped(position: &[u8], positions: &PositionMap, out: &mut Vec<u8>) {
    match str::from_utf8(position)
        .ok()
        .and_then(|text| text.parse().ok())
    {
        Some(position) => {
            out.extend_from_slice(positions.to_client(position).to_string().as_bytes())
        }
        None => out.extend_from_slice(position),
    }
}
