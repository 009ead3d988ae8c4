//! How attempts share the time until a deadline.

use std::time::Duration;

use tokio::time::Instant;

/// The deadline of the first of `parts` attempts that share the time until `deadline` equally.
pub(super) fn share(deadline: Instant, parts: usize) -> Instant {
    let now = Instant::now();
    now + part_of(deadline.saturating_duration_since(now), parts)
}

/// One of `parts` equal parts of a time.
pub(super) fn part_of(time: Duration, parts: usize) -> Duration {
    time / u32::try_from(parts.max(1)).unwrap_or(u32::MAX)
}
