//! Limits the attempts at one endpoint: few handshakes at once, and a pause after a failure. When the pause ends, one attempt at a time
//! finds out whether the endpoint is back.

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

/// The bound grows no further than this, or than half of a client's patience, so that each waiting client sees an attempt.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Limits the attempts of all sessions of a route at one endpoint.
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
    /// Number of failures so far. A waiting client compares it to notice a failure that happened while it waited.
    generation: u64,
    /// The end of the pause.
    retry_at: Option<Instant>,
    /// An attempt that finds out whether the endpoint is back is under way.
    probing: bool,
    last_error: Option<Arc<ConnectError>>,
    /// When the endpoint began to fail.
    failing_since: Option<Moment>,
    /// When the first of the attempts succeeded that have not failed since.
    reached_since: Option<Moment>,
}

/// The right to dial once. The holder reports the result; if it is dropped without a report, the next one may try.
pub(super) struct Turn<'a> {
    gate: &'a Gate,
    generation: u64,
    probe: bool,
    _slot: OwnedSemaphorePermit,
}

/// Why there is no turn.
pub(super) enum NoTurn {
    /// Another client's attempt failed while this one waited.
    Failed(Arc<ConnectError>),
    /// The deadline passed. Holds the last failure if the endpoint is failing.
    TimedOut(Option<Arc<ConnectError>>),
}

impl Gate {
    /// `patience`: the time within which a client expects a connection.
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

    /// Since when the endpoint has been failing, with its last error. `None` if it works or was never tried.
    pub(super) fn failure(&self) -> Option<(Moment, Arc<ConnectError>)> {
        let state = self.state.lock();
        state.failing_since.zip(state.last_error.clone())
    }

    /// Since when the endpoint can be reached. `None` if it is failing or was never tried.
    pub(super) fn reached_since(&self) -> Option<Moment> {
        self.state.lock().reached_since
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

    /// Returns a turn without waiting. `None` if the endpoint is failing or `limits.handshakes` attempts are under way.
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

/// Gives the probe back if its holder is dropped while it waits for a slot.
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
    /// Reports success. Returns the number of failures before it, for the log.
    pub(super) fn succeeded(self) -> u32 {
        let mut state = self.gate.state.lock();
        state.retry_at = None;
        state.last_error = None;
        state.failing_since = None;
        state.reached_since.get_or_insert_with(Moment::now);
        std::mem::take(&mut state.failures)
        // Dropping the turn lets the waiters through.
    }

    /// Reports a failure.
    pub(super) fn failed(self, error: &Arc<ConnectError>) {
        let mut state = self.gate.state.lock();
        // Of several attempts that were under way together, only the first failure counts.
        if state.generation == self.generation {
            state.generation += 1;
            let bound = FIRST_PAUSE.saturating_mul(1 << state.failures.min(10)).min(self.gate.longest_pause);
            state.failures = state.failures.saturating_add(1);
            state.retry_at = Some(Instant::now() + bound.mul_f64(fastrand::f64()));
            state.last_error = Some(Arc::clone(error));
            state.failing_since.get_or_insert_with(Moment::now);
            state.reached_since = None;
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
    async fn a_client_gets_a_turn_in_time_after_any_number_of_failures() {
        let patience = Duration::from_secs(1);
        let gate = Gate::new(1, patience);
        let (stage, endpoint) = (Stage::Tls, "localhost".parse().unwrap());
        let cause = Cause::TimedOut { after: patience, stage };
        let error = Arc::new(ConnectError { endpoint, stage, source: cause, is_downgrade: false });
        for failures in 0..100 {
            let Ok(turn) = gate.turn(Instant::now() + patience).await else {
                panic!("no turn after {failures} failures");
            };
            turn.failed(&error);
        }
    }
}
