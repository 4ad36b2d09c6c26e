//! What a server says while no client is linked to it: answers to the proxy's own queries, and what comes at any time.

use crate::protocol::backend::{BackendTag, ErrorFields, TransactionStatus, parameter_status};
use crate::protocol::error_response::{ErrorResponse, SqlState};
use crate::protocol::forwarder::{Arrived, BodyNeeded, Disposition, Judge};
use crate::protocol::frame::FrameHeader;
use crate::protocol::outbound::Outbound;
use crate::protocol::startup::Parameter;
use crate::session::violation::Violation;

/// Listens to a server. Nothing of it is passed on.
#[derive(Debug, Default)]
pub struct Unlinked {
    /// Parameters that were reported.
    pub reported: Vec<Parameter>,
    /// The first error.
    pub error: Option<OwnQueryError>,
    /// The status, once the query is answered.
    pub ready: Option<TransactionStatus>,
    /// Whether anything came that only answers a request.
    pub has_answered: bool,
}

/// An error that the server answered to a query of the proxy's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnQueryError {
    /// The SQLSTATE.
    pub code: SqlState,
    /// What happened, in the server's words.
    pub message: Box<str>,
    /// Whether the session is over.
    pub is_fatal: bool,
}

impl OwnQueryError {
    /// The same as an end of the client's session, for whose sake the query was.
    pub fn to_fatal(&self) -> ErrorResponse {
        ErrorResponse::fatal(self.code, self.message.to_string())
    }
}

/// The longest message that is looked at.
const WHOLE_LIMIT: usize = 1 << 20;

impl Judge for Unlinked {
    type Violation = Violation;

    fn malformed(&mut self, tag: u8) -> Violation {
        Violation::ServerMessageLength(tag)
    }

    fn body_needed(&mut self, header: FrameHeader) -> Result<BodyNeeded, Violation> {
        let tag =
            BackendTag::from_byte(header.tag).ok_or(Violation::ServerMessageType(header.tag))?;
        Ok(match tag {
            BackendTag::ParameterStatus | BackendTag::ReadyForQuery
                if header.body_len > WHOLE_LIMIT =>
            {
                return Err(Violation::ServerMessageLength(header.tag));
            }
            BackendTag::ParameterStatus | BackendTag::ReadyForQuery => BodyNeeded::Whole,
            BackendTag::ErrorResponse => BodyNeeded::Prefix(WHOLE_LIMIT),
            _ => BodyNeeded::Nothing,
        })
    }

    fn on_frame(
        &mut self,
        arrived: Arrived<'_>,
        _: &mut Outbound,
    ) -> Result<Disposition, Violation> {
        let tag = BackendTag::from_byte(arrived.header.tag);
        self.has_answered |= !matches!(
            tag,
            Some(
                BackendTag::ParameterStatus
                    | BackendTag::NoticeResponse
                    | BackendTag::NotificationResponse
                    | BackendTag::ErrorResponse
            )
        );
        match tag {
            Some(BackendTag::ParameterStatus) => {
                let (name, value) = parameter_status(arrived.body)
                    .ok_or(Violation::ServerMalformed(arrived.header.tag))?;
                self.reported.push((name.into(), value.into()));
            }
            Some(BackendTag::ErrorResponse) => {
                let fields = ErrorFields::new(arrived.body);
                self.error.get_or_insert_with(|| OwnQueryError {
                    code: fields.sql_state(),
                    message: String::from_utf8_lossy(fields.field(b'M').unwrap_or_default()).into(),
                    is_fatal: fields.is_fatal(),
                });
            }
            Some(BackendTag::ReadyForQuery) => {
                let status = arrived
                    .body
                    .first()
                    .copied()
                    .and_then(TransactionStatus::from_byte);
                self.ready = Some(status.ok_or(Violation::ServerMalformed(arrived.header.tag))?);
            }
            _ => {}
        }
        Ok(Disposition::Discard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::forwarder::Forwarder;

    #[test]
    fn the_answer_to_a_query_of_the_proxys_own_is_what_it_reported() {
        let (mut unlinked, mut out) = (Unlinked::default(), Outbound::new());
        let answer = b"T\0\0\0\x06\0\0D\0\0\0\x06\0\0C\0\0\0\x0dSELECT 1\0S\0\0\0\x11TimeZone\0GMT\0Z\0\0\0\x05I";
        let advanced = Forwarder::new()
            .advance(answer, &mut unlinked, &mut out)
            .unwrap();
        assert!(out.is_empty() && advanced.consumed == answer.len());
        assert_eq!(unlinked.ready, Some(TransactionStatus::Idle));
        assert_eq!(
            unlinked.reported,
            [(b"TimeZone"[..].into(), b"GMT"[..].into())]
        );
        assert_eq!(unlinked.error, None);
    }

    #[test]
    fn an_error_keeps_its_sqlstate() {
        let (mut unlinked, mut out) = (Unlinked::default(), Outbound::new());
        let error = b"E\0\0\0\x1eSERROR\0C22023\0Mbad value\0\0";
        Forwarder::new()
            .advance(error, &mut unlinked, &mut out)
            .unwrap();
        let error = unlinked.error.unwrap();
        assert_eq!(
            (error.code, &*error.message, error.is_fatal),
            (SqlState::INVALID_PARAMETER_VALUE, "bad value", false)
        );
    }
}
