//! What the proxy itself answers when something is wrong: ErrorResponse and NoticeResponse.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-error-fields.html>.

use std::borrow::Cow;
use std::fmt;

/// A SQLSTATE: five characters out of `0-9A-Z`.
///
/// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// 00000: nothing is wrong.
    pub const SUCCESSFUL_COMPLETION: Self = Self(*b"00000");
    /// 08P01: a peer broke the rules of the protocol.
    pub const PROTOCOL_VIOLATION: Self = Self(*b"08P01");
    /// 08006: the connection to the server was lost.
    pub const CONNECTION_FAILURE: Self = Self(*b"08006");
    /// 0A000: asked for something that is not supported.
    pub const FEATURE_NOT_SUPPORTED: Self = Self(*b"0A000");
    /// 25P01: a command that needs a transaction came outside of one.
    pub const NO_ACTIVE_SQL_TRANSACTION: Self = Self(*b"25P01");
    /// 25P02: the transaction has failed, only its end is accepted.
    pub const CONFIGURATION_LIMIT_EXCEEDED: Self = Self(*b"53400");
    /// In a transaction that has failed.
    pub const IN_FAILED_SQL_TRANSACTION: Self = Self(*b"25P02");
    /// 26000: there is no prepared statement of that name.
    pub const INVALID_SQL_STATEMENT_NAME: Self = Self(*b"26000");
    /// 28000: this user may not connect this way.
    pub const INVALID_AUTHORIZATION_SPECIFICATION: Self = Self(*b"28000");
    /// 28P01: wrong password.
    pub const INVALID_PASSWORD: Self = Self(*b"28P01");
    /// 34000: there is no cursor, or no portal, of that name.
    pub const INVALID_CURSOR_NAME: Self = Self(*b"34000");
    /// 3D000: there is no such database.
    pub const INVALID_CATALOG_NAME: Self = Self(*b"3D000");
    /// 42601: syntax error.
    pub const SYNTAX_ERROR: Self = Self(*b"42601");
    /// 42703: there is no such column.
    pub const UNDEFINED_COLUMN: Self = Self(*b"42703");
    /// 42P01: there is no such table.
    pub const UNDEFINED_TABLE: Self = Self(*b"42P01");
    /// 42704: there is no such object, or no such parameter.
    pub const UNDEFINED_OBJECT: Self = Self(*b"42704");
    /// 42P05: there is a prepared statement of that name already.
    pub const DUPLICATE_PREPARED_STATEMENT: Self = Self(*b"42P05");
    /// 22023: a parameter has a value that it can't have.
    pub const INVALID_PARAMETER_VALUE: Self = Self(*b"22023");
    /// 22P06: a backslash in a string that is not marked as one with escapes.
    pub const NONSTANDARD_ESCAPE: Self = Self(*b"22P06");
    /// 42622: a name is longer than names can be.
    pub const NAME_TOO_LONG: Self = Self(*b"42622");
    /// 22P02: a text is none of the type that it is to be read as.
    pub const INVALID_TEXT_REPRESENTATION: Self = Self(*b"22P02");
    /// 53300: too many connections.
    pub const TOO_MANY_CONNECTIONS: Self = Self(*b"53300");
    /// 54000: a limit of the program was passed.
    pub const PROGRAM_LIMIT_EXCEEDED: Self = Self(*b"54000");
    /// 55000: an object is not in the state that this needs.
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: Self = Self(*b"55000");
    /// 57014: the query was cancelled.
    pub const QUERY_CANCELED: Self = Self(*b"57014");
    /// 57P01: the server is shutting down on an administrator's command.
    pub const ADMIN_SHUTDOWN: Self = Self(*b"57P01");
    /// 57P03: the server can't accept connections now.
    pub const CANNOT_CONNECT_NOW: Self = Self(*b"57P03");
    /// F0000: the configuration is wrong.
    pub const CONFIG_FILE_ERROR: Self = Self(*b"F0000");
    /// XX000: the proxy broke a promise of its own.
    pub const INTERNAL_ERROR: Self = Self(*b"XX000");

    /// The SQLSTATE in an error field, or `None` where it is not five characters out of `0-9A-Z`.
    pub fn from_bytes(code: &[u8]) -> Option<Self> {
        let code: [u8; 5] = code.try_into().ok()?;
        code.iter()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
            .then_some(Self(code))
    }

    /// The five characters.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("a SQLSTATE is ASCII by construction")
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How bad it is; decides the message's tag and whether the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The session ends.
    Fatal,
    /// The command ends, the session goes on.
    Error,
    /// A NoticeResponse that something is probably wrong.
    Warning,
    /// A NoticeResponse that something is worth knowing.
    Notice,
}

impl Severity {
    /// The word on the wire, which is also the untranslated one.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fatal => "FATAL",
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
        }
    }
}

/// An error or a notice in the proxy's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorResponse {
    /// How bad it is.
    pub severity: Severity,
    /// What class of error, for programs.
    pub code: SqlState,
    /// What happened, for people; never holds a secret or a literal of a query.
    pub message: Cow<'static, str>,
    /// More on it.
    pub detail: Option<Cow<'static, str>>,
    /// What to do about it.
    pub hint: Option<Cow<'static, str>>,
}

impl ErrorResponse {
    /// An error that ends the session.
    pub fn fatal(code: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Severity::Fatal, code, message)
    }

    /// An error that ends the command.
    pub fn error(code: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    /// A warning, sent as a notice.
    pub fn warning(code: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Severity::Warning, code, message)
    }

    /// A notice that something is worth knowing.
    pub fn notice(code: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Severity::Notice, code, message)
    }

    fn new(severity: Severity, code: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            severity,
            code,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    /// The same with a DETAIL.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same with a HINT.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Appends the message as it goes over the wire: `E` or `N`, length, fields S V C M \[D\] \[H\].
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self.severity {
            Severity::Fatal | Severity::Error => b'E',
            Severity::Warning | Severity::Notice => b'N',
        });
        let length_at = out.len();
        out.extend_from_slice(&[0; 4]);
        let fields = [
            (b'S', Some(self.severity.as_str())),
            (b'V', Some(self.severity.as_str())),
            (b'C', Some(self.code.as_str())),
            (b'M', Some(&*self.message)),
            (b'D', self.detail.as_deref()),
            (b'H', self.hint.as_deref()),
        ];
        for (field, text) in fields {
            let Some(text) = text else { continue };
            out.push(field);
            out.extend(text.bytes().filter(|byte| *byte != 0));
            out.push(0);
        }
        out.push(0);
        let length =
            u32::try_from(out.len() - length_at).expect("the proxy's own messages are short");
        out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_framed_with_the_fields_in_postgresqls_order() {
        let mut out = Vec::new();
        ErrorResponse::fatal(SqlState::INVALID_PASSWORD, "no")
            .with_hint("yes")
            .encode(&mut out);
        assert_eq!(out, b"E\0\0\0\x23SFATAL\0VFATAL\0C28P01\0Mno\0Hyes\0\0");
    }

    #[test]
    fn a_warning_is_a_notice() {
        let mut out = Vec::new();
        ErrorResponse::warning(SqlState::NO_ACTIVE_SQL_TRANSACTION, "w").encode(&mut out);
        assert_eq!(out.first(), Some(&b'N'));
    }

    #[test]
    fn a_sqlstate_is_five_digits_or_capitals() {
        assert_eq!(
            SqlState::from_bytes(b"57014"),
            Some(SqlState::QUERY_CANCELED)
        );
        assert_eq!(SqlState::from_bytes(b"5701"), None);
        assert_eq!(SqlState::from_bytes(b"5701a"), None);
    }
}
