//! Maps nodes to local ports.

use std::collections::HashMap;

use super::node::{Node, Role, host};
use crate::endpoint::{Endpoint, Host};

/// A node, and the local port that leads to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNode {
    /// The node.
    pub node: Node,
    /// The port of its listener.
    pub port: u16,
}

/// The nodes that have a listener.
#[derive(Debug, Clone, Default)]
pub struct NodeMap {
    nodes: Vec<LocalNode>,
    ids: HashMap<String, usize>,
}

impl NodeMap {
    /// Builds the map from nodes and their local ports. Of two nodes with one ID, the first counts.
    pub fn new(nodes: impl IntoIterator<Item = (Node, u16)>) -> Self {
        let mut map = Self::default();
        for (node, port) in nodes {
            if !map.ids.contains_key(&node.id) {
                map.ids.insert(node.id.clone(), map.nodes.len());
                map.nodes.push(LocalNode { node, port });
            }
        }
        // After a node was replaced, the old one may still be listed with the same address.
        map.nodes.sort_by_key(|local| !local.node.is_sound());
        map.ids = map.nodes.iter().enumerate().map(|(at, local)| (local.node.id.clone(), at)).collect();
        map
    }

    /// Iterates over all nodes.
    pub fn iter(&self) -> impl Iterator<Item = &LocalNode> {
        self.nodes.iter()
    }

    /// Returns the node with this ID.
    pub fn by_id(&self, id: &str) -> Option<&LocalNode> {
        self.ids.get(id).and_then(|at| self.nodes.get(*at))
    }

    /// Returns the node with this address. If several have it, prefers one that has not failed.
    pub fn by_address(&self, host: &Host, port: u16) -> Option<&LocalNode> {
        self.iter().find(|local| local.node.is_at(host, port))
    }

    /// Returns what orders nodes by shard: the first slot of the shard, its primary's ID, and whether the node is a replica.
    pub(super) fn place<'a>(&'a self, local: &'a LocalNode) -> (u16, &'a str, bool) {
        let own = &local.node;
        let primary = own.primary.as_deref().unwrap_or(&own.id);
        let slots = self.by_id(primary).map_or(&own.slots, |primary| &primary.node.slots);
        let first = slots.iter().map(|slots| *slots.start()).min();
        (first.unwrap_or(u16::MAX), primary, own.role == Some(Role::Replica))
    }

    /// Returns the node of an address that the node `asked` printed.
    pub(super) fn named(&self, text: &str, port: u16, asked: &Endpoint) -> Option<&LocalNode> {
        if means_asked(text) {
            return self.by_address(&asked.host, port);
        }
        self.by_address(&host(text)?, port)
    }

    /// Returns the node to which `asked` redirects a client. That is never `asked` itself: if nodes do not print their hosts and share one
    /// port, the client would only go round in circles.
    pub(super) fn redirected(&self, text: &str, port: u16, asked: &Endpoint) -> Option<&LocalNode> {
        if !means_asked(text) {
            return self.by_address(&host(text)?, port);
        }
        if port != asked.port
            && let Some(named) = self.by_address(&asked.host, port)
        {
            return Some(named);
        }
        let mut others = self.iter().filter(|other| {
            other.node.port == port && other.node.is_sound() && !other.node.is_at(&asked.host, asked.port)
        });
        others.next().filter(|_| others.next().is_none())
    }
}

/// Whether a host stands for that of the node that was asked.
pub(super) fn means_asked(host: &str) -> bool {
    matches!(host, "" | "?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Topology;

    fn map(lines: &str) -> NodeMap {
        let asked: Endpoint = "10.0.0.1:6379".parse().unwrap();
        let nodes = format!("${}\r\n{lines}\r\n", lines.len());
        let topology = Topology::parse(b"-ERR no\r\n", nodes.as_bytes(), &asked.host).unwrap();
        NodeMap::new(topology.nodes.into_iter().zip(7000..))
    }

    fn named(map: &NodeMap, host: &str, port: u16) -> Option<u16> {
        map.named(host, port, &"10.0.0.1:6379".parse().unwrap()).map(|local| local.port)
    }

    fn redirected(map: &NodeMap, host: &str, port: u16) -> Option<u16> {
        map.redirected(host, port, &"10.0.0.1:6379".parse().unwrap()).map(|local| local.port)
    }

    const NODES: &str = "a 10.0.0.1:6379@16379,a.example myself,master - 0 0 1 connected 0-8000\n\
                         b 10.0.0.2:6379@16379,b.example master - 0 0 1 connected 8001-16383\n\
                         c 2001:db8::1:6380@16380 slave a 0 0 1 connected\n";

    #[test]
    fn a_node_is_found_by_its_id_and_by_each_of_its_names() {
        let map = map(NODES);
        assert_eq!(map.by_id("b").unwrap().port, 7001);
        for (host, port, local) in [
            ("10.0.0.2", 6379, Some(7001)),
            ("B.example", 6379, Some(7001)),
            ("2001:db8:0::1", 6380, Some(7002)),
            ("10.0.0.2", 6380, None),
            ("d.example", 6379, None),
        ] {
            assert_eq!(named(&map, host, port), local, "{host}:{port}");
        }
    }

    #[test]
    fn nodes_are_ordered_by_the_first_slot_of_their_shard_then_by_role() {
        let map = map("d 10.0.0.4:6379@16379 slave b 0 0 1 connected\n\
                       b 10.0.0.2:6379@16379 master - 0 0 1 connected 8001-16383\n\
                       c 10.0.0.3:6379@16379 slave a 0 0 1 connected\n\
                       a 10.0.0.1:6379@16379 myself,master - 0 0 1 connected 0-8000\n\
                       e 10.0.0.5:6379@16379 master - 0 0 1 connected\n");
        let mut nodes: Vec<_> = map.iter().collect();
        nodes.sort_by_key(|local| map.place(local));
        let ids: Vec<_> = nodes.iter().map(|local| local.node.id.as_str()).collect();
        assert_eq!(ids, ["a", "c", "b", "d", "e"]);
    }

    #[test]
    fn an_empty_host_means_the_node_that_was_asked() {
        for none in ["", "?"] {
            assert_eq!(named(&map(NODES), none, 6379), Some(7000));
            assert_eq!(named(&map(NODES), none, 6380), None);
        }
    }

    #[test]
    fn a_redirect_without_a_host_leads_to_a_different_node() {
        assert_eq!(redirected(&map(NODES), "?", 6379), Some(7001));
        assert_eq!(redirected(&map(NODES), "", 6380), Some(7002));
        assert_eq!(redirected(&map(NODES), "", 6381), None);
        let twice = format!("{NODES}d 10.0.0.4:6379@16379 master - 0 0 1 connected\n");
        assert_eq!(redirected(&map(&twice), "", 6379), None, "could be b or d");
    }

    #[test]
    fn a_node_is_found_before_the_failed_one_that_it_replaced() {
        let map = map("old 10.0.0.1:6379@16379 master,fail - 0 0 1 disconnected\n\
                       new 10.0.0.1:6379@16379 master - 0 0 1 connected 0-16383\n");
        assert_eq!(named(&map, "10.0.0.1", 6379), Some(7001));
        assert_eq!(map.by_id("old").unwrap().port, 7000);
    }
}
