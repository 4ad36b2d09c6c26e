//! What systemd and a service talk about: sockets that it has opened for us, and how we are.
//!
//! Sources: sd_listen_fds(3) and sd_notify(3).

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};

use rustix::net::{AddressFamily, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use crate::net::listener::Listener;

/// The first descriptor that is handed over.
const FIRST: i32 = 3;

/// The most that are looked at.
const MOST: i32 = 100;

/// The listening sockets that were handed over, on the runtime that this is called on. None is the usual case.
///
/// # Errors
/// If one of them is no socket to listen on.
pub fn listeners() -> io::Result<Vec<Listener>> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let is_for_us = number("LISTEN_PID") == i32::try_from(std::process::id()).ok();
    let count: i32 = number("LISTEN_FDS").filter(|_| is_for_us).unwrap_or(0);
    (FIRST..FIRST + count.clamp(0, MOST))
        .map(|descriptor| {
            let socket = take(descriptor)?;
            match sockopt::socket_domain(&socket)? {
                AddressFamily::UNIX => Listener::from_unix(UnixListener::from(socket)),
                AddressFamily::INET | AddressFamily::INET6 => {
                    Listener::from_tcp(TcpListener::from(socket))
                }
                _ => Err(io::Error::other("it is neither TCP nor a unix socket")),
            }
        })
        .collect()
}

/// A descriptor of our own for one that was only told by its number.
fn take(descriptor: i32) -> io::Result<OwnedFd> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(&own, descriptor, PidfdGetfdFlags::empty())?)
}

/// Tells the service manager, if there is one: `READY=1`, `RELOADING=1`, `STOPPING=1`, `STATUS=…`.
pub fn notify(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    // Nobody has to listen.
    let _ = send(name.as_encoded_bytes(), state);
}

fn send(name: &[u8], state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(String::from_utf8_lossy(name).as_ref())?,
    };
    socket.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

/// That a reload begins: with the time of a clock that systemd shares.
pub fn notify_reloading() {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_arrives_at_the_socket_that_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        send(path.as_os_str().as_encoded_bytes(), "READY=1").expect("sent");
        let mut state = [0; 32];
        let length = socket.recv(&mut state).expect("received");
        assert_eq!(&state[..length], b"READY=1");
    }

    #[test]
    fn a_descriptor_that_is_told_by_its_number_becomes_ours() {
        use std::os::fd::AsRawFd as _;
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a socket");
        let taken = TcpListener::from(take(listener.as_raw_fd()).expect("taken"));
        assert_eq!(
            taken.local_addr().expect("an address"),
            listener.local_addr().expect("an address")
        );
    }
}
