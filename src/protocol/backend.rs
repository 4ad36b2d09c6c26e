//! Messages that a server sends.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>.

use crate::protocol::error_response::SqlState;
use crate::protocol::frame::split_cstr;

/// What kind of message a server sent, once it is ready for queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BackendTag {
    /// Parse has been done.
    ParseComplete = b'1',
    /// Bind has been done.
    BindComplete = b'2',
    /// Close has been done.
    CloseComplete = b'3',
    /// The rows' columns.
    RowDescription = b'T',
    /// There won't be rows.
    NoData = b'n',
    /// The parameters' types.
    ParameterDescription = b't',
    /// A row.
    DataRow = b'D',
    /// A statement has been done.
    CommandComplete = b'C',
    /// The text had no statement in it.
    EmptyQueryResponse = b'I',
    /// Execute's row limit was reached.
    PortalSuspended = b's',
    /// A function's result.
    FunctionCallResponse = b'V',
    /// The server awaits COPY data.
    CopyInResponse = b'G',
    /// COPY data follows.
    CopyOutResponse = b'H',
    /// COPY data goes both ways (replication).
    CopyBothResponse = b'W',
    /// COPY data.
    CopyData = b'd',
    /// End of COPY data.
    CopyDone = b'c',
    /// The command, or the session, failed.
    ErrorResponse = b'E',
    /// Something worth knowing.
    NoticeResponse = b'N',
    /// NOTIFY of some session.
    NotificationResponse = b'A',
    /// A reported parameter has a new value.
    ParameterStatus = b'S',
    /// The server awaits the next command.
    ReadyForQuery = b'Z',
}

impl BackendTag {
    /// The kind for a tag byte, `None` for what a server does not send once it is ready.
    pub fn from_byte(tag: u8) -> Option<Self> {
        Some(match tag {
            b'1' => Self::ParseComplete,
            b'2' => Self::BindComplete,
            b'3' => Self::CloseComplete,
            b'T' => Self::RowDescription,
            b'n' => Self::NoData,
            b't' => Self::ParameterDescription,
            b'D' => Self::DataRow,
            b'C' => Self::CommandComplete,
            b'I' => Self::EmptyQueryResponse,
            b's' => Self::PortalSuspended,
            b'V' => Self::FunctionCallResponse,
            b'G' => Self::CopyInResponse,
            b'H' => Self::CopyOutResponse,
            b'W' => Self::CopyBothResponse,
            b'd' => Self::CopyData,
            b'c' => Self::CopyDone,
            b'E' => Self::ErrorResponse,
            b'N' => Self::NoticeResponse,
            b'A' => Self::NotificationResponse,
            b'S' => Self::ParameterStatus,
            b'Z' => Self::ReadyForQuery,
            _ => return None,
        })
    }
}

/// What ReadyForQuery says of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// No transaction is open.
    Idle,
    /// A transaction is open.
    InTransaction,
    /// A transaction is open and has failed: only its end is accepted.
    Failed,
}

impl TransactionStatus {
    /// The status for ReadyForQuery's only byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InTransaction),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }
}

/// A CommandComplete's tag, without its NUL.
pub fn command_tag(body: &[u8]) -> Option<&[u8]> {
    let (tag, []) = split_cstr(body)? else {
        return None;
    };
    Some(tag)
}

/// How many rows a command tag counts: its last word, where that is a number.
pub fn rows_of(tag: &[u8]) -> u64 {
    tag.rsplit(|byte| *byte == b' ')
        .next()
        .and_then(|word| str::from_utf8(word).ok())
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

/// The columns of a DataRow, as they are; `None` is NULL.
pub fn data_row(body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (columns, mut rest) = body.split_first_chunk()?;
    let mut values = Vec::new();
    for _ in 0..u16::from_be_bytes(*columns) {
        let (len, behind) = rest.split_first_chunk()?;
        rest = behind;
        values.push(match usize::try_from(i32::from_be_bytes(*len)) {
            Ok(len) => {
                let (value, behind) = rest.split_at_checked(len)?;
                rest = behind;
                Some(value)
            }
            Err(_) => None,
        });
    }
    rest.is_empty().then_some(values)
}

/// The name and the value in a ParameterStatus.
pub fn parameter_status(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = split_cstr(body)?;
    let (value, []) = split_cstr(rest)? else {
        return None;
    };
    Some((name, value))
}

/// The fields of an ErrorResponse or a NoticeResponse, as far as they have arrived.
///
/// Source: <https://www.postgresql.org/docs/current/protocol-error-fields.html>.
#[derive(Clone)]
pub struct ErrorFields<'a>(&'a [u8]);

impl<'a> ErrorFields<'a> {
    /// The fields in a body.
    pub fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    /// The field of this type.
    pub fn field(&self, wanted: u8) -> Option<&'a [u8]> {
        self.clone()
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, text)| text)
    }

    /// The SQLSTATE; XX000 where there is none that is one.
    pub fn sql_state(&self) -> SqlState {
        self.field(b'C')
            .and_then(SqlState::from_bytes)
            .unwrap_or(SqlState::INTERNAL_ERROR)
    }

    /// Whether the session ends with it, by the untranslated severity.
    pub fn is_fatal(&self) -> bool {
        matches!(
            self.field(b'V').or_else(|| self.field(b'S')),
            Some(b"FATAL" | b"PANIC")
        )
    }
}

impl<'a> Iterator for ErrorFields<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, rest) = self.0.split_first()?;
        let (text, rest) = split_cstr(rest)?;
        self.0 = rest;
        (*kind != 0).then_some((*kind, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_tag_counts_rows_with_its_last_word() {
        assert_eq!(rows_of(b"SELECT 12"), 12);
        assert_eq!(rows_of(b"INSERT 0 3"), 3);
        assert_eq!(rows_of(b"CREATE TABLE"), 0);
    }

    #[test]
    fn an_error_tells_its_sqlstate_and_whether_it_is_the_end() {
        let fields = ErrorFields::new(b"SFATAL\0VFATAL\0C57P01\0Mterminating\0\0");
        assert_eq!(fields.sql_state(), SqlState::ADMIN_SHUTDOWN);
        assert!(fields.is_fatal());
        assert_eq!(fields.field(b'M'), Some(&b"terminating"[..]));
        assert_eq!(fields.field(b'P'), None);
    }

    #[test]
    fn cut_fields_are_read_as_far_as_they_go() {
        assert_eq!(ErrorFields::new(b"SERR").next(), None);
        assert_eq!(ErrorFields::new(b"").sql_state(), SqlState::INTERNAL_ERROR);
    }

    #[test]
    fn a_row_is_its_columns() {
        let row = data_row(b"\0\x02\0\0\0\x02ab\xff\xff\xff\xff").unwrap();
        assert_eq!(row, [Some(&b"ab"[..]), None]);
        assert_eq!(data_row(b"\0\x01\0\0\0\x09ab"), None);
        assert_eq!(data_row(b"\0\x00x"), None);
    }

    #[test]
    fn a_parameter_status_is_two_texts() {
        assert_eq!(
            parameter_status(b"TimeZone\0UTC\0"),
            Some((&b"TimeZone"[..], &b"UTC"[..]))
        );
        assert_eq!(parameter_status(b"TimeZone\0UTC"), None);
    }
}
