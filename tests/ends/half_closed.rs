//! A client that half-closed gets the replies to all that it sent, however far away the server is.

use std::thread;
use std::time::Duration;

use super::{HANGING, Mode, all_sessions_end, allow_timeouts, in_each_mode};
use crate::harness::{Link, Wire, busy_script, command, eventually};

const ROUND_TRIP: Duration = Duration::from_millis(150);

/// Name and bytes of what a client sends before it half-closes, and how its reply begins.
fn cases() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let slow = busy_script(Duration::from_secs(1));
    let words = |words: &[&str]| command(words);
    vec![
        ("GET", words(&["GET", "k"]), "$1\r\nv\r\n"),
        ("XREAD", words(&["XREAD", "COUNT", "1", "STREAMS", "s", "0"]), "*1\r\n"),
        (
            "XREADGROUP",
            words(&["XREADGROUP", "GROUP", "g", "c", "COUNT", "1", "STREAMS", "s", ">"]),
            "*1\r\n",
        ),
        ("XREAD with BLOCK and an entry", words(&["XREAD", "BLOCK", "0", "STREAMS", "s", "0"]), "*1\r\n"),
        ("BLPOP with an element", words(&["BLPOP", "q", "0"]), "*2\r\n$1\r\nq\r\n$3\r\njob\r\n"),
        ("BLPOP without one", words(&["BLPOP", "none", "0"]), ""),
        ("SUBSCRIBE", words(&["SUBSCRIBE", "news"]), "*3\r\n$9\r\nsubscribe\r\n"),
        ("MONITOR", words(&["MONITOR"]), "+OK\r\n"),
        ("a protocol error", b"*1\r\n:5\r\n".to_vec(), "-ERR Protocol error"),
        ("an inline PING", b"PING\r\n".to_vec(), "+PONG\r\n"),
        ("a pipeline", words(&["GET", "k"]).repeat(100), "$1\r\nv\r\n$1\r\nv\r\n"),
        (
            "a transaction",
            [words(&["MULTI"]), words(&["SET", "t", "1"]), words(&["EXEC"])].concat(),
            "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n",
        ),
        ("GET, then BLPOP", [words(&["GET", "k"]), words(&["BLPOP", "none", "0"])].concat(), "$1\r\nv\r\n"),
        ("QUIT", words(&["QUIT"]), "+OK\r\n"),
        ("half a command", b"*2\r\n$3\r\nGET\r\n".to_vec(), ""),
        ("nothing", Vec::new(), ""),
        // This is last because it keeps the server busy.
        ("a slow script", words(&["EVAL", &slow, "0"]), ":1\r\n"),
    ]
}

/// What each case receives until the connection ends.
fn answers(mut direct: Wire, connect: impl Fn() -> Wire) -> Vec<(&'static str, String)> {
    direct.expect(&["FLUSHALL"], "+OK\r\n");
    direct.expect(&["SET", "k", "v"], "+OK\r\n");
    direct.expect(&["RPUSH", "q", "job"], ":1\r\n");
    direct.expect(&["XADD", "s", "1-1", "f", "v"], "$3\r\n1-1\r\n");
    direct.expect(&["XGROUP", "CREATE", "s", "g", "0"], "+OK\r\n");
    let cases = cases();
    let mut clients: Vec<Wire> = cases.iter().map(|_| connect()).collect();
    for (client, (name, bytes, _)) in clients.iter_mut().zip(&cases) {
        if *name == "a slow script" {
            // The others are served before it.
            thread::sleep(2 * ROUND_TRIP);
        }
        client.send(bytes);
        client.finish();
    }
    let rests = clients.into_iter().map(|mut client| String::from_utf8_lossy(&client.rest()).into_owned());
    // What MONITOR shows depends on the other cases.
    let cut = |name: &str, rest: String| {
        if name == "MONITOR" { rest[..rest.len().min(5)].to_owned() } else { rest }
    };
    cases.iter().zip(rests).map(|((name, ..), rest)| (*name, cut(name, rest))).collect()
}

fn assert_mode(mode: Mode) {
    let (redis, _link, pontoon) = mode.with_link(ROUND_TRIP);
    // Makes sure that the upstream has been reached: a dial takes some round trips.
    pontoon.client().expect(&["PING"], "+PONG\r\n");
    let plain = Link::to(redis.plain_port, ROUND_TRIP);
    let without = answers(redis.direct(), || Wire::tcp(plain.address()));
    for ((name, answer), (_, _, start)) in without.iter().zip(cases()) {
        assert!(answer.starts_with(start), "{name} without the bridge: {answer:?}");
    }
    let with = answers(redis.direct(), || pontoon.client());
    let wrong: Vec<_> = without.iter().zip(&with).filter(|(without, with)| without != with).collect();
    assert!(wrong.is_empty(), "without and with the bridge: {wrong:#?}");
    all_sessions_end(&pontoon, HANGING);
}

#[test]
fn a_half_closed_client_gets_its_replies_on_its_own_connection() {
    assert_mode(Mode::Dedicated);
}

#[test]
fn a_half_closed_client_gets_its_replies_on_a_reused_connection() {
    assert_mode(Mode::Reused);
}

#[test]
fn a_half_closed_client_gets_its_replies_on_a_shared_connection() {
    assert_mode(Mode::Shared);
}

/// README names the difference from a direct connection: pontoon waits at most five seconds for a half-closed client's reply.
#[test]
fn a_half_closed_client_gets_a_reply_after_two_seconds_but_not_eight() {
    in_each_mode(|mode| {
        let (redis, pontoon) = mode.with_redis(&[]);
        allow_timeouts(&pontoon);
        for (seconds, replies) in [("2", "+OK\r\n$1\r\nv\r\n"), ("8", "")] {
            let mut client = pontoon.client();
            client.expect(&["SET", "k", "v"], "+OK\r\n");
            client.send(&[command(&["DEBUG", "SLEEP", seconds]), command(&["GET", "k"])].concat());
            client.finish();
            assert_eq!(String::from_utf8(client.rest()).unwrap(), replies, "{mode:?} {seconds}");
            all_sessions_end(&pontoon, HANGING);
        }
        redis.direct().expect(&["PING"], "+PONG\r\n");
    });
}

#[test]
fn a_client_that_quits_behind_a_slow_request_gets_both_replies() {
    in_each_mode(|mode| {
        let (_redis, pontoon) = mode.with_redis(&[]);
        allow_timeouts(&pontoon);
        let mut client = pontoon.client();
        client.send(&[command(&["DEBUG", "SLEEP", "6"]), command(&["QUIT"])].concat());
        client.expect_next("+OK\r\n");
        client.expect_next("+OK\r\n");
        client.expect_end();
    });
}

#[test]
fn a_half_closed_clients_connection_is_reused_after_its_last_reply() {
    let (redis, _link, pontoon) = Mode::Reused.with_link(Duration::from_millis(40));
    for _ in 0..3 {
        let mut client = pontoon.client();
        client.send(&command(&["GET", "k"]));
        client.finish();
        assert_eq!(client.rest(), b"$-1\r\n");
        eventually("the connection is kept", || {
            pontoon.metric("pontoon_upstream_connections", "state=\"idle\"") == 1
        });
    }
    assert_eq!(pontoon.metric("pontoon_upstream_leases_total", "origin=\"reused\""), 2);
    drop(redis);
}
