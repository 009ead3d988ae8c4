//! What pontoon makes of what sentinels say: sentinels that lie, sentinels that are down or hang, and clients of a Unix socket.

use std::net::TcpListener;

use super::{bridge, bridge_with, configuration, configuration_with, primary_port, wait_until_known};
use crate::harness::{
    Authority, Forwarder, MASTER_NAME, Pontoon, Redis, SentinelGroup, SentinelMember, SentinelSettings, Wire,
    eventually, free_port,
};

const FOLLOWED: &str = "failover, the primary's port leads to another server";
const SOON: &str = "refresh = \"1s\"\n";

/// Waits until the servers were looked up several times.
#[track_caller]
fn wait_for_look_ups(pontoon: &Pontoon) {
    let done = || pontoon.metric("pontoon_cluster_refreshes_total", "");
    let before = done();
    eventually("the servers are looked up", || done() >= before + 3);
}

/// Makes sentinels name another server as the primary.
fn lie(liars: &[SentinelMember], port: u16) {
    for liar in liars {
        assert_eq!(liar.text(&["SENTINEL", "REMOVE", MASTER_NAME]), "+OK\r\n");
        // A quorum that is never reached: it starts no failover.
        let words = ["SENTINEL", "MONITOR", MASTER_NAME, "127.0.0.1", &port.to_string(), "9"];
        assert_eq!(liar.text(&words), "+OK\r\n");
    }
}

/// Asserts that clients write to this server.
#[track_caller]
fn assert_leads_to(server: &SentinelMember, pontoon: &Pontoon) {
    let port = primary_port(&mut pontoon.client());
    let value = fastrand::u64(..).to_string();
    let mut client = Wire::tcp(("127.0.0.1", port));
    client.expect(&["SET", "k", &value], "+OK\r\n");
    let reply = format!("${}\r\n{value}\r\n", value.len());
    server.wire().expect(&["GET", "k"], &reply);
}

#[test]
fn a_sentinel_that_names_a_replica_leads_no_client_there() {
    let group = SentinelGroup::start(SentinelSettings::tls());
    lie(&group.sentinels[..1], group.servers[1].port());
    let directory = tempfile::tempdir().unwrap();
    let pontoon = bridge(&group, directory.path());
    assert_leads_to(&group.servers[0], &pontoon);
}

#[test]
fn a_sentinel_that_names_a_foreign_server_leads_no_client_there() {
    let group = SentinelGroup::start(SentinelSettings::tls());
    let foreign = Redis::start(group.authority());
    let directory = tempfile::tempdir().unwrap();
    let pontoon = bridge(&group, directory.path());
    assert_leads_to(&group.servers[0], &pontoon);
    lie(&group.sentinels[..1], foreign.tls_port);
    assert_leads_to(&group.servers[0], &pontoon);
    // The same from the start.
    drop(pontoon);
    let pontoon = bridge(&group, directory.path());
    assert_leads_to(&group.servers[0], &pontoon);
}

/// Asserts that the log names the server with this port, which all sentinels name as the primary, and says why it is not followed.
#[track_caller]
fn assert_not_followed(group: &SentinelGroup, port: u16, reason: &str) {
    let directory = tempfile::tempdir().unwrap();
    let pontoon =
        bridge_with(&configuration_with(group, directory.path(), "", SOON), group, directory.path());
    pontoon.allows("");
    wait_until_known(group, &pontoon);
    lie(&group.sentinels, port);
    let record = pontoon.wait_for_log("the primary that most sentinels name is not followed");
    assert_eq!(record["node"], format!("127.0.0.1:{port}"), "{record}");
    assert_eq!(record["followed"], format!("127.0.0.1:{}", group.servers[0].port()), "{record}");
    assert!(record["reason"].as_str().unwrap().contains(reason), "{record}");
    assert_eq!(pontoon.log_count(FOLLOWED), 0);
}

#[test]
fn the_log_names_a_replica_that_the_sentinels_take_for_the_primary() {
    let group = SentinelGroup::start(SentinelSettings::tls());
    assert_not_followed(&group, group.servers[1].port(), "it says that it is a replica");
}

#[test]
fn the_log_names_a_primary_whose_certificate_is_not_trusted() {
    let group = SentinelGroup::start(SentinelSettings::tls());
    let authority = Authority::new();
    let foreign = Redis::start(&authority);
    assert_not_followed(&group, foreign.tls_port, "TLS handshake with 127.0.0.1");
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
    assert_leads_to(&group.servers[0], &pontoon);
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
    wait_until_known(&group, &pontoon);
    let address = pontoon.addresses().into_iter().find(|address| address.starts_with("127.0.0.1:")).unwrap();
    let port = address.strip_prefix("127.0.0.1:").unwrap();
    let mut client = Wire::unix(&socket);
    let sentinels = String::from_utf8(client.ask(&["SENTINEL", "SENTINELS", MASTER_NAME])).unwrap();
    let named = format!("\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n$4\r\nport\r\n${}\r\n{port}\r\n", port.len());
    assert_eq!(sentinels.matches(&named).count(), 2, "{named}: {sentinels}");
    Wire::tcp(("127.0.0.1", primary_port(&mut client))).expect(&["SET", "k", "v"], "+OK\r\n");
}

/// A server that fell behind in a failover may still call itself a primary, and a sentinel may still name it.
#[test]
fn an_older_configuration_is_not_followed_while_the_primary_is_down() {
    let mut group = SentinelGroup::start(SentinelSettings::tls());
    let foreign = Redis::start(group.authority());
    let primary = group.fail_over();
    group.settle();
    let directory = tempfile::tempdir().unwrap();
    let pontoon =
        bridge_with(&configuration_with(&group, directory.path(), "", SOON), &group, directory.path());
    pontoon.allows("");
    wait_until_known(&group, &pontoon);
    lie(&group.sentinels[..1], foreign.tls_port);
    // No sentinel gives it up during the test.
    group.servers[primary].kill();
    wait_for_look_ups(&pontoon);
    assert_eq!(pontoon.log_count(FOLLOWED), 0);
    group.servers[primary].restart();
    assert_leads_to(&group.servers[primary], &pontoon);
}

#[test]
fn a_sentinel_that_hangs_delays_no_look_up() {
    let group = SentinelGroup::start(SentinelSettings::tls());
    let port = group.sentinels[0].client_port();
    let hanging = Forwarder::to(port);
    hanging.hold_new();
    let directory = tempfile::tempdir().unwrap();
    // Longer than this test waits for anything.
    let text = configuration_with(&group, directory.path(), "limits.connect_timeout = \"60s\"", "");
    let text = text.replace(&format!("localhost:{port}"), &hanging.endpoint());
    let pontoon = bridge_with(&text, &group, directory.path());
    pontoon.allows("");
    wait_until_known(&group, &pontoon);
    let new = group.fail_over();
    eventually("the failover is followed", || pontoon.log_count(FOLLOWED) == 1);
    assert_leads_to(&group.servers[new], &pontoon);
}

#[test]
fn look_ups_leave_shared_connections_alone() {
    let group = SentinelGroup::start(SentinelSettings::tls());
    let directory = tempfile::tempdir().unwrap();
    let text = configuration_with(&group, directory.path(), "sharing = \"shared\"", SOON);
    let pontoon = bridge_with(&text, &group, directory.path());
    pontoon.allows("");
    wait_until_known(&group, &pontoon);
    let mut client = Wire::tcp(("127.0.0.1", primary_port(&mut pontoon.client())));
    client.expect(&["SET", "k", "v"], "+OK\r\n");
    let shared = || {
        let list = group.servers[0].text(&["CLIENT", "LIST"]);
        let ids = list.lines().filter(|line| line.contains(" cmd=set "));
        ids.map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let before = shared();
    assert_eq!(before.len(), 1);
    wait_for_look_ups(&pontoon);
    assert_eq!(shared(), before);
    client.expect(&["GET", "k"], "$1\r\nv\r\n");
}

#[test]
fn the_primary_gets_its_port_as_soon_as_it_is_free() {
    let group = SentinelGroup::start(SentinelSettings::tls());
    let port = free_port();
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ports = format!("ports = \"{port}-{port}\"\n{SOON}");
    let pontoon =
        bridge_with(&configuration_with(&group, directory.path(), "", &ports), &group, directory.path());
    pontoon.expects("the primary has no local port");
    pontoon.allows("");
    pontoon.wait_for_log("the primary has no local port");
    pontoon.wait_for_log("node has no local port");
    drop(taken);
    pontoon.wait_for_log("the primary's port is open");
    assert_eq!(primary_port(&mut pontoon.client()), port);
    assert_leads_to(&group.servers[0], &pontoon);
}
