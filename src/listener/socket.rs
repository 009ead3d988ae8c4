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
use super::holder::Holder;
use super::inherited::Inherited;
use super::socket_file::{self, SocketFile, is_dead};
use crate::downstream::Accepted;
use crate::endpoint::ListenAddr;

/// The limit on clients that wait to be accepted. The kernel lowers it to its own limit (`net.core.somaxconn`).
pub(super) const BACKLOG: i32 = 4096;

/// Why an address could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens on the address.
    #[error("cannot listen on {0}: the address is in use by {1}: stop it, or choose another address")]
    InUse(ListenAddr, Holder),
    /// Another process listens on the address and does not share it.
    #[error(
        "cannot listen on {0}: the address is in use by {1}, which is another user's or runs without handover: stop it, or \
         choose another address"
    )]
    NotShared(ListenAddr, Holder),
    /// A running process listens on the Unix socket.
    #[error("cannot listen on {0}: the socket is in use by {1}: stop it, or choose another path")]
    Live(ListenAddr, Holder),
    /// Two processes share the address already.
    #[error(
        "cannot listen on {0}: a running process and its successor listen there already: stop one of them"
    )]
    Followed(ListenAddr),
    /// The path is taken by something that is not a socket. Nothing is removed.
    #[error("cannot listen on {0}: the file exists and is not a socket: remove it, or choose another path")]
    NotASocket(ListenAddr),
    /// The process lacks the permission to bind the port.
    #[error(
        "cannot listen on {0}: permission denied: ports below 1024 need a privilege; choose a higher one"
    )]
    Privileged(ListenAddr),
    /// Any other error.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The address.
        address: ListenAddr,
        /// The system's error.
        source: io::Error,
    },
}

impl BindError {
    /// Whether the error may end without a change to the configuration, because another process may stop, or an address or a directory may
    /// appear.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::InUse(..)
            | Self::NotShared(..)
            | Self::Live(..)
            | Self::Followed(_)
            | Self::Other { .. } => true,
            Self::NotASocket(_) | Self::Privileged(_) => false,
        }
    }
}

/// Which other processes have a TCP socket's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Own,
    /// A successor may share it.
    Shared,
    /// The service manager has the socket, too.
    Inherited,
}

#[derive(Debug)]
pub(super) enum ListeningSocket {
    Tcp(TcpListener, Port),
    /// With the file, if this process created it.
    Unix(UnixListener, Option<Arc<SocketFile>>),
}

impl ListeningSocket {
    /// The inherited socket for `address`, if there is one.
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

    /// Binds `address`. With `handover`, the socket shares the address with the one of another process.
    pub(super) fn bind(address: &ListenAddr, handover: bool) -> Result<(Self, ListenAddr), BindError> {
        match address {
            ListenAddr::Tcp(wanted) => {
                let (socket, bound) = bind_tcp(*wanted, handover).map_err(|source| match source.kind() {
                    io::ErrorKind::AddrInUse if handover => {
                        BindError::NotShared(address.clone(), Holder::of(address))
                    }
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
                    Err(BindError::Live(..)) if handover => socket_file::room_for_successor(path, address)?,
                    Err(error) => return Err(error),
                };
                let socket = bind_unix(&first, *mode).map_err(explain(address))?;
                let file = SocketFile::of(path, &first, handover).map_err(explain(address))?;
                Ok((Self::Unix(socket, Some(Arc::new(file))), address.clone()))
            }
        }
    }

    /// Whether `address` could be bound now. Clients cannot connect meanwhile.
    pub(super) fn could_bind(address: &ListenAddr, handover: bool) -> Result<(), BindError> {
        match address {
            ListenAddr::Tcp(wanted) => unbound_tcp(*wanted)
                .and_then(|socket| {
                    socket.set_reuse_port(handover)?;
                    socket.bind(&(*wanted).into())
                })
                .map_err(explain(address)),
            ListenAddr::Unix { path, .. } => {
                let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                access(directory.unwrap_or(Path::new(".")), Access::WRITE_OK | Access::EXEC_OK)
                    .map_err(|error| explain(address)(error.into()))?;
                is_stale(path, address).map(drop)
            }
        }
    }

    /// Duplicates the socket for another thread.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket, port) => Self::Tcp(socket.try_clone()?, *port),
            Self::Unix(socket, file) => Self::Unix(socket.try_clone()?, file.clone()),
        })
    }

    /// The path of the socket's file at present, if this process created it.
    pub(super) fn file(&self) -> Option<PathBuf> {
        if let Self::Unix(_, Some(file)) = self { Some(file.now()) } else { None }
    }

    /// Starts to accept on the event loop of this thread.
    pub(super) fn listen(self) -> io::Result<Acceptor> {
        Ok(match self {
            Self::Tcp(socket, port) => Acceptor::Tcp(net::TcpListener::from_std(socket)?, port),
            Self::Unix(socket, file) => Acceptor::Unix(net::UnixListener::from_std(socket)?, file),
        })
    }
}

/// A socket that accepts clients.
pub(super) enum Acceptor {
    Tcp(net::TcpListener, Port),
    /// With the file, which is removed with the last of its sockets.
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

    /// Accepts a client that waits; `None` if there is none or accepting fails. Asks the kernel directly, because the event loop may not
    /// know of the client yet.
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

    /// Whether a service manager keeps the socket open, too.
    pub(super) fn is_inherited(&self) -> bool {
        matches!(self, Self::Tcp(_, Port::Inherited) | Self::Unix(_, None))
    }

    /// Leads further clients to the successor, if there is one.
    pub(super) fn step_aside(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket, Port::Shared) => lead(socket, Lead::Successor),
            Self::Unix(_, Some(file)) => file.hand_over().map(drop),
            Self::Tcp(..) | Self::Unix(_, None) => Ok(()),
        }
    }

    /// The file, while it waits for another process to give up its path.
    pub(super) fn waits(&self) -> Option<Arc<SocketFile>> {
        let Self::Unix(_, Some(file)) = self else { return None };
        file.waits().then(|| Arc::clone(file))
    }
}

fn explain(address: &ListenAddr) -> impl Fn(io::Error) -> BindError {
    move |source| match (source.kind(), address) {
        (io::ErrorKind::AddrInUse, _) => BindError::InUse(address.clone(), Holder::of(address)),
        (io::ErrorKind::PermissionDenied, ListenAddr::Tcp(_)) => BindError::Privileged(address.clone()),
        _ => BindError::Other { address: address.clone(), source },
    }
}

fn unbound_tcp(address: SocketAddr) -> io::Result<RawSocket> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Otherwise a restart would wait until the kernel forgets the connections of the previous run.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

fn bind_tcp(address: SocketAddr, shared: bool) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = unbound_tcp(address)?;
    socket.set_reuse_port(shared)?;
    // Clients' sockets inherit this option.
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

/// Whether `path` is a socket file that an ended process left behind.
pub(super) fn is_stale(path: &Path, address: &ListenAddr) -> Result<bool, BindError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(false) };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket(address.clone()));
    }
    if is_dead(path).map_err(explain(address))? {
        Ok(true)
    } else {
        Err(BindError::Live(address.clone(), Holder::of(address)))
    }
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    // The umask is used in place of a later chmod, so that others cannot connect even for a moment.
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
    fn a_process_with_a_full_queue_counts_as_alive_without_a_wait() {
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
        assert!(matches!(is_stale(&path, &address), Err(BindError::Live(..))));
        drop(stopped);
        assert!(is_stale(&path, &address).unwrap());
    }
}
