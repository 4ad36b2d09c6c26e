//! What an administrator may order of a pool.

use std::rc::Rc;
use std::time::Duration;

use super::{Refusal, ServerPool};
use crate::net::timer;
use crate::server::ServerConnection;
use crate::telemetry::labels::ServerClose;

/// How often PgBouncer looks after those who wait.
const PGBOUNCER_ROUND: Duration = Duration::from_millis(333);

impl ServerPool {
    /// From now on nobody is given a server. Those that rest are closed now, the others when they come back.
    pub fn pause(&self) {
        let idle = self.pool.borrow_mut().pause();
        for server in idle {
            self.close(server, ServerClose::Paused);
        }
        self.tell_others();
    }

    /// Clients are given servers again.
    pub fn resume(self: &Rc<Self>) {
        self.pool.borrow_mut().resume();
        self.advance((self.neighbours.clock)());
    }

    /// Whether nobody is given a server.
    pub fn is_paused(&self) -> bool {
        self.pool.borrow().is_paused()
    }

    /// Ready when no client has a server any more, or the pool is not paused any more.
    pub async fn released(&self) {
        loop {
            let closed = self.on_closed.notified();
            if self.pool.borrow().is_released() || !self.is_paused() {
                return;
            }
            closed.await;
        }
    }

    /// Replaces every server: those that rest are closed now, the others when they come back.
    pub fn reconnect(self: &Rc<Self>) {
        self.generation.set(self.generation.get() + 1);
        self.renewed_at.set(Some((self.neighbours.clock)()));
        self.current.set(0);
        self.welcomes.borrow_mut().clear();
        self.reports_have_changed.set(false);
        let idle = self.pool.borrow_mut().remove_idle(|_| true);
        for server in idle {
            self.close(server, ServerClose::Administrator);
        }
        self.advance((self.neighbours.clock)());
    }

    /// Whether a server is to be closed when it comes back, since another is to be in its place.
    pub fn is_to_be_replaced(&self, server: &ServerConnection) -> bool {
        server.generation != self.generation.get() || server.card.is_misplaced.get()
    }

    /// Ready when every server that was to be replaced is closed.
    pub async fn all_replaced(&self) {
        loop {
            let closed = self.on_closed.notified();
            if self.connected() <= self.current.get() {
                return;
            }
            closed.await;
        }
    }

    /// Its database is gone from the configuration: nobody gets a server any more, and resting clients are sent away.
    pub fn remove(self: &Rc<Self>) {
        self.is_removed.set(true);
        self.reconnect();
        self.turn_away_waiting(&Refusal::Removed);
    }

    /// The process ends when no server is in use any more: nobody who has none gets one, or goes on waiting.
    pub fn close_doors(self: &Rc<Self>) {
        self.is_closing.set(true);
        self.pause();
        let pool = Rc::clone(self);
        tokio::task::spawn_local(async move {
            timer::sleep(PGBOUNCER_ROUND).await;
            pool.turn_away_waiting(&Refusal::ShuttingDown);
        });
    }

    /// Whether its database is gone from the configuration.
    pub fn is_removed(&self) -> bool {
        self.is_removed.get()
    }

    /// Those who wait are told that there is nothing to wait for.
    pub(super) fn turn_away_waiting(&self, why: &Refusal) {
        let waiting = self.pool.borrow_mut().remove_waiting();
        for ticket in waiting {
            ticket.grant(Err(why.clone()));
        }
        self.tell_others();
    }

    fn connected(&self) -> usize {
        let occupancy = self.pool.borrow().occupancy((self.neighbours.clock)());
        occupancy.idle + occupancy.in_use + occupancy.checking
    }
}
