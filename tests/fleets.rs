//! `pontoon fleet`: many bridges, one answer for each group.

use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::harness::{Authority, Engine, Hosts, Pontoon, Redis, eventually, pontoon, pontoon_with_hosts};

/// The exit code, standard output, standard error.
pub fn fleet(args: &[&str]) -> (Option<i32>, String, String) {
    let output = pontoon(&[&["fleet"], args].concat());
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// How a simulated bridge answers.
#[derive(Clone)]
enum Manner {
    Tells { routes: Arc<str>, clients: Arc<str> },
    Nothing,
    Endless,
    EndlessHead,
    Garbage,
    Closes,
}

impl Manner {
    fn telling(routes: &Value, clients: &Value) -> Self {
        Self::Tells { routes: routes.to_string().into(), clients: clients.to_string().into() }
    }
}

async fn answer(mut stream: TcpStream, manner: Manner) {
    let mut request = [0; 1024];
    let Ok(count @ 1..) = stream.read(&mut request).await else { return };
    let asks_routes = request[..count].starts_with(b"GET /routes ");
    let body = match manner {
        Manner::Closes => return,
        Manner::Nothing => {
            // Until the client gives up.
            let _ = stream.read(&mut request).await;
            return;
        }
        Manner::Endless => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n[").await;
            while stream.write_all(&[b' '; 4096]).await.is_ok() {}
            return;
        }
        Manner::EndlessHead => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
            while stream.write_all(b"X-More: and more\r\n").await.is_ok() {}
            return;
        }
        Manner::Garbage => "\u{1b}[2J[{\"route\":\"\u{1b}[2J\"".into(),
        Manner::Tells { routes, clients } => {
            if asks_routes {
                routes
            } else {
                clients
            }
        }
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let _ = stream.write_all((head + &body).as_bytes()).await;
}

/// Starts a simulated bridge for each manner, and returns their addresses. They end with the test's process.
fn simulated(manners: Vec<Manner>) -> Vec<SocketAddr> {
    crate::harness::raise_descriptor_limit();
    let (tell, mut addresses) = mpsc::unbounded_channel();
    let count = manners.len();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let tasks = tokio::task::LocalSet::new();
        tasks.spawn_local(async move {
            for manner in manners {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                tokio::task::spawn_local(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::task::spawn_local(answer(stream, manner.clone()));
                    }
                });
            }
        });
        runtime.block_on(tasks);
    });
    (0..count).map(|_| addresses.blocking_recv().unwrap()).collect()
}

/// A route that uses only TLS, asks no server and is unused.
fn route(endpoint: &str) -> Value {
    json!({"route": "cache", "listeners": ["127.0.0.1:6379"], "tls_mode": "preferred",
        "upstreams": [{"endpoint": endpoint, "seen": "tls", "certificate_expires": "2027-01-01T00:00:00Z"}],
        "sessions_active": 1, "sessions_total": 7, "commands": 70, "bytes_to_upstream": 1, "bytes_to_client": 1,
        "plaintext": {"sessions_active": 0, "sessions_total": 0, "last": null, "sessions_over_tls_ratio": 1.0,
            "bytes_over_tls_ratio": 1.0},
        "problems": [], "servers": null,
        "uses_only_tls": {"answer": true, "because": [], "evidence": ["it does"]},
        "safe_to_require_tls": {"answer": false, "because": ["the servers are not asked"], "evidence": []},
        "bridge_needed": {"answer": false, "because": [], "evidence": ["unused for 9 days"]}})
}

/// As [`route`], for a bridge that asks the servers, and whose verdict is yes.
fn asking(endpoint: &str) -> Value {
    let mut route = route(endpoint);
    let list = json!([{"endpoint": "10.0.0.7:6379", "names": ["10.0.0.7:6379", "run_id a"], "plaintext_clients": 0,
        "problem": null}]);
    route["servers"] = json!({"asked": "2026-01-01T00:00:00Z", "nodes": 1, "list": list, "plaintext_clients": 0,
        "quiet_since": "2025-12-01T00:00:00Z", "auth": "not_wanted", "direct": []});
    route["safe_to_require_tls"] =
        json!({"answer": true, "because": [], "evidence": ["no client was in plaintext"]});
    route
}

fn nobody() -> Value {
    json!({"sessions": [], "sessions_total": 0, "clients": [], "clients_total": 0, "clients_forgotten": 0, "libraries": []})
}

fn client(process: &str, active: u64) -> Value {
    json!({"route": "cache", "process": process, "uid": 1000, "container": null,
        "library": {"name": "redis-py", "version": "5.0.1", "guessed": false}, "client_name": null, "own_tls": false,
        "first_seen": "2026-01-01T00:00:00Z", "last_seen": "2026-01-01T00:00:00Z", "sessions": 7, "active": active,
        "commands": 70})
}

const GROUP: &str = "master.sessions.example:6379";

#[test]
fn five_hundred_bridges_get_one_answer_and_hostile_ones_do_not_stop_it() {
    let mut used = route(GROUP);
    used["bridge_needed"] = json!({"answer": true, "because": ["web, redis-py 5.0.1"], "evidence": []});
    let clients: Vec<Value> = (0..100).map(|number| client(&format!("web-{}", number % 20), 1)).collect();
    let clients = json!({"sessions": [], "sessions_total": 0, "clients": clients, "clients_total": 100,
        "clients_forgotten": 0, "libraries": []});
    let usual = Manner::telling(&json!([used]), &clients);
    let mut manners = vec![usual; 500];
    manners[0] = Manner::telling(&json!([asking(GROUP)]), &nobody());
    for (number, manner) in [
        (100, Manner::Nothing),
        (200, Manner::Endless),
        (300, Manner::Garbage),
        (400, Manner::Closes),
        (450, Manner::EndlessHead),
    ] {
        manners[number] = manner;
    }
    let addresses = simulated(manners);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bridges");
    fs::write(&file, addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")).unwrap();

    let mut asked = Command::new(env!("CARGO_BIN_EXE_pontoon"))
        .args(["fleet", "--json", "--fail-unless", "ready", "--expect", "500", "--timeout", "10s", "--from"])
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = asked.stdout.take().unwrap();
    let mut text = vec![0];
    stdout.read_exact(&mut text).unwrap();
    // The program has all answers, and waits until the rest of its output is read: that is more than a pipe holds.
    let status = fs::read_to_string(format!("/proc/{}/status", asked.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    eprintln!("peak memory of 500 bridges: {peak} KiB");
    stdout.read_to_end(&mut text).unwrap();
    assert!(text.len() > 65536, "{}", text.len());
    assert!(peak < 40 * 1024, "{peak} KiB");
    let output = asked.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error, format!("error: TLS is not known to be safe to require: {GROUP}\n"));

    let report: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!((&report["bridges_asked"], &report["bridges_answered"]), (&json!(500), &json!(495)));
    let silent = report["silent"].as_array().unwrap();
    for ((number, words), silent) in [
        (100, "no response within 10s"),
        (200, "more than 1048576 bytes"),
        (300, "the answer is not one of this pontoon version"),
        (400, "connection closed"),
        (450, ""),
    ]
    .iter()
    .zip(silent)
    {
        assert_eq!(silent["bridge"], addresses[*number].to_string(), "{silent}");
        assert!(silent["problem"].as_str().unwrap().contains(words), "{silent}");
    }
    let [group] = report["groups"].as_array().unwrap().as_slice() else { panic!("{}", report["groups"]) };
    assert_eq!((&group["bridges"], &group["bridges_asking"]), (&json!(495), &json!(1)));
    let because = group["safe_to_require_tls"]["because"].as_array().unwrap();
    assert_eq!(because.len(), 2, "five are silent, so too few answered: {because:?}");
    let named = format!(
        "no usable answer from {}, {}, {} and 2 more",
        addresses[100], addresses[200], addresses[300]
    );
    assert_eq!(because[0], named);
    assert_eq!(group["clients"].as_array().unwrap().len(), 20);
    assert_eq!(
        (&group["clients"][0]["bridges"], &group["clients"][0]["sessions_active"]),
        (&json!(494), &json!(2470))
    );
    assert_eq!(group["routes"].as_array().unwrap().len(), 495);
    assert!(group["ticket"].as_str().unwrap().contains("evidence as of 20"));
}

#[test]
fn bridges_that_all_answer_are_ready_and_a_missing_one_is_named() {
    let tell = |route: Value| Manner::telling(&json!([route]), &nobody());
    let addresses = simulated(vec![
        tell(asking(GROUP)),
        tell(route(GROUP)),
        // Another name, and a server in common.
        tell(asking("replica.sessions.example:6379")),
        Manner::Closes,
    ]);
    let [first, second, third, closing] = addresses.as_slice() else { unreachable!() };
    let named = [first, second, third, closing].map(ToString::to_string);
    let [first, second, third, closing] = named.each_ref().map(String::as_str);
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("fleet.json").display().to_string();

    for unless in ["tls-only", "ready", "unused"] {
        let (code, text, error) =
            fleet(&[first, second, third, "--state", &state, "--expect", "3", "--fail-unless", unless]);
        assert_eq!(code, Some(0), "{text}{error}");
        for words in [
            "bridges asked: 3, answered: 3, expected: 3\n",
            "group master.sessions.example:6379\n  evidence as of 20",
            "  endpoints: master.sessions.example:6379, replica.sessions.example:6379\n",
            "  servers that answered: 1 of 1, plaintext clients by their counts: 0, asked last at 2026-01-01T00:00:00Z\n",
            "uses only TLS: yes\n",
            "safe to require TLS: yes\n",
            "no client was in plaintext\n",
            "bridge still needed: no\n",
            "\n\n1 group: 1 safe to require TLS\n",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
    let (code, text, _) = fleet(&[first, second, third, "--expect", "4", "--fail-unless", "ready"]);
    assert!(code == Some(1) && text.contains("3 of 4 expected bridges answered"), "{text}");
    // This bridge does not answer. It is asked because it answered before.
    let remembered = fs::read_to_string(&state).unwrap();
    fs::write(&state, remembered.replace(third, closing)).unwrap();
    let (code, text, _) = fleet(&[first, second, "--state", &state, "--fail-unless", "tls-only"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("uses only TLS: no\n  - no usable answer from {closing}\n")), "{text}");
    let (code, text, _) =
        fleet(&[first, second, "--state", &state, "--forget", closing, "--fail-unless", "tls-only"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(!fs::read_to_string(&state).unwrap().contains(closing));
    for (text, problem) in [
        ("{}", "is not a state file of `pontoon fleet`: missing field"),
        (r#"{"version": 2, "bridges": {}}"#, "has version 2, but this pontoon reads version 1"),
        (r#"{"version": 1, "bridges": {"a b": "2026-01-01T00:00:00Z"}}"#, "names the bridge \"a b\": "),
    ] {
        fs::write(&state, text).unwrap();
        let (code, _, error) = fleet(&[first, "--state", &state]);
        let remedy = "restore the file, or remove it and name every bridge again";
        assert!(code == Some(2) && error.contains(problem) && error.contains(remedy), "{error}");
        assert!(error.contains(&state) && fs::read_to_string(&state).unwrap() == text, "{error}");
    }
    let folder = directory.path().to_str().unwrap();
    let (code, _, error) = fleet(&[first, "--state", folder]);
    assert!(code == Some(2) && error.contains("cannot be read: "), "{error}");
}

#[test]
fn a_name_stands_for_all_of_its_addresses() {
    let told = Manner::telling(&json!([route(GROUP)]), &nobody());
    let port = simulated(vec![told])[0].port();
    let hosts = Hosts::new(&[]);
    hosts.set_addresses(
        "bridges.test",
        &["127.0.0.1:1", "127.0.0.9:1"].map(|address| address.parse().unwrap()),
    );
    let name = format!("bridges.test:{port}");
    let output = pontoon_with_hosts(&hosts, &["fleet", &name, "gone.test", "--timeout", "2s"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("bridges asked: 2, answered: 1\n"), "{text}");
    assert!(text.contains(&format!("  - 127.0.0.9:{port}: ")), "{text}");
    assert!(text.contains("  - gone.test:9900: the name has no address\n"), "{text}");
}

#[test]
fn answers_of_bridges_cannot_steer_the_terminal() {
    let hostile = "\u{1b}[2J\u{202e}";
    let mut told = asking(GROUP);
    told["route"] = hostile.into();
    told["group"] = hostile.into();
    told["upstreams"][0]["endpoint"] = hostile.into();
    told["servers"]["list"][0]["endpoint"] = hostile.into();
    told["servers"]["list"][0]["problem"] = hostile.into();
    for verdict in ["uses_only_tls", "safe_to_require_tls", "bridge_needed"] {
        told[verdict] =
            json!({"answer": verdict == "bridge_needed", "because": [hostile], "evidence": [hostile]});
    }
    let mut user = client(hostile, 1);
    user["route"] = hostile.into();
    let clients = json!({"clients": [user], "clients_total": 1});
    let address = simulated(vec![Manner::telling(&json!([told]), &clients)])[0].to_string();
    for args in [&["--fail-unless", "ready"][..], &["--json"]] {
        let (_, text, error) = fleet(&[&[&*address], args].concat());
        assert!(text.contains("2J"), "{text}");
        assert!((text + &error).chars().all(|c| c == '\n' || (!c.is_control() && c != '\u{202e}')));
    }
}

#[test]
fn unreachable_bridges_are_a_failure_and_no_bridge_is_a_usage_error() {
    let (code, _, error) = fleet(&[]);
    assert!(code == Some(2) && error.contains("no bridge is given"), "{error}");
    let closing = simulated(vec![Manner::Closes])[0].to_string();
    let (code, text, error) = fleet(&[&closing]);
    assert!(code == Some(1) && error.contains("no bridge answered"), "{text}{error}");
    let (code, _, error) = fleet(&["--from", "/nonexistent/bridges"]);
    assert!(code == Some(2) && error.contains("/nonexistent/bridges: "), "{error}");
}

#[test]
fn real_bridges_are_grouped_by_the_servers_they_lead_to() {
    let authority = Authority::new();
    if !Engine::here().tls {
        return;
    }
    let (one, other) = (Redis::start(&authority), Redis::start(&authority));
    let asks = ["--evidence-interval", "50ms", "--group"];
    let with = |redis: &Redis, args: &[&str]| {
        let bridge = Pontoon::with(&redis.endpoint(), &authority, args);
        bridge.allows("do not count clients in plaintext");
        bridge.ready()
    };
    let bridges = [
        with(&one, &asks[..2]),
        with(&one, &asks[..2]),
        with(&other, &[&asks[..], &["orders"]].concat()),
        with(&other, &["--group", "orders"]),
    ];
    let mut client = bridges[0].client();
    client.expect(&["CLIENT", "SETNAME", "worker"], "+OK\r\n");
    for redis in [&one, &other] {
        redis.direct().expect(&["CONFIG", "SET", "port", "0"], "+OK\r\n");
    }
    let admins: Vec<String> = bridges.iter().map(|bridge| bridge.admin().to_string()).collect();
    let all: Vec<&str> = admins.iter().map(String::as_str).collect();
    eventually("all groups are ready", || {
        fleet(&[&all[..], &["--fail-unless", "ready"]].concat()).0 == Some(0)
    });
    let (_, text, _) = fleet(&[&all[..], &["--json"]].concat());
    let report: Value = serde_json::from_str(&text).unwrap();
    crate::json::assert_documented("fleet", &report);
    let groups = report["groups"].as_array().unwrap();
    let counts: Vec<_> =
        groups.iter().map(|group| (group["bridges"].clone(), group["bridges_asking"].clone())).collect();
    assert_eq!(counts, [(json!(2), json!(2)), (json!(2), json!(1))], "{report}");
    assert_eq!(groups[1]["group"], "orders");
    let (code, text, error) = fleet(&[&all[..], &["--fail-unless", "unused"]].concat());
    assert!(code == Some(1) && error.contains("the bridge is still needed: "), "{error}");
    assert!(text.contains("PROCESS") && text.contains("TO SPEAK TLS ITSELF"), "{text}");
}
