//! One connection's TLS: what comes off the wire becomes bytes for us, what we say becomes records. No wait, no task: the socket
//! says when there is something to read or room to write.

use std::fmt;
use std::io::{self, BufRead as _, IoSlice, Read, Write};

use rustls::Connection;

/// TLS over one connection, on either side of it. `Debug` shows no key.
pub struct TlsSession(Connection);

/// What there is to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// Bytes, perhaps.
    Bytes,
    /// The peer won't send more than what is still unread.
    Closed,
}

/// What came of reading records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// There are bytes for us, or may be after more records. `is_all`: the kernel has no more for now.
    Records {
        /// Whether the kernel had less than it was asked for.
        is_all: bool,
    },
    /// The peer won't send more.
    End,
}

impl TlsSession {
    /// Takes a connection of rustls on, at any point of its handshake.
    pub fn new(connection: impl Into<Connection>) -> Self {
        Self(connection.into())
    }

    /// Whether nothing of the application's may be sent yet.
    pub fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Whether there are records to be sent.
    pub fn has_unsent(&self) -> bool {
        self.0.wants_write()
    }

    /// Takes bytes that have come off the wire already.
    pub fn feed(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.0.read_tls(&mut bytes)?;
            self.process()?;
        }
        Ok(())
    }

    /// Reads records off the wire, once.
    pub fn pull(&mut self, wire: impl Read) -> io::Result<Pulled> {
        let mut wire = Watched {
            wire,
            is_all: false,
        };
        if self.0.read_tls(&mut wire)? == 0 {
            return Ok(Pulled::End);
        }
        let is_all = wire.is_all;
        self.process()?;
        Ok(Pulled::Records { is_all })
    }

    fn process(&mut self) -> io::Result<()> {
        self.0
            .process_new_packets()
            .map(|_| ())
            .map_err(|error| match error {
                // The words that people look for in logs, which are OpenSSL's.
                rustls::Error::InvalidCertificate(why) => io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("certificate verify failed: {why}"),
                ),
                error => io::Error::new(io::ErrorKind::InvalidData, error),
            })
    }

    /// What there is to be taken: `None` if there is nothing for now.
    ///
    /// A connection that ends without TLS's own goodbye ends like any other: what the protocol says inside knows its lengths.
    pub fn readable(&mut self) -> io::Result<Option<Readable>> {
        match self.0.reader().fill_buf() {
            Ok([]) => Ok(Some(Readable::Closed)),
            Ok(_) => Ok(Some(Readable::Bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Ok(Some(Readable::Closed))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes bytes for us; zero if there are none, now or ever.
    pub fn take(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.reader().read(buffer) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::UnexpectedEof
                ) =>
            {
                Ok(0)
            }
            taken => taken,
        }
    }

    /// Makes records of what we say, as much as has room.
    pub fn put(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.writer().write_vectored(slices)
    }

    /// Writes records to the wire, once.
    pub fn push(&mut self, mut wire: impl Write) -> io::Result<usize> {
        self.0.write_tls(&mut wire)
    }

    /// Says that we won't send more.
    pub fn say_goodbye(&mut self) {
        self.0.send_close_notify();
    }

    /// What was agreed on, such as `TLSv1.3/TLS_AES_256_GCM_SHA384/ECDH=X25519`; PgBouncer shows it so.
    pub fn description(&self) -> Option<Box<str>> {
        let version = match self.0.protocol_version()? {
            rustls::ProtocolVersion::TLSv1_2 => "TLSv1.2",
            rustls::ProtocolVersion::TLSv1_3 => "TLSv1.3",
            _ => "TLS",
        };
        let suite = self.0.negotiated_cipher_suite()?.suite();
        let suite = suite.as_str().unwrap_or("unknown");
        // OpenSSL's name for those of TLS 1.3 is the registered one.
        let suite = suite.replace("TLS13_", "TLS_");
        Some(match self.0.negotiated_key_exchange_group() {
            Some(group) => format!("{version}/{suite}/ECDH={:?}", group.name()).into(),
            None => format!("{version}/{suite}").into(),
        })
    }

    /// Whether it goes on from an earlier one, without certificates' being shown again.
    pub fn is_resumed(&self) -> bool {
        self.0.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// The protocol that was agreed on by ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.0.alpn_protocol()
    }

    /// The peer's certificate, as it stands on the wire (DER).
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.0
            .peer_certificates()
            .and_then(<[_]>::first)
            .map(|certificate| &**certificate)
    }
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TlsSession")
            .field(&self.description())
            .finish()
    }
}

/// Notes whether the kernel gave less than it was asked for.
struct Watched<R> {
    wire: R,
    is_all: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.wire.read(buffer)?;
        self.is_all = len > 0 && len < buffer.len();
        Ok(len)
    }
}
