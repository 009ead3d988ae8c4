//! How a run ends: the list in [`app`](super), step by step, and who may ask for it.

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

/// What is still running this long after it was told to stop is abandoned.
pub(super) const ABANDON: Duration = Duration::from_secs(2);

/// How long each step may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// How long all goes on once the end was asked for.
    pub(super) shutdown_delay: Duration,
    /// How long sessions may take to end after that.
    pub(super) drain_timeout: Duration,
}

impl Settings {
    /// As configured by now. `hand_over`: a successor may share an address.
    pub(super) fn of(config: &Config, hand_over: bool) -> Self {
        let least = if hand_over { HANDOVER } else { Duration::ZERO };
        Self { shutdown_delay: config.shutdown_delay.max(least), drain_timeout: config.drain_timeout }
    }

    /// How long a run may take to end.
    pub(super) fn at_most(&self) -> Duration {
        self.shutdown_delay + self.drain_timeout + 2 * ABANDON
    }
}

/// Asks a run to end. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(Arc<watch::Sender<ShutdownRequests>>);

/// What was asked for so far.
#[derive(Debug, Clone, Copy, Default)]
struct ShutdownRequests {
    /// To go through the steps.
    drain: bool,
    /// And to exit after the last.
    quit: bool,
    /// Steps that need not take their time.
    skips: u32,
    /// Signals so far.
    signals: u32,
}

impl Shutdown {
    /// Nothing was asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// End. More than once is once.
    pub fn quit(&self) {
        self.0.send_modify(|requests| requests.quit = true);
    }

    /// End all but the process. More than once is once.
    pub fn drain(&self) {
        self.0.send_modify(|requests| requests.drain = true);
    }

    /// Completes when the process is to end.
    pub(super) async fn quit_asked(&self) {
        // The sender is there: it is `self`.
        let _ = self.0.subscribe().wait_for(|requests| requests.quit).await;
    }

    /// A signal to end: the first is like [`quit`](Self::quit), each further one skips the wait that is on. One that
    /// follows an order by other means is a first one: an orchestrator sends it whatever a hook has asked for before.
    pub fn signal(&self, name: &str) {
        info!(signal = name, "signal received");
        self.0.send_modify(|requests| {
            requests.quit = true;
            requests.skips += u32::from(requests.signals > 0);
            requests.signals += 1;
        });
    }
}

/// Obeys what comes over the admin server once the end has begun, until `stop`: less than before.
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
                // Who asks by POST learns it from the reply, which is dropped.
                Some(AdminCommand::Reload(_)) => info!("leaving: the configuration is not reloaded"),
                None => return,
            },
            () = stop.cancelled() => return,
        }
    }
}

/// Takes a run through its end.
pub(super) struct Ending {
    shutdown: Shutdown,
    requests: watch::Receiver<ShutdownRequests>,
    /// Skips that have had their effect.
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

    /// Step 1: waits for the order to end.
    pub(super) async fn asked(&mut self) {
        self.requests(|requests| requests.quit || requests.drain).await;
    }

    /// Steps 2 and 3, and asks for 4: waits for the delay.
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

    /// Steps 5 and 6: waits until all `sessions` have ended, or have had their time. `left` tells how many there are.
    pub(super) async fn drain(
        &mut self,
        settings: Settings,
        sessions: impl Future<Output = ()>,
        left: impl Fn() -> usize,
    ) {
        tokio::select! {
            () = sessions => {}
            () = self.skip() => info!(sessions = left(), "sessions are cut: a further signal asked for it"),
            () = sleep(settings.drain_timeout) => {
                warn!(sessions = left(), "sessions that did not end in time are cut: see runtime.drain_timeout");
            }
        }
        self.drain.cut();
    }

    /// Step 7: waits for the order to quit, if draining is all that was asked for.
    pub(super) async fn stay(&mut self) {
        if !self.shutdown.0.borrow().quit {
            info!("drained: waiting for SIGTERM or POST /quit");
            self.shutdown.quit_asked().await;
        }
    }

    async fn requests(&mut self, what: impl Fn(&ShutdownRequests) -> bool) {
        // The sender is there: it is `self.shutdown`.
        let _ = self.requests.wait_for(|requests| what(requests)).await;
    }

    /// Completes when a signal asks to skip the wait that is on.
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

    /// Seconds that each step takes.
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
    async fn the_signal_that_follows_a_hook_cuts_nothing_short() {
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
