//! A server that stays with one client, for what that client has left there.

use std::rc::Rc;

use super::ServerPool;

/// Counts one such server, until it is dropped.
#[derive(Debug)]
pub struct Pin(Rc<ServerPool>);

impl ServerPool {
    /// One more server stays with its client. `None`: as many do as may.
    pub fn pin(self: &Rc<Self>) -> Option<Pin> {
        if self.pinned.get() >= self.terms().pin_limit() {
            self.metrics.pins_refused.increase();
            return None;
        }
        self.pinned.set(self.pinned.get() + 1);
        self.metrics.pinned_servers.increase();
        Some(Pin(Rc::clone(self)))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.pinned.set(self.0.pinned.get() - 1);
        self.0.metrics.pinned_servers.decrease();
    }
}
