//! The crate's lowest two floors, on their own: what reads bytes from outside. Nothing above is needed to build them, which this
//! crate proves by being built, and so the fuzz targets are built in seconds.

#![allow(dead_code, missing_docs)]

#[path = "../../src"]
mod floors {
    pub mod config;
    pub mod protocol;
    pub mod sql;
    pub mod trace_context;

    pub mod auth;
    pub mod pool;
    pub mod session;
}

pub use floors::{auth, config, pool, protocol, session, sql, trace_context};
