//! Changes of a route to a Sentinel group while clients use it, and a second process that takes over.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use super::{HEAD, configuration_with, route};
use crate::harness::{
    Authority, Cluster, MASTER_NAME, Pontoon, Redis, SentinelGroup, SentinelSettings, Wire, eventually,
    free_port, pontoon,
};
use crate::reload::Configured;

/// The local port of each server, by its endpoint.
fn ports(pontoon: &Pontoon) -> BTreeMap<String, u16> {
    let routes: Value = serde_json::from_str(&pontoon.get("/routes").1).unwrap();
    let upstreams = routes[0]["upstreams"].as_array().unwrap().iter();
    let port = |upstream: &Value| {
        let port = u16::try_from(upstream["local_port"].as_u64()?).unwrap();
        Some((upstream["endpoint"].as_str()?.to_owned(), port))
    };
    upstreams.filter_map(port).collect()
}

#[track_caller]
fn wait_for_servers(pontoon: &Pontoon, count: usize) -> BTreeMap<String, u16> {
    eventually("the servers are known", || ports(pontoon).len() == count);
    ports(pontoon)
}

/// The local port of the primary, as the sentinels' listener reports it.
fn primary_port(pontoon: &Pontoon, name: &str) -> u16 {
    let mut port = None;
    eventually("the primary has a local port", || {
        let reply = pontoon.client().ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name]);
        port = String::from_utf8(reply).unwrap().lines().nth(4).and_then(|port| port.parse().ok());
        port.is_some_and(|port| port != 0)
    });
    port.unwrap()
}

fn client_of(port: u16) -> Wire {
    Wire::tcp(("127.0.0.1", port))
}

fn tls_group() -> SentinelGroup {
    SentinelGroup::start(SentinelSettings::tls())
}

fn id(client: &mut Wire) -> Vec<u8> {
    client.ask(&["CLIENT", "ID"])
}

#[test]
fn other_limits_and_times_keep_ports_and_sessions() {
    let mut group = tls_group();
    let bridge = Configured::with(HEAD, &route(&group, "", ""));
    bridge.pontoon.allows("TLS handshake with");
    let before = wait_for_servers(&bridge.pontoon, 3);
    let port = primary_port(&bridge.pontoon, MASTER_NAME);
    let mut client = client_of(port);
    let first = id(&mut client);
    let mut subscriber = bridge.pontoon.client();
    assert!(subscriber.ask(&["SUBSCRIBE", "+slave", "+switch-master"]).starts_with(b"*3"));
    subscriber.reply();

    bridge.reload(&route(&group, "limits.connect_timeout = \"7s\"\nlimits.idle_timeout = \"1h\"", ""));
    bridge.reload(&route(&group, "limits.connect_timeout = \"7s\"", "refresh = \"700ms\""));
    // The range does not contain the ports of the servers that are known.
    let start = free_port();
    let range = start..=start + 9;
    let of_range = format!("ports = \"{}-{}\"", range.start(), range.end());
    bridge.reload(&route(&group, "", &of_range));
    assert_eq!(id(&mut client), first, "it is the same connection");
    assert_eq!((ports(&bridge.pontoon), primary_port(&bridge.pontoon, MASTER_NAME)), (before.clone(), port));
    client_of(port).expect(&["SET", "k", "v"], "+OK\r\n");

    group.add_replica();
    let after = wait_for_servers(&bridge.pontoon, 4);
    for (endpoint, port) in after {
        match before.get(&endpoint) {
            Some(known) => assert_eq!(*known, port),
            None => assert!(range.contains(&port), "{port}"),
        }
    }
    // An old session of a sentinel's client gets messages with local ports of servers that were found since.
    let message = String::from_utf8(subscriber.reply()).unwrap();
    assert!(message.contains("+slave"), "{message}");
    for server in &group.servers {
        assert!(!message.contains(&server.port().to_string()), "{message}");
    }
    assert_eq!(id(&mut client), first);
}

#[test]
fn clients_notice_no_reload_and_then_follow_a_failover() {
    let group = tls_group();
    let bridge = Configured::with(HEAD, &route(&group, "", ""));
    bridge.pontoon.allows("");
    let port = primary_port(&bridge.pontoon, MASTER_NAME);
    let mut client = client_of(port);
    for round in 1..=10 {
        bridge.reload(&route(&group, &format!("limits.connect_timeout = \"{round}s\""), ""));
        client.expect(&["INCR", "n"], &format!(":{round}\r\n"));
        client_of(port).expect(&["GET", "n"], &format!("${}\r\n{round}\r\n", round.to_string().len()));
    }
    let old = group.primary().unwrap();
    group.refuse_writes(old);
    let new = group.fail_over();
    // The session was begun under settings that have been replaced ten times, and still ends with its primary.
    client.rest();
    eventually("the primary's port leads to the new primary", || {
        client_of(port).try_ask(&["INCR", "n"]).is_some_and(|reply| reply == b":11\r\n")
    });
    group.servers[new].wire().expect(&["GET", "n"], "$2\r\n11\r\n");
    group.accept_writes(old);
}

#[test]
fn another_group_of_the_same_sentinels_replaces_the_first() {
    let group = tls_group();
    let other = Redis::start(group.authority());
    for sentinel in &group.sentinels {
        let port = other.tls_port.to_string();
        let words = ["SENTINEL", "MONITOR", "other", "127.0.0.1", &port, "2"];
        sentinel.wire().expect(&words, "+OK\r\n");
    }
    let bridge = Configured::with(HEAD, &route(&group, "", ""));
    bridge.pontoon.allows("TLS handshake with");
    wait_for_servers(&bridge.pontoon, 3);
    let listener = bridge.pontoon.address();
    let old_port = primary_port(&bridge.pontoon, MASTER_NAME);
    let mut old_ports: Vec<u16> = ports(&bridge.pontoon).into_values().collect();
    old_ports.push(old_port);
    let mut client = client_of(old_port);
    client.expect(&["SET", "k", "of the first"], "+OK\r\n");

    bridge.reload(&route(&group, "", "").replace(MASTER_NAME, "other"));
    let new_port = primary_port(&bridge.pontoon, "other");
    assert_eq!(ports(&bridge.pontoon).keys().collect::<Vec<_>>(), [&format!("127.0.0.1:{}", other.tls_port)]);
    client_of(new_port).expect(&["GET", "k"], "$-1\r\n");
    for port in old_ports {
        eventually("the old listener is closed", || {
            port == new_port || TcpStream::connect(("127.0.0.1", port)).is_err()
        });
    }
    // As on other routes, a session goes on where it began.
    client.expect(&["GET", "k"], "$12\r\nof the first\r\n");
    let mut on_the_listener = Wire::tcp(listener);
    on_the_listener.expect(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME], "*-1\r\n");
}

#[test]
fn a_route_changes_from_a_server_and_a_cluster_to_a_group_and_back() {
    let group = tls_group();
    let cluster = Cluster::start();
    let alone = Redis::start(group.authority());
    let direct = |topology: &str, endpoint: String, authority: &Authority| {
        format!(
            "[[route]]\nname = \"a\"\ntopology = \"{topology}\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{endpoint}\"\n\
             tls.ca_files = \"{}\"\nlimits.max_clients = 100\n",
            authority.file()
        )
    };
    let of_alone = direct("standalone", alone.endpoint(), group.authority());
    let of_cluster = direct("cluster", cluster.endpoint(), cluster.authority());
    let of_group = route(&group, "name = \"a\"", "");
    let bridge = Configured::with(HEAD, &of_alone);
    bridge.pontoon.allows("");
    let mut first = bridge.pontoon.client();
    first.expect(&["SET", "k", "alone"], "+OK\r\n");
    let through_the_group = || {
        let before = wait_for_servers(&bridge.pontoon, 3);
        client_of(primary_port(&bridge.pontoon, MASTER_NAME)).expect(&["SET", "k", "group"], "+OK\r\n");
        before
    };
    for other in [&of_alone, &of_cluster] {
        bridge.reload(other);
        bridge.reload(&of_group);
        let of_servers = through_the_group();
        bridge.reload(other);
        for port in of_servers.into_values() {
            eventually("the servers' listeners are closed", || {
                TcpStream::connect(("127.0.0.1", port)).is_err()
                    || ports(&bridge.pontoon).values().any(|p| *p == port)
            });
        }
        assert!(bridge.pontoon.client().ask(&["INFO", "server"]).starts_with(b"$"));
    }
    eventually("the cluster's nodes are known", || ports(&bridge.pontoon).len() == 6);
    first.expect(&["GET", "k"], "$5\r\nalone\r\n");
}

#[test]
fn a_changed_ca_file_is_read_again_for_servers_and_sentinels() {
    let group = tls_group();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    fs::copy(Authority::new().file(), &file).unwrap();
    let ca = file.to_str().unwrap();
    let text = route(&group, "", "").replace(&group.authority().file(), ca);
    let bridge = Configured::with(HEAD, &text);
    bridge.pontoon.allows("TLS handshake with");
    bridge.pontoon.allows("nodes not known");
    bridge.pontoon.allows("sentinels gave no answer");
    bridge.pontoon.wait_for_log("nodes not known");
    fs::copy(group.authority().file(), &file).unwrap();
    bridge.pontoon.wait_for_log("certificates reloaded");
    wait_for_servers(&bridge.pontoon, 3);
    client_of(primary_port(&bridge.pontoon, MASTER_NAME)).expect(&["SET", "k", "v"], "+OK\r\n");
    // A file that no longer fits keeps new connections from both.
    fs::copy(Authority::new().file(), &file).unwrap();
    eventually("the change is noticed", || bridge.pontoon.log_count("certificates reloaded") >= 3);
    eventually("no new connection to a sentinel is verified", || {
        bridge.pontoon.client().try_ask(&["PING"]).is_none_or(|reply| reply.starts_with(b"-"))
    });
}

fn started(text: &str, directory: &Path) -> Pontoon {
    let file = directory.join(format!("{:08x}.toml", fastrand::u32(..)));
    fs::write(&file, text).unwrap();
    let started = Pontoon::run(&["--config", file.to_str().unwrap()]).ready();
    // The old process has ports of the range.
    started.allows("");
    started
}

#[test]
fn a_successor_takes_over_the_sentinels_listener_and_has_ports_of_its_own() {
    let group = tls_group();
    let directory = tempfile::tempdir().unwrap();
    let start = free_port();
    let range = format!("ports = \"{}-{}\"", start, start + 19);
    let text = |listen: &str| {
        let text = configuration_with(&group, directory.path(), "handover = true", &range);
        text.replace("listen = [\"127.0.0.1:0\"]", &format!("listen = [\"{listen}\"]"))
            + "[runtime]\nshutdown_delay = \"2s\"\n"
    };
    let mut old = started(&text("127.0.0.1:0"), directory.path());
    let of_old = wait_for_servers(&old, 3);
    let port = primary_port(&old, MASTER_NAME);
    let mut client = client_of(port);
    client.expect(&["INCR", "n"], ":1\r\n");

    let new = started(&text(&old.address().to_string()), directory.path());
    let admin = new.admin().to_string();
    assert!(pontoon(&["health", "--admin", &admin, "--wait", "20s"]).status.success());
    let of_new = wait_for_servers(&new, 3);
    assert!(of_new.values().all(|port| !of_old.values().any(|old| old == port)), "{of_old:?} {of_new:?}");
    client.expect(&["INCR", "n"], ":2\r\n");
    old.signal(Signal::TERM);
    client.expect_end();
    let mut served = 2;
    while old.is_running() {
        // Clients that ask the sentinels' listener reach whichever process has it.
        let primary = primary_port(&new, MASTER_NAME);
        if client_of(primary).try_ask(&["INCR", "n"]).is_some() {
            served += 1;
        }
    }
    let new_port = primary_port(&new, MASTER_NAME);
    assert!(new_port != port && of_new.values().any(|port| *port == new_port));
    client_of(new_port).expect(&["INCR", "n"], &format!(":{}\r\n", served + 1));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the old primary's port is closed");
}
