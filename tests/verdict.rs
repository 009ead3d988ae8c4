//! The verdict: can TLS be required, and is the bridge still needed? In `pontoon status`, `/routes` and the metrics.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Authority, Dual, Engine, Fake, Mood, Pontoon, Redis, eventually, pontoon, valkey};

/// The CLIENT LIST of a server without clients other than pontoon.
const NOBODY: &str = "$0\r\n\r\n";

fn route(pontoon: &Pontoon) -> Value {
    let routes: Value = serde_json::from_str(&pontoon.get("/routes").1).unwrap();
    routes[0].clone()
}

fn because(verdict: &Value) -> String {
    verdict["because"].to_string()
}

/// The exit code, and all that was printed.
fn status(of: &Pontoon, args: &[&str]) -> (Option<i32>, String) {
    let output = pontoon(&[&["status", "--admin", &of.admin().to_string()], args].concat());
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), text)
}

#[test]
fn without_evidence_from_the_servers_the_answer_is_no() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let unasked = Pontoon::to(&redis.endpoint(), &authority).ready();
    let (code, text) = status(&unasked, &["--fail-unless", "ready"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("safe to require TLS: no\n  - the servers are not asked"), "{text}");
    assert!(text.contains("error: TLS is not known to be safe to require: localhost"), "{text}");
    let (code, text) = status(&unasked, &[]);
    assert!(code == Some(0) && text.starts_with("serving\n\nROUTE"), "{text}");
    let json: Value = serde_json::from_str(&status(&unasked, &["--json"]).1).unwrap();
    assert_eq!(
        (&json["serving"], &json["routes"][0]["problems"]),
        (&Value::Bool(true), &Value::Array(Vec::new()))
    );
    // What this bridge itself uses needs no count from the servers.
    let (code, text) = status(&unasked, &["--fail-unless", "tls-only"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("uses only TLS: yes\n  + this bridge reaches its upstream over verified TLS"),
        "{text}"
    );
    assert_eq!(unasked.metric("pontoon_uses_only_tls", ""), 1);
    assert_eq!(unasked.metric("pontoon_safe_to_require_tls", ""), 0);
    assert!(route(&unasked)["servers"].is_null());

    // This engine does not count its clients in plaintext, which is not the same as zero.
    let asking = Pontoon::with(&redis.endpoint(), &authority, &["--evidence-interval", "50ms"]);
    asking.expects("do not count clients in plaintext");
    eventually("the server was asked", || {
        because(&route(&asking)["safe_to_require_tls"]).contains("does not count its clients in plaintext")
    });
    let reasons = because(&route(&asking)["safe_to_require_tls"]);
    let port = format!("has port {} for plaintext", redis.plain_port);
    assert!(reasons.contains(&port) && reasons.contains("set its `port` to 0"), "{reasons}");
    assert!(route(&asking)["servers"]["plaintext_clients"].is_null());
    assert_eq!(route(&asking)["servers"]["auth"], "not_wanted");
}

#[test]
fn a_group_that_refuses_plaintext_requires_tls_and_its_clients_may_stay() {
    let authority = Authority::new();
    let known = Engine::here();
    if !known.tls {
        return;
    }
    let of_valkey = (authority.issue(&["localhost"]), valkey());
    let servers = [Redis::start(&authority), Redis::of(&of_valkey.1, of_valkey.0, &authority, &[])];
    for redis in servers {
        let args = ["--evidence-interval", "50ms", "--verdict-quiet-for", "1h"];
        let pontoon = Pontoon::with(&redis.endpoint(), &authority, &args);
        pontoon.expects("do not count clients in plaintext");
        let mut client = pontoon.client();
        client.expect(&["PING"], "+PONG\r\n");
        eventually("the port for plaintext is found", || {
            because(&route(&pontoon)["safe_to_require_tls"]).contains("for plaintext: once")
        });
        // The operator turns plaintext off.
        client.expect(&["CONFIG", "SET", "port", "0"], "+OK\r\n");
        eventually("TLS is required", || route(&pontoon)["safe_to_require_tls"]["answer"] == true);
        let (code, text) = status(&pontoon, &["--fail-unless", "ready"]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("  + TLS is already required: the server refuses plaintext"), "{text}");
        assert!(text.contains("bridge still needed: yes"), "{text}");
        assert_eq!(route(&pontoon)["servers"]["requires_tls"], true);
        assert!(pontoon.get("/").1.contains("plaintext is refused"));
    }
}

#[test]
fn an_answer_or_silence_in_plaintext_does_not_count_as_refusal() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let dual = Dual::new(&redis, Mood::Accept, Mood::Accept);
    let args = ["--evidence-interval", "50ms", "--connect-timeout", "1s"];
    let pontoon = Pontoon::with(&dual.endpoint(), &authority, &args);
    pontoon.expects("do not count clients in plaintext");
    pontoon.allows("cannot be counted");
    let says = |words: &str| {
        let verdict = || route(&pontoon)["safe_to_require_tls"].clone();
        eventually(words, || because(&verdict()).contains(words));
        assert_eq!(verdict()["answer"], false);
    };
    says("and accepts plaintext");
    dual.set(Mood::Say(b"-NOAUTH Authentication required.\r\n"), Mood::Accept);
    says("and accepts plaintext");
    dual.set(Mood::Hang, Mood::Accept);
    says("it is not known whether it refuses plaintext: an attempt in plaintext failed: timed out");
    // The server sees pontoon's connection arrive at another address, so its own ports prove nothing.
    dual.set(Mood::Say(b"\x15\x03\x01\x00\x02\x02\x46"), Mood::Accept);
    let port = format!("has port {} for plaintext", redis.plain_port);
    let old = "does not report whether it has a plaintext port";
    eventually("the alert is a refusal", || {
        let reasons = because(&route(&pontoon)["safe_to_require_tls"]);
        reasons.contains(&port) || reasons.contains(old)
    });
    // Nothing but PING goes over a plaintext attempt.
    let ping = b"*1\r\n$4\r\nPING\r\n".len();
    dual.set(Mood::Close, Mood::Accept);
    eventually("no attempt is under way", || {
        dual.open_in_plaintext() == 0 && dual.plaintext_bytes().is_multiple_of(ping)
    });
}

#[test]
fn a_yes_has_evidence_and_ends_with_the_first_client_in_plaintext() {
    let authority = Authority::new();
    let plaintext = Arc::new(AtomicU32::new(0));
    let server = Fake::counting(&authority, &plaintext, NOBODY);
    let args = ["--evidence-interval", "50ms", "--verdict-quiet-for", "1s"];
    let pontoon = Pontoon::with(&server.endpoint(), &authority, &args);
    eventually("TLS is safe to require", || route(&pontoon)["safe_to_require_tls"]["answer"] == true);
    let (code, text) = status(&pontoon, &["--fail-unless", "ready"]);
    assert_eq!(code, Some(0), "{text}");
    for evidence in [
        "over verified TLS",
        "certificates are good until",
        "no session of this bridge",
        "by the count of 1 server",
    ] {
        assert!(text.contains(&format!("  + {evidence}")) || text.contains(evidence), "{evidence}: {text}");
    }
    assert_eq!(pontoon.metric("pontoon_safe_to_require_tls", ""), 1);
    assert_eq!(pontoon.metric("pontoon_server_plaintext_clients", ""), 0);

    plaintext.store(3, Ordering::SeqCst);
    pontoon.expects("servers count clients in plaintext");
    eventually("TLS is no longer safe to require", || {
        route(&pontoon)["safe_to_require_tls"]["answer"] == false
    });
    let (code, text) = status(&pontoon, &["--fail-unless", "ready", "--json"]);
    assert!(code == Some(1) && text.contains("counts clients in plaintext: 3"), "{text}");
    assert_eq!(pontoon.metric("pontoon_safe_to_require_tls", ""), 0);
    assert_eq!(pontoon.metric("pontoon_server_plaintext_clients", ""), 3);
    plaintext.store(0, Ordering::SeqCst);
    eventually("TLS is safe to require again, a second later", || {
        route(&pontoon)["safe_to_require_tls"]["answer"] == true
    });
}

#[test]
fn a_plaintext_client_between_two_surveys_is_seen() {
    let authority = Authority::new();
    let plaintext = Arc::new(AtomicU32::new(0));
    let server = Fake::counting(&authority, &plaintext, NOBODY);
    let args = ["--evidence-interval", "1h", "--verdict-quiet-for", "1s"];
    let pontoon = Pontoon::with(&server.endpoint(), &authority, &args);
    eventually("TLS is safe to require", || route(&pontoon)["safe_to_require_tls"]["answer"] == true);
    let evidence = route(&pontoon)["safe_to_require_tls"]["evidence"].to_string();
    assert!(
        evidence.contains("asked every 800ms") && evidence.contains("longest time between"),
        "{evidence}"
    );
    pontoon.expects("servers count clients in plaintext");
    plaintext.store(1, Ordering::SeqCst);
    eventually("the next sample shows the client", || {
        route(&pontoon)["safe_to_require_tls"]["answer"] == false
    });
}

#[test]
fn a_node_that_joins_is_asked_before_the_next_survey() {
    let authority = Authority::new();
    let (plaintext, replicas) = (Arc::new(AtomicU32::new(1)), Arc::new(Mutex::new(String::new())));
    let primary = Fake::primary(&authority, &Arc::default(), NOBODY, &replicas);
    let joining = Fake::counting(&authority, &plaintext, NOBODY);
    let args = ["--evidence-interval", "1h", "--verdict-quiet-for", "1s"];
    let pontoon = Pontoon::with(&primary.endpoint(), &authority, &args);
    eventually("TLS is safe to require", || route(&pontoon)["safe_to_require_tls"]["answer"] == true);
    pontoon.allows("clients of the server cannot be counted");
    pontoon.expects("servers count clients in plaintext");
    *replicas.lock().unwrap() =
        format!("slave0:ip=127.0.0.1,port={},state=online,offset=1,lag=0\r\n", joining.port());
    eventually("the new node's clients count", || {
        because(&route(&pontoon)["safe_to_require_tls"]).contains("counts clients in plaintext")
    });
    plaintext.store(0, Ordering::SeqCst);
    eventually("the plaintext clients are gone", || route(&pontoon)["safe_to_require_tls"]["answer"] == true);
    assert_eq!(route(&pontoon)["servers"]["nodes"], 2);
}

#[test]
fn a_node_that_was_seen_counts_even_if_no_server_names_it_now() {
    let authority = Authority::new();
    let lost = Fake::counting(&authority, &Arc::default(), NOBODY);
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state.json");
    let server = Fake::counting(&authority, &Arc::default(), NOBODY);
    // What an earlier process knew.
    let servers = format!("localhost {}", server.endpoint());
    let known = serde_json::json!({"version": 1, "tls_since": {}, "servers": {servers: {"nodes": [lost.endpoint()]}}});
    fs::write(&state, known.to_string()).unwrap();
    let args = [
        "--state-file",
        state.to_str().unwrap(),
        "--evidence-interval",
        "100ms",
        "--verdict-quiet-for",
        "1s",
    ];
    let pontoon = Pontoon::with(&server.endpoint(), &authority, &args);
    pontoon.allows("cannot be counted");
    eventually("both nodes are asked", || route(&pontoon)["servers"]["nodes"] == 2);
    drop(lost);
    eventually("the lost node is missed", || {
        because(&route(&pontoon)["safe_to_require_tls"])
            .contains("it was a node of the group and does not answer")
    });
    eventually("all other nodes agree that the node is gone", || {
        route(&pontoon)["safe_to_require_tls"]["answer"] == true
    });
}

#[test]
fn another_process_at_a_nodes_address_is_not_believed() {
    let authority = Authority::new();
    let server = Fake::counting(&authority, &Arc::default(), NOBODY);
    let replicas =
        Arc::new(Mutex::new("slave0:ip=127.0.0.1,port=1,state=online,offset=1,lag=0\r\n".to_owned()));
    let stranger = Fake::primary(&authority, &Arc::default(), NOBODY, &replicas);
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state.json");
    let servers = format!("localhost {}", server.endpoint());
    let memory =
        serde_json::json!({"nodes": [stranger.endpoint()], "processes": {stranger.endpoint(): "another"}});
    let known = serde_json::json!({"version": 1, "tls_since": {}, "servers": {servers: memory}});
    fs::write(&state, known.to_string()).unwrap();
    let (state, quick) = (state.to_str().unwrap(), "100ms");
    let args = ["--state-file", state, "--evidence-interval", quick, "--verdict-quiet-for", "1s"];
    let pontoon = Pontoon::with(&server.endpoint(), &authority, &args);
    pontoon.allows("cannot be counted");
    eventually("the node is missed, and gone in the end", || {
        let route = route(&pontoon);
        assert!(!route.to_string().contains("127.0.0.1:1\""), "{route}");
        route["safe_to_require_tls"]["answer"] == true
    });
}

#[test]
fn only_one_of_a_groups_two_names_has_to_answer() {
    let authority = Authority::new();
    let server = Fake::counting(&authority, &Arc::default(), NOBODY);
    let old = format!("old.cache.test:{}", server.port());
    let args = ["--upstream", &old, "--evidence-interval", "50ms", "--verdict-quiet-for", "1s"];
    let pontoon = Pontoon::with(&server.endpoint(), &authority, &args);
    pontoon.allows("no such host");
    eventually("TLS is safe to require", || route(&pontoon)["safe_to_require_tls"]["answer"] == true);
}

#[test]
fn what_is_not_verified_or_expires_soon_is_not_safe() {
    let authority = Authority::new();
    let server = Fake::counting(&authority, &Arc::default(), NOBODY);
    let args = [
        "--evidence-interval",
        "50ms",
        "--verdict-quiet-for",
        "0s",
        "--verdict-certificate-left",
        "1000000d",
        "--tls-insecure-skip-verify",
    ];
    let pontoon = Pontoon::with(&server.endpoint(), &authority, &args);
    pontoon.expects("any certificate is accepted");
    pontoon.allows("certificate must be renewed");
    eventually("the server was asked", || !route(&pontoon)["servers"]["asked"].is_null());
    let reasons = because(&route(&pontoon)["safe_to_require_tls"]);
    assert!(
        reasons.contains("does not verify certificates") && reasons.contains("in less than"),
        "{reasons}"
    );
    assert!(pontoon.metric("pontoon_tls_certificate_expiry_timestamp_seconds", "") > 1_700_000_000);
}

#[test]
fn the_bridge_is_needed_until_it_has_been_unused_for_long_enough() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--verdict-unused-for", "1s"]);
    let mut client = pontoon.client();
    client.expect(&["CLIENT", "SETNAME", "shop"], "+OK\r\n");
    let (code, text) = status(&pontoon, &["--fail-unless", "unused"]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("bridge still needed: yes\n  - ") && text.contains("named shop, sessions now: 1"),
        "{text}"
    );
    assert_eq!(pontoon.metric("pontoon_bridge_needed", ""), 1);
    drop(client);
    eventually("the bridge is no longer needed", || {
        status(&pontoon, &["--fail-unless", "unused"]).0 == Some(0)
    });
    assert!(status(&pontoon, &[]).1.contains("bridge still needed: no\n  - unused for "));
    assert_eq!(pontoon.metric("pontoon_bridge_needed", ""), 0);
}

#[test]
fn a_restart_forgets_neither_plaintext_nor_the_clients() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state.json");
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let dual = Dual::new(&redis, Mood::Accept, Mood::Reset);
    let start = || {
        let args = ["--tls-mode", "preferred", "--state-file", file.to_str().unwrap()];
        let pontoon = Pontoon::with(&dual.endpoint(), &authority, &args);
        pontoon.allows("traffic is in plaintext");
        pontoon.allows("transit encryption observed: plaintext only");
        pontoon
    };
    let mut before = start();
    let mut client = before.client();
    client.expect(&["CLIENT", "SETNAME", "shop"], "+OK\r\n");
    let shown = route(&before);
    assert_eq!(shown["plaintext"]["sessions_active"], 1, "{shown}");
    assert_eq!(shown["plaintext"]["bytes_over_tls_ratio"], 0.0);
    eventually("that is known", || route(&before)["upstreams"][0]["seen"] == "disabled");
    let (code, text) = status(&before, &["--fail-unless", "tls-only"]);
    assert!(code == Some(1) && text.contains("error: the bridge does not use only TLS: localhost"), "{text}");
    assert!(text.contains("set tls.upgrade = \"drain\""), "{text}");
    assert_eq!(before.metric("pontoon_uses_only_tls", ""), 0);
    let reasons = because(&route(&before)["safe_to_require_tls"]);
    assert!(reasons.contains("plaintext only") && reasons.contains("in plaintext now: 1"), "{reasons}");

    dual.set(Mood::Accept, Mood::Accept);
    eventually("TLS is seen", || route(&before)["upstreams"][0]["seen"] == "tls");
    before.client().expect(&["PING"], "+PONG\r\n");
    let shown = route(&before);
    assert_eq!(shown["plaintext"]["sessions_over_tls_ratio"], 0.5, "{shown}");
    assert!(!because(&shown["safe_to_require_tls"]).contains("plaintext only"), "{shown}");
    before.signal(Signal::TERM);
    before.wait();

    let after = start().ready();
    let shown = route(&after);
    assert_eq!(shown["plaintext"]["sessions_active"], 0);
    assert!(shown["plaintext"]["last"].is_string(), "{shown}");
    assert!(because(&shown["safe_to_require_tls"]).contains("in plaintext ended at"), "{shown}");
    assert!(because(&shown["bridge_needed"]).contains("named shop, last seen at"), "{shown}");
}
