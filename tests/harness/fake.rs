//! Servers that misbehave in ways that no real one can be made to.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::{ServerConnection, StreamOwned};

use super::{Authority, Identity, PATIENCE};

/// A TLS connection as the fake's script sees it.
pub type Tls = StreamOwned<ServerConnection, TcpStream>;

pub struct Fake {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<u8>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Plays `script` with every connection after a TLS handshake and pontoon's greeting, which it answers as an engine does that does not
    /// know the greeting.
    pub fn tls(identity: &Identity, script: impl Fn(&mut Tls) + Send + Sync + 'static) -> Self {
        let config = identity.server_config();
        Self::start(move |stream, _| {
            let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            let mut greeting = Vec::new();
            while greeting.windows(7).filter(|window| window == b"SETINFO").count() < 2
                || !greeting.ends_with(b"\r\n")
            {
                let mut buffer = [0; 512];
                match tls.read(&mut buffer) {
                    Ok(n @ 1..) => greeting.extend_from_slice(&buffer[..n]),
                    _ => return,
                }
            }
            if tls.write_all(b"+OK\r\n+OK\r\n").is_ok() {
                script(&mut tls);
            }
        })
    }

    /// A node that counts its clients in plaintext, as ElastiCache's do, and whose client list is `list`.
    pub fn counting(authority: &Authority, plaintext: &Arc<AtomicU32>, list: &'static str) -> Self {
        Self::primary(authority, plaintext, list, &Arc::default())
    }

    /// As [`counting`](Self::counting), with replicas: lines of `INFO replication`.
    pub fn primary(
        authority: &Authority,
        plaintext: &Arc<AtomicU32>,
        list: &'static str,
        replicas: &Arc<Mutex<String>>,
    ) -> Self {
        let (config, plaintext) = (authority.issue(&["localhost"]).server_config(), Arc::clone(plaintext));
        let (replicas, run_id) = (Arc::clone(replicas), fastrand::u64(..));
        Self::start(move |stream, _| {
            let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            let mut buffer = [0; 1024];
            while let Ok(n @ 1..) = tls.read(&mut buffer) {
                let asked = String::from_utf8_lossy(&buffer[..n]).into_owned();
                let ssl = format!(
                    "# SSL\r\ntls_mode_connected_tcp_clients:{}\r\n",
                    plaintext.load(Ordering::SeqCst)
                );
                let rest = format!(
                    "# Clients\r\nconnected_clients:2\r\n# Server\r\nredis_version:7.1.0\r\nrun_id:{run_id:x}\r\n"
                );
                let replication = format!("# Replication\r\nrole:master\r\n{}", replicas.lock().unwrap());
                let info = if asked.contains("\r\nssl\r\n") {
                    ssl
                } else if asked.contains("\r\nreplication\r\n") {
                    replication
                } else {
                    format!("{rest}{replication}{ssl}")
                };
                let mut answer =
                    "+OK\r\n".repeat(asked.matches("SETINFO").count() + asked.matches("SETNAME").count());
                answer += &"+PONG\r\n".repeat(asked.matches("PING").count());
                if asked.contains("\r\nID\r\n") {
                    answer += ":7\r\n";
                }
                if asked.contains("\r\nINFO\r\n") {
                    answer.extend([&format!("${}\r\n", info.len()), &info, "\r\n"]);
                }
                if asked.contains("\r\nLIST\r\n") {
                    answer += list;
                }
                if tls.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        })
    }

    /// A front for a server's plaintext port that accepts TLS, and keeps what pontoon sends.
    pub fn recording(authority: &Authority, port: u16) -> Self {
        let config = authority.issue(&["localhost", "127.0.0.1"]).server_config();
        Self::start(move |near, seen| {
            let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)) else { return };
            // Either side may be the next to send something.
            for stream in [&near, &far] {
                stream.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
            }
            let mut near = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), near);
            loop {
                let mut buffer = [0; 4096];
                for requests in [true, false] {
                    let read = if requests { near.read(&mut buffer) } else { far.read(&mut buffer) };
                    let written = match read {
                        Ok(n @ 1..) if requests => {
                            seen.lock().unwrap().extend_from_slice(&buffer[..n]);
                            far.write_all(&buffer[..n])
                        }
                        Ok(n @ 1..) => near.write_all(&buffer[..n]),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
                        Ok(0) | Err(_) => return,
                    };
                    if written.is_err() {
                        return;
                    }
                }
            }
        })
    }

    /// Plays `script` with every TCP connection. The second argument collects what [`seen`](Self::seen) returns.
    pub fn start(script: impl Fn(TcpStream, &Mutex<Vec<u8>>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let script = Arc::new(script);
        let thread = {
            let (accepted, seen, stop) = (Arc::clone(&accepted), Arc::clone(&seen), Arc::clone(&stop));
            thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    accepted.fetch_add(1, Ordering::SeqCst);
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                    thread::spawn(move || script(stream, &seen));
                }
            })
        };
        Self { address, accepted, seen, stop, thread: Some(thread) }
    }

    pub fn endpoint(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Number of connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub fn seen(&self) -> Vec<u8> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
