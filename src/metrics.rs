//! Every metric, by name, in one place; and handles to them, so that the relay touches atomics and nothing else.

mod by_label;
mod durations;
mod process;
mod recorder;

use std::time::Duration;

pub use metrics::Histogram;
use metrics::{Counter, Gauge, Label, NoopRecorder, SharedString, Unit, counter, gauge, histogram};

use self::by_label::ByLabel;
pub use self::durations::Durations;
pub use self::recorder::PrometheusHandle;
use self::recorder::Recorder;

/// Name, unit where it has one, and what it counts.
const COUNTERS: &[(&str, Option<Unit>, &str)] = &[
    ("pontoon_sessions_total", None, "Sessions that ended, by how"),
    ("pontoon_sessions_passthrough_total", None, "Sessions of clients that brought their own TLS"),
    ("pontoon_sessions_upgraded_total", None, "Sessions that were moved from plaintext to TLS"),
    (
        "pontoon_sessions_pinned_total",
        None,
        "Times that a client got a connection of its own where clients share them, by reason",
    ),
    ("pontoon_clients_refused_total", None, "Clients that got no session"),
    ("pontoon_accept_errors_total", None, "Failed attempts to accept a client"),
    ("pontoon_requests_total", None, "Requests sent upstream"),
    (
        "pontoon_commands_total",
        None,
        "Requests by what their commands are about: \"module\" has a name with a dot, \"other\" is not known",
    ),
    (
        "pontoon_server_errors_total",
        None,
        "Error replies of the server by their first word, \"other\" if it is none that Redis or Valkey say themselves",
    ),
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
    ("pontoon_cluster_refreshes_total", None, "Times that the cluster's nodes were looked up, by result"),
    (
        "pontoon_rewritten_replies_total",
        None,
        "Replies that named a cluster's nodes and got local addresses, by kind",
    ),
    ("pontoon_tls_reloads_total", None, "Changes of certificate files that were taken over, or were not"),
    (
        "pontoon_reauthentications_total",
        None,
        "Live sessions that authenticated again, or could not, by result",
    ),
    ("pontoon_config_reloads_total", None, "Reloads of the configuration, by result"),
    ("pontoon_credentials_reloads_total", None, "Secrets that replaced another, and looks that found none"),
];

const GAUGES: &[(&str, &str)] = &[
    ("pontoon_build_info", "Always 1; the version is a label"),
    ("pontoon_config_last_reload_successful", "Whether the configuration as it was asked for last is obeyed"),
    ("pontoon_sessions_active", "Sessions now"),
    ("pontoon_sessions_waiting", "Sessions that wait for an upstream connection now"),
    ("pontoon_buffered_bytes", "Bytes that wait now because a client or the upstream does not take them"),
    ("pontoon_sessions_pinned", "Sessions now that have a connection of their own where clients share them"),
    ("pontoon_upstream_connections", "Upstream connections now"),
    ("pontoon_upstream_reachable", "Whether the upstream could be reached when last asked"),
    ("pontoon_transit_encryption", "1 for what the endpoint was seen to accept, where tls.mode is preferred"),
    ("pontoon_upstream_plaintext_connections", "Upstream connections of clients now that are in plaintext"),
    ("pontoon_tls_verification_disabled", "1 where tls.insecure_skip_verify is set"),
    (
        "pontoon_tls_certificate_expiry_timestamp_seconds",
        "When the certificate that the endpoint presented last expires",
    ),
    (
        "pontoon_server_plaintext_clients",
        "Clients in plaintext, as all servers of the route count them; NaN: not known. Asked where evidence.interval is set",
    ),
    (
        "pontoon_evidence_last_success_timestamp_seconds",
        "When every server of the route last told its clients in plaintext",
    ),
    (
        "pontoon_safe_to_require_tls",
        "1 where all evidence says that nobody would miss plaintext; /routes says why, or why not",
    ),
    (
        "pontoon_bridge_needed",
        "1 unless no client has used the route for verdict.unused_for; /routes says who does",
    ),
    ("pontoon_cluster_nodes", "Nodes of the cluster that are known"),
    (
        "pontoon_cluster_nodes_without_port",
        "Nodes of the cluster that clients cannot be led to: no local port is free",
    ),
    (
        "pontoon_next_reauthentication_timestamp_seconds",
        "When a live session authenticates again next; NaN: none will",
    ),
];

const CONNECT_SECONDS: &str = "pontoon_upstream_connect_seconds";
const REQUEST_SECONDS: &str = "pontoon_request_duration_seconds";

/// Name, upper bounds in seconds, and what it tells.
const HISTOGRAMS: &[(&str, &[f64], &str)] = &[
    (CONNECT_SECONDS, CONNECT_BOUNDS, "Time to reach the upstream, by stage"),
    (
        REQUEST_SECONDS,
        REQUEST_BOUNDS,
        "Time from the last byte of a request to the first of its reply: of one request of a session at a time, and of none that \
         blocks or subscribes",
    ),
];

/// A resumed handshake in one zone to the default deadline.
const CONNECT_BOUNDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// A server on this machine to one that nobody waits for. Finest where one in the same zone or the next answers.
const REQUEST_BOUNDS: &[f64] = &[
    0.00005, 0.0001, 0.0002, 0.0003, 0.0004, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075,
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The words that errors of Redis and Valkey begin with (`createSharedObjects` in `server.c`, and the replies of commands
/// beside it). A script or a module may say any other.
const SERVER_ERRORS: &[&str] = &[
    "other",
    "ASK",
    "BUSY",
    "BUSYGROUP",
    "BUSYKEY",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "DENIED",
    "ERR",
    "EXECABORT",
    "INPROG",
    "IOERR",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOAUTH",
    "NOGOODSLAVE",
    "NOGROUP",
    "NOMASTERLINK",
    "NOPERM",
    "NOPROTO",
    "NOREPLICAS",
    "NOSCRIPT",
    "NOTBUSY",
    "OOM",
    "READONLY",
    "REDIRECT",
    "TRYAGAIN",
    "UNBLOCKED",
    "UNKILLABLE",
    "WRONGPASS",
    "WRONGTYPE",
];

/// Makes Prometheus the destination of all metrics, for this process, and returns what renders them.
pub fn install() -> Result<PrometheusHandle, AlreadyInstalled> {
    let recorder = Recorder::new();
    let handle = recorder.handle().with_process();
    metrics::set_global_recorder(recorder).map_err(|_| AlreadyInstalled)?;
    describe();
    gauge!("pontoon_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
    gauge!("pontoon_config_last_reload_successful").set(1);
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

/// The names of all metrics, without the suffixes of histograms.
pub fn names() -> impl Iterator<Item = &'static str> {
    let counters = COUNTERS.iter().map(|(name, ..)| *name);
    let gauges = GAUGES.iter().map(|(name, _)| *name);
    let histograms = HISTOGRAMS.iter().map(|(name, ..)| *name);
    let process = process::METRICS.iter().map(|(name, ..)| *name);
    counters.chain(gauges).chain(histograms).chain(process)
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
}

/// A route's metrics. All exist, at zero, from the start.
#[allow(missing_docs, reason = "the names above say it")]
pub struct RouteMetrics {
    /// Labels of all of them; empty: nothing is recorded.
    own: Vec<Label>,
    pub sessions_active: Gauge,
    pub sessions_waiting: Gauge,
    pub buffered_bytes: Gauge,
    pub sessions_passthrough: Counter,
    pub sessions_pinned: Gauge,
    pub sessions_upgraded: Counter,
    pub requests: Counter,
    pub request_seconds: Histogram,
    commands: ByLabel,
    server_errors: ByLabel,
    pub relayed_over_tls: Relayed,
    pub relayed_in_plaintext: Relayed,
    pub relayed_through: Relayed,
    pub upstream_connecting: Gauge,
    pub upstream_active: Gauge,
    pub upstream_idle: Gauge,
    pub upstream_shared: Gauge,
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
        Self::of(vec![Label::new("route", route.to_owned())], ends)
    }

    /// Of a node of the route's cluster.
    pub fn of_node(route: &str, node: &str, ends: &[&'static str]) -> Self {
        Self::of(vec![Label::new("route", route.to_owned()), Label::new("node", node.to_owned())], ends)
    }

    /// For what belongs to no route: counts, and shows nobody.
    pub fn unrecorded() -> Self {
        metrics::with_local_recorder(&NoopRecorder, || Self::of(Vec::new(), &[]))
    }

    fn of(own: Vec<Label>, ends: &[&'static str]) -> Self {
        let with = |more: &[(&'static str, &'static str)]| {
            let more = more.iter().map(|(name, value)| Label::from_static_parts(name, value));
            own.iter().cloned().chain(more).collect::<Vec<_>>()
        };
        let relayed = |tls: &'static str| {
            let bytes = |direction: &'static str| {
                counter!("pontoon_relayed_bytes_total", with(&[("direction", direction), ("tls", tls)]))
            };
            Relayed { to_upstream: bytes("to_upstream"), to_client: bytes("to_client") }
        };
        let connections =
            |state: &'static str| gauge!("pontoon_upstream_connections", with(&[("state", state)]));
        let leases = |(origin, tls): (&'static str, bool)| {
            let tls_label = if tls { "true" } else { "false" };
            let labels = with(&[("origin", origin), ("tls", tls_label)]);
            (origin, tls, counter!("pontoon_upstream_leases_total", labels))
        };
        let handshakes = |resumed| counter!("pontoon_tls_handshakes_total", with(&[("resumed", resumed)]));
        Self {
            sessions: ends
                .iter()
                .map(|end| (*end, counter!("pontoon_sessions_total", with(&[("end", *end)]))))
                .collect(),
            sessions_active: gauge!("pontoon_sessions_active", with(&[])),
            sessions_waiting: gauge!("pontoon_sessions_waiting", with(&[])),
            buffered_bytes: gauge!("pontoon_buffered_bytes", with(&[])),
            sessions_passthrough: counter!("pontoon_sessions_passthrough_total", with(&[])),
            sessions_pinned: gauge!("pontoon_sessions_pinned", with(&[])),
            sessions_upgraded: counter!("pontoon_sessions_upgraded_total", with(&[])),
            requests: counter!("pontoon_requests_total", with(&[])),
            request_seconds: histogram!(REQUEST_SECONDS, with(&[])),
            commands: ByLabel::new("pontoon_commands_total", "family"),
            server_errors: ByLabel::new("pontoon_server_errors_total", "code"),
            relayed_over_tls: relayed("true"),
            relayed_in_plaintext: relayed("false"),
            relayed_through: relayed("passthrough"),
            upstream_connecting: connections("connecting"),
            upstream_active: connections("active"),
            upstream_idle: connections("idle"),
            upstream_shared: connections("shared"),
            upstream_plaintext: gauge!("pontoon_upstream_plaintext_connections", with(&[])),
            upstream_reachable: gauge!("pontoon_upstream_reachable", with(&[])),
            tls_verification_disabled: gauge!("pontoon_tls_verification_disabled", with(&[])),
            leases: ["dialled", "warm", "reused"]
                .iter()
                .flat_map(|origin| [(*origin, true), (*origin, false)])
                .map(leases)
                .collect(),
            handshakes_full: handshakes("false"),
            handshakes_resumed: handshakes("true"),
            own,
        }
    }

    /// With one label more. `None`: nothing is recorded.
    fn with(&self, name: &'static str, value: impl Into<SharedString>) -> Option<Vec<Label>> {
        let more = Label::new(name, value);
        (!self.own.is_empty()).then(|| self.own.iter().cloned().chain([more]).collect())
    }

    /// The route was removed: nothing of it is to worry anybody, and nothing to change a fleet's sums.
    pub fn removed(&self) {
        self.verdict(true, false);
        self.server_plaintext_clients(None, 0);
        self.next_reauthentication(None);
        self.tls_verification_disabled.set(0);
    }

    /// Nobody goes to an endpoint any more, which was seen to accept so, and whose certificate was seen or not.
    pub fn forget_upstream(&self, upstream: &str, seen: Option<&'static str>, has_certificate: bool) {
        self.upstream_reachable.set(1);
        let Some(labels) = self.with("upstream", upstream.to_owned()) else { return };
        if has_certificate {
            gauge!("pontoon_tls_certificate_expiry_timestamp_seconds", labels.clone()).set(f64::INFINITY);
        }
        if let Some(mode) = seen {
            let mode = Label::from_static_parts("mode", mode);
            gauge!("pontoon_transit_encryption", labels.into_iter().chain([mode]).collect::<Vec<_>>()).set(0);
        }
    }

    /// The verdict: see `verdict`.
    pub fn verdict(&self, safe_to_require_tls: bool, bridge_needed: bool) {
        let gauge = |answer: bool| f64::from(u8::from(answer));
        gauge!("pontoon_safe_to_require_tls", self.own.clone()).set(gauge(safe_to_require_tls));
        gauge!("pontoon_bridge_needed", self.own.clone()).set(gauge(bridge_needed));
    }

    /// So many nodes of the cluster are known, and so many of them have no local port.
    pub fn cluster_nodes(&self, known: usize, without_port: usize) {
        gauge!("pontoon_cluster_nodes", self.own.clone()).set(known as f64);
        gauge!("pontoon_cluster_nodes_without_port", self.own.clone()).set(without_port as f64);
    }

    /// The cluster's nodes were looked up.
    pub fn cluster_refreshed(&self, result: &'static str) {
        self.labelled("pontoon_cluster_refreshes_total", "result", result);
    }

    /// A reply that named nodes was rewritten.
    pub fn rewritten(&self, kind: &'static str) {
        self.labelled("pontoon_rewritten_replies_total", "kind", kind);
    }

    /// So many requests of a family were sent: it has always the same number, and there are few.
    #[inline]
    pub fn commands(&self, number: usize, family: &'static str, count: u64) {
        self.commands.add(&self.own, number, family, count);
    }

    /// The server replied with an error that begins with this word.
    pub fn server_error(&self, code: &[u8]) {
        const { assert!(SERVER_ERRORS.len() <= ByLabel::MOST, "all of them are counted") };
        let number = SERVER_ERRORS.iter().position(|known| known.as_bytes() == code).unwrap_or(0);
        self.server_errors.add(&self.own, number, SERVER_ERRORS[number], 1);
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

    /// A client got a connection of its own, where clients share them.
    pub fn pinned(&self, reason: &'static str) {
        self.labelled("pontoon_sessions_pinned_total", "reason", reason);
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
        let Some(labels) = self.with("upstream", upstream.to_owned()) else { return };
        let gauge = |mode: &'static str| {
            let mode = Label::from_static_parts("mode", mode);
            gauge!("pontoon_transit_encryption", labels.iter().cloned().chain([mode]).collect::<Vec<_>>())
        };
        gauge(before).set(0);
        gauge(mode).set(1);
    }

    /// An endpoint presented a certificate that expires then, in Unix time.
    pub fn certificate_expiry(&self, upstream: &str, at: u64) {
        let Some(labels) = self.with("upstream", upstream.to_owned()) else { return };
        gauge!("pontoon_tls_certificate_expiry_timestamp_seconds", labels).set(at as f64);
    }

    /// The servers were asked, at this Unix time, how many clients they have in plaintext; `None`: not all of them told.
    pub fn server_plaintext_clients(&self, count: Option<u64>, at: u64) {
        let gauge = gauge!("pontoon_server_plaintext_clients", self.own.clone());
        gauge.set(count.map_or(f64::NAN, |count| count as f64));
        if count.is_some() {
            gauge!("pontoon_evidence_last_success_timestamp_seconds", self.own.clone()).set(at as f64);
        }
    }

    /// An upstream connection is not kept ready, or not any more.
    pub fn pool_discarded(&self, reason: &'static str) {
        self.labelled("pontoon_upstream_discards_total", "reason", reason);
    }

    /// Certificate files changed.
    pub fn tls_reload(&self, result: &'static str) {
        self.labelled("pontoon_tls_reloads_total", "result", result);
    }

    /// A live session authenticated again, or did not.
    pub fn reauthenticated(&self, result: &'static str) {
        self.labelled("pontoon_reauthentications_total", "result", result);
    }

    /// A live session authenticates again then, in Unix time; `None`: none ever will.
    pub fn next_reauthentication(&self, at: Option<u64>) {
        let gauge = gauge!("pontoon_next_reauthentication_timestamp_seconds", self.own.clone());
        gauge.set(at.map_or(f64::NAN, |at| at as f64));
    }

    /// A secret changed, or could not be had.
    pub fn credentials_reload(&self, result: &'static str) {
        self.labelled("pontoon_credentials_reloads_total", "result", result);
    }

    /// A stage of connecting took this long.
    pub fn connect_seconds(&self, stage: &'static str, took: Duration) {
        let Some(labels) = self.with("stage", stage) else { return };
        let histogram: Histogram = histogram!(CONNECT_SECONDS, labels);
        histogram.record(took);
    }

    /// A TLS handshake was completed.
    pub fn handshake(&self, resumed: bool) {
        if resumed { &self.handshakes_resumed } else { &self.handshakes_full }.increment(1);
    }

    fn labelled(&self, name: &'static str, label: &'static str, value: &'static str) {
        if let Some(labels) = self.with(label, value) {
            counter!(name, labels).increment(1);
        }
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

/// A part of what a gauge shows, for as long as it lives.
pub struct Share {
    gauge: Gauge,
    amount: usize,
}

impl Share {
    /// Nothing yet.
    pub fn new(gauge: &Gauge) -> Self {
        Self { gauge: gauge.clone(), amount: 0 }
    }

    /// It is so much now.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Dashboards and alerts depend on these: a change here is a change for users, and belongs in the changelog.
    const NAMES: &str = "\
pontoon_accept_errors_total counter reason,route
pontoon_bridge_needed gauge route
pontoon_buffered_bytes gauge route
pontoon_clients_refused_total counter reason,route
pontoon_cluster_nodes gauge route
pontoon_cluster_nodes_without_port gauge route
pontoon_cluster_refreshes_total counter result,route
pontoon_commands_total counter family,route
pontoon_credentials_reloads_total counter result,route
pontoon_evidence_last_success_timestamp_seconds gauge route
pontoon_next_reauthentication_timestamp_seconds gauge route
pontoon_reauthentications_total counter result,route
pontoon_relayed_bytes_total counter direction,route,tls
pontoon_request_duration_seconds histogram route
pontoon_requests_total counter route
pontoon_rewritten_replies_total counter kind,route
pontoon_safe_to_require_tls gauge route
pontoon_server_errors_total counter code,route
pontoon_server_plaintext_clients gauge route
pontoon_sessions_active gauge route
pontoon_sessions_opaque_total counter reason,route
pontoon_sessions_passthrough_total counter route
pontoon_sessions_pinned gauge route
pontoon_sessions_pinned_total counter reason,route
pontoon_sessions_total counter end,route
pontoon_sessions_upgraded_total counter route
pontoon_sessions_waiting gauge route
pontoon_tls_certificate_expiry_timestamp_seconds gauge route,upstream
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
        let recorder = Recorder::new();
        let text = metrics::with_local_recorder(&recorder, || {
            describe();
            let route = RouteMetrics::new("r", &["drained"]);
            route.session_ended("drained");
            route.opaque("monitor");
            route.pinned("blocking");
            route.refused("max_clients");
            route.accept_error("exhausted");
            route.connect_error("tls");
            route.commands(0, "string", 1);
            route.server_error(b"WRONGTYPE");
            route.tls_reload("ok");
            route.credentials_reload("ok");
            route.reauthenticated("ok");
            route.next_reauthentication(None);
            route.pool_discarded("age");
            route.transit("cache:6379", "tls", "disabled");
            route.certificate_expiry("cache:6379", 1);
            route.server_plaintext_clients(Some(0), 1);
            route.verdict(true, false);
            route.cluster_nodes(6, 0);
            route.cluster_refreshed("ok");
            route.rewritten("topology");
            route.connect_seconds("tcp", Duration::from_millis(1));
            route.request_seconds.record(Duration::from_millis(1));
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
        let recorder = Recorder::new();
        let text = metrics::with_local_recorder(&recorder, || {
            describe();
            let route = RouteMetrics::new("r", &["drained"]);
            route.cluster_nodes(1, 0);
            route.verdict(true, false);
            route.next_reauthentication(None);
            route.server_plaintext_clients(Some(0), 1);
            route.certificate_expiry("cache:6379", 1);
            recorder.handle().render()
        });
        let count = |prefix| text.lines().filter(|line: &&str| line.starts_with(prefix)).count();
        assert_eq!(count("# HELP"), count("# TYPE"), "{text}");
    }
}
