//! The process' own metrics, and where all of them go.

use metrics::{counter, gauge};

use super::recorder::{PrometheusHandle, Recorder};

/// Makes Prometheus the destination of all metrics, for this process, and returns what renders them.
pub fn install() -> Result<PrometheusHandle, AlreadyInstalled> {
    let recorder = Recorder::new();
    let handle = recorder.handle().with_process();
    metrics::set_global_recorder(recorder).map_err(|_| AlreadyInstalled)?;
    gauge!("pontoon_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
    gauge!("pontoon_config_last_reload_successful").set(1);
    // Prometheus sees no increase from nothing to one.
    for result in ["ok", "failed"] {
        counter!("pontoon_config_reloads_total", "result" => result).increment(0);
    }
    Ok(handle)
}

/// The configuration was reloaded, or was refused.
pub fn config_reloaded(ok: bool) {
    counter!("pontoon_config_reloads_total", "result" => if ok { "ok" } else { "failed" }).increment(1);
    gauge!("pontoon_config_last_reload_successful").set(u8::from(ok));
}

/// Metrics have a destination already.
#[derive(Debug, thiserror::Error)]
#[error("metrics have a destination already")]
pub struct AlreadyInstalled;
