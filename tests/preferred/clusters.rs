//! The road of a cluster: each node has one port for plaintext and TLS, and a latch of its own.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use super::{LOUD, transit};
use crate::harness::{
    Authority, Dual, Engine, Mood, Pontoon, Redis, SLOTS, StopOnDrop, Wire, eventually, free_port, own_slots,
};
use crate::reload::Configured;

const NODES: usize = 3;

/// Primaries without replicas. Each announces the port in front of it, as a node of ElastiCache has one port for both.
struct Group {
    authority: Authority,
    servers: Vec<Redis>,
    fronts: Vec<Dual>,
    /// A key in the slots of each node.
    keys: Vec<String>,
}

impl Group {
    /// A cluster without TLS.
    fn start() -> Self {
        let authority = Authority::new();
        let mut group = Self { authority, servers: Vec::new(), fronts: Vec::new(), keys: Vec::new() };
        for number in 0..NODES {
            let bus = free_port().to_string();
            let options =
                ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-announce-ip", "127.0.0.1"];
            let identity = group.authority.issue(&["localhost", "127.0.0.1"]);
            let server = Redis::with(identity, &group.authority, &options);
            let front = Dual::new(&server, Mood::Accept, Mood::Reset);
            let port = front.port().to_string();
            let mut wire = server.direct();
            for (what, port) in [("port", &port), ("tls-port", &port), ("bus-port", &bus)] {
                wire.expect(&["CONFIG", "SET", &format!("cluster-announce-{what}"), port], "+OK\r\n");
            }
            own_slots(&mut wire, number * SLOTS / NODES..(number + 1) * SLOTS / NODES);
            wire.expect(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()], "+OK\r\n");
            for other in &group.servers {
                let bus = String::from_utf8(other.direct().ask(&["CONFIG", "GET", "cluster-port"])).unwrap();
                let bus = bus.lines().next_back().unwrap();
                let port = other.plain_port.to_string();
                wire.expect(&["CLUSTER", "MEET", "127.0.0.1", &port, bus], "+OK\r\n");
            }
            group.servers.push(server);
            group.fronts.push(front);
        }
        let mut wires: Vec<Wire> = group.servers.iter().map(Redis::direct).collect();
        eventually("the nodes know each other by the ports in front of them", || {
            wires.iter_mut().all(|wire| {
                let nodes = String::from_utf8(wire.ask(&["CLUSTER", "NODES"])).unwrap();
                let info = String::from_utf8(wire.ask(&["CLUSTER", "INFO"])).unwrap();
                group.fronts.iter().all(|front| nodes.contains(&format!("127.0.0.1:{}@", front.port())))
                    && info.contains("cluster_state:ok")
            })
        });
        for wire in &mut wires {
            let owns = |n: &usize| wire.ask(&["SET", &format!("k{n}"), "0"]) == b"+OK\r\n";
            group.keys.push(format!("k{}", (0..SLOTS).find(owns).unwrap()));
        }
        group
    }

    fn set(&self, plaintext: Mood, tls: Mood) {
        self.fronts.iter().for_each(|front| front.set(plaintext, tls));
    }

    fn plaintext_bytes(&self) -> Vec<usize> {
        self.fronts.iter().map(Dual::plaintext_bytes).collect()
    }

    fn bridge(&self, state: &str) -> Pontoon {
        let args = [
            "--topology",
            "cluster",
            "--tls-mode",
            "preferred",
            "--tls-upgrade",
            "drain",
            "--state-file",
            state,
        ];
        let pontoon = Pontoon::with(&self.fronts[0].endpoint(), &self.authority, &args);
        pontoon.allows(LOUD);
        pontoon
    }
}

/// Waits until each node has a local port, and returns these.
fn local_ports(pontoon: &Pontoon, group: &Group) -> Vec<u16> {
    let mut ports = None;
    eventually("each node has a local port", || {
        ports = known_ports(pontoon, group);
        ports.is_some()
    });
    ports.unwrap()
}

fn known_ports(pontoon: &Pontoon, group: &Group) -> Option<Vec<u16>> {
    let report: Value = serde_json::from_str(&pontoon.get("/routes").1).unwrap();
    let upstreams = report[0]["upstreams"].as_array()?.clone();
    let port = |front: &Dual| {
        let endpoint = format!("127.0.0.1:{}", front.port());
        let of_node = |upstream: &&Value| upstream["endpoint"] == endpoint && upstream["local_port"].is_u64();
        u16::try_from(upstreams.iter().find(of_node)?["local_port"].as_u64()?).ok()
    };
    group.fronts.iter().map(port).collect()
}

#[test]
fn a_cluster_takes_the_whole_road_under_load_node_by_node() {
    if Engine::here().is_before_7() {
        // CONFIG SET cannot change the ports that a node announces.
        return;
    }
    let group = Group::start();
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state.json");
    let state = state.to_str().unwrap();
    let pontoon = group.bridge(state);
    let ports = local_ports(&pontoon, &group);
    let stop = AtomicBool::new(false);
    let done: Vec<AtomicUsize> = (0..2 * NODES).map(|_| AtomicUsize::new(0)).collect();
    thread::scope(|scope| {
        let _end = StopOnDrop(&stop);
        // At each node a client that stays and one that comes again for each request.
        for (number, done) in done.iter().enumerate() {
            let (stop, node) = (&stop, number / 2);
            let (key, port, stays) = (&group.keys[node], ports[node], number % 2 == 0);
            scope.spawn(move || {
                let mut client = Wire::tcp(("127.0.0.1", port));
                while !stop.load(Ordering::SeqCst) {
                    if !stays {
                        client = Wire::tcp(("127.0.0.1", port));
                    }
                    let reply = client.ask(&["INCR", key]);
                    assert!(reply.starts_with(b":"), "{}", String::from_utf8_lossy(&reply));
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let progress = |what: &str| {
            let before: Vec<usize> = done.iter().map(|done| done.load(Ordering::SeqCst)).collect();
            eventually(what, || {
                done.iter().zip(&before).all(|(done, before)| done.load(Ordering::SeqCst) > before + 20)
            });
        };
        progress("clients of all nodes are served in plaintext");

        // The group is modified, and one node after the other begins to accept TLS.
        let mut latched: Vec<(usize, usize)> = Vec::new();
        for (node, front) in group.fronts.iter().enumerate() {
            front.set(Mood::Accept, Mood::Accept);
            eventually("the node's connections use TLS", || {
                transit(&pontoon, "tls") as usize > node && front.open_in_plaintext() == 0
            });
            latched.push((node, front.plaintext_bytes()));
            let before = group.plaintext_bytes();
            progress("clients are served while nodes differ");
            let after = group.plaintext_bytes();
            for (node, bytes) in &latched {
                assert_eq!(after[*node], *bytes, "not one byte in plaintext after the node's latch");
            }
            for other in node + 1..NODES {
                assert!(after[other] > before[other], "node {other} has no TLS yet");
            }
        }
        group.set(Mood::Reset, Mood::Accept);
        let bytes = group.plaintext_bytes();
        progress("clients are served by the group that requires TLS");
        assert_eq!(group.plaintext_bytes(), bytes);
    });
    drop(pontoon);

    // After a restart the latch of each node still holds, whatever the network answers.
    group.set(Mood::Accept, Mood::Accept);
    let again = group.bridge(state);
    let ports = local_ports(&again, &group);
    let bytes = group.plaintext_bytes();
    again.allows("TLS handshake with");
    again.allows("nodes not known");
    again.allows("greeting");
    again.allows("connection lost while a client used it");
    group.set(Mood::Accept, Mood::Reset);
    group.fronts.iter().for_each(Dual::cut);
    for port in ports {
        // A node's listener closes the connection, as a node that is down does.
        eventually("plaintext is refused", || Wire::tcp(("127.0.0.1", port)).try_ask(&["PING"]).is_none());
    }
    assert_eq!(group.plaintext_bytes(), bytes);
}

/// The nodes keep their latches, so sessions that go on learn of TLS.
#[test]
fn sessions_of_a_node_move_to_tls_though_their_route_was_changed_since() {
    if Engine::here().is_before_7() {
        // CONFIG SET cannot change the ports that a node announces.
        return;
    }
    for sharing in ["dedicated", "shared"] {
        let group = Group::start();
        let with = |timeout: &str| {
            format!(
                "[[route]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\ntopology = \"cluster\"\nupstream = \"{}\"\n\
                 tls = {{ ca_files = \"{}\", mode = \"preferred\", upgrade = \"drain\" }}\nsharing = \"{sharing}\"\n\
                 limits = {{ max_clients = 100, connect_timeout = \"{timeout}\" }}\n",
                group.fronts[0].endpoint(),
                group.authority.file()
            )
        };
        let bridge = Configured::new(&with("4s"));
        bridge.pontoon.allows(LOUD);
        bridge.pontoon.allows("transit encryption observed: plaintext only");
        let (front, key) = (&group.fronts[0], &group.keys[0]);
        let mut client = Wire::tcp(("127.0.0.1", local_ports(&bridge.pontoon, &group)[0]));
        client.expect(&["INCR", key], ":1\r\n");
        bridge.reload(&with("5s"));
        client.expect(&["INCR", key], ":2\r\n");
        front.set(Mood::Accept, Mood::Accept);
        eventually("nothing is sent to the node in plaintext", || front.open_in_plaintext() == 0);
        let connections = front.plaintext_connections();
        client.expect(&["INCR", key], ":3\r\n");
        // This needs a dedicated connection.
        client.expect(&["WATCH", key], "+OK\r\n");
        client.expect(&["INCR", key], ":4\r\n");
        assert_eq!(front.plaintext_connections(), connections, "{sharing}");
    }
}
