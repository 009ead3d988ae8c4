//! Sentinels that lie, sentinels that are down, and clients of a Unix socket.

use super::{bridge, bridge_with, configuration, primary_port};
use crate::harness::{MASTER_NAME, Pontoon, Redis, SentinelGroup, SentinelSettings, Wire, eventually};

/// Makes the first sentinel name another server as the primary.
fn lie(group: &SentinelGroup, port: u16) {
    let liar = &group.sentinels[0];
    assert_eq!(liar.text(&["SENTINEL", "REMOVE", MASTER_NAME]), "+OK\r\n");
    // A quorum that is never reached: it starts no failover.
    let words = ["SENTINEL", "MONITOR", MASTER_NAME, "127.0.0.1", &port.to_string(), "9"];
    assert_eq!(liar.text(&words), "+OK\r\n");
}

/// Asserts that clients write to the group's first server.
#[track_caller]
fn assert_leads_to_the_primary(group: &SentinelGroup, pontoon: &Pontoon) {
    let port = primary_port(&mut pontoon.client());
    let value = fastrand::u64(..).to_string();
    let mut client = Wire::tcp(("127.0.0.1", port));
    client.expect(&["SET", "k", &value], "+OK\r\n");
    let reply = format!("${}\r\n{value}\r\n", value.len());
    group.servers[0].wire().expect(&["GET", "k"], &reply);
}

#[test]
fn a_sentinel_that_names_a_replica_leads_no_client_there() {
    let group = SentinelGroup::start(SentinelSettings::tls());
    lie(&group, group.servers[1].port());
    let directory = tempfile::tempdir().unwrap();
    let pontoon = bridge(&group, directory.path());
    assert_leads_to_the_primary(&group, &pontoon);
}

#[test]
fn a_sentinel_that_names_a_foreign_server_leads_no_client_there() {
    let group = SentinelGroup::start(SentinelSettings::tls());
    let foreign = Redis::start(group.authority());
    let directory = tempfile::tempdir().unwrap();
    let pontoon = bridge(&group, directory.path());
    assert_leads_to_the_primary(&group, &pontoon);
    lie(&group, foreign.tls_port);
    assert_leads_to_the_primary(&group, &pontoon);
    // The same from the start.
    drop(pontoon);
    let pontoon = bridge(&group, directory.path());
    assert_leads_to_the_primary(&group, &pontoon);
}

#[test]
fn the_primary_stays_while_two_sentinels_are_down() {
    let mut group = SentinelGroup::start(SentinelSettings::tls());
    let directory = tempfile::tempdir().unwrap();
    let pontoon = bridge(&group, directory.path());
    pontoon.expects("some sentinels gave no answer, the others decide");
    pontoon.allows("");
    let port = primary_port(&mut pontoon.client());
    group.sentinels[0].kill();
    group.sentinels[1].kill();
    pontoon.wait_for_log("some sentinels gave no answer, the others decide");
    assert_leads_to_the_primary(&group, &pontoon);
    assert_eq!(primary_port(&mut pontoon.client()), port);
}

#[test]
fn a_client_of_a_unix_socket_gets_the_tcp_port_for_sentinels() {
    let group = SentinelGroup::start(SentinelSettings::tls());
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("pontoon.sock");
    let listen = format!("listen = [\"unix:{}\", \"127.0.0.1:0\"]", socket.display());
    let text = configuration(&group, directory.path()).replace("listen = [\"127.0.0.1:0\"]", &listen);
    let pontoon = bridge_with(&text, &group, directory.path());
    eventually("all servers are known", || pontoon.metric("pontoon_cluster_nodes", "") == 3);
    let address = pontoon.addresses().into_iter().find(|address| address.starts_with("127.0.0.1:")).unwrap();
    let port = address.strip_prefix("127.0.0.1:").unwrap();
    let mut client = Wire::unix(&socket);
    let sentinels = String::from_utf8(client.ask(&["SENTINEL", "SENTINELS", MASTER_NAME])).unwrap();
    let named = format!("\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n$4\r\nport\r\n${}\r\n{port}\r\n", port.len());
    assert_eq!(sentinels.matches(&named).count(), 2, "{named}: {sentinels}");
    Wire::tcp(("127.0.0.1", primary_port(&mut client))).expect(&["SET", "k", "v"], "+OK\r\n");
}
