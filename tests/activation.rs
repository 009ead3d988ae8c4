//! Sockets that a service manager opened: clients wait in them while pontoon restarts.

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Authority, Pontoon, Redis, Wire, command, eventually, pontoon_activated};

fn start(redis: &Redis, authority: &Authority, socket: impl Into<OwnedFd>, listen: &str) -> Pontoon {
    let (endpoint, ca) = (redis.endpoint(), authority.file());
    let args = ["--upstream", &endpoint, "--tls-ca-file", &ca, "--listen", listen];
    Pontoon::activated(socket.into(), &args)
}

#[test]
fn clients_wait_in_a_tcp_socket_while_pontoon_restarts() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let listen = address.to_string();
    for _ in 0..2 {
        let mut waiting = Wire::tcp(address);
        waiting.send(&command(&["PING"]));
        let mut pontoon = start(&redis, &authority, socket.try_clone().unwrap(), &listen);
        assert_eq!(pontoon.addresses(), [&*listen]);
        waiting.expect_next("+PONG\r\n");
        pontoon.signal(Signal::TERM);
        waiting.expect_end();
        drop(waiting);
        assert_eq!(pontoon.wait().code(), Some(0));
    }
}

#[test]
fn a_unix_socket_of_the_service_manager_keeps_its_file_across_restarts() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("redis.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let listen = format!("unix:{}", path.display());
    for _ in 0..2 {
        let mut waiting = Wire::unix(&path);
        waiting.send(&command(&["PING"]));
        let mut pontoon = start(&redis, &authority, socket.try_clone().unwrap(), &listen);
        waiting.expect_next("+PONG\r\n");
        pontoon.signal(Signal::TERM);
        waiting.expect_end();
        drop(waiting);
        assert_eq!(pontoon.wait().code(), Some(0));
        assert!(path.exists());
    }
}

#[test]
fn an_inherited_socket_also_refuses_users_that_are_not_allowed() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("redis.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let pontoon = start(&redis, &authority, socket, &format!("unix:{}?uid=4294967294", path.display()));
    pontoon.expects("to admit it: this socket is not for uid");
    let reply = Wire::unix(&path).reply();
    assert!(reply.starts_with(b"-ERR pontoon: this socket is not for uid"));
}

#[test]
fn an_inherited_socket_that_cannot_be_used_is_named() {
    let refused = |socket: Stdio, why: &str| {
        let args = ["run", "--upstream", "x", "--listen", "127.0.0.1:0", "--admin", "off"];
        let output = pontoon_activated(socket, &args);
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(why), "{error}");
    };
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let why = format!("passed on a socket for {address}, which no route listens on: add it to");
    refused(OwnedFd::from(socket).into(), &why);
    let why = "descriptor 3 from the service manager is not a listening TCP or Unix socket";
    refused(File::open("/dev/null").unwrap().into(), why);
    refused(OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap()).into(), why);
    let unnamed = std::os::unix::net::UnixStream::pair().unwrap().0;
    refused(OwnedFd::from(unnamed).into(), why);
}

#[test]
fn a_reload_strands_no_client_in_a_socket_without_a_listener() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pontoon.toml");
    let (endpoint, ca) = (redis.endpoint(), authority.file());
    let write = |listen: &str| {
        let head = "[admin]\nlisten = \"127.0.0.1:0\"\n[[route]]\nlimits.max_clients = 100\n";
        let text =
            format!("{head}upstream = \"{endpoint}\"\ntls.ca_files = \"{ca}\"\nlisten = \"{listen}\"\n");
        std::fs::write(&file, text).unwrap();
    };
    write(&address.to_string());
    let pontoon = Pontoon::activated(OwnedFd::from(socket), &["--config", file.to_str().unwrap()]);
    pontoon.expects("configuration not reloaded");
    write("127.0.0.1:0");
    let (status, body) = pontoon.post("/reload");
    let why = format!("passed on a socket for {address}, which no route listens on");
    assert!(status != 200 && body.contains(&why), "{status} {body}");
    pontoon.client().expect(&["PING"], "+PONG\r\n");
}

/// A process that is killed at the end of its test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Uses systemd itself, where it is installed.
#[test]
fn systemd_starts_pontoon_when_the_first_client_connects() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("redis.sock");
    let listen = format!("unix:{}", path.display());
    let (endpoint, ca) = (redis.endpoint(), authority.file());
    let started = Command::new("systemd-socket-activate")
        .args(["--listen", path.to_str().unwrap(), env!("CARGO_BIN_EXE_pontoon"), "run", "--admin", "off"])
        .args(["--upstream", &endpoint, "--tls-ca-file", &ca, "--listen", &listen])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(process) = started else {
        eprintln!("systemd-socket-activate is not installed: pontoon was not started by it");
        return;
    };
    let mut process = Started(process);
    // The file exists before the socket listens.
    let mut client = None;
    eventually("systemd listens", || {
        client = Wire::try_unix(&path).ok();
        client.is_some()
    });
    client.unwrap().expect(&["PING"], "+PONG\r\n");
    kill_process(Pid::from_child(&process.0), Signal::TERM).unwrap();
    let mut status = None;
    eventually("pontoon exits", || {
        status = process.0.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
    assert!(path.exists(), "systemd owns the file");
}
