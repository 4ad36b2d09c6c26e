//! What happens in a client's session, decided without IO: logging in, who awaits which reply, which trace asks.

pub mod annotator;
pub mod position_map;
pub mod query_record;
pub mod trace;
pub mod trace_command;
pub mod transaction_command;
mod words;
