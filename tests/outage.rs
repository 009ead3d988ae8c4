//! Outages as real clients see them. A client must take an outage for a lost connection, as it does without pontoon: then it retries, or,
//! in an application that can do without Redis, goes on. An error that looks like the reply to a command ends programs instead.
//!
//! pontoon names the cause only if that harms no client: in reply to a request that sets a connection up, or is a `PING`, and was never
//! sent upstream. Everything else ends as a connection to a lost server does: without a reply.

use std::process::Command;

use crate::harness::programs::{go_client, node, php, printed, python, python_4, python_more, ruby};
use crate::harness::{ClientProgram, Pontoon, Redis, bridge, clients_share, command, eventually};

/// Asserts that a program has taken all errors for lost connections.
#[track_caller]
fn assert_lost_connections_only(program: &mut ClientProgram) {
    let said = program.said();
    assert!(!said.iter().any(|line| line.starts_with("other error")), "{said:?}\n{}", program.log());
}

/// The command that runs a library's script. A scenario and a port follow.
type Script = fn() -> Command;

fn redis_py(mut python: Command, flavour: &str) -> Command {
    python.args(["tests/clients/outage.py", flavour]);
    python
}

fn in_node(module: &str) -> Command {
    let mut node = node();
    node.args(["tests/clients/outage.js", module]);
    node
}

fn phpredis() -> Command {
    let mut php = php();
    php.arg("tests/clients/outage.php");
    php
}

fn redis_rb() -> Command {
    let mut ruby = ruby();
    ruby.arg("tests/clients/outage.rb");
    ruby
}

fn run(script: Script, scenario: &str, pontoon: &Pontoon) -> ClientProgram {
    let mut command = script();
    command.args([scenario, &pontoon.address().port().to_string()]);
    ClientProgram::start(command)
}

/// A bridge whose server may be killed: any log line is allowed.
fn frail_bridge() -> (Redis, Pontoon) {
    let (redis, pontoon) = bridge();
    pontoon.allows("");
    (redis, pontoon)
}

/// A bridge whose server is down.
fn broken_bridge() -> (Redis, Pontoon) {
    let (mut redis, pontoon) = frail_bridge();
    redis.kill();
    // Connections that were kept ready are gone.
    eventually("the outage is noticed", || {
        let mut client = pontoon.client();
        client.try_ask(&["PING"]).is_none_or(|reply| !reply.starts_with(b"+"))
    });
    (redis, pontoon)
}

fn failed_sessions(pontoon: &Pontoon) -> u64 {
    pontoon.metric("pontoon_sessions_total", "end=\"failed\"")
}

/// The client is created while the server is down, and works once it is back.
#[track_caller]
fn outlasts_an_outage_at_its_beginning(script: Script) {
    let (mut redis, pontoon) = broken_bridge();
    let before = failed_sessions(&pontoon);
    let mut program = run(script, "begin", &pontoon);
    eventually("the client has tried again", || {
        failed_sessions(&pontoon) >= before + 3 || !program.is_running()
    });
    redis.restart();
    program.wait_for("up");
    assert_lost_connections_only(&mut program);
}

/// The client waits for a reply as the server dies, and works once it is back.
#[track_caller]
fn outlasts_an_outage_while_it_waits(script: Script) {
    let (mut redis, pontoon) = frail_bridge();
    let mut program = run(script, "wait", &pontoon);
    program.wait_for("up");
    let blocked = |redis: &Redis| {
        String::from_utf8_lossy(&redis.direct().ask(&["INFO", "clients"])).contains("blocked_clients:1\r\n")
    };
    eventually("the client waits", || blocked(&redis));
    redis.kill();
    redis.restart();
    eventually("the client waits again", || blocked(&redis) || !program.is_running());
    redis.direct().expect(&["RPUSH", "queue", "element"], ":1\r\n");
    program.wait_for("popped");
    assert_lost_connections_only(&mut program);
}

/// Defines a test of each scenario for each client.
macro_rules! clients {
    ($($name:ident: $script:expr;)+) => {$(
        mod $name {
            use super::*;

            #[test]
            fn an_outage_at_the_start_looks_like_a_lost_connection() {
                outlasts_an_outage_at_its_beginning(|| $script);
            }

            #[test]
            fn an_outage_during_a_wait_looks_like_a_lost_connection() {
                outlasts_an_outage_while_it_waits(|| $script);
            }
        }
    )+};
}

clients! {
    redis_py_8: redis_py(python(), "sync");
    redis_py_8_asyncio: redis_py(python(), "asyncio");
    redis_py_4: redis_py(python_4(), "sync");
    redis_py_4_asyncio: redis_py(python_4(), "asyncio");
    ioredis_5_8: in_node("ioredis");
    ioredis_5_4: in_node("ioredis-before");
    node_redis_5: in_node("redis");
    node_redis_6: in_node("redis-6");
    php_redis: phpredis();
    ruby_redis: redis_rb();
    go_redis: go_client();
}

/// Only `tests/run.sh --clients all` installs these.
mod more {
    use super::*;

    clients! {
        redis_py_5: redis_py(python_more(), "sync");
        redis_py_5_asyncio: redis_py(python_more(), "asyncio");
    }
}

/// A worker runs a job, meets an outage while it waits for the next one, and runs that one afterwards.
#[track_caller]
fn worker_outlasts_an_outage(library: &str) {
    let (mut redis, pontoon) = frail_bridge();
    let script = |step: &str| {
        let mut python = python();
        let port = pontoon.address().port().to_string();
        python.args(["tests/clients/outage_worker.py", library, step, &port]);
        python
    };
    let done = |redis: &Redis| redis.direct().ask(&["LLEN", "done"]) == b":1\r\n";
    let mut worker = ClientProgram::start(script("worker"));
    printed(&script("job"));
    eventually("the first job is done", || done(&redis));
    let blocked = |redis: &Redis| {
        !String::from_utf8_lossy(&redis.direct().ask(&["INFO", "clients"])).contains("blocked_clients:0\r\n")
    };
    eventually("the worker waits for the next job", || blocked(&redis));
    let before = failed_sessions(&pontoon);
    redis.kill();
    eventually("the worker has tried to connect, or has ended", || {
        failed_sessions(&pontoon) >= before + 3 || !worker.is_running()
    });
    assert!(worker.is_running(), "the outage ended the worker:\n{}", worker.log());
    redis.restart();
    printed(&script("job"));
    eventually("the second job is done, or the worker has ended", || done(&redis) || !worker.is_running());
    assert!(worker.is_running(), "the outage ended the worker:\n{}", worker.log());
}

#[test]
fn a_celery_worker_outlasts_an_outage() {
    worker_outlasts_an_outage("celery");
}

#[test]
fn an_rq_worker_outlasts_an_outage() {
    worker_outlasts_an_outage("rq");
}

#[test]
fn a_request_that_sets_up_a_connection_gets_the_cause_of_an_outage() {
    let (redis, pontoon) = broken_bridge();
    let start = format!("-LOADING pontoon: TCP connection to {} failed: ", redis.endpoint());
    for words in [&["HELLO", "3"][..], &["hello"], &["CLIENT", "SETINFO", "LIB-NAME", "x"], &["PING"]] {
        let mut client = pontoon.client();
        // Clients send more than the first request at once: a single error, and the end of the connection, answer all.
        client.send(&[command(words), command(&["CLIENT", "SETINFO", "LIB-VER", "1"])].concat());
        let reply = String::from_utf8(client.reply()).unwrap();
        assert!(reply.starts_with(&start), "{words:?}: {reply}");
        client.expect_end();
    }
}

#[test]
fn any_other_first_request_gets_no_reply_during_an_outage() {
    let (_redis, pontoon) = broken_bridge();
    for words in [&["AUTH", "secret"][..], &["INFO"], &["SELECT", "1"], &["GET", "k"], &["BLPOP", "q", "0"]] {
        let mut client = pontoon.client();
        client.send(&command(words));
        assert_eq!(String::from_utf8_lossy(&client.rest()), "", "{words:?}");
    }
}

#[test]
fn clients_reconnect_once_a_server_has_room_for_them() {
    let (redis, pontoon) = frail_bridge();
    let mut direct = redis.direct();
    direct.expect(&["CONFIG", "SET", "maxclients", "1"], "+OK\r\n");
    eventually("the server refuses a client", || {
        let mut client = pontoon.client();
        client.send(&command(&["GET", "k"]));
        client.rest().is_empty()
    });
    direct.expect(&["CONFIG", "SET", "maxclients", "100"], "+OK\r\n");
    eventually("the bridge reaches the server again", || {
        pontoon.client().try_ask(&["PING"]).is_some_and(|reply| reply == b"+PONG\r\n")
    });
}

#[test]
fn an_oversized_first_request_is_not_buffered() {
    let (_redis, pontoon) = broken_bridge();
    let mut client = pontoon.client();
    let word = "x".repeat(9000);
    client.send(&command(&["HELLO", "3", &word, &word]));
    assert_eq!(String::from_utf8_lossy(&client.rest()), "");
}

#[test]
fn with_errors_set_to_close_no_request_gets_pontoons_own_reply() {
    let (mut redis, plain) = frail_bridge();
    let pontoon = Pontoon::with(&redis.endpoint(), redis.authority(), &["--errors", "close"]);
    pontoon.allows("");
    drop(plain);
    redis.kill();
    eventually("the outage is noticed", || {
        pontoon.client().try_ask(&["PING"]).is_none_or(|reply| !reply.starts_with(b"+"))
    });
    let mut client = pontoon.client();
    client.send(&command(&["HELLO", "3"]));
    assert_eq!(String::from_utf8_lossy(&client.rest()), "");
}

#[test]
fn possibly_executed_requests_get_no_reply_when_the_connection_is_lost() {
    for sharing in ["dedicated", "shared"] {
        let (mut redis, plain) = frail_bridge();
        let pontoon = Pontoon::with(&redis.endpoint(), redis.authority(), &["--sharing", sharing]);
        pontoon.allows("");
        drop(plain);
        let mut client = pontoon.client();
        client.expect(&["SET", "k", "v"], "+OK\r\n");
        redis.pause();
        client.send(&[command(&["INCR", "n"]), command(&["GET", "k"])].concat());
        redis.kill();
        assert_eq!(String::from_utf8_lossy(&client.rest()), "", "{sharing}");
    }
}

#[test]
fn a_client_without_outstanding_requests_is_closed_without_a_reply() {
    if clients_share() {
        // In shared mode the client stays, and its next request gets another connection.
        return;
    }
    let (mut redis, pontoon) = frail_bridge();
    let mut client = pontoon.client();
    client.expect(&["SET", "k", "v"], "+OK\r\n");
    redis.kill();
    assert_eq!(String::from_utf8_lossy(&client.rest()), "");
}
