use std::time::Duration;

use serde_json::json;

use super::document::{CLIENTS, POLICY, View, document, hash};
use crate::admin::history::{Reading, RouteHistory};
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
        now: Moment::at(VIEWED_AT),
        serving: ServingReport { serving: true, problems: Vec::new() },
        since: Moment::at(1_700_000_000),
        quiet_for: Duration::from_secs(86_400),
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
    (route.upstreams[0].problem, route.upstreams[0].role) = (Some(HOSTILE.into()), Some(HOSTILE.into()));
    (route.upstreams[0].local_port, route.unreached) = (Some(1), Some(HOSTILE.into()));
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

/// The text of the example route with these fields changed, as one of two routes.
fn shown(change: impl FnOnce(&mut RouteReport)) -> String {
    let mut route = RouteReport::example();
    change(&mut route);
    let page = document(&view(vec![route, RouteReport::example()], &[])).into_string();
    page[..page.find("id=\"route-1-name\"").unwrap()].replace('\u{a0}', " ")
}

const VIEWED_AT: u64 = 1_800_000_000;

#[test]
fn a_node_that_is_down_looks_down_and_says_why() {
    let page = shown(|route| {
        route.upstreams = serde_json::from_value(json!([
            {"endpoint": "all:6379", "reached_since": Moment::at(VIEWED_AT - 60)},
            {"endpoint": "a:6379", "local_port": 7000, "role": "primary", "sessions_active": 3, "reached_since": Moment::at(VIEWED_AT - 60)},
            {"endpoint": "b:6379", "local_port": 7001, "role": "replica", "unreached_since": Moment::at(VIEWED_AT - 44),
                "problem": "connection refused"},
            {"endpoint": "c:6379", "local_port": 7002, "problem": "the cluster reports that it failed"},
        ]))
        .unwrap();
    });
    let row = |name: &str| {
        let start = page.find(&format!("<th scope=\"row\">{name}")).unwrap();
        &page[start..start + page[start..].find("</tr>").unwrap()]
    };
    assert!(row("all:6379").contains("configured endpoint"));
    let up = row("a:6379");
    assert!(up.contains("<td>primary</td><td>7000</td>") && up.contains("✓</span>up since "), "{up}");
    assert!(up.contains("07:59 UTC</time> (60 s ago)") && up.contains("<td class=\"number\">3</td>"), "{up}");
    let down = row("b:6379");
    assert!(down.contains("✕</span>down since ") && down.contains("07:59 UTC</time> (44 s ago)"), "{down}");
    assert!(down.contains("replica") && down.contains("connection refused"), "{down}");
    assert!(row("c:6379").contains("✕</span>down</span>"), "{}", row("c:6379"));
    assert!(page.contains("2 of 3 nodes down"));
}

#[test]
fn a_route_shows_its_health_as_text_and_shape() {
    assert!(shown(|_| {}).contains("✓</span>reachable"));
    let unreachable = shown(|route| {
        route.unreached = Some("upstream not reached since …".into());
        route.upstreams[0].unreached_since = Some(Moment::at(VIEWED_AT - 44));
    });
    assert!(unreachable.contains(
        "✕</span>unreachable since <time datetime=\"2027-01-15T07:59:16Z\">07:59 UTC</time> (44 s ago)"
    ));
    assert!(
        shown(|route| route.unreached = Some("upstream not reached yet".into()))
            .contains("✕</span>upstream not reached yet")
    );
    assert!(shown(|route| route.tls_mode = "disabled".into()).contains("▲</span>in plaintext"));
    assert!(shown(|route| route.plaintext.sessions_active = 1).contains("▲</span>in plaintext"));
}

#[test]
fn a_route_is_collapsed_while_it_is_idle_and_healthy_and_not_the_only_one() {
    let is_open = |page: &str| {
        let open = page.contains("id=\"route-0-details\" open data-open=\"true\"");
        assert!(open || page.contains("id=\"route-0-details\" data-open=\"false\""), "{page}");
        open
    };
    let idle = |route: &mut RouteReport| {
        route.sessions_active = 0;
        route.last_used = Some(Moment::at(VIEWED_AT - 3600));
    };
    assert!(is_open(&shown(|_| {})), "it has a session");
    let page = shown(idle);
    assert!(!is_open(&page) && page.contains("idle, last used "), "{page}");
    assert!(shown(|route| route.sessions_active = 0).contains("idle, not used yet"));
    assert!(is_open(&shown(
        |route| (route.sessions_active, route.last_used) = (0, Some(Moment::at(VIEWED_AT - 3599)))
    )));
    assert!(is_open(&shown(|route| {
        idle(route);
        route.unreached = Some("upstream not reached yet".into());
    })));
    let mut only = RouteReport::example();
    idle(&mut only);
    let page = document(&view(vec![only], &[])).into_string();
    assert!(!page.contains("route-0-details") && page.contains("id=\"route-0\""));
}

#[test]
fn the_progress_towards_the_quiet_time_is_shown_until_it_is_complete() {
    let progress = |seconds: u64| {
        shown(|route| {
            route.plaintext.last = Some(Moment::at(VIEWED_AT - seconds));
            route.servers.as_mut().unwrap().quiet_seconds = Some(seconds);
        })
    };
    let page = progress(18_720);
    assert!(page.contains("<progress value=\"18720\" max=\"86400\""), "{page}");
    for what in ["session in plaintext", "client in plaintext, by the servers' count"] {
        let text = format!("<span>5 h 12 min of 24 h without a {what}</span>");
        assert!(page.replace("&#39;", "'").contains(&text), "{text}: {page}");
    }
    assert!(!progress(86_400).contains("<progress"));
}

#[test]
fn a_chart_says_what_time_it_covers() {
    let mut view = view(vec![RouteReport::example()], &[]);
    for n in 0..=144 {
        view.routes[0].1.add(Reading { active: n, commands: n, bytes: n }, [f32::NAN; 2]);
    }
    let page = document(&view).into_string().replace('\u{a0}', " ");
    assert_eq!(page.matches("<span>last 12 min</span>").count(), 4, "{page}");
    assert!(page.contains("aria-label=\"Sessions over the last 12 min: now 144, at most 144\""));
}
