//! How reasons print a time.

use std::time::Duration;

/// Prints whole days, or hours and smaller units below one day.
pub(super) fn days_or_less(seconds: u64) -> String {
    match seconds {
        0..86_400 => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
        86_400..172_800 => "1 day".into(),
        _ => format!("{} days", seconds / 86_400),
    }
}
