//! Notifies the service manager of the status, of the end, and that the process is alive.

use std::time::Duration;

use tokio::runtime;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::ending::Shutdown;
use crate::admin::AdminContext;
use crate::notify;

/// How often the status is checked. It is sent when it has changed.
const STATUS: Duration = Duration::from_secs(2);

/// Notifies that the process is going to end, and how long that may take.
pub(super) async fn tell_end(shutdown: Shutdown, at_most: Duration, stop: CancellationToken) {
    tokio::select! {
        () = shutdown.quit_asked() => notify::stopping(at_most),
        () = stop.cancelled() => {}
    }
}

/// Sends the text of `/readyz` and the number of sessions.
pub(super) async fn tell_status(shared: AdminContext, stop: CancellationToken) {
    let mut told = String::new();
    let mut ticks = interval(STATUS);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let now = format!("sessions: {}; {}", shared.inventory.active(), shared.serving_report());
        if now != told {
            notify::status(&now);
            told = now;
        }
    }
}

/// Reports that the process is alive while all its event loops run: `loops`, and the one that this task runs on.
pub(super) async fn watch(limit: Duration, loops: Vec<runtime::Handle>, stop: CancellationToken) {
    let pause = limit / 2;
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        if timeout(pause, turn(&loops)).await.is_ok() {
            notify::alive();
        } else {
            warn!(
                timeout = %humantime::format_duration(pause),
                "event loop stuck, watchdog notification withheld, systemd will restart pontoon"
            );
        }
    }
}

/// Completes when each loop has run a task.
async fn turn(loops: &[runtime::Handle]) {
    for event_loop in loops {
        // A loop that has ended is not stuck.
        let _ = event_loop.spawn(async {}).await;
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::mpsc;

    use super::*;
    use crate::workers::Workers;

    #[tokio::test]
    async fn a_stuck_event_loop_is_noticed() {
        let workers = Workers::start(NonZeroUsize::new(2).unwrap()).unwrap();
        let loops: Vec<_> = workers.event_loops().cloned().collect();
        turn(&loops).await;
        let (release, stuck) = mpsc::channel::<()>();
        let (tell, told) = tokio::sync::oneshot::channel();
        workers.spawn(async move {
            tell.send(()).unwrap();
            let _ = stuck.recv();
        });
        told.await.unwrap();
        let turned = turn(&loops);
        tokio::pin!(turned);
        assert!(timeout(Duration::from_millis(50), &mut turned).await.is_err());
        drop(release);
        turned.await;
        workers.idle().await;
        workers.join();
    }
}
