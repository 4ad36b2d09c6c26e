//! Where clients connect: a TCP address or a unix socket, one type.

use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::{self as unix, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::config::{Tcp, UnixSocket};
use crate::net::socket::{Stream, prepare_tcp, watch};

/// Listens, of no runtime yet. The file of a unix socket that it made goes with it.
#[derive(Debug)]
pub struct Listener {
    socket: Listening,
    file: Option<SocketFile>,
}

/// Where connections are accepted, on the runtime of the thread that opened it.
#[derive(Debug)]
pub struct Entry {
    socket: AsyncFd<Listening>,
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AsRawFd for Listening {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(socket) => socket.as_raw_fd(),
            Self::Unix(socket) => socket.as_raw_fd(),
        }
    }
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody may have been faster.
        let _ = fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Listens on a TCP address; an IPv6 one takes no IPv4 connections.
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn tcp(address: SocketAddr, backlog: u32, reuse_port: bool) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if reuse_port {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Self::from_tcp(socket.into())
    }

    /// Listens on a unix socket. A file that is left of a process that is gone is replaced.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] where another pooler still answers, or a PostgreSQL has its lock file; and if the
    /// system does not let us.
    pub fn unix(place: &UnixSocket, backlog: u32) -> io::Result<Self> {
        let path = place.path();
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        if place.is_abstract() {
            let name = path.as_os_str().as_encoded_bytes();
            let address = unix::SocketAddr::from_abstract_name(name.get(1..).unwrap_or_default())?;
            let listener = UnixListener::bind_addr(&address)?;
            // Again, for the length of the queue.
            let socket = Socket::from(listener);
            socket.listen(backlog)?;
            return Self::from_unix(socket.into());
        }
        if Path::new(&format!("{}.lock", path.display())).exists()
            || UnixStream::connect(&path).is_ok()
        {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        socket.bind(&socket2::SockAddr::unix(&path)?)?;
        let file = SocketFile(path);
        fs::set_permissions(&file.0, Permissions::from_mode(place.mode))?;
        if let Some(name) = &place.group {
            let group = nix::unistd::Group::from_name(name)?
                .ok_or_else(|| io::Error::other(format!("there is no group {name}")))?;
            chown(&file.0, None, Some(group.gid.as_raw()))?;
        }
        socket.listen(backlog)?;
        Ok(Self {
            file: Some(file),
            ..Self::from_unix(socket.into())?
        })
    }

    /// Takes over a TCP socket that listens already.
    ///
    /// # Errors
    /// If it can't be set up.
    pub fn from_tcp(socket: TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: Listening::Tcp(socket),
            file: None,
        })
    }

    /// The connections that it accepts from now on are kept as `tcp` says: Linux passes on what is set on a socket that listens.
    ///
    /// # Errors
    /// If the system does not know a setting.
    pub fn keep(&self, tcp: &Tcp) -> io::Result<()> {
        match &self.socket {
            Listening::Tcp(socket) => prepare_tcp(&SockRef::from(socket), tcp),
            Listening::Unix(_) => Ok(()),
        }
    }

    /// Takes over a unix socket that listens already.
    ///
    /// # Errors
    /// If it can't be set up.
    pub fn from_unix(socket: UnixListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: Listening::Unix(socket),
            file: None,
        })
    }

    /// The TCP address, with the port that the system may have chosen.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Listening::Tcp(socket) => socket.local_addr().ok(),
            Listening::Unix(_) => None,
        }
    }

    /// Registers it with the runtime that this is called on.
    ///
    /// # Errors
    /// If it can't be watched.
    pub fn open(self) -> io::Result<Entry> {
        Ok(Entry {
            socket: watch(self.socket, Interest::READABLE)?,
            _file: self.file,
        })
    }
}

impl Entry {
    /// The next connection, prepared, of no runtime yet. Cancel safe.
    ///
    /// # Errors
    /// If there is one but it can't be had, for want of descriptors usually.
    pub async fn accept(&self) -> io::Result<Stream> {
        // Not by the runtime's own listeners: they register each connection, which then would have to be taken back.
        self.socket
            .async_io(Interest::READABLE, |socket| match socket {
                Listening::Tcp(socket) => {
                    let (stream, _) = socket.accept()?;
                    stream.set_nonblocking(true)?;
                    Ok(Stream::Tcp(stream))
                }
                Listening::Unix(socket) => {
                    let (stream, _) = socket.accept()?;
                    stream.set_nonblocking(true)?;
                    Ok(Stream::Unix(stream))
                }
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &Path) -> UnixSocket {
        UnixSocket {
            folder: folder.to_string_lossy().into(),
            port: 6432,
            mode: 0o770,
            group: None,
        }
    }

    #[tokio::test]
    async fn a_unix_socket_has_its_mode_and_leaves_no_file_behind() {
        let folder = tempfile::tempdir().unwrap();
        let listener = Listener::unix(&place(folder.path()), 5).unwrap();
        let listener = listener.open().unwrap();
        let path = folder.path().join(".s.PGSQL.6432");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o770);
        let _client = UnixStream::connect(&path).unwrap();
        assert!(matches!(listener.accept().await.unwrap(), Stream::Unix(_)));
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_of_a_process_that_is_gone_is_replaced_and_one_that_answers_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".s.PGSQL.6432");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = Listener::unix(&place(folder.path()), 5).unwrap();
        let second = Listener::unix(&place(folder.path()), 5).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
        drop(listener);
    }

    #[tokio::test]
    async fn a_postgresql_that_holds_the_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".s.PGSQL.6432.lock"), "1\n").unwrap();
        let refused = Listener::unix(&place(folder.path()), 5).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn an_abstract_socket_has_a_name_and_no_file() {
        let name = format!("@pgspan-test-{}", std::process::id());
        let place = UnixSocket {
            folder: name.as_str().into(),
            ..place(Path::new(""))
        };
        let listener = Listener::unix(&place, 5).unwrap().open().unwrap();
        let address =
            unix::SocketAddr::from_abstract_name(format!("{}/.s.PGSQL.6432", &name[1..])).unwrap();
        let _client = UnixStream::connect_addr(&address).unwrap();
        assert!(matches!(listener.accept().await.unwrap(), Stream::Unix(_)));
    }

    #[tokio::test]
    async fn two_may_share_a_tcp_address_where_both_want_to() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = Listener::tcp(any, 5, true).unwrap();
        let address = first.address().unwrap();
        assert!(Listener::tcp(address, 5, true).is_ok());
        assert!(Listener::tcp(address, 5, false).is_err());
    }
}
