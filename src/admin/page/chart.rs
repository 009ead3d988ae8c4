//! Small charts of an hour, as SVG: the shape for the eye, the numbers in words.

use std::fmt::Write as _;

use maud::{Markup, html};

use crate::admin::history::POINTS;

/// In the units of the drawing; the page stretches it.
const WIDTH: f32 = 240.0;
const HEIGHT: f32 = 40.0;

/// A line over an area; `second`, if there is one, a line beneath it. `spoken`: what a person hears who does not see it.
pub(super) fn chart(points: &[f32; POINTS], second: Option<&[f32; POINTS]>, spoken: &str) -> Markup {
    let top = most(points).max(second.map_or(0.0, most));
    html! {
        svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(spoken) {
            path.area d=(path(points, top, true)) {}
            path.line d=(path(points, top, false)) {}
            @if let Some(second) = second { path.line.second d=(path(second, top, false)) {} }
        }
    }
}

/// The largest of them.
fn most(points: &[f32; POINTS]) -> f32 {
    points.iter().copied().filter(|point| !point.is_nan()).fold(0.0, f32::max)
}

/// Where a point is not known the line has a gap.
fn path(points: &[f32; POINTS], top: f32, closed: bool) -> String {
    let step = WIDTH / (POINTS - 1) as f32;
    let mut path = String::new();
    for run in points.iter().enumerate().collect::<Vec<_>>().split(|(_, point)| point.is_nan()) {
        let (Some((first, _)), Some((last, _))) = (run.first(), run.last()) else { continue };
        let x = |at: usize| at as f32 * step;
        for (at, point) in run {
            let y = HEIGHT - 1.0 - if top > 0.0 { **point / top * (HEIGHT - 3.0) } else { 0.0 };
            let verb = if at == first { 'M' } else { 'L' };
            // A string takes whatever is written to it.
            let _ = write!(path, "{verb}{:.1} {y:.1}", x(*at));
        }
        if first == last {
            // A point alone is a line, too.
            let _ = write!(path, "h-{step:.1}");
        }
        if closed {
            let _ = write!(path, "V{HEIGHT}H{:.1}Z", x(*first));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_reaches_from_nothing_to_the_most_and_leaves_gaps_where_nothing_is_known() {
        let mut points = [f32::NAN; POINTS];
        assert_eq!(path(&points, most(&points), false), "");
        (points[0], points[1], points[118], points[119]) = (0.0, 5.0, 10.0, 10.0);
        let line = path(&points, most(&points), false);
        assert_eq!(line, "M0.0 39.0L2.0 20.5M238.0 2.0L240.0 2.0");
        assert_eq!(path(&points, 10.0, true).matches('Z').count(), 2);
        let flat = path(&[0.0; POINTS], 0.0, false);
        assert!(flat.starts_with("M0.0 39.0L2.0 39.0"), "{flat}");
    }
}
