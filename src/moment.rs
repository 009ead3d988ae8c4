//! Points in time, in whole seconds: numbers in memory, dates in JSON. Also the time for which a group was quiet.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(u64);

#[cfg(test)]
thread_local! {
    /// The time that a test has set for its thread.
    static SET: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

#[cfg(test)]
impl Moment {
    /// Sets this thread's clock.
    pub fn set(unix_seconds: u64) {
        SET.set(Some(unix_seconds));
    }
}

/// 9999-12-31T23:59:59Z, the latest date that is printed.
const LAST: u64 = 253_402_300_799;

impl Moment {
    /// The present time.
    pub fn now() -> Self {
        #[cfg(test)]
        if let Some(set) = SET.get() {
            return Self(set);
        }
        // Cheap enough for each request, and exact enough for seconds.
        Self(u64::try_from(clock_gettime(ClockId::RealtimeCoarse).tv_sec).unwrap_or(0))
    }

    /// The time at this number of seconds after the start of 1970.
    pub fn at(unix_seconds: u64) -> Self {
        Self(unix_seconds)
    }

    /// Seconds since the start of 1970.
    pub fn unix(self) -> u64 {
        self.0
    }

    /// Seconds since `earlier`; 0 if `earlier` is later, because clocks are set back.
    pub fn seconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH + Duration::from_secs(self.0.min(LAST));
        humantime::format_rfc3339_seconds(time).fmt(f)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = humantime::parse_rfc3339(&text)
            .map_err(|_| D::Error::custom("expected a date such as 2026-01-31T12:00:00Z"))?;
        let since = time.duration_since(UNIX_EPOCH).map_err(|_| D::Error::custom("a date before 1970"))?;
        Ok(Self(since.as_secs()))
    }
}

/// A time in which no node of a group counted a client in plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiet {
    /// When the first count without such a client was made.
    pub since: Moment,
    /// When the last count without such a client was made.
    pub until: Moment,
    /// Time for which the nodes were watched, in milliseconds of a monotonic clock.
    #[serde(default)]
    pub observed_ms: u64,
    /// The longest time between two counts, in milliseconds.
    #[serde(default)]
    pub longest_gap_ms: u64,
    /// The largest number of connections that may have come and gone between counts.
    #[serde(default)]
    pub unseen: u64,
    /// The value of `observed_ms` when the last of these was noticed.
    #[serde(default)]
    pub unseen_at_ms: u64,
}

impl Quiet {
    /// Starts a quiet time.
    pub fn beginning(now: Moment) -> Self {
        Self { since: now, until: now, observed_ms: 0, longest_gap_ms: 0, unseen: 0, unseen_at_ms: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_date_in_json_and_parses_back() {
        let moment = Moment(1_700_000_000);
        let json = serde_json::to_string(&moment).unwrap();
        assert_eq!(json, "\"2023-11-14T22:13:20Z\"");
        assert_eq!(serde_json::from_str::<Moment>(&json).unwrap(), moment);
        assert!(serde_json::from_str::<Moment>("\"yesterday\"").is_err());
        assert!(serde_json::from_str::<Moment>("5").is_err());
        assert_eq!(Moment(u64::MAX).to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Moment(5).seconds_since(Moment(9)), 0);
    }
}
