//! What is to be written: pieces of what was read, passed on without a copy, and bytes of the proxy's own between them.

use std::io::IoSlice;
use std::ops::Range;

/// Bytes on their way to one peer, in order. Reused from read to read: in the steady state it allocates nothing.
///
/// A passed piece is a range of the read it came from (the *input*), which whoever writes the pieces out still holds.
#[derive(Debug, Default)]
pub struct Outbound {
    /// Neighbours of one kind are one piece.
    pieces: Vec<Piece>,
    written: Vec<u8>,
    /// Everything in one piece, where that was asked for.
    gathered: Vec<u8>,
    len: usize,
}

/// Up to here pieces are copied together: a gathering write costs the kernel more than this copy.
const GATHER_LIMIT: usize = 4096;

#[derive(Debug)]
enum Piece {
    /// A range of the input.
    Passed(Range<usize>),
    /// A range of `written`.
    Written(Range<usize>),
}

impl Outbound {
    /// With nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes there are to write.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Passes a range of the input on.
    pub fn pass(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        self.len += range.len();
        match self.pieces.last_mut() {
            Some(Piece::Passed(last)) if last.end == range.start => last.end = range.end,
            _ => self.pieces.push(Piece::Passed(range)),
        }
    }

    /// Appends bytes of the proxy's own; `write` must only append.
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.written.len();
        write(&mut self.written);
        let end = self.written.len();
        debug_assert!(end >= start, "took bytes back that were written");
        if start == end {
            return;
        }
        self.len += end - start;
        match self.pieces.last_mut() {
            Some(Piece::Written(last)) => last.end = end,
            _ => self.pieces.push(Piece::Written(start..end)),
        }
    }

    /// Appends a copy of these bytes.
    pub fn copy(&mut self, bytes: &[u8]) {
        self.write(|out| out.extend_from_slice(bytes));
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.written.clear();
        self.len = 0;
    }

    /// The pieces from byte `skip` on, at most as many as `slices` has room for; the number that was filled in.
    /// `input` is what the passed ranges are ranges of.
    pub fn fill<'a>(
        &'a self,
        input: &'a [u8],
        mut skip: usize,
        slices: &mut [IoSlice<'a>],
    ) -> usize {
        let mut filled = 0;
        for piece in &self.pieces {
            let bytes = self.bytes(piece, input);
            if skip >= bytes.len() {
                skip -= bytes.len();
                continue;
            }
            let Some(slot) = slices.get_mut(filled) else {
                break;
            };
            *slot = IoSlice::new(bytes.get(skip..).unwrap_or_default());
            skip = 0;
            filled += 1;
        }
        filled
    }

    /// The one slice that holds everything, where there is only one piece, or where it is so little that copying it together
    /// costs less than a write of several pieces.
    pub fn single<'a>(&'a mut self, input: &'a [u8]) -> Option<&'a [u8]> {
        match self.pieces.as_slice() {
            [piece] => Some(self.bytes(piece, input)),
            _ if self.len <= GATHER_LIMIT => {
                let mut gathered = std::mem::take(&mut self.gathered);
                gathered.clear();
                self.copy_rest(input, 0, &mut gathered);
                self.gathered = gathered;
                Some(&self.gathered)
            }
            _ => None,
        }
    }

    /// Appends everything from byte `skip` on to `out`.
    pub fn copy_rest(&self, input: &[u8], mut skip: usize, out: &mut Vec<u8>) {
        for piece in &self.pieces {
            let bytes = self.bytes(piece, input);
            out.extend_from_slice(bytes.get(skip..).unwrap_or_default());
            skip = skip.saturating_sub(bytes.len());
        }
    }

    fn bytes<'a>(&'a self, piece: &Piece, input: &'a [u8]) -> &'a [u8] {
        match piece {
            Piece::Passed(range) => input
                .get(range.clone())
                .expect("passed a range of another input"),
            Piece::Written(range) => self
                .written
                .get(range.clone())
                .expect("a range of what was written"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(outbound: &Outbound, input: &[u8], skip: usize) -> String {
        let mut out = Vec::new();
        outbound.copy_rest(input, skip, &mut out);
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = outbound.fill(input, skip, &mut slices);
        let gathered: Vec<u8> = slices[..filled]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        assert_eq!(gathered, out, "both ways to read it agree");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn neighbours_leave_as_one_piece() {
        let mut outbound = Outbound::new();
        outbound.pass(0..3);
        outbound.pass(3..5);
        assert_eq!(outbound.single(b"abcdef"), Some(&b"abcde"[..]));
        outbound.copy(b"X");
        outbound.copy(b"Y");
        outbound.pass(5..6);
        assert_eq!(outbound.pieces.len(), 3);
        assert_eq!(outbound.len(), 8);
        assert_eq!(text(&outbound, b"abcdef", 0), "abcdeXYf");
        assert_eq!(
            outbound.single(b"abcdef"),
            Some(&b"abcdeXYf"[..]),
            "so little is copied together"
        );
    }

    #[test]
    fn much_is_not_copied_together() {
        let input = [b'x'; GATHER_LIMIT];
        let mut outbound = Outbound::new();
        outbound.copy(b"Y");
        outbound.pass(0..GATHER_LIMIT);
        assert_eq!(outbound.single(&input), None);
    }

    #[test]
    fn what_a_short_write_left_is_found_at_any_byte() {
        let mut outbound = Outbound::new();
        outbound.pass(1..3);
        outbound.copy(b"XY");
        outbound.pass(3..4);
        for skip in 0..=5 {
            assert_eq!(text(&outbound, b"abcd", skip), "bcXYd"[skip..]);
        }
    }
}
