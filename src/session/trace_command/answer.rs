//! The answer to a command on the trace context, as messages.

use smallvec::SmallVec;

use crate::protocol::error_response::ErrorResponse;

/// What a command is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Before everything else.
    pub warnings: SmallVec<[ErrorResponse; 1]>,
    /// The names of the columns that SHOW and the functions return.
    pub columns: SmallVec<[Box<str>; 1]>,
    /// The only row: `None` for NULL. Empty where only the columns are told.
    pub values: SmallVec<[Option<Box<[u8]>>; 1]>,
    /// For CommandComplete.
    pub tag: &'static str,
}

impl Answer {
    /// One more column, with its value.
    pub fn add_column(&mut self, column: &str, value: Option<Box<[u8]>>) {
        self.columns.push(column.into());
        self.values.push(value);
    }

    /// Whether there is a row.
    pub fn has_row(&self) -> bool {
        !self.columns.is_empty()
    }

    /// Appends the answer to a simple query, without ReadyForQuery.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for warning in &self.warnings {
            warning.encode(out);
        }
        self.encode_row_description(out);
        self.encode_row(out);
        self.encode_command_complete(out);
    }

    /// Appends RowDescription, where there is a row: the answer to Describe of a statement.
    pub fn encode_row_description(&self, out: &mut Vec<u8>) {
        self.encode_row_description_with(|_| 0, out);
    }

    /// The same with the columns' format codes: the answer to Describe of a portal.
    pub fn encode_row_description_with(&self, format: impl Fn(usize) -> i16, out: &mut Vec<u8>) {
        if !self.has_row() {
            return;
        }
        encode_message(b'T', out, |out| {
            out.extend_from_slice(&count_word(self.columns.len()));
            for (at, column) in self.columns.iter().enumerate() {
                out.extend_from_slice(column.as_bytes());
                out.push(0);
                // No table, no column of it; text, of variable length, without a modifier.
                out.extend_from_slice(&0_i32.to_be_bytes());
                out.extend_from_slice(&0_i16.to_be_bytes());
                out.extend_from_slice(&TEXT_OID.to_be_bytes());
                out.extend_from_slice(&(-1_i16).to_be_bytes());
                out.extend_from_slice(&(-1_i32).to_be_bytes());
                out.extend_from_slice(&format(at).to_be_bytes());
            }
        });
    }

    /// Appends DataRow, where there is a row.
    pub fn encode_row(&self, out: &mut Vec<u8>) {
        if !self.has_row() {
            return;
        }
        encode_message(b'D', out, |out| {
            out.extend_from_slice(&count_word(self.values.len()));
            for value in &self.values {
                match value {
                    Some(value) => {
                        out.extend_from_slice(&length_word(value.len()));
                        out.extend_from_slice(value);
                    }
                    None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
                }
            }
        });
    }

    /// Appends CommandComplete.
    pub fn encode_command_complete(&self, out: &mut Vec<u8>) {
        encode_message(b'C', out, |out| {
            out.extend_from_slice(self.tag.as_bytes());
            out.push(0);
        });
    }
}

fn encode_message(tag: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = length_word(out.len() - start);
    out[start..start + 4].copy_from_slice(&length);
}

fn length_word(length: usize) -> [u8; 4] {
    i32::try_from(length)
        .expect("values are limited far below 2 GiB")
        .to_be_bytes()
}

fn count_word(count: usize) -> [u8; 2] {
    i16::try_from(count)
        .expect("there are only so many calls")
        .to_be_bytes()
}

/// pg_type.oid of text.
const TEXT_OID: i32 = 25;
