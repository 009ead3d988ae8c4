//! Whatever a client sent before it left, nothing of it stays: no session, no descriptor, no connection of the server.
//!
//! `TEST_FUZZED_CLOSES` is the number of clients of each test, `TEST_FUZZED_SEED` the seed of a run to repeat.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::{HANGING, Mode, all_sessions_end, clients_info, in_each_mode, sessions};
use crate::harness::{Authority, Fake, Pontoon, Redis, Wire, command, eventually, within};

/// Number of clients of each test, if the variable is not set.
const CLIENTS: usize = 100;

/// Number of clients after which all must be gone.
const BATCH: usize = 200;

/// Number of clients at once.
const OPEN: usize = 20;

const COMMANDS: &[&[&str]] = &[
    &["PING"],
    &["GET", "k"],
    &["SET", "k", "v"],
    &["BLPOP", "none", "0"],
    &["XREAD", "BLOCK", "0", "STREAMS", "none", "$"],
    &["XREAD", "COUNT", "1", "STREAMS", "none", "0"],
    &["WAIT", "1", "0"],
    &["SUBSCRIBE", "news"],
    &["PSUBSCRIBE", "n*"],
    &["SSUBSCRIBE", "news"],
    &["UNSUBSCRIBE"],
    &["MONITOR"],
    &["MULTI"],
    &["EXEC"],
    &["DISCARD"],
    &["WATCH", "k"],
    &["HELLO", "3"],
    &["HELLO", "9"],
    &["SELECT", "1"],
    &["CLIENT", "REPLY", "OFF"],
    &["CLIENT", "REPLY", "SKIP"],
    &["CLIENT", "REPLY", "ON"],
    &["CLIENT", "TRACKING", "ON"],
    &["EVAL", "return {1, 2, 3}", "0"],
    &["EVAL", "x", "0"],
    &["NO-SUCH-COMMAND", "a"],
    &["QUIT"],
    &["RESET"],
];

const LINES: &[&str] = &[
    "PING\r\n",
    "GET k\n",
    "SET \"a b\" 'c'\r\n",
    "SET \"a\\x00b\" c\r\n",
    "SET \"a b\r\n",
    "ECHO 'a'b\r\n",
    "a\0b\n",
    "PING\0x\r\n",
    "GET \"k\0\"\r\n",
    "\r\n",
    "   \r\n",
    "*\r\n",
    "*-1\r\n",
    "*0\r\n",
    "*1\r\n:5\r\n",
    "*1\r\n$-5\r\n",
    "*1\r\n$99999999999999999999\r\n",
    "*1048577\r\n$1\r\n",
    "*2147483648\r\n",
    "*2\r\n$3\r\nGET\r\n$100000000\r\nabc",
    "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nvX",
    "POST / HTTP/1.1\r\nHost: x\r\n\r\n",
    "\u{16}\u{3}\u{1}\u{2}",
];

/// What one client sends.
fn input(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.usize(0..6) {
        let valid = command(COMMANDS[random.usize(..COMMANDS.len())]);
        match random.u8(..10) {
            0..=4 => bytes.extend(valid),
            5 => bytes.extend(&valid[..random.usize(..valid.len())]),
            6 | 7 => bytes.extend(LINES[random.usize(..LINES.len())].as_bytes()),
            8 => bytes.extend((0..random.usize(..200)).map(|_| random.u8(..))),
            // A line without an end.
            _ => bytes.extend(std::iter::repeat_n(b'x', random.usize(..80_000))),
        }
    }
    bytes
}

/// Ends a client in a random way.
fn end(mut client: TcpStream, random: &mut fastrand::Rng) {
    if random.u8(..4) == 0 {
        client.set_read_timeout(Some(Duration::from_millis(random.u64(1..10)))).unwrap();
        let _ = client.read(&mut [0; 1024]);
    }
    match random.u8(..4) {
        0 => Wire::over(client).reset(),
        1 => {
            let _ = client.shutdown(std::net::Shutdown::Write);
        }
        _ => {}
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Number of descriptors of the process, without upstream connections that are kept for the next clients.
fn descriptors(pontoon: &Pontoon) -> usize {
    loop {
        let kept_before = kept(pontoon);
        let all = std::fs::read_dir(format!("/proc/{}/fd", pontoon.pid())).unwrap().count();
        if kept(pontoon) == kept_before {
            return all.saturating_sub(kept_before);
        }
    }
}

/// Number of upstream connections that are kept. One that is being made may have no descriptor, because it waits for its turn.
fn kept(pontoon: &Pontoon) -> usize {
    let of = |state| pontoon.metric("pontoon_upstream_connections", state) as usize;
    of("state=\"idle\"") + of("state=\"shared\"")
}

/// Waits until this many clients have had a session: those that wait to be accepted have none yet.
fn all_are_accepted(pontoon: &Pontoon, clients: usize) {
    eventually("all clients are accepted", || {
        let ended = pontoon.metric("pontoon_sessions_total", "");
        ended + sessions(pontoon) >= clients as u64
    });
}

/// Lets clients connect, send anything, and leave.
fn assert_nothing_stays(pontoon: &Pontoon, mut direct: Option<Wire>) {
    // Neither upstreams nor clients behave as they should, so any log line is allowed.
    pontoon.allows("");
    let seed = variable("TEST_FUZZED_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("TEST_FUZZED_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let clients = variable("TEST_FUZZED_CLOSES").map_or(CLIENTS, |count| count as usize);
    let server = |direct: &mut Wire| clients_info(direct, "connected_clients").saturating_sub(kept(pontoon));
    // The first client makes pontoon open what it then keeps open.
    drop(TcpStream::connect(pontoon.address()).unwrap());
    all_are_accepted(pontoon, 1);
    all_sessions_end(pontoon, HANGING);
    let before = descriptors(pontoon);
    let connections = direct.as_mut().map(server);
    let mut left = clients;
    while left > 0 {
        let mut open = Vec::new();
        let batch = left.min(BATCH);
        for _ in 0..batch {
            let mut client = TcpStream::connect(pontoon.address()).unwrap();
            client.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
            // The bridge may have closed before all is written.
            let _ = client.write_all(&input(&mut random));
            open.push(client);
            if open.len() == OPEN {
                let chosen = random.usize(..OPEN);
                end(open.swap_remove(chosen), &mut random);
            }
        }
        for client in open {
            end(client, &mut random);
        }
        left -= batch;
        all_are_accepted(pontoon, 1 + clients - left);
        all_sessions_end(pontoon, HANGING);
    }
    within(HANGING, "all descriptors are closed", || descriptors(pontoon) <= before);
    if let (Some(direct), Some(connections)) = (&mut direct, connections) {
        within(HANGING, "the server has as many connections as before", || server(direct) <= connections);
    }
    assert_eq!(pontoon.get("/livez").0, 200);
}

fn assert_mode(mode: Mode) {
    let (redis, pontoon) = mode.with_redis(&[]);
    assert_nothing_stays(&pontoon, Some(redis.direct()));
    pontoon.client().expect(&["PING"], "+PONG\r\n");
}

#[test]
fn no_client_leaves_a_trace_if_each_has_its_own_connection() {
    assert_mode(Mode::Dedicated);
}

#[test]
fn no_client_leaves_a_trace_if_connections_are_reused() {
    assert_mode(Mode::Reused);
}

#[test]
fn no_client_leaves_a_trace_if_clients_share_connections() {
    assert_mode(Mode::Shared);
}

#[test]
fn no_client_leaves_a_trace_if_the_upstream_hangs() {
    in_each_mode(|mode| {
        let authority = Authority::new();
        let fake = Fake::tls(&authority.issue(&["localhost"]), |tls| {
            let _ = std::io::copy(tls, &mut std::io::sink());
        });
        assert_nothing_stays(&mode.bridge(&fake.endpoint(), &authority, &[]), None);
    });
}

#[test]
fn no_client_leaves_a_trace_if_the_upstream_never_completes_tls() {
    in_each_mode(|mode| {
        let authority = Authority::new();
        let fake = Fake::start(|mut stream, _| {
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        });
        assert_nothing_stays(&mode.bridge(&fake.endpoint(), &authority, &[]), None);
    });
}

#[test]
fn no_client_leaves_a_trace_if_the_upstream_closes_at_once() {
    in_each_mode(|mode| {
        let authority = Authority::new();
        let fake = Fake::start(|_, _| {});
        assert_nothing_stays(&mode.bridge(&fake.endpoint(), &authority, &[]), None);
    });
}

/// The server restarts while clients leave.
#[test]
fn no_client_leaves_a_trace_if_the_server_restarts() {
    let authority = Authority::new();
    let mut redis = Redis::start(&authority);
    let pontoon = Mode::Reused.bridge(&redis.endpoint(), &authority, &[]);
    pontoon.allows("");
    let mut clients: Vec<Wire> = (0..OPEN).map(|_| pontoon.client()).collect();
    for client in &mut clients {
        client.send(&command(&["BLPOP", "none", "0"]));
    }
    eventually("all clients are blocked", || clients_info(&mut redis.direct(), "blocked_clients") == OPEN);
    redis.kill();
    drop(clients);
    all_sessions_end(&pontoon, HANGING);
    redis.restart();
    eventually("the server is reached", || pontoon.get("/readyz").0 == 200);
    pontoon.client().expect(&["PING"], "+PONG\r\n");
}
