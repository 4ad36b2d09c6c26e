//! A place in a pool's queue, and what comes of it.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::server::ServerConnection;
use crate::session::requests::canceled;

/// A place in the queue.
#[derive(Default)]
pub struct Ticket {
    grant: Cell<Option<Result<Box<ServerConnection>, Refusal>>>,
    /// The client has waited for so long that it is to be told.
    is_to_be_told: Cell<bool>,
    /// The client is logging in.
    is_login: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

/// Why a client gets no server.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// It has waited for as long as it may.
    TimedOut,
    /// It has waited for as long as it may, and the last connection could not be made, for this reason.
    Unconnected(Rc<str>),
    /// It has waited for longer than its query may take.
    QueryTimedOut,
    /// As many wait as may.
    QueueFull,
    /// No server can be connected; this is why.
    NoServer(Rc<ErrorResponse>),
    /// The last connection could not be made, for this reason, and no server is left.
    LoginFailing(Rc<str>),
    /// It would keep one more server for itself than may be kept so.
    TooManyPinned,
    /// It has given up waiting.
    Cancelled,
    /// The proxy ends.
    Draining,
    /// The configuration has no such database any more, or an administrator has killed it.
    Removed,
    /// Its server is to be replaced, and that is not put off to the session's end.
    Replaced,
    /// The proxy ends when no server is in use any more.
    ShuttingDown,
}

impl Refusal {
    /// What the client reads. The texts are PgBouncer's.
    pub fn response(&self) -> ErrorResponse {
        match self {
            Self::TimedOut => {
                ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, "query_wait_timeout").with_hint(
                    "Every server connection of the pool was in use for all of checkout_timeout.",
                )
            }
            Self::Unconnected(why) => {
                ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, "query_wait_timeout")
                    .with_hint(format!("No server could be connected to: {why}."))
            }
            // PgBouncer's word, and another one than that for a query that has a server.
            Self::QueryTimedOut => {
                ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, "query_timeout")
            }
            Self::QueueFull => ErrorResponse::fatal(
                SqlState::TOO_MANY_CONNECTIONS,
                "no more clients may wait for a server (max_waiting_clients)",
            ),
            Self::TooManyPinned => ErrorResponse::fatal(
                SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                "no more servers may stay with one client (max_pinned_servers)",
            )
            .with_hint(
                "LISTEN, PREPARE, temporary tables and session locks keep a server: undo them, or use session pooling.",
            ),
            Self::NoServer(why) => (**why).clone(),
            Self::LoginFailing(why) => ErrorResponse::fatal(
                SqlState::PROTOCOL_VIOLATION,
                format!("server login has been failing, cached error: {why} (server_login_retry)"),
            ),
            Self::Cancelled => canceled(),
            Self::Draining => ErrorResponse::fatal(
                SqlState::ADMIN_SHUTDOWN,
                "terminating connection due to administrator command",
            ),
            Self::Replaced => ErrorResponse::fatal(
                SqlState::PROTOCOL_VIOLATION,
                "database configuration changed",
            ),
            Self::ShuttingDown => {
                ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, "server shutting down")
            }
            Self::Removed => ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, "database removed"),
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

impl Ticket {
    /// Ends the waiting.
    pub(super) fn grant(&self, grant: Result<Box<ServerConnection>, Refusal>) {
        self.grant.set(Some(grant));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The client has waited for long: it is to be told that it waits.
    pub(super) fn tell_waiting(&self) {
        self.is_to_be_told.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The client is logging in: what a server is asked for it has no need of one that is in use.
    pub(super) fn set_login(&self) {
        self.is_login.set(true);
    }

    /// Whether it is.
    pub(super) fn is_login(&self) -> bool {
        self.is_login.get()
    }

    /// Whether the client is to be told that it waits; once.
    pub fn take_notice(&self) -> bool {
        self.is_to_be_told.take()
    }

    /// Somebody wants the query cancelled for which a server is awaited. Whether it was in time for that.
    pub fn cancel(&self) -> bool {
        let granted = self.grant.take();
        let is_waiting = granted.is_none();
        self.grant.set(granted);
        if is_waiting {
            self.grant(Err(Refusal::Cancelled));
        }
        is_waiting
    }

    /// What came of it, if anything did.
    pub(super) fn take(&self) -> Option<Result<Box<ServerConnection>, Refusal>> {
        self.grant.take()
    }

    /// What came of waiting.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<Result<Box<ServerConnection>, Refusal>> {
        match self.grant.take() {
            Some(grant) => Poll::Ready(grant),
            None => {
                self.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}
