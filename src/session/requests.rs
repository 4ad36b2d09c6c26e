//! What becomes of each message that a client sends.

mod local;
mod prepared;
mod rewriting;
mod server_names;
mod setting_again;

use std::sync::Arc;
use std::time::Instant;

use crate::config::choices::{PreparedChannel, UnnamedStatements};
use crate::protocol::backend::TransactionStatus;
use crate::protocol::encode;
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::protocol::forwarder::{Arrived, BodyNeeded, Disposition, Judge};
use crate::protocol::frame::{FrameHeader, split_cstr};
use crate::protocol::frontend::FrontendTag;
use crate::protocol::outbound::Outbound;
use crate::session::annotator::{AnnotationPolicy, Annotator, QueryPlan, Stray, Verdict};
use crate::session::client_session::ClientSession;
use crate::session::local_statements::may_be_command;
use crate::session::outstanding::{
    Delivery, Effect, LocalReply, OutstandingRequest, QueryInFlight, Received, RequestKind,
};
use crate::session::position_map::PositionMap;
use crate::session::query_record::QueryKind;
use crate::session::server_session::ServerSession;
use crate::session::statements::Definitions;
use crate::session::stray;
use crate::session::tally::Tally;
use crate::session::violation::Violation;
use crate::trace_context::TraceContext;

use self::rewriting::write_edited;

/// How requests are treated in one pool.
#[derive(Clone, Debug)]
pub struct RequestPolicy {
    /// How queries are annotated.
    pub annotation: AnnotationPolicy,
    /// Statements that are kept prepared on a server at most.
    pub max_prepared_statements: usize,
    /// What becomes of unnamed statements.
    pub unnamed_statements: UnnamedStatements,
}

/// What requests are worked on with: made once, used for all clients of a worker.
#[derive(Debug)]
pub struct Workbench {
    /// Plans queries.
    pub annotator: Annotator,
    /// Plans that nobody uses.
    pub plans: Vec<Box<QueryPlan>>,
    /// What happened, for the metrics.
    pub tally: Tally,
}

/// Judges what a client sends: with a server, or, before there is one, as far as none is needed.
pub struct Requests<'a> {
    /// Who asks.
    client: &'a mut ClientSession,
    /// Who answers.
    server: Option<&'a mut ServerSession>,
    /// The statements of the pool.
    definitions: &'a mut Definitions,
    /// How requests are treated.
    policy: &'a RequestPolicy,
    /// What they are worked on with.
    bench: &'a mut Workbench,
    /// Where answers of the proxy's own go.
    to_client: &'a mut Outbound,
    /// The time of this wake-up.
    now: Instant,
    /// When the message in hand came.
    received: Received,
    /// Why it paused, if it did.
    pause: Option<Pause>,
}

/// Plans that are kept at most when nobody uses them.
const SPARE_PLANS: usize = 256;

/// Why a client's messages are not judged further for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// There must be a server first.
    NeedsServer,
    /// Too many requests are outstanding, or too much is on its way to the server: replies have to come first.
    Throttled,
    /// What becomes of the message depends on how earlier ones end: replies to those have to come first.
    Unsettled,
    /// The client has said good-bye.
    Terminated,
}

/// What a client reads whose query was cancelled before it ran.
pub fn canceled() -> ErrorResponse {
    ErrorResponse::error(
        SqlState::QUERY_CANCELED,
        "canceling statement due to user request",
    )
}

/// How a query leaves for the server.
struct Sent {
    delivery: Delivery,
    effect: Effect,
    positions: PositionMap,
}

impl Sent {
    /// As the client sent it.
    fn as_it_is() -> Self {
        Self {
            delivery: Delivery::Forward,
            effect: Effect::None,
            positions: PositionMap::default(),
        }
    }

    /// As planned; with a query of the proxy's own behind it, which ends its reply.
    fn of(plan: &QueryPlan, is_followed: bool) -> Self {
        Self {
            delivery: match is_followed {
                true => Delivery::ForwardUnready,
                false => Delivery::Forward,
            },
            effect: match plan.may_forget_statements() {
                true => Effect::MayForget,
                false => Effect::None,
            },
            positions: plan.positions(),
        }
    }
}

/// How much of a named statement is kept at most, in bytes.
pub const MAX_DEFINITION_LEN: usize = 16 << 20;

/// How much may be on its way to the server before more is judged: short messages can bring about long ones.
const OUT_LIMIT: usize = 1 << 20;

/// How much of a Bind, and of a Parse that is not kept, is looked at: the names must end in it.
const NAMES_LIMIT: usize = 1024;

impl Judge for Requests<'_> {
    type Violation = Violation;

    fn malformed(&mut self, tag: u8) -> Violation {
        Violation::ClientMessageLength(tag)
    }

    fn body_needed(&mut self, header: FrameHeader) -> Result<BodyNeeded, Violation> {
        let tag =
            FrontendTag::from_byte(header.tag).ok_or(Violation::ClientMessageType(header.tag))?;
        if header.body_len > tag.max_body_len() {
            return Err(Violation::ClientMessageLength(header.tag));
        }
        Ok(match tag {
            FrontendTag::Query if header.body_len <= self.policy.annotation.max_query_bytes => {
                BodyNeeded::Whole
            }
            FrontendTag::Query => BodyNeeded::Prefix(NAMES_LIMIT),
            FrontendTag::Parse if header.body_len <= MAX_DEFINITION_LEN => BodyNeeded::Whole,
            FrontendTag::Bind if self.needs_bound_values(header) => BodyNeeded::Whole,
            FrontendTag::Parse | FrontendTag::Bind => BodyNeeded::Prefix(NAMES_LIMIT),
            FrontendTag::FunctionCall => BodyNeeded::Prefix(size_of::<u32>()),
            FrontendTag::Describe | FrontendTag::Execute | FrontendTag::Close => BodyNeeded::Whole,
            FrontendTag::Flush
            | FrontendTag::Sync
            | FrontendTag::CopyData
            | FrontendTag::CopyDone
            | FrontendTag::CopyFail
            | FrontendTag::Terminate => BodyNeeded::Nothing,
            FrontendTag::Password => return Err(Violation::ClientMessageType(header.tag)),
        })
    }

    fn on_frame(
        &mut self,
        arrived: Arrived<'_>,
        out: &mut Outbound,
    ) -> Result<Disposition, Violation> {
        let tag = FrontendTag::from_byte(arrived.header.tag)
            .expect("a tag that was judged by its header");
        let is_full = self
            .server
            .as_ref()
            .is_some_and(|server| server.exchange.is_full() && !server.exchange.copies_in());
        match tag {
            // Taken in any state.
            FrontendTag::Terminate => return Ok(self.pause(Pause::Terminated)),
            FrontendTag::Sync | FrontendTag::CopyDone | FrontendTag::CopyFail if is_full => {
                return Ok(self.pause_for_replies(Pause::Throttled, out));
            }
            FrontendTag::Sync => return Ok(self.on_sync()),
            // Not requests: the server takes them, or ignores them, without a reply.
            FrontendTag::CopyData | FrontendTag::Flush => {
                return Ok(if self.server.is_some() {
                    Disposition::Forward
                } else {
                    Disposition::Discard
                });
            }
            FrontendTag::CopyDone | FrontendTag::CopyFail => {
                let Some(server) = &mut self.server else {
                    return Ok(Disposition::Discard);
                };
                server.exchange.on_copy_sent(self.now);
                server
                    .exchange
                    .on_request(OutstandingRequest::forwarded(RequestKind::CopyEnd));
                return Ok(Disposition::Forward);
            }
            _ => {}
        }
        if let Some(server) = &self.server {
            if server.exchange.skips_to_sync() {
                // The server would ignore it too.
                return Ok(Disposition::Discard);
            }
            if server.exchange.is_full() || out.len() >= OUT_LIMIT {
                return Ok(self.pause_for_replies(Pause::Throttled, out));
            }
            self.received = self.client.waited.take().unwrap_or(Received {
                at: self.now,
                queue_cause: None,
            });
        }
        if self.server.is_none() && std::mem::take(&mut self.client.is_canceled) {
            return Ok(self.cancel(tag));
        }
        if let Some(disposition) = self.answer_locally(tag, &arrived, out) {
            return Ok(disposition);
        }
        match tag {
            FrontendTag::Query => Ok(self.on_query(arrived, out)),
            FrontendTag::Parse | FrontendTag::Bind | FrontendTag::FunctionCall
                if self.announces() =>
            {
                let context = Arc::clone(self.client.trace.context().0);
                self.announce(Some(&context), out);
                self.on_request(tag, arrived, out)
            }
            _ => self.on_request(tag, arrived, out),
        }
    }
}

impl Requests<'_> {
    fn on_request(
        &mut self,
        tag: FrontendTag,
        arrived: Arrived<'_>,
        out: &mut Outbound,
    ) -> Result<Disposition, Violation> {
        match tag {
            FrontendTag::Parse => self.on_parse(arrived, out),
            FrontendTag::Bind => self.on_bind(arrived, out),
            FrontendTag::Describe => Ok(self.on_describe(arrived, out)),
            FrontendTag::Close => Ok(self.on_close(arrived, out)),
            FrontendTag::Execute => Ok(self.on_execute(arrived, out)),
            _ => Ok(self.on_function_call(&arrived)),
        }
    }
}

impl Workbench {
    /// With nothing on it.
    pub fn new() -> Self {
        Self {
            annotator: Annotator::new(),
            plans: Vec::new(),
            tally: Tally::default(),
        }
    }
}

impl Default for Workbench {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> Requests<'a> {
    /// For one read, at this time.
    pub fn new(
        client: &'a mut ClientSession,
        server: Option<&'a mut ServerSession>,
        definitions: &'a mut Definitions,
        policy: &'a RequestPolicy,
        bench: &'a mut Workbench,
        to_client: &'a mut Outbound,
        now: Instant,
    ) -> Self {
        Self {
            client,
            server,
            definitions,
            policy,
            bench,
            to_client,
            now,
            received: Received {
                at: now,
                queue_cause: None,
            },
            pause: None,
        }
    }

    /// Why it paused, if it did.
    pub fn paused(&self) -> Option<Pause> {
        self.pause
    }

    fn pause(&mut self, why: Pause) -> Disposition {
        self.pause = Some(why);
        Disposition::Pause
    }

    /// Pauses until replies have come. Flush makes the server send those that it holds back until the next Sync.
    fn pause_for_replies(&mut self, why: Pause, out: &mut Outbound) -> Disposition {
        // Where it waits only for what it is sent to leave, more need not be sent.
        if out.len() < OUT_LIMIT {
            out.write(encode::flush);
        }
        self.pause(why)
    }

    /// Whether the server may be told now whose work comes next.
    fn announces(&self) -> bool {
        self.policy.annotation.prepared != PreparedChannel::None
            && self
                .server
                .as_ref()
                .is_some_and(|server| server.is_ready_for_own())
            && !self
                .client
                .surroundings(TransactionStatus::Idle)
                .replication
    }

    /// Tells the server whose work comes next, where it may be told and does not know.
    fn announce(&mut self, context: Option<&TraceContext>, out: &mut Outbound) {
        if !self.announces() {
            return;
        }
        let Some(server) = self.server.as_deref_mut() else {
            return;
        };
        let own = self.client.parameters.value(b"application_name");
        let channel = self.policy.annotation.prepared;
        out.write(|out| {
            let ServerSession {
                announced,
                exchange,
                ..
            } = server;
            if announced.tell(channel, context, own.unwrap_or_default(), exchange, out) {
                self.bench.tally.announcements += 1;
            }
        });
    }

    /// Keeps for later when the message came that is judged again.
    fn pause_unsettled(&mut self, out: &mut Outbound) -> Disposition {
        self.client.waited = Some(self.received);
        self.pause_for_replies(Pause::Unsettled, out)
    }

    fn status(&self) -> TransactionStatus {
        self.server
            .as_ref()
            .map_or(TransactionStatus::Idle, |server| server.exchange.status())
    }

    /// Answers the message that was waiting for a server as PostgreSQL answers one that is cancelled.
    fn cancel(&mut self, tag: FrontendTag) -> Disposition {
        self.client.waited = None;
        self.to_client.write(|out| canceled().encode(out));
        if self.client.planned.take().is_some() {
            // The plan had told the trace of a message on its way.
            self.client.trace.on_error();
            self.client.trace.on_ready(TransactionStatus::Idle);
        }
        match tag {
            FrontendTag::Query | FrontendTag::FunctionCall => {
                self.to_client
                    .write(|out| encode::ready_for_query(out, TransactionStatus::Idle));
            }
            // Everything up to the Sync was part of it.
            _ => self.client.local.get_or_insert_default().on_error(),
        }
        Disposition::Discard
    }

    fn on_query(&mut self, arrived: Arrived<'_>, out: &mut Outbound) -> Disposition {
        let text = arrived.body.strip_suffix(&[0]).unwrap_or(arrived.body);
        let Some(_) = arrived.whole() else {
            return self.forward_query(text, None, Sent::as_it_is());
        };
        if self.client.planned.is_none() && self.may_have_failed() && may_be_command(text) {
            return self.pause_unsettled(out);
        }
        let mut plan = self.client.planned.take().unwrap_or_else(|| {
            let mut plan = self.bench.plans.pop().unwrap_or_default();
            let around = self.client.surroundings(self.status());
            let policy = &self.policy.annotation;
            self.bench
                .annotator
                .plan(policy, text, &mut self.client.trace, &around, &mut plan);
            plan
        });
        let disposition = match plan.verdict() {
            Verdict::Answered => {
                self.answer_query(&plan);
                Disposition::Discard
            }
            _ if self.server.is_none() => {
                self.client.planned = Some(plan);
                return self.pause(Pause::NeedsServer);
            }
            _ if plan.may_listen() && self.refuses_listen(text) => {
                self.refuse_query(text, &mut plan, out)
            }
            _ if plan.names_statement() && self.is_named_statement_unsettled(text) => {
                self.client.planned = Some(plan);
                return self.pause_unsettled(out);
            }
            _ if plan.names_statement() && self.names_prepared_statement(text) => {
                self.query_with_server_name(text, &mut plan, out)
            }
            Verdict::Untouched(reason) => {
                self.announce(plan.trace().cloned().as_deref(), out);
                self.bench.tally.on_skipped(reason);
                let again = self.to_set_again(text, plan.may_reset());
                let sent = Sent::of(&plan, again.is_some());
                let disposition = self.forward_query(text, Some(&mut plan), sent);
                match again {
                    Some(again) => {
                        arrived.pass_whole(out);
                        self.set_again(again, out)
                    }
                    None => disposition,
                }
            }
            Verdict::Edited => {
                self.announce(plan.trace().cloned().as_deref(), out);
                self.bench.tally.on_annotated();
                write_edited(&arrived, &plan, 0, out);
                let again = self.to_set_again(text, plan.may_reset());
                let sent = Sent::of(&plan, again.is_some());
                self.forward_query(text, Some(&mut plan), sent);
                if let Some(again) = again {
                    self.set_again(again, out);
                }
                Disposition::Discard
            }
        };
        if self.bench.plans.len() < SPARE_PLANS {
            self.bench.plans.push(plan);
        }
        disposition
    }

    /// Queues a query that leaves for the server.
    fn forward_query(
        &mut self,
        text: &[u8],
        plan: Option<&mut QueryPlan>,
        sent: Sent,
    ) -> Disposition {
        let Some(server) = self.server.as_deref_mut() else {
            return self.pause(Pause::NeedsServer);
        };
        server.on_unnamed_done();
        let ended = self.client.on_query();
        let stray = plan.as_ref().map_or(Stray::None, |plan| plan.stray());
        if stray != Stray::None {
            server.on_stray_commands(text);
            self.bench.tally.unrecognised += u64::from(stray == Stray::Unrecognised);
        }
        let text = match plan {
            Some(_) => server.exchange.texts.keep(text),
            // Too long to wait for all of it.
            None => server.exchange.texts.keep_beginning(text),
        };
        let mut query = QueryInFlight::new(QueryKind::Simple, text, self.received, self.now);
        match plan {
            Some(plan) => {
                query.trace = plan.trace().cloned();
                query.context = plan.context();
                query
                    .local_replies
                    .extend(plan.replies().map(|reply| LocalReply {
                        after_statements: reply.after_statements,
                        messages: reply.messages.into(),
                    }));
            }
            None => {
                self.client.trace.on_request_sent();
                query.set_context(self.client.trace.context());
            }
        }
        query.positions = sent.positions;
        server.exchange.on_request(OutstandingRequest {
            // A stream for replication lasts as long as it lasts.
            query: (!self.client.is_replication).then_some(query),
            effect: match (sent.effect, ended) {
                (Effect::None, Some(before)) => Effect::Unnamed {
                    before,
                    prepared: None,
                },
                (effect, _) => effect,
            },
            delivery: sent.delivery,
            ..OutstandingRequest::forwarded(RequestKind::Query)
        });
        Disposition::Forward
    }

    /// Answers a query of which nothing is left for a server.
    fn answer_query(&mut self, plan: &QueryPlan) {
        self.bench.tally.on_answered();
        let mut messages = Vec::new();
        plan.replies()
            .for_each(|reply| messages.extend_from_slice(reply.messages));
        match &mut self.server {
            Some(server) if !server.exchange.is_idle() => {
                server.exchange.on_request(OutstandingRequest {
                    delivery: Delivery::FabricateReady(messages.into()),
                    ..OutstandingRequest::forwarded(RequestKind::Query)
                })
            }
            server => {
                let status = server
                    .as_ref()
                    .map_or(TransactionStatus::Idle, |server| server.exchange.status());
                self.to_client.copy(&messages);
                self.to_client
                    .write(|out| encode::ready_for_query(out, status));
            }
        }
    }

    fn on_execute(&mut self, arrived: Arrived<'_>, out: &mut Outbound) -> Disposition {
        let Some(server) = self.server.as_deref_mut() else {
            return self.pause(Pause::NeedsServer);
        };
        server.executes = server.executes.saturating_add(1);
        // A query that was bound in the same go began with its Parse or Bind; not if those have been answered meanwhile.
        if server.exchange.is_idle() {
            server.group = None;
        }
        let (received, sent_at) = server.group.take().unwrap_or((self.received, self.now));
        let portal = split_cstr(arrived.body).map_or(&b""[..], |(portal, _)| portal);
        let (text, commented) = server.keep_portal_text(portal);
        let commented = commented.or_else(|| {
            // Behind a name the trace in the text is as old as the Parse; its tags are not.
            let text = server.portal_text(portal);
            let around = self.client.surroundings(server.exchange.status());
            let comment = self.bench.annotator.own_comment_in(text, &around)?;
            Some(self.client.trace.context_with_tags(&comment))
        });
        if stray::is_in(server.portal_text(portal)) {
            self.bench.tally.unrecognised += 1;
            let text = server.portal_text(portal).to_owned();
            server.on_stray_commands(&text);
        }
        Self::reset_with(self.client, server, portal);
        Self::on_transaction_command(self.client, server, portal);
        let mut query = QueryInFlight::new(QueryKind::Execute, text, received, sent_at);
        let effect = Self::deallocated_by(self.client, server, portal);
        query.positions = server.portal_positions(portal);
        match &commented {
            Some((trace, state)) => query.set_context((trace, *state)),
            None => query.set_context(self.client.trace.context()),
        }
        server.exchange.on_request(OutstandingRequest {
            query: Some(query),
            effect,
            ..OutstandingRequest::forwarded(RequestKind::Execute)
        });
        match self.to_set_again_behind(portal) {
            Some(again) => {
                arrived.pass_whole(out);
                self.set_again_in_group(again, out)
            }
            None => Disposition::Forward,
        }
    }

    fn on_function_call(&mut self, arrived: &Arrived<'_>) -> Disposition {
        let Some(server) = self.server.as_deref_mut() else {
            return self.pause(Pause::NeedsServer);
        };
        if let Some(oid) = arrived.body.first_chunk() {
            server.on_function_call(u32::from_be_bytes(*oid), self.client.session_state);
        }
        let text = server.exchange.texts.keep(b"");
        let mut query = QueryInFlight::new(QueryKind::FunctionCall, text, self.received, self.now);
        query.set_context(self.client.trace.context());
        self.client.trace.on_request_sent();
        server.exchange.on_request(OutstandingRequest {
            query: Some(query),
            ..OutstandingRequest::forwarded(RequestKind::FunctionCall)
        });
        Disposition::Forward
    }

    fn on_sync(&mut self) -> Disposition {
        if self.sync_locally() {
            return Disposition::Discard;
        }
        let Some(server) = self.server.as_deref_mut() else {
            // Nothing was asked of a server: nothing has to be awaited.
            self.to_client
                .write(|out| encode::ready_for_query(out, TransactionStatus::Idle));
            return Disposition::Discard;
        };
        server.group = None;
        server.executes = 0;
        server.group_status = None;
        server.has_executed = false;
        if !server.exchange.copies_in() {
            self.client.trace.on_request_sent();
        }
        server
            .exchange
            .on_request(OutstandingRequest::forwarded(RequestKind::Sync));
        Disposition::Forward
    }
}
