//! What happens in a client's session, decided without IO: logging in, who awaits which reply, which trace asks.

pub mod alteration;
pub mod annotator;
pub mod announcement;
pub mod client_login;
pub mod client_session;
pub mod driver;
pub mod exchange;
pub mod greeting;
pub mod kept_texts;
pub mod leavings;
pub mod ledger;
pub mod local_statements;
pub mod meaning;
pub mod outstanding;
pub mod parameters;
pub mod position_map;
pub mod query_record;
pub mod replies;
pub mod requests;
pub mod reset_command;
pub mod server_login;
pub mod server_session;
pub mod startup_settings;
pub mod statements;
pub mod stray;
pub mod tally;
pub mod time_limits;
pub mod trace;
pub mod trace_command;
pub mod transaction_command;
pub mod unlinked;
pub mod violation;
mod words;

#[cfg(test)]
mod conversation_tests;
