//! `pontoon health`: checks whether the pontoon at an admin address is serving, or at least alive. For images without a shell.

use std::time::Duration;

use super::colour::Tint;
use super::reachable::reachable;
use crate::admin::client::{self, Health};
use crate::endpoint::ListenAddr;
use crate::printable::printable;

/// Prints the health once the pontoon is healthy. Fails if it is not healthy within `wait`.
pub fn run(address: ListenAddr, health: Health, wait: Duration) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(client::health(&reachable(address), health, wait))?;
    // A pontoon that is serving can still report problems.
    let tint = if ["serving", "ok"].contains(&&*report) { Tint::Good } else { Tint::Doubtful };
    say!("{}", tint.paint(&printable(&report)));
    Ok(())
}
