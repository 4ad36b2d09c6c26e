//! The client's character encoding, as far as reading SQL and counting error positions need it.

/// A client_encoding by the shape of its characters.
///
/// The server converts a query before it reads it, so what matters here is only where characters begin and end.
/// Source: PostgreSQL's `src/common/encnames.c` (names) and `src/common/wchar.c` (lengths).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientEncoding {
    /// One byte is one character: LATIN*, WIN*, ISO_8859_*, KOI8*, and SQL_ASCII.
    ///
    /// Under SQL_ASCII the server counts positions in its own encoding: use `server_encoding` in that case.
    SingleByte,
    /// UTF8, PostgreSQL's usual encoding.
    Utf8,
    /// EUC_JP, EUC_KR and EUC_JIS_2004: two bytes, three behind 0x8F.
    Euc,
    /// EUC_CN: two bytes.
    EucCn,
    /// EUC_TW: two bytes, three behind 0x8F, four behind 0x8E.
    EucTw,
    /// MULE_INTERNAL: two to four bytes.
    MuleInternal,
    /// An encoding that no server can have: a later byte of a character may look like ASCII, a backslash for one.
    ClientOnly(ClientOnlyEncoding),
    /// A name that PostgreSQL does not know; handled as cautiously as a client-only encoding.
    Unknown,
}

/// The encodings that only a client can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientOnlyEncoding {
    /// Shift JIS, also known as Windows-932.
    Sjis,
    /// Shift JIS for JIS X 0213.
    ShiftJis2004,
    /// Big5, also known as Windows-950.
    Big5,
    /// GBK, also known as Windows-936.
    Gbk,
    /// Unified Hangul Code, also known as Windows-949.
    Uhc,
    /// Johab.
    Johab,
    /// GB18030: two or four bytes.
    Gb18030,
}

impl ClientEncoding {
    /// The encoding of that name, spelt as freely as PostgreSQL allows: case and everything but letters and digits is
    /// ignored.
    pub fn from_name(name: &[u8]) -> Self {
        NAMES
            .iter()
            .find(|(_, names)| names.iter().any(|known| is_spelt(name, known)))
            .map_or(Self::Unknown, |(encoding, _)| *encoding)
    }

    /// Whether the query's bytes can't be read one by one, and nothing may be written into it.
    pub fn is_client_only(self) -> bool {
        matches!(self, Self::ClientOnly(_) | Self::Unknown)
    }

    /// How many bytes the first character takes: at least 1, and never more than there are (0 for no bytes at all).
    pub fn character_length(self, bytes: &[u8]) -> usize {
        use ClientOnlyEncoding as Only;

        let Some(&first) = bytes.first() else {
            return 0;
        };
        if first < 0x80 {
            return 1;
        }
        let length = match (self, first) {
            (Self::SingleByte | Self::Unknown, _) => 1,
            (Self::Utf8, 0xC0..=0xDF) => 2,
            (Self::Utf8, 0xE0..=0xEF) => 3,
            (Self::Utf8, 0xF0..=0xF7) => 4,
            (Self::Utf8, _) => 1,
            (Self::EucTw, 0x8E) => 4,
            (Self::Euc | Self::EucTw | Self::ClientOnly(Only::Johab), 0x8F) => 3,
            (Self::Euc | Self::EucCn | Self::EucTw, _) => 2,
            (Self::MuleInternal, 0x81..=0x8D) => 2,
            (Self::MuleInternal, 0x90..=0x9B) => 3,
            (Self::MuleInternal, 0x9C | 0x9D) => 4,
            (Self::MuleInternal, _) => 1,
            // Half-width katakana.
            (Self::ClientOnly(Only::Sjis | Only::ShiftJis2004), 0xA1..=0xDF) => 1,
            (Self::ClientOnly(Only::Gb18030), _) => match bytes.get(1) {
                Some(b'0'..=b'9') => 4,
                _ => 2,
            },
            (Self::ClientOnly(_), _) => 2,
        };
        length.min(bytes.len())
    }

    /// How many characters there are: what the server counts for an error position.
    pub fn count_characters(self, bytes: &[u8]) -> usize {
        match self {
            Self::SingleByte | Self::Unknown => bytes.len(),
            Self::Utf8 => bytes
                .iter()
                .filter(|&&byte| !matches!(byte, 0x80..=0xBF))
                .count(),
            _ => {
                let mut rest = bytes;
                let mut count = 0;
                while !rest.is_empty() {
                    rest = rest.get(self.character_length(rest)..).unwrap_or_default();
                    count += 1;
                }
                count
            }
        }
    }
}

fn is_spelt(name: &[u8], known: &str) -> bool {
    // PostgreSQL's NAMEDATALEN.
    name.len() < 64
        && name
            .iter()
            .filter(|byte| byte.is_ascii_alphanumeric())
            .map(u8::to_ascii_lowercase)
            .eq(known.bytes())
}

/// PostgreSQL's `pg_encname_tbl`.
const NAMES: &[(ClientEncoding, &[&str])] = &[
    (ClientEncoding::Utf8, &["utf8", "unicode"]),
    (
        ClientEncoding::SingleByte,
        &[
            "sqlascii",
            "latin1",
            "latin2",
            "latin3",
            "latin4",
            "latin5",
            "latin6",
            "latin7",
            "latin8",
            "latin9",
            "latin10",
            "iso88591",
            "iso88592",
            "iso88593",
            "iso88594",
            "iso88595",
            "iso88596",
            "iso88597",
            "iso88598",
            "iso88599",
            "iso885910",
            "iso885913",
            "iso885914",
            "iso885915",
            "iso885916",
            "koi8",
            "koi8r",
            "koi8u",
            "win",
            "win866",
            "win874",
            "win1250",
            "win1251",
            "win1252",
            "win1253",
            "win1254",
            "win1255",
            "win1256",
            "win1257",
            "win1258",
            "windows866",
            "windows874",
            "windows1250",
            "windows1251",
            "windows1252",
            "windows1253",
            "windows1254",
            "windows1255",
            "windows1256",
            "windows1257",
            "windows1258",
            "abc",
            "alt",
            "tcvn",
            "tcvn5712",
            "vscii",
        ],
    ),
    (ClientEncoding::Euc, &["eucjp", "euckr", "eucjis2004"]),
    (ClientEncoding::EucCn, &["euccn"]),
    (ClientEncoding::EucTw, &["euctw"]),
    (ClientEncoding::MuleInternal, &["muleinternal"]),
    (
        ClientEncoding::ClientOnly(ClientOnlyEncoding::Sjis),
        &["sjis", "shiftjis", "mskanji", "win932", "windows932"],
    ),
    (
        ClientEncoding::ClientOnly(ClientOnlyEncoding::ShiftJis2004),
        &["shiftjis2004"],
    ),
    (
        ClientEncoding::ClientOnly(ClientOnlyEncoding::Big5),
        &["big5", "win950", "windows950"],
    ),
    (
        ClientEncoding::ClientOnly(ClientOnlyEncoding::Gbk),
        &["gbk", "win936", "windows936"],
    ),
    (
        ClientEncoding::ClientOnly(ClientOnlyEncoding::Uhc),
        &["uhc", "win949", "windows949"],
    ),
    (
        ClientEncoding::ClientOnly(ClientOnlyEncoding::Johab),
        &["johab"],
    ),
    (
        ClientEncoding::ClientOnly(ClientOnlyEncoding::Gb18030),
        &["gb18030"],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    const SJIS: ClientEncoding = ClientEncoding::ClientOnly(ClientOnlyEncoding::Sjis);

    #[test]
    fn names_are_spelt_as_freely_as_postgresql_allows() {
        for name in ["UTF8", "utf-8", "Unicode", "U T F_8"] {
            assert_eq!(
                ClientEncoding::from_name(name.as_bytes()),
                ClientEncoding::Utf8,
                "{name}"
            );
        }
        assert_eq!(
            ClientEncoding::from_name(b"ISO-8859-15"),
            ClientEncoding::SingleByte
        );
        assert_eq!(ClientEncoding::from_name(b"Shift_JIS"), SJIS);
        assert_eq!(ClientEncoding::from_name(b"EUC_JP"), ClientEncoding::Euc);
    }

    #[test]
    fn an_unknown_name_is_handled_like_a_client_only_encoding() {
        for name in [&b""[..], b"utf9", &[b'-'; 64], b"\xFF"] {
            assert_eq!(ClientEncoding::from_name(name), ClientEncoding::Unknown);
        }
        assert!(ClientEncoding::Unknown.is_client_only());
        assert!(SJIS.is_client_only());
        assert!(!ClientEncoding::Utf8.is_client_only());
        assert!(!ClientEncoding::Euc.is_client_only());
    }

    #[test]
    fn characters_are_counted_by_the_shape_of_the_encoding() {
        assert_eq!(ClientEncoding::Utf8.count_characters("añ😀".as_bytes()), 3);
        assert_eq!(ClientEncoding::SingleByte.count_characters(b"a\xF1"), 2);
        assert_eq!(SJIS.count_characters(b"\x95\x5C\xB1a"), 3);
        assert_eq!(
            ClientEncoding::from_name(b"GB18030").count_characters(b"\x81\x30\x81\x30\xD5\x5C"),
            2
        );
        assert_eq!(
            ClientEncoding::EucTw.count_characters(b"\x8E\xA2\xA1\xA1a"),
            2
        );
    }

    #[test]
    fn a_character_that_is_cut_off_ends_with_the_bytes() {
        for encoding in NAMES.iter().map(|(encoding, _)| *encoding) {
            assert_eq!(encoding.character_length(b""), 0);
            for byte in 0..=255 {
                assert_eq!(
                    encoding.character_length(&[byte]),
                    1,
                    "{encoding:?} {byte:#x}"
                );
            }
        }
    }
}
