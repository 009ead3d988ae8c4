//! Some commands pin a client to a dedicated connection. That connection goes back to the pool, or becomes a shared one.

use super::view::{differences, pristine, view};
use super::{SHARED, bridge, database_of, settle};
use crate::harness::{Pontoon, Wire};

/// Sets a value that is too large for a shared connection.
fn set_large(client: &mut Wire, key: &str) {
    client.expect(&["SET", key, &"v".repeat(200_000)], "+OK\r\n");
}

/// A client is pinned, sets up its connection, and leaves.
fn leave_set_up(pontoon: &Pontoon, words: &[&str]) {
    let mut first = pontoon.client();
    set_large(&mut first, "first");
    assert!(!first.ask(words).starts_with(b"-"), "{words:?}");
}

#[test]
fn the_next_pinned_client_writes_to_its_own_database() {
    let (redis, pontoon) = bridge(&SHARED);
    let mut direct = redis.direct();
    leave_set_up(&pontoon, &["SELECT", "5"]);
    settle(&pontoon, &mut direct, 1);
    set_large(&mut pontoon.client(), "leak");
    assert_eq!(database_of(&mut direct, "leak"), "0");
}

#[test]
fn a_connection_that_a_client_has_set_up_does_not_become_a_shared_one() {
    for protocol in ["2", "3"] {
        let (redis, pontoon) = bridge(&SHARED);
        let mut direct = redis.direct();
        leave_set_up(&pontoon, &["SELECT", "5"]);
        settle(&pontoon, &mut direct, 1);
        for n in 0..3 {
            let mut next = pontoon.client();
            assert!(!next.ask(&["HELLO", protocol]).starts_with(b"-"));
            next.expect(&["SET", "leak", "x"], "+OK\r\n");
            assert_eq!(database_of(&mut direct, "leak"), "0", "client {n} of RESP{protocol}");
        }
    }
}

#[test]
fn the_next_pinned_client_finds_neither_name_nor_protocol() {
    for words in [&["CLIENT", "SETNAME", "first"][..], &["HELLO", "3"], &["HELLO", "3", "SETNAME", "first"]] {
        let (redis, pontoon) = bridge(&SHARED);
        let mut direct = redis.direct();
        leave_set_up(&pontoon, words);
        settle(&pontoon, &mut direct, 1);
        let mut next = pontoon.client();
        set_large(&mut next, "leak");
        let found = differences(&view(&mut next), &pristine(&redis));
        assert!(found.is_empty(), "after {words:?}: {found:#?}");
    }
}
