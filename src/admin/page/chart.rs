//! Small charts of at most an hour, as SVG. They show the shape; numbers are shown as text.

use std::fmt::Write as _;

use maud::{Markup, html};

/// In units of the drawing, which the page stretches.
const WIDTH: f32 = 240.0;
const HEIGHT: f32 = 40.0;

/// Draws a line over an area, and the optional `second` as another line. `label` is the text for screen readers.
pub(super) fn chart(points: &[f32], second: Option<&[f32]>, label: &str) -> Markup {
    let top = most(points).max(second.map_or(0.0, most));
    html! {
        svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(label) {
            path.area d=(path(points, top, true)) {}
            path.line d=(path(points, top, false)) {}
            @if let Some(second) = second { path.line.second d=(path(second, top, false)) {} }
        }
    }
}

/// Returns the largest value.
fn most(points: &[f32]) -> f32 {
    points.iter().copied().filter(|point| !point.is_nan()).fold(0.0, f32::max)
}

/// Returns the path of the line, with a gap where a point is not known.
fn path(points: &[f32], top: f32, closed: bool) -> String {
    let step = WIDTH / points.len().saturating_sub(1).max(1) as f32;
    let mut path = String::new();
    for run in points.iter().enumerate().collect::<Vec<_>>().split(|(_, point)| point.is_nan()) {
        let (Some((first, _)), Some((last, _))) = (run.first(), run.last()) else { continue };
        let x = |at: usize| at as f32 * step;
        for (at, point) in run {
            let y = HEIGHT - 1.0 - if top > 0.0 { **point / top * (HEIGHT - 3.0) } else { 0.0 };
            let verb = if at == first { 'M' } else { 'L' };
            // Writing to a string cannot fail.
            let _ = write!(path, "{verb}{:.1} {y:.1}", x(*at));
        }
        if first == last {
            // Draw a single point as a short line.
            let _ = write!(path, "h{:.1}", if *first == 0 { step } else { -step });
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
    fn a_chart_is_scaled_to_its_maximum_and_has_gaps_for_unknown_points() {
        let mut points = [f32::NAN; 121];
        assert_eq!(path(&points, most(&points), false), "");
        (points[0], points[1], points[119], points[120]) = (0.0, 5.0, 10.0, 10.0);
        let line = path(&points, most(&points), false);
        assert_eq!(line, "M0.0 39.0L2.0 20.5M238.0 2.0L240.0 2.0");
        assert_eq!(path(&points, 10.0, true).matches('Z').count(), 2);
        let flat = path(&[0.0; 121], 0.0, false);
        assert!(flat.starts_with("M0.0 39.0L2.0 39.0"), "{flat}");
        assert_eq!(path(&[1.0], 1.0, false), "M0.0 2.0h240.0");
        assert_eq!(path(&[1.0, 2.0], 2.0, false), "M0.0 20.5L240.0 2.0", "few points fill the chart");
    }
}
