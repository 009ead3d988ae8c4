//! All replies about servers: none gives a client the address of a node, except where the harness makes an exception.

use super::{bridge, local_port};
use crate::harness::{Cluster, Engine, Pontoon, Wire, assert_reveals_no_address, command};
use crate::isolation::commands::{self, Said, Written};

/// Subcommands of CLUSTER that change something.
const CHANGES: [&str; 18] = [
    "addslots",
    "addslotsrange",
    "bumpepoch",
    "cancelslotmigrations",
    "delslots",
    "delslotsrange",
    "failover",
    "flushslot",
    "flushslots",
    "forget",
    "meet",
    "migrateslots",
    "replicate",
    "reset",
    "saveconfig",
    "set-config-epoch",
    "setslot",
    "syncslots",
];

/// All other subcommands of CLUSTER, with arguments. `ID` stands for a primary's id.
const CLUSTER: [&str; 16] = [
    "count-failure-reports ID",
    "countkeysinslot 0",
    "getkeysinslot 0 1",
    "getslotmigrations",
    "help",
    "info",
    "keyslot key",
    "links",
    "myid",
    "myshardid",
    "nodes",
    "replicas ID",
    "shards",
    "slaves ID",
    "slot-stats slotsrange 0 1",
    "slots",
];

/// Other commands that describe servers and connections, and commands that a node redirects.
const OTHERS: [&str; 11] = [
    "CLIENT INFO",
    "CLIENT LIST",
    "CLUSTERSCAN 0 SLOT 12182",
    "COMMAND DOCS",
    "GET 06S",
    "GET foo",
    "HELLO",
    "INFO",
    "INFO everything",
    "INFO replication",
    "ROLE",
];

/// The subcommands of CLUSTER that the engine lists. A new one must be added to one of the lists above.
fn subcommands(wire: &mut Wire) -> Vec<String> {
    let listed =
        String::from_utf8(wire.ask(&["COMMAND", "LIST", "FILTERBY", "PATTERN", "cluster|*"])).unwrap();
    listed.lines().filter_map(|line| line.strip_prefix("cluster|")).map(str::to_owned).collect()
}

/// All requests.
fn requests(cluster: &Cluster) -> Vec<Vec<String>> {
    let known = |name: &&String| {
        CHANGES.contains(&name.as_str())
            || CLUSTER.iter().any(|request| request.split(' ').next() == Some(name.as_str()))
    };
    if !Engine::here().is_before_7() {
        let listed = subcommands(&mut cluster.nodes[0].wire());
        assert!(listed.iter().any(|name| name == "slots"), "{listed:?}");
        let new: Vec<&String> = listed.iter().filter(|name| !known(name)).collect();
        assert!(new.is_empty(), "not known: {new:?}");
    }
    let of_cluster =
        CLUSTER.iter().map(|request| format!("CLUSTER {request}").replace("ID", &cluster.nodes[0].id));
    let all = of_cluster.chain(OTHERS.iter().map(|&request| request.to_owned()));
    all.map(|request| request.split(' ').map(str::to_owned).collect()).collect()
}

/// Asserts that `reply` names no node's address.
#[track_caller]
fn assert_no_address(request: &[String], reply: &[u8], cluster: &Cluster) {
    let ports: Vec<u16> = cluster.nodes.iter().map(|node| node.port).collect();
    assert_reveals_no_address(request, reply, ".cluster.test", &ports);
}

fn assert_all_are_local(cluster: &Cluster, pontoon: &Pontoon) {
    let requests = requests(cluster);
    for (node, protocol) in [0, 3].into_iter().flat_map(|node| [(node, "2"), (node, "3")]) {
        let port = local_port(pontoon, cluster, node);
        let mut client = Wire::tcp(("127.0.0.1", port));
        client.ask(&["HELLO", protocol]);
        for request in &requests {
            assert_no_address(request, &client.ask(request), cluster);
        }
        // A redirect or an unknown command within MULTI would make EXEC fail. HELLO would change the protocol.
        let mut direct = cluster.nodes[node].wire();
        let queued: Vec<_> = requests
            .iter()
            .filter(|request| request[0] != "HELLO" && !direct.ask(request).starts_with(b"-"))
            .collect();
        client.expect(&["MULTI"], "+OK\r\n");
        for request in queued {
            client.expect(request, "+QUEUED\r\n");
        }
        let replies = client.ask(&["EXEC"]);
        assert!(replies.starts_with(b"*"), "{}", replies.escape_ascii());
        assert_no_address(&["EXEC".to_owned()], &replies, cluster);
    }
}

#[test]
fn no_reply_about_servers_names_a_node() {
    for cluster in [Cluster::start(), Cluster::named()] {
        for sharing in ["dedicated", "shared"] {
            let pontoon = bridge(&cluster, &["--sharing", sharing]);
            assert_all_are_local(&cluster, &pontoon);
        }
    }
}

#[test]
fn no_other_command_of_any_engine_is_answered_with_a_nodes_address() {
    let cluster = Cluster::start();
    // Redis 8 and Valkey 8 do not reply to a refused AUTH within EXEC.
    cluster.nodes[0]
        .wire()
        .expect(&["ACL", "SETUSER", "first", "on", "nopass", "~*", "&*", "+@all"], "+OK\r\n");
    for sharing in ["dedicated", "shared"] {
        let pontoon = bridge(&cluster, &["--sharing", sharing]);
        let port = local_port(&pontoon, &cluster, 0);
        // The other test asks CLUSTER, with all its subcommands.
        let asks_cluster = |said: &Said| said.iter().any(|words| words[0] == "CLUSTER");
        for (said, _) in commands::all().iter().filter(|(said, _)| !asks_cluster(said)) {
            let mut client = Wire::tcp(("127.0.0.1", port));
            client.send(&commands::written(said, Written::Arrays));
            let request: Vec<String> = said.iter().map(|words| words.join(" ")).collect();
            for _ in 0..commands::replies(said) {
                let Some(reply) = client.try_reply() else { break };
                assert_no_address(&request, &reply, &cluster);
            }
        }
    }
}

#[test]
fn replication_leads_to_the_local_ports_of_primary_and_replica() {
    let cluster = Cluster::start();
    for sharing in ["dedicated", "shared"] {
        let pontoon = bridge(&cluster, &["--sharing", sharing]);
        let ports = [0, 3].map(|node| local_port(&pontoon, &cluster, node));
        let mut client = Wire::tcp(("127.0.0.1", ports[0]));
        assert!(client.ask(&["INFO"]).starts_with(b"$"));
        assert_eq!(
            pontoon.metric("pontoon_sessions_pinned_total", ""),
            0,
            "INFO needs no dedicated connection"
        );
        let [mut at_primary, mut at_replica] = ports.map(|port| Wire::tcp(("127.0.0.1", port)));
        // A replica without TLS reports its own port to its primary. Its clients, and pontoon, know that of its front.
        let [primary, replica] = [ports[0], if Engine::here().tls { ports[1] } else { 0 }];
        for protocol in ["2", "3"] {
            for wire in [&mut at_primary, &mut at_replica] {
                wire.ask(&["HELLO", protocol]);
            }
            let mut text = |words: &[&str]| {
                let replies = [at_primary.ask(words), at_replica.ask(words)];
                replies.map(|reply| String::from_utf8(reply).unwrap())
            };
            let [of_primary, of_replica] = text(&["INFO"]);
            assert!(
                of_replica.contains(&format!("\r\nmaster_host:127.0.0.1\r\nmaster_port:{primary}\r\n")),
                "{of_replica}"
            );
            assert!(
                of_primary.contains(&format!("\r\nslave0:ip=127.0.0.1,port={replica},state=online,")),
                "{of_primary}"
            );
            let [of_primary, of_replica] = text(&["ROLE"]);
            assert!(
                of_replica.starts_with(&format!("*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:{primary}\r\n")),
                "{of_replica}"
            );
            let replica = replica.to_string();
            assert!(
                of_primary.contains(&format!("*3\r\n$9\r\n127.0.0.1\r\n${}\r\n{replica}\r\n", replica.len())),
                "{of_primary}"
            );
        }
    }
}

#[test]
fn a_client_may_subscribe_before_it_reads_the_reply_to_info() {
    let cluster = Cluster::start();
    let pontoon = bridge(&cluster, &[]);
    for (next, reply) in
        [(&["SUBSCRIBE", "x"][..], "*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n"), (&["MONITOR"], "+OK\r\n")]
    {
        let mut client = pontoon.client();
        client.send(&[command(&["INFO", "replication"]), command(next)].concat());
        assert!(client.reply().starts_with(b"$"));
        client.expect_next(reply);
    }
}
