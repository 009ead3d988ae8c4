//! Notifies the service manager of this process' state, by `sd_notify(3)`. Without `NOTIFY_SOCKET` it does nothing.
//!
//! [`ready`] means that listeners are bound, and nothing about the upstream: otherwise systemd would give up a start while Redis is down.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

use crate::printable::printable;

/// Clients are accepted. Sent after the start and after each reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload begins. [`ready`] follows when it ends, whether it succeeded or not. For units of `Type=notify-reload`.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "systemd not notified of the reload, the clock cannot be read"),
    }
}

/// The process is stopping, which may take `at_most`. systemd waits for it even if `TimeoutStopSec=` is shorter.
pub fn stopping(at_most: Duration) {
    let micros = u32::try_from(at_most.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Sets the line that `systemctl status` shows.
pub fn status(text: &str) {
    // After a line end, the text would be parsed as another assignment.
    let line = printable(text);
    tell(&[NotifyState::Status(&line)]);
}

/// The process makes progress. Must be sent at least once in the time that [`watchdog`] returns.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// The time after which systemd kills a process that does not call [`alive`] (`WatchdogSec=`); `None` without a watchdog.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero())
}

/// Whether a service manager asked for notifications.
pub fn is_wanted() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

fn tell(state: &[NotifyState<'_>]) {
    static FAILED: AtomicBool = AtomicBool::new(false);
    if let Err(error) = sd_notify::notify(state)
        && !FAILED.swap(true, Ordering::Relaxed)
    {
        warn!(%error, "systemd not notified of this process' state, NOTIFY_SOCKET cannot be written");
    }
}
