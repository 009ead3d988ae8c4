use serde_json::{Value, json};

use super::answers::{GroupReport, groups};
use super::asking::{BridgeAnswer, BridgeClients};
use super::joining::Fleet;
use super::sources::{BridgeSource, read};
use crate::admin::{RouteReport, ServersReport};
use crate::endpoint::ListenAddr;

/// A route of a bridge that uses only TLS, asks no server and is unused.
fn route(endpoint: &str) -> RouteReport {
    let mut route = RouteReport::example();
    route.upstreams[0].endpoint = endpoint.into();
    route.servers = None;
    route.safe_to_require_tls.because = vec!["the servers are not asked".into()];
    route.bridge_needed.answer = false;
    route
}

fn servers(names: &[&str]) -> ServersReport {
    let list = json!([{"endpoint": "node", "names": names, "plaintext_clients": 0, "problem": null}]);
    serde_json::from_value(
        json!({"asked": "2026-01-01T00:00:00Z", "nodes": 1, "list": list, "plaintext_clients": 0,
        "quiet_since": null, "auth": "not_wanted", "direct": []}),
    )
    .unwrap()
}

/// As [`route`], but the bridge asks the servers, which have these names, and says that it is safe to require TLS.
fn asking(endpoint: &str, names: &[&str]) -> RouteReport {
    let mut route = route(endpoint);
    route.servers = Some(servers(names));
    route.safe_to_require_tls.answer = true;
    route
}

fn keyed(mut route: RouteReport, key: &str) -> RouteReport {
    route.group = Some(key.into());
    route
}

fn judged(routes: Vec<RouteReport>, missing: &[&str]) -> Vec<GroupReport> {
    let mut fleet = Fleet::default();
    for (order, route) in routes.into_iter().enumerate() {
        let answer = BridgeAnswer { routes: vec![route], inventory: BridgeClients::default() };
        fleet.add(order, &format!("bridge-{order}"), answer);
    }
    let missing: Vec<String> = missing.iter().map(|line| (*line).to_owned()).collect();
    groups(&mut fleet, &missing, "today")
}

/// Returns the bridges of each group.
fn joined(routes: Vec<RouteReport>) -> Vec<String> {
    let members = |group: &GroupReport| {
        let routes = serde_json::to_value(&group.routes).unwrap();
        let bridges = routes.as_array().unwrap().iter().map(|route| route["bridge"].as_str().unwrap());
        bridges.map(|bridge| bridge.trim_start_matches("bridge-")).collect::<String>()
    };
    let mut joined: Vec<String> = judged(routes, &[]).iter().map(members).collect();
    joined.sort();
    joined
}

#[test]
fn routes_are_one_group_by_endpoint_address_id_or_key() {
    let one = |a, b| joined(vec![a, b]).len() == 1;
    assert!(one(route("cache.example:6379"), route("Cache.Example.:6379")));
    assert!(!one(route("cache.example:6379"), route("cache.example:6380")));
    assert!(!one(route("a.example:6379"), route("b.example:6379")));
    for name in ["10.0.0.7:6379", "node.example:6379", "run_id abc", "cluster node abc"] {
        assert!(one(asking("a.example:6379", &[name]), asking("b.example:6379", &[name])), "{name}");
    }
    // One bridge's endpoint is the address of a node that another bridge knows.
    assert!(one(route("10.0.0.7:6379"), asking("b.example:6379", &["10.0.0.7:6379"])));
    assert!(one(keyed(route("a.example:1"), "x"), keyed(route("b.example:1"), "x")));
    assert!(!one(keyed(route("a.example:1"), "x"), keyed(route("a.example:1"), "y")));
    // Two routes are in one group because a third route shares a name with each of them.
    let bridge = asking("b.example:1", &["run_id a", "run_id b"]);
    let routes = vec![
        asking("a.example:1", &["run_id a"]),
        asking("c.example:1", &["run_id b"]),
        route("d.example:1"),
    ];
    assert_eq!(joined(routes.into_iter().chain([bridge]).collect()), ["013", "2"]);
}

#[test]
fn names_that_are_local_to_a_machine_join_no_routes() {
    for endpoint in ["localhost:6379", "127.0.0.1:6379", "[::1]:6379", "redis:6379", "0.0.0.0:6379"] {
        let groups = judged(vec![route(endpoint), route(endpoint)], &[]);
        assert_eq!(groups.len(), 2, "{endpoint}");
        assert_eq!(groups[0].group, format!("{endpoint} of bridge-0"));
        // The servers' ids join them all the same.
        let routes =
            vec![asking(endpoint, &[endpoint, "run_id a"]), asking(endpoint, &[endpoint, "run_id a"])];
        assert_eq!(joined(routes).len(), 1, "{endpoint}");
    }
}

#[test]
fn a_route_without_key_belongs_to_each_group_that_shares_its_servers() {
    let routes = vec![
        keyed(asking("a.example:1", &["run_id a"]), "x"),
        keyed(asking("a.example:1", &["run_id a"]), "y"),
        asking("b.example:1", &["run_id a"]),
        route("b.example:1"),
        route("c.example:1"),
    ];
    assert_eq!(joined(routes), ["023", "123", "4"]);
}

#[test]
fn a_group_is_ready_if_one_bridge_says_yes_and_none_says_no() {
    let name = "cache.example:6379";
    let ready = |routes: Vec<RouteReport>, missing: &[&str]| {
        let groups = judged(routes, missing);
        assert_eq!(groups.len(), 1);
        let verdict = groups[0].safe_to_require_tls.clone();
        (verdict.answer, verdict.because.join("\n"))
    };
    assert_eq!(ready(vec![route(name), asking(name, &[])], &[]), (true, String::new()));
    let (answer, because) = ready(vec![route(name), route(name)], &[]);
    assert!(!answer && because.contains("no bridge of the group asks the servers"), "{because}");
    let (answer, because) = ready(vec![route(name), asking(name, &[])], &["10.0.0.9 did not answer"]);
    assert_eq!((answer, &*because), (false, "10.0.0.9 did not answer"));
    let mut other = asking(name, &[]);
    other.safe_to_require_tls.answer = false;
    other.safe_to_require_tls.because = vec!["one".into(), "two".into(), "three".into()];
    let (answer, because) = ready(vec![other, asking(name, &[])], &[]);
    assert_eq!((answer, &*because), (false, "bridge-0 (cache): one; two"));
    let mut plain = route(name);
    plain.uses_only_tls.answer = false;
    plain.uses_only_tls.because = vec!["plaintext".into()];
    let (answer, because) = ready(vec![asking(name, &[]), plain], &[]);
    assert_eq!((answer, &*because), (false, "bridge-1 (cache): plaintext"));
}

#[test]
fn the_other_verdicts_need_every_bridge() {
    let name = "cache.example:6379";
    let groups = judged(vec![route(name), asking(name, &[])], &[]);
    assert!(groups[0].uses_only_tls.answer && !groups[0].bridge_needed.answer);
    let groups = judged(vec![route(name)], &["10.0.0.9 did not answer"]);
    assert!(!groups[0].uses_only_tls.answer && groups[0].bridge_needed.answer);
    let mut used = route(name);
    used.bridge_needed.answer = true;
    let groups = judged(vec![route(name), used], &[]);
    assert!(groups[0].bridge_needed.answer);
    assert_eq!(groups[0].bridge_needed.because, ["bridge-1 (cache): python3"]);
}

#[test]
fn the_reasons_of_many_bridges_take_few_lines() {
    let says = |reason: String| {
        let mut route = route("cache.example:6379");
        route.uses_only_tls.answer = false;
        route.uses_only_tls.because = vec![reason];
        route
    };
    let same = judged((0..500).map(|_| says("the same".into())).collect(), &[]);
    let expected = "bridge-0 (cache), bridge-1 (cache), bridge-2 (cache) and 497 more: the same";
    assert_eq!(same[0].uses_only_tls.because, [expected]);
    let different = judged((0..500).map(|number| says(format!("reason {number}"))).collect(), &[]);
    let because = &different[0].uses_only_tls.because;
    assert_eq!((because.len(), &*because[20]), (21, "480 more with other reasons: see routes in --json"));
}

#[test]
fn the_work_list_adds_up_the_clients_of_one_program() {
    let client = |process: &str, active: u64| {
        json!({"route": "cache", "process": process, "uid": 1, "container": null,
            "library": {"name": "redis-py", "version": "5.0.1", "guessed": false}, "client_name": null, "own_tls": false,
            "first_seen": "2026-01-01T00:00:00Z", "last_seen": "2026-01-02T00:00:00Z", "sessions": 7, "active": active,
            "commands": 70})
    };
    let mut fleet = Fleet::default();
    for order in 0..5 {
        let clients = json!({"clients": [client("web", 2), client("cron", 0)], "clients_total": 3});
        let mut route = route("cache.example:6379");
        // The first bridge is not needed, so its clients are not in the work list.
        route.bridge_needed.answer = order > 0;
        let answer =
            BridgeAnswer { routes: vec![route], inventory: serde_json::from_value(clients).unwrap() };
        fleet.add(order, &format!("bridge-{order}"), answer);
    }
    let groups = groups(&mut fleet, &[], "today");
    let clients: Value = serde_json::to_value(&groups[0].clients).unwrap();
    assert_eq!(clients.as_array().unwrap().len(), 2);
    assert_eq!(
        clients[0],
        json!({"process": "web", "library": {"name": "redis-py", "version": "5.0.1", "guessed": false},
            "own_tls": false, "sessions_active": 8, "sessions_total": 28, "last_seen": "2026-01-02T00:00:00Z",
            "bridges": 4, "at": ["bridge-1", "bridge-2", "bridge-3"], "to_do": "rediss:// in the URL, or ssl=True"})
    );
    assert_eq!((&clients[1]["process"], groups[0].clients_hidden), (&json!("cron"), 4));
}

#[test]
fn a_source_is_an_address_or_a_name_with_a_port() {
    let address = |text: &str| BridgeSource::Address(ListenAddr::private(text).unwrap());
    let parse = |text: &str| text.parse::<BridgeSource>();
    assert_eq!(parse("10.0.0.1").unwrap(), address("10.0.0.1:9900"));
    assert_eq!(parse("::1").unwrap(), address("[::1]:9900"));
    assert_eq!(parse("[::1]").unwrap(), address("[::1]:9900"));
    assert_eq!(parse("[::1]:1").unwrap(), address("[::1]:1"));
    assert_eq!(parse("unix:/run/a.sock").unwrap(), address("unix:/run/a.sock"));
    assert_eq!(parse("bridges.svc").unwrap(), BridgeSource::Name("bridges.svc:9900".parse().unwrap()));
    for text in ["", "a:b", "a b", ":1", "10.0.0.1:0", "unix:"] {
        assert!(parse(text).is_err(), "{text}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bridges");
    std::fs::write(&path, "# all of them\n\n10.0.0.1 # the first\n bridges.svc:1 \n").unwrap();
    assert_eq!(read(&path).unwrap(), [parse("10.0.0.1").unwrap(), parse("bridges.svc:1").unwrap()]);
    std::fs::write(&path, "10.0.0.1\na b\n").unwrap();
    assert!(read(&path).unwrap_err().contains("bridges: line 2: "));
}
