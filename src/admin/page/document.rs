//! The complete document, and the policy that lets its script run.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{clients, events, health, route, words};
use crate::admin::history::{RouteHistories, RouteHistory};
use crate::admin::inventory::look_up;
use crate::admin::routes::{RouteReport, reports};
use crate::admin::server::RequestConnection;
use crate::admin::serving::ServingReport;
use crate::admin::state::{AdminContext, AdminState};
use crate::clients::InventoryReport;
use crate::moment::Moment;
use crate::printable::printable_lines;
use crate::telemetry::{self, LoggedEvent};

const STYLE: &str = include_str!("style.css");

/// The unchanged library, and the page's own script that uses it.
static SCRIPT: LazyLock<String> =
    LazyLock::new(|| [include_str!("idiomorph-0.7.4.min.js"), include_str!("page.js")].join("\n"));

/// Allows only the page's own style and script, and fetching the page again.
pub(super) static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(&SCRIPT)
    );
    HeaderValue::from_str(&policy).expect("Base64 and the text above are valid in a header")
});

/// Maximum number of clients shown; /clients has more.
pub(super) const CLIENTS: usize = 100;

/// Maximum number of routes shown; /routes has more.
const ROUTES: usize = 50;

/// The data that is shown.
pub(super) struct View {
    pub(super) now: Moment,
    /// Whether clients are served, and current problems.
    pub(super) serving: ServingReport,
    pub(super) since: Moment,
    /// `verdict.quiet_for`.
    pub(super) quiet_for: Duration,
    pub(super) routes: Vec<(RouteReport, RouteHistory)>,
    /// Number of routes that are not shown.
    pub(super) more_routes: usize,
    pub(super) report: InventoryReport,
    pub(super) events: Vec<LoggedEvent>,
}

pub(in crate::admin) async fn page(
    State(state): State<AdminState>,
    Extension(connection): Extension<RequestConnection>,
) -> Response {
    look_up(&state).await;
    let (shared, history) = (Arc::clone(&state.shared), Arc::clone(&state.history));
    let text = move || {
        // HTML's escapes do not cover characters that change the direction of text.
        printable_lines(&document(&View::of(&shared, &history)).into_string()).into_owned()
    };
    let mut response = state.costly.answer(&connection.cut, "text/html; charset=utf-8", text).await;
    response.headers_mut().extend([
        (header::CONTENT_SECURITY_POLICY, POLICY.clone()),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ]);
    response
}

impl View {
    fn of(shared: &AdminContext, history: &RouteHistories) -> Self {
        let mut routes = reports(shared);
        let more_routes = routes.len().saturating_sub(ROUTES);
        routes.truncate(ROUTES);
        let with_past = |route: RouteReport| {
            let past = history.of(&route.route);
            (route, past)
        };
        Self {
            now: Moment::now(),
            serving: shared.serving_report(),
            since: shared.inventory.since(),
            quiet_for: shared.shown.load().verdict.quiet_for,
            routes: routes.into_iter().map(with_past).collect(),
            more_routes,
            report: shared.inventory.report(CLIENTS),
            events: telemetry::recent(),
        }
    }
}

pub(super) fn document(view: &View) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // A page of another version has another policy, by which the running script notices that it is outdated.
                meta name="policy" content=(POLICY.to_str().unwrap_or_default());
                title { (title(view)) }
                link rel="icon" href="data:,";
                noscript { meta http-equiv="refresh" content="10"; }
                style { (PreEscaped(STYLE)) }
                script { (PreEscaped(&*SCRIPT)) }
            }
            body {
                (banner(view))
                main { (content(view)) }
                footer {
                    p {
                        "For programs: " a href="routes" { "routes" } ", " a href="clients" { "clients" } ", "
                        a href="metrics" { "metrics" } ". Watched since " (words::when(view.since, view.now)) "."
                    }
                }
            }
        }
    }
}

/// Shows the answer in the title of the browser's tab.
fn title(view: &View) -> String {
    let safe = view.routes.iter().filter(|(route, _)| route.safe_to_require_tls.answer).count();
    let mark = if view.serving.problems.is_empty() { "" } else { "! " };
    format!("{mark}{safe} of {} ready to require TLS · pontoon", view.routes.len() + view.more_routes)
}

fn banner(view: &View) -> Markup {
    html! {
    header.banner {
        h1 { "pontoon " span.muted { (env!("CARGO_PKG_VERSION")) } }
        @if view.serving.serving {
            p.badge.good { (words::mark(true)) "Serving" }
        } @else {
            p.badge.bad { (words::mark(false)) "Not serving" }
        }
        p.muted.updated { "As of " (words::clock(view.now, view.now, words::ClockUnit::Second)) }
        p #link role="status" {}
    }
    }
}

fn content(view: &View) -> Markup {
    html! {
        @if !view.serving.problems.is_empty() {
            ul.problems aria-label="What is wrong" { @for problem in &view.serving.problems { li { (problem) } } }
        }
        @if view.routes.len() > 1 { (overview(view)) }
        @for (number, (route, past)) in view.routes.iter().enumerate() {
            (route::section(number, route, past, view))
        }
        @if view.more_routes > 0 {
            p { (view.more_routes) " more routes: see " a href="routes" { "routes" } "." }
        }
        (clients::section(&view.report, view.routes.len() > 1, view.now))
        (events::section(&view.events, view.now))
    }
}

/// Lists all routes in short, if there are several.
fn overview(view: &View) -> Markup {
    html! {
        nav.card aria-labelledby="routes" {
            h2 #routes { "Routes" }
            div.scroll tabindex="0" role="region" aria-label="Table of routes" {
                table.overview {
                    thead {
                        tr { @for name in ["Route", "Health", "Sessions now", "Safe to require TLS"] { th scope="col" { (name) } } }
                    }
                    tbody {
                        @for (number, (route, _)) in view.routes.iter().enumerate() {
                            tr {
                                th scope="row" { a href={ "#" (route::anchor(number)) } { (route.route) } }
                                td { (health::of_route(route, view.now)) }
                                td.number { (words::whole(route.sessions_active)) }
                                td {
                                    @if route.safe_to_require_tls.answer { span.good { (words::mark(true)) "yes" } }
                                    @else { span.warn { (words::mark(false)) "not yet" } }
                                }
                            }
                        }
                    }
                }
            }
            @if view.more_routes > 0 { p.muted { (view.more_routes) " more" } }
        }
    }
}

/// Returns the hash of a text as a content security policy names it.
pub(super) fn hash(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    format!("sha256-{}", BASE64_STANDARD.encode(digest))
}
