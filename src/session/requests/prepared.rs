//! Prepared statements: Parse, Bind, Describe and Close, under names that differ between client and server.

use std::rc::Rc;
use std::time::Instant;

use super::rewriting::{make_room, prepare, rename_parse, write_edited, write_renamed};
use super::{Pause, Requests};
use crate::config::choices::{PoolMode, UnnamedStatements};
use crate::protocol::backend::TransactionStatus;
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::protocol::forwarder::{Arrived, Disposition};
use crate::protocol::frontend::{Bind, Parse, Target};
use crate::protocol::outbound::Outbound;
use crate::session::annotator::Verdict;
use crate::session::client_session::ClientSession;
use crate::session::meaning::Meaning;
use crate::session::outstanding::{
    Effect, OutstandingRequest, QueryInFlight, Received, RequestKind,
};
use crate::session::query_record::QueryKind;
use crate::session::server_session::{PortalSource, ServerSession};
use crate::session::statements::{Statement, UnnamedStatement};
use crate::session::transaction_command::TransactionCommand;
use crate::session::violation::Violation;

/// A statement that is about to be used.
pub(super) struct InUse {
    pub(super) statement: Rc<Statement>,
    /// Whether the server has it.
    pub(super) is_there: bool,
}

/// It is not certain yet what the server will have when it comes to the message in hand.
pub(super) struct Unsettled;

impl Requests<'_> {
    /// Whether it is certain what the client's name stands for when the server comes to the message in hand.
    fn is_name_settled(&self, wanted: &[u8]) -> bool {
        self.is_settled(|effect| match effect {
            Effect::Named { name, .. } | Effect::Closed { name, .. } => **name == *wanted,
            Effect::Unnamed { .. } => wanted.is_empty(),
            Effect::Prepared { name, .. } => name.as_deref() == Some(wanted),
            Effect::None
            | Effect::Local { .. }
            | Effect::SetAgain(_)
            | Effect::Evicted(_)
            | Effect::Deallocated { .. }
            | Effect::MayForget => false,
        })
    }

    /// Whether it is certain that the server has, or has not, this statement when it comes to the message in hand.
    fn is_statement_settled(&self, wanted: &Statement) -> bool {
        self.is_settled(|effect| {
            let touched = effect.of_statement();
            touched.is_some_and(|(statement, _)| statement.is(wanted))
        })
    }

    fn is_settled(&self, touches: impl Fn(&Effect) -> bool) -> bool {
        !self.renames()
            || self
                .server
                .as_ref()
                .is_none_or(|server| server.exchange.is_settled(touches))
    }

    /// The same of a name, and of the statement that it stands for.
    pub(super) fn is_use_settled(&self, name: &[u8]) -> bool {
        let has_unsettled = |server: &&mut ServerSession| server.exchange.has_unsettled();
        if !self.server.as_ref().is_some_and(has_unsettled) {
            return true;
        }
        self.is_name_settled(name)
            && self
                .client
                .statement(name)
                .is_none_or(|statement| self.is_statement_settled(statement))
    }

    /// What the client's texts mean when the server comes to the message in hand, if that is known.
    fn meaning(&mut self) -> Option<Rc<Meaning>> {
        let is_known = |server: &&mut ServerSession| server.is_meaning_known();
        self.server
            .as_ref()
            .is_none_or(is_known)
            .then(|| self.client.meaning(self.definitions))
    }

    /// The statement that the client's name stands for, as it is to be used now. One that the server lacks, and that was prepared
    /// by other settings than the client has by now, is another from now on: it would be prepared anew by these.
    ///
    /// `None` stands for nothing that has a name on servers.
    ///
    /// # Errors
    /// If it is not certain yet whether the server has it.
    pub(super) fn statement_for_use(&mut self, name: &[u8]) -> Result<Option<InUse>, Unsettled> {
        let Some(statement) = self.client.statement(name).map(Rc::clone) else {
            return Ok(None);
        };
        let mut has = |statement: &Statement| {
            let server = self.server.as_deref_mut();
            server.is_some_and(|server| server.statements.touch(statement))
        };
        let is_there = has(&statement);
        if is_there || statement.is_stale() || !self.renames() {
            return Ok(Some(InUse {
                statement,
                is_there,
            }));
        }
        let meaning = self.meaning();
        if meaning
            .as_ref()
            .is_some_and(|meaning| statement.has_meaning(meaning))
        {
            return Ok(Some(InUse {
                statement,
                is_there,
            }));
        }
        let statement = self
            .definitions
            .intern(meaning.as_ref(), statement.definition());
        if !self.is_statement_settled(&statement) {
            return Err(Unsettled);
        }
        self.client.replace_statement(name, Rc::clone(&statement));
        let server = self.server.as_deref_mut();
        let is_there = server.is_some_and(|server| server.statements.touch(&statement));
        Ok(Some(InUse {
            statement,
            is_there,
        }))
    }

    pub(super) fn on_parse(
        &mut self,
        arrived: Arrived<'_>,
        out: &mut Outbound,
    ) -> Result<Disposition, Violation> {
        let renames = self.renames();
        let Some(server) = self.server.as_deref_mut() else {
            return Ok(self.pause(Pause::NeedsServer));
        };
        server.group.get_or_insert((self.received, self.now));
        let Some(parse) = Parse::read(arrived.body) else {
            return match arrived.whole() {
                // The server will say what is wrong with it.
                Some(_) => {
                    server
                        .exchange
                        .on_request(OutstandingRequest::forwarded(RequestKind::Parse));
                    Ok(Disposition::Forward)
                }
                None => Err(Violation::ClientNameTooLong),
            };
        };
        if parse.name.is_empty() {
            return Ok(self.on_unnamed_parse(arrived, &parse, out));
        }
        if let Some(refused) = self.refuse_listen(parse.text(), out) {
            return Ok(refused);
        }
        if !self.is_use_settled(parse.name) {
            return Ok(self.pause_unsettled(out));
        }
        let whole = arrived.whole();
        let statement = whole.map(|_| {
            let meaning = self.meaning();
            self.definitions.intern(meaning.as_ref(), parse.definition)
        });
        if let Some(statement) = &statement
            && !self.is_statement_settled(statement)
        {
            return Ok(self.pause_unsettled(out));
        }
        let server = self.server.as_deref_mut().expect("there was one above");
        self.bench.tally.client_parses += 1;
        let is_whole = arrived.whole().is_some();
        if !is_whole || self.client.statements.is_full() {
            if renames {
                return Err(match is_whole {
                    true => Violation::ClientTooManyStatements,
                    false => Violation::ClientStatementTooLong,
                });
            }
            // Nothing depends on it in session mode: its queries are recorded without their text.
            server
                .exchange
                .on_request(OutstandingRequest::forwarded(RequestKind::Parse));
            return Ok(Disposition::Forward);
        }
        let statement = statement.expect("the message is whole");
        if self.client.statements.find(parse.name).is_some() {
            // The server has one of that name as well, and says so.
            let Ok(in_use) = self.statement_for_use(parse.name) else {
                return Ok(self.pause_unsettled(out));
            };
            let server = self.server.as_deref_mut().expect("there was one above");
            if let Some(InUse {
                statement,
                is_there,
            }) = in_use.filter(|_| renames)
            {
                if !is_there {
                    prepare(server, &statement, self.policy, &mut self.bench.tally, out);
                }
                rename_parse(&arrived, &parse, &statement, out);
            }
            server
                .exchange
                .on_request(OutstandingRequest::forwarded(RequestKind::Parse));
            return Ok(if renames {
                Disposition::ForwardBodyFrom(parse.name.len() + 1)
            } else {
                Disposition::Forward
            });
        }
        self.client
            .statements
            .insert(parse.name, Rc::clone(&statement));
        if renames && server.statements.touch(&statement) {
            let status = server.exchange.status();
            let around = self.client.surroundings(status);
            if server.exchange.is_quiet()
                && status == TransactionStatus::Failed
                && TransactionCommand::is_refused_after_failure(
                    parse.text(),
                    around.strings,
                    around.encoding,
                )
            {
                // The server refuses it ahead of finding out that it has the statement already.
                rename_parse(&arrived, &parse, &statement, out);
                server.exchange.on_request(OutstandingRequest {
                    effect: Effect::Named {
                        name: parse.name.into(),
                        statement,
                    },
                    ..OutstandingRequest::forwarded(RequestKind::Parse)
                });
                return Ok(Disposition::ForwardBodyFrom(parse.name.len() + 1));
            }
            server.exchange.on_request(OutstandingRequest {
                effect: Effect::Named {
                    name: parse.name.into(),
                    statement,
                },
                ..OutstandingRequest::fabricated(RequestKind::Parse, PARSE_COMPLETE)
            });
            self.emit_fabricated();
            return Ok(Disposition::Discard);
        }
        if renames {
            make_room(server, self.policy, out, &mut self.bench.tally);
            server.statements.insert(Rc::clone(&statement));
            rename_parse(&arrived, &parse, &statement, out);
        }
        self.bench.tally.server_parses += 1;
        let query = Some(parse_in_flight(
            server,
            self.client,
            &parse,
            self.received,
            self.now,
        ));
        server.exchange.on_request(OutstandingRequest {
            effect: Effect::Prepared {
                name: Some(parse.name.into()),
                statement,
            },
            query,
            ..OutstandingRequest::forwarded(RequestKind::Parse)
        });
        Ok(if renames {
            Disposition::ForwardBodyFrom(parse.name.len() + 1)
        } else {
            Disposition::Forward
        })
    }

    /// A Parse of the unnamed statement: the server's, or one that has a name there.
    fn on_unnamed_parse(
        &mut self,
        arrived: Arrived<'_>,
        parse: &Parse<'_>,
        out: &mut Outbound,
    ) -> Disposition {
        if let Some(refused) = self.refuse_listen(parse.text(), out) {
            return refused;
        }
        let caches = self.policy.unnamed_statements == UnnamedStatements::Cache && self.renames();
        if caches && !self.is_name_settled(b"") {
            return self.pause_unsettled(out);
        }
        if caches
            && self.is_worth_keeping(&arrived, parse)
            && let Some(meaning) = self.meaning()
        {
            return self.share_unnamed(arrived, parse, &meaning, out);
        }
        if let Some(renamed) = self.parse_with_server_names(&arrived, parse, out) {
            return renamed;
        }
        let Some(server) = self.server.as_deref_mut() else {
            return self.pause(Pause::NeedsServer);
        };
        let around = self.client.surroundings(server.exchange.status());
        let comment = self.bench.annotator.own_comment_in(parse.text(), &around);
        let trace = comment.map(|comment| self.client.trace.context_with_comment(&comment));
        server.on_unnamed_parse(parse.text(), trace);
        let effect = match self.client.unnamed {
            UnnamedStatement::Servers => Effect::None,
            _ => Effect::Unnamed {
                before: std::mem::take(&mut self.client.unnamed),
                prepared: None,
            },
        };
        let mut query = parse_in_flight(server, self.client, parse, self.received, self.now);
        let mut disposition = Disposition::Forward;
        if self.policy.annotation.unnamed_parse && arrived.whole().is_some() {
            let mut plan = self.bench.plans.pop().unwrap_or_default();
            let (policy, trace) = (&self.policy.annotation, &mut self.client.trace);
            let annotator = &mut self.bench.annotator;
            annotator.plan_parse(policy, parse.text(), trace, &around, &mut plan);
            match plan.verdict() {
                Verdict::Edited => {
                    self.bench.tally.on_annotated();
                    write_edited(&arrived, &plan, parse.name.len() + 1, out);
                    query.positions = plan.positions();
                    server.unnamed.positions = plan.positions();
                    disposition = Disposition::Discard;
                }
                Verdict::Untouched(reason) => self.bench.tally.on_skipped(reason),
                Verdict::Answered => {}
            }
            self.bench.plans.push(plan);
        }
        server.exchange.on_request(OutstandingRequest {
            query: Some(query),
            effect,
            ..OutstandingRequest::forwarded(RequestKind::Parse)
        });
        disposition
    }

    /// The unnamed statement becomes one that has a name on servers, where it is parsed once.
    fn share_unnamed(
        &mut self,
        arrived: Arrived<'_>,
        parse: &Parse<'_>,
        meaning: &Rc<Meaning>,
        out: &mut Outbound,
    ) -> Disposition {
        let statement = self.definitions.intern(Some(meaning), parse.definition);
        if !self.is_statement_settled(&statement) {
            return self.pause_unsettled(out);
        }
        let Some(server) = self.server.as_deref_mut() else {
            return self.pause(Pause::NeedsServer);
        };
        self.bench.tally.client_parses += 1;
        let shared = UnnamedStatement::Shared(Rc::clone(&statement));
        let before = std::mem::replace(&mut self.client.unnamed, shared);
        let is_known = server.statements.touch(&statement);
        let has_failed =
            server.exchange.is_quiet() && server.exchange.status() == TransactionStatus::Failed;
        if is_known && !has_failed {
            // Where it is the same again, nothing has to be taken back.
            let effect = match before == self.client.unnamed {
                true => Effect::None,
                false => Effect::Unnamed {
                    before,
                    prepared: None,
                },
            };
            server.exchange.on_request(OutstandingRequest {
                effect,
                ..OutstandingRequest::fabricated(RequestKind::Parse, PARSE_COMPLETE)
            });
            self.emit_fabricated();
            return Disposition::Discard;
        }
        // In a failed transaction the server refuses it ahead of finding out that it has the statement already.
        let prepared = (!is_known).then(|| Rc::clone(&statement));
        if !is_known {
            make_room(server, self.policy, out, &mut self.bench.tally);
            server.statements.insert(Rc::clone(&statement));
            self.bench.tally.server_parses += 1;
        }
        rename_parse(&arrived, parse, &statement, out);
        let query = Some(parse_in_flight(
            server,
            self.client,
            parse,
            self.received,
            self.now,
        ));
        server.exchange.on_request(OutstandingRequest {
            query,
            effect: Effect::Unnamed { before, prepared },
            ..OutstandingRequest::forwarded(RequestKind::Parse)
        });
        Disposition::ForwardBodyFrom(parse.name.len() + 1)
    }

    pub(super) fn on_bind(
        &mut self,
        arrived: Arrived<'_>,
        out: &mut Outbound,
    ) -> Result<Disposition, Violation> {
        let renames = self.renames();
        let Some(server) = self.server.as_deref_mut() else {
            return Ok(self.pause(Pause::NeedsServer));
        };
        server.group.get_or_insert((self.received, self.now));
        let Some(bind) = Bind::read(arrived.body) else {
            if arrived.whole().is_none() {
                return Err(Violation::ClientNameTooLong);
            }
            self.bench.tally.binds += 1;
            server
                .exchange
                .on_request(OutstandingRequest::forwarded(RequestKind::Bind));
            return Ok(Disposition::Forward);
        };
        if !self.is_use_settled(bind.statement) {
            return Ok(self.pause_unsettled(out));
        }
        let Ok(in_use) = self.statement_for_use(bind.statement) else {
            return Ok(self.pause_unsettled(out));
        };
        let server = self.server.as_deref_mut().expect("there was one above");
        self.bench.tally.binds += 1;
        let mut disposition = Disposition::Forward;
        let mut bound = None;
        let mut query = None;
        match in_use {
            Some(InUse {
                statement,
                is_there,
            }) => {
                if renames {
                    if !is_there && statement.is_stale() {
                        // A server that has it would say so; one that has it not would show the new result unasked.
                        return Ok(self.refuse(changed_result(), b"", out));
                    }
                    if !is_there {
                        prepare(server, &statement, self.policy, &mut self.bench.tally, out);
                    }
                    write_renamed(&arrived, bind.names_len, out, |body| {
                        body.extend_from_slice(bind.portal);
                        body.push(0);
                        statement.write_name(body);
                        body.push(0);
                    });
                    disposition = Disposition::ForwardBodyFrom(bind.names_len);
                    bound = Some(Rc::clone(&statement));
                }
                server.bind(bind.portal, PortalSource::Named(statement));
            }
            None if bind.statement.is_empty() => {
                if self.client.unnamed == UnnamedStatement::Gone {
                    return Ok(self.refuse(no_unnamed_statement(), b"", out));
                }
                server.bind(bind.portal, PortalSource::Unnamed);
                server.on_unnamed_done();
                // Its plan is made anew if need be, which may fail at a place in the text.
                if !server.unnamed.positions.is_identity() {
                    let (text, _) = server.keep_portal_text(bind.portal);
                    let now = self.now;
                    let mut bound =
                        QueryInFlight::new(QueryKind::Execute, text, self.received, now);
                    bound.set_context(self.client.trace.context());
                    bound.positions = server.unnamed.positions.clone();
                    query = Some(bound);
                }
            }
            None if self.is_name_of_another(bind.statement) => {
                write_renamed(&arrived, bind.names_len, out, |body| {
                    body.extend_from_slice(bind.portal);
                    body.extend_from_slice(b"\0_");
                    body.extend_from_slice(bind.statement);
                    body.push(0);
                });
                disposition = Disposition::ForwardBodyFrom(bind.names_len);
            }
            // The server knows no statement of that name, and says so.
            None => {}
        }
        let server = self.server.as_deref_mut().expect("there was one above");
        server.exchange.on_request(OutstandingRequest {
            bound,
            query,
            ..OutstandingRequest::forwarded(RequestKind::Bind)
        });
        Ok(disposition)
    }

    pub(super) fn on_describe(&mut self, arrived: Arrived<'_>, out: &mut Outbound) -> Disposition {
        let renames = self.renames();
        if let Some(Target::Statement(name)) = Target::read(arrived.body)
            && !self.is_use_settled(name)
        {
            return self.pause_unsettled(out);
        }
        if self.server.is_none() {
            return self.pause(Pause::NeedsServer);
        }
        let mut disposition = Disposition::Forward;
        if let Some(Target::Statement(name)) = Target::read(arrived.body)
            && renames
        {
            if name.is_empty() && self.client.unnamed == UnnamedStatement::Gone {
                return self.refuse(no_unnamed_statement(), b"", out);
            }
            let Ok(in_use) = self.statement_for_use(name) else {
                return self.pause_unsettled(out);
            };
            let server = self.server.as_deref_mut().expect("there was one above");
            if let Some(in_use) = in_use.as_ref().filter(|in_use| !in_use.is_there) {
                let tally = &mut self.bench.tally;
                prepare(server, &in_use.statement, self.policy, tally, out);
            }
            let known = in_use.map(|in_use| in_use.statement);
            if known.is_some() || name.starts_with(Statement::NAME_PREFIX.as_bytes()) {
                write_renamed(&arrived, arrived.body.len(), out, |body| {
                    body.push(b'S');
                    match &known {
                        Some(statement) => statement.write_name(body),
                        None => {
                            body.push(b'_');
                            body.extend_from_slice(name);
                        }
                    }
                    body.push(0);
                });
                disposition = Disposition::Discard;
            }
        }
        let server = self.server.as_deref_mut().expect("there was one above");
        server
            .exchange
            .on_request(OutstandingRequest::forwarded(RequestKind::Describe));
        disposition
    }

    pub(super) fn on_close(&mut self, arrived: Arrived<'_>, out: &mut Outbound) -> Disposition {
        let renames = self.renames();
        if let Some(Target::Statement(name)) = Target::read(arrived.body)
            && !self.is_name_settled(name)
        {
            return self.pause_unsettled(out);
        }
        let Some(server) = self.server.as_deref_mut() else {
            return self.pause(Pause::NeedsServer);
        };
        let mut effect = Effect::None;
        match Target::read(arrived.body) {
            Some(Target::Statement(b"")) if self.client.unnamed != UnnamedStatement::Servers => {
                let before = std::mem::replace(&mut self.client.unnamed, UnnamedStatement::Gone);
                server.exchange.on_request(OutstandingRequest {
                    effect: Effect::Unnamed {
                        before,
                        prepared: None,
                    },
                    ..OutstandingRequest::fabricated(RequestKind::Close, CLOSE_COMPLETE)
                });
                self.emit_fabricated();
                return Disposition::Discard;
            }
            Some(Target::Statement(name)) if !name.is_empty() => {
                if let Some(statement) = self.client.statements.find(name).cloned() {
                    self.client.statements.remove(name);
                    let name = name.into();
                    effect = Effect::Closed { name, statement };
                }
                if renames {
                    // Other clients may use it: the server keeps it.
                    server.exchange.on_request(OutstandingRequest {
                        effect,
                        ..OutstandingRequest::fabricated(RequestKind::Close, CLOSE_COMPLETE)
                    });
                    self.emit_fabricated();
                    return Disposition::Discard;
                }
            }
            Some(Target::Portal(name)) if !name.is_empty() => {
                server.named_portals.remove(name);
            }
            _ => {}
        }
        server.exchange.on_request(OutstandingRequest {
            effect,
            ..OutstandingRequest::forwarded(RequestKind::Close)
        });
        Disposition::Forward
    }

    /// Whether a text came before, not long ago, and is of a kind that comes again.
    fn is_worth_keeping(&mut self, arrived: &Arrived<'_>, parse: &Parse<'_>) -> bool {
        arrived.whole().is_some()
            // What is in a comment is of this one query.
            && memchr::memmem::find(parse.text(), b"/*").is_none()
            && is_planned(parse.text())
            && self.definitions.was_seen(parse.definition)
    }

    /// Whether the client's names are mapped: its next server may be another one.
    pub(super) fn renames(&self) -> bool {
        self.client.mode != PoolMode::Session && self.policy.max_prepared_statements > 0
    }

    /// Whether a name, which the client has not prepared, is one that the proxy gave to somebody's statement.
    fn is_name_of_another(&self, name: &[u8]) -> bool {
        self.renames() && name.starts_with(Statement::NAME_PREFIX.as_bytes())
    }

    /// Answers of the proxy's own leave at once if nothing is ahead of them.
    pub(super) fn emit_fabricated(&mut self) {
        if let Some(server) = self.server.as_deref_mut() {
            self.to_client
                .write(|out| while server.exchange.take_fabricated(out) {});
        }
    }
}

pub(super) const PARSE_COMPLETE: [u8; 5] = *b"1\0\0\0\x04";
pub(super) const CLOSE_COMPLETE: [u8; 5] = *b"3\0\0\0\x04";

/// Whether a text is of a kind that is planned: it is worth keeping.
fn is_planned(text: &[u8]) -> bool {
    const WORDS: [&[u8]; 8] = [
        b"select", b"insert", b"update", b"delete", b"with", b"merge", b"values", b"table",
    ];
    WORDS.iter().any(|word| {
        text.get(..word.len())
            .is_some_and(|begins| begins.eq_ignore_ascii_case(word))
    })
}

fn no_unnamed_statement() -> ErrorResponse {
    ErrorResponse::error(
        SqlState::INVALID_SQL_STATEMENT_NAME,
        "unnamed prepared statement does not exist",
    )
}

/// What PostgreSQL says of a statement whose result has changed since it was prepared.
fn changed_result() -> ErrorResponse {
    ErrorResponse::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "cached plan must not change result type",
    )
}

/// What telemetry wants to know of a Parse, in case it fails.
pub(super) fn parse_in_flight(
    server: &mut ServerSession,
    client: &mut ClientSession,
    parse: &Parse<'_>,
    received: Received,
    now: Instant,
) -> QueryInFlight {
    let text = server.exchange.texts.keep(parse.text());
    let mut query = QueryInFlight::new(QueryKind::Execute, text, received, now);
    query.set_context(client.trace.context());
    query
}
