//! Clients share upstream connections, and notice nothing of each other.

mod differential;
mod odd;
mod readiness;
mod transactions;
mod users;

use std::io::{Read, Write};
use std::time::Duration;

use crate::audit::group;
use crate::cluster::{bridge, local_port};
use crate::harness::{
    Authority, Cluster, Fake, Forwarder, PATIENCE, Pontoon, Redis, Tls, Wire, command, eventually,
};

/// All clients share one connection.
const SHARED: [&str; 4] = ["--sharing", "shared", "--workers", "1"];

/// A Redis, and a bridge to it whose clients share one connection.
fn shared(args: &[&str]) -> (Redis, Pontoon) {
    let authority = Authority::new();
    let mut redis = Redis::start(&authority);
    let all = [&SHARED[..], args].concat();
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &all);
    redis.keep(authority);
    (redis, pontoon)
}

/// Number of connections that the server has, without the test's own.
fn connections(direct: &mut Wire) -> usize {
    let list = direct.ask(&["CLIENT", "LIST", "TYPE", "normal"]);
    String::from_utf8(list).unwrap().matches("id=").count() - 1
}

fn pinned(pontoon: &Pontoon) -> u64 {
    pontoon.metric("pontoon_sessions_pinned", "")
}

/// Answers every PING, until `command` has come `count` times.
fn answer_until(stream: &mut Tls, command: &str, count: usize) {
    let mut seen = 0;
    while seen < count {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).unwrap_or(0);
        if n == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        seen += text.matches(command).count();
        let _ = stream.write_all("+PONG\r\n".repeat(text.matches("PING").count()).as_bytes());
    }
}

#[test]
fn a_word_that_a_server_reads_only_in_part_delays_no_other_client() {
    let (_redis, pontoon) = shared(&[]);
    let (mut blocked, mut other) = (pontoon.client(), pontoon.client());
    other.expect(&["SET", "k", "v"], "+OK\r\n");
    // A server reads this as BLOCK.
    blocked.send(&command(&["XREAD", "BLOCK\0x", "0", "STREAMS", "stream", "$"]));
    eventually("the client is pinned", || pinned(&pontoon) == 1);
    other.expect(&["GET", "k"], "$1\r\nv\r\n");
}

#[test]
fn many_clients_share_one_connection() {
    let (redis, pontoon) = shared(&[]);
    let mut clients: Vec<Wire> = (0..50).map(|_| pontoon.client()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.send(&command(&["SET", &format!("k{i}"), &format!("v{i}")]));
    }
    for client in &mut clients {
        client.expect_next("+OK\r\n");
    }
    for (i, client) in clients.iter_mut().enumerate() {
        client.expect(&["GET", &format!("k{i}")], &format!("${}\r\nv{i}\r\n", 1 + i.to_string().len()));
    }
    // For a moment there are others, with which pontoon checks whether the server is up.
    let mut direct = redis.direct();
    eventually("the shared connection is left, and one that is kept ready", || connections(&mut direct) <= 2);
    assert_eq!(pontoon.metric("pontoon_upstream_connections", "state=\"shared\""), 1);
    assert_eq!(pontoon.metric("pontoon_sessions_active", ""), 50);
}

#[test]
fn no_client_finds_the_state_that_another_leaves() {
    let (_redis, pontoon) = shared(&[]);
    let (mut one, mut other) = (pontoon.client(), pontoon.client());
    other.expect(&["SET", "k", "0"], "+OK\r\n");
    one.expect(&["SELECT", "3"], "+OK\r\n");
    one.expect(&["SET", "k", "3"], "+OK\r\n");
    other.expect(&["GET", "k"], "$1\r\n0\r\n");
    one.expect(&["CLIENT", "SETNAME", "one"], "+OK\r\n");
    one.expect(&["CLIENT", "GETNAME"], "$3\r\none\r\n");
    other.expect(&["CLIENT", "GETNAME"], "$-1\r\n");
    one.ask(&["HELLO", "3"]);
    one.expect(&["HGETALL", "none"], "%0\r\n");
    other.expect(&["HGETALL", "none"], "*0\r\n");
    one.expect(&["GET", "k"], "$1\r\n3\r\n");
    one.expect(&["MULTI"], "+OK\r\n");
    one.expect(&["SET", "k", "4"], "+QUEUED\r\n");
    other.expect(&["SET", "k", "1"], "+OK\r\n");
    one.expect(&["EXEC"], "*1\r\n+OK\r\n");
    other.expect(&["GET", "k"], "$1\r\n1\r\n");
    one.expect(&["GET", "k"], "$1\r\n4\r\n");
    one.expect(&["CLIENT", "GETNAME"], "$3\r\none\r\n");
    one.expect(&["EVAL", "redis.call('SELECT', 5) return redis.setresp(3)", "0"], "_\r\n");
    one.expect(&["GET", "k"], "$1\r\n4\r\n");
    one.expect(&["CLIENT", "TRACKING", "ON"], "+OK\r\n");
    for (client, state) in [(&mut one, "on"), (&mut other, "off")] {
        let tracking = String::from_utf8(client.ask(&["CLIENT", "TRACKINGINFO"])).unwrap();
        assert!(tracking.contains(&format!("\r\n{state}\r\n")), "{tracking}");
    }
    one.send(&command(&["CLIENT", "REPLY", "OFF"]));
    one.send(&command(&["SET", "k", "5"]));
    other.expect(&["GET", "k"], "$1\r\n1\r\n");
    one.send(&command(&["CLIENT", "REPLY", "ON"]));
    one.expect_next("+OK\r\n");
    one.expect(&["GET", "k"], "$1\r\n5\r\n");
}

#[test]
fn a_command_that_the_server_refuses_keeps_no_client_pinned() {
    let (_redis, pontoon) = shared(&[]);
    let mut client = pontoon.client();
    client.expect(&["UNWATCH"], "+OK\r\n");
    client.expect(&["EVAL", "return 1", "0"], ":1\r\n");
    assert_eq!(pontoon.metric("pontoon_sessions_pinned_total", ""), 0);
    assert!(client.ask(&["CLIENT", "NO-SUCH-SUBCOMMAND", "ON"]).starts_with(b"-"));
    client.expect(&["GET", "k"], "$-1\r\n");
    eventually("it shares again", || pinned(&pontoon) == 0);
    client.expect(&["GET", "k"], "$-1\r\n");
    assert_eq!(pontoon.metric("pontoon_sessions_pinned_total", ""), 1);
}

#[test]
fn a_pinned_client_gets_all_replies_wherever_its_requests_are_cut() {
    const REQUESTS: usize = 6000;
    let (_redis, pontoon) = shared(&[]);
    // Before it is pinned, the client sends more than pontoon reads at once.
    for padding in 0..command(&["PING", "x"]).len() {
        let mut client = pontoon.client();
        let inline = format!("ECHO \"{}\"\r\n", "p".repeat(padding));
        client.send(&[inline.into_bytes(), command(&["ECHO", "x"]).repeat(REQUESTS)].concat());
        client.expect_next(&format!("${padding}\r\n{}\r\n", "p".repeat(padding)));
        assert_eq!(client.exactly(7 * REQUESTS), "$1\r\nx\r\n".repeat(REQUESTS).into_bytes());
    }
}

#[test]
fn a_transaction_pins_its_client_until_it_ends() {
    let (_redis, pontoon) = shared(&[]);
    let (mut one, mut other) = (pontoon.client(), pontoon.client());
    one.expect(&["WATCH", "k"], "+OK\r\n");
    assert_eq!(pinned(&pontoon), 1);
    let (_, inventory) = pontoon.get("/clients");
    assert!(inventory.contains("\"pinned\":\"transaction\""), "{inventory}");
    one.expect(&["GET", "k"], "$-1\r\n");
    other.expect(&["SET", "k", "v"], "+OK\r\n");
    one.expect(&["MULTI"], "+OK\r\n");
    one.expect(&["GET", "k"], "+QUEUED\r\n");
    one.expect(&["EXEC"], "*-1\r\n");
    one.expect(&["GET", "k"], "$1\r\nv\r\n");
    assert_eq!(pinned(&pontoon), 0);
    assert_eq!(pontoon.metric("pontoon_sessions_pinned_total", "reason=\"transaction\""), 1);
    // The connection is given back without another request.
    one.expect(&["MULTI"], "+OK\r\n");
    one.expect(&["DISCARD"], "+OK\r\n");
    eventually("the connection is given back", || pinned(&pontoon) == 0);
}

#[test]
fn a_client_that_blocks_delays_no_other() {
    let (_redis, pontoon) = shared(&[]);
    let (mut waiter, mut reader, mut other) = (pontoon.client(), pontoon.client(), pontoon.client());
    other.expect(&["XADD", "s", "1-1", "f", "v"], "$3\r\n1-1\r\n");
    waiter.send(&command(&["BLPOP", "list", "0"]));
    reader.send(&command(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]));
    eventually("both clients are blocked", || pinned(&pontoon) == 2);
    for _ in 0..100 {
        other.expect(&["PING"], "+PONG\r\n");
    }
    // A client that does not block is not pinned.
    other.expect(&["XREAD", "STREAMS", "s", "1-1"], "*-1\r\n");
    assert_eq!(pinned(&pontoon), 2);
    other.expect(&["RPUSH", "list", "x"], ":1\r\n");
    waiter.expect_next("*2\r\n$4\r\nlist\r\n$1\r\nx\r\n");
    waiter.expect(&["PING"], "+PONG\r\n");
    eventually("one client is blocked", || pinned(&pontoon) == 1);
}

#[test]
fn earlier_requests_are_answered_first() {
    let (_redis, pontoon) = shared(&[]);
    let mut client = pontoon.client();
    let pipeline: Vec<u8> = [
        &["SET", "k", "1"][..],
        &["INCR", "k"],
        &["MULTI"],
        &["INCR", "k"],
        &["EXEC"],
        &["INCR", "k"],
        &["SELECT", "1"],
        &["GET", "k"],
        &["SELECT", "0"],
        &["BLPOP", "none", "0.01"],
        &["INCR", "k"],
        &["SELECT", "99999"],
        &["CLIENT", "SETNAME", "n"],
        &["CLIENT", "GETNAME"],
        &["GET", "k"],
        &["QUIT"],
    ]
    .iter()
    .flat_map(|words| command(words))
    .collect();
    client.send(&pipeline);
    let replies = String::from_utf8(client.rest()).unwrap();
    assert_eq!(
        replies,
        "+OK\r\n:2\r\n+OK\r\n+QUEUED\r\n*1\r\n:3\r\n:4\r\n+OK\r\n$-1\r\n+OK\r\n*-1\r\n:5\r\n\
         -ERR DB index is out of range\r\n+OK\r\n$1\r\nn\r\n$1\r\n5\r\n+OK\r\n"
    );
}

#[test]
fn a_lost_connection_is_reported_only_to_clients_that_wait_for_a_reply() {
    let (mut redis, pontoon) = shared(&["--errors", "reply"]);
    let (mut idle, mut waiting) = (pontoon.client(), pontoon.client());
    idle.expect(&["PING"], "+PONG\r\n");
    waiting.expect(&["PING"], "+PONG\r\n");
    redis.pause();
    waiting.send(&[command(&["INCR", "n"]), command(&["INCR", "n"])].concat());
    eventually("the requests were sent", || pontoon.metric("pontoon_requests_total", "") == 4);
    // pontoon may check the server while it is down.
    pontoon.allows("localhost");
    redis.kill();
    let lost = String::from_utf8_lossy(&waiting.reply()).into_owned();
    assert!(lost.contains("may or may not have been executed"), "{lost}");
    waiting.reply();
    redis.restart();
    idle.expect(&["SET", "k", "v"], "+OK\r\n");
    waiting.expect(&["GET", "k"], "$1\r\nv\r\n");
}

#[test]
fn no_client_gets_the_rest_of_a_reply_that_was_cut() {
    let authority = Authority::new();
    let server = Fake::tls(&authority.issue(&["localhost"]), |stream| {
        answer_until(stream, "GET", 3);
        let _ = stream.write_all(b"$10\r\nhalf");
    });
    let pontoon =
        Pontoon::with(&server.endpoint(), &authority, &[&SHARED[..], &["--errors", "reply"]].concat());
    let (mut first, mut second, mut third) = (pontoon.client(), pontoon.client(), pontoon.client());
    for client in [&mut first, &mut second, &mut third] {
        client.expect(&["PING"], "+PONG\r\n");
    }
    first.send(&command(&["GET", "a"]));
    eventually("the request was sent", || pontoon.metric("pontoon_requests_total", "") == 4);
    second.send(&command(&["GET", "b"]));
    eventually("the request was sent", || pontoon.metric("pontoon_requests_total", "") == 5);
    third.send(&command(&["GET", "c"]));
    assert_eq!(first.rest(), b"$10\r\nhalf");
    for client in [&mut second, &mut third] {
        let told = String::from_utf8(client.reply()).unwrap();
        assert!(told.contains("may or may not have been executed"), "{told}");
        // The next request finds a connection.
        client.expect(&["PING"], "+PONG\r\n");
    }
}

#[test]
fn replies_before_nonsense_reach_the_clients_that_asked_for_them() {
    let authority = Authority::new();
    let server = Fake::tls(&authority.issue(&["localhost"]), |stream| {
        answer_until(stream, "GET", 3);
        let _ = stream.write_all(b"$1\r\na\r\n$1\r\nb\r\nnonsense\r\n");
    });
    let pontoon = Pontoon::with(&server.endpoint(), &authority, &SHARED);
    pontoon.expects("pontoon cannot process the reply");
    let mut client = pontoon.client();
    client.expect(&["PING"], "+PONG\r\n");
    client.send(&command(&["GET", "k"]).repeat(3));
    assert_eq!(client.rest(), b"$1\r\na\r\n$1\r\nb\r\n");
    assert_eq!(pontoon.metric("pontoon_replies_refused_total", ""), 1);
}

#[test]
fn a_client_that_makes_the_server_close_closes_no_other_client() {
    let (_redis, pontoon) = shared(&[]);
    let mut other = pontoon.client();
    other.expect(&["PING"], "+PONG\r\n");
    for nonsense in [&b"*01\r\n$4\r\nPING\r\n"[..], b"*1\r\n$04\r\nPING\r\n", b"*2\r\n$4\r\nPING\r\n+x\r\n"] {
        let mut client = pontoon.client();
        client.send(nonsense);
        let told = String::from_utf8(client.rest()).unwrap();
        assert!(told.starts_with("-ERR Protocol error"), "{told}");
        other.expect(&["PING"], "+PONG\r\n");
    }
    assert_eq!(pontoon.metric("pontoon_sessions_pinned_total", "reason=\"inline\""), 3);
    // The server takes these for HTTP requests.
    for name in ["POST", "host:"] {
        let mut client = pontoon.client();
        client.send(&command(&[name]));
        client.rest();
        other.expect(&["PING"], "+PONG\r\n");
    }
    assert_eq!(pontoon.metric("pontoon_sessions_pinned_total", "reason=\"connection_state\""), 2);
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_the_others_go_on() {
    let (_redis, pontoon) = shared(&["--client-output", "1MiB"]);
    pontoon.expects("client cut off");
    let (mut slow, mut other) = (pontoon.client(), pontoon.client());
    other.expect(&["SETRANGE", "big", "3000000", "x"], ":3000001\r\n");
    slow.send(&command(&["GET", "big"]).repeat(20));
    for _ in 0..100 {
        other.expect(&["PING"], "+PONG\r\n");
    }
    eventually("the client is cut off", || pontoon.metric("pontoon_sessions_total", "end=\"overrun\"") == 1);
    other.expect(&["PING"], "+PONG\r\n");
}

#[test]
fn clients_that_do_not_read_stay_below_their_routes_limit_together() {
    let (_redis, pontoon) = shared(&["--route-output", "8MiB"]);
    pontoon.expects("client cut off");
    let mut other = pontoon.client();
    other.expect(&["SET", "big", &"x".repeat(1_000_000)], "+OK\r\n");
    let mut slow: Vec<Wire> = (0..10).map(|_| pontoon.client()).collect();
    for client in &mut slow {
        client.expect(&["PING"], "+PONG\r\n");
    }
    let get = command(&["GET", "big"]);
    for _ in 0..20 {
        for client in &mut slow {
            // The client may be cut off by now.
            let _ = client.try_send(&get);
        }
    }
    eventually("one client is cut off", || {
        other.expect(&["PING"], "+PONG\r\n");
        pontoon.metric("pontoon_sessions_total", "end=\"route_overrun\"") > 0
    });
    pontoon.wait_for_log("limits.route_output");
    other.expect(&["PING"], "+PONG\r\n");
    let peak = pontoon.peak_memory_kib();
    assert!(peak < 48 * 1024, "the bridge took {peak} KiB");
}

/// Waits until `bytes` more have been sent to servers than the `before` of an earlier [`sent`].
fn wait_until_sent(pontoon: &Pontoon, before: u64, bytes: usize) {
    eventually("the requests are sent", || sent(pontoon) >= before + bytes as u64);
}

/// Number of bytes that were sent to servers.
fn sent(pontoon: &Pontoon) -> u64 {
    pontoon.metric("pontoon_relayed_bytes_total", "direction=\"to_upstream\"")
}

#[test]
fn of_clients_that_do_not_read_the_one_with_most_waiting_is_cut_off() {
    let (redis, pontoon) = shared(&["--route-output", "32MiB", "--client-output", "128MiB"]);
    pontoon.expects("client cut off");
    let mut other = pontoon.client();
    other.expect(&["SET", "big", &"x".repeat(1_000_000)], "+OK\r\n");
    let mut slow: Vec<(Wire, usize)> = [7, 60, 7].map(|count| (pontoon.client(), count)).into();
    for (client, _) in &mut slow {
        client.expect(&["PING"], "+PONG\r\n");
    }
    // The replies come one after the other, and the last is for a client that reads.
    redis.pause();
    for (client, count) in &mut slow {
        let (before, requests) = (sent(&pontoon), command(&["GET", "big"]).repeat(*count));
        client.send(&requests);
        wait_until_sent(&pontoon, before, requests.len());
    }
    let (before, ping) = (sent(&pontoon), command(&["PING"]));
    other.send(&ping);
    wait_until_sent(&pontoon, before, ping.len());
    redis.resume();
    other.expect_next("+PONG\r\n");
    eventually("one client is cut off", || {
        pontoon.metric("pontoon_sessions_total", "end=\"route_overrun\"") == 1
    });
    for (client, count) in &mut slow {
        if *count == 60 {
            assert!(client.rest().len() < 60_000_000);
            continue;
        }
        for _ in 0..*count {
            assert_eq!(client.reply().len(), "$1000000\r\n".len() + 1_000_002);
        }
        client.expect(&["PING"], "+PONG\r\n");
    }
    assert_eq!(pontoon.metric("pontoon_sessions_total", "end=\"route_overrun\""), 1);
}

#[test]
fn clients_of_all_nodes_of_a_cluster_stay_below_their_routes_limit() {
    let cluster = Cluster::start();
    let pontoon = bridge(&cluster, &[&SHARED[..], &["--route-output", "32MiB"]].concat());
    pontoon.expects("client cut off");
    let port = |node| local_port(&pontoon, &cluster, node);
    // The clients of a single node stay below the limit.
    let mut clients: Vec<(Wire, Wire)> = (0..3)
        .map(|node| {
            let value = "x".repeat(1_000_000);
            let mut keys = (0..).map(|number| format!("big-{number}"));
            let key = keys.find(|key| cluster.ask(node, &["SET", key, &value]) == "+OK\r\n").unwrap();
            let [mut slow, mut other] = [(); 2].map(|()| Wire::tcp(("127.0.0.1", port(node))));
            slow.expect(&["PING"], "+PONG\r\n");
            other.expect(&["PING"], "+PONG\r\n");
            cluster.nodes[node].pause();
            let requests = command(&["GET", &key]).repeat(24);
            let (before, ping) = (sent(&pontoon), command(&["PING"]));
            slow.send(&requests);
            wait_until_sent(&pontoon, before, requests.len());
            other.send(&ping);
            wait_until_sent(&pontoon, before, requests.len() + ping.len());
            cluster.nodes[node].resume();
            other.expect_next("+PONG\r\n");
            (slow, other)
        })
        .collect();
    eventually("one client is cut off", || {
        pontoon.metric("pontoon_sessions_total", "end=\"route_overrun\"") > 0
    });
    for (_, other) in &mut clients {
        other.expect(&["PING"], "+PONG\r\n");
    }
}

#[test]
fn giant_requests_and_replies_get_dedicated_connections() {
    let (_redis, pontoon) = shared(&[]);
    let mut client = pontoon.client();
    let value = "x".repeat(50_000_000);
    client.expect(&["SET", "giant", &value], "+OK\r\n");
    assert_eq!(pontoon.metric("pontoon_sessions_pinned_total", "reason=\"large_request\""), 1);
    eventually("the connection is given back", || pinned(&pontoon) == 0);
    for _ in 0..3 {
        assert_eq!(client.ask(&["GET", "giant"]).len(), value.len() + 13);
    }
    // A client that takes more than a second for one shares again before the next.
    let pinned = pontoon.metric("pontoon_sessions_pinned_total", "reason=\"large_reply\"");
    assert!((1..=3).contains(&pinned), "{pinned}");
}

#[test]
fn beyond_the_pinning_limit_a_client_waits_and_gets_an_error() {
    let (_redis, pontoon) = shared(&["--max-pinned", "1"]);
    pontoon.expects("too many clients need a dedicated connection");
    let (mut one, mut other) = (pontoon.client(), pontoon.client());
    one.expect(&["MULTI"], "+OK\r\n");
    other.expect(&["PING"], "+PONG\r\n");
    other.send(&command(&["MULTI"]));
    let told = String::from_utf8(other.reply()).unwrap();
    assert!(told.contains("see limits.pinned"), "{told}");
    let serving = pontoon.get("/readyz").1;
    assert!(serving.contains("too many clients need a dedicated connection (limits.pinned)"), "{serving}");
    other.expect_end();
    let mut third = pontoon.client();
    third.send(&command(&["MULTI"]));
    one.expect(&["DISCARD"], "+OK\r\n");
    third.expect_next("+OK\r\n");
}

#[test]
fn a_reply_that_comes_too_late_reaches_no_client() {
    let authority = Authority::new();
    // This server replies to COMMAND only after the next request.
    let server = Fake::tls(&authority.issue(&["localhost"]), |stream| {
        let (mut buffer, mut late) = ([0; 4096], "");
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
            let mut replies = late.to_owned();
            late = if text.contains("COMMAND") { "*1\r\n*-1\r\n" } else { "" };
            replies += &"+PONG\r\n".repeat(text.matches("PING").count());
            replies += if text.starts_with("*1\r\n$6\r\nMY.OWN") { "+mine\r\n" } else { "" };
            let _ = stream.write_all(replies.as_bytes());
        }
    });
    let args = [&SHARED[..], &["--errors", "reply"]].concat();
    let pontoon = Pontoon::with(&server.endpoint(), &authority, &args);
    let (mut one, mut other) = (pontoon.client(), pontoon.client());
    one.send(&command(&["MY.OWN"]));
    let told = String::from_utf8(one.reply()).unwrap();
    assert!(told.starts_with("-LOADING pontoon: setting up a connection took more than 2 s"), "{told}");
    one.expect_end();
    other.expect(&["PING"], "+PONG\r\n");
}

/// Ways to write that need a dedicated connection: requests, and how the reply to the last begins.
const PINNED_WRITES: [(&[&[&str]], &str); 6] = [
    (&[&["MULTI"], &["SET", "k", "v"], &["EXEC"]], "*1\r\n+OK\r\n"),
    (&[&["WATCH", "k"], &["SET", "k", "v"]], "+OK\r\n"),
    (&[&["RPUSH", "list", "a"], &["BLPOP", "list", "0"]], "*2\r\n"),
    (
        &[
            &["XGROUP", "CREATE", "s", "g", "$", "MKSTREAM"],
            &["XADD", "s", "*", "f", "v"],
            &["XREADGROUP", "GROUP", "g", "c", "BLOCK", "1000", "STREAMS", "s", ">"],
        ],
        "*1\r\n",
    ),
    (&[&["FLUSHALL"]], "+OK\r\n"),
    (&[&["CLIENT", "NO-EVICT", "ON"], &["INCR", "n"]], ":1\r\n"),
];

#[test]
fn wait_covers_writes_over_a_dedicated_connection() {
    let authority = Authority::new();
    let large = "v".repeat(200_000);
    let large: &[&[&str]] = &[&["SET", "k", &large]];
    for (requests, last) in PINNED_WRITES.into_iter().chain([(large, "+OK\r\n")]) {
        let (primary, replica) = group(&authority);
        let pontoon = Pontoon::with(&primary.endpoint(), &authority, &SHARED);
        let mut client = pontoon.client();
        client.expect(&["SET", "before", "v"], "+OK\r\n");
        let mut direct = primary.direct();
        direct.ask(&["SET", "before", "w"]);
        eventually("the replica is connected", || direct.ask(&["WAIT", "1", "100"]) == b":1\r\n");
        replica.pause();
        let mut reply = String::new();
        for words in requests {
            reply = String::from_utf8(client.ask(words)).unwrap();
        }
        assert!(reply.starts_with(last), "{reply}");
        client.expect(&["WAIT", "1", "200"], ":0\r\n");
        replica.resume();
        client.expect(&["WAIT", "1", "20000"], ":1\r\n");
    }
}

#[test]
fn no_other_shared_connection_answers_wait_for_the_one_with_the_writes() {
    let (_redis, pontoon) = shared(&[]);
    for moves in [&["SELECT", "1"][..], &["HELLO", "3"]] {
        let mut client = pontoon.client();
        client.expect(&["SET", "k", "v"], "+OK\r\n");
        client.ask(moves);
        client.send(&command(&["WAIT", "1", "10"]));
        let told = String::from_utf8(client.reply()).unwrap();
        assert!(
            told.starts_with("-ERR pontoon: the connection that carried this client's writes is gone"),
            "{told}"
        );
    }
}

#[test]
fn a_client_that_wrote_nothing_may_send_wait_over_any_connection() {
    let (_redis, pontoon) = shared(&[]);
    let (mut writes, mut reads) = (pontoon.client(), pontoon.client());
    writes.expect(&["SET", "k", "v"], "+OK\r\n");
    reads.expect(&["GET", "k"], "$1\r\nv\r\n");
    writes.expect(&["WAIT", "0", "10"], ":0\r\n");
    reads.expect(&["WAIT", "0", "10"], ":0\r\n");
}

#[test]
fn no_other_connection_answers_wait_for_a_lost_one_with_the_writes() {
    let (_redis, pontoon) = shared(&[]);
    let write_apart = |client: &mut Wire| {
        client.expect(&["MULTI"], "+OK\r\n");
        client.expect(&["SET", "k", "v"], "+QUEUED\r\n");
        client.expect(&["EXEC"], "*1\r\n+OK\r\n");
        client.expect(&["GET", "k"], "$1\r\nv\r\n");
        eventually("the client is no longer pinned", || pinned(&pontoon) == 0);
    };
    let mut client = pontoon.client();
    write_apart(&mut client);
    client.send(&command(&["WAIT", "1", "10"]));
    let told = String::from_utf8(client.reply()).unwrap();
    assert!(
        told.starts_with("-ERR pontoon: the connection that carried this client's writes is gone"),
        "{told}"
    );
    client.expect_end();
    let mut client = pontoon.client();
    write_apart(&mut client);
    client.expect(&["SET", "k", "w"], "+OK\r\n");
    client.expect(&["WAIT", "0", "10"], ":0\r\n");
}

#[test]
fn wait_covers_writes_over_a_shared_connection() {
    let authority = Authority::new();
    let (primary, replica) = group(&authority);
    let pontoon =
        Pontoon::with(&primary.endpoint(), &authority, &[&SHARED[..], &["--pool-warm", "true"]].concat());
    let (mut one, mut other) = (pontoon.client(), pontoon.client());
    one.expect(&["SET", "k", "v"], "+OK\r\n");
    one.expect(&["WAIT", "1", "10000"], ":1\r\n");
    replica.pause();
    let mut late = pontoon.client();
    for client in [&mut one, &mut late] {
        assert!(client.ask(&["INCR", "n"]).starts_with(b":"));
        // WAIT takes its time each time, and delays no other client.
        client.send(&command(&["WAIT", "1", "200"]));
        other.expect(&["PING"], "+PONG\r\n");
        client.expect_next(":0\r\n");
        client.expect(&["WAIT", "1", "200"], ":0\r\n");
    }
    replica.resume();
    for client in [&mut one, &mut late] {
        client.expect(&["WAIT", "1", "20000"], ":1\r\n");
    }
    assert_eq!(pontoon.metric("pontoon_sessions_pinned_total", "reason=\"wait\""), 2);
    other.expect(&["GET", "k"], "$1\r\nv\r\n");
}

#[test]
fn a_client_that_quits_gets_all_replies_first_however_slowly_it_reads() {
    let directory = tempfile::tempdir().unwrap();
    // Takes only some hundred kilobytes that the client does not read.
    let path = directory.path().join("redis.sock");
    let (_redis, pontoon) =
        shared(&["--listen", "127.0.0.1:0", "--listen", &format!("unix:{}", path.display())]);
    let value = "x".repeat(4 * 1024);
    pontoon.client().expect(&["SET", "k", &value], "+OK\r\n");
    let each = format!("${}\r\n{value}\r\n", value.len());
    // The sockets of some clients hold all replies; for others, little or much is left waiting.
    let mut clients: Vec<(usize, Wire)> =
        (5..200).step_by(5).map(|count| (count, Wire::unix(&path))).collect();
    for (count, client) in &mut clients {
        client.send(&[command(&["GET", "k"]).repeat(*count), command(&["QUIT"])].concat());
    }
    let mut before = 0;
    eventually("no more come before a client reads", || {
        let relayed = pontoon.metric("pontoon_relayed_bytes_total", "direction=\"to_client\"");
        std::mem::replace(&mut before, relayed) == relayed && relayed > each.len() as u64
    });
    for (count, mut client) in clients {
        let got = client.rest();
        assert_eq!(got.len(), count * each.len() + 5, "{count}");
        assert!(got.ends_with(b"x\r\n+OK\r\n"), "{count}");
    }
}

#[test]
fn a_client_that_could_share_is_not_refused_for_its_large_replies() {
    let (_redis, pontoon) = shared(&["--max-pinned", "1"]);
    let (mut one, mut other) = (pontoon.client(), pontoon.client());
    one.expect(&["MULTI"], "+OK\r\n");
    other.expect(&["SETRANGE", "k", "40000", "x"], ":40001\r\n");
    for _ in 0..3 {
        assert_eq!(other.ask(&["GET", "k"]).len(), 40_001 + 10);
        other.expect(&["PING"], "+PONG\r\n");
    }
    one.expect(&["DISCARD"], "+OK\r\n");
}

#[test]
fn a_client_with_a_database_and_a_name_can_stop_a_script() {
    let (redis, pontoon) = shared(&[]);
    redis.direct().expect(&["CONFIG", "SET", "lua-time-limit", "50"], "+OK\r\n");
    let (mut endless, mut client) = (pontoon.client(), pontoon.client());
    client.expect(&["SELECT", "1"], "+OK\r\n");
    client.expect(&["CLIENT", "SETNAME", "shop"], "+OK\r\n");
    client.expect(&["SET", "k", "v"], "+OK\r\n");
    endless.send(&command(&["EVAL", "while true do end", "0"]));
    let mut direct = redis.direct();
    eventually("the server is busy", || direct.ask(&["PING"]).starts_with(b"-BUSY "));
    let busy = String::from_utf8(direct.ask(&["GET", "k"])).unwrap();
    client.expect(&["GET", "k"], &busy);
    // This needs a dedicated connection, which would have to be set up first.
    client.expect(&["BLPOP", "list", "1"], &busy);
    let mut stranger = pontoon.client();
    // Engines differ in whether they accept SELECT now.
    let selected = String::from_utf8(direct.ask(&["SELECT", "2"])).unwrap();
    stranger.expect(&["SELECT", "2"], &selected);
    client.expect(&["SCRIPT", "KILL"], "+OK\r\n");
    assert!(endless.reply().starts_with(b"-"));
    client.expect(&["SCRIPT", "KILL"], "-NOTBUSY No scripts in execution right now.\r\n");
    client.expect(&["GET", "k"], "$1\r\nv\r\n");
    client.expect(&["CLIENT", "GETNAME"], "$4\r\nshop\r\n");
    client.expect(&["RPUSH", "list", "x"], ":1\r\n");
    client.expect(&["BLPOP", "list", "1"], "*2\r\n$4\r\nlist\r\n$1\r\nx\r\n");
    stranger.expect(&["SELECT", "2"], "+OK\r\n");
}

#[test]
fn a_protocol_chosen_within_a_pipeline_is_used_from_then_on() {
    let (redis, pontoon) = shared(&[]);
    let select = command(&["SELECT", "0"]);
    let config = command(&["CONFIG", "GET", "maxmemory"]);
    let pipeline =
        [&config[..], &command(&["HELLO", "3"]), &select.repeat(64), &config, &command(&["GET", "absent"])]
            .concat();
    let all = |mut client: Wire| {
        client.send(&pipeline);
        let replies: Vec<Vec<u8>> = (0..68).map(|_| client.reply()).collect();
        [&replies[..1], &replies[2..]].concat()
    };
    let (bridged, direct) = (all(pontoon.client()), all(redis.direct()));
    assert_eq!(bridged, direct);
}

/// Whether a new client is served within `time`.
fn serves_a_new_client(pontoon: &Pontoon, time: Duration) -> bool {
    let mut client = pontoon.client();
    client.send(&command(&["PING"]));
    !client.is_silent(time) && client.reply() == b"+PONG\r\n"
}

#[test]
fn new_clients_are_served_while_the_shared_connection_hangs() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let network = Forwarder::to(redis.tls_port);
    let pontoon = Pontoon::with(&network.endpoint(), &authority, &SHARED);
    let mut waiting = pontoon.client();
    waiting.expect(&["PING"], "+PONG\r\n");
    network.forget();
    waiting.send(&command(&["GET", "k"]));
    eventually("a new client is served", || serves_a_new_client(&pontoon, Duration::from_millis(500)));
    assert!(waiting.is_silent(Duration::from_millis(100)), "whether its request was executed is not known");
    assert!(serves_a_new_client(&pontoon, PATIENCE));
}

#[test]
fn a_busy_server_answers_over_the_connection_that_was_silent() {
    let (redis, pontoon) = shared(&[]);
    let mut waiting = pontoon.client();
    waiting.expect(&["SET", "k", "v"], "+OK\r\n");
    redis.pause();
    waiting.send(&command(&["GET", "k"]));
    pontoon.wait_for_log("shared connection silent");
    redis.resume();
    waiting.expect_next("$1\r\nv\r\n");
    waiting.expect(&["GET", "k"], "$1\r\nv\r\n");
    let mut direct = redis.direct();
    eventually("one connection is left, and one that is kept ready", || connections(&mut direct) <= 2);
}

#[test]
fn an_incomplete_request_is_not_answered_while_the_server_is_busy() {
    let (redis, pontoon) = shared(&[]);
    redis.direct().expect(&["CONFIG", "SET", "lua-time-limit", "50"], "+OK\r\n");
    let large = command(&["SET", "large", &"v".repeat(40_000)]);
    let (mut endless, mut client) = (pontoon.client(), pontoon.client());
    client.expect(&["SELECT", "1"], "+OK\r\n");
    endless.send(&command(&["EVAL", "while true do end", "0"]));
    let mut direct = redis.direct();
    eventually("the server is busy", || direct.ask(&["PING"]).starts_with(b"-BUSY "));
    client.send(&large[..20_000]);
    assert!(client.is_silent(Duration::from_millis(500)));
    direct.expect(&["SCRIPT", "KILL"], "+OK\r\n");
    endless.reply();
    client.send(&large[20_000..]);
    client.expect_next("+OK\r\n");
    client.expect(&["STRLEN", "large"], ":40000\r\n");
}

#[test]
fn an_unauthenticated_client_cannot_stop_a_script() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let local = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&local, "local").unwrap();
    let args = ["--auth-client", "verify", "--auth-local-password-file", local.path().to_str().unwrap()];
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &[&SHARED[..], &args].concat());
    let mut stranger = pontoon.client();
    for kill in ["SCRIPT", "FUNCTION"] {
        stranger.expect(&[kill, "KILL"], "-NOAUTH Authentication required.\r\n");
    }
    stranger.expect(&["AUTH", "local"], "+OK\r\n");
    stranger.expect(&["SCRIPT", "KILL"], "-NOTBUSY No scripts in execution right now.\r\n");
}

#[test]
fn a_client_whose_password_was_changed_stops_no_script_as_another_user() {
    let (redis, pontoon) = shared(&[]);
    let mut direct = redis.direct();
    let user = ["ACL", "SETUSER", "app", "on", ">old", "~*", "+get", "+auth", "+client", "+hello"];
    direct.expect(&user, "+OK\r\n");
    let mut client = pontoon.client();
    client.expect(&["AUTH", "app", "old"], "+OK\r\n");
    assert!(client.ask(&["SCRIPT", "KILL"]).starts_with(b"-NOPERM"));
    direct.expect(&["ACL", "SETUSER", "app", "resetpass", ">new"], "+OK\r\n");
    let reply = String::from_utf8(client.ask(&["SCRIPT", "KILL"])).unwrap();
    assert!(reply.starts_with("-ERR pontoon: another connection is needed"), "{reply}");
}

#[test]
fn while_writes_are_paused_a_write_delays_other_clients_reads() {
    let (redis, pontoon) = shared(&[]);
    let (mut one, mut other, mut direct) = (pontoon.client(), pontoon.client(), redis.direct());
    other.expect(&["GET", "k"], "$-1\r\n");
    direct.expect(&["CLIENT", "PAUSE", "100000", "WRITE"], "+OK\r\n");
    other.expect(&["GET", "k"], "$-1\r\n");
    one.send(&command(&["SET", "k", "v"]));
    eventually("the server has the write", || {
        String::from_utf8(direct.ask(&["INFO", "clients"])).unwrap().contains("blocked_clients:1\r\n")
    });
    other.send(&command(&["GET", "k"]));
    assert!(other.is_silent(Duration::from_millis(200)));
    direct.expect(&["GET", "k"], "$-1\r\n");
    direct.expect(&["CLIENT", "UNPAUSE"], "+OK\r\n");
    one.expect_next("+OK\r\n");
    other.expect_next("$1\r\nv\r\n");
}
