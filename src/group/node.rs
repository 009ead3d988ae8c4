//! Reads what one node replies: its counters, its clients, and the other nodes that it names.

use std::collections::BTreeSet;
use std::time::Duration;

use super::info::Info;
use super::plaintext::PlaintextAccess;
use super::servers::Servers;
use crate::endpoint::{Endpoint, Host};
use crate::resp::replies::Answer;

/// Groups have at most 500 nodes. A longer list is cut off here.
pub(super) const MAX_NODES: usize = 1000;

/// Which nodes are asked to list their clients. A long list costs the server time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListClients {
    /// All nodes.
    Always,
    /// Nodes that count clients in plaintext or do not count them, and nodes with few clients.
    WherePlaintextOrFew,
}

/// Prefix of a node's name that contains its cluster ID.
const CLUSTER_NODE: &str = "cluster node ";

/// Prefix of a node's name that contains its `run_id`, which identifies one process of a server.
const PROCESS: &str = "run_id ";

/// Returns the name of a process.
pub(super) fn process_name(run_id: &str) -> String {
    format!("{PROCESS}{run_id}")
}

/// Returns the `run_id` among a node's names.
pub(super) fn run_id_of(names: &BTreeSet<String>) -> Option<&str> {
    process_of(names)?.strip_prefix(PROCESS)
}

/// Returns the name with the cluster ID among a node's names.
pub(super) fn cluster_node_of(names: &BTreeSet<String>) -> Option<&String> {
    names.iter().find(|name| name.starts_with(CLUSTER_NODE))
}

/// Returns the names that mean the same node everywhere: all but its place in one server's list.
pub(super) fn global_names(names: &BTreeSet<String>) -> Vec<String> {
    // Addresses are recognised by the colon before the port.
    let is_global =
        |name: &&String| name.starts_with(CLUSTER_NODE) || name.starts_with(PROCESS) || name.contains(':');
    names.iter().filter(is_global).cloned().collect()
}

/// Returns the name of the process among a node's names.
pub(super) fn process_of(names: &BTreeSet<String>) -> Option<&String> {
    names.iter().find(|name| name.starts_with(PROCESS))
}

/// With [`ListClients::WherePlaintextOrFew`], a node with at most this many clients lists them.
const FEW_CLIENTS: u64 = 500;

/// A node's replies.
pub(super) struct NodeReplies {
    pub(super) own_id: Option<i64>,
    pub(super) wants_auth: bool,
    pub(super) info: String,
    /// The reply to `CLIENT LIST`; `None` if it was not asked.
    pub(super) list: Option<Result<String, String>>,
    /// Its own names.
    pub(super) own: NodeNames,
    /// The other nodes of its group.
    pub(super) others: Vec<NodeNames>,
    /// The other nodes in short form; `None` if the server does not report them.
    pub(super) roster: Option<Roster>,
    /// Whether the node accepts plaintext; `None` if that was not tested.
    pub(super) plaintext: Option<PlaintextAccess>,
    /// The node replied in plaintext.
    pub(super) in_plaintext: bool,
}

/// The nodes that a server knows, to notice between two surveys that one has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roster {
    /// The number of nodes of a cluster.
    Count(u64),
    /// The names of the nodes that replicate with the server.
    Names(BTreeSet<String>),
}

impl Roster {
    /// Whether it contains a node that `known` does not.
    pub(super) fn is_wider_than(&self, known: &Self) -> bool {
        match (self, known) {
            (Self::Count(now), Self::Count(before)) => now > before,
            (Self::Names(now), Self::Names(before)) => !now.is_subset(before),
            (Self::Count(_), Self::Names(_)) | (Self::Names(_), Self::Count(_)) => true,
        }
    }
}

/// The names that servers have for one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NodeNames {
    /// Where the node can be reached, best endpoint first. Empty if the server knows no address.
    pub(super) endpoints: Vec<Endpoint>,
    /// What else distinguishes the node: its cluster ID, or its place in a list.
    pub(super) label: Option<String>,
}

impl NodeNames {
    /// Returns the names that identify the node. In a cluster that is only its ID, because several nodes may announce one host name.
    pub(super) fn identity(&self) -> BTreeSet<String> {
        match self.cluster_node() {
            Some(label) => BTreeSet::from([label.to_owned()]),
            None => self.all(),
        }
    }

    /// Returns its cluster ID, as a name.
    pub(super) fn cluster_node(&self) -> Option<&str> {
        self.label.as_deref().filter(|label| label.starts_with(CLUSTER_NODE))
    }

    /// Returns all its names, to compare them.
    pub(super) fn all(&self) -> BTreeSet<String> {
        self.endpoints.iter().map(ToString::to_string).chain(self.label.clone()).collect()
    }
}

#[cfg(test)]
impl NodeReplies {
    /// Replies of a node that reports this INFO and nothing else.
    pub(super) fn saying(info: &str) -> Self {
        Self {
            own_id: None,
            wants_auth: false,
            info: info.to_owned(),
            list: None,
            own: NodeNames::default(),
            others: Vec::new(),
            roster: None,
            plaintext: None,
            in_plaintext: false,
        }
    }
}

impl NodeReplies {
    /// Returns `run_id`, which identifies one process of a server; `None` if the server does not report it.
    pub(super) fn run_id(&self) -> Option<&str> {
        Info(&self.info).field("run_id").filter(|id| !id.is_empty())
    }

    /// Returns the longest time that the server can have run; `None` if it does not report its uptime.
    pub(super) fn uptime(&self) -> Option<Duration> {
        Some(Duration::from_secs(Info(&self.info).number("uptime_in_seconds")?.saturating_add(1)))
    }

    /// Whether the server is a cluster node.
    pub(super) fn is_clustered(&self) -> bool {
        is_clustered(Info(&self.info))
    }
}

/// Asks a node for everything that a survey needs.
pub(super) async fn ask_node<S: Servers>(
    servers: &S,
    connection: &mut S::Connection,
    clients: ListClients,
) -> Result<NodeReplies, String> {
    let own_id = match servers.ask(connection, &["CLIENT", "ID"]).await? {
        Answer::Number(id) => Some(id),
        _ => None,
    };
    let info = ask_for_text(servers, connection, &["INFO"]).await?;
    let list = if wants_list(Info(&info), clients) {
        Some(match servers.ask(connection, &["CLIENT", "LIST"]).await? {
            Answer::Text(text) => Ok(text),
            Answer::Error(words) => Err(words),
            _ => Err("unexpected reply type".into()),
        })
    } else {
        None
    };
    let (own, others, roster) = if is_clustered(Info(&info)) {
        // Ask for the roster before the nodes, so that a node that joins in between counts as new.
        let roster = ask_roster(servers, connection, true).await?;
        // Without the list of nodes, one node would pass for the whole group.
        let (own, others) = cluster_nodes(&ask_for_text(servers, connection, &["CLUSTER", "NODES"]).await?);
        (own, others, roster)
    } else {
        let others = replication(Info(&info));
        let roster = Some(Roster::Names(names_of(&others)));
        (NodeNames::default(), others, roster)
    };
    let wants_auth = servers.wants_auth(connection);
    let in_plaintext = servers.is_in_plaintext(connection);
    Ok(NodeReplies { own_id, wants_auth, info, list, own, others, roster, plaintext: None, in_plaintext })
}

/// Asks a node which other nodes it knows; `None` if it does not report them.
pub(super) async fn ask_roster<S: Servers>(
    servers: &S,
    connection: &mut S::Connection,
    is_clustered: bool,
) -> Result<Option<Roster>, String> {
    let command: &[&str] = if is_clustered { &["CLUSTER", "INFO"] } else { &["INFO", "replication"] };
    let Answer::Text(text) = servers.ask(connection, command).await? else { return Ok(None) };
    Ok(if is_clustered {
        Info(&text).number("cluster_known_nodes").map(Roster::Count)
    } else {
        Some(Roster::Names(names_of(&replication(Info(&text)))))
    })
}

fn names_of(nodes: &[NodeNames]) -> BTreeSet<String> {
    nodes.iter().flat_map(NodeNames::all).collect()
}

fn is_clustered(info: Info<'_>) -> bool {
    info.field("cluster_enabled") == Some("1")
}

async fn ask_for_text<S: Servers>(
    servers: &S,
    connection: &mut S::Connection,
    command: &[&str],
) -> Result<String, String> {
    match servers.ask(connection, command).await? {
        Answer::Text(text) => Ok(text),
        Answer::Error(words) => Err(format!("{} failed: {words}", command.join(" "))),
        _ => Err(format!("unexpected reply type to {}", command.join(" "))),
    }
}

fn wants_list(info: Info<'_>, clients: ListClients) -> bool {
    let has_few = || info.number("connected_clients").is_some_and(|count| count <= FEW_CLIENTS);
    clients == ListClients::Always || plaintext_clients(info) != Some(0) || has_few()
}

/// A server's count of its clients in plaintext. Only ElastiCache has it, in the section SSL.
pub(super) const PLAINTEXT_CLIENTS: &str = "tls_mode_connected_tcp_clients";

/// Returns that count.
pub(super) fn plaintext_clients(info: Info<'_>) -> Option<u64> {
    info.number(PLAINTEXT_CLIENTS)
}

/// Returns the other nodes that `INFO replication` names.
fn replication(info: Info<'_>) -> Vec<NodeNames> {
    let node = |label: &str, host: Option<&str>, port: Option<&str>| {
        let endpoints =
            host.zip(port).and_then(|(host, port)| endpoint(host, port)).into_iter().collect::<Vec<_>>();
        let label = endpoints.is_empty().then(|| label.to_owned());
        NodeNames { endpoints, label }
    };
    let mut found = Vec::new();
    if let Some(host) = info.field("master_host") {
        found.push(node("the primary", Some(host), info.field("master_port")));
    }
    for number in 0..MAX_NODES {
        // slave0:ip=10.0.0.2,port=6379,state=online,…
        let name = format!("slave{number}");
        let Some(slave) = info.field(&name) else { break };
        let part = |name: &str| slave.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        found.push(node(&name, part("ip"), part("port")));
    }
    found
}

/// Parses `CLUSTER NODES` (`id ip:port@bus[,hostname[,…]] flags …`) into the names of the asked node and of the others.
fn cluster_nodes(text: &str) -> (NodeNames, Vec<NodeNames>) {
    let (mut own, mut others) = (NodeNames::default(), Vec::new());
    for line in text.lines() {
        let mut fields = line.split(' ');
        let (Some(id), Some(address), Some(flags)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let mut parts = address.split(',');
        let ip_and_port = parts.next().and_then(|address| address.split('@').next()?.rsplit_once(':'));
        let Some((ip, port)) = ip_and_port else { continue };
        let hosts = [parts.next().unwrap_or(""), ip];
        let endpoints = hosts.into_iter().filter_map(|host| endpoint(host, port)).collect();
        let names = NodeNames { endpoints, label: Some(format!("{CLUSTER_NODE}{id}")) };
        if flags.split(',').any(|flag| flag == "myself") { own = names } else { others.push(names) }
    }
    (own, others)
}

fn endpoint(host: &str, port: &str) -> Option<Endpoint> {
    let port = port.parse().ok().filter(|port| *port > 0)?;
    if host.is_empty() || host == "?" {
        return None;
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let host = bare.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::Ip);
    Some(Endpoint { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(nodes: &[NodeNames]) -> Vec<Vec<String>> {
        let endpoints = |node: &NodeNames| node.endpoints.iter().map(ToString::to_string).collect();
        nodes.iter().map(endpoints).collect()
    }

    #[test]
    fn the_nodes_of_a_group_are_found_in_info_replication() {
        let primary = "role:master\r\nconnected_slaves:2\r\nslave0:ip=10.0.0.2,port=6379,state=online,offset=1,lag=0\r\n\
            slave1:ip=fd00::3,port=6380,state=online,offset=1,lag=1\r\n";
        assert_eq!(list(&replication(Info(primary))), [["10.0.0.2:6379"], ["[fd00::3]:6380"]]);
        let replica = "role:slave\r\nmaster_host:primary.example\r\nmaster_port:6379\r\n";
        assert_eq!(list(&replication(Info(replica))), [["primary.example:6379"]]);
    }

    #[test]
    fn a_node_without_an_address_counts_as_a_node() {
        for slave in ["ip=,port=0", "ip=?,port=6379", "ip=10.0.0.2,port=0", "state=online"] {
            let nodes = replication(Info(&format!("role:master\r\nslave0:{slave}\r\n")));
            assert_eq!(nodes, [NodeNames { endpoints: vec![], label: Some("slave0".into()) }], "{slave}");
        }
    }

    #[test]
    fn all_cluster_nodes_are_found_by_host_name_where_they_have_one() {
        let text = "a 10.0.0.1:6379@16379,node-1.example master - 0 1 1 connected 0-5460\n\
            b 10.0.0.2:6379@16379,node-2.example,shard-id=x myself,master - 0 1 2 connected 5461-10922\n\
            c 10.0.0.3:6379@16379 slave a 0 1 3 connected\n\
            d fd00::4:6379@16379,? master - 0 1 4 connected\n\
            e :0@0 master,noaddr - 0 1 5 disconnected\n\
            f 10.0.0.6:6379@16379 master,fail - 0 1 6 disconnected\n\
            g 10.0.0.7:6379@16379 master,fail? - 0 1 7 connected\n";
        let (own, others) = cluster_nodes(text);
        assert_eq!(list(&[own]), [["node-2.example:6379", "10.0.0.2:6379"]]);
        let wanted: [&[&str]; 6] = [
            &["node-1.example:6379", "10.0.0.1:6379"],
            &["10.0.0.3:6379"],
            &["[fd00::4]:6379"],
            &[],
            &["10.0.0.6:6379"],
            &["10.0.0.7:6379"],
        ];
        assert_eq!(list(&others), wanted);
        assert_eq!(others[3].label.as_deref(), Some("cluster node e"));
    }
}
