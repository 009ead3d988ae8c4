//! The steps of a route from plaintext to required TLS, and to the removal of the bridge.

use std::cmp::Ordering;

use maud::{Markup, html};

use crate::admin::routes::{AuthRequirement, RouteReport};
use crate::upstream::ObservedTransit;

const STEPS: [&str; 6] = [
    "Bridge in place",
    "TLS on offer",
    "Only TLS in use",
    "Require TLS",
    "Require credentials",
    "Remove the bridge",
];

/// Whether new sessions use TLS.
pub(super) fn uses_tls(route: &RouteReport) -> bool {
    match &*route.tls_mode {
        "disabled" => false,
        "preferred" => route.upstreams.iter().any(|upstream| upstream.seen == Some(ObservedTransit::Tls)),
        _ => true,
    }
}

/// Returns the step that a route is at, and what to do next.
fn step(route: &RouteReport) -> (usize, &'static str) {
    let over_tls = uses_tls(route);
    let is_required = route.servers.as_ref().is_some_and(|servers| servers.requires_tls);
    let credentials = route.servers.as_ref().map_or(AuthRequirement::Unknown, |servers| servers.auth);
    match (&*route.tls_mode, over_tls) {
        _ if !route.bridge_needed.answer => (5, "No client needs this bridge: remove it."),
        ("disabled", _) => (
            0,
            "Traffic leaves in plaintext. Set tls.mode to “preferred”, so that TLS is used once the group offers it.",
        ),
        (_, false) => (
            1,
            "Traffic leaves in plaintext. Set the group's transit encryption to “preferred”: pontoon then uses TLS by itself.",
        ),
        _ if !route.uses_only_tls.answer => {
            (2, "The upstream accepts TLS. The reasons above say what still uses plaintext.")
        }
        _ if !route.safe_to_require_tls.answer => (
            3,
            "This bridge uses only TLS. The reasons above say what is missing before the group can require it.",
        ),
        ("preferred", _) if is_required => {
            (3, "The group already requires TLS. Set tls.mode to “required” on every bridge.")
        }
        ("preferred", _) => (3, "Set tls.mode to “required” on every bridge, then require TLS on the group."),
        _ if credentials == AuthRequirement::Wanted => (
            5,
            "Nothing is left to do: the clients below may stay on the bridge for as long as they need it.",
        ),
        _ if is_required => (4, "The group requires TLS. Now require credentials on its servers."),
        _ => (
            4,
            "Require TLS on the group, unless `pontoon probe` shows that it already does; then require credentials on its servers.",
        ),
    }
}

fn class(number: usize, current: usize) -> &'static str {
    match number.cmp(&current) {
        Ordering::Less => "done",
        Ordering::Equal => "current",
        Ordering::Greater => "ahead",
    }
}

pub(super) fn stepper(route: &RouteReport) -> Markup {
    let (current, next) = step(route);
    html! {
        ol.road aria-label="The road to TLS" {
            @for (number, name) in STEPS.iter().enumerate() {
                li.(class(number, current))
                    aria-current=[(number == current).then_some("step")] {
                    span.dot aria-hidden="true" { @if number < current { "✓" } @else { (number + 1) } }
                    span.step { (name) @if number < current { span.unseen { " (done)" } } }
                }
            }
        }
        p.next { strong { "Next: " } (next) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_route_passes_the_steps_in_order() {
        let of = |mode: &str, seen: &str, tls_only: bool, safe: bool, needed: bool, auth: &str| {
            let mut route = RouteReport::example();
            route.tls_mode = mode.into();
            route.upstreams[0].seen = serde_json::from_value(json!(seen)).unwrap();
            route.uses_only_tls.answer = tls_only;
            route.safe_to_require_tls.answer = safe;
            route.bridge_needed.answer = needed;
            route.servers.as_mut().unwrap().auth = serde_json::from_value(json!(auth)).unwrap();
            step(&route).0
        };
        assert_eq!(of("disabled", "unknown", false, false, true, "unknown"), 0);
        assert_eq!(of("preferred", "disabled", false, false, true, "not_wanted"), 1);
        assert_eq!(of("preferred", "tls", false, false, true, "not_wanted"), 2);
        assert_eq!(of("required", "unknown", false, false, true, "unknown"), 2);
        assert_eq!(of("required", "unknown", true, false, true, "unknown"), 3);
        assert_eq!(of("preferred", "tls", true, true, true, "not_wanted"), 3);
        assert_eq!(of("required", "unknown", true, true, true, "not_wanted"), 4);
        assert_eq!(of("required", "unknown", true, true, true, "wanted"), 5);
        assert_eq!(of("required", "unknown", true, false, false, "unknown"), 5);
    }

    #[test]
    fn clients_that_stay_on_the_bridge_are_not_asked_to_move() {
        let mut route = RouteReport::example();
        for (mode, tls_only, safe) in [
            ("disabled", false, false),
            ("preferred", false, false),
            ("preferred", true, false),
            ("preferred", true, true),
            ("required", true, false),
            ("required", true, true),
        ] {
            for auth in [AuthRequirement::Wanted, AuthRequirement::NotWanted] {
                route.tls_mode = mode.into();
                route.servers.as_mut().unwrap().auth = auth;
                (route.uses_only_tls.answer, route.safe_to_require_tls.answer) = (tls_only, safe);
                let next = step(&route).1;
                assert!(!next.contains("Move clients") && !next.contains("Move the clients"), "{next}");
            }
        }
    }
}
