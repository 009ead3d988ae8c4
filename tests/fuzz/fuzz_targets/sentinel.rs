//! Fuzzes replies and messages of a hostile sentinel: each rewritten one is one whole frame, and nothing panics.
#![no_main]

use pontoon::cluster::{AtSentinel, Election, NodeMap, Rewriter, SentinelView};
use pontoon::endpoint::Endpoint;
use pontoon::resp::command_table::AddressReply;
use pontoon::resp::value::Value;

libfuzzer_sys::fuzz_target!(|reply: &[u8]| {
    let asked: Endpoint = "10.0.0.9:26379".parse().expect("a valid endpoint");
    let primary = b"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n60603\r\n";
    let group = b"*2\r\n$12\r\nconfig-epoch\r\n$1\r\n1\r\n";
    let replica = b"*1\r\n*6\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n$4\r\nport\r\n$5\r\n45653\r\n$5\r\nflags\r\n$5\r\nslave\r\n";
    let honest = SentinelView::parse(primary, group, replica).expect("a valid view");
    let views = [
        SentinelView::parse(reply, group, replica),
        SentinelView::parse(primary, reply, replica),
        SentinelView::parse(primary, group, reply),
        Ok(honest),
    ];
    for view in views.into_iter().flatten() {
        let election = Election::new(vec![view]);
        let Some(claim) = election.claims().into_iter().next() else { continue };
        let nodes = NodeMap::new(election.topology(&claim.primary).nodes.into_iter().zip(7000..));
        for is_settled in [false, true] {
            let sentinel = AtSentinel { master_name: "mymaster", port: 26379, is_settled };
            let rewriter = Rewriter::new(&nodes, &asked.host, &asked).at_sentinel(sentinel);
            let replies = AddressReply::ALL.iter().map(|kind| rewriter.reply(*kind, reply));
            for mut rewritten in replies.chain([rewriter.published(reply)]).flatten() {
                // A push is a list with another first byte.
                if let Some(first) = rewritten.first_mut().filter(|first| **first == b'>') {
                    *first = b'*';
                }
                assert!(Value::parse(&rewritten).is_ok());
            }
        }
    }
});
