//! Listening sockets that are older than this process: systemd's, by socket activation ([`sd_listen_fds(3)`]). While
//! pontoon is away, at a restart say, clients wait in them.
//!
//! An inherited socket takes the place of the configured address that it is bound to. It stays open as long as the
//! process: systemd has it, too, so that the address could not be bound anew.
//!
//! [`sd_listen_fds(3)`]: https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use listenfd::ListenFd;
use socket2::SockRef;

use crate::endpoint::ListenAddr;

/// Number of the first descriptor that a service manager passes on.
const FIRST_INHERITED_DESCRIPTOR: usize = 3;

/// A descriptor that was passed on is no use.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// It is something else.
    #[error(
        "descriptor {0} from the service manager is no listening TCP or Unix socket: pontoon takes ListenStream= alone"
    )]
    NotListening(usize),
    /// It cannot be used.
    #[error("descriptor {descriptor} from the service manager cannot be used: {source}")]
    Unusable {
        /// Which.
        descriptor: usize,
        /// The system's words.
        source: io::Error,
    },
    /// Nobody wants it.
    #[error(
        "the service manager passed on a socket that listens on {0}, where nothing is to listen: add it to a route's \
         listen, or take it out of the .socket unit"
    )]
    Unwanted(String),
}

/// The sockets.
#[derive(Debug, Default)]
pub struct Inherited {
    tcp: Vec<(SocketAddr, TcpListener)>,
    unix: Vec<(PathBuf, UnixListener)>,
}

impl Inherited {
    /// Takes what `LISTEN_FDS` tells of. To be called once, before there are threads.
    pub fn take() -> Result<Self, InheritError> {
        let mut descriptors = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..descriptors.len() {
            let descriptor = FIRST_INHERITED_DESCRIPTOR + index;
            let unusable = |source| InheritError::Unusable { descriptor, source };
            if let Ok(Some(socket)) = descriptors.take_tcp_listener(index) {
                prepare(&socket, descriptor)?;
                // Clients' sockets inherit it.
                SockRef::from(&socket).set_tcp_nodelay(true).map_err(unusable)?;
                inherited.tcp.push((socket.local_addr().map_err(unusable)?, socket));
            } else if let Ok(Some(socket)) = descriptors.take_unix_listener(index) {
                prepare(&socket, descriptor)?;
                let address = socket.local_addr().map_err(unusable)?;
                let path = address.as_pathname().ok_or(InheritError::NotListening(descriptor))?;
                inherited.unix.push((path.to_owned(), socket));
            } else {
                return Err(InheritError::NotListening(descriptor));
            }
        }
        Ok(inherited)
    }

    /// Those that are bound to none of `wanted`.
    pub fn unwanted(&self, wanted: &[&ListenAddr]) -> Vec<InheritError> {
        let wanted: HashSet<String> = wanted.iter().map(ToString::to_string).collect();
        let tcp = self.tcp.iter().map(|(address, _)| address.to_string());
        let unix = self.unix.iter().map(|(path, _)| format!("unix:{}", path.display()));
        tcp.chain(unix).filter(|address| !wanted.contains(address)).map(InheritError::Unwanted).collect()
    }

    pub(super) fn tcp(&self, wanted: SocketAddr) -> Option<io::Result<TcpListener>> {
        let (_, socket) = self.tcp.iter().find(|(address, _)| *address == wanted)?;
        Some(socket.try_clone())
    }

    pub(super) fn unix(&self, wanted: &std::path::Path) -> Option<io::Result<UnixListener>> {
        let (_, socket) = self.unix.iter().find(|(path, _)| path == wanted)?;
        Some(socket.try_clone())
    }
}

fn prepare(socket: &impl AsFd, descriptor: usize) -> Result<(), InheritError> {
    let socket = SockRef::from(socket);
    if !socket.is_listener().unwrap_or(false) {
        return Err(InheritError::NotListening(descriptor));
    }
    socket.set_nonblocking(true).map_err(|source| InheritError::Unusable { descriptor, source })
}
