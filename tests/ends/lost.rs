//! A client that is gone takes no element. The element comes a moment after the client has left.

use std::thread;
use std::time::Duration;

use super::blocking::Blocking;
use super::{End, Mode, clients_info};
use crate::cluster;
use crate::harness::{Authority, Cluster, Redis, Wire, eventually};

/// Number of clients of one round.
const CLIENTS: usize = 20;

/// Elements that a round may lose where direct clients lose none: on a busy machine, the bridge may not run between the end and the push. A
/// bridge that waits before it passes the end on loses all.
fn tolerated(gap: Duration) -> usize {
    if gap < TOGETHER { CLIENTS * 3 / 4 } else { CLIENTS / 10 }
}

/// From this gap on, all clients of a round end together. With smaller gaps, the ends themselves take too long.
const TOGETHER: Duration = Duration::from_millis(10);

/// Rounds on a busy machine.
const ROUNDS: usize = 3;

/// Lets clients block, and ends each of them `gap` before its element comes. Returns how many elements were taken.
fn taken(
    blocking: &Blocking,
    end: End,
    gap: Duration,
    tag: &str,
    connect: &dyn Fn() -> Wire,
    direct: &mut Wire,
) -> usize {
    let keys: Vec<String> = (0..CLIENTS).map(|n| format!("{{{tag}}}:{n}:{}", fastrand::u64(..))).collect();
    let clients: Vec<Wire> = keys
        .iter()
        .map(|key| {
            blocking.prepare(direct, key);
            let mut client = connect();
            client.send(&blocking.request(key));
            client
        })
        .collect();
    eventually("all clients are blocked", || clients_info(direct, "blocked_clients") == CLIENTS);
    let mut halves = Vec::new();
    if gap < TOGETHER {
        for (client, key) in clients.into_iter().zip(&keys) {
            halves.extend(end.of(client));
            // The gap is the scenario, not synchronisation.
            thread::sleep(gap);
            blocking.push(direct, key);
        }
    } else {
        halves.extend(clients.into_iter().filter_map(|client| end.of(client)));
        thread::sleep(gap);
        for key in &keys {
            blocking.push(direct, key);
        }
    }
    let taken = keys.iter().filter(|key| !blocking.is_kept(direct, key)).count();
    eventually("no client is blocked", || clients_info(direct, "blocked_clients") == 0);
    let received = halves.iter_mut().map(Wire::rest).filter(|rest| !rest.is_empty()).count();
    // A half-closed client that still received its element has not lost it.
    taken.saturating_sub(received)
}

/// Compares clients of the bridge to clients without it; `connect` makes them in this order. Returns the cases in which the bridge lost
/// more.
fn lost(
    name: &str,
    end: End,
    gap: u64,
    tag: &str,
    connect: [&dyn Fn() -> Wire; 2],
    direct: &mut Wire,
) -> Option<String> {
    let (blocking, gap) = (Blocking::named(name), Duration::from_millis(gap));
    let [bridged, unbridged] = connect;
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        let without = taken(blocking, end, gap, tag, unbridged, direct);
        let with = taken(blocking, end, gap, tag, bridged, direct);
        if with <= without + tolerated(gap) {
            return None;
        }
        seen.push((with, without));
    }
    Some(format!("{name} then {end:?}, element after {gap:?}: {seen:?}"))
}

#[track_caller]
fn assert_nothing(lost: Vec<String>) {
    assert!(lost.is_empty(), "of {CLIENTS} elements were lost (with the bridge, without): {lost:#?}");
}

fn assert_mode(mode: Mode) {
    let (redis, pontoon) = mode.with_redis(&[]);
    let mut direct = redis.direct();
    let connect: [&dyn Fn() -> Wire; 2] = [&|| pontoon.client(), &|| redis.direct()];
    let mut all = Vec::new();
    for end in End::ALL {
        all.extend([2, 20, 60].iter().filter_map(|&gap| lost("BLPOP", end, gap, "q", connect, &mut direct)));
    }
    for name in ["BRPOPLPUSH", "BLMOVE", "XREADGROUP", "BZPOPMIN"] {
        let ends = [End::Close, End::Reset].into_iter();
        all.extend(ends.filter_map(|end| lost(name, end, 20, "q", connect, &mut direct)));
    }
    assert_nothing(all);
}

#[test]
fn a_client_that_left_takes_no_element_on_its_own_connection() {
    assert_mode(Mode::Dedicated);
}

#[test]
fn a_client_that_left_takes_no_element_on_a_reused_connection() {
    assert_mode(Mode::Reused);
}

#[test]
fn a_client_that_left_takes_no_element_on_a_shared_connection() {
    assert_mode(Mode::Shared);
}

#[test]
fn a_client_that_left_takes_no_element_from_a_node_of_a_cluster() {
    let cluster = Cluster::start();
    let pontoon = cluster::bridge(&cluster, &[]);
    let node = &cluster.nodes[0];
    let port = cluster::local_port(&pontoon, &cluster, 0);
    let mut direct = node.wire();
    let tag =
        (0..100).map(|n| n.to_string()).find(|tag| direct.ask(&["SET", tag, ""]) == b"+OK\r\n").unwrap();
    let connect: [&dyn Fn() -> Wire; 2] = [&|| Wire::tcp(("127.0.0.1", port)), &|| node.wire()];
    let mut all = Vec::new();
    for name in ["BLPOP", "XREADGROUP"] {
        let ends = [End::Close, End::Reset].into_iter();
        all.extend(ends.filter_map(|end| lost(name, end, 20, &tag, connect, &mut direct)));
    }
    assert_nothing(all);
}

#[test]
fn a_client_of_a_unix_socket_that_left_takes_no_element() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("redis.sock");
    let listen = format!("unix:{}", path.display());
    let mut all = Vec::new();
    for mode in Mode::ALL {
        let pontoon = mode.bridge(&redis.endpoint(), &authority, &["--listen", &listen]);
        let connect: [&dyn Fn() -> Wire; 2] = [&|| Wire::unix(&path), &|| redis.direct()];
        let ends = [End::Close, End::HalfClose].into_iter();
        all.extend(ends.filter_map(|end| lost("BLPOP", end, 20, "q", connect, &mut redis.direct())));
        drop(pontoon);
    }
    assert_nothing(all);
}

#[test]
fn a_client_with_its_own_tls_that_left_takes_no_element() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Mode::Reused.bridge(&redis.endpoint(), &authority, &["--accept", "any"]);
    let config = authority.client_config();
    let tls = |port| Wire::tls(("127.0.0.1", port), "localhost", &config).unwrap();
    let connect: [&dyn Fn() -> Wire; 2] = [&|| tls(pontoon.address().port()), &|| tls(redis.tls_port)];
    let ends = [End::Close, End::Reset].into_iter();
    assert_nothing(
        ends.filter_map(|end| lost("BLPOP", end, 20, "q", connect, &mut redis.direct())).collect(),
    );
}
