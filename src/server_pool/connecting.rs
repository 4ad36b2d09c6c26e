//! Connections for a pool: whether there may be one, how it is made, and what becomes of it.

use std::net::IpAddr;
use std::rc::{Rc, Weak};

use super::{Refusal, ServerPool, Terms};
use crate::allowance::Allowance;
use crate::auth::scram::{CachedKeys, Nonce};
use crate::config::choices::LoadBalanceHosts;
use crate::net::timer;
use crate::pool::budget::{Ceilings, Full};
use crate::pool::{ConnectOutcome, Wanted};
use crate::protocol::error_response::SqlState;
use crate::resolver::Ttl;
use crate::server::dial::Route;
use crate::server::{ConnectError, PeerAddress, ServerConnection, ServerStartup};
use crate::session::server_login::ServerLoginError;
use crate::telemetry::labels::{ConnectFailure, Limit, ServerClose};

impl ServerPool {
    /// A place for one more server, where the limits of its database and its user allow it. For clients another pool's server may
    /// have to go.
    pub(super) fn allowance(&self, wanted: Wanted) -> Option<Allowance> {
        let allowances = &self.neighbours.allowances;
        let ceilings = {
            let settings = &self.terms.borrow().settings;
            let reserve = match wanted {
                Wanted::FromReserve => settings.reserve_size,
                Wanted::ByClients | Wanted::ForMinimum => 0,
            };
            let of_pool = settings.size.map(|size| size.saturating_add(reserve));
            Ceilings {
                // Else the pool itself counts.
                pool: of_pool.filter(|_| self.share.is_some()),
                database: settings.max_database_connections,
                user: settings.max_user_connections,
            }
        };
        let mut has_said_so = false;
        loop {
            let full = match allowances.take(&self.account, ceilings) {
                Ok(allowance) => {
                    self.unwant_room();
                    return Some(allowance);
                }
                Err(full) => full,
            };
            if full == Full::Pool && wanted != Wanted::ForMinimum {
                self.pool.borrow_mut().on_no_room();
            }
            if wanted == Wanted::ForMinimum || has_said_so {
                return None;
            }
            if !self.neighbours.evict(&self.account, full) {
                let limit = match full {
                    Full::Pool => Limit::PoolServers,
                    Full::Database => Limit::DatabaseServers,
                    Full::User => Limit::UserServers,
                };
                if !self.wants_room.replace(true) {
                    self.neighbours.process.limits.of(limit).increase();
                }
                let since = self.pool.borrow().oldest_wait();
                let since = since.unwrap_or_else(|| (self.neighbours.clock)());
                allowances.want(&self.account, full, since, &self.neighbours.bell);
                // Some may have been made meanwhile.
                has_said_so = true;
            }
        }
    }

    pub(super) fn unwant_room(&self) {
        if self.wants_room.replace(false) {
            let bell = &self.neighbours.bell;
            self.neighbours.allowances.unwant(&self.account, bell);
        }
    }

    pub(super) fn connect(self: &Rc<Self>, allowance: Allowance) {
        let pool = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let (terms, generation) = (pool.terms(), pool.generation.get());
            let limit = terms.settings.server_connect_timeout;
            let connecting = async {
                let startup = ServerStartup::pooled(&terms.settings.track_extra_parameters);
                let (mut server, keys) = pool.open(&terms, startup).await?;
                if let Some(query) = &terms.settings.connect_query {
                    let reported = server.ask_reported(query.as_bytes()).await;
                    server.on_reported(reported.map_err(|_| ConnectError::ConnectQuery)?);
                }
                Ok((server, keys))
            };
            match timer::timeout(limit, connecting)
                .await
                .unwrap_or(Err(ConnectError::TimedOut))
            {
                Ok((mut server, keys)) => {
                    server.generation = generation;
                    server.allowance = Some(allowance);
                    pool.on_connected(Box::new(server), keys);
                }
                Err(error) => {
                    drop(allowance);
                    pool.on_connect_failed(&error);
                }
            }
        });
    }

    fn on_connected(self: &Rc<Self>, mut server: Box<ServerConnection>, keys: Option<CachedKeys>) {
        if keys.is_some() {
            *self.scram_keys.borrow_mut() = keys;
        }
        self.metrics.servers_opened.increase();
        self.on_reports_of_new_server(&server.reported);
        self.enlist(&server);
        self.login_failure.take();
        let terms = self.terms();
        tracing::info!(
            database = &*terms.identity.database,
            user = &*terms.identity.user,
            server_pid = server.process_id(),
            server = %server.card.address,
            "new connection to server (from {})",
            server.lane.socket.stream().local(),
        );
        let now = (self.neighbours.clock)();
        if server.generation == self.generation.get() {
            self.current.set(self.current.get() + 1);
        }
        let why = self.is_unwanted(&server, now);
        let why = why.or_else(|| (!self.is_to_rest(&mut server)).then_some(ServerClose::Lost));
        match why {
            Some(why) => {
                self.pool.borrow_mut().on_connecting_given_up();
                self.close(server, why);
            }
            None => {
                let given = self.pool.borrow_mut().on_connected(server, now);
                self.give(given);
            }
        }
        self.advance(now);
        self.give_to_others(now);
    }

    fn on_connect_failed(self: &Rc<Self>, error: &ConnectError) {
        // Keys that did not help are of no use next time.
        self.scram_keys.borrow_mut().take();
        let at = match error {
            ConnectError::Unresolved(_) => ConnectFailure::Resolve,
            ConnectError::Unreachable(_) => ConnectFailure::Connect,
            ConnectError::TimedOut => ConnectFailure::Timeout,
            ConnectError::Tls(_) => ConnectFailure::Tls,
            ConnectError::Broken(_) | ConnectError::Login(_) | ConnectError::ConnectQuery => {
                ConnectFailure::Login
            }
        };
        self.metrics.server_connect_failures.of(at).increase();
        let reason = error.reason();
        let terms = self.terms();
        if let Some((severity, message)) = error.refusal() {
            tracing::warn!(
                database = &*terms.identity.database,
                user = &*terms.identity.user,
                server = %terms.target.in_words(),
                "server login failed: {severity} {message}",
            );
        }
        tracing::info!(
            database = &*terms.identity.database,
            user = &*terms.identity.user,
            server = %terms.target.in_words(),
            %error,
            "closing because: {reason} (age=0s)",
        );
        *self.login_failure.borrow_mut() = Some(reason.into());
        if terms.settings.load_balance_hosts == LoadBalanceHosts::Disable {
            // Another host, next time.
            self.next_host.set(self.next_host.get().wrapping_add(1));
        }
        let now = (self.neighbours.clock)();
        let outcome = match error {
            // It is starting up: that is over in a moment.
            ConnectError::Login(ServerLoginError::Refused(refusal))
                if refusal.code == Some(SqlState::CANNOT_CONNECT_NOW) =>
            {
                ConnectOutcome::Unreachable
            }
            ConnectError::Login(_) => ConnectOutcome::Refused,
            _ => ConnectOutcome::Unreachable,
        };
        self.count_elsewhere();
        let mut turned_away = self.pool.borrow_mut().on_connect_failed(outcome, now);
        if outcome == ConnectOutcome::Refused {
            // They would be told the same. Who has logged in already may wait for a server that is in use.
            let logging_in = self
                .pool
                .borrow_mut()
                .take_waiting(|ticket| ticket.is_login());
            turned_away.extend(logging_in);
        }
        let why = Rc::new(error.response());
        for ticket in turned_away {
            ticket.grant(Err(Refusal::NoServer(Rc::clone(&why))));
        }
        self.advance(now);
    }
}

impl ServerPool {
    /// Connects one of the hosts, and logs in.
    pub(super) async fn open(
        &self,
        terms: &Terms,
        startup: ServerStartup<'_>,
    ) -> Result<(ServerConnection, Option<CachedKeys>), ConnectError> {
        let credentials = self.credentials(terms);
        let on_gone = |gone: &[IpAddr]| self.on_addresses_gone(gone);
        let route = Route {
            resolver: &self.neighbours.resolver,
            ttl: Ttl {
                found: terms.dns.max_ttl,
                missing: terms.dns.nxdomain_ttl,
            },
            tcp: &terms.tcp,
            load_balance: terms.settings.load_balance_hosts,
            next_host: &self.next_host,
            limit: terms.settings.server_connect_timeout,
            on_gone: &on_gone,
        };
        let clock = self.neighbours.clock;
        ServerConnection::connect(&terms.target, credentials, nonce, startup, &route, clock).await
    }

    /// A name has led to these addresses, and does not any more: servers there are replaced.
    fn on_addresses_gone(&self, gone: &[IpAddr]) {
        for card in self.servers.borrow().iter().filter_map(Weak::upgrade) {
            if let PeerAddress::Tcp(address) = &card.address
                && gone.contains(&address.ip())
            {
                card.is_misplaced.set(true);
            }
        }
        let idle = self
            .pool
            .borrow_mut()
            .remove_idle(|server| server.card.is_misplaced.get());
        for server in idle {
            self.close(server, ServerClose::Administrator);
        }
    }
}

fn nonce() -> Nonce {
    let mut nonce = Nonce::default();
    getrandom::fill(&mut nonce).expect("the system has random bytes");
    nonce
}
