//! Every metric, by name, in one place; and handles to them, so that the relay touches atomics and nothing else.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

pub use metrics_exporter_prometheus::PrometheusHandle;

/// Name, unit where it has one, and what it counts.
const COUNTERS: &[(&str, Option<Unit>, &str)] = &[
    ("pontoon_sessions_total", None, "Sessions that ended, by how"),
    ("pontoon_sessions_passthrough_total", None, "Sessions of clients that brought their own TLS"),
    ("pontoon_sessions_upgraded_total", None, "Sessions that were moved from plaintext to TLS"),
    ("pontoon_clients_refused_total", None, "Clients that got no session"),
    ("pontoon_accept_errors_total", None, "Failed attempts to accept a client"),
    ("pontoon_requests_total", None, "Requests sent upstream"),
    ("pontoon_relayed_bytes_total", Some(Unit::Bytes), "Bytes relayed, in plaintext"),
    (
        "pontoon_sessions_opaque_total",
        None,
        "Sessions whose replies could not be matched to requests any more",
    ),
    ("pontoon_upstream_connect_errors_total", None, "Failed attempts to reach the upstream, by stage"),
    ("pontoon_tls_handshakes_total", None, "Completed TLS handshakes with the upstream"),
    ("pontoon_upstream_leases_total", None, "Upstream connections given to clients, by where they came from"),
    (
        "pontoon_upstream_discards_total",
        None,
        "Upstream connections that were not kept ready any more, by reason",
    ),
    ("pontoon_tls_reloads_total", None, "Changes of certificate files that were taken over, or were not"),
    ("pontoon_credentials_reloads_total", None, "Secrets that replaced another, and looks that found none"),
];

const GAUGES: &[(&str, &str)] = &[
    ("pontoon_build_info", "Always 1; the version is a label"),
    ("pontoon_sessions_active", "Sessions now"),
    ("pontoon_upstream_connections", "Upstream connections now"),
    ("pontoon_upstream_reachable", "Whether the upstream could be reached when last asked"),
    ("pontoon_transit_encryption", "1 for what the endpoint was seen to accept, where tls.mode is preferred"),
    ("pontoon_upstream_plaintext_connections", "Upstream connections of clients now that are in plaintext"),
    ("pontoon_tls_verification_disabled", "1 where tls.insecure_skip_verify is set"),
];

const CONNECT_SECONDS: &str = "pontoon_upstream_connect_seconds";

/// Upper bounds of the histogram, in seconds: a resumed handshake in one zone to the default deadline.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Makes Prometheus the destination of all metrics, for this process, and returns what renders them.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let matcher = Matcher::Suffix("_seconds".into());
    let handle = PrometheusBuilder::new().set_buckets_for_metric(matcher, SECONDS)?.install_recorder()?;
    describe();
    gauge!("pontoon_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
    Ok(handle)
}

/// The names of all metrics, without the suffixes of histograms.
pub fn names() -> impl Iterator<Item = &'static str> {
    let counters = COUNTERS.iter().map(|(name, ..)| *name);
    counters.chain(GAUGES.iter().map(|(name, _)| *name)).chain([CONNECT_SECONDS])
}

fn describe() {
    for (name, unit, text) in COUNTERS {
        match unit {
            Some(unit) => metrics::describe_counter!(*name, *unit, *text),
            None => metrics::describe_counter!(*name, *text),
        }
    }
    for (name, text) in GAUGES {
        metrics::describe_gauge!(*name, *text);
    }
    metrics::describe_histogram!(CONNECT_SECONDS, Unit::Seconds, "Time to reach the upstream, by stage");
}

/// A route's metrics. All exist, at zero, from the start.
#[allow(missing_docs, reason = "the names above say it")]
pub struct RouteMetrics {
    route: String,
    pub sessions_active: Gauge,
    pub sessions_passthrough: Counter,
    pub sessions_upgraded: Counter,
    pub requests: Counter,
    pub relayed_over_tls: Relayed,
    pub relayed_in_plaintext: Relayed,
    pub relayed_through: Relayed,
    pub upstream_connecting: Gauge,
    pub upstream_active: Gauge,
    pub upstream_idle: Gauge,
    pub upstream_plaintext: Gauge,
    pub upstream_reachable: Gauge,
    pub tls_verification_disabled: Gauge,
    sessions: Vec<(&'static str, Counter)>,
    leases: Vec<(&'static str, bool, Counter)>,
    handshakes_full: Counter,
    handshakes_resumed: Counter,
}

/// Bytes relayed over upstream connections of one kind.
#[allow(missing_docs, reason = "the names say it")]
pub struct Relayed {
    pub to_upstream: Counter,
    pub to_client: Counter,
}

impl RouteMetrics {
    /// Registers the metrics of `route`, whose sessions end in one of these ways.
    pub fn new(route: &str, ends: &[&'static str]) -> Self {
        let route = route.to_owned();
        let relayed = |tls: &'static str| {
            let bytes = |direction: &'static str| counter!("pontoon_relayed_bytes_total", "route" => route.clone(), "direction" => direction, "tls" => tls);
            Relayed { to_upstream: bytes("to_upstream"), to_client: bytes("to_client") }
        };
        let connections = |state: &'static str| gauge!("pontoon_upstream_connections", "route" => route.clone(), "state" => state);
        let leases = |(origin, tls): (&'static str, bool)| {
            let tls_label = if tls { "true" } else { "false" };
            let counter = counter!("pontoon_upstream_leases_total", "route" => route.clone(), "origin" => origin, "tls" => tls_label);
            (origin, tls, counter)
        };
        let handshakes = |resumed: &'static str| counter!("pontoon_tls_handshakes_total", "route" => route.clone(), "resumed" => resumed);
        Self {
            sessions: ends
                .iter()
                .map(|end| {
                    (*end, counter!("pontoon_sessions_total", "route" => route.clone(), "end" => *end))
                })
                .collect(),
            sessions_active: gauge!("pontoon_sessions_active", "route" => route.clone()),
            sessions_passthrough: counter!("pontoon_sessions_passthrough_total", "route" => route.clone()),
            sessions_upgraded: counter!("pontoon_sessions_upgraded_total", "route" => route.clone()),
            requests: counter!("pontoon_requests_total", "route" => route.clone()),
            relayed_over_tls: relayed("true"),
            relayed_in_plaintext: relayed("false"),
            relayed_through: relayed("passthrough"),
            upstream_connecting: connections("connecting"),
            upstream_active: connections("active"),
            upstream_idle: connections("idle"),
            upstream_plaintext: gauge!("pontoon_upstream_plaintext_connections", "route" => route.clone()),
            upstream_reachable: gauge!("pontoon_upstream_reachable", "route" => route.clone()),
            tls_verification_disabled: gauge!("pontoon_tls_verification_disabled", "route" => route.clone()),
            leases: ["dialled", "warm", "reused"]
                .iter()
                .flat_map(|origin| [(*origin, true), (*origin, false)])
                .map(leases)
                .collect(),
            handshakes_full: handshakes("false"),
            handshakes_resumed: handshakes("true"),
            route,
        }
    }

    /// A session ended so.
    pub fn session_ended(&self, end: &'static str) {
        if let Some((_, counter)) = self.sessions.iter().find(|(known, _)| *known == end) {
            counter.increment(1);
        }
    }

    /// A session's replies are not counted any more.
    pub fn opaque(&self, reason: &'static str) {
        self.labelled("pontoon_sessions_opaque_total", "reason", reason);
    }

    /// A client got no session.
    pub fn refused(&self, reason: &'static str) {
        self.labelled("pontoon_clients_refused_total", "reason", reason);
    }

    /// A client could not be accepted.
    pub fn accept_error(&self, reason: &'static str) {
        self.labelled("pontoon_accept_errors_total", "reason", reason);
    }

    /// An attempt to reach the upstream failed in this stage.
    pub fn connect_error(&self, stage: &'static str) {
        self.labelled("pontoon_upstream_connect_errors_total", "stage", stage);
    }

    /// A client got an upstream connection from there, over TLS or not.
    pub fn leased(&self, origin: &'static str, tls: bool) {
        if let Some((.., counter)) = self.leases.iter().find(|known| (known.0, known.1) == (origin, tls)) {
            counter.increment(1);
        }
    }

    /// An endpoint was seen to accept something else than before.
    pub fn transit(&self, upstream: &str, mode: &'static str, before: &'static str) {
        let gauge = |mode: &'static str| gauge!("pontoon_transit_encryption", "route" => self.route.clone(), "upstream" => upstream.to_owned(), "mode" => mode);
        gauge(before).set(0);
        gauge(mode).set(1);
    }

    /// An upstream connection is not kept ready, or not any more.
    pub fn pool_discarded(&self, reason: &'static str) {
        self.labelled("pontoon_upstream_discards_total", "reason", reason);
    }

    /// Certificate files changed.
    pub fn tls_reload(&self, result: &'static str) {
        self.labelled("pontoon_tls_reloads_total", "result", result);
    }

    /// A secret changed, or could not be had.
    pub fn credentials_reload(&self, result: &'static str) {
        self.labelled("pontoon_credentials_reloads_total", "result", result);
    }

    /// A stage of connecting took this long.
    pub fn connect_seconds(&self, stage: &'static str, took: Duration) {
        let histogram: Histogram =
            histogram!(CONNECT_SECONDS, "route" => self.route.clone(), "stage" => stage);
        histogram.record(took);
    }

    /// A TLS handshake was completed.
    pub fn handshake(&self, resumed: bool) {
        if resumed { &self.handshakes_resumed } else { &self.handshakes_full }.increment(1);
    }

    fn labelled(&self, name: &'static str, label: &'static str, value: &'static str) {
        counter!(name, "route" => self.route.clone(), label => value).increment(1);
    }
}

/// Counts one in a gauge for as long as it lives.
pub struct Held(Gauge);

impl Held {
    /// One more.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.increment(1);
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dashboards and alerts depend on these: a change here is a change for users, and belongs in the changelog.
    const NAMES: &str = "\
pontoon_accept_errors_total counter reason,route
pontoon_clients_refused_total counter reason,route
pontoon_credentials_reloads_total counter result,route
pontoon_relayed_bytes_total counter direction,route,tls
pontoon_requests_total counter route
pontoon_sessions_active gauge route
pontoon_sessions_opaque_total counter reason,route
pontoon_sessions_passthrough_total counter route
pontoon_sessions_total counter end,route
pontoon_sessions_upgraded_total counter route
pontoon_tls_handshakes_total counter resumed,route
pontoon_tls_reloads_total counter result,route
pontoon_tls_verification_disabled gauge route
pontoon_transit_encryption gauge mode,route,upstream
pontoon_upstream_connect_errors_total counter route,stage
pontoon_upstream_connect_seconds histogram route,stage
pontoon_upstream_connections gauge route,state
pontoon_upstream_discards_total counter reason,route
pontoon_upstream_leases_total counter origin,route,tls
pontoon_upstream_plaintext_connections gauge route
pontoon_upstream_reachable gauge route";

    #[test]
    fn metric_names_and_labels_are_as_documented() {
        let matcher = Matcher::Suffix("_seconds".into());
        let recorder =
            PrometheusBuilder::new().set_buckets_for_metric(matcher, SECONDS).unwrap().build_recorder();
        let text = metrics::with_local_recorder(&recorder, || {
            describe();
            let route = RouteMetrics::new("r", &["drained"]);
            route.session_ended("drained");
            route.opaque("monitor");
            route.refused("max_clients");
            route.accept_error("exhausted");
            route.connect_error("tls");
            route.tls_reload("ok");
            route.credentials_reload("ok");
            route.pool_discarded("age");
            route.transit("cache:6379", "tls", "disabled");
            route.connect_seconds("tcp", Duration::from_millis(1));
            recorder.handle().render()
        });
        let mut found: Vec<String> = Vec::new();
        for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
            let [name, kind] = line.split(' ').skip(2).collect::<Vec<_>>()[..] else { panic!("{line}") };
            let sample = text.lines().find(|sample| {
                sample.starts_with(&format!("{name}{{")) || sample.starts_with(&format!("{name}_sum{{"))
            });
            let labels = sample.unwrap().split_once('{').unwrap().1.split_once('}').unwrap().0;
            let mut labels: Vec<&str> =
                labels.split(',').map(|pair| pair.split_once('=').unwrap().0).collect();
            labels.sort_unstable();
            found.push(format!("{name} {kind} {}", labels.join(",")));
        }
        found.sort();
        assert_eq!(found.join("\n"), NAMES);
    }

    #[test]
    fn every_metric_has_a_help_text() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let text = metrics::with_local_recorder(&recorder, || {
            describe();
            let _route = RouteMetrics::new("r", &["drained"]);
            recorder.handle().render()
        });
        let count = |prefix| text.lines().filter(|line: &&str| line.starts_with(prefix)).count();
        assert_eq!(count("# HELP"), count("# TYPE"), "{text}");
    }
}
