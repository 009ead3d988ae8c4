//! A server or a sentinel of a [`SentinelGroup`](super::SentinelGroup): a process with its own configuration file, which it rewrites. One
//! built without TLS has a [`Front`] that accepts TLS.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use rustls::{ClientConfig, ServerConfig};
use tempfile::TempDir;

use super::dual::MEMBERS;
use super::engine::SERVER;
use super::front::Front;
use super::node::Name;
use super::pontoon::with_hosts;
use super::redis::free_port;
use super::{Authority, Dual, Engine, Identity, Mood, Wire, eventually};

/// Where clients and other members reach a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Entrance {
    /// At its port for plaintext, or at that for TLS.
    #[default]
    Own,
    /// At one port in front of both, which [`SentinelMember::dual`] changes for clients. At first they are served in plaintext only. Needs
    /// Redis 7.0 or newer, or Valkey.
    Dual,
}

pub struct MemberSettings {
    /// Whether it is a sentinel.
    pub sentinel: bool,
    /// How it announces itself, if not by its address.
    pub name: Option<Name>,
    /// Whether its clients use TLS.
    pub client_tls: bool,
    /// Whether the other members of the group use TLS.
    pub link_tls: bool,
    pub entrance: Entrance,
    pub password: Option<&'static str>,
}

pub struct SentinelMember {
    /// `None` while it does not run.
    process: Option<Child>,
    directory: TempDir,
    identity: Identity,
    ca: String,
    trust: Arc<ClientConfig>,
    settings: MemberSettings,
    /// The front's configuration, for an engine without TLS.
    front_config: Option<Arc<ServerConfig>>,
    front: Option<Front>,
    dual: Option<Dual>,
    plain_port: u16,
    tls_port: u16,
}

impl SentinelMember {
    /// Returns once it answers. `lines` are what its configuration file has besides ports and certificates.
    pub fn start(authority: &Authority, settings: MemberSettings, lines: &[String]) -> Self {
        let names: &[&str] =
            if settings.name.is_some() { &["*.sentinel.test"] } else { &["localhost", "127.0.0.1"] };
        let identity = authority.issue(names);
        let uses_tls = settings.client_tls || settings.link_tls;
        let front_config =
            (uses_tls && !Engine::here().tls).then(|| Front::config(&identity, authority, &[]));
        let mut member = Self {
            process: None,
            directory: tempfile::tempdir().unwrap(),
            identity,
            ca: authority.file(),
            trust: authority.client_config(),
            settings,
            front_config,
            front: None,
            dual: None,
            plain_port: 0,
            tls_port: 0,
        };
        // Another process may take a free port before the member does.
        for _ in 0..20 {
            (member.plain_port, member.tls_port) = (free_port(), free_port());
            let ports = [member.plain_port, member.tls_port];
            member.dual = (member.settings.entrance == Entrance::Dual)
                .then(|| Dual::between(ports, Mood::Accept, Mood::Reset));
            member.configure(lines);
            member.process = Some(member.spawn());
            if member.is_up() {
                return member;
            }
            member.end();
        }
        panic!("redis-server did not start as a member of a group of sentinels");
    }

    /// The host that it announces.
    pub fn host(&self) -> &str {
        self.settings.name.as_ref().map_or("127.0.0.1", |name| &name.host)
    }

    /// A name that its certificate is for.
    pub fn name_of_certificate(&self) -> &str {
        self.settings.name.as_ref().map_or("localhost", |name| &name.host)
    }

    /// The port that it announces, which the other members use.
    pub fn port(&self) -> u16 {
        if let Some(dual) = &self.dual {
            return dual.port();
        }
        if self.settings.link_tls { self.tls_port } else { self.plain_port }
    }

    /// The port for clients: that of the other members, unless only one of the two uses TLS.
    pub fn client_port(&self) -> u16 {
        if let Some(dual) = &self.dual {
            return dual.port();
        }
        if self.settings.client_tls { self.tls_port } else { self.plain_port }
    }

    /// The port in front of its two.
    pub fn dual(&self) -> &Dual {
        self.dual.as_ref().expect("the settings ask for it")
    }

    /// Whether its process exists, even if it is paused.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// A connection from the test, as clients connect.
    pub fn wire(&self) -> Wire {
        self.try_wire().expect("it answers")
    }

    /// The reply to a command.
    pub fn text(&self, words: &[&str]) -> String {
        String::from_utf8(self.wire().ask(words)).unwrap()
    }

    /// Whether it reports that it is a primary.
    pub fn is_primary(&self) -> bool {
        self.has_role("master")
    }

    /// Whether it reports this role. A server that changes its role ends connections.
    pub fn has_role(&self, role: &str) -> bool {
        let reply = || self.try_wire()?.try_ask(&["ROLE"]);
        let line = format!("{role}\r\n");
        self.is_running() && reply().is_some_and(|reply| String::from_utf8_lossy(&reply).contains(&line))
    }

    /// Ends it, as a crash would.
    pub fn kill(&mut self) {
        assert!(self.is_running());
        self.end();
    }

    /// Stops it from answering, without closing anything.
    pub fn pause(&self) {
        self.front.iter().for_each(|front| front.pause(true));
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
        self.front.iter().for_each(|front| front.pause(false));
    }

    /// Restarts it on the same ports, with its configuration file: a server is what it was before, until the sentinels notice.
    pub fn restart(&mut self) {
        self.end();
        self.process = Some(self.spawn());
        assert!(self.is_up(), "redis-server did not start again");
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        kill_process(Pid::from_child(process), signal).unwrap();
    }

    fn end(&mut self) {
        self.front = None;
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn try_wire(&self) -> Option<Wire> {
        let mut wire = if self.settings.client_tls {
            Wire::tls(("127.0.0.1", self.tls_port), self.name_of_certificate(), &self.trust).ok()?
        } else {
            Wire::over(TcpStream::connect(("127.0.0.1", self.plain_port)).ok()?)
        };
        match self.settings.password {
            Some(password) => (wire.try_ask(&["AUTH", password])? == b"+OK\r\n").then_some(wire),
            None => Some(wire),
        }
    }

    fn is_up(&mut self) -> bool {
        let mut up = false;
        eventually("the member answers or exits", || {
            let exited = self.process.as_mut().is_none_or(|process| process.try_wait().unwrap().is_some());
            if let (None, Some(config)) = (&self.front, &self.front_config) {
                self.front = Front::start(self.tls_port, self.plain_port, config, true).ok();
            }
            let reply = self.try_wire().and_then(|mut wire| wire.try_ask(&["PING"]));
            up = !exited && reply.is_some_and(|reply| reply == b"+PONG\r\n");
            exited || up
        });
        up
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("redis.conf")
    }

    fn configure(&self, lines: &[String]) {
        let Self { settings, identity, .. } = self;
        let engine = Engine::here();
        let mut text = options(engine);
        text.push(format!("dir {}", self.directory.path().display()));
        // A front needs the plaintext port even if nothing else uses it.
        let plain = !settings.client_tls || !settings.link_tls || !engine.tls;
        text.push(format!("port {}", if plain { self.plain_port } else { 0 }));
        if engine.tls && (settings.client_tls || settings.link_tls) {
            text.push(format!("tls-port {}", self.tls_port));
            text.push(format!("tls-cert-file {}", identity.cert_file().display()));
            text.push(format!("tls-key-file {}", identity.key_file().display()));
            text.push(format!("tls-ca-cert-file {}", self.ca));
            text.push("tls-auth-clients no".to_owned());
        }
        // A sentinel obeys this option, too: it uses TLS to servers and to other sentinels, or to neither.
        if engine.tls && settings.link_tls {
            text.push("tls-replication yes".to_owned());
        }
        if self.dual.is_some() {
            text.push(format!("bind-source-addr {MEMBERS}"));
        }
        text.extend_from_slice(lines);
        let announce = if settings.sentinel { "sentinel announce" } else { "replica-announce" };
        text.push(format!("{announce}-ip {}", self.host()));
        text.push(format!("{announce}-port {}", self.port()));
        std::fs::write(self.file(), text.join("\n") + "\n").unwrap();
    }

    fn spawn(&self) -> Child {
        let mut command = match &self.settings.name {
            Some(name) => {
                let mut command = with_hosts(&name.hosts);
                command.arg(SERVER);
                command
            }
            None => Command::new(SERVER),
        };
        command.arg(self.file());
        if self.settings.sentinel {
            command.arg("--sentinel");
        }
        let spawned = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        spawned.expect("redis-server is installed; tests/run.sh installs it")
    }
}

/// The options that all servers of tests get, as lines of a configuration file.
fn options(engine: &Engine) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in engine.options() {
        match (word.strip_prefix("--"), lines.last_mut()) {
            (None, Some(line)) => line.extend([" ", if word.is_empty() { "\"\"" } else { word }]),
            (name, _) => lines.push(name.unwrap_or(word).to_owned()),
        }
    }
    lines
}

impl Drop for SentinelMember {
    fn drop(&mut self) {
        self.end();
    }
}
