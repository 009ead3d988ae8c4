//! Stores all metrics. A route's series is rendered for as long as a handle to it exists, so a removed route or node leaves no series.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use metrics_exporter_prometheus::LabelSet;
use metrics_exporter_prometheus::formatting::{write_help_line, write_metric_line, write_type_line};
use parking_lot::Mutex;

use super::durations::{Buckets, Durations};
use super::names::{
    self, HISTOGRAMS, NODE_COUNTERS_AT_ZERO, REQUEST_BOUNDS, REQUEST_BOUNDS_SHOWN, REQUEST_SECONDS,
};
use super::process;

/// Receives what is recorded.
pub(super) struct Recorder(Arc<Registry>);

/// Renders all metrics.
#[derive(Clone, Debug)]
pub struct PrometheusHandle {
    registry: Arc<Registry>,
    /// Whether to render the metrics of this process, too.
    process: bool,
}

/// All series, ordered by name and labels, so that those of one name are together.
#[derive(Debug, Default)]
struct Registry {
    counters: Mutex<Series<AtomicU64>>,
    gauges: Mutex<Series<AtomicU64>>,
    histograms: Mutex<Series<Buckets>>,
}

/// All series of one kind.
#[derive(Debug)]
struct Series<T> {
    live: BTreeMap<Key, Weak<T>>,
    /// Keeps series without a route until the process ends.
    kept: Vec<Arc<T>>,
}

impl<T> Default for Series<T> {
    fn default() -> Self {
        Self { live: BTreeMap::new(), kept: Vec::new() }
    }
}

impl<T> Series<T> {
    /// Returns the series with this key, and creates it if necessary.
    fn get(&mut self, key: &Key, new: impl FnOnce() -> T) -> Arc<T> {
        if let Some(series) = self.live.get(key).and_then(Weak::upgrade) {
            return series;
        }
        let series = Arc::new(new());
        self.live.insert(key.to_retained(), Arc::downgrade(&series));
        if key.labels().all(|label| label.key() != "route") {
            self.kept.push(Arc::clone(&series));
        }
        series
    }

    /// Returns all series that have a handle. Drops the entries of the others.
    fn held(&mut self) -> Vec<(Key, Arc<T>)> {
        let mut held = Vec::new();
        self.live.retain(|key, series| {
            let series = series.upgrade();
            let is_held = series.is_some();
            held.extend(series.map(|series| (key.clone(), series)));
            is_held
        });
        held
    }
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    pub(super) fn handle(&self) -> PrometheusHandle {
        PrometheusHandle { registry: Arc::clone(&self.0), process: false }
    }
}

impl metrics::Recorder for Recorder {
    /// Does nothing, because the help texts are in [`names`].
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    /// Does nothing, because the help texts are in [`names`].
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    /// Does nothing, because the help texts are in [`names`].
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.0.counters.lock().get(key, AtomicU64::default))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.0.gauges.lock().get(key, AtomicU64::default))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let Some((_, bounds, _)) = HISTOGRAMS.iter().find(|(name, ..)| *name == key.name()) else {
            return Histogram::noop();
        };
        Histogram::from_arc(self.0.histograms.lock().get(key, || Buckets::new(bounds)))
    }
}

impl PrometheusHandle {
    /// Creates a handle that renders nothing.
    #[cfg(test)]
    pub fn of_nobody() -> Self {
        Recorder::new().handle()
    }

    /// Renders the metrics of this process, too.
    pub(super) fn with_process(self) -> Self {
        Self { process: true, ..self }
    }

    /// Renders all metrics in Prometheus' text format. Leaves out empty histograms, because a cluster has hundreds of nodes that clients
    /// may never use.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut before = String::new();
        // Hold no lock while text is written, because a session may be registering its metrics.
        let counters = self.registry.counters.lock().held();
        for (key, counter) in counters {
            let value = counter.load(Ordering::Relaxed);
            if value == 0 && !is_shown_at_zero(&key) {
                continue;
            }
            begin(&mut text, &mut before, &key, "counter");
            write_metric_line::<&str, u64>(&mut text, key.name(), None, &labels(&key), None, value, None);
        }
        let gauges = self.registry.gauges.lock().held();
        for (key, gauge) in gauges {
            begin(&mut text, &mut before, &key, "gauge");
            let value = f64::from_bits(gauge.load(Ordering::Relaxed));
            write_metric_line::<&str, f64>(&mut text, key.name(), None, &labels(&key), None, value, None);
        }
        let histograms = self.registry.histograms.lock().held();
        for (key, buckets) in histograms {
            let durations = buckets.read();
            if durations.count() > 0 {
                begin(&mut text, &mut before, &key, "histogram");
                write(&mut text, &key, &durations);
            }
        }
        if self.process {
            process::write(&mut text);
        }
        text
    }

    /// Returns the durations of a route's requests since pontoon started, summed over its nodes. Prometheus sees them as
    /// `pontoon_request_duration_seconds`.
    pub fn request_durations(&self, route: &str) -> Durations {
        let is_of_route = |key: &Key| {
            key.name() == REQUEST_SECONDS
                && key.labels().any(|label| label.key() == "route" && label.value() == route)
        };
        let held = self.registry.histograms.lock().held();
        let all = held.iter().filter(|(key, _)| is_of_route(key)).map(|(_, buckets)| buckets.read());
        all.fold(Durations::none(REQUEST_BOUNDS), |sum, more| sum.with(&more))
    }
}

/// Whether a counter is rendered at zero. A cluster has hundreds of nodes, and most counters of a node stay at zero.
fn is_shown_at_zero(key: &Key) -> bool {
    let has =
        |name: &str, value: &str| key.labels().any(|label| label.key() == name && label.value() == value);
    key.labels().all(|label| label.key() != "node")
        || NODE_COUNTERS_AT_ZERO.iter().any(|(name, label, value)| *name == key.name() && has(label, value))
}

/// Writes the header above the first series of a name.
fn begin(text: &mut String, before: &mut String, key: &Key, kind: &str) {
    if before != key.name() {
        key.name().clone_into(before);
        write_help_line(text, key.name(), None, None, names::help(key.name()));
        write_type_line(text, key.name(), None, None, kind);
    }
}

#[allow(clippy::default_trait_access, reason = "the type is a dependency's dependency")]
fn labels(key: &Key) -> LabelSet {
    LabelSet::from_key_and_global(key, &Default::default())
}

fn write(text: &mut String, key: &Key, durations: &Durations) {
    let labels = labels(key);
    let mut count = 0;
    for (bound, more) in durations.buckets() {
        count += more;
        if key.name() == REQUEST_SECONDS && bound.is_finite() && !REQUEST_BOUNDS_SHOWN.contains(&bound) {
            continue;
        }
        let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".into() };
        write_metric_line(text, key.name(), Some("bucket"), &labels, Some(("le", bound)), count, None);
    }
    let sum = durations.sum().as_secs_f64();
    write_metric_line::<&str, f64>(text, key.name(), Some("sum"), &labels, None, sum, None);
    write_metric_line::<&str, u64>(text, key.name(), Some("count"), &labels, None, count, None);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use metrics::Label;

    use super::*;
    use crate::metrics::RouteMetrics;

    #[test]
    fn durations_of_a_route_include_all_its_nodes() {
        let recorder = Recorder::new();
        let handle = recorder.handle();
        let metrics = metrics::with_local_recorder(&recorder, || {
            [
                RouteMetrics::new("a", &[]),
                RouteMetrics::of_node("a", "10.0.0.1:6379", &[]),
                RouteMetrics::new("b", &[]),
            ]
        });
        metrics[0].request_seconds.record(Duration::from_micros(40));
        metrics[1].request_seconds.record(Duration::from_micros(60));
        metrics[2].request_seconds.record(Duration::from_secs(60));
        assert_eq!(handle.request_durations("a").count(), 2);
        assert_eq!(handle.request_durations("b").sum(), Duration::from_secs(60));
        assert_eq!(handle.request_durations("none").count(), 0);
    }

    #[test]
    fn a_series_and_its_count_live_as_long_as_a_handle_exists() {
        let recorder = Recorder::new();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let before = RouteMetrics::new("a", &[]);
            before.refused("max_clients");
            let after = RouteMetrics::new("a", &[]).succeeding(&before);
            before.retire();
            drop(before);
            after.refused("max_clients");
            let count = "pontoon_clients_refused_total{route=\"a\",reason=\"max_clients\"} 2\n";
            assert!(handle.render().contains(count), "{}", handle.render());
        });
        assert_eq!(handle.render(), "");
    }

    #[test]
    fn a_busy_node_has_few_series() {
        let recorder = Recorder::new();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let node = RouteMetrics::of_node("a", "10.0.0.1:6379", &["client_closed", "drained"]);
            let series = || handle.render().lines().filter(|line| line.contains("node=")).count();
            let idle = series();
            for stage in ["queue", "resolve", "tcp", "tls", "auth", "greeting"] {
                node.connect_seconds(stage, Duration::from_millis(1));
            }
            assert_eq!(series(), idle, "nodes share the connect histogram of their route");
            node.request_seconds.record(Duration::from_millis(1));
            assert!(idle <= 20 && series() <= 34, "{}", handle.render());
        });
    }

    #[test]
    fn a_histogram_is_rendered_in_the_format_of_prometheus() {
        let durations = Buckets::new(&[0.5, 1.0]);
        for seconds in [0.25, 0.75, 8.0] {
            metrics::HistogramFn::record(&durations, seconds);
        }
        let key = Key::from_parts("n_seconds", vec![Label::new("route", "a \"b\"")]);
        let mut text = String::new();
        write(&mut text, &key, &durations.read());
        let labels = "route=\"a \\\"b\\\"\"";
        let expected = format!(
            "n_seconds_bucket{{{labels},le=\"0.5\"}} 1\n\
             n_seconds_bucket{{{labels},le=\"1\"}} 2\n\
             n_seconds_bucket{{{labels},le=\"+Inf\"}} 3\n\
             n_seconds_sum{{{labels}}} 9\n\
             n_seconds_count{{{labels}}} 3\n"
        );
        assert_eq!(text, expected);
    }
}
