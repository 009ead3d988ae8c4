//! `pontoon audit`: who is connected to a group, asked of each of its nodes.

use std::io::Write;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use serde_json::Value;

use crate::harness::{
    Authority, Cluster, Engine, Fake, Pontoon, Redis, Wire, eventually, pontoon, pontoon_with_hosts, valkey,
};
use crate::inventory::Program;

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
    Audited { code: output.status.code(), report, error }
}

fn node<'a>(report: &'a Value, endpoint: &str) -> &'a Value {
    let nodes = report["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["endpoint"] == endpoint).unwrap_or_else(|| panic!("{endpoint}: {report}"))
}

/// A group of one primary and one replica, which replicate over TLS as they serve.
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

/// As what a client counts that has a name of its own, and does not come through the bridge. Where there are no names of libraries it may
/// be bridged all the same.
fn not_bridged() -> &'static str {
    if Engine::here().has_library_names() { "direct" } else { "unknown" }
}

#[test]
fn every_node_of_a_group_is_asked_and_its_clients_are_told_apart() {
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
    assert_eq!(first["bridged"], 1, "the bridge's client, and neither ourselves nor the replica: {report}");
    // Announced by address, verified by the group's name.
    let second = node(&report, &format!("127.0.0.1:{}", replica.tls_port));
    assert_eq!((second["role"].as_str(), second[told].as_u64()), (Some("slave"), Some(1)), "{report}");
    let clients = &report[told][0];
    assert_eq!(
        (&clients["name"], &clients["clients"], &clients["address"]),
        (&"web".into(), &3.into(), &"127.0.0.1".into())
    );
    // This engine does not count its plaintext clients: that is not zero.
    assert_eq!((code, first["plaintext_clients"].is_null()), (Some(1), true));
    assert!(error.contains("do not count their plaintext clients"), "{error}");
}

#[test]
fn a_node_that_does_not_answer_is_not_left_out() {
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
        assert_eq!((nodes.len(), code), (6, Some(1)), "{report}");
        assert!(error.contains("6 of 6 nodes do not count their plaintext clients"), "{error}");
        for (number, wanted) in cluster.nodes.iter().enumerate() {
            // The first one is known as it was asked for.
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
            // Before 7.0 a server does not count subcommands apart.
            let once = Engine::here().is_before_7() || lists.contains("cmdstat_client|list:calls=1,");
            assert!(once, "{name} was asked once: {lists}");
        }
        let others = report[not_bridged()].as_array().unwrap();
        assert_eq!((others.len(), &others[0]["name"], &others[0]["clients"]), (1, &"web".into(), &3.into()));
    }
}

/// What a library says of itself as it begins.
fn introduce(wire: &mut Wire, library: &str) {
    wire.ask(&["CLIENT", "SETINFO", "LIB-NAME", library]);
    wire.ask(&["CLIENT", "SETINFO", "LIB-VER", "1.0"]);
}

/// A program with redis-py as it comes, in both protocols.
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
fn bridged_and_direct_clients_are_told_apart_whatever_they_say_of_themselves() {
    let (dedicated, shared) = (["--sharing", "dedicated"], ["--sharing", "shared"]);
    let (once, again) = (["--pool-reuse", "false"], ["--pool-reuse", "true"]);
    for args in [[dedicated, once], [dedicated, again], [shared, again]].map(|args| args.concat()) {
        let authority = Authority::new();
        let redis = Redis::of(&valkey(), authority.issue(&["localhost"]), &authority, &[]);
        let bridge =
            Pontoon::with(&redis.endpoint(), &authority, &[&args[..], &["--workers", "1"]].concat()).ready();
        let _program = redis_py(&bridge);
        // One before has left its name with the connection.
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
fn a_client_that_cannot_be_told_apart_is_not_called_direct() {
    // Others are asked in the test above.
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
    assert!(
        text.contains("may come through a bridge or not") && !text.contains("come through no bridge"),
        "{text}"
    );
}

#[test]
fn a_client_that_authenticates_itself_and_names_no_library_is_not_called_direct() {
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
fn a_group_is_clean_when_every_node_counts_no_client_in_plaintext() {
    let authority = Authority::new();
    let refused = "-NOPERM this user has no permissions to run the 'client|list' command\r\n";
    let clean = Fake::counting(&authority, &Arc::default(), refused);
    let Audited { code, report, error } = audit(&clean.endpoint(), &authority, &[]);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{report}");
    assert_eq!(report["nodes"][0]["plaintext_clients"], 0);
    // What it does not tell is not known.
    assert!(report["nodes"][0]["direct"].is_null());
    assert!(report["nodes"][0]["list_refused"].as_str().unwrap().starts_with("NOPERM"));

    let dirty = Fake::counting(&authority, &Arc::new(AtomicU32::new(3)), refused);
    let Audited { code, error, .. } = audit(&clean.endpoint(), &authority, &[&dirty.endpoint()]);
    assert_eq!((code, error.as_str()), (Some(1), "error: 3 clients are connected in plaintext\n"));
}

#[test]
fn credentials_are_presented_and_a_refusal_is_told() {
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
        "anybody could ask for the password"
    );
    let absent = audit(&redis.endpoint(), &authority, &["--auth-password-file", "/nonexistent/secret"]);
    assert_eq!(absent.code, Some(2));
}
