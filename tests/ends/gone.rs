//! No session outlives its client, whatever the client sent, and whatever the upstream does.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::{HANGING, Mode, PROMPT, all_sessions_end, allow_timeouts, clients_info, in_each_mode, sessions};
use crate::harness::{Authority, Dual, Fake, Mood, Pontoon, Redis, Wire, command, eventually, within};

/// The connection limit in the tests that fill the bridge.
const CLIENTS: usize = 40;

/// Requests with a NUL, which the server and a scanner may read differently.
const WITH_NUL: [&[u8]; 3] = [b"a\0b\n", b"PING\0x\r\n", b"GET k\0\r\nGET k\r\n"];

fn assert_that_nul_is_survived(mode: Mode) {
    for request in WITH_NUL {
        let most = CLIENTS.to_string();
        let (redis, pontoon) = mode.with_redis(&["--max-clients", &most]);
        let mut direct = redis.direct();
        pontoon.client().expect(&["PING"], "+PONG\r\n");
        all_sessions_end(&pontoon, HANGING);
        let before = clients_info(&mut direct, "connected_clients");
        let mut clients: Vec<Wire> = (0..CLIENTS).map(|_| pontoon.client()).collect();
        for client in &mut clients {
            client.send(request);
        }
        eventually("all clients are connected", || sessions(&pontoon) == CLIENTS as u64);
        drop(clients);
        all_sessions_end(&pontoon, HANGING);
        within(
            HANGING,
            "the server has as many connections as before, and those that are kept ready",
            || {
                let ready = pontoon.metric("pontoon_upstream_connections", "state=\"idle\"");
                clients_info(&mut direct, "connected_clients") <= before + usize::try_from(ready).unwrap()
            },
        );
        pontoon.client().expect(&["PING"], "+PONG\r\n");
    }
}

#[test]
fn an_inline_request_with_a_nul_keeps_no_session_on_its_own_connection() {
    assert_that_nul_is_survived(Mode::Dedicated);
}

#[test]
fn an_inline_request_with_a_nul_keeps_no_session_on_a_reused_connection() {
    assert_that_nul_is_survived(Mode::Reused);
}

#[test]
fn an_inline_request_with_a_nul_keeps_no_session_on_a_shared_connection() {
    assert_that_nul_is_survived(Mode::Shared);
}

/// Asserts that no session stays of clients that gave up on an upstream that hangs.
fn assert_that_hanging_is_survived(mode: Mode, end: fn(Wire)) {
    let (redis, pontoon) = mode.with_redis(&[]);
    let mut clients: Vec<Wire> = (0..CLIENTS).map(|_| pontoon.client()).collect();
    for client in &mut clients {
        client.expect(&["PING"], "+PONG\r\n");
    }
    allow_timeouts(&pontoon);
    redis.pause();
    for client in &mut clients {
        client.send(&command(&["GET", "k"]));
    }
    eventually("all requests are outstanding", || {
        pontoon.metric("pontoon_requests_total", "") >= 2 * CLIENTS as u64
    });
    clients.into_iter().for_each(end);
    all_sessions_end(&pontoon, HANGING);
    redis.resume();
    pontoon.client().expect(&["PING"], "+PONG\r\n");
}

#[test]
fn clients_that_closed_keep_no_session_at_an_upstream_that_hangs() {
    in_each_mode(|mode| assert_that_hanging_is_survived(mode, drop));
}

#[test]
fn clients_that_reset_keep_no_session_at_an_upstream_that_hangs() {
    in_each_mode(|mode| assert_that_hanging_is_survived(mode, Wire::reset));
}

#[test]
fn a_blocked_client_that_closed_keeps_no_session_at_a_hanging_upstream() {
    in_each_mode(|mode| {
        let (redis, pontoon) = mode.with_redis(&[]);
        let mut client = pontoon.client();
        client.send(&command(&["BLPOP", "q", "0"]));
        eventually("the client is blocked", || clients_info(&mut redis.direct(), "blocked_clients") == 1);
        allow_timeouts(&pontoon);
        redis.pause();
        drop(client);
        all_sessions_end(&pontoon, HANGING);
        redis.resume();
    });
}

/// The client writes until its writes block, then resets.
#[test]
fn a_client_that_resets_under_backpressure_keeps_no_session() {
    in_each_mode(|mode| {
        let (redis, pontoon) = mode.with_redis(&[]);
        let mut client = pontoon.client();
        client.expect(&["PING"], "+PONG\r\n");
        allow_timeouts(&pontoon);
        redis.pause();
        let mut stream = client.writer();
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let set = command(&["SET", "k", &"x".repeat(1024 * 1024)]);
        let written = (0..64).take_while(|_| stream.write_all(&set).is_ok()).count();
        assert!(written < 64, "{mode:?}: all was read");
        drop(stream);
        assert_eq!(sessions(&pontoon), 1);
        client.reset();
        all_sessions_end(&pontoon, PROMPT);
        redis.resume();
    });
}

/// Writes until pontoon relays no more, and returns while the client can still write: its FIN arrives behind bytes that pontoon does not
/// read.
fn write_until_unread(client: &mut Wire, pontoon: &Pontoon) {
    let set = command(&["SET", "k", &"x".repeat(16 * 1024)]);
    let relayed = || pontoon.metric("pontoon_relayed_bytes_total", "direction=\"to_upstream\"");
    let mut before = relayed();
    loop {
        client.send(&set);
        // On a busy machine a pause may look like the end; the test is then easier to pass.
        let goes_on = (0..40).any(|_| {
            let more = relayed() > before;
            if !more {
                thread::sleep(Duration::from_millis(5));
            }
            more
        });
        if !goes_on {
            return;
        }
        before = relayed();
    }
}

#[test]
fn a_client_that_closes_under_backpressure_keeps_no_session() {
    in_each_mode(|mode| {
        let (redis, pontoon) = mode.with_redis(&[]);
        let mut client = pontoon.client();
        client.expect(&["PING"], "+PONG\r\n");
        allow_timeouts(&pontoon);
        redis.pause();
        write_until_unread(&mut client, &pontoon);
        drop(client);
        all_sessions_end(&pontoon, HANGING);
        redis.resume();
    });
}

/// The reply to the first request arrives after the client has closed, so the kernel answers that reply with RST.
#[test]
fn what_a_client_sent_before_it_closed_is_done_on_a_slow_new_connection() {
    let (redis, link, pontoon) = Mode::Shared.with_link(Duration::from_millis(300));
    let mut direct = redis.direct();
    for n in 0..5 {
        let key = format!("n{n}");
        let mut client = pontoon.client();
        client.expect(&["PING"], "+PONG\r\n");
        client
            .send(&[command(&["INCR", &key]), command(&["WATCH", &key]), command(&["INCR", &key])].concat());
        drop(client);
        eventually("all requests are done", || direct.ask(&["GET", &key]) == b"$1\r\n2\r\n");
    }
    drop(link);
}

/// An upstream that accepts and never completes the TLS handshake.
fn never_completes() -> Fake {
    Fake::start(|mut stream, _| {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    })
}

/// Ends a client while its upstream is dialled.
fn assert_that_a_dial_is_given_up(mode: Mode, request: &[u8], end: fn(Wire)) {
    let authority = Authority::new();
    let fake = never_completes();
    let pontoon = mode.bridge(&fake.endpoint(), &authority, &["--connect-timeout", "30s"]);
    let mut client = pontoon.client();
    client.send(request);
    eventually("the client has a session", || sessions(&pontoon) == 1);
    eventually("the upstream is dialled", || fake.accepted() > 0);
    end(client);
    all_sessions_end(&pontoon, PROMPT);
    eventually("no dial goes on", || {
        pontoon.metric("pontoon_upstream_connections", "state=\"connecting\"") == 0
    });
}

#[test]
fn a_client_that_closed_without_a_request_keeps_no_session_during_a_dial() {
    in_each_mode(|mode| assert_that_a_dial_is_given_up(mode, b"", drop));
}

#[test]
fn a_client_that_reset_keeps_no_session_while_a_dial_hangs() {
    for request in [&b""[..], b"PING\r\n"] {
        in_each_mode(|mode| assert_that_a_dial_is_given_up(mode, request, Wire::reset));
    }
}

#[test]
fn the_next_client_does_not_wait_for_a_dial_that_was_given_up() {
    in_each_mode(|mode| {
        let authority = Authority::new();
        let redis = Redis::start(&authority);
        let dual = Dual::new(&redis, Mood::Accept, Mood::Hang);
        let args = ["--workers", "1", "--connect-timeout", "10m"];
        let pontoon = mode.bridge(&dual.endpoint(), &authority, &args);
        let client = pontoon.client();
        // The other dial is that of the first look.
        eventually("the upstream is dialled", || dual.tls_connections() == 2);
        drop(client);
        all_sessions_end(&pontoon, HANGING);
        dual.set(Mood::Accept, Mood::Accept);
        pontoon.client().expect(&["PING"], "+PONG\r\n");
    });
}

#[test]
fn a_client_that_reset_frees_its_permit_at_once() {
    let authority = Authority::new();
    let fake = never_completes();
    let args = ["--connect-timeout", "30s", "--max-clients", "1"];
    let pontoon = Mode::Dedicated.bridge(&fake.endpoint(), &authority, &args);
    pontoon.allows("client refused, limits.max_clients is reached");
    for _ in 0..5 {
        let client: TcpStream = TcpStream::connect(pontoon.address()).unwrap();
        eventually("the client has a session", || sessions(&pontoon) == 1);
        Wire::over(client).reset();
        all_sessions_end(&pontoon, PROMPT);
    }
}
