//! One round of questions: asks once every node that the configuration, a server or an earlier round names.

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::net::SocketAddr;

use futures_util::stream::{self, StreamExt};
use tokio::time::timeout;

use super::node::{
    ListClients, MAX_NODES, NodeNames, NodeReplies, ask_node, cluster_node_of, process_name, process_of,
};
use super::servers::Servers;
use crate::endpoint::{Endpoint, Host};

/// Number of nodes that are asked concurrently.
pub(super) const AT_ONCE: usize = 8;

/// The result of a round.
pub(super) struct Round<C> {
    /// Each node once: those that answered, and those that were named and did not answer.
    pub(super) nodes: Vec<FoundNode<C>>,
    /// The servers name more nodes than a group can have.
    pub(super) is_cut_short: bool,
}

/// A node of a round.
pub(super) struct FoundNode<C> {
    /// What users see as the node's name.
    pub(super) shown: String,
    /// Where it was asked; `None` if no address is known.
    pub(super) endpoint: Option<Endpoint>,
    /// All its names.
    pub(super) names: BTreeSet<String>,
    /// The configuration, or a server that answered, names it.
    pub(super) is_named: bool,
    /// Its replies, one for each name it was asked by, or why there are none.
    pub(super) replies: Result<Vec<NodeReplies>, String>,
    /// The connection to ask it again over.
    pub(super) connection: Option<C>,
}

/// A node to ask.
#[derive(Clone)]
struct Target {
    endpoint: Endpoint,
    /// Further endpoints that may lead to the node.
    further: Vec<Endpoint>,
    /// The ID that the cluster gives the node. A server with another ID is another node.
    cluster_node: Option<String>,
    /// The `run_id` that the node had before.
    run_id: Option<String>,
    /// One address of a configured name; `None` to use any address that can be reached.
    address: Option<SocketAddr>,
    names: BTreeSet<String>,
    is_configured: bool,
    is_named: bool,
}

/// A node that was asked, and the result.
struct Asked<C> {
    target: Target,
    result: Result<AnsweringNode<C>, String>,
}

/// A node that answered.
struct AnsweringNode<C> {
    replies: NodeReplies,
    connection: C,
    /// The endpoint, among those of the node, that led to it.
    endpoint: Endpoint,
    address: SocketAddr,
}

/// Asks every node. `remembered` holds where nodes of earlier rounds were reached, and their `run_id`. With `must_exist`, a configured name
/// that does not exist is a problem. Without it, such a name is ignored as a past or future one, as long as another name exists.
pub(super) async fn survey<S: Servers>(
    servers: &S,
    configured: &[Endpoint],
    remembered: Vec<(Endpoint, Option<String>)>,
    clients: ListClients,
    must_exist: bool,
) -> Round<S::Connection> {
    let (mut targets, mut later, mut absent) = (Vec::new(), Vec::new(), Vec::new());
    let mut asked = Vec::new();
    for endpoint in configured {
        match servers.addresses(endpoint).await {
            Ok(Some(addresses)) => {
                let mut all =
                    addresses.into_iter().map(|address| Target::configured(endpoint, Some(address)));
                targets.extend(all.next());
                later.extend(all);
            }
            Ok(None) => absent.push(endpoint),
            Err(problem) => asked.push(Asked::failed(Target::configured(endpoint, None), problem)),
        }
    }
    if must_exist || (targets.is_empty() && asked.is_empty()) {
        let problem = |endpoint: &&Endpoint| {
            Asked::failed(Target::configured(endpoint, None), format!("no such host \"{}\"", endpoint.host))
        };
        asked.extend(absent.iter().map(problem));
    }
    // Do not ask an address as a remembered node if a configured name leads to it.
    let mut to_ask: BTreeSet<String> =
        targets.iter().chain(&later).flat_map(|target: &Target| target.names.clone()).collect();
    for (endpoint, run_id) in remembered {
        if to_ask.insert(endpoint.to_string()) {
            targets.push(Target::remembered(endpoint, run_id));
        }
    }
    let mut covered: BTreeSet<String> = BTreeSet::new();
    let mut named: BTreeMap<String, NodeNames> = BTreeMap::new();
    let mut is_cut_short = false;
    loop {
        if targets.is_empty() {
            // Remaining addresses of configured names that no server has named.
            later.retain(|target: &Target| covered.is_disjoint(&target.names));
            if later.is_empty() {
                break;
            }
            targets.append(&mut later);
        }
        covered.extend(targets.iter().flat_map(|target| target.names.clone()));
        let work = targets.drain(..).map(|target| ask(servers, target, clients));
        let answers: Vec<_> = stream::iter(work).buffer_unordered(AT_ONCE).collect().await;
        for answer in &answers {
            let Ok(AnsweringNode { replies, address, .. }) = &answer.result else { continue };
            covered.extend(replies.own.all());
            covered.insert(address.to_string());
        }
        for answer in &answers {
            let Ok(AnsweringNode { replies, .. }) = &answer.result else { continue };
            if answer.target.is_taken_by(replies) {
                continue;
            }
            for other in &replies.others {
                let names = other.all();
                for name in &names {
                    named.insert(name.clone(), other.clone());
                }
                if let Some(target) =
                    Target::named(other, &names).filter(|_| covered.is_disjoint(&other.identity()))
                {
                    is_cut_short |= asked.len() + answers.len() + targets.len() >= MAX_NODES;
                    if !is_cut_short {
                        covered.extend(names);
                        targets.push(target);
                    }
                }
            }
        }
        asked.extend(answers);
    }
    let mut nodes = join(asked);
    for node in &mut nodes {
        node.is_named |= node.names.iter().any(|name| named.contains_key(name));
    }
    for other in named.into_values().filter(|other| other.endpoints.is_empty()) {
        let names = other.all();
        if nodes.len() >= MAX_NODES {
            is_cut_short = true;
            break;
        }
        if nodes.iter().all(|node| node.names.is_disjoint(&names)) {
            nodes.push(FoundNode::without_address(&other, names));
        }
    }
    Round { nodes, is_cut_short }
}

impl Target {
    fn configured(endpoint: &Endpoint, address: Option<SocketAddr>) -> Self {
        // A name may lead to different nodes at different times, so the address identifies the node.
        let names = address.iter().map(ToString::to_string).collect();
        Self { address, is_configured: true, is_named: true, ..Self::at(endpoint.clone(), names) }
    }

    fn remembered(endpoint: Endpoint, run_id: Option<String>) -> Self {
        let names = BTreeSet::from([endpoint.to_string()]);
        Self { run_id, ..Self::at(endpoint, names) }
    }

    /// A target of which only the endpoint and its names are known.
    fn at(endpoint: Endpoint, names: BTreeSet<String>) -> Self {
        Self {
            endpoint,
            further: Vec::new(),
            cluster_node: None,
            run_id: None,
            address: None,
            names,
            is_configured: false,
            is_named: false,
        }
    }

    /// Whether another process now answers in this node's place. It may belong to another group, so the nodes that it names are not
    /// trusted.
    fn is_taken_by(&self, replies: &NodeReplies) -> bool {
        self.run_id.as_deref().zip(replies.run_id()).is_some_and(|(before, now)| before != now)
    }

    /// A node that another one names; `None` if it has no address.
    fn named(node: &NodeNames, names: &BTreeSet<String>) -> Option<Self> {
        let (endpoint, further) = node.endpoints.split_first()?;
        Some(Self {
            further: further.to_vec(),
            cluster_node: node.cluster_node().map(str::to_owned),
            is_named: true,
            ..Self::at(endpoint.clone(), names.clone())
        })
    }
}

impl<C> Asked<C> {
    fn failed(target: Target, problem: String) -> Self {
        Self { target, result: Err(problem) }
    }
}

async fn ask<S: Servers>(servers: &S, target: Target, clients: ListClients) -> Asked<S::Connection> {
    // Connecting has its own deadline. The replies get the same time again.
    let limit = servers.timeout() * 2;
    let result = match timeout(limit, reach_and_ask(servers, &target, clients)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {}", humantime::format_duration(limit))),
    };
    Asked { target, result }
}

async fn reach_and_ask<S: Servers>(
    servers: &S,
    target: &Target,
    clients: ListClients,
) -> Result<AnsweringNode<S::Connection>, String> {
    let mut problem = String::new();
    for endpoint in iter::once(&target.endpoint).chain(&target.further) {
        let addresses = match target.address {
            Some(address) => vec![address],
            None => match servers.addresses(endpoint).await {
                Ok(addresses) => addresses.unwrap_or_default(),
                Err(cause) => {
                    problem = cause;
                    continue;
                }
            },
        };
        if addresses.is_empty() {
            problem = format!("no such host \"{}\"", endpoint.host);
        }
        for address in addresses {
            match servers.connect(endpoint, address, !target.is_configured).await {
                Ok(mut connection) => {
                    let replies = ask_node(servers, &mut connection, clients).await?;
                    let own = replies.own.cluster_node();
                    if own.is_none() || target.cluster_node.is_none() || own == target.cluster_node.as_deref()
                    {
                        return Ok(AnsweringNode {
                            replies,
                            connection,
                            endpoint: endpoint.clone(),
                            address,
                        });
                    }
                    problem = format!("another node of the cluster answers at {endpoint}");
                }
                Err(cause) => problem = cause,
            }
        }
    }
    Err(problem)
}

/// Whether two nodes are the same: the same cluster node, or the same process. Without either, a common name decides.
fn is_same(names: &BTreeSet<String>, others: &BTreeSet<String>) -> bool {
    let known = |kind: fn(&BTreeSet<String>) -> Option<&String>| Some(kind(names)? == kind(others)?);
    known(cluster_node_of).or_else(|| known(process_of)).unwrap_or_else(|| !names.is_disjoint(others))
}

/// Lists each node once, however many names it was asked by.
fn join<C>(asked: Vec<Asked<C>>) -> Vec<FoundNode<C>> {
    let answering: BTreeSet<(String, bool)> = asked
        .iter()
        .filter_map(|asked| {
            Some((asked.target.endpoint.to_string(), asked.result.as_ref().ok()?.address.is_ipv6()))
        })
        .collect();
    let (answers, failures): (Vec<_>, Vec<_>) = asked.into_iter().partition(|asked| asked.result.is_ok());
    let mut nodes: Vec<FoundNode<C>> = Vec::new();
    for Asked { target, result } in answers {
        let Ok(AnsweringNode { replies, connection, endpoint, address }) = result else { continue };
        let mut names = target.names.clone();
        names.extend(replies.own.all());
        names.insert(address.to_string());
        names.extend(replies.run_id().map(process_name));
        if let Some(node) = nodes.iter_mut().find(|node| is_same(&node.names, &names)) {
            node.names.extend(names);
            node.is_named |= target.is_named;
            if let Ok(all) = &mut node.replies {
                all.push(replies);
            }
        } else {
            let shown = target.shown(&nodes, address);
            nodes.push(FoundNode {
                shown,
                endpoint: Some(if target.is_configured { endpoint_of(address) } else { endpoint }),
                names,
                is_named: target.is_named,
                replies: Ok(vec![replies]),
                connection: Some(connection),
            });
        }
    }
    for Asked { target, result } in failures {
        let Err(problem) = result else { continue };
        // The machine may have no route to one address family. Ignore those failures if the other family answers.
        let other_family = target.address.map(|address| (target.endpoint.to_string(), !address.is_ipv6()));
        let own_family = target.address.map(|address| (target.endpoint.to_string(), address.is_ipv6()));
        let is_other_way = other_family.is_some_and(|family| answering.contains(&family))
            && own_family.is_some_and(|family| !answering.contains(&family));
        if is_other_way || nodes.iter().any(|node| is_same(&node.names, &target.names)) {
            continue;
        }
        let shown = match target.address {
            Some(address) => target.shown(&nodes, address),
            None => target.endpoint.to_string(),
        };
        let endpoint =
            target.address.map(endpoint_of).or_else(|| (!target.is_configured).then_some(target.endpoint));
        let (names, is_named) = (target.names, target.is_named);
        nodes.push(FoundNode { shown, endpoint, names, is_named, replies: Err(problem), connection: None });
    }
    nodes
}

fn endpoint_of(address: SocketAddr) -> Endpoint {
    Endpoint { host: Host::Ip(address.ip()), port: address.port() }
}

impl Target {
    fn shown<C>(&self, nodes: &[FoundNode<C>], address: SocketAddr) -> String {
        let name = self.endpoint.to_string();
        if nodes.iter().any(|node| node.shown == name) { format!("{name} at {address}") } else { name }
    }
}

impl<C> FoundNode<C> {
    fn without_address(node: &NodeNames, names: BTreeSet<String>) -> Self {
        let shown = node.label.clone().unwrap_or_default();
        let problem = "a server names it without an address".to_owned();
        Self { shown, endpoint: None, names, is_named: true, replies: Err(problem), connection: None }
    }
}
