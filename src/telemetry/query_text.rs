//! What may be told of a query's text.

/// A query as lines and spans tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryText {
    /// The text, without literals where they are masked; `None` where nothing may be told.
    pub text: Option<String>,
    /// In a few words: `SELECT orders`.
    pub summary: Option<String>,
    /// The same for all queries that differ in their literals only: 16 hexadecimal digits.
    pub fingerprint: Option<String>,
}

impl QueryText {
    /// Tells of `sql` what may be told, in at most `limit` characters. Costs a walk over the text: not for workers.
    pub fn of(sql: &[u8], masked: bool, limit: usize) -> Self {
        Self {
            text: (!masked).then(|| cut(&String::from_utf8_lossy(sql), limit)),
            summary: None,
            fingerprint: None,
        }
    }
}

/// The first `limit` characters, with an ellipsis where there are more.
pub fn cut(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => text.split_at(end).0.to_owned() + "…",
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(cut("größer", 3), "grö…");
        assert_eq!(cut("größer", 6), "größer");
        assert_eq!(cut("", 0), "");
    }
}
