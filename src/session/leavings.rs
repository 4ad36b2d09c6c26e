//! What a client has left in the session of a server, and has to be gone or known before another one is served.

use crate::config::choices::SessionState;
use crate::protocol::encode;
use crate::session::alteration::{Alteration, COUNT_BELONGINGS, Trace};
use crate::session::meaning;
use crate::session::outstanding::Delivery;

/// What is left there.
#[derive(Debug, Default)]
pub struct Leavings {
    /// What its client must find again, if anything: they stay together until that is gone.
    belongings: Option<Trace>,
    /// Whether that may be gone by now: the server is to be asked.
    may_be_undone: bool,
    /// Parameters that its client may have set to values that are not known yet.
    unknown: Vec<Box<[u8]>>,
    /// Its client has set, perhaps for this transaction alone, what the meaning of texts depends on, and what that is now is not known.
    is_meaning_open: bool,
}

impl Leavings {
    /// A statement has left this. What is not tracked is reset, or leaks, as the pool says.
    pub fn add(&mut self, alteration: Alteration<'_>, state: SessionState) {
        self.is_meaning_open |= alteration.opens_meaning;
        if state != SessionState::Track {
            return;
        }
        if let Some(trace) = alteration.belongings {
            self.belongings = self.belongings.max(Some(trace));
            self.may_be_undone |= trace == Trace::Doubtful;
        }
        self.may_be_undone |= alteration.undoes && self.belongings.is_some();
        for name in alteration.parameters {
            self.add_unknown(&name);
        }
    }

    /// A parameter has a value that is not known. With too many of them, the server stays with its client.
    pub fn add_unknown(&mut self, name: &[u8]) {
        /// More than anybody sets by hand.
        const MAX_UNKNOWN: usize = 64;
        if self
            .unknown
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
        {
            return;
        }
        if self.unknown.len() < MAX_UNKNOWN {
            self.unknown.push(name.into());
        } else {
            self.belongings = Some(Trace::Hidden);
        }
    }

    /// Whether there is nothing that another client would find, or might.
    pub fn is_empty(&self) -> bool {
        self.belongings.is_none() && self.unknown.is_empty()
    }

    /// Whether there is something that its client must find again.
    pub fn has_belongings(&self) -> bool {
        self.belongings.is_some()
    }

    /// Whether the server stays with its client for now: something is there, and nothing speaks for its being gone.
    pub fn stays(&self) -> bool {
        match self.belongings {
            None => false,
            Some(Trace::Hidden) => true,
            Some(Trace::Visible | Trace::Doubtful) => !self.may_be_undone,
        }
    }

    /// Whether a text would be read by nothing but settings that are known. A temporary table hides another of its name.
    pub fn is_meaning_known(&self) -> bool {
        !self.is_meaning_open
            && self.belongings.is_none()
            && !self.unknown.iter().any(|name| meaning::depends_on(name))
    }

    /// What was set for the transaction is over, and what was set beyond it is among the unknown.
    pub fn on_transaction_end(&mut self) {
        self.is_meaning_open = false;
    }

    /// Appends the query to `out` that tells what must be known: whether belongings are still there, or what values parameters have
    /// that PostgreSQL does not report. What its reply is; `None` where nothing has to be asked.
    pub fn question(&mut self, out: &mut Vec<u8>) -> Option<Delivery> {
        if self.belongings.is_some() {
            self.may_be_undone = false;
            encode::query(out, COUNT_BELONGINGS.as_bytes());
            return Some(Delivery::CountBelongings);
        }
        if self.unknown.is_empty() {
            return None;
        }
        let names = std::mem::take(&mut self.unknown);
        encode::message(out, b'Q', |body| {
            for (at, name) in names.iter().enumerate() {
                body.extend_from_slice(if at == 0 { b"SELECT " } else { b", " });
                body.extend_from_slice(b"pg_catalog.current_setting('");
                body.extend_from_slice(name);
                body.extend_from_slice(b"', true)");
            }
            body.push(0);
        });
        Some(Delivery::Learn(names.into()))
    }

    /// So many belongings are there, the server has answered.
    pub fn on_count(&mut self, count: &[u8]) {
        if count == b"0" && self.belongings != Some(Trace::Hidden) {
            self.belongings = None;
        }
    }

    /// DISCARD ALL has run: belongings are gone.
    pub fn on_discard(&mut self) {
        self.belongings = None;
    }
}
