//! `pontoon health`: is the pontoon at an admin address ready, or at least alive? For images without a shell.

use std::time::Duration;

use super::reachable::reachable;
use crate::admin::client::{self, Health};
use crate::endpoint::ListenAddr;

/// Returns when it is; fails when it is not, and `wait` is over.
pub fn run(address: ListenAddr, health: Health, wait: Duration) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(client::health(&reachable(address), health, wait))?)
}
