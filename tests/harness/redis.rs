//! A real `redis-server`, on TLS and on plaintext at once.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use rustix::process::{Pid, Signal, kill_process};
use rustls::ServerConfig;
use tempfile::TempDir;

use super::engine::SERVER;
use super::front::Front;
use super::{Authority, Engine, Identity, Wire, eventually};

pub struct Redis {
    program: PathBuf,
    process: Child,
    identity: Identity,
    directory: TempDir,
    options: Vec<String>,
    authority: Option<Authority>,
    /// The front's configuration, for an engine without TLS.
    front_config: Option<Arc<ServerConfig>>,
    front: Option<Front>,
    replicates: bool,
    pub plain_port: u16,
    pub tls_port: u16,
}

impl Redis {
    /// With a certificate for `localhost`, `127.0.0.1` and `::1`.
    pub fn start(authority: &Authority) -> Self {
        Self::with(authority.issue(&["localhost", "127.0.0.1", "::1"]), authority, &[])
    }

    pub fn with(identity: Identity, authority: &Authority, options: &[&str]) -> Self {
        Self::of(Path::new(SERVER), identity, authority, options)
    }

    /// Another engine's server, which accepts the same options.
    pub fn of(program: &Path, identity: Identity, authority: &Authority, options: &[&str]) -> Self {
        let engine = Engine::of(program);
        let front_config = (!engine.tls).then(|| Front::config(&identity, authority, options));
        let replicates = options.contains(&"--tls-replication");
        let mut all: Vec<&str> = engine.options().to_vec();
        all.extend(["--maxclients", "12000"]);
        let ca = authority.file();
        if engine.tls {
            all.extend(["--tls-auth-clients", "no", "--tls-ca-cert-file", &ca]);
        }
        // Each option that an engine may lack has one value. Before 7.0 the bus port is the server's plus 10000.
        let is_missing = |option: &str| {
            !engine.tls && option.starts_with("--tls-") || engine.is_before_7() && option == "--cluster-port"
        };
        let mut rest = options.iter();
        while let Some(option) = rest.next() {
            if is_missing(option) {
                rest.next();
            } else {
                all.push(option);
            }
        }
        let options: Vec<String> = all.iter().map(|&option| option.to_owned()).collect();
        let directory = tempfile::tempdir().unwrap();
        let (program, plain_port, tls_port) = (program.to_owned(), free_port(), free_port());
        let process = spawn(&program, &identity, &directory, &options, (plain_port, tls_port), engine.tls);
        let mut redis = Self {
            program,
            process,
            identity,
            directory,
            options,
            authority: None,
            front_config,
            front: None,
            replicates,
            plain_port,
            tls_port,
        };
        // Another process may take a free port before Redis does.
        for _ in 0..20 {
            if redis.is_up() {
                return redis;
            }
            let _ = redis.process.kill();
            let _ = redis.process.wait();
            (redis.plain_port, redis.tls_port) = (free_port(), free_port());
            redis.process = redis.spawn();
        }
        panic!("redis-server did not start");
    }

    /// Keeps the authority's files for as long as the server runs.
    pub fn keep(&mut self, authority: Authority) {
        self.authority = Some(authority);
    }

    /// The authority whose files it [`keep`](Self::keep)s.
    pub fn authority(&self) -> &Authority {
        self.authority.as_ref().unwrap()
    }

    /// `host:port` of the TLS side.
    pub fn endpoint(&self) -> String {
        format!("localhost:{}", self.tls_port)
    }

    /// A connection from the test that bypasses the bridge.
    pub fn direct(&self) -> Wire {
        Wire::tcp(("127.0.0.1", self.plain_port))
    }

    /// Ends it, as a crash would.
    pub fn kill(&mut self) {
        self.front = None;
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Restarts it on the same ports.
    pub fn restart(&mut self) {
        self.process = self.spawn();
        assert!(self.is_up(), "redis-server did not start again");
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

    fn spawn(&self) -> Child {
        let Self { program, identity, directory, options, .. } = self;
        spawn(
            program,
            identity,
            directory,
            options,
            (self.plain_port, self.tls_port),
            self.front_config.is_none(),
        )
    }

    fn is_up(&mut self) -> bool {
        let port = self.plain_port;
        let mut up = false;
        eventually("redis-server answers or exits", || {
            let exited = self.process.try_wait().unwrap().is_some();
            up = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok_and(|stream| {
                let reply = Wire::over(stream).try_ask(&["PING"]);
                reply.is_some_and(|reply| reply.starts_with(b"+PONG") || reply.starts_with(b"-NOAUTH"))
            });
            exited || up
        });
        if up && let Some(config) = &self.front_config {
            self.front = Front::start(self.tls_port, port, config, self.replicates).ok();
            up = self.front.is_some();
        }
        up
    }
}

fn spawn(
    program: &Path,
    identity: &Identity,
    directory: &TempDir,
    options: &[String],
    (plain_port, tls_port): (u16, u16),
    tls: bool,
) -> Child {
    let mut command = Command::new(program);
    command.args(["--port", &plain_port.to_string()]).arg("--dir").arg(directory.path());
    if tls {
        command.args(["--tls-port", &tls_port.to_string()]);
        command.arg("--tls-cert-file").arg(identity.cert_file());
        command.arg("--tls-key-file").arg(identity.key_file());
    } else {
        // Nodes of a cluster and replicas lead clients to this port.
        let port = tls_port.to_string();
        command.args(["--cluster-announce-port", &port, "--replica-announce-port", &port]);
    }
    command
        .args(options)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{} does not start ({error}): see tests/run.sh", program.display()))
}

/// The `redis-server` of Valkey 9.1 or newer. Valkey 9.1 is the first to take users from certificates, and to close a connection on which a
/// string does not end in CR LF.
pub fn valkey() -> PathBuf {
    let folder = std::env::var_os("TEST_VALKEY_9")
        .expect("TEST_VALKEY_9 names the folder with the redis-server of Valkey 9.1: tests/run.sh sets it");
    PathBuf::from(folder).join("redis-server")
}

/// A port for a server that may be restarted on it. It is below those that Linux gives to clients (`ip_local_port_range`), and no two tests
/// of a run get the same: while the server is down, nothing else takes it.
pub fn free_port() -> u16 {
    // No port has the number of a cluster's slot: tests look for ports in replies that name slots.
    const FIRST: u32 = 16_384;
    // The port of a node's bus is not one that Linux gives to clients, either. Before Redis 7.0 it is the server's plus 10,000.
    const COUNT: u32 = 6_384;
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| fastrand::u32(..COUNT).into());
    loop {
        let port = u16::try_from(FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
