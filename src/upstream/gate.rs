//! The way to one endpoint, kept narrow: few handshakes at once, and after a failure a pause in which only one
//! dialler at a time finds out whether the endpoint is back.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::error::ConnectError;
use crate::moment::Moment;

/// The first pause is chosen at random up to this, and the bound doubles with each failure
/// ([full jitter](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)).
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The bound stops growing here, or at half of a client's patience: who waits sees an attempt.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Guards one endpoint for all sessions of a route.
pub(super) struct Gate {
    longest_pause: Duration,
    slots: Arc<Semaphore>,
    state: Mutex<GateState>,
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct GateState {
    /// Failures since the last success.
    failures: u32,
    /// Failures ever, to tell a waiter that one happened while it waited.
    generation: u64,
    /// The end of the pause.
    retry_at: Option<Instant>,
    /// Somebody is finding out.
    probing: bool,
    last_error: Option<Arc<ConnectError>>,
    /// When the endpoint began to fail.
    failing_since: Option<Moment>,
}

/// The right to dial once. Report how it went; dropped unreported, the next one may try.
pub(super) struct Turn<'a> {
    gate: &'a Gate,
    generation: u64,
    probe: bool,
    _slot: OwnedSemaphorePermit,
}

/// Why there is no turn.
pub(super) enum NoTurn {
    /// Somebody else's attempt, made while we waited, failed.
    Failed(Arc<ConnectError>),
    /// The deadline passed; the last failure, if the endpoint is failing.
    TimedOut(Option<Arc<ConnectError>>),
}

impl Gate {
    /// `patience`: the time in which a client wants to have been connected.
    pub(super) fn new(handshakes: usize, patience: Duration) -> Self {
        Self {
            longest_pause: LONGEST_PAUSE.min(patience / 2),
            slots: Arc::new(Semaphore::new(handshakes)),
            state: Mutex::default(),
            changes: watch::Sender::default(),
        }
    }

    /// When the pause ends.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.state.lock().retry_at
    }

    /// Since when the endpoint is failing, and the last failure; `None`: it works, or was never tried.
    pub(super) fn failure(&self) -> Option<(Moment, Arc<ConnectError>)> {
        let state = self.state.lock();
        state.failing_since.zip(state.last_error.clone())
    }

    /// Waits for a turn until `deadline`.
    pub(super) async fn turn(&self, deadline: Instant) -> Result<Turn<'_>, NoTurn> {
        let (generation, probe) = self.admission(deadline).await?;
        let mut turn = Pass { gate: self, probe };
        match timeout_at(deadline, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(slot) => {
                let slot = slot.expect("the semaphore is never closed");
                Ok(Turn { gate: self, generation, probe: std::mem::take(&mut turn.probe), _slot: slot })
            }
            Err(_) => Err(NoTurn::TimedOut(None)),
        }
    }

    /// A turn without waiting: `None` where the endpoint is failing, or as many are at it as may be.
    pub(super) fn spare_turn(&self) -> Option<Turn<'_>> {
        let generation = {
            let state = self.state.lock();
            if state.retry_at.is_some() {
                return None;
            }
            state.generation
        };
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok()?;
        Some(Turn { gate: self, generation, probe: false, _slot: slot })
    }

    async fn admission(&self, deadline: Instant) -> Result<(u64, bool), NoTurn> {
        let mut changes = self.changes.subscribe();
        let arrived = self.state.lock().generation;
        loop {
            let wake_at = {
                let mut state = self.state.lock();
                if state.generation != arrived
                    && state.retry_at.is_some()
                    && let Some(error) = &state.last_error
                {
                    return Err(NoTurn::Failed(Arc::clone(error)));
                }
                match state.retry_at {
                    None => return Ok((state.generation, false)),
                    Some(_) if state.probing => deadline,
                    Some(at) if at <= Instant::now() => {
                        state.probing = true;
                        return Ok((state.generation, true));
                    }
                    Some(at) => at.min(deadline),
                }
            };
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep_until(wake_at) => {
                    if Instant::now() >= deadline {
                        return Err(NoTurn::TimedOut(self.state.lock().last_error.clone()));
                    }
                }
            }
        }
    }
}

/// Gives a probe back if its holder goes away while it waits for a slot.
struct Pass<'a> {
    gate: &'a Gate,
    probe: bool,
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.gate.state.lock().probing = false;
            self.gate.changes.send_replace(());
        }
    }
}

impl Turn<'_> {
    /// The endpoint was reached. Returns how many failures came before, for the log.
    pub(super) fn succeeded(self) -> u32 {
        let mut state = self.gate.state.lock();
        state.retry_at = None;
        state.last_error = None;
        state.failing_since = None;
        std::mem::take(&mut state.failures)
        // Dropping the turn lets the waiters through.
    }

    /// The endpoint was not reached.
    pub(super) fn failed(self, error: &Arc<ConnectError>) {
        let mut state = self.gate.state.lock();
        // Of many that were under way together, the first speaks for all.
        if state.generation == self.generation {
            state.generation += 1;
            let bound = FIRST_PAUSE.saturating_mul(1 << state.failures.min(10)).min(self.gate.longest_pause);
            state.failures = state.failures.saturating_add(1);
            state.retry_at = Some(Instant::now() + bound.mul_f64(fastrand::f64()));
            state.last_error = Some(Arc::clone(error));
            state.failing_since.get_or_insert_with(Moment::now);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.gate.state.lock().probing = false;
        }
        self.gate.changes.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::error::{Cause, Stage};

    #[tokio::test(start_paused = true)]
    async fn however_often_it_failed_a_client_has_a_turn_within_its_patience() {
        let patience = Duration::from_secs(1);
        let gate = Gate::new(1, patience);
        let (stage, endpoint) = (Stage::Tls, "localhost".parse().unwrap());
        let cause = Cause::TimedOut { after: patience, stage };
        let error = Arc::new(ConnectError { endpoint, stage, source: cause });
        for failures in 0..100 {
            let Ok(turn) = gate.turn(Instant::now() + patience).await else {
                panic!("no turn after {failures} failures");
            };
            turn.failed(&error);
        }
    }
}
