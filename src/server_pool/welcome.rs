//! What a client is told when it has logged in: the server's parameters, with what the client wants set.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use super::{ServerConnection, ServerPool, lost_server};
use crate::net::timer;
use crate::protocol::encode;
use crate::protocol::error_response::ErrorResponse;
use crate::protocol::startup::Parameter;
use crate::server::own_query::AskError;
use crate::session::parameters::ParameterSet;
use crate::telemetry::labels::ServerClose;

/// What a client is told when it has logged in.
#[derive(Debug)]
pub struct Welcome {
    /// Every parameter that the server reports.
    pub reported: Vec<Parameter>,
    /// What a client wants that says nothing of its application_name.
    unnamed: Wishes,
    /// What those want that do, the latest last.
    named: RefCell<Vec<(Box<[u8]>, Wishes)>>,
    /// server_version_num.
    pub server_version: u32,
    /// The messages that say all this, but for `application_name`, which is each client's own.
    pub messages: Box<[u8]>,
}

/// What a client wants set. Shared with all that want the same.
#[derive(Clone, Debug)]
pub struct Wishes {
    /// All that follows it, and what else it asked for.
    pub all: Rc<ParameterSet>,
    /// What its startup packet has set.
    pub own: Rc<ParameterSet>,
}

/// Values of application_name that are remembered for each welcome.
const NAMES: usize = 32;

/// Equal parameter sets that are looked for at most.
const PARAMETER_SETS: usize = 64;

/// Welcomes that are kept at most.
const WELCOMES: usize = 64;

impl ServerPool {
    /// A server was logged in to, and reported this. If it is not what the one before did, it is another: clients are to be told so.
    pub(super) fn on_reports_of_new_server(&self, reported: &[Parameter]) {
        let mut known = self.reported.borrow_mut();
        if *known != reported {
            *known = reported.to_vec();
            self.welcomes.borrow_mut().clear();
        }
    }

    /// Takes what a server has said that concerns more than its client: a table is another for the whole database, or the server is
    /// another itself, a standby that was promoted. The other servers say so when they are asked.
    #[inline]
    pub fn take_news(&self, server: &mut ServerConnection) {
        if std::mem::take(&mut server.session.has_changed_schema) {
            self.schema.on_change();
        }
        if let Some(value) = server.session.stood_by.take() {
            server.on_reported(vec![(b"in_hot_standby"[..].into(), value)]);
            self.reports_have_changed.set(true);
            self.welcomes.borrow_mut().clear();
        }
    }

    /// What a client that wants `settings` is told when it has logged in. The first one of its kind asks a server.
    pub async fn welcome(
        self: &Rc<Self>,
        settings: &ParameterSet,
    ) -> Result<Rc<Welcome>, ErrorResponse> {
        if let Some(known) = self.welcomes.borrow().get(settings) {
            return Ok(Rc::clone(known));
        }
        Box::pin(self.ask_for_welcome(settings)).await
    }

    async fn ask_for_welcome(
        self: &Rc<Self>,
        settings: &ParameterSet,
    ) -> Result<Rc<Welcome>, ErrorResponse> {
        let mut server = self
            .checkout_server()
            .await
            .map_err(|refusal| refusal.response())?;
        // What the last client had set is not what this one has to be told.
        let base = Rc::new(ParameterSet::following(
            server
                .reported
                .iter()
                .map(|(name, value)| (&**name, &**value)),
            &self.terms().settings.track_extra_parameters,
        ));
        let mut wanted = (*base).clone();
        settings
            .iter()
            .for_each(|(name, value)| wanted.insert(name, value));
        let mut sql = Vec::new();
        server.session.parameters.write_change_to(&wanted, &mut sql);
        if sql.is_empty() && self.reports_have_changed.get() {
            // A query of nothing: what has changed is reported with its end.
            sql.push(b';');
        }
        let mut reported = server.reported.clone();
        if !sql.is_empty() {
            let asked = timer::timeout(
                self.terms().settings.server_connect_timeout,
                server.ask_reported(&sql),
            );
            match asked.await.unwrap_or(Err(AskError::Broken)) {
                Ok(changed) => {
                    for (name, value) in changed {
                        if settings.value(&name).is_some() {
                            wanted.insert(&name, &value);
                        }
                        match reported.iter_mut().find(|(known, _)| *known == name) {
                            Some(known) => known.1 = value,
                            None => reported.push((name, value)),
                        }
                    }
                }
                Err(AskError::Refused(error)) => {
                    self.discard(server, ServerClose::CheckFailed);
                    return Err(error.to_fatal());
                }
                Err(AskError::Broken | AskError::Violation(_)) => {
                    self.discard(server, ServerClose::Lost);
                    return Err(lost_server());
                }
            }
        }
        let parameters = self.shared(wanted);
        server.session.parameters = Rc::clone(&parameters);
        let mut messages = Vec::new();
        let unnamed = reported
            .iter()
            .filter(|(name, _)| **name != *b"application_name");
        unnamed.for_each(|(name, value)| encode::parameter_status(&mut messages, name, value));
        let own = parameters.only(settings.iter().map(|(name, _)| name));
        let welcome = Rc::new(Welcome {
            messages: messages.into(),
            reported,
            unnamed: Wishes {
                all: parameters,
                own: Rc::new(own),
            },
            named: RefCell::default(),
            server_version: server.version_number(),
        });
        self.release(server, (self.neighbours.clock)());
        let mut welcomes = self.welcomes.borrow_mut();
        if welcomes.len() >= WELCOMES {
            // Those that are still wanted are soon back.
            welcomes.clear();
        }
        welcomes.insert(settings.clone(), Rc::clone(&welcome));
        Ok(welcome)
    }

    /// What a client wants that is welcomed so and calls its application so.
    pub fn wishes(&self, welcome: &Welcome, application_name: Option<&[u8]>) -> Wishes {
        const NAME: &[u8] = b"application_name";
        let Some(value) = application_name else {
            return welcome.unnamed.clone();
        };
        let mut named = welcome.named.borrow_mut();
        if let Some((_, wishes)) = named.iter().find(|(known, _)| **known == *value) {
            return wishes.clone();
        }
        let with_name = |set: &ParameterSet| {
            let mut set = set.clone();
            set.insert(NAME, value);
            set
        };
        let wishes = Wishes {
            all: self.shared(with_name(&welcome.unnamed.all)),
            own: Rc::new(with_name(&welcome.unnamed.own)),
        };
        if named.len() == NAMES {
            named.remove(0);
        }
        named.push((value.into(), wishes.clone()));
        wishes
    }

    /// The set that is equal to this one and known already, or this one.
    fn shared(&self, wanted: ParameterSet) -> Rc<ParameterSet> {
        let mut sets = self.parameter_sets.borrow_mut();
        sets.retain(|set| set.strong_count() > 0);
        if let Some(known) = sets
            .iter()
            .filter_map(Weak::upgrade)
            .find(|known| **known == wanted)
        {
            return known;
        }
        let wanted = Rc::new(wanted);
        if sets.len() < PARAMETER_SETS {
            sets.push(Rc::downgrade(&wanted));
        }
        wanted
    }
}
