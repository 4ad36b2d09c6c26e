//! What every client of a worker reads into and writes from.

use crate::protocol::outbound::Outbound;
use crate::session::requests::Workbench;

/// What every client of a worker reads into and writes from, one at a time.
#[derive(Debug)]
pub struct Scratch {
    /// One read.
    pub read: Box<[u8]>,
    /// On its way to the server.
    pub to_server: Outbound,
    /// On its way to the client.
    pub to_client: Outbound,
    /// What requests are worked on with.
    pub bench: Workbench,
}

/// How much is read at a time.
const READ_LEN: usize = 64 * 1024;

impl Scratch {
    /// Empty, for one worker.
    pub fn new() -> Self {
        Self {
            read: vec![0; READ_LEN].into(),
            to_server: Outbound::new(),
            to_client: Outbound::new(),
            bench: Workbench::new(),
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}
