//! Whether a route and its endpoints can be reached: as text, colour and shape.

use maud::{Markup, html};

use super::{road, words};
use crate::admin::routes::RouteReport;
use crate::moment::Moment;
use crate::upstream::EndpointFacts;

/// Whether an endpoint cannot be reached.
pub(super) fn is_down(endpoint: &EndpointFacts) -> bool {
    endpoint.problem.is_some()
}

/// Whether this is a node that the cluster named, and not a configured endpoint.
pub(super) fn is_node(endpoint: &EndpointFacts) -> bool {
    endpoint.local_port.is_some()
}

/// Returns the number of nodes, and how many of them are down.
fn nodes(route: &RouteReport) -> (usize, usize) {
    let nodes = route.upstreams.iter().filter(|endpoint| is_node(endpoint));
    (nodes.clone().count(), nodes.filter(|node| is_down(node)).count())
}

/// Whether the route and all its nodes can be reached.
pub(super) fn is_healthy(route: &RouteReport) -> bool {
    route.unreached.is_none() && nodes(route).1 == 0
}

/// Shows whether a route can be reached, and whether it is in plaintext.
pub(super) fn of_route(route: &RouteReport, now: Moment) -> Markup {
    let own = route.upstreams.iter().filter(|endpoint| !is_node(endpoint));
    // Of several endpoints, the last that failed made the route unreachable.
    let since = own.map(|endpoint| endpoint.unreached_since).collect::<Option<Vec<_>>>();
    let since = since.and_then(|since| since.into_iter().max());
    let (all, down) = nodes(route);
    let in_plaintext = route.plaintext.sessions_active > 0 || !road::uses_tls(route);
    html! {
        @if let Some(why) = &route.unreached {
            span.health.bad {
                (words::mark(false))
                @if let Some(since) = since { "unreachable since " (words::when(since, now)) } @else { (why) }
            }
        } @else if in_plaintext {
            span.health.warn { (words::shape("▲")) "in plaintext" }
        } @else {
            span.health.good { (words::mark(true)) "reachable" }
        }
        @if route.unreached.is_none() && down > 0 {
            " " span.health.bad { (words::mark(false)) (down) " of " (words::count(all as u64, "node")) " down" }
        }
    }
}

/// Shows whether an endpoint can be reached.
pub(super) fn of_endpoint(endpoint: &EndpointFacts, now: Moment) -> Markup {
    html! {
        @if let Some(problem) = &endpoint.problem {
            span.health.bad {
                (words::mark(false)) "down"
                @if let Some(since) = endpoint.unreached_since { " since " (words::when(since, now)) }
            }
            div.muted.why { (problem) }
        } @else if let Some(since) = endpoint.reached_since {
            span.health.good { (words::mark(true)) "up since " (words::when(since, now)) }
        } @else {
            span.muted { "not tried yet" }
        }
    }
}
