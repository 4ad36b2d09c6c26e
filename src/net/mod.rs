//! The wires: sockets, and what is on its way through them.

pub mod lane;
pub mod socket;
pub mod tls_session;
