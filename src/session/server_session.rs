//! What is known of a server between its clients.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::config::choices::SessionState;
use crate::protocol::backend::TransactionStatus;
use crate::protocol::encode;
use crate::protocol::startup::Parameter;
use crate::session::alteration::{self, Alteration, contains_word};
use crate::session::announcement::Announcement;
use crate::session::exchange::Exchange;
use crate::session::kept_texts::{KeptText, kept_of};
use crate::session::leavings::Leavings;
use crate::session::meaning;
use crate::session::outstanding::{Effect, OutstandingRequest, Received, RequestKind};
use crate::session::parameters::{self, ParameterSet, is_parameter_name};
use crate::session::position_map::PositionMap;
use crate::session::query_record::TEXT_LIMIT;
use crate::session::statements::{ServerStatements, Statement};
use crate::session::stray;
use crate::session::words::from_first_word;
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
    /// What was set when it had logged in: to this a RESET goes back.
    pub base: Rc<ParameterSet>,
    /// The unnamed statement, as far as telemetry wants to know it.
    pub unnamed: UnnamedStatement,
    /// The client has parsed the unnamed statement and not bound it: it does so behind a Sync (pg8000, lib/pq), and must not
    /// find another client's statement there.
    awaits_bind: bool,
    /// What it was told of the trace of prepared statements.
    pub announced: Announcement,
    /// What the unnamed portal runs.
    pub unnamed_portal: PortalSource,
    /// What the named portals run, where that is a named statement. They end with the transaction.
    pub named_portals: HashMap<Box<[u8]>, PortalSource>,
    /// What its client has left there.
    pub left: Leavings,
    /// What texts mean may be something else for everybody: a table, a view or a function has changed. Whoever looks takes it away.
    pub has_changed_schema: bool,
    /// It has said whether it stands by: in_hot_standby has this value now. Whoever looks takes it away.
    pub stood_by: Option<Box<[u8]>>,
    /// When the first message of the group came and left that the next Execute belongs to.
    pub group: Option<(Received, Instant)>,
    /// How many Executes were sent since the last Sync.
    pub executes: u32,
    /// What they have made of the transaction, where their texts tell.
    pub group_status: Option<TransactionStatus>,
    /// Whether one of them has run in the transaction that is open now.
    pub has_executed: bool,
}

/// The unnamed statement, as far as telemetry wants to know it.
#[derive(Debug, Default)]
pub struct UnnamedStatement {
    /// Its text, as far as it is kept.
    pub text: Vec<u8>,
    /// Whether nothing is left out of it that may leave something in the session.
    is_whole: bool,
    /// The context in its text, if one is there.
    pub trace: Option<(Arc<TraceContext>, ContextState)>,
    /// Brings the server's error positions back to the client's text.
    pub positions: PositionMap,
}

/// What is known of a server that rests, in a form that may change threads.
#[derive(Debug)]
pub struct Resting {
    statements: Vec<u64>,
    parameters: ParameterSet,
    base: ParameterSet,
    announced: Announcement,
}

/// What a statement has made the server forget of its client's session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// What was set: RESET ALL, DISCARD ALL.
    pub parameters: bool,
    /// The prepared statements: DEALLOCATE ALL, DISCARD ALL.
    pub statements: bool,
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
            base: Rc::clone(&parameters),
            parameters,
            unnamed: UnnamedStatement::default(),
            awaits_bind: false,
            announced: Announcement::default(),
            unnamed_portal: PortalSource::default(),
            named_portals: HashMap::new(),
            left: Leavings::default(),
            has_changed_schema: false,
            stood_by: None,
            group: None,
            executes: 0,
            group_status: None,
            has_executed: false,
        }
    }

    /// Whether nothing of a client's is left in it, so that [`ServerSession::into_resting`] loses nothing.
    pub fn may_move(&self) -> bool {
        self.is_releasable() && self.left.is_empty()
    }

    /// What is to be kept of it where it moves to another worker.
    pub fn into_resting(self) -> Resting {
        Resting {
            statements: self.statements.ids(),
            parameters: Rc::unwrap_or_clone(self.parameters),
            base: Rc::unwrap_or_clone(self.base),
            announced: self.announced,
        }
    }

    /// A server that has come from another worker.
    pub fn of_resting(resting: Resting) -> Self {
        let mut session = Self::new(Rc::new(resting.base));
        session.parameters = Rc::new(resting.parameters);
        session.statements = ServerStatements::of_ids(&resting.statements);
        session.announced = resting.announced;
        session
    }

    /// Makes it what the client expects, with the messages for it appended to `out`: they go ahead of the client's, in the
    /// same write, and their replies are withheld.
    pub fn on_link(&mut self, wanted: &Rc<ParameterSet>, out: &mut Vec<u8>) {
        self.awaits_bind = false;
        let name = |set: &ParameterSet| set.value(b"application_name").map(<[u8]>::to_vec);
        if self.announced.is_in_application_name() && name(&self.parameters) != name(wanted) {
            self.announced.on_parameters_forgotten();
        }
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
    ) -> (KeptText, Option<(Arc<TraceContext>, ContextState)>) {
        let source = match portal {
            b"" => Some(&self.unnamed_portal),
            _ => self.named_portals.get(portal),
        };
        match source {
            Some(PortalSource::Unnamed) => {
                let mut text = self.exchange.texts.keep(&self.unnamed.text);
                text.is_whole &= self.unnamed.is_whole;
                (text, self.unnamed.trace.clone())
            }
            Some(PortalSource::Named(statement)) => {
                (self.exchange.texts.keep(statement.text()), None)
            }
            None => (self.exchange.texts.keep_beginning(b""), None),
        }
    }

    /// Brings error positions in what a portal runs back to the client's text.
    pub fn portal_positions(&self, portal: &[u8]) -> PositionMap {
        match (portal, &self.unnamed_portal) {
            (b"", PortalSource::Unnamed) => self.unnamed.positions.clone(),
            (b"", PortalSource::Named(_)) => PositionMap::default(),
            (_, _) => match self.named_portals.get(portal) {
                Some(PortalSource::Unnamed) => self.unnamed.positions.clone(),
                _ => PositionMap::default(),
            },
        }
    }

    /// The text that a portal runs, or its beginning; empty where it is not known.
    pub fn portal_text(&self, portal: &[u8]) -> &[u8] {
        let source = match portal {
            b"" => Some(&self.unnamed_portal),
            _ => self.named_portals.get(portal),
        };
        match source {
            Some(PortalSource::Unnamed) => &self.unnamed.text,
            Some(PortalSource::Named(statement)) => statement.text(),
            None => b"",
        }
    }

    /// The same from its first word on: for telling what command it is.
    pub fn portal_command(&self, portal: &[u8]) -> &[u8] {
        from_first_word(self.portal_text(portal))
    }

    /// The unnamed statement gets this text, with this context in it.
    pub fn on_unnamed_parse(
        &mut self,
        text: &[u8],
        trace: Option<(Arc<TraceContext>, ContextState)>,
    ) {
        self.unnamed.text.clear();
        self.unnamed.text.shrink_to(TEXT_LIMIT);
        let (kept, is_whole) = kept_of(text);
        self.unnamed.text.extend_from_slice(kept);
        self.unnamed.is_whole = is_whole;
        self.unnamed.trace = trace;
        self.unnamed.positions.clear();
        self.awaits_bind = true;
    }

    /// The unnamed statement has been used, replaced, or is gone: nobody relies on it any more.
    pub fn on_unnamed_done(&mut self) {
        self.awaits_bind = false;
    }

    /// Its client's transaction was rolled back by the proxy; the server has reported these parameters meanwhile.
    pub fn on_rolled_back(&mut self, reported: &[Parameter]) {
        self.exchange.on_ready(TransactionStatus::Idle);
        self.named_portals.clear();
        for (name, value) in reported {
            if self.parameters.value(name).is_some() {
                Rc::make_mut(&mut self.parameters).insert(name, value);
            }
        }
    }

    /// Whether it may serve another client while this one stays.
    pub fn is_releasable(&self) -> bool {
        self.exchange.is_releasable() && !self.awaits_bind
    }

    /// Whether the proxy may ask for something of its own now, and its client will never know.
    pub fn is_ready_for_own(&self) -> bool {
        self.exchange.is_ready_for_own() && !self.awaits_bind
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

    /// A statement of the client's is done, with this command tag. What it has made of the client's session.
    pub fn on_command(&mut self, tag: &[u8], state: SessionState) -> Forgotten {
        let is_seen = self.exchange.has_seen_kind(alteration::kind_of(tag));
        let (text, is_whole) = self.exchange.front_text();
        // A temporary table of the client's own changes nothing for others.
        self.has_changed_schema |= tag.starts_with(b"ALTER ")
            || tag == b"CREATE VIEW"
            || tag.starts_with(b"DROP ") && !self.left.has_belongings();
        let alteration = match is_whole {
            _ if is_seen => Alteration::by_tag(tag),
            true => Alteration::by(tag, text, &self.parameters),
            false => Alteration::by_beginning(tag, text, &self.parameters),
        };
        self.left.add(alteration, state);
        let forgotten = Forgotten {
            parameters: tag == b"DISCARD ALL"
                || tag == b"RESET" && !is_seen && contains_word(text, b"all"),
            statements: matches!(tag, b"DISCARD ALL" | b"DEALLOCATE ALL"),
        };
        if forgotten.parameters {
            // Where it is rolled back, what was set is set again: how it ended is asked in the end.
            let is_tracked = state == SessionState::Track;
            for (name, _) in self.parameters.iter().filter(|_| is_tracked) {
                if !self.parameters.follows(name) {
                    self.left.add_unknown(name);
                }
            }
            self.announced.on_parameters_forgotten();
            Rc::make_mut(&mut self.parameters).retain_following();
        }
        if forgotten.statements {
            self.announced.on_statements_forgotten();
            self.statements.clear();
        }
        if tag == b"DISCARD ALL" {
            self.left.on_discard();
        }
        forgotten
    }

    /// The message in front has failed.
    pub fn on_failure(&mut self, state: SessionState) {
        let (text, _) = self.exchange.front_text();
        self.left.add(Alteration::by_failure(text), state);
    }

    /// A function is called by its identifier.
    pub fn on_function_call(&mut self, oid: u32, state: SessionState) {
        self.left.add(Alteration::by_function(oid), state);
    }

    /// Whether it would read a text that is sent now by nothing but settings that are known.
    pub fn is_meaning_known(&self) -> bool {
        self.left.is_meaning_known()
            && !self
                .exchange
                .has_outstanding_text(meaning::may_be_changed_by_text)
    }

    /// ReadyForQuery came, with this status.
    pub fn on_ready(&mut self, status: TransactionStatus) {
        self.exchange.on_ready(status);
        if status == TransactionStatus::Idle {
            self.left.on_transaction_end();
        }
    }

    /// A text is sent to it that may set parameters of the proxy's own: they are the client's alone.
    pub fn on_stray_commands(&mut self, text: &[u8]) {
        for name in stray::names_in(text).filter(|name| is_parameter_name(name)) {
            self.left.add_unknown(name);
        }
    }

    /// Asks, with a message appended to `out`, what must be known of what its client has left before another one is served. Whether
    /// anything had to be asked.
    pub fn ask_before_release(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(delivery) = self.left.question(out) else {
            return false;
        };
        self.exchange.on_request(OutstandingRequest {
            delivery,
            ..OutstandingRequest::forwarded(RequestKind::Query)
        });
        true
    }

    /// DISCARD ALL was run: it is as it was when it was new, when these parameters were reported.
    pub fn on_reset<'a>(
        &mut self,
        reported: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        extra: &[Box<str>],
    ) {
        self.announced = Announcement::default();
        self.statements.clear();
        self.named_portals.clear();
        self.parameters = Rc::new(ParameterSet::following(reported, extra));
        self.base = Rc::clone(&self.parameters);
        self.left = Leavings::default();
    }

    /// The effects of requests that failed, or were skipped, are taken back on the server's side; the latest stands first. What is
    /// outstanding was sent behind them, and still holds.
    pub fn undo(&mut self, effects: &[Effect]) {
        // Whether the server has a statement before it comes to what is outstanding: what the earliest effect says of it.
        let mut had: Vec<(&Rc<Statement>, bool)> = Vec::new();
        for (statement, gets) in effects.iter().filter_map(Effect::of_statement) {
            had.retain(|(known, _)| !known.is(statement));
            had.push((statement, !gets));
        }
        for (statement, has) in had {
            if !has {
                self.exchange.on_never_prepared(statement);
            }
            match self.exchange.will_have(statement).unwrap_or(has) {
                false => self.statements.remove(statement),
                true if !self.statements.touch(statement) => {
                    self.statements.insert(Rc::clone(statement));
                }
                true => {}
            }
        }
    }
}
