//! Listening sockets that systemd passes on by socket activation ([`sd_listen_fds(3)`]). While pontoon restarts, clients wait in them.
//!
//! An inherited socket is used for the configured address that it is bound to. It stays open as long as the process, because systemd has
//! it, too, and the address could not be bound again.
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

/// Why a descriptor from the service manager cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// The descriptor is not a listening TCP or Unix socket.
    #[error(
        "descriptor {0} from the service manager is not a listening TCP or Unix socket: use ListenStream= in the .socket unit"
    )]
    NotListening(usize),
    /// The descriptor cannot be used.
    #[error("descriptor {descriptor} from the service manager cannot be used: {source}")]
    Unusable {
        /// The descriptor's number.
        descriptor: usize,
        /// The system's error.
        source: io::Error,
    },
    /// The socket's address is not configured.
    #[error(
        "the service manager passed on a socket for {0}, which no route listens on: add it to a route's listen, or remove it \
         from the .socket unit"
    )]
    Unwanted(String),
}

/// The inherited sockets.
#[derive(Debug, Default)]
pub struct Inherited {
    tcp: Vec<(SocketAddr, TcpListener)>,
    unix: Vec<(PathBuf, UnixListener)>,
}

impl Inherited {
    /// Takes the sockets that `LISTEN_FDS` announces. Call it once, before threads are started.
    pub fn take() -> Result<Self, InheritError> {
        let mut descriptors = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..descriptors.len() {
            let descriptor = FIRST_INHERITED_DESCRIPTOR + index;
            let unusable = |source| InheritError::Unusable { descriptor, source };
            if let Ok(Some(socket)) = descriptors.take_tcp_listener(index) {
                prepare(&socket, descriptor)?;
                // Clients' sockets inherit this option.
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

    /// The sockets whose address is not among `wanted`.
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
