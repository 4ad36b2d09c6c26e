//! Query text: its tokens, the statements of a Query message, and how a query is told apart from its constants.
#![warn(clippy::indexing_slicing)]

pub mod encoding;
pub mod fingerprint;
pub mod lexer;
pub mod script;
