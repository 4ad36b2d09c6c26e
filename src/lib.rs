//! A PostgreSQL proxy that pools like PgBouncer and knows, for every query, which trace it belongs to.
//!
//! The crate is built in floors; a module uses its own floor or a lower one, never a higher one.
//!
//! ```text
//! 4  the whole   app  cli  dev  files  process  shutdown  systemd
//! 3  lives       acceptor  admission  admin  allowance  worker  shard  client  link  resolver  scratch  server_pool  server
//!                cancel  http
//!                reload
//! 2  the edge    net (wires)   telemetry (eyes)
//! 1  rules       auth  session  pool        state machines: bytes and `now` in, decisions out
//! 0  words       protocol  sql  trace_context  config
//! ```
//!
//! Floors 0 and 1 have no clock, no socket, no lock and no global.

// Floor 0: words.
pub mod config;
pub mod protocol;
pub mod sql;
pub mod trace_context;

// Floor 1: rules.
pub mod auth;
pub mod pool;
pub mod session;

// Floor 2: the edge.
pub mod net;
pub mod telemetry;

// Floor 3: lives.
pub mod acceptor;
pub mod admin;
pub mod admission;
pub mod allowance;
pub mod arrivals;
pub mod auth_query;
pub mod cancel;
pub mod client;
pub mod http;
pub mod link;
pub mod reload;
pub mod resolver;
pub mod schema_changes;
pub mod scratch;
pub mod server;
pub mod server_pool;
pub mod shard;
pub mod spread;
pub mod worker;

// Floor 4: the whole.
pub mod app;
pub mod cli;
pub mod dev;
pub mod files;
pub mod process;
pub mod shutdown;
pub mod systemd;
