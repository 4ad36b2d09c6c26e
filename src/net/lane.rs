//! One side of a link: a socket, and the bytes for it that the kernel would not take yet.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use crate::net::socket::Socket;
use crate::protocol::outbound::Outbound;

/// A socket with a backlog. While there is a backlog, nobody reads from the other side: it holds one read's worth at most.
#[derive(Debug)]
pub struct Lane {
    /// The socket.
    pub socket: Socket,
    /// What is not written yet. None while the peer keeps up.
    backlog: Option<Box<Backlog>>,
}

/// Bytes for the peer, those behind `written` not written yet. They are never empty.
#[derive(Debug)]
struct Backlog {
    bytes: Vec<u8>,
    written: usize,
}

/// How many pieces go into one write.
const PIECES: usize = 64;

impl Lane {
    /// With nothing on its way.
    pub fn new(socket: Socket) -> Self {
        Self {
            socket,
            backlog: None,
        }
    }

    /// Whether everything has been written.
    pub fn is_drained(&self) -> bool {
        self.backlog.is_none() && !self.socket.has_unsent()
    }

    /// Bytes that wait for the peer.
    pub fn backlog_len(&self) -> usize {
        let backlog = self.backlog.as_ref();
        backlog.map_or(0, |backlog| backlog.bytes.len() - backlog.written)
    }

    /// Writes what is in `outbound`, whose passed ranges are of `input`, and empties it, also where it fails: the next one to
    /// use it may be another client's. What the kernel does not take is kept.
    pub fn send(&mut self, outbound: &mut Outbound, input: &[u8]) -> io::Result<()> {
        let sent = self.write_or_keep(outbound, input);
        outbound.clear();
        sent
    }

    fn write_or_keep(&mut self, outbound: &mut Outbound, input: &[u8]) -> io::Result<()> {
        let len = outbound.len();
        let mut sent = 0;
        if self.is_drained() {
            if let Some(single) = outbound.single(input) {
                sent = self.socket.write(&[IoSlice::new(single)])?;
            } else {
                while sent < len {
                    let mut slices = [IoSlice::new(&[]); PIECES];
                    let filled = outbound.fill(input, sent, &mut slices);
                    let written = self
                        .socket
                        .write(slices.get(..filled).unwrap_or_default())?;
                    if written == 0 {
                        break;
                    }
                    sent += written;
                }
            }
        }
        if sent < len {
            let backlog = self.backlog.get_or_insert_with(|| {
                Box::new(Backlog {
                    bytes: Vec::new(),
                    written: 0,
                })
            });
            outbound.copy_rest(input, sent, &mut backlog.bytes);
        }
        Ok(())
    }

    /// Gives up what waits for a peer that can't be written to.
    pub fn forget_backlog(&mut self) {
        self.backlog = None;
    }

    /// Writes the backlog; ready when there is none.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_drained() {
            return Poll::Ready(Ok(()));
        }
        if let Some(backlog) = &mut self.backlog {
            while let Some(rest) = backlog
                .bytes
                .get(backlog.written..)
                .filter(|rest| !rest.is_empty())
            {
                match self.socket.write(&[IoSlice::new(rest)])? {
                    0 => ready!(self.socket.poll_writable(cx))?,
                    written => backlog.written += written,
                }
            }
        }
        // The memory goes back: an idle connection holds none.
        self.backlog = None;
        ready!(self.socket.poll_flush(cx))?;
        self.socket.on_drained()?;
        Poll::Ready(Ok(()))
    }
}
