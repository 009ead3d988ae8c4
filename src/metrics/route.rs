//! A route's metrics.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Label, NoopRecorder, SharedString, counter, gauge, histogram};

use super::by_label::ByLabel;
use super::names::{CONNECT_SECONDS, REQUEST_SECONDS, SERVER_ERRORS};

/// A route's metrics. All exist, at zero, from the start.
#[allow(missing_docs, reason = "the names say it")]
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

    /// The verdict: see `group::verdict`.
    pub fn verdict(&self, safe_to_require_tls: bool, bridge_needed: bool) {
        let gauge = |answer: bool| f64::from(u8::from(answer));
        gauge!("pontoon_safe_to_require_tls", self.own.clone()).set(gauge(safe_to_require_tls));
        gauge!("pontoon_bridge_needed", self.own.clone()).set(gauge(bridge_needed));
    }

    /// So many nodes of the cluster are known, so many of them have no local port, and so many of these because there are
    /// too many nodes.
    pub fn cluster_nodes(&self, known: usize, without_port: usize, over_limit: usize) {
        gauge!("pontoon_cluster_nodes", self.own.clone()).set(known as f64);
        gauge!("pontoon_cluster_nodes_without_port", self.own.clone()).set(without_port as f64);
        gauge!("pontoon_cluster_nodes_over_limit", self.own.clone()).set(over_limit as f64);
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
        const { assert!(SERVER_ERRORS.len() <= ByLabel::MAX_LABEL_VALUES, "all of them are counted") };
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

    /// A connection is closed for what the server sent.
    pub fn reply_refused(&self) {
        counter!("pontoon_replies_refused_total", self.own.clone()).increment(1);
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
