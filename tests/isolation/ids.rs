//! The server gives each connection a client id. A client that has seen one can act on that connection, which may serve another client by
//! now.

use super::{DEDICATED, SHARED, bridge, idle, reused, settle};
use crate::harness::{Pontoon, Redis, Wire, command, eventually};

const NO_SUCH_ID: &str = "-ERR The client ID you want redirect to does not exist\r\n";

/// How a client can see the id of its connection without CLIENT ID.
#[derive(Debug, Clone, Copy)]
enum Source {
    Hello,
    HelloInTransaction,
    Info,
    List,
}

const SOURCES: [Source; 4] = [Source::Hello, Source::HelloInTransaction, Source::Info, Source::List];

fn learn(client: &mut Wire, how: Source) -> String {
    let reply = match how {
        Source::Hello => client.ask(&["HELLO", "2"]),
        Source::HelloInTransaction => {
            client.expect(&["MULTI"], "+OK\r\n");
            client.expect(&["HELLO", "2"], "+QUEUED\r\n");
            client.ask(&["EXEC"])
        }
        Source::Info => client.ask(&["CLIENT", "INFO"]),
        Source::List => client.ask(&["CLIENT", "LIST"]),
    };
    let reply = String::from_utf8(reply).unwrap();
    let (before, after) = match how {
        Source::Hello | Source::HelloInTransaction => ("$2\r\nid\r\n:", "\r\n"),
        Source::Info | Source::List => ("id=", " "),
    };
    // In the list, the client that asks is the one whose CLIENT command is unfinished: its words still take memory.
    let asks = |line: &&str| line.contains(" cmd=client") && !line.contains(" argv-mem=0 ");
    let of_this_one = reply.lines().find(asks).unwrap_or(&reply);
    let text = if matches!(how, Source::List) { of_this_one } else { &reply };
    text.split_once(before).unwrap().1.split(after).next().unwrap().to_owned()
}

/// A client learns its id and leaves; the next client gets the connection.
fn handed_on(how: Source) -> (Redis, Pontoon, String, Wire) {
    let (redis, pontoon) = bridge(&DEDICATED);
    let mut first = pontoon.client();
    let id = learn(&mut first, how);
    drop(first);
    settle(&pontoon, &mut redis.direct(), 1);
    let mut next = pontoon.client();
    next.expect(&["PING"], "+PONG\r\n");
    (redis, pontoon, id, next)
}

/// Number of clients that wait in a blocking command.
fn blocked(direct: &mut Wire) -> String {
    let info = String::from_utf8_lossy(&direct.ask(&["INFO", "clients"])).into_owned();
    let mut counts = info.lines().filter_map(|line| line.strip_prefix("blocked_clients:"));
    counts.next().unwrap().trim().to_owned()
}

#[test]
fn a_connection_whose_client_id_was_seen_in_hello_is_reused() {
    let (_redis, pontoon, ..) = handed_on(Source::Hello);
    assert_eq!(reused(&pontoon), 1);
}

#[test]
fn tracking_that_redirects_to_an_earlier_client_id_is_refused() {
    for how in SOURCES {
        let (redis, pontoon, id, mut next) = handed_on(how);
        assert!(next.ask(&["HELLO", "3"]).starts_with(b"%"));
        let mut other = pontoon.client();
        other.expect(&["CLIENT", "TRACKING", "ON", "REDIRECT", &id], NO_SUCH_ID);
        other.expect(&["GET", "k"], "$-1\r\n");
        redis.direct().expect(&["SET", "k", "v"], "+OK\r\n");
        next.expect(&["PING"], "+PONG\r\n");
    }
}

#[test]
fn redirecting_to_an_earlier_client_id_is_refused_however_it_is_written() {
    let (_redis, pontoon, id, _next) = handed_on(Source::Hello);
    for words in [
        &["CLIENT", "TRACKING", "ON", "BCAST", "REDIRECT", &id][..],
        &["client", "tracking", "on", "NOLOOP", "redirect", &id],
        &["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "REDIRECT", "REDIRECT", &id],
        &["CLIENT", "TRACKING", "ON", "REDIRECT", &id, "BCAST", "PREFIX", "a"],
    ] {
        let mut other = pontoon.client();
        other.expect(words, NO_SUCH_ID);
    }
}

#[test]
fn an_earlier_client_id_unblocks_no_other_client() {
    for how in SOURCES {
        let (redis, pontoon, id, mut next) = handed_on(how);
        let mut direct = redis.direct();
        next.send(&command(&["BLPOP", "queue", "0"]));
        eventually("the client is blocked", || blocked(&mut direct) == "1");
        for words in [&["CLIENT", "UNBLOCK", &id][..], &["client", "unblock", &id, "ERROR"]] {
            pontoon.client().expect(words, ":0\r\n");
        }
        pontoon.client().expect(&["RPUSH", "queue", "job"], ":1\r\n");
        next.expect_next("*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n");
    }
}

#[test]
fn an_earlier_client_id_kills_no_other_client() {
    for how in SOURCES {
        let (_redis, pontoon, id, mut next) = handed_on(how);
        pontoon.allows("localhost");
        for words in [
            &["CLIENT", "KILL", "ID", &id][..],
            &["client", "kill", "id", &id],
            &["CLIENT", "KILL", "SKIPME", "yes", "ID", &id],
            &["CLIENT", "KILL", "ID", &id, "TYPE", "normal"],
        ] {
            pontoon.client().expect(words, ":0\r\n");
        }
        next.expect(&["PING"], "+PONG\r\n");
    }
}

#[test]
fn an_earlier_client_id_has_no_effect_inline_or_in_a_transaction() {
    let (redis, pontoon, id, mut next) = handed_on(Source::Hello);
    pontoon.allows("localhost");
    let mut direct = redis.direct();
    next.send(&command(&["BLPOP", "queue", "0"]));
    eventually("the client is blocked", || blocked(&mut direct) == "1");
    let mut other = pontoon.client();
    other.send(format!("CLIENT UNBLOCK {id}\r\n").as_bytes());
    other.expect_next(":0\r\n");
    let mut other = pontoon.client();
    other.expect(&["MULTI"], "+OK\r\n");
    other.ask(&["CLIENT", "UNBLOCK", &id]);
    other.ask(&["CLIENT", "KILL", "ID", &id]);
    other.ask(&["EXEC"]);
    pontoon.client().expect(&["RPUSH", "queue", "job"], ":1\r\n");
    next.expect_next("*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n");
}

#[test]
fn requests_with_an_earlier_client_id_are_answered_in_order() {
    let (_redis, pontoon, id, _next) = handed_on(Source::Hello);
    pontoon.allows("localhost");
    let requests = [
        command(&["SET", "a", "1"]),
        command(&["CLIENT", "UNBLOCK", &id]),
        command(&["GET", "a"]),
        format!("CLIENT \"KILL\" ID {id}\r\n").into_bytes(),
        command(&["MULTI"]),
        command(&["CLIENT", "UNBLOCK", &id]),
        command(&["GET", "a"]),
        command(&["EXEC"]),
        command(&["CLIENT", "KILL", "ID", &id]),
        command(&["SUBSCRIBE", "x"]),
    ]
    .concat();
    let replies = "+OK\r\n:0\r\n$1\r\n1\r\n:0\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:0\r\n$1\r\n1\r\n:0\r\n\
        *3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n";
    for piece in [requests.len(), 50, 7, 1] {
        let mut client = pontoon.client();
        for bytes in requests.chunks(piece) {
            client.send(bytes);
        }
        client.finish();
        assert_eq!(String::from_utf8(client.rest()).unwrap(), replies, "in pieces of {piece}");
    }
}

#[test]
fn a_client_that_asks_for_the_id_of_its_reused_connection_can_use_it() {
    let (_redis, pontoon, id, mut next) = handed_on(Source::Hello);
    next.expect(&["CLIENT", "ID"], &format!(":{id}\r\n"));
    pontoon.client().expect(&["CLIENT", "TRACKING", "ON", "REDIRECT", &id], "+OK\r\n");
}

#[test]
fn the_client_id_of_a_connected_client_works() {
    let (redis, pontoon) = bridge(&DEDICATED);
    let mut direct = redis.direct();
    let (mut one, mut other) = (pontoon.client(), pontoon.client());
    let id = learn(&mut one, Source::Hello);
    one.send(&command(&["BLPOP", "queue", "0"]));
    eventually("the client is blocked", || blocked(&mut direct) == "1");
    other.expect(&["CLIENT", "UNBLOCK", &id], ":1\r\n");
    one.expect_next("*-1\r\n");
    other.expect(&["CLIENT", "TRACKING", "ON", "REDIRECT", &id], "+OK\r\n");
    other.expect(&["CLIENT", "TRACKING", "OFF"], "+OK\r\n");
    pontoon.allows("localhost");
    other.expect(&["CLIENT", "KILL", "ID", &id], ":1\r\n");
    one.expect_end();
}

#[test]
fn once_clients_use_ids_connections_whose_id_was_seen_are_not_reused() {
    for words in
        [&["CLIENT", "TRACKING", "ON", "REDIRECT"][..], &["CLIENT", "UNBLOCK"], &["CLIENT", "KILL", "ID"]]
    {
        let (redis, pontoon, id, next) = handed_on(Source::Hello);
        pontoon.allows("localhost");
        let mut direct = redis.direct();
        let mut other = pontoon.client();
        other.ask(&[words, &[id.as_str()]].concat());
        drop((next, other));
        settle(&pontoon, &mut direct, 1);
        // These clients take the connections that are still kept.
        let mut holders: Vec<Wire> = (0..idle(&pontoon)).map(|_| pontoon.client()).collect();
        for client in &mut holders {
            client.expect(&["PING"], "+PONG\r\n");
        }
        let mut late = pontoon.client();
        learn(&mut late, Source::Hello);
        let kept = idle(&pontoon);
        drop(late);
        let ours = 1 + holders.len() as u64;
        eventually("the connection is closed or kept", || {
            let sessions = pontoon.metric("pontoon_sessions_active", "");
            let info = String::from_utf8_lossy(&direct.ask(&["INFO", "clients"])).into_owned();
            let connected = info.lines().find_map(|line| line.strip_prefix("connected_clients:")).unwrap();
            let connected: u64 = connected.trim().parse().unwrap();
            sessions == holders.len() as u64 && connected == ours + idle(&pontoon)
        });
        assert_eq!(idle(&pontoon), kept, "after {words:?} the connection is closed");
    }
}

#[test]
fn an_earlier_client_address_kills_no_other_client() {
    let (redis, pontoon) = bridge(&DEDICATED);
    pontoon.allows("localhost");
    let mut first = pontoon.client();
    let info = String::from_utf8(first.ask(&["CLIENT", "INFO"])).unwrap();
    let address = info.split_once(" addr=").unwrap().1.split(' ').next().unwrap();
    drop(first);
    settle(&pontoon, &mut redis.direct(), 1);
    let mut next = pontoon.client();
    next.expect(&["PING"], "+PONG\r\n");
    for words in [&["CLIENT", "KILL", "ADDR", address][..], &["CLIENT", "KILL", address]] {
        let mut other = pontoon.client();
        other.ask(words);
        next.expect(&["PING"], "+PONG\r\n");
    }
}

/// A client learns the id of the connection that it shares, from HELLO.
fn shared_id() -> (Redis, Pontoon, String, Wire) {
    let (redis, pontoon) = bridge(&SHARED);
    let mut one = pontoon.client();
    let id = learn(&mut one, Source::Hello);
    let mut other = pontoon.client();
    other.expect(&["PING"], "+PONG\r\n");
    (redis, pontoon, id, other)
}

#[test]
fn the_client_id_of_a_shared_connection_kills_and_unblocks_no_client() {
    let (_redis, pontoon, id, mut other) = shared_id();
    pontoon.allows("localhost");
    pontoon.client().expect(&["CLIENT", "KILL", "ID", &id], ":0\r\n");
    pontoon.client().expect(&["CLIENT", "UNBLOCK", &id], ":0\r\n");
    other.expect(&["PING"], "+PONG\r\n");
}

#[test]
fn tracking_that_redirects_to_a_shared_connection_is_refused() {
    let (_redis, pontoon, id, mut other) = shared_id();
    pontoon.client().expect(&["CLIENT", "TRACKING", "ON", "REDIRECT", &id], NO_SUCH_ID);
    other.expect(&["PING"], "+PONG\r\n");
}

#[test]
fn the_client_id_of_a_pinned_client_is_invalid_once_it_has_left() {
    for how in [Source::Info, Source::List] {
        let (redis, pontoon) = bridge(&SHARED);
        pontoon.allows("localhost");
        let mut direct = redis.direct();
        let mut first = pontoon.client();
        let id = learn(&mut first, how);
        drop(first);
        settle(&pontoon, &mut direct, 1);
        let mut next = pontoon.client();
        next.send(&command(&["BLPOP", "queue", "0"]));
        eventually("the client is blocked", || blocked(&mut direct) == "1");
        pontoon.client().expect(&["CLIENT", "UNBLOCK", &id], ":0\r\n");
        pontoon.client().expect(&["CLIENT", "KILL", "ID", &id], ":0\r\n");
        pontoon.client().expect(&["RPUSH", "queue", "job"], ":1\r\n");
        next.expect_next("*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n");
    }
}
