//! One port for plaintext and TLS in front of a real server, as nodes have in `preferred` mode. What it does with either kind can be
//! changed while it runs.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::Redis;

/// The address from which servers and sentinels connect to each other in plaintext. Connections from other addresses are those of clients.
pub const MEMBERS: &str = "127.0.0.2";

/// What happens to a connection of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It reaches the server.
    Accept,
    /// It is reset.
    Reset,
    /// It is closed.
    Close,
    /// It is kept, and never answered.
    Hang,
    /// It receives these bytes, and is closed.
    Say(&'static [u8]),
    /// It reaches the server's port of the other kind, such as plaintext instead of TLS.
    Cross,
}

impl Mood {
    /// What a server without TLS may do with a TLS connection, or an attacker who tries to force plaintext.
    pub const NO_TLS: [Self; 6] = [
        Self::Hang,
        Self::Reset,
        Self::Close,
        Self::Say(b"-ERR unknown command\r\n"),
        Self::Say(b"\x16\x03\x03 garbage that begins like TLS and is none"),
        Self::Cross,
    ];
}

struct Shared {
    /// For plaintext and for TLS, as the ports.
    moods: Mutex<[Mood; 2]>,
    ports: Mutex<[u16; 2]>,
    connections: [AtomicUsize; 2],
    plaintext_bytes: AtomicUsize,
    stopped: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
    /// Of these, the clients' streams that began in plaintext.
    plaintext_streams: Mutex<Vec<TcpStream>>,
    /// The clients' streams that began with TLS.
    tls_streams: Mutex<Vec<TcpStream>>,
}

pub struct Dual {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

const PLAINTEXT: usize = 0;
const TLS: usize = 1;

impl Dual {
    /// A port in front of `redis`.
    pub fn new(redis: &Redis, plaintext: Mood, tls: Mood) -> Self {
        Self::between([redis.plain_port, redis.tls_port], plaintext, tls)
    }

    /// A port in front of a port for plaintext and one for TLS.
    pub fn between(ports: [u16; 2], plaintext: Mood, tls: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            moods: Mutex::new([plaintext, tls]),
            ports: Mutex::new(ports),
            connections: Default::default(),
            plaintext_bytes: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            streams: Mutex::default(),
            plaintext_streams: Mutex::default(),
            tls_streams: Mutex::default(),
        });
        let thread = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    if shared.stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || shared.serve(&stream));
                }
            })
        };
        Self { address, shared, thread: Some(thread) }
    }

    /// Sets what happens to new connections of each kind.
    pub fn set(&self, plaintext: Mood, tls: Mood) {
        *self.shared.moods.lock().unwrap() = [plaintext, tls];
    }

    /// Forwards new connections to another server.
    pub fn lead_to(&self, redis: &Redis) {
        *self.shared.ports.lock().unwrap() = [redis.plain_port, redis.tls_port];
    }

    /// Ends all connections.
    pub fn cut(&self) {
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends the plaintext connections, as a group does that begins to require TLS.
    pub fn cut_plaintext(&self) {
        for stream in self.shared.plaintext_streams.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends the TLS connections.
    pub fn cut_tls(&self) {
        for stream in self.shared.tls_streams.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Number of open connections that began in plaintext.
    pub fn open_in_plaintext(&self) -> usize {
        self.shared.plaintext_streams.lock().unwrap().len()
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The endpoint, by the name in the certificate.
    pub fn endpoint(&self) -> String {
        format!("localhost:{}", self.port())
    }

    /// Number of connections so far that began in plaintext.
    pub fn plaintext_connections(&self) -> usize {
        self.shared.connections[PLAINTEXT].load(Ordering::SeqCst)
    }

    /// Number of connections so far that began with TLS.
    pub fn tls_connections(&self) -> usize {
        self.shared.connections[TLS].load(Ordering::SeqCst)
    }

    /// Number of bytes so far that came in plaintext.
    pub fn plaintext_bytes(&self) -> usize {
        self.shared.plaintext_bytes.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn serve(&self, near: &TcpStream) {
        // A stream no longer has this address after it has ended.
        let own = near.peer_addr().ok();
        near.set_nodelay(true).unwrap();
        if own.is_some_and(|own| own.ip().to_string() == MEMBERS) {
            self.join(near);
            return;
        }
        self.streams.lock().unwrap().push(near.try_clone().unwrap());
        let mut first = [0];
        if !matches!(near.peek(&mut first), Ok(1)) {
            return;
        }
        // A TLS record of type "handshake".
        let kind = if first[0] == 0x16 { TLS } else { PLAINTEXT };
        let of_kind = if kind == PLAINTEXT { &self.plaintext_streams } else { &self.tls_streams };
        of_kind.lock().unwrap().push(near.try_clone().unwrap());
        self.connections[kind].fetch_add(1, Ordering::SeqCst);
        let mood = self.moods.lock().unwrap()[kind];
        let ports = *self.ports.lock().unwrap();
        match mood {
            Mood::Accept => self.carry(near, kind, ports[kind]),
            Mood::Cross => self.carry(near, kind, ports[1 - kind]),
            Mood::Hang => self.swallow(near, kind),
            Mood::Close => {}
            Mood::Reset => {
                // With unread bytes or a linger of zero a close is a reset.
                let _ = socket2::SockRef::from(near).set_linger(Some(std::time::Duration::ZERO));
            }
            Mood::Say(words) => {
                let mut near = near;
                let _ = near.write_all(words);
                let _ = near.shutdown(Shutdown::Write);
                self.swallow(near, kind);
            }
        }
        // The handles kept for `cut` would keep the connection open.
        for streams in [&self.streams, of_kind] {
            streams.lock().unwrap().retain(|stream| stream.peer_addr().is_ok_and(|peer| Some(peer) != own));
        }
    }

    fn swallow(&self, mut near: &TcpStream, kind: usize) {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = near.read(&mut buffer) {
            if kind == PLAINTEXT {
                self.plaintext_bytes.fetch_add(n, Ordering::SeqCst);
            }
        }
    }

    fn carry(&self, near: &TcpStream, kind: usize, port: u16) {
        let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { return };
        self.streams.lock().unwrap().push(far.try_clone().unwrap());
        self.pump(near, &far, kind == PLAINTEXT);
    }

    /// Connects two members of a group, whatever happens to clients.
    fn join(&self, near: &TcpStream) {
        let port = self.ports.lock().unwrap()[PLAINTEXT];
        if let Ok(far) = TcpStream::connect(("127.0.0.1", port)) {
            self.pump(near, &far, false);
        }
    }

    /// Forwards everything in both directions until both have ended, and counts what the client sends if that is `counted`.
    fn pump(&self, near: &TcpStream, far: &TcpStream, counted: bool) {
        far.set_nodelay(true).unwrap();
        let pump = |mut from: &TcpStream, mut to: &TcpStream, counted: bool| {
            let mut buffer = [0; 16 * 1024];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                if counted {
                    self.plaintext_bytes.fetch_add(n, Ordering::SeqCst);
                }
                if to.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        };
        thread::scope(|scope| {
            scope.spawn(|| pump(near, far, counted));
            pump(far, near, false);
        });
        let _ = near.shutdown(Shutdown::Both);
    }
}

impl Drop for Dual {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
