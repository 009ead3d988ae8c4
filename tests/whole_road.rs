//! The whole road as the README describes it, with three bridges and one group: no TLS, `preferred`, `required`, AUTH, and then without the
//! bridge. Only the answers of `plan`, `audit`, `fleet` and `status` decide what comes next.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Output;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fleets::fleet;
use crate::harness::{
    Authority, CountingNode, Hosts, Load, Pontoon, Transit, eventually, pontoon, pontoon_with_hosts, valkey,
};
use crate::plan::{ElastiCache, plaintext, text};

const GROUP: &str = "sessions";

/// The name that the group has without TLS, and the one that it has with TLS.
const OLD: &str = "sessions.abc123.ng.0001.euw1.cache.amazonaws.com";
const NEW: &str = "master.sessions.abc123.euw1.cache.amazonaws.com";

const TOKEN: &str = "s3cr3t-t0k3n-0123456789";

/// A bridge, and the end of its configuration file, which changes on the road.
struct Bridge {
    pontoon: Pontoon,
    directory: TempDir,
    head: String,
}

impl Bridge {
    /// Starts a bridge. With `evidence` it asks the servers.
    fn start(road: &Road, upstream: &[String], evidence: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let head = format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\n[verdict]\nquiet_for = \"1s\"\nunused_for = \"1s\"\n\
             [runtime]\nstate_file = \"{}\"\n[[route]]\nname = \"sessions\"\nlisten = \"127.0.0.1:0\"\n\
             upstream = {upstream:?}\nlimits.max_clients = 100\ntls.ca_files = {:?}\ntls.upgrade = \"drain\"\n{}",
            directory.path().join("state.json").display(),
            road.authority.file(),
            if evidence { "evidence.interval = \"200ms\"\nevidence.sampling = \"100ms\"\n" } else { "" }
        );
        let file = Self::file(&directory);
        fs::write(&file, format!("{head}tls.mode = \"preferred\"\n")).unwrap();
        let pontoon = Pontoon::with_hosts(&road.hosts, &["--config", file.to_str().unwrap()]);
        pontoon.allows("traffic is in plaintext until an endpoint accepts TLS");
        pontoon.allows("transit encryption observed: plaintext");
        pontoon.allows("not for \"sessions.abc123.ng.0001");
        pontoon.allows("servers count clients in plaintext");
        Self { pontoon, directory, head }
    }

    fn file(directory: &TempDir) -> PathBuf {
        directory.path().join("pontoon.toml")
    }

    /// Applies these settings of its route, as `systemctl reload` does.
    fn reload(&self, settings: &str) {
        fs::write(Self::file(&self.directory), format!("{}{settings}", self.head)).unwrap();
        let reloads = || self.pontoon.log_count("configuration reloaded");
        let before = reloads();
        self.pontoon.signal(Signal::HUP);
        eventually("the configuration is reloaded", || reloads() > before);
    }

    /// `pontoon status --json`, and whether it succeeds.
    fn status(&self, args: &[&str]) -> (bool, Value) {
        let admin = self.pontoon.admin().to_string();
        let output = pontoon(&[&["status", "--admin", &admin, "--json"], args].concat());
        (output.status.success(), serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Whether its plaintext clients cannot move to TLS because of the state on their connections.
    fn is_held_in_plaintext(&self) -> bool {
        let (_, status) = self.status(&[]);
        let clients = status["clients"]["clients"].as_array().unwrap();
        let mut stays = clients.iter().filter_map(|client| client["stays"].as_array()).flatten();
        stays.any(|stay| stay["state"] == "plaintext" && stay["why"].as_str().unwrap().contains("subscribed"))
    }
}

/// An application, which is at most restarted with another address.
struct App {
    start: fn(SocketAddr, &[(&str, &str)]) -> Load,
    variables: &'static [(&'static str, &'static str)],
    load: Load,
    /// How often each key was incremented by the loads that have ended.
    tally: BTreeMap<String, u64>,
}

impl App {
    fn start(
        start: fn(SocketAddr, &[(&str, &str)]) -> Load,
        variables: &'static [(&'static str, &'static str)],
        address: SocketAddr,
    ) -> Self {
        let mut load = start(address, variables);
        load.step("work");
        Self { start, variables, load, tally: BTreeMap::new() }
    }

    fn restart(&mut self, address: SocketAddr, more: &[(&str, &str)]) {
        self.stop();
        self.load = (self.start)(address, &[self.variables, more].concat());
        self.load.step("work");
    }

    fn stop(&mut self) {
        let tally = self.load.finish();
        self.assert_without_failure();
        for (key, (done, doubtful)) in tally {
            assert_eq!(doubtful, 0, "{key}");
            *self.tally.entry(key).or_default() += done;
        }
    }

    #[track_caller]
    fn assert_without_failure(&self) {
        let failures = self.load.failures();
        assert!(failures.is_empty(), "{failures:?}");
    }
}

struct Road {
    apps: Vec<App>,
    bridges: Vec<Bridge>,
    aws: ElastiCache,
    node: CountingNode,
    hosts: Hosts,
    authority: Authority,
}

impl Road {
    /// Transit encryption is off, and one client of redis-py bypasses the bridges.
    fn begin() -> Self {
        let authority = Authority::new();
        let identity = authority.issue(&[NEW, "*.sessions.abc123.euw1.cache.amazonaws.com", "127.0.0.1"]);
        let node = CountingNode::of(&valkey(), &identity, Transit::Disabled, &[]);
        let port = node.address().port();
        let names = |primary: &str| {
            let primary = json!({"Address": primary, "Port": port});
            json!({"NodeGroups": [{"NodeGroupId": "0001", "PrimaryEndpoint": primary}]})
        };
        let mut group = plaintext(GROUP);
        (group["group"], group["with_tls"]) = (names(OLD), names(NEW));
        let aws = ElastiCache::start(json!({"answers": 1, "groups": [group]}));
        let mut road =
            Self { apps: Vec::new(), bridges: Vec::new(), aws, node, hosts: Hosts::new(&[OLD]), authority };
        // The current and the future name, as `plan` prints them.
        let endpoint = &road.plan()["group"]["endpoints"][0];
        let upstream = ["counterpart", "address"]
            .map(|name| format!("{}:{}", endpoint[name].as_str().unwrap(), endpoint["port"]));
        road.bridges = [true, false, false].map(|evidence| Bridge::start(&road, &upstream, evidence)).into();
        let [one, other, third] = [0, 1, 2].map(|at| road.bridges[at].pontoon.address());
        let (redis_py, ioredis) = (Load::redis_py_with, Load::ioredis_with);
        road.apps = vec![
            App::start(redis_py, &[("LOAD_NAME", "orders"), ("LOAD_WITHOUT", "pubsub")], one),
            App::start(ioredis, &[], other),
            App::start(redis_py, &[("LOAD_NAME", "search")], third),
            App::start(redis_py, &[("LOAD_NAME", "billing")], road.node.address()),
        ];
        road
    }

    fn plan(&self) -> Value {
        self.aws.report(&["--group", GROUP])["plans"][0].clone()
    }

    /// `pontoon fleet`, of all bridges.
    fn fleet(&self, args: &[&str]) -> (Option<i32>, Value) {
        let admins: Vec<String> =
            self.bridges.iter().map(|bridge| bridge.pontoon.admin().to_string()).collect();
        let admins: Vec<&str> = admins.iter().map(String::as_str).collect();
        let (code, text, _) = fleet(&[&admins[..], &["--expect", "3", "--json"], args].concat());
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["bridges_answered"], 3, "{report}");
        assert_eq!(report["groups"].as_array().unwrap().len(), 1, "{report}");
        (code, report["groups"][0].clone())
    }

    fn fleet_becomes(&self, unless: &str) {
        let mut last = Value::Null;
        let mut is_so = false;
        eventually(&format!("the fleet is {unless}"), || {
            let (code, group) = self.fleet(&["--fail-unless", unless]);
            (is_so, last) = (code == Some(0), group);
            is_so
        });
        assert!(is_so, "{last}");
    }

    /// Runs a command that `plan` printed, with what else it needs on this machine.
    fn run(&self, command: &str) -> Output {
        let words: Vec<&str> = command.split(' ').collect();
        let (ca, admin) = (self.authority.file(), self.bridges[0].pontoon.admin().to_string());
        match words.as_slice() {
            ["pontoon", "plan", args @ ..] => self.aws.plan(&[args, &["--interval", "10ms"]].concat()),
            ["pontoon", "audit", args @ ..] => {
                let args = [&["audit"], args, &["--json", "--tls-ca-file", &ca]].concat();
                pontoon_with_hosts(&self.hosts, &args)
            }
            ["pontoon", "status", args @ ..] => pontoon(&[&["status", "--admin", &admin], args].concat()),
            _ => panic!("{command}"),
        }
    }

    /// The commands that must succeed before the next step, according to `plan`.
    fn before(&self) -> Vec<String> {
        serde_json::from_value(self.plan()["next"]["before"].clone()).unwrap()
    }

    /// Takes the next step of `plan`. It must lead to `mode`.
    fn step(&self, mode: &str) {
        let plan = self.plan();
        let next = &plan["next"];
        assert_eq!((&next["to"], &plan["blockers"]), (&json!(mode), &json!([])), "{plan}");
        for command in self.before() {
            let output = self.run(&command);
            assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let change = next["recipes"]["aws_cli"].as_str().unwrap();
        assert!(change.contains(&format!("--transit-encryption-mode {mode} ")), "{change}");
        self.aws.aws_cli(change);
        // What AWS then does to the node and its names.
        let (transit, names): (_, &[&str]) = match mode {
            "preferred" => (Transit::Preferred, &[OLD, NEW]),
            _ => (Transit::Required, &[NEW]),
        };
        assert!(transit != Transit::Required || self.node.plaintext_clients() == 0, "a client would be cut");
        self.node.set_transit(transit);
        self.hosts.set(names);
        text(&self.run(next["follow"].as_str().unwrap()));
        assert_eq!(self.plan()["group"]["transit_encryption"], mode);
    }

    /// Waits until every application has completed all operations, and asserts that nothing has failed so far.
    #[track_caller]
    fn progress(&self) {
        let before: Vec<usize> = self.apps.iter().map(|app| app.load.rounds()).collect();
        eventually("all applications go on", || {
            self.apps.iter().zip(&before).all(|(app, before)| app.load.rounds() >= before + 5)
        });
        for app in &self.apps {
            app.assert_without_failure();
        }
    }
}

#[test]
fn the_answers_of_the_commands_alone_lead_along_the_readmes_road() {
    let mut road = Road::begin();

    // The bridges run before the endpoint accepts TLS.
    road.progress();
    eventually("the fleet names the next step", || {
        let (code, group) = road.fleet(&["--fail-unless", "tls-only"]);
        assert_eq!(code, Some(1));
        let because = group["uses_only_tls"]["because"].to_string();
        because.contains("set the group's transit encryption mode to \\\"preferred\\\"")
    });
    road.step("preferred");
    road.progress();

    // Sessions move by themselves, except those with subscriptions: `status` names them.
    let mut reconnected = Vec::new();
    eventually("the fleet uses only TLS", || {
        for at in 0..3 {
            if !reconnected.contains(&at) && road.bridges[at].is_held_in_plaintext() {
                let address = road.bridges[at].pontoon.address();
                road.apps[at].restart(address, &[]);
                reconnected.push(at);
            }
        }
        road.fleet(&["--fail-unless", "tls-only"]).0 == Some(0)
    });
    reconnected.sort_unstable();
    assert_eq!(reconnected, [1, 2]);
    road.progress();

    // One client is still in plaintext, and bypasses the bridges.
    let before = road.before();
    let [audit, status] = before.as_slice() else { panic!("{before:?}") };
    let audited = road.run(audit);
    let report: Value = serde_json::from_slice(&audited.stdout).unwrap();
    assert_eq!(audited.status.code(), Some(1), "{report}");
    assert!(report["nodes"][0]["plaintext_clients"].as_u64() > Some(0), "{report}");
    let mut direct: Vec<&Value> =
        report["direct"].as_array().unwrap().iter().map(|row| &row["library"]).collect();
    // A client that has just connected has not sent its library's name.
    direct.retain(|library| *library != "");
    assert!(!direct.is_empty() && direct.iter().all(|library| *library == "redis-py"), "{report}");
    assert!(!road.run(status).status.success());
    assert_eq!(road.fleet(&["--fail-unless", "ready"]).0, Some(1));
    let (node, ca) = (road.node.address(), road.authority.file());
    road.apps[3].restart(node, &[("LOAD_CA_FILE", &ca)]);
    eventually("the audit is clean", || road.run(audit).status.success());
    road.fleet_becomes("ready");

    // Required.
    for bridge in &road.bridges {
        bridge.reload("tls.mode = \"required\"\n");
    }
    road.progress();
    road.fleet_becomes("ready");
    road.step("required");
    assert_eq!(road.plan()["next"], Value::Null);
    road.progress();
    road.fleet_becomes("ready");

    // AUTH: the token is accepted in addition to no token (ROTATE), the bridges present it, then it is needed (SET).
    let secrets = tempfile::tempdir().unwrap();
    let file = secrets.path().join("token");
    fs::write(&file, TOKEN).unwrap();
    for bridge in &road.bridges {
        bridge.reload(&format!(
            "tls.mode = \"required\"\nauth.username = \"default\"\nauth.password_file = \"{}\"\n",
            file.display()
        ));
    }
    // The direct client presents it, too, before it is needed.
    let tls = [("LOAD_CA_FILE", &*ca), ("LOAD_PASSWORD", TOKEN)];
    road.apps[3].restart(node, &tls);
    road.progress();
    road.node.direct().expect(&["CONFIG", "SET", "requirepass", TOKEN], "+OK\r\n");
    road.progress();

    // The applications leave the bridges, one after the other.
    for left in (0..3_u64).rev() {
        road.apps[left as usize].restart(node, &tls);
        road.progress();
        eventually("the fleet names the remaining clients", || {
            let (code, group) = road.fleet(&["--fail-unless", "unused"]);
            let clients = group["clients"].as_array().unwrap();
            assert_eq!(code == Some(0), clients.is_empty(), "{group}");
            clients.iter().map(|client| client["bridges"].as_u64().unwrap()).sum::<u64>() == left
        });
    }
    road.fleet_becomes("unused");
    for mut bridge in std::mem::take(&mut road.bridges) {
        assert!(bridge.status(&["--fail-unless", "unused"]).0);
        let ended = |how: &str| bridge.pontoon.metric("pontoon_sessions_total", how);
        assert_eq!(ended(""), ended("end=\"client_closed\""), "no session was cut");
        bridge.pontoon.signal(Signal::TERM);
        assert_eq!(bridge.pontoon.wait().code(), Some(0));
    }
    road.progress();

    // No reply was wrong, and nothing was lost or done twice.
    let mut direct = road.node.direct();
    direct.expect(&["AUTH", TOKEN], "+OK\r\n");
    for app in &mut road.apps {
        app.stop();
        assert!(app.tally.len() >= 4, "{:?}", app.tally);
        for (key, done) in &app.tally {
            direct.expect(&["GET", key], &format!("${}\r\n{done}\r\n", done.to_string().len()));
        }
    }
}
