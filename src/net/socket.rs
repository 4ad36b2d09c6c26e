//! A connected socket: TCP or Unix, with TLS or without, one type.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::config::Tcp;
use crate::net::tls_session::{Pulled, Readable, TlsSession};

/// A connected stream, of no runtime yet.
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
///
/// With TLS the bytes that come and go here are those inside.
pub struct Socket {
    /// `None` only while it is being registered anew.
    fd: Option<AsyncFd<Stream>>,
    tls: Option<Box<TlsSession>>,
    wants_write: bool,
    /// A read found nothing, and since then its task is woken by what comes: as long as nothing has come it need not say
    /// again that it waits.
    is_awaited: Cell<bool>,
}

/// A socket of no runtime: what moves from the thread that accepted it to the worker that serves it.
#[derive(Debug)]
pub struct Detached {
    stream: Stream,
    tls: Option<Box<TlsSession>>,
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP: where it is.
    Tcp(SocketAddr),
    /// Over a unix socket: which process of which user.
    Unix {
        /// The process; `None` where it is of another namespace.
        process: Option<i32>,
        /// The user.
        user: u32,
    },
    /// It has gone already.
    Gone,
}

impl Peer {
    /// Where it is, over TCP.
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(address),
            Self::Unix { .. } | Self::Gone => None,
        }
    }

    /// Which process it is, over a unix socket.
    pub fn process(self) -> Option<i32> {
        match self {
            Self::Unix { process, .. } => process,
            Self::Tcp(_) | Self::Gone => None,
        }
    }
}

impl fmt::Display for Peer {
    /// As PgBouncer writes it, but without the port of a unix socket.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix {
                process: Some(process),
                ..
            } => write!(f, "unix({process})"),
            Self::Unix { process: None, .. } => f.write_str("unix"),
            Self::Gone => f.write_str("(gone)"),
        }
    }
}

impl Stream {
    /// Sets what a proxy wants of a connection: no blocking, no waiting for more to send, and what `tcp` says.
    pub fn prepare(&self, tcp: &Tcp) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                prepare_tcp(&SockRef::from(stream), tcp)
            }
            Self::Unix(stream) => stream.set_nonblocking(true),
        }
    }

    /// Our own address, where it has one.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// The system's id of the user at the other end of a unix socket.
    pub fn peer_user(&self) -> Option<u32> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(stream) => {
                let credentials = rustix::net::sockopt::socket_peercred(stream).ok()?;
                Some(credentials.uid.as_raw())
            }
        }
    }

    /// Where our end is, as PgBouncer writes it.
    pub fn local(&self) -> String {
        match self {
            Self::Tcp(stream) => stream
                .local_addr()
                .map_or_else(|_| "(gone)".into(), |address| address.to_string()),
            Self::Unix(_) => "unix".into(),
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map_or(Peer::Gone, Peer::Tcp),
            Self::Unix(stream) => match rustix::net::sockopt::socket_peercred(stream) {
                Ok(credentials) => Peer::Unix {
                    process: Some(credentials.pid.as_raw_nonzero().get())
                        .filter(|process| *process > 0),
                    user: credentials.uid.as_raw(),
                },
                Err(_) => Peer::Gone,
            },
        }
    }

    fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
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
        Self::attach(Detached { stream, tls: None })
    }

    /// Registers a socket that was detached from another runtime.
    pub fn attach(detached: Detached) -> io::Result<Self> {
        Ok(Self {
            fd: Some(watch(detached.stream, Interest::READABLE)?),
            tls: detached.tls,
            wants_write: false,
            is_awaited: Cell::new(false),
        })
    }

    /// Leaves the runtime.
    pub fn detach(mut self) -> Detached {
        let fd = self.fd.take().expect("it is registered between calls");
        Detached {
            stream: fd.into_inner(),
            tls: self.tls.take(),
        }
    }

    fn fd(&self) -> &AsyncFd<Stream> {
        self.fd.as_ref().expect("it is registered between calls")
    }

    /// The stream itself.
    pub fn stream(&self) -> &Stream {
        self.fd().get_ref()
    }

    /// Its TLS, if it has any.
    pub fn tls(&self) -> Option<&TlsSession> {
        self.tls.as_deref()
    }

    /// From now on everything goes through TLS; `ahead` has been read already. The handshake is still to be waited for.
    pub fn start_tls(&mut self, mut session: TlsSession, ahead: &[u8]) -> io::Result<()> {
        debug_assert!(self.tls.is_none(), "TLS within TLS");
        let fed = session.feed(ahead);
        self.tls = Some(Box::new(session));
        if fed.is_err() {
            self.flush_alert();
        }
        fed
    }

    /// Waits for the end of the TLS handshake.
    pub async fn handshake(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_handshake(cx)).await
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(cx))?;
            let (Some(fd), Some(tls)) = (&self.fd, &mut self.tls) else {
                return Poll::Ready(Ok(()));
            };
            if !tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            match ready!(pull(fd, tls, cx)) {
                Ok(Pulled::Records { .. }) => {}
                Ok(Pulled::End) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Err(error) => {
                    self.flush_alert();
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// Says why in TLS's own way, as far as the kernel takes it at once.
    fn flush_alert(&mut self) {
        // Whether it arrives or not: the connection is given up.
        let _ = self.flush();
    }

    /// Reads what is there; zero at the end of the stream. Makes no system call unless something may be there.
    ///
    /// Whoever reads in the place of another task must say so first, by [`Socket::on_new_reader`].
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.tls.is_some() {
            return self.poll_read_tls(cx, buffer);
        }
        loop {
            if let Some(read) = self.read_if_ready(buffer) {
                return Poll::Ready(read);
            }
            if self.is_awaited.get() {
                return Poll::Pending;
            }
            if self.fd().poll_read_ready(cx)?.is_pending() {
                self.is_awaited.set(true);
                return Poll::Pending;
            }
        }
    }

    /// Another task is to be woken from now on when something comes.
    pub fn on_new_reader(&self) {
        self.is_awaited.set(false);
    }

    /// Whether something may have come that nobody has read, as far as is known without a system call.
    pub fn may_be_read(&self) -> bool {
        // Within TLS there may be something that has been read from the kernel long ago.
        self.tls.is_some() || self.fd().try_io(Interest::READABLE, |_| Ok(())).is_ok()
    }

    /// Reads, if something may be there. `None` where nothing is.
    fn read_if_ready(&self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let mut outcome = None;
        // What came of it is told by `outcome` alone: the runtime takes an error of this kind for "no more for now".
        let _ = self.fd().try_io(Interest::READABLE, |mut stream| {
            // Whoever waited has been woken, and must say again that it waits.
            self.is_awaited.set(false);
            let read = loop {
                match stream.read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => break read,
                }
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
                Ok(len) if len > 0 && len < buffer.len() => {
                    // The kernel has no more for now, and will say when it has: no read just to be told so.
                    outcome = Some(Ok(len));
                    Err(io::ErrorKind::WouldBlock.into())
                }
                read => {
                    outcome = Some(read);
                    Ok(())
                }
            }
        });
        outcome
    }

    fn poll_read_tls(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match ready!(self.poll_bytes(cx))? {
            Readable::Bytes => {}
            Readable::Closed => return Poll::Ready(Ok(0)),
        }
        let tls = self.tls.as_mut().expect("the caller has asked");
        // Filled from several records: that is fewer turns for the one who reads.
        let mut filled = 0;
        while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
            match tls.take(room)? {
                0 => break,
                len => filled += len,
            }
        }
        Poll::Ready(Ok(filled))
    }

    /// Waits until TLS has bytes for us, or the end has come.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Readable>> {
        loop {
            let (Some(fd), Some(tls)) = (&self.fd, &mut self.tls) else {
                return Poll::Ready(Ok(Readable::Closed));
            };
            if let Some(readable) = tls.readable()? {
                return Poll::Ready(Ok(readable));
            }
            match ready!(pull(fd, tls, cx)) {
                Ok(Pulled::Records { .. }) => {
                    if tls.has_unsent() {
                        // The answer to a new key. What the kernel does not take now goes ahead of what is written next.
                        self.flush()?;
                    }
                }
                Ok(Pulled::End) => return Poll::Ready(Ok(Readable::Closed)),
                Err(error) => {
                    self.flush_alert();
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// Waits until there may be something to read, or the peer has closed.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Readable>> {
        if self.tls.is_some() {
            return self.poll_bytes(cx);
        }
        let guard = ready!(self.fd().poll_read_ready(cx))?;
        let closed = guard.ready().is_read_closed();
        Poll::Ready(Ok(if closed {
            Readable::Closed
        } else {
            Readable::Bytes
        }))
    }

    /// Writes as much as the kernel takes, without waiting. Zero if it takes nothing now: then wait by [`Socket::poll_writable`].
    ///
    /// With TLS, what has become records counts as written; [`Socket::has_unsent`] says whether some are still here.
    pub fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.tls.is_some() {
            return self.write_tls(slices);
        }
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

    fn write_tls(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // One connection's records don't pile up: while old ones are here, no new ones are made.
        if self.has_unsent() && !self.flush()? {
            return Ok(0);
        }
        let written = match &mut self.tls {
            Some(tls) => tls.put(slices)?,
            None => 0,
        };
        self.flush()?;
        Ok(written)
    }

    /// Whether there are records that the kernel has not taken yet.
    pub fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.has_unsent())
    }

    /// Writes records as far as the kernel takes them. Whether it took all.
    pub fn flush(&mut self) -> io::Result<bool> {
        let (Some(fd), Some(tls)) = (&self.fd, &mut self.tls) else {
            return Ok(true);
        };
        while tls.has_unsent() {
            match tls.push(fd.get_ref()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Waits until the kernel has taken all records.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.flush()? {
            ready!(self.poll_writable(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Appends what comes next to `buffer`: how much, zero at the end. Cancel safe.
    pub async fn read_buf(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        /// More than a login mostly says at a time. It is part of the future of everybody who logs in, and wiped each time.
        const ROOM: usize = 512;
        let mut room = zeroize::Zeroizing::new([0; ROOM]);
        let len = poll_fn(|cx| self.poll_read(cx, &mut *room)).await?;
        buffer.put_slice(room.get(..len).unwrap_or_default());
        Ok(len)
    }

    /// Writes all of `bytes`, and waits until the kernel has them. Not cancel safe: a part may have been written.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        poll_fn(|cx| {
            while !bytes.is_empty() {
                match self.write(&[IoSlice::new(bytes)])? {
                    0 => ready!(self.poll_writable(cx))?,
                    len => bytes = bytes.get(len..).unwrap_or_default(),
                }
            }
            self.poll_flush(cx)
        })
        .await
    }

    /// Says that we won't send more. What is still to be sent is sent as far as the kernel takes it at once.
    pub fn shutdown(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.say_goodbye();
        }
        self.flush()?;
        self.stream().shutdown_write()
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
        self.is_awaited.set(false);
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let (Some(_), Some(tls)) = (&self.fd, &mut self.tls) {
            tls.say_goodbye();
            // It may be that nobody reads it.
            let _ = self.flush();
        }
    }
}

/// Reads records, when the kernel says that there may be some.
fn pull(
    fd: &AsyncFd<Stream>,
    tls: &mut TlsSession,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Pulled>> {
    loop {
        let mut guard = ready!(fd.poll_read_ready(cx))?;
        match guard.try_io(|fd| tls.pull(fd.get_ref())) {
            Ok(Ok(pulled)) => {
                if pulled == (Pulled::Records { is_all: true }) {
                    guard.clear_ready();
                }
                return Poll::Ready(Ok(pulled));
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Poll::Ready(Err(error)),
            Err(_would_block) => {}
        }
    }
}

/// Sets what a proxy wants of a TCP connection but for not blocking. What is set on a socket that listens, Linux passes on to
/// the connections that are accepted from it.
pub(super) fn prepare_tcp(socket: &SockRef<'_>, tcp: &Tcp) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if tcp.user_timeout.is_some() {
        socket.set_tcp_user_timeout(tcp.user_timeout)?;
    }
    if !tcp.keepalive {
        return socket.set_keepalive(false);
    }
    let mut keepalive = TcpKeepalive::new();
    if let Some(idle) = tcp.keepalive_idle {
        keepalive = keepalive.with_time(idle);
    }
    if let Some(interval) = tcp.keepalive_interval {
        keepalive = keepalive.with_interval(interval);
    }
    if let Some(retries) = tcp.keepalive_retries {
        keepalive = keepalive.with_retries(u32::try_from(retries.get()).unwrap_or(u32::MAX));
    }
    socket.set_keepalive(true)?;
    socket.set_tcp_keepalive(&keepalive)
}

#[expect(
    deprecated,
    reason = "unsound for types whose descriptor may change; a socket keeps its own for as long as it lives"
)]
pub(super) fn watch<T: AsRawFd>(socket: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(socket, interest)
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
