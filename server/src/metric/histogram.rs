//! Observations counted by size.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many observations came to be at most each bound, and what all of them sum up to.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// Each without those of the buckets before it; the last is of what exceeds every bound.
    counts: Box<[AtomicU64]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

/// A histogram at one moment.
#[derive(Debug, PartialEq)]
pub(crate) struct Read {
    /// Bound, and the number of observations up to it; the last is infinite.
    pub buckets: Vec<(f64, u64)>,
    pub sum: f64,
}

impl Read {
    pub(super) fn count(&self) -> u64 {
        self.buckets.last().map_or(0, |(_, count)| *count)
    }
}

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0f64.to_bits()) }
    }

    pub(crate) fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok();
    }

    pub(crate) fn took(&self, duration: Duration) {
        self.observe(duration.as_secs_f64());
    }

    pub(super) fn read(&self) -> Read {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let mut count = 0;
        let buckets = bounds.zip(&self.counts).map(|(bound, own)| {
            count += own.load(Ordering::Relaxed);
            (bound, count)
        });
        let buckets = buckets.collect();
        Read { buckets, sum: f64::from_bits(self.sum.load(Ordering::Relaxed)) }
    }
}
