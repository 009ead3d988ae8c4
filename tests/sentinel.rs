//! A group that sentinels watch, with TLS, and clients that find its servers through the sentinels. Without pontoon, the tests show what the
//! clients themselves do in a failover.

mod addresses;
mod credentials;
mod election;
mod evidence;
mod load;
mod mistakes;
mod reload;

use std::net::SocketAddr;
use std::path::Path;

use self::load::{Load, Target};
use crate::harness::{MASTER_NAME, Pontoon, SentinelGroup, SentinelSettings, Wire, eventually};

/// How a primary fails.
#[derive(Debug, Clone, Copy)]
enum Outage {
    /// Its process ends.
    Crash,
    /// Its process stops, and keeps its connections.
    Hang,
}

/// Runs all clients through a failover. Each must write to the new primary, read from a replica again, and have every write that was
/// acknowledged to it.
#[track_caller]
fn clients_outlast(outage: Outage, group: &mut SentinelGroup, target: &Target) {
    let mut loads = Load::all(target);
    loads.iter_mut().for_each(Load::wait_until_up);
    let old = group.primary().unwrap();
    match outage {
        Outage::Crash => {
            group.hold_writes(old);
            group.kill(old);
        }
        Outage::Hang => {
            group.refuse_writes(old);
            group.pause(old);
        }
    }
    let new = group.wait_for_failover(old);
    if let Outage::Hang = outage {
        // Clients without a time limit wait until the old primary has become a replica, which ends their connections.
        group.servers[old].resume();
        group.accept_writes(old);
    }
    for load in &mut loads {
        load.wait_until_it_writes_to(&group.servers[new]);
    }
    if let Outage::Crash = outage {
        group.servers[old].restart();
    }
    group.settle();
    if target.is_a_bridge() {
        for load in &loads {
            load.assert_not_connected_to(&group.ports());
        }
    }
    for load in loads {
        load.finish(&group.servers[new]);
    }
}

fn clients_outlast_without_a_bridge(outage: Outage, settings: SentinelSettings) {
    let mut group = SentinelGroup::start(settings);
    let target = Target::without_a_bridge(&group);
    clients_outlast(outage, &mut group, &target);
}

fn clients_outlast_with_a_bridge(outage: Outage, settings: SentinelSettings, more: &str) {
    let mut group = SentinelGroup::start(settings);
    let directory = tempfile::tempdir().unwrap();
    let pontoon =
        bridge_with(&configuration_with(&group, directory.path(), more, ""), &group, directory.path());
    pontoon.allows("");
    let target = Target::through(&pontoon);
    clients_outlast(outage, &mut group, &target);
}

/// A bridge to a group, once it knows all servers. Its files are in `directory`.
fn bridge(group: &SentinelGroup, directory: &Path) -> Pontoon {
    let pontoon = bridge_with(&configuration(group, directory), group, directory);
    wait_until_known(group, &pontoon);
    pontoon
}

fn wait_until_known(group: &SentinelGroup, pontoon: &Pontoon) {
    let servers = u64::try_from(group.servers.len()).unwrap();
    eventually("all servers are known", || pontoon.metric("pontoon_cluster_nodes", "") == servers);
}

/// A bridge with this configuration.
fn bridge_with(configuration: &str, group: &SentinelGroup, directory: &Path) -> Pontoon {
    let file = directory.join("pontoon.toml");
    std::fs::write(&file, configuration).unwrap();
    let args = ["--config", file.to_str().unwrap()];
    match group.hosts() {
        Some(hosts) => Pontoon::with_hosts(hosts, &args),
        None => Pontoon::run(&args),
    }
}

/// The local port of the primary, as clients learn it from a sentinel.
#[track_caller]
fn primary_port(client: &mut Wire) -> u16 {
    let reply = String::from_utf8(client.ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME])).unwrap();
    let lines: Vec<&str> = reply.lines().collect();
    let ["*2", _, "127.0.0.1", _, port] = lines[..] else { panic!("no address: {reply}") };
    port.parse().unwrap()
}

/// The part of a configuration before the routes.
const HEAD: &str = "admin.listen = \"127.0.0.1:0\"\n";

/// The configuration of a bridge to a group. The sentinels' password comes from a file in `directory`.
fn configuration(group: &SentinelGroup, directory: &Path) -> String {
    configuration_with(group, directory, "", "")
}

/// As [`configuration`], with `more` keys of the route, and some of its table `sentinel`.
fn configuration_with(group: &SentinelGroup, directory: &Path, more: &str, of_sentinel: &str) -> String {
    let password_file = group.settings().sentinel_password.map(|password| {
        let file = directory.join("password");
        std::fs::write(&file, password).unwrap();
        format!("password_file = \"{}\"\n", file.display())
    });
    let of_sentinel = password_file.unwrap_or_default() + of_sentinel;
    HEAD.to_owned() + &route(group, more, &of_sentinel)
}

/// A route to a group, with `more` keys of the route, and some of its table `sentinel`.
fn route(group: &SentinelGroup, more: &str, of_sentinel: &str) -> String {
    let (settings, ca) = (group.settings(), group.authority().file());
    let sentinels: Vec<String> =
        group.sentinel_endpoints().iter().map(|(host, port)| format!("\"{host}:{port}\"")).collect();
    let mode = |tls| if tls { "required" } else { "disabled" };
    let password = settings.server_password.map(|password| format!("auth.password = \"{password}\""));
    format!(
        "[[route]]\ntopology = \"sentinel\"\nupstream = [{}]\nlisten = [\"127.0.0.1:0\"]\n\
         limits.max_clients = 100\ntls.mode = \"{}\"\ntls.ca_files = [\"{ca}\"]\n{}\n{more}\n\
         [route.sentinel]\nmaster_name = \"{MASTER_NAME}\"\ntls_mode = \"{}\"\n{of_sentinel}\n",
        sentinels.join(", "),
        mode(settings.server_tls),
        password.unwrap_or_default(),
        mode(settings.sentinel_tls),
    )
}

/// Servers and sentinels with names, and with different passwords.
fn named_with_passwords() -> SentinelSettings {
    SentinelSettings {
        server_password: Some("of-the-servers"),
        sentinel_password: Some("of-the-sentinels"),
        named: true,
        ..SentinelSettings::tls()
    }
}

#[test]
fn clients_without_a_bridge_outlast_a_crash() {
    clients_outlast_without_a_bridge(Outage::Crash, SentinelSettings::tls());
}

#[test]
fn clients_without_a_bridge_outlast_a_primary_that_hangs() {
    clients_outlast_without_a_bridge(Outage::Hang, SentinelSettings::tls());
}

#[test]
fn clients_without_a_bridge_follow_names_and_use_passwords() {
    clients_outlast_without_a_bridge(Outage::Crash, named_with_passwords());
}

#[test]
fn clients_outlast_a_crash() {
    clients_outlast_with_a_bridge(Outage::Crash, SentinelSettings::tls(), "");
}

#[test]
fn clients_outlast_a_primary_that_hangs() {
    clients_outlast_with_a_bridge(Outage::Hang, SentinelSettings::tls(), "");
}

#[test]
fn clients_need_no_names_and_no_passwords() {
    clients_outlast_with_a_bridge(Outage::Crash, named_with_passwords(), "");
}

#[test]
fn clients_outlast_a_crash_with_sentinels_in_plaintext() {
    let settings = SentinelSettings { sentinel_tls: false, ..SentinelSettings::tls() };
    clients_outlast_with_a_bridge(Outage::Crash, settings, "");
}

#[test]
fn clients_that_share_connections_outlast_a_crash() {
    clients_outlast_with_a_bridge(Outage::Crash, SentinelSettings::tls(), "sharing = \"shared\"");
}

#[test]
fn clients_of_a_unix_socket_follow_a_failover() {
    let mut group = SentinelGroup::start(SentinelSettings::tls());
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("sentinel.sock");
    let listen = format!("listen = [\"unix:{}\", \"127.0.0.1:0\"]", socket.display());
    let text = configuration(&group, directory.path()).replace("listen = [\"127.0.0.1:0\"]", &listen);
    let file = directory.path().join("pontoon.toml");
    std::fs::write(&file, text).unwrap();
    let pontoon = Pontoon::run(&["--config", file.to_str().unwrap()]);
    pontoon.allows("");
    let tcp: SocketAddr = pontoon.addresses()[1].parse().unwrap();
    let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME];
    let ask = |words: &[&str]| String::from_utf8(Wire::unix(&socket).ask(words)).unwrap();
    let port = || ask(&words).lines().nth(4).and_then(|port| port.parse::<u16>().ok());
    eventually("the primary has a local port", || port().is_some_and(|port| port != 0));
    let primary = port().unwrap();
    assert!(ask(&["SENTINEL", "SENTINELS", MASTER_NAME]).contains(&format!("\r\n{}\r\n", tcp.port())));
    Wire::tcp(("127.0.0.1", primary)).expect(&["SET", "k", "1"], "+OK\r\n");
    let mut subscriber = Wire::unix(&socket);
    assert!(subscriber.ask(&["SUBSCRIBE", "+switch-master"]).starts_with(b"*3"));
    group.hold_writes(0);
    group.kill(0);
    let new = group.wait_for_failover(0);
    // The message comes once pontoon has followed the failover.
    let message = String::from_utf8(subscriber.reply()).unwrap();
    assert!(message.contains(&format!(" 127.0.0.1 {primary}\r\n")), "{message}");
    assert_eq!(
        (port(), String::from_utf8(Wire::tcp(tcp).ask(&words)).unwrap()),
        (Some(primary), ask(&words))
    );
    Wire::tcp(("127.0.0.1", primary)).expect(&["INCR", "k"], ":2\r\n");
    group.servers[new].wire().expect(&["GET", "k"], "$1\r\n2\r\n");
}

#[test]
fn a_failover_is_followed_where_servers_tell_pontoon_nothing() {
    let password = "of-the-servers";
    let group =
        SentinelGroup::start(SentinelSettings { server_password: Some(password), ..SentinelSettings::tls() });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pontoon.toml");
    let configuration = configuration(&group, directory.path());
    // Clients authenticate themselves.
    let own: Vec<&str> = configuration.lines().filter(|line| !line.starts_with("auth.")).collect();
    std::fs::write(&file, own.join("\n")).unwrap();
    let pontoon = Pontoon::run(&["--config", file.to_str().unwrap()]);
    pontoon.allows("");
    let address = || {
        let reply = pontoon.client().ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME]);
        let port = String::from_utf8(reply).unwrap().lines().nth(4).unwrap_or("0").parse::<u16>().unwrap();
        SocketAddr::from(([127, 0, 0, 1], port))
    };
    let writes = |value: &str| {
        let mut client = Wire::tcp(address());
        client.try_ask(&["AUTH", password]);
        client.try_ask(&["SET", "key", value]) == Some(b"+OK\r\n".to_vec())
    };
    eventually("the servers are known", || address().port() != 0);
    eventually("the primary takes writes", || writes("before"));
    let before = address();
    group.fail_over();
    eventually("the new primary takes writes", || writes("after"));
    assert_eq!(address(), before);
}

/// Only the sentinels can say where the primary is.
#[test]
fn a_write_to_a_replica_makes_pontoon_dial_no_server_again_and_again() {
    let group = SentinelGroup::start(SentinelSettings::tls());
    let directory = tempfile::tempdir().unwrap();
    let pontoon = bridge(&group, directory.path());
    let replicas = String::from_utf8(pontoon.client().ask(&["SENTINEL", "REPLICAS", MASTER_NAME])).unwrap();
    let mut lines = replicas.lines().skip_while(|line| *line != "port").skip(2);
    let port: u16 = lines.next().unwrap().parse().unwrap();
    let mut client = Wire::tcp(("127.0.0.1", port));
    client.expect(&["PING"], "+PONG\r\n");
    let before = pontoon.metric("pontoon_tls_handshakes_total", "");
    client.expect(&["SET", "k", "v"], "-READONLY You can't write against a read only replica.\r\n");
    for _ in 0..6 {
        client.expect(&["XREAD", "BLOCK", "200", "STREAMS", "stream", "0"], "*-1\r\n");
    }
    let dialled = pontoon.metric("pontoon_tls_handshakes_total", "") - before;
    assert!(dialled <= 2, "{dialled} connections");
}
