//! Memory, clients and descriptors are bounded, and pontoon survives reaching the bounds.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Authority, PATIENCE, Pontoon, Redis, clients_share, command, eventually, raise_descriptor_limit, within,
};

/// Two tests with thousands of clients at the same time are too many for a small machine.
static CROWD: Mutex<()> = Mutex::new(());

#[test]
fn a_client_is_served_beside_five_thousand_idle_ones() {
    if clients_share() {
        // In shared mode clients have few connections, and not one each.
        return;
    }
    let _alone = CROWD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    raise_descriptor_limit();
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(
        &redis.endpoint(),
        &authority,
        &["--max-clients", "6000", "--connect-timeout", "60s", "--handshakes", "64"],
    );
    let idle: Vec<TcpStream> = (0..5000).map(|_| TcpStream::connect(pontoon.address()).unwrap()).collect();
    within(3 * PATIENCE, "all clients have an upstream connection", || {
        pontoon.metric("pontoon_upstream_connections", "state=\"active\"") >= 5000
    });
    pontoon.client().expect(&["PING"], "+PONG\r\n");
    drop(idle);
    eventually("all clients are gone", || pontoon.metric("pontoon_sessions_active", "") == 0);
}

#[test]
fn a_thousand_active_clients_are_all_served() {
    let _alone = CROWD.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    raise_descriptor_limit();
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon =
        Pontoon::with(&redis.endpoint(), &authority, &["--max-clients", "2000", "--connect-timeout", "60s"]);
    let mut clients: Vec<_> = (0..1000).map(|_| pontoon.client()).collect();
    for round in 0..3 {
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(&command(&["ECHO", &format!("{round}-{n}")]));
        }
        for (n, client) in clients.iter_mut().enumerate() {
            let text = format!("{round}-{n}");
            client.expect_next(&format!("${}\r\n{text}\r\n", text.len()));
        }
    }
}

#[test]
fn a_slow_reader_delays_no_other_client_and_fills_no_memory() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    // One thread serves all clients, so that a slow one would delay the others.
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--workers", "1"]);
    let mut slow = pontoon.client();
    slow.expect(&["SET", "big", &"x".repeat(1_000_000)], "+OK\r\n");
    for _ in 0..200 {
        slow.send(&command(&["GET", "big"]));
    }
    let mut fast = pontoon.client();
    for n in 0..2000 {
        fast.expect(&["ECHO", &n.to_string()], &format!("${}\r\n{n}\r\n", n.to_string().len()));
    }
    let peak = pontoon.peak_memory_kib();
    assert!(peak < 48 * 1024, "the bridge took {peak} KiB");
    for _ in 0..200 {
        assert_eq!(slow.reply().len(), "$1000000\r\n".len() + 1_000_002);
    }
}

#[test]
fn a_client_beyond_the_limit_gets_redis_own_error_until_one_leaves() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--max-clients", "2"]);
    pontoon.expects("client refused, limits.max_clients is reached");
    let mut first = pontoon.client();
    let mut second = pontoon.client();
    first.expect(&["PING"], "+PONG\r\n");
    second.expect(&["PING"], "+PONG\r\n");
    for _ in 0..5 {
        let mut third = pontoon.client();
        let _ = third.try_send(&command(&["PING"]));
        third.expect_next("-ERR max number of clients reached\r\n");
        third.expect_end();
    }
    drop(first);
    eventually("there is room again", || {
        pontoon.client().try_ask(&["PING"]).is_some_and(|reply| reply == b"+PONG\r\n")
    });
    second.expect(&["PING"], "+PONG\r\n");
    pontoon.expect_one_line("limits.max_clients is reached");
}

#[test]
fn pontoon_survives_a_lack_of_descriptors() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let (endpoint, ca) = (redis.endpoint(), authority.file());
    let args = ["--upstream", &endpoint, "--tls-ca-file", &ca, "--listen", "127.0.0.1:0"];
    let pontoon = Pontoon::with_descriptors(80, &args);
    pontoon.expects("fewer open files are allowed");
    let mut early = pontoon.client();
    early.expect(&["PING"], "+PONG\r\n");
    let crowd: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(pontoon.address()).unwrap()).collect();
    pontoon.wait_for_log("oo many open files");
    pontoon.expects("oo many open files");
    early.expect(&["PING"], "+PONG\r\n");
    for stream in &crowd {
        let _ = stream.shutdown(Shutdown::Both);
    }
    drop(crowd);
    eventually("new clients are served again", || {
        pontoon.client().try_ask(&["PING"]).is_some_and(|reply| reply == b"+PONG\r\n")
    });
}

/// What a client beyond a limit gets.
const NO_ROOM: &[u8] = b"-ERR max number of clients reached\r\n";

/// A bridge that may have `limit` open files. Each of its clients takes two.
fn with_few_descriptors(limit: u32, redis: &Redis, authority: &Authority, connect_timeout: &str) -> Pontoon {
    let (endpoint, ca) = (format!("127.0.0.1:{}", redis.tls_port), authority.file());
    let args = ["--upstream", &endpoint, "--tls-ca-file", &ca, "--listen", "127.0.0.1:0"];
    let options = ["--connect-timeout", connect_timeout, "--pool-reuse", "false", "--workers", "1"];
    let pontoon = Pontoon::with_descriptors(limit, &[&args[..], &options].concat());
    pontoon.expects("fewer open files are allowed");
    pontoon
}

#[test]
fn at_the_descriptor_limit_a_client_waits_for_its_upstream_connection() {
    if clients_share() {
        // In shared mode clients have few connections, and not one each.
        return;
    }
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    // With one of these limits, the last client is accepted but no descriptor is left for its upstream connection.
    for limit in [80, 81] {
        let pontoon = with_few_descriptors(limit, &redis, &authority, "20s");
        pontoon.allows("oo many open files");
        let mut served = Vec::new();
        let mut waiting = loop {
            assert!(served.len() < 80, "the limit was never reached");
            let mut client = pontoon.client();
            client.send(&command(&["PING"]));
            if client.is_silent(Duration::from_secs(1)) {
                break client;
            }
            client.expect_next("+PONG\r\n");
            served.push(client);
        };
        drop(served);
        waiting.expect_next("+PONG\r\n");
    }
}

#[test]
fn at_the_descriptor_limit_a_client_gets_an_error_after_the_timeout() {
    if clients_share() {
        return;
    }
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = with_few_descriptors(80, &redis, &authority, "2s");
    pontoon.expects("oo many open files");
    let started = Instant::now();
    let mut clients: Vec<_> = (0..80).map(|_| pontoon.client()).collect();
    let mut refused = 0;
    for client in &mut clients {
        if client.try_ask(&["PING"]).is_some_and(|reply| reply == NO_ROOM) {
            refused += 1;
            assert!(started.elapsed() > Duration::from_secs(1), "refused after {:?}", started.elapsed());
        }
    }
    assert!(refused > 0);
    drop(clients);
    // The lack was not the server's fault, so pontoon does not pause before it dials again.
    eventually("new clients are served", || {
        pontoon.client().try_ask(&["PING"]).is_some_and(|reply| reply == b"+PONG\r\n")
    });
}

#[test]
fn at_the_descriptor_limit_clients_are_served_and_later_free_some() {
    for sharing in ["dedicated", "shared"] {
        let authority = Authority::new();
        let redis = Redis::start(&authority);
        let (endpoint, ca) = (format!("127.0.0.1:{}", redis.tls_port), authority.file());
        let args = ["--upstream", &endpoint, "--tls-ca-file", &ca, "--listen", "127.0.0.1:0"];
        let options = ["--connect-timeout", "6s", "--sharing", sharing, "--workers", "1"];
        let pontoon = Pontoon::with_descriptors(64, &[&args[..], &options].concat());
        pontoon.expects("fewer open files are allowed");
        pontoon.expects("too many open files");
        eventually("pontoon is ready", || pontoon.get("/readyz").0 == 200);
        let started = Instant::now();
        let mut crowd: Vec<_> = (0..100).map(|_| pontoon.client()).collect();
        for client in &mut crowd {
            let _ = client.try_send(&command(&["PING"]));
        }
        assert_eq!(pontoon.get("/readyz").0, 200, "the admin server has descriptors");
        assert_eq!(pontoon.get("/metrics").0, 200);
        assert!(started.elapsed() < Duration::from_secs(5), "at once: {:?}", started.elapsed());
        let mut served = Vec::new();
        let mut refused = 0;
        for mut client in crowd {
            let reply = client.reply();
            if reply == NO_ROOM {
                refused += 1;
                assert!(started.elapsed() > Duration::from_secs(5), "refused after {:?}", started.elapsed());
                client.expect_end();
            } else {
                assert_eq!(reply, b"+PONG\r\n");
                served.push(client);
            }
        }
        assert!(served.len() > 5, "{sharing}: {} were served", served.len());
        assert!(refused > 5, "{sharing}: {refused} were refused");
        let count = pontoon.metric("pontoon_clients_refused_total", "reason=\"descriptors\"");
        assert_eq!(count, refused, "{sharing}");
        assert!(pontoon.log_count("too many open files") < 6, "too many log lines: {}", pontoon.printed());
        for client in &mut served {
            client.expect(&["PING"], "+PONG\r\n");
        }
        let mut late = pontoon.client();
        late.send(&command(&["PING"]));
        assert!(
            late.is_silent(Duration::from_millis(200)),
            "{sharing}: the client was served beyond the limit"
        );
        drop(served);
        late.expect_next("+PONG\r\n");
    }
}

#[test]
fn a_writer_whose_peer_does_not_read_is_stalled_not_buffered() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::to(&redis.endpoint(), &authority);
    let client = pontoon.client();
    let mut writer = client.writer();
    redis.pause();
    writer.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let part = command(&["SET", "k", &"v".repeat(1_000_000)]);
    let started = Instant::now();
    let mut sent = 0;
    while writer.write_all(&part).is_ok() && started.elapsed() < Duration::from_secs(20) {
        sent += 1;
    }
    redis.resume();
    assert!(sent < 60, "{sent} MB were taken from the client");
    let peak = pontoon.peak_memory_kib();
    assert!(peak < 32 * 1024, "the bridge took {peak} KiB");
    thread::yield_now();
}
