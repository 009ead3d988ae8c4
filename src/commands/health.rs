//! `pontoon health`: is the pontoon at an admin address ready? For images without a shell.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::admin::client;

/// Returns when it is; fails when it is not, and `wait` is over.
pub fn run(mut address: SocketAddr, wait: Duration) -> anyhow::Result<()> {
    // The address that a server was told to listen on, which is no address to connect to.
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(client::ready(address, wait))?)
}
