//! Counters, gauges and histograms that cost a plain load and a plain store.
//!
//! [`Counter`], [`Gauge`] and [`Histogram`] have **one writer**: the thread of the worker that owns them. So an update
//! is a relaxed load and a relaxed store, without a lock prefix; the scrape reads them from its own thread. A second
//! writer would lose updates, not corrupt memory. What several threads write is a [`SharedCounter`].

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::session::query_record::Phases;

/// Something that a scrape reads as one number.
pub trait Number: Default {
    /// The number, in the unit it was counted in.
    fn value(&self) -> u64;
}

/// A number that only rises. One writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    #[inline]
    pub fn increase(&self) {
        self.add(1);
    }

    /// Adds `amount`.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Back to zero. Nobody else may write meanwhile.
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }

    /// Adds a time, in nanoseconds.
    #[inline]
    pub fn add_time(&self, time: Duration) {
        self.add(nanoseconds(time));
    }
}

impl Number for Counter {
    fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that only rises, written by any thread: for what happens on the control side, not per query.
#[derive(Debug, Default)]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    /// Adds one.
    pub fn increase(&self) {
        self.add(1);
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }
}

impl Number for SharedCounter {
    fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that rises and falls, never below zero. One writer.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more.
    #[inline]
    pub fn increase(&self) {
        self.0.store(self.0.load(Relaxed) + 1, Relaxed);
    }

    /// One less.
    #[inline]
    pub fn decrease(&self) {
        let value = self.0.load(Relaxed);
        debug_assert!(value > 0, "a gauge goes down as often as it went up");
        self.0.store(value.saturating_sub(1), Relaxed);
    }

    /// Exactly `value`.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

impl Number for Gauge {
    fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that rises and falls, written by any thread.
#[derive(Debug, Default)]
pub struct SharedGauge(AtomicU64);

impl SharedGauge {
    /// One more.
    pub fn increase(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One less. The caller has increased it before.
    pub fn decrease(&self) {
        self.subtract(1);
    }

    /// `amount` less. The caller has increased it before.
    pub fn subtract(&self, amount: u64) {
        self.0.fetch_sub(amount, Relaxed);
    }

    /// Exactly `value`.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

impl Number for SharedGauge {
    fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The values of a label: a fixed set, known when the program is built.
pub trait Label: Copy + 'static {
    /// The values as exported, in the order of `index`.
    const VALUES: &'static [&'static str];

    /// Which of `VALUES` it is.
    fn index(self) -> usize;
}

/// Names an enum whose variants are the values of a label.
macro_rules! label {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $crate::telemetry::instrument::Label for $name {
            const VALUES: &'static [&'static str] = &[$($text,)+];

            fn index(self) -> usize {
                self as usize
            }
        }

        impl $name {
            /// As exported and logged.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}
pub(crate) use label;

/// One number for each value of a label.
#[derive(Debug)]
pub struct By<L, N> {
    numbers: Box<[N]>,
    label: PhantomData<fn(L)>,
}

impl<L: Label, N: Number> By<L, N> {
    /// The number of one value.
    pub fn of(&self, label: L) -> &N {
        self.numbers
            .get(label.index())
            .expect("there is a number for every value of the label")
    }

    /// The label's values with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        L::VALUES
            .iter()
            .copied()
            .zip(self.numbers.iter().map(N::value))
    }
}

impl<L: Label, N: Number> Default for By<L, N> {
    fn default() -> Self {
        Self {
            numbers: L::VALUES.iter().map(|_| N::default()).collect(),
            label: PhantomData,
        }
    }
}

/// How many finite buckets a [`Histogram`] has.
pub const BUCKETS: usize = 16;

/// The upper bounds of a [`Histogram`]'s finite buckets, in seconds, ascending. Among them are the ones that
/// OpenTelemetry's conventions give `db.client.operation.duration`: 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5 and 10.
pub const BOUNDS_SECONDS: [f64; BUCKETS] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// The same bounds in nanoseconds.
const BOUNDS_NANOSECONDS: [u64; BUCKETS] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// How often which time was met. One writer.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Not cumulative; the last is for times above every bound.
    buckets: [AtomicU64; BUCKETS + 1],
    sum_nanoseconds: AtomicU64,
}

impl Histogram {
    /// Counts one time.
    #[inline]
    pub fn observe(&self, time: Duration) {
        self.observe_nanoseconds(nanoseconds(time));
    }

    /// Counts one time that is known in nanoseconds.
    #[inline]
    pub fn observe_nanoseconds(&self, nanoseconds: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(nanoseconds)) {
            bucket.store(bucket.load(Relaxed) + 1, Relaxed);
        }
        let sum = self.sum_nanoseconds.load(Relaxed);
        self.sum_nanoseconds
            .store(sum.wrapping_add(nanoseconds), Relaxed);
    }

    /// Its values now. An observation that is being made may be in a bucket and not yet in the sum.
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            buckets: std::array::from_fn(|index| {
                self.buckets
                    .get(index)
                    .map_or(0, |bucket| bucket.load(Relaxed))
            }),
            sum_seconds: self.sum_seconds(),
        }
    }

    /// The sum of all times, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        seconds(self.sum_nanoseconds.load(Relaxed))
    }
}

/// The values of a [`Histogram`] at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramSnapshot {
    /// Not cumulative; the last is for times above every bound.
    pub buckets: [u64; BUCKETS + 1],
    /// The sum of all times.
    pub sum_seconds: f64,
}

impl HistogramSnapshot {
    /// Adds what another histogram has counted.
    pub fn add(&mut self, other: &Self) {
        for (mine, others) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += others;
        }
        self.sum_seconds += other.sum_seconds;
    }
}

/// The index of the bucket that a time falls into; `BUCKETS` above every bound.
#[inline]
pub fn bucket_of(nanoseconds: u64) -> usize {
    let lowest = FIRST_BUCKETS.get(nanoseconds.leading_zeros() as usize);
    let mut bucket = usize::from(*lowest.unwrap_or(&0));
    // At most one or two bounds lie between a power of two and the next.
    while BOUNDS_NANOSECONDS
        .get(bucket)
        .is_some_and(|&bound| bound < nanoseconds)
    {
        bucket += 1;
    }
    bucket
}

/// By the number of a time's leading zeros: the bucket of the shortest such time.
const FIRST_BUCKETS: [u8; 65] = {
    let mut buckets = [0; 65];
    let mut zeros = 0;
    while zeros < 64 {
        let shortest = 1 << (63 - zeros);
        let mut bucket = 0;
        while bucket < BUCKETS && BOUNDS_NANOSECONDS[bucket] < shortest {
            bucket += 1;
        }
        buckets[zeros] = bucket as u8;
        zeros += 1;
    }
    buckets
};

/// The phases' times in nanoseconds, in their order.
#[inline]
pub fn nanoseconds_of(phases: &Phases) -> [u64; 4] {
    [
        nanoseconds(phases.queue_wait),
        nanoseconds(phases.first_byte),
        nanoseconds(phases.last_byte),
        nanoseconds(phases.client_drain),
    ]
}

/// A time in whole nanoseconds; what passes 584 years stays there.
#[inline]
pub fn nanoseconds(time: Duration) -> u64 {
    time.as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(time.subsec_nanos()))
}

/// Nanoseconds as seconds.
pub fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::labels::Blame;

    #[test]
    fn the_bounds_in_seconds_and_in_nanoseconds_are_the_same() {
        for (seconds, nanoseconds) in BOUNDS_SECONDS.into_iter().zip(BOUNDS_NANOSECONDS) {
            assert_eq!((seconds * 1e9).round() as u64, nanoseconds);
        }
        assert!(BOUNDS_NANOSECONDS.is_sorted());
    }

    #[test]
    fn a_time_on_a_bound_is_in_the_bucket_below_it() {
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(100_000), 0);
        assert_eq!(bucket_of(100_001), 1);
        assert_eq!(bucket_of(10_000_000_000), 15);
        assert_eq!(bucket_of(10_000_000_001), BUCKETS);
        assert_eq!(bucket_of(u64::MAX), BUCKETS);
        for (bucket, bound) in BOUNDS_NANOSECONDS.into_iter().enumerate() {
            assert_eq!(bucket_of(bound), bucket);
            assert_eq!(bucket_of(bound + 1), bucket + 1);
        }
    }

    #[test]
    fn a_histogram_sums_what_it_observes() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(50));
        histogram.observe(Duration::from_millis(3));
        histogram.observe(Duration::from_secs(60));

        let snapshot = histogram.snapshot();
        let mut expected = [0; BUCKETS + 1];
        expected[0] = 1;
        expected[5] = 1;
        expected[BUCKETS] = 1;
        assert_eq!(snapshot.buckets, expected);
        assert_eq!(snapshot.sum_seconds, 60.003_05);
    }

    #[test]
    fn a_counter_by_label_keeps_its_values_apart() {
        let errors: By<Blame, Counter> = By::default();
        errors.of(Blame::Server).add(2);
        assert_eq!(
            errors.iter().collect::<Vec<_>>(),
            [("client", 0), ("server", 2), ("proxy", 0)]
        );
        assert_eq!(Blame::Proxy.as_str(), "proxy");
    }
}
