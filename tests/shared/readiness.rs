//! How soon a blocking command takes effect: connections are kept ready for such commands once clients have needed some.

use std::time::Duration;

use super::{pinned, shared};
use crate::harness::{Pontoon, Wire, command, eventually};

/// Reuse is set explicitly, because these tests are about connections that are kept ready.
const REUSE: [&str; 2] = ["--pool-reuse", "true"];

fn idle(pontoon: &Pontoon) -> u64 {
    pontoon.metric("pontoon_upstream_connections", "state=\"idle\"")
}

fn dialled(pontoon: &Pontoon) -> u64 {
    pontoon.metric("pontoon_upstream_leases_total", "origin=\"dialled\"")
}

/// `count` new clients that wait for the next entry.
fn readers(pontoon: &Pontoon, count: usize) -> Vec<Wire> {
    let mut clients: Vec<Wire> = (0..count).map(|_| pontoon.client()).collect();
    for client in &mut clients {
        client.expect(&["PING"], "+PONG\r\n");
    }
    for client in &mut clients {
        client.send(&command(&["XREAD", "BLOCK", "0", "STREAMS", "k", "$"]));
    }
    clients
}

#[test]
fn a_blocking_client_gets_a_ready_connection_after_others_needed_some() {
    let (redis, pontoon) = shared(&REUSE);
    assert_eq!(idle(&pontoon), 0, "nothing is kept ready before");
    let mut first = readers(&pontoon, 10);
    // Demand is counted by the second. Wherever a second begins, at least half of the clients fall into one.
    eventually("connections are ready", || idle(&pontoon) >= 5);
    let before = dialled(&pontoon);
    let second = readers(&pontoon, 5);
    eventually("all clients are blocked", || pinned(&pontoon) == 15);
    assert_eq!(dialled(&pontoon), before, "no client waits for a handshake");
    let mut direct = redis.direct();
    eventually("the server has all clients' commands", || {
        String::from_utf8(direct.ask(&["INFO", "clients"])).unwrap().contains("blocked_clients:15\r\n")
    });
    direct.ask(&["XADD", "k", "1-1", "f", "v"]);
    first.extend(second);
    for client in &mut first {
        assert!(String::from_utf8(client.reply()).unwrap().contains("1-1"));
    }
}

#[test]
fn no_more_connections_are_kept_ready_than_allowed() {
    let (_redis, pontoon) = shared(&[&REUSE[..], &["--pool-warm-max", "3"]].concat());
    let _readers = readers(&pontoon, 10);
    eventually("connections are ready", || idle(&pontoon) == 3);
    let mut other = pontoon.client();
    assert!(other.is_silent(Duration::from_secs(2)));
    // Demand is forgotten with time.
    assert!(idle(&pontoon) <= 3);
}
