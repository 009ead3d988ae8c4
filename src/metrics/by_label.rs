//! Frequently used counters that differ in one label.

use std::sync::OnceLock;

use metrics::{Counter, Label, counter};

/// Registers each counter at its first use, because few are ever needed and a cluster has hundreds of nodes.
pub(super) struct ByLabel {
    name: &'static str,
    label: &'static str,
    counters: [OnceLock<Counter>; Self::MAX_LABEL_VALUES],
}

impl ByLabel {
    /// Maximum number of label values. Further ones are not counted.
    pub(super) const MAX_LABEL_VALUES: usize = 40;

    pub(super) fn new(name: &'static str, label: &'static str) -> Self {
        Self { name, label, counters: [const { OnceLock::new() }; Self::MAX_LABEL_VALUES] }
    }

    /// Adds `n` to the counter of `value`, which always has the same `number`. `own` are the other labels; if empty, nothing is recorded.
    #[inline]
    pub(super) fn add(&self, own: &[Label], number: usize, value: &'static str, n: u64) {
        let Some(counter) = self.counters.get(number) else { return };
        let register = || {
            let label = Label::from_static_parts(self.label, value);
            let labels: Vec<_> = own.iter().cloned().chain([label]).collect();
            if own.is_empty() { Counter::noop() } else { counter!(self.name, labels) }
        };
        counter.get_or_init(register).increment(n);
    }
}
