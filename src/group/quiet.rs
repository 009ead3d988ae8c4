//! Counts for how long no node of a group had a client in plaintext. Only time in which the nodes were watched counts, and the monotonic
//! clock measures it. Dates are kept only to show them.

use std::time::Duration;

use tokio::time::Instant;

use crate::moment::{Moment, Quiet};

/// The result of looking at all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// No node counts a client in plaintext.
    NoPlaintext,
    /// A node counts clients in plaintext.
    Plaintext,
    /// A node did not answer, or does not count its clients in plaintext. Others answered.
    Unknown,
    /// No node answered.
    Silence,
}

/// The time without a client in plaintext.
pub(super) struct QuietTime {
    quiet: Option<Quiet>,
    /// When this process last saw that no node counts a client in plaintext.
    last: Option<Instant>,
    /// When this process started to look.
    began: Instant,
    /// Time from the last look of an earlier process to the start of this one.
    pause: Duration,
    /// When a node last answered; `None` if none has answered this process.
    answered: Option<Instant>,
    /// Longest time between two looks that counts.
    watched: Duration,
    /// After a longer time without a look, the quiet time starts again.
    patience: Duration,
}

impl QuietTime {
    /// `before` is what an earlier process counted.
    pub(super) fn new(before: Option<Quiet>, watched: Duration, patience: Duration, now: Moment) -> Self {
        let age = before.map_or(0, |quiet| now.seconds_since(quiet.until));
        // The clock was set back, so the time in between is unknown.
        let before = before.filter(|quiet| quiet.until <= now);
        let quiet = before.filter(|quiet| now.seconds_since(quiet.until) <= patience.as_secs());
        let quiet = quiet.map(|mut quiet| {
            quiet.longest_gap_ms = quiet.longest_gap_ms.max(now.seconds_since(quiet.until) * 1000);
            quiet
        });
        Self {
            quiet,
            last: None,
            began: Instant::now(),
            pause: Duration::from_secs(age),
            answered: None,
            watched,
            patience,
        }
    }

    /// Returns since when there was no client in plaintext, and for how long.
    pub(super) fn quiet(&self) -> Option<Quiet> {
        self.quiet
    }

    /// Notes that connections came and went unseen since the last survey.
    pub(super) fn note_unseen(&mut self, count: u64) {
        if let Some(quiet) = self.quiet.as_mut().filter(|_| count > 0) {
            quiet.unseen = quiet.unseen.saturating_add(count);
            quiet.unseen_at_ms = quiet.observed_ms;
        }
    }

    /// Notes that a node may have had clients unobserved for this time until now. A time longer than the patience starts the quiet time
    /// again.
    pub(super) fn note_unwatched(&mut self, time: Duration, now: Instant) {
        if time > self.patience {
            (self.quiet, self.last) = (None, None);
        } else if let Some(quiet) = &mut self.quiet {
            // Subtract only time that was counted.
            let since = self.last.unwrap_or(self.began);
            let counted = time.saturating_sub(now.duration_since(since));
            quiet.observed_ms =
                quiet.observed_ms.saturating_sub(u64::try_from(counted.as_millis()).unwrap_or(u64::MAX));
        }
    }

    /// Notes the result of a look.
    pub(super) fn note(&mut self, look: Look, now: Instant, date: Moment) {
        let since = |at: Option<Instant>| match at {
            Some(at) => now.duration_since(at),
            None => now.duration_since(self.began).saturating_add(self.pause),
        };
        let (silence, gap) = (since(self.answered), since(self.last));
        if look != Look::Silence {
            self.answered = Some(now);
        }
        if look == Look::Plaintext || silence > self.patience {
            (self.quiet, self.last) = (None, None);
        }
        if look != Look::NoPlaintext {
            return;
        }
        let quiet = self.quiet.get_or_insert_with(|| Quiet::beginning(date));
        if self.last.is_some() || quiet.observed_ms > 0 {
            let gap_ms = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
            if self.last.is_some() && gap <= self.watched {
                quiet.observed_ms = quiet.observed_ms.saturating_add(gap_ms);
            }
            quiet.longest_gap_ms = quiet.longest_gap_ms.max(gap_ms);
        }
        quiet.until = date;
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WATCHED: Duration = Duration::from_secs(4);
    const PATIENCE: Duration = Duration::from_secs(240);

    struct Clock(Instant);

    impl Clock {
        /// Notes a look at a second of this process, while the clock shows a date.
        fn look(&self, time: &mut QuietTime, look: Look, second: u64, date: u64) -> Option<(u64, u64)> {
            time.note(look, self.0 + Duration::from_secs(second), Moment::at(date));
            time.quiet().map(|quiet| (quiet.observed_ms, quiet.longest_gap_ms))
        }
    }

    #[test]
    fn only_time_that_was_watched_counts() {
        let clock = Clock(Instant::now());
        let mut time = QuietTime::new(None, WATCHED, PATIENCE, Moment::at(1000));
        assert_eq!(clock.look(&mut time, Look::NoPlaintext, 0, 1000), Some((0, 0)));
        assert_eq!(clock.look(&mut time, Look::NoPlaintext, 1, 1001), Some((1000, 1000)));
        // The nodes did not answer for a while. That proves neither plaintext nor quiet.
        assert_eq!(clock.look(&mut time, Look::Unknown, 5, 1005), Some((1000, 1000)));
        assert_eq!(clock.look(&mut time, Look::NoPlaintext, 61, 1061), Some((1000, 60_000)));
        assert_eq!(clock.look(&mut time, Look::NoPlaintext, 62, 1062), Some((2000, 60_000)));
        assert_eq!(clock.look(&mut time, Look::Plaintext, 63, 1063), None);
        assert_eq!(clock.look(&mut time, Look::NoPlaintext, 64, 1064), Some((0, 0)));
        // After a longer silence, the past is unknown.
        assert_eq!(clock.look(&mut time, Look::NoPlaintext, 65, 1065), Some((1000, 1000)));
        assert_eq!(clock.look(&mut time, Look::NoPlaintext, 306, 1306), Some((0, 0)));
    }

    #[test]
    fn setting_the_clock_does_not_change_the_quiet_time() {
        let clock = Clock(Instant::now());
        let mut time = QuietTime::new(None, WATCHED, PATIENCE, Moment::at(1000));
        clock.look(&mut time, Look::NoPlaintext, 0, 1000);
        assert_eq!(clock.look(&mut time, Look::NoPlaintext, 1, 90_000), Some((1000, 1000)));
        assert_eq!(clock.look(&mut time, Look::NoPlaintext, 2, 500), Some((2000, 1000)));
    }

    #[test]
    fn a_restart_adds_no_time_and_a_long_one_starts_again() {
        let before = Quiet { observed_ms: 7000, ..Quiet::beginning(Moment::at(1000)) };
        let after = |date| QuietTime::new(Some(before), WATCHED, PATIENCE, Moment::at(date)).quiet();
        assert_eq!(after(1240).map(|quiet| (quiet.observed_ms, quiet.longest_gap_ms)), Some((7000, 240_000)));
        assert_eq!(after(1241), None);
        assert_eq!(after(999), None);
        let clock = Clock(Instant::now());
        let mut time = QuietTime::new(Some(before), WATCHED, PATIENCE, Moment::at(1010));
        assert_eq!(clock.look(&mut time, Look::NoPlaintext, 0, 1010), Some((7000, 10_000)));
        assert_eq!(clock.look(&mut time, Look::NoPlaintext, 1, 1011), Some((8000, 10_000)));
    }
}
