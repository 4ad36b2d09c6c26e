//! What a pool is made of at a moment, for the console.

use std::rc::{Rc, Weak};
use std::time::Instant;

use super::ServerPool;
use crate::pool::Occupancy;
use crate::server::{ServerCard, ServerConnection};

/// What a pool is made of at a moment.
#[derive(Debug)]
pub struct Census {
    /// How many there are of each.
    pub occupancy: Occupancy,
    /// Since when the client in front of the queue waits.
    pub oldest_wait: Option<Instant>,
    /// The servers that are connected.
    pub servers: Vec<Counted>,
}

/// A server that is connected.
#[derive(Debug)]
pub struct Counted {
    /// Who it is.
    pub card: Rc<ServerCard>,
    /// Where it is.
    pub place: ServerPlace,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerPlace {
    /// With a client, or being reset or checked.
    Out,
    /// It rests, and was called so when it was last in use.
    Idle {
        /// Whether it has to be checked before it is used.
        is_unchecked: bool,
        /// The application_name that is set on it.
        application_name: Box<[u8]>,
    },
}

impl ServerPool {
    /// A server was connected: it gets its number, and is known from now on.
    pub(super) fn enlist(&self, server: &ServerConnection) {
        server
            .card
            .serial
            .set(self.neighbours.process.next_serial());
        self.list(server);
    }

    /// A server that has its number is this worker's from now on.
    pub(super) fn list(&self, server: &ServerConnection) {
        let mut servers = self.servers.borrow_mut();
        servers.retain(|known| known.strong_count() > 0);
        servers.push(Rc::downgrade(&server.card));
    }

    /// What it is made of at `now`.
    pub fn census(&self, now: Instant) -> Census {
        let pool = self.pool.borrow();
        let place = |card: &Rc<ServerCard>| {
            let resting = pool
                .resting(now)
                .find(|(server, _)| Rc::ptr_eq(&server.card, card));
            match resting {
                Some((server, is_unchecked)) => ServerPlace::Idle {
                    is_unchecked,
                    application_name: server
                        .session
                        .parameters
                        .value(b"application_name")
                        .unwrap_or_default()
                        .into(),
                },
                None => ServerPlace::Out,
            }
        };
        Census {
            occupancy: pool.occupancy(now),
            oldest_wait: pool.oldest_wait(),
            servers: self
                .servers
                .borrow()
                .iter()
                .filter_map(Weak::upgrade)
                .map(|card| Counted {
                    place: place(&card),
                    card,
                })
                .collect(),
        }
    }
}
