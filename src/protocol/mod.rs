//! PostgreSQL protocol 3 as bytes: where messages begin and end, what they say, and the few that the proxy says itself.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>.

pub mod backend;
pub mod cancel_key;
pub mod encode;
pub mod error_response;
pub mod frame;
pub mod startup;
