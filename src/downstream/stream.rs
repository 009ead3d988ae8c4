//! A client's stream, TCP or Unix, whole or in halves.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionread;
use rustix::net::{RecvFlags, recv};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

use super::presence::{self, Presence};
use crate::endpoint::Host;

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
    pub(crate) fn local_host(&self) -> Host {
        let local = self.as_tcp().and_then(|stream| stream.local_addr().ok());
        Host::Ip(local.map_or(Ipv4Addr::LOCALHOST.into(), |local| local.ip()))
    }

    /// The first byte that the client sends, which stays to be read. `None`: it sends none.
    pub(crate) async fn first_byte(&self) -> io::Result<Option<u8>> {
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
    pub(crate) fn presence(&self) -> Presence {
        presence_of(self.as_fd())
    }

    /// How many bytes it has sent that were not read.
    pub(crate) fn unread(&self) -> usize {
        unread(self.as_fd())
    }

    /// Completes when it is gone, while it is not read.
    pub(crate) async fn gone(&self) {
        presence::gone(|| self.presence(), || self.unread() > 0).await;
    }

    /// The socket, if it is one of TCP.
    pub(crate) fn as_tcp(&self) -> Option<&TcpStream> {
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
pub(crate) enum ReadHalf {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
}

/// Where a client's replies go to.
#[derive(Debug)]
pub(crate) enum WriteHalf {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
}

impl ClientStream {
    /// A half to read from and one to write to.
    pub(crate) fn into_split(self) -> (ReadHalf, WriteHalf) {
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
    pub(crate) fn reunite(read: ReadHalf, write: WriteHalf) -> Option<Self> {
        match (read, write) {
            (ReadHalf::Tcp(read), WriteHalf::Tcp(write)) => read.reunite(write).ok().map(Self::Tcp),
            (ReadHalf::Unix(read), WriteHalf::Unix(write)) => read.reunite(write).ok().map(Self::Unix),
            _ => None,
        }
    }
}

impl ReadHalf {
    /// What the kernel knows of the client's end.
    pub(crate) fn presence(&self) -> Presence {
        presence_of(self.as_fd())
    }

    /// How many bytes the client has sent that were not read.
    pub(crate) fn unread(&self) -> usize {
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
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
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
