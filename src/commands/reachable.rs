//! Turns the address that an admin server listens on into one to connect to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::endpoint::ListenAddr;

/// Replaces an unspecified address by loopback of the same family. The family stays, because a listener on `[::]` accepts no IPv4.
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
