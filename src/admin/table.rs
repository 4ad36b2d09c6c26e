//! What the console shows: rows of typed columns, as PostgreSQL would send them.

use std::borrow::Cow;

use crate::protocol::encode::message;

/// A type of PostgreSQL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// text
    Text,
    /// bytea
    Bytea,
    /// boolean
    Bool,
    /// integer
    Int4,
    /// bigint
    Int8,
    /// numeric, of which the console has whole numbers only
    Numeric,
    /// double precision
    Float8,
}

/// A column: its name and its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its type.
    pub kind: Type,
}

/// A value in a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// None.
    Null,
    /// Of a text, or of bytes in their text form.
    Text(Cow<'static, str>),
    /// Of a number.
    Int(i64),
    /// Of a floating number.
    Float(f64),
    /// Of a truth.
    Bool(bool),
}

/// Rows under columns. Each row has as many values as there are columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// What each value of a row is.
    pub columns: Cow<'static, [Column]>,
    /// The rows.
    pub rows: Vec<Vec<Value>>,
}

/// How a client wants a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// As text.
    #[default]
    Text,
    /// As PostgreSQL's functions for sending have it.
    Binary,
}

impl Type {
    /// Its oid in pg_type.
    pub fn oid(self) -> u32 {
        match self {
            Self::Bool => 16,
            Self::Bytea => 17,
            Self::Int8 => 20,
            Self::Int4 => 23,
            Self::Text => 25,
            Self::Float8 => 701,
            Self::Numeric => 1700,
        }
    }

    /// Its length in pg_type: -1 for what has none.
    fn length(self) -> i16 {
        match self {
            Self::Bool => 1,
            Self::Int4 => 4,
            Self::Int8 | Self::Float8 => 8,
            Self::Bytea | Self::Text | Self::Numeric => -1,
        }
    }
}

impl Column {
    /// A column of a table that is known when the proxy is built.
    pub const fn new(name: &'static str, kind: Type) -> Self {
        Self {
            name: Cow::Borrowed(name),
            kind,
        }
    }
}

impl Value {
    /// A text made for this row.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Cow::Owned(text.into()))
    }

    /// A number that is counted up; the largest that there is where it is larger.
    pub fn count(number: impl TryInto<i64>) -> Self {
        Self::Int(number.try_into().unwrap_or(i64::MAX))
    }

    /// A text that there may be.
    pub fn text_or_null(text: Option<impl Into<String>>) -> Self {
        text.map_or(Self::Null, Self::text)
    }

    /// As text; `None` for null.
    pub fn to_text(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::Null => return None,
            Self::Text(text) => Cow::Borrowed(text),
            Self::Int(number) => Cow::Owned(number.to_string()),
            Self::Float(number) => Cow::Owned(number.to_string()),
            Self::Bool(truth) => Cow::Borrowed(if *truth { "t" } else { "f" }),
        })
    }

    fn write_binary(&self, kind: Type, out: &mut Vec<u8>) {
        match (self, kind) {
            (Self::Int(number), Type::Int4) => {
                let number = i32::try_from(*number).unwrap_or(i32::MAX);
                out.extend_from_slice(&number.to_be_bytes());
            }
            (Self::Int(number), Type::Int8) => out.extend_from_slice(&number.to_be_bytes()),
            (Self::Int(number), Type::Numeric) => write_numeric(*number, out),
            (Self::Float(number), Type::Float8) => out.extend_from_slice(&number.to_be_bytes()),
            (Self::Bool(truth), Type::Bool) => out.push(u8::from(*truth)),
            // Of bytea there are nulls only: what it would show are keys.
            (value, _) => out.extend_from_slice(value.to_text().unwrap_or_default().as_bytes()),
        }
    }
}

/// The digits of a numeric are of base 10000; see `numeric_send` in PostgreSQL's src/backend/utils/adt/numeric.c.
fn write_numeric(number: i64, out: &mut Vec<u8>) {
    const POSITIVE: u16 = 0x0000;
    const NEGATIVE: u16 = 0x4000;
    let mut digits = Vec::new();
    let mut rest = number.unsigned_abs();
    while rest > 0 {
        digits.push(u16::try_from(rest % 10_000).expect("four decimal digits"));
        rest /= 10_000;
    }
    let count = u16::try_from(digits.len()).expect("five digits at most");
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&count.saturating_sub(1).to_be_bytes());
    let sign = if number < 0 { NEGATIVE } else { POSITIVE };
    out.extend_from_slice(&sign.to_be_bytes());
    // Digits behind the decimal point: none.
    out.extend_from_slice(&[0, 0]);
    for digit in digits.iter().rev() {
        out.extend_from_slice(&digit.to_be_bytes());
    }
}

/// RowDescription. `format` tells the format of a column.
pub fn write_description(columns: &[Column], format: impl Fn(usize) -> Format, out: &mut Vec<u8>) {
    message(out, b'T', |body| {
        let count = u16::try_from(columns.len()).expect("few columns");
        body.extend_from_slice(&count.to_be_bytes());
        for (number, column) in columns.iter().enumerate() {
            body.extend_from_slice(column.name.as_bytes());
            // The end of the name; no table, and no column of it.
            body.extend_from_slice(&[0; 7]);
            body.extend_from_slice(&column.kind.oid().to_be_bytes());
            body.extend_from_slice(&column.kind.length().to_be_bytes());
            // No modifier.
            body.extend_from_slice(&(-1_i32).to_be_bytes());
            body.extend_from_slice(&[0, u8::from(format(number) == Format::Binary)]);
        }
    });
}

/// DataRow. `format` tells the format of a column.
pub fn write_row(
    columns: &[Column],
    row: &[Value],
    format: impl Fn(usize) -> Format,
    out: &mut Vec<u8>,
) {
    debug_assert_eq!(columns.len(), row.len(), "a value for each column");
    message(out, b'D', |body| {
        let count = u16::try_from(row.len()).expect("few columns");
        body.extend_from_slice(&count.to_be_bytes());
        for (number, (value, column)) in row.iter().zip(columns).enumerate() {
            let length_at = body.len();
            body.extend_from_slice(&(-1_i32).to_be_bytes());
            let Some(text) = value.to_text() else {
                continue;
            };
            match format(number) {
                Format::Text => body.extend_from_slice(text.as_bytes()),
                Format::Binary => value.write_binary(column.kind, body),
            }
            let length = u32::try_from(body.len() - length_at - 4).expect("short values");
            if let Some(place) = body.get_mut(length_at..length_at + 4) {
                place.copy_from_slice(&length.to_be_bytes());
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_has_the_types_of_pg_type() {
        let mut out = Vec::new();
        let columns = [
            Column::new("a", Type::Text),
            Column::new("bc", Type::Int4),
            Column::new("d", Type::Numeric),
        ];
        write_description(&columns, |_| Format::Text, &mut out);
        // Name, no table, no column of it, oid, length, no modifier, text.
        let fields = [
            &b"a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0"[..],
            b"bc\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0",
            b"d\0\0\0\0\0\0\0\0\0\x06\xa4\xff\xff\xff\xff\xff\xff\0\0",
        ];
        let expected = [&b"T\0\0\0\x43\0\x03"[..], &fields.concat()].concat();
        assert_eq!(out, expected);
    }

    #[test]
    fn a_row_is_text_or_binary_as_the_client_wants_it() {
        let columns = [
            Column::new("a", Type::Text),
            Column::new("b", Type::Int4),
            Column::new("c", Type::Numeric),
            Column::new("d", Type::Text),
        ];
        let row = [
            Value::text("x"),
            Value::Int(7),
            Value::Int(123_456),
            Value::Null,
        ];
        let mut out = Vec::new();
        write_row(&columns, &row, |_| Format::Text, &mut out);
        assert_eq!(
            out,
            b"D\0\0\0\x1e\0\x04\0\0\0\x01x\0\0\0\x017\0\0\0\x06123456\xff\xff\xff\xff"
        );
        out.clear();
        write_row(&columns, &row, |_| Format::Binary, &mut out);
        // 123456 is 12 * 10000 + 3456.
        let numeric = b"\0\0\0\x0c\0\x02\0\x01\0\0\0\0\0\x0c\x0d\x80";
        let mut expected = b"D\0\0\0\x27\0\x04\0\0\0\x01x\0\0\0\x04\0\0\0\x07".to_vec();
        expected.extend(numeric);
        expected.extend(b"\xff\xff\xff\xff");
        assert_eq!(out, expected);
    }

    #[test]
    fn zero_is_a_numeric_without_digits() {
        let mut out = Vec::new();
        write_numeric(0, &mut out);
        assert_eq!(out, [0; 8]);
    }
}
