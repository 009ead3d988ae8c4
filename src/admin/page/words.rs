//! Formats numbers, sizes and times for people.

use maud::{Markup, html};

use crate::moment::Moment;

/// A mark for yes or no that does not depend on colour.
pub(super) fn mark(yes: bool) -> Markup {
    shape(if yes { "✓" } else { "✕" })
}

/// A mark beside a text that says the same.
pub(super) fn shape(shape: &str) -> Markup {
    html! { span.mark aria-hidden="true" { (shape) } }
}

/// Formats a count: `1 session`, `2 sessions`.
pub(super) fn count(number: u64, what: &str) -> String {
    format!("{} {what}{}", whole(number), if number == 1 { "" } else { "s" })
}

/// Formats a number with thin spaces between thousands.
pub(super) fn whole(number: u64) -> String {
    grouped(&number.to_string())
}

fn grouped(digits: &str) -> String {
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

/// Formats a number with few digits.
pub(super) fn number(number: f32) -> String {
    match number {
        number if number.is_nan() => "–".into(),
        ..10.0 if number.fract() != 0.0 => format!("{number:.1}"),
        number => grouped(&format!("{number:.0}")),
    }
}

/// Formats a number of bytes, in units of 1000.
pub(super) fn bytes(bytes: f32) -> String {
    let (value, unit) = match bytes {
        bytes if bytes.is_nan() => return "–".into(),
        ..1e3 => (bytes, "B"),
        ..1e6 => (bytes / 1e3, "kB"),
        ..1e9 => (bytes / 1e6, "MB"),
        _ => (bytes / 1e9, "GB"),
    };
    let digits = usize::from(value < 10.0 && unit != "B");
    format!("{value:.digits$}\u{a0}{unit}")
}

/// Formats a duration given in seconds.
pub(super) fn seconds(seconds: f32) -> String {
    let (value, unit) = match seconds {
        seconds if seconds.is_nan() => return "–".into(),
        ..1e-3 => (seconds * 1e6, "µs"),
        ..1.0 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    let digits = usize::from(value < 10.0);
    format!("{value:.digits$}\u{a0}{unit}")
}

/// Formats a share. Shows 100 % and 0 % only if they are exact.
pub(super) fn percent(part: f64) -> String {
    let percent = (part * 100.0).clamp(0.0, 100.0);
    let percent = if percent < 100.0 { percent.min(99.9) } else { percent };
    let percent = if percent > 0.0 { percent.max(0.1) } else { percent };
    if percent.fract() == 0.0 { format!("{percent:.0}\u{a0}%") } else { format!("{percent:.1}\u{a0}%") }
}

/// The smallest unit that a time of day shows.
#[derive(Clone, Copy)]
pub(super) enum ClockUnit {
    Minute,
    Second,
}

/// Shows a time of day, with the date if it is not that of `now`.
pub(super) fn clock(at: Moment, now: Moment, unit: ClockUnit) -> Markup {
    let (date, today) = (at.to_string(), now.to_string());
    let end = match unit {
        ClockUnit::Minute => "2026-01-31T12:00".len(),
        ClockUnit::Second => "2026-01-31T12:00:00".len(),
    };
    let start = if date[..10] == today[..10] { "2026-01-31T".len() } else { 0 };
    html! { time datetime=(date) { (date[start..end].replace('T', " ")) " UTC" } }
}

/// Shows a time and how long ago it was: `13:54 UTC (44 s ago)`.
pub(super) fn when(at: Moment, now: Moment) -> Markup {
    html! { (clock(at, now, ClockUnit::Minute)) " (" (ago(at, now)) ")" }
}

/// Formats how long ago a time was.
pub(super) fn ago(at: Moment, now: Moment) -> String {
    let seconds = now.seconds_since(at);
    let (size, unit) = largest_unit(seconds);
    format!("{}\u{a0}{unit} ago", seconds / size)
}

/// Formats a duration in at most two units: `5 h 12 min`.
pub(super) fn span(seconds: u64) -> String {
    let (size, unit) = largest_unit(seconds);
    let smaller = match unit {
        "h" => Some((seconds % size / 60, "min")),
        "days" => Some((seconds % size / 3600, "h")),
        _ => None,
    };
    let rest = smaller.filter(|(rest, _)| *rest > 0).map(|(rest, unit)| format!(" {rest}\u{a0}{unit}"));
    format!("{}\u{a0}{unit}{}", seconds / size, rest.unwrap_or_default())
}

/// The largest unit of which a duration has at least two, in seconds, with its name.
fn largest_unit(seconds: u64) -> (u64, &'static str) {
    match seconds {
        0..120 => (1, "s"),
        120..7200 => (60, "min"),
        7200..172_800 => (3600, "h"),
        _ => (86_400, "days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_few_digits_and_a_unit() {
        assert_eq!([0.0, 0.5, 9.96, 12.4, 1234.0].map(number), ["0", "0.5", "10.0", "12", "1\u{202f}234"]);
        assert_eq!(
            [0.0, 999.0, 1500.0, 2e7, 3e9].map(bytes),
            ["0 B", "999 B", "1.5 kB", "20 MB", "3.0 GB"].map(|text| text.replace(' ', "\u{a0}"))
        );
        assert_eq!(
            [5e-5, 2.5e-3, 0.25, 3.0].map(seconds),
            ["50 µs", "2.5 ms", "250 ms", "3.0 s"].map(|text| text.replace(' ', "\u{a0}"))
        );
        assert_eq!([number(f32::NAN), bytes(f32::NAN), seconds(f32::NAN)], ["–", "–", "–"]);
        assert_eq!([whole(0), whole(999), whole(1_000_000)], ["0", "999", "1\u{202f}000\u{202f}000"]);
        assert_eq!([count(1, "session"), count(2, "session")], ["1 session", "2 sessions"]);
    }

    #[test]
    fn a_share_is_100_or_0_percent_only_if_exact() {
        let shown = [0.0, 0.000_01, 0.5, 0.999_999, 1.0].map(percent);
        assert_eq!(
            shown,
            ["0 %", "0.1 %", "50 %", "99.9 %", "100 %"].map(|text| text.replace(' ', "\u{a0}"))
        );
    }

    #[test]
    fn a_time_has_its_age_and_has_a_date_unless_it_is_today() {
        let now = Moment::at(1_700_000_044);
        let shown = |before: u64| when(Moment::at(now.unix() - before), now).into_string();
        assert_eq!(shown(44), "<time datetime=\"2023-11-14T22:13:20Z\">22:13 UTC</time> (44\u{a0}s ago)");
        assert!(shown(86_400).contains(">2023-11-13 22:14 UTC</time> (24\u{a0}h ago)"), "{}", shown(86_400));
        assert!(clock(now, now, ClockUnit::Second).into_string().contains(">22:14:04 UTC<"));
        assert_eq!(ago(Moment::at(now.unix() + 9), now), "0\u{a0}s ago", "the clock was set back");
    }

    #[test]
    fn a_duration_has_at_most_two_units() {
        let shown = [0, 119, 720, 18_720, 86_400, 172_800, 277_200].map(span);
        let expected = ["0 s", "119 s", "12 min", "5 h 12 min", "24 h", "2 days", "3 days 5 h"];
        assert_eq!(shown.map(|text| text.replace('\u{a0}', " ")), expected);
    }
}
