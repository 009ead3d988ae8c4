//! Evidence from a group's own nodes about their clients: how many are in plaintext, and groups of similar clients.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::client_list::{self, ClientListEntry};
use super::info::Info;
use super::members::Members;
use super::node::{ListClients, NodeReplies, global_names, plaintext_clients};
use super::plaintext::{self, PlaintextAccess};
use super::servers::NetworkServers;
use super::survey::{FoundNode, Round, survey};
use crate::credentials::Credentials;
use crate::resp::client_requests::is_marked;
use crate::tls::TlsError;
use crate::upstream;

/// How the servers are asked.
pub struct Asking {
    /// How to reach nodes, and the endpoints to start with. An observer gets these elsewhere.
    pub settings: upstream::Settings,
    /// Credentials: sent over verified TLS, and in plaintext where they allow that.
    pub credentials: Option<Arc<Credentials>>,
    /// Prefixes of client names that mark a client as bridged.
    pub bridges: Vec<String>,
    /// Which nodes list their clients.
    pub clients: ListClients,
    /// Whether every endpoint must exist. Otherwise one of them must: the endpoints may be past or future names of one group.
    pub all_must_exist: bool,
}

/// Evidence about a group.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Evidence {
    /// Sorted by endpoint.
    pub nodes: Vec<NodeEvidence>,
    /// Clients that bypass every bridge. Similar clients are grouped, and the largest group comes first.
    pub direct: Vec<SimilarClients>,
    /// Clients that may or may not use a bridge, grouped in the same way.
    #[serde(default)]
    pub unknown: Vec<SimilarClients>,
    /// Clients that use a bridge, grouped in the same way.
    #[serde(default)]
    pub bridged: Vec<SimilarClients>,
}

/// Evidence about a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeEvidence {
    /// The node's name.
    pub endpoint: String,
    /// Its other names: addresses, and `cluster node …` and `run_id …`, which no two nodes share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Why it did not answer; `None` if it answered.
    pub problem: Option<String>,
    /// Engine, version and mode, such as `Redis 7.0.15, standalone`.
    pub engine: Option<String>,
    /// `master` or `slave`, as the server reports it.
    pub role: Option<String>,
    /// Its own count of clients in plaintext (`tls_mode_connected_tcp_clients`); `None` if the engine has no such count.
    pub plaintext_clients: Option<u64>,
    /// Whether it accepts plaintext; `None` if that was not tested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plaintext: Option<PlaintextAccess>,
    /// Its own count of all clients.
    pub connected_clients: Option<u64>,
    /// Clients that certainly use a bridge; `None` if it does not list its clients, or was not asked to.
    pub bridged: Option<u64>,
    /// Clients that certainly use none, without pontoon itself and replication; `None` if it is not known whether there are any.
    pub direct: Option<u64>,
    /// Clients of which neither is certain.
    #[serde(default)]
    pub unknown: Option<u64>,
    /// The error that it replied to `CLIENT LIST`.
    pub list_refused: Option<String>,
    /// It was asked in plaintext.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asked_in_plaintext: bool,
}

/// A group of similar clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimilarClients {
    /// The library name from CLIENT SETINFO; empty if there is none.
    pub library: String,
    /// The library version.
    pub version: String,
    /// The ACL user.
    pub user: String,
    /// The name from CLIENT SETNAME; empty if there is none.
    pub name: String,
    /// The IP address without the port.
    pub address: String,
    /// How many there are, over all nodes.
    pub clients: u64,
    /// Age of the oldest connection, in seconds.
    pub oldest_seconds: u64,
    /// Their last commands, the latest first.
    #[serde(default)]
    pub commands: Vec<String>,
    /// Their connections, which distinguish similar clients.
    #[serde(skip)]
    pub connections: Vec<ConnectionId>,
}

/// A node, and its number of the connection.
pub type ConnectionId = (Arc<str>, u64);

impl NodeEvidence {
    /// Creates evidence that contains only the node's name.
    pub(crate) fn new(endpoint: String) -> Self {
        Self {
            endpoint,
            names: Vec::new(),
            problem: None,
            engine: None,
            role: None,
            plaintext_clients: None,
            plaintext: None,
            connected_clients: None,
            bridged: None,
            direct: None,
            unknown: None,
            list_refused: None,
            asked_in_plaintext: false,
        }
    }

    /// Whether it answered, and either counts no client in plaintext or refuses plaintext. Where it does not count, connections from before
    /// it refused plaintext may remain.
    pub fn has_no_plaintext(&self) -> bool {
        self.problem.is_none()
            && (self.plaintext_clients == Some(0) || self.plaintext == Some(PlaintextAccess::Refused))
    }
}

/// The name of a node that was not asked yet.
pub(super) const NEW_NODE: &str = "a new node";

impl Evidence {
    /// Notes that a node names another one that was not asked yet.
    pub(super) fn note_new_node(&mut self, named_by: &str) {
        if self.nodes.iter().all(|node| node.endpoint != NEW_NODE) {
            let problem = Some(format!("{named_by} names it; it is asked in the next survey"));
            self.nodes.push(NodeEvidence { problem, ..NodeEvidence::new(NEW_NODE.into()) });
        }
    }

    /// Whether every node answered and counts no client in plaintext.
    pub fn is_clean(&self) -> bool {
        !self.nodes.is_empty()
            && self.nodes.iter().all(|node| node.problem.is_none() && node.plaintext_clients == Some(0))
    }
}

/// Asks once every node of the group that can be found from the endpoints.
pub async fn gather(asking: &Asking) -> Result<Evidence, TlsError> {
    let (settings, own_name) = named(asking);
    let servers = NetworkServers::by_mode(&settings, asking.credentials.as_ref())?;
    let Asking { clients, all_must_exist, bridges, .. } = asking;
    let mut round = survey(&servers, &settings.endpoints, Vec::new(), *clients, *all_must_exist).await;
    plaintext::look(&servers, &mut round).await;
    Members::new(Duration::ZERO, Vec::new()).learn(&mut round, Instant::now());
    Ok(Evidence::without(&own_name, &round, bridges))
}

/// Returns settings with a client name of our own, and that name, which excludes our own connections from the counts.
pub(super) fn named(asking: &Asking) -> (upstream::Settings, String) {
    let name = format!("pontoon-audit-{:016x}", fastrand::u64(..));
    (upstream::Settings { client_name: Some(name.clone()), ..asking.settings.clone() }, name)
}

/// Maximum number of commands that are kept for a group of similar clients.
const MAX_COMMANDS: usize = 6;

/// Puts a command in front of `commands`, and keeps only the first few.
pub(super) fn note_command(commands: &mut Vec<String>, command: &str) {
    commands.retain(|known| known != command);
    commands.insert(0, command.to_owned());
    commands.truncate(MAX_COMMANDS);
}

/// Similar clients, by library, version, user, name and address.
#[derive(Default)]
struct Similar(BTreeMap<[String; 5], SimilarTotals>);

/// Totals of a group of similar clients.
#[derive(Default)]
struct SimilarTotals {
    clients: u64,
    oldest_seconds: u64,
    commands: Vec<String>,
    connections: Vec<ConnectionId>,
}

/// Number of clients by the way they connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct ClientCounts {
    bridged: u64,
    direct: u64,
    unknown: u64,
}

impl Evidence {
    pub(super) fn of<C>(round: &Round<C>, bridges: &[String]) -> Self {
        Self::without("", round, bridges)
    }

    /// Excludes clients with this name, because they are our own connections.
    pub(super) fn without<C>(own_name: &str, round: &Round<C>, bridges: &[String]) -> Self {
        let mut census = Census { own_name, ..Census::default() };
        let mut nodes: Vec<_> = round.nodes.iter().map(|node| census.take(node, bridges)).collect();
        nodes.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
        if round.is_cut_short {
            let problem = Some("the servers name more nodes than a group can have".into());
            nodes.push(NodeEvidence { problem, ..NodeEvidence::new("further nodes".into()) });
        }
        Self {
            nodes,
            direct: census.direct.into_list(),
            unknown: census.unknown.into_list(),
            bridged: census.bridged.into_list(),
        }
    }
}

/// Collects the clients of all nodes.
#[derive(Default)]
struct Census<'a> {
    /// The name of our own connections; empty if they have none.
    own_name: &'a str,
    /// The node whose clients are counted.
    node: Arc<str>,
    direct: Similar,
    unknown: Similar,
    bridged: Similar,
}

impl Census<'_> {
    fn take<C>(&mut self, found: &FoundNode<C>, bridges: &[String]) -> NodeEvidence {
        let mut node = NodeEvidence::new(found.shown.clone());
        self.node = found.shown.as_str().into();
        node.names = global_names(&found.names);
        let all = match &found.replies {
            Ok(all) => all,
            Err(problem) => {
                node.problem = Some(problem.clone());
                return node;
            }
        };
        // A node that was asked by several names gave a count each time. Take the highest, and none if one is missing.
        let counts: Option<Vec<u64>> =
            all.iter().map(|replies| plaintext_clients(Info(&replies.info))).collect();
        node.plaintext_clients = counts.and_then(|counts| counts.into_iter().max());
        let Some(NodeReplies { own_id, wants_auth, info, list, plaintext, in_plaintext, .. }) = all.first()
        else {
            return node;
        };
        node.asked_in_plaintext = *in_plaintext;
        let info = Info(info);
        node.plaintext.clone_from(plaintext);
        node.engine = Some(info.describe());
        node.role = info.field("role").map(str::to_owned);
        node.connected_clients = info.number("connected_clients");
        match list {
            None => {}
            Some(Err(words)) => node.list_refused = Some(words.clone()),
            Some(Ok(list)) => {
                let own = own_id.and_then(|id| u64::try_from(id).ok());
                let ClientCounts { bridged, direct, unknown } = self.count(list, own, *wants_auth, bridges);
                node.bridged = Some(bridged);
                node.direct = (direct > 0 || unknown == 0).then_some(direct);
                node.unknown = Some(unknown);
            }
        }
        node
    }

    fn count(&mut self, list: &str, own: Option<u64>, wants_auth: bool, bridges: &[String]) -> ClientCounts {
        let mut counts = ClientCounts::default();
        // A new connection of our own, opened for the next survey, has no name yet.
        let own_ip = client_list::parse(list)
            .find(|client| Some(client.id) == own && !self.own_name.is_empty())
            .map(|client| client.ip().to_owned());
        let is_new =
            |client: &ClientListEntry<'_>| client.age == 0 && client.cmd.is_empty() && client.name.is_empty();
        for client in client_list::parse(list) {
            let is_own = Some(client.id) == own
                || (!client.name.is_empty() && client.name == self.own_name)
                || (own_ip.as_deref() == Some(client.ip()) && is_new(&client));
            if is_own || client.is_replication() {
                continue;
            }
            match is_bridged(&client, wants_auth, bridges) {
                Some(true) => {
                    counts.bridged += 1;
                    self.bridged.add(&client, &self.node);
                }
                Some(false) => {
                    counts.direct += 1;
                    self.direct.add(&client, &self.node);
                }
                None => {
                    counts.unknown += 1;
                    self.unknown.add(&client, &self.node);
                }
            }
        }
        counts
    }
}

impl Similar {
    fn add(&mut self, client: &ClientListEntry<'_>, node: &Arc<str>) {
        let library = client.lib_name.unwrap_or_default();
        let key = [library, client.lib_ver, client.user, client.name, client.ip()].map(str::to_owned);
        let totals = self.0.entry(key).or_default();
        totals.clients += 1;
        totals.connections.push((Arc::clone(node), client.id));
        totals.oldest_seconds = client.age.max(totals.oldest_seconds);
        if !client.cmd.is_empty() {
            note_command(&mut totals.commands, client.cmd);
        }
    }

    /// Returns the groups, largest first.
    fn into_list(self) -> Vec<SimilarClients> {
        let mut list = Vec::new();
        for ([library, version, user, name, address], totals) in self.0 {
            let SimilarTotals { clients, oldest_seconds, commands, connections } = totals;
            list.push(SimilarClients {
                library,
                version,
                user,
                name,
                address,
                clients,
                oldest_seconds,
                commands,
                connections,
            });
        }
        list.sort_by_key(|group| std::cmp::Reverse(group.clients));
        list
    }
}

/// Whether a client uses a bridge; `None` if that is not known. pontoon sets itself as the library, marks the names of its clients'
/// libraries, and has a client name if one is configured. Before Redis 7.2 there is only the client name, which the client may have
/// changed. A server that requires AUTH refuses what pontoon sets before the client's AUTH. A client that then names no library looks the
/// same with and without a bridge.
pub(super) fn is_bridged(client: &ClientListEntry<'_>, wants_auth: bool, bridges: &[String]) -> Option<bool> {
    if !client.name.is_empty() && bridges.iter().any(|prefix| client.name.starts_with(prefix.as_str())) {
        return Some(true);
    }
    match client.lib_name? {
        "" if wants_auth => None,
        name => Some(is_marked(name.as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridged_clients_are_recognised_by_library_and_by_name() {
        let mut found = Census::default();
        let text = "id=1 addr=10.0.0.9:1 age=1 flags=N name= user=default lib-name=pontoon lib-ver=0.1.0\n\
            id=2 addr=10.0.0.9:2 age=2 flags=N name=bridge-7 user=default\n\
            id=7 addr=10.0.0.9:7 age=2 flags=N name=web user=app lib-name=jedis(pontoon) lib-ver=4.0\n\
            id=8 addr=10.0.0.9:8 age=2 flags=N name= user=app lib-name=jedis(x;pontoon) lib-ver=\n\
            id=3 addr=10.0.0.8:3 age=30 flags=N name=web user=app lib-name=jedis lib-ver=4.0\n\
            id=4 addr=10.0.0.8:4 age=40 flags=P name=web user=app lib-name=jedis lib-ver=4.0\n\
            id=5 addr=10.0.0.2:5 age=50 flags=S name= user=default\n\
            id=6 addr=10.0.0.1:6 age=0 flags=N name= user=default\n";
        let counts = found.count(text, Some(6), false, &["bridge-".into()]);
        assert_eq!(counts, ClientCounts { bridged: 4, direct: 2, unknown: 0 });
        let direct = found.direct.into_list();
        assert_eq!(direct.len(), 1);
        let group = &direct[0];
        assert_eq!((group.library.as_str(), group.address.as_str()), ("jedis", "10.0.0.8"));
        assert_eq!((group.clients, group.oldest_seconds), (2, 40));
    }

    #[test]
    fn a_client_without_evidence_is_not_counted_as_direct() {
        let counted = |line: &str, wants_auth| {
            let mut found = Census::default();
            let counts = found.count(line, None, wants_auth, &["bridge-".into()]);
            let (direct, unknown) = (found.direct.into_list(), found.unknown.into_list());
            assert_eq!((counts.direct, counts.unknown), (sum(&direct), sum(&unknown)));
            (counts.bridged, counts.direct, counts.unknown)
        };
        // The engine does not know library names.
        assert_eq!(counted("id=1 addr=10.0.0.9:1 age=1 flags=N name=web user=app", false), (0, 0, 1));
        assert_eq!(counted("id=1 addr=10.0.0.9:1 age=1 flags=N name=bridge-1 user=app", false), (1, 0, 0));
        // The client has set no library, and pontoon could set none before the client's AUTH.
        let silent = "id=1 addr=10.0.0.9:1 age=1 flags=N name=web user=app lib-name= lib-ver=";
        assert_eq!(counted(silent, true), (0, 0, 1));
        assert_eq!(counted(silent, false), (0, 1, 0));
        let named = "id=1 addr=10.0.0.9:1 age=1 flags=N name=web user=app lib-name=jedis lib-ver=";
        assert_eq!(counted(named, true), (0, 1, 0));
    }

    fn sum(groups: &[SimilarClients]) -> u64 {
        groups.iter().map(|group| group.clients).sum()
    }
}
