//! A client that a listener has accepted, before its session begins.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};

use super::stream::{ClientStream, Socket};
use crate::clients::Peer;
use crate::workers;

/// An accepted client, still bound to the event loop of the thread that accepted it.
#[derive(Debug)]
pub struct Accepted {
    socket: Socket,
    peer: Peer,
    worker: Option<usize>,
}

impl Accepted {
    /// A client that this thread accepted over TCP from the address `client`.
    pub fn tcp(stream: TcpStream, client: SocketAddr) -> Self {
        let local = stream.local_addr().ok();
        let local = local.filter(|local| client.ip().is_loopback() || client.ip() == local.ip());
        let peer = Peer::Tcp { client, local };
        Self { socket: Socket::Tcp(stream), peer, worker: workers::current() }
    }

    /// A client that this thread accepted over a Unix socket.
    pub fn unix(stream: UnixStream) -> Self {
        let credentials = stream.peer_cred().ok();
        let pid = credentials.and_then(|credentials| credentials.pid());
        let peer = Peer::Unix {
            // The kernel reports 0 for a process outside this PID namespace.
            pid: pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
            uid: credentials.map(|credentials| credentials.uid()),
        };
        Self { socket: Socket::Unix(stream), peer, worker: workers::current() }
    }

    /// The user id and the group id of the client's process, as the kernel reports them. `None` over TCP.
    pub fn user_and_group(&self) -> Option<(u32, u32)> {
        let Socket::Unix(stream) = &self.socket else { return None };
        stream.peer_cred().ok().map(|credentials| (credentials.uid(), credentials.gid()))
    }

    /// Where the client connects from.
    pub fn peer(&self) -> Peer {
        self.peer.clone()
    }

    /// The client's stream, bound to the event loop of the calling thread.
    pub fn into_stream(self) -> io::Result<ClientStream> {
        if let (Peer::Tcp { local: None, .. }, Socket::Tcp(stream)) = (&self.peer, &self.socket) {
            // A client on another machine may vanish without closing. Redis sends its first keepalive probe after the same 300 s.
            let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(300));
            SockRef::from(stream).set_tcp_keepalive(&keepalive)?;
        }
        if self.worker == workers::current() {
            return Ok(self.socket.into());
        }
        Ok(match self.socket {
            Socket::Tcp(stream) => Socket::Tcp(TcpStream::from_std(stream.into_std()?)?),
            Socket::Unix(stream) => Socket::Unix(UnixStream::from_std(stream.into_std()?)?),
        }
        .into())
    }
}
