//! Where all metrics go: to the exporter's recorder, but for histograms.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use metrics_exporter_prometheus::formatting::{write_help_line, write_metric_line, write_type_line};
use metrics_exporter_prometheus::{LabelSet, PrometheusBuilder, PrometheusRecorder};
use parking_lot::Mutex;

use super::durations::{Buckets, Durations};
use super::names::{HISTOGRAMS, REQUEST_BOUNDS, REQUEST_SECONDS};
use super::process;

/// By name and labels: those of one name stand together.
type Histograms = BTreeMap<Key, Arc<Buckets>>;

/// Takes what is recorded.
pub(super) struct Recorder {
    others: PrometheusRecorder,
    histograms: Arc<Mutex<Histograms>>,
}

/// Tells all metrics.
#[derive(Clone, Debug)]
pub struct PrometheusHandle {
    others: metrics_exporter_prometheus::PrometheusHandle,
    histograms: Arc<Mutex<Histograms>>,
    /// Tells what this process takes of the machine, too.
    process: bool,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self { others: PrometheusBuilder::new().build_recorder(), histograms: Arc::default() }
    }

    pub(super) fn handle(&self) -> PrometheusHandle {
        PrometheusHandle {
            others: self.others.handle(),
            histograms: Arc::clone(&self.histograms),
            process: false,
        }
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.others.describe_counter(name, unit, text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.others.describe_gauge(name, unit, text);
    }

    /// [`HISTOGRAMS`] does.
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.others.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.others.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let Some((_, bounds, _)) = HISTOGRAMS.iter().find(|(name, ..)| *name == key.name()) else {
            return Histogram::noop();
        };
        let mut histograms = self.histograms.lock();
        let buckets = histograms.entry(key.to_retained()).or_insert_with(|| Arc::new(Buckets::new(bounds)));
        Histogram::from_arc(Arc::clone(buckets))
    }
}

impl PrometheusHandle {
    /// Of metrics that nobody records.
    #[cfg(test)]
    pub fn of_nobody() -> Self {
        Recorder::new().handle()
    }

    /// Tells what this process takes of the machine, too.
    pub(super) fn with_process(self) -> Self {
        Self { process: true, ..self }
    }

    /// All metrics, in Prometheus' text format. Histograms that nothing was recorded into are left out: a cluster has
    /// hundreds of nodes that a client never asks.
    pub fn render(&self) -> String {
        let mut text = self.others.render();
        let mut before = None;
        for (key, buckets) in &*self.histograms.lock() {
            let durations = buckets.read();
            if durations.count() == 0 {
                continue;
            }
            let name = key.name();
            if before != Some(name) {
                let help = HISTOGRAMS.iter().find(|(known, ..)| *known == name).map_or("", |(.., help)| help);
                write_help_line(&mut text, name, None, None, help);
                write_type_line(&mut text, name, None, None, "histogram");
                before = Some(name);
            }
            write(&mut text, key, &durations);
        }
        if self.process {
            process::write(&mut text);
        }
        text
    }

    /// How long the requests of a route took since pontoon began, those to all its nodes together. Prometheus shows them as
    /// `pontoon_request_duration_seconds`.
    pub fn request_durations(&self, route: &str) -> Durations {
        let histograms = self.histograms.lock();
        let is_of_route = |key: &Key| {
            key.name() == REQUEST_SECONDS
                && key.labels().any(|label| label.key() == "route" && label.value() == route)
        };
        let all = histograms.iter().filter(|(key, _)| is_of_route(key)).map(|(_, buckets)| buckets.read());
        all.fold(Durations::none(REQUEST_BOUNDS), |sum, more| sum.with(&more))
    }
}

#[allow(clippy::default_trait_access, reason = "the type is a dependency's dependency")]
fn write(text: &mut String, key: &Key, durations: &Durations) {
    let labels = LabelSet::from_key_and_global(key, &Default::default());
    let mut count = 0;
    for (bound, more) in durations.buckets() {
        count += more;
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
    fn durations_of_a_route_are_those_of_all_its_nodes() {
        let recorder = Recorder::new();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            RouteMetrics::new("a", &[]).request_seconds.record(Duration::from_micros(40));
            RouteMetrics::of_node("a", "10.0.0.1:6379", &[])
                .request_seconds
                .record(Duration::from_micros(60));
            RouteMetrics::new("b", &[]).request_seconds.record(Duration::from_secs(60));
        });
        assert_eq!(handle.request_durations("a").count(), 2);
        assert_eq!(handle.request_durations("b").sum(), Duration::from_secs(60));
        assert_eq!(handle.request_durations("none").count(), 0);
    }

    #[test]
    fn a_histogram_is_rendered_as_prometheus_reads_it() {
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
