//! A node of a [`Cluster`](super::Cluster): a `redis-server` that speaks TLS and nothing else, to clients and on the bus.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use rustls::ClientConfig;
use tempfile::TempDir;

use super::redis::free_port;
use super::{Authority, Identity, Wire, eventually};

/// A node is given up by the others after this long without an answer.
const NODE_TIMEOUT_MS: &str = "1500";

pub struct Node {
    process: Child,
    directory: TempDir,
    identity: Identity,
    ca: String,
    trust: Arc<ClientConfig>,
    hostname: Option<String>,
    alive: bool,
    /// What the cluster calls it.
    pub id: String,
    pub port: u16,
    pub bus_port: u16,
}

impl Node {
    /// Empty, and in no cluster yet. `hostname`: announced, and preferred to the address.
    pub fn start(authority: &Authority, hostname: Option<String>) -> Self {
        let names = if hostname.is_some() { "*.cluster.test" } else { "localhost" };
        let (directory, identity, ca) =
            (tempfile::tempdir().unwrap(), authority.issue(&[names]), authority.file());
        let (port, bus_port) = (free_port(), free_port());
        let process = spawn(&directory, &identity, &ca, hostname.as_deref(), port, bus_port);
        let trust = authority.client_config();
        let mut node = Self {
            process,
            directory,
            identity,
            ca,
            trust,
            hostname,
            alive: true,
            id: String::new(),
            port,
            bus_port,
        };
        if !node.is_up() {
            node.respawn(true);
        }
        let id = node.wire().ask(&["CLUSTER", "MYID"]);
        String::from_utf8_lossy(&id).split("\r\n").nth(1).unwrap().clone_into(&mut node.id);
        node
    }

    /// `host:port`, as it announces itself.
    pub fn endpoint(&self) -> String {
        format!("{}:{}", self.hostname.as_deref().unwrap_or("127.0.0.1"), self.port)
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn is_alive(&self) -> bool {
        self.alive
    }

    /// A connection of our own, over TLS.
    pub fn wire(&self) -> Wire {
        self.try_wire().expect("the node answers")
    }

    fn try_wire(&self) -> Option<Wire> {
        let name = if self.hostname.is_some() { "any.cluster.test" } else { "localhost" };
        Wire::tls(("127.0.0.1", self.port), name, &self.trust).ok()
    }

    /// Ends it, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.alive = false;
    }

    /// Stops it from answering, without closing anything.
    pub fn pause(&self) {
        kill_process(Pid::from_child(&self.process), Signal::STOP).unwrap();
    }

    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.process), Signal::CONT).unwrap();
    }

    /// Starts it again with what it knew of the cluster, on the same ports.
    pub fn restart(&mut self) {
        self.respawn(false);
    }

    /// Starts it again with what it knew of the cluster, on other ports.
    pub fn restart_elsewhere(&mut self) {
        self.respawn(true);
    }

    /// Another process may take a free port before the node does.
    fn respawn(&mut self, elsewhere: bool) {
        for _ in 0..20 {
            let _ = self.process.kill();
            let _ = self.process.wait();
            if elsewhere {
                (self.port, self.bus_port) = (free_port(), free_port());
            }
            self.process = spawn(
                &self.directory,
                &self.identity,
                &self.ca,
                self.hostname.as_deref(),
                self.port,
                self.bus_port,
            );
            if self.is_up() {
                self.alive = true;
                return;
            }
        }
        panic!("redis-server did not start as a node of a cluster");
    }

    fn is_up(&mut self) -> bool {
        let mut up = false;
        eventually("the node answers or exits", || {
            let exited = self.process.try_wait().unwrap().is_some();
            up = !exited
                && self
                    .try_wire()
                    .and_then(|mut wire| wire.try_ask(&["PING"]))
                    .is_some_and(|r| r == b"+PONG\r\n");
            exited || up
        });
        up
    }
}

fn spawn(
    directory: &TempDir,
    identity: &Identity,
    ca: &str,
    hostname: Option<&str>,
    port: u16,
    bus_port: u16,
) -> Child {
    let mut command = Command::new("redis-server");
    command
        .args(["--port", "0", "--tls-port", &port.to_string(), "--cluster-port", &bus_port.to_string()])
        .args([
            "--bind",
            "127.0.0.1",
            "--cluster-announce-ip",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ])
        .args(["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"])
        .args(["--cluster-node-timeout", NODE_TIMEOUT_MS, "--cluster-allow-replica-migration", "no"])
        .args(["--tls-cluster", "yes", "--tls-replication", "yes", "--repl-diskless-sync-delay", "0"])
        .args(["--tls-auth-clients", "no", "--tls-ca-cert-file", ca, "--enable-debug-command", "yes"])
        .arg("--tls-cert-file")
        .arg(identity.cert_file())
        .arg("--tls-key-file")
        .arg(identity.key_file())
        .arg("--dir")
        .arg(directory.path());
    if let Some(hostname) = hostname {
        command.args([
            "--cluster-announce-hostname",
            hostname,
            "--cluster-preferred-endpoint-type",
            "hostname",
        ]);
    }
    let spawned = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    spawned.expect("redis-server is installed; tests/run.sh does it")
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
