//! Recent events.

use maud::{Markup, html};
use tracing::Level;

use super::words;
use crate::moment::Moment;
use crate::telemetry::LoggedEvent;

/// Maximum number of events shown; the log has more.
const MAX_EVENTS_SHOWN: usize = 50;

pub(super) fn section(events: &[LoggedEvent], now: Moment) -> Markup {
    html! {
        section.card aria-labelledby="events-name" {
            header { h2 #events-name { "Recent events" } }
            @if events.is_empty() {
                p { "None." }
            } @else {
                ol.events {
                    @for event in events.iter().take(MAX_EVENTS_SHOWN) {
                        li {
                            span.time { (words::clock(event.at, now, words::ClockUnit::Second)) " (" (words::ago(event.at, now)) ")" }
                            @match event.level {
                                Level::ERROR => span.level.bad { "error" },
                                Level::WARN => span.level.warn { "warning" },
                                _ => span.level.muted { "info" },
                            }
                            span.words {
                                @if let Some(route) = &event.route { strong { (route) } ": " }
                                (event.words)
                                @if event.times > 1 { span.muted { " × " (words::whole(event.times)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
