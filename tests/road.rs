//! The whole road with real clients on it: from a group without TLS over `preferred` to one that requires it.

use std::net::SocketAddr;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{
    Authority, Dual, Failure, Hosts, Identity, Load, Mood, Pontoon, Redis, eventually, is_pontoons_error,
};

const OLD: &str = "old.cache.test";
const NEW: &str = "new.cache.test";

/// A group during its migration, a bridge that knows both of its names, and clients that notice none of it.
struct Road {
    loads: Vec<Load>,
    pontoon: Option<Pontoon>,
    address: SocketAddr,
    upgrade: &'static str,
    hosts: Hosts,
    group: Dual,
    state: TempDir,
    redis: Redis,
    impostor: Redis,
    authority: Authority,
}

impl Road {
    /// Starts while transit encryption is off, and the new name does not exist.
    fn begin(upgrade: &'static str) -> Self {
        let authority = Authority::new();
        let redis = Redis::with(authority.issue(&["*.cache.test"]), &authority, &[]);
        let impostor = Redis::with(Identity::self_signed(&["*.cache.test"]), &authority, &[]);
        // This address belongs to this test alone, so no other test takes its ports while they are free.
        let [_, a, b, c] = fastrand::u32(..).to_be_bytes();
        let mut road = Self {
            loads: Vec::new(),
            pontoon: None,
            address: SocketAddr::from(([127, a, b, c.clamp(1, 254)], 0)),
            upgrade,
            hosts: Hosts::new(&[OLD]),
            group: Dual::new(&redis, Mood::Accept, Mood::Hang),
            state: tempfile::tempdir().unwrap(),
            redis,
            impostor,
            authority,
        };
        road.start("preferred");
        road.address = road.pontoon().address();
        road.loads =
            vec![Load::redis_py(road.address), Load::ioredis(road.address), Load::redis_cli(road.address)];
        road
    }

    fn start(&mut self, mode: &str) {
        let (port, ca) = (self.group.port(), self.authority.file());
        let (new, old) = (format!("{NEW}:{port}"), format!("{OLD}:{port}"));
        let (listen, state) = (self.address.to_string(), self.state.path().join("state.json"));
        let args = [
            &["--upstream", &new, "--upstream", &old, "--tls-ca-file", &ca, "--listen", &listen][..],
            &["--tls-mode", mode, "--tls-upgrade", self.upgrade, "--connect-timeout", "3s"],
            &["--state-file", state.to_str().unwrap()],
        ]
        .concat();
        self.pontoon = Some(Pontoon::with_hosts(&self.hosts, &args));
        self.pontoon().allows("traffic is in plaintext until an endpoint accepts TLS");
        self.pontoon().allows("transit encryption observed: plaintext only");
    }

    fn pontoon(&self) -> &Pontoon {
        self.pontoon.as_ref().unwrap()
    }

    /// Every operation of the clients from now on belongs to this step.
    fn step(&mut self, name: &str) {
        self.loads.iter_mut().for_each(|load| load.step(name));
    }

    /// Waits until every client has completed all operations, without an error.
    fn progress(&self, what: &str) {
        let before: Vec<usize> = self.loads.iter().map(Load::rounds).collect();
        eventually(what, || {
            self.loads.iter().zip(&before).all(|(load, before)| load.rounds() >= before + 10)
        });
    }

    /// The group is modified to `preferred`: new names appear beside the old.
    fn prefer(&mut self) {
        self.step("preferred");
        self.hosts.set(&[OLD, NEW]);
        self.group.set(Mood::Accept, Mood::Accept);
        let tls = "pontoon_transit_encryption";
        eventually("TLS is seen", || self.pontoon().metric(tls, "mode=\"tls\"") >= 1);
        let leases = |road: &Self| road.pontoon().metric("pontoon_upstream_leases_total", "tls=\"false\"");
        let before = leases(self);
        self.progress("clients are served across the change");
        assert_eq!(leases(self), before, "no new session in plaintext");
    }

    /// The group is modified to `required`: plaintext is refused, plaintext connections are dropped, the old name is gone.
    fn require(&mut self) {
        self.hosts.set(&[NEW]);
        self.pontoon().allows(&format!("no such host \"{OLD}\""));
        self.group.set(Mood::Reset, Mood::Accept);
        self.group.cut_plaintext();
        self.progress("clients are served by the group that requires TLS");
    }

    /// Restarts pontoon while the network does all it can to make pontoon use plaintext.
    fn restart_under_attack(&mut self, mode: &str, plaintext_after: Mood) {
        let mut before = self.pontoon.take().unwrap();
        before.signal(Signal::TERM);
        assert_eq!(before.wait().code(), Some(0));
        drop(before);
        eventually("what was sent has arrived", || self.group.open_in_plaintext() == 0);
        let sent = (self.group.plaintext_connections(), self.group.plaintext_bytes());
        self.group.set(Mood::Accept, Mood::NO_TLS[0]);
        self.start(mode);
        self.pontoon().allows("TLS handshake with");
        self.pontoon().allows("timed out");
        let refused = |what: &str| {
            let reply = self.pontoon().client().ask(&["PING"]);
            assert!(is_pontoons_error(&reply), "{what}: {}", String::from_utf8_lossy(&reply));
            let now = (self.group.plaintext_connections(), self.group.plaintext_bytes());
            assert_eq!(now, sent, "{what}: nothing in plaintext");
        };
        for attack in Mood::NO_TLS {
            self.group.set(Mood::Accept, attack);
            refused(&format!("{attack:?}"));
        }
        self.group.lead_to(&self.impostor);
        self.group.set(Mood::Accept, Mood::Accept);
        refused("a certificate of somebody else");
        self.group.lead_to(&self.redis);
        self.group.set(plaintext_after, Mood::Accept);
        self.progress("clients are served after the attack");
        assert_eq!((self.group.plaintext_connections(), self.group.plaintext_bytes()), sent);
    }

    /// What failed, by client.
    fn failures(&self) -> Vec<Vec<Failure>> {
        self.loads.iter().map(Load::failures).collect()
    }

    /// Stops the clients. Asserts that everything acknowledged is stored and nothing was done twice, except for operations that got no
    /// reply, and `retries` that a library made on its own.
    fn finish(&mut self, retries: u64) {
        let mut redis = self.redis.direct();
        let mut number = |key: &str| -> u64 {
            let reply = String::from_utf8(redis.ask(&["GET", key])).unwrap();
            reply.split("\r\n").nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        for load in &mut self.loads {
            let mut more = 0;
            for (key, (done, doubtful)) in load.finish() {
                let stored = number(&key);
                assert!(stored >= done, "{key}: {done} were acknowledged, {stored} are there");
                more += stored.saturating_sub(done + doubtful);
                if key.ends_with("transaction") {
                    assert_eq!(number(&format!("{key}-too")), stored, "{key}: all or nothing");
                }
            }
            assert!(more <= retries, "{more} were executed twice");
        }
    }
}

/// Whether a client reports a lost connection, in the words of the libraries, of redis-cli, or of pontoon.
fn is_of_a_connection(failure: &Failure) -> bool {
    let Failure { operation, error, .. } = failure;
    let known = ["pontoon: ", "connect", "Connection", "closed", "ECONN", "EPIPE", "timed out", "Timeout"];
    known.iter().any(|known| error.contains(known))
        // The message was published when the subscription's connection was gone.
        || (operation == "pubsub" && error.contains("a message was lost"))
}

#[test]
fn real_clients_go_the_whole_road_and_lose_nothing() {
    let mut road = Road::begin("drain");
    road.step("none");
    road.progress("clients are served in plaintext");
    assert_eq!(road.pontoon().metric("pontoon_upstream_leases_total", "tls=\"true\""), 0);
    road.prefer();
    road.step("restart");
    road.restart_under_attack("preferred", Mood::Accept);
    road.step("preferred again");
    road.progress("clients are served over TLS");
    road.step("restart");
    road.restart_under_attack("required", Mood::Accept);
    let sent = (road.group.plaintext_connections(), road.group.plaintext_bytes());
    road.step("required");
    road.require();
    assert_eq!((road.group.plaintext_connections(), road.group.plaintext_bytes()), sent);
    road.finish(0);
    for failure in road.failures().concat() {
        assert!(failure.step == "restart" && is_of_a_connection(&failure), "{failure:?}");
    }
}

#[test]
fn required_tls_cuts_plaintext_sessions_and_no_others() {
    let mut road = Road::begin("keep");
    road.step("none");
    road.progress("clients are served in plaintext");
    road.prefer();
    let left = |road: &Road| road.pontoon().metric("pontoon_upstream_plaintext_connections", "");
    assert!(left(&road) > 0, "some sessions stay in plaintext");
    road.step("cut");
    road.require();
    road.step("required");
    road.progress("clients are served over TLS");
    assert_eq!(left(&road), 0);
    road.finish(2);
    // Lasting connections: the libraries have one for commands and one for subscriptions.
    for (failures, connections) in road.failures().iter().zip([2, 2, 1]) {
        assert!(failures.len() <= connections, "{failures:?}");
        for failure in failures {
            assert!(failure.step == "cut" && is_of_a_connection(failure), "{failure:?}");
        }
    }
}
