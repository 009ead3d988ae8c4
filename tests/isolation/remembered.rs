//! The server remembers some things for a connection that no command shows, and that RESET does not clear.

use super::{DEDICATED, SHARED, bridge, settle};
use crate::harness::{Authority, Pontoon, Redis, Wire};

fn tracks(client: &mut Wire) {
    assert!(client.ask(&["HELLO", "3"]).starts_with(b"%"));
    client.expect(&["CLIENT", "TRACKING", "ON"], "+OK\r\n");
}

#[test]
fn keys_that_an_earlier_client_tracked_are_not_reported_to_the_next() {
    let mut leaks = Vec::new();
    for sharing in [DEDICATED, SHARED] {
        let (redis, pontoon) = bridge(&sharing);
        let mut direct = redis.direct();
        let mut first = pontoon.client();
        tracks(&mut first);
        first.expect(&["GET", "k"], "_\r\n");
        drop(first);
        settle(&pontoon, &mut direct, 1);
        let mut next = pontoon.client();
        tracks(&mut next);
        direct.expect(&["SET", "k", "v"], "+OK\r\n");
        let reply = String::from_utf8(next.ask(&["PING"])).unwrap();
        if reply != "+PONG\r\n" {
            leaks.push((sharing[1], reply));
        }
    }
    assert!(leaks.is_empty(), "{leaks:?}");
}

#[test]
fn a_name_from_a_refused_hello_does_not_pass_to_the_next_client() {
    let authority = Authority::new();
    let redis = Redis::with(authority.issue(&["localhost"]), &authority, &["--requirepass", "pw"]);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &DEDICATED).ready();
    // The first client shows that the server requires AUTH; connections to such a server are not kept.
    for _ in 0..3 {
        let mut first = pontoon.client();
        assert!(first.ask(&["HELLO", "3", "SETNAME", "secret"]).starts_with(b"-NOAUTH"));
        drop(first);
        let mut next = pontoon.client();
        next.expect(&["AUTH", "pw"], "+OK\r\n");
        next.expect(&["CLIENT", "GETNAME"], "$-1\r\n");
    }
}
