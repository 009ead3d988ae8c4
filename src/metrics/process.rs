//! Resources that this process uses, read when metrics are rendered. The names are those of Prometheus' [client
//! libraries](https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics).

use std::sync::OnceLock;

use metrics::Key;
use metrics_exporter_prometheus::LabelSet;
use metrics_exporter_prometheus::formatting::{write_help_line, write_metric_line, write_type_line};
use procfs::process::{LimitValue, Process};
use procfs::{ProcResult, WithCurrentSystemInfo as _};

/// Name, kind and help text.
pub(super) const METRICS: [(&str, &str, &str); 7] = [
    ("process_cpu_seconds_total", "counter", "CPU time of the process, user and system, in seconds"),
    ("process_resident_memory_bytes", "gauge", "Size of resident memory in bytes"),
    ("process_virtual_memory_bytes", "gauge", "Size of virtual memory in bytes"),
    ("process_open_fds", "gauge", "Number of open file descriptors"),
    ("process_max_fds", "gauge", "Maximum number of open file descriptors"),
    ("process_threads", "gauge", "Number of threads"),
    ("process_start_time_seconds", "gauge", "Time when the process started, in Unix time"),
];

/// Appends the metrics. Leaves out those that cannot be read.
pub(super) fn write(text: &mut String) {
    let Ok(found) = look_up() else { return };
    for ((name, kind, help), value) in METRICS.into_iter().zip(found) {
        let Some(value) = value else { continue };
        write_help_line(text, name, None, None, help);
        write_type_line(text, name, None, None, kind);
        write_metric_line::<&str, f64>(text, name, None, &no_labels(name), None, value, None);
    }
}

/// Returns the values in the order of [`METRICS`].
fn look_up() -> ProcResult<[Option<f64>; METRICS.len()]> {
    let process = Process::myself()?;
    let stat = process.stat()?;
    let ticks = procfs::ticks_per_second() as f64;
    let cpu = (stat.utime + stat.stime) as f64 / ticks;
    let most_fds = process.limits().ok().and_then(|limits| match limits.max_open_files.soft_limit {
        LimitValue::Value(most) => Some(most as f64),
        LimitValue::Unlimited => None,
    });
    let fds = process.fd_count().ok().map(|count| count as f64);
    let started = boot_time().map(|boot| boot as f64 + stat.starttime as f64 / ticks);
    Ok([
        Some(cpu),
        Some(stat.rss_bytes().get() as f64),
        Some(stat.vsize as f64),
        fds,
        most_fds,
        Some(stat.num_threads as f64),
        started,
    ])
}

/// Returns the boot time in Unix time. Reads it only once, because that takes long on a machine with many cores.
fn boot_time() -> Option<u64> {
    static BOOT: OnceLock<Option<u64>> = OnceLock::new();
    *BOOT.get_or_init(|| procfs::boot_time_secs().ok())
}

#[allow(clippy::default_trait_access, reason = "the type is a dependency's dependency")]
fn no_labels(name: &'static str) -> LabelSet {
    LabelSet::from_key_and_global(&Key::from_static_name(name), &Default::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_reports_its_own_resources() {
        let mut text = String::new();
        write(&mut text);
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("{name} is missing in {text}"))
                .rsplit_once(' ')
                .unwrap()
                .1
                .parse::<f64>()
                .unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_start_time_seconds") > 1.7e9);
        assert!(text.contains("# TYPE process_cpu_seconds_total counter\n"));
    }
}
