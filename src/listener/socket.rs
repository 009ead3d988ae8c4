//! Listening sockets, TCP and Unix: bind, accept, clean up.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use rustix::fs::{Access, Mode, access};
use socket2::{Domain, Socket as RawSocket, Type};
use tokio::net;

use super::inherited::Inherited;
use crate::endpoint::ListenAddr;
use crate::session::Accepted;

/// Clients that may wait to be accepted; the kernel lowers it to its own limit (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Why an address could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error("cannot listen on {0}: the address is in use: stop what listens there, or choose another")]
    InUse(ListenAddr),
    /// A server answers on the Unix socket.
    #[error("cannot listen on {0}: a running process listens there: stop it, or choose another path")]
    Live(ListenAddr),
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

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpListener),
    /// With the file, if it is ours.
    Unix(UnixListener, Option<Arc<SocketFile>>),
}

impl Socket {
    /// The socket that was inherited for `address`, if any.
    pub(super) fn inherit(address: &ListenAddr, inherited: &Inherited) -> Option<io::Result<Self>> {
        match address {
            ListenAddr::Tcp(address) => Some(inherited.tcp(*address)?.map(Self::Tcp)),
            ListenAddr::Unix { path, .. } => {
                Some(inherited.unix(path)?.map(|socket| Self::Unix(socket, None)))
            }
        }
    }

    pub(super) fn bind(address: &ListenAddr) -> Result<(Self, ListenAddr), BindError> {
        match address {
            ListenAddr::Tcp(wanted) => {
                let (socket, bound) = bind_tcp(*wanted).map_err(explain(address))?;
                Ok((Self::Tcp(socket), ListenAddr::Tcp(bound)))
            }
            ListenAddr::Unix { path, mode, .. } => {
                if is_stale(path, address)? {
                    fs::remove_file(path).map_err(explain(address))?;
                }
                let (socket, file) = bind_unix(path, *mode).map_err(explain(address))?;
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
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Unix(socket, file) => Self::Unix(socket.try_clone()?, file.clone()),
        })
    }

    /// Ready to accept, on the event loop of this thread.
    pub(super) fn listen(self) -> io::Result<Acceptor> {
        Ok(match self {
            Self::Tcp(socket) => Acceptor::Tcp(net::TcpListener::from_std(socket)?),
            Self::Unix(socket, file) => Acceptor::Unix(net::UnixListener::from_std(socket)?, file),
        })
    }
}

/// A socket that accepts.
pub(super) enum Acceptor {
    Tcp(net::TcpListener),
    /// With the file, which goes when the last of its sockets does.
    Unix(net::UnixListener, #[expect(dead_code, reason = "held for its drop")] Option<Arc<SocketFile>>),
}

impl Acceptor {
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                Accepted::tcp(stream, peer)
            }
            Self::Unix(socket, _) => Accepted::unix(socket.accept().await?.0),
        })
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

fn bind_tcp(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = unbound_tcp(address)?;
    // Clients' sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let socket = TcpListener::from(socket);
    let bound = socket.local_addr()?;
    Ok((socket, bound))
}

/// Whether there is the socket file of a process that did not get to remove it.
fn is_stale(path: &Path, address: &ListenAddr) -> Result<bool, BindError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(false) };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket(address.clone()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
        _ => Err(BindError::Live(address.clone())),
    }
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    // The mask rather than a later chmod: there is no moment in which others could connect.
    let before = rustix::process::umask(Mode::from_raw_mode(!mode & 0o777));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let socket = bound?;
    let file = SocketFile::of(path)?;
    socket.set_nonblocking(true)?;
    Ok((socket, file))
}

/// The file of a bound socket, removed on drop unless somebody has put another in its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}
