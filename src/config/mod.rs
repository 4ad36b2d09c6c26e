//! The configuration: what config.toml says, checked and complete.

pub mod choices;
pub mod secret;
