//! What operators see: how long requests take, which kinds there are, which errors servers return; and a log that clients cannot flood.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{
    Authority, Fake, Pontoon, Redis, Wire, bridge, busy_script, command, eventually, raise_descriptor_limit,
};

/// Records of the log about slow commands.
/// A command that takes longer is slow. What is slow on purpose takes twice as long, and a machine that stalls makes nothing else slow.
const SLOW: &str = "1s";

fn slow(pontoon: &Pontoon) -> Vec<Value> {
    let lines = pontoon.printed();
    let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    records.filter(|record| record["message"] == "slow command").collect()
}

#[test]
fn requests_are_timed_except_those_that_wait_by_design() {
    let (_redis, pontoon) = bridge();
    let mut client = pontoon.client();
    for n in 0..20 {
        client.expect(&["ECHO", &n.to_string()], &format!("${}\r\n{n}\r\n", n.to_string().len()));
    }
    client.expect(&["BLPOP", "nothing", "0.01"], "*-1\r\n");
    assert_eq!(pontoon.metric("pontoon_request_duration_seconds_count", "route=\"localhost\""), 20);
    assert_eq!(pontoon.metric("pontoon_request_duration_seconds_bucket", "le=\"+Inf\""), 20);
}

#[test]
fn commands_are_counted_by_family() {
    let (_redis, pontoon) = bridge();
    let mut client = pontoon.client();
    client.ask(&["set", "key", "value"]);
    client.ask(&["GET", "key"]);
    client.ask(&["ZREVRANGEBYSCORE", "zset", "+inf", "-inf"]);
    client.ask(&["JSON.GET", "document"]);
    client.ask(&["s3cr3t-that-is-no-command"]);
    let count = |family: &str| pontoon.metric("pontoon_commands_total", &format!("family=\"{family}\""));
    let families = ["string", "sorted_set", "module", "other", "hash"];
    assert_eq!(families.map(count), [2, 1, 1, 1, 0]);
    assert!(!pontoon.get("/metrics").1.contains("s3cr3t"));
}

#[test]
fn server_errors_are_counted_by_code_and_codes_of_scripts_as_other() {
    let (_redis, pontoon) = bridge();
    let mut client = pontoon.client();
    client.ask(&["SET", "key", "text"]);
    client.ask(&["INCR", "key"]);
    client.ask(&["LPUSH", "key", "x"]);
    client.ask(&["EVALSHA", &"0".repeat(40), "0"]);
    for n in 0..3 {
        client.ask(&["EVAL", &format!("return redis.error_reply('MADEUP{n} secret')"), "0"]);
    }
    let count = |code: &str| pontoon.metric("pontoon_server_errors_total", &format!("code=\"{code}\""));
    assert_eq!(["ERR", "WRONGTYPE", "NOSCRIPT", "other"].map(count), [1, 1, 1, 3]);
    assert!(!pontoon.get("/metrics").1.contains("MADEUP"));
}

#[test]
fn the_process_metrics_have_the_usual_names() {
    let (_redis, pontoon) = bridge();
    let (_, text) = pontoon.get("/metrics");
    for name in [
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(text.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}: {text}");
    }
}

#[test]
fn a_slow_command_is_logged_with_name_and_size_but_without_arguments() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--log-slow", SLOW]);
    let mut client = pontoon.client();
    client.ask(&["SET", "key-that-is-nobodys-business", "value"]);
    let busy = busy_script(Duration::from_secs(2));
    let script = format!("redis.call('GET', 'key-that-is-nobodys-business') {busy}");
    let request = command(&["eval", &script, "0", "argument-that-is-secret"]);
    client.send(&request);
    client.expect_next(":1\r\n");
    let record = pontoon.wait_for_log("slow command");
    assert_eq!((&record["command"], &record["bytes"]), (&"EVAL".into(), &request.len().into()), "{record}");
    assert_eq!((&record["db.operation.name"], &record["db.system.name"]), (&"EVAL".into(), &"redis".into()));
    assert_eq!(record["server.address"], "localhost");
    assert_eq!(record["level"], "INFO");
    client.expect(&["DEBUG", "SLEEP", "2"], "+OK\r\n");
    eventually("DEBUG is logged", || slow(&pontoon).iter().any(|record| record["command"] == "DEBUG"));
    let all = pontoon.printed();
    for secret in ["nobodys-business", "secret", "redis.call"] {
        assert!(!all.contains(secret), "{all}");
    }
}

#[test]
fn requests_behind_a_slow_one_or_blocked_by_design_are_not_blamed() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--log-slow", SLOW]);
    let mut client = pontoon.client();
    client.expect(&["BLPOP", "nothing", "2"], "*-1\r\n");
    client.send(&command(&["DEBUG", "SLEEP", "2"]));
    client.expect_next("+OK\r\n");
    client.expect(&["PING"], "+PONG\r\n");
    pontoon.wait_for_log("slow command");
    let commands: Vec<_> = slow(&pontoon).iter().map(|record| record["command"].clone()).collect();
    assert_eq!(commands, ["DEBUG"]);
}

#[test]
fn the_client_with_the_slow_command_on_a_shared_connection_is_named() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let args = ["--sharing", "shared", "--workers", "1", "--log-slow", SLOW];
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &args);
    let (mut other, mut one) = (pontoon.client(), pontoon.client());
    other.expect(&["PING"], "+PONG\r\n");
    let script = busy_script(Duration::from_secs(2));
    let record = |command: &str| slow(&pontoon).into_iter().find(|record| record["command"] == command);
    // If the server reads both requests at once, it answers both at once, and pontoon cannot say which was slow.
    let sent = || pontoon.metric("pontoon_commands_total", "family=\"scripting\"");
    eventually("the slow command is distinguished from what waits behind it", || {
        let before = sent();
        one.send(&command(&["EVAL", &script, "0"]));
        eventually("the slow command is in flight", || sent() > before);
        other.send(&command(&["GET", "k"]));
        one.expect_next(":1\r\n");
        other.expect_next("$-1\r\n");
        record("EVAL").is_some()
    });
    let record = record("EVAL").unwrap();
    assert_eq!((record["session"].as_u64(), record["commands"].as_u64()), (Some(2), Some(1)), "{record}");
    assert!(slow(&pontoon).iter().all(|record| record["command"] != "GET"), "{}", pontoon.printed());
}

#[test]
fn no_client_is_blamed_for_slow_replies_that_come_together() {
    let authority = Authority::new();
    let server = Fake::tls(&authority.issue(&["localhost"]), |stream| {
        let mut seen = String::new();
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            seen += &String::from_utf8_lossy(&buffer[..n]);
            if seen.contains("PING") {
                seen.clear();
                let _ = stream.write_all(b"+PONG\r\n");
            } else if seen.matches("GET").count() == 2 {
                seen.clear();
                // The pause makes the server slow.
                thread::sleep(Duration::from_secs(2));
                let _ = stream.write_all(b"$-1\r\n$-1\r\n");
            }
        }
    });
    let args = ["--sharing", "shared", "--workers", "1", "--log-slow", SLOW];
    let pontoon = Pontoon::with(&server.endpoint(), &authority, &args);
    let (mut one, mut other) = (pontoon.client(), pontoon.client());
    for client in [&mut one, &mut other] {
        client.expect(&["PING"], "+PONG\r\n");
    }
    one.send(&command(&["GET", "a"]));
    other.send(&command(&["GET", "b"]));
    one.expect_next("$-1\r\n");
    other.expect_next("$-1\r\n");
    let record = pontoon.wait_for_log("slow command");
    assert_eq!((&record["command"], &record["commands"]), (&"PIPELINE GET".into(), &2.into()), "{record}");
    assert!(record.get("session").is_none(), "{record}");
}

#[test]
fn a_slow_command_that_goes_on_is_logged_once_and_the_rest_counted() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--log-slow", "1us"]);
    let mut client = pontoon.client();
    for _ in 0..200 {
        client.expect(&["PING"], "+PONG\r\n");
    }
    client.ask(&["GET", "key"]);
    eventually("GET is logged", || slow(&pontoon).iter().any(|record| record["command"] == "GET"));
    assert_eq!(slow(&pontoon).iter().filter(|record| record["command"] == "PING").count(), 1);
}

#[test]
fn slow_commands_under_many_names_hide_no_failure_in_log_or_page() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &["--log-slow", "1us"]);
    let mut client = pontoon.client();
    let names = "append bitcount bitfield bitop bitpos copy decr decrby del dump exists expire expireat expiretime geoadd \
                 geodist geohash geopos get getbit getdel getex getrange getset hdel hexists hget hgetall hincrby hkeys \
                 hlen hmget hmset hrandfield hscan hset hsetnx hstrlen hvals incr incrby incrbyfloat keys lindex linsert \
                 llen lmove lpop lpos lpush lpushx lrange lrem lset ltrim mget mset msetnx persist pexpire pfadd pfcount \
                 pfmerge psetex pttl rename renamenx restore rpop rpush rpushx sadd scan scard sdiff set setbit setex \
                 setnx setrange sinter sismember smembers";
    for name in names.split_whitespace() {
        client.ask(&[name]);
    }
    let seen = || slow(&pontoon).len();
    eventually("slow commands are logged", || seen() > 64);
    pontoon.expects("it speaks TLS to a listener for plaintext");
    let mut stray = pontoon.client();
    stray.send(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03");
    stray.rest();
    eventually("the failure is logged", || pontoon.printed().contains("it speaks TLS to a listener"));
    let page = pontoon.get("/").1;
    assert!(page.contains("it speaks TLS to a listener") && !page.contains("slow command"), "{page}");
}

#[test]
fn slow_commands_are_not_logged_by_default() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let pontoon = Pontoon::to(&redis.endpoint(), &authority);
    pontoon.client().expect(&["DEBUG", "SLEEP", "0.2"], "+OK\r\n");
    assert!(slow(&pontoon).is_empty());
}

#[test]
fn a_thousand_clients_without_a_server_produce_only_a_few_log_lines() {
    raise_descriptor_limit();
    let authority = Authority::new();
    let pontoon = Pontoon::with("127.0.0.1:1", &authority, &["--connect-timeout", "1s", "--errors", "reply"]);
    pontoon.expects("127.0.0.1:1");
    let clients: Vec<Wire> = (0..1000).map(|_| pontoon.client()).collect();
    for mut client in clients {
        assert!(String::from_utf8_lossy(&client.rest()).starts_with("-LOADING pontoon: "));
    }
    // Waits until the next line is due.
    eventually("the other failures are counted", || {
        pontoon.client().rest();
        let all = pontoon.printed();
        let records = all.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        records.filter_map(|record| record["suppressed"].as_u64()).sum::<u64>() > 0
    });
    assert!(pontoon.printed().lines().count() < 15, "{}", pontoon.printed());
}
