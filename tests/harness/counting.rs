//! A real server behind one port, like a node of ElastiCache, whose transit encryption can be changed while it runs. In `preferred` mode it
//! accepts plaintext and TLS, and `INFO` counts the clients in plaintext. It sees the clients itself, so it can check what pontoon says
//! about them.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::encode::extend_encode;
use redis_protocol::resp2::types::{BytesFrame, Resp2Frame};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio_rustls::TlsAcceptor;

use super::engine::SERVER;
use super::redis::free_port;
use super::{Authority, Identity, Wire, eventually};

/// The first bytes of a replica, which does not count as a client.
const REPLICA: [u8; 14] = *b"*1\r\n$4\r\nPING\r\n";

/// Which connections a node accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transit {
    /// Accepts plaintext. A TLS handshake reaches the server, which does not support TLS.
    Disabled,
    /// Accepts plaintext and TLS.
    Preferred,
    /// Accepts TLS. Plaintext is reset.
    Required,
}

struct Port {
    address: SocketAddr,
    /// The plaintext port of the server behind it.
    server: u16,
    tls: TlsAcceptor,
    transit: Mutex<Transit>,
    /// Clients in plaintext, by their addresses.
    plaintext: Mutex<BTreeMap<SocketAddr, TcpStream>>,
    /// Whether TLS clients get answers. Replicas always do.
    answers: AtomicBool,
    stopped: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

pub struct CountingNode {
    program: PathBuf,
    process: Option<Child>,
    directory: TempDir,
    options: Vec<String>,
    port: Arc<Port>,
    bus: u16,
    thread: Option<JoinHandle<()>>,
}

impl CountingNode {
    /// In `preferred` mode, with these options in addition to its ports.
    pub fn start(authority: &Authority, options: &[&str]) -> Self {
        let identity = authority.issue(&["localhost", "127.0.0.1"]);
        Self::of(Path::new(SERVER), &identity, Transit::Preferred, options)
    }

    /// Another engine's server.
    pub fn of(program: &Path, identity: &Identity, transit: Transit, options: &[&str]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
        let port = Arc::new(Port {
            address: listener.local_addr().unwrap(),
            server: free_port(),
            tls: identity.server_config().into(),
            transit: Mutex::new(transit),
            plaintext: Mutex::default(),
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
        let mut node = Self {
            program: program.to_owned(),
            process: None,
            directory,
            options,
            port,
            bus,
            thread: Some(thread),
        };
        node.begin();
        node
    }

    /// Starts or restarts its server.
    pub fn begin(&mut self) {
        let announced = self.port.address.port().to_string();
        let mut command = Command::new(&self.program);
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

    /// Ends its server and with it all connections, as a crash would.
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

    /// Sets whether pontoon gets answers over TLS. Clients in plaintext always do.
    pub fn set_answers(&self, answers: bool) {
        self.port.answers.store(answers, Ordering::SeqCst);
        if !answers {
            self.port.cut();
        }
    }

    pub fn answers(&self) -> bool {
        self.lives() && self.port.answers.load(Ordering::SeqCst)
    }

    /// Changes its transit encryption. Plaintext connections end if it no longer accepts them.
    pub fn set_transit(&self, transit: Transit) {
        *self.port.transit.lock().unwrap() = transit;
        if transit == Transit::Required {
            for stream in self.port.plaintext.lock().unwrap().values() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Number of clients in plaintext now.
    pub fn plaintext_clients(&self) -> usize {
        self.port.plaintext.lock().unwrap().len()
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address
    }

    pub fn bus(&self) -> u16 {
        self.bus
    }

    /// A connection that bypasses the port and is not counted.
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
        // A TLS record of type "handshake".
        let is_tls = first[0] == 0x16;
        let transit = *self.transit.lock().unwrap();
        if !is_tls && transit == Transit::Required {
            // With a linger of zero a close is a reset.
            let _ = socket2::SockRef::from(&near).set_linger(Some(Duration::ZERO));
            return;
        }
        let Ok(far) = TcpStream::connect(("127.0.0.1", self.server)) else { return };
        for stream in [&near, &far] {
            stream.set_nodelay(true).unwrap();
        }
        if first == REPLICA || is_tls && transit == Transit::Disabled {
            carry(&near, &far);
        } else if !is_tls {
            let Ok(peer) = near.peer_addr() else { return };
            self.plaintext.lock().unwrap().insert(peer, near.try_clone().unwrap());
            carry(&near, &far);
            self.plaintext.lock().unwrap().remove(&peer);
        } else if self.answers.load(Ordering::SeqCst) {
            self.streams.lock().unwrap().push(near.try_clone().unwrap());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            let _ = runtime.block_on(self.answer(near, far));
        }
    }

    /// Forwards one request after the other, until the client sends one that gets more than a single reply.
    async fn answer(&self, near: TcpStream, far: TcpStream) -> io::Result<()> {
        let [near, mut far] = [near, far].map(|stream| {
            stream.set_nonblocking(true).unwrap();
            tokio::net::TcpStream::from_std(stream).unwrap()
        });
        let mut near = self.tls.accept(near).await?;
        let (mut requests, mut replies) = (Vec::new(), Vec::new());
        while let Some(request) = next_frame(&mut requests, &mut near).await? {
            far.write_all(&encode(&request)?).await?;
            if PUSHES.contains(&&*command(&request)) {
                far.write_all(&requests).await?;
                copy_bidirectional(&mut near, &mut far).await?;
                return Ok(());
            }
            let Some(mut reply) = next_frame(&mut replies, &mut far).await? else { break };
            if let Some(text) = self.info(&request, &reply) {
                reply = BytesFrame::BulkString(text.into());
            }
            near.write_all(&encode(&reply)?).await?;
        }
        near.shutdown().await
    }

    /// The answer to `INFO` as ElastiCache gives it.
    fn info(&self, request: &BytesFrame, reply: &BytesFrame) -> Option<String> {
        let is_asked = ["info", "info ssl"].contains(&&*command(request));
        let count = self.plaintext.lock().unwrap().len();
        let count = format!("\r\n# SSL\r\ntls_mode_connected_tcp_clients:{count}\r\n");
        is_asked.then(|| reply.as_str().unwrap_or_default().to_owned() + &count)
    }
}

/// Requests after which a server may send more than one reply for each request in RESP2. Counts of clients are not asked over such a
/// connection.
const PUSHES: [&str; 4] = ["hello 3", "subscribe", "psubscribe", "monitor"];

/// The request's name, and its first argument if that is part of the name.
fn command(request: &BytesFrame) -> String {
    let BytesFrame::Array(words) = request else { return String::new() };
    let mut words = words.iter().filter_map(|word| word.as_str().map(str::to_lowercase));
    let name = words.next().unwrap_or_default();
    match words.next() {
        Some(argument) if ["hello", "info"].contains(&&*name) => format!("{name} {argument}"),
        _ => name,
    }
}

fn encode(frame: &BytesFrame) -> io::Result<Vec<u8>> {
    let mut bytes = bytes::BytesMut::new();
    extend_encode(&mut bytes, frame, false).map_err(io::Error::other)?;
    Ok(bytes.to_vec())
}

/// The next frame; `None` if the connection has ended.
async fn next_frame(
    buffer: &mut Vec<u8>,
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<BytesFrame>> {
    loop {
        if let Ok(Some((frame, length))) = decode(buffer) {
            buffer.drain(..length);
            return Ok(Some(frame.into_bytes_frame()));
        }
        if from.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn carry(near: &TcpStream, far: &TcpStream) {
    let pump = |mut from: &TcpStream, mut to: &TcpStream| {
        let _ = io::copy(&mut from, &mut to);
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
