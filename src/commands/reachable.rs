//! Where an admin server is found.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::endpoint::ListenAddr;

/// An admin server's address, to connect to: one that it was told to listen on may be none. What listens on `[::]` takes
/// no IPv4.
pub(super) fn reachable(mut address: ListenAddr) -> ListenAddr {
    if let ListenAddr::Tcp(address) = &mut address
        && address.ip().is_unspecified()
    {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
