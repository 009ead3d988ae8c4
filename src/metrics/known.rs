//! Gauges of what may go before those who record it do.

use metrics::{Gauge, Label, gauge};
use parking_lot::Mutex;

/// A gauge that exists while its value is known, and until it is withdrawn.
#[derive(Default)]
pub struct KnownGauge(Mutex<GaugeState>);

#[derive(Default)]
enum GaugeState {
    /// Its value is not known.
    #[default]
    Unknown,
    Known {
        _gauge: Gauge,
    },
    /// Nothing shows it any more.
    Withdrawn,
}

impl KnownGauge {
    /// Shows this value, unless it is withdrawn.
    pub(super) fn set(&self, name: &'static str, labels: Vec<Label>, value: f64) {
        let mut state = self.0.lock();
        if !matches!(*state, GaugeState::Withdrawn) {
            // One name and other labels are another gauge.
            let gauge = gauge!(name, labels);
            gauge.set(value);
            *state = GaugeState::Known { _gauge: gauge };
        }
    }

    /// Shows it no more, until its value is known again.
    pub(super) fn clear(&self) {
        let mut state = self.0.lock();
        if matches!(*state, GaugeState::Known { .. }) {
            *state = GaugeState::Unknown;
        }
    }

    /// Shows it no more, whatever is still found out.
    pub(super) fn withdraw(&self) {
        *self.0.lock() = GaugeState::Withdrawn;
    }

    /// Shows it again, once its value is known.
    pub(super) fn readmit(&self) {
        let mut state = self.0.lock();
        if matches!(*state, GaugeState::Withdrawn) {
            *state = GaugeState::Unknown;
        }
    }
}
