//! The `traceparent` as text.
//!
//! Source: W3C Trace Context, section 3.2; of the flags only `sampled` is known, as in level 1.

use std::fmt;

use super::{SpanId, TraceId, TraceParent, hex};

/// Which rule a `traceparent` breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTraceParent {
    /// Shorter than 55 characters, or longer where its version knows no more.
    #[error("a traceparent of version 00 has exactly 55 characters")]
    Length,
    /// The version is not two lower-case hex digits, or is ff.
    #[error("the version must be two lower-case hex digits other than ff")]
    Version,
    /// A `-` is missing where one part ends.
    #[error("the parts of a traceparent are separated by \"-\"")]
    Separator,
    /// The trace id is not 32 lower-case hex digits, or is all zero.
    #[error("the trace id must be 32 lower-case hex digits, not all zero")]
    TraceId,
    /// The parent id is not 16 lower-case hex digits, or is all zero.
    #[error("the parent id must be 16 lower-case hex digits, not all zero")]
    SpanId,
    /// The flags are not two lower-case hex digits.
    #[error("the flags must be two lower-case hex digits")]
    Flags,
}

impl TraceParent {
    /// How long one is in text.
    pub const LENGTH: usize = 55;

    /// Reads `00-<trace id>-<parent id>-<flags>`. Of a higher version, the part that version 00 defines is taken.
    pub fn parse(text: &[u8]) -> Result<Self, InvalidTraceParent> {
        let (text, rest) = text
            .split_first_chunk::<{ Self::LENGTH }>()
            .ok_or(InvalidTraceParent::Length)?;
        let [version] = hex::decode::<1>(&text[..2]).ok_or(InvalidTraceParent::Version)?;
        match (version, rest) {
            (0xff, _) => return Err(InvalidTraceParent::Version),
            (_, []) => {}
            (0, _) => return Err(InvalidTraceParent::Length),
            (_, [b'-', ..]) => {}
            (_, _) => return Err(InvalidTraceParent::Separator),
        }
        if [text[2], text[35], text[52]] != [b'-'; 3] {
            return Err(InvalidTraceParent::Separator);
        }
        let trace_id = TraceId::parse(&text[3..35]).ok_or(InvalidTraceParent::TraceId)?;
        let span_id = SpanId::parse(&text[36..52]).ok_or(InvalidTraceParent::SpanId)?;
        let [flags] = hex::decode::<1>(&text[53..]).ok_or(InvalidTraceParent::Flags)?;
        Ok(Self {
            trace_id,
            span_id,
            sampled: flags & SAMPLED != 0,
        })
    }

    /// A new trace out of 24 random bytes, not sampled by anybody; `None` in the one case in 2^64 that an id is zero.
    pub fn from_random(bytes: [u8; 24]) -> Option<Self> {
        let (trace_id, span_id) = bytes.split_first_chunk::<16>()?;
        Some(Self {
            trace_id: TraceId::from_bytes(*trace_id)?,
            span_id: SpanId::from_bytes(span_id.try_into().ok()?)?,
            sampled: false,
        })
    }

    /// Its 55 characters.
    pub fn to_ascii(self) -> [u8; Self::LENGTH] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..35].copy_from_slice(hex::encode(self.trace_id.0, &mut [0; 32]).as_bytes());
        text[36..52].copy_from_slice(hex::encode(self.span_id.0, &mut [0; 16]).as_bytes());
        text[54] |= u8::from(self.sampled);
        text
    }

    /// Appends its 55 characters.
    pub fn write_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_ascii());
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.to_ascii()).expect("hex digits and dashes are ASCII"))
    }
}

const SAMPLED: u8 = 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_one_survives_reading_and_writing() {
        let parent = TraceParent::parse(VALID.as_bytes()).unwrap();
        assert_eq!(parent.to_string(), VALID);
        assert!(parent.sampled);
    }

    #[test]
    fn unknown_flags_are_masked() {
        let parent = parse(&VALID.replace("-01", "-fe")).unwrap();
        assert_eq!(parent.to_string(), VALID.replace("-01", "-00"));
    }

    #[test]
    fn a_higher_version_is_read_as_far_as_version_00_goes() {
        for text in [
            VALID.replacen("00", "01", 1),
            VALID.replacen("00", "cc", 1) + "-what-comes",
        ] {
            assert_eq!(parse(&text).unwrap().to_string(), VALID);
        }
        assert_eq!(
            parse(&(VALID.replacen("00", "01", 1) + ".x")),
            Err(InvalidTraceParent::Separator)
        );
    }

    #[test]
    fn each_broken_rule_is_named() {
        use InvalidTraceParent::*;
        for (text, rule) in [
            (String::new(), Length),
            (VALID[..54].into(), Length),
            (VALID.to_owned() + "-", Length),
            (VALID.replacen("00", "ff", 1), Version),
            (VALID.replacen("00", "0x", 1), Version),
            (VALID.replacen("00", "0A", 1), Version),
            (VALID.replace('-', "_"), Separator),
            (VALID.replace("4bf", "4BF"), TraceId),
            (
                VALID.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
                TraceId,
            ),
            (VALID.replace("00f067aa0ba902b7", &"0".repeat(16)), SpanId),
            (
                VALID.replace("00f067aa0ba902b7", "00f067aa0ba902bg"),
                SpanId,
            ),
            (VALID.replace("-01", "-0 "), Flags),
        ] {
            assert_eq!(parse(&text), Err(rule), "{text}");
        }
    }

    #[test]
    fn random_bytes_make_a_trace_unless_an_id_would_be_zero() {
        let mut bytes = [0; 24];
        bytes[15] = 1;
        assert_eq!(TraceParent::from_random(bytes), None);
        bytes[23] = 2;
        assert_eq!(
            TraceParent::from_random(bytes).unwrap().to_string(),
            "00-00000000000000000000000000000001-0000000000000002-00"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..70)) {
            let _ = TraceParent::parse(&bytes);
        }

        #[test]
        fn what_is_written_is_read_again(bytes in any::<[u8; 24]>(), sampled in any::<bool>()) {
            if let Some(parent) = TraceParent::from_random(bytes) {
                let parent = TraceParent { sampled, ..parent };
                let mut out = Vec::new();
                parent.write_to(&mut out);
                prop_assert_eq!(TraceParent::parse(&out), Ok(parent));
            }
        }
    }

    fn parse(text: &str) -> Result<TraceParent, InvalidTraceParent> {
        TraceParent::parse(text.as_bytes())
    }
}
