//! The subscriber: which records are written, in which format, and where.

use std::fmt::{Debug, Result as FmtResult};
use std::io::{IsTerminal, stderr};
use std::str::FromStr;
use std::sync::OnceLock;

use tracing::field::Field;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, ParseError, Targets, filter_fn};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, fmt, reload};

use super::events;
use super::json::Json;
use crate::printable::printable;

/// How the log is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Text for people or JSON for programs.
    pub format: Format,
    /// The records to write; `None` for `info` and above.
    pub level: Option<LogFilter>,
}

/// The log's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One line for each record, for people.
    #[default]
    Text,
    /// One JSON object for each record.
    Json,
}

/// A level, or levels by module: `info,pontoon::session=debug`.
#[derive(Debug, Clone, PartialEq)]
pub struct LogFilter(Targets);

impl Eq for LogFilter {}

/// Text that is neither a level nor `MODULE=LEVEL`.
#[derive(Debug, thiserror::Error)]
#[error(
    "\"{0}\" is not a level: expected error, warn, info, debug or trace, or MODULE=LEVEL, separated by commas"
)]
pub struct BadLogFilter(String);

impl FromStr for LogFilter {
    type Err = BadLogFilter;

    fn from_str(text: &str) -> Result<Self, BadLogFilter> {
        // `Targets` takes a word that is not a level for a module, which would silence all others.
        let is_mistyped = |part: &str| !part.contains('=') && part.trim().parse::<LevelFilter>().is_err();
        if let Some(part) = text.split(',').find(|part| is_mistyped(part)) {
            return Err(BadLogFilter(part.to_owned()));
        }
        text.parse().map(Self).map_err(|_: ParseError| BadLogFilter(text.to_owned()))
    }
}

/// Logging is set up already.
#[derive(Debug, thiserror::Error)]
#[error("logging is set up already")]
pub struct AlreadySet;

/// The target of records about slow commands, which are written to the log only.
pub const SLOW: &str = "pontoon::session::slow";

/// Targets of AWS' crates and of their HTTP libraries.
const AWS: [&str; 4] = ["aws_", "h2", "hyper_util", "hyper_rustls"];

static LEVEL: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Writes log records to standard error, as `settings` ask for.
pub fn init(settings: &Settings) -> Result<(), AlreadySet> {
    let (filter, handle) = reload::Layer::new(targets(settings.level.as_ref()));
    let _ = LEVEL.set(handle);
    // These libraries handle AWS' credentials and may print them. Their errors are in pontoon's own records.
    let filter = filter.and(filter_fn(|about| !AWS.iter().any(|prefix| about.target().starts_with(prefix))));
    let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let layer = fmt::layer().with_writer(stderr);
    let layer = match settings.format {
        Format::Text => {
            layer.with_target(false).with_ansi(colour).fmt_fields(debug_fn(text_field).delimited(" ")).boxed()
        }
        Format::Json => layer.event_format(Json).boxed(),
    };
    // The page shows these even if log.level leaves them out. Slow commands are left out, because they can be many and would push out
    // failures.
    let kept =
        Targets::new().with_target("pontoon", tracing::Level::INFO).with_target(SLOW, LevelFilter::OFF);
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .with(events::Keeper.with_filter(kept))
        .try_init()
        .map_err(|_| AlreadySet)
}

/// Writes a field as `tracing` does, but escapes hidden characters and line ends in text from others.
fn text_field(out: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> FmtResult {
    let value = format!("{value:?}");
    let value = printable(&value);
    match field.name() {
        "message" => write!(out, "{value}"),
        name if out.has_ansi_escapes() => write!(out, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{value}"),
        name => write!(out, "{name}={value}"),
    }
}

/// Changes which records are written from now on.
pub fn set_level(level: Option<&LogFilter>) {
    if let Some(handle) = LEVEL.get() {
        let _ = handle.reload(targets(level));
    }
}

fn targets(level: Option<&LogFilter>) -> Targets {
    level.map_or_else(|| Targets::new().with_default(tracing::Level::INFO), |level| level.0.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[test]
    fn text_from_others_is_escaped_and_the_rest_is_unchanged() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let writer = {
            let written = Arc::clone(&written);
            move || Written(Arc::clone(&written))
        };
        let layer = fmt::layer().without_time().with_target(false).with_ansi(false).with_writer(writer);
        let layer = layer.fmt_fields(debug_fn(text_field).delimited(" "));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let words = "gnp\u{202e}\u{1b}[2J\n";
            tracing::warn!(route = "r", upstream = %words, n = 3, "it said \"{words}\"");
        });
        let expected =
            r#" WARN it said "gnp\u{202e}\u{1b}[2J\n" route="r" upstream=gnp\u{202e}\u{1b}[2J\n n=3"#;
        assert_eq!(String::from_utf8_lossy(&written.lock()), format!("{expected}\n"));
    }

    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_level_may_differ_by_module_and_an_invalid_one_is_refused() {
        assert!("info,pontoon::session=debug".parse::<LogFilter>().is_ok());
        assert!("pontoon=loud".parse::<LogFilter>().is_err());
    }
}
