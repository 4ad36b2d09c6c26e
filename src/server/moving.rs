//! A resting server on its way from one worker to another: all that it is, but for what belongs to a thread.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use super::{ServerCard, ServerConnection};
use crate::allowance::Allowance;
use crate::net::lane::Lane;
use crate::net::socket::{Detached, Socket};
use crate::protocol::forwarder::Forwarder;
use crate::protocol::startup::Parameter;
use crate::session::server_session::{Resting, ServerSession};

/// A server that rests, of no worker. The connection is closed where it is dropped.
#[derive(Debug)]
pub struct Moving {
    socket: Detached,
    session: Resting,
    reported: Vec<Parameter>,
    card: ServerCard,
    allowance: Option<Allowance>,
    is_unused: bool,
    /// Since when it has rested.
    pub rests_since: Instant,
}

impl ServerConnection {
    /// Whether it may leave its worker: it rests, and nobody looks at it.
    pub fn may_move(&self) -> bool {
        Rc::strong_count(&self.card) == 1
            && self.lane.is_drained()
            && self.replies.is_at_boundary()
            && self.session.may_move()
    }

    /// Leaves its worker. `None`, and it is closed, where it may not move.
    pub fn detach(self, rests_since: Instant) -> Option<Moving> {
        if !self.may_move() {
            return None;
        }
        let Self {
            lane,
            session,
            reported,
            card,
            allowance,
            is_unused,
            ..
        } = self;
        Some(Moving {
            socket: lane.socket.detach(),
            session: session.into_resting(),
            reported,
            card: Rc::into_inner(card)?,
            allowance,
            is_unused,
            rests_since,
        })
    }
}

impl Moving {
    /// Arrives at the worker whose thread this is.
    pub fn attach(self) -> io::Result<ServerConnection> {
        Ok(ServerConnection {
            lane: Lane::new(Socket::attach(self.socket)?),
            replies: Forwarder::new(),
            session: ServerSession::of_resting(self.session),
            reported: self.reported,
            connected_at: self.card.connected_at,
            linked_at: self.card.connected_at,
            card: Rc::new(self.card),
            generation: 0,
            allowance: self.allowance,
            is_unused: self.is_unused,
        })
    }
}
