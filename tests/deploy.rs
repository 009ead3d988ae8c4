//! What people deploy with, in `config/`: what can be known of it without the platform that it is for.

mod systemd;

use std::process::{Command, Output};

use rustix::process::Signal;

use crate::harness::{Authority, Pontoon, Redis, pontoon};

/// Both streams of what a tool said.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs a tool that must be content.
fn must(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    said(&output)
}

/// The sum of the defaults of `runtime.shutdown_delay` and `runtime.drain_timeout`, in seconds: a platform must wait longer.
fn drain_seconds() -> u64 {
    let config = std::fs::read_to_string("config/pontoon.toml").unwrap();
    let seconds = |key: &str| {
        let value = config.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
        Some(humantime::parse_duration(value.trim_matches('"')).unwrap().as_secs())
    };
    seconds("drain_timeout").unwrap() + seconds("shutdown_delay").unwrap_or(0)
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
