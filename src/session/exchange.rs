//! Requests outstanding on a server, their replies, and the transaction.
//!
//! Every request that expects a reply is queued, in the order of the wire. A reply belongs to the request in front. What the
//! proxy asks for itself stands in the queue like the rest, with its reply withheld; what the proxy answers itself stands in it
//! too, so that the answer leaves in its turn.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::protocol::backend::TransactionStatus;
use crate::protocol::encode;
use crate::protocol::error_response::SqlState;
use crate::session::kept_texts::KeptTexts;
use crate::session::outstanding::{
    Delivery, Effect, LocalReply, OutstandingRequest, QueryInFlight, RequestKind,
};
use crate::session::query_record::{
    MAX_WARNINGS, Outcome, Phases, QueryRecord, TEXT_LIMIT, Warning,
};
use crate::session::statements::Statement;

/// A query that is answered, while its reply is still on the way to the client.
#[derive(Debug)]
struct AnsweredQuery {
    query: QueryInFlight,
    /// When the server could begin with it: when it was sent, or when it had answered the one before.
    begun_at: Instant,
    last_byte_at: Instant,
    outcome: Outcome,
}

/// The queue of one server.
#[derive(Debug)]
pub struct Exchange {
    outstanding: VecDeque<OutstandingRequest>,
    answered: Vec<AnsweredQuery>,
    /// When the last query was answered.
    last_answered_at: Option<Instant>,
    /// What is shown of the warnings of a query, kept for its room.
    shown_warnings: Vec<Warning>,
    /// The texts of the queries above, one behind the other; empty whenever there are none.
    pub texts: KeptTexts,
    status: TransactionStatus,
    /// Extended messages were sent and no Sync behind them: an implicit transaction may be open.
    awaits_sync: bool,
    /// The server has answered an error and ignores everything up to the next Sync.
    skips_to_sync: bool,
    /// The server takes COPY data.
    copies_in: bool,
    /// Syncs that the server ignores if it came to them while it copied. If the COPY failed before, it answers them.
    doubtful_syncs: usize,
    /// Outstanding requests with an effect.
    unsettled: usize,
}

impl Exchange {
    /// Requests that may be outstanding. A server's replies to that many don't fit into its own output buffer (8 KiB),
    /// so it will have sent some, and waiting for them can't last for ever.
    pub const MAX_OUTSTANDING: usize = 8192;

    /// Of a server that is ready for the first query.
    pub fn new() -> Self {
        Self {
            outstanding: VecDeque::new(),
            answered: Vec::new(),
            last_answered_at: None,
            shown_warnings: Vec::new(),
            texts: KeptTexts::default(),
            status: TransactionStatus::Idle,
            awaits_sync: false,
            skips_to_sync: false,
            copies_in: false,
            doubtful_syncs: 0,
            unsettled: 0,
        }
    }

    /// The server has not got this statement after all. What closes it next has nothing to close: where it is skipped, nothing
    /// comes back.
    pub fn on_never_prepared(&mut self, statement: &Statement) {
        let mut requests = self.outstanding.iter_mut();
        if let Some(next) = requests.find(|request| request.effect.on(statement).is_some())
            && next.effect.on(statement) == Some(false)
        {
            next.effect = Effect::None;
            self.unsettled -= 1;
        }
    }

    /// Whether the server will have this statement when it has come to all that is outstanding. `None`: nothing touches it.
    pub fn will_have(&self, statement: &Statement) -> Option<bool> {
        let mut requests = self.outstanding.iter().rev();
        requests.find_map(|request| request.effect.on(statement))
    }

    /// What the last ReadyForQuery said.
    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    /// Whether the server owes nobody anything: no reply is outstanding, no transaction open, no pipeline begun.
    pub fn is_releasable(&self) -> bool {
        self.is_quiet() && self.status == TransactionStatus::Idle && self.doubtful_syncs == 0
    }

    /// Whether nothing has been sent since the last ReadyForQuery: the server waits for a first message.
    pub fn is_quiet(&self) -> bool {
        self.outstanding.is_empty() && !self.awaits_sync && !self.skips_to_sync && !self.copies_in
    }

    /// Whether a message of a new group may find a failed transaction, which is not known yet.
    pub fn may_have_failed(&self) -> bool {
        let ends = |request: &&OutstandingRequest| {
            matches!(
                request.kind,
                RequestKind::Query | RequestKind::FunctionCall | RequestKind::Sync
            )
        };
        // The one that opens a transaction is hardly one that fails in it.
        let needed = match self.status {
            TransactionStatus::Idle => 2,
            TransactionStatus::InTransaction | TransactionStatus::Failed => 1,
        };
        !self.awaits_sync && self.outstanding.iter().filter(ends).count() >= needed
    }

    /// Whether the proxy may ask for something of its own, with a Sync behind it, and no client will ever know: there is neither
    /// a transaction nor a pipeline, and what is outstanding is the proxy's own too.
    pub fn is_ready_for_own(&self) -> bool {
        let is_own = |request: &OutstandingRequest| {
            !request.delivery.is_to_client() && !request.delivery.is_ready_to_client()
        };
        self.status == TransactionStatus::Idle
            && !self.awaits_sync
            && !self.skips_to_sync
            && !self.copies_in
            && self.doubtful_syncs == 0
            && self.outstanding.iter().all(is_own)
    }

    /// Whether extended messages were sent and no Sync behind them: the server may keep their replies to itself.
    pub fn awaits_sync(&self) -> bool {
        self.awaits_sync
    }

    /// Whether Syncs were sent that the server ignores, if it has come to the COPY that they stand in.
    pub fn has_doubtful_syncs(&self) -> bool {
        self.doubtful_syncs > 0
    }

    /// Whether any reply is outstanding.
    pub fn is_idle(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// Whether no more requests may be sent before replies have come.
    pub fn is_full(&self) -> bool {
        self.outstanding.len() >= Self::MAX_OUTSTANDING
    }

    /// Whether the server takes COPY data.
    pub fn copies_in(&self) -> bool {
        self.copies_in
    }

    /// Whether the effects of some request are not certain yet.
    pub fn has_unsettled(&self) -> bool {
        self.unsettled > 0
    }

    /// Whether it is certain what a message sent now will find, where that depends on the effects that `touches` names.
    ///
    /// It is not while such an effect is outstanding in an earlier group: that one may be skipped, while this message is not.
    /// Within the same group it is: what skips the one skips the other.
    pub fn is_settled(&self, touches: impl Fn(&Effect) -> bool) -> bool {
        if self.unsettled == 0 {
            return true;
        }
        let is_sync = |request: &OutstandingRequest| request.kind == RequestKind::Sync;
        let group = self.outstanding.iter().rposition(is_sync).unwrap_or(0);
        !self.outstanding.iter().enumerate().any(|(at, request)| {
            request.effect.is_settled_by_success() || at < group && touches(&request.effect)
        })
    }

    /// The effects of what is outstanding, in order.
    pub fn effects(&self) -> impl Iterator<Item = &Effect> {
        self.outstanding.iter().map(|request| &request.effect)
    }

    /// Whether the server ignores what it is sent, up to the next Sync.
    pub fn skips_to_sync(&self) -> bool {
        self.skips_to_sync
    }

    /// A request leaves for the server (or is answered by the proxy, in its turn).
    pub fn on_request(&mut self, request: OutstandingRequest) {
        match request.kind {
            RequestKind::Query | RequestKind::FunctionCall => {}
            RequestKind::Sync if self.copies_in => {
                // While the server takes COPY data it ignores Sync (CopyGetData in copyfromparse.c).
                self.doubtful_syncs += 1;
                return;
            }
            RequestKind::Sync => {
                self.awaits_sync = false;
                self.skips_to_sync = false;
            }
            RequestKind::CopyEnd => {
                // Only data that is sent ahead of the server's asking for it needs its end marked.
                if std::mem::take(&mut self.copies_in) || self.outstanding.is_empty() {
                    return;
                }
            }
            RequestKind::Parse
            | RequestKind::Bind
            | RequestKind::Describe
            | RequestKind::Execute
            | RequestKind::Close => self.awaits_sync = true,
        }
        debug_assert!(
            !self.skips_to_sync,
            "queued a request that the server ignores"
        );
        self.unsettled += usize::from(request.effect != Effect::None);
        self.outstanding.push_back(request);
    }

    /// Bytes came: the request in front has its first byte.
    pub fn on_bytes(&mut self, now: Instant) {
        if let Some(OutstandingRequest {
            query: Some(query), ..
        }) = self.outstanding.front_mut()
        {
            query.first_byte_at.get_or_insert(now);
        }
    }

    /// The server warns of something.
    pub fn on_warning(&mut self, sqlstate: SqlState, now: Instant) {
        if let Some(OutstandingRequest {
            query: Some(query), ..
        }) = self.outstanding.front_mut()
            && query.warnings.len() < MAX_WARNINGS
        {
            query.warnings.push((sqlstate, now));
        }
    }

    /// The server asks for COPY data.
    pub fn on_copy_asked(&mut self, now: Instant) {
        if let Some(OutstandingRequest {
            query: Some(query), ..
        }) = self.outstanding.front_mut()
        {
            query.copy_asked_at = Some(now);
        }
    }

    /// The client has sent its COPY data, or gives up.
    pub fn on_copy_sent(&mut self, now: Instant) {
        if let Some(OutstandingRequest {
            query: Some(query), ..
        }) = self.outstanding.front_mut()
        {
            query.copy_sent_at = Some(now);
        }
    }

    /// The request in front.
    pub fn front(&self) -> Option<&OutstandingRequest> {
        self.outstanding.front()
    }

    /// When the oldest query that has not been answered left for the server.
    pub fn oldest_query_since(&self) -> Option<Instant> {
        self.outstanding
            .iter()
            .find_map(|request| Some(request.query.as_ref()?.sent_at))
    }

    /// The query that the server works on, with its text as far as it is kept.
    pub fn current_query(&self) -> Option<(&QueryInFlight, &[u8])> {
        let query = (self.outstanding.iter()).find_map(|request| request.query.as_ref())?;
        Some((query, self.texts.beginning(&query.text)))
    }

    /// Whether what comes now goes to the client.
    pub fn is_delivering(&self) -> bool {
        self.front()
            .is_none_or(|request| request.delivery.is_to_client())
    }

    /// Whether the text of anything outstanding is such a one. With more than a few it may be.
    pub fn has_outstanding_text(&self, is_such: impl Fn(&[u8]) -> bool) -> bool {
        /// As many as are looked at.
        const LOOKED_AT: usize = 64;
        if self.outstanding.len() > LOOKED_AT {
            return true;
        }
        let queries = self.outstanding.iter().filter_map(|request| {
            let runs = matches!(request.kind, RequestKind::Query | RequestKind::Execute);
            request.query.as_ref().filter(|_| runs)
        });
        let mut texts = queries.map(|query| &query.text);
        texts.any(|text| !text.is_whole || is_such(self.texts.of(text)))
    }

    /// The text of the request in front, as far as it is kept, and whether nothing is left out that may leave something in the session.
    pub fn front_text(&self) -> (&[u8], bool) {
        let query = self.front().and_then(|front| front.query.as_ref());
        query.map_or((b"", true), |query| {
            (self.texts.of(&query.text), query.text.is_whole)
        })
    }

    /// Whether the text in front is a long one, of which a statement of this kind was looked at before: there may be any number.
    pub fn has_seen_kind(&mut self, kind: u8) -> bool {
        let front = self.outstanding.front_mut();
        front
            .and_then(|front| front.query.as_mut())
            .is_some_and(|query| {
                let seen = query.kinds_seen;
                query.kinds_seen |= kind;
                seen & kind != 0 && self.texts.of(&query.text).len() > TEXT_LIMIT
            })
    }

    /// The server has said something of the request in front that ReadyForQuery may follow.
    pub fn on_outcome(&mut self) {
        if let Some(front) = self.outstanding.front_mut() {
            front.has_outcome = true;
        }
    }

    /// Whether ReadyForQuery may come for the request in front.
    pub fn may_be_ready(&self) -> bool {
        self.front()
            .is_some_and(|front| front.has_outcome || front.kind == RequestKind::Sync)
    }

    /// A statement of the request in front is done; `rows` is what its tag counts.
    pub fn on_statement_done(&mut self, rows: u64) {
        self.on_outcome();
        // A COPY that has succeeded has read its data to the end.
        self.doubtful_syncs = 0;
        if let Some(OutstandingRequest {
            query: Some(query), ..
        }) = self.outstanding.front_mut()
        {
            query.statements_done += 1;
            query.rows += rows;
        }
    }

    /// The next reply of the proxy's own that is due inside the reply in front.
    pub fn take_local_reply(&mut self) -> Option<LocalReply> {
        let query = self.outstanding.front_mut()?.query.as_mut()?;
        let done = query.statements_done;
        query
            .local_replies
            .pop_front_if(|reply| reply.after_statements <= done)
    }

    /// The request in front is answered. It is returned with what it was for.
    pub fn on_answered(&mut self, now: Instant) -> Option<OutstandingRequest> {
        let mut request = self.outstanding.pop_front()?;
        self.unsettled -= usize::from(request.effect != Effect::None);
        if let Some(query) = request.query.take() {
            match (query.failed, request.kind) {
                // Only a Parse or a Bind that fails is a query that somebody wants to know of.
                (_, RequestKind::Parse | RequestKind::Bind) => {}
                (Some(state), _) => self.finish(query, Outcome::Failed(state), now),
                (None, _) => self.finish(query, Outcome::Completed, now),
            }
        }
        if self.outstanding.is_empty() && self.answered.is_empty() {
            self.texts.clear();
        }
        Some(request)
    }

    /// An error came for the request in front. What it takes back is handed to `undo`, the latest first: the effects of that
    /// request, and of those behind it that the server now ignores. `in_copy_data` says that the server was reading COPY data.
    /// How many requests were ignored that ReadyForQuery would have answered.
    pub fn on_error(
        &mut self,
        state: SqlState,
        in_copy_data: bool,
        now: Instant,
        mut undo: impl FnMut(Effect),
    ) -> usize {
        self.copies_in = false;
        if in_copy_data {
            // It has come to the data, and past the Syncs in front of them. Of an error behind the data that can't be told.
            self.doubtful_syncs = 0;
        }
        let Some(front) = self.outstanding.front_mut() else {
            return 0;
        };
        let mut ignored = 0;
        match front.kind {
            RequestKind::Query | RequestKind::FunctionCall => {
                front.has_outcome = true;
                if let Some(query) = &mut front.query {
                    query.failed = Some(state);
                    query.local_replies.clear();
                }
            }
            // A deferred constraint, say: ReadyForQuery follows.
            RequestKind::Sync => {}
            RequestKind::Parse
            | RequestKind::Bind
            | RequestKind::Describe
            | RequestKind::Execute
            | RequestKind::Close
            | RequestKind::CopyEnd => {
                let is_sync = |request: &OutstandingRequest| request.kind == RequestKind::Sync;
                let sync = self.outstanding.iter().position(is_sync);
                let skipped = self
                    .outstanding
                    .drain(..sync.unwrap_or(self.outstanding.len()));
                let mut skipped: Vec<OutstandingRequest> = skipped.collect();
                // The first query from the failed message on is the one that failed; those behind it never ran, and a Parse
                // or a Bind behind it is another's.
                let failed = skipped.iter_mut().enumerate().find_map(|(at, request)| {
                    let is_blamed =
                        at == 0 || !matches!(request.kind, RequestKind::Parse | RequestKind::Bind);
                    request.query.take_if(|_| is_blamed)
                });
                if let Some(query) = failed {
                    self.finish(query, Outcome::Failed(state), now);
                }
                for request in skipped.into_iter().rev() {
                    let expects_ready =
                        matches!(request.kind, RequestKind::Query | RequestKind::FunctionCall);
                    let is_asked =
                        matches!(request.delivery, Delivery::Forward | Delivery::ReadyOnly);
                    ignored += usize::from(expects_ready && is_asked);
                    self.unsettled -= usize::from(request.effect != Effect::None);
                    undo(request.effect);
                }
                self.skips_to_sync = sync.is_none();
            }
        }
        ignored
    }

    /// The server asks for COPY data. How many Syncs it ignores of those that have been sent.
    pub fn on_copy_in(&mut self) -> usize {
        let is_end = |request: &OutstandingRequest| request.kind == RequestKind::CopyEnd;
        // Data may have been sent ahead. Whatever lies in front of their end, the server reads while it copies.
        let data_end = self.outstanding.iter().position(is_end);
        let end = data_end.unwrap_or(self.outstanding.len());
        let (mut at, mut ignored) = (0, 0);
        self.outstanding.retain(|request| {
            let is_read_for_data = at <= end;
            at += 1;
            let is_ignored = is_read_for_data && request.kind == RequestKind::Sync;
            ignored += usize::from(is_ignored);
            !(is_ignored || is_read_for_data && is_end(request))
        });
        let is_sync = |request: &OutstandingRequest| request.kind == RequestKind::Sync;
        if self
            .front()
            .is_some_and(|front| front.kind == RequestKind::Execute)
        {
            self.awaits_sync = !self.outstanding.iter().any(is_sync);
        }
        self.copies_in = data_end.is_none();
        self.doubtful_syncs += ignored;
        ignored
    }

    /// ReadyForQuery came, and no request in front that it may answer. Whether it answers a Sync that the server was thought to
    /// ignore, and which it did not ignore since the COPY had failed before.
    pub fn take_doubtful_sync(&mut self, status: TransactionStatus) -> bool {
        if self.doubtful_syncs == 0 {
            return false;
        }
        self.doubtful_syncs -= 1;
        self.skips_to_sync = false;
        self.awaits_sync = false;
        self.status = status;
        true
    }

    /// ReadyForQuery came, with this status.
    pub fn on_ready(&mut self, status: TransactionStatus) {
        self.status = status;
    }

    /// Takes the reply that the proxy itself gives to the request in front, if it does. Call it until there is none.
    pub fn take_fabricated(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(request) = self.outstanding.pop_front_if(|front| {
            front.kind == RequestKind::CopyEnd
                || matches!(
                    front.delivery,
                    Delivery::Fabricate(_) | Delivery::FabricateReady(_)
                )
        }) else {
            return false;
        };
        self.unsettled -= usize::from(request.effect != Effect::None);
        match request.delivery {
            Delivery::Fabricate(messages) => out.extend_from_slice(&messages),
            Delivery::FabricateReady(messages) => {
                out.extend_from_slice(&messages);
                encode::ready_for_query(out, self.status);
            }
            Delivery::Forward
            | Delivery::ForwardUnready
            | Delivery::ReadyOnly
            | Delivery::Withhold
            | Delivery::Swallow
            | Delivery::Learn(_)
            | Delivery::CountBelongings
            | Delivery::Refuse(_) => {}
        }
        true
    }

    /// The server, or the client, is lost: whatever is outstanding won't be answered.
    pub fn on_lost(&mut self, now: Instant) {
        self.unsettled = 0;
        while let Some(mut request) = self.outstanding.pop_front() {
            if let Some(query) = request.query.take() {
                self.finish(query, Outcome::Lost, now);
            }
        }
    }

    /// Whether there are answered queries that nobody has observed.
    pub fn has_answered(&self) -> bool {
        !self.answered.is_empty()
    }

    /// Shows every answered query, whose reply has been written to the client by now, to `observe`.
    pub fn observe_answered(
        &mut self,
        drained_at: Instant,
        server_pid: i32,
        mut observe: impl FnMut(&QueryRecord<'_>),
    ) {
        for AnsweredQuery {
            query,
            begun_at,
            last_byte_at,
            outcome,
        } in self.answered.drain(..)
        {
            let first_byte_at = query.first_byte_at.unwrap_or(last_byte_at).max(begun_at);
            let answering = between(first_byte_at, last_byte_at);
            // Of that the server waited for the client.
            let sending = match (query.copy_asked_at, query.copy_sent_at) {
                (Some(asked), Some(sent)) => between(asked, sent).min(answering),
                _ => Duration::ZERO,
            };
            let phases = Phases {
                queue_wait: between(query.received_at, query.sent_at),
                queue_cause: query.queue_cause,
                first_byte: between(begun_at, first_byte_at),
                last_byte: answering - sending,
                client_drain: between(last_byte_at, drained_at) + sending,
            };
            self.shown_warnings.clear();
            let warnings = query.warnings.iter().map(|(sqlstate, at)| Warning {
                sqlstate: *sqlstate,
                before_end: drained_at.saturating_duration_since(*at),
            });
            self.shown_warnings.extend(warnings);
            observe(&QueryRecord {
                sql: self.texts.beginning(&query.text),
                kind: query.kind,
                phases,
                outcome,
                rows: query.rows,
                trace: query.trace.as_ref(),
                context: query.context,
                server_pid,
                warnings: &self.shown_warnings,
            });
        }
        if self.outstanding.is_empty() {
            self.texts.clear();
        }
    }

    fn finish(&mut self, query: QueryInFlight, outcome: Outcome, now: Instant) {
        let before = self.last_answered_at.replace(now);
        self.answered.push(AnsweredQuery {
            begun_at: before.map_or(query.sent_at, |before| before.max(query.sent_at)),
            query,
            last_byte_at: now,
            outcome,
        });
    }
}

/// The time from one moment to another. Most are the same one, of which that is cheaper to see than to work out.
#[inline]
fn between(earlier: Instant, later: Instant) -> Duration {
    match earlier == later {
        true => Duration::ZERO,
        false => later.saturating_duration_since(earlier),
    }
}

impl Default for Exchange {
    fn default() -> Self {
        Self::new()
    }
}
