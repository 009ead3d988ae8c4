//! What a group's own nodes say of their clients: how many are in plaintext, and who they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use super::client_list::{self, ClientListEntry};
use super::info::Info;
use crate::credentials::Credentials;
use crate::endpoint::{Endpoint, Host};
use crate::resp::client_requests::is_marked;
use crate::resp::replies::{self, Answer};
use crate::tls::{Tls, TlsError};
use crate::upstream::{self, AuthOutcome, Cause, Connection, NodeTls, next_answer_within, once};

/// Nodes that are asked at once.
const AT_ONCE: usize = 8;

/// A group has at most 500 nodes; more addresses than this are no group's.
const MOST_NODES: usize = 1000;

/// Bytes of a reply to `CLIENT LIST`: a line has some 350, and a node at most 65,000 clients.
const MAX_CLIENT_LIST: usize = 64 * 1024 * 1024;

/// How to ask.
pub struct Asking {
    /// How nodes are reached, and the endpoints to begin with.
    pub settings: upstream::Settings,
    /// Who asks: sent over TLS that verifies, for there is no other here.
    pub credentials: Option<Arc<Credentials>>,
    /// Clients whose name begins so are bridged.
    pub bridges: Vec<String>,
    /// Whether a node that counts no client in plaintext lists its clients all the same: with many of them that is work.
    pub list_always: bool,
    /// Whether each of the endpoints has to answer; else one does for all, where they are names of one group: yesterday's and
    /// tomorrow's cannot be reached.
    pub all_must_answer: bool,
}

/// A group's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Evidence {
    /// By endpoint.
    pub nodes: Vec<NodeEvidence>,
    /// Clients that come through no bridge, those that are alike together, the most first.
    pub direct: Vec<SimilarClients>,
    /// The same of clients that may come through one or not.
    #[serde(default)]
    pub unknown: Vec<SimilarClients>,
}

/// A node's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeEvidence {
    /// The node.
    pub endpoint: String,
    /// Why it did not answer; `None`: it did.
    pub problem: Option<String>,
    /// `Redis 7.0.15, standalone`.
    pub engine: Option<String>,
    /// `master` or `slave`, in its own words.
    pub role: Option<String>,
    /// Its own count of clients in plaintext (`tls_mode_connected_tcp_clients`); `None`: this engine has none.
    pub plaintext_clients: Option<u64>,
    /// Its own count of all clients.
    pub connected_clients: Option<u64>,
    /// Clients that certainly come through a bridge; `None`: it does not list its clients, or was not asked to.
    pub bridged: Option<u64>,
    /// Clients that certainly do not; ourselves and the replication left out. `None`: whether there are any is not known.
    pub direct: Option<u64>,
    /// Clients of which neither is certain.
    #[serde(default)]
    pub unknown: Option<u64>,
    /// What it said instead of a list of its clients.
    pub list_refused: Option<String>,
}

/// Clients that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SimilarClients {
    /// As CLIENT SETINFO tells, else empty.
    pub library: String,
    /// Of the library.
    pub version: String,
    /// The ACL user.
    pub user: String,
    /// As CLIENT SETNAME tells, else empty.
    pub name: String,
    /// Without the port.
    pub address: String,
    /// How many, over all nodes.
    pub clients: u64,
    /// The longest connection's, in seconds.
    pub oldest_seconds: u64,
}

impl NodeEvidence {
    /// Nothing is known of it.
    pub(crate) fn new(endpoint: String) -> Self {
        Self {
            endpoint,
            problem: None,
            engine: None,
            role: None,
            plaintext_clients: None,
            connected_clients: None,
            bridged: None,
            direct: None,
            unknown: None,
            list_refused: None,
        }
    }
}

impl Evidence {
    /// Every node answered, and counts no client in plaintext.
    pub fn is_clean(&self) -> bool {
        !self.nodes.is_empty()
            && self.nodes.iter().all(|node| node.problem.is_none() && node.plaintext_clients == Some(0))
    }
}

/// Asks every node of the group that can be found from the endpoints.
pub async fn gather(asking: &Asking) -> Result<Evidence, TlsError> {
    let tls = NodeTls::load(&asking.settings)?;
    let mut found = Survey::default();
    let mut to_ask: Vec<Endpoint> = asking.settings.endpoints.clone();
    let configured = to_ask.clone();
    let mut known: BTreeSet<String> = to_ask.iter().map(ToString::to_string).collect();
    let mut asked = 0;
    let (mut unreached, mut told) = (Vec::new(), BTreeSet::new());
    while !to_ask.is_empty() {
        asked += to_ask.len();
        let answers = stream::iter(to_ask.drain(..).map(|endpoint| {
            let announced = matches!(endpoint.host, Host::Ip(_)) && !configured.contains(&endpoint);
            let tls = if announced { &tls.by_address } else { &tls.by_name };
            ask_node(endpoint, tls, asking)
        }))
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
        // A node that was asked by one name is not asked again by another: each would count the other's connection.
        known.extend(answers.iter().flat_map(|answer| &answer.own).map(ToString::to_string));
        for answer in answers {
            for names in &answer.others {
                told.extend(names.iter().map(ToString::to_string));
                let is_new = !names.iter().any(|name| known.contains(&name.to_string()));
                known.extend(names.iter().map(ToString::to_string));
                if is_new && asked + to_ask.len() < MOST_NODES {
                    to_ask.extend(names.first().cloned());
                }
            }
            if answer.result.is_err() && configured.contains(&answer.endpoint) {
                unreached.push(answer);
            } else {
                found.take(answer, &asking.bridges);
            }
        }
    }
    let all = asking.all_must_answer || found.nodes.is_empty();
    for answer in unreached {
        if all || told.contains(&answer.endpoint.to_string()) {
            found.take(answer, &asking.bridges);
        }
    }
    Ok(found.into_evidence())
}

/// What a node answered.
struct Answered {
    endpoint: Endpoint,
    /// `run_id`, or what takes its place: one node has several names.
    identity: Option<String>,
    result: Result<NodeReplies, String>,
    /// Its own names, where it tells them.
    own: Vec<Endpoint>,
    /// The other nodes' names; of each the one to use comes first.
    others: Vec<Vec<Endpoint>>,
}

struct NodeReplies {
    own_id: Option<i64>,
    wants_auth: bool,
    info: String,
    /// `None`: it was not asked.
    list: Option<Result<String, String>>,
}

async fn ask_node(endpoint: Endpoint, tls: &Arc<Tls>, asking: &Asking) -> Answered {
    let deadline = Instant::now() + asking.settings.connect_timeout;
    let work = async {
        let mut connection =
            match once(&endpoint, &asking.settings, tls, asking.credentials.clone(), deadline).await {
                Ok(connection) => connection,
                Err(error) => return Err(error.to_string()),
            };
        let own_id = match ask(&mut connection, &["CLIENT", "ID"]).await? {
            Answer::Number(id) => Some(id),
            _ => None,
        };
        let info = match ask(&mut connection, &["INFO"]).await? {
            Answer::Text(text) => text,
            Answer::Error(words) => return Err(format!("INFO was answered \"{words}\"")),
            _ => return Err("an answer of another type to INFO".into()),
        };
        let list = if asking.list_always || plaintext_clients(Info(&info)) != Some(0) {
            Some(match ask(&mut connection, &["CLIENT", "LIST"]).await? {
                Answer::Text(text) => Ok(text),
                Answer::Error(words) => Err(words),
                _ => Err("an answer of another type".into()),
            })
        } else {
            None
        };
        let nodes = if Info(&info).field("cluster_enabled") == Some("1") {
            match ask(&mut connection, &["CLUSTER", "NODES"]).await? {
                Answer::Text(text) => Some(text),
                // One node would pass for all of them.
                Answer::Error(words) => return Err(format!("CLUSTER NODES was answered \"{words}\"")),
                _ => return Err("an answer of another type to CLUSTER NODES".into()),
            }
        } else {
            None
        };
        let wants_auth = connection.auth == AuthOutcome::Accepted;
        Ok((NodeReplies { own_id, wants_auth, info, list }, nodes))
    };
    // The connector has its own deadline; the answers have as long again.
    let limit = asking.settings.connect_timeout * 2;
    let answered = match timeout(limit, work).await {
        Ok(answered) => answered,
        Err(_) => Err(format!("no answer within {}", humantime::format_duration(limit))),
    };
    match answered {
        Ok((told, nodes)) => {
            // A cluster's replication goes by address, whatever the nodes' names.
            let (own, others) = match &nodes {
                Some(text) => cluster_nodes(text),
                None => {
                    (Vec::new(), replication(Info(&told.info)).into_iter().map(|node| vec![node]).collect())
                }
            };
            let identity = Info(&told.info).field("run_id").map(str::to_owned);
            Answered { endpoint, identity, result: Ok(told), own, others }
        }
        Err(cause) => {
            Answered { endpoint, identity: None, result: Err(cause), own: Vec::new(), others: Vec::new() }
        }
    }
}

async fn ask(connection: &mut Connection, command: &[&str]) -> Result<Answer, String> {
    let answer = async {
        connection.send(&replies::encode_command(command)).await?;
        next_answer_within(connection, MAX_CLIENT_LIST).await?.ok_or(Cause::Closed)
    };
    answer.await.map_err(|cause| cause.to_string())
}

/// Only ElastiCache counts them.
fn plaintext_clients(info: Info<'_>) -> Option<u64> {
    info.field("tls_mode_connected_tcp_clients")?.parse().ok()
}

/// The other nodes that `INFO replication` tells of.
fn replication(info: Info<'_>) -> Vec<Endpoint> {
    let mut found = Vec::new();
    if let (Some(host), Some(port)) = (info.field("master_host"), info.field("master_port")) {
        found.extend(endpoint(host, port));
    }
    for number in 0..MOST_NODES {
        // slave0:ip=10.0.0.2,port=6379,state=online,…
        let Some(slave) = info.field(&format!("slave{number}")) else { break };
        let part = |name: &str| slave.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        if let (Some(host), Some(port)) = (part("ip"), part("port")) {
            found.extend(endpoint(host, port));
        }
    }
    found
}

/// The names of the node that was asked, and of the others that can be, out of `CLUSTER NODES`:
/// `id ip:port@bus[,hostname[,…]] flags …`.
fn cluster_nodes(text: &str) -> (Vec<Endpoint>, Vec<Vec<Endpoint>>) {
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(address), Some(flags)) = (fields.next(), fields.next()) else { continue };
        let mut parts = address.split(',');
        let ip_and_port = parts.next().and_then(|address| address.split('@').next()?.rsplit_once(':'));
        let Some((ip, port)) = ip_and_port else { continue };
        let names = [parts.next().unwrap_or(""), ip].into_iter().filter_map(|host| endpoint(host, port));
        let is = |wanted: &str| flags.split(',').any(|flag| flag == wanted);
        if is("myself") {
            own.extend(names);
        } else if !is("noaddr") && !is("handshake") && !is("fail") {
            others.push(names.collect());
        }
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

#[derive(Default)]
struct Survey {
    nodes: Vec<NodeEvidence>,
    identities: BTreeSet<String>,
    direct: Similar,
    unknown: Similar,
}

/// Clients that are alike: how many, and the oldest.
#[derive(Default)]
struct Similar(BTreeMap<[String; 5], (u64, u64)>);

/// Clients by how they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct ClientCounts {
    bridged: u64,
    direct: u64,
    unknown: u64,
}

impl Survey {
    fn take(&mut self, answer: Answered, bridges: &[String]) {
        // One that has been asked by another name.
        if answer.identity.is_some_and(|identity| !self.identities.insert(identity)) {
            return;
        }
        let mut node = NodeEvidence::new(answer.endpoint.to_string());
        match answer.result {
            Err(problem) => node.problem = Some(problem),
            Ok(told) => {
                let info = Info(&told.info);
                let number = |name: &str| info.field(name).and_then(|value| value.parse().ok());
                node.engine = Some(info.describe());
                node.role = info.field("role").map(str::to_owned);
                node.plaintext_clients = plaintext_clients(info);
                node.connected_clients = number("connected_clients");
                match told.list {
                    None => {}
                    Some(Err(words)) => node.list_refused = Some(words),
                    Some(Ok(list)) => {
                        let own = told.own_id.and_then(|id| u64::try_from(id).ok());
                        let ClientCounts { bridged, direct, unknown } =
                            self.count(&list, own, told.wants_auth, bridges);
                        node.bridged = Some(bridged);
                        node.direct = (direct > 0 || unknown == 0).then_some(direct);
                        node.unknown = Some(unknown);
                    }
                }
            }
        }
        self.nodes.push(node);
    }

    fn count(&mut self, list: &str, own: Option<u64>, wants_auth: bool, bridges: &[String]) -> ClientCounts {
        let mut counts = ClientCounts::default();
        for client in client_list::parse(list) {
            if Some(client.id) == own || client.is_replication() {
                continue;
            }
            match is_bridged(&client, wants_auth, bridges) {
                Some(true) => counts.bridged += 1,
                Some(false) => {
                    counts.direct += 1;
                    self.direct.add(&client);
                }
                None => {
                    counts.unknown += 1;
                    self.unknown.add(&client);
                }
            }
        }
        counts
    }

    fn into_evidence(mut self) -> Evidence {
        self.nodes.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
        Evidence { nodes: self.nodes, direct: self.direct.into_list(), unknown: self.unknown.into_list() }
    }
}

impl Similar {
    fn add(&mut self, client: &ClientListEntry<'_>) {
        let library = client.lib_name.unwrap_or_default();
        let key = [library, client.lib_ver, client.user, client.name, client.ip()].map(str::to_owned);
        let (clients, oldest) = self.0.entry(key).or_default();
        *clients += 1;
        *oldest = client.age.max(*oldest);
    }

    /// The most first.
    fn into_list(self) -> Vec<SimilarClients> {
        let mut list = Vec::new();
        for ([library, version, user, name, address], (clients, oldest_seconds)) in self.0 {
            list.push(SimilarClients { library, version, user, name, address, clients, oldest_seconds });
        }
        list.sort_by_key(|group| std::cmp::Reverse(group.clients));
        list
    }
}

/// Whether a client comes through a bridge, as far as it can be told: pontoon introduces itself as a library, marks the names of
/// clients' libraries, and has a name of its own where one is configured. Before Redis 7.2 there is only the name, which a client
/// may have changed. A server that wants AUTH refuses what pontoon says before the client's AUTH, so that a client which then
/// names no library looks the same either way.
fn is_bridged(client: &ClientListEntry<'_>, wants_auth: bool, bridges: &[String]) -> Option<bool> {
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

    fn list(endpoints: &[Endpoint]) -> Vec<String> {
        endpoints.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_nodes_of_a_group_are_found_in_info_replication() {
        let primary = "role:master\r\nconnected_slaves:2\r\nslave0:ip=10.0.0.2,port=6379,state=online,offset=1,lag=0\r\n\
            slave1:ip=fd00::3,port=6380,state=online,offset=1,lag=1\r\n";
        assert_eq!(list(&replication(Info(primary))), ["10.0.0.2:6379", "[fd00::3]:6380"]);
        let replica = "role:slave\r\nmaster_host:primary.example\r\nmaster_port:6379\r\n";
        assert_eq!(list(&replication(Info(replica))), ["primary.example:6379"]);
        assert!(replication(Info("role:master\r\nslave0:ip=,port=0,state=wait_bgsave\r\n")).is_empty());
    }

    #[test]
    fn the_nodes_of_a_cluster_are_found_by_name_where_they_have_one() {
        let text = "a 10.0.0.1:6379@16379,node-1.example master - 0 1 1 connected 0-5460\n\
            b 10.0.0.2:6379@16379,node-2.example,shard-id=x myself,master - 0 1 2 connected 5461-10922\n\
            c 10.0.0.3:6379@16379 slave a 0 1 3 connected\n\
            d fd00::4:6379@16379,? master - 0 1 4 connected\n\
            e :0@0 master,noaddr - 0 1 5 disconnected\n\
            f 10.0.0.6:6379@16379 master,fail - 0 1 6 disconnected\n\
            g 10.0.0.7:6379@16379 master,fail? - 0 1 7 connected\n";
        let (own, others) = cluster_nodes(text);
        assert_eq!(list(&own), ["node-2.example:6379", "10.0.0.2:6379"]);
        let others: Vec<_> = others.iter().map(|names| list(names)).collect();
        assert_eq!(
            others,
            [
                vec!["node-1.example:6379", "10.0.0.1:6379"],
                vec!["10.0.0.3:6379"],
                vec!["[fd00::4]:6379"],
                vec!["10.0.0.7:6379"]
            ]
        );
    }

    #[test]
    fn clients_are_told_apart_by_library_and_by_name() {
        let mut found = Survey::default();
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
        let evidence = found.into_evidence();
        assert_eq!(evidence.direct.len(), 1);
        let group = &evidence.direct[0];
        assert_eq!((group.library.as_str(), group.address.as_str()), ("jedis", "10.0.0.8"));
        assert_eq!((group.clients, group.oldest_seconds), (2, 40));
    }

    #[test]
    fn a_client_of_which_nothing_tells_is_not_said_to_be_direct() {
        let counted = |line: &str, wants_auth| {
            let mut found = Survey::default();
            let counts = found.count(line, None, wants_auth, &["bridge-".into()]);
            let evidence = found.into_evidence();
            assert_eq!((counts.direct, counts.unknown), (sum(&evidence.direct), sum(&evidence.unknown)));
            (counts.bridged, counts.direct, counts.unknown)
        };
        // The engine has no names of libraries.
        assert_eq!(counted("id=1 addr=10.0.0.9:1 age=1 flags=N name=web user=app", false), (0, 0, 1));
        assert_eq!(counted("id=1 addr=10.0.0.9:1 age=1 flags=N name=bridge-1 user=app", false), (1, 0, 0));
        // The client has set none, and pontoon could not before the client's AUTH.
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
