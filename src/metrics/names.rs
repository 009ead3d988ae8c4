//! The names of all metrics, and what each counts: what dashboards and alerts depend on.

use super::process;

/// Name, and what it counts.
const COUNTERS: &[(&str, &str)] = &[
    ("pontoon_sessions_total", "Sessions that ended, by how"),
    ("pontoon_sessions_passthrough_total", "Sessions of clients that brought their own TLS"),
    ("pontoon_sessions_upgraded_total", "Sessions that were moved from plaintext to TLS"),
    (
        "pontoon_sessions_pinned_total",
        "Times that a client got a connection of its own where clients share them, by reason",
    ),
    ("pontoon_clients_refused_total", "Clients that got no session"),
    (
        "pontoon_replies_refused_total",
        "Number of upstream connections closed because pontoon cannot go on with what the server sent",
    ),
    ("pontoon_accept_errors_total", "Failed attempts to accept a client"),
    ("pontoon_requests_total", "Requests sent upstream"),
    (
        "pontoon_commands_total",
        "Requests by what their commands are about: \"module\" has a name with a dot, \"other\" is not known",
    ),
    (
        "pontoon_server_errors_total",
        "Error replies of the server by their first word, \"other\" if it is none that Redis or Valkey say themselves",
    ),
    ("pontoon_relayed_bytes_total", "Bytes relayed, in plaintext"),
    ("pontoon_sessions_opaque_total", "Sessions whose replies could not be matched to requests any more"),
    ("pontoon_upstream_connect_errors_total", "Failed attempts to reach the upstream, by stage"),
    ("pontoon_tls_handshakes_total", "Completed TLS handshakes with the upstream"),
    ("pontoon_upstream_leases_total", "Upstream connections given to clients, by where they came from"),
    ("pontoon_upstream_discards_total", "Upstream connections that were not kept ready any more, by reason"),
    ("pontoon_cluster_refreshes_total", "Times that the cluster's nodes were looked up, by result"),
    (
        "pontoon_rewritten_replies_total",
        "Replies that named a cluster's nodes and got local addresses, by kind",
    ),
    ("pontoon_tls_reloads_total", "Changes of certificate files that were taken over, or were not"),
    ("pontoon_reauthentications_total", "Live sessions that authenticated again, or could not, by result"),
    ("pontoon_config_reloads_total", "Reloads of the configuration, by result"),
    ("pontoon_credentials_reloads_total", "Secrets that replaced another, and looks that found none"),
];

const GAUGES: &[(&str, &str)] = &[
    ("pontoon_build_info", "Always 1; the version is a label"),
    ("pontoon_config_last_reload_successful", "1 if the last reload of the configuration succeeded"),
    ("pontoon_sessions_active", "Sessions now"),
    ("pontoon_sessions_waiting", "Sessions that wait for an upstream connection now"),
    ("pontoon_buffered_bytes", "Bytes that wait now because a client or the upstream does not take them"),
    ("pontoon_sessions_pinned", "Sessions now that have a connection of their own where clients share them"),
    ("pontoon_upstream_connections", "Upstream connections now"),
    (
        "pontoon_upstream_reachable",
        "1 if the upstream was reached when last tried; absent for a node that its cluster has given up",
    ),
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
        "Time when every server of the route last reported its clients in plaintext; 0: never",
    ),
    (
        "pontoon_evidence_interval_seconds",
        "Time between two questions to the servers, where evidence.interval is set",
    ),
    ("pontoon_credentials_last_read_successful", "1 if the credentials were read when last looked for"),
    (
        "pontoon_uses_only_tls",
        "1 if all traffic of this bridge is in verified TLS, and was for verdict.quiet_for; /routes says why, or why not",
    ),
    (
        "pontoon_safe_to_require_tls",
        "1 if this bridge uses only TLS and the servers count no client in plaintext; /routes says why, or why not",
    ),
    (
        "pontoon_bridge_needed",
        "1 unless no client has used the route for verdict.unused_for; /routes says who does",
    ),
    ("pontoon_cluster_nodes", "Nodes of the cluster that are known"),
    (
        "pontoon_cluster_nodes_without_port",
        "Nodes of the cluster that clients cannot be led to: they have no local port",
    ),
    (
        "pontoon_cluster_nodes_over_limit",
        "Number of nodes without a local port because cluster.max_nodes is reached",
    ),
    (
        "pontoon_next_reauthentication_timestamp_seconds",
        "When a live session authenticates again next; NaN: none will",
    ),
];

pub(super) const CONNECT_SECONDS: &str = "pontoon_upstream_connect_seconds";
pub(super) const REQUEST_SECONDS: &str = "pontoon_request_duration_seconds";

/// Name, upper bounds in seconds, and what it tells.
pub(super) const HISTOGRAMS: &[(&str, &[f64], &str)] = &[
    (CONNECT_SECONDS, CONNECT_BOUNDS, "Time to reach the upstream, by stage"),
    (
        REQUEST_SECONDS,
        REQUEST_BOUNDS,
        "Time from the last byte of a request to the first of its reply: of one request of a session at a time, and of none that \
         blocks or subscribes",
    ),
];

/// A resumed handshake in one zone to the default deadline.
const CONNECT_BOUNDS: &[f64] = &[0.001, 0.0025, 0.01, 0.05, 0.25, 1.0, 5.0];

/// A server on this machine to one that nobody waits for. Finest where one in the same zone or the next answers.
pub(super) const REQUEST_BOUNDS: &[f64] = &[
    0.00005, 0.0001, 0.0002, 0.0003, 0.0004, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075,
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Of these, those that Prometheus sees: each is a series of each route and node. The page's charts have all.
pub(super) const REQUEST_BOUNDS_SHOWN: &[f64] =
    &[0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0];

/// A node's counters that are shown at zero, too, by name and the value of a label: rules ask whether they counted at all, and
/// Prometheus sees no increase from nothing to one. The others of a node are shown once they have counted.
pub(super) const NODE_COUNTERS_AT_ZERO: [(&str, &str, &str); 2] =
    [("pontoon_upstream_leases_total", "tls", "false"), ("pontoon_sessions_total", "end", "client_closed")];

/// The words that errors of Redis and Valkey begin with (`createSharedObjects` in `server.c`, and the replies of commands
/// beside it). A script or a module may say any other.
pub(super) const SERVER_ERRORS: &[&str] = &[
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

/// The names of all metrics, without the suffixes of histograms.
pub fn names() -> impl Iterator<Item = &'static str> {
    let counters = COUNTERS.iter().map(|(name, ..)| *name);
    let gauges = GAUGES.iter().map(|(name, _)| *name);
    let histograms = HISTOGRAMS.iter().map(|(name, ..)| *name);
    let process = process::METRICS.iter().map(|(name, ..)| *name);
    counters.chain(gauges).chain(histograms).chain(process)
}

/// The help text of a metric; empty where it has none.
pub(super) fn help(name: &str) -> &'static str {
    let counters = COUNTERS.iter().map(|(known, help)| (*known, *help));
    let gauges = GAUGES.iter().map(|(known, help)| (*known, *help));
    let histograms = HISTOGRAMS.iter().map(|(known, _, help)| (*known, *help));
    let mut all = counters.chain(gauges).chain(histograms);
    all.find(|(known, _)| *known == name).map_or("", |(_, help)| help)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::metrics::RouteMetrics;
    use crate::metrics::recorder::Recorder;

    /// Dashboards and alerts depend on these: a change here is a change for users, and belongs in the changelog.
    const METRIC_NAMES: &str = "\
pontoon_accept_errors_total counter reason,route
pontoon_bridge_needed gauge route
pontoon_buffered_bytes gauge route
pontoon_clients_refused_total counter reason,route
pontoon_cluster_nodes gauge route
pontoon_cluster_nodes_over_limit gauge route
pontoon_cluster_nodes_without_port gauge route
pontoon_cluster_refreshes_total counter result,route
pontoon_commands_total counter family,route
pontoon_credentials_last_read_successful gauge route
pontoon_credentials_reloads_total counter result,route
pontoon_evidence_interval_seconds gauge route
pontoon_evidence_last_success_timestamp_seconds gauge route
pontoon_next_reauthentication_timestamp_seconds gauge route
pontoon_reauthentications_total counter result,route
pontoon_relayed_bytes_total counter direction,route,tls
pontoon_replies_refused_total counter route
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
pontoon_upstream_reachable gauge route
pontoon_uses_only_tls gauge route";

    #[test]
    fn metric_names_and_labels_are_as_documented() {
        let recorder = Recorder::new();
        let text = metrics::with_local_recorder(&recorder, || {
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
            route.credentials_read(true);
            route.evidence_begins(Duration::from_secs(1));
            route.reauthenticated("ok");
            route.next_reauthentication(None);
            route.pool_discarded("age");
            let upstream = route.of_upstream("cache:6379");
            upstream.transit("tls");
            upstream.certificate_expiry(1);
            route.reachable(true);
            route.verification_disabled(false);
            route.server_plaintext_clients(Some(0), 1);
            route.verdict(true, true, false);
            route.cluster_nodes(6, 0, 0);
            route.cluster_refreshed("ok");
            route.rewritten("topology");
            route.reply_refused();
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
        assert_eq!(found.join("\n"), METRIC_NAMES);
    }

    #[test]
    fn every_metric_has_a_help_text() {
        let recorder = Recorder::new();
        let text = metrics::with_local_recorder(&recorder, || {
            let route = RouteMetrics::new("r", &["drained"]);
            route.cluster_nodes(1, 0, 0);
            route.verdict(true, true, false);
            route.next_reauthentication(None);
            route.server_plaintext_clients(Some(0), 1);
            let upstream = route.of_upstream("cache:6379");
            upstream.certificate_expiry(1);
            recorder.handle().render()
        });
        for line in text.lines().filter(|line| line.starts_with("# HELP")) {
            assert!(line.split(' ').count() > 3, "{line}");
        }
    }
}
