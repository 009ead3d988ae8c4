//! Limits repeated log records: a record that repeats is written once, then at growing intervals.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Time, in seconds, in which a cause is written once. It doubles while the cause goes on.
const THROTTLE_WINDOW: Duration = Duration::from_secs(10);

/// The longest window, in seconds, for a cause that never ends.
const MAX_THROTTLE_WINDOW: Duration = Duration::from_secs(600);

/// The limit on causes that are remembered. All further causes count as one.
const CAUSES: usize = 64;

/// Decides whether a log record is written, and counts those that are left out. A cause that goes on is written at growing intervals.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<HashMap<String, ThrottledCause>>);

/// Number of records left out before this one, as a field of a log record. `None` leaves out the field, too.
pub type Suppressed = Option<u64>;

#[derive(Debug)]
struct ThrottledCause {
    written: Instant,
    window: Duration,
    suppressed: u64,
}

impl Throttle {
    /// Whether to write a record of `cause` now. If so, how many records of it were left out since the last one.
    pub fn allow(&self, cause: &str) -> Option<Suppressed> {
        self.allow_at(cause, Instant::now()).map(|suppressed| (suppressed > 0).then_some(suppressed))
    }

    fn allow_at(&self, cause: &str, now: Instant) -> Option<u64> {
        let mut causes = self.0.lock();
        let known = causes.contains_key(cause) || causes.len() < CAUSES;
        let cause = if known { cause } else { "" };
        match causes.get_mut(cause) {
            Some(seen) if now.duration_since(seen.written) < seen.window => {
                seen.suppressed += 1;
                None
            }
            Some(seen) => {
                let goes_on = now.duration_since(seen.written) < 2 * seen.window;
                seen.window =
                    if goes_on { (2 * seen.window).min(MAX_THROTTLE_WINDOW) } else { THROTTLE_WINDOW };
                seen.written = now;
                Some(std::mem::take(&mut seen.suppressed))
            }
            None => {
                causes.insert(
                    cause.to_owned(),
                    ThrottledCause { written: now, window: THROTTLE_WINDOW, suppressed: 0 },
                );
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_written_once_in_a_window_and_the_rest_is_counted() {
        let throttle = Throttle::default();
        let start = Instant::now();
        assert_eq!(throttle.allow_at("tls", start), Some(0));
        assert_eq!(throttle.allow_at("tls", start), None);
        assert_eq!(throttle.allow_at("tcp", start), Some(0));
        assert_eq!(throttle.allow_at("tls", start + THROTTLE_WINDOW), Some(1));
        assert_eq!(
            throttle.allow_at("tls", start + 2 * THROTTLE_WINDOW),
            None,
            "a cause that goes on is written less often"
        );
        assert_eq!(throttle.allow_at("tls", start + 3 * THROTTLE_WINDOW), Some(1));
        assert_eq!(throttle.allow_at("tls", start + 90 * THROTTLE_WINDOW), Some(0));
        assert_eq!(
            throttle.allow_at("tls", start + 91 * THROTTLE_WINDOW),
            Some(0),
            "a cause that stopped starts anew"
        );
    }

    #[test]
    fn any_number_of_causes_takes_bounded_memory() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let written = (0..1000).filter(|n| throttle.allow_at(&n.to_string(), start).is_some()).count();
        assert_eq!(written, CAUSES + 1);
    }
}
