//! Finds out whether a client that is not read is still connected.
//!
//! The event loop reports the end of a stream only to a reader, after all that was sent before it. So this module asks the kernel every 250
//! ms.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// The time between two questions to the kernel.
const INTERVAL: Duration = Duration::from_millis(250);

/// How long an upstream may stay silent after the client's last byte before it counts as hung.
pub(crate) const QUIET: Duration = Duration::from_secs(5);

/// How long a hung upstream has to answer the half-close.
pub(crate) const LAST_WORD: Duration = Duration::from_millis(500);

/// What the kernel knows about a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// The client may send more.
    Sends,
    /// The client has sent its last byte.
    Finished,
    /// The client has reset the connection: no bytes reach it.
    Gone,
}

/// Completes when a client that is not read is gone: it has reset its connection, or it has sent its last byte and no reply is `owed`. A
/// client that is owed replies counts as gone [`QUIET`] after its last byte.
pub(crate) async fn gone(presence: impl Fn() -> Presence, owed: impl Fn() -> bool) {
    let mut finished = None;
    loop {
        sleep(INTERVAL).await;
        match presence() {
            Presence::Sends => {}
            Presence::Finished if owed() => {
                if finished.get_or_insert_with(Instant::now).elapsed() >= QUIET {
                    return;
                }
            }
            Presence::Finished | Presence::Gone => return,
        }
    }
}

/// Asks the kernel at intervals, for a session that polls.
pub(crate) struct PresenceCheck {
    sleep: Pin<Box<Sleep>>,
    last: Presence,
}

impl Default for PresenceCheck {
    fn default() -> Self {
        Self { sleep: Box::pin(sleep(INTERVAL)), last: Presence::Sends }
    }
}

impl PresenceCheck {
    /// The kernel's last answer. Wakes the task when the next question is due.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, ask: impl Fn() -> Presence) -> Presence {
        while self.sleep.as_mut().poll(cx).is_ready() {
            self.last = ask();
            self.sleep.as_mut().reset(Instant::now() + INTERVAL);
        }
        self.last
    }
}
