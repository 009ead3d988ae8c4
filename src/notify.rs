//! What a service manager is told of this process, as `sd_notify(3)` has it. Where none asked to be told
//! (`NOTIFY_SOCKET`), all of this does nothing.
//!
//! [`ready`] says that listeners are bound, and nothing of the upstream: a start that waited for Redis would be given up
//! by systemd while Redis is away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

use crate::printable::printable;

/// Clients are accepted: after the start, and after each reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload begins; [`ready`] says when it is over, whatever came of it. For units of `Type=notify-reload`.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!("systemd cannot be told of the reload: there is no clock: {error}"),
    }
}

/// The end begins, and may take so long: systemd waits for it though `TimeoutStopSec=` be shorter.
pub fn stopping(at_most: Duration) {
    let micros = u32::try_from(at_most.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
}

/// A line for `systemctl status`.
pub fn status(text: &str) {
    // What follows a line's end would be an assignment of its own.
    let line = printable(text);
    tell(&[NotifyState::Status(&line)]);
}

/// The process makes progress; to be told at least once in the time that [`watchdog`] gives.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// A process that is not told to be [`alive`] for so long is killed (`WatchdogSec=`); `None`: nobody watches.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero())
}

/// Whether anybody listens.
pub fn is_wanted() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

fn tell(state: &[NotifyState<'_>]) {
    static FAILED: AtomicBool = AtomicBool::new(false);
    if let Err(error) = sd_notify::notify(state)
        && !FAILED.swap(true, Ordering::Relaxed)
    {
        warn!("systemd cannot be told of this process' state, over NOTIFY_SOCKET: {error}");
    }
}
