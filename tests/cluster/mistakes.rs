//! A single server configured as a cluster, and a cluster configured as a single server.

use std::io::{Read as _, Write as _};

use super::shared;
use crate::harness::{Authority, Fake, Pontoon, Redis};

#[test]
fn a_single_server_configured_as_a_cluster_is_reported() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--topology", "cluster"]);
    pontoon.expects("nodes not known: ");
    let record = pontoon.wait_for_log("nodes not known: ");
    let message = record["error"].as_str().unwrap();
    assert!(message.contains("This instance has cluster support disabled"), "{message}");
    let mut client = pontoon.client();
    client.expect(&["SET", "k", "v"], "+OK\r\n");
    client.expect(&["CLUSTER", "SLOTS"], "-ERR This instance has cluster support disabled\r\n");
}

#[test]
fn a_cluster_configured_as_a_single_server_is_reported_at_a_redirect() {
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

#[test]
fn redirects_pass_unchanged_in_standalone_topology() {
    const REDIRECTS: &str = "-MOVED 1 10.0.0.7:6379\r\n-ASK 1 10.0.0.7:6379\r\n-REDIRECT 10.0.0.7:6379\r\n";
    let authority = Authority::new();
    let fake = Fake::tls(&authority.issue(&["localhost"]), |tls| {
        let _ = tls.read(&mut [0; 512]);
        let _ = tls.write_all(REDIRECTS.as_bytes());
        let _ = tls.read(&mut [0; 512]);
    });
    let pontoon = Pontoon::with(&fake.endpoint(), &authority, &["--pool-reuse", "false"]);
    pontoon.expects("set topology = \"cluster\"");
    let mut client = pontoon.client();
    client.send(b"GET a\r\nGET b\r\nSET c d\r\n");
    for reply in REDIRECTS.split_inclusive('\n') {
        client.expect_next(reply);
    }
}
