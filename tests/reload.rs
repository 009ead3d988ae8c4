//! Another configuration, without a restart: all of it takes effect or nothing, and no session notices.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{
    Authority, Cluster, Dual, Load, Mood, Node, Pontoon, Redis, StopOnDrop, Wire, command, connected_to,
    eventually, is_pontoons_error,
};

const RELOADED: &str = "configuration reloaded";
const REFUSED: &str = "configuration not reloaded, the present one stays in use";

/// A pontoon with a configuration file.
pub struct Configured {
    pub pontoon: Pontoon,
    directory: TempDir,
    /// The part of the file before the routes.
    head: String,
}

impl Configured {
    pub fn new(routes: &str) -> Self {
        Self::with("[admin]\nlisten = \"127.0.0.1:0\"\n", routes)
    }

    pub fn with(head: &str, routes: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pontoon.toml");
        fs::write(&file, format!("{head}{routes}")).unwrap();
        let pontoon = Pontoon::run(&["--config", file.to_str().unwrap()]);
        Self { pontoon, directory, head: head.to_owned() }
    }

    fn write(&self, text: &str) {
        fs::write(self.directory.path().join("pontoon.toml"), text).unwrap();
    }

    /// Replaces the routes and reloads. Returns what pontoon logs about that.
    pub fn reload(&self, routes: &str) -> String {
        self.write(&format!("{}{routes}", self.head));
        self.hang_up(RELOADED)
    }

    /// Reloads the file, and waits until pontoon logs `text` once more.
    fn hang_up(&self, text: &str) -> String {
        let before = self.pontoon.log_count(text);
        self.pontoon.signal(Signal::HUP);
        eventually(text, || self.pontoon.log_count(text) > before);
        let lines = self.pontoon.printed();
        lines.lines().rfind(|line| line.contains(text)).unwrap().to_owned()
    }

    /// The current listener's address of a route.
    fn address(&self, route: &str) -> SocketAddr {
        let routes: serde_json::Value = serde_json::from_str(&self.pontoon.get("/routes").1).unwrap();
        let routes = routes.as_array().unwrap();
        let route = routes.iter().find(|found| found["route"] == route).unwrap();
        route["listeners"][0].as_str().unwrap().parse().unwrap()
    }

    fn client(&self, route: &str) -> Wire {
        Wire::tcp(self.address(route))
    }
}

fn route(name: &str, redis: &Redis, authority: &Authority, more: &str) -> String {
    let limit = if more.contains("max_clients") { "" } else { "limits.max_clients = 100\n" };
    format!(
        "[[route]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{}\"\ntls.ca_files = \"{}\"\n{limit}{more}\n",
        redis.endpoint(),
        authority.file()
    )
}

fn cluster_route(cluster: &Cluster, more: &str) -> String {
    format!(
        "[[route]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\ntopology = \"cluster\"\nupstream = \"{}\"\n\
         tls.ca_files = \"{}\"\nlimits.max_clients = 100\n{more}\n",
        cluster.endpoint(),
        cluster.authority().file()
    )
}

fn id(client: &mut Wire) -> Vec<u8> {
    client.ask(&["CLIENT", "ID"])
}

#[test]
fn sessions_do_not_notice_that_other_routes_come_and_go() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let (a, b) = (route("a", &redis, &authority, ""), route("b", &redis, &authority, ""));
    let bridge = Configured::new(&a);
    let mut stays = bridge.client("a");
    let before = id(&mut stays);

    assert!(bridge.reload(&format!("{a}{b}")).contains("route \\\"b\\\" added"));
    let address = bridge.address("b");
    let mut idle = bridge.client("b");
    idle.expect(&["PING"], "+PONG\r\n");
    let mut waits = bridge.client("b");
    waits.send(&command(&["BLPOP", "queue", "0"]));
    eventually("the client is blocked", || {
        String::from_utf8_lossy(&redis.direct().ask(&["INFO", "clients"])).contains("blocked_clients:1")
    });

    assert!(bridge.reload(&a).contains("route \\\"b\\\" removed"));
    idle.expect_end();
    eventually("the listener is closed", || TcpStream::connect(address).is_err());
    redis.direct().expect(&["RPUSH", "queue", "job"], ":1\r\n");
    waits.expect_next("*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n");
    waits.expect_end();
    assert_eq!(id(&mut stays), before, "it is the same connection");
    assert_eq!(bridge.pontoon.get("/readyz").0, 200);
    assert_eq!(bridge.pontoon.metric("pontoon_bridge_needed", "route=\"b\""), 0);
}

#[test]
fn sessions_of_a_removed_route_that_do_not_end_are_cut() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let (a, b) = (route("a", &redis, &authority, ""), route("b", &redis, &authority, ""));
    let head = "[admin]\nlisten = \"127.0.0.1:0\"\n[runtime]\ndrain_timeout = \"300ms\"\n";
    let bridge = Configured::with(head, &format!("{a}{b}"));
    let mut waits = bridge.client("b");
    waits.send(&command(&["BLPOP", "queue", "0"]));
    eventually("the request is in flight", || {
        bridge.pontoon.metric("pontoon_requests_total", "route=\"b\"") == 1
    });
    bridge.pontoon.expects("sessions of a removed route cut");
    bridge.reload(&a);
    waits.expect_end();
    bridge.client("a").expect(&["PING"], "+PONG\r\n");
}

#[test]
fn a_changed_route_leads_new_sessions_elsewhere_and_keeps_the_others() {
    let authority = Authority::new();
    let (one, other) = (Redis::start(&authority), Redis::start(&authority));
    one.direct().expect(&["SET", "who", "one"], "+OK\r\n");
    other.direct().expect(&["SET", "who", "other"], "+OK\r\n");
    let bridge = Configured::new(&route("a", &one, &authority, ""));
    let address = bridge.address("a");
    let mut old = bridge.client("a");
    old.expect(&["GET", "who"], "$3\r\none\r\n");

    let told = bridge.reload(&route("a", &other, &authority, "client_name = \"bridge\""));
    assert!(told.contains("route \\\"a\\\" changed"), "{told}");
    assert_eq!(bridge.address("a"), address, "the listener is the same");
    let mut new = bridge.client("a");
    new.expect(&["GET", "who"], "$5\r\nother\r\n");
    new.expect(&["CLIENT", "GETNAME"], "$6\r\nbridge\r\n");
    old.expect(&["GET", "who"], "$3\r\none\r\n");
    drop(old);
    // Connections kept ready for the old server are closed.
    eventually("nothing leads to the old server", || connected_to(&[one.tls_port]).is_empty());
}

#[test]
fn a_route_without_a_name_stays_the_same_route_wherever_it_leads() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("redis.sock");
    let with = |upstream: &str| {
        route("", &redis, &authority, "")
            .replace("name = \"\"\n", "")
            .replace("127.0.0.1:0", &format!("unix:{}", path.display()))
            .replace(&redis.endpoint(), upstream)
    };
    let bridge = Configured::new(&with(&redis.endpoint()));
    let mut subscriber = Wire::unix(&path);
    subscriber.ask(&["SUBSCRIBE", "news"]);
    let told = bridge.reload(&with(&format!("127.0.0.1:{}", redis.tls_port)));
    assert!(told.contains("route \\\"127.0.0.1\\\" changed (before: \\\"localhost\\\")"), "{told}");
    Wire::unix(&path).expect(&["PUBLISH", "news", "x"], ":1\r\n");
    subscriber.expect_next("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\nx\r\n");
    assert_eq!(bridge.pontoon.metric("pontoon_bridge_needed", "route=\"localhost\""), 0);
    // The route keeps its clients, whatever it is called.
    let routes: serde_json::Value = serde_json::from_str(&bridge.pontoon.get("/routes").1).unwrap();
    assert_eq!((&routes[0]["route"], &routes[0]["sessions_active"]), (&"127.0.0.1".into(), &1.into()));
}

#[test]
fn a_bad_configuration_changes_nothing_and_the_error_says_why() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let good = route("a", &redis, &authority, "");
    let bridge = Configured::new(&good);
    bridge.pontoon.expects(REFUSED);
    let mut client = bridge.client("a");
    let taken = bridge.pontoon.admin();
    let successful = || bridge.pontoon.metric("pontoon_config_last_reload_successful", "");
    assert_eq!(successful(), 1);
    for (bad, why) in [
        (format!("{good}what = 1\n"), "what: unknown key"),
        (format!("{good}\n[[route"), "pontoon.toml:"),
        (
            format!(
                "{good}{}",
                route("b", &redis, &authority, "").replace("127.0.0.1:0", &taken.to_string())
            ),
            "address is in use",
        ),
        (good.replace(".pem", ".gone"), "gone"),
        (String::new(), "upstream is missing"),
    ] {
        bridge.write(&format!("{}{bad}", bridge.head));
        let told = bridge.hang_up(REFUSED);
        assert!(told.contains(why), "{why}: {told}");
        assert_eq!(successful(), 0);
        client.expect(&["PING"], "+PONG\r\n");
        bridge.client("a").expect(&["PING"], "+PONG\r\n");
    }
    assert_eq!(bridge.pontoon.metric("pontoon_config_reloads_total", "failed"), 5);
    assert!(bridge.reload(&good).contains("nothing changed"));
    assert_eq!((successful(), bridge.pontoon.metric("pontoon_config_reloads_total", "ok")), (1, 1));
    assert_eq!(bridge.pontoon.get("/readyz").0, 200);
}

#[test]
fn a_reload_through_the_admin_port_gets_its_result() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let (a, b) = (route("a", &redis, &authority, ""), route("b", &redis, &authority, ""));
    let bridge = Configured::new(&a);
    bridge.write(&format!("{}{a}{b}", bridge.head));
    assert_eq!(bridge.pontoon.post("/reload"), (200, "route \"b\" added\n".into()));
    bridge.client("b").expect(&["PING"], "+PONG\r\n");
    bridge.pontoon.expects(REFUSED);
    bridge.write("[[route]]\nupstraem = \"x\"\n");
    let (status, words) = bridge.pontoon.post("/reload");
    assert!(status == 422 && words.contains("did you mean \"upstream\"?"), "{status} {words}");
}

#[test]
fn a_reload_names_what_needs_a_restart_and_applies_the_rest() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let bridge = Configured::new(&route("a", &redis, &authority, ""));
    let admin = bridge.pontoon.admin();
    bridge.write(&format!(
        "[admin]\nlisten = \"127.0.0.1:1\"\n[log]\nlevel = \"debug\"\n[runtime]\nworkers = 1\n\
         state_file = \"/nowhere\"\ndrain_timeout = \"1s\"\nshutdown_delay = \"1s\"\nexit_with_clients = \"1h\"\n\
         [verdict]\nquiet_for = \"1h\"\n{}",
        route("a", &redis, &authority, "handover = true")
    ));
    let told = bridge.hang_up(RELOADED);
    let restart = [
        "admin.listen",
        "runtime.workers",
        "runtime.state_file",
        "runtime.exit_with_clients",
        "route \\\"a\\\": handover",
    ];
    for key in restart {
        assert!(told.contains(&format!("needs a restart: {key}")), "{key}: {told}");
    }
    for key in ["log.level", "runtime.drain_timeout", "runtime.shutdown_delay", "verdict"] {
        assert!(told.contains(&format!("{key} changed")), "{key}: {told}");
    }
    assert!(
        bridge.hang_up(RELOADED).contains("needs a restart: admin.listen"),
        "each reload reports it until pontoon is restarted"
    );
    assert_eq!(bridge.pontoon.admin(), admin);
    bridge.client("a").expect(&["PING"], "+PONG\r\n");
    bridge.pontoon.wait_for_log("session started");
}

#[test]
fn no_client_is_refused_while_routes_change_and_are_renamed() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("redis.sock");
    let named = |name: &str, timeout: u32| {
        route(name, &redis, &authority, &format!("limits.idle_timeout = \"{timeout}s\""))
            .replace("127.0.0.1:0", &format!("unix:{}", path.display()))
    };
    let bridge = Configured::new(&named("a", 1000));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let end = StopOnDrop(&over);
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut served = 0;
                    while !over.load(Ordering::Relaxed) {
                        // The sessions of a removed route end, at a reply boundary.
                        match Wire::unix(&path).try_ask(&["PING"]) {
                            Some(reply) => assert_eq!(reply, b"+PONG\r\n"),
                            None => continue,
                        }
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        for round in 0..10 {
            bridge.reload(&named(if round % 2 == 0 { "b" } else { "a" }, 1000));
            bridge.reload(&named(if round % 2 == 0 { "b" } else { "a" }, 2000 + round));
        }
        drop(end);
        for client in clients {
            assert!(client.join().unwrap() > 0);
        }
    });
}

#[test]
fn a_real_client_under_load_notices_no_reload() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let with = |more: &str| route("a", &redis, &authority, more);
    let bridge = Configured::new(&with(""));
    let mut load = Load::redis_py(bridge.address("a"));
    load.step("reloads");
    for round in 1..=10 {
        let before = load.rounds();
        bridge.reload(&with(&format!("limits.connect_timeout = \"{round}s\"")));
        eventually("the load goes on", || load.rounds() > before + 2);
    }
    load.finish();
    assert!(load.failures().is_empty(), "{:?}", load.failures());
}

#[test]
fn a_changed_client_limit_takes_effect_and_disconnects_no_client() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let limit = |limit: u32| route("a", &redis, &authority, &format!("limits.max_clients = {limit}"));
    let bridge = Configured::new(&limit(2));
    bridge.pontoon.expects("limits.max_clients is reached");
    let mut clients: Vec<Wire> = (0..2).map(|_| bridge.client("a")).collect();
    for client in &mut clients {
        client.expect(&["PING"], "+PONG\r\n");
    }
    bridge.client("a").expect_next("-ERR max number of clients reached\r\n");
    bridge.reload(&limit(3));
    let mut third = bridge.client("a");
    // It is accepted before the limit changes again.
    third.expect(&["PING"], "+PONG\r\n");
    clients.push(third);
    bridge.reload(&limit(1));
    for client in &mut clients {
        client.expect(&["PING"], "+PONG\r\n");
    }
    clients.truncate(1);
    eventually("two clients have left", || bridge.pontoon.metric("pontoon_sessions_active", "") == 1);
    bridge.client("a").expect_next("-ERR max number of clients reached\r\n");
}

#[test]
fn a_unix_socket_changes_its_mode_and_stays_the_same_socket() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("redis.sock");
    let with = |mode: &str| {
        let listen = format!("unix:{}?mode={mode}", path.display());
        route("a", &redis, &authority, "").replace("127.0.0.1:0", &listen)
    };
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let bridge = Configured::new(&with("0600"));
    let mut client = Wire::unix(&path);
    client.expect(&["PING"], "+PONG\r\n");
    assert_eq!(mode(), 0o600);
    bridge.reload(&with("0666"));
    assert_eq!(mode(), 0o666);
    client.expect(&["PING"], "+PONG\r\n");
    Wire::unix(&path).expect(&["PING"], "+PONG\r\n");
    bridge.reload(&route("a", &redis, &authority, ""));
    eventually("the socket has no listener", || !path.exists());
}

#[test]
fn after_a_reload_an_endpoint_with_tls_still_gets_no_plaintext() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let dual = Dual::new(&redis, Mood::Accept, Mood::Accept);
    let with = |mode: &str, endpoint: &str| {
        route("a", &redis, &authority, &format!("tls.mode = \"{mode}\"\nlimits.connect_timeout = \"2s\""))
            .replace(&redis.endpoint(), endpoint)
    };
    let bridge = Configured::new(&with("required", &dual.endpoint()));
    bridge.pontoon.allows("TLS handshake with");
    bridge.pontoon.allows("in plaintext until an endpoint accepts TLS");
    bridge.pontoon.allows("transit encryption observed: plaintext only");
    bridge.client("a").expect(&["PING"], "+PONG\r\n");
    // The endpoint is removed and returns in another mode, while an attacker on the path blocks TLS.
    bridge.reload(&with("preferred", &redis.endpoint()));
    dual.set(Mood::Accept, Mood::Reset);
    bridge.reload(&with("preferred", &dual.endpoint()));
    dual.cut();
    eventually("no connection is left to give", || {
        bridge.client("a").try_ask(&["PING"]).is_some_and(|reply| is_pontoons_error(&reply))
    });
    assert_eq!(dual.plaintext_bytes(), 0);
}

#[test]
fn plaintext_sessions_move_to_tls_though_their_route_was_changed_since() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let dual = Dual::new(&redis, Mood::Accept, Mood::Reset);
    for sharing in ["dedicated", "shared"] {
        dual.set(Mood::Accept, Mood::Reset);
        let with = |timeout: &str| {
            let more = format!(
                "sharing = \"{sharing}\"\ntls.mode = \"preferred\"\ntls.upgrade = \"drain\"\nlimits.connect_timeout = \"{timeout}\""
            );
            route("a", &redis, &authority, &more).replace(&redis.endpoint(), &dual.endpoint())
        };
        let bridge = Configured::new(&with("4s"));
        bridge.pontoon.allows("in plaintext until an endpoint accepts TLS");
        bridge.pontoon.allows("transit encryption observed: plaintext only");
        let mut client = bridge.client("a");
        client.expect(&["PING"], "+PONG\r\n");
        bridge.reload(&with("5s"));
        client.expect(&["PING"], "+PONG\r\n");
        dual.set(Mood::Accept, Mood::Accept);
        eventually("nothing is sent in plaintext", || dual.open_in_plaintext() == 0);
        client.expect(&["PING"], "+PONG\r\n");
        let moved = bridge.pontoon.metric("pontoon_sessions_upgraded_total", "");
        assert!(moved == 1 || sharing == "shared", "{moved}");
    }
}

/// With the settings of before the reload, TLS never succeeds.
#[test]
fn clients_of_a_shared_connection_keep_it_if_only_new_settings_make_tls_possible() {
    let (authority, wrong) = (Authority::new(), Authority::new());
    let redis = Redis::start(&authority);
    let dual = Dual::new(&redis, Mood::Accept, Mood::Accept);
    let with = |authority: &Authority| {
        let more = "sharing = \"shared\"\ntls.mode = \"preferred\"\ntls.upgrade = \"drain\"";
        route("a", &redis, authority, more).replace(&redis.endpoint(), &dual.endpoint())
    };
    let bridge = Configured::new(&with(&wrong));
    bridge.pontoon.allows("in plaintext until an endpoint accepts TLS");
    bridge.pontoon.allows("transit encryption observed: plaintext, and TLS that cannot be trusted");
    let mut client = bridge.client("a");
    client.expect(&["PING"], "+PONG\r\n");
    bridge.pontoon.expects("upstream connection failed");
    bridge.reload(&with(&authority));
    bridge.pontoon.wait_for_log("upstream connection failed");
    client.expect(&["PING"], "+PONG\r\n");
    bridge.client("a").expect(&["PING"], "+PONG\r\n");
    assert_eq!(dual.open_in_plaintext(), 1);
}

#[test]
fn nodes_of_a_cluster_keep_their_ports_and_use_the_new_settings() {
    let cluster = Cluster::start();
    let with = |more: &str| cluster_route(&cluster, more);
    let bridge = Configured::new(&with(""));
    eventually("all nodes are known", || bridge.pontoon.metric("pontoon_cluster_nodes", "") == 6);
    let ports = || {
        let routes: serde_json::Value = serde_json::from_str(&bridge.pontoon.get("/routes").1).unwrap();
        let upstreams = routes[0]["upstreams"].as_array().unwrap().iter();
        let mut ports: Vec<(String, u64)> = upstreams
            .filter_map(|upstream| {
                Some((upstream["endpoint"].as_str()?.to_owned(), upstream["local_port"].as_u64()?))
            })
            .collect();
        ports.sort();
        ports
    };
    let before = ports();
    let node = |n: usize| Wire::tcp(("127.0.0.1", u16::try_from(before[n].1).unwrap()));
    let mut old = node(0);
    old.expect(&["CLIENT", "GETNAME"], "$-1\r\n");
    bridge.reload(&with("client_name = \"bridge\""));
    eventually("the nodes' listeners use the new settings", || {
        node(0).ask(&["CLIENT", "GETNAME"]) == b"$6\r\nbridge\r\n"
    });
    assert_eq!(ports(), before);
    old.expect(&["CLIENT", "GETNAME"], "$-1\r\n");
    bridge.reload(&with("cluster.advertise = \"10.9.8.7\""));
    eventually("clients receive the new address", || {
        String::from_utf8_lossy(&bridge.client("a").ask(&["CLUSTER", "SLOTS"])).contains("10.9.8.7")
    });
    // An old session also learns of new nodes.
    cluster.fail_over((0..6).find(|node| !cluster.is_primary(*node)).unwrap());
    old.expect(&["PING"], "+PONG\r\n");
    assert_eq!(ports(), before);
    let told = bridge.reload(&with("").replace("127.0.0.1:0", "[::1]:0"));
    assert!(told.contains("listen (for nodes)"), "{told}");
}

#[test]
fn after_a_reload_cluster_nodes_with_tls_still_get_no_plaintext() {
    let cluster = Cluster::start();
    let with = |mode: &str| cluster_route(&cluster, &format!("tls.mode = \"{mode}\""));
    let bridge = Configured::new(&with("required"));
    let known = || bridge.pontoon.metric("pontoon_cluster_nodes", "") == 6;
    eventually("all nodes are known", known);
    let reached = || bridge.pontoon.metric("pontoon_upstream_reachable", "node=") == 6;
    eventually("all nodes were reached", reached);
    // From now on, pontoon cannot find out what the nodes accept, and must remember that they accepted TLS.
    cluster.nodes.iter().for_each(Node::pause);
    bridge.reload(&with("preferred"));
    let routes = || bridge.pontoon.get("/routes").1;
    eventually("it is unknown what the nodes accept", || {
        routes().matches("\"seen\":\"unknown\"").count() == 7
    });
    assert!(!routes().contains("no endpoint speaks TLS that can be trusted"), "{}", routes());
    cluster.nodes.iter().for_each(Node::resume);
}

#[test]
fn another_cluster_replaces_the_first_at_once() {
    let (one, other) = (Cluster::start(), Cluster::start());
    let with = |cluster: &Cluster| cluster_route(cluster, "");
    let bridge = Configured::new(&with(&one));
    let nodes = |cluster: &Cluster| {
        let routes = bridge.pontoon.get("/routes").1;
        cluster.nodes.iter().filter(|node| routes.contains(&format!("{}\"", node.endpoint()))).count()
    };
    eventually("all nodes are known", || nodes(&one) == 6);
    let mut old = bridge.client("a");
    old.expect(&["PING"], "+PONG\r\n");
    bridge.reload(&with(&other));
    eventually("the other cluster's nodes are known", || nodes(&other) == 6);
    assert_eq!(nodes(&one), 0, "no node of the first cluster is left");
    old.expect(&["PING"], "+PONG\r\n");
    let slots = String::from_utf8_lossy(&bridge.client("a").ask(&["CLUSTER", "SLOTS"])).into_owned();
    assert!(slots.contains("127.0.0.1"), "{slots}");
}

#[test]
fn a_reload_warns_of_what_a_start_would_warn_of() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let bridge = Configured::new(&route("a", &redis, &authority, ""));
    bridge.pontoon.expects("fewer open files are allowed");
    let told = bridge.reload(&route("a", &redis, &authority, "limits.max_clients = 100000000"));
    assert!(told.contains("route \\\"a\\\" changed\"") && !told.contains("limits.max_clients"), "{told}");
    bridge.pontoon.wait_for_log("limits.max_clients needs (200000064)");
}

#[test]
fn without_a_file_a_reload_changes_nothing() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::to(&redis.endpoint(), &authority);
    pontoon.signal(Signal::HUP);
    pontoon.wait_for_log("configuration reloaded");
    pontoon.client().expect(&["PING"], "+PONG\r\n");
}

#[test]
fn a_listener_that_would_cover_existing_ones_needs_a_restart() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let before = route("a", &redis, &authority, "");
    let bridge = Configured::new(&before);
    let own = bridge.address("a");
    let every = format!("0.0.0.0:{}", own.port());
    let wider = before.replace("127.0.0.1:0", &every) + "allow_remote_clients = true\n";
    bridge.pontoon.expects(REFUSED);
    bridge.write(&format!("{}{wider}", bridge.head));
    let told = bridge.hang_up(REFUSED);
    let words =
        format!("cannot listen on {every} while this process itself listens on {own}: restart pontoon");
    assert!(told.contains(&words), "{told}");
    bridge.client("a").expect(&["PING"], "+PONG\r\n");
}
