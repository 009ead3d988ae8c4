//! A cluster that accepts only TLS, and cluster clients in plaintext.

mod addresses;
mod changes;
mod clients;
mod mistakes;
mod ports;
mod programs;
mod replies;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::Value;

use crate::harness::{Cluster, Engine, Pontoon, eventually};

/// A bridge to a cluster, once it has found all nodes.
pub fn bridge(cluster: &Cluster, args: &[&str]) -> Pontoon {
    let pontoon = bridge_at(&cluster.endpoint(), cluster, args);
    eventually("all nodes are known", || pontoon.metric("pontoon_cluster_nodes", "") == 6);
    pontoon
}

/// A bridge that discovers the cluster through `endpoint`.
pub fn bridge_at(endpoint: &str, cluster: &Cluster, args: &[&str]) -> Pontoon {
    let ca = cluster.authority().file();
    let mut all = vec!["--upstream", endpoint, "--topology", "cluster", "--tls-ca-file", &ca];
    if !args.contains(&"--listen") {
        all.extend(["--listen", "127.0.0.1:0"]);
    }
    all.extend(args);
    match cluster.hosts() {
        Some(hosts) => Pontoon::with_hosts(hosts, &all),
        None => Pontoon::run(&all),
    }
}

/// A cluster and a bridge for tests that leave both unchanged.
struct Shared {
    pontoon: Pontoon,
    cluster: Cluster,
}

/// The instance that another test is using, or a new one.
fn shared() -> Arc<Shared> {
    static SHARED: Mutex<Weak<Shared>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let cluster = Cluster::start();
        let new = Arc::new(Shared { pontoon: bridge(&cluster, &[]), cluster });
        *shared = Arc::downgrade(&new);
        new
    })
}

/// Subcommands of CLUSTER that this engine has and whose replies name all nodes.
fn naming_nodes() -> &'static [&'static str] {
    if Engine::here().is_before_7() { &["SLOTS", "NODES"] } else { &["SLOTS", "NODES", "SHARDS"] }
}

/// The local port of each node by its endpoint, from `/routes`.
pub fn local_ports(pontoon: &Pontoon) -> BTreeMap<String, u16> {
    let routes: Value = serde_json::from_str(&pontoon.get("/routes").1).unwrap();
    let upstreams = routes[0]["upstreams"].as_array().unwrap();
    let nodes = upstreams.iter().filter_map(|upstream| {
        let port = upstream["local_port"].as_u64()?;
        Some((upstream["endpoint"].as_str().unwrap().to_owned(), u16::try_from(port).unwrap()))
    });
    nodes.collect()
}

/// The local port that leads to a node.
pub fn local_port(pontoon: &Pontoon, cluster: &Cluster, node: usize) -> u16 {
    local_ports(pontoon)[&cluster.nodes[node].endpoint()]
}

/// Asserts that `text` names at least one port of pontoon, and none of a node.
#[track_caller]
fn assert_local(text: &str, pontoon: &Pontoon, cluster: &Cluster) {
    let numbers: Vec<&str> = text.split(|c: char| !c.is_ascii_digit()).collect();
    for node in &cluster.nodes {
        assert!(!numbers.contains(&node.port.to_string().as_str()), "{}: {text}", node.port);
    }
    let local = local_ports(pontoon);
    assert!(local.values().any(|port| numbers.contains(&port.to_string().as_str())), "{local:?}: {text}");
    assert!(!text.contains("cluster.test"), "{text}");
}

#[test]
fn replies_that_name_nodes_lead_to_the_bridge() {
    let named = Cluster::named();
    let to_named = bridge(&named, &[]);
    let shared = shared();
    for (cluster, pontoon) in [(&shared.cluster, &shared.pontoon), (&named, &to_named)] {
        let mut client = pontoon.client();
        for command in naming_nodes() {
            let reply = String::from_utf8(client.ask(&["CLUSTER", command])).unwrap();
            assert_local(&reply, pontoon, cluster);
            assert!(reply.contains("127.0.0.1"), "{command}: {reply}");
        }
    }
}
