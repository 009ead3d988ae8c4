//! Everything that sentinels and servers say of the group, in replies and messages: it has local addresses only, except where the harness makes
//! an exception.

use super::{bridge, named_with_passwords, primary_port};
use crate::cluster::local_ports;
use crate::harness::{
    Engine, MASTER_NAME, Pontoon, SentinelGroup, SentinelSettings, Wire, assert_reveals_no_address, command,
    eventually,
};

/// Subcommands of SENTINEL that change something.
const CHANGES: [&str; 7] = [
    "failover",
    "flushconfig",
    "monitor",
    "remove",
    "reset",
    "set",
    // Its help would do, but Redis 6.2 answers that twice.
    "simulate-failure",
];

/// All other subcommands of SENTINEL, with arguments.
const SENTINEL: [&str; 21] = [
    "ckquorum mymaster",
    "config get *",
    "debug",
    "get-master-addr-by-name mymaster",
    "get-master-addr-by-name other",
    "get-primary-addr-by-name mymaster",
    "help",
    "info-cache mymaster",
    "is-master-down-by-addr 127.0.0.1 1 0 *",
    "is-primary-down-by-addr 127.0.0.1 1 0 *",
    "master mymaster",
    "master other",
    "masters",
    "myid",
    "pending-scripts",
    "primaries",
    "primary mymaster",
    "replicas mymaster",
    "replicas other",
    "sentinels mymaster",
    "slaves mymaster",
];

/// What else sentinels answer.
const OF_SENTINELS: [&str; 7] =
    ["CLIENT INFO", "CLIENT LIST", "COMMAND DOCS", "HELLO", "INFO", "INFO sentinel", "ROLE"];

const OF_SERVERS: [&str; 7] =
    ["CLIENT INFO", "CLIENT LIST", "HELLO", "INFO", "INFO everything", "INFO replication", "ROLE"];

fn words(request: &str) -> Vec<&str> {
    request.split(' ').collect()
}

/// Asserts that every subcommand of SENTINEL that the engine lists is in one of the lists above.
fn assert_all_are_asked(group: &SentinelGroup) {
    if Engine::here().is_before_7() {
        return;
    }
    let listed = group.sentinels[0].text(&["COMMAND", "LIST", "FILTERBY", "PATTERN", "sentinel|*"]);
    let listed: Vec<&str> = listed.lines().filter_map(|line| line.strip_prefix("sentinel|")).collect();
    assert!(listed.contains(&"masters"), "{listed:?}");
    let is_asked = |name: &str| {
        CHANGES.contains(&name) || SENTINEL.iter().any(|request| request.split(' ').next() == Some(name))
    };
    let new: Vec<_> = listed.iter().filter(|name| !is_asked(name)).collect();
    assert!(new.is_empty(), "not known: {new:?}");
}

#[track_caller]
fn assert_local(group: &SentinelGroup, request: &[&str], reply: &[u8]) {
    assert_reveals_no_address(request, reply, ".sentinel.test", &group.ports());
}

fn assert_sentinels_replies_are_local(group: &SentinelGroup, pontoon: &Pontoon) {
    let of_sentinel = SENTINEL.map(|request| format!("SENTINEL {request}"));
    for protocol in ["2", "3"] {
        let mut client = pontoon.client();
        client.ask(&["HELLO", protocol]);
        for request in of_sentinel.iter().map(String::as_str).chain(OF_SENTINELS).map(words) {
            let reply = client.try_ask(&request).unwrap_or_else(|| panic!("{request:?}: no reply"));
            assert_local(group, &request, &reply);
        }
    }
}

fn assert_all_replies_are_local(group: &SentinelGroup, pontoon: &Pontoon) {
    assert_sentinels_replies_are_local(group, pontoon);
    let mut ports: Vec<u16> = local_ports(pontoon).into_values().collect();
    ports.push(primary_port(&mut pontoon.client()));
    assert!(ports.len() >= group.servers.len(), "{ports:?}");
    for protocol in ["2", "3"] {
        for port in &ports {
            let mut client = Wire::tcp(("127.0.0.1", *port));
            client.ask(&["HELLO", protocol]);
            for request in OF_SERVERS.map(words) {
                assert_local(group, &request, &client.ask(&request));
            }
            client.expect(&["MULTI"], "+OK\r\n");
            let queued = OF_SERVERS.iter().filter(|request| **request != "HELLO");
            queued.for_each(|request| client.expect(&words(request), "+QUEUED\r\n"));
            let replies = client.ask(&["EXEC"]);
            assert!(replies.starts_with(b"*"), "{}", replies.escape_ascii());
            assert_local(group, &["EXEC"], &replies);
        }
    }
}

/// A client that receives all messages.
fn subscriber(pontoon: &Pontoon, protocol: &str) -> Wire {
    let mut client = pontoon.client();
    client.ask(&["HELLO", protocol]);
    client.send(&command(&["PSUBSCRIBE", "*"]));
    assert!(client.reply().ends_with(b"psubscribe\r\n$1\r\n*\r\n:1\r\n"));
    client
}

/// Asserts that all messages so far are local, and returns them.
fn messages(group: &SentinelGroup, mut client: Wire) -> String {
    client.send(&command(&["PING"]));
    let mut messages = String::new();
    loop {
        let message = client.reply();
        if message == b"+PONG\r\n" || message.starts_with(b"*2\r\n$4\r\npong\r\n") {
            return messages;
        }
        assert_local(group, &["PSUBSCRIBE"], &message);
        messages += &String::from_utf8(message).unwrap();
    }
}

fn nothing_names_a_member(settings: SentinelSettings) {
    let mut group = SentinelGroup::start(settings);
    assert_all_are_asked(&group);
    let directory = tempfile::tempdir().unwrap();
    let pontoon = bridge(&group, directory.path());
    // Servers that are down, and one that most sentinels no longer name.
    pontoon.allows("");
    assert_all_replies_are_local(&group, &pontoon);
    let port = primary_port(&mut pontoon.client());
    let subscribers = ["2", "3"].map(|protocol| subscriber(&pontoon, protocol));
    group.hold_writes(0);
    group.kill(0);
    group.wait_for_failover(0);
    assert_sentinels_replies_are_local(&group, &pontoon);
    group.servers[0].restart();
    group.settle();
    group.add_replica();
    eventually("the new server is known", || pontoon.metric("pontoon_cluster_nodes", "") == 4);
    for subscriber in subscribers {
        let messages = messages(&group, subscriber);
        let switch = messages.lines().find(|line| line.starts_with(&format!("{MASTER_NAME} 127.0.0.1 ")));
        let switch = switch.unwrap_or_else(|| panic!("no +switch-master: {messages}"));
        assert!(switch.ends_with(&format!(" 127.0.0.1 {port}")), "{switch}");
    }
    assert_all_replies_are_local(&group, &pontoon);
    assert_eq!(primary_port(&mut pontoon.client()), port);
}

#[test]
fn no_reply_and_no_message_names_a_server_or_a_sentinel() {
    nothing_names_a_member(SentinelSettings::tls());
}

#[test]
fn no_reply_and_no_message_names_a_host() {
    nothing_names_a_member(named_with_passwords());
}
