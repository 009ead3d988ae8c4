//! Connections that are ready before a client comes, and those that serve one client after another: no client can notice.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::harness::{
    Authority, Engine, Fake, Forwarder, Pontoon, Redis, Wire, busy_script, command, eventually,
    raise_descriptor_limit,
};
use crate::isolation::view::{NO_CLIENTS_LIBRARY, VARIES, settle};

const IDLE: (&str, &str) = ("pontoon_upstream_connections", "state=\"idle\"");

fn idle(pontoon: &Pontoon) -> u64 {
    pontoon.metric(IDLE.0, IDLE.1)
}

fn leases(pontoon: &Pontoon, origin: &str) -> u64 {
    pontoon.metric("pontoon_upstream_leases_total", &format!("origin=\"{origin}\""))
}

fn discards(pontoon: &Pontoon, reason: &str) -> u64 {
    pontoon.metric("pontoon_upstream_discards_total", &format!("reason=\"{reason}\""))
}

fn handshakes(pontoon: &Pontoon) -> u64 {
    pontoon.metric("pontoon_tls_handshakes_total", "")
}

/// A Redis and a bridge with one thread, so that it is known which connection is used next.
fn reusing(options: &[&str], args: &[&str]) -> (Redis, Pontoon) {
    let authority = Authority::new();
    let identity = authority.issue(&["localhost"]);
    let mut redis = Redis::with(identity, &authority, options);
    let reuse: &[&str] = if args.contains(&"--pool-reuse") { &[] } else { &["--pool-reuse", "true"] };
    let args = [&["--workers", "1"], reuse, args].concat();
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &args).ready();
    redis.keep(authority);
    (redis, pontoon)
}

fn warming(args: &[&str]) -> (Redis, Pontoon) {
    let (redis, pontoon) = reusing(&[], &[&["--pool-warm", "true"], args].concat());
    eventually("a connection is warm", || idle(&pontoon) >= 1);
    (redis, pontoon)
}

/// All that a client can find out about its connection, without what differs between any two new ones.
fn connection_state(client: &mut Wire) -> BTreeMap<String, String> {
    let ask = |client: &mut Wire, words: &[&str]| String::from_utf8(client.ask(words)).unwrap();
    let mut state = BTreeMap::new();
    let info = ask(client, &["CLIENT", "INFO"]);
    for field in info.lines().nth(1).unwrap().split(' ') {
        let (name, value) = field.split_once('=').unwrap();
        let is_no_clients = name.starts_with("lib-") && NO_CLIENTS_LIBRARY.contains(&value);
        if !VARIES.contains(&name) && !is_no_clients {
            state.insert(name.to_owned(), value.to_owned());
        }
    }
    for words in [
        &["PING"][..],
        &["EXEC"],
        &["GET", "who"],
        &["CLIENT", "GETNAME"],
        &["CLIENT", "GETREDIR"],
        &["CLIENT", "TRACKINGINFO"],
        &["ACL", "WHOAMI"],
    ] {
        state.insert(words.join(" "), ask(client, words));
    }
    state
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    Closes,
    Resets,
    HalfCloses,
    InMidPipeline,
    InMidCommand,
}

fn leave(mut client: Wire, how: Leaves) {
    match how {
        Leaves::Closes => {}
        Leaves::Resets => {
            let stream = client.writer();
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        Leaves::HalfCloses => {
            client.finish();
            client.rest();
        }
        Leaves::InMidPipeline => {
            let slow = busy_script(Duration::from_millis(50));
            client.send(&command(&["EVAL", &slow, "0"]).repeat(2));
        }
        Leaves::InMidCommand => client.send(b"*2\r\n$3\r\nGET\r\n$100\r\nhalf"),
    }
}

/// What a client does to its connection, and whether the connection may serve another one after it.
const STATES: &[(&[&[&str]], bool)] = &[
    (&[&["PING"]], true),
    (&[&["SELECT", "3"]], true),
    (&[&["CLIENT", "SETNAME", "somebody"]], true),
    (&[&["HELLO", "3", "SETNAME", "somebody"]], true),
    // The server goes on reporting keys that were read before RESET.
    (&[&["HELLO", "3"], &["CLIENT", "TRACKING", "ON", "BCAST"]], false),
    (&[&["MULTI"], &["SET", "who", "somebody"]], true),
    (&[&["WATCH", "who"]], true),
    (&[&["WATCH", "who"], &["MULTI"], &["NONSENSE"]], true),
    (&[&["AUTH", "somebody", "secret"]], true),
    (&[&["HELLO", "3", "AUTH", "somebody", "secret"]], true),
    (&[&["SCRIPT", "LOAD", "return 1"]], true),
    (&[&["HELLO", "3"], &["SUBSCRIBE", "news"]], true),
    (&[&["SUBSCRIBE", "news"]], false),
    (&[&["SUBSCRIBE", "news"], &["UNSUBSCRIBE", "news"]], false),
    (&[&["MONITOR"]], false),
    (&[&["CLIENT", "NO-EVICT", "ON"]], false),
    (&[&["CLIENT", "ID"]], false),
];

#[test]
fn the_next_client_finds_a_new_connection_whatever_the_last_one_left() {
    let (redis, pontoon) = reusing(&[], &[]);
    redis
        .direct()
        .expect(&["ACL", "SETUSER", "somebody", "on", ">secret", "allcommands", "allkeys"], "+OK\r\n");
    let pristine = connection_state(&mut redis.direct());
    for how in
        [Leaves::Closes, Leaves::Resets, Leaves::HalfCloses, Leaves::InMidPipeline, Leaves::InMidCommand]
    {
        for (commands, reusable) in STATES {
            // A command that the engine lacks changes nothing.
            let lacks = Engine::here().is_before_7() && commands[0].contains(&"NO-EVICT");
            let reusable = &(*reusable || lacks);
            let mut client = pontoon.client();
            for words in *commands {
                client.ask(words);
            }
            // A transaction or blocked request gets no late reply, which these ways of leaving need.
            let busy = matches!(how, Leaves::InMidPipeline | Leaves::InMidCommand);
            let (before, reused) = (pontoon.metric("pontoon_sessions_total", ""), leases(&pontoon, "reused"));
            leave(client, how);
            eventually("the session ends", || pontoon.metric("pontoon_sessions_total", "") > before);
            // A pushed message may arrive between RESET and its reply; then the connection is closed.
            let settled = |kept: u64| idle(&pontoon) == kept;
            if *reusable && !busy {
                eventually(&format!("{commands:?}, {how:?}: the connection is kept"), || settled(1));
            } else if !busy {
                assert!(settled(0), "{commands:?}, {how:?}: the connection is kept");
            }
            let mut next = pontoon.client();
            assert_eq!(connection_state(&mut next), pristine, "{commands:?}, {how:?}");
            if *reusable && !busy {
                assert_eq!(leases(&pontoon, "reused"), reused + 1, "{commands:?}, {how:?}");
            }
            // The next round starts without a kept connection.
            next.ask(&["CLIENT", "ID"]);
            let before = pontoon.metric("pontoon_sessions_total", "");
            drop(next);
            eventually("the session ends", || pontoon.metric("pontoon_sessions_total", "") > before);
        }
    }
}

#[test]
fn a_watch_left_behind_aborts_no_other_clients_transaction() {
    let (redis, pontoon) = reusing(&[], &[]);
    let mut client = pontoon.client();
    client.expect(&["WATCH", "balance"], "+OK\r\n");
    drop(client);
    eventually("the connection is kept", || idle(&pontoon) == 1);
    redis.direct().expect(&["SET", "balance", "2"], "+OK\r\n");
    let mut next = pontoon.client();
    next.expect(&["MULTI"], "+OK\r\n");
    next.expect(&["INCR", "balance"], "+QUEUED\r\n");
    next.expect(&["EXEC"], "*1\r\n:3\r\n");
    assert_eq!(leases(&pontoon, "reused"), 1);
}

#[test]
fn an_unauthenticated_client_does_not_inherit_another_clients_rights() {
    let (_redis, pontoon) = reusing(&["--requirepass", "secret"], &[]);
    let mut client = pontoon.client();
    client.expect(&["AUTH", "secret"], "+OK\r\n");
    client.expect(&["SET", "k", "v"], "+OK\r\n");
    drop(client);
    eventually("the connection is kept", || idle(&pontoon) == 1);
    let mut next = pontoon.client();
    next.expect(&["GET", "k"], "-NOAUTH Authentication required.\r\n");
    assert_eq!(leases(&pontoon, "reused"), 1);
}

#[test]
fn a_client_that_leaves_while_blocked_takes_nothing_from_the_next() {
    let (redis, pontoon) = reusing(&[], &[]);
    let mut client = pontoon.client();
    client.send(&command(&["BLPOP", "queue", "0"]));
    let blocked = |count: u32| {
        let wanted = format!("blocked_clients:{count}");
        String::from_utf8_lossy(&redis.direct().ask(&["INFO", "clients"])).contains(&wanted)
    };
    eventually("the client blocks", || blocked(1));
    drop(client);
    eventually("no client is blocked", || blocked(0));
    let mut next = pontoon.client();
    next.expect(&["RPUSH", "queue", "job"], ":1\r\n");
    next.expect(&["LPOP", "queue"], "$3\r\njob\r\n");
    assert_eq!(leases(&pontoon, "reused"), 0);
}

#[test]
fn every_client_has_the_configured_client_name() {
    let (_redis, pontoon) = reusing(&[], &["--client-name", "bridge"]);
    for _ in 0..3 {
        let mut client = pontoon.client();
        client.expect(&["CLIENT", "GETNAME"], "$6\r\nbridge\r\n");
        client.expect(&["CLIENT", "SETNAME", "other"], "+OK\r\n");
        drop(client);
        eventually("the connection is kept", || idle(&pontoon) == 1);
    }
    assert_eq!(leases(&pontoon, "reused"), 2);
}

#[test]
fn clients_that_connect_per_request_cost_the_server_no_handshakes() {
    let (_redis, pontoon) = reusing(&[], &[]);
    for n in 0..200 {
        let mut client = pontoon.client();
        client.expect(&["SET", "n", &n.to_string()], "+OK\r\n");
        drop(client);
        eventually("the connection is kept", || idle(&pontoon) == 1);
    }
    // One for the first client, and one at the start to find out whether the upstream can be reached.
    assert_eq!((handshakes(&pontoon), leases(&pontoon, "reused")), (2, 199));
}

/// Scripts, completed transactions, and refused commands: what today's clients do by default.
#[test]
fn a_client_that_leaves_no_state_needs_no_reset() {
    let (redis, pontoon) = reusing(&[], &[]);
    let uses: &[&[&[&str]]] = &[
        &[&["EVAL", "redis.call('SELECT', 5) return 1", "0"]],
        &[&["SCRIPT", "LOAD", "return 1"], &["EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "0"]],
        &[&["MULTI"], &["INCR", "n"], &["EXEC"]],
        &[&["WATCH", "n"], &["GET", "n"], &["UNWATCH"]],
        &[&["WATCH", "n"], &["MULTI"], &["INCR", "n"], &["EXEC"]],
        &[&["MULTI"], &["SELECT", "3"], &["DISCARD"]],
        &[&["CLIENT", "NO-SUCH-SUBCOMMAND", "ON"]],
        &[&["SELECT", "99"], &["HELLO", "9"], &["CLIENT", "SETNAME", "a b"], &["NO.SUCH.COMMAND"]],
        &[&["BLPOP", "none", "0.01"], &["CONFIG", "GET", "maxmemory"], &["UNWATCH"]],
    ];
    for requests in uses {
        let mut client = pontoon.client();
        for request in *requests {
            client.ask(request);
        }
        drop(client);
        eventually("its connection is kept", || idle(&pontoon) == 1);
    }
    assert_eq!((leases(&pontoon, "dialled"), leases(&pontoon, "reused")), (1, uses.len() as u64 - 1));
    let stats = String::from_utf8(redis.direct().ask(&["INFO", "commandstats"])).unwrap();
    assert!(stats.contains("cmdstat_evalsha") && !stats.contains("cmdstat_reset"), "{stats}");
}

#[test]
fn a_client_that_sends_quit_leaves_its_connection_to_the_next() {
    let (redis, pontoon) = reusing(&[], &[]);
    let begins: [&[&[&str]]; 4] = [
        &[],
        &[&["MULTI"], &["SET", "k", "v"]],
        &[&["DEBUG", "SLEEP", "0.3"]],
        &[&["CLIENT", "SETNAME", "x"]],
    ];
    for requests in begins {
        let mut client = pontoon.client();
        let mut pipeline: Vec<u8> = requests.iter().flat_map(|words| command(words)).collect();
        pipeline.extend([command(&["QUIT"]), command(&["SET", "k", "never"])].concat());
        client.send(&pipeline);
        for _ in requests {
            assert!(client.reply().starts_with(b"+"));
        }
        client.expect_next("+OK\r\n");
        client.expect_end();
        drop(client);
        let kept = requests.first().is_none_or(|first| first[0] != "DEBUG");
        eventually("its connection is kept, if it can be", || idle(&pontoon) == u64::from(kept));
    }
    for pieces in [command(&["QUIT"]).chunks(1).map(<[u8]>::to_vec).collect(), vec![b"quit\r\n".to_vec()]] {
        let mut client = pontoon.client();
        for piece in pieces {
            client.send(&piece);
        }
        client.expect_next("+OK\r\n");
        client.expect_end();
        eventually("its connection is kept, or was closed", || {
            pontoon.metric("pontoon_sessions_active", "") == 0 && idle(&pontoon) <= 1
        });
    }
    let mut direct = redis.direct();
    direct.expect(&["EXISTS", "k"], ":0\r\n");
    assert!(leases(&pontoon, "reused") >= 3);
}

#[test]
fn with_reuse_off_every_client_gets_a_connection_of_its_own() {
    let (_redis, pontoon) = reusing(&[], &["--pool-reuse", "false"]);
    for _ in 0..5 {
        pontoon.client().expect(&["PING"], "+PONG\r\n");
    }
    assert_eq!((leases(&pontoon, "dialled"), leases(&pontoon, "reused"), idle(&pontoon)), (5, 0, 0));
}

#[test]
fn an_engine_without_reset_is_asked_once_and_clean_connections_are_reused() {
    let (redis, pontoon) = reusing(&["--rename-command", "RESET", ""], &[]);
    for left in 1..=5 {
        pontoon.client().expect(&["SELECT", "1"], "+OK\r\n");
        eventually("the connection is closed", || discards(&pontoon, "unclean") == left);
    }
    assert_eq!((leases(&pontoon, "dialled"), idle(&pontoon)), (5, 0));
    let errors = String::from_utf8(redis.direct().ask(&["INFO", "stats"])).unwrap();
    // One for SETINFO, which this engine does not know either, and one for RESET.
    let replies = errors.lines().find_map(|line| line.strip_prefix("total_error_replies:")).unwrap();
    let replies: u32 = replies.trim().parse().unwrap();
    assert!(replies <= 3, "{replies} error replies");
    pontoon.client().expect(&["SET", "k", "v"], "+OK\r\n");
    eventually("the connection is kept", || idle(&pontoon) == 1);
    pontoon.client().expect(&["GET", "k"], "$1\r\nv\r\n");
    assert_eq!(leases(&pontoon, "reused"), 1);
}

#[test]
fn no_more_connections_are_kept_than_allowed() {
    let (_redis, pontoon) = reusing(&[], &["--pool-warm-max", "2"]);
    let mut clients: Vec<_> = (0..6).map(|_| pontoon.client()).collect();
    for client in &mut clients {
        client.expect(&["PING"], "+PONG\r\n");
    }
    drop(clients);
    eventually("the other connections are closed", || discards(&pontoon, "surplus") == 4);
    assert_eq!(idle(&pontoon), 2);
}

#[test]
fn a_client_that_gets_a_warm_connection_waits_for_no_handshake() {
    let (_redis, pontoon) = warming(&["--pool-warm-min", "3"]);
    eventually("three connections are warm", || idle(&pontoon) == 3);
    let before = handshakes(&pontoon);
    let mut clients: Vec<_> = (0..3).map(|_| pontoon.client()).collect();
    for client in &mut clients {
        client.expect(&["PING"], "+PONG\r\n");
    }
    assert_eq!((leases(&pontoon, "warm"), leases(&pontoon, "dialled")), (3, 0));
    eventually("three connections are warm again", || idle(&pontoon) == 3);
    assert_eq!(handshakes(&pontoon), before + 3);
}

#[test]
fn warm_connections_grow_with_arrivals_up_to_their_limit() {
    let (_redis, pontoon) = warming(&["--pool-warm-max", "8"]);
    // All at once, because arrivals are counted by the second, and the machine may be busy.
    let mut clients: Vec<_> = (0..30).map(|_| pontoon.client()).collect();
    for client in &mut clients {
        client.expect(&["PING"], "+PONG\r\n");
    }
    eventually("pool.warm_max connections are warm", || idle(&pontoon) == 8);
    drop(clients);
}

#[test]
fn clients_do_not_notice_warm_connections_that_the_server_kills() {
    let (redis, pontoon) = warming(&["--pool-warm-min", "4"]);
    pontoon.allows("localhost");
    let mut direct = redis.direct();
    // A front passes the end on a moment after the server has closed a connection.
    let has_front = !Engine::here().tls;
    for _ in 0..20 {
        eventually("four connections are warm", || idle(&pontoon) >= 4);
        if has_front {
            settle(&pontoon, &mut direct, 1);
        }
        let all_closed = idle(&pontoon) + discards(&pontoon, "closed");
        direct.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        if has_front {
            eventually("the ends have arrived", || discards(&pontoon, "closed") >= all_closed);
        }
        // Immediately, because the bridge may not have noticed yet.
        let mut client = pontoon.client();
        client.expect(&["PING"], "+PONG\r\n");
    }
}

#[test]
fn a_connection_that_a_firewall_dropped_is_given_to_no_client() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let firewall = Forwarder::to(redis.tls_port);
    let args = ["--pool-warm", "true", "--pool-warm-min", "3"];
    let pontoon = Pontoon::with(&firewall.endpoint(), &authority, &args);
    eventually("three connections are warm", || idle(&pontoon) == 3);
    firewall.forget();
    // Time must pass, because a connection that was just active is trusted.
    thread::sleep(Duration::from_millis(1100));
    let mut client = pontoon.client();
    client.expect(&["PING"], "+PONG\r\n");
    assert!(discards(&pontoon, "unanswered") >= 3, "all of the same age are closed");
}

#[test]
fn old_connections_are_replaced_before_a_client_gets_them() {
    let (_redis, pontoon) = warming(&["--pool-max-age", "400ms"]);
    eventually("some connections grow old", || discards(&pontoon, "age") >= 2);
    pontoon.client().expect(&["PING"], "+PONG\r\n");
}

#[test]
fn a_connection_that_outlives_its_age_with_a_client_serves_no_other() {
    let (_redis, pontoon) = reusing(&[], &["--pool-max-age", "1ms"]);
    let mut client = pontoon.client();
    client.expect(&["PING"], "+PONG\r\n");
    drop(client);
    eventually("the connection is closed", || discards(&pontoon, "age") >= 1);
    assert_eq!(idle(&pontoon), 0);
}

#[test]
fn clients_reach_a_restarted_server_though_the_pool_was_full() {
    let authority = Authority::new();
    let mut redis = Redis::start(&authority);
    let args = ["--pool-warm", "true", "--pool-warm-min", "8"];
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, &args);
    eventually("the pool is full", || idle(&pontoon) == 8);
    pontoon.allows("localhost");
    redis.kill();
    eventually("the pool is empty", || idle(&pontoon) == 0);
    redis.restart();
    pontoon.client().expect(&["PING"], "+PONG\r\n");
    eventually("the pool is full again", || idle(&pontoon) >= 8);
}

#[test]
fn a_primary_that_became_a_replica_keeps_no_warm_connections() {
    let (redis, pontoon) = reusing(&[], &[]);
    let (mut first, mut second) = (pontoon.client(), pontoon.client());
    first.expect(&["PING"], "+PONG\r\n");
    second.expect(&["SET", "k", "v"], "+OK\r\n");
    drop(first);
    eventually("one connection is kept", || idle(&pontoon) == 1);
    redis.direct().expect(&["REPLICAOF", "127.0.0.1", "1"], "+OK\r\n");
    second.expect(&["SET", "k", "v"], "-READONLY You can't write against a read only replica.\r\n");
    eventually("no connection is kept", || idle(&pontoon) == 0);
    let told = "failover found: server replied READONLY, ready connections retired";
    assert_eq!(pontoon.wait_for_log(told)["level"], "INFO");
    assert!(pontoon.get("/").1.contains(told));
    // This connection serves no other client either, though it works.
    second.expect(&["GET", "k"], "$1\r\nv\r\n");
    drop(second);
    eventually("the connection is closed", || discards(&pontoon, "retired") == 2);
}

#[test]
fn kept_connections_also_follow_renewed_trust() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::copy(authority.file(), &ca).unwrap();
    let ca_path = ca.to_str().unwrap();
    let pontoon = Pontoon::run(&[
        "--upstream",
        &redis.endpoint(),
        "--listen",
        "127.0.0.1:0",
        "--tls-ca-file",
        ca_path,
        "--pool-reuse",
        "true",
    ]);
    pontoon.client().expect(&["PING"], "+PONG\r\n");
    eventually("the connection is kept", || idle(&pontoon) == 1);
    let pem = std::fs::read_to_string(&ca).unwrap();
    std::fs::write(&ca, format!("{pem}{pem}")).unwrap();
    pontoon.wait_for_log("certificates reloaded");
    eventually("the connection is closed", || discards(&pontoon, "retired") == 1);
}

/// A server that accepts TLS, PING and pontoon's greeting, and the most handshakes that it had at once.
fn counting_server(authority: &Authority) -> (Fake, Arc<Mutex<usize>>) {
    let config = authority.issue(&["localhost"]).server_config();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(0)));
    let fake = {
        let most = Arc::clone(&most);
        Fake::start(move |stream, _| {
            let at_once = now.fetch_add(1, Ordering::SeqCst) + 1;
            {
                let mut most = most.lock().unwrap();
                *most = at_once.max(*most);
            }
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = rustls::StreamOwned::new(connection, stream);
            let mut buffer = [0; 1024];
            let mut greeted = false;
            loop {
                let read = tls.read(&mut buffer);
                // The handshake is done when the greeting can be read.
                if !std::mem::replace(&mut greeted, true) {
                    now.fetch_sub(1, Ordering::SeqCst);
                }
                let Ok(n @ 1..) = read else { return };
                let count = |word: &[u8]| buffer[..n].windows(word.len()).filter(|at| *at == word).count();
                let mut answer = b"+RESET\r\n".repeat(count(b"RESET"));
                answer.extend(b"+OK\r\n".repeat(count(b"SETINFO")));
                answer.extend(b"+PONG\r\n".repeat(count(b"PING")));
                if tls.write_all(&answer).is_err() {
                    return;
                }
            }
        })
    };
    (fake, most)
}

#[test]
fn a_storm_of_clients_causes_no_storm_of_handshakes_and_no_failure() {
    raise_descriptor_limit();
    let authority = Authority::new();
    let (fake, most) = counting_server(&authority);
    let args =
        ["--max-clients", "3000", "--connect-timeout", "60s", "--handshakes", "8", "--pool-warm", "true"];
    let pontoon = Pontoon::with(&fake.endpoint(), &authority, &args);
    let address = pontoon.address();
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(move || {
                // All connect before the first is served.
                let mut clients: Vec<_> = (0..50).map(|_| Wire::tcp(address)).collect();
                for client in &mut clients {
                    client.send(&command(&["PING"]));
                }
                for client in &mut clients {
                    client.expect_next("+PONG\r\n");
                }
            });
        }
    });
    let most = *most.lock().unwrap();
    assert!((1..=8).contains(&most), "{most} handshakes at once");
}

#[test]
fn a_waiting_client_gets_a_connection_that_another_gives_back() {
    let authority = Authority::new();
    let (fake, _) = counting_server(&authority);
    let gate = Forwarder::to(fake.port());
    let args = ["--handshakes", "1", "--connect-timeout", "20s", "--pool-reuse", "true"];
    let pontoon = Pontoon::with(&gate.endpoint(), &authority, &args).ready();
    let mut first = pontoon.client();
    first.expect(&["PING"], "+PONG\r\n");
    // The only handshake that is allowed does not end.
    gate.hold_new();
    let mut second = pontoon.client();
    eventually("the second client's dial holds the only permit", || {
        pontoon.metric("pontoon_upstream_connections", "state=\"connecting\"") == 1
    });
    let mut third = pontoon.client();
    eventually("the third client waits", || {
        pontoon.metric("pontoon_upstream_connections", "state=\"connecting\"") == 2
    });
    drop(first);
    third.expect(&["PING"], "+PONG\r\n");
    gate.release();
    second.expect(&["PING"], "+PONG\r\n");
    assert_eq!(leases(&pontoon, "reused"), 1);
    let _ = third.writer().shutdown(Shutdown::Both);
}
