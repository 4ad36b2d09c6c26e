//! Who uses the console: its clients are connections like others in SHOW CLIENTS, and their commands are counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use crate::admin::snapshot::{Connection, State};
use crate::admin::statistics::ByDatabase;
use crate::config::{CONSOLE_NAMES, ConsoleRole};
use crate::net::socket::Socket;
use crate::net::tls_session::TlsSession;
use crate::protocol::startup::Replication;
use crate::shard::clock;

/// Who uses the console.
#[derive(Debug, Default)]
pub(super) struct Visitors {
    present: Mutex<BTreeMap<u64, Arc<Guest>>>,
    commands: AtomicU64,
    logins: AtomicU64,
}

/// A client of the console.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) serial: u64,
    pub(super) user: Box<str>,
    pub(super) role: ConsoleRole,
    pub(super) peer: Option<SocketAddr>,
    pub(super) local: Option<SocketAddr>,
    pub(super) process: i32,
    encryption: Option<Box<str>>,
    pub(super) accepted_at: Instant,
    request_at: Mutex<Instant>,
    /// Told when it is to leave.
    pub(super) dismissed: Notify,
}

/// A guest that is there; not any more when this is dropped.
pub(super) struct Presence<'a> {
    visitors: &'a Visitors,
    pub(super) guest: Arc<Guest>,
}

impl Guest {
    pub(super) fn new(
        serial: u64,
        user: Box<str>,
        role: ConsoleRole,
        socket: &Socket,
        accepted_at: Instant,
    ) -> Self {
        let stream = socket.stream();
        let peer = stream.peer();
        Self {
            serial,
            user,
            role,
            peer: peer.address(),
            local: stream.local_address(),
            process: peer.process().unwrap_or_default(),
            encryption: socket.tls().and_then(TlsSession::description),
            accepted_at,
            request_at: Mutex::new(accepted_at),
            dismissed: Notify::new(),
        }
    }

    /// It asks something.
    pub(super) fn on_command(&self) {
        *self.request_at() = clock();
    }

    fn request_at(&self) -> MutexGuard<'_, Instant> {
        self.request_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn connection(&self) -> Connection {
        Connection {
            serial: self.serial,
            link: None,
            user: self.user.clone(),
            database: CONSOLE_NAMES[0].into(),
            replication: Replication::None,
            state: State::Active,
            peer: self.peer,
            local: self.local,
            connected_at: self.accepted_at,
            request_at: *self.request_at(),
            query_since: None,
            close_needed: false,
            process: self.process,
            encryption: self.encryption.clone().unwrap_or_default(),
            application_name: String::new(),
            statements: 0,
        }
    }
}

impl Visitors {
    pub(super) fn welcome(&self, guest: Guest) -> Presence<'_> {
        let guest = Arc::new(guest);
        self.logins.fetch_add(1, Relaxed);
        self.present().insert(guest.serial, Arc::clone(&guest));
        Presence {
            visitors: self,
            guest,
        }
    }

    /// They, as connections.
    pub(super) fn connections(&self) -> Vec<Connection> {
        let present = self.present();
        present.values().map(|guest| guest.connection()).collect()
    }

    /// Sends one away. Whether it was there.
    pub(super) fn dismiss(&self, serial: u64) -> bool {
        let guest = self.present().get(&serial).map(Arc::clone);
        guest.map(|guest| guest.dismissed.notify_one()).is_some()
    }

    /// A command was run: PgBouncer counts it as a query and a transaction.
    pub(super) fn on_command(&self) {
        self.commands.fetch_add(1, Relaxed);
    }

    /// Adds what was counted here.
    pub(super) fn count(&self, counted: &mut ByDatabase) {
        let totals = counted.entry(CONSOLE_NAMES[0].into()).or_default();
        totals.queries += self.commands.load(Relaxed);
        totals.transactions += self.commands.load(Relaxed);
        totals.logins += self.logins.load(Relaxed);
    }

    fn present(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Guest>>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.visitors.present().remove(&self.guest.serial);
    }
}
