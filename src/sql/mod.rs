//! sql

pub mod comment;
