//! Servers between two clients: reset after the one, checked before the other.

use std::rc::Rc;
use std::time::Instant;

use super::ServerPool;
use crate::config::EMPTY_QUERY;
use crate::net::timer;
use crate::server::ServerConnection;
use crate::telemetry::labels::ServerClose;

impl ServerPool {
    /// A server comes back that a client has left something behind on, or may have: it is reset first.
    pub fn release_to_reset(self: &Rc<Self>, mut server: Box<ServerConnection>) {
        let terms = self.terms();
        let now = (self.neighbours.clock)();
        let Some(reset) = terms.settings.server_reset_query.clone() else {
            self.return_clean(server, now);
            return;
        };
        if let Some(why) = self.is_unwanted(&server, now) {
            self.discard(server, why);
            return;
        }
        self.pool.borrow_mut().on_resetting();
        let pool = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let reset = timer::timeout(
                terms.settings.server_connect_timeout,
                server.ask_reported(reset.as_bytes()),
            )
            .await;
            match reset {
                Ok(Ok(reported)) => {
                    server.on_reported(reported);
                    let reported = server.reported.iter();
                    let reported = reported.map(|(name, value)| (&**name, &**value));
                    let extra = &pool.terms().settings.track_extra_parameters;
                    server.session.on_reset(reported, extra);
                    pool.wait_for_cancels(&server).await;
                    pool.on_checked(server);
                }
                Ok(Err(_)) | Err(_) => pool.on_check_failed(server, ServerClose::ResetFailed),
            }
        });
    }

    /// A server has rested for long: before a client gets it, it has to show that it still answers.
    pub(super) fn check(self: &Rc<Self>, mut server: Box<ServerConnection>) {
        let terms = self.terms();
        let Some(query) = terms.settings.server_check_query.clone() else {
            self.on_checked(server);
            return;
        };
        let pool = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let query = match &*query {
                EMPTY_QUERY => "",
                query => query,
            };
            let asked = timer::timeout(
                terms.settings.server_connect_timeout,
                server.ask(query.as_bytes()),
            );
            match asked.await {
                Ok(Ok(())) => pool.on_checked(server),
                Ok(Err(_)) | Err(_) => pool.on_check_failed(server, ServerClose::CheckFailed),
            }
        });
    }

    fn on_checked(self: &Rc<Self>, mut server: Box<ServerConnection>) {
        let now = (self.neighbours.clock)();
        if let Some(why) = self.is_unwanted(&server, now) {
            self.on_check_failed(server, why);
            return;
        }
        if self.is_to_rest(&mut server) {
            let given = self.pool.borrow_mut().on_checked(server, now);
            self.give(given);
        } else {
            self.on_check_failed(server, ServerClose::Lost);
        }
        self.advance(now);
        self.give_to_others(now);
    }

    fn on_check_failed(self: &Rc<Self>, server: Box<ServerConnection>, why: ServerClose) {
        self.pool.borrow_mut().on_check_failed();
        self.close(server, why);
        self.advance((self.neighbours.clock)());
    }

    /// Why a server that comes back is not used again, if it is not.
    pub(super) fn is_unwanted(
        &self,
        server: &ServerConnection,
        now: Instant,
    ) -> Option<ServerClose> {
        if self.is_to_be_replaced(server) {
            return Some(ServerClose::Administrator);
        }
        let mut pool = self.pool.borrow_mut();
        if pool.is_paused() {
            return Some(ServerClose::Paused);
        }
        // Where servers are used once only, it is used that once.
        if !server.is_unused && pool.is_life_over(server.connected_at, now) {
            pool.on_life_over(now);
            return Some(ServerClose::Lifetime);
        }
        None
    }

    /// A cancel that is still on its way must not hit the next client's query.
    pub(super) async fn wait_for_cancels(&self, server: &ServerConnection) {
        while server.card.cancels.get() > 0 {
            server.card.cancels_done.notified().await;
        }
    }
}
