//! Gauges that can disappear before their owner does.

use metrics::{Gauge, Label, gauge};
use parking_lot::Mutex;

/// A gauge that exists while its value is known, until it is withdrawn.
#[derive(Default)]
pub struct KnownGauge(Mutex<GaugeState>);

#[derive(Default)]
enum GaugeState {
    /// The value is not known.
    #[default]
    Unknown,
    Known {
        _gauge: Gauge,
    },
    /// The gauge stays hidden, even if a value is set.
    Withdrawn,
}

impl KnownGauge {
    /// Sets the value, unless the gauge is withdrawn.
    pub(super) fn set(&self, name: &'static str, labels: Vec<Label>, value: f64) {
        let mut state = self.0.lock();
        if !matches!(*state, GaugeState::Withdrawn) {
            // A changed label makes it another gauge, so register it again.
            let gauge = gauge!(name, labels);
            gauge.set(value);
            *state = GaugeState::Known { _gauge: gauge };
        }
    }

    /// Hides the gauge until its value is known again.
    pub(super) fn clear(&self) {
        let mut state = self.0.lock();
        if matches!(*state, GaugeState::Known { .. }) {
            *state = GaugeState::Unknown;
        }
    }

    /// Hides the gauge, even if a value is set later.
    pub(super) fn withdraw(&self) {
        *self.0.lock() = GaugeState::Withdrawn;
    }

    /// Lets the gauge appear again once its value is set.
    pub(super) fn readmit(&self) {
        let mut state = self.0.lock();
        if matches!(*state, GaugeState::Withdrawn) {
            *state = GaugeState::Unknown;
        }
    }
}
