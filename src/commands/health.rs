//! `pontoon health`: does the pontoon at an admin address serve clients, or is it at least alive? For images without a shell.

use std::time::Duration;

use super::reachable::reachable;
use crate::admin::client::{self, Health};
use crate::endpoint::ListenAddr;
use crate::printable::printable;

/// Returns when it is; fails when it is not, and `wait` is over. Prints what is wrong though clients are served.
pub fn run(address: ListenAddr, health: Health, wait: Duration) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(client::health(&reachable(address), health, wait))?;
    if health == Health::Serving && report != "serving" {
        say!("{}", printable(&report));
    }
    Ok(())
}
