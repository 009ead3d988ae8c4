//! Asks the nodes of a group again and again, and remembers every client that was seen: for `pontoon audit --watch`.

use std::collections::BTreeMap;
use std::mem::take;
use std::pin::pin;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::evidence::{Asking, Evidence, NodeEvidence, SimilarClients, named, note_command};
use super::members::Members;
use super::node::{MAX_NODES, ask_node};
use super::servers::{NetworkServers, Servers};
use super::survey::{Round, survey};
use crate::moment::Moment;
use crate::tls::TlsError;

/// Rows that are remembered: applications by address.
const MAX_ROWS: usize = 10_000;

/// A node has so long to answer a sample: while one does not, no other is asked.
const SAMPLE_LIMIT: Duration = Duration::from_secs(2);

/// Between two surveys, which find new nodes and connect anew.
const SURVEY_INTERVAL: Duration = Duration::from_secs(30);

/// The same while a node does not answer.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(5);

/// For how long to watch, and how often to ask.
pub struct WatchPace {
    /// The end comes after this time.
    pub length: Duration,
    /// From one sample to the next.
    pub every: Duration,
}

/// What was seen in all samples.
#[derive(Debug, Clone, Serialize)]
pub struct WatchReport {
    /// When the first node was asked.
    pub began: Moment,
    /// When the last sample was taken.
    pub ended: Moment,
    /// How many samples were taken.
    pub samples: u64,
    /// Each node that was a node of the group at some time.
    pub nodes: Vec<WatchedNode>,
    /// Clients that come through no bridge, those that are alike together, the most first.
    pub direct: Vec<SeenClients>,
    /// The same of clients that may come through one or not.
    pub unknown: Vec<SeenClients>,
    /// The same of clients that come through one.
    pub bridged: Vec<SeenClients>,
    /// The most clients in one sample that are in none of the lists, because these were full.
    pub not_listed: u64,
}

/// A node that was watched.
#[derive(Debug, Clone, Serialize)]
pub struct WatchedNode {
    /// What it said last. Its count of clients in plaintext is the highest of all samples.
    #[serde(flatten)]
    pub last: NodeEvidence,
    /// The samples in which it did not answer.
    pub unanswered_samples: u64,
}

/// Clients that are alike, in all samples.
#[derive(Debug, Clone, Serialize)]
pub struct SeenClients {
    /// As many as there were at once, the oldest of all, and the last commands.
    #[serde(flatten)]
    pub clients: SimilarClients,
    /// When the first of them was seen.
    pub first_seen: Moment,
    /// When one of them was seen last.
    pub last_seen: Moment,
}

impl WatchReport {
    /// Every node answered each time, and counted no client in plaintext.
    pub fn is_clean(&self) -> bool {
        let is_clean = |WatchedNode { last, unanswered_samples }: &WatchedNode| {
            *unanswered_samples == 0 && last.problem.is_none() && last.plaintext_clients == Some(0)
        };
        !self.nodes.is_empty() && self.nodes.iter().all(is_clean)
    }
}

/// What happens while a group is watched.
pub enum WatchEvent<'a> {
    /// A sample was taken.
    Sampled {
        /// So many before it, and itself.
        samples: u64,
        /// Nodes of the group.
        nodes: usize,
        /// Rows of the report.
        rows: usize,
    },
    /// A node does not answer any more.
    Silent(&'a NodeEvidence),
    /// A node answers again.
    Answers(&'a NodeEvidence),
}

/// Watches a group for as long as `pace` says, or until `end` completes. Memory is bounded.
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
            // A node that does not answer does not hold up the samples of the others.
            let mut found = loop {
                tokio::select! {
                    biased;
                    found = &mut survey => break found,
                    () = sample(&servers, asking, &mut round, &mut next, pace.every), if !round.nodes.is_empty() => {
                        seen.note(Evidence::without(&own_name, &round, bridges), &mut tell);
                    }
                }
            };
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

/// Waits for the time of the `next` sample, and asks each node over the connection that there is.
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

/// How clients come, in the order of the lists of a report.
const WAYS: usize = 3;

/// What was seen so far.
struct SeenGroup {
    began: Moment,
    ended: Moment,
    samples: u64,
    nodes: BTreeMap<String, WatchedNode>,
    /// By library, version, user, name and address.
    clients: [BTreeMap<[String; 5], SeenClients>; WAYS],
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
            max_rows,
            not_listed: 0,
        }
    }

    fn rows(&self) -> usize {
        self.clients.iter().map(BTreeMap::len).sum()
    }

    /// Notes a sample.
    fn note(&mut self, sample: Evidence, tell: &mut impl FnMut(WatchEvent<'_>)) {
        let now = Moment::now();
        self.ended = now;
        self.samples += 1;
        let nodes = sample.nodes.len();
        for node in sample.nodes {
            self.note_node(&node, tell);
        }
        let mut not_listed = 0;
        for (way, groups) in [sample.direct, sample.unknown, sample.bridged].into_iter().enumerate() {
            for group in groups {
                not_listed += self.note_clients(way, group, now);
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
                // Where it did not count, none is taken for zero.
                if !was_silent && !is_silent && counts.contains(&None) {
                    most = most.filter(|most| *most > 0);
                }
                if is_silent {
                    last.problem.clone_from(&node.problem);
                } else {
                    *last = node.clone();
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

    /// How many of the clients were not noted.
    fn note_clients(&mut self, way: usize, group: SimilarClients, now: Moment) -> u64 {
        let is_full = self.rows() >= self.max_rows;
        let SimilarClients { library, version, user, name, address, .. } = &group;
        let key = [library, version, user, name, address].map(Clone::clone);
        match self.clients[way].get_mut(&key) {
            Some(seen) => {
                seen.last_seen = now;
                seen.clients.clients = seen.clients.clients.max(group.clients);
                seen.clients.oldest_seconds = seen.clients.oldest_seconds.max(group.oldest_seconds);
                for command in group.commands.iter().rev() {
                    note_command(&mut seen.clients.commands, command);
                }
                0
            }
            None if is_full => group.clients,
            None => {
                let seen = SeenClients { clients: group, first_seen: now, last_seen: now };
                self.clients[way].insert(key, seen);
                0
            }
        }
    }

    fn into_report(mut self) -> WatchReport {
        let [direct, unknown, bridged] = take(&mut self.clients).map(|clients| {
            let mut list: Vec<_> = clients.into_values().collect();
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
        }
    }

    fn sample(direct: Vec<SimilarClients>, problem: Option<&str>) -> Evidence {
        let problem = problem.map(str::to_owned);
        let plaintext_clients = problem.is_none().then_some(direct.len() as u64);
        let node = NodeEvidence { problem, plaintext_clients, ..NodeEvidence::new("node-1:6379".into()) };
        Evidence { nodes: vec![node], direct, unknown: Vec::new(), bridged: Vec::new() }
    }

    #[test]
    fn who_was_seen_once_stays_with_its_first_and_last_time() {
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
    fn more_applications_than_are_remembered_are_counted() {
        let mut seen = SeenGroup::new(2);
        for names in [["a", "b"], ["c", "d"], ["a", "c"]] {
            seen.note(sample(names.map(|name| group(name, 3, &[])).into(), None), &mut |_| {});
        }
        let report = seen.into_report();
        assert_eq!((report.direct.len(), report.not_listed), (2, 6));
    }

    #[test]
    fn a_node_that_is_silent_for_a_while_is_told_of_and_makes_no_clean_watch() {
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
