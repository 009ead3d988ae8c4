//! `pontoon health`: does the pontoon at an admin address serve clients, or is it at least alive? For images without a shell.

use std::time::Duration;

use super::colour::Tint;
use super::reachable::reachable;
use crate::admin::client::{self, Health};
use crate::endpoint::ListenAddr;
use crate::printable::printable;

/// Prints the health once the pontoon is healthy; fails if it is not within `wait`.
pub fn run(address: ListenAddr, health: Health, wait: Duration) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(client::health(&reachable(address), health, wait))?;
    // A pontoon that serves clients may report problems all the same.
    let tint = if ["serving", "ok"].contains(&&*report) { Tint::Good } else { Tint::Doubtful };
    say!("{}", tint.paint(&printable(&report)));
    Ok(())
}
