//! Clients as programs, and what they tell of themselves.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::local_ports;
use crate::harness::Pontoon;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/");

/// Of the environment, or where tests/run.sh installs it.
fn installed(variable: &str, path: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| format!("{}/target/{path}", env!("CARGO_MANIFEST_DIR")))
}

/// A script beside this file, for a Python with redis-py.
pub fn redis_py(script: &str) -> Command {
    let mut command = Command::new(installed("PONTOON_TEST_PYTHON", "venv/bin/python"));
    command.arg(format!("{DIRECTORY}{script}"));
    command
}

/// The same, for one with redis-py-cluster.
pub fn redis_py_cluster(script: &str) -> Command {
    let mut command = Command::new(installed("PONTOON_TEST_PYTHON_BEFORE", "venv-before/bin/python"));
    command.arg(format!("{DIRECTORY}{script}"));
    command
}

/// A script beside this file, for Node.js. Its first argument is the module.
pub fn ioredis(script: &str) -> Command {
    let modules = installed("PONTOON_TEST_NODE_MODULES", "node/node_modules");
    let mut command = Command::new("node");
    command.arg(format!("{DIRECTORY}{script}")).arg(format!("{modules}/ioredis"));
    command
}

/// What a program prints, which must succeed, and soon.
pub fn run(program: &Command) -> String {
    let output = Command::new("timeout")
        .arg("60")
        .arg(program.get_program())
        .args(program.get_args())
        .stdin(Stdio::null())
        .output()
        .expect("the client is installed; tests/run.sh does it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Asserts that a program went to the bridge, there to all of these ports, and nowhere else.
#[track_caller]
pub fn assert_dialled(dialled: &Value, pontoon: &Pontoon) {
    let mut local: Vec<u16> = local_ports(pontoon).into_values().collect();
    let dialled: Vec<u16> = serde_json::from_value(dialled.clone()).unwrap();
    assert!(local.iter().filter(|port| dialled.contains(port)).count() >= 3, "{local:?}: {dialled:?}");
    local.push(pontoon.address().port());
    assert!(dialled.iter().all(|port| local.contains(port)), "{local:?}: {dialled:?}");
}
