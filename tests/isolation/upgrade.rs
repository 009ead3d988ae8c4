//! If sessions may be moved to TLS, pontoon keeps a client's set-up to repeat it. The next client must not get it.

use super::view::{differences, pristine, view};
use super::{database_of, move_to_tls, reused, road, settle};
use crate::harness::{Pontoon, Redis, Wire};

/// What a client says that sets up its connection.
const SETUPS: &[&[&str]] = &[
    &["SELECT", "5"],
    &["HELLO", "3"],
    &["CLIENT", "SETNAME", "first"],
    &["HELLO", "3", "SETNAME", "first"],
];

/// What the next client finds that a new connection would not have.
fn found_by_the_next(redis: &Redis, pontoon: &Pontoon) -> Vec<String> {
    let mut direct = redis.direct();
    settle(pontoon, &mut direct, 1);
    let mut next = pontoon.client();
    next.ask(&["SET", "leak", "x"]);
    let database = database_of(&mut direct, "leak");
    let mut found = differences(&view(&mut next), &pristine(redis));
    if database != "0" {
        found.push(format!("it writes to database {database}"));
    }
    found
}

fn set_up(client: &mut Wire, words: &[&str]) {
    assert!(!client.ask(words).starts_with(b"-"), "{words:?}");
}

#[test]
fn a_set_up_in_plaintext_never_reaches_the_next_client() {
    let mut leaks = Vec::new();
    for words in SETUPS {
        let (redis, _dual, pontoon) = road();
        let mut first = pontoon.client();
        set_up(&mut first, words);
        drop(first);
        let found = found_by_the_next(&redis, &pontoon);
        leaks.extend(found.into_iter().map(|found| format!("after {}: {found}", words.join(" "))));
    }
    assert!(leaks.is_empty(), "{leaks:#?}");
}

#[test]
fn a_set_up_moved_to_tls_never_reaches_the_next_client() {
    let mut leaks = Vec::new();
    for (words, when) in SETUPS.iter().flat_map(|words| [(words, "before"), (words, "after")]) {
        let (redis, dual, pontoon) = road();
        let mut first = pontoon.client();
        first.expect(&["PING"], "+PONG\r\n");
        if when == "before" {
            set_up(&mut first, words);
        }
        move_to_tls(&mut first, &dual, &pontoon);
        if when == "after" {
            set_up(&mut first, words);
        }
        drop(first);
        let found = found_by_the_next(&redis, &pontoon);
        let said = words.join(" ");
        leaks.extend(found.into_iter().map(|found| format!("after {said} {when} the move: {found}")));
    }
    assert!(leaks.is_empty(), "{leaks:#?}");
}

#[test]
fn connections_are_still_reused_where_plaintext_may_become_tls() {
    let (redis, dual, pontoon) = road();
    let mut direct = redis.direct();
    for words in SETUPS {
        let mut client = pontoon.client();
        set_up(&mut client, words);
        drop(client);
        settle(&pontoon, &mut direct, 1);
    }
    assert_eq!(reused(&pontoon), SETUPS.len() as u64 - 1, "in plaintext");
    let mut client = pontoon.client();
    client.expect(&["PING"], "+PONG\r\n");
    move_to_tls(&mut client, &dual, &pontoon);
    set_up(&mut client, SETUPS[0]);
    drop(client);
    settle(&pontoon, &mut direct, 1);
    let before = reused(&pontoon);
    pontoon.client().expect(&["PING"], "+PONG\r\n");
    assert_eq!(reused(&pontoon), before + 1, "after the move");
}
