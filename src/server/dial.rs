//! Opening a connection to one of a pool's hosts: which is tried first, where its name leads, and what is tried next.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream, lookup_host};

use super::{ConnectError, PeerAddress, ServerAddress};
use crate::config::Tcp;
use crate::config::choices::LoadBalanceHosts;
use crate::net::socket::{Socket, Stream};
use crate::net::timer;
use crate::resolver::{Resolver, Ttl};

/// How a server is reached.
pub struct Route<'a> {
    /// Where names lead.
    pub resolver: &'a Resolver,
    /// For how long.
    pub ttl: Ttl,
    /// How the connection is kept.
    pub tcp: &'a Tcp,
    /// Which host is next.
    pub load_balance: LoadBalanceHosts,
    /// The host that is tried next, counted on without end.
    pub next_host: &'a Cell<usize>,
    /// How long all attempts may take together.
    pub limit: Duration,
    /// Told of addresses that a name has led to and does not any more.
    pub on_gone: &'a dyn Fn(&[IpAddr]),
}

/// A connection that is open, and nothing more.
#[derive(Debug)]
pub struct Opened<'a> {
    /// The socket.
    pub socket: Socket,
    /// Where it leads.
    pub peer: PeerAddress,
    /// As which of the hosts.
    pub host: &'a ServerAddress,
}

/// Opens a connection to the first of `hosts` that answers, for no pool.
pub async fn open_any<'a>(
    hosts: &'a [ServerAddress],
    tcp: &Tcp,
) -> Result<Opened<'a>, ConnectError> {
    let mut last = nothing_there();
    for host in hosts {
        match open_once(host, tcp).await {
            Ok((socket, peer)) => return Ok(Opened { socket, peer, host }),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Opens a connection to a host.
pub async fn open_once(
    host: &ServerAddress,
    tcp: &Tcp,
) -> Result<(Socket, PeerAddress), ConnectError> {
    let mut last = nothing_there();
    match host {
        ServerAddress::Unix(path) => {
            let socket = open_unix(path, tcp).await;
            let socket = socket.map_err(ConnectError::Unreachable)?;
            return Ok((socket, PeerAddress::Unix(path.clone())));
        }
        ServerAddress::Tcp(name, port) => {
            let addresses = lookup_host((&**name, *port))
                .await
                .map_err(ConnectError::Unresolved)?;
            for address in addresses {
                match open_tcp(address, tcp).await {
                    Ok(socket) => return Ok((socket, PeerAddress::Tcp(address))),
                    Err(error) => last = ConnectError::Unreachable(error),
                }
            }
        }
    }
    Err(last)
}

/// Opens a further connection to where one was opened.
pub async fn open_at(peer: &PeerAddress, tcp: &Tcp) -> Result<Socket, ConnectError> {
    let opened = match peer {
        PeerAddress::Tcp(address) => open_tcp(*address, tcp).await,
        PeerAddress::Unix(path) => open_unix(path, tcp).await,
    };
    opened.map_err(ConnectError::Unreachable)
}

impl Route<'_> {
    /// Opens a connection to the first of `hosts`, beginning with the one whose turn it is, that answers.
    pub(super) async fn open<'a>(
        &self,
        hosts: &'a [ServerAddress],
    ) -> Result<Opened<'a>, ConnectError> {
        let first = self.next_host.get();
        if self.load_balance == LoadBalanceHosts::RoundRobin {
            self.next_host.set(first.wrapping_add(1));
        }
        let mut last = nothing_there();
        for tried in 0..hosts.len() {
            let at = first.wrapping_add(tried);
            let Some(host) = hosts.get(at % hosts.len()) else {
                break;
            };
            // The others get their share of the time.
            let share = self.limit / u32::try_from(hosts.len()).unwrap_or(u32::MAX);
            match self.open_host(host, share).await {
                Ok((socket, peer)) => {
                    if self.load_balance == LoadBalanceHosts::Disable {
                        self.next_host.set(at);
                    }
                    return Ok(Opened { socket, peer, host });
                }
                Err(error) => {
                    if tried + 1 < hosts.len() {
                        tracing::warn!(
                            %host,
                            %error,
                            "server connection closing because: {}; the next host is tried",
                            error.reason()
                        );
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn open_host(
        &self,
        host: &ServerAddress,
        limit: Duration,
    ) -> Result<(Socket, PeerAddress), ConnectError> {
        match host {
            ServerAddress::Unix(path) => {
                let socket = open_unix(path, self.tcp).await;
                let socket = socket.map_err(ConnectError::Unreachable)?;
                Ok((socket, PeerAddress::Unix(path.clone())))
            }
            ServerAddress::Tcp(name, port) => {
                let resolved = self
                    .resolver
                    .resolve(name, self.ttl)
                    .await
                    .map_err(ConnectError::Unresolved)?;
                if !resolved.gone.is_empty() {
                    (self.on_gone)(&resolved.gone);
                }
                let count = u32::try_from(resolved.addresses.len()).unwrap_or(u32::MAX);
                let mut last = nothing_there();
                for address in resolved.addresses {
                    let address = SocketAddr::new(address, *port);
                    let opening = open_tcp(address, self.tcp);
                    match timer::timeout(limit / count.max(1), opening).await {
                        Ok(Ok(socket)) => return Ok((socket, PeerAddress::Tcp(address))),
                        Ok(Err(error)) => last = ConnectError::Unreachable(error),
                        Err(_) => last = ConnectError::TimedOut,
                    }
                }
                Err(last)
            }
        }
    }
}

async fn open_tcp(address: SocketAddr, tcp: &Tcp) -> io::Result<Socket> {
    let stream = Stream::Tcp(TcpStream::connect(address).await?.into_std()?);
    stream.prepare(tcp)?;
    Socket::new(stream)
}

async fn open_unix(path: &Path, tcp: &Tcp) -> io::Result<Socket> {
    let stream = Stream::Unix(UnixStream::connect(path).await?.into_std()?);
    stream.prepare(tcp)?;
    Socket::new(stream)
}

fn nothing_there() -> ConnectError {
    ConnectError::Unresolved(io::Error::new(
        io::ErrorKind::NotFound,
        "the name has no address",
    ))
}
