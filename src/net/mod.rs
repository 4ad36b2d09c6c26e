//! The wires: sockets, and what is on its way through them.

pub mod certificate;
pub mod lane;
pub mod listener;
pub mod socket;
pub mod timer;
pub mod tls;
pub mod tls_session;
