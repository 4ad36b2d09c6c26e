//! How a client's session ends, and what becomes of its server then: it goes back, is cleared of what the client has left behind, or
//! is closed.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::Link;
use crate::cancel;
use crate::config::choices::{PoolMode, SessionState};
use crate::net::timer;
use crate::protocol::backend::TransactionStatus;
use crate::protocol::encode;
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::protocol::outbound::Outbound;
use crate::server::ServerConnection;
use crate::server_pool::{Refusal, lost_server};
use crate::session::outstanding::{Effect, OutstandingRequest, RequestKind};
use crate::session::replies::Replies;
use crate::session::time_limits::TimeLimit;
use crate::session::violation::Violation;
use crate::shard::{Dismissal, GOODBYE_TIMEOUT};
use crate::telemetry::labels::{Blame, ServerClose};

/// How long a server may take to come to the end of what a client has left behind.
const CLEARING_TIMEOUT: Duration = Duration::from_secs(5);

/// What is read at once of replies that nobody reads any more.
const CLEARING_READ: usize = 16 * 1024;

/// How a client's session ended.
#[derive(Debug)]
pub enum Parting {
    /// It said good-bye, or closed its connection.
    Left,
    /// Its connection broke.
    ClientLost(io::Error),
    /// Its server's connection broke.
    ServerLost,
    /// Its server ended the session, and the client has read why.
    ServerEnded,
    /// A peer broke the rules.
    Violation(Violation),
    /// It got no server, or the proxy ends.
    Refused(Refusal),
    /// It passed a limit of time.
    TimedOut(TimeLimit),
    /// An administrator sent it away.
    Dismissed(Dismissal),
}

impl Parting {
    /// What the client is told before its connection is closed, where it is not known already.
    pub fn response(&self) -> Option<ErrorResponse> {
        match self {
            Self::Left | Self::ClientLost(_) | Self::ServerEnded => None,
            Self::ServerLost => Some(lost_server()),
            Self::Violation(violation) => Some(violation.response()),
            Self::Refused(refusal) => Some(refusal.response()),
            Self::TimedOut(limit) => Some(limit.response()),
            Self::Dismissed(why) => Some(ErrorResponse::fatal(
                SqlState::PROTOCOL_VIOLATION,
                why.as_str(),
            )),
        }
    }

    /// Who is to blame, where somebody is.
    pub fn blame(&self) -> Option<Blame> {
        match self {
            Self::Left | Self::Refused(_) | Self::TimedOut(_) | Self::Dismissed(_) => None,
            Self::ClientLost(_) => Some(Blame::Client),
            Self::ServerLost | Self::ServerEnded => Some(Blame::Server),
            Self::Violation(violation) if violation.is_clients() => Some(Blame::Client),
            Self::Violation(_) => Some(Blame::Server),
        }
    }
}

impl Link {
    /// Gives up the place in the queue, and the server in whatever state it is.
    fn let_go(&mut self) {
        self.leave_queue();
        if let Some(server) = self.server.take() {
            self.card.server.borrow_mut().take();
            self.pool.discard(server, ServerClose::Unclean);
        }
    }

    /// The session is over: the client is told why, its server goes back if it is clean, and is closed if it is not.
    pub async fn part(mut self, parting: &Parting) {
        let now = self.shard.now();
        self.leave_queue();
        // Words of the proxy's own would be taken for the rest of a message that has begun.
        let mut is_mid_reply = false;
        if let Some(server) = self.server.take() {
            is_mid_reply = server.replies.is_mid_message();
            self.card.server.borrow_mut().take();
            if self.is_worth_clearing(&server, parting) {
                return Box::pin(self.clear(server)).await;
            }
            self.leave_server(server, parting, now);
        }
        let mut out = Outbound::new();
        if !is_mid_reply && let Some(response) = parting.response() {
            out.write(|out| response.encode(out));
        }
        let is_lost = matches!(parting, Parting::Left | Parting::ClientLost(_));
        if !is_lost && self.client.send(&mut out, &[]).is_ok() {
            let drained = poll_fn(|cx| self.client.poll_drain(cx));
            // It may be that nobody reads it.
            let _ = timer::timeout(GOODBYE_TIMEOUT, drained).await;
        }
    }

    /// Whether a server that its client has left at work can be made fit for another one.
    fn is_worth_clearing(&self, server: &ServerConnection, parting: &Parting) -> bool {
        let exchange = &server.session.exchange;
        matches!(parting, Parting::Left | Parting::ClientLost(_))
            && !self.session.is_replication
            && !exchange.is_releasable()
            && !exchange.has_doubtful_syncs()
            && server.lane.is_drained()
            && !self.requests.is_mid_message()
    }

    /// The client has gone. What it has asked for comes to its end, what it has begun is rolled back, and the server goes back. If
    /// that takes too long, the server is closed.
    async fn clear(&mut self, mut server: Box<ServerConnection>) {
        let cleared = timer::timeout(CLEARING_TIMEOUT, self.come_to_rest(&mut server)).await;
        let now = self.shard.now();
        if cleared == Ok(true) && server.session.exchange.is_releasable() {
            self.observe_last(&mut server, now);
            let needs_reset = self.session.mode == PoolMode::Session
                || self.session.session_state == SessionState::Reset
                || !server.session.left.is_empty();
            return match needs_reset {
                true => self.pool.release_to_reset(server),
                false => self.pool.release(server, now),
            };
        }
        // A statement on its own runs to its end, as on a direct connection. One in a transaction would hold its locks in vain.
        if server.session.exchange.status() != TransactionStatus::Idle {
            let card = Rc::clone(&server.card);
            tokio::task::spawn_local(async move { cancel::forward(&card).await });
        }
        self.discard_lost(server, now, ServerClose::Unclean);
    }

    /// Whether the server has answered everything, and is in no transaction any more.
    async fn come_to_rest(&mut self, server: &mut ServerConnection) -> bool {
        server.lane.socket.on_new_reader();
        let mut buffer = vec![0; CLEARING_READ];
        let mut has_flushed = false;
        loop {
            if end_what_is_begun(server, &mut has_flushed).is_err() {
                return false;
            }
            if server.session.exchange.is_quiet() {
                break;
            }
            let read = poll_fn(|cx| {
                if let Poll::Ready(Err(error)) = server.lane.poll_drain(cx) {
                    return Poll::Ready(Err(error));
                }
                server.lane.socket.poll_read(cx, &mut buffer)
            });
            let Ok(len @ 1..) = read.await else {
                return false;
            };
            let now = self.shard.now();
            let mut judge = Replies::new(&mut self.session, &mut server.session, now);
            let input = buffer.get(..len).unwrap_or_default();
            let advanced = server
                .replies
                .advance(input, &mut judge, &mut Outbound::new());
            let is_fatal = judge.fatal().is_some();
            self.pool.take_news(server);
            // How often the server will say that it is ready must be certain.
            let is_doubtful = server.session.exchange.has_doubtful_syncs();
            if advanced.is_err() || is_fatal || is_doubtful {
                return false;
            }
        }
        if !server.replies.is_at_boundary() {
            return false;
        }
        if server.session.exchange.status() != TransactionStatus::Idle {
            match server.ask_reported(b"ROLLBACK").await {
                Ok(reported) => server.session.on_rolled_back(&reported),
                Err(_) => return false,
            }
        }
        true
    }

    fn leave_server(&self, mut server: Box<ServerConnection>, parting: &Parting, now: Instant) {
        let is_clean = server.session.exchange.is_releasable()
            && server.replies.is_at_boundary()
            && server.lane.is_drained()
            && !self.requests.is_mid_message();
        match parting {
            Parting::ServerLost | Parting::ServerEnded => {
                self.discard_lost(server, now, ServerClose::Lost)
            }
            Parting::Violation(violation) if !violation.is_clients() => {
                self.discard_lost(server, now, ServerClose::Violation);
            }
            _ if self.session.is_replication => {
                self.discard_lost(server, now, ServerClose::Dedicated);
            }
            _ if is_clean => {
                self.observe_last(&mut server, now);
                match self.session.mode {
                    PoolMode::Transaction | PoolMode::Statement
                        if server.session.left.is_empty()
                            && self.session.session_state != SessionState::Reset =>
                    {
                        self.pool.release(server, now)
                    }
                    PoolMode::Session | PoolMode::Transaction | PoolMode::Statement => {
                        self.pool.release_to_reset(server)
                    }
                }
            }
            Parting::TimedOut(_) => {
                // A server finds out that nobody listens only when it has something to say.
                if !server.session.exchange.is_idle() {
                    let card = Rc::clone(&server.card);
                    tokio::task::spawn_local(async move { cancel::forward(&card).await });
                }
                self.discard_lost(server, now, ServerClose::QueryTimeout);
            }
            _ => self.discard_lost(server, now, ServerClose::Unclean),
        }
    }

    fn discard_lost(&self, mut server: Box<ServerConnection>, now: Instant, why: ServerClose) {
        server.session.exchange.on_lost(now);
        self.observe_last(&mut server, now);
        self.pool.discard(server, why);
    }

    /// Shows telemetry also the queries whose replies the client has not read to the end.
    fn observe_last(&self, server: &mut ServerConnection, now: Instant) {
        let pid = server.process_id();
        server
            .session
            .exchange
            .observe_answered(now, pid, |record| {
                let metrics = &self.pool.metrics;
                metrics.observe_driver(self.session.driver, record.context);
                self.shard.telemetry().observe(
                    &self.pool.metrics,
                    &self.pool.terms().identity,
                    record,
                    now,
                );
            });
    }
}

/// Sends what ends a COPY whose data will not come, or a group whose Sync will not. As on a connection that ends, what the group has
/// done is undone. While replies are outstanding, a COPY may be among them: nothing is sent that it would take for its data.
fn end_what_is_begun(server: &mut ServerConnection, has_flushed: &mut bool) -> io::Result<()> {
    let exchange = &mut server.session.exchange;
    let withheld = |kind| OutstandingRequest::withheld(kind, Effect::None);
    let mut out = Outbound::new();
    if exchange.copies_in() {
        out.write(|out| encode::copy_fail(out, b"the client has left"));
        exchange.on_request(withheld(RequestKind::CopyEnd));
    } else if exchange.skips_to_sync() {
        out.write(encode::sync);
        exchange.on_request(withheld(RequestKind::Sync));
    } else if exchange.awaits_sync() && !exchange.is_idle() {
        if !std::mem::replace(has_flushed, true) {
            out.write(encode::flush);
        }
    } else if exchange.awaits_sync() {
        out.write(|out| {
            encode::parse(out, b"", b"ROLLBACK", &[]);
            encode::bind_nothing_and_execute(out);
            encode::sync(out);
        });
        for kind in [
            RequestKind::Parse,
            RequestKind::Bind,
            RequestKind::Execute,
            RequestKind::Sync,
        ] {
            exchange.on_request(withheld(kind));
        }
    }
    server.lane.send(&mut out, &[])
}

/// The client counts as there no more. A link that ends without having parted, in a panic, must not take a place in the pool with it.
impl Drop for Link {
    fn drop(&mut self) {
        self.let_go();
        self.shard.forget(&self.card);
        self.pool.on_client_left();
    }
}
