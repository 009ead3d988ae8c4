//! What people deploy with, in `config/`: what can be known of it without the platform that it is for.

use std::process::Output;

use rustix::process::Signal;

use crate::harness::{Authority, Pontoon, Redis, pontoon};

/// Both streams of what a tool said.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_redis_that_is_away_makes_no_orchestrator_restart_pontoon() {
    let authority = Authority::new();
    let mut redis = Redis::start(&authority);
    redis.kill();
    let mut bridge = Pontoon::to(&redis.endpoint(), &authority);
    bridge.allows("cannot be reached");
    bridge.allows("refused");
    let admin = bridge.admin().to_string();
    let ready = pontoon(&["health", "--admin", &admin]);
    assert_eq!(ready.status.code(), Some(1));
    assert!(said(&ready).contains("is not ready"), "{}", said(&ready));
    let live = pontoon(&["health", "--live", "--admin", &admin]);
    assert!(live.status.success(), "{}", said(&live));
    bridge.signal(Signal::TERM);
    bridge.wait();
    let gone = pontoon(&["health", "--live", "--admin", &admin]);
    assert_eq!(gone.status.code(), Some(1));
}
