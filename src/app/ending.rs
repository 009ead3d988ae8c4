//! How a run ends, by the steps listed in [`app`](super), and the requests that begin it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{AdminCommand, Serving};
use crate::config::Config;
use crate::drain::Drain;
use crate::listener::HANDOVER;

/// What still runs this long after the request to stop is abandoned.
pub(super) const ABANDON: Duration = Duration::from_secs(2);

/// The time for each step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// Time for which pontoon keeps serving after the request to end.
    pub(super) shutdown_delay: Duration,
    /// Time that sessions then have to end.
    pub(super) drain_timeout: Duration,
}

impl Settings {
    /// The times as configured at present. `hand_over`: a successor may share an address.
    pub(super) fn of(config: &Config, hand_over: bool) -> Self {
        let least = if hand_over { HANDOVER } else { Duration::ZERO };
        Self { shutdown_delay: config.shutdown_delay.max(least), drain_timeout: config.drain_timeout }
    }

    /// The longest time that the end of a run may take.
    pub(super) fn at_most(&self) -> Duration {
        self.shutdown_delay + self.drain_timeout + 2 * ABANDON
    }
}

/// Requests the end of a run. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(Arc<watch::Sender<ShutdownRequests>>);

/// The requests so far.
#[derive(Debug, Clone, Copy, Default)]
struct ShutdownRequests {
    /// To go through the steps.
    drain: bool,
    /// To exit after the last step.
    quit: bool,
    /// Number of waits to skip.
    skips: u32,
    /// Number of signals.
    signals: u32,
}

impl Shutdown {
    /// Creates a state without requests.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests the end. Further calls have no effect.
    pub fn quit(&self) {
        self.0.send_modify(|requests| requests.quit = true);
    }

    /// Requests the end of everything except the process. Further calls have no effect.
    pub fn drain(&self) {
        self.0.send_modify(|requests| requests.drain = true);
    }

    /// Completes when the exit is requested.
    pub(super) async fn quit_asked(&self) {
        // The sender exists, because it is `self`.
        let _ = self.0.subscribe().wait_for(|requests| requests.quit).await;
    }

    /// Handles a signal: the first is like [`quit`](Self::quit), and each further one skips the present wait. A signal after a request by
    /// other means counts as the first, because an orchestrator sends it regardless of what a hook requested.
    pub fn signal(&self, name: &str) {
        info!(signal = name, "signal received");
        self.0.send_modify(|requests| {
            requests.quit = true;
            requests.skips += u32::from(requests.signals > 0);
            requests.signals += 1;
        });
    }
}

/// Handles commands of the admin server during the end, until `stop`. Reloads are ignored.
pub(super) async fn obey(
    mut commanded: mpsc::Receiver<AdminCommand>,
    shutdown: Shutdown,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            command = commanded.recv() => match command {
                Some(AdminCommand::Drain) => shutdown.drain(),
                Some(AdminCommand::Quit) => shutdown.quit(),
                // The dropped reply reports this to the client of `POST /reload`.
                Some(AdminCommand::Reload(_)) => info!("shutting down, reload ignored"),
                None => return,
            },
            () = stop.cancelled() => return,
        }
    }
}

/// Runs the steps of the end.
pub(super) struct Ending {
    shutdown: Shutdown,
    requests: watch::Receiver<ShutdownRequests>,
    /// Number of skips that have been applied.
    skipped: u32,
    serving: Arc<Serving>,
    drain: Drain,
}

impl Ending {
    pub(super) fn new(shutdown: &Shutdown, serving: &Arc<Serving>, drain: &Drain) -> Self {
        Self {
            shutdown: shutdown.clone(),
            requests: shutdown.0.subscribe(),
            skipped: 0,
            serving: Arc::clone(serving),
            drain: drain.clone(),
        }
    }

    /// Step 1: waits for the request to end.
    pub(super) async fn asked(&mut self) {
        self.requests(|requests| requests.quit || requests.drain).await;
    }

    /// Steps 2 and 3: waits for the delay, then starts step 4.
    pub(super) async fn begin(&mut self, settings: Settings) {
        self.serving.drain();
        self.drain.leave();
        let Settings { shutdown_delay, drain_timeout } = settings;
        if !shutdown_delay.is_zero() {
            info!(delay = %humantime::format_duration(shutdown_delay), "shutting down, still accepting clients");
            tokio::select! {
                () = sleep(shutdown_delay) => {}
                () = self.skip() => {}
            }
        }
        self.drain.start();
        info!(timeout = %humantime::format_duration(drain_timeout), "draining");
    }

    /// Steps 5 and 6: waits until all `sessions` have ended or the time is over. `left`: the number of sessions.
    pub(super) async fn drain(
        &mut self,
        settings: Settings,
        sessions: impl Future<Output = ()>,
        left: impl Fn() -> usize,
    ) {
        tokio::select! {
            () = sessions => {}
            () = self.skip() => info!(sessions = left(), "sessions cut by a further signal"),
            () = sleep(settings.drain_timeout) => {
                warn!(sessions = left(), "sessions cut after runtime.drain_timeout");
            }
        }
        self.drain.cut();
    }

    /// Step 7: waits for the request to exit, if only draining was requested.
    pub(super) async fn stay(&mut self) {
        if !self.shutdown.0.borrow().quit {
            info!("drained, waiting for SIGTERM or POST /quit");
            self.shutdown.quit_asked().await;
        }
    }

    async fn requests(&mut self, what: impl Fn(&ShutdownRequests) -> bool) {
        // The sender exists, because it is `self.shutdown`.
        let _ = self.requests.wait_for(|requests| what(requests)).await;
    }

    /// Completes when a signal skips the present wait.
    async fn skip(&mut self) {
        let skipped = self.skipped;
        self.requests(|requests| requests.skips > skipped).await;
        self.skipped += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;

    fn ending(shutdown: &Shutdown) -> Ending {
        Ending::new(shutdown, &Arc::default(), &Drain::new())
    }

    /// The seconds that each step takes.
    async fn times(mut ending: Ending) -> [u64; 3] {
        let settings =
            Settings { shutdown_delay: Duration::from_secs(10), drain_timeout: Duration::from_secs(100) };
        let mut began = Instant::now();
        let mut lap = || std::mem::replace(&mut began, Instant::now()).elapsed().as_secs();
        ending.asked().await;
        ending.begin(settings).await;
        let begin = lap();
        ending.drain(settings, pending(), || 1).await;
        let drain = lap();
        ending.stay().await;
        [begin, drain, lap()]
    }

    #[tokio::test(start_paused = true)]
    async fn each_step_has_its_time() {
        let shutdown = Shutdown::new();
        shutdown.quit();
        shutdown.quit();
        assert_eq!(times(ending(&shutdown)).await, [10, 100, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_signal_skips_the_delay_and_the_third_the_drain() {
        let shutdown = Shutdown::new();
        shutdown.signal("SIGTERM");
        shutdown.signal("SIGTERM");
        assert_eq!(times(ending(&shutdown)).await, [0, 100, 0]);
        shutdown.signal("SIGTERM");
        assert_eq!(times(ending(&shutdown)).await, [0, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_signal_after_a_hook_skips_no_wait() {
        let shutdown = Shutdown::new();
        shutdown.drain();
        let later = async {
            sleep(Duration::from_secs(500)).await;
            shutdown.signal("SIGTERM");
        };
        let (times, ()) = tokio::join!(times(ending(&shutdown)), later);
        assert_eq!(times, [10, 100, 390]);
        assert_eq!(self::times(ending(&shutdown)).await, [10, 100, 0]);
    }
}
