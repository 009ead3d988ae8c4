//! Joins the routes of many bridges by the group of servers that they lead to. Does no I/O, and keeps only the parts of an answer that the
//! group's report needs.

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

/// Maximum number of reasons that are kept for one verdict of a route.
const ROUTE_REASONS: usize = 2;

/// Maximum number of characters that are kept of a text from a bridge.
const KEPT_CHARACTERS: usize = 300;

/// Maximum number of entries that are kept in each of a route's two lists, of clients that use no bridge and of those that may use one.
const KEPT_SIMILAR: usize = 20;

/// Stores each distinct value once, under a number.
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

    /// Returns the value with this number.
    pub(super) fn get(&self, number: usize) -> &T {
        &self.values[number]
    }
}

/// The answers of all bridges.
#[derive(Default)]
pub(super) struct Fleet {
    pub(super) names: Numbered<Box<str>>,
    pub(super) programs: Numbered<ClientProgram>,
    pub(super) servers: HashMap<usize, ServerSeen>,
    pub(super) routes: Vec<FleetRoute>,
}

/// A route of a bridge.
pub(super) struct FleetRoute {
    /// The position of its bridge among those that were asked.
    order: usize,
    pub(super) bridge: Arc<str>,
    pub(super) route: Box<str>,
    /// The group, if configured.
    pub(super) key: Option<Box<str>>,
    /// Names of the servers that it leads to: endpoints, nodes, ids of server processes. Routes that share a name are in one group.
    pub(super) names: BTreeSet<usize>,
    pub(super) endpoints: Vec<usize>,
    pub(super) uses_only_tls: RouteAnswer,
    pub(super) safe_to_require_tls: RouteAnswer,
    pub(super) bridge_needed: RouteAnswer,
    /// Whether it asks the servers (`evidence.interval`).
    pub(super) asks: bool,
    pub(super) asked: Option<Moment>,
    pub(super) servers: Vec<usize>,
    pub(super) direct: Vec<SimilarClients>,
    pub(super) unknown: Vec<SimilarClients>,
    pub(super) users: Vec<(usize, ProgramUse)>,
    /// Number of clients of its bridge that the answer leaves out.
    pub(super) hidden: usize,
}

/// A verdict of a route, shortened.
pub(super) struct RouteAnswer {
    pub(super) yes: bool,
    pub(super) because: Vec<String>,
    /// The last piece of evidence, which is the strongest: that of the servers.
    pub(super) evidence: Option<String>,
}

/// A program with its library. Its clients need the same change, whichever bridge they use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub(super) struct ClientProgram {
    /// The name of its command. `None` if unknown.
    pub(super) process: Option<Box<str>>,
    /// The library that it uses. `None` if unknown.
    pub(super) library: Option<Library>,
    /// Whether it uses TLS itself, so that bridges pass its bytes through.
    pub(super) own_tls: bool,
}

/// How much a program uses bridges.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct ProgramUse {
    pub(super) sessions_active: u64,
    pub(super) sessions_total: u64,
    pub(super) last_seen: Moment,
}

/// The latest answer of a server to any bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ServerSeen {
    pub(super) endpoint: String,
    pub(super) asked: Option<Moment>,
    pub(super) plaintext_clients: Option<u64>,
    pub(super) problem: Option<String>,
}

impl Fleet {
    /// Adds the answer of a bridge. `order` is its position among those that were asked.
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

    /// Stores a server's answer unless a later one is known. Returns the server's number.
    fn server(&mut self, bridge: &str, asked: Option<Moment>, report: ServerReport) -> usize {
        let ServerReport { endpoint, names, plaintext_clients, problem } = report;
        let own = if let Some(id) = names.iter().find(|name| is_id(name)) {
            name(id)
        } else {
            let endpoint = name(&endpoint);
            // A name that is valid on one machine only means another server at each bridge, so the bridge becomes part of the name.
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

    /// Returns the numbers of each group's routes, in the order of their bridges. A route without a configured group that shares servers
    /// with several configured groups belongs to each of them, so that its no counts for each.
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

/// Sets of routes that share names, directly or through other routes (union-find).
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

/// Returns a name in the form in which names are compared: lower case, without the final dot of the host.
fn name(text: &str) -> Box<str> {
    let lower = short(text).to_ascii_lowercase();
    match lower.rsplit_once(".:") {
        Some((host, port)) => format!("{host}:{port}").into(),
        None => lower.into(),
    }
}

/// Whether a name is a server's unique id.
fn is_id(name: &str) -> bool {
    ["cluster node ", "run_id "].iter().any(|kind| name.starts_with(kind))
}

/// Whether a name means the same server on every machine. A loopback address does not, nor does a name without a dot: its meaning
/// depends on the Kubernetes namespace or the Docker network.
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

/// Cuts a text from a bridge to [`KEPT_CHARACTERS`].
pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(KEPT_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
