//! What is known of a server between its clients.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::protocol::encode;
use crate::session::exchange::{Effect, Exchange, OutstandingRequest, Received, RequestKind};
use crate::session::parameters::{self, ParameterSet};
use crate::session::statements::{ServerStatements, Statement};
use crate::trace_context::{ContextState, TraceContext};

/// A server that is logged in. It lives as long as the connection does, whichever client is linked to it.
#[derive(Debug)]
pub struct ServerSession {
    /// What it was asked, and has not answered.
    pub exchange: Exchange,
    /// The statements that it has.
    pub statements: ServerStatements,
    /// What is set on it.
    pub parameters: Rc<ParameterSet>,
    /// The unnamed statement, as far as telemetry wants to know it.
    pub unnamed: UnnamedStatement,
    /// The client has parsed the unnamed statement and not bound it: it does so behind a Sync (pg8000, lib/pq), and must not
    /// find another client's statement there.
    awaits_bind: bool,
    /// What the unnamed portal runs.
    pub unnamed_portal: PortalSource,
    /// What the named portals run, where that is a named statement. They end with the transaction.
    pub named_portals: HashMap<Box<[u8]>, PortalSource>,
    /// When the first message of the group came and left that the next Execute belongs to.
    pub group: Option<(Received, Instant)>,
}

/// The unnamed statement, as far as telemetry wants to know it.
#[derive(Debug, Default)]
pub struct UnnamedStatement {
    /// The beginning of its text.
    pub text: Vec<u8>,
    /// The context in its text, if one is there.
    pub trace: Option<(Arc<TraceContext>, ContextState)>,
}

/// What a portal runs.
#[derive(Clone, Debug, Default)]
pub enum PortalSource {
    /// The unnamed statement.
    #[default]
    Unnamed,
    /// A named one.
    Named(Rc<Statement>),
}

impl ServerSession {
    /// Named portals whose text is known at a time; beyond it, queries are recorded without their text.
    pub const MAX_NAMED_PORTALS: usize = 256;

    /// A server that has just logged in, with these parameters set.
    pub fn new(parameters: Rc<ParameterSet>) -> Self {
        Self {
            exchange: Exchange::new(),
            statements: ServerStatements::default(),
            parameters,
            unnamed: UnnamedStatement::default(),
            awaits_bind: false,
            unnamed_portal: PortalSource::default(),
            named_portals: HashMap::new(),
            group: None,
        }
    }

    /// Makes it what the client expects, with the messages for it appended to `out`: they go ahead of the client's, in the
    /// same write, and their replies are withheld.
    pub fn on_link(&mut self, wanted: &Rc<ParameterSet>, out: &mut Vec<u8>) {
        self.awaits_bind = false;
        let start = out.len();
        encode::message(out, b'Q', |body| {
            let empty = body.len();
            parameters::restore(&mut self.parameters, wanted, body);
            if body.len() > empty {
                body.push(0);
            }
        });
        if out.len() == start + 5 {
            // Nothing had to be set.
            out.truncate(start);
            return;
        }
        self.exchange.on_request(OutstandingRequest::withheld(
            RequestKind::Query,
            Effect::None,
        ));
    }

    /// Keeps the text that a portal runs for telemetry; with the context in it, where there is one.
    pub fn keep_portal_text(
        &mut self,
        portal: &[u8],
    ) -> (Range<usize>, Option<(Arc<TraceContext>, ContextState)>) {
        let source = match portal {
            b"" => Some(&self.unnamed_portal),
            _ => self.named_portals.get(portal),
        };
        match source {
            Some(PortalSource::Unnamed) => (
                self.exchange.keep_text(&self.unnamed.text),
                self.unnamed.trace.clone(),
            ),
            Some(PortalSource::Named(statement)) => {
                (self.exchange.keep_text(statement.text()), None)
            }
            None => (self.exchange.keep_text(b""), None),
        }
    }

    /// The unnamed statement gets this text, with this context in it.
    pub fn on_unnamed_parse(
        &mut self,
        text: &[u8],
        trace: Option<(Arc<TraceContext>, ContextState)>,
    ) {
        self.unnamed.text.clear();
        self.unnamed
            .text
            .extend_from_slice(text.get(..Exchange::TEXT_LIMIT).unwrap_or(text));
        self.unnamed.trace = trace;
        self.awaits_bind = true;
    }

    /// The unnamed statement has been used, replaced, or is gone: nobody relies on it any more.
    pub fn on_unnamed_done(&mut self) {
        self.awaits_bind = false;
    }

    /// Whether it may serve another client while this one stays.
    pub fn is_releasable(&self) -> bool {
        self.exchange.is_releasable() && !self.awaits_bind
    }

    /// A portal is bound.
    pub fn bind(&mut self, portal: &[u8], source: PortalSource) {
        match portal {
            b"" => self.unnamed_portal = source,
            _ if self.named_portals.len() < Self::MAX_NAMED_PORTALS => {
                self.named_portals.insert(portal.into(), source);
            }
            _ => {}
        }
    }

    /// The server has forgotten its statements (DISCARD ALL, DEALLOCATE ALL).
    pub fn on_deallocate_all(&mut self) {
        self.statements.clear();
    }

    /// An effect of a request that failed, or was skipped, is taken back on the server's side.
    pub fn undo(&mut self, effect: &Effect) {
        match effect {
            Effect::None | Effect::Named { .. } | Effect::Closed { .. } | Effect::MayForget => {}
            Effect::Prepared { statement, .. } => self.statements.remove(statement),
            Effect::Evicted(statement) => self.statements.insert(Rc::clone(statement)),
        }
    }
}
