//! The metrics of a route.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Histogram, Label, NoopRecorder, counter, gauge, histogram};
use parking_lot::Mutex;

use super::by_label::ByLabel;
use super::known::KnownGauge;
use super::names::{CONNECT_SECONDS, REQUEST_SECONDS, SERVER_ERRORS};

/// A route's metrics, which exist while this or a successor does. Most are registered at the start, with zero.
#[allow(missing_docs, reason = "the names say it")]
pub struct RouteMetrics {
    /// Labels of all metrics; if empty, nothing is recorded.
    own: Vec<Label>,
    pub sessions_active: Gauge,
    pub sessions_waiting: Gauge,
    pub buffered_bytes: Gauge,
    pub sessions_passthrough: Counter,
    pub sessions_pinned: Gauge,
    pub sessions_upgraded: Counter,
    /// Failed handshakes of endpoints that had accepted TLS before, where plaintext would have been possible.
    pub downgrades_refused: Counter,
    pub requests: Counter,
    pub request_seconds: Histogram,
    counted: Arc<Counted>,
    /// Gauges of what is known now, by metric name.
    known: Mutex<HashMap<&'static str, Gauge>>,
    connect_seconds: Mutex<HashMap<&'static str, Histogram>>,
    /// Whether the upstream can be reached.
    reachable: KnownGauge,
    pub relayed_over_tls: Relayed,
    pub relayed_in_plaintext: Relayed,
    pub relayed_through: Relayed,
    pub upstream_connecting: Gauge,
    pub upstream_active: Gauge,
    pub upstream_idle: Gauge,
    pub upstream_shared: Gauge,
    pub upstream_plaintext: Gauge,
    replies_refused: Counter,
    sessions: Vec<(&'static str, Counter)>,
    leases: Vec<(&'static str, bool, Counter)>,
    handshakes_full: Counter,
    handshakes_resumed: Counter,
}

/// Counters that are registered at their first use. A successor continues them.
struct Counted {
    commands: ByLabel,
    server_errors: ByLabel,
    others: Mutex<HashMap<(&'static str, &'static str), Counter>>,
    refusals: Mutex<BTreeMap<&'static str, ClientRefusals>>,
}

/// Refused clients, by reason.
#[derive(Debug, Clone, Copy)]
pub struct ClientRefusals {
    /// Number of refused clients.
    pub count: u64,
    /// When the last one was refused, in Unix time.
    pub last: u64,
}

/// Metrics of one upstream of a route.
pub struct UpstreamMetrics {
    /// Labels; if empty, nothing is recorded.
    own: Vec<Label>,
    transit: KnownGauge,
    certificate_expiry: KnownGauge,
}

/// Bytes relayed over upstream connections of one kind.
#[allow(missing_docs, reason = "the names say it")]
pub struct Relayed {
    pub to_upstream: Counter,
    pub to_client: Counter,
}

/// Rarely used counters that alerts watch: name, label, value.
const WATCHED: [(&str, &str, &str); 4] = [
    ("pontoon_upstream_connect_errors_total", "stage", "auth"),
    ("pontoon_reauthentications_total", "result", "refused"),
    ("pontoon_tls_reloads_total", "result", "failed"),
    ("pontoon_credentials_reloads_total", "result", "failed"),
];

impl RouteMetrics {
    /// Registers the metrics of `route`. `ends` are the ways in which its sessions can end.
    pub fn new(route: &str, ends: &[&'static str]) -> Self {
        Self::of(vec![Label::new("route", route.to_owned())], ends).begin_at_zero()
    }

    /// Registers the metrics of a node of the route's cluster.
    pub fn of_node(route: &str, node: &str, ends: &[&'static str]) -> Self {
        Self::of(vec![Label::new("route", route.to_owned()), Label::new("node", node.to_owned())], ends)
    }

    /// Continues the counters of `before` if both have the same route and node.
    #[must_use]
    pub fn succeeding(self, before: &Self) -> Self {
        if self.own == before.own { Self { counted: Arc::clone(&before.counted), ..self } } else { self }
    }

    /// Returns metrics that count but are never rendered, for work that belongs to no route.
    pub fn unrecorded() -> Self {
        metrics::with_local_recorder(&NoopRecorder, || Self::of(Vec::new(), &[]))
    }

    /// Registers the counters that alerts watch, because Prometheus sees no increase from an absent series to one.
    fn begin_at_zero(self) -> Self {
        for (name, label, value) in WATCHED {
            self.count(name, label, value, 0);
        }
        self
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
            downgrades_refused: counter!("pontoon_downgrades_refused_total", with(&[])),
            requests: counter!("pontoon_requests_total", with(&[])),
            request_seconds: histogram!(REQUEST_SECONDS, with(&[])),
            counted: Arc::new(Counted {
                commands: ByLabel::new("pontoon_commands_total", "family"),
                server_errors: ByLabel::new("pontoon_server_errors_total", "code"),
                others: Mutex::default(),
                refusals: Mutex::default(),
            }),
            known: Mutex::default(),
            connect_seconds: Mutex::default(),
            reachable: KnownGauge::default(),
            relayed_over_tls: relayed("true"),
            relayed_in_plaintext: relayed("false"),
            relayed_through: relayed("passthrough"),
            upstream_connecting: connections("connecting"),
            upstream_active: connections("active"),
            upstream_idle: connections("idle"),
            upstream_shared: connections("shared"),
            upstream_plaintext: gauge!("pontoon_upstream_plaintext_connections", with(&[])),
            replies_refused: counter!("pontoon_replies_refused_total", with(&[])),
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

    /// Returns the metrics of one of the route's upstreams.
    pub fn of_upstream(&self, upstream: &str) -> UpstreamMetrics {
        let upstream = Label::new("upstream", upstream.to_owned());
        let labels = || self.own.iter().cloned().chain([upstream]).collect();
        let own = if self.own.is_empty() { Vec::new() } else { labels() };
        UpstreamMetrics { own, transit: KnownGauge::default(), certificate_expiry: KnownGauge::default() }
    }

    /// Hides what was known, because the route was removed or replaced. Counters stay until the last session has ended.
    pub fn retire(&self) {
        self.known.lock().clear();
        self.reachable.withdraw();
    }

    /// Notes whether the upstream was reached.
    pub fn reachable(&self, is_reachable: bool) {
        self.set_shown(&self.reachable, "pontoon_upstream_reachable", f64::from(u8::from(is_reachable)));
    }

    /// Notes whether the upstream should be reachable. For a node that was removed from its cluster, the gauge is hidden.
    pub fn expected(&self, is_expected: bool) {
        if is_expected {
            self.reachable.readmit();
        } else {
            self.reachable.withdraw();
        }
    }

    /// Notes whether `tls.insecure_skip_verify` is set.
    pub fn verification_disabled(&self, is_disabled: bool) {
        self.know("pontoon_tls_verification_disabled", f64::from(u8::from(is_disabled)));
    }

    fn set_shown(&self, shown: &KnownGauge, name: &'static str, value: f64) {
        if !self.own.is_empty() {
            shown.set(name, self.own.clone(), value);
        }
    }

    /// Adds to a gauge, and registers it if necessary.
    fn know_more(&self, name: &'static str, value: f64) {
        if !self.own.is_empty() {
            let register = || gauge!(name, self.own.clone());
            self.known.lock().entry(name).or_insert_with(register).increment(value);
        }
    }

    /// Sets a gauge, and registers it if necessary.
    fn know(&self, name: &'static str, value: f64) {
        if !self.own.is_empty() {
            let register = || gauge!(name, self.own.clone());
            self.known.lock().entry(name).or_insert_with(register).set(value);
        }
    }

    /// Sets the verdict of `group::verdict`.
    pub fn verdict(&self, uses_only_tls: bool, safe_to_require_tls: bool, bridge_needed: bool) {
        self.know("pontoon_uses_only_tls", f64::from(u8::from(uses_only_tls)));
        self.know("pontoon_safe_to_require_tls", f64::from(u8::from(safe_to_require_tls)));
        self.know("pontoon_bridge_needed", f64::from(u8::from(bridge_needed)));
    }

    /// Sets the number of known cluster nodes, of those without a local port, and of those without one because there are too many nodes.
    pub fn cluster_nodes(&self, known: usize, without_port: usize, over_limit: usize) {
        self.know("pontoon_cluster_nodes", known as f64);
        self.know("pontoon_cluster_nodes_without_port", without_port as f64);
        self.know("pontoon_cluster_nodes_over_limit", over_limit as f64);
    }

    /// Counts a refresh of the cluster's nodes.
    pub fn cluster_refreshed(&self, result: &'static str) {
        self.labelled("pontoon_cluster_refreshes_total", "result", result);
    }

    /// Counts a rewritten reply that named nodes.
    pub fn rewritten(&self, kind: &'static str) {
        self.labelled("pontoon_rewritten_replies_total", "kind", kind);
    }

    /// Counts requests of a command family. A family always has the same number, and there are few.
    #[inline]
    pub fn commands(&self, number: usize, family: &'static str, count: u64) {
        self.counted.commands.add(&self.own, number, family, count);
    }

    /// Counts an error reply of the server by its first word.
    pub fn server_error(&self, code: &[u8]) {
        const { assert!(SERVER_ERRORS.len() <= ByLabel::MAX_LABEL_VALUES, "all of them are counted") };
        let number = SERVER_ERRORS.iter().position(|known| known.as_bytes() == code).unwrap_or(0);
        self.counted.server_errors.add(&self.own, number, SERVER_ERRORS[number], 1);
    }

    /// Counts the end of a session.
    pub fn session_ended(&self, end: &'static str) {
        if let Some((_, counter)) = self.sessions.iter().find(|(known, _)| *known == end) {
            counter.increment(1);
        }
    }

    /// Counts a session that became opaque: its replies can no longer be matched to requests.
    pub fn opaque(&self, reason: &'static str) {
        self.labelled("pontoon_sessions_opaque_total", "reason", reason);
    }

    /// Counts a client that was pinned to a dedicated connection.
    pub fn pinned(&self, reason: &'static str) {
        self.labelled("pontoon_sessions_pinned_total", "reason", reason);
    }

    /// Counts a connection that is closed because of what the server sent.
    pub fn reply_refused(&self) {
        self.replies_refused.increment(1);
    }

    /// Counts a client that was refused a session.
    pub fn refused(&self, reason: &'static str) {
        self.labelled("pontoon_clients_refused_total", "reason", reason);
        let last = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut refusals = self.counted.refusals.lock();
        let refused = refusals.entry(reason).or_insert(ClientRefusals { count: 0, last });
        *refused = ClientRefusals { count: refused.count + 1, last };
    }

    /// Returns the refused clients by reason.
    pub fn refusals(&self) -> BTreeMap<&'static str, ClientRefusals> {
        self.counted.refusals.lock().clone()
    }

    /// Counts a failed attempt to accept a client.
    pub fn accept_error(&self, reason: &'static str) {
        self.labelled("pontoon_accept_errors_total", "reason", reason);
    }

    /// Counts an attempt to reach the upstream that failed in this stage.
    pub fn connect_error(&self, stage: &'static str) {
        self.labelled("pontoon_upstream_connect_errors_total", "stage", stage);
    }

    /// Counts an upstream connection given to a client.
    pub fn leased(&self, origin: &'static str, tls: bool) {
        if let Some((.., counter)) = self.leases.iter().find(|known| (known.0, known.1) == (origin, tls)) {
            counter.increment(1);
        }
    }

    /// Notes that the servers are asked from now on, and how often.
    pub fn evidence_begins(&self, interval: Duration) {
        self.know("pontoon_evidence_interval_seconds", interval.as_secs_f64());
        // Adding zero keeps the time of a predecessor that has asked them already.
        self.know_more("pontoon_evidence_last_success_timestamp_seconds", 0.0);
    }

    /// Notes how many clients in plaintext the servers counted at this Unix time; `None` if a server did not say.
    pub fn server_plaintext_clients(&self, count: Option<u64>, at: u64) {
        self.know("pontoon_server_plaintext_clients", count.map_or(f64::NAN, |count| count as f64));
        if count.is_some() {
            self.know("pontoon_evidence_last_success_timestamp_seconds", at as f64);
        }
    }

    /// Counts an upstream connection that was discarded instead of kept ready.
    pub fn pool_discarded(&self, reason: &'static str) {
        self.labelled("pontoon_upstream_discards_total", "reason", reason);
    }

    /// Counts a change of certificate files.
    pub fn tls_reload(&self, result: &'static str) {
        self.labelled("pontoon_tls_reloads_total", "result", result);
    }

    /// Counts an attempt to authenticate again for a live session.
    pub fn reauthenticated(&self, result: &'static str) {
        self.labelled("pontoon_reauthentications_total", "result", result);
    }

    /// Notes when a live session next authenticates again, in Unix time; `None` if none will.
    pub fn next_reauthentication(&self, at: Option<u64>) {
        self.know("pontoon_next_reauthentication_timestamp_seconds", at.map_or(f64::NAN, |at| at as f64));
    }

    /// Notes when the first password to expire does so, in Unix time; `None` if that is not known.
    pub fn credentials_expiry(&self, at: Option<u64>) {
        self.know("pontoon_credentials_expiry_timestamp_seconds", at.map_or(f64::NAN, |at| at as f64));
    }

    /// Notes whether the credentials could be read.
    pub fn credentials_read(&self, succeeded: bool) {
        self.know("pontoon_credentials_last_read_successful", f64::from(u8::from(succeeded)));
    }

    /// Counts a change of the secret, or a failure to read it.
    pub fn credentials_reload(&self, result: &'static str) {
        self.labelled("pontoon_credentials_reloads_total", "result", result);
    }

    /// Records how long a stage of connecting took. Nodes share the series of their route, because each histogram has many.
    pub fn connect_seconds(&self, stage: &'static str, took: Duration) {
        let Some(route) = self.own.first() else { return };
        let register =
            || histogram!(CONNECT_SECONDS, vec![route.clone(), Label::from_static_parts("stage", stage)]);
        self.connect_seconds.lock().entry(stage).or_insert_with(register).record(took);
    }

    /// Counts a completed TLS handshake.
    pub fn handshake(&self, resumed: bool) {
        if resumed { &self.handshakes_resumed } else { &self.handshakes_full }.increment(1);
    }

    fn labelled(&self, name: &'static str, label: &'static str, value: &'static str) {
        self.count(name, label, value, 1);
    }

    fn count(&self, name: &'static str, label: &'static str, value: &'static str, n: u64) {
        if self.own.is_empty() {
            return;
        }
        let label = || Label::from_static_parts(label, value);
        let register = || counter!(name, self.own.iter().cloned().chain([label()]).collect::<Vec<_>>());
        self.counted.others.lock().entry((name, value)).or_insert_with(register).increment(n);
    }
}

impl UpstreamMetrics {
    /// Notes the transit encryption mode that the endpoint was seen to use.
    pub fn transit(&self, mode: &'static str) {
        let mode = Label::from_static_parts("mode", mode);
        let labels = self.own.iter().cloned().chain([mode]).collect();
        self.set(&self.transit, "pontoon_transit_encryption", labels, 1.0);
    }

    /// Hides the mode, because it is no longer observed.
    pub fn transit_unknown(&self) {
        self.transit.clear();
    }

    /// Notes when the endpoint's certificate expires, in Unix time.
    pub fn certificate_expiry(&self, at: u64) {
        let name = "pontoon_tls_certificate_expiry_timestamp_seconds";
        self.set(&self.certificate_expiry, name, self.own.clone(), at as f64);
    }

    /// Hides all, because nothing uses the endpoint any longer.
    pub fn retire(&self) {
        self.transit.withdraw();
        self.certificate_expiry.withdraw();
    }

    fn set(&self, shown: &KnownGauge, name: &'static str, labels: Vec<Label>, value: f64) {
        if !self.own.is_empty() {
            shown.set(name, labels, value);
        }
    }
}
