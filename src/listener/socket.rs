//! Listening sockets, TCP and Unix: bind, accept, clean up.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use rustix::fs::{Access, Mode, access};
use socket2::{Domain, SockRef, Socket as RawSocket, Type};
use tokio::net;

use super::handover::{Lead, lead};
use super::inherited::Inherited;
use super::socket_file::{self, SocketFile, is_dead};
use crate::downstream::Accepted;
use crate::endpoint::ListenAddr;

/// Clients that may wait to be accepted; the kernel lowers it to its own limit (`net.core.somaxconn`).
pub(super) const BACKLOG: i32 = 4096;

/// Why an address could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error("cannot listen on {0}: the address is in use: stop what listens there, or choose another")]
    InUse(ListenAddr),
    /// Somebody else has it, and does not share it.
    #[error(
        "cannot listen on {0}: the address is in use by a process of another user, or by one that does not hand over: \
         stop what listens there, or choose another"
    )]
    NotShared(ListenAddr),
    /// A server answers on the Unix socket.
    #[error("cannot listen on {0}: a running process listens there: stop it, or choose another path")]
    Live(ListenAddr),
    /// One successor is enough.
    #[error(
        "cannot listen on {0}: two running processes do already, one to follow the other: stop one of them"
    )]
    Followed(ListenAddr),
    /// The path is taken by something that is not a socket; nothing is removed.
    #[error("cannot listen on {0}: the file exists and is not a socket: remove it, or choose another path")]
    NotASocket(ListenAddr),
    /// Not allowed.
    #[error(
        "cannot listen on {0}: permission denied: ports below 1024 need a privilege; choose a higher one"
    )]
    Privileged(ListenAddr),
    /// Anything else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// Where.
        address: ListenAddr,
        /// The system's words.
        source: io::Error,
    },
}

impl BindError {
    /// Whether it may pass by itself: somebody else may leave, an address or a directory may come. What must be configured
    /// otherwise does not.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::InUse(_) | Self::NotShared(_) | Self::Live(_) | Self::Followed(_) | Self::Other { .. } => {
                true
            }
            Self::NotASocket(_) | Self::Privileged(_) => false,
        }
    }
}

/// Who else has a TCP socket's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Own,
    /// A successor may share it.
    Shared,
    /// The socket is a service manager's, too.
    Inherited,
}

#[derive(Debug)]
pub(super) enum ListeningSocket {
    Tcp(TcpListener, Port),
    /// With the file, if it is ours.
    Unix(UnixListener, Option<Arc<SocketFile>>),
}

impl ListeningSocket {
    /// The socket that was inherited for `address`, if any.
    pub(super) fn inherit(address: &ListenAddr, inherited: &Inherited) -> Option<io::Result<Self>> {
        match address {
            ListenAddr::Tcp(address) => {
                Some(inherited.tcp(*address)?.map(|socket| Self::Tcp(socket, Port::Inherited)))
            }
            ListenAddr::Unix { path, .. } => {
                Some(inherited.unix(path)?.map(|socket| Self::Unix(socket, None)))
            }
        }
    }

    /// With `handover` it may be bound beside another process', and lets a third one's be bound beside it.
    pub(super) fn bind(address: &ListenAddr, handover: bool) -> Result<(Self, ListenAddr), BindError> {
        match address {
            ListenAddr::Tcp(wanted) => {
                let (socket, bound) = bind_tcp(*wanted, handover).map_err(|source| match source.kind() {
                    io::ErrorKind::AddrInUse if handover => BindError::NotShared(address.clone()),
                    _ => explain(address)(source),
                })?;
                let port = if handover { Port::Shared } else { Port::Own };
                Ok((Self::Tcp(socket, port), ListenAddr::Tcp(bound)))
            }
            ListenAddr::Unix { path, mode, .. } => {
                let first = match is_stale(path, address) {
                    Ok(stale) => {
                        if stale {
                            fs::remove_file(path).map_err(explain(address))?;
                        }
                        path.clone()
                    }
                    Err(BindError::Live(_)) if handover => socket_file::room_for_successor(path, address)?,
                    Err(error) => return Err(error),
                };
                let socket = bind_unix(&first, *mode).map_err(explain(address))?;
                let file = SocketFile::of(path, &first, handover).map_err(explain(address))?;
                Ok((Self::Unix(socket, Some(Arc::new(file))), address.clone()))
            }
        }
    }

    /// Whether it could be bound now. Nobody can connect meanwhile.
    pub(super) fn could_bind(address: &ListenAddr) -> Result<(), BindError> {
        match address {
            ListenAddr::Tcp(wanted) => unbound_tcp(*wanted)
                .and_then(|socket| socket.bind(&(*wanted).into()))
                .map_err(explain(address)),
            ListenAddr::Unix { path, .. } => {
                let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                access(directory.unwrap_or(Path::new(".")), Access::WRITE_OK | Access::EXEC_OK)
                    .map_err(|error| explain(address)(error.into()))?;
                is_stale(path, address).map(drop)
            }
        }
    }

    /// The same socket once more, for another thread.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket, port) => Self::Tcp(socket.try_clone()?, *port),
            Self::Unix(socket, file) => Self::Unix(socket.try_clone()?, file.clone()),
        })
    }

    /// Where its file is, if it is ours.
    pub(super) fn file(&self) -> Option<PathBuf> {
        if let Self::Unix(_, Some(file)) = self { Some(file.now()) } else { None }
    }

    /// Ready to accept, on the event loop of this thread.
    pub(super) fn listen(self) -> io::Result<Acceptor> {
        Ok(match self {
            Self::Tcp(socket, port) => Acceptor::Tcp(net::TcpListener::from_std(socket)?, port),
            Self::Unix(socket, file) => Acceptor::Unix(net::UnixListener::from_std(socket)?, file),
        })
    }
}

/// A socket that accepts.
pub(super) enum Acceptor {
    Tcp(net::TcpListener, Port),
    /// With the file, which goes when the last of its sockets does.
    Unix(net::UnixListener, Option<Arc<SocketFile>>),
}

impl Acceptor {
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(socket, _) => {
                let (stream, peer) = socket.accept().await?;
                Accepted::tcp(stream, peer)
            }
            Self::Unix(socket, _) => Accepted::unix(socket.accept().await?.0),
        })
    }

    /// A client that waits; `None`: none does, or it cannot be had. Asks the system itself: the event loop may not have heard of
    /// it yet.
    pub(super) fn accept_now(&self) -> Option<Accepted> {
        let socket = match self {
            Self::Tcp(socket, _) => SockRef::from(socket).accept(),
            Self::Unix(socket, _) => SockRef::from(socket).accept(),
        };
        let (socket, peer) = socket.ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(match self {
            Self::Tcp(..) => Accepted::tcp(net::TcpStream::from_std(socket.into()).ok()?, peer.as_socket()?),
            Self::Unix(..) => Accepted::unix(net::UnixStream::from_std(socket.into()).ok()?),
        })
    }

    /// Whether it is a service manager's, who keeps it open.
    pub(super) fn is_inherited(&self) -> bool {
        matches!(self, Self::Tcp(_, Port::Inherited) | Self::Unix(_, None))
    }

    /// Leads clients to the successor, if there is one.
    pub(super) fn step_aside(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket, Port::Shared) => lead(socket, Lead::Successor),
            Self::Unix(_, Some(file)) => file.hand_over().map(drop),
            Self::Tcp(..) | Self::Unix(_, None) => Ok(()),
        }
    }

    /// The file, while another process has the name that it is to have.
    pub(super) fn waits(&self) -> Option<Arc<SocketFile>> {
        let Self::Unix(_, Some(file)) = self else { return None };
        file.waits().then(|| Arc::clone(file))
    }
}

fn explain(address: &ListenAddr) -> impl Fn(io::Error) -> BindError {
    move |source| match (source.kind(), address) {
        (io::ErrorKind::AddrInUse, _) => BindError::InUse(address.clone()),
        (io::ErrorKind::PermissionDenied, ListenAddr::Tcp(_)) => BindError::Privileged(address.clone()),
        _ => BindError::Other { address: address.clone(), source },
    }
}

fn unbound_tcp(address: SocketAddr) -> io::Result<RawSocket> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restart does not wait for the connections of the previous run to fade from the kernel's memory.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn bind_tcp(address: SocketAddr, shared: bool) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = unbound_tcp(address)?;
    socket.set_reuse_port(shared)?;
    // Clients' sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    if shared {
        lead(&socket, Lead::Oldest)?;
    }
    socket.set_nonblocking(true)?;
    let socket = TcpListener::from(socket);
    let bound = socket.local_addr()?;
    Ok((socket, bound))
}

/// Whether there is the socket file of a process that did not get to remove it.
pub(super) fn is_stale(path: &Path, address: &ListenAddr) -> Result<bool, BindError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(false) };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket(address.clone()));
    }
    if is_dead(path).map_err(explain(address))? { Ok(true) } else { Err(BindError::Live(address.clone())) }
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    // The mask rather than a later chmod: there is no moment in which others could connect.
    let before = rustix::process::umask(Mode::from_raw_mode(!mode & 0o777));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let socket = bound?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use socket2::SockAddr;

    use super::*;
    use crate::endpoint::Peers;

    #[test]
    fn a_process_whose_queue_is_full_is_alive_and_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        let address = ListenAddr::Unix { path: path.clone(), mode: 0o600, peers: Peers::default() };
        let stopped = RawSocket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        stopped.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        stopped.listen(0).unwrap();
        let mut waiting = Vec::new();
        loop {
            let client = RawSocket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            match client.connect(&SockAddr::unix(&path).unwrap()) {
                Ok(()) => waiting.push(client),
                Err(error) => break assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert!(matches!(is_stale(&path, &address), Err(BindError::Live(_))));
        drop(stopped);
        assert!(is_stale(&path, &address).unwrap());
    }
}
