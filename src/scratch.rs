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
    /// For what clients sent that wait for a server.
    pub held: SpareBuffers,
}

/// Buffers that nobody uses. A client that waits takes one and gives it back when it waits no more: a resting client owns
/// none, and in the steady state none is made.
#[derive(Debug, Default)]
pub struct SpareBuffers(Vec<Vec<u8>>);

impl SpareBuffers {
    /// How many are kept, and up to which size.
    const MOST: usize = 256;
    const LARGEST: usize = 4096;

    /// A buffer with a copy of these bytes.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        if bytes.is_empty() {
            return Vec::new();
        }
        let mut buffer = self.0.pop().unwrap_or_default();
        buffer.extend_from_slice(bytes);
        buffer
    }

    /// Takes a buffer back.
    pub fn give_back(&mut self, mut buffer: Vec<u8>) {
        if (1..=Self::LARGEST).contains(&buffer.capacity()) && self.0.len() < Self::MOST {
            buffer.clear();
            self.0.push(buffer);
        }
    }
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
            held: SpareBuffers::default(),
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}
