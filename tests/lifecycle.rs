//! Start, health, and a shutdown in which no reply is lost.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Authority, Dual, Mood, PATIENCE, Pontoon, Redis, Wire, command, eventually, pontoon};

#[test]
fn every_reply_that_the_server_sent_arrives_before_the_end() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let mut pontoon = Pontoon::to(&redis.endpoint(), &authority);
    let clients: Vec<_> = (0..8)
        .map(|n| {
            let mut client = pontoon.client();
            let mut writer = client.writer();
            let key = format!("n{n}");
            let request = command(&["INCR", &key]);
            thread::spawn(move || {
                let load = thread::spawn(move || while writer.write_all(&request.repeat(20)).is_ok() {});
                let mut last = 0;
                while let Some(reply) = client.try_reply() {
                    let text = String::from_utf8(reply).unwrap();
                    let number: u64 = text.trim_start_matches(':').trim_end().parse().expect(&text);
                    assert_eq!(number, last + 1, "no reply is missing");
                    last = number;
                }
                drop(client);
                load.join().unwrap();
                (key, last)
            })
        })
        .collect();
    eventually("the load has begun", || pontoon.metric("pontoon_requests_total", "") > 2000);
    pontoon.signal(Signal::TERM);
    assert_eq!(pontoon.wait().code(), Some(0));
    for client in clients {
        let (key, last) = client.join().unwrap();
        let executed = match last {
            0 => "$-1\r\n".to_owned(),
            _ => format!("${}\r\n{last}\r\n", last.to_string().len()),
        };
        redis.direct().expect(&["GET", &key], &executed);
    }
}

#[test]
fn idle_sessions_and_subscribers_end_at_once() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let mut pontoon = Pontoon::to(&redis.endpoint(), &authority);
    let mut idle = pontoon.client();
    idle.expect(&["PING"], "+PONG\r\n");
    let mut subscriber = pontoon.client();
    subscriber.ask(&["SUBSCRIBE", "news"]);
    let started = Instant::now();
    pontoon.signal(Signal::TERM);
    idle.expect_end();
    subscriber.expect_end();
    drop((idle, subscriber));
    assert_eq!(pontoon.wait().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(10), "well before the drain timeout of 25 s");
}

#[test]
fn clients_that_wait_to_be_accepted_at_shutdown_are_not_reset() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let mut pontoon = Pontoon::to(&redis.endpoint(), &authority);
    let address = pontoon.address();
    pontoon.signal(Signal::STOP);
    let waiting = [(); 30].map(|()| {
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(&command(&["PING"])).unwrap();
        client
    });
    pontoon.signal(Signal::TERM);
    pontoon.signal(Signal::CONT);
    for mut client in waiting {
        let mut reply = String::new();
        client.read_to_string(&mut reply).expect("no reset");
        assert!(reply.is_empty() || reply == "+PONG\r\n", "{reply}");
    }
    assert_eq!(pontoon.wait().code(), Some(0));
}

#[test]
fn an_outstanding_request_is_answered_before_the_end() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let mut pontoon = Pontoon::to(&redis.endpoint(), &authority);
    let mut client = pontoon.client();
    client.send(&command(&["BLPOP", "queue", "0"]));
    eventually("the client blocks", || {
        String::from_utf8_lossy(&redis.direct().ask(&["INFO", "clients"])).contains("blocked_clients:1")
    });
    pontoon.signal(Signal::TERM);
    pontoon.wait_for_log("draining");
    redis.direct().expect(&["RPUSH", "queue", "job"], ":1\r\n");
    client.expect_next("*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n");
    client.expect_end();
    assert_eq!(pontoon.wait().code(), Some(0));
}

#[test]
fn a_session_that_outlives_the_drain_timeout_is_cut() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let mut pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--drain-timeout", "300ms"]);
    pontoon.expects("sessions cut after runtime.drain_timeout");
    let mut client = pontoon.client();
    client.send(&command(&["BLPOP", "queue", "0"]));
    eventually("the request is under way", || pontoon.metric("pontoon_requests_total", "") == 1);
    pontoon.signal(Signal::INT);
    client.expect_end();
    assert_eq!(pontoon.wait().code(), Some(0));
}

#[test]
fn a_second_signal_skips_ahead() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let mut pontoon = Pontoon::to(&redis.endpoint(), &authority);
    let mut client = pontoon.client();
    client.send(&command(&["BLPOP", "queue", "0"]));
    eventually("the request is under way", || pontoon.metric("pontoon_requests_total", "") == 1);
    let started = Instant::now();
    pontoon.signal(Signal::TERM);
    pontoon.wait_for_log("draining");
    assert!(pontoon.is_running());
    pontoon.signal(Signal::TERM);
    client.expect_end();
    assert_eq!(pontoon.wait().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn soon_after_the_start_the_log_says_whether_the_upstream_is_reachable() {
    let authority = Authority::new();
    let mut redis = Redis::start(&authority);
    let encrypted = Pontoon::to(&redis.endpoint(), &authority).wait_for_log("upstream reachable");
    assert_eq!(encrypted["upstream"], redis.endpoint());
    assert!(encrypted["encryption"] == "TLS" && encrypted["certificate_expires"].is_string(), "{encrypted}");
    let plain = Dual::new(&redis, Mood::Accept, Mood::Close);
    let before = Pontoon::with(&plain.endpoint(), &authority, &["--tls-mode", "preferred"]);
    before.allows("tls.mode is \"preferred\"");
    let plain = before.wait_for_log("upstream reachable");
    assert!(plain["encryption"] == "none, plaintext" && plain["certificate_expires"].is_null(), "{plain}");
    // No name exists yet.
    let missing = Pontoon::with("new.invalid", &authority, &["--tls-mode", "preferred"]);
    missing.allows("tls.mode is \"preferred\"");
    missing.expects("upstream not reachable: name lookup for new.invalid:6379 failed");
    missing.wait_for_log("upstream not reachable");
    drop(before);
    redis.kill();
    let down = Pontoon::to(&redis.endpoint(), &authority);
    down.expects("upstream connection failed: TCP connection to");
    down.wait_for_log("upstream connection failed");
    assert_eq!(down.log_count("upstream not reachable"), 0, "the cause is logged already");
}

#[test]
fn serving_depends_on_upstream_and_drain_and_liveness_on_neither() {
    let authority = Authority::new();
    let mut redis = Redis::start(&authority);
    redis.kill();
    let mut pontoon = Pontoon::to(&redis.endpoint(), &authority);
    pontoon.expects("TCP connection to");
    eventually("the cause is shown", || {
        let (status, body) = pontoon.get("/readyz");
        status == 503
            && body.starts_with("not serving: route \"localhost\": upstream not reached since 20")
            && body.ends_with(
                "connection refused: nothing listens on this port, or a firewall rejects the connection\n",
            )
    });
    assert_eq!(pontoon.get("/livez").0, 200);
    redis.restart();
    eventually("the bridge is serving", || pontoon.get("/readyz") == (200, "serving\n".to_owned()));

    let mut client = pontoon.client();
    client.send(&command(&["BLPOP", "queue", "0"]));
    eventually("the request is under way", || pontoon.metric("pontoon_requests_total", "") >= 1);
    pontoon.signal(Signal::TERM);
    pontoon.wait_for_log("draining");
    assert_eq!(pontoon.get("/readyz"), (503, "not serving: draining\n".to_owned()));
    assert_eq!(pontoon.get("/livez").0, 200);
    assert_eq!(pontoon.get("/nothing").0, 404);
    pontoon.signal(Signal::TERM);
    assert_eq!(pontoon.wait().code(), Some(0));
}

#[test]
fn health_waits_until_clients_are_served_and_says_why_not() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let bridge = Pontoon::to(&redis.endpoint(), &authority);
    let admin = bridge.admin().to_string();
    let healthy = pontoon(&["health", "--admin", &admin, "--wait", "20s"]);
    assert!(healthy.status.success());
    drop(bridge);
    let gone = pontoon(&["health", "--admin", &admin]);
    assert_eq!(gone.status.code(), Some(1));
    let error = String::from_utf8(gone.stderr).unwrap();
    assert!(error.starts_with(&format!("error: no answer from {admin}: ")), "{error}");
    assert!(error.ends_with("is pontoon running, and is that its --admin address?\n"), "{error}");
}

#[test]
fn health_and_status_reach_an_admin_server_on_the_wildcard_address() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    for every in ["[::]:0", "0.0.0.0:0"] {
        let bridge = Pontoon::with(&redis.endpoint(), &authority, &["--admin", every]);
        let admin = bridge.admin().to_string();
        let healthy = pontoon(&["health", "--admin", &admin, "--wait", "20s"]);
        assert!(healthy.status.success(), "{}", String::from_utf8_lossy(&healthy.stderr));
        let status = pontoon(&["status", "--admin", &admin]);
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    }
}

#[test]
fn several_listeners_of_a_route_serve_and_the_log_has_their_addresses() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("redis.sock");
    let unix = format!("unix:{}?mode=0600", path.display());
    let listen = ["--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--listen", &unix];
    let mut pontoon = Pontoon::with(&redis.endpoint(), &authority, &listen);
    let addresses = pontoon.addresses();
    Wire::tcp(&addresses[0][..]).expect(&["PING"], "+PONG\r\n");
    Wire::tcp(&addresses[1][..]).expect(&["PING"], "+PONG\r\n");
    assert_eq!(addresses[2], format!("unix:{}", path.display()));
    Wire::unix(&path).expect(&["PING"], "+PONG\r\n");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    pontoon.signal(Signal::TERM);
    pontoon.wait();
    assert!(!path.exists(), "the socket's file is removed with the process");
}

fn on_socket(redis: &Redis, authority: &Authority, path: &Path) -> Pontoon {
    Pontoon::with(&redis.endpoint(), authority, &["--listen", &format!("unix:{}", path.display())])
}

#[test]
fn a_socket_file_left_by_a_crash_is_replaced_but_a_live_one_is_not() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("redis.sock");
    let mut crashed = on_socket(&redis, &authority, &path);
    crashed.signal(Signal::KILL);
    crashed.wait();
    assert!(path.exists());
    let running = on_socket(&redis, &authority, &path);
    Wire::unix(&path).expect(&["PING"], "+PONG\r\n");

    let listen = format!("unix:{}", path.display());
    let second = pontoon(&["run", "--upstream", "x", "--listen", &listen, "--admin", "off"]);
    assert_eq!(second.status.code(), Some(1));
    let error = String::from_utf8(second.stderr).unwrap();
    let holder = format!("the socket is in use by pontoon (process {})", running.pid());
    assert!(error.contains(&holder), "{error}");
    Wire::unix(&path).expect(&["PING"], "+PONG\r\n");
    drop(running);
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes");
    std::fs::write(&path, "mine").unwrap();
    let listen = format!("unix:{}", path.display());
    let output = pontoon(&["run", "--upstream", "x", "--listen", &listen, "--admin", "off"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("the file exists and is not a socket"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}
