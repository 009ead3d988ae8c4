//! A cluster taken for a single server, and a single server for a cluster.

use super::shared;
use crate::harness::{Authority, Pontoon, Redis};

#[test]
fn a_single_server_taken_for_a_cluster_is_told() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--topology", "cluster"]);
    pontoon.expects("the cluster's nodes are not known: ");
    let record = pontoon.wait_for_log("the cluster's nodes are not known: ");
    let message = record["message"].as_str().unwrap();
    assert!(message.contains("This instance has cluster support disabled"), "{message}");
    let mut client = pontoon.client();
    client.expect(&["SET", "k", "v"], "+OK\r\n");
    client.expect(&["CLUSTER", "SLOTS"], "-ERR This instance has cluster support disabled\r\n");
}

#[test]
fn a_cluster_taken_for_a_single_server_is_told_at_the_first_redirect() {
    let shared = shared();
    let cluster = &shared.cluster;
    let pontoon = Pontoon::with(&cluster.endpoint(), cluster.authority(), &[]);
    pontoon.expects("set topology = \"cluster\"");
    let moved = format!("-MOVED 12182 {}\r\n", cluster.nodes[2].endpoint());
    let mut client = pontoon.client();
    client.expect(&["GET", "foo"], &moved);
    client.expect(&["GET", "foo"], &moved);
    pontoon.expect_one_line("set topology = \"cluster\"");
}
