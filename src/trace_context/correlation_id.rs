//! The application's own id of a request.

/// Which rule a correlation id breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCorrelationId {
    /// It is longer than allowed.
    #[error("the correlation id is too long")]
    Length,
    /// It has a character that can't be printed, or is not UTF-8.
    #[error("the correlation id must be printable UTF-8")]
    Character,
}

/// Takes any printable text of 1 to `limit` bytes; a comment encodes what could end it.
/// An empty one is none.
pub fn parse_correlation_id(
    text: &[u8],
    limit: usize,
) -> Result<Option<Box<str>>, InvalidCorrelationId> {
    if text.len() > limit {
        return Err(InvalidCorrelationId::Length);
    }
    match str::from_utf8(text) {
        Ok("") => Ok(None),
        Ok(text) if !text.chars().any(char::is_control) => Ok(Some(text.into())),
        Ok(_) | Err(_) => Err(InvalidCorrelationId::Character),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_printable_text_within_the_limit_is_one() {
        assert_eq!(parse_correlation_id(b"", 4), Ok(None));
        assert_eq!(parse_correlation_id(b"a*/b", 4), Ok(Some("a*/b".into())));
        assert_eq!(
            parse_correlation_id(b"abcde", 4),
            Err(InvalidCorrelationId::Length)
        );
        assert_eq!(
            parse_correlation_id(b"a\nb", 4),
            Err(InvalidCorrelationId::Character)
        );
        assert_eq!(
            parse_correlation_id(b"\xff", 4),
            Err(InvalidCorrelationId::Character)
        );
    }
}
