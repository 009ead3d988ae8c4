//! Real cluster clients, in their ordinary use.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use super::programs::{Load, assert_dialled};
use super::{Shared, assert_local, shared};
use crate::harness::Engine;
use crate::harness::programs::{node, printed, python, python_before};
use crate::harness::{Node, connected_to};

fn port(shared: &Shared) -> String {
    shared.pontoon.address().port().to_string()
}

/// Runs a script that ends by printing which addresses it dialled.
fn works(mut program: Command, script: &str, shared: &Shared, more: &[&str]) {
    let report = printed(program.arg(script).arg(port(shared)).args(more));
    assert_dialled(&serde_json::from_str(&report).unwrap(), &shared.pontoon);
}

#[test]
fn redis_py_works_with_a_cluster() {
    let shared = shared();
    for protocol in ["2", "3"] {
        works(python(), "tests/cluster/redis_py.py", &shared, &[protocol]);
    }
}

#[test]
fn redis_py_cluster_works() {
    works(python_before(), "tests/cluster/redis_py_cluster.py", &shared(), &[]);
}

#[test]
fn ioredis_works_with_a_cluster() {
    works(node(), "tests/cluster/ioredis.js", &shared(), &[]);
}

/// What redis-cli prints for these lines, without the redirects, which led it to the bridge.
fn redis_cli(shared: &Shared, options: &[&str], lines: &[&str]) -> String {
    let mut cli = Command::new("timeout")
        .args(["60", "redis-cli", "-c", "-p", &port(shared)])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = cli.stdin.take().unwrap();
    let lines = lines.join("\n");
    let writer = thread::spawn(move || input.write_all(format!("{lines}\n").as_bytes()));
    let output = cli.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let (redirects, printed): (Vec<&str>, Vec<&str>) =
        printed.lines().partition(|line| line.starts_with("-> Redirected to slot"));
    if !redirects.is_empty() {
        assert_local(&redirects.join("\n"), &shared.pontoon, &shared.cluster);
    }
    printed.join("\n") + "\n"
}

#[test]
fn redis_cli_follows_redirects() {
    let shared = shared();
    // redis-cli starts with RESP2, and before 7.0 has no option for it.
    for protocol in [&[][..], &["-3"]] {
        let keys: Vec<String> = (0..2000).map(|n| format!("redis-cli{}-{n}", protocol.concat())).collect();
        let lines: Vec<String> =
            keys.iter().flat_map(|key| [format!("SET {key} {key}"), format!("GET {key}")]).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let printed = redis_cli(&shared, protocol, &lines);
        let expected: String = keys.iter().flat_map(|key| ["OK\n", key, "\n"]).collect();
        assert!(printed == expected, "{printed}");
        let more = [
            "GET {redis-cli}a",
            "MULTI",
            "MSET {redis-cli}a 1 {redis-cli}b 2",
            "MGET {redis-cli}a {redis-cli}b",
            "EXEC",
            "CLUSTER SLOTS",
        ];
        redis_cli(&shared, protocol, &["DEL {redis-cli}a {redis-cli}b"]);
        let printed = redis_cli(&shared, protocol, &more);
        assert!(printed.starts_with("\nOK\nQUEUED\nQUEUED\nOK\n1\n2\n"), "{printed}");
        assert_local(&printed, &shared.pontoon, &shared.cluster);
    }
}

#[test]
fn redis_cli_subscribes_to_a_channel_of_another_node() {
    let shared = shared();
    for (subscribe, publish, channel) in [
        ("SUBSCRIBE", "PUBLISH", "redis-cli-news"),
        ("SSUBSCRIBE", "SPUBLISH", "foo"),
        ("SSUBSCRIBE", "SPUBLISH", "bar"),
    ] {
        if subscribe == "SSUBSCRIBE" && Engine::here().is_before_7() {
            continue;
        }
        let mut cli = Command::new("timeout")
            .args(["60", "redis-cli", "-c", "-p", &port(&shared), subscribe, channel])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(cli.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line == "1"), "redis-cli is subscribed");
        redis_cli(&shared, &[], &[&format!("{publish} {channel} hello")]);
        assert!(lines.any(|line| line == "hello"));
        // `timeout` passes the signal on.
        kill_process(Pid::from_child(&cli), Signal::TERM).unwrap();
        cli.wait().unwrap();
    }
}

#[test]
fn redis_cli_inspects_the_cluster() {
    let shared = shared();
    let mut check = Command::new("redis-cli");
    let report = printed(check.args(["--cluster", "check", &shared.pontoon.address().to_string()]));
    assert!(report.contains("[OK] All 16384 slots covered."), "{report}");
    assert!(report.contains("[OK] All nodes agree about slots configuration."), "{report}");
    assert_local(&report, &shared.pontoon, &shared.cluster);
}

#[test]
fn redis_benchmark_spreads_over_the_primaries() {
    let shared = shared();
    let before: Vec<u64> = (0..3).map(|node| commands(&shared, node)).collect();
    let mut benchmark = Command::new("redis-benchmark");
    benchmark.args(["--cluster", "-p", &port(&shared), "-n", "9000", "-c", "9", "-P", "8", "-r", "10000"]);
    let report = printed(benchmark.args(["-t", "set,get,incr,lpush"]));
    assert!(
        ["master", "primary"].iter().any(|role| report.contains(&format!("Cluster has 3 {role} nodes"))),
        "{report}"
    );
    // Elsewhere a rate may look like a node's port.
    let nodes: Vec<&str> = report.lines().filter(|line| line.contains("127.0.0.1:")).collect();
    assert_local(&nodes.join("\n"), &shared.pontoon, &shared.cluster);
    let after = (0..3).map(|node| commands(&shared, node));
    let done: Vec<u64> = after.zip(before).map(|(after, before)| after - before).collect();
    // Each of its threads has one node. On a busy machine a thread may have little time.
    assert!(done.iter().sum::<u64>() >= 4 * 9000 && done.iter().all(|done| *done >= 100), "{done:?}");
}

/// Number of commands that a node has processed.
fn commands(shared: &Shared, node: usize) -> u64 {
    let stats = shared.cluster.ask(node, &["INFO", "stats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
    line.unwrap().parse().unwrap()
}

#[test]
fn only_the_bridge_connects_to_the_nodes() {
    let shared = shared();
    let ports: Vec<u16> = shared.cluster.nodes.iter().map(|node| node.port).collect();
    let mut allowed: BTreeSet<u32> = shared.cluster.nodes.iter().map(Node::pid).collect();
    // This test process asks the nodes, too.
    allowed.extend([shared.pontoon.pid(), std::process::id()]);
    let mut load = Load::redis_py(&shared.pontoon, "2");
    load.check(&shared.pontoon, &shared.cluster);
    let connected = connected_to(&ports);
    assert!(connected.contains(&shared.pontoon.pid()) && connected.is_subset(&allowed), "{connected:?}");
}
