//! Fuzzes replies of a hostile cluster: each rewritten reply is one whole reply, and nothing panics.
#![no_main]

use pontoon::cluster::{NodeMap, Rewriter, Topology};
use pontoon::endpoint::Endpoint;
use pontoon::resp::command_table::AddressReply;
use pontoon::resp::value::Value;

libfuzzer_sys::fuzz_target!(|reply: &[u8]| {
    let asked: Endpoint = "10.0.0.1:6379".parse().expect("a valid endpoint");
    let known = b"+a 10.0.0.1:6379@16379,a.example myself,master - 0 0 1 connected 0-16383\r\n";
    let from_nodes = Topology::parse(b"*0\r\n", reply, &asked.host);
    let from_slots = Topology::parse(reply, known, &asked.host);
    for topology in [from_nodes, from_slots].into_iter().flatten() {
        let nodes = NodeMap::new(topology.nodes.into_iter().zip(7000..));
        let rewriter = Rewriter::new(&nodes, &asked.host, &asked);
        let rewritten = AddressReply::ALL.iter().map(|kind| rewriter.reply(*kind, reply)).chain([rewriter.error(reply)]);
        for rewritten in rewritten.flatten() {
            assert!(Value::parse(&rewritten).is_ok());
        }
    }
});
