//! A primary that is demoted and lives on: clients reach the new one with their next connection, as they do without pontoon.

use std::time::Instant;

use crate::harness::{Authority, Engine, Forwarder, Hosts, Pontoon, Redis, Wire, eventually};

const MODES: [&[&str]; 3] = [
    &["--sharing", "dedicated", "--pool-reuse", "true"],
    &["--sharing", "dedicated", "--pool-reuse", "false"],
    &["--sharing", "shared", "--workers", "1"],
];

/// A name that leads to the primary, and what is behind it.
struct Pair {
    primary: Redis,
    replica: Redis,
    name: Forwarder,
    authority: Authority,
}

impl Pair {
    fn start() -> Self {
        let authority = Authority::new();
        let (primary, replica) = (Redis::start(&authority), Redis::start(&authority));
        let name = Forwarder::to(primary.tls_port);
        Self { primary, replica, name, authority }
    }

    fn bridge(&self, mode: &[&str]) -> Pontoon {
        Pontoon::with(&self.name.endpoint(), &self.authority, mode)
    }

    /// Makes the primary a replica, and the name lead to the other server.
    fn fail_over(&self) {
        self.primary.direct().expect(&["REPLICAOF", "127.0.0.1", "1"], "+OK\r\n");
        self.name.lead_to(self.replica.tls_port);
    }

    /// Leads the name to the first server, which is a primary again.
    fn fail_back(&self) {
        self.primary.direct().expect(&["REPLICAOF", "NO", "ONE"], "+OK\r\n");
        self.name.lead_to(self.primary.tls_port);
    }
}

fn retired(pontoon: &Pontoon) -> u64 {
    pontoon.metric("pontoon_upstream_discards_total", "reason=\"retired\"")
}

/// A client that has used its connection, which others can get once it is gone.
fn used(pontoon: &Pontoon) -> Wire {
    let mut client = pontoon.client();
    client.expect(&["SET", "k", "v"], "+OK\r\n");
    client
}

#[test]
fn a_client_that_reconnects_after_readonly_reaches_the_new_primary() {
    let pair = Pair::start();
    for mode in MODES {
        for _ in 0..3 {
            let pontoon = pair.bridge(mode);
            let others: Vec<Wire> = (0..4).map(|_| used(&pontoon)).collect();
            let mut client = used(&pontoon);
            drop(others);
            pair.fail_over();
            client.expect(&["SET", "k", "v"], "-READONLY You can't write against a read only replica.\r\n");
            drop(client);
            pontoon.client().expect(&["SET", "k", "v"], "+OK\r\n");
            pair.fail_back();
        }
    }
}

/// Names change only after the failover. Clients may lack the permission for ROLE.
#[test]
fn once_the_name_leads_to_the_new_primary_no_client_meets_the_old_one_again() {
    let pair = Pair::start();
    for server in [&pair.primary, &pair.replica] {
        server.direct().expect(&["ACL", "SETUSER", "default", "-role"], "+OK\r\n");
    }
    for mode in MODES {
        let pontoon = pair.bridge(mode);
        let mut client = used(&pontoon);
        pair.primary.direct().expect(&["REPLICAOF", "127.0.0.1", "1"], "+OK\r\n");
        for _ in 0..20 {
            client.expect(&["SET", "k", "v"], "-READONLY You can't write against a read only replica.\r\n");
            client = pontoon.client();
        }
        pontoon.client().expect(&["GET", "k"], "$1\r\nv\r\n");
        pair.name.lead_to(pair.replica.tls_port);
        pontoon.wait_for_log("new primary found after READONLY, ready connections retired");
        if mode == MODES[2] {
            client.expect(&["SET", "k", "v"], "+OK\r\n");
        }
        for _ in 0..3 {
            pontoon.client().expect(&["SET", "k", "v"], "+OK\r\n");
        }
        pair.fail_back();
    }
}

/// A client that stays with the old primary receives READONLY again and again.
#[test]
fn a_client_that_stays_does_not_hide_the_next_failover() {
    let pair = Pair::start();
    let pontoon = pair.bridge(MODES[0]);
    let (mut stays, mut client) = (used(&pontoon), used(&pontoon));
    pair.fail_over();
    client.expect(&["SET", "k", "v"], "-READONLY You can't write against a read only replica.\r\n");
    drop(client);
    let (mut client, others) = (used(&pontoon), (0..4).map(|_| used(&pontoon)).collect::<Vec<_>>());
    drop(others);
    // READONLY is not ignored longer than this.
    stays.expect(&["XREAD", "BLOCK", "600", "STREAMS", "stream", "0"], "*-1\r\n");
    stays.expect(&["SET", "k", "v"], "-READONLY You can't write against a read only replica.\r\n");
    pair.replica.direct().expect(&["REPLICAOF", "127.0.0.1", "1"], "+OK\r\n");
    pair.fail_back();
    client.expect(&["SET", "k", "v"], "-READONLY You can't write against a read only replica.\r\n");
    drop(client);
    pontoon.client().expect(&["SET", "k", "v"], "+OK\r\n");
}

#[test]
fn each_of_several_failovers_is_found() {
    let pair = Pair::start();
    for mode in [MODES[0], MODES[2]] {
        let pontoon = pair.bridge(mode);
        for failover in 0..4 {
            let others: Vec<Wire> = (0..4).map(|_| used(&pontoon)).collect();
            let mut client = used(&pontoon);
            drop(others);
            if failover % 2 == 0 {
                pair.fail_over();
            } else {
                pair.replica.direct().expect(&["REPLICAOF", "127.0.0.1", "1"], "+OK\r\n");
                pair.fail_back();
            }
            client.expect(&["SET", "k", "v"], "-READONLY You can't write against a read only replica.\r\n");
            drop(client);
            let mut next = pontoon.client();
            next.expect(&["SET", "k", "v"], "+OK\r\n");
            // After a second without READONLY, the next is the sign of another failover.
            next.expect(&["XREAD", "BLOCK", "1100", "STREAMS", "stream", "$"], "*-1\r\n");
            pair.replica.direct().expect(&["REPLICAOF", "NO", "ONE"], "+OK\r\n");
        }
    }
}

/// READONLY within another reply is a hint: pontoon asks for the role, here on a ready connection. The name has one address for both
/// servers, so a new connection could not show the failover.
fn finds_failover(words: &[&[&str]]) {
    let pair = Pair::start();
    for mode in MODES {
        let pontoon = pair.bridge(&[mode, &["--pool-warm", "true", "--pool-warm-min", "2"]].concat());
        let idle = || pontoon.metric("pontoon_upstream_connections", "state=\"idle\"");
        let mut client = used(&pontoon);
        eventually("a connection is ready", || idle() > 0);
        client.expect(&["ECHO", "READONLY"], "$8\r\nREADONLY\r\n");
        pair.fail_over();
        eventually("the role confirms the failover", || {
            for request in words {
                client.ask(request);
            }
            pontoon.log_count("by READONLY in a reply and by the server's role") > 0
        });
        drop(client);
        eventually("the next client writes to the new primary", || {
            pontoon.client().ask(&["SET", "k", "v"]) == b"+OK\r\n"
        });
        pair.fail_back();
    }
}

#[test]
fn readonly_within_the_reply_to_exec_is_found() {
    finds_failover(&[&["MULTI"], &["EVAL", "return redis.call('SET', 'k', 'v')", "0"], &["EXEC"]]);
}

#[test]
fn readonly_in_what_a_script_returns_is_found() {
    finds_failover(&[&["EVAL", "return {redis.pcall('SET', 'k', 'v')}", "0"]]);
}

#[test]
fn readonly_in_the_error_of_a_script_is_found() {
    if Engine::here().is_before_7() {
        // The error has another code: -ERR Error running script …
        finds_failover(&[&["EVAL", "return redis.call('SET', 'k', 'v')", "0"]]);
    }
    let pair = Pair::start();
    let pontoon = pair.bridge(MODES[0]);
    let mut client = used(&pontoon);
    pair.fail_over();
    client.ask(&["EVAL", "return redis.call('SET', 'k', 'v')", "0"]);
    drop(client);
    eventually("the next client writes to the new primary", || {
        pontoon.client().ask(&["SET", "k", "v"]) == b"+OK\r\n"
    });
}

/// Asserts that pontoon asks for the role after hints, and retires no connection.
fn hints_retire_nothing(redis: &Redis, pontoon: &Pontoon) {
    let mut clients: Vec<Wire> = (0..4).map(|_| pontoon.client()).collect();
    for client in &mut clients {
        client.expect(&["GET", "k"], "$-1\r\n");
    }
    // At the start pontoon asks what kind of server this is.
    pontoon.wait_for_log("upstream reachable");
    redis.direct().expect(&["CONFIG", "RESETSTAT"], "+OK\r\n");
    let asked = || {
        let stats = String::from_utf8(redis.direct().ask(&["INFO", "commandstats"])).unwrap();
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_hello:calls="));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    };
    assert_eq!(asked(), 0);
    for client in &mut clients {
        for _ in 0..25 {
            client.ask(&["EVAL", "return {redis.error_reply('READONLY not true'), 1}", "0"]);
            client.ask(&["EVAL", "return redis.error_reply('ERR said READONLY')", "0"]);
        }
        let before = asked();
        eventually("the role was asked for", || {
            client.ask(&["EVAL", "return {redis.error_reply('READONLY not true'), 1}", "0"]);
            asked() > before
        });
    }
    assert!(asked() < 20, "{} times", asked());
    clients[0].expect(&["GET", "k"], "$-1\r\n");
    assert_eq!(retired(pontoon), 0);
    assert_eq!(pontoon.log_count("failover found"), 0);
}

#[test]
fn a_script_that_returns_readonly_on_a_primary_retires_no_connection() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    for mode in MODES {
        hints_retire_nothing(&redis, &Pontoon::with(&redis.endpoint(), &authority, mode));
    }
}

#[test]
fn a_script_that_returns_readonly_on_a_replica_retires_no_connection() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    redis.direct().expect(&["REPLICAOF", "127.0.0.1", "1"], "+OK\r\n");
    for mode in MODES {
        hints_retire_nothing(&redis, &Pontoon::with(&redis.endpoint(), &authority, mode));
    }
}

/// A load balancer has an address in each zone, and all of them lead to the same server.
#[test]
fn a_script_that_returns_readonly_behind_several_addresses_retires_no_connection() {
    let authority = Authority::new();
    let redis = Redis::with(authority.issue(&["primary.test"]), &authority, &[]);
    let first = Forwarder::to(redis.tls_port);
    let port = first.address().port();
    let second = Forwarder::at(([127, 0, 0, 2], port).into(), redis.tls_port);
    let hosts = Hosts::new(&[]);
    hosts.set_addresses("primary.test", &[first.address(), second.address()]);
    let (upstream, ca) = (format!("primary.test:{port}"), authority.file());
    for mode in MODES {
        let all = ["--upstream", &upstream, "--tls-ca-file", &ca, "--listen", "127.0.0.1:0"];
        hints_retire_nothing(&redis, &Pontoon::with_hosts(&hosts, &[&all, mode].concat()));
    }
}

#[test]
fn writes_to_replicas_prevent_reuse_of_connections_only_briefly() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    redis.direct().expect(&["REPLICAOF", "127.0.0.1", "1"], "+OK\r\n");
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, MODES[0]);
    for _ in 0..500 {
        pontoon
            .client()
            .expect(&["SET", "k", "v"], "-READONLY You can't write against a read only replica.\r\n");
    }
    let dialled = pontoon.metric("pontoon_tls_handshakes_total", "");
    assert!(dialled < 250, "{dialled} connections for 500 clients");
}

/// Where clients bring their own passwords, pontoon cannot look for the primary, so it retires the connections again at the next READONLY.
#[test]
fn a_client_that_writes_to_a_replica_each_second_rarely_prevents_reuse() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let mut direct = redis.direct();
    direct.expect(&["REPLICAOF", "127.0.0.1", "1"], "+OK\r\n");
    direct.expect(&["CONFIG", "SET", "requirepass", "secret"], "+OK\r\n");
    let pontoon = Pontoon::with(&redis.endpoint(), &authority, MODES[0]);
    let client = || {
        let mut client = pontoon.client();
        client.expect(&["AUTH", "secret"], "+OK\r\n");
        client
    };
    let handshakes = || pontoon.metric("pontoon_tls_handshakes_total", "");
    let mut waits = client();
    let (began, before) = (Instant::now(), handshakes());
    for _ in 0..14 {
        waits.expect(&["XREAD", "BLOCK", "1100", "STREAMS", "stream", "$"], "*-1\r\n");
        client().expect(&["SET", "k", "v"], "-READONLY You can't write against a read only replica.\r\n");
    }
    let dialled = handshakes() - before;
    // Four times at first, and once in four seconds: a look at the role, and a new connection for the next client.
    let allowed = 2 * (5 + began.elapsed().as_secs() / 4);
    assert!(dialled <= allowed, "{dialled} connections, at most {allowed}");
}

#[test]
fn a_script_whose_reply_is_readonly_does_not_make_pontoon_dial_each_time() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    for mode in MODES {
        let pontoon = Pontoon::with(&redis.endpoint(), &authority, mode);
        let mut client = used(&pontoon);
        let before = pontoon.metric("pontoon_tls_handshakes_total", "");
        for _ in 0..200 {
            client.expect(&["EVAL", "return redis.error_reply('READONLY x')", "0"], "-READONLY x\r\n");
        }
        let dialled = pontoon.metric("pontoon_tls_handshakes_total", "") - before;
        assert!(dialled < 30, "{dialled} connections, {mode:?}");
    }
}
