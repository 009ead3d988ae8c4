//! Every way in which a client may use its connection.

use std::time::Duration;

use crate::harness::{
    Authority, Engine, Pontoon, Redis, Wire, bridge, busy_script, command, eventually, expect_unknown,
};

fn resp3(pontoon: &Pontoon) -> Wire {
    let mut client = pontoon.client();
    assert!(client.ask(&["HELLO", "3"]).starts_with(b"%7\r\n"));
    client
}

#[test]
fn pub_sub_works_in_resp2() {
    let (_redis, pontoon) = bridge();
    let mut subscriber = pontoon.client();
    subscriber.expect(&["SUBSCRIBE", "news"], "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    subscriber.expect(&["PSUBSCRIBE", "n*"], "*3\r\n$10\r\npsubscribe\r\n$2\r\nn*\r\n:2\r\n");
    pontoon.client().expect(&["PUBLISH", "news", "a\r\nb"], ":2\r\n");
    subscriber.expect_next("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$4\r\na\r\nb\r\n");
    subscriber.expect_next("*4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$4\r\na\r\nb\r\n");
    subscriber.expect(&["PING"], "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    subscriber.expect(&["UNSUBSCRIBE"], "*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:1\r\n");
}

#[test]
fn pub_sub_works_in_resp3_beside_other_commands() {
    let (_redis, pontoon) = bridge();
    let mut client = resp3(&pontoon);
    client.send(&command(&["SUBSCRIBE", "a", "b"]));
    client.expect_next(">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n");
    client.expect_next(">3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n");
    client.expect(&["SET", "k", "v"], "+OK\r\n");
    pontoon.client().expect(&["PUBLISH", "b", "x"], ":1\r\n");
    client.expect_next(">3\r\n$7\r\nmessage\r\n$1\r\nb\r\n$1\r\nx\r\n");
    client.expect(&["GET", "k"], "$1\r\nv\r\n");
    assert_eq!(pontoon.metric("pontoon_sessions_opaque_total", ""), 0);
}

#[test]
fn sharded_pub_sub_works() {
    let (redis, pontoon) = bridge();
    let mut subscriber = resp3(&pontoon);
    if Engine::here().is_before_7() {
        expect_unknown(&mut redis.direct(), &mut subscriber, &["SSUBSCRIBE", "orders"]);
        expect_unknown(&mut redis.direct(), &mut pontoon.client(), &["SPUBLISH", "orders", "1"]);
        return;
    }
    subscriber.expect(&["SSUBSCRIBE", "orders"], ">3\r\n$10\r\nssubscribe\r\n$6\r\norders\r\n:1\r\n");
    pontoon.client().expect(&["SPUBLISH", "orders", "1"], ":1\r\n");
    subscriber.expect_next(">3\r\n$8\r\nsmessage\r\n$6\r\norders\r\n$1\r\n1\r\n");
    subscriber.expect(&["SUNSUBSCRIBE"], ">3\r\n$12\r\nsunsubscribe\r\n$6\r\norders\r\n:0\r\n");
}

#[test]
fn monitor_streams_what_other_clients_do() {
    let (_redis, pontoon) = bridge();
    let mut monitor = pontoon.client();
    monitor.expect(&["MONITOR"], "+OK\r\n");
    pontoon.client().expect(&["SET", "watched", "1"], "+OK\r\n");
    loop {
        let line = String::from_utf8(monitor.reply()).unwrap();
        if line.contains("\"watched\"") {
            break;
        }
    }
    assert_eq!(pontoon.metric("pontoon_sessions_opaque_total", "monitor"), 1);
}

#[test]
fn blocking_commands_wait_as_long_as_they_need() {
    let (redis, pontoon) = bridge();
    let mut waiting = pontoon.client();
    waiting.send(&command(&["BLPOP", "queue", "0"]));
    eventually("the client blocks", || {
        String::from_utf8_lossy(&redis.direct().ask(&["INFO", "clients"])).contains("blocked_clients:1")
    });
    assert!(waiting.is_silent(Duration::from_millis(50)));
    pontoon.client().expect(&["RPUSH", "queue", "job"], ":1\r\n");
    waiting.expect_next("*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n");
}

#[test]
fn transactions_notice_changes_of_watched_keys() {
    let (_redis, pontoon) = bridge();
    let mut client = pontoon.client();
    client.expect(&["SET", "balance", "1"], "+OK\r\n");
    client.expect(&["WATCH", "balance"], "+OK\r\n");
    pontoon.client().expect(&["SET", "balance", "2"], "+OK\r\n");
    client.expect(&["MULTI"], "+OK\r\n");
    client.expect(&["INCR", "balance"], "+QUEUED\r\n");
    client.expect(&["EXEC"], "*-1\r\n");
    client.expect(&["MULTI"], "+OK\r\n");
    client.expect(&["INCR", "balance"], "+QUEUED\r\n");
    client.expect(&["EXEC"], "*1\r\n:3\r\n");
}

#[test]
fn scripts_and_functions_run() {
    let (redis, pontoon) = bridge();
    let mut client = pontoon.client();
    client.expect(&["EVAL", "return redis.call('SET', KEYS[1], ARGV[1])", "1", "k", "v"], "+OK\r\n");
    let library = "#!lua name=lib\nredis.register_function('double', function(k, a) return a[1] * 2 end)";
    if Engine::here().is_before_7() {
        expect_unknown(&mut redis.direct(), &mut client, &["FUNCTION", "LOAD", library]);
        expect_unknown(&mut redis.direct(), &mut client, &["FCALL", "double", "0", "21"]);
        return;
    }
    client.expect(&["FUNCTION", "LOAD", library], "$3\r\nlib\r\n");
    client.expect(&["FCALL", "double", "0", "21"], ":42\r\n");
}

#[test]
fn client_tracking_pushes_invalidations() {
    let (_redis, pontoon) = bridge();
    let mut client = resp3(&pontoon);
    client.expect(&["CLIENT", "TRACKING", "ON"], "+OK\r\n");
    client.expect(&["GET", "tracked"], "_\r\n");
    pontoon.client().expect(&["SET", "tracked", "1"], "+OK\r\n");
    client.expect_next(">2\r\n$10\r\ninvalidate\r\n*1\r\n$7\r\ntracked\r\n");
    client.expect(&["PING"], "+PONG\r\n");
}

#[test]
fn replies_can_be_switched_off_and_on() {
    let (_redis, pontoon) = bridge();
    let mut client = pontoon.client();
    client.send(&command(&["CLIENT", "REPLY", "OFF"]));
    client.send(&command(&["SET", "quiet", "1"]));
    client.expect(&["CLIENT", "REPLY", "ON"], "+OK\r\n");
    client.expect(&["GET", "quiet"], "$1\r\n1\r\n");
    client.send(&command(&["CLIENT", "REPLY", "SKIP"]));
    client.send(&command(&["SET", "quiet", "2"]));
    client.expect(&["GET", "quiet"], "$1\r\n2\r\n");
}

#[test]
fn inline_commands_work() {
    let (_redis, pontoon) = bridge();
    let mut client = pontoon.client();
    client.send(b"\r\n   \r\nSET inline \"a b\"\r\nGET inline\n");
    client.expect_next("+OK\r\n");
    client.expect_next("$3\r\na b\r\n");
}

#[test]
fn a_length_that_a_server_refuses_is_refused_at_once() {
    let (redis, pontoon) = bridge();
    for request in [&b"*2147483648\r\n"[..], b"*1\r\n$536870913\r\n", b"*2\r\n$3\r\nGET\r\n$536870913\r\n"] {
        let [direct, bridged] = [redis.direct(), pontoon.client()].map(|mut wire| {
            wire.send(request);
            String::from_utf8(wire.rest()).unwrap()
        });
        assert!(direct.starts_with("-ERR Protocol error"), "{direct}");
        assert!(bridged.starts_with(&direct), "{bridged}, not {direct}");
    }
}

#[test]
fn quit_is_answered_and_ends_the_connection() {
    let (_redis, pontoon) = bridge();
    let mut client = pontoon.client();
    client.expect(&["QUIT"], "+OK\r\n");
    client.expect_end();
}

#[test]
fn requests_after_quit_get_no_reply_and_other_connections_stay_pooled() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let args = ["--sharing", "dedicated", "--pool-reuse", "true", "--workers", "1"];
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &args).ready();
    let kept = || pontoon.metric("pontoon_upstream_connections", "state=\"idle\"");
    let mut quits = pontoon.client();
    quits.expect(&["PING"], "+PONG\r\n");
    pontoon.client().expect(&["PING"], "+PONG\r\n");
    eventually("a connection is kept", || kept() == 1);
    quits.send(&[command(&["ECHO", "x"]), command(&["QUIT"]), command(&["ECHO", "y"])].concat());
    assert_eq!(String::from_utf8(quits.rest()).unwrap(), "$1\r\nx\r\n+OK\r\n");
    eventually("the session is counted", || pontoon.metric("pontoon_sessions_total", "") >= 2);
    assert_eq!(pontoon.metric("pontoon_sessions_total", "end=\"failed\""), 0);
    eventually("the client's own connection is kept, too", || kept() == 2);
}

#[test]
fn a_request_the_server_does_not_take_for_quit_is_not_answered_as_one() {
    let (redis, pontoon) = bridge();
    for request in [
        &b"QUIT \"x\r\n"[..],
        // Redis 6.2 takes this for QUIT.
        b"*1\r\n$6\r\nQUIT\0x\r\n",
        b"QUIT\x0bfoo\r\nPING\r\n",
        b"QUIT\x0cfoo\r\nPING\r\n",
        b"\"QUIT\"\r\nPING\r\n",
    ] {
        let replies = |mut client: Wire| {
            client.send(request);
            client.finish();
            String::from_utf8(client.rest()).unwrap()
        };
        assert_eq!(replies(pontoon.client()), replies(redis.direct()), "{}", request.escape_ascii());
    }
}

#[test]
fn reset_returns_to_resp2() {
    let (_redis, pontoon) = bridge();
    let mut client = resp3(&pontoon);
    client.expect(&["GET", "none"], "_\r\n");
    client.expect(&["RESET"], "+RESET\r\n");
    client.expect(&["GET", "none"], "$-1\r\n");
    assert!(client.ask(&["HELLO", "2"]).starts_with(b"*14\r\n"));
}

#[test]
fn a_protocol_error_is_answered_by_the_server_and_ends_the_connection() {
    let (_redis, pontoon) = bridge();
    let mut client = pontoon.client();
    client.send(b"*1\r\n:5\r\n");
    client.expect_next("-ERR Protocol error: expected '$', got ':'\r\n");
    client.expect_end();
}

#[test]
fn a_half_closed_client_still_gets_its_replies() {
    let (_redis, pontoon) = bridge();
    let mut client = pontoon.client();
    let slow = busy_script(Duration::from_millis(500));
    client.send(&[command(&["EVAL", &slow, "0"]), command(&["PING"])].concat());
    client.finish();
    client.expect_next(":1\r\n");
    client.expect_next("+PONG\r\n");
    client.expect_end();
}

#[test]
fn a_client_that_leaves_while_it_blocks_frees_its_upstream_connection() {
    let (redis, pontoon) = bridge();
    let mut client = pontoon.client();
    client.send(&command(&["BLPOP", "never", "0"]));
    eventually("the client blocks", || {
        String::from_utf8_lossy(&redis.direct().ask(&["INFO", "clients"])).contains("blocked_clients:1")
    });
    drop(client);
    eventually("the connection is gone", || {
        String::from_utf8_lossy(&redis.direct().ask(&["INFO", "clients"])).contains("blocked_clients:0")
    });
}

#[test]
fn a_session_outlives_a_tunnels_idle_timeout_but_not_the_configured_one() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--idle-timeout", "200ms"]);
    let mut client = pontoon.client();
    client.expect(&["PING"], "+PONG\r\n");
    client.expect_end();
    eventually("the end is counted", || pontoon.metric("pontoon_sessions_total", "end=\"idle\"") == 1);
}

#[test]
fn an_audit_recognises_bridged_clients_by_the_configured_name() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--client-name", "bridge-7"]);
    let mut client = pontoon.client();
    client.expect(&["CLIENT", "GETNAME"], "$8\r\nbridge-7\r\n");
}
