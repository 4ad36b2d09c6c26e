//! What the proxy itself asks a server, and what a server says while it rests.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::ServerConnection;
use crate::protocol::backend::TransactionStatus;
use crate::protocol::encode;
use crate::protocol::outbound::Outbound;
use crate::protocol::startup::Parameter;
use crate::session::unlinked::{OwnQueryError, Unlinked};
use crate::session::violation::Violation;

/// Why a query of the proxy's own did not go well.
#[derive(Debug)]
pub enum AskError {
    /// The connection broke.
    Broken,
    /// The server broke the rules.
    Violation(Violation),
    /// The server answered with an error.
    Refused(OwnQueryError),
}

impl ServerConnection {
    /// Asks a query of the proxy's own, and waits for its end. Not cancel safe: the server can't be used afterwards.
    pub async fn ask(&mut self, sql: &[u8]) -> Result<(), AskError> {
        self.ask_reported(sql).await.map(|_| ())
    }

    /// The same; the parameters come back that the server reported.
    pub async fn ask_reported(&mut self, sql: &[u8]) -> Result<Vec<Parameter>, AskError> {
        let mut out = Outbound::new();
        out.write(|out| encode::query(out, sql));
        self.lane
            .send(&mut out, &[])
            .map_err(|_| AskError::Broken)?;
        self.lane.socket.on_new_reader();
        let mut heard = Unlinked::default();
        let mut buffer = vec![0; 16 * 1024];
        while heard.ready.is_none() {
            let read = poll_fn(|cx| {
                if let Poll::Ready(Err(error)) = self.lane.poll_drain(cx) {
                    return Poll::Ready(Err(error));
                }
                self.lane.socket.poll_read(cx, &mut buffer)
            });
            let len = read.await.map_err(|_| AskError::Broken)?;
            if len == 0 {
                return Err(AskError::Broken);
            }
            let input = buffer.get(..len).unwrap_or_default();
            self.replies
                .advance(input, &mut heard, &mut out)
                .map_err(AskError::Violation)?;
        }
        match (heard.error, heard.ready) {
            (Some(error), _) => Err(AskError::Refused(error)),
            (None, Some(TransactionStatus::Idle)) => Ok(heard.reported),
            // It has begun a transaction: nobody wants that.
            (None, _) => Err(AskError::Broken),
        }
    }

    /// Listens to the server while it rests. Ready when it is gone, or has said what a resting server does not say.
    pub fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.lane.socket.poll_readable(cx).is_pending() {
                return Poll::Pending;
            }
            let mut buffer = [0; 1024];
            let len = match self.lane.socket.poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(len)) => len,
            };
            let input = buffer.get(..len).unwrap_or_default();
            let mut heard = Unlinked::default();
            let understood = self
                .replies
                .advance(input, &mut heard, &mut Outbound::new());
            if understood.is_err()
                || heard.has_answered
                || heard.error.is_some_and(|error| error.is_fatal)
            {
                return Poll::Ready(());
            }
            self.on_reported(heard.reported);
        }
    }

    /// It has reported these parameters while no client was linked to it.
    pub fn on_reported(&mut self, reported: Vec<Parameter>) {
        for (name, value) in reported {
            if self.session.parameters.value(&name).is_some() {
                Rc::make_mut(&mut self.session.parameters).insert(&name, &value);
            }
            match self.reported.iter_mut().find(|(known, _)| *known == name) {
                Some(known) => known.1 = value,
                None => self.reported.push((name, value)),
            }
        }
    }
}
