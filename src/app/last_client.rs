//! Ends a run after its last client, for jobs in which nothing else ends a sidecar.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::info;

use super::ending::Shutdown;
use crate::clients::Inventory;
use crate::drain::Drain;

/// Requests the end once at least one client has connected and none has been connected for `limit`. Before its first client, a run goes on.
pub(super) async fn watch(limit: Duration, inventory: Arc<Inventory>, shutdown: Shutdown, drain: Drain) {
    // Often enough to be on time. A client that comes and goes between two checks is counted nevertheless.
    let pause = (limit / 10).clamp(Duration::from_millis(10), Duration::from_secs(1));
    let mut seen = 0;
    let mut last = Instant::now();
    loop {
        tokio::select! {
            () = sleep(pause) => {}
            () = drain.leaving() => return,
        }
        let so_far = inventory.so_far();
        if so_far == 0 {
            continue;
        }
        if inventory.active() > 0 || so_far > seen {
            seen = so_far;
            last = Instant::now();
        } else if last.elapsed() >= limit {
            info!(limit = %humantime::format_duration(limit), "no client for runtime.exit_with_clients, shutting down");
            return shutdown.quit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::{InventoryEntry, Peer};

    #[tokio::test(start_paused = true)]
    async fn a_run_ends_after_its_last_client_but_not_before_its_first() {
        let (shutdown, inventory) = (Shutdown::new(), Inventory::new());
        let limit = Duration::from_secs(10);
        let watching = watch(limit, Arc::clone(&inventory), shutdown.clone(), Drain::new());
        tokio::pin!(watching);
        let mut goes_on_for = async |seconds| {
            tokio::select! {
                () = &mut watching => panic!("the run must go on"),
                () = sleep(Duration::from_secs(seconds)) => {}
            }
        };
        let enter =
            || -> InventoryEntry { inventory.enter(&"route".into(), Peer::Unix { pid: None, uid: None }) };
        goes_on_for(1000).await;
        let client = enter();
        goes_on_for(1000).await;
        drop(client);
        goes_on_for(8).await;
        // This client comes and goes between two checks.
        drop(enter());
        goes_on_for(8).await;
        let quit = shutdown.quit_asked();
        watching.await;
        quit.await;
    }
}
