//! Generated clusters of all kinds. Their replies are written twice, with the nodes' addresses and with local ones. Rewriting must turn one
//! into the other byte for byte, so that nothing else changes.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::support::{bulk, host, map, utf8};
use crate::cluster::{Rewriter, Topology};
use crate::endpoint::Endpoint;
use crate::resp::command_table::AddressReply;

#[derive(Debug, Clone)]
struct Made {
    id: String,
    ip: String,
    name: Option<String>,
    port: u16,
    plain_port: Option<u16>,
    flags: String,
    rest: String,
    has_replica: bool,
}

/// How a node appears in replies.
#[derive(Debug, Clone)]
struct Shown {
    host: Option<String>,
    ip: String,
    name: Option<String>,
    port: u16,
    ports: Vec<(&'static str, u16)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefers {
    Ip,
    Name,
    Nothing,
}

impl Made {
    fn shown(&self, prefers: Prefers) -> Shown {
        let mut ports = vec![("tls-port", self.port)];
        ports.extend(self.plain_port.map(|port| ("port", port)));
        let host = match prefers {
            Prefers::Ip => Some(self.ip.clone()),
            Prefers::Name => Some(self.name.clone().unwrap_or("?".into())),
            Prefers::Nothing => None,
        };
        Shown { host, ip: self.ip.clone(), name: self.name.clone(), port: self.port, ports }
    }

    fn local(&self, host: &str, port: u16) -> Shown {
        let mut ports = vec![(if self.plain_port.is_some() { "tls-port" } else { "port" }, port)];
        ports.extend(self.plain_port.map(|_| ("port", port)));
        let name = self.name.as_ref().map(|_| host.to_owned());
        Shown { host: Some(host.into()), ip: host.into(), name, port, ports }
    }
}

fn made() -> impl Strategy<Value = Vec<Made>> {
    let node = (
        any::<u128>(),
        1..=65535_u16,
        proptest::option::of(1..=65535_u16),
        any::<bool>(),
        select(vec!["master", "slave,nofailover", "master,fail?", "slave,fail", "myself,master"]),
        select(vec!["", " 0-5460", " 7 [93->-67ed2db8d677e59e] [77-<-e7d1eecce10fd6bb]"]),
        any::<bool>(),
    );
    let node = (node, any::<[u16; 8]>(), any::<bool>());
    vec(node, 1..8).prop_map(|nodes| {
        let made = nodes.into_iter().enumerate().map(|(n, (node, ip, is_v6))| {
            let (id, port, plain_port, is_named, flags, slots, has_replica) = node;
            let ip = if is_v6 {
                std::net::Ipv6Addr::from(ip.map(|part| part & 0xff0f)).to_canonical().to_string()
            } else {
                std::net::Ipv4Addr::new(10, ip[0] as u8, ip[1] as u8, n as u8).to_string()
            };
            Made {
                id: format!("{id:040x}"),
                ip,
                name: is_named.then(|| format!("node-{n}.example")),
                port,
                plain_port,
                flags: flags.into(),
                rest: format!("- 0 1795521052057 {n} connected{slots}"),
                has_replica,
            }
        });
        made.collect()
    })
}

fn number(number: u16) -> String {
    format!(":{number}\r\n")
}

fn map_of(pairs: &[String], resp3: bool) -> String {
    let (kind, count) = if resp3 { ('%', pairs.len() / 2) } else { ('*', pairs.len()) };
    format!("{kind}{count}\r\n{}", pairs.concat())
}

fn list(elements: &[String]) -> String {
    format!("*{}\r\n{}", elements.len(), elements.concat())
}

fn slots(nodes: &[(&Made, Shown)], resp3: bool) -> String {
    let node = |(made, shown): &(&Made, Shown)| {
        let null = if resp3 { "_\r\n" } else { "$-1\r\n" };
        let host = shown.host.as_deref().map_or(null.to_owned(), bulk);
        let mut metadata = vec![bulk("ip"), bulk(&shown.ip)];
        metadata.extend(shown.name.iter().flat_map(|name| [bulk("hostname"), bulk(name)]));
        metadata.extend([bulk("availability-zone"), bulk("ip")]);
        list(&[host, number(shown.port), bulk(&made.id), map_of(&metadata, resp3), bulk("newer")])
    };
    let ranges: Vec<String> = nodes
        .iter()
        .enumerate()
        .map(|(n, each)| {
            let mut range = vec![number(n as u16), number(n as u16), node(each)];
            if each.0.has_replica {
                range.push(node(&nodes[(n + 1) % nodes.len()]));
            }
            range.push(number(6379));
            list(&range)
        })
        .collect();
    list(&ranges)
}

fn shards(nodes: &[(&Made, Shown)], resp3: bool) -> String {
    let node = |(made, shown): &(&Made, Shown)| {
        let mut fields = vec![bulk("id"), bulk(&made.id)];
        fields.extend(shown.ports.iter().flat_map(|(key, port)| [bulk(key), number(*port)]));
        fields.extend([bulk("ip"), bulk(&shown.ip)]);
        fields.extend([bulk("endpoint"), bulk(shown.host.as_deref().unwrap_or(""))]);
        fields.extend(shown.name.iter().flat_map(|name| [bulk("hostname"), bulk(name)]));
        fields.extend([bulk("role"), bulk("master"), bulk("replication-offset"), number(14)]);
        fields.extend([bulk("health"), bulk("online"), bulk("newer"), list(&[bulk("port"), number(6379)])]);
        map_of(&fields, resp3)
    };
    let shards: Vec<String> = nodes
        .iter()
        .map(|each| {
            let slots = [bulk("slots"), list(&[number(0), number(16383)])];
            let nodes = [bulk("nodes"), list(&[node(each)]), bulk("id"), bulk(&each.0.id)];
            map_of(&[&slots[..], &nodes].concat(), resp3)
        })
        .collect();
    list(&shards)
}

fn line((made, shown): &(&Made, Shown)) -> String {
    let name = shown.name.as_ref().map(|name| format!(",{name}")).unwrap_or_default();
    format!("{} {}:{}@17000{name} {} {}", made.id, shown.ip, shown.port, made.flags, made.rest)
}

fn nodes(nodes: &[(&Made, Shown)], resp3: bool) -> String {
    let text: String = nodes.iter().map(|node| line(node) + "\n").collect();
    if resp3 { format!("={}\r\ntxt:{text}\r\n", text.len() + 4) } else { bulk(&text) }
}

fn replicas(nodes: &[(&Made, Shown)], _: bool) -> String {
    list(&nodes.iter().map(|node| bulk(&line(node))).collect::<Vec<_>>())
}

/// The parts of `INFO` of a replica of the first node, and of the primary of the others.
fn info(nodes: &[(&Made, Shown)], resp3: bool) -> String {
    let (first, rest) = nodes.split_first().unwrap();
    let mut text = format!(
        "# Server\r\ntcp_port:6379\r\n# Replication\r\nrole:slave\r\nmaster_host:{}\r\nmaster_port:{}\r\n",
        first.1.ip, first.1.port
    );
    text.extend(rest.iter().enumerate().map(|(n, (_, shown))| {
        format!("slave{n}:ip={},port={},state=online,offset=7,lag=0,type=x\r\n", shown.ip, shown.port)
    }));
    text += "replica_announced:1\r\n# Keyspace\r\ndb0:keys=1,expires=0\r\n";
    if resp3 { format!("={}\r\ntxt:{text}\r\n", text.len() + 4) } else { bulk(&text) }
}

fn role_of_primary(nodes: &[(&Made, Shown)], _: bool) -> String {
    let replica =
        |(_, shown): &(&Made, Shown)| list(&[bulk(&shown.ip), bulk(&shown.port.to_string()), bulk("3129")]);
    list(&[bulk("master"), number(3129), list(&nodes.iter().map(replica).collect::<Vec<_>>())])
}

fn role_of_replica(nodes: &[(&Made, Shown)], _: bool) -> String {
    let shown = &nodes[0].1;
    list(&[bulk("slave"), bulk(&shown.ip), number(shown.port), bulk("connected"), number(3129)])
}

type Write = fn(&[(&Made, Shown)], bool) -> String;

/// Replies that name nodes by address only.
const WRITERS_WITHOUT_IDS: [(AddressReply, Write); 3] = [
    (AddressReply::Info, info),
    (AddressReply::Role, role_of_primary),
    (AddressReply::Role, role_of_replica),
];

const REPLY_WRITERS: [(AddressReply, Write); 4] = [
    (AddressReply::Slots, slots),
    (AddressReply::Shards, shards),
    (AddressReply::Nodes, nodes),
    (AddressReply::Replicas, replicas),
];

proptest! {
    #[test]
    fn rewriting_replaces_the_nodes_addresses_and_nothing_else(
        made in made(), prefers in select(vec![Prefers::Ip, Prefers::Name, Prefers::Nothing]),
        resp3: bool, learned_in_resp3: bool, knows_slots: bool, knows_nodes: bool,
        local in select(vec!["127.0.0.1", "::1", "fd00::7:1", "pontoon.local"])
    ) {
        let told: Vec<(&Made, Shown)> = made.iter().map(|node| (node, node.shown(prefers))).collect();
        let asked: Endpoint = "config.example:6379".parse().unwrap();
        let refused = || "-NOPERM\r\n".to_owned();
        let slots = if knows_slots || !knows_nodes { slots(&told, learned_in_resp3) } else { refused() };
        let nodes = if knows_nodes { nodes(&told, learned_in_resp3) } else { refused() };
        let topology = Topology::parse(slots.as_bytes(), nodes.as_bytes(), &asked.host).unwrap();
        prop_assert_eq!(topology.nodes.len(), made.len());
        let map = map(&topology);
        let local_port = |node: &Made| map.by_id(&node.id).unwrap().port;
        let expected: Vec<(&Made, Shown)> =
            made.iter().map(|node| (node, node.local(local, local_port(node)))).collect();
        let local = host(local);
        let rewriter = Rewriter::new(&map, &local, &asked);
        for (kind, write) in REPLY_WRITERS {
            let rewritten = rewriter.reply(kind, write(&told, resp3).as_bytes()).unwrap();
            prop_assert_eq!(utf8(&rewritten), write(&expected, resp3));
        }
        // Two nodes may have the same address. Without CLUSTER NODES, the IP address of a node with a name is not known.
        let distinct: std::collections::HashSet<_> = made.iter().map(|node| (&node.ip, node.port)).collect();
        if distinct.len() == made.len() && knows_nodes {
            for (kind, write) in WRITERS_WITHOUT_IDS {
                let rewritten = rewriter.reply(kind, write(&told, resp3).as_bytes()).unwrap();
                prop_assert_eq!(utf8(&rewritten), write(&expected, resp3));
            }
        }
        for (node, shown) in &told {
            let Some(host) = &shown.host else { continue };
            // Two nodes may have the same address, and `?` identifies none.
            let claims = told.iter().filter(|(other, _)| other.ip == node.ip && other.port == node.port);
            if host != "?" && claims.count() == 1 {
                let moved = rewriter.error(format!("-MOVED 1 {host}:{}\r\n", node.port).as_bytes()).unwrap();
                prop_assert_eq!(utf8(&moved), format!("-MOVED 1 {local}:{}\r\n", local_port(node)));
            }
        }
    }
}
