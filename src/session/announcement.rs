//! Whose work comes next, told to a server in a parameter: for prepared statements, whose text can't say it.
//!
//! A statement of the proxy's own, prepared once, is run ahead of the client's message, in the same write, with a Sync of its own
//! and nothing outstanding: it never costs a round trip, and never has a part in a transaction or a pipeline of the client's.

use crate::config::choices::PreparedChannel;
use crate::protocol::encode;
use crate::session::exchange::Exchange;
use crate::session::outstanding::{Delivery, OutstandingRequest, RequestKind};
use crate::trace_context::TraceContext;

/// What a server was told.
#[derive(Debug, Default)]
pub struct Announcement {
    /// Whether the server has the statement.
    is_prepared: bool,
    /// The value that was set; `None`: the client's own holds.
    told: Option<Told>,
    /// How often the server refused.
    failures: u32,
}

#[derive(Debug)]
struct Told {
    value: Vec<u8>,
    is_in_application_name: bool,
    /// What the client takes application_name to be.
    own: Box<[u8]>,
    /// Whether the client has set another one over it.
    is_hidden: bool,
}

/// What a server's report of application_name means to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported<'a> {
    /// The client's own value, or another that it has set.
    AsIs,
    /// What was announced: for the client its own name holds.
    Own(&'a [u8]),
}

impl Announcement {
    /// Appends messages that tell whose work comes next, where the server has not been told. Whether there are any.
    ///
    /// Only where [`Exchange::is_ready_for_own`]. `own` is the client's application_name.
    pub fn tell(
        &mut self,
        channel: PreparedChannel,
        context: Option<&TraceContext>,
        own: &[u8],
        exchange: &mut Exchange,
        out: &mut Vec<u8>,
    ) -> bool {
        let parent = context.and_then(|context| context.parent);
        let (parameter, value) = match (channel, parent) {
            (PreparedChannel::None, _) => return false,
            (PreparedChannel::ApplicationName, Some(parent)) => {
                ("application_name", parent.to_ascii().to_vec())
            }
            (PreparedChannel::ApplicationName, None) => ("application_name", own.to_vec()),
            (PreparedChannel::PgTracing, Some(parent)) => {
                let value = [b"traceparent='", &parent.to_ascii()[..], b"'"].concat();
                ("pg_tracing.trace_context", value)
            }
            (PreparedChannel::PgTracing, None) => ("pg_tracing.trace_context", Vec::new()),
        };
        let is_known = match &self.told {
            Some(told) => !told.is_hidden && told.value == value && parent.is_some(),
            None => parent.is_none(),
        };
        if is_known || self.failures >= MOST_FAILURES {
            return false;
        }
        let mut ask = |kind| {
            exchange.on_request(OutstandingRequest {
                delivery: Delivery::Swallow,
                ..OutstandingRequest::forwarded(kind)
            });
        };
        if !self.is_prepared {
            let text = format!("SELECT pg_catalog.set_config('{parameter}', $1, false)");
            encode::parse(out, NAME, text.as_bytes(), &[TEXT_OID]);
            ask(RequestKind::Parse);
        }
        encode::message(out, b'B', |body| {
            for name in [NAME, NAME] {
                body.extend_from_slice(name);
                body.push(0);
            }
            // One value, as text; the result as text.
            body.extend_from_slice(&[0, 0, 0, 1]);
            let length = i32::try_from(value.len()).expect("names are short");
            body.extend_from_slice(&length.to_be_bytes());
            body.extend_from_slice(&value);
            body.extend_from_slice(&[0, 0]);
        });
        ask(RequestKind::Bind);
        encode::message(out, b'E', |body| {
            body.extend_from_slice(NAME);
            body.extend_from_slice(&[0; 5]);
        });
        ask(RequestKind::Execute);
        encode::message(out, b'C', |body| {
            body.push(b'P');
            body.extend_from_slice(NAME);
            body.push(0);
        });
        ask(RequestKind::Close);
        encode::message(out, b'S', |_| {});
        ask(RequestKind::Sync);
        self.is_prepared = true;
        self.told = parent.map(|_| Told {
            value,
            is_in_application_name: channel == PreparedChannel::ApplicationName,
            own: own.into(),
            is_hidden: false,
        });
        true
    }

    /// The server answered with an error: a cancel that was meant for what came before, say.
    pub fn on_error(&mut self) {
        self.failures += 1;
        self.is_prepared = false;
        // What holds there now is what was told before, whatever that was.
        self.told = Some(Told {
            value: Vec::new(),
            is_in_application_name: false,
            own: Box::default(),
            is_hidden: true,
        });
    }

    /// The server reported its application_name.
    pub fn on_report(&mut self, value: &[u8]) -> Reported<'_> {
        match &mut self.told {
            Some(told) if told.is_in_application_name => {
                told.is_hidden = told.value != value;
                match told.is_hidden {
                    true => Reported::AsIs,
                    false => Reported::Own(&told.own),
                }
            }
            _ => Reported::AsIs,
        }
    }

    /// Whether application_name is not the client's own.
    pub fn is_in_application_name(&self) -> bool {
        self.told
            .as_ref()
            .is_some_and(|told| told.is_in_application_name)
    }

    /// The server has forgotten its prepared statements.
    pub fn on_statements_forgotten(&mut self) {
        self.is_prepared = false;
    }

    /// The server has forgotten what was set.
    pub fn on_parameters_forgotten(&mut self) {
        self.told = None;
    }
}

/// Of the statement and the portal.
const NAME: &[u8] = b"_pgspan_trace";

/// pg_type.oid of text.
const TEXT_OID: u32 = 25;

/// A server that refuses so often does not want to know.
const MOST_FAILURES: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace_context::TraceParent;

    const FIRST: &str = "00-11111111111111111111111111111111-1111111111111111-01";
    const SECOND: &str = "00-22222222222222222222222222222222-2222222222222222-00";

    #[test]
    fn a_server_is_told_once_for_a_trace_and_told_when_it_is_over() {
        let (mut announcement, mut exchange) = (Announcement::default(), Exchange::new());
        let mut tell = |parent| told(&mut announcement, &mut exchange, parent);
        assert_eq!(tell(None), "");
        assert_eq!(tell(Some(FIRST)), format!("PBECS {FIRST}"));
        assert_eq!(tell(Some(FIRST)), "");
        assert_eq!(tell(Some(SECOND)), format!("BECS {SECOND}"));
        assert_eq!(tell(None), "BECS shop");
        assert_eq!(tell(None), "");
        announcement.on_statements_forgotten();
        let again = told(&mut announcement, &mut exchange, Some(FIRST));
        assert_eq!(again, format!("PBECS {FIRST}"));
        announcement.on_parameters_forgotten();
        let again = told(&mut announcement, &mut exchange, Some(FIRST));
        assert_eq!(again, format!("BECS {FIRST}"));
    }

    #[test]
    fn what_was_announced_is_the_clients_own_name_to_the_client() {
        let (mut announcement, mut exchange) = (Announcement::default(), Exchange::new());
        assert_eq!(announcement.on_report(b"shop"), Reported::AsIs);
        told(&mut announcement, &mut exchange, Some(FIRST));
        let own = Reported::Own(b"shop");
        assert_eq!(announcement.on_report(FIRST.as_bytes()), own);
        // SET LOCAL application_name, and its end.
        assert_eq!(announcement.on_report(b"other"), Reported::AsIs);
        assert_eq!(announcement.on_report(FIRST.as_bytes()), own);
        // SET application_name.
        announcement.on_report(b"other");
        let again = told(&mut announcement, &mut exchange, Some(FIRST));
        assert_eq!(again, format!("BECS {FIRST}"));
    }

    #[test]
    fn a_server_that_refuses_is_left_alone_after_a_while() {
        let (mut announcement, mut exchange) = (Announcement::default(), Exchange::new());
        for _ in 0..MOST_FAILURES {
            let again = told(&mut announcement, &mut exchange, Some(FIRST));
            assert_eq!(again, format!("PBECS {FIRST}"));
            announcement.on_error();
        }
        assert_eq!(told(&mut announcement, &mut exchange, Some(FIRST)), "");
    }

    /// The kinds of the messages that are sent, and the value.
    fn told(
        announcement: &mut Announcement,
        exchange: &mut Exchange,
        parent: Option<&str>,
    ) -> String {
        let context = TraceContext {
            parent: parent.map(|text| TraceParent::parse(text.as_bytes()).unwrap()),
            ..TraceContext::default()
        };
        let mut out = Vec::new();
        let channel = PreparedChannel::ApplicationName;
        assert!(exchange.is_ready_for_own());
        announcement.tell(channel, Some(&context), b"shop", exchange, &mut out);
        let (mut kinds, mut value, mut rest) = (String::new(), String::new(), &out[..]);
        while let [tag, a, b, c, d, ..] = rest {
            let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            let (message, behind) = rest.split_at(1 + length);
            if *tag == b'B' {
                let names = 5 + 2 * (NAME.len() + 1);
                value = String::from_utf8_lossy(&message[names + 8..message.len() - 2]).into();
            }
            kinds.push(char::from(*tag));
            rest = behind;
        }
        format!("{kinds} {value}").trim_end().to_owned()
    }
}
