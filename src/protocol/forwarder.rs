//! Cuts a stream into messages and passes them on without a copy, as far as each has to be seen.

use crate::protocol::frame::{Frame, FrameHeader};
use crate::protocol::outbound::Outbound;

/// How much of a body must have arrived before anything can be decided about its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyNeeded {
    /// Nothing: the header is enough.
    Nothing,
    /// This many bytes, or the whole body where it is shorter.
    Prefix(usize),
    /// All of it. The judge bounds it: what is needed whole is kept in memory until it is.
    Whole,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It passes as it is.
    Forward,
    /// Its header and the first bytes of its body are dropped (the judge has written others), its body passes from here on.
    ForwardBodyFrom(usize),
    /// It is dropped; the judge may have written something else.
    Discard,
    /// It stays, with everything behind it, and will be judged again.
    Pause,
}

/// Decides about messages.
pub trait Judge {
    /// Who broke which rule.
    type Violation;

    /// A length word that no message can have: under 4, or negative.
    fn malformed(&mut self, tag: u8) -> Self::Violation;

    /// How much of this message's body must have arrived before [`Judge::on_frame`].
    fn body_needed(&mut self, header: FrameHeader) -> Result<BodyNeeded, Self::Violation>;

    /// Decides what becomes of a message. What it writes to `out` goes ahead of what it lets pass.
    fn on_frame(
        &mut self,
        arrived: Arrived<'_>,
        out: &mut Outbound,
    ) -> Result<Disposition, Self::Violation>;
}

/// A message as far as it has arrived: at least as far as [`Judge::body_needed`] said.
#[derive(Clone, Copy)]
pub struct Arrived<'a> {
    /// Its header.
    pub header: FrameHeader,
    /// What has arrived of its body.
    pub body: &'a [u8],
    /// Where its body begins in the input; `None` where it was pieced together from several reads.
    body_at: Option<usize>,
}

impl<'a> Arrived<'a> {
    /// The message, where all of it is here.
    pub fn whole(&self) -> Option<Frame<'a>> {
        (self.body.len() == self.header.body_len).then_some(Frame {
            tag: self.header.tag,
            body: self.body,
        })
    }

    /// Passes a part of the body on, out of the judge's own hands: what [`Disposition`] does not cover.
    pub fn pass_body(&self, from: usize, to: usize, out: &mut Outbound) {
        match self.body_at {
            Some(at) => out.pass(at + from..at + to),
            None => out.copy(self.body.get(from..to).expect("passes what has arrived")),
        }
    }

    /// Passes the whole message on, out of the judge's own hands, so that more can be written behind it.
    pub fn pass_whole(&self, out: &mut Outbound) {
        debug_assert_eq!(
            self.body.len(),
            self.header.body_len,
            "passed on a message before it was whole"
        );
        match self.body_at {
            // The header is the five bytes in front, if it came with the same read.
            Some(at) if at >= FrameHeader::LEN => {
                out.pass(at - FrameHeader::LEN..at + self.body.len())
            }
            _ => {
                out.copy(&self.header.to_bytes());
                self.pass_body(0, self.body.len(), out);
            }
        }
    }
}

/// Where the stream stands between two reads. Holds bytes only while a header or a needed body is incomplete.
#[derive(Debug, Default)]
pub struct Forwarder {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Between two messages.
    #[default]
    Boundary,
    /// Some bytes of a header have come.
    PartialHeader {
        bytes: [u8; FrameHeader::LEN],
        len: u8,
    },
    /// A header and some of a body that is needed have come. Boxed: most peers, most of the time, are between two messages.
    PartialBody(Box<PartialBody>),
    /// A message was judged; this much of its body is still to come.
    Rest { remaining: usize, passes: bool },
}

#[derive(Debug)]
struct PartialBody {
    header: FrameHeader,
    needed: usize,
    body: Vec<u8>,
}

/// What [`Forwarder::advance`] made of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advanced {
    /// How much of the input was used; the rest must be given again, where the judge paused.
    pub consumed: usize,
    /// Whether the judge paused.
    pub paused: bool,
}

impl Forwarder {
    /// At the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the stream stands between two messages.
    pub fn is_at_boundary(&self) -> bool {
        matches!(self.state, State::Boundary)
    }

    /// Whether the peer has been sent the beginning of a message, but not its end.
    pub fn is_mid_message(&self) -> bool {
        matches!(self.state, State::Rest { passes: true, .. })
    }

    /// Judges every message that `input` completes, and passes on to `out` what may pass.
    ///
    /// The ranges in `out` are ranges of `input`. After a pause the unconsumed rest must be the beginning of the next input.
    pub fn advance<J: Judge>(
        &mut self,
        input: &[u8],
        judge: &mut J,
        out: &mut Outbound,
    ) -> Result<Advanced, J::Violation> {
        let mut at = 0;
        while let Some(rest) = input.get(at..).filter(|rest| !rest.is_empty()) {
            match &mut self.state {
                State::Boundary => {
                    let Some(&header) = rest.first_chunk() else {
                        let mut bytes = [0; FrameHeader::LEN];
                        bytes
                            .iter_mut()
                            .zip(rest)
                            .for_each(|(to, from)| *to = *from);
                        let len = u8::try_from(rest.len()).expect("shorter than a header");
                        self.state = State::PartialHeader { bytes, len };
                        at = input.len();
                        continue;
                    };
                    let header = judge_header(header, judge)?;
                    let body_at = at + FrameHeader::LEN;
                    let arrived = rest.get(FrameHeader::LEN..).unwrap_or_default();
                    let arrived = arrived.get(..header.frame.body_len).unwrap_or(arrived);
                    if arrived.len() < header.needed {
                        // The header alone goes into the state: its bytes need not be seen again.
                        self.state = State::PartialBody(Box::new(PartialBody {
                            header: header.frame,
                            needed: header.needed,
                            body: arrived.to_vec(),
                        }));
                        at = input.len();
                        continue;
                    }
                    let message = Arrived {
                        header: header.frame,
                        body: arrived,
                        body_at: Some(body_at),
                    };
                    match judge.on_frame(message, out)? {
                        Disposition::Pause => {
                            return Ok(Advanced {
                                consumed: at,
                                paused: true,
                            });
                        }
                        Disposition::Forward => {
                            out.pass(at..body_at + arrived.len());
                            self.state = State::after(header.frame, arrived.len(), true);
                        }
                        Disposition::ForwardBodyFrom(from) => {
                            debug_assert!(
                                from <= arrived.len(),
                                "dropped bytes that have not arrived"
                            );
                            out.pass(body_at + from..body_at + arrived.len());
                            self.state = State::after(header.frame, arrived.len(), true);
                        }
                        Disposition::Discard => {
                            self.state = State::after(header.frame, arrived.len(), false)
                        }
                    }
                    at = body_at + arrived.len();
                }
                State::PartialHeader { bytes, len } => {
                    let mut len_now = usize::from(*len);
                    for (to, from) in bytes.iter_mut().skip(len_now).zip(rest) {
                        *to = *from;
                        len_now += 1;
                    }
                    at += len_now - usize::from(*len);
                    if len_now < FrameHeader::LEN {
                        *len = u8::try_from(len_now).expect("shorter than a header");
                        continue;
                    }
                    let header = judge_header(*bytes, judge)?;
                    self.state = State::PartialBody(Box::new(PartialBody {
                        header: header.frame,
                        needed: header.needed,
                        body: Vec::new(),
                    }));
                    if header.needed == 0 && self.judge_held(judge, out)? {
                        return Ok(Advanced {
                            consumed: at,
                            paused: true,
                        });
                    }
                }
                State::PartialBody(partial) => {
                    let missing = partial.needed.saturating_sub(partial.body.len());
                    let taken = rest.get(..missing).unwrap_or(rest);
                    partial.body.extend_from_slice(taken);
                    at += taken.len();
                    let complete = partial.body.len() >= partial.needed;
                    if complete && self.judge_held(judge, out)? {
                        return Ok(Advanced {
                            consumed: at,
                            paused: true,
                        });
                    }
                }
                State::Rest { remaining, passes } => {
                    let taken = rest.len().min(*remaining);
                    if *passes {
                        out.pass(at..at + taken);
                    }
                    *remaining -= taken;
                    at += taken;
                    if *remaining == 0 {
                        self.state = State::Boundary;
                    }
                }
            }
        }
        Ok(Advanced {
            consumed: at,
            paused: false,
        })
    }

    /// Judges again what a pause left in the forwarder itself. Whether it paused again.
    pub fn resume<J: Judge>(
        &mut self,
        judge: &mut J,
        out: &mut Outbound,
    ) -> Result<bool, J::Violation> {
        match &self.state {
            State::PartialBody(partial) if partial.body.len() >= partial.needed => {
                self.judge_held(judge, out)
            }
            _ => Ok(false),
        }
    }

    /// Judges the message that was pieced together. Whether the judge paused: then it is kept.
    fn judge_held<J: Judge>(
        &mut self,
        judge: &mut J,
        out: &mut Outbound,
    ) -> Result<bool, J::Violation> {
        let State::PartialBody(partial) = &self.state else {
            return Ok(false);
        };
        let PartialBody { header, body, .. } = &**partial;
        let message = Arrived {
            header: *header,
            body,
            body_at: None,
        };
        let passes = match judge.on_frame(message, out)? {
            Disposition::Pause => return Ok(true),
            Disposition::Forward => {
                out.copy(&header.to_bytes());
                out.copy(body);
                true
            }
            Disposition::ForwardBodyFrom(from) => {
                out.copy(
                    body.get(from..)
                        .expect("dropped bytes that have not arrived"),
                );
                true
            }
            Disposition::Discard => false,
        };
        self.state = State::after(*header, body.len(), passes);
        Ok(false)
    }
}

impl State {
    fn after(header: FrameHeader, arrived: usize, passes: bool) -> Self {
        match header.body_len - arrived {
            0 => Self::Boundary,
            remaining => Self::Rest { remaining, passes },
        }
    }
}

struct JudgedHeader {
    frame: FrameHeader,
    needed: usize,
}

fn judge_header<J: Judge>(
    bytes: [u8; FrameHeader::LEN],
    judge: &mut J,
) -> Result<JudgedHeader, J::Violation> {
    let Some(frame) = FrameHeader::parse(bytes) else {
        return Err(judge.malformed(bytes[0]));
    };
    let needed = match judge.body_needed(frame)? {
        BodyNeeded::Nothing => 0,
        BodyNeeded::Prefix(len) => len.min(frame.body_len),
        BodyNeeded::Whole => frame.body_len,
    };
    Ok(JudgedHeader { frame, needed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Passes 'p' unseen, needs 2 bytes of 'n', drops 'd', replaces 'w' by its body reversed, moves behind the first byte of 'f'.
    struct ByTag;

    impl Judge for ByTag {
        type Violation = u8;

        fn malformed(&mut self, tag: u8) -> u8 {
            tag
        }

        fn body_needed(&mut self, header: FrameHeader) -> Result<BodyNeeded, u8> {
            Ok(match header.tag {
                b'n' => BodyNeeded::Prefix(2),
                b'w' | b'k' => BodyNeeded::Whole,
                b'f' => BodyNeeded::Prefix(1),
                _ => BodyNeeded::Nothing,
            })
        }

        fn on_frame(
            &mut self,
            arrived: Arrived<'_>,
            out: &mut Outbound,
        ) -> Result<Disposition, u8> {
            Ok(match arrived.header.tag {
                b'd' => Disposition::Discard,
                b'w' => {
                    let frame = arrived.whole().expect("asked for all of it");
                    out.write(|out| out.extend(frame.body.iter().rev()));
                    Disposition::Discard
                }
                b'k' => {
                    arrived.pass_whole(out);
                    Disposition::Discard
                }
                b'f' => Disposition::ForwardBodyFrom(arrived.body.len().min(1)),
                b'n' if arrived.body.first() == Some(&0xff) => Disposition::Discard,
                _ => Disposition::Forward,
            })
        }
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = FrameHeader {
            tag,
            body_len: body.len(),
        }
        .to_bytes()
        .to_vec();
        bytes.extend_from_slice(body);
        bytes
    }

    fn forward(reads: &[&[u8]]) -> Vec<u8> {
        let (mut forwarder, mut out, mut all) = (Forwarder::new(), Outbound::new(), Vec::new());
        for read in reads {
            let advanced = forwarder.advance(read, &mut ByTag, &mut out).unwrap();
            assert_eq!(
                advanced,
                Advanced {
                    consumed: read.len(),
                    paused: false
                }
            );
            out.copy_rest(read, 0, &mut all);
            out.clear();
        }
        assert!(forwarder.is_at_boundary());
        all
    }

    #[test]
    fn neighbours_that_pass_are_one_piece() {
        let input = [message(b'p', b"one"), message(b'n', b"two")].concat();
        let mut out = Outbound::new();
        Forwarder::new()
            .advance(&input, &mut ByTag, &mut out)
            .unwrap();
        assert_eq!(out.single(&input), Some(&*input));
    }

    #[test]
    fn a_body_that_nobody_needs_passes_half_arrived() {
        let mut out = Outbound::new();
        let input = b"p\0\0\x10\0half";
        Forwarder::new()
            .advance(input, &mut ByTag, &mut out)
            .unwrap();
        assert_eq!(out.single(input), Some(&input[..]));
    }

    #[test]
    fn a_length_word_under_four_is_the_judges_to_name() {
        assert_eq!(
            Forwarder::new().advance(b"p\0\0\0\x03", &mut ByTag, &mut Outbound::new()),
            Err(b'p')
        );
    }

    /// Pauses until it may go on.
    struct Gate(bool);

    impl Judge for Gate {
        type Violation = u8;

        fn malformed(&mut self, tag: u8) -> u8 {
            tag
        }

        fn body_needed(&mut self, _: FrameHeader) -> Result<BodyNeeded, u8> {
            Ok(BodyNeeded::Whole)
        }

        fn on_frame(&mut self, _: Arrived<'_>, _: &mut Outbound) -> Result<Disposition, u8> {
            Ok(if self.0 {
                Disposition::Forward
            } else {
                Disposition::Pause
            })
        }
    }

    #[test]
    fn what_the_judge_paused_at_is_judged_again() {
        let input = message(b'q', b"body");
        for cut in 0..input.len() {
            let (mut forwarder, mut out, mut sent) =
                (Forwarder::new(), Outbound::new(), Vec::new());
            let (first, second) = input.split_at(cut);
            let before = forwarder
                .advance(first, &mut Gate(false), &mut out)
                .unwrap();
            assert_eq!(before.consumed, first.len());
            let paused = forwarder
                .advance(second, &mut Gate(false), &mut out)
                .unwrap();
            assert!(paused.paused && out.is_empty());
            assert!(!forwarder.resume(&mut Gate(true), &mut out).unwrap());
            forwarder
                .advance(&second[paused.consumed..], &mut Gate(true), &mut out)
                .unwrap();
            out.copy_rest(&second[paused.consumed..], 0, &mut sent);
            assert_eq!(sent, input, "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_a_stream_gives_the_same_output(
            messages in prop::collection::vec((prop::sample::select(b"pndwkf".to_vec()), prop::collection::vec(any::<u8>(), 0..20)), 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|(tag, body)| message(*tag, body)).collect();
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            ends.push(stream.len());
            ends.sort_unstable();
            let mut from = 0;
            let reads: Vec<&[u8]> = ends.iter().map(|end| { let read = &stream[from..*end]; from = *end; read }).collect();
            prop_assert_eq!(forward(&reads), forward(&[&stream]));
        }
    }
}
