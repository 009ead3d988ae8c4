//! Client programs that generate load, and their reports.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::local_ports;
use crate::harness::programs::{node, python};
use crate::harness::{Cluster, Pontoon, connected_to};

/// Asserts that a program dialled each of the bridge's node ports, and nothing else.
#[track_caller]
pub fn assert_dialled(dialled: &Value, pontoon: &Pontoon) {
    let mut local: Vec<u16> = local_ports(pontoon).into_values().collect();
    let dialled: Vec<u16> = serde_json::from_value(dialled.clone()).unwrap();
    assert!(local.iter().filter(|port| dialled.contains(port)).count() >= 3, "{local:?}: {dialled:?}");
    local.push(pontoon.address().port());
    assert!(dialled.iter().all(|port| local.contains(port)), "{local:?}: {dialled:?}");
}

/// A program that writes and reads until it is dropped.
pub struct Load {
    process: Child,
    answers: BufReader<ChildStdout>,
    /// The prefix of all its keys.
    prefix: String,
    /// Whether it connects to the cluster without the bridge.
    direct: bool,
}

/// What a load reports.
#[derive(Debug)]
pub struct Report {
    /// Number of redirects received.
    pub moved: u64,
    pub asked: u64,
    /// Each error, and how often it occurred.
    pub errors: BTreeMap<String, u64>,
}

impl Load {
    pub fn redis_py(pontoon: &Pontoon, protocol: &str) -> Self {
        // No two loads write the same key.
        let prefix = format!("redis-py-{protocol}-{:08x}-", fastrand::u32(..));
        let mut command = python();
        command.arg("tests/cluster/load.py").args([&pontoon.address().port().to_string(), &prefix, protocol]);
        Self::start(command, prefix, false)
    }

    pub fn ioredis(pontoon: &Pontoon) -> Self {
        let mut command = node();
        command.arg("tests/cluster/load.js").args([&pontoon.address().port().to_string(), "ioredis-"]);
        Self::start(command, "ioredis-".to_owned(), false)
    }

    /// A load over TLS, without the bridge.
    pub fn direct(cluster: &Cluster) -> Self {
        let mut command = python();
        let port = cluster.nodes[0].port.to_string();
        command.arg("tests/cluster/load.py").args([&port, "direct-", "2", &cluster.authority().file()]);
        Self::start(command, "direct-".to_owned(), true)
    }

    fn start(mut command: Command, prefix: String, direct: bool) -> Self {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { process, answers, prefix, direct }
    }

    /// One of its keys.
    pub fn key(&self) -> String {
        format!("{}0-0", self.prefix)
    }

    /// Waits until the load has written and read every key once more. Asserts that every value was the acknowledged one, and that the load
    /// dialled only the bridge.
    pub fn check(&mut self, pontoon: &Pontoon, cluster: &Cluster) -> Report {
        self.process.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).expect("the program runs");
        assert_eq!(answer["wrong"], Value::Array(vec![]), "{answer}");
        assert_eq!(answer["errors"]["no pass in 30 s"], Value::Null, "{answer}");
        if !self.direct {
            assert_dialled(&answer["dialled"], pontoon);
            let nodes: Vec<u16> = cluster.nodes.iter().map(|node| node.port).collect();
            assert!(!connected_to(&nodes).contains(&self.process.id()));
        }
        Report {
            moved: answer["moved"].as_u64().unwrap(),
            asked: answer["asked"].as_u64().unwrap(),
            errors: serde_json::from_value(answer["errors"].clone()).unwrap(),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
