//! One port for clients in plaintext and clients that bring their own TLS.

use std::process::{Command, Output};

use rustix::process::Signal;

use crate::harness::{Authority, Pontoon, Redis, Wire, eventually, programs};

fn any(redis: &Redis, authority: &Authority, args: &[&str]) -> Pontoon {
    Pontoon::with(&redis.endpoint(), authority, &[&["--accept", "any"], args].concat())
}

/// `redis-cli` over TLS, which verifies the server's name.
fn redis_cli_over_tls(pontoon: &Pontoon, authority: &Authority, words: &[&str]) -> Output {
    let port = pontoon.address().port().to_string();
    let flags =
        ["-h", "localhost", "-p", &port, "--tls", "--cacert", &authority.file(), "--sni", "localhost"];
    // A `redis-cli` that hangs fails.
    Command::new("timeout")
        .arg("30")
        .arg(programs::redis_cli_over_tls())
        .args(flags)
        .args(words)
        .output()
        .unwrap()
}

#[test]
fn clients_of_both_kinds_share_a_port_and_are_counted_separately() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    // No connection is dialled in advance, because the test counts handshakes.
    let pontoon = any(&redis, &authority, &["--pool-warm", "false"]).ready();
    pontoon.client().expect(&["SET", "k", "plain"], "+OK\r\n");
    let handshakes = pontoon.metric("pontoon_tls_handshakes_total", "");
    let output = redis_cli_over_tls(&pontoon, &authority, &["GET", "k"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "plain\n", "{output:?}");
    assert_eq!(pontoon.metric("pontoon_sessions_passthrough_total", ""), 1);
    assert!(pontoon.metric("pontoon_relayed_bytes_total", "tls=\"passthrough\"") > 1000);
    assert_eq!(
        pontoon.metric("pontoon_tls_handshakes_total", ""),
        handshakes,
        "pontoon makes no handshake for a client with its own TLS"
    );
    pontoon.client().expect(&["GET", "k"], "$5\r\nplain\r\n");
    let routes: serde_json::Value = serde_json::from_str(&pontoon.get("/routes").1).unwrap();
    assert_eq!(routes[0]["plaintext"]["sessions_total"], 0, "{routes}");
}

#[test]
fn a_client_with_its_own_tls_is_admitted_only_if_configured() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::to(&redis.endpoint(), &authority);
    pontoon.expects("it speaks TLS to a listener for plaintext");
    let output = redis_cli_over_tls(&pontoon, &authority, &["PING"]);
    let words = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(!output.status.success() && words.contains("alert handshake failure"), "{words}");
    assert_eq!(pontoon.metric("pontoon_sessions_passthrough_total", ""), 0);
    assert!(pontoon.metric("pontoon_clients_refused_total", "reason=\"tls\"") >= 1);
}

#[test]
fn a_client_with_its_own_tls_is_closed_if_its_upstream_is_gone() {
    let authority = Authority::new();
    let mut redis = Redis::start(&authority);
    let pontoon = any(&redis, &authority, &[]).ready();
    pontoon.allows("localhost");
    redis.kill();
    let output = redis_cli_over_tls(&pontoon, &authority, &["PING"]);
    assert!(String::from_utf8_lossy(&output.stderr).to_lowercase().contains("alert handshake failure"));
    eventually("the session is counted", || pontoon.metric("pontoon_sessions_total", "end=\"failed\"") >= 1);
}

#[test]
fn unix_sockets_accept_both_kinds_too() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listen = format!("unix:{}", path.display());
    let _pontoon = any(&redis, &authority, &["--listen", &listen]);
    Wire::unix(&path).expect(&["PING"], "+PONG\r\n");
}

#[test]
fn a_client_that_has_sent_nothing_does_not_delay_the_drain() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let mut pontoon = any(&redis, &authority, &["--drain-timeout", "10m"]);
    let mut silent = pontoon.client();
    eventually("the client has a session", || pontoon.metric("pontoon_sessions_active", "") == 1);
    pontoon.signal(Signal::TERM);
    silent.expect_end();
    assert!(pontoon.wait().success());
}

#[test]
fn a_client_that_never_sends_anything_is_closed_after_the_idle_timeout() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = any(&redis, &authority, &["--idle-timeout", "100ms"]);
    pontoon.client().expect_end();
    eventually("the session is counted", || pontoon.metric("pontoon_sessions_total", "end=\"idle\"") == 1);
}
