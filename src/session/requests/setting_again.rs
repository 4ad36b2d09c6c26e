//! What the client's startup packet has set is set again behind a RESET, as on a direct connection.

use std::rc::Rc;

use super::Requests;
use crate::protocol::backend::TransactionStatus;
use crate::protocol::encode;
use crate::protocol::forwarder::Disposition;
use crate::protocol::outbound::Outbound;
use crate::session::outstanding::{Delivery, Effect, OutstandingRequest, RequestKind};
use crate::session::reset_command::{self, Again};

/// The statement and the portal that set parameters again within a group of the client's.
const NAME: &[u8] = b"pgspan_again";

impl Requests<'_> {
    /// What must be set again behind a Query with this text, which `may_reset` something.
    pub(super) fn to_set_again(&self, text: &[u8], may_reset: bool) -> Option<Rc<Again>> {
        if !may_reset || self.client.own.is_empty() {
            return None;
        }
        let server = self.server.as_deref()?;
        if server.exchange.is_quiet() && server.exchange.status() == TransactionStatus::Failed {
            return None;
        }
        let own = self.client.own_beyond(&server.base);
        let around = self.client.surroundings(server.exchange.status());
        let again = reset_command::to_set_again(text, &own, around.strings, around.encoding);
        (!again.is_empty()).then(|| Rc::new(again))
    }

    /// What must be set again behind an Execute of this portal.
    pub(super) fn to_set_again_behind(&self, portal: &[u8]) -> Option<Rc<Again>> {
        if self.client.own.is_empty() {
            return None;
        }
        let text = self.server.as_deref()?.portal_command(portal);
        self.to_set_again(text, reset_command::may_be(text))
    }

    /// Sends a query of the proxy's own behind the client's, whose ReadyForQuery ends the client's reply.
    pub(super) fn set_again(&mut self, again: Rc<Again>, out: &mut Outbound) -> Disposition {
        if let Some(server) = self.server.as_deref_mut() {
            out.write(|out| {
                encode::message(out, b'Q', |body| {
                    again.write(body);
                    body.push(0);
                });
            });
            server.exchange.on_request(OutstandingRequest {
                delivery: Delivery::ReadyOnly,
                ..OutstandingRequest::withheld(RequestKind::Query, Effect::SetAgain(again))
            });
        }
        Disposition::Discard
    }

    /// The same within a group of the extended protocol, which ends when the client wants.
    pub(super) fn set_again_in_group(
        &mut self,
        again: Rc<Again>,
        out: &mut Outbound,
    ) -> Disposition {
        let Some(server) = self.server.as_deref_mut() else {
            return Disposition::Discard;
        };
        let mut sql = Vec::new();
        again.write(&mut sql);
        out.write(|out| {
            encode::parse(out, NAME, &sql, &[]);
            encode::message(out, b'B', |body| {
                for name in [NAME, NAME] {
                    body.extend_from_slice(name);
                    body.push(0);
                }
                body.extend_from_slice(&[0; 6]);
            });
            encode::message(out, b'E', |body| {
                body.extend_from_slice(NAME);
                body.extend_from_slice(&[0; 5]);
            });
            for target in [b'P', b'S'] {
                encode::message(out, b'C', |body| {
                    body.push(target);
                    body.extend_from_slice(NAME);
                    body.push(0);
                });
            }
        });
        for (kind, effect) in [
            (RequestKind::Parse, Effect::None),
            (RequestKind::Bind, Effect::None),
            (RequestKind::Execute, Effect::SetAgain(again)),
            (RequestKind::Close, Effect::None),
            (RequestKind::Close, Effect::None),
        ] {
            server
                .exchange
                .on_request(OutstandingRequest::withheld(kind, effect));
        }
        Disposition::Discard
    }
}
