//! A connected socket of a worker: TCP or Unix, one type.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A connected stream, of no runtime yet: what moves from the thread that accepted it to the worker that serves it.
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// A stream on the runtime of the thread that made it.
///
/// It asks to be woken when it can be read. That it can be written is only asked for after a write that did not go through:
/// a Unix socket would otherwise wake its task a third time for every query.
pub struct Socket {
    /// `None` only while it is being registered anew.
    fd: Option<AsyncFd<Stream>>,
    wants_write: bool,
}

/// How a TCP connection is kept alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes before the connection is given up.
    pub retries: u32,
}

impl Keepalive {
    /// What both sides use: a peer that vanished without a word is noticed after some minutes.
    pub const DEFAULT: Self = Self {
        idle: Duration::from_secs(120),
        interval: Duration::from_secs(30),
        retries: 4,
    };
}

impl Stream {
    /// Sets what a proxy wants of a connection: no blocking, no waiting for more to send, and keepalive.
    pub fn prepare(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                let Keepalive {
                    idle,
                    interval,
                    retries,
                } = Keepalive::DEFAULT;
                let keepalive = TcpKeepalive::new()
                    .with_time(idle)
                    .with_interval(interval)
                    .with_retries(retries);
                SockRef::from(stream).set_tcp_keepalive(&keepalive)
            }
            Self::Unix(stream) => stream.set_nonblocking(true),
        }
    }

    /// The peer's address, where it has one.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&*stream).read(buffer),
            Stream::Unix(stream) => (&*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&*stream).write(bytes),
            Stream::Unix(stream) => (&*stream).write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&*stream).write_vectored(slices),
            Stream::Unix(stream) => (&*stream).write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket {
    /// Registers a stream with the runtime that this is called on.
    pub fn new(stream: Stream) -> io::Result<Self> {
        Ok(Self {
            fd: Some(watch(stream, Interest::READABLE)?),
            wants_write: false,
        })
    }

    fn fd(&self) -> &AsyncFd<Stream> {
        self.fd.as_ref().expect("it is registered between calls")
    }

    /// The stream itself.
    pub fn stream(&self) -> &Stream {
        self.fd().get_ref()
    }

    /// Reads what is there; zero at the end of the stream. Makes no system call unless something may be there.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd().poll_read_ready(cx))?;
            match guard.try_io(|fd| {
                let mut stream = fd.get_ref();
                stream.read(buffer)
            }) {
                Ok(Ok(len)) => {
                    if len > 0 && len < buffer.len() {
                        // The kernel has no more for now, and will say when it has: no read just to be told so.
                        guard.clear_ready();
                    }
                    return Poll::Ready(Ok(len));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }

    /// Waits until there may be something to read, or the peer has closed.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<Readable>> {
        let guard = ready!(self.fd().poll_read_ready(cx))?;
        let closed = guard.ready().is_read_closed();
        Poll::Ready(Ok(if closed {
            Readable::Closed
        } else {
            Readable::Bytes
        }))
    }

    /// Writes as much as the kernel takes, without waiting. Zero if it takes nothing now: then wait by [`Socket::poll_writable`].
    pub fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut stream = self.stream();
        loop {
            let written = match slices {
                [slice] => stream.write(slice),
                slices => stream.write_vectored(slices),
            };
            match written {
                Ok(0) if slices.iter().any(|slice| !slice.is_empty()) => {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                Ok(len) => return Ok(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until the kernel may take more. From now on the socket asks for both.
    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.wants_write {
            self.register(Interest::READABLE | Interest::WRITABLE)?;
            self.wants_write = true;
        }
        let mut guard = ready!(self.fd().poll_write_ready(cx))?;
        // Whoever writes next finds out whether it really can; if not, the next edge is awaited.
        guard.clear_ready();
        Poll::Ready(Ok(()))
    }

    /// Everything is written: asks to be woken for reading alone again.
    pub fn on_drained(&mut self) -> io::Result<()> {
        if self.wants_write && matches!(self.stream(), Stream::Unix(_)) {
            self.register(Interest::READABLE)?;
            self.wants_write = false;
        }
        Ok(())
    }

    fn register(&mut self, interest: Interest) -> io::Result<()> {
        let stream = self
            .fd
            .take()
            .expect("it is registered between calls")
            .into_inner();
        self.fd = Some(watch(stream, interest)?);
        Ok(())
    }
}

#[expect(
    deprecated,
    reason = "unsound for types whose descriptor may change; a `Stream` keeps its own for as long as it lives"
)]
fn watch(stream: Stream, interest: Interest) -> io::Result<AsyncFd<Stream>> {
    AsyncFd::with_interest(stream, interest)
}

/// What there is to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// Bytes, perhaps.
    Bytes,
    /// The peer won't send more than what is still unread.
    Closed,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("fd", &self.stream().as_raw_fd())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.as_raw_fd()).finish()
    }
}
