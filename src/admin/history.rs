//! The last hour of each route for the page's charts: a sample every few seconds, in ring buffers of fixed size.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use super::state::AdminContext;
use crate::clients::Totals;
use crate::metrics::Durations;

/// Time between two samples.
pub(super) const EVERY: Duration = Duration::from_secs(5);

/// Number of samples that are kept: those of an hour.
const MAX_SAMPLES: usize = 720;

/// Maximum number of points in a chart.
const POINTS: usize = 120;

/// The last hour of all routes.
#[derive(Debug, Default)]
pub(super) struct RouteHistories(Mutex<BTreeMap<Arc<str>, RouteHistory>>);

/// The last hour of a route.
#[derive(Debug, Clone, Default)]
pub(super) struct RouteHistory {
    /// The reading that the next sample is compared with.
    before: Option<Reading>,
    timed: Option<Durations>,
    /// Newest last.
    samples: VecDeque<Sample>,
    /// Number of samples so far, including dropped ones.
    taken: u64,
}

/// Counters at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) active: u64,
    pub(super) commands: u64,
    pub(super) bytes: u64,
}

/// What happened between two readings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// Number of sessions at its end.
    pub(super) sessions: f32,
    /// Requests per second.
    pub(super) requests: f32,
    /// Bytes per second, both directions together.
    pub(super) bytes: f32,
    /// Median of the reply times in seconds; NaN if there were no replies.
    pub(super) median: f32,
    /// 99th percentile of the reply times in seconds; NaN if there were no replies.
    pub(super) slow: f32,
}

impl RouteHistories {
    /// Takes samples until it is dropped.
    pub(super) async fn keep(&self, shared: &AdminContext) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let shown = shared.shown.load();
            let reading = |route: &Arc<str>| {
                let Totals { active, counts, .. } = shared.inventory.totals(route);
                let bytes = counts.bytes_to_upstream + counts.bytes_to_client;
                Reading { active, commands: counts.commands, bytes }
            };
            let mut pasts = self.0.lock();
            pasts.retain(|name, _| shown.routes.iter().any(|route| route.name == *name));
            for route in &shown.routes {
                let past = pasts.entry(Arc::clone(&route.name)).or_default();
                let latency = past.latency(shared.metrics.request_durations(&route.name));
                past.add(reading(&route.name), latency);
            }
        }
    }

    /// Returns the last hour of a route.
    pub(super) fn of(&self, route: &str) -> RouteHistory {
        self.0.lock().get(route).cloned().unwrap_or_default()
    }
}

impl RouteHistory {
    /// Returns the median and the 99th percentile of the durations since the last call.
    fn latency(&mut self, now: Durations) -> [f32; 2] {
        let since = self.timed.as_ref().map(|before| now.since(before));
        self.timed = Some(now);
        [0.5, 0.99].map(|part| {
            since.as_ref().and_then(|since| since.quantile(part)).map_or(f32::NAN, |time| time.as_secs_f32())
        })
    }

    pub(super) fn add(&mut self, now: Reading, [median, slow]: [f32; 2]) {
        if let Some(before) = self.before {
            let each_second = |now: u64, then: u64| now.saturating_sub(then) as f32 / EVERY.as_secs_f32();
            self.samples.push_back(Sample {
                sessions: now.active as f32,
                requests: each_second(now.commands, before.commands),
                bytes: each_second(now.bytes, before.bytes),
                median,
                slow,
            });
            self.taken += 1;
            if self.samples.len() > MAX_SAMPLES {
                self.samples.pop_front();
            }
        }
        self.before = Some(now);
    }

    pub(super) fn last(&self) -> Option<Sample> {
        self.samples.back().copied()
    }

    /// Returns the largest value; 0 if there is none.
    pub(super) fn most(&self, value: impl Fn(&Sample) -> f32) -> f32 {
        self.samples.iter().map(value).filter(|value| !value.is_nan()).fold(0.0, f32::max)
    }

    /// Returns the number of seconds that the samples cover: at most an hour.
    pub(super) fn seconds(&self) -> u64 {
        self.samples.len() as u64 * EVERY.as_secs()
    }

    /// Returns one value as the points of a chart, oldest first, for the time that the samples cover. A point is the mean of its samples, or
    /// NaN if it has none. Once the samples cover an hour, a point does not change as time passes.
    pub(super) fn points(&self, value: impl Fn(&Sample) -> f32) -> Vec<f32> {
        // The longer the time, the more samples are in a point.
        let in_point = self.samples.len().div_ceil(POINTS).max(1) as u64;
        let first = self.taken - self.samples.len() as u64;
        let newest = self.taken.saturating_sub(1) / in_point;
        let oldest = (first / in_point).max((newest + 1).saturating_sub(POINTS as u64));
        let mut sums = vec![(0.0, 0.0); (newest + 1 - oldest) as usize];
        for (number, sample) in (first..).zip(&self.samples) {
            let value = value(sample);
            let point = (number / in_point).checked_sub(oldest);
            if let Some((sum, count)) = point.map(|at| &mut sums[at as usize])
                && !value.is_nan()
            {
                *sum += value;
                *count += 1.0;
            }
        }
        sums.into_iter().map(|(sum, count)| sum / count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(active: u64, commands: u64) -> Reading {
        Reading { active, commands, bytes: 10 * commands }
    }

    #[test]
    fn a_sample_covers_the_time_between_two_readings() {
        let mut past = RouteHistory::default();
        past.add(reading(1, 100), [f32::NAN; 2]);
        assert_eq!(past.last(), None);
        past.add(reading(3, 150), [f32::NAN; 2]);
        let last = past.last().unwrap();
        assert_eq!((last.sessions, last.requests, last.bytes), (3.0, 10.0, 100.0));
        assert!(last.median.is_nan(), "no reply was timed");
        assert_eq!((past.most(|sample| sample.requests), past.most(|sample| sample.slow)), (10.0, 0.0));
        past.add(reading(3, 0), [f32::NAN; 2]);
        assert!(past.last().unwrap().requests.abs() < f32::EPSILON, "never negative");
    }

    #[test]
    fn points_cover_the_uptime_until_an_hour_has_passed() {
        let mut past = RouteHistory::default();
        past.add(reading(0, 0), [f32::NAN; 2]);
        for (samples, points, ends) in
            [(2, 2, (1.0, 2.0)), (120, 120, (1.0, 120.0)), (240, 120, (1.5, 239.5))]
        {
            for n in past.taken + 1..=samples {
                past.add(reading(n, 0), [f32::NAN; 2]);
            }
            let found = past.points(|sample| sample.sessions);
            assert_eq!((found.len(), past.seconds()), (points, samples * 5));
            assert_eq!((found[0], found[points - 1]), ends);
        }
    }

    #[test]
    fn an_hour_is_kept_and_points_do_not_change_as_time_passes() {
        let mut past = RouteHistory::default();
        for n in 0..2000 {
            past.add(reading(n, 0), [f32::NAN; 2]);
        }
        assert_eq!((past.samples.len(), past.seconds()), (MAX_SAMPLES, 3600));
        let before = past.points(|sample| sample.sessions);
        assert!(before.iter().skip(1).all(|point| !point.is_nan()));
        for n in 2000..2006 {
            past.add(reading(n, 0), [f32::NAN; 2]);
        }
        let after = past.points(|sample| sample.sessions);
        assert_eq!([before.len(), after.len()], [POINTS; 2]);
        assert_eq!(before[2..POINTS - 1], after[1..POINTS - 2]);
        assert!(RouteHistory::default().points(|sample| sample.sessions).iter().all(|point| point.is_nan()));
    }
}
