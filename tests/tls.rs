//! TLS or nothing: what is trusted, what is refused, and what the client receives.

use std::io::{Read, Write};
use std::sync::Arc;

use crate::harness::{
    Authority, Fake, Identity, Pontoon, Redis, clients_share, command, eventually, uninterrupted,
};

/// The reply to a client of a bridge that reaches no upstream. Asserts that the connection ends after it.
#[track_caller]
fn refusal(pontoon: &Pontoon) -> String {
    let mut client = pontoon.client();
    let reply = String::from_utf8(client.ask(&["PING"])).unwrap();
    client.expect_end();
    reply
}

fn redis_with(identity: Identity, authority: &Authority) -> Redis {
    Redis::with(identity, authority, &[])
}

#[test]
fn a_server_of_another_ca_is_refused_with_the_remedy() {
    let (trusted, other) = (Authority::new(), Authority::new());
    let redis = redis_with(other.issue(&["localhost"]), &other);
    let pontoon = Pontoon::to(&redis.endpoint(), &trusted);
    pontoon.expects("TLS handshake with");
    let expected = format!(
        "-ERR pontoon: TLS handshake with {} failed: issuer \"CN={}\" unknown: pass the CA that signed it as \
         --tls-ca-file (tls.ca_files)\r\n",
        redis.endpoint(),
        other.name
    );
    assert_eq!(refusal(&pontoon), expected);
}

#[test]
fn a_certificate_for_another_name_is_refused_and_both_names_are_shown() {
    let authority = Authority::new();
    let redis = redis_with(authority.issue(&["cache.example", "*.cache.example"]), &authority);
    let pontoon = Pontoon::to(&redis.endpoint(), &authority);
    pontoon.expects("certificate is for");
    assert_eq!(
        refusal(&pontoon),
        format!(
            "-ERR pontoon: TLS handshake with {} failed: certificate is for cache.example, *.cache.example, not for \
             \"localhost\": dial the endpoint by a name that it holds, or set tls.server_name \
             (--tls-server-name)\r\n",
            redis.endpoint()
        )
    );
    let named = Pontoon::with(&redis.endpoint(), &authority, &["--tls-server-name", "cache.example"]);
    named.client().expect(&["PING"], "+PONG\r\n");
}

#[test]
fn an_address_is_verified_like_a_name() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let endpoint = format!("127.0.0.1:{}", redis.tls_port);
    Pontoon::to(&endpoint, &authority).client().expect(&["PING"], "+PONG\r\n");
    let other = redis_with(authority.issue(&["127.0.0.2"]), &authority);
    let pontoon = Pontoon::to(&format!("127.0.0.1:{}", other.tls_port), &authority);
    pontoon.expects("certificate is for 127.0.0.2, not for \"127.0.0.1\"");
    assert!(refusal(&pontoon).contains("certificate is for 127.0.0.2, not for \"127.0.0.1\""));
}

#[test]
fn an_expired_certificate_is_refused_with_its_date() {
    let authority = Authority::new();
    let redis = redis_with(authority.issue_expired(&["localhost"]), &authority);
    let pontoon = Pontoon::to(&redis.endpoint(), &authority);
    pontoon.expects("certificate expired on");
    let reply = refusal(&pontoon);
    let start =
        format!("-ERR pontoon: TLS handshake with {} failed: certificate expired on 20", redis.endpoint());
    assert!(reply.starts_with(&start), "{reply}");
    assert!(reply.ends_with("renew it on the server, or set this machine's clock\r\n"), "{reply}");
}

#[test]
fn a_self_signed_server_is_accepted_only_with_its_pin() {
    let (authority, identity) = (Authority::new(), Identity::self_signed(&["whatever"]));
    let pin = identity.pin();
    let redis = redis_with(identity, &authority);
    let unpinned = Pontoon::to(&redis.endpoint(), &authority);
    unpinned.expects("TLS handshake with");
    let reply = refusal(&unpinned);
    assert!(reply.contains(&format!("--tls-pin {pin}")), "the error names the remedy: {reply}");

    let listen = ["--listen", "127.0.0.1:0"];
    let pinned = Pontoon::run(&[&["--upstream", &redis.endpoint(), "--tls-pin", &pin][..], &listen].concat());
    pinned.client().expect(&["PING"], "+PONG\r\n");

    let other = Identity::self_signed(&["x"]).pin();
    let wrong =
        Pontoon::run(&[&["--upstream", &redis.endpoint(), "--tls-pin", &other][..], &listen].concat());
    wrong.expects("no key of the server's chain is pinned");
    assert!(refusal(&wrong).contains(&format!("its own key is {pin}")));
}

#[test]
fn a_pinned_ca_vouches_for_its_servers_by_name() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let run = |endpoint: &str| {
        Pontoon::run(&["--upstream", endpoint, "--tls-pin", &authority.pin(), "--listen", "127.0.0.1:0"])
    };
    run(&redis.endpoint()).client().expect(&["PING"], "+PONG\r\n");
    let other = redis_with(authority.issue(&["cache.example"]), &authority);
    let wrong_name = run(&other.endpoint());
    wrong_name.expects("certificate is for cache.example");
    assert!(refusal(&wrong_name).contains("not for \"localhost\""));
}

#[test]
fn a_pinned_certificate_vouches_for_others_only_as_an_unexpired_ca() {
    let run = |redis: &Redis, pin: &str| {
        Pontoon::run(&["--upstream", &redis.endpoint(), "--tls-pin", pin, "--listen", "127.0.0.1:0"])
    };
    let expired = Authority::expired();
    let redis = Redis::start(&expired);
    let pontoon = run(&redis, &expired.pin());
    pontoon.expects("the pinned CA");
    let reply = refusal(&pontoon);
    assert!(reply.contains(&format!("the pinned CA \"CN={}\" expired on 20", expired.name)), "{reply}");

    let no_ca = Authority::without_permission();
    let redis = Redis::start(&no_ca);
    let pontoon = run(&redis, &no_ca.pin());
    pontoon.expects("is not a CA");
    let reply = refusal(&pontoon);
    assert!(reply.contains(&format!("\"CN={}\", is not a CA", no_ca.name)), "{reply}");
}

#[test]
fn an_x509_v1_certificate_is_accepted_by_pin_or_without_verification() {
    for versions in ["TLSv1.2", "TLSv1.3"] {
        let authority = Authority::new();
        let identity = authority.issue(&["localhost"]).in_version_1();
        let pin = identity.pin();
        let redis = Redis::with(identity, &authority, &["--tls-protocols", versions]);
        let run = |args: &[&str]| {
            Pontoon::run(&[&["--upstream", &redis.endpoint(), "--listen", "127.0.0.1:0"], args].concat())
        };
        run(&["--tls-pin", &pin]).client().expect(&["PING"], "+PONG\r\n");
        let insecure = run(&["--tls-insecure-skip-verify"]);
        insecure.expects("tls.insecure_skip_verify is set, any certificate is accepted");
        insecure.client().expect(&["PING"], "+PONG\r\n");

        let by_chain = Pontoon::to(&redis.endpoint(), &authority);
        by_chain.expects("X.509 version 1 or 2");
        let reply = refusal(&by_chain);
        for words in ["X.509 version 1 or 2", "reissue it as version 3", &format!("--tls-pin {pin}")] {
            assert!(reply.contains(words), "{words}: {reply}");
        }
    }
}

#[test]
fn an_x509_v1_certificate_proves_nothing_without_its_key() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let identity = Authority::new().issue(&["localhost"]).in_version_1();
        let config = identity.server_config_of_impostor(version);
        let fake = Fake::start(move |mut stream, seen| {
            let mut server = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = rustls::Stream::new(&mut server, &mut stream);
            let mut buffer = [0; 512];
            if let Ok(n @ 1..) = tls.read(&mut buffer) {
                seen.lock().unwrap().extend_from_slice(&buffer[..n]);
            }
        });
        let args = ["--upstream", &fake.endpoint(), "--tls-pin", &identity.pin(), "--listen", "127.0.0.1:0"];
        let pontoon = Pontoon::run(&args);
        pontoon.expects("BadSignature");
        pontoon.wait_for_log("BadSignature");
        assert!(fake.seen().is_empty(), "an impostor received something");
    }
}

#[test]
fn a_pin_beside_a_ca_file_requires_both() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pin = Identity::self_signed(&["x"]).pin();
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--tls-pin", &pin]);
    pontoon.expects("no key of the server's chain is pinned");
    assert!(refusal(&pontoon).contains("no key of the server's chain is pinned"));
    // Other certificates that a server sends prove nothing: any server can send a certificate without its key.
    let other = Authority::new();
    let redis = Redis::with(authority.issue(&["localhost"]).and_sends(&other), &authority, &[]);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--tls-pin", &other.pin()]);
    pontoon.expects("TLS handshake");
    refusal(&pontoon);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--tls-pin", &authority.pin()]);
    pontoon.client().expect(&["PING"], "+PONG\r\n");
}

#[test]
fn skipping_verification_is_possible_logged_and_counted() {
    let (authority, other) = (Authority::new(), Authority::new());
    let redis = redis_with(other.issue_expired(&["elsewhere"]), &other);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--tls-insecure-skip-verify"]);
    pontoon.expects("tls.insecure_skip_verify is set, any certificate is accepted");
    pontoon.allows("certificate must be renewed");
    pontoon.client().expect(&["PING"], "+PONG\r\n");
    assert_eq!(pontoon.metric("pontoon_tls_verification_disabled", ""), 1);
}

#[test]
fn a_server_that_asks_for_a_client_certificate_gets_it() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let redis = Redis::with(identity, &authority, &["--tls-auth-clients", "yes"]);
    let client = authority.issue_client();
    let (cert, key) = (client.cert_file(), client.key_file());
    let files = ["--tls-cert-file", cert.to_str().unwrap(), "--tls-key-file", key.to_str().unwrap()];
    Pontoon::with(&redis.endpoint(), &authority, &files).client().expect(&["PING"], "+PONG\r\n");

    let without = Pontoon::to(&redis.endpoint(), &authority);
    without.expects("certificate");
    let reply = refusal(&without);
    assert!(reply.contains("--tls-cert-file") || reply.contains("closed the connection"), "{reply}");
}

#[test]
fn an_older_tls_version_than_allowed_is_refused() {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let redis = Redis::with(identity, &authority, &["--tls-protocols", "TLSv1.2"]);
    Pontoon::to(&redis.endpoint(), &authority).client().expect(&["PING"], "+PONG\r\n");
    let strict = Pontoon::with(&redis.endpoint(), &authority, &["--tls-min-version", "1.3"]);
    strict.expects("see tls.min_version");
    assert!(refusal(&strict).contains("supports no TLS version that pontoon accepts: see tls.min_version"));
}

#[test]
fn a_plaintext_server_receives_nothing_but_a_client_hello() {
    let authority = Authority::new();
    let fake = Fake::start(|mut stream, seen| {
        let mut buffer = [0; 4096];
        let n = uninterrupted(|| stream.read(&mut buffer)).unwrap();
        seen.lock().unwrap().extend_from_slice(&buffer[..n]);
        // As a Redis that finds the end of a line in what it takes for an inline command.
        stream.write_all(b"-ERR unknown command\r\n").unwrap();
        if let Ok(n) = uninterrupted(|| stream.read(&mut buffer)) {
            seen.lock().unwrap().extend_from_slice(&buffer[..n]);
        }
    });
    let pontoon = Pontoon::to(&fake.endpoint(), &authority);
    pontoon.expects("peer does not speak TLS");
    let reply = refusal(&pontoon);
    let start =
        format!("-ERR pontoon: TLS handshake with {} failed: peer does not speak TLS", fake.endpoint());
    assert!(reply.starts_with(&start), "{reply}");
    let seen = fake.seen();
    assert_eq!(seen[..3], [0x16, 3, 1], "a TLS handshake record");
    assert!(!seen.windows(6).any(|window| window == b"secret"), "no application byte left");
}

#[test]
fn sessions_are_resumed_and_a_route_shares_them() {
    if clients_share() {
        // In shared mode clients have few connections, and not one each.
        return;
    }
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--pool-reuse", "false"]).ready();
    for _ in 0..5 {
        pontoon.client().expect(&["PING"], "+PONG\r\n");
    }
    assert!(pontoon.metric("pontoon_tls_handshakes_total", "resumed=\"true\"") >= 4);
    assert!(pontoon.metric("pontoon_tls_handshakes_total", "resumed=\"false\"") <= 2);
}

#[test]
fn fifty_clients_that_connect_at_once_all_resume_sessions() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--pool-reuse", "false"]).ready();
    let full_handshakes = || pontoon.metric("pontoon_tls_handshakes_total", "resumed=\"false\"");
    // A full handshake yields two tickets and uses none: after a few crowds there are enough for fifty at once.
    eventually("a crowd makes no full handshake", || {
        let before = full_handshakes();
        let mut clients: Vec<_> = (0..50).map(|_| pontoon.client()).collect();
        for client in &mut clients {
            client.expect(&["PING"], "+PONG\r\n");
        }
        full_handshakes() == before
    });
}

#[test]
fn renewed_ca_files_take_effect_and_broken_ones_do_not() {
    let (old, new) = (Authority::new(), Authority::new());
    let redis = Redis::start(&new);
    let pontoon = Pontoon::to(&redis.endpoint(), &old);
    pontoon.expects("TLS handshake with");
    pontoon.expects("certificates not reloaded, the previous ones stay in use");
    refusal(&pontoon);
    std::fs::write(old.file(), "no certificate").unwrap();
    pontoon.wait_for_log("certificates not reloaded");
    std::fs::copy(new.file(), old.file()).unwrap();
    pontoon.wait_for_log("certificates reloaded");
    eventually("new connections trust the new authority", || {
        pontoon.client().try_ask(&["PING"]).is_some_and(|reply| reply == b"+PONG\r\n")
    });
    assert!(pontoon.metric("pontoon_tls_reloads_total", "result=\"failed\"") >= 1);
}

#[test]
fn plaintext_is_used_only_if_the_mode_says_so_and_is_logged() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let endpoint = format!("localhost:{}", redis.plain_port);
    let pontoon =
        Pontoon::run(&["--upstream", &endpoint, "--listen", "127.0.0.1:0", "--tls-mode", "disabled"]);
    pontoon.expects("traffic is in plaintext");
    let mut client = pontoon.client();
    client.send(&[command(&["SET", "k", "v"]), command(&["GET", "k"])].concat());
    client.expect_next("+OK\r\n");
    client.expect_next("$1\r\nv\r\n");
}
