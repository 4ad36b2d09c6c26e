//! Messages as bytes, written down independently of the proxy's own code.

use std::fmt;

/// A whole message as it goes over the wire.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Message {
    /// A message with a tag: the length word counts itself, but not the tag.
    pub(crate) fn tagged(tag: u8, body: &[u8]) -> Self {
        Self([&[tag][..], &length_of(body), body].concat())
    }

    /// A message of the start: it has no tag.
    pub(crate) fn untagged(body: &[u8]) -> Self {
        Self([&length_of(body)[..], body].concat())
    }

    pub(crate) fn tag(&self) -> u8 {
        self.0[0]
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.0[5..]
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [tag, _, _, _, _, body @ ..] if tag.is_ascii_graphic() => {
                write!(f, "{} \"{}\"", char::from(*tag), body.escape_ascii())
            }
            bytes => write!(f, "\"{}\"", bytes.escape_ascii()),
        }
    }
}

fn length_of(body: &[u8]) -> [u8; 4] {
    u32::try_from(body.len() + 4).unwrap().to_be_bytes()
}

fn strings(parts: &[&str]) -> Vec<u8> {
    parts
        .iter()
        .flat_map(|part| part.bytes().chain([0]))
        .collect()
}

fn count(items: usize) -> [u8; 2] {
    i16::try_from(items).unwrap().to_be_bytes()
}

fn nullable(value: Option<&[u8]>) -> Vec<u8> {
    match value {
        Some(bytes) => [
            &i32::try_from(bytes.len()).unwrap().to_be_bytes()[..],
            bytes,
        ]
        .concat(),
        None => (-1_i32).to_be_bytes().to_vec(),
    }
}

// What a client says.

pub(crate) fn startup(parameters: &[(&str, &str)]) -> Message {
    startup_version(196_608, parameters)
}

pub(crate) fn startup_version(version: u32, parameters: &[(&str, &str)]) -> Message {
    let pairs: Vec<u8> = parameters
        .iter()
        .flat_map(|(name, value)| strings(&[name, value]))
        .collect();
    Message::untagged(&[&version.to_be_bytes()[..], &pairs, &[0]].concat())
}

pub(crate) fn ssl_request() -> Message {
    Message::untagged(&80_877_103_u32.to_be_bytes())
}

/// `key` is the process id and the secret as BackendKeyData has them.
pub(crate) fn cancel_request(key: &[u8]) -> Message {
    Message::untagged(&[&80_877_102_u32.to_be_bytes()[..], key].concat())
}

pub(crate) fn password(password: &str) -> Message {
    Message::tagged(b'p', &strings(&[password]))
}

pub(crate) fn query(sql: &str) -> Message {
    Message::tagged(b'Q', &strings(&[sql]))
}

pub(crate) fn parse(name: &str, sql: &str) -> Message {
    parse_typed(name, sql, &[])
}

pub(crate) fn parse_typed(name: &str, sql: &str, types: &[u32]) -> Message {
    let types_bytes: Vec<u8> = types.iter().flat_map(|oid| oid.to_be_bytes()).collect();
    Message::tagged(
        b'P',
        &[
            &strings(&[name, sql])[..],
            &count(types.len()),
            &types_bytes,
        ]
        .concat(),
    )
}

/// All values and results are text.
pub(crate) fn bind(portal: &str, statement: &str, values: &[Option<&str>]) -> Message {
    let value_bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| nullable(value.map(str::as_bytes)))
        .collect();
    Message::tagged(
        b'B',
        &[
            &strings(&[portal, statement])[..],
            &count(0),
            &count(values.len()),
            &value_bytes,
            &count(0),
        ]
        .concat(),
    )
}

pub(crate) fn describe_statement(name: &str) -> Message {
    Message::tagged(b'D', &[b"S", &strings(&[name])[..]].concat())
}

pub(crate) fn describe_portal(name: &str) -> Message {
    Message::tagged(b'D', &[b"P", &strings(&[name])[..]].concat())
}

/// `most_rows` 0: all.
pub(crate) fn execute(portal: &str, most_rows: u32) -> Message {
    Message::tagged(
        b'E',
        &[&strings(&[portal])[..], &most_rows.to_be_bytes()].concat(),
    )
}

pub(crate) fn close_statement(name: &str) -> Message {
    Message::tagged(b'C', &[b"S", &strings(&[name])[..]].concat())
}

pub(crate) fn close_portal(name: &str) -> Message {
    Message::tagged(b'C', &[b"P", &strings(&[name])[..]].concat())
}

pub(crate) fn sync() -> Message {
    Message::tagged(b'S', b"")
}

pub(crate) fn flush() -> Message {
    Message::tagged(b'H', b"")
}

pub(crate) fn copy_data(bytes: &[u8]) -> Message {
    Message::tagged(b'd', bytes)
}

pub(crate) fn copy_done() -> Message {
    Message::tagged(b'c', b"")
}

pub(crate) fn copy_fail(reason: &str) -> Message {
    Message::tagged(b'f', &strings(&[reason]))
}

/// Arguments and result are text.
pub(crate) fn function_call(function: u32, arguments: &[Option<&str>]) -> Message {
    let argument_bytes: Vec<u8> = arguments
        .iter()
        .flat_map(|value| nullable(value.map(str::as_bytes)))
        .collect();
    Message::tagged(
        b'F',
        &[
            &function.to_be_bytes()[..],
            &count(0),
            &count(arguments.len()),
            &argument_bytes,
            &count(0),
        ]
        .concat(),
    )
}

pub(crate) fn terminate() -> Message {
    Message::tagged(b'X', b"")
}

// What a server says.

pub(crate) fn authentication_ok() -> Message {
    Message::tagged(b'R', &0_u32.to_be_bytes())
}

pub(crate) fn authentication_cleartext() -> Message {
    Message::tagged(b'R', &3_u32.to_be_bytes())
}

pub(crate) fn parameter_status(name: &str, value: &str) -> Message {
    Message::tagged(b'S', &strings(&[name, value]))
}

pub(crate) fn backend_key(process_id: u32, secret: &[u8]) -> Message {
    Message::tagged(b'K', &[&process_id.to_be_bytes()[..], secret].concat())
}

/// The status: `I`, `T` or `E`.
pub(crate) fn ready(status: u8) -> Message {
    Message::tagged(b'Z', &[status])
}

/// Columns of type text.
pub(crate) fn row_description(names: &[&str]) -> Message {
    let columns: Vec<u8> = names
        .iter()
        .flat_map(|name| {
            [
                &strings(&[name])[..],
                &0_u32.to_be_bytes(),
                &0_u16.to_be_bytes(),
                &25_u32.to_be_bytes(),
                &(-1_i16).to_be_bytes(),
                &(-1_i32).to_be_bytes(),
                &0_u16.to_be_bytes(),
            ]
            .concat()
        })
        .collect();
    Message::tagged(b'T', &[&count(names.len())[..], &columns].concat())
}

pub(crate) fn row(values: &[Option<&str>]) -> Message {
    let value_bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| nullable(value.map(str::as_bytes)))
        .collect();
    Message::tagged(b'D', &[&count(values.len())[..], &value_bytes].concat())
}

pub(crate) fn command_complete(tag: &str) -> Message {
    Message::tagged(b'C', &strings(&[tag]))
}

pub(crate) fn empty_query_response() -> Message {
    Message::tagged(b'I', b"")
}

pub(crate) fn parse_complete() -> Message {
    Message::tagged(b'1', b"")
}

pub(crate) fn bind_complete() -> Message {
    Message::tagged(b'2', b"")
}

pub(crate) fn close_complete() -> Message {
    Message::tagged(b'3', b"")
}

pub(crate) fn no_data() -> Message {
    Message::tagged(b'n', b"")
}

pub(crate) fn portal_suspended() -> Message {
    Message::tagged(b's', b"")
}

/// No parameters.
pub(crate) fn parameter_description() -> Message {
    Message::tagged(b't', &count(0))
}

/// One column, text.
pub(crate) fn copy_in_response() -> Message {
    Message::tagged(b'G', &[0, 0, 1, 0, 0])
}

/// One column, text.
pub(crate) fn copy_out_response() -> Message {
    Message::tagged(b'H', &[0, 0, 1, 0, 0])
}

pub(crate) fn error(sqlstate: &str, message: &str) -> Message {
    fields(
        b'E',
        &[
            (b'S', "ERROR"),
            (b'V', "ERROR"),
            (b'C', sqlstate),
            (b'M', message),
        ],
    )
}

pub(crate) fn fatal(sqlstate: &str, message: &str) -> Message {
    fields(
        b'E',
        &[
            (b'S', "FATAL"),
            (b'V', "FATAL"),
            (b'C', sqlstate),
            (b'M', message),
        ],
    )
}

/// With a position, as the server counts it: characters of the query as it has received it, from 1.
pub(crate) fn error_at(sqlstate: &str, message: &str, position: usize) -> Message {
    let position = position.to_string();
    fields(
        b'E',
        &[
            (b'S', "ERROR"),
            (b'V', "ERROR"),
            (b'C', sqlstate),
            (b'M', message),
            (b'P', &position),
        ],
    )
}

pub(crate) fn notice(sqlstate: &str, message: &str) -> Message {
    fields(
        b'N',
        &[
            (b'S', "NOTICE"),
            (b'V', "NOTICE"),
            (b'C', sqlstate),
            (b'M', message),
        ],
    )
}

fn fields(tag: u8, fields: &[(u8, &str)]) -> Message {
    let bytes: Vec<u8> = fields
        .iter()
        .flat_map(|(code, value)| [&[*code][..], &strings(&[value])].concat())
        .collect();
    Message::tagged(tag, &[&bytes[..], &[0]].concat())
}

/// A field of an ErrorResponse or NoticeResponse.
pub(crate) fn field_of(message: &Message, code: u8) -> Option<String> {
    let fields = message
        .body()
        .split(|byte| *byte == 0)
        .filter(|field| field.first() == Some(&code));
    fields
        .map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
        .next()
}
