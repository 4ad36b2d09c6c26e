//! What is known of a client between its messages.

use std::rc::Rc;

use crate::config::choices::{ListenMode, PoolMode, SessionState};
use crate::protocol::backend::TransactionStatus;
use crate::session::annotator::{QueryPlan, Surroundings};
use crate::session::driver::Driver;
use crate::session::local_statements::LocalStatements;
use crate::session::meaning::{self, Meaning};
use crate::session::outstanding::Received;
use crate::session::parameters::ParameterSet;
use crate::session::statements::{ClientStatements, Definitions, Statement, UnnamedStatement};
use crate::session::trace::SessionTrace;
use crate::sql::encoding::ClientEncoding;
use crate::sql::lexer::StandardConformingStrings;

/// A client that is logged in. It lives as long as the client does, whichever server it is linked to.
#[derive(Debug)]
pub struct ClientSession {
    /// When its server goes back.
    pub mode: PoolMode,
    /// What becomes of what it leaves in a server's session.
    pub session_state: SessionState,
    /// Whether it is for replication: its server serves nobody else, before or after it.
    pub is_replication: bool,
    /// What becomes of its LISTEN in transaction mode.
    pub listen: ListenMode,
    /// Whose queries these are.
    pub trace: SessionTrace,
    /// Which driver it uses.
    pub driver: Driver,
    /// Its prepared statements.
    pub statements: ClientStatements,
    /// The one without a name.
    pub unnamed: UnnamedStatement,
    /// Those that no server has.
    pub local: Option<Box<LocalStatements>>,
    /// Where it has prepared what may turn out to be a command on the trace context when it is bound: the definition of the unnamed
    /// statement, if that is such a one.
    pub told_when_bound: Option<Box<Option<Box<[u8]>>>>,
    /// What must be set on a server before this client uses it. Shared with clients that want the same.
    pub parameters: Rc<ParameterSet>,
    /// What its texts mean by them, as it was last asked for. Made when the first statement is prepared.
    meaning: Option<Box<(Rc<ParameterSet>, Rc<Meaning>)>>,
    /// The plan for the query that it paused with, until there is a server for it.
    pub planned: Option<Box<QueryPlan>>,
    /// The query is to be cancelled for which it waited for a server.
    pub is_canceled: bool,
    /// Since when its first message waits for a server, and why.
    pub waited: Option<Received>,
    /// As they were when it had logged in.
    startup: Rc<ParameterSet>,
    /// Those among them that its startup packet has set: to these a RESET goes back.
    pub own: Rc<ParameterSet>,
    server_version: u32,
    strings: StandardConformingStrings,
    encoding: ClientEncoding,
}

impl ClientSession {
    /// A client that has just logged in. `server_version` is server_version_num.
    pub fn new(
        mode: PoolMode,
        trace: SessionTrace,
        parameters: Rc<ParameterSet>,
        server_version: u32,
    ) -> Self {
        let mut session = Self {
            mode,
            session_state: SessionState::Track,
            is_replication: false,
            listen: ListenMode::Pin,
            trace,
            driver: Driver::Unknown,
            statements: ClientStatements::default(),
            unnamed: UnnamedStatement::Servers,
            local: None,
            told_when_bound: None,
            parameters: Rc::clone(&parameters),
            meaning: None,
            planned: None,
            is_canceled: false,
            waited: None,
            startup: Rc::clone(&parameters),
            own: Rc::default(),
            server_version,
            strings: StandardConformingStrings::On,
            encoding: ClientEncoding::from_name(b"UTF8"),
        };
        session.set_parameters(parameters);
        session
    }

    /// The server reported that a parameter has changed.
    pub fn on_parameter_status(&mut self, name: &[u8], value: &[u8]) {
        Rc::make_mut(&mut self.parameters).insert(name, value);
        self.set_parameters(Rc::clone(&self.parameters));
    }

    /// What was set is forgotten: what the startup packet set holds again, and is set on the server when it is next linked.
    pub fn on_reset_all(&mut self) {
        let parameters = Rc::make_mut(&mut self.parameters);
        parameters.retain_following();
        for (name, value) in self.startup.iter() {
            if !self.startup.follows(name) {
                parameters.insert(name, value);
            }
        }
    }

    /// What its startup packet has set, and this server would not go back to by itself.
    pub fn own_beyond(&self, base: &ParameterSet) -> ParameterSet {
        let mut beyond = ParameterSet::default();
        for (name, value) in self.own.iter() {
            if base.value(name) != Some(value) {
                beyond.insert(name, value);
            }
        }
        beyond
    }

    /// The statement that a name stands for, the empty one too, where it has a name on servers.
    pub fn statement(&self, name: &[u8]) -> Option<&Rc<Statement>> {
        match (name, &self.unnamed) {
            (b"", UnnamedStatement::Shared(statement)) => Some(statement),
            (b"", _) => None,
            _ => self.statements.find(name),
        }
    }

    /// What its texts mean by its parameters.
    pub fn meaning(&mut self, definitions: &mut Definitions) -> Rc<Meaning> {
        if let Some((parameters, meaning)) = self.meaning.as_deref()
            && Rc::ptr_eq(parameters, &self.parameters)
        {
            return Rc::clone(meaning);
        }
        let meaning = definitions.meaning_of(&self.parameters);
        let known = (Rc::clone(&self.parameters), Rc::clone(&meaning));
        self.meaning = Some(Box::new(known));
        meaning
    }

    /// Whether it would mean by its parameters what this statement does.
    pub fn means(&self, statement: &Statement) -> bool {
        let known = self.meaning.as_deref();
        known.is_some_and(|(parameters, meaning)| {
            statement.has_meaning(meaning) && meaning::is_same_by(parameters, &self.parameters)
        })
    }

    /// A name stands for another statement from now on.
    pub fn replace_statement(&mut self, name: &[u8], statement: Rc<Statement>) {
        match name {
            b"" => self.unnamed = UnnamedStatement::Shared(statement),
            name => self.statements.insert(name, statement),
        }
    }

    /// A simple query ends the unnamed statement. What it was, where that has a name on servers: it is back if the query is skipped.
    pub fn on_query(&mut self) -> Option<UnnamedStatement> {
        let ended = matches!(self.unnamed, UnnamedStatement::Shared(_))
            .then(|| std::mem::replace(&mut self.unnamed, UnnamedStatement::Gone));
        if let Some(unnamed) = &mut self.told_when_bound {
            **unnamed = None;
        }
        ended
    }

    /// What a query's meaning depends on.
    pub fn surroundings(&self, status: TransactionStatus) -> Surroundings {
        Surroundings {
            server_version: self.server_version,
            strings: self.strings,
            encoding: self.encoding,
            status,
            replication: self.is_replication,
        }
    }

    fn set_parameters(&mut self, parameters: Rc<ParameterSet>) {
        self.strings = parameters.strings();
        self.encoding = parameters.encoding();
        self.parameters = parameters;
    }
}
