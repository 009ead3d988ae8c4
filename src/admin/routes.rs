//! `GET /routes`: the state and the verdicts of each route; the verdicts also as metrics.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::inventory::{DEFAULT_INVENTORY_LIMIT, json, look_up};
use super::server::RequestConnection;
use super::serving::ServingReport;
use super::state::{AdminContext, AdminState};
use crate::clients::{ClientRecord, Totals, TrafficCounts};
use crate::cluster::Upstreams;
use crate::group::verdict::{self, RouteFacts, Verdict};
use crate::group::{NodeEvidence, Observation, Observer, SimilarClients};
use crate::metrics::{ClientRefusals, RouteMetrics};
use crate::moment::Moment;
use crate::tls;
use crate::upstream::EndpointFacts;

/// Seconds for which a refused client counts as a current problem.
const RECENT_REFUSAL: u64 = 600;

/// Maximum number of unreachable upstreams that are named, because a cluster may have hundreds of nodes.
const MAX_OUTAGES: usize = 4;

/// A route, and where its facts come from.
#[derive(Clone)]
pub struct AdminRoute {
    /// The route's name.
    pub name: Arc<str>,
    /// The group that it leads to, as configured.
    pub group: Option<Arc<str>>,
    /// Where it listens, with the ports that the system chose.
    pub listeners: Vec<String>,
    /// TLS settings as configured.
    pub tls: tls::Settings,
    /// Whether sessions in plaintext move to TLS by themselves.
    pub upgrades: bool,
    /// The server side.
    pub upstreams: Upstreams,
    /// Asks the servers; `None` if they are not asked.
    pub observer: Option<Arc<Observer>>,
    /// Where the verdicts are recorded as metrics.
    pub metrics: Arc<RouteMetrics>,
}

/// A route in the response of `/routes`.
#[derive(Debug, Serialize, Deserialize)]
pub struct RouteReport {
    /// The route's name.
    pub route: Box<str>,
    /// The group that it leads to, as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Box<str>>,
    /// Where it listens.
    pub listeners: Vec<String>,
    /// `tls.mode` as configured.
    pub tls_mode: Box<str>,
    /// The facts about its endpoints.
    pub upstreams: Vec<EndpointFacts>,
    /// When the password that pontoon presents expires, or the first of a Sentinel group's two; `None` if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_expire: Option<Moment>,
    /// Why the upstream does not count as reached; `None` if it was reached recently.
    #[serde(default)]
    pub unreached: Option<String>,
    /// When bytes last passed or a session ended, in this run or an earlier one; `None` if no client has used it.
    #[serde(default)]
    pub last_used: Option<Moment>,
    /// Number of active sessions.
    pub sessions_active: u64,
    /// Number of sessions of this run.
    pub sessions_total: u64,
    /// Traffic of this run.
    #[serde(flatten)]
    pub counts: TrafficCounts,
    /// The part of it that was in plaintext upstream.
    pub plaintext: PlaintextReport,
    /// Current problems: upstreams that cannot be reached, with the cause, and clients that were refused recently.
    pub problems: Vec<String>,
    /// What the servers report; `None` if they are not asked.
    pub servers: Option<ServersReport>,
    /// Whether all of this bridge's own traffic is in verified TLS.
    pub uses_only_tls: Verdict,
    /// Whether the group can require TLS without cutting off a client.
    pub safe_to_require_tls: Verdict,
    /// Whether any client still needs the bridge.
    pub bridge_needed: Verdict,
}

/// Sessions and traffic in plaintext upstream.
#[derive(Debug, Serialize, Deserialize)]
pub struct PlaintextReport {
    /// Number of sessions in plaintext now.
    pub sessions_active: u64,
    /// Number of sessions of this run that are or were in plaintext.
    pub sessions_total: u64,
    /// When the last of them ended or moved to TLS, in this run or an earlier one; now if one is active.
    pub last: Option<Moment>,
    /// Share of this run's sessions that used TLS from the beginning; `None` if there were no sessions.
    pub sessions_over_tls_ratio: Option<f64>,
    /// Share of this run's bytes that went over TLS; `None` if there were no bytes.
    pub bytes_over_tls_ratio: Option<f64>,
}

/// What the servers report about their clients.
#[derive(Debug, Serialize, Deserialize)]
pub struct ServersReport {
    /// When they were last asked.
    pub asked: Option<Moment>,
    /// How many answered.
    pub nodes: usize,
    /// All known servers, whether they answered or not.
    #[serde(default)]
    pub list: Vec<ServerReport>,
    /// Number of clients in plaintext that they count; `None` if it is not known.
    pub plaintext_clients: Option<u64>,
    /// Whether every server refuses plaintext.
    #[serde(default)]
    pub requires_tls: bool,
    /// Since when they count no client in plaintext.
    pub quiet_since: Option<Moment>,
    /// For how many seconds they were watched meanwhile.
    #[serde(default)]
    pub quiet_seconds: Option<u64>,
    /// Whether they require credentials.
    pub auth: AuthRequirement,
    /// Clients that use no bridge. Servers are asked to list clients if they count some in plaintext, or have no such count.
    pub direct: Vec<SimilarClients>,
    /// Clients that may or may not use a bridge.
    #[serde(default)]
    pub unknown: Vec<SimilarClients>,
}

/// What one server reports about its clients.
#[derive(Debug, Serialize, Deserialize)]
pub struct ServerReport {
    /// The server's name.
    pub endpoint: String,
    /// Its other names: addresses, and `cluster node …` and `run_id …`, which no two servers share.
    pub names: Vec<String>,
    /// Number of clients in plaintext that it counts; `None` if it is not known.
    pub plaintext_clients: Option<u64>,
    /// Why it did not answer; `None` if it answered.
    pub problem: Option<String>,
}

/// Whether servers require credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthRequirement {
    /// They answer without credentials.
    NotWanted,
    /// They refuse commands without credentials.
    Wanted,
    /// No server has answered.
    Unknown,
}

impl AdminRoute {
    fn credentials_expire(&self) -> Option<Moment> {
        self.upstreams.credentials().filter_map(|(_, credentials)| credentials.expires()).min()
    }

    fn expiring_certificate(&self, settings: &verdict::Settings, now: Moment) -> Option<String> {
        verdict::expiring_certificate(&self.upstreams.facts(), settings, now)
    }

    fn facts(&self, shared: &AdminContext, totals: Totals) -> RouteFacts {
        let Totals { active, plaintext, last_used, .. } = totals;
        RouteFacts {
            now: Moment::now(),
            mode: self.tls.mode,
            upgrades: self.upgrades,
            verifies: !self.tls.insecure_skip_verify,
            unreached: self
                .upstreams
                .own
                .outage()
                .map(|outage| outage.to_string())
                .or_else(|| shared.serving.late(&self.name)),
            latched: self.upstreams.are_latched(),
            endpoints: self.upstreams.facts(),
            plaintext,
            active,
            last_used,
            watched_since: shared.inventory.watched_since(&self.name),
            servers: self.observer.as_ref().map(|observer| observer.seen()),
            patience: self.observer.as_ref().map(|observer| observer.patience()).unwrap_or_default(),
        }
    }

    /// Returns current problems. `late` is why the upstream does not count as reached; `expiring` is a certificate that must be renewed.
    fn problems(&self, late: Option<String>, expiring: Option<String>, now: Moment) -> Vec<String> {
        let outages = self.upstreams.outages();
        let late = late.filter(|_| outages.is_empty());
        let outages = outages.iter().take(MAX_OUTAGES).map(ToString::to_string);
        let refusals = self.metrics.refusals();
        let recent = refusals.into_iter().filter_map(|(reason, ClientRefusals { count, last })| {
            let last = Moment::at(last);
            let why = match reason {
                "max_clients" => "limits.max_clients is reached",
                "descriptors" => "too many open files (ulimit -n, LimitNOFILE=)",
                "pinned" => "too many clients need a dedicated connection (limits.pinned)",
                _ => "their user or group may not use the socket",
            };
            (now.seconds_since(last) < RECENT_REFUSAL)
                .then(|| format!("clients refused since the start: {count}, the last at {last}: {why}"))
        });
        late.into_iter().chain(outages).chain(recent).chain(expiring).collect()
    }

    fn report(
        &self,
        shared: &AdminContext,
        settings: &verdict::Settings,
        clients: &[ClientRecord],
    ) -> RouteReport {
        let totals = shared.inventory.totals(&self.name);
        let mut facts = self.facts(shared, totals);
        let mut by_endpoint = shared.inventory.sessions_by_endpoint(&self.name);
        // From the end, so that the sessions at a node count for it, also if the route's own endpoint has the same name.
        for endpoint in facts.endpoints.iter_mut().rev() {
            endpoint.sessions_active = by_endpoint.remove(&endpoint.endpoint).unwrap_or_default();
        }
        let Totals { active, sessions, connected, counts, plaintext, .. } = totals;
        let clients: Vec<_> = clients.iter().filter(|client| *client.route == *self.name).collect();
        let bytes = |counts: &TrafficCounts| counts.bytes_to_upstream + counts.bytes_to_client;
        RouteReport {
            route: (*self.name).into(),
            group: self.group.as_deref().map(Into::into),
            listeners: self.listeners.clone(),
            tls_mode: self.tls.mode.label().into(),
            credentials_expire: self.credentials_expire(),
            sessions_active: active,
            sessions_total: sessions,
            counts,
            plaintext: PlaintextReport {
                sessions_active: plaintext.active,
                sessions_total: plaintext.sessions,
                last: plaintext.last,
                sessions_over_tls_ratio: rest(plaintext.sessions, connected),
                bytes_over_tls_ratio: rest(bytes(&plaintext.counts), bytes(&counts)),
            },
            problems: self.problems(
                shared.serving.late(&self.name),
                verdict::expiring_certificate(&facts.endpoints, settings, facts.now),
                facts.now,
            ),
            servers: facts.servers.as_ref().map(ServersReport::of),
            last_used: facts.last_used,
            uses_only_tls: verdict::uses_only_tls(&facts, settings),
            safe_to_require_tls: verdict::safe_to_require_tls(&facts, settings),
            bridge_needed: verdict::bridge_needed(&facts, settings, &clients),
            unreached: facts.unreached,
            upstreams: facts.endpoints,
        }
    }
}

#[cfg(test)]
impl RouteReport {
    /// Returns the report of a route whose clients are moving to TLS.
    pub fn example() -> Self {
        serde_json::from_value(serde_json::json!({
            "route": "cache", "listeners": ["127.0.0.1:6379"], "tls_mode": "preferred",
            "upstreams": [{"endpoint": "cache.example:6379", "seen": "tls", "certificate_expires": "2027-01-01T00:00:00Z"}],
            "sessions_active": 1, "sessions_total": 7, "commands": 70, "bytes_to_upstream": 1, "bytes_to_client": 1,
            "plaintext": {"sessions_active": 0, "sessions_total": 2, "last": "2026-01-01T00:00:00Z",
                "sessions_over_tls_ratio": 0.75, "bytes_over_tls_ratio": null},
            "problems": [],
            "servers": {"asked": "2026-01-01T00:00:00Z", "nodes": 1, "plaintext_clients": 2, "quiet_since": null,
                "auth": "not_wanted", "direct": [{"library": "jedis", "version": "4.0", "user": "default", "name": "",
                    "address": "10.0.0.7", "clients": 2, "oldest_seconds": 9}]},
            "uses_only_tls": {"answer": true, "because": [], "evidence": ["this bridge reaches it over TLS"]},
            "safe_to_require_tls": {"answer": false, "because": ["a node says no"], "evidence": ["and one yes"]},
            "bridge_needed": {"answer": true, "because": ["python3"], "evidence": []}
        }))
        .unwrap()
    }
}

impl ServerReport {
    fn of(node: &NodeEvidence) -> Self {
        Self {
            endpoint: node.endpoint.clone(),
            names: node.names.clone(),
            plaintext_clients: node.plaintext_clients.filter(|_| node.problem.is_none()),
            problem: node.problem.clone(),
        }
    }
}

impl ServersReport {
    fn of(seen: &Observation) -> Self {
        let evidence = seen.evidence.as_deref();
        let nodes = seen.nodes();
        let problems = || nodes.iter().filter_map(|node| node.problem.as_deref());
        let answered = nodes.iter().filter(|node| node.problem.is_none()).count();
        Self {
            asked: seen.asked,
            nodes: answered,
            list: nodes.iter().map(ServerReport::of).collect(),
            plaintext_clients: seen.plaintext_clients(),
            requires_tls: seen.requires_tls(),
            quiet_since: seen.quiet.map(|quiet| quiet.since),
            quiet_seconds: seen.quiet.map(|quiet| quiet.observed_ms / 1000),
            auth: if problems().any(|problem| problem.contains("NOAUTH")) {
                AuthRequirement::Wanted
            } else if answered > 0 {
                AuthRequirement::NotWanted
            } else {
                AuthRequirement::Unknown
            },
            direct: evidence.map(|evidence| evidence.direct.clone()).unwrap_or_default(),
            unknown: evidence.map(|evidence| evidence.unknown.clone()).unwrap_or_default(),
        }
    }
}

/// Returns the share of `whole` that is not `part`.
fn rest(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| whole.saturating_sub(part) as f64 / whole as f64)
}

pub(super) async fn routes(
    State(state): State<AdminState>,
    Extension(connection): Extension<RequestConnection>,
) -> Response {
    look_up(&state).await;
    json(&state, &connection, reports).await
}

/// Reports whether clients are served, and current problems.
pub(super) fn serving(shared: &AdminContext) -> ServingReport {
    if shared.serving.is_draining() {
        return ServingReport { serving: false, problems: vec!["draining".into()] };
    }
    let now = Moment::now();
    let mut report = ServingReport { serving: true, problems: Vec::new() };
    let shown = shared.shown.load();
    for route in &shown.routes {
        let late = shared.serving.late(&route.name);
        report.serving &= late.is_none();
        let expiring = route.expiring_certificate(&shown.verdict, now);
        let problems = route.problems(late, expiring, now);
        report.problems.extend(problems.iter().map(|problem| format!("route \"{}\": {problem}", route.name)));
    }
    report
}

/// Returns each route with a certificate that must be renewed, and what is wrong with it.
pub(super) fn expiring_certificates(shared: &AdminContext) -> Vec<(Arc<str>, String)> {
    let (shown, now) = (shared.shown.load(), Moment::now());
    let of_route = |route: &AdminRoute| {
        Some((Arc::clone(&route.name), route.expiring_certificate(&shown.verdict, now)?))
    };
    shown.routes.iter().filter_map(of_route).collect()
}

/// Returns the reports of all routes.
pub(super) fn reports(shared: &AdminContext) -> Vec<RouteReport> {
    let clients = shared.inventory.report(DEFAULT_INVENTORY_LIMIT).clients;
    let shown = shared.shown.load();
    shown.routes.iter().map(|route| route.report(shared, &shown.verdict, &clients)).collect()
}

/// Updates the verdicts in the metrics.
pub(super) fn record(shared: &AdminContext) {
    let shown = shared.shown.load();
    for route in &shown.routes {
        let facts = route.facts(shared, shared.inventory.totals(&route.name));
        let tls_only = verdict::uses_only_tls(&facts, &shown.verdict).answer;
        let safe = verdict::safe_to_require_tls(&facts, &shown.verdict).answer;
        let needed = verdict::bridge_needed(&facts, &shown.verdict, &[]).answer;
        route.metrics.verdict(tls_only, safe, needed);
        let next = shared.inventory.next_reauthentication(&route.name);
        route.metrics.next_reauthentication(next.map(Moment::unix));
        route.metrics.credentials_expiry(route.credentials_expire().map(Moment::unix));
    }
}
