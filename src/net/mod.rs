//! The wires: sockets, and what is on its way through them.

pub mod lane;
pub mod listener;
pub mod socket;
pub mod tls_session;
