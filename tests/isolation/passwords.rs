//! A server may begin to require a password. It still trusts the connections that it had before; no new client may get one.

use super::{DEDICATED, bridge, eventually, idle, settle};
use crate::harness::{Pontoon, Redis, Wire};

const NOAUTH: &str = "-NOAUTH Authentication required.\r\n";

/// Number of connections that are kept before the server requires a password.
const KEPT: usize = 4;

/// `count` clients, each with a connection, that leave nothing behind.
fn clients(pontoon: &Pontoon, count: usize) -> Vec<Wire> {
    let mut clients: Vec<Wire> = (0..count).map(|_| pontoon.client()).collect();
    for client in &mut clients {
        client.ask(&["GET", "secret"]);
    }
    clients
}

/// Several connections are kept, and the server requires a password from now on.
fn with_trusted_connections(args: &[&str]) -> (Redis, Pontoon, Wire) {
    let args = [&DEDICATED[..], &["--pool-warm-max", "4"], args].concat();
    let (redis, pontoon) = bridge(&args);
    let mut direct = redis.direct();
    direct.expect(&["SET", "secret", "x"], "+OK\r\n");
    drop(clients(&pontoon, KEPT));
    settle(&pontoon, &mut direct, 1);
    eventually("connections are kept", || idle(&pontoon) == KEPT as u64);
    direct.expect(&["CONFIG", "SET", "requirepass", "secret"], "+OK\r\n");
    (redis, pontoon, direct)
}

/// Asserts that no client can read, with more clients at once than there are kept connections.
fn expect_that_none_can_read(pontoon: &Pontoon) {
    let mut all: Vec<Wire> = (0..=KEPT).map(|_| pontoon.client()).collect();
    let replies: Vec<String> =
        all.iter_mut().map(|client| String::from_utf8(client.ask(&["GET", "secret"])).unwrap()).collect();
    assert_eq!(replies, [NOAUTH; KEPT + 1]);
}

#[test]
fn once_a_client_on_a_new_connection_is_refused_no_new_client_can_read() {
    let (_redis, pontoon, mut direct) = with_trusted_connections(&[]);
    // All kept connections are taken, so the next client gets a new one.
    let holders = clients(&pontoon, KEPT);
    pontoon.client().expect(&["GET", "secret"], NOAUTH);
    drop(holders);
    settle(&pontoon, &mut direct, 1);
    expect_that_none_can_read(&pontoon);
}

#[test]
fn once_a_client_on_a_kept_connection_is_refused_no_new_client_can_read() {
    let (_redis, pontoon, mut direct) = with_trusted_connections(&[]);
    // Its connection is reset for the next client, and the server no longer trusts it.
    let mut client = pontoon.client();
    client.expect(&["SELECT", "0"], "+OK\r\n");
    drop(client);
    settle(&pontoon, &mut direct, 1);
    let mut late: Vec<Wire> = Vec::new();
    let mut refused = false;
    for n in 0..=KEPT {
        let mut client = pontoon.client();
        let reply = String::from_utf8(client.ask(&["GET", "secret"])).unwrap();
        assert!(!refused || reply == NOAUTH, "client {n} reads after another one was refused: {reply}");
        refused |= reply == NOAUTH;
        late.push(client);
    }
    drop(late);
    settle(&pontoon, &mut direct, 1);
    expect_that_none_can_read(&pontoon);
}

#[test]
fn once_a_warm_connection_is_greeted_no_new_client_can_read() {
    // Without `--client-name` the greeting of a server that does not know CLIENT SETINFO would be empty, and get no reply.
    let warm = ["--pool-warm", "true", "--pool-warm-min", "4", "--client-name", "bridge"];
    let (_redis, pontoon, mut direct) = with_trusted_connections(&warm);
    let made = || pontoon.metric("pontoon_tls_handshakes_total", "");
    let before = made();
    // This client takes a kept connection, and a new one is made in its place.
    let mut holder = pontoon.client();
    holder.expect(&["PING"], "+PONG\r\n");
    eventually("another connection is made", || made() > before && idle(&pontoon) == KEPT as u64);
    expect_that_none_can_read(&pontoon);
    drop(holder);
    settle(&pontoon, &mut direct, 1);
    expect_that_none_can_read(&pontoon);
}

#[test]
fn a_client_that_is_connected_when_the_password_comes_can_still_read() {
    let (_redis, pontoon, _direct) = with_trusted_connections(&[]);
    let mut holders = clients(&pontoon, KEPT);
    pontoon.client().expect(&["GET", "secret"], NOAUTH);
    for client in &mut holders {
        client.expect(&["GET", "secret"], "$1\r\nx\r\n");
    }
}
