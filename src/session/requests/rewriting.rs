//! What goes to the server in place of a client's message, and ahead of it: edited texts, other names, Parses of the proxy's own.

use std::rc::Rc;

use super::RequestPolicy;
use crate::protocol::encode;
use crate::protocol::forwarder::Arrived;
use crate::protocol::frame::FrameHeader;
use crate::protocol::frontend::Parse;
use crate::protocol::outbound::Outbound;
use crate::session::annotator::QueryPlan;
use crate::session::outstanding::{Effect, OutstandingRequest, RequestKind};
use crate::session::server_session::ServerSession;
use crate::session::statements::Statement;
use crate::session::tally::Tally;

/// A message with the plan's edits, the rest of its text, which begins at `text_at` of the body, passed on without a copy.
pub(super) fn write_edited(
    arrived: &Arrived<'_>,
    plan: &QueryPlan,
    text_at: usize,
    out: &mut Outbound,
) {
    let body_len = arrived.header.body_len + plan.inserted_len() - plan.removed_len();
    out.copy(
        &FrameHeader {
            body_len,
            ..arrived.header
        }
        .to_bytes(),
    );
    let mut from = 0;
    for edit in plan.edits() {
        arrived.pass_body(from, text_at + edit.at, out);
        out.copy(edit.insert);
        from = text_at + edit.at + edit.remove;
    }
    arrived.pass_body(from, arrived.body.len(), out);
}

/// The header and the first bytes of a message whose first `replaced` bytes of body get another content.
pub(super) fn write_renamed(
    arrived: &Arrived<'_>,
    replaced: usize,
    out: &mut Outbound,
    names: impl FnOnce(&mut Vec<u8>),
) {
    out.write(|out| {
        let start = out.len();
        out.extend_from_slice(&arrived.header.to_bytes());
        names(out);
        let body_len = arrived.header.body_len - replaced + (out.len() - start - FrameHeader::LEN);
        let header = FrameHeader {
            body_len,
            ..arrived.header
        }
        .to_bytes();
        out.iter_mut()
            .skip(start)
            .zip(header)
            .for_each(|(to, from)| *to = from);
    });
}

pub(super) fn rename_parse(
    arrived: &Arrived<'_>,
    parse: &Parse<'_>,
    statement: &Statement,
    out: &mut Outbound,
) {
    write_renamed(arrived, parse.name.len() + 1, out, |body| {
        statement.write_name(body);
        body.push(0);
    });
}

/// Sends a Parse of the proxy's own ahead: the server lacks the statement.
pub(super) fn prepare(
    server: &mut ServerSession,
    statement: &Rc<Statement>,
    policy: &RequestPolicy,
    tally: &mut Tally,
    out: &mut Outbound,
) {
    make_room(server, policy, out, tally);
    server.statements.insert(Rc::clone(statement));
    tally.server_parses += 1;
    out.write(|out| {
        encode::message(out, b'P', |body| {
            statement.write_name(body);
            body.push(0);
            body.extend_from_slice(statement.definition());
        });
    });
    let effect = Effect::Prepared {
        name: None,
        statement: Rc::clone(statement),
    };
    server
        .exchange
        .on_request(OutstandingRequest::withheld(RequestKind::Parse, effect));
}

/// Closes the least recently used statements of a server that has as many as it may have.
pub(super) fn make_room(
    server: &mut ServerSession,
    policy: &RequestPolicy,
    out: &mut Outbound,
    tally: &mut Tally,
) {
    // Evictions that were skipped behind an error may have left more than there may be.
    while let Some(evicted) = server.statements.evict(policy.max_prepared_statements) {
        tally.evictions += 1;
        out.write(|out| {
            encode::message(out, b'C', |body| {
                body.push(b'S');
                evicted.write_name(body);
                body.push(0);
            });
        });
        server.exchange.on_request(OutstandingRequest::withheld(
            RequestKind::Close,
            Effect::Evicted(evicted),
        ));
    }
}
