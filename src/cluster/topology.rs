//! What a node says about its cluster, merged from two replies: `CLUSTER SLOTS` says what clients should dial, and `CLUSTER NODES` lists
//! all nodes with their state.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::line::NodeLine;
use super::map::means_asked;
use super::node::{Flags, Node, Role, host};
use super::slots_reply::{SlotsNode, slots_ranges};
use crate::endpoint::Host;
use crate::resp::value::{Data, Unreadable, Value};

/// Number of hash slots in a cluster.
const SLOTS: u16 = 16384;

/// A cluster as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    /// Its nodes, including failed ones and those without an address.
    pub nodes: Vec<Node>,
}

/// Why no topology could be read.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The server refused both commands; this is its error for CLUSTER SLOTS.
    #[error("the server refused CLUSTER SLOTS: {0}")]
    Refused(String),
    /// A reply is not valid RESP.
    #[error("the reply to {command} cannot be read")]
    Unreadable {
        /// The command.
        command: &'static str,
        /// The cause.
        source: Unreadable,
    },
    /// A reply is valid RESP, but has an unexpected form.
    #[error("the reply to {command} has an unexpected form: expected {expected}")]
    Shape {
        /// The command.
        command: &'static str,
        /// What was expected.
        expected: &'static str,
    },
}

#[derive(Debug, Clone, Copy)]
struct TopologyCommand(&'static str);

const CLUSTER_SLOTS: TopologyCommand = TopologyCommand("CLUSTER SLOTS");
const CLUSTER_NODES: TopologyCommand = TopologyCommand("CLUSTER NODES");

impl TopologyCommand {
    /// Parses a reply. The inner error is the server's.
    fn read(self, reply: &[u8]) -> Result<Result<Value<'_>, String>, TopologyError> {
        let value =
            Value::parse(reply).map_err(|source| TopologyError::Unreadable { command: self.0, source })?;
        Ok(match value.data {
            Data::Error(words) => Err(String::from_utf8_lossy(words).into_owned()),
            _ => Ok(value),
        })
    }

    fn expected(self, expected: &'static str) -> TopologyError {
        TopologyError::Shape { command: self.0, expected }
    }
}

impl Topology {
    /// Parses the complete replies to `CLUSTER SLOTS` and `CLUSTER NODES`, one of which may be an error. `asked` is the host that they came
    /// from, and stands for a node that names no host of its own.
    pub fn parse(slots: &[u8], nodes: &[u8], asked: &Host) -> Result<Self, TopologyError> {
        let (slots, nodes) = (CLUSTER_SLOTS.read(slots)?, CLUSTER_NODES.read(nodes)?);
        let asked = &host(&asked.to_string()).unwrap_or_else(|| asked.clone());
        let mut gathered = Gathered { asked, nodes: Vec::new(), ids: HashMap::new() };
        match (slots, nodes) {
            (Err(words), Err(_)) => return Err(TopologyError::Refused(words)),
            (slots, Ok(nodes)) => {
                gathered.take_nodes(&nodes)?;
                if let Ok(slots) = slots {
                    gathered.take_slots(&slots)?;
                }
            }
            (Ok(slots), Err(_)) => gathered.take_slots(&slots)?,
        }
        Ok(Self { nodes: gathered.nodes })
    }

    /// Returns the node that was asked, if the reply marks it.
    pub fn myself(&self) -> Option<&Node> {
        self.nodes.iter().find(|node| node.flags.is_myself())
    }
}

struct Gathered<'a> {
    asked: &'a Host,
    nodes: Vec<Node>,
    ids: HashMap<String, usize>,
}

impl Gathered<'_> {
    fn take_nodes(&mut self, nodes: &Value<'_>) -> Result<(), TopologyError> {
        let text = nodes.text().ok_or(CLUSTER_NODES.expected("text"))?;
        for line in text.lines().filter(|line| !line.is_empty()) {
            let node = self.node_of(line).ok_or(CLUSTER_NODES.expected("a line for each node"))?;
            self.insert(node);
        }
        Ok(())
    }

    fn node_of(&self, line: &str) -> Option<Node> {
        let line = NodeLine::parse(line)?;
        let (primary, link, slots) = line.facts()?;
        let flags = Flags(line.flags.to_owned());
        let role = if flags.has("master") {
            Some(Role::Primary)
        } else {
            (flags.has("slave") || flags.has("replica")).then_some(Role::Replica)
        };
        let place = line.place;
        let mut names: Vec<Host> = host(place.host).into_iter().collect();
        names.extend(place.hostname().and_then(host));
        if names.is_empty() && means_asked(place.host) && !flags.has_no_address() {
            names.push(self.asked.clone());
        }
        Some(Node {
            id: line.id.to_owned(),
            names,
            port: place.port,
            role,
            primary: (primary != "-").then(|| primary.to_owned()),
            flags,
            // `[93->-id]` is a slot that is being migrated away, but is still here.
            slots: slots.filter(|slot| !slot.starts_with('[')).map(range).collect::<Option<_>>()?,
            connected: link == "connected",
        })
    }

    fn take_slots(&mut self, slots: &Value<'_>) -> Result<(), TopologyError> {
        let shape = CLUSTER_SLOTS.expected("ranges of slots with their nodes");
        let Some(ranges) = slots_ranges(slots) else { return Err(shape) };
        // Nodes without slots are not listed, so the other nodes show what kind of host this cluster prefers.
        let habit = ranges.first().map(|range| &range.primary).map(|node| Preferred::by(node));
        for node in &mut self.nodes {
            match habit {
                Some(Preferred::Name) => node.names.sort_by_key(|name| matches!(name, Host::Ip(_))),
                Some(Preferred::Asked) if !node.names.is_empty() => {
                    prefer(&mut node.names, self.asked.clone());
                }
                _ => {}
            }
        }
        for range in ranges {
            let primary = self.merge(&range.primary);
            if self.is_only_in_slots_reply(primary) {
                self.nodes[primary].slots.push(range.slots);
            }
            for replica in &range.replicas {
                let at = self.merge(replica);
                if at != primary && self.is_only_in_slots_reply(at) {
                    self.nodes[at].role = Some(Role::Replica);
                    self.nodes[at].primary = Some(self.nodes[primary].id.clone());
                }
            }
        }
        Ok(())
    }

    /// Whether CLUSTER SLOTS is the only source about a node. CLUSTER NODES has flags for every node, and is more precise.
    fn is_only_in_slots_reply(&self, at: usize) -> bool {
        self.nodes[at].flags == Flags::default()
    }

    /// Adds what a reply says about a node, and returns the node's index.
    fn merge(&mut self, node: &SlotsNode<'_>) -> usize {
        let at = match self.ids.get(node.id) {
            Some(at) => *at,
            None => self.insert(Node {
                id: node.id.to_owned(),
                names: Vec::new(),
                port: node.port,
                role: Some(Role::Primary),
                primary: None,
                flags: Flags::default(),
                slots: Vec::new(),
                connected: true,
            }),
        };
        let names = &mut self.nodes[at].names;
        for name in [node.ip, node.hostname].into_iter().flatten().filter_map(host) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        match node.host.and_then(host) {
            Some(host) => prefer(names, host),
            // With `?`, names are preferred but this node has none. Its own address leads to it from anywhere.
            None if node.host == Some("?") && !names.is_empty() => {}
            None => prefer(names, self.asked.clone()),
        }
        at
    }

    /// Adds a node, and returns its index. Of two nodes with one ID, the first counts.
    fn insert(&mut self, node: Node) -> usize {
        if let Some(at) = self.ids.get(&node.id) {
            return *at;
        }
        self.ids.insert(node.id.clone(), self.nodes.len());
        self.nodes.push(node);
        self.nodes.len() - 1
    }
}

/// The setting `cluster-preferred-endpoint-type`, derived from a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preferred {
    Address,
    Name,
    Asked,
}

impl Preferred {
    fn by(node: &SlotsNode<'_>) -> Self {
        match node.host {
            None | Some("") => Self::Asked,
            Some("?") => Self::Name,
            Some(text) if matches!(host(text), Some(Host::Name(_))) => Self::Name,
            Some(_) => Self::Address,
        }
    }
}

fn prefer(names: &mut Vec<Host>, host: Host) {
    names.retain(|name| *name != host);
    names.insert(0, host);
}

/// Parses `5` or `0-5460`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    slots(first.parse().ok()?, last.parse().ok()?)
}

/// Returns a range of slots if these exist and are in order.
pub(super) fn slots(first: i64, last: i64) -> Option<RangeInclusive<u16>> {
    let (first, last) = (u16::try_from(first).ok()?, u16::try_from(last).ok()?);
    (first <= last && last < SLOTS).then_some(first..=last)
}
