//! A server for one client alone, which is logged in to with what the client asked for: for replication. It takes a place in the
//! pool as any other.

use std::rc::Rc;

use super::ServerPool;
use crate::allowance::Allowance;
use crate::net::timer;
use crate::pool::Wanted;
use crate::protocol::error_response::ErrorResponse;
use crate::protocol::startup::{Parameter, Replication};
use crate::server::{ConnectError, ServerConnection, ServerStartup};
use crate::telemetry::labels::ServerClose;

impl ServerPool {
    /// Waits for a place in the pool, and connects a server there with these parameters.
    pub async fn dedicated(
        self: &Rc<Self>,
        parameters: Vec<Parameter>,
        replication: Replication,
    ) -> Result<Box<ServerConnection>, ErrorResponse> {
        let (place, allowance) = self.place().await?;
        let terms = self.terms();
        let startup = ServerStartup {
            parameters,
            replication,
            track_extra: &[],
        };
        let connecting = self.open(&terms, startup);
        let limit = terms.settings.server_connect_timeout;
        let connected = timer::timeout(limit, connecting).await;
        match connected.unwrap_or(Err(ConnectError::TimedOut)) {
            Ok((mut server, _)) => {
                place.keep();
                server.generation = self.generation.get();
                server.allowance = allowance;
                self.current.set(self.current.get() + 1);
                self.metrics.servers_opened.increase();
                Ok(Box::new(server))
            }
            Err(error) => Err(error.response()),
        }
    }

    /// A place in the pool: a free one, or that of a server which is closed for it.
    async fn place(self: &Rc<Self>) -> Result<(Place, Option<Allowance>), ErrorResponse> {
        if self.pool.borrow_mut().occupy() {
            let place = Place(Some(Rc::clone(self)));
            if let Some(allowance) = self.allowance(Wanted::ByClients) {
                return Ok((place, Some(allowance)));
            }
        }
        let pooled = self.checkout_server().await;
        let mut pooled = pooled.map_err(|refusal| refusal.response())?;
        let allowance = pooled.allowance.take();
        self.close(pooled, ServerClose::Evicted);
        Ok((Place(Some(Rc::clone(self))), allowance))
    }
}

/// A place in the pool without a server; given back when it is dropped.
struct Place(Option<Rc<ServerPool>>);

impl Place {
    fn keep(mut self) {
        self.0.take();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pool) = self.0.take() {
            pool.pool.borrow_mut().on_lost();
            pool.advance((pool.neighbours.clock)());
        }
    }
}
