//! The answer to a command on the trace context, as messages.

use smallvec::SmallVec;

use crate::protocol::error_response::ErrorResponse;

/// What a command is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Before everything else.
    pub warnings: SmallVec<[ErrorResponse; 1]>,
    /// What SHOW and the functions return.
    pub row: Option<Row>,
    /// For CommandComplete.
    pub tag: &'static str,
}

/// The only row, of one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The column's name.
    pub column: Box<str>,
    /// Its value; `None` for NULL.
    pub value: Option<Box<[u8]>>,
}

impl Answer {
    /// Appends the answer to a simple query, without ReadyForQuery.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for warning in &self.warnings {
            warning.encode(out);
        }
        self.encode_row_description(out);
        self.encode_row(out);
        self.encode_command_complete(out);
    }

    /// Appends RowDescription, where there is a row: the answer to Describe.
    pub fn encode_row_description(&self, out: &mut Vec<u8>) {
        let Some(Row { column, .. }) = &self.row else {
            return;
        };
        encode_message(b'T', out, |out| {
            out.extend_from_slice(&1_i16.to_be_bytes());
            out.extend_from_slice(column.as_bytes());
            out.push(0);
            // No table, no column of it; text, of variable length, without a modifier; sent as text.
            out.extend_from_slice(&0_i32.to_be_bytes());
            out.extend_from_slice(&0_i16.to_be_bytes());
            out.extend_from_slice(&TEXT_OID.to_be_bytes());
            out.extend_from_slice(&(-1_i16).to_be_bytes());
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            out.extend_from_slice(&0_i16.to_be_bytes());
        });
    }

    /// Appends DataRow, where there is a row.
    pub fn encode_row(&self, out: &mut Vec<u8>) {
        let Some(Row { value, .. }) = &self.row else {
            return;
        };
        encode_message(b'D', out, |out| {
            out.extend_from_slice(&1_i16.to_be_bytes());
            match value {
                Some(value) => {
                    out.extend_from_slice(&length_word(value.len()));
                    out.extend_from_slice(value);
                }
                None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
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

/// pg_type.oid of text.
const TEXT_OID: i32 = 25;
