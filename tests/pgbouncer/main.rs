//! pgspan in PgBouncer's stead: started as it is, with its configuration, and asked as it is.

#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod bouncer;
mod console;
mod documented;
mod ini_files;
