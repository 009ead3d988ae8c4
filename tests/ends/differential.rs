//! Each blocking command, each kind of end, near and far servers: elements and replies are the same with the bridge as without it.
//!
//! `TEST_END_DELAYS` has the times in milliseconds after which elements come, separated by commas, for more delays than CI has time for.

use std::fmt::{self, Display};
use std::thread;
use std::time::{Duration, Instant};

use super::blocking::{self, Blocking};
use super::{End, Mode, clients_info};
use crate::harness::{Link, Wire, eventually};

const ROUND_TRIPS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(20), Duration::from_millis(150)];

/// Milliseconds between an end and its element, if the variable is not set.
const DELAYS: &str = "0,100,200";

/// The time that the bridge may take on a busy machine. An element that comes this soon after an end arrives may be taken or not.
const SLACK: Duration = Duration::from_millis(80);

/// Half-closed clients of a round that may lose an element which comes as their end arrives: a server that reads both in one turn gives the
/// element to a client that it closes in the same turn, with a bridge or without.
const COINCIDENCES: usize = 3;

/// Rounds on a busy machine.
const ROUNDS: usize = 3;

/// What became of one client's element.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    kept: bool,
    received: String,
}

impl Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with reply {:?}", if self.kept { "kept" } else { "taken" }, self.received)
    }
}

/// Whether the elements came before or after the ends arrived, as measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Push {
    Before,
    After,
    Undecided,
}

fn cases() -> Vec<(&'static Blocking, End)> {
    blocking::all().flat_map(|blocking| End::ALL.map(|end| (blocking, end))).collect()
}

/// Lets all cases block at once, ends them, and adds the elements after `delay`.
fn outcomes(
    connect: &dyn Fn() -> Wire,
    direct: &mut Wire,
    round_trip: Duration,
    delay: Duration,
) -> (Push, Vec<Outcome>) {
    direct.expect(&["FLUSHALL"], "+OK\r\n");
    let cases = cases();
    let keys: Vec<String> = (0..cases.len()).map(|n| format!("k{n}")).collect();
    let clients: Vec<Wire> = cases
        .iter()
        .zip(&keys)
        .map(|((blocking, _), key)| {
            blocking.prepare(direct, key);
            let mut client = connect();
            client.send(&blocking.request(key));
            client
        })
        .collect();
    eventually("all clients are blocked", || clients_info(direct, "blocked_clients") == cases.len());
    let first = Instant::now();
    let halves: Vec<Option<Wire>> =
        clients.into_iter().zip(&cases).map(|(client, (_, end))| end.of(client)).collect();
    let last = Instant::now();
    // The delay is the scenario, not synchronisation.
    thread::sleep(delay);
    let since_last = last.elapsed();
    for ((blocking, _), key) in cases.iter().zip(&keys) {
        blocking.push(direct, key);
    }
    let push = if first.elapsed() * 2 < round_trip / 2 {
        Push::Before
    } else if since_last > round_trip / 2 + SLACK {
        Push::After
    } else {
        Push::Undecided
    };
    eventually("no client is blocked", || clients_info(direct, "blocked_clients") == 0);
    let received: Vec<String> = halves
        .into_iter()
        .map(|half| String::from_utf8(half.map_or_else(Vec::new, |mut half| half.rest())).unwrap())
        .collect();
    let ended = cases.iter().zip(&keys).zip(received);
    let outcomes = ended
        .map(|(((blocking, _), key), received)| Outcome { kept: blocking.is_kept(direct, key), received })
        .collect();
    (push, outcomes)
}

/// What differs from the direct connection.
fn differences(
    with: &dyn Fn() -> Wire,
    without: &dyn Fn() -> Wire,
    direct: &mut Wire,
    round_trip: Duration,
    delay: Duration,
) -> Vec<String> {
    let (direct_push, expected) = outcomes(without, direct, round_trip, delay);
    let (push, got) = outcomes(with, direct, round_trip, delay);
    let decided = push != Push::Undecided && push == direct_push;
    let (mut differences, mut coincidences) = (Vec::new(), 0);
    for (((blocking, end), expected), got) in cases().into_iter().zip(expected).zip(got) {
        // A half-closed client still reads, and loses nothing, early or late.
        let lost = end == End::HalfClose && blocking.takes() && got.kept != got.received.is_empty();
        coincidences += usize::from(lost && !decided);
        if lost || (decided && got != expected) {
            differences
                .push(format!("{} then {end:?}, push {push:?}: {got}, direct: {expected}", blocking.name));
        }
    }
    if !decided && coincidences <= COINCIDENCES {
        return Vec::new();
    }
    differences
}

fn assert_same(mode: Mode, round_trip: Duration, delays: &[Duration]) {
    let (redis, _link, pontoon) = mode.with_link(round_trip);
    let plain = Link::to(redis.plain_port, round_trip);
    let mut direct = redis.direct();
    for &delay in delays {
        let mut seen = Vec::new();
        for _ in 0..ROUNDS {
            let with = || pontoon.client();
            let without = || Wire::tcp(plain.address());
            seen = differences(&with, &without, &mut direct, round_trip, delay);
            if seen.is_empty() {
                break;
            }
        }
        assert!(seen.is_empty(), "{mode:?}, round trip {round_trip:?}, element after {delay:?}: {seen:#?}");
    }
}

fn assert_mode(mode: Mode) {
    let delays = std::env::var("TEST_END_DELAYS").unwrap_or_else(|_| DELAYS.to_owned());
    let delays: Vec<Duration> =
        delays.split(',').map(|ms| Duration::from_millis(ms.trim().parse().unwrap())).collect();
    let failed: Vec<String> = thread::scope(|scope| {
        let all = ROUND_TRIPS.map(|round_trip| {
            let delays = &delays;
            scope.spawn(move || assert_same(mode, round_trip, delays))
        });
        all.into_iter().filter_map(|thread| thread.join().err()).map(message).collect()
    });
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn message(panic: Box<dyn std::any::Any + Send>) -> String {
    panic.downcast::<String>().map_or_else(|_| "a thread failed".to_owned(), |text| *text)
}

#[test]
fn ends_are_as_of_a_direct_connection_if_each_client_has_its_own() {
    assert_mode(Mode::Dedicated);
}

#[test]
fn ends_are_as_of_a_direct_connection_if_connections_are_reused() {
    assert_mode(Mode::Reused);
}

#[test]
fn ends_are_as_of_a_direct_connection_if_clients_share_connections() {
    assert_mode(Mode::Shared);
}
