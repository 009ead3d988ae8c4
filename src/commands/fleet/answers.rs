//! Derives the verdicts for a group from those of its routes. A bridge that did not answer makes the group's verdict a no.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::joining::{ClientProgram, Fleet, FleetRoute, ProgramUse, RouteAnswer, ServerSeen};
use super::text;
use crate::commands::status::to_do;
use crate::group::SimilarClients;
use crate::group::verdict::Verdict;
use crate::moment::Moment;

/// Maximum number of reasons for one verdict.
const GROUP_REASONS: usize = 20;

/// Maximum number of bridges that a list names, for example if several bridges have the same reason.
pub(super) const NAMED_BRIDGES: usize = 3;

/// Maximum number of bridges whose evidence from the servers is shown.
const SHOWN_EVIDENCE: usize = 3;

/// Maximum number of programs of one group in JSON.
const MAX_PROGRAMS: usize = 1000;

/// The report on all bridges.
#[derive(Debug, Serialize)]
pub(super) struct FleetReport {
    pub(super) asked_at: Moment,
    /// Number of bridges that must answer (`--expect`). `None` expects the given ones and those that answered before.
    pub(super) bridges_expected: Option<usize>,
    pub(super) bridges_asked: usize,
    pub(super) bridges_answered: usize,
    pub(super) silent: Vec<SilentBridge>,
    pub(super) groups: Vec<GroupReport>,
}

/// A bridge that did not answer, or a name without bridges.
#[derive(Debug, Serialize)]
pub(super) struct SilentBridge {
    pub(super) bridge: String,
    pub(super) problem: String,
}

/// The report on one group.
#[derive(Debug, Serialize)]
pub(super) struct GroupReport {
    pub(super) group: String,
    pub(super) endpoints: Vec<String>,
    pub(super) bridges: usize,
    pub(super) bridges_asking: usize,
    pub(super) uses_only_tls: Verdict,
    pub(super) safe_to_require_tls: Verdict,
    pub(super) bridge_needed: Verdict,
    /// The verdicts as text, for a change ticket.
    pub(super) ticket: String,
    /// The servers, with their own counts of plaintext clients.
    pub(super) servers: Vec<ServerSeen>,
    /// Programs that need the bridges, those with the most active sessions first.
    pub(super) clients: Vec<NeedingProgram>,
    /// Number of further clients, because some bridges do not list all of theirs.
    pub(super) clients_hidden: usize,
    /// Clients that use no bridge, by the servers' latest lists.
    pub(super) direct: Vec<SimilarClients>,
    pub(super) unknown: Vec<SimilarClients>,
    pub(super) routes: Vec<RouteLine>,
}

/// The verdicts of one route of a bridge.
#[derive(Debug, Serialize)]
#[allow(clippy::struct_excessive_bools, reason = "a row of a table, for programs")]
pub(super) struct RouteLine {
    bridge: String,
    route: String,
    asks_servers: bool,
    uses_only_tls: bool,
    safe_to_require_tls: bool,
    bridge_needed: bool,
}

/// A program that needs bridges.
#[derive(Debug, Serialize)]
pub(super) struct NeedingProgram {
    #[serde(flatten)]
    pub(super) program: ClientProgram,
    #[serde(flatten)]
    pub(super) usage: ProgramUse,
    /// Number of bridges that it uses.
    pub(super) bridges: usize,
    /// Some of these bridges, at most [`NAMED_BRIDGES`].
    pub(super) at: Vec<String>,
    /// What to change so that it uses TLS itself.
    pub(super) to_do: String,
}

/// Returns the report on each group. `missing` names the bridges that were expected but did not answer.
pub(super) fn groups(fleet: &mut Fleet, missing: &[String], as_of: &str) -> Vec<GroupReport> {
    let members: Vec<Vec<usize>> = fleet.groups();
    let mut reports: Vec<_> = members
        .iter()
        .map(|members| {
            let routes: Vec<&FleetRoute> = members.iter().map(|number| &fleet.routes[*number]).collect();
            group(fleet, &routes, missing, as_of)
        })
        .collect();
    reports.sort_by(|a, b| a.group.cmp(&b.group));
    reports
}

fn group(fleet: &Fleet, routes: &[&FleetRoute], missing: &[String], as_of: &str) -> GroupReport {
    let (clients, clients_hidden) = programs(fleet, routes);
    let latest = routes.iter().filter(|route| route.asked.is_some()).max_by_key(|route| route.asked);
    let (endpoints, group) = names(fleet, routes);
    let line = |route: &&FleetRoute| RouteLine {
        bridge: route.bridge.to_string(),
        route: route.route.to_string(),
        asks_servers: route.asks,
        uses_only_tls: route.uses_only_tls.yes,
        safe_to_require_tls: route.safe_to_require_tls.yes,
        bridge_needed: route.bridge_needed.yes,
    };
    let mut report = GroupReport {
        group,
        endpoints,
        bridges: bridges(routes),
        bridges_asking: bridges(&asking(routes)),
        uses_only_tls: uses_only_tls(routes, missing),
        safe_to_require_tls: safe_to_require_tls(routes, missing),
        bridge_needed: bridge_needed(routes, missing),
        ticket: String::new(),
        servers: servers(fleet, routes),
        clients,
        clients_hidden,
        direct: latest.map(|route| route.direct.clone()).unwrap_or_default(),
        unknown: latest.map(|route| route.unknown.clone()).unwrap_or_default(),
        routes: routes.iter().map(line).collect(),
    };
    report.ticket = text::ticket(&report, as_of);
    report
}

/// Returns the routes that ask the servers.
fn asking<'a>(routes: &[&'a FleetRoute]) -> Vec<&'a FleetRoute> {
    routes.iter().copied().filter(|route| route.asks).collect()
}

/// Counts the bridges of these routes, which are sorted by bridge.
fn bridges(routes: &[&FleetRoute]) -> usize {
    let mut names: Vec<&str> = routes.iter().map(|route| &*route.bridge).collect();
    names.dedup();
    names.len()
}

/// Returns the group's endpoints, those of the most routes first, and its name.
fn names(fleet: &Fleet, routes: &[&FleetRoute]) -> (Vec<String>, String) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for number in routes.iter().flat_map(|route| &route.endpoints) {
        *counts.entry(fleet.names.get(*number)).or_default() += 1;
    }
    let mut endpoints: Vec<_> = counts.into_iter().collect();
    endpoints.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let endpoints: Vec<String> = endpoints.into_iter().map(|(endpoint, _)| endpoint.to_owned()).collect();
    let key = routes.iter().find_map(|route| route.key.as_deref());
    let name = match (key, endpoints.first(), routes.first()) {
        (Some(key), ..) => key.to_owned(),
        // Another bridge may use the same endpoint name for another group, so the bridge becomes part of the name.
        (None, Some(endpoint), Some(route)) if routes.iter().all(|route| route.names.is_empty()) => {
            format!("{endpoint} of {}", route.bridge)
        }
        (None, Some(endpoint), _) => endpoint.clone(),
        (None, None, route) => route.map(|route| route.route.to_string()).unwrap_or_default(),
    };
    (endpoints, name)
}

fn servers(fleet: &Fleet, routes: &[&FleetRoute]) -> Vec<ServerSeen> {
    let mut numbers: Vec<usize> = routes.iter().flat_map(|route| route.servers.iter().copied()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut servers: Vec<ServerSeen> =
        numbers.iter().filter_map(|number| fleet.servers.get(number).cloned()).collect();
    servers.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    servers
}

fn uses_only_tls(routes: &[&FleetRoute], missing: &[String]) -> Verdict {
    let mut reasons = Reasons::default();
    for route in routes.iter().filter(|route| !route.uses_only_tls.yes) {
        reasons.add(route, &route.uses_only_tls);
    }
    let evidence = format!("bridges that answered and use only TLS: {}", bridges(routes));
    verdict(reasons.lines(missing), vec![evidence])
}

/// Answers yes if every bridge uses only TLS, at least one bridge asks the servers, and all that ask say yes.
fn safe_to_require_tls(routes: &[&FleetRoute], missing: &[String]) -> Verdict {
    let mut reasons = Reasons::default();
    let (asking, others): (Vec<&FleetRoute>, Vec<&FleetRoute>) = routes.iter().partition(|route| route.asks);
    for route in asking.iter().filter(|route| !route.safe_to_require_tls.yes) {
        reasons.add(route, &route.safe_to_require_tls);
    }
    for route in others.iter().filter(|route| !route.uses_only_tls.yes) {
        reasons.add(route, &route.uses_only_tls);
    }
    let mut lines = reasons.lines(missing);
    if asking.is_empty() {
        lines.push("no bridge of the group asks the servers: set evidence.interval on one of them".into());
    }
    let saying = asking.iter().filter_map(|route| {
        Some(format!("{}: {}", route.bridge, route.safe_to_require_tls.evidence.as_deref()?))
    });
    let mut evidence = vec![
        format!("bridges that answered without a no: {}", bridges(routes)),
        format!("bridges that asked the servers and say yes: {}", bridges(&asking)),
    ];
    evidence.extend(saying.take(SHOWN_EVIDENCE));
    verdict(lines, evidence)
}

fn bridge_needed(routes: &[&FleetRoute], missing: &[String]) -> Verdict {
    let mut reasons = Reasons::default();
    for route in routes.iter().filter(|route| route.bridge_needed.yes) {
        reasons.add(route, &route.bridge_needed);
    }
    let because = reasons.lines(missing);
    let evidence = format!("bridges that answered and are unused: {}", bridges(routes));
    let no = verdict(because, vec![evidence]);
    Verdict { answer: !no.answer, ..no }
}

/// Answers yes if there is no reason against it. Only a yes keeps its evidence.
fn verdict(because: Vec<String>, evidence: Vec<String>) -> Verdict {
    let answer = because.is_empty();
    Verdict { answer, because, evidence: if answer { evidence } else { Vec::new() } }
}

/// Reasons against yes, each with the routes that give it.
#[derive(Default)]
struct Reasons<'a> {
    order: Vec<String>,
    bridges: HashMap<String, Vec<&'a FleetRoute>>,
}

impl<'a> Reasons<'a> {
    fn add(&mut self, route: &'a FleetRoute, answer: &RouteAnswer) {
        let reason = match answer.because.as_slice() {
            [] => "gives no reason".to_owned(),
            reasons => reasons.join("; "),
        };
        let routes = self.bridges.entry(reason).or_insert_with_key(|reason| {
            self.order.push(reason.clone());
            Vec::new()
        });
        routes.push(route);
    }

    /// Returns `missing`, followed by a line for each reason, at most [`GROUP_REASONS`].
    fn lines(&self, missing: &[String]) -> Vec<String> {
        let mut lines = missing.to_vec();
        for reason in self.order.iter().take(GROUP_REASONS) {
            let routes = &self.bridges[reason];
            let named: Vec<String> = routes
                .iter()
                .take(NAMED_BRIDGES)
                .map(|route| format!("{} ({})", route.bridge, route.route))
                .collect();
            let more = text::more(routes.len() - named.len());
            lines.push(format!("{}{more}: {reason}", named.join(", ")));
        }
        let hidden = self.order.iter().skip(GROUP_REASONS);
        let hidden: usize = hidden.map(|reason| self.bridges[reason].len()).sum();
        if hidden > 0 {
            lines.push(format!("{hidden} more with other reasons: see routes in --json"));
        }
        lines
    }
}

/// Returns the programs that need the bridges, and the number of clients that are not shown.
fn programs(fleet: &Fleet, routes: &[&FleetRoute]) -> (Vec<NeedingProgram>, usize) {
    let mut found: BTreeMap<usize, (ProgramUse, Vec<&str>)> = BTreeMap::new();
    let mut hidden: BTreeMap<&str, usize> = BTreeMap::new();
    for route in routes.iter().filter(|route| route.bridge_needed.yes) {
        hidden.insert(&route.bridge, route.hidden);
        for (program, usage) in &route.users {
            let nothing = ProgramUse { sessions_active: 0, sessions_total: 0, last_seen: usage.last_seen };
            let (sum, bridges) = found.entry(*program).or_insert_with(|| (nothing, Vec::new()));
            sum.sessions_active = sum.sessions_active.saturating_add(usage.sessions_active);
            sum.sessions_total = sum.sessions_total.saturating_add(usage.sessions_total);
            sum.last_seen = sum.last_seen.max(usage.last_seen);
            if bridges.last() != Some(&&*route.bridge) {
                bridges.push(&route.bridge);
            }
        }
    }
    let needing = |(number, (usage, bridges)): (usize, (ProgramUse, Vec<&str>))| {
        let program = fleet.programs.get(number).clone();
        let to_do = to_do(program.own_tls, program.library.as_ref());
        let at = bridges.iter().take(NAMED_BRIDGES).map(|bridge| (*bridge).to_owned()).collect();
        NeedingProgram { program, usage, bridges: bridges.len(), at, to_do }
    };
    let mut programs: Vec<_> = found.into_iter().map(needing).collect();
    programs.sort_by_key(|found| std::cmp::Reverse((found.usage.sessions_active, found.usage.last_seen)));
    let cut = programs.len().saturating_sub(MAX_PROGRAMS);
    programs.truncate(MAX_PROGRAMS);
    (programs, hidden.values().sum::<usize>() + cut)
}
