//! A cluster that speaks TLS only, and clients in plaintext that know clusters.

use crate::harness::{Cluster, Pontoon, eventually};

fn bridge(cluster: &Cluster, args: &[&str]) -> Pontoon {
    let ca = cluster.authority().file();
    let mut all =
        vec!["--upstream", "", "--listen", "127.0.0.1:0", "--topology", "cluster", "--tls-ca-file", &ca];
    let endpoint = cluster.endpoint();
    all[1] = &endpoint;
    all.extend(args);
    match cluster.hosts() {
        Some(hosts) => Pontoon::with_hosts(hosts, &all),
        None => Pontoon::run(&all),
    }
}

#[test]
fn replies_that_name_nodes_lead_to_the_bridge() {
    for cluster in [Cluster::start(), Cluster::named()] {
        let pontoon = bridge(&cluster, &[]);
        eventually("all nodes are known", || pontoon.metric("pontoon_cluster_nodes", "") == 6);
        let mut client = pontoon.client();
        for command in ["SLOTS", "NODES", "SHARDS"] {
            let reply = String::from_utf8(client.ask(&["CLUSTER", command])).unwrap();
            for node in &cluster.nodes {
                assert!(!reply.contains(&format!(":{}\r", node.port)), "{command}: {reply}");
                assert!(!reply.contains(&format!(":{}@", node.port)), "{command}: {reply}");
            }
            assert!(!reply.contains("cluster.test") && reply.contains("127.0.0.1"), "{command}: {reply}");
        }
    }
}
