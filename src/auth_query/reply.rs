//! What a server says when it is asked: a row, or none.

use crate::auth_query::InquiryError;
use crate::config::secret::Secret;
use crate::protocol::frame::Frame;
use crate::session::server_login::ServerRefusal;

/// What a server has in its row about a user.
#[derive(Debug)]
pub(super) struct FoundUser {
    /// What it keeps of the password, as it is; `None`: nobody can log in by one.
    pub(super) password: Option<Secret>,
}

/// What the server has said so far.
pub(super) struct Reply {
    pub(super) found: Result<Option<FoundUser>, InquiryError>,
}

impl Default for Reply {
    fn default() -> Self {
        Self { found: Ok(None) }
    }
}

impl Reply {
    /// Whether that was all.
    pub(super) fn on_message(&mut self, frame: Frame<'_>) -> bool {
        match (frame.tag, &self.found) {
            (b'Z', _) => return true,
            (b'E', _) => {
                self.found = match ServerRefusal::parse(frame.body) {
                    Ok(refusal) => Err(InquiryError::Refused(refusal)),
                    Err(_) => Err(InquiryError::Malformed),
                };
            }
            // The first row counts.
            (b'D', Ok(None)) => self.found = row(frame.body).map(Some),
            _ => {}
        }
        false
    }
}

/// DataRow: a name, which says only that there is such a user, and a password.
fn row(body: &[u8]) -> Result<FoundUser, InquiryError> {
    let (count, rest) = body.split_first_chunk().ok_or(InquiryError::Malformed)?;
    match u16::from_be_bytes(*count) {
        2 => {}
        count => return Err(InquiryError::Columns(count.into())),
    }
    let (_, rest) = column(rest)?;
    let (password, _) = column(rest)?;
    let password = match password {
        None => None,
        Some(text) => {
            let text = str::from_utf8(text).map_err(|_| InquiryError::Malformed)?;
            Some(Secret::new(text)).filter(|text| !text.expose().is_empty())
        }
    };
    Ok(FoundUser { password })
}

fn column(body: &[u8]) -> Result<(Option<&[u8]>, &[u8]), InquiryError> {
    let (length, rest) = body.split_first_chunk().ok_or(InquiryError::Malformed)?;
    match i32::from_be_bytes(*length) {
        -1 => Ok((None, rest)),
        length => usize::try_from(length)
            .ok()
            .and_then(|length| rest.split_at_checked(length))
            .map(|(value, rest)| (Some(value), rest))
            .ok_or(InquiryError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_row(columns: &[Option<&[u8]>]) -> Vec<u8> {
        let mut row = u16::try_from(columns.len()).unwrap().to_be_bytes().to_vec();
        for column in columns {
            let length = column.map_or(-1, |column| i32::try_from(column.len()).unwrap());
            row.extend_from_slice(&length.to_be_bytes());
            row.extend_from_slice(column.unwrap_or_default());
        }
        row
    }

    #[test]
    fn a_row_is_a_name_and_a_password() {
        let found = row(&data_row(&[Some(b"ann"), Some(b"secret")])).unwrap();
        assert_eq!(found.password, Some(Secret::new("secret")));
        let found = row(&data_row(&[Some(b"ann"), None])).unwrap();
        assert!(found.password.is_none());
    }

    #[test]
    fn anything_else_is_an_error() {
        let error = |body: &[u8]| row(body).unwrap_err().to_string();
        assert_eq!(
            error(&data_row(&[Some(b"ann")])),
            "expected 2 columns from auth_query, not 1"
        );
        for body in [&b""[..], b"\0\x02\0\0\0\x09ann", b"\0\x02\xff\xff\xff\xfe"] {
            assert!(matches!(row(body), Err(InquiryError::Malformed)));
        }
    }
}
