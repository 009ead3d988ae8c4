//! Puts the routes of many bridges together by the group of servers that they lead to. Pure, and small in memory: of each answer
//! only what the group's answer needs is kept.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use serde::Serialize;

use super::asking::BridgeAnswer;
use crate::admin::{RouteReport, ServerReport};
use crate::clients::{ClientRecord, Library};
use crate::endpoint::{Endpoint, Host};
use crate::group::SimilarClients;
use crate::group::verdict::Verdict;
use crate::moment::Moment;

/// Reasons that are kept of one answer of a route.
const ROUTE_REASONS: usize = 2;

/// Characters that are kept of a text of a bridge.
const KEPT_CHARACTERS: usize = 300;

/// Clients beside the bridge that are kept of a route, of each kind.
const KEPT_SIMILAR: usize = 20;

/// Equal values once each, by number.
pub(super) struct Numbered<T> {
    numbers: HashMap<T, usize>,
    values: Vec<T>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), values: Vec::new() }
    }
}

impl<T: Clone + Eq + Hash> Numbered<T> {
    fn number(&mut self, value: T) -> usize {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let number = self.values.len();
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }

    /// The value with this number.
    pub(super) fn get(&self, number: usize) -> &T {
        &self.values[number]
    }
}

/// What is known of all bridges.
#[derive(Default)]
pub(super) struct Fleet {
    pub(super) names: Numbered<Box<str>>,
    pub(super) programs: Numbered<ClientProgram>,
    pub(super) servers: HashMap<usize, ServerSeen>,
    pub(super) routes: Vec<FleetRoute>,
}

/// A route of a bridge.
pub(super) struct FleetRoute {
    /// Its bridge's place among those that were asked.
    order: usize,
    pub(super) bridge: Arc<str>,
    pub(super) route: Box<str>,
    /// The group, as configured.
    pub(super) key: Option<Box<str>>,
    /// What tells which group it leads to: endpoints, nodes, processes.
    pub(super) names: BTreeSet<usize>,
    pub(super) endpoints: Vec<usize>,
    pub(super) uses_only_tls: RouteAnswer,
    pub(super) safe_to_require_tls: RouteAnswer,
    pub(super) bridge_needed: RouteAnswer,
    /// Whether it asks the servers.
    pub(super) asks: bool,
    pub(super) asked: Option<Moment>,
    pub(super) servers: Vec<usize>,
    pub(super) direct: Vec<SimilarClients>,
    pub(super) unknown: Vec<SimilarClients>,
    pub(super) users: Vec<(usize, ProgramUse)>,
    /// Clients of its bridge that it does not show.
    pub(super) hidden: usize,
}

/// One of the answers of a route, in short.
pub(super) struct RouteAnswer {
    pub(super) yes: bool,
    pub(super) because: Vec<String>,
    /// The last, which is the strongest: that of the servers.
    pub(super) evidence: Option<String>,
}

/// Clients that are one piece of work: the same program with the same library.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub(super) struct ClientProgram {
    /// Its command's name; `None`: not known.
    pub(super) process: Option<Box<str>>,
    /// The library that it uses; `None`: not known.
    pub(super) library: Option<Library>,
    /// It speaks TLS itself, and is passed through.
    pub(super) own_tls: bool,
}

/// How much a program uses bridges.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct ProgramUse {
    pub(super) sessions_active: u64,
    pub(super) sessions_total: u64,
    pub(super) last_seen: Moment,
}

/// What a server said to the bridge that asked it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ServerSeen {
    pub(super) endpoint: String,
    pub(super) asked: Option<Moment>,
    pub(super) plaintext_clients: Option<u64>,
    pub(super) problem: Option<String>,
}

impl Fleet {
    /// Adds what a bridge says. `order`: its place among those that were asked.
    pub(super) fn add(&mut self, order: usize, bridge: &str, answer: BridgeAnswer) {
        let bridge: Arc<str> = bridge.into();
        let BridgeAnswer { routes, inventory } = answer;
        let hidden = inventory.clients_total.saturating_sub(inventory.clients.len());
        for report in routes {
            let mut route = self.route(order, &bridge, report);
            let clients = inventory.clients.iter().filter(|client| client.route == route.route);
            route.users = clients.map(|client| self.user(client)).collect();
            route.hidden = hidden;
            self.routes.push(route);
        }
    }

    fn route(&mut self, order: usize, bridge: &Arc<str>, report: RouteReport) -> FleetRoute {
        let endpoints: Vec<usize> =
            report.upstreams.iter().map(|facts| self.names.number(name(&facts.endpoint))).collect();
        let mut names: BTreeSet<usize> =
            endpoints.iter().copied().filter(|number| is_global(self.names.get(*number))).collect();
        let (mut asked, mut servers) = (None, Vec::new());
        let asks = report.servers.is_some();
        let (mut direct, mut unknown) = (Vec::new(), Vec::new());
        if let Some(said) = report.servers {
            asked = said.asked;
            for server in said.list {
                let named = server.names.iter().map(|text| name(text)).filter(|name| is_global(name));
                let numbers: Vec<usize> = named.map(|name| self.names.number(name)).collect();
                names.extend(numbers);
                servers.push(self.server(bridge, asked, server));
            }
            (direct, unknown) = (said.direct, said.unknown);
            direct.truncate(KEPT_SIMILAR);
            unknown.truncate(KEPT_SIMILAR);
        }
        FleetRoute {
            order,
            bridge: Arc::clone(bridge),
            route: report.route,
            key: report.group,
            names,
            endpoints,
            uses_only_tls: RouteAnswer::of(report.uses_only_tls),
            safe_to_require_tls: RouteAnswer::of(report.safe_to_require_tls),
            bridge_needed: RouteAnswer::of(report.bridge_needed),
            asks,
            asked,
            servers,
            direct,
            unknown,
            users: Vec::new(),
            hidden: 0,
        }
    }

    /// Remembers what a server said, if nothing later is known. Its number.
    fn server(&mut self, bridge: &str, asked: Option<Moment>, report: ServerReport) -> usize {
        let ServerReport { endpoint, names, plaintext_clients, problem } = report;
        let own = if let Some(id) = names.iter().find(|name| is_id(name)) {
            name(id)
        } else {
            let endpoint = name(&endpoint);
            // What only one machine calls so is another server at the next machine.
            if is_global(&endpoint) { endpoint } else { format!("{endpoint} of {bridge}").into() }
        };
        let number = self.names.number(own);
        let seen = ServerSeen {
            endpoint: short(&endpoint),
            asked,
            plaintext_clients,
            problem: problem.as_deref().map(short),
        };
        let age = |seen: &ServerSeen| (seen.asked, seen.plaintext_clients);
        let known = self.servers.entry(number).or_insert_with(|| seen.clone());
        if age(&seen) > age(known) {
            *known = seen;
        }
        number
    }

    fn user(&mut self, client: &ClientRecord) -> (usize, ProgramUse) {
        let program = ClientProgram {
            process: client.process.as_deref().map(|process| short(process).into()),
            library: client.library.as_ref().map(|library| Library {
                name: short(&library.name).into(),
                version: library.version.as_deref().map(|version| short(version).into()),
                guessed: library.guessed,
            }),
            own_tls: client.own_tls,
        };
        let usage = ProgramUse {
            sessions_active: client.active,
            sessions_total: client.sessions,
            last_seen: client.last_seen,
        };
        (self.programs.number(program), usage)
    }

    /// The routes of each group, by number, in the order of their bridges. A route without a configured group that leads to the servers of several configured ones is in each of
    /// them: it can say no to each.
    pub(super) fn groups(&mut self) -> Vec<Vec<usize>> {
        self.routes.sort_by_key(|route| route.order);
        let mut configured: Vec<(&str, BTreeSet<usize>, Vec<usize>)> = Vec::new();
        let mut found = Components::new(self.routes.len());
        let mut first_with: HashMap<usize, usize> = HashMap::new();
        for (number, route) in self.routes.iter().enumerate() {
            if let Some(key) = &route.key {
                let at = configured.iter().position(|(known, ..)| **known == **key).unwrap_or_else(|| {
                    configured.push((key, BTreeSet::new(), Vec::new()));
                    configured.len() - 1
                });
                configured[at].1.extend(&route.names);
                configured[at].2.push(number);
                continue;
            }
            for name in &route.names {
                found.join(number, *first_with.entry(*name).or_insert(number));
            }
        }
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); self.routes.len()];
        for (number, route) in self.routes.iter().enumerate() {
            if route.key.is_none() {
                members[found.root(number)].push(number);
            }
        }
        let mut groups = Vec::new();
        for members in members.into_iter().filter(|members| !members.is_empty()) {
            let has = |names: &BTreeSet<usize>| {
                members.iter().any(|member| !self.routes[*member].names.is_disjoint(names))
            };
            let mut is_configured = false;
            for (_, names, routes) in &mut configured {
                if has(names) {
                    is_configured = true;
                    routes.extend(&members);
                }
            }
            if !is_configured {
                groups.push(members);
            }
        }
        groups.extend(configured.into_iter().map(|(.., routes)| routes));
        for group in &mut groups {
            group.sort_unstable();
        }
        groups
    }
}

/// Routes that are connected by names.
struct Components(Vec<usize>);

impl Components {
    fn new(count: usize) -> Self {
        Self((0..count).collect())
    }

    fn root(&mut self, mut number: usize) -> usize {
        while self.0[number] != number {
            self.0[number] = self.0[self.0[number]];
            number = self.0[number];
        }
        number
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.root(one), self.root(other));
        self.0[one.max(other)] = one.min(other);
    }
}

impl RouteAnswer {
    fn of(verdict: Verdict) -> Self {
        let Verdict { answer, because, evidence } = verdict;
        Self {
            yes: answer,
            because: because.iter().take(ROUTE_REASONS).map(|reason| short(reason)).collect(),
            evidence: evidence.last().map(|evidence| short(evidence)),
        }
    }
}

/// A name, in the form in which it is compared.
fn name(text: &str) -> Box<str> {
    let lower = short(text).to_ascii_lowercase();
    match lower.rsplit_once(".:") {
        Some((host, port)) => format!("{host}:{port}").into(),
        None => lower.into(),
    }
}

/// What a server is known by that no other has.
fn is_id(name: &str) -> bool {
    ["cluster node ", "run_id "].iter().any(|kind| name.starts_with(kind))
}

/// Whether every machine means the same by it. A loopback address is each machine's own, and a name without a dot means something else in
/// each Kubernetes namespace and Docker network.
fn is_global(name: &str) -> bool {
    if is_id(name) {
        return true;
    }
    match name.parse::<Endpoint>().map(|endpoint| endpoint.host) {
        Ok(Host::Ip(ip)) => !ip.to_canonical().is_loopback() && !ip.is_unspecified(),
        Ok(Host::Name(name)) => name.contains('.') && !name.ends_with(".localhost"),
        Err(_) => false,
    }
}

/// The beginning of a text of a bridge.
pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(KEPT_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
