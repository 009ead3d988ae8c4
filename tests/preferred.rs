//! The road: plaintext until the endpoint accepts TLS, and then never again.

mod clusters;
mod sentinels;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;

use crate::harness::{
    Authority, CHECK, Dual, Hosts, Identity, Mood, Pontoon, Redis, StopOnDrop, Wire, clients_share, command,
    eventually, is_pontoons_error, pontoon,
};

const LOUD: &str = "traffic is in plaintext until an endpoint accepts TLS";

/// A port for plaintext and TLS in front of a Redis, and a bridge that prefers TLS.
fn road(plaintext: Mood, tls: Mood, args: &[&str]) -> (Authority, Redis, Dual, Pontoon) {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let dual = Dual::new(&redis, plaintext, tls);
    let pontoon = prefer(&dual, &authority, args);
    (authority, redis, dual, pontoon)
}

fn prefer(dual: &Dual, authority: &Authority, args: &[&str]) -> Pontoon {
    let mut all = vec!["--tls-mode", "preferred"];
    all.extend(args);
    let pontoon = Pontoon::with(&dual.endpoint(), authority, &all);
    pontoon.allows(LOUD);
    pontoon
}

fn transit(pontoon: &Pontoon, mode: &str) -> u64 {
    pontoon.metric("pontoon_transit_encryption", &format!("mode=\"{mode}\""))
}

fn in_plaintext(pontoon: &Pontoon) -> u64 {
    pontoon.metric("pontoon_upstream_plaintext_connections", "")
}

#[test]
fn without_tls_clients_are_served_in_plaintext_and_wait_for_no_probe() {
    for mood in Mood::NO_TLS {
        // A client that waited for this timeout would fail the test.
        let (_authority, _redis, dual, pontoon) = road(Mood::Accept, mood, &["--connect-timeout", "10m"]);
        pontoon.allows("transit encryption observed: plaintext only");
        pontoon.allows("transit encryption observed: plaintext, and TLS that cannot be trusted");
        let mut client = pontoon.client();
        client.expect(&["SET", "k", "v"], "+OK\r\n");
        assert!(in_plaintext(&pontoon) == 1 && dual.plaintext_bytes() > 0, "{mood:?}");
    }
}

#[test]
fn after_tls_has_been_seen_nothing_brings_plaintext_back() {
    let (_authority, _redis, dual, pontoon) = road(Mood::Accept, Mood::Reset, &["--connect-timeout", "2s"]);
    pontoon.expects("transit encryption observed: plaintext only");
    pontoon.client().expect(&["SET", "k", "v"], "+OK\r\n");
    dual.set(Mood::Accept, Mood::Accept);
    eventually("TLS is seen", || transit(&pontoon, "tls") == 1);
    pontoon.wait_for_log("upstream accepts TLS, new plaintext connections refused");
    let (connections, bytes) = (dual.plaintext_connections(), dual.plaintext_bytes());
    pontoon.client().expect(&["GET", "k"], "$1\r\nv\r\n");
    assert_eq!(in_plaintext(&pontoon), 0);
    pontoon.allows("TLS handshake with");
    pontoon.allows("greeting");
    pontoon.allows("timed out");
    for mood in Mood::NO_TLS {
        dual.set(Mood::Accept, mood);
        dual.cut();
        eventually("no connection is left to give", || is_pontoons_error(&pontoon.first_reply(&["PING"])));
        assert_eq!((dual.plaintext_connections(), dual.plaintext_bytes()), (connections, bytes), "{mood:?}");
    }
    assert!(pontoon.metric("pontoon_downgrades_refused_total", "") >= Mood::NO_TLS.len() as u64);
    assert!(pontoon.printed().contains("plaintext stays refused, as after any use of TLS"));
    dual.set(Mood::Reset, Mood::Accept);
    eventually("the server is reached again", || pontoon.first_reply(&["GET", "k"]) == b"$1\r\nv\r\n");
}

#[test]
fn an_unverified_certificate_is_an_error_only_after_the_latch() {
    let authority = Authority::new();
    let honest = Redis::start(&authority);
    let impostor = Redis::with(Identity::self_signed(&["localhost"]), &authority, &[]);
    let dual = Dual::new(&impostor, Mood::Accept, Mood::Accept);
    let pontoon = prefer(&dual, &authority, &[]);
    pontoon.expects("transit encryption observed: plaintext, and TLS that cannot be trusted");
    pontoon.client().expect(&["PING"], "+PONG\r\n");
    eventually("the untrusted certificate is known", || transit(&pontoon, "untrusted") == 1);
    assert!(dual.plaintext_connections() > 0);

    dual.lead_to(&honest);
    eventually("TLS is seen", || transit(&pontoon, "tls") == 1);
    let connections = dual.plaintext_connections();
    pontoon.expects("TLS handshake with");
    dual.lead_to(&impostor);
    dual.cut();
    eventually("the impostor is refused", || {
        String::from_utf8_lossy(&pontoon.first_reply(&["PING"])).contains("TLS handshake")
    });
    assert_eq!(dual.plaintext_connections(), connections);
}

#[test]
fn an_endpoint_with_only_unverified_tls_is_reported_as_such() {
    let authority = Authority::new();
    let impostor = Redis::with(Identity::self_signed(&["localhost"]), &authority, &[]);
    let dual = Dual::new(&impostor, Mood::Reset, Mood::Accept);
    let pontoon = prefer(&dual, &authority, &[]);
    pontoon.expects("transit encryption observed: only TLS, and it cannot be trusted");
    pontoon.allows("TLS handshake with");
    pontoon.allows("greeting");
    eventually("the untrusted certificate is known", || transit(&pontoon, "untrusted_only") == 1);
    let reply = String::from_utf8(pontoon.client().ask(&["PING"])).unwrap();
    assert!(reply.contains("TLS handshake") && reply.contains("issuer"), "{reply}");
}

#[test]
fn a_restart_remembers_the_latch_if_there_is_a_state_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state.json");
    let args = ["--state-file", file.to_str().unwrap(), "--connect-timeout", "2s"];
    let (authority, _redis, dual, before) = road(Mood::Accept, Mood::Accept, &args);
    before.client().expect(&["PING"], "+PONG\r\n");
    eventually("the state file is written", || file.exists());
    drop(before);

    dual.set(Mood::Accept, Mood::Hang);
    dual.cut();
    let connections = dual.plaintext_connections();
    let after = prefer(&dual, &authority, &args);
    after.allows("timed out");
    let reply = String::from_utf8(after.client().ask(&["PING"])).unwrap();
    assert!(reply.starts_with("-LOADING pontoon: ") && reply.contains("timed out"), "{reply}");
    dual.set(Mood::Accept, Mood::Accept);
    eventually("TLS works", || after.client().ask(&["PING"]) == b"+PONG\r\n");
    assert_eq!(dual.plaintext_connections(), connections);
}

/// Whether the state file names this endpoint.
fn remembers(file: &Path, dual: &Dual) -> bool {
    std::fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("\"{}\"", dual.endpoint())))
}

/// Asserts that a bridge which prefers TLS sends nothing in plaintext while something on the path blocks TLS.
#[track_caller]
fn assert_refuses_plaintext(dual: &Dual, authority: &Authority, args: &[&str]) {
    dual.set(Mood::Accept, Mood::Reset);
    dual.cut();
    let connections = dual.plaintext_connections();
    let pontoon = prefer(dual, authority, args);
    pontoon.allows("TLS handshake with");
    assert!(is_pontoons_error(&pontoon.client().ask(&["PING"])));
    assert_eq!(dual.plaintext_connections(), connections);
}

#[test]
fn a_restart_remembers_tls_from_the_time_in_which_it_was_required() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state.json");
    let args = ["--state-file", file.to_str().unwrap(), "--connect-timeout", "2s"];
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let dual = Dual::new(&redis, Mood::Accept, Mood::Accept);
    let required = Pontoon::with(&dual.endpoint(), &authority, &args);
    required.client().expect(&["PING"], "+PONG\r\n");
    eventually("the state file names the endpoint", || remembers(&file, &dual));
    drop(required);
    assert_refuses_plaintext(&dual, &authority, &args);
}

#[test]
fn tls_that_was_not_verified_is_not_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state.json");
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let dual = Dual::new(&redis, Mood::Accept, Mood::Accept);
    let args = ["--tls-insecure-skip-verify", "--state-file", file.to_str().unwrap()];
    let mut pontoon = Pontoon::with(&dual.endpoint(), &authority, &args).ready();
    pontoon.expects("tls.insecure_skip_verify is set, any certificate is accepted");
    pontoon.client().expect(&["PING"], "+PONG\r\n");
    pontoon.signal(Signal::TERM);
    assert_eq!(pontoon.wait().code(), Some(0));
    assert!(file.exists() && !remembers(&file, &dual));
}

#[test]
fn a_restart_remembers_each_name_that_was_reached_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state.json");
    let args = ["--state-file", file.to_str().unwrap(), "--connect-timeout", "2s"];
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let names = [Mood::Accept, Mood::Reset].map(|tls| Dual::new(&redis, Mood::Accept, tls));
    let second = names[1].endpoint();
    let both = [&args[..], &["--upstream", &second]].concat();
    let pontoon = prefer(&names[0], &authority, &both);
    pontoon.allows("transit encryption observed: plaintext only");
    pontoon.allows("upstream connection failed");
    pontoon.allows("TLS handshake with");
    eventually("the first name accepts TLS", || remembers(&file, &names[0]));
    // The second name takes over.
    names[1].set(Mood::Reset, Mood::Accept);
    names[0].set(Mood::Close, Mood::Close);
    names[0].cut();
    eventually("the state file names both", || {
        pontoon.first_reply(&["PING"]);
        remembers(&file, &names[1])
    });
    drop(pontoon);
    assert_refuses_plaintext(&names[1], &authority, &args);
}

#[test]
fn a_damaged_state_file_refuses_plaintext_and_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state.json");
    std::fs::write(&file, "{\"version\":1,\"tls_si").unwrap();
    let (_authority, _redis, dual, pontoon) =
        road(Mood::Accept, Mood::Reset, &["--state-file", file.to_str().unwrap()]);
    pontoon.expects("is damaged");
    pontoon.allows("TLS handshake with");
    let reply = pontoon.client().ask(&["PING"]);
    assert!(reply.starts_with(b"-LOADING pontoon: TLS handshake"), "{}", String::from_utf8_lossy(&reply));
    assert_eq!(dual.plaintext_connections(), 0);
    dual.set(Mood::Accept, Mood::Accept);
    eventually("TLS works", || pontoon.client().ask(&["PING"]) == b"+PONG\r\n");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{\"version\":1,\"tls_si");
}

#[test]
fn a_state_file_that_can_no_longer_be_written_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("state.json");
    let (_authority, _redis, dual, pontoon) =
        road(Mood::Accept, Mood::Reset, &["--state-file", file.to_str().unwrap()]);
    pontoon.allows("transit encryption observed: plaintext only");
    pontoon.expects("state file cannot be written");
    std::fs::remove_dir_all(&folder).unwrap();
    dual.set(Mood::Accept, Mood::Accept);
    pontoon.wait_for_log("state file cannot be written");
    pontoon.client().expect(&["PING"], "+PONG\r\n");
}

#[test]
fn plaintext_sessions_stay_until_they_end_or_are_moved_between_commands() {
    if clients_share() {
        // In shared mode the connection is replaced by one with TLS: no session is moved.
        return;
    }
    for (upgrade, left) in [("keep", 3), ("drain", 2)] {
        let (_authority, _redis, dual, pontoon) =
            road(Mood::Accept, Mood::Reset, &["--tls-upgrade", upgrade]);
        pontoon.allows("transit encryption observed: plaintext only");
        let (mut plain, mut stateful, mut blocked) = (pontoon.client(), pontoon.client(), pontoon.client());
        // More commands than pontoon tracks for reuse.
        for n in 1..=100 {
            plain.expect(&["INCR", "n"], &format!(":{n}\r\n"));
        }
        stateful.expect(&["SET", "in", "three"], "+OK\r\n");
        stateful.expect(&["WATCH", "in"], "+OK\r\n");
        blocked.send(&command(&["BLPOP", "queue", "0"]));
        eventually("all sessions are connected", || in_plaintext(&pontoon) == 3);
        dual.set(Mood::Accept, Mood::Accept);
        eventually("TLS is seen", || transit(&pontoon, "tls") == 1);
        eventually("sessions that can be moved are moved", || in_plaintext(&pontoon) == left);
        assert_eq!(pontoon.metric("pontoon_sessions_upgraded_total", ""), 3 - left);
        let shown = pontoon.get("/clients").1;
        assert_eq!(shown.matches("\"tls\":true").count() as u64, 3 - left, "{shown}");
        let bytes = dual.plaintext_bytes();
        plain.expect(&["INCR", "n"], ":101\r\n");
        assert_eq!(dual.plaintext_bytes() == bytes, upgrade == "drain");
        stateful.expect(&["GET", "in"], "$5\r\nthree\r\n");
        plain.expect(&["RPUSH", "queue", "job"], ":1\r\n");
        assert_eq!(blocked.reply(), b"*2\r\n$5\r\nqueue\r\n$3\r\njob\r\n");
    }
}

#[test]
fn a_librarys_set_up_is_repeated_when_its_session_moves() {
    if clients_share() {
        // In shared mode the connection is replaced by one with TLS: no session is moved.
        return;
    }
    let (_authority, redis, dual, pontoon) =
        road(Mood::Accept, Mood::Reset, &["--tls-upgrade", "drain", "--pool-reuse", "false"]);
    pontoon.allows("transit encryption observed: plaintext only");
    let mut client = pontoon.client();
    assert!(client.ask(&["HELLO", "3", "SETNAME", "first"]).starts_with(b"%"));
    client.ask(&["CLIENT", "SETINFO", "LIB-NAME", "redis-py"]);
    client.ask(&["CLIENT", "SETINFO", "LIB-VER", "8.1.0"]);
    client.expect(&["CLIENT", "SETNAME", "shop"], "+OK\r\n");
    client.expect(&["SELECT", "3"], "+OK\r\n");
    assert!(client.ask(&["INFO", "server"]).starts_with(b"="));
    client.expect(&["HSET", "h", "f", "v"], ":1\r\n");
    // The server refuses this command, so it must not be repeated.
    assert!(client.ask(&["SELECT", "99"]).starts_with(b"-ERR"));
    dual.set(Mood::Accept, Mood::Accept);
    eventually("the session is moved", || pontoon.metric("pontoon_sessions_upgraded_total", "") == 1);
    let bytes = dual.plaintext_bytes();
    client.expect(&["HGETALL", "h"], "%1\r\n$1\r\nf\r\n$1\r\nv\r\n");
    client.expect(&["CLIENT", "GETNAME"], "$4\r\nshop\r\n");
    assert_eq!(dual.plaintext_bytes(), bytes);
    assert!(String::from_utf8_lossy(&redis.direct().ask(&["CLIENT", "LIST"])).contains("name=shop age="));
}

#[test]
fn scripts_finished_transactions_and_refusals_allow_a_move_to_tls() {
    if clients_share() {
        // In shared mode the connection is replaced by one with TLS: no session is moved.
        return;
    }
    let (_authority, _redis, dual, pontoon) =
        road(Mood::Accept, Mood::Reset, &["--tls-upgrade", "drain", "--pool-reuse", "false"]);
    pontoon.allows("transit encryption observed: plaintext only");
    let mut client = pontoon.client();
    client.expect(&["EVAL", "return 1", "0"], ":1\r\n");
    client.expect(&["WATCH", "n"], "+OK\r\n");
    client.expect(&["MULTI"], "+OK\r\n");
    client.expect(&["INCR", "n"], "+QUEUED\r\n");
    client.expect(&["EXEC"], "*1\r\n:1\r\n");
    client.expect(&["WATCH", "n"], "+OK\r\n");
    client.expect(&["UNWATCH"], "+OK\r\n");
    assert!(client.ask(&["CLIENT", "NO-SUCH-SUBCOMMAND", "ON"]).starts_with(b"-"));
    dual.set(Mood::Accept, Mood::Accept);
    eventually("the session is moved", || pontoon.metric("pontoon_sessions_upgraded_total", "") == 1);
    let bytes = dual.plaintext_bytes();
    client.expect(&["GET", "n"], "$1\r\n1\r\n");
    assert_eq!(dual.plaintext_bytes(), bytes);
}

#[test]
fn a_session_is_served_in_plaintext_while_connecting_over_tls_is_slow() {
    if clients_share() {
        // In shared mode the connection is replaced by one with TLS: no session is moved.
        return;
    }
    // No connection is ready.
    let args = ["--tls-upgrade", "drain", "--connect-timeout", "60s", "--pool-warm", "false"];
    let (_authority, _redis, dual, pontoon) = road(Mood::Accept, Mood::Reset, &args);
    pontoon.allows("transit encryption observed: plaintext only");
    pontoon.allows("TLS handshake with");
    let mut client = pontoon.client();
    // Half a command.
    client.send(b"*2\r\n$4\r\nECHO\r\n");
    eventually("the session is in plaintext", || in_plaintext(&pontoon) == 1);
    dual.set(Mood::Accept, Mood::Accept);
    eventually("TLS is seen", || transit(&pontoon, "tls") == 1);
    dual.set(Mood::Accept, Mood::Hang);
    client.send(b"$1\r\nx\r\n");
    client.expect_next("$1\r\nx\r\n");
    for n in 1..=100 {
        client.expect(&["INCR", "n"], &format!(":{n}\r\n"));
    }
    assert_eq!(in_plaintext(&pontoon), 1);
    dual.set(Mood::Accept, Mood::Accept);
    dual.cut_tls();
    eventually("an idle session is moved", || in_plaintext(&pontoon) == 0);
    client.expect(&["INCR", "n"], ":101\r\n");
}

#[test]
fn a_pinned_client_is_moved_together_with_its_dedicated_connection() {
    let is_moved = (0..5).any(|_| a_pinned_client_is_moved());
    assert!(is_moved, "the machine was too slow for the client to stay pinned, in each attempt");
}

/// Whether the client was moved. `false` if it paused for so long that it shared a connection in between.
fn a_pinned_client_is_moved() -> bool {
    let (_authority, _redis, dual, pontoon) =
        road(Mood::Accept, Mood::Reset, &["--tls-upgrade", "drain", "--sharing", "shared"]);
    pontoon.allows("transit encryption observed: plaintext only");
    let mut client = pontoon.client();
    // Too large to be read at once, so it needs a dedicated connection each time.
    let large = command(&["SET", "k", &"v".repeat(1024 * 1024)]);
    let mut set = || {
        client.send(&large);
        client.expect_next("+OK\r\n");
    };
    set();
    let pinned = || pontoon.metric("pontoon_sessions_pinned", "");
    if pinned() == 0 {
        return false;
    }
    assert_eq!((pinned(), in_plaintext(&pontoon)), (1, 2));
    dual.set(Mood::Accept, Mood::Accept);
    let total = || pontoon.metric("pontoon_sessions_pinned_total", "");
    let moved = || pontoon.metric("pontoon_sessions_upgraded_total", "") == 1;
    eventually("the session is moved", || {
        set();
        moved() || total() > 1
    });
    if total() > 1 || pinned() == 0 {
        return false;
    }
    let bytes = dual.plaintext_bytes();
    set();
    assert_eq!(dual.plaintext_bytes(), bytes);
    eventually("nothing is in plaintext", || {
        set();
        in_plaintext(&pontoon) == 0
    });
    true
}

#[test]
fn of_two_names_the_one_with_tls_wins_and_a_missing_one_is_not_logged() {
    let (authority, redis, old, _) = road(Mood::Accept, Mood::Close, &["--admin", "off"]);
    let new = Dual::new(&redis, Mood::Accept, Mood::Close);
    let pontoon = prefer(&old, &authority, &["--upstream", "new.invalid", "--upstream", &new.endpoint()]);
    pontoon.allows("transit encryption observed: plaintext only");
    pontoon.client().expect(&["PING"], "+PONG\r\n");
    new.set(Mood::Accept, Mood::Accept);
    eventually("TLS is seen", || transit(&pontoon, "tls") == 1);
    let (connections, tls) =
        (old.plaintext_connections() + new.plaintext_connections(), new.tls_connections());
    eventually("the new name is used", || {
        pontoon.client().expect(&["PING"], "+PONG\r\n");
        new.tls_connections() > tls || pontoon.metric("pontoon_upstream_leases_total", "tls=\"true\"") > 0
    });
    // The old name does not bring plaintext back either when the new one fails.
    new.set(Mood::Accept, Mood::Close);
    new.cut();
    pontoon.allows("localhost");
    eventually("no connection is left", || is_pontoons_error(&pontoon.first_reply(&["PING"])));
    assert_eq!(old.plaintext_connections() + new.plaintext_connections(), connections);
}

#[test]
fn check_says_what_each_endpoint_accepts() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let ca = authority.file();
    for (tls, said) in [(Mood::Close, "plaintext only"), (Mood::Accept, ": TLS")] {
        let dual = Dual::new(&redis, Mood::Accept, tls);
        let output = pontoon(
            &[&CHECK[..], &["--upstream", &dual.endpoint(), "--tls-mode", "preferred", "--tls-ca-file", &ca]]
                .concat(),
        );
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains(said), "{text}");
    }
}

#[test]
fn the_whole_road_under_load() {
    let authority = Authority::new();
    let identity = authority.issue(&["*.cache.test", "localhost"]);
    let redis = Redis::with(identity, &authority, &[]);
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state.json");
    let hosts = Hosts::new(&["old.cache.test"]);
    let group = Dual::new(&redis, Mood::Accept, Mood::Hang);
    let (old, new) = (format!("old.cache.test:{}", group.port()), format!("new.cache.test:{}", group.port()));
    let ca = authority.file();
    let args = [
        &["--upstream", &old, "--upstream", &new, "--tls-ca-file", &ca, "--listen", "127.0.0.1:0"][..],
        &["--tls-mode", "preferred", "--tls-upgrade", "drain", "--state-file", state.to_str().unwrap()],
    ]
    .concat();
    let pontoon = Pontoon::with_hosts(&hosts, &args);
    pontoon.allows(LOUD);
    pontoon.allows("transit encryption observed: plaintext only");
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let _end = StopOnDrop(&stop);
        let load = |number: usize, each: bool| {
            let (stop, done, address) = (&stop, &done, pontoon.address());
            scope.spawn(move || {
                let key = format!("n{number}");
                let mut client = Wire::tcp(address);
                let mut n = 0;
                while !stop.load(Ordering::SeqCst) {
                    if each {
                        client = Wire::tcp(address);
                    }
                    n += 1;
                    client.expect(&["INCR", &key], &format!(":{n}\r\n"));
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        };
        for number in 0..4 {
            load(number, number % 2 == 0);
        }
        let progress = |what: &str| {
            let before = done.load(Ordering::SeqCst);
            eventually(what, || done.load(Ordering::SeqCst) > before + 200);
        };
        progress("clients are served in plaintext");
        assert_eq!(pontoon.metric("pontoon_upstream_leases_total", "tls=\"true\""), 0);

        // The group is modified to `preferred`: new names appear beside the old.
        hosts.set(&["old.cache.test", "new.cache.test"]);
        group.set(Mood::Accept, Mood::Accept);
        eventually("TLS is seen", || transit(&pontoon, "tls") >= 1);
        progress("clients are served across the change");
        eventually("no session is left in plaintext", || in_plaintext(&pontoon) == 0);
        let bytes = group.plaintext_bytes();
        progress("clients are served over TLS");

        // The group is modified to `required`: plaintext is refused, the old names are gone.
        group.set(Mood::Reset, Mood::Accept);
        hosts.set(&["new.cache.test"]);
        progress("clients are served by the group that requires TLS");
        assert_eq!(group.plaintext_bytes(), bytes, "not one byte in plaintext after the latch");
    });
    eventually("the state file exists", || state.exists());
    drop(pontoon);

    // After a restart, whatever the network answers.
    let connections = group.plaintext_connections();
    group.set(Mood::Accept, Mood::Reset);
    let again = Pontoon::with_hosts(&hosts, &args);
    again.allows("TLS handshake with");
    assert!(is_pontoons_error(&again.client().ask(&["PING"])));
    assert_eq!(group.plaintext_connections(), connections);
}

#[test]
fn check_obeys_the_latch_in_the_state_file() {
    let authority = Authority::new();
    let redis = Redis::start(&authority);
    let dual = Dual::new(&redis, Mood::Accept, Mood::Close);
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state.json");
    let (endpoint, ca) = (dual.endpoint(), authority.file());
    let check = || {
        let fixed = ["check", "--listen", "127.0.0.1:0", "--admin", "off", "--tls-mode", "preferred"];
        let given = ["--upstream", &endpoint, "--tls-ca-file", &ca, "--state-file", state.to_str().unwrap()];
        let output = pontoon(&[&fixed[..], &given].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, report) = check();
    assert!(code == Some(0) && report.contains("plaintext only"), "{report}");
    let since = format!("{{\"version\":1,\"tls_since\":{{\"{endpoint}\":\"2026-01-01T00:00:00Z\"}}}}");
    std::fs::write(&state, since).unwrap();
    let (code, report) = check();
    assert_eq!(code, Some(1), "{report}");
    assert!(
        report.contains(&format!("plaintext is refused, because {endpoint} has accepted TLS before")),
        "{report}"
    );
    assert!(!report.contains("PONG"), "{report}");
}
