//! Client programs that write to the primary and read from a replica, and their reports.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::programs::{go_client, node, php, python, python_4};
use crate::harness::{
    ClientProgram, Hosts, MASTER_NAME, PATIENCE, Pontoon, SentinelGroup, SentinelMember, connected_to,
    with_hosts, within,
};

/// What clients connect to.
pub struct Target {
    /// The arguments of the programs, except the key.
    given: Value,
    /// The file with the names that clients must resolve.
    hosts: Option<PathBuf>,
}

impl Target {
    /// The sentinels themselves. Clients trust the group's authority.
    pub fn without_a_bridge(group: &SentinelGroup) -> Self {
        let settings = group.settings();
        let given = json!({
            "sentinels": group.sentinel_endpoints(),
            "name": MASTER_NAME,
            "ca": group.authority().file(),
            "server_tls": settings.server_tls,
            "sentinel_tls": settings.sentinel_tls,
            "server_password": settings.server_password,
            "sentinel_password": settings.sentinel_password,
        });
        Self { given, hosts: group.hosts().map(Hosts::path) }
    }

    /// The listener that stands for all sentinels.
    pub fn through(pontoon: &Pontoon) -> Self {
        let given = json!({
            "sentinels": [("127.0.0.1", pontoon.address().port())],
            "name": MASTER_NAME,
            "server_tls": false,
            "sentinel_tls": false,
            "server_password": null,
            "sentinel_password": null,
        });
        Self { given, hosts: None }
    }

    pub fn is_a_bridge(&self) -> bool {
        self.given["ca"].is_null()
    }
}

/// A program at work.
pub struct Load {
    client: &'static str,
    /// The only key that it writes. No two loads have the same.
    key: String,
    program: ClientProgram,
}

impl Load {
    /// Every client.
    pub fn all(target: &Target) -> Vec<Self> {
        let script = |mut command: Command, script: &str, args: &[&str]| {
            command.arg(format!("tests/sentinel/{script}")).args(args);
            command
        };
        let mut go = go_client();
        go.arg("sentinel");
        let clients = [
            ("redis-py 8", script(python(), "load.py", &["sync"])),
            ("redis-py 8 asyncio", script(python(), "load.py", &["asyncio"])),
            ("redis-py 4", script(python_4(), "load.py", &["sync"])),
            ("redis-py 4 asyncio", script(python_4(), "load.py", &["asyncio"])),
            ("ioredis", script(node(), "load.js", &[])),
            ("phpredis", script(php(), "load.php", &[])),
            ("go-redis", go),
        ];
        clients.into_iter().map(|(client, command)| Self::start(client, command, target)).collect()
    }

    fn start(client: &'static str, command: Command, target: &Target) -> Self {
        let key = format!("{client} {:08x}", fastrand::u32(..));
        let mut given = target.given.clone();
        given["key"] = Value::from(key.as_str());
        let mut command = match &target.hosts {
            Some(hosts) => launched(with_hosts(hosts), &command),
            None => command,
        };
        command.arg(given.to_string());
        Self { client, key, program: ClientProgram::start(command) }
    }

    /// Waits until it has written to the primary, and read from a replica.
    #[track_caller]
    pub fn wait_until_up(&mut self) {
        self.program.wait_for("up");
    }

    /// Waits until it writes to this server.
    #[track_caller]
    pub fn wait_until_it_writes_to(&mut self, server: &SentinelMember) {
        let before = self.written(server);
        // On a busy machine ioredis has taken more than 30 s after a primary that hung, also without a bridge.
        within(2 * PATIENCE, &format!("{} writes to the new primary, or ends", self.client), || {
            self.written(server) > before || !self.program.is_running()
        });
        assert!(self.program.is_running(), "{} ended: {}", self.client, self.program.log());
    }

    /// Asserts that it has no connection to one of these ports.
    #[track_caller]
    pub fn assert_not_connected_to(&self, ports: &[u16]) {
        assert!(!connected_to(ports).contains(&self.program.pid()), "{} bypasses the bridge", self.client);
    }

    /// Waits until it has written and read once more, and ends it. Asserts that the server has each acknowledged write once.
    #[track_caller]
    pub fn finish(mut self, server: &SentinelMember) {
        self.program.prompt();
        let line = self.program.last_line();
        let report: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{}: {error}: {line}\n{}", self.client, self.program.log()));
        let [acknowledged, failed] = ["acknowledged", "failed"].map(|name| report[name].as_u64().unwrap());
        // A write whose reply was lost may have been executed.
        let possible = acknowledged..=acknowledged + failed;
        let written = self.written(server);
        assert!(possible.contains(&written), "{}: {written} of {report}", self.client);
        assert!(report["read"]["slave"].is_u64(), "{} reads from replicas: {report}", self.client);
    }

    /// The number of writes that a server has.
    fn written(&self, server: &SentinelMember) -> u64 {
        let reply = server.text(&["GET", &self.key]);
        reply.lines().nth(1).map_or(0, |number| number.parse().unwrap())
    }
}

/// A command that runs another one.
fn launched(mut launcher: Command, command: &Command) -> Command {
    launcher.arg(command.get_program()).args(command.get_args());
    launcher.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    launcher
}
