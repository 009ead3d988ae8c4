//! Handles to all metrics, so that the relay only updates atomics.

mod by_label;
mod durations;
mod held;
mod install;
mod known;
mod names;
mod process;
mod recorder;
mod route;

pub use metrics::Histogram;

pub use self::durations::Durations;
pub use self::held::{GaugeGuard, Share};
pub use self::install::{AlreadyInstalled, config_reloaded, install};
pub use self::names::names;
pub use self::recorder::PrometheusHandle;
pub use self::route::{ClientRefusals, Relayed, RouteMetrics, UpstreamMetrics};
