//! The server counts a subscriber no longer than the subscriber's own connection lasts.

use std::time::{Duration, Instant};

use super::{End, HANGING, Mode};
use crate::harness::{Wire, command, within};

/// Number of subscribers, which leave one after another, each once the server has noticed the one before.
const SUBSCRIBERS: usize = 20;

/// Rounds on a busy machine.
const ROUNDS: usize = 3;

/// The time that all subscribers of a round together may take longer than without the bridge. A bridge that waits before it passes an end
/// on waits for each of them.
const SLACK: Duration = Duration::from_millis(800);

/// What a client subscribes with.
const KINDS: [(&str, &[&[&str]]); 4] = [
    ("SUBSCRIBE", &[&["SUBSCRIBE", "news"]]),
    ("SUBSCRIBE in RESP3", &[&["HELLO", "3"], &["SUBSCRIBE", "news"]]),
    ("PSUBSCRIBE", &[&["PSUBSCRIBE", "new*"]]),
    ("MONITOR", &[&["MONITOR"]]),
];

/// How long it takes until the server has noticed the end of each.
fn time_to_leave(
    kind: &str,
    requests: &[&[&str]],
    end: End,
    connect: &dyn Fn() -> Wire,
    direct: &mut Wire,
) -> Duration {
    let monitors = requests[0][0] == "MONITOR";
    let count = move |direct: &mut Wire| {
        if monitors {
            let list = String::from_utf8(direct.ask(&["CLIENT", "LIST"])).unwrap();
            return list.matches("flags=O").count();
        }
        let reply = String::from_utf8(direct.ask(&["PUBLISH", "news", "x"])).unwrap();
        reply[1..].trim_end().parse().unwrap()
    };
    let clients: Vec<Wire> = (0..SUBSCRIBERS)
        .map(|_| {
            let mut client = connect();
            for request in requests {
                client.send(&command(request));
                client.reply();
            }
            client
        })
        .collect();
    assert_eq!(count(direct), SUBSCRIBERS);
    let started = Instant::now();
    let mut halves = Vec::new();
    for (gone, client) in clients.into_iter().enumerate() {
        halves.extend(end.of(client));
        within(HANGING, &format!("the server has noticed {kind}, {end:?}"), || {
            count(direct) == SUBSCRIBERS - gone - 1
        });
    }
    let took = started.elapsed();
    for half in &mut halves {
        half.rest();
    }
    took
}

fn assert_mode(mode: Mode) {
    let (redis, pontoon) = mode.with_redis(&[]);
    let mut direct = redis.direct();
    let mut late = Vec::new();
    for (kind, requests) in KINDS {
        for end in End::ALL {
            let mut seen = Vec::new();
            let in_time = (0..ROUNDS).any(|_| {
                let without = time_to_leave(kind, requests, end, &|| redis.direct(), &mut direct);
                let with = time_to_leave(kind, requests, end, &|| pontoon.client(), &mut direct);
                seen.push((with, without));
                with < without + SLACK
            });
            if !in_time {
                late.push((kind, end, seen));
            }
        }
    }
    assert!(late.is_empty(), "for {SUBSCRIBERS} subscribers (with the bridge, without): {late:#?}");
}

#[test]
fn a_subscriber_that_left_its_own_connection_is_no_longer_counted() {
    assert_mode(Mode::Dedicated);
}

#[test]
fn a_subscriber_that_left_a_reused_connection_is_no_longer_counted() {
    assert_mode(Mode::Reused);
}

#[test]
fn a_subscriber_that_left_a_shared_connection_is_no_longer_counted() {
    assert_mode(Mode::Shared);
}
