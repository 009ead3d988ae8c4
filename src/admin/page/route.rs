//! A route: its verdicts, its step on the way to TLS, its traffic, and the server side.

use maud::{Markup, html};

use super::document::View;
use super::{health, hour, road, words};
use crate::admin::history::RouteHistory;
use crate::admin::routes::{AuthRequirement, RouteReport, ServersReport};
use crate::group::verdict::Verdict;
use crate::moment::Moment;
use crate::upstream::EndpointFacts;

/// Maximum number of endpoints and nodes shown; /routes has more.
const ENDPOINTS: usize = 40;

/// Maximum number of groups of clients shown; /routes has more.
const MAX_GROUPS_SHOWN: usize = 10;

/// Number of reasons shown without a click.
const REASONS: usize = 4;

/// A certificate with less than this many days left is shown as a problem.
const SOON: u64 = 14;

/// Returns the anchor of a route by its number in the list, because a name may contain spaces.
pub(super) fn anchor(number: usize) -> String {
    format!("route-{number}")
}

/// Shows a route. If there are several, a person can collapse each, and idle ones are collapsed at first.
pub(super) fn section(number: usize, route: &RouteReport, past: &RouteHistory, view: &View) -> Markup {
    let anchor = anchor(number);
    let is_only = view.routes.len() + view.more_routes == 1;
    let idle = is_idle(route, view.now);
    let open = !idle || !health::is_healthy(route);
    let upstream = route.upstreams.first().map_or("", |upstream| upstream.endpoint.as_str());
    let heading = html! {
        h2 id={ (anchor) "-name" } { (route.route) }
        p.muted { (route.listeners.join(", ")) " → " (upstream) }
        p.state {
            (health::of_route(route, view.now))
            @if idle && !is_only {
                span.muted {
                    @if let Some(last) = route.last_used { "idle, last used " (words::when(last, view.now)) }
                    @else { "idle, not used yet" }
                }
            }
        }
    };
    html! {
        section.card aria-labelledby={ (anchor) "-name" } {
            @if is_only {
                header { (heading) }
                div id=(anchor) { (body(route, past, view)) }
            } @else {
                // The script compares `open` with `data-open`, to notice a person's choice.
                details.route id={ (anchor) "-details" } open[open] data-open=(open) {
                    summary { (heading) }
                    div id=(anchor) { (body(route, past, view)) }
                }
            }
        }
    }
}

/// Whether a route has no session now and had none in the last hour.
fn is_idle(route: &RouteReport, now: Moment) -> bool {
    route.sessions_active == 0 && route.last_used.is_none_or(|last| now.seconds_since(last) >= 3600)
}

fn body(route: &RouteReport, past: &RouteHistory, view: &View) -> Markup {
    let needed = &route.bridge_needed;
    let wanted = view.quiet_for.as_secs();
    let last = route.plaintext.last.filter(|_| route.plaintext.sessions_active == 0);
    let by_sessions = last.map(|last| view.now.seconds_since(last));
    let by_servers = route.servers.as_ref().and_then(|servers| servers.quiet_seconds);
    let quiet = [
        progress(by_sessions, wanted, "without a session in plaintext"),
        progress(by_servers, wanted, "without a client in plaintext, by the servers' count"),
    ];
    let questions =
        [("Uses only TLS", &route.uses_only_tls), ("Safe to require TLS", &route.safe_to_require_tls)];
    html! {
        div.verdicts {
            @for ((question, answer), quiet) in questions.iter().zip(&quiet) {
                (verdict(question, answer, if answer.answer { "good" } else { "wait" }, Some(answer.answer), quiet))
            }
            @if needed.answer {
                (verdict("Bridge still needed", needed, "plain", None, &html! {}))
            } @else {
                (verdict("Bridge still needed", needed, "good", Some(true), &html! {}))
            }
        }
        (road::stepper(route))
        (hour::charts(past))
        (shares(route))
        (endpoints(route, view.now))
        @if let Some(servers) = &route.servers { (said(servers, view.now)) }
    }
}

/// Shows how much of the quiet time has passed. Shows nothing once all of it has passed.
fn progress(passed: Option<u64>, wanted: u64, what: &str) -> Markup {
    let Some(passed) = passed.filter(|passed| *passed < wanted) else { return html! {} };
    let text = format!("{} of {} {what}", words::span(passed), words::span(wanted));
    html! {
        p.progress {
            progress value=(passed) max=(wanted) aria-label=(text) {}
            span { (text) }
        }
    }
}

/// Shows an answer, what it is based on, and how much of the quiet time has passed. `look` is a CSS class.
fn verdict(question: &str, verdict: &Verdict, look: &str, mark: Option<bool>, quiet: &Markup) -> Markup {
    let (shown, hidden) = verdict.because.split_at(verdict.because.len().min(REASONS));
    html! {
        div.verdict.(look) {
            h3 {
                span.question { (question) ": " }
                span.answer { @if let Some(good) = mark { (words::mark(good)) } (if verdict.answer { "yes" } else { "no" }) }
            }
            (quiet)
            @if !shown.is_empty() { ul.because { @for reason in shown { li { (reason) } } } }
            @if !hidden.is_empty() {
                details {
                    summary { (hidden.len()) " more" }
                    ul.because { @for reason in hidden { li { (reason) } } }
                }
            }
            @if !verdict.evidence.is_empty() {
                ul.evidence { @for evidence in &verdict.evidence { li { (evidence) } } }
            }
        }
    }
}

/// Shows how much goes over TLS.
fn shares(route: &RouteReport) -> Markup {
    let parts = [
        ("Sessions over TLS", route.plaintext.sessions_over_tls_ratio),
        ("Bytes over TLS", route.plaintext.bytes_over_tls_ratio),
    ];
    html! {
        dl.shares {
            @for (name, part) in parts {
                div {
                    dt { (name) }
                    @if let Some(part) = part {
                        dd {
                            svg.bar viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true" {
                                rect.whole width="100" height="4" {}
                                rect.part width=(format!("{:.1}", part.clamp(0.0, 1.0) * 100.0)) height="4" {}
                            }
                            span { (words::percent(part)) }
                        }
                    } @else {
                        dd.muted { "none yet" }
                    }
                }
            }
            div { dt { "In plaintext now" } dd { (words::count(route.plaintext.sessions_active, "session")) } }
            div {
                dt { "Since the start" }
                dd { (words::count(route.sessions_total, "session")) ", " (words::count(route.counts.commands, "command")) }
            }
        }
    }
}

/// Shows the endpoints, or a cluster's nodes with their local ports.
fn endpoints(route: &RouteReport, now: Moment) -> Markup {
    let nodes = route.upstreams.iter().any(health::is_node);
    let hidden = route.upstreams.len().saturating_sub(ENDPOINTS);
    html! {
        div.scroll tabindex="0" role="region" aria-label={ "Endpoints of " (route.route) } {
            table.endpoints {
                caption { @if nodes { "Configured endpoint and nodes" } @else { "Endpoints" } }
                thead {
                    tr {
                        th scope="col" { @if nodes { "Node" } @else { "Endpoint" } }
                        @if nodes {
                            th scope="col" { "Role" }
                            th scope="col" { "Local port" }
                        }
                        @for name in ["Health", "Sessions", "Accepts", "Certificate expires"] { th scope="col" { (name) } }
                    }
                }
                tbody {
                    @for upstream in route.upstreams.iter().take(ENDPOINTS) {
                        tr {
                            th scope="row" { (upstream.endpoint) }
                            @if nodes {
                                td {
                                    @if let Some(role) = &upstream.role { (role) }
                                    @else if health::is_node(upstream) { span.muted { "not known" } }
                                    @else { span.muted { "configured endpoint" } }
                                }
                                td { @if let Some(port) = upstream.local_port { (port) } @else { span.muted { "–" } } }
                            }
                            td.state { (health::of_endpoint(upstream, now)) }
                            td.number { (words::whole(upstream.sessions_active)) }
                            td { (accepts(upstream)) }
                            td { (expiry(upstream, now)) }
                        }
                    }
                }
            }
        }
        @if hidden > 0 { p.muted { (hidden) " more: see " a href="routes" { "routes" } "." } }
    }
}

/// Says what an endpoint accepts. Where plaintext is never used the mode is not observed, but a certificate shows that it accepts TLS.
fn accepts(upstream: &EndpointFacts) -> &'static str {
    match (upstream.seen, upstream.certificate_expires) {
        (Some(seen), _) => seen.describe(),
        (None, Some(_)) => "TLS",
        (None, None) => "not known",
    }
}

fn expiry(upstream: &EndpointFacts, now: Moment) -> Markup {
    let Some(at) = upstream.certificate_expires else { return html! { span.muted { "none seen" } } };
    let days = at.seconds_since(now) / 86_400;
    html! {
        time datetime=(at) title=(at) { (at.to_string().get(..10).unwrap_or_default()) }
        " "
        @if at <= now { strong.bad { (words::mark(false)) "expired" } }
        @else if days < SOON { strong.bad { (words::mark(false)) "in " (words::count(days, "day")) } }
        @else { span.muted { "in " (words::count(days, "day")) } }
    }
}

/// Shows what the servers report about their clients.
fn said(servers: &ServersReport, now: Moment) -> Markup {
    let direct = servers.direct.iter().map(|group| ("direct client", "", group));
    let unknown = servers.unknown.iter().map(|group| ("client", ", direct or bridged", group));
    let groups: Vec<_> = direct.chain(unknown).collect();
    let hidden = groups.len().saturating_sub(MAX_GROUPS_SHOWN);
    let plaintext = match servers.plaintext_clients {
        Some(clients) => words::count(clients, "client") + " in plaintext",
        None if servers.requires_tls => "plaintext is refused".into(),
        None => "number of clients in plaintext not known".into(),
    };
    let credentials = match servers.auth {
        AuthRequirement::Wanted => "; credentials are required",
        AuthRequirement::NotWanted => "; no credentials are required",
        AuthRequirement::Unknown => "",
    };
    html! {
        p {
            strong { "Servers: " }
            (plaintext) (credentials)
            @if let Some(asked) = servers.asked { "; asked at " (words::when(asked, now)) }
            "."
        }
        @if !groups.is_empty() {
            ul.because {
                @for (noun, how, group) in groups.iter().take(MAX_GROUPS_SHOWN) {
                    li {
                        (words::count(group.clients, noun)) (how) ": "
                        (group.library) " " (group.version) " " (group.name) " " (group.user) " " (group.address)
                    }
                }
                @if hidden > 0 { li.muted { (hidden) " more: see " a href="routes" { "routes" } } }
            }
        }
    }
}
