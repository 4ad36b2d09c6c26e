//! A client at work: its messages go to a server, the replies come back, and in between it waits for one or rests.
//!
//! One hand-written poll per client. It reads what a socket has into the worker's scratch, judges the messages in place, and
//! writes one batch per direction. Bytes are kept for a client only while it waits for a server, while a message that is
//! needed whole is incomplete, and while a peer does not take what it is sent.

mod parting;

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::admission::Place;
use crate::config::choices::{PoolMode, SessionState};
use crate::net::lane::Lane;
use crate::protocol::backend::TransactionStatus;
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::protocol::forwarder::Forwarder;
use crate::protocol::outbound::Outbound;
use crate::scratch::Scratch;
use crate::server::ServerConnection;
use crate::server_pool::{Asked, Pin, Refusal, ServerPool, Ticket};
use crate::session::client_session::ClientSession;
use crate::session::ledger::{Begun, Ledger};
use crate::session::outstanding::Received;
use crate::session::replies::Replies;
use crate::session::requests::{Pause, Requests};
use crate::session::tally::Tally;
use crate::session::time_limits::Standing;
use crate::shard::{SessionCard, Shard};
use crate::telemetry::tables::{Holder, HolderState};

pub use self::parting::Parting;

/// How much a client may send ahead while it waits for a server; what comes behind it stays in the kernel.
const HELD_LIMIT: usize = 64 * 1024;

/// How often one poll goes round before it lets others have their turn.
const ROUNDS: usize = 16;

/// A client that is logged in, with the server that it is linked to at the moment.
#[derive(Debug)]
pub struct Link {
    shard: Rc<Shard>,
    pool: Rc<ServerPool>,
    card: Rc<SessionCard>,
    client: Lane,
    session: ClientSession,
    /// Where the stream of its messages stands.
    requests: Forwarder,
    /// What it sent and nobody has judged yet.
    held: Vec<u8>,
    pause: Option<Pause>,
    /// Its place in the queue.
    ticket: Option<Rc<Ticket>>,
    server: Option<Box<ServerConnection>>,
    /// It stays with the client, for what the client has left there.
    pin: Option<Pin>,
    /// The server must be made what the client expects, ahead of the next message.
    is_newly_linked: bool,
    /// Since when there was nothing to do.
    still_since: Option<Instant>,
    /// Since when the server has owed it something, or a transaction has been open.
    transaction_since: Option<Instant>,
    /// When its queries and transactions begin and end as PgBouncer counts them.
    ledger: Ledger,
    /// Its place among the clients that there may be: free when this is dropped.
    _place: Place,
}

impl Link {
    /// A client that has logged in, and counts as there until this is dropped. `held` is what it sent ahead.
    pub fn new(
        shard: Rc<Shard>,
        pool: Rc<ServerPool>,
        card: Rc<SessionCard>,
        place: Place,
        client: Lane,
        session: ClientSession,
        held: Vec<u8>,
    ) -> Self {
        pool.on_client_came();
        Self {
            shard,
            pool,
            card,
            client,
            session,
            requests: Forwarder::new(),
            held,
            pause: None,
            ticket: None,
            server: None,
            pin: None,
            is_newly_linked: false,
            still_since: None,
            transaction_since: None,
            ledger: Ledger::default(),
            _place: place,
        }
    }

    /// The worker that serves this client.
    pub fn shard(&self) -> &Rc<Shard> {
        &self.shard
    }

    /// What others on its worker see of this client.
    pub fn card(&self) -> &Rc<SessionCard> {
        &self.card
    }

    /// Sends what the login ends with.
    pub fn greet(&mut self, out: &mut Outbound) -> io::Result<()> {
        self.client.send(out, &[])
    }

    /// The pool that serves this client.
    pub fn pool(&self) -> &Rc<ServerPool> {
        &self.pool
    }

    /// Serves the client until it leaves, or can't be served any more.
    pub fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<Parting> {
        if let Some(why) = self.card.dismissed.get() {
            return Poll::Ready(Parting::Dismissed(why));
        }
        let now = self.shard.now();
        if self.card.is_asked.take() {
            let holder = self.holder(now);
            self.card.standing.replace(holder.map(Box::new));
        }
        match self.serve(cx, now) {
            Ok(()) => Poll::Pending,
            Err(parting) => Poll::Ready(parting),
        }
    }

    /// What it holds a server for, if it holds one.
    fn holder(&mut self, now: Instant) -> Option<Holder> {
        let server = self.server.as_ref()?;
        let exchange = &server.session.exchange;
        let (query, trace) = match exchange.current_query() {
            Some((query, text)) => (Some(text.into()), query.trace.as_ref()),
            None => (None, Some(self.session.trace.context().0)),
        };
        let state = match exchange.status() {
            _ if !self.client.is_drained() => HolderState::Reading,
            _ if !exchange.is_idle() => HolderState::Active,
            TransactionStatus::InTransaction => HolderState::IdleInTransaction,
            TransactionStatus::Failed => HolderState::IdleInFailedTransaction,
            TransactionStatus::Idle => HolderState::Idle,
        };
        let terms = self.pool.terms();
        let owned = str::to_owned;
        Some(Holder {
            database: owned(&terms.identity.database),
            user: owned(&terms.identity.user),
            client_id: self.card.cancel_key.process_id(),
            server_pid: (server.process_id() != 0).then(|| server.process_id()),
            held: now.saturating_duration_since(server.linked_at),
            state,
            trace_id: trace.and_then(|trace| Some(trace.parent?.trace_id)),
            correlation_id: trace.and_then(|trace| trace.correlation_id.as_deref().map(owned)),
            application: trace.and_then(|trace| trace.tag("application").map(owned)),
            query,
        })
    }

    /// Does what can be done without waiting.
    fn serve(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), Parting> {
        for _ in 0..ROUNDS {
            self.drain_backlogs(cx)?;
            let mut progressed = self.receive_replies(cx, now)?;
            self.observe(now);
            self.count_ends(now);
            self.release_if_done(now)?;
            progressed |= self.receive_server(cx, now)?;
            progressed |= self.receive_requests(cx, now)?;
            self.count_beginnings(now);
            if !progressed {
                return self.rest(now);
            }
            self.still_since = None;
        }
        // Others have their turn; this one goes on afterwards.
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn drain_backlogs(&mut self, cx: &mut Context<'_>) -> Result<(), Parting> {
        if let Poll::Ready(Err(error)) = self.client.poll_drain(cx) {
            return Err(Parting::ClientLost(error));
        }
        if let Some(server) = &mut self.server
            && let Poll::Ready(Err(_)) = server.lane.poll_drain(cx)
        {
            // What it still has to say may say why.
            server.lane.forget_backlog();
        }
        Ok(())
    }

    /// Passes on what the server has to say. Whether it said anything.
    fn receive_replies(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, Parting> {
        let Some(server) = &mut self.server else {
            return Ok(false);
        };
        // A client that does not read its replies holds up its own server, and nobody else's.
        if !self.client.is_drained() {
            return Ok(false);
        }
        let scratch = &mut *self.shard.scratch();
        let len = match server.lane.socket.poll_read(cx, &mut scratch.read) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0) | Err(_)) => return Err(Parting::ServerLost),
            Poll::Ready(Ok(len)) => len,
        };
        let input = scratch.read.get(..len).unwrap_or_default();
        let mut judge = Replies::new(&mut self.session, &mut server.session, now);
        let advanced = server
            .replies
            .advance(input, &mut judge, &mut scratch.to_client);
        let is_fatal = judge.fatal().is_some();
        self.pool.take_news(server);
        let sent = scratch.to_client.len();
        let written = self.client.send(&mut scratch.to_client, input);
        self.pool.metrics.server_received_bytes.add(len as u64);
        self.pool.metrics.client_sent_bytes.add(sent as u64);
        advanced.map_err(Parting::Violation)?;
        written.map_err(Parting::ClientLost)?;
        if is_fatal {
            return Err(Parting::ServerEnded);
        }
        Ok(true)
    }

    /// Takes the server that the client was waiting for.
    fn receive_server(&mut self, cx: &Context<'_>, now: Instant) -> Result<bool, Parting> {
        let Some(ticket) = &self.ticket else {
            return Ok(false);
        };
        match ticket.poll(cx) {
            Poll::Ready(Ok(server)) => {
                self.card.ticket.take();
                self.ticket = None;
                if let Some(waited) = self.session.waited {
                    let wait = now.saturating_duration_since(waited.at);
                    self.pool.metrics.pgbouncer.wait_time.add_time(wait);
                }
                self.link(server, now);
                Ok(true)
            }
            Poll::Ready(Err(Refusal::Cancelled)) => {
                self.leave_queue();
                self.session.is_canceled = true;
                Ok(true)
            }
            Poll::Ready(Err(refusal)) => {
                self.leave_queue();
                Err(Parting::Refused(refusal))
            }
            Poll::Pending if ticket.take_notice() => self.tell_waiting().map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    /// The client has waited for long: it is told why nothing happens. The words are PgBouncer's.
    fn tell_waiting(&mut self) -> Result<(), Parting> {
        let notice = ErrorResponse::notice(
            SqlState::SUCCESSFUL_COMPLETION,
            "No server connection available in postgres backend, client being queued",
        );
        let mut out = Outbound::new();
        out.write(|out| notice.encode(out));
        self.client.send(&mut out, &[]).map_err(Parting::ClientLost)
    }

    /// Judges what the client has sent. Whether there was anything.
    fn receive_requests(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, Parting> {
        if self.ticket.is_some() {
            return self.receive_ahead(cx);
        }
        // Nothing is read that could not be passed on.
        let server_takes_more = self
            .server
            .as_ref()
            .is_none_or(|server| server.lane.is_drained());
        if !server_takes_more || !self.client.is_drained() {
            return Ok(false);
        }
        let must_wait = self.server.as_ref().is_some_and(|server| {
            let exchange = &server.session.exchange;
            match self.pause {
                Some(Pause::Throttled) => exchange.is_full(),
                Some(Pause::Unsettled) => exchange.has_unsettled(),
                _ => false,
            }
        });
        if must_wait {
            return Ok(false);
        }
        let shard = Rc::clone(&self.shard);
        let scratch = &mut *shard.scratch();
        if self.pause.is_some() || !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            self.judge(&held, scratch, now)?;
            return Ok(true);
        }
        let mut read = std::mem::take(&mut scratch.read);
        let outcome = match self.client.socket.poll_read(cx, &mut read) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => Err(Parting::Left),
            Poll::Ready(Err(error)) => Err(Parting::ClientLost(error)),
            Poll::Ready(Ok(len)) => {
                self.pool.metrics.client_received_bytes.add(len as u64);
                self.card.doing.request_at.set(now);
                self.judge(read.get(..len).unwrap_or_default(), scratch, now)
                    .map(|()| true)
            }
        };
        scratch.read = read;
        outcome
    }

    /// Reads ahead while the client waits for a server: only to find out whether it is still there.
    fn receive_ahead(&mut self, cx: &mut Context<'_>) -> Result<bool, Parting> {
        if self.held.len() >= HELD_LIMIT {
            return Ok(false);
        }
        let scratch = &mut *self.shard.scratch();
        let room = scratch
            .read
            .get_mut(..HELD_LIMIT - self.held.len())
            .unwrap_or_default();
        match self.client.socket.poll_read(cx, room) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => Err(Parting::Left),
            Poll::Ready(Err(error)) => Err(Parting::ClientLost(error)),
            Poll::Ready(Ok(len)) => {
                self.pool.metrics.client_received_bytes.add(len as u64);
                self.held
                    .extend_from_slice(room.get(..len).unwrap_or_default());
                Ok(true)
            }
        }
    }

    /// Judges messages, and sends on what may pass. What can't be judged yet is held.
    fn judge(
        &mut self,
        mut input: &[u8],
        scratch: &mut Scratch,
        now: Instant,
    ) -> Result<(), Parting> {
        loop {
            let Scratch {
                to_server,
                to_client,
                bench,
                ..
            } = scratch;
            if std::mem::take(&mut self.is_newly_linked)
                && let Some(server) = &mut self.server
            {
                to_server.write(|out| server.session.on_link(&self.session.parameters, out));
            }
            let mut definitions = self.pool.definitions();
            let terms = self.pool.terms();
            let mut judge = Requests::new(
                &mut self.session,
                self.server.as_mut().map(|server| &mut server.session),
                &mut definitions,
                &terms.policy,
                bench,
                to_client,
                now,
            );
            let resumed = self.pause.take().is_some();
            let outcome = match resumed.then(|| self.requests.resume(&mut judge, to_server)) {
                Some(Err(violation)) => Err(violation),
                Some(Ok(true)) => Ok(0),
                Some(Ok(false)) | None => self
                    .requests
                    .advance(input, &mut judge, to_server)
                    .map(|advanced| advanced.consumed),
            };
            self.pause = judge.paused();
            drop(definitions);
            self.count(&mut bench.tally, terms.policy.max_prepared_statements);
            // Also ahead of a violation: nothing may stay in the scratch, which others use next.
            let sent = self.send(to_server, to_client, input);
            let consumed = outcome.map_err(Parting::Violation)?;
            sent?;
            let rest = input.get(consumed..).unwrap_or_default();
            match self.pause {
                None => return Ok(()),
                Some(Pause::Terminated) => return Err(Parting::Left),
                Some(Pause::Throttled | Pause::Unsettled) => {
                    self.held = rest.to_vec();
                    return Ok(());
                }
                Some(Pause::NeedsServer) => match self.pool.checkout(now) {
                    Asked::Server(server) => {
                        self.link(server, now);
                        input = rest;
                    }
                    Asked::Wait(ticket, cause) => {
                        self.session.waited = Some(Received {
                            at: now,
                            queue_cause: Some(cause),
                        });
                        self.held = rest.to_vec();
                        self.card.ticket.replace(Some(Rc::clone(&ticket)));
                        self.ticket = Some(ticket);
                        return Ok(());
                    }
                    Asked::Refused(refusal) => return Err(Parting::Refused(refusal)),
                },
            }
        }
    }

    fn send(
        &mut self,
        to_server: &mut Outbound,
        to_client: &mut Outbound,
        input: &[u8],
    ) -> Result<(), Parting> {
        if !to_server.is_empty()
            && let Some(server) = &mut self.server
        {
            self.pool
                .metrics
                .server_sent_bytes
                .add(to_server.len() as u64);
            // A server that can't be written to will be found closed when its replies are read.
            if server.lane.send(to_server, input).is_err() {
                server.lane.forget_backlog();
            }
        }
        debug_assert!(
            to_server.is_empty(),
            "messages for a server that is not there"
        );
        if !to_client.is_empty() {
            self.pool
                .metrics
                .client_sent_bytes
                .add(to_client.len() as u64);
            self.client
                .send(to_client, &[])
                .map_err(Parting::ClientLost)?;
        }
        Ok(())
    }

    /// The client gets a server.
    fn link(&mut self, mut server: Box<ServerConnection>, now: Instant) {
        server.is_unused = false;
        server.linked_at = now;
        server.lane.socket.on_new_reader();
        self.pool.metrics.pgbouncer.assignments.increase();
        server.card.request_at.set(now);
        *self.card.server.borrow_mut() = Some(Rc::clone(&server.card));
        self.server = Some(server);
        self.is_newly_linked = true;
    }

    /// The client has this server from the beginning, set as it shall be.
    pub fn keep(&mut self, server: Box<ServerConnection>) {
        let now = self.shard.now();
        self.link(server, now);
        self.is_newly_linked = false;
    }

    /// Shows telemetry the queries whose replies have reached the client.
    fn observe(&mut self, now: Instant) {
        if let Some(server) = &mut self.server
            && server.session.exchange.has_answered()
            && self.client.is_drained()
        {
            let pid = server.process_id();
            let driver = self.session.driver;
            let Self { shard, pool, .. } = self;
            server
                .session
                .exchange
                .observe_answered(now, pid, |record| {
                    pool.metrics.observe_driver(driver, record.context);
                    shard
                        .telemetry()
                        .observe(&pool.metrics, &pool.terms().identity, record, now)
                });
            if server.session.exchange.is_releasable() {
                self.transaction_since = None;
            }
        }
    }

    /// Counts what has begun, as PgBouncer does.
    fn count_beginnings(&mut self, now: Instant) {
        let is_busy = self.ticket.is_some()
            || self
                .server
                .as_ref()
                .is_some_and(|server| !server.session.exchange.is_idle());
        if !is_busy {
            return;
        }
        let counted = &self.pool.metrics.pgbouncer;
        match self.ledger.on_busy(now) {
            Begun::Nothing => {}
            Begun::Query => counted.queries.increase(),
            Begun::Transaction => {
                counted.queries.increase();
                counted.transactions.increase();
            }
        }
    }

    /// Counts what has ended, as PgBouncer does.
    fn count_ends(&mut self, now: Instant) {
        let Some(server) = self.server.as_ref() else {
            return;
        };
        let exchange = &server.session.exchange;
        if !exchange.is_idle() || !self.client.is_drained() {
            return;
        }
        let counted = &self.pool.metrics.pgbouncer;
        if let Some(time) = self.ledger.on_answered(now) {
            counted.query_time.add_time(time);
        }
        if exchange.is_releasable()
            && let Some(time) = self.ledger.on_transaction_end(now)
        {
            counted.transaction_time.add_time(time);
        }
    }

    /// Leaves on its card what others may want to know.
    fn show(&self) {
        let doing = &self.card.doing;
        doing.query_since.set(self.ledger.query_since());
        doing.statements.set(self.session.statements.len());
        if !Rc::ptr_eq(&doing.parameters.borrow(), &self.session.parameters) {
            doing
                .parameters
                .replace(Rc::clone(&self.session.parameters));
        }
        if let Some(server) = &self.server {
            server.card.statements.set(server.session.statements.len());
        }
    }

    /// Gives the server back if the client owes it nothing, and it owes the client nothing.
    fn release_if_done(&mut self, now: Instant) -> Result<(), Parting> {
        let is_done = self.session.mode != PoolMode::Session
            && self.held.is_empty()
            && self.pause.is_none()
            && !self.requests.is_mid_message()
            && self.client.is_drained()
            && self.server.as_ref().is_some_and(|server| {
                !server.session.left.stays()
                    && server.session.is_releasable()
                    && server.replies.is_at_boundary()
                    && server.lane.is_drained()
            });
        if !is_done {
            return self.keep_pin();
        }
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        let shard = Rc::clone(&self.shard);
        let Scratch {
            to_server,
            to_client,
            ..
        } = &mut *shard.scratch();
        let mut asks = false;
        to_server.write(|out| asks = server.session.ask_before_release(out));
        if asks {
            // It goes back when it has answered; until then the client has it to itself.
            self.server = Some(server);
            return self.send(to_server, to_client, &[]);
        }
        self.card.server.borrow_mut().take();
        self.pool.metrics.transactions.increase();
        let linked_for = now.saturating_duration_since(server.linked_at);
        self.pool.metrics.transaction_time.add_time(linked_for);
        self.pin = None;
        match self.session.session_state {
            SessionState::Track | SessionState::Leak => self.pool.release(server, now),
            SessionState::Reset => self.pool.release_to_reset(server),
        }
        Ok(())
    }

    /// Counts the server among those that stay with their client, while it does between transactions.
    fn keep_pin(&mut self) -> Result<(), Parting> {
        let server = self.server.as_ref().map(|server| &server.session);
        let stays = server.is_some_and(|server| server.left.stays());
        if stays == self.pin.is_some() || self.session.mode == PoolMode::Session {
            return Ok(());
        }
        if !stays {
            // Whether it does is being asked.
            return Ok(());
        }
        if server.is_some_and(|server| server.exchange.is_releasable()) {
            let refused = Parting::Refused(Refusal::TooManyPinned);
            self.pin = Some(self.pool.pin().ok_or(refused)?);
        }
        Ok(())
    }

    /// Nothing more can be done now. A client that rests may be sent away.
    fn rest(&mut self, now: Instant) -> Result<(), Parting> {
        self.show();
        let rests = self.ticket.is_none()
            && self
                .server
                .as_ref()
                .is_none_or(|server| server.session.exchange.is_releasable());
        if rests && self.shard.is_draining() {
            return Err(Parting::Refused(Refusal::Draining));
        }
        if rests && self.pool.is_removed() {
            return Err(Parting::Refused(Refusal::Removed));
        }
        if rests
            && let Some(server) = &self.server
            && self.pool.is_to_be_replaced(server)
            && self.pool.terms().settings.server_fast_close
        {
            return Err(Parting::Refused(Refusal::Replaced));
        }
        let limits = self.pool.terms().time_limits();
        if self.session.is_replication || limits.are_off() {
            return Ok(());
        }
        let standing = self.standing(rests, now);
        match limits.next(standing) {
            Some((at, limit)) if at <= now => Err(Parting::TimedOut(limit)),
            next => {
                self.card.overdue_at.set(next.map(|(at, _)| at));
                Ok(())
            }
        }
    }

    /// What it has done for how long, now that there is nothing to do.
    fn standing(&mut self, rests: bool, now: Instant) -> Standing {
        let still_since = *self.still_since.get_or_insert(now);
        let exchange = match &self.server {
            Some(server) if !rests => &server.session.exchange,
            // It waits for a server, which has a limit of its own, or for nothing.
            _ => {
                self.transaction_since = None;
                return Standing {
                    silent_since: rests.then_some(still_since),
                    ..Standing::default()
                };
            }
        };
        // Who has not read its reply yet is not silent, but slow.
        let is_silent = exchange.is_idle() && self.client.is_drained();
        Standing {
            silent_since: is_silent.then_some(still_since),
            query_since: exchange.oldest_query_since(),
            transaction_since: Some(*self.transaction_since.get_or_insert(now)),
        }
    }

    fn count(&self, tally: &mut Tally, max_prepared_statements: usize) {
        if max_prepared_statements == 0 {
            // As PgBouncer counts: they are the server's business then.
            tally.forget_prepared();
        }
        let metrics = &self.pool.metrics;
        tally
            .take_annotations()
            .for_each(|outcome| metrics.annotated(outcome));
        metrics
            .client_parses
            .add(std::mem::take(&mut tally.client_parses));
        metrics
            .server_parses
            .add(std::mem::take(&mut tally.server_parses));
        metrics.binds.add(std::mem::take(&mut tally.binds));
        metrics
            .statement_evictions
            .add(std::mem::take(&mut tally.evictions));
        metrics
            .announcements
            .add(std::mem::take(&mut tally.announcements));
        metrics
            .unrecognised_commands
            .add(std::mem::take(&mut tally.unrecognised));
    }

    /// Gives up the place in the queue, if there is one.
    fn leave_queue(&mut self) {
        self.card.ticket.take();
        if let Some(ticket) = self.ticket.take() {
            self.pool.give_up(&ticket);
        }
    }
}
