//! The traffic of a route in four small charts, each with the current value. They cover the last hour, or the uptime if it is shorter.

use maud::{Markup, html};

use super::{chart, words};
use crate::admin::history::{RouteHistory, Sample};

pub(super) fn charts(past: &RouteHistory) -> Markup {
    let now = |value: fn(&Sample) -> f32| past.last().as_ref().map_or(f32::NAN, value);
    let each_second = |text: String| text + "/s";
    let requests = past.points(|sample| sample.requests);
    let bytes = past.points(|sample| sample.bytes);
    let sessions = past.points(|sample| sample.sessions);
    let (median, slow) = (past.points(|sample| sample.median), past.points(|sample| sample.slow));
    let latency = match [now(|sample| sample.median), now(|sample| sample.slow)] {
        [median, _] if median.is_nan() => "–".into(),
        both => both.map(words::seconds).join(" · "),
    };
    let tiles = [
        Tile {
            name: "Requests",
            now: each_second(words::number(now(|sample| sample.requests))),
            most: each_second(words::number(past.most(|sample| sample.requests))),
            points: &requests,
            beneath: None,
        },
        Tile {
            name: "Throughput",
            now: each_second(words::bytes(now(|sample| sample.bytes))),
            most: each_second(words::bytes(past.most(|sample| sample.bytes))),
            points: &bytes,
            beneath: None,
        },
        Tile {
            name: "Sessions",
            now: words::number(now(|sample| sample.sessions)),
            most: words::number(past.most(|sample| sample.sessions)),
            points: &sessions,
            beneath: None,
        },
        Tile {
            name: "Latency, median and 99 %",
            now: latency,
            most: words::seconds(past.most(|sample| sample.slow)),
            points: &slow,
            beneath: Some(&median),
        },
    ];
    let time = match past.seconds() {
        3600.. => "last hour".into(),
        seconds => format!("last {}", words::span(seconds)),
    };
    html! {
        h3.unseen { "Traffic in the " (time) }
        dl.hour { @for tile in &tiles { (tile.show(&time)) } }
    }
}

struct Tile<'a> {
    name: &'static str,
    now: String,
    most: String,
    points: &'a [f32],
    /// A second line in the chart.
    beneath: Option<&'a [f32]>,
}

impl Tile<'_> {
    /// `time` is what the chart covers.
    fn show(&self, time: &str) -> Markup {
        let Self { name, now, most, points, beneath } = self;
        let label = format!("{name} over the {time}: now {now}, at most {most}");
        html! {
            div.tile {
                dt { (name) }
                dd {
                    span.now { (now) }
                    (chart::chart(points, *beneath, &label))
                    span.axis.muted { span { (time) } " " span { "at most " (most) } }
                }
            }
        }
    }
}
