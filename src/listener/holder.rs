//! Finds the process that listens on an address.

use std::{fmt, fs};

use procfs::net::{TcpState, tcp, tcp6, unix};

use crate::clients::owners;
use crate::endpoint::ListenAddr;

/// The process that listens on an address, as far as `/proc` shows it.
#[derive(Debug)]
pub enum Holder {
    /// A pontoon, or systemd, which passes its sockets on to pontoon.
    Expected(String),
    /// Another program.
    Other(String),
    /// A process that `/proc` hides.
    Hidden {
        /// By its user, it may be a pontoon or systemd.
        may_be_expected: bool,
    },
}

impl Holder {
    /// Finds the listener on `address`.
    pub(super) fn of(address: &ListenAddr) -> Self {
        let sockets = sockets(address);
        let Some(process) = owners(sockets.iter().map(|(inode, _)| *inode)).into_values().flatten().next()
        else {
            let own = rustix::process::geteuid().as_raw();
            let is_possible = |uid: Option<u32>| uid.is_none_or(|uid| uid == own || uid == 0);
            return Self::Hidden { may_be_expected: sockets.iter().all(|(_, uid)| is_possible(*uid)) };
        };
        let command = process.name.as_deref().unwrap_or_default();
        let own = fs::read_to_string("/proc/self/comm").unwrap_or_default();
        let text = format!("{command} (process {})", process.pid.unwrap_or_default());
        if [own.trim_end(), "pontoon", "systemd"].contains(&command) {
            Self::Expected(text)
        } else {
            Self::Other(text)
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expected(process) | Self::Other(process) => f.write_str(process),
            Self::Hidden { .. } => f.write_str("a process that /proc does not show"),
        }
    }
}

/// The inode of each socket that listens on `address`, and its user, if known.
fn sockets(address: &ListenAddr) -> Vec<(u64, Option<u32>)> {
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
            listening.map(|entry| (entry.inode, Some(entry.uid))).collect()
        }
        ListenAddr::Unix { path, .. } => {
            let entries = unix().into_iter().flatten();
            let own = entries.filter(|entry| entry.path.as_deref() == Some(path));
            own.map(|entry| (entry.inode, None)).collect()
        }
    }
}
