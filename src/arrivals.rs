//! The connections that have not proved yet who they are: so many there may be, and the oldest goes for the newest.
//!
//! Whoever logs in takes milliseconds. What has been here for long, while so many are, is hardly a client.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The connections that have not proved yet who they are.
#[derive(Debug, Default)]
pub struct Arrivals(Mutex<Present>);

#[derive(Debug, Default)]
struct Present {
    next: u64,
    /// Longest here first.
    tokens: BTreeMap<u64, CancellationToken>,
}

/// One of them; it counts until it is dropped.
#[derive(Debug)]
pub struct Arriving {
    number: u64,
    arrivals: Arc<Arrivals>,
    /// Called when it has to make room.
    pub displaced: CancellationToken,
}

impl Arrivals {
    /// Takes a connection in. With more than `limit` the oldest has to go: whether that was so.
    pub fn enter(self: &Arc<Self>, limit: usize) -> (Arriving, bool) {
        let displaced = CancellationToken::new();
        let mut present = self.present();
        let number = present.next;
        present.next += 1;
        present.tokens.insert(number, displaced.clone());
        let is_over = present.tokens.len() > limit;
        if is_over && let Some((_, oldest)) = present.tokens.pop_first() {
            oldest.cancel();
        }
        drop(present);
        let arriving = Arriving {
            number,
            arrivals: Arc::clone(self),
            displaced,
        };
        (arriving, is_over)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.present().tokens.len()
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.arrivals.present().tokens.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_for_the_newest() {
        let arrivals = Arc::new(Arrivals::default());
        let (first, _) = arrivals.enter(2);
        let (second, is_over) = arrivals.enter(2);
        assert!(!is_over && !first.displaced.is_cancelled());
        let (third, is_over) = arrivals.enter(2);
        assert!(is_over && first.displaced.is_cancelled());
        assert!(!second.displaced.is_cancelled() && !third.displaced.is_cancelled());
        drop((first, second));
        assert_eq!(arrivals.count(), 1);
        let (_fourth, is_over) = arrivals.enter(2);
        assert!(!is_over);
    }
}
