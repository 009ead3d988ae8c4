//! A listener's address: TCP, or a Unix socket with its options.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::AddressError;

/// Where a route listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// A TCP address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix {
        /// Path of the socket file.
        path: PathBuf,
        /// Permission bits of the socket file.
        mode: u32,
    },
}

/// Permission bits of a Unix socket where its address names none: owner and group.
const DEFAULT_SOCKET_MODE: u32 = 0o660;

impl ListenAddr {
    /// Whether only this machine can reach the address.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(addr) => addr.ip().to_canonical().is_loopback(),
            Self::Unix { .. } => true,
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `sockaddr_un` holds 108 bytes with the terminating zero.
const LONGEST_SOCKET_PATH: usize = 107;

impl FromStr for ListenAddr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(rest) = text.strip_prefix("unix:") {
            return unix(text, rest);
        }
        let address = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        address.parse().map(Self::Tcp).map_err(|_| AddressError::BadListen(text.to_owned()))
    }
}

fn unix(text: &str, rest: &str) -> Result<ListenAddr, AddressError> {
    let (path, mode) = match rest.split_once('?') {
        None => (rest, DEFAULT_SOCKET_MODE),
        Some((path, options)) => {
            let mode = options.strip_prefix("mode=").and_then(|mode| u32::from_str_radix(mode, 8).ok());
            let mode = mode.filter(|mode| *mode <= 0o777);
            (path, mode.ok_or_else(|| AddressError::BadMode(text.to_owned()))?)
        }
    };
    if path.is_empty() || path.len() > LONGEST_SOCKET_PATH {
        return Err(AddressError::BadPath(text.to_owned()));
    }
    Ok(ListenAddr::Unix { path: path.into(), mode })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn listeners_are_addresses_or_unix_sockets_with_their_mode() {
        let unix = "unix:/run/x.sock?mode=0600".parse::<ListenAddr>().unwrap();
        assert_eq!(unix, ListenAddr::Unix { path: "/run/x.sock".into(), mode: 0o600 });
        assert_eq!("localhost:1".parse::<ListenAddr>().unwrap().to_string(), "127.0.0.1:1");
        let too_long = format!("unix:/{}", "x".repeat(107));
        for text in ["6379", ":6379", "cache:1", "unix:", "unix:/x?mode=9", "unix:/x?mode=7777", &too_long] {
            assert!(text.parse::<ListenAddr>().is_err(), "{text}");
        }
        assert!(!"0.0.0.0:1".parse::<ListenAddr>().unwrap().is_local());
        assert!("[::ffff:127.0.0.1]:1".parse::<ListenAddr>().unwrap().is_local());
    }

    proptest! {
        #[test]
        fn a_listener_reads_back_as_printed(ip: IpAddr, port: u16) {
            let address = ListenAddr::Tcp(SocketAddr::new(ip, port));
            prop_assert_eq!(address.to_string().parse::<ListenAddr>().unwrap(), address);
        }
    }
}
