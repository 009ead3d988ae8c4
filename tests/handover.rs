//! A new version replaces an old one on the same address, and no client notices.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{Authority, Pontoon, Redis, StopOnDrop, Wire, eventually, pontoon};

/// Clients that connect for each command or two, as PHP's do, until they are stopped.
struct Crowd {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Starts the clients. `connect` must not fail, and neither must any command.
    fn gather(connect: impl Fn() -> Wire + Clone + Send + 'static) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..4)
            .map(|n| {
                let (stop, served, connect) = (Arc::clone(&stop), Arc::clone(&served), connect.clone());
                thread::spawn(move || {
                    let key = format!("visits-{n}");
                    for visit in 1.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let mut client = connect();
                        client.expect(&["INCR", &key], &format!(":{visit}\r\n"));
                        let text = visit.to_string();
                        client.expect(&["GET", &key], &format!("${}\r\n{text}\r\n", text.len()));
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        Self { stop, served, clients }
    }

    fn wait_for(&self, more: usize) {
        let before = self.served.load(Ordering::Relaxed);
        eventually("clients are served", || {
            assert!(!self.clients.iter().any(JoinHandle::is_finished), "a client failed");
            self.served.load(Ordering::Relaxed) >= before + more
        });
    }

    /// Stops the clients, and asserts that no client failed.
    fn dismiss(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().unwrap();
        }
    }
}

/// A Unix socket to listen on. Other files beside it are what handovers leave behind.
struct Socket {
    directory: TempDir,
    path: PathBuf,
    listen: String,
}

impl Socket {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("redis.sock");
        let listen = format!("unix:{}", path.display());
        Self { directory, path, listen }
    }

    fn ping(&self) {
        Wire::unix(&self.path).expect(&["PING"], "+PONG\r\n");
    }

    fn files(&self) -> usize {
        fs::read_dir(self.directory.path()).unwrap().count()
    }
}

fn start(redis: &Redis, authority: &Authority, listen: &str) -> Pontoon {
    let args = ["--listen", listen, "--handover", "--shutdown-delay", "2s"];
    Pontoon::with(&redis.endpoint(), authority, &args).ready()
}

fn sessions(pontoon: &Pontoon) -> u64 {
    pontoon.metric("pontoon_sessions_total", "") + pontoon.metric("pontoon_sessions_active", "")
}

/// Replaces `first` and its successors several times, under load.
fn replace(redis: &Redis, authority: &Authority, first: Pontoon, listen: &str, crowd: Crowd) {
    let mut old = first;
    for _ in 0..3 {
        crowd.wait_for(50);
        let new = start(redis, authority, listen);
        let admin = new.admin().to_string();
        assert!(pontoon(&["health", "--admin", &admin, "--wait", "20s"]).status.success());
        crowd.wait_for(50);
        old.signal(Signal::TERM);
        eventually("the new process has the clients", || sessions(&new) > 0);
        crowd.wait_for(200);
        assert_eq!(old.wait().code(), Some(0));
        old = new;
    }
    crowd.wait_for(50);
    crowd.dismiss();
    old.signal(Signal::TERM);
    assert_eq!(old.wait().code(), Some(0));
}

#[test]
fn a_successor_on_the_same_port_takes_over_and_no_client_fails() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let old = start(&redis, &authority, "127.0.0.1:0");
    let address = old.address();
    let crowd = Crowd::gather(move || Wire::tcp(address));
    replace(&redis, &authority, old, &address.to_string(), crowd);
}

#[test]
fn a_successor_on_the_same_unix_socket_takes_over_and_no_client_fails() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let socket = Socket::new();
    let listen = format!("{}?mode=0600", socket.listen);
    let old = start(&redis, &authority, &listen);
    let crowd = {
        let path = socket.path.clone();
        Crowd::gather(move || Wire::unix(&path))
    };
    replace(&redis, &authority, old, &listen, crowd);
    assert_eq!(socket.files(), 0, "no file is left");
}

#[test]
fn a_client_that_connects_for_each_command_sees_no_error_of_a_handover() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let mut old = start(&redis, &authority, "127.0.0.1:0");
    let address = old.address();
    let over = AtomicBool::new(false);
    let runs = AtomicUsize::new(0);
    thread::scope(|scope| {
        let stop = StopOnDrop(&over);
        let client = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let port = address.port().to_string();
                let mut benchmark = Command::new("timeout");
                benchmark.args([
                    "60",
                    "redis-benchmark",
                    "-p",
                    &port,
                    "-k",
                    "0",
                    "-c",
                    "5",
                    "-n",
                    "500",
                    "-q",
                    "INCR",
                    "visits",
                ]);
                let output = benchmark.output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                runs.fetch_add(1, Ordering::Relaxed);
            }
        });
        let more = |what: &str| {
            let before = runs.load(Ordering::Relaxed);
            eventually(what, || client.is_finished() || runs.load(Ordering::Relaxed) > before);
        };
        more("the old one serves");
        let new = start(&redis, &authority, &address.to_string());
        old.signal(Signal::TERM);
        assert_eq!(old.wait().code(), Some(0));
        more("the new one serves");
        drop(stop);
        client.join().unwrap();
        drop(new);
    });
    let visits = runs.load(Ordering::Relaxed) * 500;
    redis.direct().expect(&["GET", "visits"], &format!("${}\r\n{visits}\r\n", visits.to_string().len()));
}

#[test]
fn a_successor_gets_no_client_before_the_old_process_leaves() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let mut old = start(&redis, &authority, "127.0.0.1:0");
    let new = start(&redis, &authority, &old.address().to_string());
    for _ in 0..50 {
        old.client().expect(&["PING"], "+PONG\r\n");
    }
    eventually("the old process served all clients", || old.metric("pontoon_sessions_total", "") == 50);
    assert_eq!(sessions(&new), 0);
    let mut stays = old.client();
    stays.expect(&["PING"], "+PONG\r\n");
    old.signal(Signal::TERM);
    old.wait_for_log("still accepting clients");
    eventually("new clients are the successor's", || {
        old.client().expect(&["PING"], "+PONG\r\n");
        sessions(&new) > 0
    });
    stays.expect_end();
    drop(stays);
    assert_eq!(old.wait().code(), Some(0));
}

#[test]
fn a_successor_on_a_unix_socket_gets_no_client_before_the_old_one_leaves() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let socket = Socket::new();
    let mut old = start(&redis, &authority, &socket.listen);
    // This process waits for a server that is not up.
    let args = ["--listen", &socket.listen, "--handover"];
    let unready = Pontoon::with("127.0.0.1:1", &authority, &args);
    unready.allows("TCP connection to");
    for _ in 0..20 {
        socket.ping();
    }
    eventually("the old process served all clients", || old.metric("pontoon_sessions_total", "") == 20);
    assert_eq!(sessions(&unready), 0);
    let third =
        pontoon(&["run", "--upstream", "x", "--admin", "off", "--listen", &socket.listen, "--handover"]);
    let error = String::from_utf8(third.stderr).unwrap();
    assert!(error.contains("a running process and its successor listen there already"), "{error}");
    drop(unready);
    socket.ping();

    // The waiting process was killed. What it left does not count as a successor, and blocks none.
    let mut another = start(&redis, &authority, &socket.listen);
    another.signal(Signal::TERM);
    assert_eq!(another.wait().code(), Some(0));
    socket.ping();
    old.signal(Signal::TERM);
    assert_eq!(old.wait().code(), Some(0));
    assert_eq!(socket.files(), 0, "no file is left");
}

#[test]
fn a_successor_on_a_unix_socket_takes_over_from_a_killed_process() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let socket = Socket::new();
    let mut old = start(&redis, &authority, &socket.listen);
    let mut new = start(&redis, &authority, &socket.listen);
    old.signal(Signal::KILL);
    old.wait();
    eventually("the new process accepts clients", || UnixStream::connect(&socket.path).is_ok());
    socket.ping();
    let mut newer = start(&redis, &authority, &socket.listen);
    for killed in [&mut newer, &mut new] {
        killed.signal(Signal::KILL);
        killed.wait();
    }
    let (mut one, mut other) =
        (start(&redis, &authority, &socket.listen), start(&redis, &authority, &socket.listen));
    socket.ping();
    for ends in [&mut one, &mut other] {
        ends.signal(Signal::TERM);
        assert_eq!(ends.wait().code(), Some(0));
    }
    assert_eq!(socket.files(), 0, "no file is left");
}

#[test]
fn a_successor_that_does_not_start_leaves_the_old_one_alone() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let socket = Socket::new();
    let old = start(&redis, &authority, &socket.listen);
    let admin = old.admin().to_string();
    let (endpoint, ca) = (redis.endpoint(), authority.file());
    let args =
        ["run", "--upstream", &endpoint, "--tls-ca-file", &ca, "--listen", &socket.listen, "--handover"];
    let failed = pontoon(&[&args[..], &["--admin", &admin]].concat());
    assert_eq!(failed.status.code(), Some(1));
    socket.ping();
    assert_eq!(socket.files(), 1, "no other file is left");
    drop(old);
}

#[test]
fn a_port_is_shared_only_if_both_processes_allow_it() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let refused = |address: SocketAddr, more: &[&str], why: &str| {
        let listen = address.to_string();
        let args = [&["run", "--upstream", "x", "--admin", "off", "--listen", &listen], more].concat();
        let output = pontoon(&args);
        assert_eq!(output.status.code(), Some(1));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(why), "{error}");
    };
    let alone = Pontoon::to(&redis.endpoint(), &authority);
    refused(alone.address(), &["--handover"], "runs without handover");
    let shares = start(&redis, &authority, "127.0.0.1:0");
    refused(shares.address(), &[], "the address is in use by pontoon (process ");
}

#[test]
fn without_a_successor_the_old_process_serves_until_it_ends() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let args = ["--handover", "--shutdown-delay", "1h"];
    let mut alone = Pontoon::with(&redis.endpoint(), &authority, &args);
    alone.signal(Signal::TERM);
    alone.wait_for_log("still accepting clients");
    for _ in 0..20 {
        alone.client().expect(&["PING"], "+PONG\r\n");
    }
    alone.signal(Signal::TERM);
    assert_eq!(alone.wait().code(), Some(0));
    assert!(TcpStream::connect_timeout(&alone.address(), Duration::from_secs(5)).is_err());
}
