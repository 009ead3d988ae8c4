//! The names and help texts of all metrics. Dashboards and alerts depend on the names.

use super::process;

/// Name and help text.
const COUNTERS: &[(&str, &str)] = &[
    ("pontoon_sessions_total", "Number of sessions that ended, by the way they ended"),
    ("pontoon_sessions_passthrough_total", "Number of sessions of clients that used TLS of their own"),
    ("pontoon_sessions_upgraded_total", "Number of sessions moved from plaintext to TLS"),
    (
        "pontoon_sessions_pinned_total",
        "Number of times that a client of a route in shared mode was pinned to a dedicated connection, by reason",
    ),
    ("pontoon_clients_refused_total", "Number of clients that were refused a session, by reason"),
    (
        "pontoon_replies_refused_total",
        "Number of upstream connections closed because of a reply that pontoon cannot process",
    ),
    ("pontoon_accept_errors_total", "Number of failed attempts to accept a client, by reason"),
    ("pontoon_requests_total", "Number of requests sent upstream"),
    (
        "pontoon_commands_total",
        "Number of requests by command family: \"module\" if the command's name contains a dot, \"other\" if it is unknown",
    ),
    (
        "pontoon_server_errors_total",
        "Number of error replies of the server by their first word, \"other\" if Redis and Valkey themselves do not use it",
    ),
    ("pontoon_relayed_bytes_total", "Number of bytes relayed, without the overhead of pontoon's own TLS"),
    (
        "pontoon_sessions_opaque_total",
        "Number of sessions whose replies could no longer be matched to requests, by reason",
    ),
    ("pontoon_upstream_connect_errors_total", "Number of failed attempts to reach the upstream, by stage"),
    (
        "pontoon_downgrades_refused_total",
        "Number of failed TLS handshakes with endpoints that had accepted TLS before; only if tls.mode is preferred",
    ),
    ("pontoon_tls_handshakes_total", "Number of completed TLS handshakes with the upstream"),
    ("pontoon_upstream_leases_total", "Number of upstream connections given to clients, by origin"),
    (
        "pontoon_upstream_discards_total",
        "Number of upstream connections discarded instead of kept ready, by reason",
    ),
    (
        "pontoon_cluster_refreshes_total",
        "Number of refreshes of the nodes of a cluster or Sentinel group, by result",
    ),
    (
        "pontoon_rewritten_replies_total",
        "Number of replies in which node addresses were replaced with local ones, by kind",
    ),
    (
        "pontoon_tls_reloads_total",
        "Number of changed certificate files that were loaded or could not be, by result",
    ),
    (
        "pontoon_reauthentications_total",
        "Number of attempts to authenticate again for a live session, by result",
    ),
    ("pontoon_config_reloads_total", "Number of reloads of the configuration, by result"),
    (
        "pontoon_credentials_reloads_total",
        "Number of times that a secret changed or could not be read, by result",
    ),
];

const GAUGES: &[(&str, &str)] = &[
    ("pontoon_build_info", "Always 1, with the version as a label"),
    ("pontoon_config_last_reload_successful", "1 if the last reload of the configuration succeeded"),
    ("pontoon_sessions_active", "Number of active sessions"),
    ("pontoon_sessions_waiting", "Number of sessions waiting for an upstream connection"),
    (
        "pontoon_buffered_bytes",
        "Number of bytes buffered because a client or the upstream does not read them",
    ),
    (
        "pontoon_sessions_pinned",
        "Number of sessions of a route in shared mode that are pinned to a dedicated connection",
    ),
    ("pontoon_upstream_connections", "Number of upstream connections, by state"),
    (
        "pontoon_upstream_reachable",
        "1 if the last attempt to reach the upstream succeeded; absent for a node that was removed from its cluster",
    ),
    (
        "pontoon_transit_encryption",
        "1 for the transit encryption mode that the endpoint was seen to use; only if tls.mode is preferred",
    ),
    (
        "pontoon_upstream_plaintext_connections",
        "Number of clients' upstream connections that are in plaintext",
    ),
    ("pontoon_tls_verification_disabled", "1 if tls.insecure_skip_verify is set"),
    (
        "pontoon_tls_certificate_expiry_timestamp_seconds",
        "Time when the endpoint's last presented certificate expires, in Unix time",
    ),
    (
        "pontoon_server_plaintext_clients",
        "Number of clients in plaintext that the route's servers count, NaN if not known; only if evidence.interval is set",
    ),
    (
        "pontoon_evidence_last_success_timestamp_seconds",
        "Time when every server of the route last reported its clients in plaintext, in Unix time; 0 if never",
    ),
    (
        "pontoon_evidence_interval_seconds",
        "Time between two surveys of the servers, in seconds; only if evidence.interval is set",
    ),
    (
        "pontoon_credentials_expiry_timestamp_seconds",
        "Time when the newest password expires, in Unix time; NaN if its source names no time",
    ),
    ("pontoon_credentials_last_read_successful", "1 if the last attempt to read the credentials succeeded"),
    (
        "pontoon_uses_only_tls",
        "1 if all traffic of this bridge is in verified TLS, and was for verdict.quiet_for; /routes gives the reasons",
    ),
    (
        "pontoon_safe_to_require_tls",
        "1 if this bridge uses only TLS and the servers count no client in plaintext; /routes gives the reasons",
    ),
    (
        "pontoon_bridge_needed",
        "1 if a client has used the route within verdict.unused_for, or this is not known yet; /routes gives the reasons",
    ),
    ("pontoon_cluster_nodes", "Number of known nodes of a cluster or Sentinel group"),
    (
        "pontoon_cluster_nodes_without_port",
        "Number of nodes that clients cannot reach because they have no local port",
    ),
    (
        "pontoon_cluster_nodes_over_limit",
        "Number of nodes without a local port because cluster.max_nodes or sentinel.max_servers is reached",
    ),
    (
        "pontoon_next_reauthentication_timestamp_seconds",
        "Time when a live session next authenticates again, in Unix time; NaN if none will",
    ),
];

pub(super) const CONNECT_SECONDS: &str = "pontoon_upstream_connect_seconds";
pub(super) const REQUEST_SECONDS: &str = "pontoon_request_duration_seconds";

/// Name, upper bounds in seconds, and help text.
pub(super) const HISTOGRAMS: &[(&str, &[f64], &str)] = &[
    (CONNECT_SECONDS, CONNECT_BOUNDS, "Time to reach the upstream in seconds, by stage"),
    (
        REQUEST_SECONDS,
        REQUEST_BOUNDS,
        "Time in seconds from the last byte of a request to the first byte of its reply, for one request of a session at a time, \
         without those that block or subscribe",
    ),
];

/// From a resumed handshake in the same zone to the default deadline.
const CONNECT_BOUNDS: &[f64] = &[0.001, 0.0025, 0.01, 0.05, 0.25, 1.0, 5.0];

/// From a server on this machine to one too slow to use. Finest for servers in the same zone or the next.
pub(super) const REQUEST_BOUNDS: &[f64] = &[
    0.00005, 0.0001, 0.0002, 0.0003, 0.0004, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075,
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The bounds that Prometheus sees: each is a series for every route and node. The page's charts use all bounds.
pub(super) const REQUEST_BOUNDS_SHOWN: &[f64] =
    &[0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0];

/// Counters of a node that are rendered at zero, too, by name and label value: rules ask whether they ever counted, and Prometheus sees no
/// increase from an absent series to one. Other counters of a node are rendered once they have counted.
pub(super) const NODE_COUNTERS_AT_ZERO: [(&str, &str, &str); 2] =
    [("pontoon_upstream_leases_total", "tls", "false"), ("pontoon_sessions_total", "end", "client_closed")];

/// The first words of errors of Redis and Valkey (`createSharedObjects` in `server.c`, and replies of commands). Scripts and modules may
/// use others.
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

/// Returns the names of all metrics, without the suffixes of histograms.
pub fn names() -> impl Iterator<Item = &'static str> {
    let counters = COUNTERS.iter().map(|(name, ..)| *name);
    let gauges = GAUGES.iter().map(|(name, _)| *name);
    let histograms = HISTOGRAMS.iter().map(|(name, ..)| *name);
    let process = process::METRICS.iter().map(|(name, ..)| *name);
    counters.chain(gauges).chain(histograms).chain(process)
}

/// Returns the help text of a metric; empty if it has none.
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

    /// Dashboards and alerts depend on these. A change here affects users and belongs in the changelog.
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
pontoon_credentials_expiry_timestamp_seconds gauge route
pontoon_credentials_last_read_successful gauge route
pontoon_credentials_reloads_total counter result,route
pontoon_downgrades_refused_total counter route
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
            route.credentials_expiry(None);
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
            route.credentials_expiry(None);
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
