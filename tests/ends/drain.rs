//! What a client sent before the signal is answered, even if pontoon had not read it yet.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rustix::process::Signal;
use socket2::SockRef;

use super::{Mode, in_each_mode};
use crate::harness::{PATIENCE, Pontoon, Redis, Wire, command, eventually};

/// The state of pontoon when the signal comes is a matter of chance, so the tests try it several times.
const ROUNDS: usize = 4;

const PING: &str = "+PONG\r\n";

/// Stops the process, as a busy machine may at any time.
fn stop(pontoon: &Pontoon) {
    pontoon.signal(Signal::STOP);
    eventually("the process is stopped", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pontoon.pid())).unwrap();
        stat.rsplit(") ").next().unwrap().starts_with('T')
    });
}

/// Asserts that pontoon answers what clients sent before the signal, though it had not read it.
fn assert_answered(mode: Mode, clients: usize, requests: usize) {
    let (_redis, mut pontoon) = mode.with_redis(&[]);
    let mut clients: Vec<Wire> = (0..clients).map(|_| pontoon.client()).collect();
    for client in &mut clients {
        client.expect(&["PING"], PING);
    }
    stop(&pontoon);
    for client in &mut clients {
        for n in 0..requests {
            client.send(&command(&["SET", &format!("k{n}"), "v"]));
        }
    }
    pontoon.signal(Signal::TERM);
    pontoon.signal(Signal::CONT);
    let answers: Vec<String> =
        clients.into_iter().map(|mut client| String::from_utf8(client.rest()).unwrap()).collect();
    let unanswered = answers.iter().filter(|answer| **answer != "+OK\r\n".repeat(requests)).count();
    assert_eq!(unanswered, 0, "{mode:?}: clients that got less than all replies, of {}", answers.len());
    assert_eq!(pontoon.wait().code(), Some(0));
}

#[test]
fn a_request_sent_before_the_signal_is_answered() {
    in_each_mode(|mode| (0..ROUNDS).for_each(|_| assert_answered(mode, 1, 1)));
}

#[test]
fn requests_of_many_clients_sent_before_the_signal_are_answered() {
    in_each_mode(|mode| (0..ROUNDS).for_each(|_| assert_answered(mode, 50, 3)));
}

#[test]
fn an_invalid_request_does_not_delay_the_end() {
    in_each_mode(|mode| {
        for skipped in ["\r\n", "*0\r\n", "  \r\n"] {
            let (_redis, mut pontoon) = mode.with_redis(&["--drain-timeout", "60s"]);
            let mut client = pontoon.client();
            client.send(format!("PING\r\n{skipped}").as_bytes());
            client.expect_next(PING);
            pontoon.signal(Signal::TERM);
            client.expect_end();
            assert_eq!(pontoon.wait().code(), Some(0));
        }
    });
}

/// pontoon reads the pipeline in several parts, which end within requests.
#[test]
fn a_long_pipeline_that_arrived_before_the_signal_is_answered() {
    const REQUESTS: usize = 10_000;
    in_each_mode(|mode| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("redis.sock");
        let (_redis, mut pontoon) = mode.with_redis(&["--listen", &format!("unix:{}", path.display())]);
        // What is written to a Unix socket has arrived.
        let mut client = UnixStream::connect(&path).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        SockRef::from(&client).set_send_buffer_size(1024 * 1024).unwrap();
        client.write_all(&command(&["PING"])).unwrap();
        client.read_exact(&mut [0; PING.len()]).unwrap();
        stop(&pontoon);
        client.write_all(&command(&["ECHO", "x"]).repeat(REQUESTS)).unwrap();
        pontoon.signal(Signal::TERM);
        pontoon.signal(Signal::CONT);
        let mut answers = Vec::new();
        client.read_to_end(&mut answers).unwrap();
        assert_eq!(answers.len(), REQUESTS * "$1\r\nx\r\n".len(), "{mode:?}");
        assert_eq!(pontoon.wait().code(), Some(0));
    });
}

/// A client of a server that is paused.
fn at_a_paused_server(mode: Mode) -> (Redis, Pontoon, Wire) {
    let (redis, pontoon) = mode.with_redis(&[]);
    let mut client = pontoon.client();
    client.expect(&["SET", "k", "v"], "+OK\r\n");
    redis.pause();
    (redis, pontoon, client)
}

/// Resumes the server once the drain has begun, and asserts that four GETs are answered.
fn assert_four_answers(mode: Mode, redis: &Redis, mut pontoon: Pontoon, mut client: Wire) {
    pontoon.wait_for_log("draining");
    redis.resume();
    let answers = String::from_utf8(client.rest()).unwrap();
    assert_eq!(answers, "$1\r\nv\r\n".repeat(4), "{mode:?}");
    drop(client);
    assert_eq!(pontoon.wait().code(), Some(0));
}

/// The first request is outstanding, and pontoon has not read those behind it when the signal comes.
fn assert_answered_behind_another(mode: Mode) {
    let (redis, pontoon, mut client) = at_a_paused_server(mode);
    client.send(&command(&["GET", "k"]));
    eventually("the first request is outstanding", || pontoon.metric("pontoon_requests_total", "") >= 2);
    stop(&pontoon);
    for _ in 0..3 {
        client.send(&command(&["GET", "k"]));
    }
    pontoon.signal(Signal::TERM);
    pontoon.signal(Signal::CONT);
    assert_four_answers(mode, &redis, pontoon, client);
}

/// The server is paused, and pontoon has read some requests, or none, when the signal comes.
fn assert_answered_after_a_pause(mode: Mode) {
    let (redis, pontoon, mut client) = at_a_paused_server(mode);
    for _ in 0..4 {
        client.send(&command(&["GET", "k"]));
    }
    pontoon.signal(Signal::TERM);
    assert_four_answers(mode, &redis, pontoon, client);
}

#[test]
fn requests_behind_an_outstanding_one_are_answered() {
    in_each_mode(|mode| (0..ROUNDS).for_each(|_| assert_answered_behind_another(mode)));
}

#[test]
fn requests_that_a_paused_server_holds_up_are_answered() {
    in_each_mode(|mode| (0..ROUNDS).for_each(|_| assert_answered_after_a_pause(mode)));
}
