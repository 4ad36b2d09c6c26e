//! A stream of messages: however it is cut on its way, the same bytes leave, and the same messages are seen.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgspan_fuzz::protocol::backend::{self, ErrorFields};
use pgspan_fuzz::protocol::forwarder::{Arrived, BodyNeeded, Disposition, Forwarder, Judge};
use pgspan_fuzz::protocol::frame::FrameHeader;
use pgspan_fuzz::protocol::frontend::{Bind, Parse, Target};
use pgspan_fuzz::protocol::outbound::Outbound;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece_length, bytes) = input;
    let whole = pass(bytes, bytes.len().max(1));
    let in_pieces = pass(bytes, usize::from(piece_length).max(1));
    assert_eq!(whole.seen, in_pieces.seen);
    assert_eq!(whole.error, in_pieces.error);
    // What a broken message left half done may differ: the connection ends there.
    if whole.error.is_none() {
        assert_eq!(whole.output, in_pieces.output);
    }
});

#[derive(Default)]
struct Passed {
    output: Vec<u8>,
    seen: Vec<(u8, usize)>,
    error: Option<u8>,
}

fn pass(bytes: &[u8], piece_length: usize) -> Passed {
    let mut forwarder = Forwarder::new();
    let (mut judge, mut out) = (ByLength::default(), Outbound::new());
    let mut passed = Passed::default();
    for piece in bytes.chunks(piece_length) {
        match forwarder.advance(piece, &mut judge, &mut out) {
            Ok(advanced) => assert!(advanced.consumed == piece.len() && !advanced.paused),
            Err(tag) => {
                passed.error = Some(tag);
                break;
            }
        }
        out.copy_rest(piece, 0, &mut passed.output);
        out.clear();
    }
    passed.seen = judge.seen;
    passed
}

/// Judges by the tag and the length, so that a piece more or less makes no difference.
#[derive(Default)]
struct ByLength {
    seen: Vec<(u8, usize)>,
}

impl Judge for ByLength {
    type Violation = u8;

    fn malformed(&mut self, tag: u8) -> u8 {
        tag
    }

    fn body_needed(&mut self, header: FrameHeader) -> Result<BodyNeeded, u8> {
        match header.tag % 4 {
            0 => Ok(BodyNeeded::Nothing),
            1 => Ok(BodyNeeded::Prefix(usize::from(header.tag))),
            _ if header.body_len > MOST_WHOLE => Err(header.tag),
            _ => Ok(BodyNeeded::Whole),
        }
    }

    fn on_frame(&mut self, arrived: Arrived<'_>, out: &mut Outbound) -> Result<Disposition, u8> {
        let header = arrived.header;
        self.seen.push((header.tag, header.body_len));
        if let Some(frame) = arrived.whole().filter(|_| header.tag % 4 > 1) {
            read_all(frame.body);
        }
        match header.tag % 8 {
            1 => {
                out.copy(b"before");
                Ok(Disposition::ForwardBodyFrom(1.min(header.body_len)))
            }
            2 => Ok(Disposition::Discard),
            3 => {
                arrived.pass_whole(out);
                out.copy(b"behind");
                Ok(Disposition::Discard)
            }
            _ => Ok(Disposition::Forward),
        }
    }
}

/// Whatever it is, reading it as any message does no harm.
fn read_all(body: &[u8]) {
    let _ = Parse::read(body).map(|parse| parse.text().len());
    let _ = (Bind::read(body).is_some(), Target::read(body).is_some());
    let _ = backend::command_tag(body).map(backend::rows_of);
    let _ = backend::parameter_status(body);
    let fields = ErrorFields::new(body);
    let _ = (fields.sql_state(), fields.is_fatal(), fields.field(b'M'));
}

const MOST_WHOLE: usize = 1 << 16;
