//! Where a message begins and ends.

/// The tag and the length of a message, from its first five bytes.
///
/// Source: <https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-MESSAGE-CONCEPTS>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The first byte, which says what kind of message it is; its meaning depends on the direction.
    pub tag: u8,
    /// How many bytes follow the length word.
    pub body_len: usize,
}

impl FrameHeader {
    /// A tag and a length word.
    pub const LEN: usize = 5;

    /// Reads a header. `None` where the length word is one that no message can have: under 4, or over `i32::MAX`.
    pub fn parse(bytes: [u8; Self::LEN]) -> Option<Self> {
        let [tag, length @ ..] = bytes;
        // On the wire the length counts itself, but not the tag.
        let body_len = i32::from_be_bytes(length).checked_sub(4)?;
        Some(Self {
            tag,
            body_len: usize::try_from(body_len).ok()?,
        })
    }

    /// The five bytes of it. The length must fit, as every length that was parsed or bounded by PostgreSQL's limit does.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let length = u32::try_from(self.body_len + 4).expect("a body is shorter than 2 GiB");
        let [a, b, c, d] = length.to_be_bytes();
        [self.tag, a, b, c, d]
    }
}

/// A whole message after the startup phase: its tag and what follows the length word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The first byte, which says what kind of message it is; its meaning depends on the direction.
    pub tag: u8,
    /// Everything behind the length word.
    pub body: &'a [u8],
}

/// Splits `bytes` behind its first NUL: the text in front of it, and what follows it.
pub fn split_cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(0, bytes)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_counts_the_bytes_behind_its_length_word() {
        let header = FrameHeader::parse(*b"Q\0\0\0\x0d").unwrap();
        assert_eq!(
            header,
            FrameHeader {
                tag: b'Q',
                body_len: 9
            }
        );
        assert_eq!(header.to_bytes(), *b"Q\0\0\0\x0d");
    }

    #[test]
    fn a_length_that_does_not_count_itself_is_none() {
        assert_eq!(FrameHeader::parse(*b"Q\0\0\0\x03"), None);
        assert_eq!(FrameHeader::parse(*b"Q\xff\xff\xff\xff"), None);
        assert_eq!(FrameHeader::parse(*b"Q\x80\0\0\0"), None);
    }
}
