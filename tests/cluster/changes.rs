//! Changes of clusters under load from real clients: every acknowledged write is there, and every client goes on.

use std::collections::BTreeSet;

use super::programs::{Load, Report};
use super::{bridge, bridge_at, local_ports};
use crate::harness::{Cluster, Forwarder, Pontoon, eventually};

/// A cluster, a bridge, and clients at work.
struct Stage {
    loads: Vec<Load>,
    pontoon: Pontoon,
    cluster: Cluster,
}

impl Stage {
    fn new() -> Self {
        let cluster = Cluster::start();
        let pontoon = bridge(&cluster, &[]);
        Self::of(cluster, pontoon)
    }

    fn of(cluster: Cluster, pontoon: Pontoon) -> Self {
        let loads =
            vec![Load::redis_py(&pontoon, "2"), Load::redis_py(&pontoon, "3"), Load::ioredis(&pontoon)];
        let mut stage = Self { loads, pontoon, cluster };
        for report in stage.check() {
            assert!(report.errors.is_empty(), "nothing has happened yet: {report:?}");
        }
        stage
    }

    /// Checks that every load has since written and read all of its keys, and received no errors but Redis' own.
    fn check(&mut self) -> Vec<Report> {
        let check = |load: &mut Load| load.check(&self.pontoon, &self.cluster);
        let reports: Vec<Report> = self.loads.iter_mut().map(check).collect();
        let told = |report: &Report| report.errors.keys().any(|error| error.contains("pontoon"));
        assert!(!reports.iter().any(told), "{reports:#?}");
        reports
    }

    /// A slot with keys of each load, and the node that owns it.
    fn slots(&self) -> Vec<(u16, usize)> {
        let slot = |load: &Load| {
            let reply = self.cluster.ask(0, &["CLUSTER", "KEYSLOT", &load.key()]);
            let slot = reply.trim_start_matches(':').trim_end().parse().unwrap();
            (slot, self.cluster.owner(0, slot))
        };
        self.loads.iter().map(slot).collect()
    }
}

/// Allows log lines about nodes that are gone. They appear only if a client went to such a node.
fn allow_lost_nodes(pontoon: &Pontoon) {
    pontoon.allows("TCP connection to ");
    pontoon.allows("TLS handshake with ");
    pontoon.allows("greeting ");
}

#[test]
fn nothing_acknowledged_is_lost_when_a_primary_dies() {
    let mut stage = Stage::new();
    allow_lost_nodes(&stage.pontoon);
    // A load without the bridge meets the same fault: what it sees is Redis' own.
    stage.loads.push(Load::direct(&stage.cluster));
    stage.check();
    // Kills the node that the endpoint leads to, so that the endpoint no longer leads to the others.
    stage.cluster.hold_writes(0, 3);
    stage.cluster.nodes[0].kill();
    stage.check();
    assert!(stage.cluster.is_primary(3), "its replica took over");
    let mut late = Load::redis_py(&stage.pontoon, "3");
    late.check(&stage.pontoon, &stage.cluster);
    drop(late);
    stage.cluster.nodes[0].restart();
    stage.cluster.settle();
    stage.cluster.fail_over(0);
    stage.check();
    let node = stage.cluster.nodes[3].endpoint();
    for role in ["primary", "replica"] {
        let told = format!("failover, node changed its role (role: {role}, node: {node}, ");
        eventually("the failover is on the page", || stage.pontoon.get("/").1.contains(&told));
    }
}

#[test]
fn slots_move_and_nodes_come_and_go_under_load() {
    let mut stage = Stage::new();
    allow_lost_nodes(&stage.pontoon);
    let slots = stage.slots();
    let next = |from: usize| (from + 1) % 3;
    for (slot, from) in &slots {
        stage.cluster.begin_migration(*slot, *from, next(*from));
        stage.cluster.move_keys(*slot, *from, next(*from));
    }
    let reports = stage.check();
    assert!(reports.iter().all(|report| report.asked > 0 && report.moved == 0), "{reports:?}");
    for (slot, from) in &slots {
        stage.cluster.end_migration(*slot, *from, next(*from));
    }
    let reports = stage.check();
    assert!(reports.iter().all(|report| report.moved > 0), "{reports:?}");
    assert!(stage.pontoon.metric("pontoon_rewritten_replies_total", "kind=\"redirect\"") > 3);

    let new = stage.cluster.add();
    for (slot, from) in &slots {
        stage.cluster.migrate(*slot, next(*from), new);
    }
    stage.check();
    assert_eq!(stage.pontoon.metric("pontoon_cluster_nodes", ""), 7);
    for (slot, from) in &slots {
        stage.cluster.migrate(*slot, new, *from);
    }
    stage.cluster.remove(new);
    stage.check();
}

#[test]
fn a_cluster_that_restarts_on_other_ports_is_followed() {
    let cluster = Cluster::start();
    // A name that leads to any one node, as cloud providers offer it.
    let endpoint = Forwarder::to(cluster.nodes[0].port);
    let pontoon = bridge_at(&endpoint.endpoint(), &cluster, &[]);
    eventually("all nodes are known", || pontoon.metric("pontoon_cluster_nodes", "") == 6);
    let mut stage = Stage::of(cluster, pontoon);
    allow_lost_nodes(&stage.pontoon);
    stage.pontoon.allows("nodes not known");
    let before: BTreeSet<u16> = local_ports(&stage.pontoon).into_values().collect();
    stage.cluster.restart_elsewhere();
    endpoint.lead_to(stage.cluster.nodes[0].port);
    stage.check();
    assert_eq!(local_ports(&stage.pontoon).into_values().collect::<BTreeSet<u16>>(), before);
}

#[test]
fn a_client_that_connects_while_a_shard_is_down_gets_the_other_nodes() {
    let mut cluster = Cluster::start();
    // Replica and primary both die, so no node takes over.
    cluster.nodes[5].kill();
    cluster.nodes[2].kill();
    eventually("the other nodes know of the failure", || {
        cluster.ask(0, &["CLUSTER", "NODES"]).contains("master,fail ")
    });
    let pontoon = bridge_at(&cluster.endpoint(), &cluster, &[]);
    allow_lost_nodes(&pontoon);
    let mut client = pontoon.client();
    let slots = String::from_utf8(client.ask(&["CLUSTER", "SLOTS"])).unwrap();
    assert!(slots.starts_with("*3\r\n"), "{slots}");
}
