//! `GET /routes`: where on the road each route is, and the verdict; the same in metrics.

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

/// Seconds for which a refused client is a problem of the present.
const RECENT_REFUSAL: u64 = 600;

/// Upstreams that cannot be reached: so many are named, of a cluster that may have hundreds of nodes.
const MAX_OUTAGES: usize = 4;

/// A route, and those who know about it.
#[derive(Clone)]
pub struct AdminRoute {
    /// Its name.
    pub name: Arc<str>,
    /// The group that it leads to, as configured.
    pub group: Option<Arc<str>>,
    /// Where it listens, with the ports that the system chose.
    pub listeners: Vec<String>,
    /// As configured.
    pub tls: tls::Settings,
    /// Sessions in plaintext move to TLS by themselves.
    pub upgrades: bool,
    /// The server side.
    pub upstreams: Upstreams,
    /// Who asks the servers; `None`: nobody does.
    pub observer: Option<Arc<Observer>>,
    /// Where the verdict is shown, too.
    pub metrics: Arc<RouteMetrics>,
}

/// A route, as `/routes` shows it.
#[derive(Debug, Serialize, Deserialize)]
pub struct RouteReport {
    /// Its name.
    pub route: Box<str>,
    /// The group that it leads to, as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Box<str>>,
    /// Where it listens.
    pub listeners: Vec<String>,
    /// `tls.mode`, as configured.
    pub tls_mode: Box<str>,
    /// Its endpoints, with what was seen of them.
    pub upstreams: Vec<EndpointFacts>,
    /// Sessions now.
    pub sessions_active: u64,
    /// Sessions of this run.
    pub sessions_total: u64,
    /// What passed in this run.
    #[serde(flatten)]
    pub counts: TrafficCounts,
    /// Of these, what was in plaintext upstream.
    pub plaintext: PlaintextReport,
    /// What is wrong now: upstreams that cannot be reached, with the cause, and clients that were refused of late.
    pub problems: Vec<String>,
    /// What the servers say; `None`: they are not asked.
    pub servers: Option<ServersReport>,
    /// Whether all of this bridge's own traffic is in verified TLS.
    pub uses_only_tls: Verdict,
    /// Whether no client of the group would miss plaintext.
    pub safe_to_require_tls: Verdict,
    /// Whether anybody would miss the bridge.
    pub bridge_needed: Verdict,
}

/// What was in plaintext upstream.
#[derive(Debug, Serialize, Deserialize)]
pub struct PlaintextReport {
    /// Sessions that are so now.
    pub sessions_active: u64,
    /// Sessions that are or were so, in this run.
    pub sessions_total: u64,
    /// When the last of them ended or moved to TLS, in this run or an earlier one; now, if one is active.
    pub last: Option<Moment>,
    /// The part of this run's sessions that were over TLS from their beginning; `None`: there were none.
    pub sessions_over_tls_ratio: Option<f64>,
    /// The part of this run's bytes that went over TLS; `None`: there were none.
    pub bytes_over_tls_ratio: Option<f64>,
}

/// What the servers say of their clients.
#[derive(Debug, Serialize, Deserialize)]
pub struct ServersReport {
    /// When they were asked last.
    pub asked: Option<Moment>,
    /// How many answered.
    pub nodes: usize,
    /// Each that is known, whether it answered or not.
    #[serde(default)]
    pub list: Vec<ServerReport>,
    /// Clients in plaintext, by their own count; `None`: not known.
    pub plaintext_clients: Option<u64>,
    /// Every one of them refuses plaintext.
    #[serde(default)]
    pub requires_tls: bool,
    /// Since when they count none.
    pub quiet_since: Option<Moment>,
    /// Whether they ask clients for credentials.
    pub auth: AuthRequirement,
    /// Clients that came through no bridge when the servers were asked to list them: where they count plaintext, or do not count.
    pub direct: Vec<SimilarClients>,
    /// Clients of which that is not known.
    #[serde(default)]
    pub unknown: Vec<SimilarClients>,
}

/// What one server says of its clients.
#[derive(Debug, Serialize, Deserialize)]
pub struct ServerReport {
    /// The server.
    pub endpoint: String,
    /// What else it is known by: addresses, and `cluster node …` and `run_id …`, which no two servers share.
    pub names: Vec<String>,
    /// Clients in plaintext, by its own count; `None`: not known.
    pub plaintext_clients: Option<u64>,
    /// Why it did not answer; `None`: it did.
    pub problem: Option<String>,
}

/// Whether servers ask clients for credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthRequirement {
    /// They answer without.
    NotWanted,
    /// They do not.
    Wanted,
    /// None has said.
    Unknown,
}

impl AdminRoute {
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

    /// What is wrong now. `late`: why the upstream does not count as reached.
    fn problems(&self, late: Option<String>, now: Moment) -> Vec<String> {
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
                _ => "the socket is not for their user or group",
            };
            (now.seconds_since(last) < RECENT_REFUSAL)
                .then(|| format!("clients refused since the start: {count}, the last at {last}: {why}"))
        });
        late.into_iter().chain(outages).chain(recent).collect()
    }

    fn report(
        &self,
        shared: &AdminContext,
        settings: &verdict::Settings,
        clients: &[ClientRecord],
    ) -> RouteReport {
        let totals = shared.inventory.totals(&self.name);
        let facts = self.facts(shared, totals);
        let Totals { active, sessions, counts, plaintext, .. } = totals;
        let clients: Vec<_> = clients.iter().filter(|client| *client.route == *self.name).collect();
        let bytes = |counts: &TrafficCounts| counts.bytes_to_upstream + counts.bytes_to_client;
        RouteReport {
            route: (*self.name).into(),
            group: self.group.as_deref().map(Into::into),
            listeners: self.listeners.clone(),
            tls_mode: self.tls.mode.label().into(),
            sessions_active: active,
            sessions_total: sessions,
            counts,
            plaintext: PlaintextReport {
                sessions_active: plaintext.active,
                sessions_total: plaintext.sessions,
                last: plaintext.last,
                sessions_over_tls_ratio: rest(plaintext.sessions, sessions),
                bytes_over_tls_ratio: rest(bytes(&plaintext.counts), bytes(&counts)),
            },
            problems: self.problems(shared.serving.late(&self.name), facts.now),
            servers: facts.servers.as_ref().map(ServersReport::of),
            uses_only_tls: verdict::uses_only_tls(&facts, settings),
            safe_to_require_tls: verdict::safe_to_require_tls(&facts, settings),
            bridge_needed: verdict::bridge_needed(&facts, settings, &clients),
            upstreams: facts.endpoints,
        }
    }
}

#[cfg(test)]
impl RouteReport {
    /// One in the middle of the road.
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

/// What part of `whole` is not `part`.
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

/// Whether clients are served, and what is wrong.
pub(super) fn serving(shared: &AdminContext) -> ServingReport {
    if shared.serving.is_draining() {
        return ServingReport { serving: false, problems: vec!["draining".into()] };
    }
    let now = Moment::now();
    let mut report = ServingReport { serving: true, problems: Vec::new() };
    for route in &shared.shown.load().routes {
        let late = shared.serving.late(&route.name);
        report.serving &= late.is_none();
        let problems = route.problems(late, now);
        report.problems.extend(problems.iter().map(|problem| format!("route \"{}\": {problem}", route.name)));
    }
    report
}

/// All routes, as `/routes` shows them.
pub(super) fn reports(shared: &AdminContext) -> Vec<RouteReport> {
    let clients = shared.inventory.report(DEFAULT_INVENTORY_LIMIT).clients;
    let shown = shared.shown.load();
    shown.routes.iter().map(|route| route.report(shared, &shown.verdict, &clients)).collect()
}

/// Brings the verdicts in the metrics up to date.
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
    }
}
