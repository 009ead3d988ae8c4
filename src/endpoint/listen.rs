//! A listener's address: TCP, or a Unix socket with its options.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use super::error::AddressError;

/// Where a route listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// A TCP address. With port 0, the system chooses the port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix {
        /// Path of the socket file.
        path: PathBuf,
        /// Permission bits of the socket file.
        mode: u32,
        /// The users and groups that may connect, if the permission bits let them.
        peers: Peers,
    },
}

/// The users and groups that may connect to a Unix socket, by the ids that the kernel reports (`SO_PEERCRED`). If none are given, all may.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Peers {
    /// User ids.
    pub uids: Vec<u32>,
    /// Group ids. Only a process' effective group counts, because the kernel reports no other.
    pub gids: Vec<u32>,
}

impl Peers {
    /// Whether all users and groups may connect.
    pub fn is_everybody(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }

    /// Whether this user or this group may connect.
    pub fn allow(&self, uid: u32, gid: u32) -> bool {
        self.is_everybody() || self.uids.contains(&uid) || self.gids.contains(&gid)
    }
}

/// Permission bits of a Unix socket if its address has none: for owner and group.
const DEFAULT_SOCKET_MODE: u32 = 0o660;

/// Permission bits of a private Unix socket if its address has none: for the owner only.
const PRIVATE_SOCKET_MODE: u32 = 0o600;

impl ListenAddr {
    /// Parses an address. A Unix socket is for its owner only, unless the address has a mode.
    pub fn private(text: &str) -> Result<Self, AddressError> {
        parse(text, PRIVATE_SOCKET_MODE)
    }

    /// Whether only this machine can reach the address.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(addr) => addr.ip().to_canonical().is_loopback(),
            Self::Unix { .. } => true,
        }
    }

    /// The IP address of a TCP address.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix { .. } => None,
        }
    }

    /// The port; `None` for a Unix socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Unix { .. } => None,
        }
    }

    /// Whether it names one address: with port 0 the system chooses.
    pub fn is_one(&self) -> bool {
        !matches!(self, Self::Tcp(address) if address.port() == 0)
    }

    /// Whether both are the same address, regardless of mode, users and groups.
    pub fn is_at(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix { path, .. }, Self::Unix { path: other, .. }) => path == other,
            _ => self == other,
        }
    }

    /// Whether one process cannot listen on both addresses.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => {
                let (port, one, other) =
                    (one.port() == other.port() && one.port() != 0, one.ip(), other.ip());
                // An IPv6 listener accepts no IPv4.
                let family = one.is_ipv4() == other.is_ipv4();
                port && family && (one == other || one.is_unspecified() || other.is_unspecified())
            }
            _ => self.is_at(other),
        }
    }

    /// Whether only some users and groups may connect.
    pub fn has_peers(&self) -> bool {
        matches!(self, Self::Unix { peers, .. } if !peers.is_everybody())
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
        parse(text, DEFAULT_SOCKET_MODE)
    }
}

fn parse(text: &str, default_mode: u32) -> Result<ListenAddr, AddressError> {
    address(text.trim(), default_mode).map_err(|error| error.about(text))
}

fn address(text: &str, default_mode: u32) -> Result<ListenAddr, AddressError> {
    if let Some(rest) = text.strip_prefix("unix:") {
        return unix(text, rest, default_mode);
    }
    let address = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    address.parse().map(ListenAddr::Tcp).map_err(|_| AddressError::BadListen(text.to_owned()))
}

fn unix(text: &str, rest: &str, default_mode: u32) -> Result<ListenAddr, AddressError> {
    let (path, options) = match rest.split_once('?') {
        None => (rest, None),
        Some((path, options)) => (path, Some(options)),
    };
    let (mut mode, mut peers) = (None, Peers::default());
    for option in options.into_iter().flat_map(|options| options.split('&')) {
        let taken = match option.split_once('=') {
            Some(("mode", bits)) if mode.is_none() => {
                mode = u32::from_str_radix(bits, 8).ok().filter(|mode| *mode <= 0o777);
                mode.is_some()
            }
            Some(("uid", id)) => id.parse().map(|uid| peers.uids.push(uid)).is_ok(),
            Some(("gid", id)) => id.parse().map(|gid| peers.gids.push(gid)).is_ok(),
            _ => false,
        };
        if !taken {
            return Err(AddressError::BadSocketOption(text.to_owned()));
        }
    }
    // Absolute, because one socket must not look like two, and because /proc lists it as it was bound.
    let absolute = std::path::absolute(path).ok();
    let Some(path) = absolute.filter(|path| path.as_os_str().len() <= LONGEST_SOCKET_PATH) else {
        return Err(AddressError::BadPath(text.to_owned()));
    };
    Ok(ListenAddr::Unix { path, mode: mode.unwrap_or(default_mode), peers })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn listeners_are_addresses_or_unix_sockets_with_their_mode() {
        let unix = "unix:/run/x.sock?mode=0600".parse::<ListenAddr>().unwrap();
        let relative = "unix:x.sock".parse::<ListenAddr>().unwrap();
        assert_eq!(relative, "unix:./x.sock".parse().unwrap());
        assert!(relative.to_string().starts_with("unix:/"), "{relative}");
        assert_eq!(
            unix,
            ListenAddr::Unix { path: "/run/x.sock".into(), mode: 0o600, peers: Peers::default() }
        );
        assert_eq!("localhost:1".parse::<ListenAddr>().unwrap().to_string(), "127.0.0.1:1");
        let too_long = format!("unix:/{}", "x".repeat(107));
        for text in ["6379", ":6379", "cache:1", "unix:", &too_long] {
            assert!(text.parse::<ListenAddr>().is_err(), "{text}");
        }
        assert!(!"0.0.0.0:1".parse::<ListenAddr>().unwrap().is_local());
        assert!("[::ffff:127.0.0.1]:1".parse::<ListenAddr>().unwrap().is_local());
    }

    #[test]
    fn a_private_socket_is_for_its_owner_unless_it_has_a_mode() {
        let mode = |text: &str| match ListenAddr::private(text).unwrap() {
            ListenAddr::Unix { mode, .. } => mode,
            ListenAddr::Tcp(_) => panic!("{text}"),
        };
        assert_eq!(mode("unix:/run/x.sock"), 0o600);
        assert_eq!(mode("unix:/run/x.sock?mode=0660"), 0o660);
        assert_eq!(ListenAddr::private("localhost:1").unwrap().to_string(), "127.0.0.1:1");
    }

    #[test]
    fn a_unix_socket_may_name_the_users_and_groups_that_may_connect() {
        let peers = |text: &str| match text.parse::<ListenAddr>().unwrap() {
            ListenAddr::Unix { path, mode, peers } => {
                assert_eq!((path, mode), (PathBuf::from("/run/x.sock"), DEFAULT_SOCKET_MODE));
                peers
            }
            ListenAddr::Tcp(_) => panic!("{text}"),
        };
        let some = peers("unix:/run/x.sock?uid=1000&gid=33&uid=0&mode=0660");
        assert_eq!(some, Peers { uids: vec![1000, 0], gids: vec![33] });
        assert!(some.allow(1000, 1000) && some.allow(0, 0) && some.allow(1, 33), "one of the two is enough");
        assert!(!some.allow(33, 1000), "a user id does not match a group id");
        assert!(peers("unix:/run/x.sock").allow(7, 7), "without ids, all may connect");
        assert!(!peers("unix:/run/x.sock?gid=33").allow(0, 0), "not even root");
    }

    #[test]
    fn an_invalid_option_does_not_leave_a_socket_open_to_all() {
        for options in [
            "",
            "mode=9",
            "mode=7777",
            "mode=",
            "mode=0600&mode=0660",
            "uid=",
            "uid=app",
            "uid=-1",
            "uid=1,2",
            "gid=4294967296",
            "user=1",
            "uid=1&",
            "uid",
        ] {
            let error = format!("unix:/x?{options}").parse::<ListenAddr>().unwrap_err();
            assert!(matches!(error, AddressError::BadSocketOption(_)), "{options}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_listener_reads_back_as_printed(ip: IpAddr, port: u16) {
            let address = ListenAddr::Tcp(SocketAddr::new(ip, port));
            prop_assert_eq!(address.to_string().parse::<ListenAddr>().unwrap(), address);
        }
    }
}
