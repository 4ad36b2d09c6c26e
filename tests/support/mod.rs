//! The world around the proxy, as the tests need it: PostgreSQL, the proxy itself, scripted peers, a trace collector.

// Each test binary uses its own part of this.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod authority;
pub(crate) mod collector;
pub(crate) mod messages;
pub(crate) mod postgres;
pub(crate) mod proxy;
pub(crate) mod scripted;
pub(crate) mod wire;

use std::thread;
use std::time::{Duration, Instant};

/// Asks again and again until there is an answer, for at most [`PATIENCE`].
pub(crate) fn eventually<T>(mut answer: impl FnMut() -> Option<T>) -> Option<T> {
    let start = now();
    loop {
        match answer() {
            Some(found) => return Some(found),
            None if start.elapsed() > PATIENCE => return None,
            None => thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// The tests' clock.
#[expect(clippy::disallowed_methods)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// How long a test waits for what must happen. Generous: it is only ever used up by a failing test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A traceparent for tests, and its two ids.
pub(crate) const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
pub(crate) const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub(crate) const SPAN_ID: &str = "00f067aa0ba902b7";
