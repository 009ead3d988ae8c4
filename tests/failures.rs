//! When the upstream fails: what the client receives, and that no request is sent twice and no reply invented.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Authority, Fake, Pontoon, Redis, clients_share, command, eventually, uninterrupted};

/// A port on which nothing listens.
fn dead_endpoint() -> String {
    format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port())
}

fn localhost(authority: &Authority) -> crate::harness::Identity {
    authority.issue(&["localhost"])
}

/// Replies with an error wherever one can be placed.
const REPLY: [&str; 2] = ["--errors", "reply"];

#[test]
fn a_refused_connection_is_answered_at_once() {
    let authority = Authority::new();
    let endpoint = dead_endpoint();
    let pontoon = Pontoon::with(&endpoint, &authority, &REPLY);
    pontoon.expects("TCP connection to");
    let mut client = pontoon.client();
    client.expect_next(&format!(
        "-LOADING pontoon: TCP connection to {endpoint} failed: connection refused: nothing listens on this port, \
         or a firewall rejects the connection\r\n"
    ));
    client.expect_end();
}

#[test]
fn a_name_that_does_not_exist_is_reported() {
    let authority = Authority::new();
    let pontoon = Pontoon::with("cache.invalid:6379", &authority, &REPLY);
    pontoon.expects("name lookup for cache.invalid:6379 failed");
    let reply = String::from_utf8(pontoon.client().reply()).unwrap();
    assert!(reply.starts_with("-LOADING pontoon: name lookup for cache.invalid:6379 failed: "), "{reply}");
}

#[test]
fn a_server_that_stalls_in_the_handshake_costs_only_the_deadline() {
    let authority = Authority::new();
    let fake = Fake::start(|mut stream, _| {
        let mut sink = [0; 1024];
        while uninterrupted(|| stream.read(&mut sink)).is_ok_and(|n| n > 0) {}
    });
    let pontoon =
        Pontoon::with(&fake.endpoint(), &authority, &["--connect-timeout", "300ms", "--errors", "reply"]);
    pontoon.expects("timed out after");
    let started = Instant::now();
    let reply = String::from_utf8(pontoon.client().reply()).unwrap();
    assert!(started.elapsed() < Duration::from_secs(20));
    let start = format!("-LOADING pontoon: TLS handshake with {} failed: timed out after ", fake.endpoint());
    assert!(reply.starts_with(&start), "{reply}");
    assert!(reply.contains("ms in stage tls (a plaintext Redis does not answer a TLS handshake"), "{reply}");
}

#[test]
fn every_waiting_client_is_answered_without_hammering_a_dead_endpoint() {
    let authority = Authority::new();
    let fake = Fake::start(|_, _| {});
    let pontoon =
        Pontoon::with(&fake.endpoint(), &authority, &["--connect-timeout", "2s", "--errors", "reply"]);
    pontoon.expects("TLS handshake with");
    eventually("the first failure", || pontoon.metric("pontoon_upstream_connect_errors_total", "") >= 1);
    let before = fake.accepted();
    let mut clients: Vec<_> = (0..200).map(|_| pontoon.client()).collect();
    for client in &mut clients {
        assert!(client.reply().starts_with(b"-LOADING pontoon: TLS handshake with"));
        client.expect_end();
    }
    let dials = fake.accepted() - before;
    assert!(dials < 100, "{dials} dials for 200 clients");
}

#[test]
fn no_more_handshakes_are_in_flight_than_allowed() {
    if clients_share() {
        // In shared mode clients have few connections, and not one each.
        return;
    }
    let authority = Authority::new();
    let identity = localhost(&authority);
    let config = identity.server_config();
    let (now, most) =
        (std::sync::Arc::new(std::sync::Mutex::new(0)), std::sync::Arc::new(std::sync::Mutex::new(0)));
    let fake = {
        let (now, most) = (now.clone(), most.clone());
        Fake::start(move |stream, _| {
            {
                let mut now = now.lock().unwrap();
                *now += 1;
                let mut most = most.lock().unwrap();
                *most = (*most).max(*now);
            }
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut tls = rustls::StreamOwned::new(connection, stream);
            let mut greeting = [0; 512];
            // The handshake is done when the greeting can be read. For the bridge it is over when the greeting is answered.
            let _ = tls.read(&mut greeting);
            *now.lock().unwrap() -= 1;
            let _ = tls.write_all(b"+OK\r\n+OK\r\n");
            let _ = tls.read(&mut greeting);
        })
    };
    let pontoon = Pontoon::with(&fake.endpoint(), &authority, &["--handshakes", "3"]);
    let clients: Vec<_> = (0..50).map(|_| pontoon.client()).collect();
    eventually("all clients are connected", || {
        pontoon.metric("pontoon_upstream_connections", "state=\"active\"") >= clients.len() as u64
    });
    let most = *most.lock().unwrap();
    assert!((1..=3).contains(&most), "{most} handshakes at once");
}

#[test]
fn the_first_of_several_upstreams_that_works_is_used() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let dead = dead_endpoint();
    let pontoon = Pontoon::with(&dead, &authority, &["--upstream", &redis.endpoint()]);
    pontoon.expects("TCP connection to");
    let pontoon = pontoon.ready();
    pontoon.client().expect(&["PING"], "+PONG\r\n");
}

#[test]
fn a_reply_that_was_cut_off_is_never_completed() {
    let authority = Authority::new();
    let fake = Fake::tls(&localhost(&authority), |tls| {
        let _ = tls.read(&mut [0; 512]);
        tls.write_all(b"+OK\r\n$100\r\nhalf a val").unwrap();
        // The connection ends without close_notify, as that of a killed server does.
    });
    let pontoon = Pontoon::to(&fake.endpoint(), &authority);
    let mut client = pontoon.client();
    client.send(&[command(&["SET", "k", "v"]), command(&["GET", "k"]), command(&["PING"])].concat());
    assert_eq!(client.rest(), b"+OK\r\n$100\r\nhalf a val");
}

#[test]
fn the_received_part_of_a_large_value_reaches_the_client() {
    let authority = Authority::new();
    let fake = Fake::tls(&localhost(&authority), |tls| {
        let _ = tls.read(&mut [0; 512]);
        tls.write_all(b"$1000000\r\n").unwrap();
        // The bridge knows the length, and waits for more than ever comes.
        tls.write_all(&vec![b'x'; 100_000]).unwrap();
    });
    let pontoon = Pontoon::to(&fake.endpoint(), &authority);
    let mut client = pontoon.client();
    client.send(&command(&["GET", "k"]));
    assert_eq!(client.rest().len(), b"$1000000\r\n".len() + 100_000);
}

#[test]
fn unanswered_commands_get_an_error_that_they_may_have_been_executed() {
    if clients_share() {
        // In shared mode clients stay when the server ends: tests/shared.rs has what they receive.
        return;
    }
    let authority = Authority::new();
    let fake = Fake::tls(&localhost(&authority), |tls| {
        let _ = tls.read(&mut [0; 512]);
        tls.write_all(b"+OK\r\n").unwrap();
        tls.conn.send_close_notify();
        let _ = tls.flush();
    });
    let pontoon = Pontoon::with(&fake.endpoint(), &authority, &REPLY);
    let mut client = pontoon.client();
    client.send(&[command(&["SET", "k", "v"]), command(&["INCR", "n"]), command(&["INCR", "n"])].concat());
    client.expect_next("+OK\r\n");
    let uncertain = format!(
        "-ERR pontoon: connection to {} lost; the command may or may not have been executed\r\n",
        fake.endpoint()
    );
    client.expect_next(&uncertain);
    client.expect_next(&uncertain);
    client.expect_end();
    let told = "connection lost while a client used it, ready connections will be tested";
    assert_eq!(pontoon.wait_for_log(told)["level"], "INFO");
    assert!(pontoon.get("/").1.contains(told));
}

#[test]
fn after_a_server_is_killed_a_new_connection_finds_it_again() {
    if clients_share() {
        // In shared mode clients stay when the server ends: tests/shared.rs has what they receive.
        return;
    }
    let authority = Authority::new();
    let mut redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &REPLY);
    let mut client = pontoon.client();
    client.expect(&["SET", "k", "v"], "+OK\r\n");
    redis.pause();
    client.send(&command(&["INCR", "n"]));
    // pontoon notices at once that ready connections are lost.
    pontoon.allows("localhost");
    redis.kill();
    let reply = String::from_utf8(client.reply()).unwrap();
    assert!(reply.contains("may or may not have been executed"), "{reply}");
    client.expect_end();
    redis.restart();
    eventually("the bridge reaches the server again", || {
        pontoon.client().try_ask(&["PING"]).is_some_and(|reply| reply == b"+PONG\r\n")
    });
}

#[test]
fn the_servers_last_words_arrive_though_the_client_is_still_writing() {
    if clients_share() {
        // In shared mode clients stay when the server ends: tests/shared.rs has what they receive.
        return;
    }
    for _ in 0..20 {
        let authority = Authority::new();
        let fake = Fake::tls(&localhost(&authority), |tls| {
            let _ = tls.read(&mut [0; 512]);
            tls.write_all(b"-ERR max number of clients reached\r\n").unwrap();
            // It is closed with unread input: the kernel answers further writes with a reset.
        });
        let pontoon = Pontoon::to(&fake.endpoint(), &authority);
        let mut client = pontoon.client();
        let mut writer = client.writer();
        let (finished, until) = mpsc::channel::<()>();
        let flood = thread::spawn(move || {
            let part = command(&["SET", "k", &"v".repeat(10_000)]);
            while until.try_recv() == Err(TryRecvError::Empty) && writer.write_all(&part).is_ok() {}
        });
        client.expect_next("-ERR max number of clients reached\r\n");
        client.rest();
        drop((client, finished));
        flood.join().unwrap();
    }
}

#[test]
fn no_command_is_sent_twice_whatever_happens_to_the_connection() {
    if clients_share() {
        // In shared mode clients stay when the server ends: tests/shared.rs has what they receive.
        return;
    }
    let authority = Authority::new();
    let mut redis = Redis::start(&authority);
    let pontoon = Pontoon::to(&redis.endpoint(), &authority);
    let answered = {
        let mut client = pontoon.client();
        let mut answered = 0;
        for _ in 0..50 {
            answered += usize::from(client.ask(&["INCR", "n"]).starts_with(b":"));
        }
        // A connection that is being dialled to be kept ready ends, too.
        pontoon.allows("localhost");
        redis.direct().ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        let last = client.try_ask(&["INCR", "n"]);
        assert!(last.is_none_or(|reply| reply.starts_with(b"-")), "a killed connection answers no success");
        answered
    };
    let executed: usize = String::from_utf8(redis.direct().ask(&["GET", "n"]))
        .unwrap()
        .lines()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(executed, answered);
    redis.kill();
}

#[test]
fn an_endlessly_nested_reply_costs_one_connection_not_the_process() {
    let fake = Fake::start(|mut stream, _| {
        // Few enough bytes for a greeting's reply, and more levels than a thread has stack for.
        while uninterrupted(|| stream.read(&mut [0; 512])).is_ok_and(|n| n > 0) {
            if stream.write_all(&b"*2\r\n".repeat(16_000)).is_err() {
                return;
            }
        }
    });
    let pontoon =
        Pontoon::run(&["--upstream", &fake.endpoint(), "--listen", "127.0.0.1:0", "--tls-mode", "disabled"]);
    pontoon.expects("traffic is in plaintext");
    pontoon.expects("peer does not use the Redis protocol");
    for _ in 0..2 {
        let reply = String::from_utf8(pontoon.client().ask(&["PING"])).unwrap();
        assert!(reply.starts_with("-ERR pontoon: greeting "), "{reply}");
    }
}
