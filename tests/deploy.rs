//! The deployment files in `config/`, checked as far as that is possible without their platforms.

mod compose;
mod debian;
mod docker;
mod ecs;
mod helm;
mod kubernetes;
mod release;
mod systemd;

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::programs::python;
use crate::harness::{Authority, Pontoon, Redis, pontoon};

/// Standard output and standard error of a tool.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Standard output of a tool that must succeed.
fn must(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The file as JSON, after the schemas of its platform have accepted it.
fn checked(platform: &str, text: &str) -> Value {
    let mut process = python()
        .args(["tests/deploy/schemas.py", platform])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

/// A container's variables, in the form that Kubernetes and ECS share.
fn variables(list: &Value) -> Vec<(String, String)> {
    let pair = |one: &Value| (one["name"].as_str().unwrap().into(), one["value"].as_str().unwrap().into());
    list.as_array().unwrap().iter().map(pair).collect()
}

/// Asserts that pontoon accepts these arguments and variables.
fn accepted(args: &[String], variables: &[(String, String)]) {
    let ["run", rest @ ..] = &args.iter().map(String::as_str).collect::<Vec<_>>()[..] else {
        panic!("{args:?}");
    };
    let mut check = Command::new(env!("CARGO_BIN_EXE_pontoon"));
    must(check.args(["check", "--offline"]).args(rest).envs(variables.iter().cloned()));
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
fn an_unreachable_redis_makes_no_orchestrator_restart_pontoon() {
    let authority = Authority::new();
    let mut redis = Redis::start(&authority);
    redis.kill();
    let mut bridge = Pontoon::to(&redis.endpoint(), &authority);
    bridge.allows("cannot be reached");
    bridge.allows("refused");
    let admin = bridge.admin().to_string();
    let serving = pontoon(&["health", "--admin", &admin]);
    assert_eq!(serving.status.code(), Some(1));
    assert!(said(&serving).contains("is not serving: route"), "{}", said(&serving));
    let live = pontoon(&["health", "--live", "--admin", &admin]);
    assert!(live.status.success(), "{}", said(&live));
    bridge.signal(Signal::TERM);
    bridge.wait();
    let gone = pontoon(&["health", "--live", "--admin", &admin]);
    assert_eq!(gone.status.code(), Some(1));
}
