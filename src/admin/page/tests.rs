use serde_json::json;

use super::document::{CLIENTS, POLICY, View, document, hash};
use crate::admin::history::RouteHistory;
use crate::admin::routes::RouteReport;
use crate::admin::serving::ServingReport;
use crate::moment::Moment;
use crate::telemetry::LoggedEvent;

fn client(name: &str) -> serde_json::Value {
    json!({"route": "cache", "process": name, "uid": 1000, "container": null, "library": {"name": name, "version": name,
        "guessed": false}, "client_name": name, "own_tls": false, "first_seen": "2026-01-01T00:00:00Z",
        "last_seen": "2026-01-01T00:00:00Z", "sessions": 7, "active": 0, "commands": 70,
        "stays": [{"state": "pinned", "sessions": 1, "why": name}]})
}

fn view(routes: Vec<RouteReport>, clients: &[serde_json::Value]) -> View {
    let report = json!({"sessions": [], "sessions_total": 1, "clients": clients, "clients_total": 5000, "clients_forgotten": 0,
        "libraries": []});
    View {
        now: Moment::at(1_800_000_000),
        serving: ServingReport { serving: true, problems: Vec::new() },
        since: Moment::at(1_700_000_000),
        routes: routes.into_iter().map(|route| (route, RouteHistory::default())).collect(),
        more_routes: 0,
        report: serde_json::from_value(report).unwrap(),
        events: Vec::new(),
    }
}

#[test]
fn hostile_names_are_shown_as_plain_text() {
    const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
    let mut route = RouteReport::example();
    route.route = HOSTILE.into();
    route.listeners = vec![HOSTILE.into()];
    route.upstreams[0].endpoint = HOSTILE.into();
    route.safe_to_require_tls.because = vec![HOSTILE.into()];
    route.bridge_needed.evidence = vec![HOSTILE.into()];
    let group = &mut route.servers.as_mut().unwrap().direct[0];
    (group.library, group.name) = (HOSTILE.into(), HOSTILE.into());
    let mut view = view(vec![route, RouteReport::example()], &[client(HOSTILE)]);
    view.serving = ServingReport { serving: false, problems: vec![HOSTILE.into()] };
    view.events = vec![LoggedEvent {
        at: view.now,
        level: tracing::Level::ERROR,
        route: Some(HOSTILE.into()),
        words: HOSTILE.into(),
        times: 2,
    }];
    let page = document(&view).into_string();
    assert!(!page.contains("<script>alert") && !page.contains("<img"), "{page}");
    assert!(page.matches("&lt;script&gt;alert").count() > 10);
    assert_eq!(page.matches("<script>").count(), 1);
    assert!(page.contains("Not serving") && !page.to_lowercase().contains("not ready"));
    assert!(page.contains("id=\"route-0\"") && page.contains("href=\"#route-1\""));
}

#[test]
fn the_policy_allows_only_the_pages_own_style_and_script() {
    let page = document(&view(vec![RouteReport::example()], &[])).into_string();
    let policy = POLICY.to_str().unwrap();
    for (tag, source) in [("style", "style-src"), ("script", "script-src")] {
        let start = page.find(&format!("<{tag}>")).unwrap() + tag.len() + 2;
        let end = page.find(&format!("</{tag}>")).unwrap();
        assert!(policy.contains(&format!("{source} '{}'", hash(&page[start..end]))), "{policy}");
    }
    let body = &page[page.find("<body>").unwrap()..];
    assert!(!body.contains(" style="), "the policy does not allow it");
    assert!(!policy.contains("unsafe"));
}

#[test]
fn a_large_page_is_bounded_and_says_how_much_more_there_is() {
    let mut long = RouteReport::example();
    let node = long.upstreams[0].clone();
    long.upstreams = vec![node; 500];
    long.safe_to_require_tls.because = (0..500).map(|n| format!("reason {n}")).collect();
    let clients: Vec<_> = (0..CLIENTS).map(|n| client(&format!("client-{n}"))).collect();
    let mut view = view(vec![long], &clients);
    view.more_routes = 12;
    let page = document(&view).into_string();
    assert!(page.contains("460 more: see"), "nodes");
    assert!(page.contains("4900 more: see"), "clients");
    assert!(page.contains("12 more routes"), "routes");
    assert!(page.contains("<summary>496 more</summary>"), "reasons");
}
