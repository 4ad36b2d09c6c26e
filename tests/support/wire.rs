//! One end of a connection, for a script.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;
use super::messages::Message;

/// One end of a connection that speaks whole messages. What does not come in time fails the test.
pub(crate) struct Wire(BufReader<TcpStream>);

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::with_capacity(1 << 16, stream))
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }

    /// Another handle of the same connection, to write from another thread.
    pub(crate) fn duplicate(&self) -> Self {
        Self(BufReader::new(self.stream().try_clone().unwrap()))
    }

    /// Sends a message to a peer that may have closed the connection meanwhile: what it said last can be read all the same.
    pub(crate) fn send_if_open(&mut self, message: Message) {
        // Reading tells.
        let _ = self.0.get_mut().write_all(&message.0);
    }

    pub(crate) fn send(&mut self, message: Message) -> &mut Self {
        self.send_bytes(&message.0)
    }

    /// All of them in one write.
    pub(crate) fn send_all(&mut self, messages: impl IntoIterator<Item = Message>) -> &mut Self {
        let bytes: Vec<u8> = messages.into_iter().flat_map(|message| message.0).collect();
        self.send_bytes(&bytes)
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.get_mut().write_all(bytes).unwrap();
        self
    }

    /// The next message. Panics where the connection ends instead.
    pub(crate) fn receive(&mut self) -> Message {
        self.receive_or_end()
            .expect("the peer closed the connection")
    }

    /// The next message, or `None` where the connection ended.
    pub(crate) fn receive_or_end(&mut self) -> Option<Message> {
        let mut head = [0; 5];
        match self.0.read(&mut head[..1]) {
            Ok(0) => return None,
            Ok(_) => self.0.read_exact(&mut head[1..]).unwrap(),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
            Err(error) => panic!("nothing came: {error}"),
        }
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut message = head.to_vec();
        message.resize(1 + length, 0);
        self.0.read_exact(&mut message[5..]).unwrap();
        Some(Message(message))
    }

    /// A message of the start, which has no tag.
    pub(crate) fn receive_untagged(&mut self) -> Message {
        let mut message = vec![0; 4];
        self.0.read_exact(&mut message).unwrap();
        let length = u32::from_be_bytes([message[0], message[1], message[2], message[3]]) as usize;
        message.resize(length, 0);
        self.0.read_exact(&mut message[4..]).unwrap();
        Message(message)
    }

    pub(crate) fn receive_bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// The next message is this one.
    pub(crate) fn expect(&mut self, message: Message) -> &mut Self {
        assert_eq!(self.receive(), message);
        self
    }

    /// The next messages are these.
    pub(crate) fn expect_all(&mut self, messages: impl IntoIterator<Item = Message>) -> &mut Self {
        messages
            .into_iter()
            .for_each(|message| assert_eq!(self.receive(), message));
        self
    }

    /// All messages up to and including the next ReadyForQuery, or up to the connection's end.
    pub(crate) fn receive_reply(&mut self) -> Vec<Message> {
        let mut reply = Vec::new();
        while let Some(message) = self.receive_or_end() {
            reply.push(message);
            if reply.last().is_some_and(|message| message.tag() == b'Z') {
                break;
            }
        }
        reply
    }

    /// The peer has closed the connection, and sent nothing before.
    pub(crate) fn expect_end(&mut self) {
        assert_eq!(self.receive_or_end(), None);
    }

    /// Nothing has arrived. Says so only of this moment: ask after something that would have come later has come.
    pub(crate) fn has_received_nothing(&self) -> bool {
        self.stream().set_nonblocking(true).unwrap();
        let peeked = self.stream().peek(&mut [0]);
        self.stream().set_nonblocking(false).unwrap();
        self.0.buffer().is_empty()
            && matches!(peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }
}
