//! What each command does. Only here, and in `main`, errors are `anyhow`'s and the terminal is spoken to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::endpoint::ListenAddr;

/// Writes a line to standard output. A reader that has seen enough (`| head`) is no reason to panic.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

pub mod audit;
pub mod check;
pub mod completions;
pub mod demo;
pub mod health;
pub mod probe;
pub mod run;
pub mod status;
mod table;

/// Whatever a server says, on one line and without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An admin server's address, to connect to: one that it was told to listen on may be none. What listens on `[::]` takes
/// no IPv4.
fn reachable(mut address: ListenAddr) -> ListenAddr {
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
