//! Counts requests by family.

use crate::metrics::RouteMetrics;
use crate::resp::command_table::{Command, Family};

/// The requests of one read.
#[derive(Default)]
pub(super) struct RequestCounts {
    pub(super) all: u64,
    by_family: [u32; Family::LABELS.len()],
    /// One bit for each family with a count. Most reads have one family.
    families: u32,
}

impl RequestCounts {
    #[inline]
    pub(super) fn add(&mut self, command: Command) {
        let family = command.family();
        self.all += 1;
        self.by_family[family as usize] += 1;
        self.families |= 1 << family as u32;
    }

    /// The families with a count, and their counts.
    fn families(&self) -> impl Iterator<Item = (usize, u64)> {
        const { assert!(Family::LABELS.len() <= u32::BITS as usize, "each family has a bit") };
        let mut left = self.families;
        std::iter::from_fn(move || {
            let family = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            Some((family, u64::from(*self.by_family.get(family)?)))
        })
    }

    /// Adds the counts to the route's.
    #[inline]
    pub(super) fn record(&self, metrics: &RouteMetrics) {
        metrics.requests.increment(self.all);
        for (family, count) in self.families() {
            metrics.commands(family, Family::LABELS[family], count);
        }
    }
}
