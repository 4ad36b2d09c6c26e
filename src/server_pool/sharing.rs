//! What a pool's part on one worker gives to those on others, and gets from them.

use std::rc::Rc;
use std::time::Instant;

use super::ServerPool;
use crate::server::ServerConnection;
use crate::server::moving::Moving;
use crate::telemetry::labels::ServerClose;

impl ServerPool {
    /// The worker's bell was rung: there may be room for a server, one may have come, or one may be wanted elsewhere.
    pub(super) fn on_bell(self: &Rc<Self>, now: Instant) {
        let incoming = self.share.as_ref().map(|share| share.take_incoming());
        for server in incoming.into_iter().flatten() {
            self.move_in(server, now);
        }
        if self.wants_room.get() {
            self.pool.borrow_mut().on_room();
            self.advance(now);
        }
        self.give_to_others(now);
    }

    /// Tells the other parts how many wait here, and how many servers rest.
    pub(super) fn tell_others(&self) {
        if let Some(share) = &self.share {
            let pool = self.pool.borrow();
            share.tell_waiting(pool.need());
            share.tell_resting(pool.resting_count());
        }
    }

    /// A client has begun to wait: where servers of other parts rest, they are asked for one.
    pub(super) fn ask_others(&self) {
        self.tell_others();
        if let Some(share) = &self.share
            && self.pool.borrow().need().is_some()
        {
            share.ask();
        }
    }

    /// Learns how many servers the other parts have. Only where that matters: it takes a lock.
    pub(super) fn count_elsewhere(&self) {
        if self.share.is_some() {
            let all = self.neighbours.allowances.of_pool(&self.account);
            self.pool.borrow_mut().set_all_servers(all);
        }
    }

    /// To which worker a server that comes back is to go, since somebody there has waited longer than anybody here.
    pub(super) fn is_wanted_elsewhere(
        &self,
        server: &ServerConnection,
        now: Instant,
    ) -> Option<usize> {
        let share = self.share.as_ref()?;
        let (worker, need) = share.neediest()?;
        let goes_at = self.pool.borrow().goes_elsewhere_at(need)?;
        let goes = goes_at <= now && server.may_move() && share.takes(worker);
        goes.then_some(worker)
    }

    /// When a server that rests is to go to another part, if things stay as they are.
    pub(super) fn gives_at(&self) -> Option<Instant> {
        let (_, need) = self.share.as_ref()?.neediest()?;
        let pool = self.pool.borrow();
        pool.goes_elsewhere_at(need)
            .filter(|_| pool.resting_count() > 0)
    }

    /// Gives servers that rest to parts where somebody waits.
    pub(super) fn give_to_others(self: &Rc<Self>, now: Instant) {
        let Some(share) = &self.share else {
            return;
        };
        while let Some((worker, need)) = share.neediest()
            && share.takes(worker)
        {
            let goes_at = self.pool.borrow().goes_elsewhere_at(need);
            if goes_at.is_none_or(|goes_at| goes_at > now) {
                if goes_at.is_some() {
                    self.neighbours.on_waiting.notify_one();
                }
                break;
            }
            let Some((server, since)) = self.pool.borrow_mut().take_for_another() else {
                break;
            };
            self.move_to(worker, server, since);
        }
        self.tell_others();
        // Whoever has come to wait while the last one left is not forgotten.
        if self.pool.borrow().oldest_wait().is_some() {
            self.advance(now);
        }
    }

    /// Sends a server that the pool does not count any more to another worker.
    pub(super) fn move_to(
        self: &Rc<Self>,
        worker: usize,
        server: Box<ServerConnection>,
        rests_since: Instant,
    ) {
        let Some(share) = &self.share else {
            return self.close(server, ServerClose::Evicted);
        };
        if !server.may_move() {
            return self.close(server, ServerClose::Evicted);
        }
        if server.generation == self.generation.get() {
            self.current.set(self.current.get().saturating_sub(1));
        }
        let Some(moving) = server.detach(rests_since) else {
            return;
        };
        match share.send(worker, Box::new(moving)) {
            Ok(()) => self.metrics.servers_moved.increase(),
            // It has got another one meanwhile.
            Err(moving) => self.move_in(*moving, rests_since),
        }
        self.on_closed.notify_waiters();
    }

    /// A server has come from another worker.
    fn move_in(self: &Rc<Self>, moving: Moving, now: Instant) {
        let since = moving.rests_since;
        let mut server = match moving.attach() {
            Ok(server) => Box::new(server),
            Err(error) => return tracing::warn!(%error, "a server could not change its worker"),
        };
        // What was connected before servers were to be replaced is of an earlier generation, as it would be here.
        let renewed_at = self.renewed_at.get();
        if renewed_at.is_none_or(|renewed_at| server.connected_at >= renewed_at) {
            server.generation = self.generation.get();
            self.current.set(self.current.get() + 1);
        } else {
            server.generation = self.generation.get().wrapping_sub(1);
        }
        self.list(&server);
        let why = self.is_unwanted(&server, now);
        let why = why.or_else(|| (!self.is_to_rest(&mut server)).then_some(ServerClose::Lost));
        match why {
            Some(why) => self.close(server, why),
            None => {
                let given = self.pool.borrow_mut().on_moved_in(server, since, now);
                self.give(given);
            }
        }
        self.advance(now);
        self.tell_others();
    }
}
