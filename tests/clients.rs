//! Real clients and applications, in their ordinary use.

use std::process::Command;

use crate::harness::bridge;
use crate::harness::programs::{node, printed, python};

#[test]
fn redis_cli_works() {
    let (_redis, pontoon) = bridge();
    let port = pontoon.address().port().to_string();
    let cli = |args: &[&str]| printed(Command::new("redis-cli").args(["-p", &port]).args(args));
    assert_eq!(cli(&["SET", "k", "v"]), "OK\n");
    assert_eq!(cli(&["-3", "HGETALL", "none"]).trim(), "");
    assert_eq!(cli(&["GET", "k"]), "v\n");
    assert!(cli(&["INFO", "server"]).contains("redis_version"));
    assert!(cli(&["--scan"]).contains('k'));
}

#[test]
fn redis_benchmark_runs_with_pipelines() {
    let (_redis, pontoon) = bridge();
    let port = pontoon.address().port().to_string();
    for pipeline in ["1", "16"] {
        let report = printed(Command::new("redis-benchmark").args([
            "-p",
            &port,
            "-n",
            "20000",
            "-c",
            "20",
            "-P",
            pipeline,
            "-t",
            "set,get,lpush,lrange_100",
            "--csv",
        ]));
        assert!(report.lines().filter(|line| line.starts_with('"')).count() >= 5, "{report}");
    }
}

/// Runs a script that uses a client as its users do, and that reports success at its end.
#[track_caller]
fn works(mut program: Command, script: &str) {
    let (_redis, pontoon) = bridge();
    let report = printed(program.args([script, &pontoon.address().port().to_string()]));
    assert_eq!(report, "done\n");
}

#[test]
fn redis_py_works() {
    works(python(), "tests/clients/redis_py.py");
}

#[test]
fn redis_py_loses_no_job_when_a_worker_gives_up_waiting() {
    works(python(), "tests/clients/redis_py_timeouts.py");
}

#[test]
fn ioredis_works() {
    works(node(), "tests/clients/ioredis.js");
}

#[test]
fn node_redis_works() {
    works(node(), "tests/clients/node_redis.js");
}

#[test]
fn an_rq_queue_works() {
    works(python(), "tests/clients/rq_queue.py");
}

#[test]
fn a_bullmq_queue_works() {
    works(node(), "tests/clients/bullmq.js");
}
