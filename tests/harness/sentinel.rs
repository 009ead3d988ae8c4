//! A primary, two replicas and three sentinels that watch them, as real processes, and the failovers that they go through.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::offset;
use super::node::Name;
use super::sentinel_member::{Entrance, MemberSettings, SentinelMember};
use super::{Authority, Engine, Hosts, PATIENCE, Wire, eventually, within};

/// The name by which sentinels know the primary.
pub const MASTER_NAME: &str = "mymaster";

const SERVERS: usize = 3;
const SENTINELS: usize = 3;

/// Time without an answer after which a sentinel gives a server up. It is long, so that a busy machine causes no failover.
const DOWN_AFTER_MS: &str = "60000";

/// The same while a test expects a failover.
const DOWN_SOON_MS: &str = "1000";

/// Time after which a failed failover is tried again.
const FAILOVER_TIMEOUT_MS: &str = "5000";

/// How a group is set up. By default: plaintext, addresses, no passwords.
#[derive(Debug, Clone, Copy, Default)]
pub struct SentinelSettings {
    /// Servers accept only TLS. Sentinels reach them, and each other, over TLS.
    pub server_tls: bool,
    /// Clients of the sentinels use TLS.
    pub sentinel_tls: bool,
    pub server_password: Option<&'static str>,
    pub sentinel_password: Option<&'static str>,
    /// Servers and sentinels announce `server-1.sentinel.test` or `sentinel-1.sentinel.test` and so on, which [`SentinelGroup::hosts`]
    /// resolves. Sentinels name servers to clients by these.
    pub named: bool,
    pub entrance: Entrance,
}

impl SentinelSettings {
    /// Everything over TLS.
    pub fn tls() -> Self {
        Self { server_tls: true, sentinel_tls: true, ..Self::default() }
    }
}

pub struct SentinelGroup {
    authority: Authority,
    hosts: Option<Hosts>,
    settings: SentinelSettings,
    /// The first one is the primary at first. Added replicas are last.
    pub servers: Vec<SentinelMember>,
    pub sentinels: Vec<SentinelMember>,
}

impl SentinelGroup {
    /// Returns once all sentinels agree on the group.
    pub fn start(settings: SentinelSettings) -> Self {
        let hosts = settings.named.then(|| Hosts::new(&[]));
        let mut group =
            Self { authority: Authority::new(), hosts, settings, servers: Vec::new(), sentinels: Vec::new() };
        group.start_server(None);
        for _ in 1..SERVERS {
            group.start_server(Some(0));
        }
        // Sentinels learn of replicas from the primary, at first at once and then only every ten seconds.
        eventually("the replicas follow the primary", || {
            group.servers[0].text(&["INFO", "replication"]).matches("state=online").count() == SERVERS - 1
        });
        for number in 1..=SENTINELS {
            group.start_sentinel(number);
        }
        group.settle();
        group
    }

    /// The authority that signed the certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The names of a group whose members have names.
    pub fn hosts(&self) -> Option<&Hosts> {
        self.hosts.as_ref()
    }

    pub fn settings(&self) -> SentinelSettings {
        self.settings
    }

    /// The host and port of each sentinel, by a name that its certificate is for.
    pub fn sentinel_endpoints(&self) -> Vec<(String, u16)> {
        let endpoint =
            |sentinel: &SentinelMember| (sentinel.name_of_certificate().to_owned(), sentinel.client_port());
        self.sentinels.iter().map(endpoint).collect()
    }

    /// Every port that a client could reach.
    pub fn ports(&self) -> Vec<u16> {
        let members = self.servers.iter().chain(&self.sentinels);
        members.flat_map(|member| [member.port(), member.client_port()]).collect()
    }

    /// The server that every living sentinel names as the primary; `None` while they differ.
    pub fn primary(&self) -> Option<usize> {
        let mut named = self.living_sentinels().map(|sentinel| self.named_primary(sentinel));
        let first = named.next().flatten()?;
        named.all(|other| other == Some(first)).then_some(first)
    }

    /// Ends a server, as a crash would, and makes the sentinels give it up soon.
    pub fn kill(&mut self, server: usize) {
        self.give_up_after(DOWN_SOON_MS);
        self.servers[server].kill();
    }

    /// Stops a server from answering, without closing anything, and makes the sentinels give it up soon.
    pub fn pause(&self, server: usize) {
        self.give_up_after(DOWN_SOON_MS);
        self.servers[server].pause();
    }

    /// Waits until every living sentinel names a primary other than `old`, and that server accepts writes. Returns its number.
    pub fn wait_for_failover(&self, old: usize) -> usize {
        let mut new = None;
        // Sentinels try again ten seconds after a failover that fails, as when their votes are split.
        within(2 * PATIENCE, "the sentinels name a new primary", || {
            new = self.primary().filter(|&new| new != old && self.servers[new].is_primary());
            new.is_some()
        });
        self.give_up_after(DOWN_AFTER_MS);
        new.unwrap()
    }

    /// Waits until every living sentinel names the same primary, has all other living servers as its replicas, knows all other sentinels,
    /// and reports no other sentinel as down.
    pub fn settle(&self) {
        eventually("the sentinels agree on the group", || {
            self.primary().is_some_and(|primary| {
                self.servers[primary].is_primary()
                    && self.living_sentinels().all(|sentinel| self.is_well(sentinel, primary))
            })
        });
    }

    /// Keeps the primary from acknowledging writes until it is killed, and waits until each living replica has all earlier ones. Otherwise a
    /// failover may lose what was just acknowledged, with or without a bridge.
    pub fn hold_writes(&self, primary: usize) {
        self.end_writes(primary, &["CLIENT", "PAUSE", "60000", "WRITE"]);
    }

    /// As [`hold_writes`](Self::hold_writes), for a primary that lives on: it answers writes with an error. A primary that holds writes also
    /// holds what sentinels publish, and obeys none of their commands.
    pub fn refuse_writes(&self, primary: usize) {
        self.end_writes(primary, &["ACL", "SETUSER", "default", "-@write"]);
    }

    /// Ends [`refuse_writes`](Self::refuse_writes) once the server is a replica.
    pub fn accept_writes(&self, server: usize) {
        let server = &self.servers[server];
        eventually("the old primary is a replica", || server.has_role("slave"));
        // Its new role ends connections.
        eventually("the old primary accepts writes from its primary", || {
            let reply = server.wire().try_ask(&["ACL", "SETUSER", "default", "+@write"]);
            reply.is_some_and(|reply| reply == b"+OK\r\n")
        });
    }

    fn end_writes(&self, primary: usize, words: &[&str]) {
        let living = self.servers.iter().filter(|server| server.is_running());
        let mut wires: Vec<Wire> = living.map(SentinelMember::wire).collect();
        self.servers[primary].wire().expect(words, "+OK\r\n");
        eventually("the replicas have everything", || {
            let offsets: Vec<String> = wires.iter_mut().map(offset).collect();
            offsets.iter().all(|offset| *offset == offsets[0])
        });
    }

    /// Asks the sentinels for a failover, as an operator does, and waits until it is over. Returns the number of the new primary.
    pub fn fail_over(&self) -> usize {
        let old = self.primary().expect("the sentinels agree");
        eventually("a sentinel starts a failover", || {
            self.sentinels[0].text(&["SENTINEL", "FAILOVER", MASTER_NAME]) == "+OK\r\n"
        });
        self.wait_for_failover(old)
    }

    /// Adds a replica, and waits until all sentinels know it. Returns its number.
    pub fn add_replica(&mut self) -> usize {
        let primary = self.primary().expect("the sentinels agree");
        self.start_server(Some(primary));
        self.settle();
        self.servers.len() - 1
    }

    /// Starts a server, as a replica of `primary` if there is one.
    fn start_server(&mut self, primary: Option<usize>) {
        let mut lines = Vec::new();
        if let Some(primary) = primary {
            let primary = &self.servers[primary];
            lines.push(format!("replicaof {} {}", primary.host(), primary.port()));
        }
        if let Some(password) = self.settings.server_password {
            lines.push(format!("requirepass {password}"));
            lines.push(format!("masterauth {password}"));
        }
        lines.extend(["repl-diskless-sync yes", "repl-diskless-sync-delay 0"].map(str::to_owned));
        let name = format!("server-{}", self.servers.len() + 1);
        let server =
            self.start_member(&name, self.settings.server_tls, self.settings.server_password, &lines);
        self.servers.push(server);
    }

    fn start_sentinel(&mut self, number: usize) {
        let primary = &self.servers[0];
        let mut lines = Vec::new();
        if self.settings.named {
            lines.extend(
                ["resolve-hostnames yes", "announce-hostnames yes"].map(|line| format!("sentinel {line}")),
            );
        }
        lines.push(format!("sentinel monitor {MASTER_NAME} {} {} 2", primary.host(), primary.port()));
        lines.push(format!("sentinel down-after-milliseconds {MASTER_NAME} {DOWN_AFTER_MS}"));
        lines.push(format!("sentinel failover-timeout {MASTER_NAME} {FAILOVER_TIMEOUT_MS}"));
        if let Some(password) = self.settings.server_password {
            lines.push(format!("sentinel auth-pass {MASTER_NAME} {password}"));
        }
        if let Some(password) = self.settings.sentinel_password {
            lines.push(format!("requirepass {password}"));
            lines.push(format!("sentinel sentinel-pass {password}"));
        }
        let name = format!("sentinel-{number}");
        let sentinel =
            self.start_member(&name, self.settings.sentinel_tls, self.settings.sentinel_password, &lines);
        hurry(&sentinel);
        self.sentinels.push(sentinel);
    }

    fn start_member(
        &self,
        name: &str,
        client_tls: bool,
        password: Option<&'static str>,
        lines: &[String],
    ) -> SentinelMember {
        let announced = self.hosts.as_ref().map(|hosts| {
            let host = format!("{name}.sentinel.test");
            hosts.add(&host);
            Name { host, hosts: hosts.path() }
        });
        let settings = MemberSettings {
            entrance: self.settings.entrance,
            sentinel: name.starts_with("sentinel"),
            name: announced,
            client_tls: client_tls || self.settings.entrance == Entrance::Dual,
            link_tls: self.settings.server_tls,
            password,
        };
        SentinelMember::start(&self.authority, settings, lines)
    }

    fn give_up_after(&self, milliseconds: &str) {
        let words = ["SENTINEL", "SET", MASTER_NAME, "down-after-milliseconds", milliseconds];
        self.living_sentinels().for_each(|sentinel| sentinel.wire().expect(&words, "+OK\r\n"));
    }

    fn living_sentinels(&self) -> impl Iterator<Item = &SentinelMember> {
        self.sentinels.iter().filter(|sentinel| sentinel.is_running())
    }

    /// The number of the server that a sentinel names to clients.
    fn named_primary(&self, sentinel: &SentinelMember) -> Option<usize> {
        let words = bulk_strings(&sentinel.text(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME]));
        let [host, port] = &words[..] else { return None };
        self.servers.iter().position(|server| server.host() == host && server.port().to_string() == *port)
    }

    /// Whether a sentinel knows the whole group, and thinks that everything alive is up.
    fn is_well(&self, sentinel: &SentinelMember, primary: usize) -> bool {
        let wire = &mut sentinel.wire();
        let is_primary =
            entries(wire, &["SENTINEL", "MASTERS"]).iter().all(|entry| entry["flags"] == "master");
        let mut replicas = entries(wire, &["SENTINEL", "REPLICAS", MASTER_NAME]);
        replicas.retain(|entry| entry["flags"] == "slave" && entry["master-link-status"] == "ok");
        let replicas: BTreeSet<String> = replicas.into_iter().map(|entry| entry["port"].clone()).collect();
        let living = self.servers.iter().enumerate().filter(|(_, server)| server.is_running());
        let others = living.filter(|(number, _)| *number != primary);
        let mut sentinels = entries(wire, &["SENTINEL", "SENTINELS", MASTER_NAME]);
        // After a failover, Valkey 9.1 keeps the flag `master_down` of other sentinels.
        sentinels.retain(|entry| {
            !entry["flags"].split(',').any(|flag| ["s_down", "disconnected"].contains(&flag))
        });
        is_primary
            && replicas == others.map(|(_, server)| server.port().to_string()).collect()
            && sentinels.len() == self.living_sentinels().count() - 1
    }
}

/// Makes a sentinel ask and publish more often than once in one to ten seconds, and keeps a stalled machine from ending failovers. Before
/// 7.0 a sentinel has no such settings.
fn hurry(sentinel: &SentinelMember) {
    if Engine::here().is_before_7() {
        return;
    }
    let mut words = vec!["SENTINEL", "DEBUG"];
    for period in ["info-period", "ping-period", "publish-period", "ask-period", "min-link-reconnect-period"]
    {
        words.extend([period, "250"]);
    }
    words.extend(["tilt-trigger", "60000"]);
    assert_eq!(sentinel.text(&words), "+OK\r\n");
}

/// The fields of each server or sentinel in a reply to `SENTINEL MASTERS`, `REPLICAS` or `SENTINELS`.
fn entries(wire: &mut Wire, words: &[&str]) -> Vec<BTreeMap<String, String>> {
    let reply = String::from_utf8(wire.ask(words)).unwrap();
    let fields = |entry: &str| {
        let words = bulk_strings(entry);
        words.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
    };
    reply.split("\r\n*").skip(1).map(fields).collect()
}

/// The elements of an array of bulk strings: every other line, after their lengths.
fn bulk_strings(reply: &str) -> Vec<String> {
    reply.split("\r\n").skip(2).step_by(2).map(str::to_owned).collect()
}

#[test]
fn a_sentinel_group_fails_over_and_grows() {
    let mut group = SentinelGroup::start(SentinelSettings {
        server_password: Some("of-the-servers"),
        sentinel_password: Some("of-the-sentinels"),
        named: true,
        ..SentinelSettings::tls()
    });
    assert_eq!(group.primary(), Some(0));
    group.servers[0].wire().expect(&["SET", "k", "1"], "+OK\r\n");
    group.hold_writes(0);
    group.kill(0);
    let new = group.wait_for_failover(0);
    group.servers[new].wire().expect(&["GET", "k"], "$1\r\n1\r\n");
    group.servers[0].restart();
    group.settle();
    assert!(!group.servers[0].is_primary());
    let added = group.add_replica();
    assert!(!group.servers[added].is_primary());
    let newest = group.fail_over();
    group.settle();
    assert!(newest != new && group.servers[newest].is_primary());
}

#[test]
fn a_sentinel_group_replaces_a_primary_that_hangs() {
    let mixed = [(true, false), (false, true), (false, false)];
    for (server_tls, sentinel_tls) in mixed {
        let group = SentinelGroup::start(SentinelSettings {
            server_tls,
            sentinel_tls,
            ..SentinelSettings::default()
        });
        group.pause(0);
        let new = group.wait_for_failover(0);
        group.servers[0].resume();
        group.settle();
        assert!(group.servers[new].is_primary() && !group.servers[0].is_primary());
    }
}
