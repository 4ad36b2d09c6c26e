//! Query text: its tokens, the statements of a Query message, the comments that say whose it is, and how a query is told
//! apart from its constants.
#![warn(clippy::indexing_slicing)]

pub mod comment;
pub mod encoding;
pub mod fingerprint;
pub mod lexer;
pub mod script;
