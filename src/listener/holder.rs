//! Finds the process that listens on an address.

use std::{fmt, fs};

use procfs::net::{TcpState, tcp, tcp6, unix};

use crate::clients::owners;
use crate::endpoint::ListenAddr;

/// The process that listens on an address, as far as `/proc` shows it.
#[derive(Debug)]
pub enum Holder {
    /// Another pontoon.
    Pontoon(String),
    /// systemd, which passes its sockets on to the service of a socket unit.
    Systemd(String),
    /// Another program.
    Other(String),
    /// A process that `/proc` hides, usually one of another user.
    Hidden,
}

impl Holder {
    /// Finds the listener on `address`.
    pub(super) fn of(address: &ListenAddr) -> Self {
        let Some(process) = owners(sockets(address).into_iter()).into_values().flatten().next() else {
            return Self::Hidden;
        };
        let command = process.name.as_deref().unwrap_or_default();
        let own = fs::read_to_string("/proc/self/comm").unwrap_or_default();
        let text = format!("{command} (process {})", process.pid.unwrap_or_default());
        if [own.trim_end(), "pontoon"].contains(&command) {
            Self::Pontoon(text)
        } else if command == "systemd" {
            Self::Systemd(text)
        } else {
            Self::Other(text)
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pontoon(process) | Self::Systemd(process) | Self::Other(process) => f.write_str(process),
            Self::Hidden => f.write_str("a process that this user may not see (root may)"),
        }
    }
}

/// The inode of each socket that listens on `address`.
fn sockets(address: &ListenAddr) -> Vec<u64> {
    match address {
        ListenAddr::Tcp(wanted) => {
            let overlaps = |local: std::net::SocketAddr| {
                local.port() == wanted.port()
                    && (local.ip() == wanted.ip()
                        || local.ip().is_unspecified()
                        || wanted.ip().is_unspecified())
            };
            let entries = tcp().into_iter().flatten().chain(tcp6().into_iter().flatten());
            let listening =
                entries.filter(|entry| entry.state == TcpState::Listen && overlaps(entry.local_address));
            listening.map(|entry| entry.inode).collect()
        }
        ListenAddr::Unix { path, .. } => {
            let entries = unix().into_iter().flatten();
            entries.filter(|entry| entry.path.as_deref() == Some(path)).map(|entry| entry.inode).collect()
        }
    }
}
