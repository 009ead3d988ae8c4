//! Replies that no engine sends.

use std::path::PathBuf;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::support::{bulk, data, file, frames, host, map, utf8};
use crate::cluster::{AtSentinel, Election, NodeMap, RewriteError, Rewriter, SentinelView, Topology};
use crate::endpoint::Endpoint;
use crate::resp::command_table::AddressReply;
use crate::resp::value::Value;

/// All captured and documented replies and messages, and those found by fuzzing.
static KNOWN_REPLIES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(replies);

fn replies() -> Vec<Vec<u8>> {
    fn gather(directory: PathBuf, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                gather(path, found);
            } else if path.extension().is_none_or(|extension| extension != "md" && extension != "py") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for directory in
        ["tests/data/cluster", "tests/data/sentinel", "tests/fuzz/seeds/cluster", "tests/fuzz/seeds/sentinel"]
    {
        gather(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(directory), &mut found);
    }
    found.sort();
    assert!(found.len() > 50);
    let mut replies = Vec::new();
    for sent in found.iter().map(|path| std::fs::read(path).unwrap()) {
        let frames = frames(&sent);
        // What fuzzing found may be no whole frame.
        let is_whole = frames.iter().map(|frame| frame.len()).sum::<usize>() == sent.len();
        replies.extend(if is_whole { frames } else { vec![&sent[..]] }.into_iter().map(<[u8]>::to_vec));
    }
    replies.sort();
    replies.dedup();
    replies
}

/// The result must be exactly one reply, so that the client stays in step.
fn is_rewritten_to_one_reply_or_refused(reply: &[u8]) {
    let nodes = data("redis-7.0/ip.resp2/nodes");
    let asked: Endpoint = "127.0.0.1:33803".parse().unwrap();
    let map = map(&Topology::parse(reply, &nodes, &asked.host).unwrap_or_default());
    let _ = Topology::parse(&nodes, reply, &asked.host);
    let _ = Topology::parse(reply, reply, &asked.host);
    let local = host("::1");
    let rewriter = Rewriter::new(&map, &local, &asked);
    let mut results: Vec<_> = AddressReply::ALL.iter().map(|kind| rewriter.reply(*kind, reply)).collect();
    results.push(rewriter.error(reply));
    results.push(rewriter.transaction(&[Some(AddressReply::Slots), None, Some(AddressReply::Nodes)], reply));
    let group = group(reply);
    for is_settled in [false, true] {
        let sentinel = AtSentinel { master_name: "mymaster", port: 26379, is_settled };
        let rewriter = Rewriter::new(&group, &local, &asked).at_sentinel(sentinel);
        results.extend(AddressReply::ALL.iter().map(|kind| rewriter.reply(*kind, reply)));
        results.push(rewriter.published(reply));
    }
    for rewritten in results.into_iter().flatten() {
        // A push is a list with another first byte.
        let as_list = rewritten.strip_prefix(b">").map(|rest| [b"*", rest].concat());
        let rewritten = as_list.unwrap_or(rewritten);
        assert!(Value::parse(&rewritten).is_ok(), "{}", rewritten.escape_ascii());
    }
}

/// The servers of which a group consists if a sentinel gives this reply in place of one of its replies.
fn group(reply: &[u8]) -> NodeMap {
    let known = ["get-master-addr-by-name", "master", "replicas"]
        .map(|name| file(&format!("tests/data/sentinel/valkey-9/{name}.resp3")));
    let views = (0..3).filter_map(|replaced| {
        let mut replies = known.each_ref().map(Vec::as_slice);
        replies[replaced] = reply;
        SentinelView::parse(replies[0], replies[1], replies[2]).ok()
    });
    let election = Election::new(views.collect());
    let primary = election.claims().first().map(|claim| claim.primary.clone());
    let nodes = primary.map(|primary| election.topology(&primary).nodes);
    NodeMap::new(nodes.unwrap_or_default().into_iter().zip(7000..))
}

#[test]
fn every_known_reply_is_refused_or_rewritten_for_any_request() {
    for reply in KNOWN_REPLIES.iter() {
        is_rewritten_to_one_reply_or_refused(reply);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_rewritten(bytes in vec(any::<u8>(), 0..200)) {
        is_rewritten_to_one_reply_or_refused(&bytes);
    }

    #[test]
    fn any_bytes_that_look_like_replies_are_refused_or_rewritten(
        words in vec(select(vec![
            "*", "%", "$", ":", "=", "-", "+", "~", "_\r\n", "\r\n", "1", "2", "3", "4", "0", "-1", "ip", "port", "nodes",
            "master mymaster 10.0.0.1 6379", "message", "flags", " ", "@", "sentinel", "+switch-master", "tls-port", "$2\r\nip\r\n", "*3\r\n:0\r\n:1\r\n", "$1\r\n?\r\n", "MOVED 1 ", "a b:1@2 c - 0", ":6379", ",", "\n",
        ]), 0..30)
    ) {
        is_rewritten_to_one_reply_or_refused(words.concat().as_bytes());
    }

    #[test]
    fn modified_replies_are_refused_or_rewritten(
        which: Index, changes in vec((any::<Index>(), any::<u8>()), 0..4), cut: Option<Index>
    ) {
        let mut reply = which.get(&KNOWN_REPLIES).clone();
        for (at, byte) in changes {
            let at = at.index(reply.len());
            reply[at] = byte;
        }
        if let Some(cut) = cut {
            reply.truncate(cut.index(reply.len()));
        }
        is_rewritten_to_one_reply_or_refused(&reply);
    }
}

fn rewriter_knows_one_node(check: impl FnOnce(Rewriter<'_>)) {
    let nodes = bulk("a 10.0.0.1:6379@16379,a.example master - 0 0 1 connected");
    let asked: Endpoint = "10.0.0.1:6379".parse().unwrap();
    let map = map(&Topology::parse(b"*0\r\n", nodes.as_bytes(), &asked.host).unwrap());
    check(Rewriter::new(&map, &host("127.0.0.9"), &asked));
}

#[test]
fn the_error_for_an_unknown_node_names_it() {
    rewriter_knows_one_node(|rewriter| {
        let unknown = |address: &str| Err(RewriteError::UnknownNode(address.to_owned()));
        assert_eq!(rewriter.error(b"-MOVED 1 10.0.0.2:6379\r\n"), unknown("10.0.0.2:6379"));
        assert_eq!(rewriter.error(b"-ASK 1 2001:db8::1:6379\r\n"), unknown("2001:db8::1:6379"));
        assert_eq!(rewriter.error(b"-MOVED 1 :6379\r\n"), unknown(":6379"));
        let slots = b"*1\r\n*3\r\n:0\r\n:1\r\n*3\r\n$8\r\n10.0.0.2\r\n:6379\r\n$1\r\nb\r\n";
        assert_eq!(rewriter.reply(AddressReply::Slots, slots), unknown("10.0.0.2:6379"));
        let line = "b 10.0.0.2:6379@16379 master - 0 0 1 link";
        assert_eq!(rewriter.reply(AddressReply::Nodes, bulk(line).as_bytes()), unknown("10.0.0.2:6379"));
        for flag in ["fail", "noaddr", "handshake"] {
            let gone = line.replace("master", flag);
            let told = utf8(&rewriter.reply(AddressReply::Nodes, bulk(&gone).as_bytes()).unwrap());
            assert_eq!(told, bulk(&format!("b 127.0.0.9:0@16379 {flag} - 0 0 1 link")));
        }
    });
}

#[test]
fn a_reply_of_an_unexpected_form_is_refused() {
    rewriter_knows_one_node(|rewriter| {
        for (kind, reply) in [
            (AddressReply::Slots, &b":1\r\n"[..]),
            (AddressReply::Slots, b"*1\r\n*1\r\n:1\r\n"),
            (
                AddressReply::Slots,
                b"*1\r\n*3\r\n:0\r\n:1\r\n*3\r\n$8\r\n10.0.0.1\r\n$4\r\n6379\r\n$1\r\na\r\n",
            ),
            (
                AddressReply::Slots,
                b"*1\r\n*3\r\n:0\r\n:1\r\n*4\r\n$8\r\n10.0.0.1\r\n:6379\r\n$1\r\na\r\n*1\r\n$2\r\nip\r\n",
            ),
            (AddressReply::Shards, b"*1\r\n*2\r\n$5\r\nslots\r\n*0\r\n"),
            (AddressReply::Shards, b"*1\r\n*2\r\n$5\r\nnodes\r\n:1\r\n"),
            (AddressReply::Nodes, b"$1\r\na\r\n"),
            (AddressReply::Nodes, b":1\r\n"),
            (AddressReply::Replicas, b"*1\r\n*0\r\n"),
        ] {
            let result = rewriter.reply(kind, reply);
            assert!(matches!(result, Err(RewriteError::Shape { .. })), "{kind:?} {}", reply.escape_ascii());
        }
    });
}

#[test]
fn a_reply_without_nodes_is_unchanged() {
    rewriter_knows_one_node(|rewriter| {
        for reply in
            [&b"+QUEUED\r\n"[..], b"-ERR unknown subcommand\r\n", b"_\r\n", b"*-1\r\n", b"!6\r\nERR no\r\n"]
        {
            for kind in AddressReply::ALL {
                assert_eq!(rewriter.reply(kind, reply).unwrap(), reply);
            }
        }
        for reply in [
            &b"-MOVED\r\n"[..],
            b"-MOVED my cheese\r\n",
            b"-ERR MOVED 1 10.0.0.2:6379\r\n",
            b"+MOVED 1 10.0.0.2:6379\r\n",
            b"$22\r\nMOVED 1 10.0.0.2:63790\r\n",
            b"-ASKING 1 10.0.0.2:6379\r\n",
        ] {
            assert_eq!(rewriter.error(reply).unwrap(), reply);
        }
    });
}

#[test]
fn redirects_as_blob_errors_are_rewritten_and_keep_what_follows() {
    rewriter_knows_one_node(|rewriter| {
        let rewritten = |reply: &str| utf8(&rewriter.error(reply.as_bytes()).unwrap());
        assert_eq!(rewritten("!24\r\nMOVED 1 A.example:6379 x\r\n"), "!24\r\nMOVED 1 127.0.0.9:7000 x\r\n");
        assert_eq!(
            rewritten("|1\r\n+a\r\n+b\r\n-ASK 7 a.example:06379\r\n"),
            "|1\r\n+a\r\n+b\r\n-ASK 7 127.0.0.9:7000\r\n"
        );
    });
}

#[test]
fn in_a_transaction_only_replies_that_name_nodes_are_rewritten() {
    rewriter_knows_one_node(|rewriter| {
        let line = bulk("a 10.0.0.1:6379@1 master - 0 0 1 link");
        let reply = format!("*3\r\n{line}{line}-MOVED 1 10.0.0.2:6379\r\n");
        let rewritten = bulk("a 127.0.0.9:7000@1 master - 0 0 1 link");
        let requests = [None, Some(AddressReply::Nodes), None];
        assert_eq!(
            utf8(&rewriter.transaction(&requests, reply.as_bytes()).unwrap()),
            format!("*3\r\n{line}{rewritten}-MOVED 1 10.0.0.2:6379\r\n")
        );
        assert_eq!(rewriter.transaction(&requests, b"*0\r\n"), Err(RewriteError::Transaction));
        for untouched in
            [&b"*-1\r\n"[..], b"-EXECABORT Transaction discarded because of previous errors.\r\n"]
        {
            assert_eq!(rewriter.transaction(&requests, untouched).unwrap(), untouched);
        }
        let moved = rewriter.transaction(&requests, b"-MOVED 1 10.0.0.1:6379\r\n").unwrap();
        assert_eq!(utf8(&moved), "-MOVED 1 127.0.0.9:7000\r\n");
    });
}
