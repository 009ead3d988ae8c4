//! Histograms of durations that are counted into buckets when recorded. Those of the exporter keep every sample with its time until metrics
//! are rendered, which takes megabytes a second on a busy route.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::HistogramFn;

/// A histogram that durations are recorded into.
#[derive(Debug)]
pub(super) struct Buckets {
    /// Upper bounds in seconds, ascending.
    bounds: &'static [f64],
    /// One count for each bound, and one for durations above all bounds.
    counts: Box<[AtomicU64]>,
    nanoseconds: AtomicU64,
}

impl Buckets {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, nanoseconds: AtomicU64::new(0) }
    }

    pub(super) fn read(&self) -> Durations {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let sum = Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed));
        Durations { bounds: self.bounds, counts, sum }
    }
}

impl HistogramFn for Buckets {
    fn record(&self, seconds: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let took = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        self.nanoseconds.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }
}

/// Number of durations by size: a snapshot of a histogram.
#[derive(Debug, Clone, PartialEq)]
pub struct Durations {
    bounds: &'static [f64],
    counts: Box<[u64]>,
    sum: Duration,
}

impl Durations {
    pub(super) fn none(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1].into(), sum: Duration::ZERO }
    }

    /// Returns the number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of all durations.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Returns each bucket's upper bound in seconds, and the number of durations that are in it and in no lower one. The last bound is
    /// infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().copied())
    }

    /// Adds the durations of another snapshot.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let counts = self.counts.iter().zip(&other.counts).map(|(one, more)| one + more).collect();
        Self { bounds: self.bounds, counts, sum: self.sum + other.sum }
    }

    /// Returns the durations recorded after `earlier` was read.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = self.counts.iter().zip(&earlier.counts).map(|(now, then)| now.saturating_sub(*then));
        let sum = self.sum.saturating_sub(earlier.sum);
        Self { bounds: self.bounds, counts: counts.collect(), sum }
    }

    /// Returns the `part`-quantile, for example with 0.99 the 99th percentile, as Prometheus' `histogram_quantile` computes it: durations
    /// lie evenly within a bucket, and at the last bound if above it. `None` if there are no durations.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let rank = part * self.count() as f64;
        let mut below = 0;
        let mut found = None;
        for (bound, count) in self.buckets().filter(|(_, count)| *count > 0) {
            let lower = self.bounds.iter().copied().rfind(|other| *other < bound).unwrap_or(0.0);
            let within = ((rank - below as f64) / count as f64).clamp(0.0, 1.0);
            let seconds = if bound.is_finite() { lower + (bound - lower) * within } else { lower };
            found = Some(Duration::from_secs_f64(seconds));
            below += count;
            if below as f64 >= rank {
                break;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[f64] = &[0.001, 0.002, 0.01];

    fn of(milliseconds: &[f64]) -> Durations {
        let buckets = Buckets::new(BOUNDS);
        for ms in milliseconds {
            buckets.record(ms / 1000.0);
        }
        buckets.read()
    }

    #[test]
    fn a_duration_counts_in_the_first_bucket_with_a_bound_not_below_it() {
        let durations = of(&[0.5, 1.0, 1.5, 2.0, 2.5, 10.5, 9000.0]);
        let buckets: Vec<_> = durations.buckets().collect();
        assert_eq!(buckets, [(0.001, 2), (0.002, 2), (0.01, 1), (f64::INFINITY, 2)]);
        assert_eq!((durations.count(), durations.sum()), (7, Duration::from_micros(9_018_000)));
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        assert_eq!(of(&[]).quantile(0.5), None);
        let durations = of(&[&[0.5; 50][..], &[1.5; 40], &[5.0; 9], &[100.0]].concat());
        assert_eq!(durations.quantile(0.25), Some(Duration::from_micros(500)));
        assert_eq!(durations.quantile(0.5), Some(Duration::from_millis(1)));
        assert_eq!(durations.quantile(0.7), Some(Duration::from_micros(1500)));
        assert_eq!(durations.quantile(0.99), Some(Duration::from_millis(10)));
        assert_eq!(
            durations.quantile(1.0),
            Some(Duration::from_millis(10)),
            "durations above the last bound count as the last bound"
        );
        assert_eq!(of(&[5.0]).quantile(0.0), Some(Duration::from_millis(2)));
    }

    #[test]
    fn the_difference_of_two_snapshots_is_what_came_between() {
        let (then, now) = (of(&[0.5, 1.5]), of(&[0.5, 1.5, 1.6, 20.0]));
        assert_eq!(now.since(&then), of(&[1.6, 20.0]));
        assert_eq!(then.since(&now).count(), 0, "a counter that was reset");
        assert_eq!(then.with(&of(&[1.6, 20.0])), now);
        assert_eq!(Durations::none(BOUNDS), of(&[]));
    }
}
