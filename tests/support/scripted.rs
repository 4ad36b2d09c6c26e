//! Peers that do as a test tells them: a client in front of the proxy, a server behind it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::PATIENCE;
use super::messages::{Message, authentication_ok, backend_key, parameter_status, ready, startup};
use super::wire::Wire;

/// A server that logs everybody in by itself, and leaves the rest to the test.
pub(crate) struct ScriptedServer {
    address: SocketAddr,
    connections: Receiver<ServerWire>,
    cancels: Receiver<Vec<u8>>,
}

/// The server's end of a connection that is logged in.
pub(crate) struct ServerWire {
    wire: Wire,
    /// The startup packet's body: version and parameters.
    pub(crate) startup: Vec<u8>,
    /// Counts from 1 for each server.
    pub(crate) process_id: u32,
}

/// A client that is logged in.
pub(crate) struct ScriptedClient {
    wire: Wire,
    /// What the ParameterStatus messages of the login said, in their order.
    pub(crate) parameters: Vec<(String, String)>,
    /// BackendKeyData's body: what a CancelRequest repeats.
    pub(crate) key: Vec<u8>,
}

impl ScriptedServer {
    pub(crate) fn start() -> Self {
        Self::start_at(0)
    }

    /// At a port that is free; 0: at any.
    pub(crate) fn start_at(port: u16) -> Self {
        Self::start_on((Ipv4Addr::LOCALHOST, port).into())
    }

    pub(crate) fn start_on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (connection_sender, connections) = channel();
        let (cancel_sender, cancels) = channel();
        // Ends with the process, or with the first connection after the test has dropped the server.
        thread::spawn(move || accept(&listener, &connection_sender, &cancel_sender));
        Self {
            address,
            connections,
            cancels,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The next connection that the proxy has made and logged in.
    pub(crate) fn connection(&self) -> ServerWire {
        self.connections
            .recv_timeout(PATIENCE)
            .expect("the proxy did not connect")
    }

    /// No further connection has been made so far.
    pub(crate) fn has_no_further_connection(&self) -> bool {
        self.connections.try_recv().is_err()
    }

    /// No cancel request has come so far.
    pub(crate) fn has_no_cancel(&self) -> bool {
        self.cancels.try_recv().is_err()
    }

    /// The next cancel request's key.
    pub(crate) fn cancel(&self) -> Vec<u8> {
        self.cancels
            .recv_timeout(PATIENCE)
            .expect("no cancel request came")
    }
}

fn accept(listener: &TcpListener, connections: &Sender<ServerWire>, cancels: &Sender<Vec<u8>>) {
    for (process_id, stream) in (1..).zip(listener.incoming().map_while(Result::ok)) {
        let (connections, cancels) = (connections.clone(), cancels.clone());
        // Its own thread: a peer that connects and stays silent must not keep the others waiting.
        thread::spawn(move || log_in(stream, process_id, &connections, &cancels));
    }
}

fn log_in(
    stream: TcpStream,
    process_id: u32,
    connections: &Sender<ServerWire>,
    cancels: &Sender<Vec<u8>>,
) {
    let mut wire = Wire::new(stream);
    let startup = loop {
        let packet = wire.receive_untagged();
        match &packet.0[4..8] {
            [4, 210, 22, 46] => {
                let _ = cancels.send(packet.0[8..].to_vec());
                return;
            }
            // SSLRequest and GSSENCRequest.
            [4, 210, 22, _] => wire.send_bytes(b"N"),
            _ => break packet.0[4..].to_vec(),
        };
    };
    wire.send_all(
        [authentication_ok()]
            .into_iter()
            .chain(
                PARAMETERS
                    .iter()
                    .map(|(name, value)| parameter_status(name, value)),
            )
            .chain([backend_key(process_id, &secret_of(process_id)), ready(b'I')]),
    );
    let _ = connections.send(ServerWire {
        wire,
        startup,
        process_id,
    });
}

/// The secret that belongs to a process id of a scripted server.
pub(crate) fn secret_of(process_id: u32) -> [u8; 4] {
    (0x5ec0_0000 + process_id).to_be_bytes()
}

impl ScriptedClient {
    /// Logs in where everybody is trusted, as user and database `app`.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &[("user", "app"), ("database", "app")])
    }

    /// Logs in where everybody is trusted.
    pub(crate) fn connect_with(address: SocketAddr, parameters: &[(&str, &str)]) -> Self {
        let mut wire = Wire::connect(address);
        wire.send(startup(parameters));
        Self::logged_in(wire).unwrap_or_else(|refusal| panic!("login refused: {refusal:?}"))
    }

    /// Sends a startup packet and returns the message that refuses it.
    pub(crate) fn refused(address: SocketAddr, parameters: &[(&str, &str)]) -> Message {
        let mut wire = Wire::connect(address);
        wire.send(startup(parameters));
        Self::logged_in(wire)
            .err()
            .expect("the login was not refused")
    }

    fn logged_in(mut wire: Wire) -> Result<Self, Message> {
        let (mut parameters, mut key) = (Vec::new(), Vec::new());
        for message in wire.receive_reply() {
            match message.tag() {
                b'R' => assert_eq!(message, authentication_ok()),
                b'S' => {
                    let text = String::from_utf8_lossy(message.body()).into_owned();
                    let mut parts = text.split('\0').map(str::to_owned);
                    parameters.push((parts.next().unwrap(), parts.next().unwrap()));
                }
                b'K' => key = message.body().to_vec(),
                b'Z' => {
                    return Ok(Self {
                        wire,
                        parameters,
                        key,
                    });
                }
                b'E' => return Err(message),
                _ => {}
            }
        }
        panic!("the connection ended during the login");
    }
}

impl Deref for ScriptedClient {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl DerefMut for ScriptedClient {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}

impl Deref for ServerWire {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

impl DerefMut for ServerWire {
    fn deref_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}

/// What a scripted server reports at the login: PostgreSQL 15's parameters.
pub(crate) const PARAMETERS: &[(&str, &str)] = &[
    ("application_name", ""),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("default_transaction_read_only", "off"),
    ("in_hot_standby", "off"),
    ("integer_datetimes", "on"),
    ("IntervalStyle", "postgres"),
    ("is_superuser", "off"),
    ("server_encoding", "UTF8"),
    ("server_version", "15.20"),
    ("session_authorization", "app"),
    ("standard_conforming_strings", "on"),
    ("TimeZone", "Etc/UTC"),
];
