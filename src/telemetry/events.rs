//! Recent events: the log records that people look for first, for the page. Kept in a ring of bounded size; repeated records are one event.

use std::collections::VecDeque;
use std::fmt;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::moment::Moment;

/// The limit on events. The oldest is dropped first.
const MAX_EVENTS: usize = 100;

/// Limit on an event's text, in characters. A longer text is cut.
const MAX_EVENT_TEXT: usize = 600;

/// An event, and how many times it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedEvent {
    /// When it last happened.
    pub at: Moment,
    /// Its level: `INFO`, `WARN` or `ERROR`.
    pub level: Level,
    /// The route, if the event belongs to one.
    pub route: Option<Box<str>>,
    /// The message with the other fields.
    pub words: Box<str>,
    /// How many times it happened, including those that the log left out.
    pub times: u64,
}

/// Log records hold no secret, so events hold none, either.
static RECENT_EVENTS: Mutex<VecDeque<LoggedEvent>> = Mutex::new(VecDeque::new());

/// The events, latest first.
pub fn recent() -> Vec<LoggedEvent> {
    RECENT_EVENTS.lock().iter().cloned().collect()
}

/// Stores records as events.
pub(super) struct Keeper;

impl<S: Subscriber> Layer<S> for Keeper {
    fn on_event(&self, record: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut noted = Noted::default();
        record.record(&mut noted);
        keep(&mut RECENT_EVENTS.lock(), noted.into_event(*record.metadata().level(), Moment::now()));
    }
}

fn keep(events: &mut VecDeque<LoggedEvent>, mut event: LoggedEvent) {
    let is_same = |known: &LoggedEvent| {
        (known.level, &known.route, &known.words) == (event.level, &event.route, &event.words)
    };
    if let Some(known) = events.iter().position(is_same).and_then(|at| events.remove(at)) {
        event.times = event.times.saturating_add(known.times);
    }
    events.push_front(event);
    events.truncate(MAX_EVENTS);
}

/// A record's fields.
#[derive(Default)]
struct Noted {
    message: String,
    route: Option<Box<str>>,
    suppressed: u64,
    others: String,
}

impl Noted {
    fn into_event(self, level: Level, at: Moment) -> LoggedEvent {
        let mut words = self.message;
        if !self.others.is_empty() {
            words = format!("{words} ({})", self.others);
        }
        if let Some((end, _)) = words.char_indices().nth(MAX_EVENT_TEXT) {
            words.truncate(end);
            words.push('…');
        }
        let times = self.suppressed.saturating_add(1);
        LoggedEvent { at, level, route: self.route, words: words.into(), times }
    }
}

impl Visit for Noted {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "suppressed" => self.suppressed = value,
            _ => self.record_debug(field, &value),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "route" => self.route = Some(value.into()),
            _ => self.record_debug(field, &format_args!("{value}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        use fmt::Write as _;
        let to = &mut self.others;
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "route" => {
                self.route = Some(format!("{value:?}").into());
                Ok(())
            }
            name if to.is_empty() => write!(to, "{name}: {value:?}"),
            name => write!(to, ", {name}: {value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::prelude::*;

    use super::*;

    #[test]
    fn repeated_records_are_one_event_and_the_latest_comes_first() {
        let mut events = VecDeque::new();
        let event = |words: &str, at, suppressed| {
            Noted { message: words.into(), suppressed, ..Noted::default() }
                .into_event(Level::WARN, Moment::at(at))
        };
        for (words, at, suppressed) in [("a", 1, 0), ("b", 2, 0), ("a", 3, 7)] {
            keep(&mut events, event(words, at, suppressed));
        }
        let told: Vec<_> = events.iter().map(|event| (&*event.words, event.at.unix(), event.times)).collect();
        assert_eq!(told, [("a", 3, 9), ("b", 2, 1)]);
        for n in 0..1000 {
            keep(&mut events, event(&format!("{n} {}", "ü".repeat(10_000)), n, 0));
        }
        assert_eq!(events.len(), MAX_EVENTS);
        assert!(events[0].words.starts_with("999 ") && events[0].words.chars().count() == MAX_EVENT_TEXT + 1);
    }

    #[test]
    fn a_record_is_kept_with_its_route_and_its_other_fields() {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Keeper), || {
            tracing::warn!(route = "kept", upstream = %"cache:1", suppressed = 2_u64, n = 3, "it failed: {}", "why");
        });
        let event = recent().into_iter().find(|event| event.route.as_deref() == Some("kept")).unwrap();
        assert_eq!(&*event.words, "it failed: why (upstream: cache:1, n: 3)");
        assert_eq!((event.level, event.times), (Level::WARN, 3));
    }
}
