//! SQL that names a statement which the client prepared by the protocol: EXECUTE and DEALLOCATE get the server's name for it.
//! And LISTEN, where it is to be refused.

use std::ops::Range;
use std::rc::Rc;

use super::prepared::InUse;
use super::rewriting::prepare;
use super::{Requests, Sent};
use crate::config::choices::{ListenMode, PoolMode};
use crate::protocol::encode;
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::protocol::forwarder::{Arrived, Disposition};
use crate::protocol::frontend::Parse;
use crate::protocol::outbound::Outbound;
use crate::session::annotator::{QueryPlan, Surroundings};
use crate::session::client_session::ClientSession;
use crate::session::outstanding::{Delivery, Effect, OutstandingRequest, RequestKind};
use crate::session::position_map::{CharacterEdit, PositionMap};
use crate::session::server_session::ServerSession;
use crate::session::statements::Statement;
use crate::sql::lexer::{Lexer, TokenKind, identifier_value};

/// An EXECUTE or a DEALLOCATE of one statement, and nothing else.
struct Named {
    /// The statement's name.
    name: Box<[u8]>,
    /// Where it stands, in bytes.
    at: Range<usize>,
    /// Whether it is a DEALLOCATE.
    deallocates: bool,
}

impl Named {
    fn read(text: &[u8], around: &Surroundings) -> Option<Self> {
        let word = |range: Range<usize>| text.get(range).unwrap_or_default();
        let mut tokens = Lexer::new(text, around.strings, around.encoding)
            .filter(|token| !token.kind.is_blank())
            .peekable();
        let first = tokens.next()?;
        let first = word(first.start..first.end);
        let deallocates = first.eq_ignore_ascii_case(b"deallocate");
        if !deallocates && !first.eq_ignore_ascii_case(b"execute") {
            return None;
        }
        let is_name =
            |kind: TokenKind| matches!(kind, TokenKind::Identifier | TokenKind::QuotedIdentifier);
        let mut name = tokens.next().filter(|token| is_name(token.kind))?;
        if deallocates && word(name.start..name.end).eq_ignore_ascii_case(b"prepare") {
            // A statement may be called so itself.
            name = tokens.next_if(|token| is_name(token.kind)).unwrap_or(name);
        }
        let at = name.start..name.end;
        let is_all =
            name.kind == TokenKind::Identifier && word(at.clone()).eq_ignore_ascii_case(b"all");
        if deallocates && is_all {
            return None;
        }
        let mut behind = tokens.skip_while(|token| token.kind != TokenKind::Semicolon);
        if behind.any(|token| token.kind != TokenKind::Semicolon) {
            return None;
        }
        Some(Self {
            name: identifier_value(word(at.clone()))?.into(),
            at,
            deallocates,
        })
    }

    /// The text with another name in it.
    fn with_name(&self, text: &[u8], statement: &Statement) -> Vec<u8> {
        let mut renamed = text.get(..self.at.start).unwrap_or_default().to_vec();
        statement.write_name(&mut renamed);
        renamed.extend_from_slice(text.get(self.at.end..).unwrap_or_default());
        renamed
    }

    /// Where positions in the text with the other name lie in this one.
    fn positions(&self, text: &[u8], renamed: &[u8], around: &Surroundings) -> PositionMap {
        let count = |range: Range<usize>| {
            let characters = around
                .encoding
                .count_characters(text.get(range).unwrap_or_default());
            u32::try_from(characters).unwrap_or(u32::MAX)
        };
        let mut positions = PositionMap::default();
        positions.push(CharacterEdit {
            at: count(0..self.at.start),
            removed: count(self.at.clone()),
            // A server's name is ASCII.
            inserted: u32::try_from((renamed.len() + self.at.len()).saturating_sub(text.len()))
                .unwrap_or(u32::MAX),
        });
        positions
    }
}

impl Requests<'_> {
    /// Whether the text names a statement of which it is not certain what it will be.
    pub(super) fn is_named_statement_unsettled(&self, text: &[u8]) -> bool {
        self.named_in(text)
            .is_some_and(|named| !self.is_use_settled(&named.name))
    }

    /// Whether the text names a statement that the client prepared by the protocol, at a time when it can be renamed.
    pub(super) fn names_prepared_statement(&self, text: &[u8]) -> bool {
        self.server
            .as_ref()
            .is_some_and(|server| server.exchange.is_quiet())
            && self
                .named_in(text)
                .is_some_and(|named| self.client.statements.find(&named.name).is_some())
    }

    /// Sends a Query with the server's name for the statement in it.
    pub(super) fn query_with_server_name(
        &mut self,
        text: &[u8],
        plan: &mut QueryPlan,
        out: &mut Outbound,
    ) -> Disposition {
        let around = self.client.surroundings(self.status());
        let Some(named) = self.named_in(text) else {
            return self.forward_query(text, Some(plan), Sent::as_it_is());
        };
        // Nothing is outstanding: it is settled.
        let Ok(Some(InUse {
            statement,
            is_there,
        })) = self.statement_for_use(&named.name)
        else {
            return self.forward_query(text, Some(plan), Sent::as_it_is());
        };
        if let Some(server) = self.server.as_deref_mut()
            && !is_there
        {
            prepare(server, &statement, self.policy, &mut self.bench.tally, out);
            // An error of it must not make the server ignore the query.
            out.write(encode::sync);
            server.exchange.on_request(OutstandingRequest::withheld(
                RequestKind::Sync,
                Effect::None,
            ));
        }
        let renamed = named.with_name(text, &statement);
        out.write(|out| encode::query(out, &renamed));
        let sent = Sent {
            delivery: Delivery::Forward,
            positions: named.positions(text, &renamed, &around),
            effect: match named.deallocates {
                true => Effect::Deallocated {
                    name: named.name,
                    statement,
                },
                false => Effect::None,
            },
        };
        self.forward_query(text, Some(plan), sent);
        Disposition::Discard
    }

    /// The same of a Parse of the unnamed statement. `None`: it is none of these.
    pub(super) fn parse_with_server_names(
        &mut self,
        arrived: &Arrived<'_>,
        parse: &Parse<'_>,
        out: &mut Outbound,
    ) -> Option<Disposition> {
        let text = parse.text();
        if !matches!(text, [b'd' | b'D' | b'e' | b'E', ..]) || self.client.statements.is_empty() {
            return None;
        }
        arrived.whole()?;
        if self.is_named_statement_unsettled(text) {
            return Some(self.pause_unsettled(out));
        }
        let around = self.client.surroundings(self.status());
        let named = self.named_in(text)?;
        let Ok(in_use) = self.statement_for_use(&named.name) else {
            return Some(self.pause_unsettled(out));
        };
        let InUse {
            statement,
            is_there,
        } = in_use?;
        let server = self.server.as_deref_mut()?;
        if !is_there {
            prepare(server, &statement, self.policy, &mut self.bench.tally, out);
        }
        let renamed = named.with_name(text, &statement);
        let types = parse.definition.get(text.len()..).unwrap_or_default();
        out.write(|out| {
            encode::message(out, b'P', |body| {
                body.push(0);
                body.extend_from_slice(&renamed);
                body.extend_from_slice(types);
            });
        });
        server.on_unnamed_parse(text, None);
        let mut query =
            super::prepared::parse_in_flight(server, self.client, parse, self.received, self.now);
        query.positions = named.positions(text, &renamed, &around);
        server.exchange.on_request(OutstandingRequest {
            query: Some(query),
            ..OutstandingRequest::forwarded(RequestKind::Parse)
        });
        Some(Disposition::Discard)
    }

    /// What an Execute of this portal does to the client's statements: it may be a DEALLOCATE.
    pub(super) fn deallocated_by(
        client: &ClientSession,
        server: &ServerSession,
        portal: &[u8],
    ) -> Effect {
        let text = server.portal_command(portal);
        if !matches!(text, [b'd' | b'D', ..]) || client.statements.is_empty() {
            return Effect::None;
        }
        let around = client.surroundings(server.exchange.status());
        let named = Named::read(text, &around).filter(|named| named.deallocates);
        let statement = named
            .as_ref()
            .and_then(|named| client.statements.find(&named.name));
        match (statement.map(Rc::clone), named) {
            (Some(statement), Some(Named { name, .. })) => Effect::Deallocated { name, statement },
            _ => Effect::None,
        }
    }

    /// Whether there is a LISTEN in the text that must not be.
    pub(super) fn refuses_listen(&self, text: &[u8]) -> bool {
        if self.client.listen == ListenMode::Pin || self.client.mode == PoolMode::Session {
            return false;
        }
        let around = self.client.surroundings(self.status());
        let mut at_start = true;
        Lexer::new(text, around.strings, around.encoding)
            .filter(|token| !token.kind.is_blank())
            .any(|token| {
                let is_first = std::mem::replace(&mut at_start, token.kind == TokenKind::Semicolon);
                let word = text.get(token.start..token.end).unwrap_or_default();
                is_first && word.eq_ignore_ascii_case(b"listen")
            })
    }

    /// The same of a Parse: refuses it if so.
    pub(super) fn refuse_listen(&mut self, text: &[u8], out: &mut Outbound) -> Option<Disposition> {
        (self.client.listen == ListenMode::Refuse && self.refuses_listen(text))
            .then(|| self.refuse(listen_refused(), text, out))
    }

    /// Refuses a Query with a LISTEN. A transaction that is open on the server fails with it.
    pub(super) fn refuse_query(
        &mut self,
        text: &[u8],
        plan: &mut QueryPlan,
        out: &mut Outbound,
    ) -> Disposition {
        let error = listen_refused();
        // The text is none that PostgreSQL's grammar takes, and tells readers of its log why.
        let refused = format!("pgspan: {}", error.message);
        out.write(|out| encode::query(out, refused.as_bytes()));
        let sent = Sent {
            delivery: Delivery::Refuse(Box::new(error)),
            ..Sent::as_it_is()
        };
        self.forward_query(text, Some(plan), sent);
        Disposition::Discard
    }

    fn named_in(&self, text: &[u8]) -> Option<Named> {
        if !self.renames() {
            return None;
        }
        Named::read(text, &self.client.surroundings(self.status()))
    }
}

fn listen_refused() -> ErrorResponse {
    ErrorResponse::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "LISTEN is refused in transaction pooling (listen_in_transaction_mode)",
    )
}
