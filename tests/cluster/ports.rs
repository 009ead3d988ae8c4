//! Which local port leads to which node, and which addresses clients receive.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use rustls::{ServerConnection, StreamOwned};

use super::{assert_local, bridge, bridge_at, local_port, local_ports, naming_nodes, shared};
use crate::harness::{Authority, Cluster, Fake, Pontoon, Wire, eventually, pontoon};

/// Slot 12182, of the third primary.
const KEY: &str = "foo";

#[test]
fn a_node_keeps_its_local_port_whatever_its_address_and_role() {
    let mut cluster = Cluster::start();
    let pontoon = bridge(&cluster, &[]);
    pontoon.allows("TCP connection to ");
    pontoon.allows("TLS handshake with ");
    let ports: Vec<u16> = (0..6).map(|node| local_port(&pontoon, &cluster, node)).collect();
    let at = |node: usize| Wire::tcp(("127.0.0.1", ports[node]));
    let moved_to = |node: usize| format!("-MOVED 12182 127.0.0.1:{}\r\n", ports[node]);

    cluster.fail_over(5);
    eventually("the former primary redirects clients", || at(2).ask(&["GET", KEY]) == moved_to(5).as_bytes());
    at(5).expect(&["SET", KEY, "bar"], "+OK\r\n");

    let mut waiting = at(2);
    waiting.expect(&["READONLY"], "+OK\r\n");
    cluster.nodes[2].kill();
    // The connection ends as it would without a bridge; clients then look for the nodes again.
    waiting.send(b"GET foo\r\n");
    waiting.expect_end();
    let mut late = at(2);
    late.send(b"GET foo\r\n");
    late.expect_end();
    cluster.settle();
    cluster.nodes[2].restart_elsewhere();
    cluster.settle();
    eventually("the node is found at its new address", || {
        let mut client = at(2);
        client.try_ask(&["READONLY"]).is_some()
            && client.try_ask(&["GET", KEY]).is_some_and(|r| r == b"$3\r\nbar\r\n")
    });
    let after: Vec<u16> = (0..6).map(|node| local_port(&pontoon, &cluster, node)).collect();
    assert_eq!(after, ports);
}

/// A port followed by free ones, because the system assigns only single ports.
fn free_range(length: u16) -> String {
    loop {
        let first = 10_000 + fastrand::u16(..20_000);
        let range = first..first + length;
        if range.clone().all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return format!("{first}-{}", range.end - 1);
        }
    }
}

#[test]
fn a_port_range_that_is_too_small_is_reported_and_never_exceeded() {
    let shared = shared();
    let args = ["--cluster-ports", &free_range(5), "--connect-timeout", "2s"];
    let pontoon = bridge_at(&shared.cluster.endpoint(), &shared.cluster, &args);
    pontoon.expects("node has no local port: no port of cluster.ports");
    eventually("nodes are known", || pontoon.metric("pontoon_cluster_nodes", "") == 6);
    assert_eq!(pontoon.metric("pontoon_cluster_nodes_without_port", ""), 1);
    let mut client = pontoon.client();
    for command in naming_nodes() {
        let reply = String::from_utf8(client.ask(&["CLUSTER", command])).unwrap();
        assert!(reply.starts_with("-CLUSTERDOWN pontoon: ") && reply.contains("no local port"), "{reply}");
    }
    client.expect(&["PING"], "+PONG\r\n");
}

#[test]
fn a_large_enough_port_range_holds_every_local_port() {
    let shared = shared();
    let range = free_range(20);
    let pontoon = bridge(&shared.cluster, &["--cluster-ports", &range]);
    let (first, last) = range.split_once('-').unwrap();
    let range = first.parse::<u16>().unwrap()..=last.parse().unwrap();
    assert!(local_ports(&pontoon).values().all(|port| range.contains(port)));
}

#[test]
fn clients_receive_the_advertised_host() {
    let shared = shared();
    let pontoon = bridge(&shared.cluster, &["--cluster-advertise", "bridge.example"]);
    let mut client = pontoon.client();
    for command in naming_nodes() {
        let reply = String::from_utf8(client.ask(&["CLUSTER", command])).unwrap();
        assert_local(&reply, &pontoon, &shared.cluster);
        assert!(reply.contains("bridge.example") && !reply.contains("127.0.0.1"), "{reply}");
    }
    let third = local_port(&pontoon, &shared.cluster, 2);
    client.expect(&["GET", KEY], &format!("-MOVED 12182 bridge.example:{third}\r\n"));
}

#[test]
fn a_client_of_a_unix_socket_finds_the_nodes_on_loopback() {
    let shared = shared();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.sock");
    let pontoon = bridge(&shared.cluster, &["--listen", &format!("unix:{}", path.display())]);
    let third = local_port(&pontoon, &shared.cluster, 2);
    Wire::unix(&path).expect(&["GET", KEY], &format!("-MOVED 12182 127.0.0.1:{third}\r\n"));
    assert!(Wire::tcp(("127.0.0.1", third)).ask(&["GET", KEY]).starts_with(b"$"));
}

#[test]
fn a_client_receives_addresses_of_the_family_it_connected_by() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("left out: there is no IPv6 here");
        return;
    }
    let shared = shared();
    let pontoon = bridge(&shared.cluster, &["--listen", "127.0.0.1:0", "--listen", "[::1]:0"]);
    let third = local_port(&pontoon, &shared.cluster, 2);
    for (address, host) in pontoon.addresses().iter().zip(["127.0.0.1", "::1"]) {
        Wire::tcp(address.as_str()).expect(&["GET", KEY], &format!("-MOVED 12182 {host}:{third}\r\n"));
        assert!(Wire::tcp((host, third)).ask(&["GET", KEY]).starts_with(b"$"));
    }
}

/// A server that claims to be a cluster of `nodes` nodes.
fn cluster_of(nodes: u16, authority: &Authority) -> Fake {
    let line = |n| {
        let slots = if n == 1 { "0-16383" } else { "" };
        format!("{n:040x} 127.0.0.1:{n}@1 master - 0 0 1 connected {slots}\n")
    };
    let lines = (1..=nodes).map(line).collect::<Vec<_>>().concat();
    let config = authority.issue(&["localhost", "127.0.0.1"]).server_config();
    Fake::start(move |stream, _| {
        let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = tls.read(&mut buffer) {
            let asked = String::from_utf8_lossy(&buffer[..n]).into_owned();
            let mut answer = String::new();
            for command in asked.split('*').skip(1) {
                if command.contains("NODES") {
                    answer.extend([&format!("${}\r\n", lines.len()), &*lines, "\r\n"]);
                } else {
                    answer += "-ERR unknown\r\n";
                }
            }
            if tls.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

#[test]
fn a_server_that_announces_many_nodes_gets_no_more_listeners_than_allowed() {
    let authority = Authority::new();
    let fake = cluster_of(200, &authority);
    let args = ["--topology", "cluster", "--cluster-max-nodes", "20", "--pool-warm", "false"];
    let pontoon = Pontoon::with(&fake.endpoint(), &authority, &args);
    pontoon.expects("the limit on nodes is reached");
    pontoon.allows("TCP connection to ");
    eventually("nodes are known", || pontoon.metric("pontoon_cluster_nodes", "") == 200);
    assert_eq!(pontoon.metric("pontoon_cluster_nodes_without_port", ""), 180);
    assert_eq!(pontoon.metric("pontoon_cluster_nodes_over_limit", ""), 180);
    pontoon.expect_one_line("the limit on nodes is reached");
    let open = fs::read_dir(format!("/proc/{}/fd", pontoon.pid())).unwrap().count();
    assert!(open < 100, "{open} descriptors are open");
}

#[test]
fn check_reports_a_cluster_with_more_nodes_than_the_limit() {
    let authority = Authority::new();
    let fake = cluster_of(30, &authority);
    let (endpoint, ca) = (fake.endpoint(), authority.file());
    let args = ["check", "--topology", "cluster", "--upstream", &endpoint, "--tls-ca-file", &ca];
    let options = ["--listen", "127.0.0.1:0", "--admin", "off", "--cluster-max-nodes", "20"];
    let output = pontoon(&[&args[..], &options].concat());
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{report}");
    let told = "the cluster has 30 nodes, and clients reach only 20 of them. Raise cluster.max_nodes";
    assert!(report.contains(told), "{report}");
    // A cluster that announces many nodes costs no more dials than the limit.
    assert_eq!(report.matches("TCP connection to 127.0.0.1:").count(), 20, "{report}");
}
