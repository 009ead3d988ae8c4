//! Installs the recorder of all metrics, and keeps the metrics of the process itself.

use metrics::{counter, gauge};

use super::recorder::{PrometheusHandle, Recorder};

/// Installs the recorder for this process, and returns the handle that renders its metrics.
pub fn install() -> Result<PrometheusHandle, AlreadyInstalled> {
    let recorder = Recorder::new();
    let handle = recorder.handle().with_process();
    metrics::set_global_recorder(recorder).map_err(|_| AlreadyInstalled)?;
    gauge!("pontoon_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
    gauge!("pontoon_config_last_reload_successful").set(1);
    // Start at zero, because Prometheus sees no increase from an absent series to one.
    for result in ["ok", "failed"] {
        counter!("pontoon_config_reloads_total", "result" => result).increment(0);
    }
    Ok(handle)
}

/// Counts a reload of the configuration: accepted or refused.
pub fn config_reloaded(ok: bool) {
    counter!("pontoon_config_reloads_total", "result" => if ok { "ok" } else { "failed" }).increment(1);
    gauge!("pontoon_config_last_reload_successful").set(u8::from(ok));
}

/// A recorder was installed before.
#[derive(Debug, thiserror::Error)]
#[error("metrics already have a recorder")]
pub struct AlreadyInstalled;
