//! The client's side of a session: a TCP or a Unix stream.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionread;
use rustix::net::{RecvFlags, recv};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

use super::presence::{self, Presence};
use crate::clients::Peer;
use crate::endpoint::Host;
use crate::workers;

/// An accepted client, still bound to the event loop of the thread that accepted it.
#[derive(Debug)]
pub struct Accepted {
    stream: ClientStream,
    peer: Peer,
    worker: Option<usize>,
}

impl Accepted {
    /// Over TCP, from that address, accepted by this thread.
    pub fn tcp(stream: TcpStream, client: SocketAddr) -> Self {
        let local = stream.local_addr().ok();
        let local = local.filter(|local| client.ip().is_loopback() || client.ip() == local.ip());
        let peer = Peer::Tcp { client, local };
        Self { stream: ClientStream::Tcp(stream), peer, worker: workers::current() }
    }

    /// Over a Unix socket, accepted by this thread.
    pub fn unix(stream: UnixStream) -> Self {
        let credentials = stream.peer_cred().ok();
        let pid = credentials.and_then(|credentials| credentials.pid());
        let peer = Peer::Unix {
            // 0: of a process that this namespace does not have.
            pid: pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0),
            uid: credentials.map(|credentials| credentials.uid()),
        };
        Self { stream: ClientStream::Unix(stream), peer, worker: workers::current() }
    }

    /// The user and the group of a Unix socket's other end, as the kernel says.
    pub fn user_and_group(&self) -> Option<(u32, u32)> {
        let ClientStream::Unix(stream) = &self.stream else { return None };
        stream.peer_cred().ok().map(|credentials| (credentials.uid(), credentials.gid()))
    }

    /// Where it comes from.
    pub fn peer(&self) -> Peer {
        self.peer.clone()
    }

    /// Bound to the event loop of this thread.
    pub fn into_stream(self) -> io::Result<ClientStream> {
        if let (Peer::Tcp { local: None, .. }, ClientStream::Tcp(stream)) = (&self.peer, &self.stream) {
            // A client on another machine may vanish without a word; Redis asks after the same time.
            let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(300));
            SockRef::from(stream).set_tcp_keepalive(&keepalive)?;
        }
        if self.worker == workers::current() {
            return Ok(self.stream);
        }
        Ok(match self.stream {
            ClientStream::Tcp(stream) => ClientStream::Tcp(TcpStream::from_std(stream.into_std()?)?),
            ClientStream::Unix(stream) => ClientStream::Unix(UnixStream::from_std(stream.into_std()?)?),
        })
    }
}

/// A client.
#[derive(Debug)]
pub enum ClientStream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl ClientStream {
    /// The address that the client connected to. Whoever comes over a Unix socket can reach this machine's own.
    pub(super) fn local_host(&self) -> Host {
        let local = self.as_tcp().and_then(|stream| stream.local_addr().ok());
        Host::Ip(local.map_or(Ipv4Addr::LOCALHOST.into(), |local| local.ip()))
    }

    /// The first byte that the client sends, which stays to be read. `None`: it sends none.
    pub(super) async fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut first = [0];
        let peek = |socket: BorrowedFd<'_>, first: &mut [u8]| Ok(recv(socket, first, RecvFlags::PEEK)?.0);
        let peeked = match self {
            Self::Tcp(stream) => {
                stream.async_io(Interest::READABLE, || peek(stream.as_fd(), &mut first)).await?
            }
            Self::Unix(stream) => {
                stream.async_io(Interest::READABLE, || peek(stream.as_fd(), &mut first)).await?
            }
        };
        Ok((peeked > 0).then_some(first[0]))
    }

    /// What the kernel knows of its end.
    pub(super) fn presence(&self) -> Presence {
        presence_of(self.as_fd())
    }

    /// How many bytes it has sent that were not read.
    pub(super) fn unread(&self) -> usize {
        unread(self.as_fd())
    }

    /// Completes when it is gone, while it is not read.
    pub(super) async fn gone(&self) {
        presence::gone(|| self.presence(), || self.unread() > 0).await;
    }

    /// The socket, if it is one of TCP.
    pub(super) fn as_tcp(&self) -> Option<&TcpStream> {
        if let Self::Tcp(stream) = self { Some(stream) } else { None }
    }
}

impl AsFd for ClientStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

fn presence_of(socket: BorrowedFd<'_>) -> Presence {
    let mut asked = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
    if poll(&mut asked, Some(&Timespec::default())).is_err() {
        return Presence::Sends;
    }
    let found = asked[0].revents();
    // After its FIN a client that is gone answers our replies by RST: what it sent before is done all the same. The kernel tells
    // the one from the other (`tcp_reset` in Linux).
    let resets = found.contains(PollFlags::ERR)
        && SockRef::from(&socket)
            .take_error()
            .is_ok_and(|error| error.is_some_and(|error| error.kind() != io::ErrorKind::BrokenPipe));
    if resets {
        Presence::Gone
    } else if found.intersects(PollFlags::RDHUP | PollFlags::HUP) {
        Presence::Finished
    } else {
        Presence::Sends
    }
}

fn unread(socket: BorrowedFd<'_>) -> usize {
    ioctl_fionread(socket).map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Where a client's requests come from, while others write to it.
#[derive(Debug)]
pub(super) enum ReadHalf {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
}

/// Where a client's replies go to.
#[derive(Debug)]
pub(super) enum WriteHalf {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
}

impl ClientStream {
    pub(super) fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Self::Unix(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Unix(read), WriteHalf::Unix(write))
            }
        }
    }

    /// Puts together again what was split. `None`: the halves are of two.
    pub(super) fn reunite(read: ReadHalf, write: WriteHalf) -> Option<Self> {
        match (read, write) {
            (ReadHalf::Tcp(read), WriteHalf::Tcp(write)) => read.reunite(write).ok().map(Self::Tcp),
            (ReadHalf::Unix(read), WriteHalf::Unix(write)) => read.reunite(write).ok().map(Self::Unix),
            _ => None,
        }
    }
}

impl ReadHalf {
    /// What the kernel knows of the client's end.
    pub(super) fn presence(&self) -> Presence {
        presence_of(self.as_fd())
    }

    /// How many bytes the client has sent that were not read.
    pub(super) fn unread(&self) -> usize {
        unread(self.as_fd())
    }
}

impl AsFd for ReadHalf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(half) => half.as_ref().as_fd(),
            Self::Unix(half) => half.as_ref().as_fd(),
        }
    }
}

impl WriteHalf {
    /// Writes what the socket takes now.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => half.try_write(bytes),
            Self::Unix(half) => half.try_write(bytes),
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            Self::Unix(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_write(cx, buf),
            Self::Unix(half) => Pin::new(half).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(half) => Pin::new(half).poll_shutdown(cx),
            Self::Unix(half) => Pin::new(half).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
