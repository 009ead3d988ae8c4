//! Shutdown step by step, as `src/app.rs` lists it. Module `lifecycle` tests what concerns replies.

use std::net::TcpStream;

use rustix::process::Signal;

use crate::harness::{Authority, Forwarder, Pontoon, Redis, Wire, bridge, command, eventually};

/// A bridge with a client that blocks.
fn with_blocked_client(args: &[&str]) -> (Redis, Pontoon, Wire) {
    let authority = Authority::new();
    let mut redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, args);
    redis.keep(authority);
    let mut client = pontoon.client();
    client.send(&command(&["BLPOP", "queue", "0"]));
    eventually("the request is under way", || pontoon.metric("pontoon_requests_total", "") == 1);
    (redis, pontoon, client)
}

#[test]
fn new_clients_are_served_during_the_shutdown_delay() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let mut pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--shutdown-delay", "1h"]).ready();
    let mut before = pontoon.client();
    before.expect(&["PING"], "+PONG\r\n");
    pontoon.signal(Signal::TERM);
    eventually("/readyz says that pontoon is draining", || {
        pontoon.get("/readyz") == (503, "not serving: draining\n".to_owned())
    });
    before.expect(&["PING"], "+PONG\r\n");
    let mut after = pontoon.client();
    after.expect(&["PING"], "+PONG\r\n");
    assert_eq!(pontoon.log_count("draining"), 0);
    pontoon.signal(Signal::TERM);
    before.expect_end();
    after.expect_end();
    drop((before, after));
    assert_eq!(pontoon.wait().code(), Some(0));
}

#[test]
fn the_drain_follows_the_delay_by_itself() {
    let (_redis, mut pontoon, mut client) = with_blocked_client(&["--shutdown-delay", "50ms"]);
    let mut idle = pontoon.client();
    idle.expect(&["PING"], "+PONG\r\n");
    pontoon.signal(Signal::TERM);
    idle.expect_end();
    pontoon.signal(Signal::TERM);
    client.expect_end();
    assert_eq!(pontoon.wait().code(), Some(0));
}

#[test]
fn each_further_signal_skips_one_wait() {
    let (_redis, mut pontoon, mut client) = with_blocked_client(&["--shutdown-delay", "1h"]);
    pontoon.signal(Signal::TERM);
    pontoon.wait_for_log("still accepting clients");
    pontoon.signal(Signal::INT);
    pontoon.wait_for_log("draining");
    assert!(pontoon.is_running(), "the client still waits for its reply");
    pontoon.signal(Signal::TERM);
    client.expect_end();
    pontoon.wait_for_log("sessions cut by a further signal");
    assert_eq!(pontoon.wait().code(), Some(0));
}

#[test]
fn listeners_are_closed_while_sessions_still_end() {
    let (redis, mut pontoon, mut client) = with_blocked_client(&[]);
    pontoon.signal(Signal::TERM);
    eventually("no client is accepted", || TcpStream::connect(pontoon.address()).is_err());
    assert_eq!(pontoon.get("/livez").0, 200, "the admin server closes last");
    redis.direct().expect(&["RPUSH", "queue", "job"], ":1\r\n");
    client.expect_next("*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n");
    client.expect_end();
    drop(client);
    assert_eq!(pontoon.wait().code(), Some(0));
}

#[test]
fn a_cut_session_is_reported_and_is_no_failure() {
    let (_redis, mut pontoon, mut client) = with_blocked_client(&["--drain-timeout", "100ms"]);
    pontoon.expects("sessions cut after runtime.drain_timeout");
    pontoon.signal(Signal::TERM);
    client.expect_end();
    let record = pontoon.wait_for_log("sessions cut after runtime.drain_timeout");
    assert_eq!(record["sessions"], 1);
    assert_eq!(pontoon.wait().code(), Some(0));
}

#[test]
fn a_cut_client_that_waits_for_a_connection_is_no_failure() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    for sharing in ["dedicated", "shared"] {
        let name = Forwarder::to(redis.tls_port);
        let args = [
            "--sharing",
            sharing,
            "--pool-reuse",
            "false",
            "--connect-timeout",
            "1h",
            "--drain-timeout",
            "100ms",
        ];
        let mut pontoon = Pontoon::with(&name.endpoint(), &authority, &args).ready();
        pontoon.expects("sessions cut after runtime.drain_timeout");
        name.hold_new();
        let mut client = pontoon.client();
        client.send(&command(&["GET", "k"]));
        eventually("the client waits", || {
            pontoon.metric("pontoon_upstream_connections", "state=\"connecting\"") == 1
        });
        pontoon.post("/drain");
        client.expect_end();
        let ended = |end: &str| pontoon.metric("pontoon_sessions_total", &format!("end=\"{end}\""));
        eventually("the end is counted", || ended("drained") == 1);
        assert_eq!(ended("failed"), 0, "{sharing}");
        name.release();
        pontoon.post("/quit");
        assert_eq!(pontoon.wait().code(), Some(0));
    }
}

#[test]
fn the_state_file_records_what_happened_until_the_very_end() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state.json");
    let mut pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--state-file", file.to_str().unwrap()]);
    let mut client = pontoon.client();
    // An old server refuses this, but pontoon still records it.
    client.ask(&["CLIENT", "SETINFO", "LIB-NAME", "the-last-one"]);
    pontoon.signal(Signal::TERM);
    client.expect_end();
    drop(client);
    assert_eq!(pontoon.wait().code(), Some(0));
    assert!(std::fs::read_to_string(&file).unwrap().contains("the-last-one"));
}

#[test]
fn a_post_to_drain_ends_all_sessions_but_only_a_signal_ends_the_process() {
    let (redis, mut pontoon, mut client) = with_blocked_client(&[]);
    let mut idle = pontoon.client();
    idle.expect(&["PING"], "+PONG\r\n");
    assert_eq!(pontoon.post("/drain"), (202, "draining\n".to_owned()));
    idle.expect_end();
    eventually("no client is accepted", || TcpStream::connect(pontoon.address()).is_err());
    // A signal does not cut short the drain that a pod's preStop hook began.
    pontoon.post("/drain");
    pontoon.signal(Signal::TERM);
    pontoon.wait_for_log("signal received");
    redis.direct().expect(&["RPUSH", "queue", "job"], ":1\r\n");
    client.expect_next("*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n");
    client.expect_end();
    drop((client, idle));
    assert_eq!(pontoon.wait().code(), Some(0));
}

#[test]
fn once_drained_pontoon_waits_for_quit() {
    let (_redis, mut pontoon) = bridge();
    assert_eq!(pontoon.post("/drain").0, 202);
    pontoon.wait_for_log("drained, waiting for SIGTERM or POST /quit");
    assert_eq!(pontoon.get("/readyz"), (503, "not serving: draining\n".to_owned()));
    assert_eq!(pontoon.get("/livez").0, 200);
    assert_eq!(pontoon.post("/reload").0, 503, "no reload while draining");
    assert!(pontoon.is_running());
    assert_eq!(pontoon.post("/quit").0, 202);
    assert_eq!(pontoon.wait().code(), Some(0));
}

#[test]
fn a_signal_right_after_the_start_is_obeyed() {
    let (_redis, mut pontoon) = bridge();
    pontoon.signal(Signal::INT);
    assert_eq!(pontoon.wait().code(), Some(0));
}

#[test]
fn a_bridge_for_a_job_ends_after_its_last_client_not_before_its_first() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let mut pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--exit-with-clients", "300ms"]).ready();
    let mut first = pontoon.client();
    first.expect(&["PING"], "+PONG\r\n");
    let mut second = pontoon.client();
    second.expect(&["PING"], "+PONG\r\n");
    drop(first);
    eventually("the first client is gone", || pontoon.metric("pontoon_sessions_active", "") == 1);
    assert!(pontoon.is_running());
    drop(second);
    pontoon.wait_for_log("no client for runtime.exit_with_clients");
    assert_eq!(pontoon.wait().code(), Some(0));
}
