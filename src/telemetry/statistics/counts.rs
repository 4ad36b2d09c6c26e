//! What one worker counts of its queries, by statement: a small table from shapes to cells.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::*};

use crate::telemetry::statistics::cells::Cells;
use crate::telemetry::statistics::ring::Ring;

/// Shapes that a worker knows at a time: one word each.
pub(super) const KNOWN_SHAPES: usize = 16_384;

/// Texts that one worker may ask about in one second: what is beyond is not counted by statement.
pub(super) const NEW_TEXTS_PER_SECOND: u64 = 2_000;

/// What one worker counts. The worker writes to the cells and the ring, the book's keeper to the table.
#[derive(Debug)]
pub(super) struct Counts {
    /// The upper 40 bits of a shape, and one more than the number of its cells; 0: nothing. A shape has its place in one of
    /// [`WAYS`] neighbours.
    table: Box<[AtomicU64]>,
    slots: Box<[OnceLock<Box<Cells>>]>,
    /// Shapes that the worker has asked about lately.
    asked: Box<[AtomicU64]>,
    pub(super) ring: Ring,
    /// The second of the budget for new texts, and what is left of it.
    second: AtomicU64,
    left: AtomicU64,
}

/// Shapes of which a worker remembers that it has asked.
const ASKED_SHAPES: usize = 256;

const WAYS: usize = 4;
const SLOT_BITS: u32 = 24;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

impl Counts {
    pub(super) fn new(slots: usize, traced_queries: usize) -> Self {
        let words = if slots == 0 { 0 } else { KNOWN_SHAPES };
        Self {
            table: (0..words).map(|_| AtomicU64::new(0)).collect(),
            slots: (0..slots.min(SLOT_MASK as usize))
                .map(|_| OnceLock::new())
                .collect(),
            asked: (0..if slots == 0 { 0 } else { ASKED_SHAPES })
                .map(|_| AtomicU64::new(0))
                .collect(),
            ring: Ring::new(traced_queries),
            second: AtomicU64::new(u64::MAX),
            left: AtomicU64::new(0),
        }
    }

    /// The cells of a shape, where they are known.
    #[inline]
    pub(super) fn find(&self, shape: u64) -> Option<&Cells> {
        let tag = shape & !SLOT_MASK;
        for word in self.places(shape) {
            let word = word.load(Acquire);
            if word & !SLOT_MASK == tag
                && let Some(slot) = (word & SLOT_MASK).checked_sub(1)
            {
                return self.cells(slot as usize);
            }
        }
        None
    }

    /// The cells of this number, where they were made.
    pub(super) fn cells(&self, slot: usize) -> Option<&Cells> {
        self.slots.get(slot)?.get().map(|cells| &**cells)
    }

    /// The cells of this number, made where they were not.
    pub(super) fn make(&self, slot: usize) -> Option<&Cells> {
        let slot = self.slots.get(slot)?;
        Some(slot.get_or_init(|| Box::new(Cells::new())))
    }

    /// How many cells there may be.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// From now on queries of this shape are counted in these cells. For the book's keeper.
    pub(super) fn publish(&self, shape: u64, slot: usize) {
        let word = shape & !SLOT_MASK | (slot as u64 + 1);
        let places = self.places(shape);
        let is_of_shape =
            |place: &&AtomicU64| place.load(Relaxed) & !SLOT_MASK == shape & !SLOT_MASK;
        let is_free = |place: &&AtomicU64| place.load(Relaxed) == 0;
        let place = (places.iter().find(is_of_shape))
            .or_else(|| places.iter().find(is_free))
            // Any of them: whoever is pushed out asks again.
            .or_else(|| places.get((shape >> SLOT_BITS) as usize % WAYS));
        if let Some(place) = place {
            place.store(word, Release);
        }
    }

    /// No shape leads to these cells any more. For the book's keeper.
    pub(super) fn retract(&self, is_retracted: impl Fn(usize) -> bool) {
        for word in &self.table {
            if let Some(slot) = (word.load(Relaxed) & SLOT_MASK).checked_sub(1)
                && is_retracted(slot as usize)
            {
                word.store(0, Release);
            }
        }
    }

    /// Whether this shape was asked about lately, and the answer may be on its way. From now on it was. For the worker.
    pub(super) fn was_asked(&self, shape: u64) -> bool {
        let place = self.asked.get(shape as usize % ASKED_SHAPES);
        place.is_some_and(|place| {
            let before = place.load(Relaxed);
            place.store(shape, Relaxed);
            before == shape
        })
    }

    /// The question was not understood: it is to be asked with its text again. For the book's keeper.
    pub(super) fn ask_again(&self, shape: u64) {
        if let Some(place) = self.asked.get(shape as usize % ASKED_SHAPES) {
            place.store(0, Relaxed);
        }
    }

    /// Whether another text may be asked about in this second. For the worker.
    pub(super) fn may_ask(&self, second: u64) -> bool {
        if self.second.load(Relaxed) != second {
            self.second.store(second, Relaxed);
            self.left.store(NEW_TEXTS_PER_SECOND, Relaxed);
        }
        let left = self.left.load(Relaxed);
        self.left.store(left.saturating_sub(1), Relaxed);
        left > 0
    }

    fn places(&self, shape: u64) -> &[AtomicU64] {
        let set = shape as usize % (KNOWN_SHAPES / WAYS) * WAYS;
        self.table.get(set..set + WAYS).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_found_until_its_cells_are_retracted() {
        let counts = Counts::new(8, 0);
        let shape = |number: u64| number << 40 | number;
        for number in 1..=4 {
            counts.make(number as usize).unwrap();
            counts.publish(shape(number), number as usize);
        }
        assert!(counts.find(shape(1)).is_some());
        assert!(counts.find(shape(5)).is_none());
        counts.retract(|slot| slot == 1);
        assert!(counts.find(shape(1)).is_none());
        assert!(counts.find(shape(2)).is_some());
    }

    #[test]
    fn shapes_that_share_a_place_push_each_other_out() {
        let counts = Counts::new(1, 0);
        counts.make(0).unwrap();
        let shapes: Vec<u64> = (1..=WAYS as u64 + 1).map(|number| number << 40).collect();
        shapes.iter().for_each(|shape| counts.publish(*shape, 0));
        let found = shapes.iter().filter(|shape| counts.find(**shape).is_some());
        assert_eq!(found.count(), WAYS);
    }

    #[test]
    fn a_shape_is_asked_about_with_its_text_once() {
        let counts = Counts::new(1, 0);
        assert!(!counts.was_asked(7));
        assert!(counts.was_asked(7));
        counts.ask_again(7);
        assert!(!counts.was_asked(7));
    }

    #[test]
    fn texts_are_asked_about_so_often_in_a_second() {
        let counts = Counts::new(1, 0);
        let asked = (0..NEW_TEXTS_PER_SECOND + 5).filter(|_| counts.may_ask(7));
        assert_eq!(asked.count() as u64, NEW_TEXTS_PER_SECOND);
        assert!(counts.may_ask(8));
    }

    #[test]
    fn without_room_for_statements_nothing_is_kept() {
        let counts = Counts::new(0, 0);
        counts.publish(1 << 40, 0);
        assert!(counts.find(1 << 40).is_none());
        assert!(counts.make(0).is_none());
    }
}
