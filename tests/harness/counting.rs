//! A real server as a node of ElastiCache in `preferred` mode: one port for plaintext and TLS, and `INFO` counts the clients in plaintext.
//! It sees them itself, so it can judge what pontoon says of them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::encode::extend_encode;
use redis_protocol::resp2::types::{BytesFrame, Resp2Frame};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use super::engine::SERVER;
use super::redis::free_port;
use super::{Authority, Wire, eventually};

/// What a replica says first. It is no client.
const REPLICA: [u8; 14] = *b"*1\r\n$4\r\nPING\r\n";

struct Port {
    address: SocketAddr,
    /// Of the server behind it, in plaintext.
    server: u16,
    tls: Arc<ServerConfig>,
    plaintext: AtomicUsize,
    /// Whoever comes with TLS is answered, except for replicas.
    answers: AtomicBool,
    stopped: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

pub struct CountingNode {
    process: Option<Child>,
    directory: TempDir,
    options: Vec<String>,
    port: Arc<Port>,
    bus: u16,
    thread: Option<JoinHandle<()>>,
}

impl CountingNode {
    /// With these options beside its ports. It trusts the authority for its own replication.
    pub fn start(authority: &Authority, options: &[&str]) -> Self {
        let identity = authority.issue(&["localhost", "127.0.0.1"]);
        let listener = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
        let port = Arc::new(Port {
            address: listener.local_addr().unwrap(),
            server: free_port(),
            tls: identity.server_config(),
            plaintext: AtomicUsize::new(0),
            answers: AtomicBool::new(true),
            stopped: AtomicBool::new(false),
            streams: Mutex::default(),
        });
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let thread = {
            let port = Arc::clone(&port);
            thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    if port.stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let port = Arc::clone(&port);
                    thread::spawn(move || port.serve(stream));
                }
            })
        };
        let (directory, bus) = (tempfile::tempdir().unwrap(), free_port());
        let mut node = Self { process: None, directory, options, port, bus, thread: Some(thread) };
        node.begin();
        node
    }

    /// Starts its server, or starts it again.
    pub fn begin(&mut self) {
        let announced = self.port.address.port().to_string();
        let mut command = Command::new(Path::new(SERVER));
        command.args(["--port", &self.port.server.to_string(), "--cluster-port", &self.bus.to_string()]);
        command.arg("--dir").arg(self.directory.path());
        for option in ["--cluster-announce-port", "--replica-announce-port"] {
            command.args([option, &announced]);
        }
        command.args(["--cluster-announce-ip", "127.0.0.1", "--replica-announce-ip", "127.0.0.1"]);
        command.args(&self.options).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap());
        let server = self.port.server;
        eventually("the server answers", || {
            TcpStream::connect(("127.0.0.1", server)).is_ok_and(|stream| {
                Wire::over(stream).try_ask(&["PING"]).is_some_and(|reply| reply == b"+PONG\r\n")
            })
        });
    }

    /// Ends its server, as a crash would, and with it all connections.
    pub fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        self.port.cut();
    }

    pub fn lives(&self) -> bool {
        self.process.is_some()
    }

    /// Whether pontoon gets answers. Clients in plaintext do all the same.
    pub fn set_answers(&self, answers: bool) {
        self.port.answers.store(answers, Ordering::SeqCst);
        if !answers {
            self.port.cut();
        }
    }

    pub fn answers(&self) -> bool {
        self.lives() && self.port.answers.load(Ordering::SeqCst)
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    pub fn bus(&self) -> u16 {
        self.bus
    }

    /// A connection around the port, which nobody counts.
    pub fn direct(&self) -> Wire {
        Wire::tcp(("127.0.0.1", self.port.server))
    }
}

impl Port {
    fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn serve(&self, near: TcpStream) {
        let mut first = [0; REPLICA.len()];
        let Ok(1..) = near.peek(&mut first) else { return };
        let Ok(far) = TcpStream::connect(("127.0.0.1", self.server)) else { return };
        for stream in [&near, &far] {
            stream.set_nodelay(true).unwrap();
        }
        // A TLS record of type "handshake".
        if first == REPLICA {
            carry(&near, &far);
        } else if first[0] != 0x16 {
            self.plaintext.fetch_add(1, Ordering::SeqCst);
            carry(&near, &far);
            self.plaintext.fetch_sub(1, Ordering::SeqCst);
        } else if self.answers.load(Ordering::SeqCst) {
            self.streams.lock().unwrap().push(near.try_clone().unwrap());
            let tls = StreamOwned::new(ServerConnection::new(Arc::clone(&self.tls)).unwrap(), near);
            self.answer(tls, far);
        }
    }

    /// One request after the other.
    fn answer(&self, mut near: StreamOwned<ServerConnection, TcpStream>, mut far: TcpStream) -> Option<()> {
        let (mut requests, mut replies) = (Vec::new(), Vec::new());
        loop {
            let request = next_frame(&mut requests, &mut near)?;
            far.write_all(&encode(&request)?).ok()?;
            let mut reply = next_frame(&mut replies, &mut far)?;
            if let Some(text) = self.info(&request, &reply) {
                reply = BytesFrame::BulkString(text.into());
            }
            near.write_all(&encode(&reply)?).ok()?;
        }
    }

    /// What `INFO` says in ElastiCache.
    fn info(&self, request: &BytesFrame, reply: &BytesFrame) -> Option<String> {
        let BytesFrame::Array(words) = request else { return None };
        let words: Vec<String> =
            words.iter().filter_map(|word| word.as_str().map(str::to_lowercase)).collect();
        let (command, section) = words.split_first()?;
        let is_asked = command == "info" && section.iter().all(|section| section == "ssl");
        let count = self.plaintext.load(Ordering::SeqCst);
        let count = format!("\r\n# SSL\r\ntls_mode_connected_tcp_clients:{count}\r\n");
        is_asked.then(|| reply.as_str().unwrap_or_default().to_owned() + &count)
    }
}

fn encode(frame: &BytesFrame) -> Option<Vec<u8>> {
    let mut bytes = bytes::BytesMut::new();
    extend_encode(&mut bytes, frame, false).ok()?;
    Some(bytes.to_vec())
}

/// `None`: it has ended.
fn next_frame(buffer: &mut Vec<u8>, from: &mut impl Read) -> Option<BytesFrame> {
    loop {
        if let Ok(Some((frame, length))) = decode(buffer) {
            buffer.drain(..length);
            return Some(frame.into_bytes_frame());
        }
        let mut read = [0; 16 * 1024];
        match from.read(&mut read) {
            Ok(n @ 1..) => buffer.extend_from_slice(&read[..n]),
            _ => return None,
        }
    }
}

fn carry(near: &TcpStream, far: &TcpStream) {
    let pump = |mut from: &TcpStream, mut to: &TcpStream| {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    };
    thread::scope(|scope| {
        scope.spawn(|| pump(near, far));
        pump(far, near);
    });
}

impl Drop for CountingNode {
    fn drop(&mut self) {
        self.crash();
        self.port.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.port.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
