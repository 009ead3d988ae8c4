//! A node of a [`Cluster`](super::Cluster): a `redis-server` that accepts only TLS, from clients and on the bus. A server built without TLS
//! has a [`Front`] for its clients.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use rustls::{ClientConfig, ServerConfig};
use tempfile::TempDir;

use super::engine::SERVER;
use super::front::Front;
use super::pontoon::with_hosts;
use super::redis::free_port;
use super::{Authority, Engine, Identity, Wire, eventually};

/// The time without an answer after which the other nodes give a node up.
const NODE_TIMEOUT_MS: &str = "1500";

/// How clients know a node.
pub struct Name {
    pub host: String,
    /// A file in the form of `/etc/hosts` that has the name.
    pub hosts: PathBuf,
}

pub struct Node {
    process: Child,
    directory: TempDir,
    identity: Identity,
    ca: String,
    trust: Arc<ClientConfig>,
    name: Option<Name>,
    alive: bool,
    /// The front's configuration, for an engine without TLS.
    front_config: Option<Arc<ServerConfig>>,
    front: Option<Front>,
    /// The server's own port. If there is a front, the server announces the front's port instead.
    server_port: u16,
    /// What the cluster calls it.
    pub id: String,
    pub port: u16,
    pub bus_port: u16,
}

impl Node {
    /// Starts an empty node that is in no cluster yet. It announces `name`, and prefers it to the address.
    pub fn start(authority: &Authority, name: Option<Name>) -> Self {
        let names = if name.is_some() { "*.cluster.test" } else { "localhost" };
        let (directory, identity, ca) =
            (tempfile::tempdir().unwrap(), authority.issue(&[names]), authority.file());
        let engine = Engine::here();
        let front_config = (!engine.tls).then(|| Front::config(&identity, authority, &[]));
        let (port, server_port, bus_port) = ports(engine);
        let process = spawn(&directory, &identity, &ca, name.as_ref(), port, server_port, bus_port);
        let trust = authority.client_config();
        let mut node = Self {
            process,
            directory,
            identity,
            ca,
            trust,
            name,
            alive: true,
            front_config,
            front: None,
            server_port,
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

    /// `host:port`, as the node announces itself.
    pub fn endpoint(&self) -> String {
        format!("{}:{}", self.name.as_ref().map_or("127.0.0.1", |name| &name.host), self.port)
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn is_alive(&self) -> bool {
        self.alive
    }

    /// A connection from the test, over TLS.
    pub fn wire(&self) -> Wire {
        self.try_wire().expect("the node answers")
    }

    fn try_wire(&self) -> Option<Wire> {
        let name = if self.name.is_some() { "any.cluster.test" } else { "localhost" };
        Wire::tls(("127.0.0.1", self.port), name, &self.trust).ok()
    }

    /// Ends it, as a crash would.
    pub fn kill(&mut self) {
        self.front = None;
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.alive = false;
    }

    /// Stops it from answering, without closing anything.
    pub fn pause(&self) {
        self.front.iter().for_each(|front| front.pause(true));
        kill_process(Pid::from_child(&self.process), Signal::STOP).unwrap();
    }

    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.process), Signal::CONT).unwrap();
        self.front.iter().for_each(|front| front.pause(false));
    }

    /// Restarts it with its state of the cluster, on the same ports.
    pub fn restart(&mut self) {
        self.respawn(false);
    }

    /// Restarts it with its state of the cluster, on other ports.
    pub fn restart_elsewhere(&mut self) {
        self.respawn(true);
    }

    /// Tries several times, because another process may take a free port before the node does.
    fn respawn(&mut self, elsewhere: bool) {
        for _ in 0..20 {
            self.front = None;
            let _ = self.process.kill();
            let _ = self.process.wait();
            if elsewhere {
                (self.port, self.server_port, self.bus_port) = ports(Engine::here());
            }
            self.process = spawn(
                &self.directory,
                &self.identity,
                &self.ca,
                self.name.as_ref(),
                self.port,
                self.server_port,
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
            if let (None, Some(config)) = (&self.front, &self.front_config) {
                self.front = Front::start(self.port, self.server_port, config, true).ok();
            }
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

/// The ports of the node, of its server and of its bus. Before 7.0 the bus port is the server's plus 10000.
fn ports(engine: &Engine) -> (u16, u16, u16) {
    let port = free_port();
    let server_port = if engine.tls { port } else { free_port() };
    let bus_port = if engine.is_before_7() { server_port + 10_000 } else { free_port() };
    (port, server_port, bus_port)
}

fn spawn(
    directory: &TempDir,
    identity: &Identity,
    ca: &str,
    name: Option<&Name>,
    port: u16,
    server_port: u16,
    bus_port: u16,
) -> Child {
    let engine = Engine::here();
    let [announced, port, bus_port] = [port, server_port, bus_port].map(|port| port.to_string());
    // Before 7.0 nodes have no hostname. A name announced as the address still leads clients to the node, and the other nodes must be able
    // to resolve it.
    let mut command = match name {
        Some(name) if engine.is_before_7() => {
            let mut command = with_hosts(&name.hosts);
            command.args([SERVER, "--cluster-announce-ip", &name.host]);
            command
        }
        _ => {
            let mut command = Command::new(SERVER);
            command.args(["--cluster-announce-ip", "127.0.0.1"]);
            command
        }
    };
    command
        .args(engine.options())
        .args(["--cluster-enabled", "yes"])
        .args(["--cluster-config-file", "nodes.conf"])
        .args(["--cluster-node-timeout", NODE_TIMEOUT_MS, "--cluster-allow-replica-migration", "no"])
        .args(["--repl-diskless-sync-delay", "0"])
        .arg("--dir")
        .arg(directory.path());
    if !engine.is_before_7() {
        command.args(["--cluster-port", &bus_port]);
    }
    if engine.tls {
        command
            .args(["--port", "0", "--tls-port", &port, "--tls-cluster", "yes", "--tls-replication", "yes"])
            .args(["--tls-auth-clients", "no", "--tls-ca-cert-file", ca])
            .arg("--tls-cert-file")
            .arg(identity.cert_file())
            .arg("--tls-key-file")
            .arg(identity.key_file());
    } else {
        command.args(["--port", &port, "--cluster-announce-port", &announced]);
    }
    if let Some(name) = name.filter(|_| !engine.is_before_7()) {
        command.args(["--cluster-announce-hostname", &name.host]);
        command.args(["--cluster-preferred-endpoint-type", "hostname"]);
    }
    let spawned = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    spawned.expect("redis-server is installed; tests/run.sh installs it")
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
