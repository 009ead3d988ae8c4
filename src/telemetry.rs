//! Logging: format, level, the subscriber that obeys them, and a throttle for what would repeat.

mod events;
mod json;

use std::collections::HashMap;
use std::io::{IsTerminal, stderr};
use std::str::FromStr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::filter::{FilterExt as _, ParseError, Targets, filter_fn};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, fmt, reload};

pub use self::events::{Event, recent};
use self::json::Json;

/// How the log is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Text for people or JSON for programs.
    pub format: Format,
    /// What is written; `None`: `info` and what is worse.
    pub level: Option<Level>,
}

/// The log's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One line a record, for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A level, or levels by module: `info,pontoon::session=debug`.
#[derive(Debug, Clone, PartialEq)]
pub struct Level(Targets);

impl Eq for Level {}

impl FromStr for Level {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        text.parse().map(Self)
    }
}

/// Logging was set up before.
#[derive(Debug, thiserror::Error)]
#[error("logging is set up already")]
pub struct AlreadySet;

/// Targets of AWS' crates, and of the HTTP that they speak.
const AWS: [&str; 4] = ["aws_", "h2", "hyper_util", "hyper_rustls"];

static LEVEL: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Sends all log records to standard error, as `settings` say.
pub fn init(settings: &Settings) -> Result<(), AlreadySet> {
    let (filter, handle) = reload::Layer::new(targets(settings.level.as_ref()));
    let _ = LEVEL.set(handle);
    // Libraries that carry AWS' credentials and print what they carry: their errors are in our own records.
    let filter = filter.and(filter_fn(|about| !AWS.iter().any(|prefix| about.target().starts_with(prefix))));
    let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let layer = fmt::layer().with_writer(stderr);
    let layer = match settings.format {
        Format::Text => layer.with_target(false).with_ansi(colour).boxed(),
        Format::Json => layer.event_format(Json).boxed(),
    };
    // Whatever log.level leaves out: the page shows it.
    let kept = Targets::new().with_target("pontoon", tracing::Level::INFO);
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .with(events::Keeper.with_filter(kept))
        .try_init()
        .map_err(|_| AlreadySet)
}

/// What is written from now on.
pub fn set_level(level: Option<&Level>) {
    if let Some(handle) = LEVEL.get() {
        let _ = handle.reload(targets(level));
    }
}

fn targets(level: Option<&Level>) -> Targets {
    level.map_or_else(|| Targets::new().with_default(tracing::Level::INFO), |level| level.0.clone())
}

/// A cause is written once in this time, in twice that if it goes on, and so forth.
const WINDOW: Duration = Duration::from_secs(10);

/// What goes on for ever is written this often.
const LONGEST_WINDOW: Duration = Duration::from_secs(600);

/// Causes remembered, at most; beyond, all are one.
const CAUSES: usize = 64;

/// Lets a cause into the log ever less often while it goes on, and counts how often it was kept out.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<HashMap<String, Seen>>);

#[derive(Debug)]
struct Seen {
    written: Instant,
    window: Duration,
    suppressed: u64,
}

impl Throttle {
    /// Whether `cause` is to be written now, and how many records of it were not since the last that was.
    pub fn allow(&self, cause: &str) -> Option<u64> {
        self.allow_at(cause, Instant::now())
    }

    fn allow_at(&self, cause: &str, now: Instant) -> Option<u64> {
        let mut causes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = causes.contains_key(cause) || causes.len() < CAUSES;
        let cause = if known { cause } else { "" };
        match causes.get_mut(cause) {
            Some(seen) if now.duration_since(seen.written) < seen.window => {
                seen.suppressed += 1;
                None
            }
            Some(seen) => {
                let goes_on = now.duration_since(seen.written) < 2 * seen.window;
                seen.window = if goes_on { (2 * seen.window).min(LONGEST_WINDOW) } else { WINDOW };
                seen.written = now;
                Some(std::mem::take(&mut seen.suppressed))
            }
            None => {
                causes.insert(cause.to_owned(), Seen { written: now, window: WINDOW, suppressed: 0 });
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
        assert_eq!(throttle.allow_at("tls", start + WINDOW), Some(1));
        assert_eq!(throttle.allow_at("tls", start + 2 * WINDOW), None, "it goes on: less often");
        assert_eq!(throttle.allow_at("tls", start + 3 * WINDOW), Some(1));
        assert_eq!(throttle.allow_at("tls", start + 90 * WINDOW), Some(0));
        assert_eq!(throttle.allow_at("tls", start + 91 * WINDOW), Some(0), "it had stopped: as at first");
    }

    #[test]
    fn causes_without_number_do_not_fill_memory() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let written = (0..1000).filter(|n| throttle.allow_at(&n.to_string(), start).is_some()).count();
        assert_eq!(written, CAUSES + 1);
    }

    #[test]
    fn a_level_may_differ_by_module_and_nonsense_is_refused() {
        assert!("info,pontoon::session=debug".parse::<Level>().is_ok());
        assert!("pontoon=loud".parse::<Level>().is_err());
    }
}
