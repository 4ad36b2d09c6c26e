//! How times are spread: fine buckets that grow with the time, for quantiles.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::telemetry::instrument::nanoseconds;

/// Buckets of a `Spread`: four for each doubling, from about a microsecond to about two minutes. What takes longer is in the last.
pub const SPREAD_BUCKETS: usize = 108;

/// How often which time was met. One writer. Zero is only counted by whoever counts the queries.
#[derive(Debug)]
pub(super) struct Spread {
    buckets: [AtomicU32; SPREAD_BUCKETS],
    sum_nanoseconds: AtomicU64,
}

/// What a `Spread` had counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpreadSnapshot {
    buckets: [u64; SPREAD_BUCKETS],
    sum_nanoseconds: u64,
}

impl Spread {
    pub(super) fn new() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU32::new(0)),
            sum_nanoseconds: AtomicU64::new(0),
        }
    }

    /// Counts one time.
    #[inline]
    pub(super) fn observe(&self, nanoseconds: u64) {
        if nanoseconds == 0 {
            return;
        }
        if let Some(bucket) = self.buckets.get(bucket_of(nanoseconds)) {
            bucket.store(bucket.load(Relaxed).saturating_add(1), Relaxed);
        }
        let sum = self.sum_nanoseconds.load(Relaxed);
        self.sum_nanoseconds
            .store(sum.wrapping_add(nanoseconds), Relaxed);
    }

    /// Back to nothing. Nobody else may write meanwhile.
    pub(super) fn clear(&self) {
        self.buckets
            .iter()
            .for_each(|bucket| bucket.store(0, Relaxed));
        self.sum_nanoseconds.store(0, Relaxed);
    }
}

impl Default for SpreadSnapshot {
    fn default() -> Self {
        Self {
            buckets: [0; SPREAD_BUCKETS],
            sum_nanoseconds: 0,
        }
    }
}

impl SpreadSnapshot {
    /// Counts one time.
    pub(super) fn observe(&mut self, time: Duration) {
        let nanoseconds = nanoseconds(time);
        if nanoseconds > 0
            && let Some(bucket) = self.buckets.get_mut(bucket_of(nanoseconds))
        {
            *bucket += 1;
            self.sum_nanoseconds = self.sum_nanoseconds.wrapping_add(nanoseconds);
        }
    }

    /// Takes in what another one has counted.
    pub(super) fn add(&mut self, other: &Spread) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += u64::from(theirs.load(Relaxed));
        }
        let sum = other.sum_nanoseconds.load(Relaxed);
        self.sum_nanoseconds = self.sum_nanoseconds.wrapping_add(sum);
    }

    /// All times together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanoseconds)
    }

    /// The time that this share of `calls` did not exceed, to an eighth of it. `calls` counts those of no length, too.
    pub fn quantile(&self, share: f64, calls: u64) -> Duration {
        let met: u64 = self.buckets.iter().sum();
        // The rest took no time.
        let mut below = calls.saturating_sub(met);
        let rank = (share * calls as f64).ceil().max(1.0) as u64;
        if rank <= below {
            return Duration::ZERO;
        }
        for (index, &count) in self.buckets.iter().enumerate() {
            below += count;
            if below >= rank {
                return middle_of(index);
            }
        }
        Duration::ZERO
    }
}

/// In units of 1,024 ns: below four units a bucket each, above that four buckets for each power of two.
#[inline]
fn bucket_of(nanoseconds: u64) -> usize {
    let units = nanoseconds >> UNIT_BITS;
    if units < 4 {
        return units as usize;
    }
    let power = units.ilog2() as usize;
    let quarter = (units >> (power - 2)) as usize & 3;
    ((power - 1) * 4 + quarter).min(SPREAD_BUCKETS - 1)
}

fn middle_of(bucket: usize) -> Duration {
    let (from, width) = match bucket {
        0..4 => (bucket as u64, 1),
        _ => {
            let power = bucket / 4 + 1;
            let width = 1_u64 << (power - 2);
            ((4 + bucket as u64 % 4) * width, width)
        }
    };
    Duration::from_nanos((from << UNIT_BITS) + (width << UNIT_BITS) / 2)
}

const UNIT_BITS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_found_again_to_an_eighth() {
        for exponent in 0..37 {
            for nanoseconds in [
                1_u64 << exponent,
                (1 << exponent) * 3 / 2,
                (2 << exponent) - 1,
            ] {
                let mut spread = SpreadSnapshot::default();
                spread.observe(Duration::from_nanos(nanoseconds));
                let found = spread.quantile(0.5, 1).as_nanos() as f64;
                let error = (found - nanoseconds as f64).abs();
                assert!(
                    error <= (nanoseconds as f64 / 8.0).max(512.0),
                    "{nanoseconds}: {found}"
                );
            }
        }
        let mut long = SpreadSnapshot::default();
        long.observe(Duration::from_secs(3600));
        assert_eq!(bucket_of(3_600_000_000_000), SPREAD_BUCKETS - 1);
        assert!(long.quantile(0.5, 1) > Duration::from_secs(100));
        assert_eq!(long.sum(), Duration::from_secs(3600));
    }

    #[test]
    fn quantiles_are_of_all_calls_also_of_those_that_took_no_time() {
        let spread = Spread::new();
        for milliseconds in [0, 0, 0, 0, 0, 0, 0, 0, 0, 10] {
            spread.observe(milliseconds * 1_000_000);
        }
        let mut snapshot = SpreadSnapshot::default();
        snapshot.add(&spread);
        assert_eq!(snapshot.quantile(0.5, 10), Duration::ZERO);
        assert_eq!(snapshot.quantile(0.9, 10), Duration::ZERO);
        let tail = snapshot.quantile(0.95, 10).as_micros();
        assert!((8_750..=11_250).contains(&tail), "{tail}");
        spread.clear();
        let mut cleared = SpreadSnapshot::default();
        cleared.add(&spread);
        assert_eq!(cleared, SpreadSnapshot::default());
    }
}
