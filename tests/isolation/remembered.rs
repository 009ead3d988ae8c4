//! The server remembers some things for a connection that no command shows, and that RESET does not clear.

use super::{DEDICATED, ONE_THREAD, SHARED, bridge, settle};
use crate::audit::group;
use crate::harness::{Authority, Pontoon, Wire};

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
fn waiting_for_replicas_is_about_the_clients_own_writes() {
    // RESET follows the second only.
    const WRITES: [&[&str]; 2] = [&["SET", "k", "v"], &["EVAL", "return redis.call('INCR', 'n')", "0"]];
    let authority = Authority::new();
    let (primary, replica) = group(&authority);
    let mut direct = primary.direct();
    let args = [&ONE_THREAD[..], &DEDICATED].concat();
    let pontoon = Pontoon::with(&primary.endpoint(), &authority, &args).ready();
    // It confirms nothing from now on.
    replica.pause();
    let mut leaks = Vec::new();
    for words in WRITES {
        let mut first = pontoon.client();
        assert!(!first.ask(words).starts_with(b"-"));
        drop(first);
        settle(&pontoon, &mut direct, 1);
        // A client that has written nothing does not wait.
        primary.direct().expect(&["WAIT", "1", "200"], ":1\r\n");
        let reply = String::from_utf8(pontoon.client().ask(&["WAIT", "1", "200"])).unwrap();
        if reply != ":1\r\n" {
            leaks.push(format!("after {words:?}: {reply:?}"));
        }
        settle(&pontoon, &mut direct, 1);
    }
    replica.resume();
    assert!(leaks.is_empty(), "{leaks:#?}");
}
