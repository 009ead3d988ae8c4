//! The end of a secret, and how long before it the secret is replaced.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::moment::Moment;

/// A secret is read again this long before its end, or after two thirds of its life if that is later. Azure's libraries, and others, give a
/// cached token until five minutes before its end, so an earlier read would get the same token again.
const RENEW_AHEAD: Duration = Duration::from_secs(290);

/// Minimum time until the next read. A source that goes on giving the same secret is read ever more often towards the end, within this limit.
const MIN_RENEWAL: Duration = Duration::from_secs(1);

/// When the server stops accepting a secret.
#[derive(Debug, Clone, Copy)]
pub struct Expiry {
    at: SystemTime,
    /// When the source is read again.
    pub(super) renewal: Instant,
    /// The monotonic clock's time of the end.
    end: Instant,
}

impl Expiry {
    /// The end at `at` of a secret that was read now.
    pub(super) fn new(at: SystemTime) -> Self {
        let left = at.duration_since(SystemTime::now()).unwrap_or_default();
        let now = Instant::now();
        let ahead = (left / 3).min(RENEW_AHEAD);
        Self { at, renewal: now + left.saturating_sub(ahead).max(MIN_RENEWAL), end: now + left }
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// Time that is left.
    pub(super) fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// When a live session authenticates again: after the secret's renewal and well before its end, at random, so that sessions do not all
    /// do so together. Azure asks for it [three minutes before the
    /// end](https://learn.microsoft.com/en-us/azure/redis/entra-for-authentication).
    pub fn reauthentication(&self) -> Instant {
        let between = self.end.saturating_duration_since(self.renewal);
        self.renewal + between.mul_f64(0.1 + fastrand::f64() * 0.25)
    }

    /// The date of the end.
    pub fn moment(&self) -> Moment {
        Moment::at(self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs())
    }
}
