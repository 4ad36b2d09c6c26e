//! Passes a CancelRequest on to the server that it stands for, and only there.

use std::future::poll_fn;
use std::time::Duration;

use crate::config::{Peer, Tcp};
use crate::net::socket::Socket;
use crate::net::timer;
use crate::protocol::cancel_key::CancelKey;
use crate::protocol::encode;
use crate::server::dial::{open_at, open_once};
use crate::server::encryption::{self, Attempt};
use crate::server::{ConnectError, ServerAddress, ServerCard};
use crate::telemetry::labels::CancelOutcome;

/// How long a server may take for a CancelRequest (PgBouncer's cancel_wait_timeout).
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// Bits of a process id that say which worker a client is on.
const WORKER_BITS: u32 = 7;

/// Workers that process ids can tell apart.
pub const MAX_WORKERS: usize = 1 << WORKER_BITS;

/// Where the bits begin that say which peer a client is connected to, where there are several.
const PEER_SHIFT: u32 = 24;

/// The process id of a worker's client number `session` on the peer of this number, 0 standing for the only one; zero for one
/// number in many, which is not to be used.
pub fn process_id(session: u32, worker: u8, peer: u8) -> i32 {
    let (peer, mask) = match peer {
        0 => (0, 0xff_ffff),
        peer => (i32::from(peer & 0x7f) << PEER_SHIFT, 0x1_ffff),
    };
    let session = i32::try_from(session & mask).expect("24 bits");
    peer | session << WORKER_BITS | i32::from(worker & 0x7f)
}

/// The peer that a process id belongs to, where there are several.
pub fn peer_of(process_id: i32) -> u8 {
    u8::try_from(process_id >> PEER_SHIFT & 0x7f).expect("7 bits")
}

/// Passes a CancelRequest on to the peer that its client is connected to.
pub async fn relay(peer: &Peer, key: &CancelKey) -> CancelOutcome {
    // Peers that each take another one for whom it is meant for must not pass it round for ever.
    let Some(key) = key.with_one_hop_less() else {
        return CancelOutcome::Unknown;
    };
    let mut request = Vec::new();
    encode::cancel_request(&mut request, &key);
    match timer::timeout(CANCEL_TIMEOUT, deliver_to(peer, &request)).await {
        Ok(Ok(())) => CancelOutcome::Relayed,
        Ok(Err(_)) | Err(_) => CancelOutcome::Failed,
    }
}

async fn deliver_to(peer: &Peer, request: &[u8]) -> Result<(), ConnectError> {
    let address = ServerAddress::of(&peer.host, peer.port);
    let (socket, _) = open_once(&address, &Tcp::default()).await?;
    hand_over(socket, request).await
}

/// The worker that a process id belongs to.
pub fn worker_of(process_id: i32) -> usize {
    usize::try_from(process_id & 0x7f).expect("7 bits")
}

/// Cancels what a server is doing. Until this is done, the server serves no other client: see [`ServerCard::cancels`].
pub async fn forward(server: &ServerCard) -> CancelOutcome {
    let Some(key) = &server.cancel_key else {
        return CancelOutcome::Failed;
    };
    let _in_flight = InFlight::of(server);
    let mut request = Vec::new();
    encode::cancel_request(&mut request, key);
    match timer::timeout(CANCEL_TIMEOUT, deliver(server, &request)).await {
        Ok(Ok(())) => CancelOutcome::Forwarded,
        Ok(Err(_)) | Err(_) => CancelOutcome::Failed,
    }
}

/// The server closes the connection when it has signalled the process.
async fn deliver(server: &ServerCard, request: &[u8]) -> Result<(), ConnectError> {
    let mut socket = open_at(&server.address, &Tcp::default()).await?;
    if let Some((tls, host)) = &server.tls {
        // Whoever reads the key could cancel the next query too.
        encryption::encrypt(&mut socket, Attempt::Encrypted, tls, host).await?;
    }
    hand_over(socket, request).await
}

/// Whoever has taken a request closes the connection.
async fn hand_over(mut socket: Socket, request: &[u8]) -> Result<(), ConnectError> {
    socket
        .write_all(request)
        .await
        .map_err(ConnectError::Broken)?;
    let mut end = [0; 1];
    poll_fn(|cx| socket.poll_read(cx, &mut end))
        .await
        .map(|_| ())
        .map_err(ConnectError::Broken)
}

/// A CancelRequest on its way, also when its task is dropped.
struct InFlight<'a>(&'a ServerCard);

impl<'a> InFlight<'a> {
    fn of(server: &'a ServerCard) -> Self {
        server.cancels.set(server.cancels.get() + 1);
        Self(server)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.cancels.set(self.0.cancels.get() - 1);
        if self.0.cancels.get() == 0 {
            self.0.cancels_done.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_id_tells_its_worker() {
        for (session, worker) in [(0, 1), (1, 0), (0xff_ffff, 127), (u32::MAX, 5)] {
            for peer in [0, 1, 127] {
                let id = process_id(session, worker, peer);
                assert!(id > 0);
                assert_eq!(worker_of(id), usize::from(worker));
                assert!(peer == 0 || peer_of(id) == peer);
            }
        }
    }
}
