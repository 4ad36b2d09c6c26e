//! A PgBouncer configuration → config.toml. Running an ini file and importing it are the same translation.

mod document;
mod settings;
mod translation;
mod values;

#[cfg(test)]
mod tests;

pub use self::document::Document;
pub use self::settings::{SETTINGS, Setting, setting};
pub use self::translation::{Surroundings, Translation, is_of_tls, line_of};
