//! The road of a Sentinel group: each server has a latch of its own, and the sentinels have one together.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::transit;
use crate::harness::{
    Authority, Dual, Engine, Entrance, MASTER_NAME, Mood, Pontoon, Redis, SentinelGroup, SentinelMember,
    SentinelSettings, StopOnDrop, Wire, command, eventually,
};

/// A client at work, and what it knows of its writes.
struct Client {
    key: String,
    /// Whether it keeps its connection to the primary.
    stays: bool,
    acknowledged: AtomicUsize,
    /// Each of these may have been executed, or not.
    failed: AtomicUsize,
    read: AtomicUsize,
}

impl Client {
    /// Asks the sentinels for the primary, adds one to its key, and reads from the replicas, until `stop`.
    fn run(&self, sentinels: SocketAddr, stop: &AtomicBool) {
        let mut kept = None;
        while !stop.load(Ordering::SeqCst) {
            let Some(mut wire) = kept.take().or_else(|| connected(primary(sentinels)?)) else { continue };
            match wire.try_ask(&["INCR", &self.key]) {
                Some(reply) if reply.starts_with(b":") => {
                    self.acknowledged.fetch_add(1, Ordering::SeqCst);
                    kept = Some(wire).filter(|_| self.stays);
                }
                _ => {
                    self.failed.fetch_add(1, Ordering::SeqCst);
                }
            }
            for port in replicas(sentinels) {
                let reply = connected(port).and_then(|mut wire| wire.try_ask(&["GET", &self.key]));
                if reply.is_some_and(|reply| reply.starts_with(b"$")) {
                    self.read.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    }

    fn done(&self) -> [usize; 2] {
        [&self.acknowledged, &self.read].map(|done| done.load(Ordering::SeqCst))
    }

    fn assert_nothing_lost(&self, primary: &SentinelMember) {
        let reply = primary.text(&["GET", &self.key]);
        let written: usize = reply.lines().nth(1).unwrap().parse().unwrap();
        let [acknowledged, failed] =
            [&self.acknowledged, &self.failed].map(|count| count.load(Ordering::SeqCst));
        assert!(
            (acknowledged..=acknowledged + failed).contains(&written),
            "{written} written, {acknowledged} acknowledged, {failed} failed"
        );
    }
}

fn connected(port: u16) -> Option<Wire> {
    Some(Wire::over(TcpStream::connect(("127.0.0.1", port)).ok()?))
}

/// The local port of the primary.
fn primary(sentinels: SocketAddr) -> Option<u16> {
    let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME];
    let reply = String::from_utf8(connected(sentinels.port())?.try_ask(&words)?).unwrap();
    reply.lines().nth(4)?.parse().ok()
}

/// The local ports of the replicas.
fn replicas(sentinels: SocketAddr) -> Vec<u16> {
    let asked = connected(sentinels.port())
        .and_then(|mut wire| wire.try_ask(&["SENTINEL", "REPLICAS", MASTER_NAME]))
        .unwrap_or_default();
    let reply = String::from_utf8(asked).unwrap();
    let ports = reply.split("\r\nport\r\n").skip(1);
    ports.filter_map(|rest| rest.lines().nth(1)?.parse().ok()).filter(|port| *port != 0).collect()
}

/// Runs the clients through `pontoon` during `work`, which gets a function that waits until all have written and read again.
fn under_load(pontoon: &Pontoon, clients: &[Client], work: impl FnOnce(&dyn Fn(&str))) {
    let stop = AtomicBool::new(false);
    let progress = |what: &str| {
        let before: Vec<_> = clients.iter().map(Client::done).collect();
        eventually(what, || {
            let is_on = |(client, before): (&Client, &[usize; 2])| {
                client.done().iter().zip(before).all(|(done, before)| *done > before + 5)
            };
            clients.iter().zip(&before).all(is_on)
        });
    };
    thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| client.run(pontoon.address(), &stop));
        }
        let _end = StopOnDrop(&stop);
        work(&progress);
    });
}

fn bridge(group: &SentinelGroup, state: &str, sharing: &str) -> Pontoon {
    let endpoints: Vec<String> =
        group.sentinel_endpoints().iter().map(|(host, port)| format!("{host}:{port}")).collect();
    let mut args = vec!["--topology", "sentinel", "--sentinel-master-name", MASTER_NAME];
    args.extend(["--tls-mode", "preferred", "--tls-upgrade", "drain", "--state-file", state]);
    args.extend(["--sharing", sharing, "--upstream", &endpoints[1], "--upstream", &endpoints[2]]);
    let pontoon = Pontoon::with(&endpoints[0], group.authority(), &args);
    // Members fail and refuse connections on purpose.
    pontoon.allows("");
    pontoon
}

fn bytes(members: &[SentinelMember]) -> Vec<usize> {
    members.iter().map(|member| member.dual().plaintext_bytes()).collect()
}

fn wait_until_latched(members: &[SentinelMember]) {
    eventually("no connection of the bridge is in plaintext", || {
        members.iter().all(|member| member.dual().open_in_plaintext() == 0)
    });
}

fn a_group_takes_the_whole_road(sharing: &str) {
    if Engine::here().is_before_7() {
        // Members cannot choose the address from which they connect.
        return;
    }
    let mut group =
        SentinelGroup::start(SentinelSettings { entrance: Entrance::Dual, ..SentinelSettings::default() });
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state.json");
    let state = state.to_str().unwrap();
    let clients = [true, false].map(|stays| Client {
        key: format!("of a client that {}", if stays { "stays" } else { "comes again" }),
        stays,
        acknowledged: AtomicUsize::new(0),
        failed: AtomicUsize::new(0),
        read: AtomicUsize::new(0),
    });
    let pontoon = bridge(&group, state, sharing);
    under_load(&pontoon, &clients, |progress| {
        progress("clients are served in plaintext");
        for server in 0..group.servers.len() {
            let dual = group.servers[server].dual();
            dual.set(Mood::Accept, Mood::Accept);
            eventually("the server's latch closes", || transit(&pontoon, "tls") as usize > server);
            wait_until_latched(&group.servers[..=server]);
            let latched = bytes(&group.servers[..=server]);
            let others = bytes(&group.servers[server + 1..]);
            progress("clients are served while servers differ");
            dual.set(Mood::Reset, Mood::Accept);
            progress("clients are served while one server requires TLS");
            let grown = bytes(&group.servers[server + 1..]);
            assert!(grown.iter().zip(&others).all(|(after, before)| after > before), "{grown:?} {others:?}");
            if server == 1 {
                let old = group.primary().unwrap();
                group.hold_writes(old);
                group.kill(old);
                group.wait_for_failover(old);
                progress("clients are served by the new primary");
                group.servers[old].restart();
                group.settle();
                progress("clients are served by the whole group");
            }
            assert_eq!(bytes(&group.servers[..=server]), latched, "no byte in plaintext after the latches");
        }
    });
    drop(pontoon);

    // The restarted bridge remembers the servers, and nothing about the sentinels.
    let pontoon = bridge(&group, state, sharing);
    group.servers.iter().for_each(|server| server.dual().set(Mood::Accept, Mood::Accept));
    let of_servers = bytes(&group.servers);
    under_load(&pontoon, &clients, |progress| {
        let before = bytes(&group.sentinels);
        progress("clients are served after a restart");
        assert!(bytes(&group.sentinels).iter().zip(&before).any(|(after, before)| after > before));
        group.sentinels[0].dual().set(Mood::Accept, Mood::Accept);
        wait_until_latched(&group.sentinels);
        let latched = bytes(&group.sentinels);
        progress("clients are served while one sentinel accepts TLS");
        for sentinel in &group.sentinels {
            sentinel.dual().set(Mood::Reset, Mood::Accept);
        }
        progress("clients are served by a group that requires TLS");
        let old = group.primary().unwrap();
        group.refuse_writes(old);
        group.fail_over();
        group.accept_writes(old);
        progress("clients are served by another primary");
        assert_eq!(bytes(&group.sentinels), latched, "no byte in plaintext after the sentinels' latch");
    });
    assert_eq!(bytes(&group.servers), of_servers);
    group.settle();
    let last = &group.servers[group.primary().unwrap()];
    for client in &clients {
        client.assert_nothing_lost(last);
    }
    drop(pontoon);

    // An attacker blocks TLS after another restart.
    let pontoon = bridge(&group, state, sharing);
    let known = || primary(pontoon.address());
    eventually("the primary has a local port", || known().is_some());
    let port = known().unwrap();
    let members = || group.servers.iter().chain(&group.sentinels).map(SentinelMember::dual);
    let before = (bytes(&group.servers), bytes(&group.sentinels));
    members().for_each(|dual| dual.set(Mood::Accept, Mood::Reset));
    members().for_each(Dual::cut);
    eventually("the server is not reached in plaintext", || {
        connected(port)
            .is_none_or(|mut wire| wire.try_ask(&["PING"]).is_none_or(|reply| reply.starts_with(b"-")))
    });
    eventually("the sentinels are not reached in plaintext", || {
        pontoon.client().try_ask(&["PING"]).is_none_or(|reply| reply.starts_with(b"-"))
    });
    assert_eq!((bytes(&group.servers), bytes(&group.sentinels)), before);
}

#[test]
fn a_sentinel_group_takes_the_whole_road_under_load() {
    a_group_takes_the_whole_road("dedicated");
}

#[test]
fn a_sentinel_group_takes_the_whole_road_with_shared_connections() {
    a_group_takes_the_whole_road("shared");
}

/// A sentinel in plaintext that names the first server as the primary, and the other one as its replica. Returns its endpoint.
fn sentinel_that_names(servers: [u16; 2]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let strings = |words: &[&str]| String::from_utf8(command(words)).unwrap();
    let [primary, replica] = servers.map(|port| port.to_string());
    let replies = [
        ("PING", "+PONG\r\n".to_owned()),
        ("SETINFO", "+OK\r\n".to_owned()),
        ("SETNAME", "+OK\r\n".to_owned()),
        ("GET-MASTER-ADDR-BY-NAME", strings(&["127.0.0.1", &primary])),
        ("MASTER", strings(&["config-epoch", "1"])),
        ("REPLICAS", format!("*1\r\n{}", strings(&["ip", "127.0.0.1", "port", &replica, "flags", "slave"]))),
    ];
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let replies = replies.clone();
            thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while let Some(Ok(line)) = lines.next() {
                    if let Some((_, reply)) = replies.iter().find(|(name, _)| *name == line) {
                        let _ = stream.write_all(reply.as_bytes());
                    }
                }
            });
        }
    });
    endpoint
}

#[test]
fn sentinels_that_differ_bring_no_plaintext_back() {
    let authority = Authority::new();
    let servers = [Redis::start(&authority), Redis::start(&authority)];
    let ports = servers.each_ref().map(|server| server.plain_port);
    servers[1].direct().expect(&["REPLICAOF", "127.0.0.1", &ports[0].to_string()], "+OK\r\n");
    let duals = servers.each_ref().map(|server| Dual::new(server, Mood::Accept, Mood::Accept));
    let [one, other] = duals.each_ref().map(Dual::port);
    let sentinels = [sentinel_that_names([one, other]), sentinel_that_names([other, one])];
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state.json");
    let mut args = vec!["--topology", "sentinel", "--sentinel-master-name", MASTER_NAME];
    args.extend(["--sentinel-tls-mode", "disabled", "--tls-mode", "preferred", "--connect-timeout", "500ms"]);
    args.extend(["--state-file", state.to_str().unwrap(), "--upstream", &sentinels[1]]);
    let start = || {
        let pontoon = Pontoon::with(&sentinels[0], &authority, &args);
        pontoon.allows("");
        pontoon
    };
    // Neither server is known, so pontoon asks both for their role, and first for TLS.
    let pontoon = start();
    eventually("the primary has a local port", || primary(pontoon.address()).is_some_and(|port| port != 0));
    let port = primary(pontoon.address()).unwrap();
    eventually("both servers are known to accept TLS", || transit(&pontoon, "tls") == 2);
    Wire::tcp(("127.0.0.1", port)).expect(&["SET", "k", "v"], "+OK\r\n");
    drop(pontoon);

    for dual in &duals {
        dual.set(Mood::Accept, Mood::Reset);
    }
    let before = duals.each_ref().map(Dual::plaintext_bytes);
    let pontoon = start();
    pontoon.wait_for_log("the primary's port is open");
    assert_eq!(duals.each_ref().map(Dual::plaintext_bytes), before);
}
