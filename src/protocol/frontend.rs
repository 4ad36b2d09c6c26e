//! Messages that a client sends.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>.

use crate::protocol::frame::split_cstr;

/// What kind of message a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrontendTag {
    /// A simple query.
    Query = b'Q',
    /// Parse a statement.
    Parse = b'P',
    /// Bind parameters to a statement, which makes a portal.
    Bind = b'B',
    /// Describe a statement or a portal.
    Describe = b'D',
    /// Execute a portal.
    Execute = b'E',
    /// Close a statement or a portal.
    Close = b'C',
    /// Send what has been answered so far.
    Flush = b'H',
    /// End of a pipeline's transaction, answered by ReadyForQuery.
    Sync = b'S',
    /// Call of a function by its oid.
    FunctionCall = b'F',
    /// COPY data.
    CopyData = b'd',
    /// End of COPY data.
    CopyDone = b'c',
    /// COPY is given up.
    CopyFail = b'f',
    /// Good-bye.
    Terminate = b'X',
    /// An answer in the course of logging in.
    Password = b'p',
}

impl FrontendTag {
    /// The kind for a tag byte, `None` where PostgreSQL says `invalid frontend message type`.
    pub fn from_byte(tag: u8) -> Option<Self> {
        Some(match tag {
            b'Q' => Self::Query,
            b'P' => Self::Parse,
            b'B' => Self::Bind,
            b'D' => Self::Describe,
            b'E' => Self::Execute,
            b'C' => Self::Close,
            b'H' => Self::Flush,
            b'S' => Self::Sync,
            b'F' => Self::FunctionCall,
            b'd' => Self::CopyData,
            b'c' => Self::CopyDone,
            b'f' => Self::CopyFail,
            b'X' => Self::Terminate,
            b'p' => Self::Password,
            _ => return None,
        })
    }

    /// The longest body that PostgreSQL takes for this kind.
    ///
    /// Source: `SocketBackend` in src/backend/tcop/postgres.c, PQ_SMALL_MESSAGE_LIMIT and PQ_LARGE_MESSAGE_LIMIT in libpq.h.
    pub fn max_body_len(self) -> usize {
        const SMALL: usize = 10_000;
        const LARGE: usize = 0x3fff_ffff - 1 - 4;
        match self {
            Self::Query | Self::Parse | Self::Bind | Self::FunctionCall | Self::CopyData => LARGE,
            Self::Describe
            | Self::Execute
            | Self::Close
            | Self::Flush
            | Self::Sync
            | Self::CopyDone
            | Self::CopyFail
            | Self::Terminate
            | Self::Password => SMALL,
        }
    }
}

/// The beginning of a Parse: the statement's name and the text as far as it has arrived.
#[derive(Clone, Copy)]
pub struct Parse<'a> {
    /// The statement's name, empty for the unnamed one.
    pub name: &'a [u8],
    /// Text, NUL, and the parameter types: what makes two statements the same.
    pub definition: &'a [u8],
}

impl<'a> Parse<'a> {
    /// Reads the beginning of a body; `None` where no name ends in it.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (name, definition) = split_cstr(body)?;
        Some(Self { name, definition })
    }

    /// The text, or as much of it as has arrived.
    pub fn text(&self) -> &'a [u8] {
        split_cstr(self.definition).map_or(self.definition, |(text, _)| text)
    }
}

/// The beginning of a Bind: the names.
#[derive(Clone, Copy)]
pub struct Bind<'a> {
    /// The portal's name, empty for the unnamed one.
    pub portal: &'a [u8],
    /// The statement's name, empty for the unnamed one.
    pub statement: &'a [u8],
    /// How many bytes of the body the names and their NULs take.
    pub names_len: usize,
}

impl<'a> Bind<'a> {
    /// Reads the beginning of a body; `None` where the two names don't end in it.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (portal, rest) = split_cstr(body)?;
        let (statement, _) = split_cstr(rest)?;
        Some(Self {
            portal,
            statement,
            names_len: portal.len() + statement.len() + 2,
        })
    }
}

/// What a Describe or a Close is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A statement of this name, empty for the unnamed one.
    Statement(&'a [u8]),
    /// A portal of this name, empty for the unnamed one.
    Portal(&'a [u8]),
}

impl<'a> Target<'a> {
    /// Reads the whole body of a Describe or a Close.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (kind, rest) = body.split_first()?;
        let (name, []) = split_cstr(rest)? else {
            return None;
        };
        match kind {
            b'S' => Some(Self::Statement(name)),
            b'P' => Some(Self::Portal(name)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parse_is_a_name_and_a_definition() {
        let parse = Parse::read(b"s1\0SELECT $1\0\0\x01\0\0\0\x17").unwrap();
        assert_eq!(parse.name, b"s1");
        assert_eq!(parse.text(), b"SELECT $1");
        assert_eq!(parse.definition, b"SELECT $1\0\0\x01\0\0\0\x17");
    }

    #[test]
    fn a_bind_names_its_portal_and_its_statement() {
        let bind = Bind::read(b"\0s1\0\0\0rest").unwrap();
        assert_eq!(
            (bind.portal, bind.statement, bind.names_len),
            (&b""[..], &b"s1"[..], 4)
        );
        assert!(Bind::read(b"\0s1").is_none());
    }

    #[test]
    fn a_target_is_exactly_one_name() {
        assert!(Target::read(b"Ss1\0") == Some(Target::Statement(b"s1")));
        assert!(Target::read(b"P\0") == Some(Target::Portal(b"")));
        assert!(Target::read(b"Ss1\0x").is_none());
        assert!(Target::read(b"X\0").is_none());
    }
}
