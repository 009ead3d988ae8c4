//! Captured replies of Redis 7.0.15; see `tests/data/cluster/README.md`.

use super::support::{bulk, data, differences, host, kind, map, utf8};
use crate::cluster::{NodeMap, Rewriter, Role, Topology};
use crate::endpoint::Endpoint;
use crate::resp::command_table::AddressReply;
use crate::resp::value::Value;

const STATES: [&str; 5] = ["ip", "hostname", "unknown-endpoint", "nameless", "failed"];
const COMMANDS: [&str; 4] = ["slots", "shards", "nodes", "replicas"];
const PORTS: [u16; 5] = [33803, 33101, 37919, 37397, 32789];

fn topology(state: &str) -> Topology {
    let path = |name| data(&format!("redis-7.0/{state}.resp2/{name}"));
    Topology::parse(&path("slots"), &path("nodes"), &host("config.example")).unwrap()
}

/// Returns the node that was asked, at its preferred endpoint.
fn asked(topology: &Topology) -> Endpoint {
    topology.myself().unwrap().endpoint().unwrap()
}

#[test]
fn every_node_is_known_with_names_role_slots_and_state() {
    let topology = topology("ip");
    assert_eq!(topology.nodes.len(), 5);
    let by_port = |port| topology.nodes.iter().find(|node| node.port == port).unwrap();
    let first = by_port(33803);
    assert_eq!(first.names, [host("127.0.0.1"), host("node-1.example")]);
    assert_eq!((first.role, &first.slots[..]), (Some(Role::Primary), &[0..=5460][..]));
    assert!(first.flags.is_myself() && first.connected);
    let replica = by_port(37397);
    assert_eq!((replica.role, replica.primary.as_ref()), (Some(Role::Replica), Some(&first.id)));
    assert!(replica.slots.is_empty());
}

#[test]
fn a_node_is_dialled_at_the_endpoint_that_the_cluster_prefers() {
    let dialled = |state: &str| {
        let topology = topology(state);
        PORTS.map(|port| {
            let node = topology.nodes.iter().find(|node| node.port == port).unwrap();
            node.endpoint().unwrap().host.to_string()
        })
    };
    let named = ["node-1.example", "node-2.example", "node-3.example", "node-4.example", "node-5.example"];
    assert_eq!(dialled("ip"), ["127.0.0.1"; 5]);
    assert_eq!(dialled("hostname"), named);
    assert_eq!(dialled("unknown-endpoint"), ["config.example"; 5]);
    // `?`: the node has no name, but its address leads to it.
    assert_eq!(dialled("nameless"), [named[0], named[1], "127.0.0.1", named[3], named[4]]);
}

#[test]
fn migrating_slots_stay_with_their_owner_and_gaps_are_seen() {
    let topology = topology("migrating");
    assert_eq!(topology.myself().unwrap().slots, [0..=93, 95..=5460]);
}

#[test]
fn nodes_that_have_failed_are_known_as_such() {
    let failed: Vec<u16> = topology("failed")
        .nodes
        .iter()
        .filter(|node| node.flags.has_failed())
        .map(|node| node.port)
        .collect();
    assert_eq!(failed, [37919, 37397]);
}

#[test]
fn only_addresses_and_ports_change_in_every_reply_of_every_state() {
    let local = host("127.0.0.9");
    for state in STATES {
        let topology = topology(state);
        let (nodes, asked) = (map(&topology), asked(&topology));
        let rewriter = Rewriter::new(&nodes, &local, &asked);
        let names: Vec<String> = (1..=5).map(|n| format!("node-{n}.example")).collect();
        for (protocol, command) in [2, 3].into_iter().flat_map(|p| COMMANDS.map(|command| (p, command))) {
            let reply = data(&format!("redis-7.0/{state}.resp{protocol}/{command}"));
            let after = rewriter.reply(kind(command), &reply).unwrap();
            let (before, after) = (Value::parse(&reply).unwrap(), Value::parse(&after).unwrap());
            let changes = differences(&before, &after);
            assert!(!changes.is_empty());
            for (before, after) in changes {
                let is_host = matches!(&before[..], "" | "?" | "127.0.0.1") || names.contains(&before);
                let is_port = before.parse().is_ok_and(|port| PORTS.contains(&port));
                let is_place = before.contains('@');
                match &after[..] {
                    "127.0.0.9" => assert!(is_host, "{before}"),
                    "port" => assert_eq!((&before[..], command), ("tls-port", "shards")),
                    place if is_place => {
                        let (address, bus) = before.split_once('@').unwrap();
                        let port: u16 = address.rsplit_once(':').unwrap().1.parse().unwrap();
                        let local = nodes.iter().find(|node| node.node.port == port).unwrap().port;
                        let bus = match bus.split_once(',') {
                            Some((bus, _)) => format!("{bus},127.0.0.9"),
                            None => bus.to_owned(),
                        };
                        assert_eq!(place, format!("127.0.0.9:{local}@{bus}"));
                    }
                    port => {
                        assert!(is_port, "{before}");
                        let node = nodes.iter().find(|node| node.node.port.to_string() == before).unwrap();
                        assert_eq!(port, node.port.to_string());
                    }
                }
            }
        }
    }
}

#[test]
fn no_reply_contains_an_address_of_a_node() {
    let local = host("pontoon.local");
    for state in STATES {
        let topology = topology(state);
        let (nodes, asked) = (map(&topology), asked(&topology));
        let rewriter = Rewriter::new(&nodes, &local, &asked);
        for (protocol, command) in [2, 3].into_iter().flat_map(|p| COMMANDS.map(|command| (p, command))) {
            let reply = data(&format!("redis-7.0/{state}.resp{protocol}/{command}"));
            let after = utf8(&rewriter.reply(kind(command), &reply).unwrap());
            assert!(!after.contains(".example") && !after.contains("127.0.0.1"), "{after}");
            for port in PORTS {
                let bus_ports_apart = after.replace(&(port + 10000).to_string(), "");
                assert!(!bus_ports_apart.contains(&port.to_string()), "{after}");
            }
        }
    }
}

#[test]
fn a_redirect_leads_to_the_local_port_of_its_node() {
    let local = host("::1");
    for state in ["ip", "hostname", "unknown-endpoint", "nameless"] {
        let topology = topology(state);
        let (nodes, asked) = (map(&topology), asked(&topology));
        let third = nodes.iter().find(|node| node.node.port == 37919).unwrap().port;
        for protocol in [2, 3] {
            let reply = data(&format!("redis-7.0/{state}.resp{protocol}/moved"));
            let after = Rewriter::new(&nodes, &local, &asked).error(&reply).unwrap();
            assert_eq!(utf8(&after), format!("-MOVED 12182 ::1:{third}\r\n"));
        }
    }
    let topology = topology("ip");
    let (nodes, asked) = (map(&topology), asked(&topology));
    let second = nodes.iter().find(|node| node.node.port == 33101).unwrap().port;
    let after = Rewriter::new(&nodes, &local, &asked).error(&data("redis-7.0/migrating.resp2/ask")).unwrap();
    assert_eq!(utf8(&after), format!("-ASK 93 ::1:{second}\r\n"));
}

#[test]
fn a_node_without_an_address_of_its_own_is_where_it_was_asked() {
    let nodes = utf8(&data("redis-7.0/alone/nodes"));
    let topology = |line: &str| Topology::parse(b"*0\r\n", bulk(line).as_bytes(), &host("10.0.0.7")).unwrap();
    let line = Value::parse(nodes.as_bytes()).unwrap().text().unwrap();
    assert_eq!(topology(line).nodes[0].endpoint().unwrap().to_string(), "node-4.example:37397");
    let nameless = line.replace(",node-4.example", "");
    assert_eq!(topology(&nameless).nodes[0].endpoint().unwrap().to_string(), "10.0.0.7:37397");
}

#[test]
fn nodes_that_were_just_met_are_not_reachable_and_show_no_address() {
    let nodes = data("redis-7.0/handshake/nodes");
    let topology = Topology::parse(b"*0\r\n", &nodes, &host("10.0.0.7")).unwrap();
    let known = NodeMap::new(topology.myself().cloned().map(|node| (node, 7000)));
    let asked = "10.0.0.7:33803".parse().unwrap();
    let after = Rewriter::new(&known, &host("127.0.0.9"), &asked).reply(AddressReply::Nodes, &nodes).unwrap();
    let after = utf8(&after);
    assert_eq!(after.matches("127.0.0.9:0@").count(), 4, "{after}");
    assert_eq!(after.matches("127.0.0.9:7000@43803,127.0.0.9 myself,master").count(), 1, "{after}");
}
