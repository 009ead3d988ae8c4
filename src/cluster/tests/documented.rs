//! Replies of other engines, as documented; see `tests/data/cluster/README.md`.

use super::support::{data, differences, host, kind, map, utf8};
use crate::cluster::{Rewriter, Role, Topology};
use crate::endpoint::Endpoint;
use crate::resp::command_table::AddressReply;
use crate::resp::value::Value;

fn rewritten(slots: &[u8], nodes: &[u8], asked: &str, kind: AddressReply, reply: &[u8]) -> String {
    let asked: Endpoint = asked.parse().unwrap();
    let map = map(&Topology::parse(slots, nodes, &asked.host).unwrap());
    utf8(&Rewriter::new(&map, &host("127.0.0.9"), &asked).reply(kind, reply).unwrap())
}

const REFUSED: &[u8] = b"-NOPERM this user has no permissions to run the 'cluster|nodes' command\r\n";

#[test]
fn fields_that_valkey_adds_to_shards_and_slots_are_kept() {
    let slots = data("documented/valkey-9.1-slots.resp2");
    for protocol in [2, 3] {
        for (name, changes) in [("shards", 6), ("slots", 4)] {
            let reply = data(&format!("documented/valkey-9.1-{name}.resp{protocol}"));
            let after = rewritten(&slots, REFUSED, "127.0.0.1:16001", kind(name), &reply);
            let found = differences(&Value::parse(&reply).unwrap(), &Value::parse(after.as_bytes()).unwrap());
            assert_eq!(found.len(), changes, "{found:?}");
            for added in ["availability-zone", "zone-a", "zone-b"] {
                assert!(after.contains(added));
            }
        }
    }
}

#[test]
fn a_line_keeps_its_auxiliary_fields() {
    let nodes = data("documented/auxiliary-nodes.resp3");
    let after = rewritten(b"*0\r\n", &nodes, "h:1", AddressReply::Nodes, &nodes);
    for (id, place) in [
        ("07c3", "127.0.0.9:7000@31004,127.0.0.9,shard-id=69bc080733d1355567173199cff4a6a039a2f024 slave"),
        ("67ed", "127.0.0.9:7001@31002,,shard-id=114f6674a35b84949fe567f5dfd41415ee776261 master,nofailover"),
        (
            "e7d1",
            "127.0.0.9:7002@31001,127.0.0.9,shard-id=69bc080733d1355567173199cff4a6a039a2f024,nodename=a:b@c",
        ),
        ("292f", ":0@0,,shard-id=292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f master,noaddr"),
    ] {
        let line = after.lines().find(|line| line.trim_start_matches("txt:").starts_with(id)).unwrap();
        assert!(line.contains(place), "{line}");
    }
    assert_eq!(Value::parse(after.as_bytes()).unwrap().text().unwrap().lines().count(), 4);
}

#[test]
fn a_node_without_an_address_cannot_be_dialled() {
    let topology = Topology::parse(b"*0\r\n", &data("documented/auxiliary-nodes.resp3"), &host("h")).unwrap();
    assert_eq!(topology.nodes[3].endpoint(), None);
    assert!(topology.nodes[1].flags.never_fails_over());
}

#[test]
fn the_host_names_of_redis_7_2_are_names_of_their_nodes() {
    let nodes = data("documented/redis-7.2-nodes.resp2");
    let topology = Topology::parse(REFUSED, &nodes, &host("h")).unwrap();
    assert!(topology.nodes[0].is_at(&host("hostname4"), 30004));
    assert!(topology.nodes[0].is_at(&host("127.0.0.1"), 30004));
}

#[test]
fn serverless_is_one_node_and_its_reader_on_one_name() {
    let [slots, nodes, shards] =
        ["slots", "nodes", "shards"].map(|name| data(&format!("documented/serverless-{name}.resp2")));
    let name = "cache-abc123.serverless.euw1.cache.amazonaws.com";
    let asked = format!("{name}:6379");
    for (slots, nodes) in [(&slots[..], &nodes[..]), (&slots, REFUSED), (REFUSED, &nodes)] {
        let topology = Topology::parse(slots, nodes, &host(name)).unwrap();
        let [primary, reader] = &topology.nodes[..] else { panic!("two nodes") };
        assert_eq!(primary.endpoint().unwrap().to_string(), asked);
        assert_eq!(primary.slots, [0..=16383]);
        assert_eq!((reader.port, reader.role), (6380, Some(Role::Replica)));
        assert_eq!(reader.primary.as_ref(), Some(&primary.id));
        let after = rewritten(slots, nodes, &asked, AddressReply::Shards, &shards);
        assert!(!after.contains("amazonaws") && !after.contains("127.0.0.1"), "{after}");
        assert!(after.contains(":7000\r\n") && after.contains(":7001\r\n"));
    }
}

#[test]
fn the_error_of_a_server_without_cluster_mode_is_reported() {
    let refusal = b"-ERR This instance has cluster support disabled\r\n";
    let error = Topology::parse(refusal, refusal, &host("h")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server refused CLUSTER SLOTS: ERR This instance has cluster support disabled"
    );
}
