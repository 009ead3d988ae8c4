//! Asks the nodes of a group repeatedly for a limited time, and remembers every client that it saw: for `pontoon audit --watch`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::mem::take;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::evidence::{Asking, ConnectionId, Evidence, NodeEvidence, SimilarClients, named, note_command};
use super::members::Members;
use super::node::{MAX_NODES, ask_node};
use super::plaintext;
use super::servers::{NetworkServers, Servers};
use super::survey::{Round, survey};
use crate::moment::Moment;
use crate::tls::TlsError;

/// Maximum number of rows: groups of similar clients.
const MAX_ROWS: usize = 10_000;

/// How long a node may take to answer a sample. No other node is asked meanwhile.
const SAMPLE_LIMIT: Duration = Duration::from_secs(2);

/// Time between two surveys, which find new nodes and reconnect.
const SURVEY_INTERVAL: Duration = Duration::from_secs(30);

/// Time between two surveys while a node does not answer.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(5);

/// For how long to watch, and how often to ask.
pub struct WatchPace {
    /// For how long to watch.
    pub length: Duration,
    /// Time between two samples.
    pub every: Duration,
}

/// What all samples together showed.
#[derive(Debug, Clone, Serialize)]
pub struct WatchReport {
    /// When the first node was asked.
    pub began: Moment,
    /// When the last sample was taken.
    pub ended: Moment,
    /// Number of samples.
    pub samples: u64,
    /// Every node that was in the group at any time.
    pub nodes: Vec<WatchedNode>,
    /// Clients that bypass every bridge. Similar clients are grouped, and the largest group comes first.
    pub direct: Vec<SeenClients>,
    /// Clients that may or may not use a bridge, grouped in the same way.
    pub unknown: Vec<SeenClients>,
    /// Clients that use a bridge, grouped in the same way.
    pub bridged: Vec<SeenClients>,
    /// Highest number of clients in one sample that are missing from the lists because these were full.
    pub not_listed: u64,
}

/// A watched node.
#[derive(Debug, Clone, Serialize)]
pub struct WatchedNode {
    /// Its last evidence, with the highest count of clients in plaintext of all samples.
    #[serde(flatten)]
    pub last: NodeEvidence,
    /// Number of samples that it did not answer.
    pub unanswered_samples: u64,
}

/// A group of similar clients over all samples.
#[derive(Debug, Clone, Serialize)]
pub struct SeenClients {
    /// The highest number at one time, the age of the oldest, and the last commands.
    #[serde(flatten)]
    pub clients: SimilarClients,
    /// When the first of them was seen.
    pub first_seen: Moment,
    /// When one of them was last seen.
    pub last_seen: Moment,
}

impl WatchReport {
    /// Whether every node answered each sample, and counted no client in plaintext or refused plaintext.
    pub fn is_clean(&self) -> bool {
        let is_clean = |WatchedNode { last, unanswered_samples }: &WatchedNode| {
            *unanswered_samples == 0 && last.has_no_plaintext()
        };
        !self.nodes.is_empty() && self.nodes.iter().all(is_clean)
    }
}

/// An event while a group is watched.
pub enum WatchEvent<'a> {
    /// A sample was taken.
    Sampled {
        /// Number of samples so far.
        samples: u64,
        /// Number of nodes of the group.
        nodes: usize,
        /// Number of rows in the report.
        rows: usize,
    },
    /// A node stopped answering.
    Silent(&'a NodeEvidence),
    /// A node answers again.
    Answers(&'a NodeEvidence),
}

/// Watches a group for as long as `pace` says, or until `end` completes. Uses a bounded amount of memory.
pub async fn watch(
    asking: &Asking,
    pace: &WatchPace,
    end: impl Future<Output = ()>,
    mut tell: impl FnMut(WatchEvent<'_>),
) -> Result<WatchReport, TlsError> {
    let (settings, own_name) = named(asking);
    let servers = NetworkServers::by_mode(&settings, asking.credentials.as_ref())?;
    let mut seen = SeenGroup::new(MAX_ROWS);
    let sampling = async {
        let mut members = Members::new(Duration::ZERO, Vec::new());
        let mut round = Round { nodes: Vec::new(), is_cut_short: false };
        let mut next = Instant::now();
        loop {
            let began = Instant::now();
            let Asking { clients, all_must_exist, bridges, .. } = asking;
            let survey = survey(&servers, &settings.endpoints, members.list(), *clients, *all_must_exist);
            let mut survey = pin!(survey);
            // A node that does not answer must not delay the samples of the others.
            let mut found = loop {
                tokio::select! {
                    biased;
                    found = &mut survey => break found,
                    () = sample(&servers, asking, &mut round, &mut next, pace.every), if !round.nodes.is_empty() => {
                        seen.note(Evidence::without(&own_name, &round, bridges), &mut tell);
                    }
                }
            };
            // Only once: each attempt is a connection in plaintext, which the lists of later samples might show.
            if round.nodes.is_empty() {
                plaintext::look(&servers, &mut found).await;
            }
            members.learn(&mut found, Instant::now());
            round = found;
            next = Instant::now() + pace.every;
            seen.note(Evidence::without(&own_name, &round, bridges), &mut tell);
            loop {
                let is_complete = round.nodes.iter().all(|node| node.replies.is_ok());
                let due =
                    began + if is_complete { SURVEY_INTERVAL.max(pace.every) } else { RECONNECT_INTERVAL };
                if next.max(Instant::now()) >= due {
                    sleep_until(due).await;
                    break;
                }
                sample(&servers, asking, &mut round, &mut next, pace.every).await;
                seen.note(Evidence::without(&own_name, &round, bridges), &mut tell);
            }
        }
    };
    tokio::select! {
        biased;
        () = end => {}
        () = sleep(pace.length) => {}
        () = sampling => {}
    }
    Ok(seen.into_report())
}

/// Waits for the time of the `next` sample, and asks each node over its open connection.
async fn sample<S: Servers>(
    servers: &S,
    asking: &Asking,
    round: &mut Round<S::Connection>,
    next: &mut Instant,
    every: Duration,
) {
    sleep_until(*next).await;
    *next = Instant::now() + every;
    stream::iter(&mut round.nodes)
        .for_each_concurrent(None, |node| async {
            let Some(connection) = &mut node.connection else { return };
            let asked = timeout(SAMPLE_LIMIT, ask_node(servers, connection, asking.clients)).await;
            let late = |_| Err(format!("no answer within {}", humantime::format_duration(SAMPLE_LIMIT)));
            node.replies = asked.unwrap_or_else(late).map(|replies| vec![replies]);
            if node.replies.is_err() {
                node.connection = None;
            }
        })
        .await;
}

/// Ways in which clients connect, in the order of a report's lists.
const WAYS: usize = 3;

/// Library, version, user, name and address.
type RowKey = [String; 5];

/// Clients that are alike.
struct SeenRow {
    seen: SeenClients,
    /// How many connections were theirs, and did not set themselves up as others'.
    connections: u64,
}

/// Whether a connection of `earlier` can be one of `later` that was still setting itself up.
fn is_setting_up(earlier: &RowKey, later: &RowKey) -> bool {
    let [.., user, _, _] = earlier;
    let is_new_user = user == "default";
    let is_same = |(before, now): (&String, &String)| {
        before == now || before.is_empty() || is_new_user && std::ptr::eq(before, user)
    };
    earlier.iter().zip(later).all(is_same)
}

/// What was seen so far.
struct SeenGroup {
    began: Moment,
    ended: Moment,
    samples: u64,
    nodes: BTreeMap<String, WatchedNode>,
    clients: [BTreeMap<Arc<RowKey>, SeenRow>; WAYS],
    /// The row of each connection of the last sample.
    connections: HashMap<ConnectionId, (usize, Arc<RowKey>)>,
    max_rows: usize,
    not_listed: u64,
}

impl SeenGroup {
    fn new(max_rows: usize) -> Self {
        let now = Moment::now();
        Self {
            began: now,
            ended: now,
            samples: 0,
            nodes: BTreeMap::new(),
            clients: Default::default(),
            connections: HashMap::new(),
            max_rows,
            not_listed: 0,
        }
    }

    fn rows(&self) -> usize {
        self.clients.iter().map(BTreeMap::len).sum()
    }

    /// Adds a sample.
    fn note(&mut self, sample: Evidence, tell: &mut impl FnMut(WatchEvent<'_>)) {
        let now = Moment::now();
        self.ended = now;
        self.samples += 1;
        let nodes = sample.nodes.len();
        for node in sample.nodes {
            self.note_node(&node, tell);
        }
        let mut not_listed = 0;
        let before = take(&mut self.connections);
        for (way, groups) in [sample.direct, sample.unknown, sample.bridged].into_iter().enumerate() {
            for group in groups {
                not_listed += self.note_clients(way, group, &before, now);
            }
        }
        self.not_listed = self.not_listed.max(not_listed);
        tell(WatchEvent::Sampled { samples: self.samples, nodes, rows: self.rows() });
    }

    fn note_node(&mut self, node: &NodeEvidence, tell: &mut impl FnMut(WatchEvent<'_>)) {
        let is_silent = node.problem.is_some();
        let has_room = self.nodes.len() < MAX_NODES;
        let was_silent = match self.nodes.get_mut(&node.endpoint) {
            Some(WatchedNode { last, unanswered_samples }) => {
                let was_silent = last.problem.is_some();
                let counts = [last.plaintext_clients, node.plaintext_clients];
                let mut most = counts.into_iter().max().flatten();
                // A sample without a count is not taken for zero.
                if !was_silent && !is_silent && counts.contains(&None) {
                    most = most.filter(|most| *most > 0);
                }
                if is_silent {
                    last.problem.clone_from(&node.problem);
                } else {
                    let plaintext = last.plaintext.take();
                    *last = node.clone();
                    // Only the first sample tries plaintext.
                    last.plaintext = plaintext;
                }
                last.plaintext_clients = most;
                *unanswered_samples += u64::from(is_silent);
                was_silent
            }
            None if has_room => {
                let watched = WatchedNode { last: node.clone(), unanswered_samples: u64::from(is_silent) };
                self.nodes.insert(node.endpoint.clone(), watched);
                false
            }
            None => is_silent,
        };
        match (was_silent, is_silent) {
            (false, true) => tell(WatchEvent::Silent(node)),
            (true, false) => tell(WatchEvent::Answers(node)),
            _ => {}
        }
    }

    /// Returns how many of the clients were not added. `before` has the rows of the connections in the previous sample.
    fn note_clients(
        &mut self,
        way: usize,
        mut group: SimilarClients,
        before: &HashMap<ConnectionId, (usize, Arc<RowKey>)>,
        now: Moment,
    ) -> u64 {
        let SimilarClients { library, version, user, name, address, .. } = &group;
        let row = (way, Arc::new([library, version, user, name, address].map(Clone::clone)));
        let connections = take(&mut group.connections);
        let mut new = 0;
        for earlier in connections.iter().map(|connection| before.get(connection)) {
            new += u64::from(earlier != Some(&row));
            if let Some(earlier) = earlier.filter(|earlier| **earlier != row)
                && is_setting_up(&earlier.1, &row.1)
            {
                self.drop_connection(earlier);
            }
        }
        let is_full = self.rows() >= self.max_rows;
        let SeenRow { seen, connections: all } = match self.clients[way].entry(Arc::clone(&row.1)) {
            Entry::Vacant(_) if is_full => return group.clients,
            Entry::Vacant(place) => {
                let seen = SeenClients { clients: group.clone(), first_seen: now, last_seen: now };
                place.insert(SeenRow { seen, connections: 0 })
            }
            Entry::Occupied(place) => place.into_mut(),
        };
        *all += new;
        seen.last_seen = now;
        seen.clients.clients = seen.clients.clients.max(group.clients);
        seen.clients.oldest_seconds = seen.clients.oldest_seconds.max(group.oldest_seconds);
        for command in group.commands.iter().rev() {
            note_command(&mut seen.clients.commands, command);
        }
        self.connections.extend(connections.into_iter().map(|connection| (connection, row.clone())));
        0
    }

    /// Takes a connection from a row, and the row away that has none left.
    fn drop_connection(&mut self, (way, key): &(usize, Arc<RowKey>)) {
        if let Some(SeenRow { seen, connections }) = self.clients[*way].get_mut(key) {
            // A server may list one number twice.
            *connections = connections.saturating_sub(1);
            seen.clients.clients = seen.clients.clients.min(*connections);
            if *connections == 0 {
                self.clients[*way].remove(key);
            }
        }
    }

    fn into_report(mut self) -> WatchReport {
        let [direct, unknown, bridged] = take(&mut self.clients).map(|clients| {
            let mut list: Vec<_> = clients.into_values().map(|row| row.seen).collect();
            list.sort_by_key(|seen| std::cmp::Reverse(seen.clients.clients));
            list
        });
        WatchReport {
            began: self.began,
            ended: self.ended,
            samples: self.samples,
            nodes: self.nodes.into_values().collect(),
            direct,
            unknown,
            bridged,
            not_listed: self.not_listed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, clients: u64, commands: &[&str]) -> SimilarClients {
        SimilarClients {
            library: String::new(),
            version: String::new(),
            user: "default".into(),
            name: name.into(),
            address: "10.0.0.1".into(),
            clients,
            oldest_seconds: 7,
            commands: commands.iter().map(|&command| command.to_owned()).collect(),
            connections: Vec::new(),
        }
    }

    /// Clients with these connections.
    fn connected(library: &str, name: &str, ids: &[u64]) -> SimilarClients {
        SimilarClients {
            library: library.into(),
            connections: ids.iter().map(|id| ("node-1:6379".into(), *id)).collect(),
            ..group(name, ids.len() as u64, &[])
        }
    }

    fn sample(direct: Vec<SimilarClients>, problem: Option<&str>) -> Evidence {
        let problem = problem.map(str::to_owned);
        let plaintext_clients = problem.is_none().then_some(direct.len() as u64);
        let node = NodeEvidence { problem, plaintext_clients, ..NodeEvidence::new("node-1:6379".into()) };
        Evidence { nodes: vec![node], direct, unknown: Vec::new(), bridged: Vec::new() }
    }

    #[test]
    fn a_client_seen_once_is_listed_with_its_first_and_last_time() {
        let mut seen = SeenGroup::new(10);
        for (at, clients) in
            [(100, vec![group("web", 2, &["get"])]), (110, vec![group("web", 1, &["set"])]), (120, vec![])]
        {
            Moment::set(at);
            seen.note(sample(clients, None), &mut |_| {});
        }
        let report = seen.into_report();
        let web = &report.direct[0];
        assert_eq!((web.first_seen, web.last_seen), (Moment::at(100), Moment::at(110)));
        assert_eq!((web.clients.clients, &*web.clients.commands), (2, &["set".to_owned(), "get".into()][..]));
        assert_eq!((report.samples, report.nodes[0].last.plaintext_clients), (3, Some(1)));
        assert!(!report.is_clean());
    }

    #[test]
    fn a_connection_that_was_seen_as_it_set_itself_up_is_listed_once() {
        let mut seen = SeenGroup::new(3);
        let mut note = |direct, bridged| {
            seen.note(Evidence { bridged, ..sample(direct, None) }, &mut |_| {});
        };
        // 7 sets itself up for two samples, 8 is bridged, 9 never sets a name.
        note(vec![connected("", "", &[7, 8, 9])], vec![]);
        note(
            vec![connected("redis-py", "", &[7]), connected("", "", &[9])],
            vec![connected("jedis(pontoon)", "", &[8])],
        );
        note(vec![connected("redis-py", "web", &[7]), connected("", "", &[9])], vec![]);
        let report = seen.into_report();
        let listed = |list: &[SeenClients]| -> Vec<_> {
            let row = |SeenClients { clients, .. }: &SeenClients| {
                (clients.library.clone(), clients.name.clone(), clients.clients)
            };
            list.iter().map(row).collect()
        };
        let row = |library: &str, name: &str| (library.to_owned(), name.to_owned(), 1);
        assert_eq!(listed(&report.direct), [row("", ""), row("redis-py", "web")]);
        assert_eq!(listed(&report.bridged), [row("jedis(pontoon)", "")]);
        assert_eq!(report.not_listed, 0);
    }

    #[test]
    fn a_connection_with_another_name_than_before_is_listed_with_both() {
        let mut seen = SeenGroup::new(3);
        for name in ["web", "jobs"] {
            seen.note(sample(vec![connected("redis-py", name, &[7])], None), &mut |_| {});
        }
        // Another connection with the number of one that has ended.
        seen.note(sample(vec![], Some("no answer")), &mut |_| {});
        seen.note(sample(vec![connected("", "", &[8])], None), &mut |_| {});
        seen.note(sample(vec![], Some("no answer")), &mut |_| {});
        seen.note(sample(vec![connected("redis-py", "jobs", &[8])], None), &mut |_| {});
        assert_eq!(seen.into_report().direct.len(), 3);
    }

    #[test]
    fn clients_beyond_the_row_limit_are_counted() {
        let mut seen = SeenGroup::new(2);
        for names in [["a", "b"], ["c", "d"], ["a", "c"]] {
            seen.note(sample(names.map(|name| group(name, 3, &[])).into(), None), &mut |_| {});
        }
        let report = seen.into_report();
        assert_eq!((report.direct.len(), report.not_listed), (2, 6));
    }

    #[test]
    fn a_silent_node_is_reported_and_the_watch_is_not_clean() {
        let mut seen = SeenGroup::new(2);
        let mut told = Vec::new();
        for problem in [None, Some("no answer"), Some("no answer"), None] {
            seen.note(sample(Vec::new(), problem), &mut |event| match event {
                WatchEvent::Silent(_) => told.push("silent"),
                WatchEvent::Answers(_) => told.push("answers"),
                WatchEvent::Sampled { .. } => {}
            });
        }
        assert_eq!(told, ["silent", "answers"]);
        let report = seen.into_report();
        assert_eq!((report.nodes[0].unanswered_samples, report.is_clean()), (2, false));
    }
}
