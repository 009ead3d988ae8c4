//! Transactions that arrive complete are sent between the commands of other clients, and no other client is part of them.

use std::io::{Read, Write};

use super::{SHARED, pinned, shared};
use crate::harness::{
    Authority, Fake, Pontoon, Redis, SLOTS, Wire, command, eventually, free_port, own_slots,
};

/// Requests in one piece.
fn pipeline(requests: &[&[&str]]) -> Vec<u8> {
    requests.iter().flat_map(|words| command(words)).collect()
}

/// Asserts that these replies come next.
#[track_caller]
fn expect_each(client: &mut Wire, replies: &[&str]) {
    for reply in replies {
        client.expect_next(reply);
    }
}

fn had_their_own(pontoon: &Pontoon) -> u64 {
    pontoon.metric("pontoon_sessions_pinned_total", "reason=\"transaction\"")
}

#[test]
fn a_complete_transaction_needs_no_dedicated_connection() {
    let (_redis, pontoon) = shared(&[]);
    let mut clients: Vec<Wire> = (0..20).map(|_| pontoon.client()).collect();
    let transaction = pipeline(&[&["MULTI"], &["INCR", "a"], &["INCR", "b"], &["MGET", "a", "b"], &["EXEC"]]);
    // Other clients' commands come in between, and requests before and after a transaction arrive in one piece with it.
    for (i, client) in clients.iter_mut().enumerate() {
        if i % 2 == 0 {
            client.send(&[&command(&["PING"])[..], &transaction, &transaction, &command(&["PING"])].concat());
        } else {
            client.send(&command(&["ECHO", "x"]).repeat(3));
        }
    }
    let mut seen = 0;
    for (i, client) in clients.iter_mut().enumerate() {
        if i % 2 == 1 {
            expect_each(client, &["$1\r\nx\r\n"; 3]);
            continue;
        }
        client.expect_next("+PONG\r\n");
        for _ in 0..2 {
            expect_each(client, &["+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "+QUEUED\r\n"]);
            let reply = String::from_utf8(client.reply()).unwrap();
            let n: Vec<&str> = reply.split("\r\n").collect();
            // Both keys were incremented and read at once.
            assert!(n[1] == n[2] && n[1][1..] == *n[5] && n[5] == n[7], "{reply}");
            seen += 1;
        }
        client.expect_next("+PONG\r\n");
    }
    assert_eq!(seen, 20);
    assert_eq!((had_their_own(&pontoon), pinned(&pontoon)), (0, 0));
    assert_eq!(pontoon.metric("pontoon_upstream_connections", "state=\"shared\""), 1);
}

#[test]
fn a_transaction_that_may_leave_state_behind_is_pinned() {
    let (_redis, pontoon) = shared(&[]);
    for (n, (requests, replies)) in [
        (
            &[&["MULTI"][..], &["SELECT", "1"], &["SELECT", "0"], &["EXEC"]][..],
            "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n+OK\r\n",
        ),
        (&[&["MULTI"], &["GET", "k"], &["EXEC", "x"], &["DISCARD"]], "+OK\r\n+QUEUED\r\n-"),
        (&[&["MULTI"], &["MULTI"], &["EXEC"]], "+OK\r\n-ERR "),
        (&[&["MULTI"], &["BLPOP", "k", "0"], &["EXEC"]], "+OK\r\n+QUEUED\r\n*1\r\n*-1\r\n"),
        (&[&["WATCH", "k"], &["MULTI"], &["GET", "k"], &["EXEC"]], "+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n$-1\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = pontoon.client();
        client.send(&pipeline(requests));
        let got: Vec<u8> = requests.iter().flat_map(|_| client.reply()).collect();
        assert!(got.starts_with(replies.as_bytes()), "{}", got.escape_ascii());
        client.expect(&["PING"], "+PONG\r\n");
        assert_eq!(had_their_own(&pontoon), n as u64 + 1, "{requests:?}");
    }
    // pontoon cannot know in advance what a transaction in several parts contains.
    let mut client = pontoon.client();
    client.send(&command(&["MULTI"]));
    client.expect_next("+OK\r\n");
    client.send(&pipeline(&[&["GET", "k"], &["EXEC"]]));
    expect_each(&mut client, &["+QUEUED\r\n", "*1\r\n$-1\r\n"]);
    assert_eq!(had_their_own(&pontoon), 6);
}

#[test]
fn pontoon_asks_the_server_about_commands_it_does_not_know() {
    let authority = Authority::new();
    let options = ["--rename-command", "APPEND", "MY.APPEND", "--rename-command", "KEYS", "MY.KEYS"];
    let redis = Redis::with(authority.issue(&["localhost"]), &authority, &options);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &SHARED);
    let mut client = pontoon.client();
    for n in 1..=2 {
        client.send(&pipeline(&[&["MULTI"], &["MY.APPEND", "k", "v"], &["MY.KEYS", "*"], &["EXEC"]]));
        expect_each(&mut client, &["+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n"]);
        client.expect_next(&format!("*2\r\n:{n}\r\n*1\r\n$1\r\nk\r\n"));
    }
    client.send(&pipeline(&[&["MULTI"], &["NOSUCHCOMMAND"], &["EXEC"]]));
    client.expect_next("+OK\r\n");
    assert!(client.reply().starts_with(b"-ERR unknown command"));
    assert!(client.reply().starts_with(b"-EXECABORT"));
    client.expect(&["GET", "k"], "$2\r\nvv\r\n");
    assert_eq!(pontoon.metric("pontoon_sessions_pinned_total", ""), 0);
}

#[test]
fn a_refused_transaction_still_ends() {
    let (redis, pontoon) = shared(&[]);
    redis.direct().expect(&["ACL", "SETUSER", "default", "-exec"], "+OK\r\n");
    let (mut one, mut other) = (pontoon.client(), pontoon.client());
    one.send(&pipeline(&[&["MULTI"], &["SET", "k", "v"], &["EXEC"]]));
    other.expect(&["GET", "k"], "$-1\r\n");
    expect_each(&mut one, &["+OK\r\n", "+QUEUED\r\n"]);
    let told = String::from_utf8(one.reply()).unwrap();
    assert!(told.starts_with("-EXECABORT"), "{told}");
    redis.direct().expect(&["ACL", "SETUSER", "default", "+exec", "-multi"], "+OK\r\n");
    one.send(&pipeline(&[&["MULTI"], &["SET", "k", "v"], &["EXEC"]]));
    let told = String::from_utf8(one.reply()).unwrap();
    assert!(told.starts_with("-NOPERM"), "{told}");
    expect_each(&mut one, &["+OK\r\n", "-ERR EXEC without MULTI\r\n"]);
    other.expect(&["GET", "k"], "$1\r\nv\r\n");
    assert_eq!(had_their_own(&pontoon), 0);
}

/// Redis before 6.0.6 refuses EXEC and stays in the transaction.
#[test]
fn no_other_client_gets_into_a_transaction_that_a_server_does_not_end() {
    let authority = Authority::new();
    let server = Fake::tls(&authority.issue(&["localhost"]), |stream| {
        let (mut buffer, mut queues) = ([0; 4096], false);
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
            let mut replies = String::new();
            for word in text.split("\r\n") {
                replies += match word {
                    "MULTI" => {
                        queues = true;
                        "+OK\r\n"
                    }
                    "EXEC" => "-BUSY Redis is busy running a script.\r\n",
                    "DISCARD" => {
                        queues = false;
                        "+OK\r\n"
                    }
                    "GET" if queues => "+QUEUED\r\n",
                    "GET" => "$1\r\nv\r\n",
                    "PING" => "+PONG\r\n",
                    _ => "",
                };
            }
            let _ = stream.write_all(replies.as_bytes());
        }
    });
    let pontoon = Pontoon::with(&server.endpoint(), &authority, &SHARED);
    let (mut one, mut other) = (pontoon.client(), pontoon.client());
    other.expect(&["GET", "k"], "$1\r\nv\r\n");
    let transaction = pipeline(&[&["MULTI"], &["GET", "k"], &["EXEC"]]);
    one.send(&transaction);
    expect_each(&mut one, &["+OK\r\n", "+QUEUED\r\n"]);
    let told = String::from_utf8(one.reply()).unwrap();
    assert!(
        told.contains("EXEC was refused") && told.contains("may or may not have been executed"),
        "{told}"
    );
    other.expect(&["GET", "k"], "$1\r\nv\r\n");
    // One dedicated connection is enough.
    one.send(&transaction);
    expect_each(&mut one, &["+OK\r\n", "+QUEUED\r\n", "-BUSY Redis is busy running a script.\r\n"]);
    assert_eq!(had_their_own(&pontoon), 1);
    one.expect(&["DISCARD"], "+OK\r\n");
    other.expect(&["GET", "k"], "$1\r\nv\r\n");
}

#[test]
fn no_other_client_gets_into_a_transaction_that_a_node_does_not_end() {
    let authority = Authority::new();
    let bus_port = free_port().to_string();
    let options = [
        &["--cluster-enabled", "yes", "--cluster-port", &bus_port][..],
        &["--cluster-announce-ip", "127.0.0.1", "--rename-command", "EXEC", "COMMIT"],
    ]
    .concat();
    let redis = Redis::with(authority.issue(&["localhost", "127.0.0.1"]), &authority, &options);
    own_slots(&mut redis.direct(), 0..SLOTS);
    eventually("the cluster serves", || {
        redis.direct().ask(&["CLUSTER", "INFO"]).windows(16).any(|text| text == b"cluster_state:ok")
    });
    let args = [&SHARED[..], &["--topology", "cluster"]].concat();
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &args);
    let (mut one, mut other) = (pontoon.client(), pontoon.client());
    other.expect(&["SET", "k", "v"], "+OK\r\n");
    let transaction = pipeline(&[&["MULTI"], &["INCR", "n"], &["EXEC"]]);
    one.send(&transaction);
    expect_each(&mut one, &["+OK\r\n", "+QUEUED\r\n"]);
    let told = String::from_utf8(one.reply()).unwrap();
    assert!(told.contains("EXEC was refused"), "{told}");
    other.expect(&["GET", "k"], "$1\r\nv\r\n");
    // One dedicated connection is enough.
    one.send(&transaction);
    expect_each(&mut one, &["+OK\r\n", "+QUEUED\r\n"]);
    assert!(one.reply().starts_with(b"-ERR unknown command"));
    assert_eq!(had_their_own(&pontoon), 1);
    other.expect(&["GET", "k"], "$1\r\nv\r\n");
}

#[test]
fn a_hello_that_is_queued_and_discarded_changes_nothing() {
    for (before, queued, after) in [
        (&["HELLO", "2"][..], &["HELLO", "3"][..], "$-1\r\n"),
        (&["HELLO", "3"], &["HELLO", "2"], "_\r\n"),
        (&["HELLO", "2"], &["HELLO", "3", "SETNAME", "other"], "$-1\r\n"),
    ] {
        let (_redis, pontoon) = shared(&[]);
        let mut client = pontoon.client();
        client.ask(before);
        client.expect(&["MULTI"], "+OK\r\n");
        client.expect(queued, "+QUEUED\r\n");
        client.expect(&["DISCARD"], "+OK\r\n");
        client.expect(&["GET", "none"], after);
        client.expect(&["CLIENT", "GETNAME"], after);
        eventually("the transaction needs no dedicated connection", || pinned(&pontoon) == 0);
        client.expect(&["GET", "none"], after);
        client.expect(&["CLIENT", "GETNAME"], after);
    }
}
