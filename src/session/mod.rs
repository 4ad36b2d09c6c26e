//! What happens in a client's session, decided without IO: logging in, who awaits which reply, which trace asks.

pub mod client_login;
pub mod greeting;
pub mod parameters;
pub mod query_record;
pub mod server_login;
pub mod statements;
