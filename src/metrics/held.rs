//! Guards that change a gauge for as long as they live.

use metrics::Gauge;

/// Counts one in a gauge for as long as it lives.
pub struct GaugeGuard(Gauge);

impl GaugeGuard {
    /// Adds one.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.increment(1);
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// A value that is added to a gauge for as long as it lives.
pub struct Share {
    gauge: Gauge,
    amount: usize,
}

impl Share {
    /// Starts at zero.
    pub fn new(gauge: &Gauge) -> Self {
        Self { gauge: gauge.clone(), amount: 0 }
    }

    /// Sets the value.
    #[inline]
    pub fn set(&mut self, amount: usize) {
        if amount != self.amount {
            self.gauge.increment(amount as f64 - self.amount as f64);
            self.amount = amount;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}
