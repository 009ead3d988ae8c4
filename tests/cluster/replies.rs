//! What a client receives that reads replies to the byte.

use std::io::Write;
use std::thread;

use super::{assert_local, bridge, local_port, local_ports, naming_nodes, shared};
use crate::harness::{Cluster, Engine, Wire, command, expect_unknown};
use crate::transparent::DEEP;

/// Slot 12182, of the third primary.
const KEY: &str = "foo";
const SLOT: u16 = 12_182;
/// Slot 0, of the first primary.
const OTHER: &str = "06S";

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// A client of a node, through the bridge.
fn at(port: u16) -> Wire {
    Wire::tcp(("127.0.0.1", port))
}

#[test]
fn addresses_asked_for_in_a_transaction_lead_to_the_bridge() {
    let shared = shared();
    for hello in ["2", "3"] {
        let mut client = shared.pontoon.client();
        client.ask(&["HELLO", hello]);
        let slots = client.ask(&["CLUSTER", "SLOTS"]);
        client.expect(&["MULTI"], "+OK\r\n");
        client.expect(&["PING"], "+QUEUED\r\n");
        for command in naming_nodes() {
            client.expect(&["CLUSTER", command], "+QUEUED\r\n");
        }
        client.expect(&["ECHO", "-MOVED 1 1.2.3.4:6379"], "+QUEUED\r\n");
        let replies = text(client.ask(&["EXEC"]));
        assert_local(&replies, &shared.pontoon, &shared.cluster);
        let rest = replies.strip_prefix(&format!("*{}\r\n+PONG\r\n", naming_nodes().len() + 2)).unwrap();
        assert!(
            rest.starts_with(&text(slots)) && rest.ends_with("$21\r\n-MOVED 1 1.2.3.4:6379\r\n"),
            "{rest}"
        );

        client.expect(&["MULTI"], "+OK\r\n");
        client.expect(&["CLUSTER", "SLOTS"], "+QUEUED\r\n");
        client.expect(&["DISCARD"], "+OK\r\n");
        client.expect(&["PING"], "+PONG\r\n");
        assert_local(&text(client.ask(&["CLUSTER", "SLOTS"])), &shared.pontoon, &shared.cluster);
    }
}

#[test]
fn in_resp3_exec_confirms_subscriptions_within_its_reply() {
    let shared = shared();
    let requests = [
        &["MULTI"][..],
        &["SUBSCRIBE", "one", "two"],
        &["PING"],
        &["EXEC"],
        &["ECHO", "one"],
        &["MULTI"],
        &["UNSUBSCRIBE"],
        &["EXEC"],
        &["QUIT"],
    ];
    let run = |mut wire: Wire| {
        wire.ask(&["HELLO", "3"]);
        wire.send(&requests.map(command).concat());
        text(wire.rest())
    };
    let direct = run(shared.cluster.nodes[0].wire());
    assert!(direct.contains(">3\r\n$9\r\nsubscribe\r\n"), "{direct}");
    assert_eq!(run(shared.pontoon.client()), direct);
}

#[test]
fn a_failed_transaction_gets_redis_own_error() {
    let shared = shared();
    let first = local_port(&shared.pontoon, &shared.cluster, 0);
    let mut client = at(first);
    client.expect(&["MULTI"], "+OK\r\n");
    client.expect(&["CLUSTER", "SLOTS"], "+QUEUED\r\n");
    let third = local_port(&shared.pontoon, &shared.cluster, 2);
    client.expect(&["GET", KEY], &format!("-MOVED {SLOT} 127.0.0.1:{third}\r\n"));
    client.expect(&["EXEC"], "-EXECABORT Transaction discarded because of previous errors.\r\n");
    client.expect(&["EXEC"], "-ERR EXEC without MULTI\r\n");
    client.expect(&["WATCH", OTHER], "+OK\r\n");
    at(first).expect(&["SET", OTHER, "changed"], "+OK\r\n");
    client.expect(&["MULTI"], "+OK\r\n");
    client.expect(&["CLUSTER", "NODES"], "+QUEUED\r\n");
    client.expect(&["EXEC"], "*-1\r\n");
    assert_local(&text(client.ask(&["CLUSTER", "NODES"])), &shared.pontoon, &shared.cluster);
}

#[test]
fn a_long_pipeline_is_answered_in_order() {
    let shared = shared();
    let mut client = at(local_port(&shared.pontoon, &shared.cluster, 2));
    client.expect(&["SET", "{foo}pipeline", "value"], "+OK\r\n");
    let slots = text(client.ask(&["CLUSTER", "SLOTS"]));
    let pair = [command(&["CLUSTER", "SLOTS"]), command(&["GET", "{foo}pipeline"])].concat();
    let mut writer = client.writer();
    let sender = thread::spawn(move || writer.write_all(&pair.repeat(1000)));
    for _ in 0..1000 {
        client.expect_next(&slots);
        client.expect_next("$5\r\nvalue\r\n");
    }
    sender.join().unwrap().unwrap();
}

#[test]
fn a_value_that_looks_like_an_address_passes_unchanged() {
    let shared = shared();
    let node = &shared.cluster.nodes[2];
    let mut direct = node.wire();
    let texts = [
        "-MOVED 1 1.2.3.4:6379".to_owned(),
        format!("-MOVED {SLOT} {}\r\n", node.endpoint()),
        format!("ASK {SLOT} {}", shared.cluster.nodes[0].endpoint()),
        text(direct.ask(&["CLUSTER", "NODES"])),
        text(direct.ask(&["CLUSTER", "SLOTS"])),
    ];
    for hello in ["2", "3"] {
        let mut client = at(local_port(&shared.pontoon, &shared.cluster, 2));
        client.ask(&["HELLO", hello]);
        for value in &texts {
            let bulk = format!("${}\r\n{value}\r\n", value.len());
            client.expect(&["SET", "{foo}value", value], "+OK\r\n");
            client.expect(&["GET", "{foo}value"], &bulk);
            client.expect(&["ECHO", value], &bulk);
            client.expect(
                &["DEL", "{foo}list"],
                ":1\r\n".replace('1', if value == &texts[0] { "0" } else { "1" }).as_str(),
            );
            client.expect(&["RPUSH", "{foo}list", value, "CLUSTER", "NODES"], ":3\r\n");
            client.expect(&["LRANGE", "{foo}list", "0", "0"], &format!("*1\r\n{bulk}"));
        }
        client.expect(&["EVAL", "return {ok='MOVED 1 1.2.3.4:6379'}", "0"], "+MOVED 1 1.2.3.4:6379\r\n");
        client.expect(&["DEL", "{foo}list"], ":1\r\n");
    }
}

#[test]
fn resp3_clients_receive_shards_as_maps() {
    let shared = shared();
    let mut client = shared.pontoon.client();
    client.ask(&["HELLO", "3"]);
    if Engine::here().is_before_7() {
        expect_unknown(&mut shared.cluster.nodes[0].wire(), &mut client, &["CLUSTER", "SHARDS"]);
        return;
    }
    let direct = text(shared.cluster.nodes[0].wire().ask(&["CLUSTER", "SHARDS"]));
    let shards = text(client.ask(&["CLUSTER", "SHARDS"]));
    // In RESP2, names and values are both elements. Valkey 9 has a third pair, the shard's id.
    let elements: usize = direct.lines().nth(1).unwrap().trim_start_matches('*').parse().unwrap();
    assert!(shards.starts_with(&format!("*3\r\n%{}\r\n", elements / 2)), "{shards}");
    let ports = local_ports(&shared.pontoon);
    assert_eq!(ports.len(), 6);
    for port in ports.values() {
        assert_eq!(shards.matches(&format!("$4\r\nport\r\n:{port}\r\n")).count(), 1, "{port}: {shards}");
    }
    assert!(!shards.contains("tls-port") && shards.matches("%7\r\n").count() == 6, "{shards}");
    assert_local(&shards, &shared.pontoon, &shared.cluster);
}

#[test]
fn redirects_lead_to_the_bridge() {
    let sharded = !Engine::here().is_before_7();
    for cluster in [Cluster::start(), Cluster::named()] {
        let pontoon = bridge(&cluster, &[]);
        let ports: Vec<u16> = (0..3).map(|node| local_port(&pontoon, &cluster, node)).collect();
        let (mut first, mut third) = (at(ports[0]), at(ports[2]));
        let moved = format!("-MOVED {SLOT} 127.0.0.1:{}\r\n", ports[2]);
        for protocol in ["2", "3"] {
            first.ask(&["HELLO", protocol]);
            first.expect(&["SET", KEY, "bar"], &moved);
            if sharded {
                first.expect(&["SPUBLISH", KEY, "message"], &moved);
            }
        }
        pontoon.client().expect(&["GET", KEY], &moved);
        third.expect(&["SET", KEY, "bar"], "+OK\r\n");

        let mut subscriber = at(ports[2]);
        if sharded {
            subscriber.expect(&["SSUBSCRIBE", KEY], "*3\r\n$10\r\nssubscribe\r\n$3\r\nfoo\r\n:1\r\n");
            let away = format!("-MOVED 0 127.0.0.1:{}\r\n", ports[0]);
            subscriber.expect(&["SSUBSCRIBE", OTHER], &away);
        }

        cluster.begin_migration(SLOT, 2, 0);
        cluster.move_keys(SLOT, 2, 0);
        third.expect(&["GET", KEY], &format!("-ASK {SLOT} 127.0.0.1:{}\r\n", ports[0]));
        first.expect(&["GET", KEY], &moved);
        first.expect(&["ASKING"], "+OK\r\n");
        first.expect(&["GET", KEY], "$3\r\nbar\r\n");
        first.expect(&["ASKING"], "+OK\r\n");
        first.expect(&["SET", "{foo}2", "new"], "+OK\r\n");
        // The node that owns a migrating slot reports it without an address.
        let nodes = text(third.ask(&["CLUSTER", "NODES"]));
        assert!(nodes.contains(&format!(" [{SLOT}->-{}]", cluster.nodes[0].id)), "{nodes}");
        assert_local(&nodes, &pontoon, &cluster);
        cluster.end_migration(SLOT, 2, 0);
        third.expect(&["GET", KEY], &format!("-MOVED {SLOT} 127.0.0.1:{}\r\n", ports[0]));
        first.expect(&["GET", KEY], "$3\r\nbar\r\n");
        if sharded {
            subscriber.expect_next("*3\r\n$12\r\nsunsubscribe\r\n$3\r\nfoo\r\n:0\r\n");
            subscriber.expect(&["SSUBSCRIBE", KEY], &format!("-MOVED {SLOT} 127.0.0.1:{}\r\n", ports[0]));
        }
    }
}

#[test]
fn a_node_still_in_handshake_is_listed_without_its_address() {
    let cluster = Cluster::start();
    let pontoon = bridge(&cluster, &[]);
    // No server answers at this address.
    cluster.nodes[0].wire().expect(&["CLUSTER", "MEET", "127.0.0.1", "9", "19"], "+OK\r\n");
    let nodes = text(at(local_port(&pontoon, &cluster, 0)).ask(&["CLUSTER", "NODES"]));
    assert!(nodes.contains("127.0.0.1:0@19 handshake"), "{nodes}");
    assert_local(&nodes, &pontoon, &cluster);
}

#[test]
fn addresses_lead_to_the_bridge_however_they_are_asked_for() {
    let shared = shared();
    let mut client = shared.pontoon.client();
    for request in ["CLUSTER SLOTS\r\n", "cluster nodes\r\n", "  cLuStEr  slots \n"] {
        client.send(request.as_bytes());
        assert_local(&text(client.reply()), &shared.pontoon, &shared.cluster);
    }
    let primary = &shared.cluster.nodes[0].id;
    for command in ["REPLICAS", "slaves"] {
        let replicas = text(client.ask(&["CLUSTER", command, primary]));
        assert!(replicas.starts_with("*1\r\n"), "{replicas}");
        assert_local(&replicas, &shared.pontoon, &shared.cluster);
    }
    // A quoted command could hide any name.
    for request in ["CLUSTER \"SLOTS\"\r\n", "'CLUSTER' SLOTS\r\n", "\"\\x43LUSTER\" NODES\r\n"] {
        let mut client = shared.pontoon.client();
        client.send(request.as_bytes());
        assert!(text(client.reply()).starts_with("-ERR pontoon: a command in quotes"), "{request}");
        client.expect_end();
    }
    client.send(b"ECHO \"CLUSTER SLOTS\"\r\n");
    client.expect_next("$13\r\nCLUSTER SLOTS\r\n");
    // Byte by byte.
    for byte in command(&["CLUSTER", "SLOTS"]) {
        client.send(&[byte]);
    }
    assert_local(&text(client.reply()), &shared.pontoon, &shared.cluster);
}

#[test]
fn a_client_that_speaks_no_resp_after_asking_gets_no_address() {
    let shared = shared();
    let mut client = shared.pontoon.client();
    client.send(&[command(&["CLUSTER", "SLOTS"]), b"*nonsense\r\n".to_vec()].concat());
    let got = text(client.rest());
    for node in &shared.cluster.nodes {
        assert!(!got.contains(&node.port.to_string()), "{got}");
    }
}

#[test]
fn what_a_client_says_to_one_node_is_not_repeated_to_the_next() {
    let shared = shared();
    let port = local_port(&shared.pontoon, &shared.cluster, 5);
    let moved = format!("-MOVED {SLOT} 127.0.0.1:{}\r\n", local_port(&shared.pontoon, &shared.cluster, 2));
    for _ in 0..10 {
        let mut reader = at(port);
        reader.expect(&["GET", KEY], &moved);
        reader.expect(&["READONLY"], "+OK\r\n");
        assert!(reader.ask(&["GET", KEY]).starts_with(b"$"));
        reader.expect(&["ASKING"], "+OK\r\n");
    }
}

#[test]
fn addresses_after_a_deeply_nested_reply_still_lead_to_the_bridge() {
    if Engine::here().is_before_7() {
        return;
    }
    let shared = shared();
    let mut client = at(local_port(&shared.pontoon, &shared.cluster, 0));
    for script in DEEP {
        assert!(client.ask(&["EVAL", script, "0"]).len() > 8_000);
        let third = local_port(&shared.pontoon, &shared.cluster, 2);
        client.expect(&["GET", KEY], &format!("-MOVED {SLOT} 127.0.0.1:{third}\r\n"));
        assert_local(&text(client.ask(&["CLUSTER", "SLOTS"])), &shared.pontoon, &shared.cluster);
    }
}

#[test]
fn addresses_asked_for_before_nonsense_lead_to_the_bridge() {
    let shared = shared();
    let third = local_port(&shared.pontoon, &shared.cluster, 2);
    for nonsense in [&b"*x\r\n"[..], b"*1\r\n$536870913\r\n"] {
        let mut client = at(local_port(&shared.pontoon, &shared.cluster, 0));
        client.send(&[&command(&["GET", KEY]), nonsense].concat());
        client.expect_next(&format!("-MOVED {SLOT} 127.0.0.1:{third}\r\n"));
        let last_words = text(client.reply());
        assert!(last_words.starts_with("-ERR Protocol error: invalid "), "{last_words}");
        client.expect_end();
    }
}

#[test]
fn an_error_longer_than_any_redirect_passes_unchanged() {
    let shared = shared();
    let script = "return redis.error_reply('ERR ' .. string.rep('x', 300000))";
    let direct = shared.cluster.ask(0, &["EVAL", script, "0"]);
    let mut client = at(local_port(&shared.pontoon, &shared.cluster, 0));
    assert!(text(client.ask(&["EVAL", script, "0"])) == direct);
    client.expect(&["PING"], "+PONG\r\n");
}
