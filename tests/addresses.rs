//! A name with several addresses: connections are spread over the servers behind it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::harness::{Authority, Forwarder, Hosts, Pontoon, Redis, Wire, eventually};

const NAME: &str = "replicas.test";

/// One thread whose clients share connections.
const SHARED: [&str; 4] = ["--sharing", "shared", "--workers", "1"];

/// Servers on one port, each at its own address.
struct Replicas {
    servers: Vec<Redis>,
    doors: Vec<Option<Forwarder>>,
    addresses: Vec<SocketAddr>,
    hosts: Hosts,
    authority: Authority,
}

impl Replicas {
    /// Starts `count` servers. Each has its number in the key `server`.
    fn start(count: u8) -> Self {
        let authority = Authority::new();
        let mut doors: Vec<Option<Forwarder>> = Vec::new();
        let (mut servers, mut addresses) = (Vec::new(), Vec::new());
        let mut port = 0;
        for number in 1..=count {
            let server = Redis::with(authority.issue(&[NAME]), &authority, &[]);
            server.direct().expect(&["SET", "server", &number.to_string()], "+OK\r\n");
            let address = (IpAddr::V4(Ipv4Addr::new(127, 0, 0, number)), port).into();
            let door = Forwarder::at(address, server.tls_port);
            port = door.address().port();
            addresses.push(door.address());
            doors.push(Some(door));
            servers.push(server);
        }
        let hosts = Hosts::new(&[]);
        hosts.set_addresses(NAME, &addresses);
        Self { servers, doors, addresses, hosts, authority }
    }

    fn bridge(&self, args: &[&str]) -> Pontoon {
        let (upstream, ca) = (format!("{NAME}:{}", self.addresses[0].port()), self.authority.file());
        let all = ["--upstream", &upstream, "--tls-ca-file", &ca, "--listen", "127.0.0.1:0"];
        // Once pontoon is ready, it knows the addresses. A connection opened earlier may lead to the address of the next one; pontoon
        // corrects that later.
        Pontoon::with_hosts(&self.hosts, &[&all[..], args].concat()).ready()
    }

    /// Ends the server with this number. Nothing listens at its address from then on.
    fn stop(&mut self, number: usize) {
        self.servers[number - 1].kill();
        self.doors[number - 1] = None;
    }

    fn restart(&mut self, number: usize) {
        let server = &mut self.servers[number - 1];
        server.restart();
        server.direct().expect(&["SET", "server", &number.to_string()], "+OK\r\n");
        self.doors[number - 1] = Some(Forwarder::at(self.addresses[number - 1], server.tls_port));
    }
}

/// Which servers these clients are connected to.
fn servers(clients: &mut [Wire]) -> Vec<usize> {
    let mut all: Vec<usize> = clients
        .iter_mut()
        .map(|client| {
            let reply = String::from_utf8(client.ask(&["GET", "server"])).unwrap();
            reply.lines().last().unwrap().parse().unwrap()
        })
        .collect();
    all.sort_unstable();
    all
}

fn spread(clients: &mut [Wire]) -> Vec<usize> {
    let mut all = servers(clients);
    all.dedup();
    all
}

fn clients(pontoon: &Pontoon) -> Vec<Wire> {
    (0..20).map(|_| pontoon.client()).collect()
}

fn shared(pontoon: &Pontoon) -> u64 {
    pontoon.metric("pontoon_upstream_connections", "state=\"shared\"")
}

#[test]
fn clients_of_shared_connections_are_spread_over_all_addresses() {
    let replicas = Replicas::start(3);
    for workers in ["1", "2"] {
        let pontoon = replicas.bridge(&["--sharing", "shared", "--workers", workers]);
        let mut clients = clients(&pontoon);
        assert_eq!(spread(&mut clients), [1, 2, 3], "{workers} threads");
        assert_eq!(shared(&pontoon), 3, "one connection for each address");
    }
}

#[test]
fn clients_with_dedicated_connections_are_spread_over_all_addresses() {
    let replicas = Replicas::start(3);
    let pontoon = replicas.bridge(&["--sharing", "dedicated"]);
    let mut clients = clients(&pontoon);
    let mut all = servers(&mut clients);
    assert!(all.chunk_by(|a, b| a == b).all(|of_one| of_one.len() >= 4), "{all:?}");
    all.dedup();
    assert_eq!(all, [1, 2, 3]);
}

#[test]
fn shared_connections_keep_their_number_and_lead_to_different_addresses() {
    let replicas = Replicas::start(3);
    let pontoon = replicas.bridge(&[&SHARED[..], &["--pool-shared", "2"]].concat());
    let mut clients = clients(&pontoon);
    assert_eq!(spread(&mut clients).len(), 2);
    assert_eq!(shared(&pontoon), 2);
}

#[test]
fn clients_of_a_lost_server_move_to_the_others_until_it_is_back() {
    let mut replicas = Replicas::start(3);
    let pontoon = replicas.bridge(&SHARED);
    let mut before = clients(&pontoon);
    assert_eq!(spread(&mut before), [1, 2, 3]);
    replicas.stop(2);
    eventually("its connection is lost", || shared(&pontoon) == 2);
    assert_eq!(spread(&mut before), [1, 3]);
    replicas.restart(2);
    eventually("new clients use the server", || spread(&mut clients(&pontoon)) == [1, 2, 3]);
}

#[test]
fn new_clients_follow_addresses_that_appear_and_vanish() {
    let replicas = Replicas::start(3);
    replicas.hosts.set_addresses(NAME, &replicas.addresses[..2]);
    let pontoon = replicas.bridge(&[&SHARED[..], &["--pool-reuse", "false"]].concat());
    let mut before = clients(&pontoon);
    assert_eq!(spread(&mut before), [1, 2]);
    // Serving a client that needs a dedicated connection makes pontoon look the name up.
    let looks_up = || pontoon.client().expect(&["WATCH", "k"], "+OK\r\n");
    replicas.hosts.set_addresses(NAME, &replicas.addresses);
    looks_up();
    assert_eq!(spread(&mut clients(&pontoon)), [1, 2, 3]);
    replicas.hosts.set_addresses(NAME, &replicas.addresses[2..]);
    looks_up();
    assert_eq!(spread(&mut clients(&pontoon)), [3]);
    assert_eq!(spread(&mut before), [1, 2], "existing clients stay");
}
