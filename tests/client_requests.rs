//! CLIENT requests that pontoon does not forward unchanged: what of them reaches the server, and what the client gets.

use std::io::{Read, Write};
use std::path::PathBuf;

use crate::harness::{Authority, Fake, Pontoon, Redis, Wire, command, eventually, free_port, valkey};

const PASSWORD: &str = "s3cr3t-of-the-test";

/// The reply that ends a conversation.
const LAST: &[u8] = b"$3\r\nend\r\n";

/// The replies to `requests`, which are sent in pieces of `size` bytes.
fn converse(wire: &mut Wire, requests: &[u8], size: usize) -> Vec<u8> {
    for piece in [requests, &command(&["ECHO", "end"])].concat().chunks(size) {
        wire.send(piece);
    }
    let mut replies = Vec::new();
    while !replies.ends_with(LAST) {
        // The side that closed has said why.
        let Some(reply) = wire.try_reply() else { return replies };
        replies.extend(reply);
    }
    replies
}

/// Asserts that clients get the same replies through the bridge as without it, in one piece and byte by byte, in both protocols.
#[track_caller]
fn assert_same(redis: &Redis, pontoon: &Pontoon, conversations: &[Vec<u8>], password: bool) {
    for protocol in ["2", "3"] {
        for (requests, size) in
            conversations.iter().flat_map(|requests| [(requests, 1), (requests, usize::MAX)])
        {
            let mut direct = redis.direct();
            if password {
                direct.expect(&["AUTH", PASSWORD], "+OK\r\n");
            }
            let mut bridged = pontoon.client();
            for wire in [&mut direct, &mut bridged] {
                wire.ask(&["HELLO", protocol]);
            }
            let expected = converse(&mut direct, requests, usize::MAX);
            let found = converse(&mut bridged, requests, size);
            assert_eq!(
                found.escape_ascii().to_string(),
                expected.escape_ascii().to_string(),
                "in pieces of {size}"
            );
            bridged.finish();
        }
    }
}

/// Requests alone, in a pipeline, and in a transaction.
fn conversations(requests: &[&[u8]]) -> Vec<Vec<u8>> {
    let [ping, multi, exec] = [&["PING"][..], &["MULTI"], &["EXEC"]].map(command);
    requests
        .iter()
        .flat_map(|request| {
            [
                request.to_vec(),
                [&ping[..], request, request, &ping].concat(),
                [&multi[..], &ping, request, &exec].concat(),
            ]
        })
        .collect()
}

/// Arguments for each kind of session; the last has its own credentials.
fn ways(file: &str) -> Vec<Vec<&str>> {
    let one = ["--workers", "1"];
    let ways: [&[&str]; 4] = [
        &["--sharing", "dedicated", "--pool-reuse", "false"],
        &["--sharing", "dedicated", "--pool-reuse", "true"],
        &["--sharing", "shared", "--pool-reuse", "true"],
        &["--sharing", "dedicated", "--pool-reuse", "false", "--auth-password-file", file],
    ];
    ways.into_iter().map(|way| [way, &one].concat()).collect()
}

#[test]
fn no_server_is_asked_to_push_its_own_addresses() {
    let notifications =
        command(&["CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", "external-ip"]);
    let lower = command(&["client", "maint_notifications", "on"]);
    let conversations = conversations(&[
        &notifications,
        &lower,
        b"client maint_notifications on moving-endpoint-type none\r\n",
        b"\"client\" 'maint_notifications' \"\\x6fn\"\r\n",
        &command(&["CLIENT", "MAINT_NOTIFICATIONS"]),
        &command(&["CLIENT", "MAINT_NOTIFICATIONS", "OFF"]),
    ]);
    let file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file.as_file(), "{PASSWORD}").unwrap();
    for way in ways(file.path().to_str().unwrap()) {
        for cluster in [false, true] {
            if cluster && way.contains(&"shared") {
                continue;
            }
            let authority = Authority::new();
            let password = way.contains(&"--auth-password-file");
            let bus_port = free_port().to_string();
            let enabled = if cluster { "yes" } else { "no" };
            let mut options = vec!["--cluster-enabled", enabled, "--cluster-port", &bus_port];
            if password {
                options.extend(["--requirepass", PASSWORD]);
            }
            let redis = Redis::with(authority.issue(&["localhost"]), &authority, &options);
            let recorder = Fake::recording(&authority, redis.plain_port);
            if cluster {
                let mut direct = redis.direct();
                direct.ask(&["AUTH", PASSWORD]);
                direct.expect(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"], "+OK\r\n");
                for option in ["cluster-announce-port", "cluster-announce-tls-port"] {
                    direct.expect(&["CONFIG", "SET", option, &recorder.port().to_string()], "+OK\r\n");
                }
                direct.expect(&["CONFIG", "SET", "cluster-announce-ip", "127.0.0.1"], "+OK\r\n");
            }
            let topology = ["--topology", if cluster { "cluster" } else { "standalone" }];
            let args = [&way[..], &topology].concat();
            let pontoon = Pontoon::with(&recorder.endpoint(), &authority, &args).ready();
            assert_same(&redis, &pontoon, &conversations, password);
            let seen = String::from_utf8_lossy(&recorder.seen()).to_uppercase();
            assert!(seen.contains("MAINT_NOTIFICATIONS\r\n$3\r\nOFF\r\n"), "{args:?}: {seen}");
            for on in ["MAINT_NOTIFICATIONS\r\n$2\r\nON", "NOTIFICATIONS ON", "'MAINT", "\\X6FN", "ENDPOINT"]
            {
                assert!(!seen.contains(on), "{args:?}: {on}: {seen}");
            }
        }
    }
}

#[test]
fn no_replica_redirects_a_client_to_its_primary() {
    let authority = Authority::new();
    let start = || {
        let options = ["--tls-replication", "yes", "--repl-diskless-sync-delay", "0"];
        Redis::of(&valkey(), authority.issue(&["localhost", "127.0.0.1"]), &authority, &options)
    };
    let (primary, replica) = (start(), start());
    let port = primary.tls_port.to_string();
    replica.direct().expect(&["REPLICAOF", "127.0.0.1", &port], "+OK\r\n");
    eventually("the replica is in step", || {
        String::from_utf8_lossy(&replica.direct().ask(&["INFO", "replication"])).contains("link_status:up")
    });
    let mut direct = replica.direct();
    direct.expect(&["CLIENT", "CAPA", "redirect"], "+OK\r\n");
    let redirected = direct.ask(&["SET", "k", "v"]);
    assert!(redirected.starts_with(b"-REDIRECT 127.0.0.1:"), "{}", redirected.escape_ascii());

    let set = command(&["SET", "k", "v"]);
    let conversations = conversations(&[
        &[command(&["CLIENT", "CAPA", "redirect"]), set.clone()].concat(),
        &[command(&["client", "capa", "other", "REDIRECT", "redirect"]), set.clone()].concat(),
        &[&b"client capa redirect\r\n"[..], &set].concat(),
        &[&b"\"client\" 'capa' \"\\x72edirect\"\r\n"[..], &set].concat(),
        &[command(&["CLIENT", "REPLY", "SKIP"]), command(&["CLIENT", "CAPA", "redirect"]), set].concat(),
    ]);
    let file = tempfile::NamedTempFile::new().unwrap();
    for way in ways(file.path().to_str().unwrap()).iter().filter(|way| !way.contains(&"--auth-password-file"))
    {
        let pontoon = Pontoon::with(&replica.endpoint(), &authority, way).ready();
        for (conversation, size) in
            conversations.iter().flat_map(|requests| [(requests, 1), (requests, usize::MAX)])
        {
            let mut client = pontoon.client();
            let replies = String::from_utf8(converse(&mut client, conversation, size)).unwrap();
            assert!(replies.contains("READONLY"), "{way:?}: {replies}");
            assert!(!replies.contains("REDIRECT"), "{way:?}: {replies}");
        }
    }
}

/// What Redis Enterprise pushes after `CLIENT MAINT_NOTIFICATIONS ON`. Source: `_parsers/base.py` of redis-py.
const PUSHES: &str = ">4\r\n$6\r\nMOVING\r\n:1\r\n:30\r\n$14\r\n10.0.0.9:10101\r\n\
    >4\r\n$9\r\nMIGRATING\r\n:2\r\n:30\r\n*1\r\n$1\r\n1\r\n\
    >3\r\n$11\r\nFAILED_OVER\r\n:3\r\n*1\r\n$1\r\n1\r\n\
    >3\r\n$9\r\nSMIGRATED\r\n:4\r\n*1\r\n*3\r\n$13\r\n10.0.0.8:6379\r\n$13\r\n10.0.0.9:6379\r\n$5\r\n1-100\r\n";

#[test]
fn no_notice_of_maintenance_reaches_a_client() {
    let authority = Authority::new();
    let server = Fake::tls(&authority.issue(&["localhost"]), |stream| {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            let asked = String::from_utf8_lossy(&buffer[..n]).to_uppercase();
            let count = |word: &str| asked.matches(word).count();
            let mut answer = "+RESET\r\n".repeat(count("RESET\r\n"))
                + &"%1\r\n+proto\r\n:3\r\n".repeat(count("HELLO"))
                + &"+OK\r\n".repeat(count("SETINFO") + count("SETNAME") + count("MAINT_NOTIFICATIONS"));
            if asked.contains("\r\nON\r\n") {
                answer += PUSHES;
            }
            answer += &"+PONG\r\n".repeat(count("PING"));
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    for sharing in ["dedicated", "shared"] {
        let args = ["--sharing", sharing, "--workers", "1", "--pool-warm", "false"];
        let pontoon = Pontoon::with(&server.endpoint(), &authority, &args);
        let mut client = pontoon.client();
        client.expect(&["HELLO", "3"], "%1\r\n+proto\r\n:3\r\n");
        let on = ["CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", "external-ip"];
        client.expect(&on, "+OK\r\n");
        client.expect(&["PING"], "+PONG\r\n");
        client.send(&[command(&on), command(&["PING"])].concat());
        client.expect_next("+OK\r\n");
        client.expect_next("+PONG\r\n");
    }
}

#[test]
fn a_connection_is_reused_even_if_the_server_accepted_the_request() {
    let authority = Authority::new();
    // Redis Enterprise accepts it.
    let server = Fake::tls(&authority.issue(&["localhost"]), |stream| {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            let asked = String::from_utf8_lossy(&buffer[..n]).into_owned();
            let count = |word: &str| asked.matches(word).count();
            let answer = "+RESET\r\n".repeat(count("RESET"))
                + &"+OK\r\n".repeat(count("SETINFO") + count("MAINT_NOTIFICATIONS\r\n$3\r\nOFF"))
                + &"+PONG\r\n".repeat(count("PING"));
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    let args = ["--sharing", "dedicated", "--workers", "1", "--pool-reuse", "true", "--pool-warm", "false"];
    let pontoon = Pontoon::with(&server.endpoint(), &authority, &args);
    eventually("a connection is reused", || {
        let mut client = pontoon.client();
        client.expect(&["CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", "none"], "+OK\r\n");
        client.finish();
        pontoon.metric("pontoon_upstream_leases_total", "origin=\"reused\"") > 0
    });
}

#[test]
fn a_clients_library_info_is_answered_as_without_the_bridge() {
    let set = |name: &str| command(&["CLIENT", "SETINFO", "LIB-NAME", name]);
    let requests = [
        set("redis-py"),
        set("redis-py(rq_v1)"),
        set("redis-py(pontoon)"),
        set(""),
        // The server's own errors.
        set("redis py"),
        set("redis-py\n"),
        command(&["client", "setinfo", "Lib-Name", "redis\tpy"]),
        command(&["CLIENT", "SETINFO", "LIB-NAME"]),
        command(&["CLIENT", "SETINFO", "LIB-NAME", "a", "b"]),
        command(&["CLIENT", "SETINFO", "OTHER", "a"]),
        command(&["CLIENT", "SETINFO", "LIB-VER", "1.0"]),
        b"client setinfo lib-name redis-py\r\n".to_vec(),
        b"client 'setinfo' \"lib-name\" 'redis py'\r\n".to_vec(),
    ];
    let conversations = conversations(&requests.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file.as_file(), "{PASSWORD}").unwrap();
    for way in ways(file.path().to_str().unwrap()) {
        for engine in [PathBuf::from("redis-server"), valkey()] {
            let authority = Authority::new();
            let password = way.contains(&"--auth-password-file");
            let options = if password { &["--requirepass", PASSWORD][..] } else { &[] };
            let redis = Redis::of(&engine, authority.issue(&["localhost"]), &authority, options);
            let pontoon = Pontoon::with(&redis.endpoint(), &authority, &way).ready();
            assert_same(&redis, &pontoon, &conversations, password);
        }
    }
}

#[test]
fn a_library_name_too_long_to_be_marked_is_answered_as_usual() {
    let authority = Authority::new();
    let redis = Redis::of(&valkey(), authority.issue(&["localhost"]), &authority, &[]);
    let pontoon = Pontoon::to(&redis.endpoint(), &authority);
    let mut client = pontoon.client();
    client.expect(&["CLIENT", "SETINFO", "LIB-NAME", &"x".repeat(1 << 20)], "+OK\r\n");
    client.expect(&["PING"], "+PONG\r\n");
}
