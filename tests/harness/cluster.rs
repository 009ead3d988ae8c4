//! A real cluster that accepts only TLS: three primaries, each with a replica, and the changes that clusters go through.

use std::collections::BTreeSet;
use std::ops::Range;

use super::node::Name;
use super::{Authority, Hosts, Node, Wire, eventually};

/// Number of slots in every cluster.
pub const SLOTS: usize = 16_384;

const PRIMARIES: usize = 3;

pub struct Cluster {
    authority: Authority,
    hosts: Option<Hosts>,
    /// Primaries first, then their replicas in the same order, then those that were added.
    pub nodes: Vec<Node>,
}

/// A node as another one sees it.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Seen {
    id: String,
    /// `ip:port@bus[,hostname]`.
    address: String,
    primary: bool,
    /// The id of a replica's primary.
    primary_id: String,
    slots: Vec<String>,
}

impl Cluster {
    /// Nodes announce their address; their certificate is for `localhost`, by which they are reached first.
    pub fn start() -> Self {
        Self::form(None)
    }

    /// Nodes announce `node-1.cluster.test` and so on, and their certificate is for these names, which [`hosts`](Self::hosts) resolves.
    pub fn named() -> Self {
        Self::form(Some(Hosts::new(&["clustercfg.cluster.test"])))
    }

    fn form(hosts: Option<Hosts>) -> Self {
        let mut cluster = Self { authority: Authority::new(), hosts, nodes: Vec::new() };
        for _ in 0..2 * PRIMARIES {
            cluster.start_node();
        }
        for (number, node) in cluster.nodes[..PRIMARIES].iter().enumerate() {
            let slots = number * SLOTS / PRIMARIES..(number + 1) * SLOTS / PRIMARIES;
            own_slots(&mut node.wire(), slots);
            // Otherwise the nodes would first have to agree on their epochs.
            node.wire().expect(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()], "+OK\r\n");
        }
        // Gossip would also introduce them to each other, but later.
        for (number, node) in cluster.nodes.iter().enumerate() {
            cluster.nodes[..number].iter().for_each(|other| meet(node, other));
        }
        cluster.wait_until_all_are_known();
        for number in 0..PRIMARIES {
            let primary = cluster.nodes[number].id.clone();
            let replica = &cluster.nodes[PRIMARIES + number];
            replica.wire().expect(&["CLUSTER", "REPLICATE", &primary], "+OK\r\n");
        }
        cluster.settle();
        cluster.nodes[..PRIMARIES].iter().for_each(write_something);
        let mut wires = cluster.wires();
        eventually("nodes list the replicas to clients", || {
            wires.iter_mut().all(|wire| {
                let slots = String::from_utf8(wire.ask(&["CLUSTER", "SLOTS"])).unwrap();
                // These are the ids.
                slots.matches("$40\r\n").count() == 2 * PRIMARIES
            })
        });
        cluster
    }

    /// The endpoint that clients start with: the first node, by a name that its certificate is for.
    pub fn endpoint(&self) -> String {
        let name = if self.hosts.is_some() { "clustercfg.cluster.test" } else { "localhost" };
        format!("{name}:{}", self.nodes[0].port)
    }

    /// The authority that signed the certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The names of a [`named`](Self::named) cluster.
    pub fn hosts(&self) -> Option<&Hosts> {
        self.hosts.as_ref()
    }

    /// Asks one node.
    pub fn ask(&self, node: usize, words: &[&str]) -> String {
        String::from_utf8(self.nodes[node].wire().ask(words)).unwrap()
    }

    /// Whether a node reports that it is a primary.
    pub fn is_primary(&self, node: usize) -> bool {
        self.ask(node, &["ROLE"]).contains("master\r\n")
    }

    /// The primary that owns `slot`, as reported by the node `asked`.
    pub fn owner(&self, asked: usize, slot: u16) -> usize {
        let seen = seen(&mut self.nodes[asked].wire()).unwrap();
        let has = |range: &String| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (first.parse().unwrap()..=last.parse().unwrap()).contains(&slot)
        };
        let owner = seen.iter().find(|node| node.slots.iter().any(has)).unwrap();
        self.nodes.iter().position(|node| node.id == owner.id).unwrap()
    }

    /// Makes a replica the primary, and its primary the replica.
    pub fn fail_over(&self, replica: usize) {
        self.nodes[replica].wire().expect(&["CLUSTER", "FAILOVER"], "+OK\r\n");
        eventually("the replica is the primary", || self.is_primary(replica));
        self.settle();
    }

    /// Keeps a primary from acknowledging writes until it is killed, and waits until its replica has all earlier ones. Otherwise a kill may
    /// lose what was just acknowledged, with or without a bridge.
    pub fn hold_writes(&self, primary: usize, replica: usize) {
        let mut wires = [primary, replica].map(|node| self.nodes[node].wire());
        wires[0].expect(&["CLIENT", "PAUSE", "60000", "WRITE"], "+OK\r\n");
        eventually("the replica has everything", || {
            let [first, second] = &mut wires;
            offset(first) == offset(second)
        });
    }

    /// Ends all nodes and restarts them with their state on other ports, where no node knows the new ports of the others yet.
    pub fn restart_elsewhere(&mut self) {
        for node in &self.nodes {
            let mut wire = node.wire();
            wire.expect(&["CLIENT", "PAUSE", "60000", "WRITE"], "+OK\r\n");
            wire.expect(&["SAVE"], "+OK\r\n");
        }
        self.nodes.iter_mut().for_each(Node::kill);
        self.nodes.iter_mut().for_each(Node::restart_elsewhere);
        for (number, node) in self.nodes.iter().enumerate() {
            self.nodes[..number].iter().for_each(|other| meet(node, other));
        }
        self.settle();
    }

    /// Adds an empty primary, and returns its number.
    pub fn add(&mut self) -> usize {
        let number = self.start_node();
        let (new, others) = self.nodes.split_last().unwrap();
        others.iter().filter(|node| node.is_alive()).for_each(|other| meet(new, other));
        self.settle();
        number
    }

    /// Ends a node that has no slots, and makes the others forget it. The numbers of later nodes go down by one.
    pub fn remove(&mut self, node: usize) {
        let mut gone = self.nodes.remove(node);
        if gone.is_alive() {
            gone.kill();
        }
        for other in self.nodes.iter().filter(|node| node.is_alive()) {
            other.wire().expect(&["CLUSTER", "FORGET", &gone.id], "+OK\r\n");
        }
        self.settle();
    }

    /// Moves a slot with its keys from one primary to another.
    pub fn migrate(&self, slot: u16, from: usize, to: usize) {
        self.begin_migration(slot, from, to);
        self.move_keys(slot, from, to);
        self.end_migration(slot, from, to);
    }

    /// From now on, the old owner answers `-ASK` for keys of the slot that it no longer has.
    pub fn begin_migration(&self, slot: u16, from: usize, to: usize) {
        let (slot, source, target) = (slot.to_string(), &self.nodes[from], &self.nodes[to]);
        target.wire().expect(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source.id], "+OK\r\n");
        source.wire().expect(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target.id], "+OK\r\n");
    }

    /// Moves the slot's keys, and not yet the slot.
    pub fn move_keys(&self, slot: u16, from: usize, to: usize) {
        let (slot, port) = (slot.to_string(), self.nodes[to].port.to_string());
        let mut source = self.nodes[from].wire();
        let listed = source.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "1000000"]);
        // An array of bulk strings: the keys are every other line, after their lengths.
        for key in String::from_utf8(listed).unwrap().split("\r\n").skip(2).step_by(2) {
            source.expect(&["MIGRATE", "127.0.0.1", &port, key, "0", "10000"], "+OK\r\n");
        }
    }

    /// Makes the other primary the owner of the slot.
    pub fn end_migration(&self, slot: u16, from: usize, to: usize) {
        let (slot, new) = (slot.to_string(), &self.nodes[to].id);
        // The new owner first, so that the slot is never without an owner.
        for node in [to, from] {
            self.nodes[node].wire().expect(&["CLUSTER", "SETSLOT", &slot, "NODE", new], "+OK\r\n");
        }
        self.settle();
    }

    /// Waits until the living nodes see the same cluster, the dead ones have been given up, every slot is served, and every living replica
    /// follows its primary.
    pub fn settle(&self) {
        let mut wires = self.wires();
        eventually("the nodes agree on the cluster", || {
            let views: Vec<_> = wires.iter_mut().map(seen).collect();
            let living: BTreeSet<&String> =
                self.nodes.iter().filter(|node| node.is_alive()).map(|node| &node.id).collect();
            let agreed = views.iter().all(|view| {
                let ids = |view: &BTreeSet<Seen>| view.iter().map(|node| node.id.clone()).collect::<Vec<_>>();
                *view == views[0]
                    && view.as_ref().is_some_and(|view| ids(view).iter().eq(living.iter().copied()))
            });
            agreed && wires.iter_mut().all(is_well)
        });
    }

    fn start_node(&mut self) -> usize {
        let number = self.nodes.len() + 1;
        let name = self.hosts.as_ref().map(|hosts| {
            let host = format!("node-{number}.cluster.test");
            hosts.add(&host);
            Name { host, hosts: hosts.path() }
        });
        self.nodes.push(Node::start(&self.authority, name));
        number - 1
    }

    fn wait_until_all_are_known(&self) {
        let mut wires = self.wires();
        eventually("the nodes have met", || {
            wires.iter_mut().all(|wire| seen(wire).is_some_and(|seen| seen.len() == self.nodes.len()))
        });
    }

    fn wires(&self) -> Vec<Wire> {
        self.nodes.iter().filter(|node| node.is_alive()).map(Node::wire).collect()
    }
}

/// Makes a node the owner of these slots. Before 7.0 a node accepts no ranges, so each slot is listed.
pub fn own_slots(wire: &mut Wire, slots: Range<usize>) {
    let mut words = vec!["CLUSTER".to_owned(), "ADDSLOTS".to_owned()];
    words.extend(slots.map(|slot| slot.to_string()));
    wire.expect(&words, "+OK\r\n");
}

fn meet(node: &Node, other: &Node) {
    let (port, bus) = (other.port.to_string(), other.bus_port.to_string());
    node.wire().expect(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus], "+OK\r\n");
}

/// Makes sure that replicas receive something: until then no node lists them to clients.
fn write_something(primary: &Node) {
    let mut wire = primary.wire();
    let own =
        (0..SLOTS).map(|n| n.to_string()).find(|key| wire.ask(&["SET", key, ""]) == b"+OK\r\n").unwrap();
    wire.expect(&["DEL", &own], ":1\r\n");
}

/// The cluster as a node sees it, without nodes that were given up; `None` if the node is unsure about one.
fn seen(wire: &mut Wire) -> Option<BTreeSet<Seen>> {
    let text = String::from_utf8(wire.ask(&["CLUSTER", "NODES"])).unwrap();
    let mut all = BTreeSet::new();
    for line in text.lines().skip(1).filter(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split(' ').collect();
        let flags: Vec<&str> = fields[2].split(',').collect();
        if flags.contains(&"fail") {
            continue;
        }
        let unsure = flags.iter().any(|flag| ["fail?", "handshake", "noaddr"].contains(flag));
        if unsure || fields[7] != "connected" {
            return None;
        }
        all.insert(Seen {
            id: fields[0].to_owned(),
            address: fields[1].to_owned(),
            primary: flags.contains(&"master"),
            primary_id: fields[3].to_owned(),
            // Only the owner of a migrating slot lists it.
            slots: fields[8..]
                .iter()
                .filter(|slots| !slots.starts_with('['))
                .map(|&s| s.to_owned())
                .collect(),
        });
    }
    Some(all)
}

/// How much of the stream of writes a node has.
pub fn offset(wire: &mut Wire) -> String {
    let info = String::from_utf8(wire.ask(&["INFO", "replication"])).unwrap();
    info.lines().find(|line| line.starts_with("master_repl_offset:")).unwrap().to_owned()
}

fn is_well(wire: &mut Wire) -> bool {
    let info = String::from_utf8(wire.ask(&["INFO", "replication"])).unwrap();
    let follows = info.contains("role:master") || info.contains("master_link_status:up");
    follows && String::from_utf8(wire.ask(&["CLUSTER", "INFO"])).unwrap().contains("cluster_state:ok")
}

#[test]
fn a_test_cluster_fails_over_grows_shrinks_and_moves_its_slots() {
    // Slot 12182, of the third primary.
    const KEY: &str = "foo";
    const SLOT: u16 = 12_182;
    for mut cluster in [Cluster::start(), Cluster::named()] {
        assert_eq!(cluster.owner(0, SLOT), 2);
        cluster.nodes[2].wire().expect(&["SET", KEY, "bar"], "+OK\r\n");
        let moved = format!("-MOVED {SLOT} {}\r\n", cluster.nodes[2].endpoint());
        assert_eq!(cluster.ask(0, &["GET", KEY]), moved, "by name if the nodes have names");

        cluster.fail_over(5);
        assert!(cluster.is_primary(5) && !cluster.is_primary(2));
        cluster.nodes[5].kill();
        cluster.settle();
        assert!(cluster.is_primary(2), "its replica was elected");
        cluster.nodes[5].restart();
        cluster.settle();
        cluster.nodes[5].kill();
        cluster.nodes[5].restart_elsewhere();
        cluster.settle();
        assert_eq!(cluster.nodes.iter().filter(|node| !node.wire().ask(&["READONLY"]).is_empty()).count(), 6);

        let new = cluster.add();
        cluster.begin_migration(SLOT, 2, new);
        cluster.move_keys(SLOT, 2, new);
        let ask = format!("-ASK {SLOT} {}\r\n", cluster.nodes[new].endpoint());
        assert_eq!(cluster.ask(2, &["GET", KEY]), ask);
        cluster.end_migration(SLOT, 2, new);
        assert_eq!(cluster.ask(new, &["GET", KEY]), "$3\r\nbar\r\n");
        cluster.migrate(SLOT, new, 0);
        assert_eq!(cluster.ask(0, &["GET", KEY]), "$3\r\nbar\r\n");
        cluster.remove(new);
        assert_eq!(cluster.owner(1, SLOT), 0);
    }
}
