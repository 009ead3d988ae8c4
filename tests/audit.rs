//! `pontoon audit`: asks each node of a group which clients are connected to it.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{
    Authority, Cluster, Dual, Engine, Fake, Mood, Pontoon, Redis, Wire, eventually, pontoon,
    pontoon_with_hosts, valkey,
};
use crate::inventory::Program;
use crate::json::assert_documented;

struct Audited {
    code: Option<i32>,
    report: Value,
    error: String,
}

fn audit(endpoint: &str, authority: &Authority, args: &[&str]) -> Audited {
    audited(pontoon(&[&["audit", endpoint, "--json", "--tls-ca-file", &authority.file()], args].concat()))
}

fn audited(output: Output) -> Audited {
    let error = String::from_utf8(output.stderr).unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    if !report.is_null() {
        assert_documented("audit", &report);
    }
    Audited { code: output.status.code(), report, error }
}

fn node<'a>(report: &'a Value, endpoint: &str) -> &'a Value {
    let nodes = report["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["endpoint"] == endpoint).unwrap_or_else(|| panic!("{endpoint}: {report}"))
}

/// A group of one primary and one replica, which replicate over TLS and serve TLS.
pub fn group(authority: &Authority) -> (Redis, Redis) {
    let start = || {
        let identity = authority.issue(&["localhost"]);
        Redis::with(identity, authority, &["--tls-replication", "yes", "--repl-diskless-sync-delay", "0"])
    };
    let (primary, replica) = (start(), start());
    replica.direct().expect(&["REPLICAOF", "127.0.0.1", &primary.tls_port.to_string()], "+OK\r\n");
    eventually("the replica is in step", || {
        String::from_utf8_lossy(&primary.direct().ask(&["INFO", "replication"])).contains("state=online")
    });
    (primary, replica)
}

/// The class in which a client with another name counts that bypasses the bridge. An engine without library names cannot rule out that such
/// a client is bridged.
fn not_bridged() -> &'static str {
    if Engine::here().has_library_names() { "direct" } else { "unknown" }
}

#[test]
fn every_node_of_a_group_is_asked_and_its_clients_are_classified() {
    let authority = Authority::new();
    let (primary, replica) = group(&authority);
    let bridge = Pontoon::with(
        &primary.endpoint(),
        &authority,
        &["--client-name", "bridge-1", "--pool-reuse", "false"],
    );
    let mut bridged = bridge.client();
    bridged.expect(&["PING"], "+PONG\r\n");
    let mut direct: Vec<_> = (0..3).map(|_| primary.direct()).collect();
    for client in &mut direct {
        client.expect(&["CLIENT", "SETNAME", "web"], "+OK\r\n");
    }
    let mut reader = replica.direct();
    reader.expect(&["CLIENT", "SETNAME", "reports"], "+OK\r\n");
    let Audited { code, report, error } =
        audit(&primary.endpoint(), &authority, &["--bridge-name", "bridge-"]);
    let first = node(&report, &primary.endpoint());
    let told = not_bridged();
    assert_eq!((first["role"].as_str(), first[told].as_u64()), (Some("master"), Some(3)), "{report}");
    assert_eq!(
        first["bridged"], 1,
        "the bridge's client, and neither audit itself nor the replica: {report}"
    );
    // The replica is announced by address, and verified by the group's name.
    let second = node(&report, &format!("127.0.0.1:{}", replica.tls_port));
    assert_eq!((second["role"].as_str(), second[told].as_u64()), (Some("slave"), Some(1)), "{report}");
    let clients = &report[told][0];
    assert_eq!(
        (&clients["name"], &clients["clients"], &clients["address"]),
        (&"web".into(), &3.into(), &"127.0.0.1".into())
    );
    // This engine does not count its plaintext clients, which is not the same as zero.
    assert_eq!((code, first["plaintext_clients"].is_null()), (Some(1), true));
    // An engine without TLS is reached through a front, which also accepts plaintext.
    let accepts = if Engine::here().tls {
        first["plaintext"]["other_port"].is_u64()
    } else {
        first["plaintext"] == "accepted"
    };
    assert!(accepts, "{report}");
    assert!(
        error.contains("2 of 2 nodes accept plaintext and do not count their plaintext clients"),
        "{error}"
    );
}

#[test]
fn a_node_that_does_not_answer_is_reported() {
    let authority = Authority::new();
    let (primary, mut replica) = group(&authority);
    replica.pause();
    let args = ["--connect-timeout", "1s"];
    let Audited { code, report, error } = audit(&primary.endpoint(), &authority, &args);
    let silent = node(&report, &format!("127.0.0.1:{}", replica.tls_port));
    assert!(silent["problem"].as_str().unwrap().contains("timed out"), "{report}");
    assert_eq!((code, error.as_str()), (Some(1), "error: 1 of 2 nodes did not answer\n"));
    replica.resume();
    replica.kill();
}

#[test]
fn every_node_of_a_cluster_is_found_through_one_endpoint_and_asked_once() {
    for cluster in [Cluster::start(), Cluster::named()] {
        let (endpoint, ca) = (cluster.endpoint(), cluster.authority().file());
        let bridge_args = [
            "--tls-ca-file",
            &ca,
            "--client-name",
            "bridge-1",
            "--listen",
            "127.0.0.1:0",
            "--pool-reuse",
            "false",
        ];
        let audit_args = ["audit", &endpoint, "--json", "--tls-ca-file", &ca, "--bridge-name", "bridge-"];
        let (bridge, audit): (Pontoon, &dyn Fn() -> Output) = match cluster.hosts() {
            None => {
                let second = format!("localhost:{}", cluster.nodes[1].port);
                (Pontoon::run(&[&["--upstream", &second], &bridge_args[..]].concat()), &|| {
                    pontoon(&audit_args)
                })
            }
            Some(hosts) => {
                let second = cluster.nodes[1].endpoint();
                let args = [&["--upstream", &second], &bridge_args[..]].concat();
                (Pontoon::with_hosts(hosts, &args), &|| pontoon_with_hosts(hosts, &audit_args))
            }
        };
        let mut bridged = bridge.client();
        bridged.expect(&["PING"], "+PONG\r\n");
        // Two at the bridge's node, one at the first replica.
        let _direct = [1, 1, 3].map(|node: usize| {
            let mut wire = cluster.nodes[node].wire();
            wire.expect(&["CLIENT", "SETNAME", "web"], "+OK\r\n");
            wire
        });
        let Audited { code, report, error } = audited(audit());
        let nodes = report["nodes"].as_array().unwrap();
        // These servers do not count clients in plaintext, but refuse plaintext. Fronts of an engine without TLS accept it.
        let expected = if Engine::here().tls { (0, "refused") } else { (1, "accepted") };
        assert_eq!((nodes.len(), code), (6, Some(expected.0)), "{report} {error}");
        assert!(nodes.iter().all(|node| node["plaintext"] == expected.1), "{report}");
        for (number, wanted) in cluster.nodes.iter().enumerate() {
            // The first node keeps the name that the user gave.
            let name = if number == 0 { endpoint.clone() } else { wanted.endpoint() };
            let told = node(&report, &name);
            let role = if cluster.is_primary(number) { "master" } else { "slave" };
            let (at_bridge, others) = [(0, 0), (1, 2), (0, 0), (0, 1), (0, 0), (0, 0)][number];
            assert_eq!((&told["problem"], &told["role"]), (&Value::Null, &role.into()), "{report}");
            assert_eq!(
                (&told["bridged"], &told[not_bridged()]),
                (&at_bridge.into(), &others.into()),
                "{report}"
            );
            let lists = cluster.ask(number, &["INFO", "commandstats"]);
            // Before 7.0 a server does not count subcommands separately.
            let once = Engine::here().is_before_7() || lists.contains("cmdstat_client|list:calls=1,");
            assert!(once, "{name} was asked once: {lists}");
        }
        let others = report[not_bridged()].as_array().unwrap();
        assert_eq!((others.len(), &others[0]["name"], &others[0]["clients"]), (1, &"web".into(), &3.into()));
    }
}

/// Sends what a library says about itself when it connects.
fn introduce(wire: &mut Wire, library: &str) {
    wire.ask(&["CLIENT", "SETINFO", "LIB-NAME", library]);
    wire.ask(&["CLIENT", "SETINFO", "LIB-VER", "1.0"]);
}

/// A program with an unmodified redis-py, in both protocols.
fn redis_py(pontoon: &Pontoon) -> Program {
    let script = "
keep = [redis.Redis(port=port, protocol=protocol) for protocol in (2, 3)]
for r in keep: r.set('k', 'v')";
    Program::redis_py(pontoon, script)
}

/// The names of libraries that a server lists.
fn libraries(redis: &Redis) -> Vec<String> {
    let list = String::from_utf8(redis.direct().ask(&["CLIENT", "LIST"])).unwrap();
    list.split([' ', '\n']).filter_map(|field| field.strip_prefix("lib-name=")).map(str::to_owned).collect()
}

#[test]
fn bridged_and_direct_clients_are_distinguished_whatever_they_claim() {
    let (dedicated, shared) = (["--sharing", "dedicated"], ["--sharing", "shared"]);
    let (once, again) = (["--pool-reuse", "false"], ["--pool-reuse", "true"]);
    for args in [[dedicated, once], [dedicated, again], [shared, again]].map(|args| args.concat()) {
        let authority = Authority::new();
        let redis = Redis::of(&valkey(), authority.issue(&["localhost"]), &authority, &[]);
        let bridge =
            Pontoon::with(&redis.endpoint(), &authority, &[&args[..], &["--workers", "1"]].concat()).ready();
        let _program = redis_py(&bridge);
        // An earlier client has left its library's name on the connection.
        let mut before = bridge.client();
        introduce(&mut before, "lettuce");
        before.finish();
        let mut clients: Vec<Wire> = (0..5).map(|_| bridge.client()).collect();
        introduce(&mut clients[0], "jedis");
        introduce(&mut clients[1], "jedis(spring_v3)");
        introduce(&mut clients[2], "");
        clients[3].expect(&["CLIENT", "SETNAME", "web"], "+OK\r\n");
        for client in &mut clients {
            client.expect(&["GET", "k"], "$1\r\nv\r\n");
        }
        let mut direct: Vec<Wire> = (0..3).map(|_| redis.direct()).collect();
        introduce(&mut direct[0], "jedis");
        introduce(&mut direct[1], "jedis(pontoons)");
        direct[2].expect(&["CLIENT", "SETNAME", "web"], "+OK\r\n");

        let report = audit(&redis.endpoint(), &authority, &[]).report;
        let node = node(&report, &redis.endpoint());
        assert_eq!((&node["direct"], &node["unknown"]), (&3.into(), &0.into()), "{args:?}: {report}");
        let bridged = node["bridged"].as_u64().unwrap();
        if args.contains(&"dedicated") {
            assert!(bridged >= 7, "{args:?}: {report}");
            let listed = libraries(&redis);
            let expected =
                ["redis-py(pontoon)", "jedis(pontoon)", "jedis(spring_v3;pontoon)", "(pontoon)", "pontoon"];
            for library in expected {
                assert!(listed.iter().any(|listed| listed == library), "{library}: {listed:?}");
            }
        } else {
            assert!(bridged >= 1, "{args:?}: {report}");
        }
        // The inventory shows what the clients said.
        let clients = bridge.get("/clients").1;
        for library in ["\"redis-py\"", "\"jedis\"", "\"jedis(spring_v3)\""] {
            assert!(clients.contains(library), "{args:?}: {library}: {clients}");
        }
        assert!(!clients.contains("(pontoon)") && !clients.contains(";pontoon"), "{args:?}: {clients}");
    }
}

#[test]
fn a_client_that_cannot_be_classified_is_not_called_direct() {
    // The test above covers the other engines.
    if Engine::here().has_library_names() {
        return;
    }
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let bridge = Pontoon::with(&redis.endpoint(), &authority, &["--client-name", "bridge-1"]).ready();
    let _program = redis_py(&bridge);
    let mut clients = [bridge.client(), redis.direct()];
    for client in &mut clients {
        client.expect(&["CLIENT", "SETNAME", "web"], "+OK\r\n");
    }
    for args in [&[][..], &["--bridge-name", "bridge-"]] {
        let report = audit(&redis.endpoint(), &authority, args).report;
        let node = node(&report, &redis.endpoint());
        assert_eq!(
            (&node["direct"], &report["direct"]),
            (&Value::Null, &Value::Array(Vec::new())),
            "{report}"
        );
        assert!(node["unknown"].as_u64().unwrap() >= 1, "{report}");
        assert_eq!(node["bridged"].as_u64().unwrap() > 0, !args.is_empty(), "{report}");
    }
    let text = pontoon(&["audit", &redis.endpoint(), "--tls-ca-file", &authority.file()]).stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("Clients that may use a bridge") && !text.contains("use no bridge"), "{text}");
}

#[test]
fn a_client_with_its_own_credentials_and_no_library_is_not_called_direct() {
    let authority = Authority::new();
    let options = ["--requirepass", "s3cr3t-of-the-test"];
    let redis = Redis::of(&valkey(), authority.issue(&["localhost"]), &authority, &options);
    let bridge = Pontoon::with(&redis.endpoint(), &authority, &["--pool-reuse", "false"]);
    let mut clients = [bridge.client(), bridge.client(), redis.direct(), redis.direct()];
    for (client, library) in clients.iter_mut().zip([None, Some("jedis"), None, Some("jedis")]) {
        client.expect(&["AUTH", "s3cr3t-of-the-test"], "+OK\r\n");
        if let Some(library) = library {
            introduce(client, library);
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file.as_file(), "s3cr3t-of-the-test").unwrap();
    let path = file.path().to_str().unwrap();
    let report = audit(&redis.endpoint(), &authority, &["--auth-password-file", path]).report;
    let node = node(&report, &redis.endpoint());
    let counts = ["bridged", "direct", "unknown"].map(|how| node[how].as_u64());
    assert_eq!(counts[1..], [Some(1), Some(2)], "{report}");
    assert!(counts[0] >= Some(1), "{report}");
}

#[test]
fn a_group_is_clean_if_every_node_counts_no_plaintext_client() {
    let authority = Authority::new();
    let refused = "-NOPERM this user has no permissions to run the 'client|list' command\r\n";
    let clean = Fake::counting(&authority, &Arc::default(), refused);
    let Audited { code, report, error } = audit(&clean.endpoint(), &authority, &[]);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{report}");
    assert_eq!(report["nodes"][0]["plaintext_clients"], 0);
    // What the node does not report is unknown.
    assert!(report["nodes"][0]["direct"].is_null());
    assert!(report["nodes"][0]["list_refused"].as_str().unwrap().starts_with("NOPERM"));

    let dirty = Fake::counting(&authority, &Arc::new(AtomicU32::new(3)), refused);
    let Audited { code, error, .. } = audit(&clean.endpoint(), &authority, &[&dirty.endpoint()]);
    assert_eq!((code, error.as_str()), (Some(1), "error: 3 clients are connected in plaintext\n"));
}

#[test]
fn audit_authenticates_and_reports_refused_credentials() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let redis = Redis::with(identity, &authority, &["--requirepass", "s3cr3t-of-the-test"]);
    let refused = audit(&redis.endpoint(), &authority, &[]).report;
    assert!(refused["nodes"][0]["problem"].as_str().unwrap().contains("NOAUTH"), "{refused}");
    let file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file.as_file(), "s3cr3t-of-the-test").unwrap();
    let path = file.path().to_str().unwrap();
    let allowed = audit(&redis.endpoint(), &authority, &["--auth-password-file", path]).report;
    assert_eq!(
        (&allowed["nodes"][0]["problem"], &allowed["nodes"][0]["role"]),
        (&Value::Null, &"master".into())
    );
    let careless = ["--auth-password-file", path, "--tls-insecure-skip-verify"];
    assert_eq!(
        audit(&redis.endpoint(), &authority, &careless).code,
        Some(2),
        "any server could ask for the password"
    );
    let absent = audit(&redis.endpoint(), &authority, &["--auth-password-file", "/nonexistent/secret"]);
    assert_eq!(absent.code, Some(2));
}

/// The application with this name, among those of a report.
fn named<'a>(report: &'a Value, told: &str, name: &str) -> &'a Value {
    let all = report[told].as_array().unwrap();
    all.iter().find(|clients| clients["name"] == name).unwrap_or_else(|| panic!("{name}: {report}"))
}

/// `pontoon audit --json` of a plaintext port, with these arguments.
fn audit_plaintext(redis: &Redis, args: &[&str]) -> Audited {
    let endpoint = format!("127.0.0.1:{}", redis.plain_port);
    audited(pontoon(&[&["audit", &endpoint, "--json"], args].concat()))
}

const WEB: &str = "
keep = [redis.Redis(port=port, client_name='web') for _ in range(2)]
for r in keep:
    r.set('k', 'v')
keep[1].hgetall('h')";

#[test]
fn a_group_without_tls_is_asked_in_plaintext() {
    let authority = Authority::new();
    let primary = Redis::start(&authority);
    // If the engine is built without TLS, the announced port accepts plaintext, too.
    let options = ["--repl-diskless-sync-delay", "0", "--tls-replication", "no"];
    let replica = Redis::with(authority.issue(&["localhost"]), &authority, &options);
    replica.direct().expect(&["REPLICAOF", "127.0.0.1", &primary.plain_port.to_string()], "+OK\r\n");
    eventually("the replica is in step", || {
        String::from_utf8_lossy(&primary.direct().ask(&["INFO", "replication"])).contains("state=online")
    });
    let _web = Program::redis_py_at(primary.plain_port, WEB);
    let _node = Program::node_at(primary.plain_port, "ioredis");
    let mut reader = replica.direct();
    reader.expect(&["CLIENT", "SETNAME", "reports"], "+OK\r\n");
    let Audited { code, report, error } = audit_plaintext(&primary, &["--tls-mode", "disabled"]);
    let told = not_bridged();
    let nodes = report["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 2, "{report}");
    let first = node(&report, &format!("127.0.0.1:{}", primary.plain_port));
    assert_eq!((&first["asked_in_plaintext"], &first[told]), (&true.into(), &3.into()), "{report}");
    assert_eq!(named(&report, told, "node-app")["clients"], 1, "{report}");
    assert_eq!(named(&report, told, "reports")["clients"], 1, "{report}");
    let web = named(&report, told, "web");
    assert_eq!((&web["clients"], &web["address"]), (&2.into(), &"127.0.0.1".into()), "{report}");
    let commands = web["commands"].as_array().unwrap();
    assert!(commands.contains(&"set".into()) && commands.contains(&"hgetall".into()), "{report}");
    assert_eq!(code, Some(1));
    assert!(
        error.contains("2 of 2 nodes accept plaintext and do not count their plaintext clients. Up to "),
        "{error}"
    );

    let endpoint = format!("127.0.0.1:{}", primary.plain_port);
    let text = pontoon(&["audit", &endpoint, "--tls-mode", "disabled"]).stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(&format!("{endpoint}: asked in plaintext")), "{text}");
}

#[test]
fn a_node_is_asked_over_tls_if_it_accepts_tls_else_in_plaintext() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    for (tls, in_plaintext) in
        [(Mood::Accept, false), (Mood::Hang, true), (Mood::Close, true), (Mood::Cross, true)]
    {
        let dual = Dual::new(&redis, Mood::Accept, tls);
        let report = audit(&dual.endpoint(), &authority, &["--tls-mode", "preferred"]).report;
        let node = node(&report, &dual.endpoint());
        assert_eq!(node["problem"], Value::Null, "{tls:?}: {report}");
        assert_eq!(node["asked_in_plaintext"].as_bool().unwrap_or(false), in_plaintext, "{tls:?}: {report}");
        for told in ["direct", "unknown", "bridged"] {
            assert_eq!(report[told], Value::Array(Vec::new()), "audit lists itself: {tls:?}: {report}");
        }
    }
    // A certificate that does not verify does not count as TLS.
    let stranger = Authority::new();
    let dual = Dual::new(&redis, Mood::Accept, Mood::Accept);
    let report = audit(&dual.endpoint(), &stranger, &["--tls-mode", "preferred"]).report;
    assert_eq!(report["nodes"][0]["asked_in_plaintext"], true, "{report}");
}

#[test]
fn a_password_goes_over_plaintext_only_if_that_is_allowed() {
    let authority = Authority::new();
    let redis =
        Redis::with(authority.issue(&["localhost"]), &authority, &["--requirepass", "s3cr3t-of-the-test"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file.as_file(), "s3cr3t-of-the-test").unwrap();
    let path = file.path().to_str().unwrap();
    let forged = Authority::new();
    for mode in ["disabled", "preferred"] {
        let dual = Dual::new(&redis, Mood::Accept, Mood::Accept);
        let args = ["--tls-mode", mode, "--auth-password-file", path];
        // In preferred mode the certificate is another authority's.
        let of = |args: &[&str]| {
            let endpoint = dual.endpoint();
            let args = [&["audit", &endpoint, "--json"], args].concat();
            let ca = forged.file();
            let ca: &[&str] = if mode == "disabled" { &[] } else { &["--tls-ca-file", &ca] };
            audited(pontoon(&[&args, ca].concat()))
        };
        let refused = of(&args);
        let problem = refused.report["nodes"][0]["problem"].as_str().unwrap().to_owned();
        assert!(problem.contains("NOAUTH") && problem.contains("auth.allow_plaintext"), "{problem}");
        assert_eq!(refused.code, Some(1));
        let stats = String::from_utf8(auth_stats(&redis)).unwrap();
        assert!(!stats.contains("cmdstat_auth"), "{mode}: a password was sent: {stats}");
        let allowed = of(&[&args[..], &["--auth-allow-plaintext"]].concat()).report;
        assert_eq!(allowed["nodes"][0]["problem"], Value::Null, "{allowed}");
        assert_eq!(allowed["nodes"][0]["asked_in_plaintext"], true, "{allowed}");
        assert!(
            String::from_utf8(auth_stats(&redis)).unwrap().contains("cmdstat_auth"),
            "the server counts AUTH"
        );
        reset_stats(&redis);
    }
    let dual = Dual::new(&redis, Mood::Accept, Mood::Accept);
    let args = ["--tls-mode", "preferred", "--auth-password-file", path];
    let report = audit(&dual.endpoint(), &authority, &args).report;
    assert_eq!(report["nodes"][0]["problem"], Value::Null, "the password is sent over TLS: {report}");
    assert_eq!(report["nodes"][0]["asked_in_plaintext"], Value::Null, "{report}");
}

/// A connection that authenticates by HELLO, which the server counts separately from AUTH.
fn authenticated(redis: &Redis) -> Wire {
    let mut wire = redis.direct();
    wire.ask(&["HELLO", "2", "AUTH", "default", "s3cr3t-of-the-test"]);
    wire
}

fn auth_stats(redis: &Redis) -> Vec<u8> {
    authenticated(redis).ask(&["INFO", "commandstats"])
}

fn reset_stats(redis: &Redis) {
    authenticated(redis).expect(&["CONFIG", "RESETSTAT"], "+OK\r\n");
}

/// A running `pontoon audit --watch 90s --json`.
struct Watching {
    process: Child,
    errors: Lines<BufReader<ChildStderr>>,
}

impl Watching {
    fn start(endpoint: &str, args: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_pontoon"))
            .args(["audit", endpoint, "--json", "--watch", "90s", "--every", "20ms"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = BufReader::new(process.stderr.take().unwrap()).lines();
        Self { process, errors }
    }

    /// Its next line on standard error.
    fn line(&mut self) -> String {
        self.errors.next().unwrap().unwrap()
    }

    fn end(mut self, signal: Signal) -> Audited {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
        let error = self.errors.by_ref().map(|line| line.unwrap() + "\n").collect();
        let mut text = Vec::new();
        self.process.stdout.take().unwrap().read_to_end(&mut text).unwrap();
        let report = serde_json::from_slice(&text).unwrap_or(Value::Null);
        Audited { code: self.process.wait().unwrap().code(), report, error }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Number of CLIENT subcommands that a server has executed.
fn client_commands(wire: &mut Wire) -> u64 {
    let stats = String::from_utf8(wire.ask(&["INFO", "commandstats"])).unwrap();
    let calls = |line: &str| {
        line.strip_prefix("cmdstat_client")?.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok()
    };
    stats.lines().filter_map(calls).sum()
}

/// Waits until audit has sampled the server a few more times.
fn sampled(wire: &mut Wire) {
    let before = client_commands(wire);
    eventually("the server is sampled", || client_commands(wire) > before + 10);
}

/// The client ids of audit's own connections.
fn own_connections(wire: &mut Wire) -> Vec<String> {
    let list = String::from_utf8(wire.ask(&["CLIENT", "LIST"])).unwrap();
    let own = list.lines().filter(|line| line.contains("name=pontoon-audit-"));
    own.map(|line| line.split(' ').find(|field| field.starts_with("id=")).unwrap().to_owned()).collect()
}

#[test]
fn a_watch_lists_every_client_that_was_connected_meanwhile() {
    let authority = Authority::new();
    for signal in [Signal::INT, Signal::TERM] {
        let redis = Redis::start(&authority);
        let mut wire = redis.direct();
        wire.expect(&["CLIENT", "SETNAME", "observer"], "+OK\r\n");
        let watching =
            Watching::start(&format!("127.0.0.1:{}", redis.plain_port), &["--tls-mode", "disabled"]);
        sampled(&mut wire);
        let own = own_connections(&mut wire);
        assert_eq!(own.len(), 1);
        let web = Program::redis_py_at(redis.plain_port, WEB);
        sampled(&mut wire);
        drop(web);
        sampled(&mut wire);
        assert_eq!(own_connections(&mut wire), own, "the connection stays open");
        let Audited { code, report, error } = watching.end(signal);
        let told = not_bridged();
        let web = named(&report, told, "web");
        assert_eq!((&web["clients"], &web["address"]), (&2.into(), &"127.0.0.1".into()), "{report}");
        assert!(web["commands"].as_array().unwrap().contains(&"hgetall".into()), "{report}");
        let times = ["first_seen", "last_seen"].map(|key| web[key].as_str().unwrap().to_owned());
        assert!(times[0] <= times[1] && *times[1] <= *report["ended"].as_str().unwrap(), "{report}");
        assert!(named(&report, told, "observer")["last_seen"] == report["ended"], "{report}");
        assert!(!report.to_string().contains("pontoon-audit-"), "audit lists itself: {report}");
        assert_eq!((code, report["nodes"][0]["unanswered_samples"].as_u64()), (Some(1), Some(0)), "{report}");
        assert!(
            error.starts_with(
                "error: 1 of 1 node accepts plaintext and does not count its plaintext clients. Up to "
            ),
            "{error}"
        );
    }
}

#[test]
fn a_watch_survives_a_node_that_does_not_answer_for_a_while() {
    let authority = Authority::new();
    let (primary, replica) = group(&authority);
    let ca = authority.file();
    let mut watching =
        Watching::start(&primary.endpoint(), &["--tls-ca-file", &ca, "--connect-timeout", "1s"]);
    let mut wire = primary.direct();
    sampled(&mut wire);
    let silent = format!("127.0.0.1:{}", replica.tls_port);
    replica.pause();
    let line = watching.line();
    assert!(line.contains(&format!("{silent}: no answer: ")), "{line}");
    let mut other = primary.direct();
    other.expect(&["CLIENT", "SETNAME", "meanwhile"], "+OK\r\n");
    sampled(&mut wire);
    replica.resume();
    let line = watching.line();
    assert!(line.contains(&format!("{silent}: answers again")), "{line}");
    let Audited { code, report, .. } = watching.end(Signal::TERM);
    let node = node(&report, &silent);
    assert_eq!((&node["problem"], code), (&Value::Null, Some(1)), "{report}");
    assert!(node["unanswered_samples"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(named(&report, not_bridged(), "meanwhile")["clients"], 1, "{report}");
    assert!(!report.to_string().contains("pontoon-audit-"), "audit lists itself: {report}");
}

#[test]
fn every_node_of_a_cluster_is_watched() {
    let cluster = Cluster::start();
    let ca = cluster.authority().file();
    let watching = Watching::start(&cluster.endpoint(), &["--tls-ca-file", &ca]);
    let mut wires = [0, 4].map(|node: usize| cluster.nodes[node].wire());
    for wire in &mut wires {
        wire.expect(&["CLIENT", "SETNAME", "web"], "+OK\r\n");
        sampled(wire);
    }
    let Audited { code, report, .. } = watching.end(Signal::INT);
    assert_eq!(
        (report["nodes"].as_array().unwrap().len(), code),
        (6, Some(i32::from(!Engine::here().tls))),
        "{report}"
    );
    assert_eq!(named(&report, not_bridged(), "web")["clients"], 2, "{report}");
}

#[test]
fn a_watch_that_saw_no_plaintext_client_exits_with_zero() {
    let authority = Authority::new();
    let refused = "-NOPERM this user has no permissions to run the 'client|list' command\r\n";
    let count = Arc::new(AtomicU32::new(0));
    let clean = Fake::counting(&authority, &count, refused);
    let args = ["--watch", "2s", "--every", "50ms"];
    let Audited { code, report, error } = audit(&clean.endpoint(), &authority, &args);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{report}");
    assert!(report["samples"].as_u64().unwrap() > 1, "{report}");

    count.store(2, Ordering::SeqCst);
    let Audited { code, error, .. } = audit(&clean.endpoint(), &authority, &args);
    assert_eq!((code, error.as_str()), (Some(1), "error: 2 clients are connected in plaintext\n"));
}

#[test]
fn a_watched_node_that_accepted_tls_is_not_asked_in_plaintext_again() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let dual = Dual::new(&redis, Mood::Accept, Mood::Accept);
    let ca = authority.file();
    let args = ["--tls-mode", "preferred", "--tls-ca-file", &ca, "--connect-timeout", "1s"];
    let mut watching = Watching::start(&dual.endpoint(), &args);
    sampled(&mut redis.direct());
    let before = dual.plaintext_connections();
    dual.set(Mood::Accept, Mood::Reset);
    dual.cut();
    let line = watching.line();
    assert!(line.contains("no answer"), "{line}");
    let tries = dual.tls_connections();
    eventually("TLS is tried again", || dual.tls_connections() > tries + 1);
    dual.set(Mood::Accept, Mood::Accept);
    let line = watching.line();
    assert!(line.contains("answers again"), "{line}");
    // One more may be that of the first sample, which tests whether plaintext is accepted.
    assert!(dual.plaintext_connections() <= before + 1);
    let report = watching.end(Signal::INT).report;
    assert_eq!(report["nodes"][0]["asked_in_plaintext"], Value::Null, "{report}");
}
