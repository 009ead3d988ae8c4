//! A client's stream over TCP or a Unix socket.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionread;
use rustix::net::{RecvFlags, recv};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::presence::{self, Presence};
use crate::endpoint::Host;

/// A handle to a client's stream. The session's task reads and writes. Other tasks of the same thread may write what the socket takes at
/// once.
#[derive(Debug, Clone)]
pub struct ClientStream(Arc<Socket>);

/// A client's socket.
#[derive(Debug)]
pub(super) enum Socket {
    /// A TCP socket.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl From<Socket> for ClientStream {
    fn from(socket: Socket) -> Self {
        Self(Arc::new(socket))
    }
}

impl ClientStream {
    /// The address that the client connected to; 127.0.0.1 for a client of a Unix socket.
    pub(crate) fn local_host(&self) -> Host {
        let local = self.as_tcp().and_then(|stream| stream.local_addr().ok());
        Host::Ip(local.map_or(Ipv4Addr::LOCALHOST.into(), |local| local.ip()))
    }

    /// The port that the client connected to; `None` for a client of a Unix socket.
    pub(crate) fn local_port(&self) -> Option<u16> {
        Some(self.as_tcp()?.local_addr().ok()?.port())
    }

    /// Peeks at the first byte that the client sends, and leaves it to be read. `None`: the client closed without sending one.
    pub(crate) async fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut first = [0];
        let peek = |socket: BorrowedFd<'_>, first: &mut [u8]| Ok(recv(socket, first, RecvFlags::PEEK)?.0);
        let peeked = match &*self.0 {
            Socket::Tcp(stream) => {
                stream.async_io(Interest::READABLE, || peek(stream.as_fd(), &mut first)).await?
            }
            Socket::Unix(stream) => {
                stream.async_io(Interest::READABLE, || peek(stream.as_fd(), &mut first)).await?
            }
        };
        Ok((peeked > 0).then_some(first[0]))
    }

    /// What the kernel knows about the client's end of the connection.
    pub(crate) fn presence(&self) -> Presence {
        presence_of(self.as_fd())
    }

    /// Number of bytes that have arrived from the client and were not read.
    pub(crate) fn unread(&self) -> usize {
        ioctl_fionread(self.as_fd()).map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// Completes when the client is gone, while it is not read. `kept`: pontoon has read bytes of it that are not served yet.
    pub(crate) async fn gone(&self, kept: bool) {
        presence::gone(|| self.presence(), || kept || self.unread() > 0).await;
    }

    /// The TCP socket, if it is one.
    pub(crate) fn as_tcp(&self) -> Option<&TcpStream> {
        if let Socket::Tcp(stream) = &*self.0 { Some(stream) } else { None }
    }

    /// Writes as much as the socket takes now.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &*self.0 {
            Socket::Tcp(stream) => stream.try_write(bytes),
            Socket::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Shuts the socket down in both directions: later reads and writes find it closed. Bytes that the kernel has taken may still arrive.
    pub(crate) fn shut_down(&self) {
        let _ = SockRef::from(&self.as_fd()).shutdown(std::net::Shutdown::Both);
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &*self.0 {
            Socket::Tcp(stream) => stream.poll_read_ready(cx),
            Socket::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &*self.0 {
            Socket::Tcp(stream) => stream.poll_write_ready(cx),
            Socket::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    fn try_io<T>(&self, interest: Interest, io: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match &*self.0 {
            Socket::Tcp(stream) => stream.try_io(interest, io),
            Socket::Unix(stream) => stream.try_io(interest, io),
        }
    }
}

impl AsFd for ClientStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &*self.0 {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

fn presence_of(socket: BorrowedFd<'_>) -> Presence {
    let mut asked = [PollFd::from_borrowed_fd(socket, PollFlags::RDHUP)];
    if poll(&mut asked, Some(&Timespec::default())).is_err() {
        return Presence::Sends;
    }
    let found = asked[0].revents();
    // A client that has closed answers later replies with RST. What it sent before must still be executed, so it counts as finished. The
    // kernel reports EPIPE in this case, and another error for a plain reset (`tcp_reset` in Linux).
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

fn is_would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            let mut read = None;
            let result = self.try_io(Interest::READABLE, || {
                let room = buf.initialize_unfilled();
                let n = recv(self.as_fd(), &mut *room, RecvFlags::empty())?.0;
                read = Some(n);
                // A short read has emptied the socket, so the event loop does not have to ask it again. A new event is not lost, because it
                // carries another number (`clear_readiness` in tokio).
                if (1..room.len()).contains(&n) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match (read, result) {
                (Some(n), _) => {
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                (None, Err(error)) if is_would_block(&error) => {}
                (None, Err(error)) => return Poll::Ready(Err(error)),
                (None, Ok(())) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            match self.try_write(bytes) {
                Err(error) if is_would_block(&error) => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(&self.as_fd()).shutdown(std::net::Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}
