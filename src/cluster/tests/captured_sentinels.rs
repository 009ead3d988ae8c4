//! Captured replies and messages of the sentinels of every engine; see `tests/data/sentinel/README.md`.

use super::support::{differences, file, frames, host, utf8};
use crate::cluster::{AtSentinel, Election, NodeMap, Rewriter, SentinelView, Topology};
use crate::endpoint::Endpoint;
use crate::resp::command_table::{AddressReply, Command};
use crate::resp::value::Value;

const ENGINES: [&str; 5] = ["redis-6", "redis-7.0", "redis-8", "valkey-8", "valkey-9"];
const SENTINEL_STATES: [&str; 4] = ["", "failed-over/", "named/", "named/failed-over/"];

/// Files that every state has, and what the sentinel was asked for.
const REPLIES: [(&str, &[&str]); 5] = [
    ("masters", &["SENTINEL", "MASTERS"]),
    ("replicas", &["SENTINEL", "REPLICAS"]),
    ("sentinels", &["SENTINEL", "SENTINELS"]),
    ("get-master-addr-by-name", &["SENTINEL", "GET-MASTER-ADDR-BY-NAME"]),
    ("info-sentinel", &["INFO"]),
];

/// Files of the first state.
const MORE_REPLIES: [(&str, &[&str]); 5] = [
    ("role", &["ROLE"]),
    ("master", &["SENTINEL", "MASTER"]),
    ("info", &["INFO"]),
    ("info-cache", &["SENTINEL", "INFO-CACHE"]),
    ("sentinel-config-get", &["SENTINEL", "CONFIG"]),
];

/// Files with replies and messages that name no server by their request.
const MESSAGES: [&str; 2] = ["failover", "failover-seen"];

/// What a sentinel said in one state.
struct State {
    folder: String,
    name: &'static str,
}

impl State {
    fn all() -> impl Iterator<Item = Self> {
        ENGINES.into_iter().flat_map(|engine| {
            SENTINEL_STATES.map(|name| Self { folder: format!("tests/data/sentinel/{engine}/{name}"), name })
        })
    }

    fn read(&self, name: &str) -> Vec<u8> {
        file(&format!("{}{name}", self.folder))
    }

    fn topology(&self) -> Topology {
        let groups = utf8(&self.read("masters.resp2"));
        let group = groups.strip_prefix("*1\r\n").unwrap();
        let address = self.read("get-master-addr-by-name.resp2");
        let view = SentinelView::parse(&address, group.as_bytes(), &self.read("replicas.resp2")).unwrap();
        let election = Election::new(vec![view]);
        election.topology(&election.claims()[0].primary)
    }

    /// The ports of all servers and of the other sentinels.
    fn ports(&self) -> Vec<String> {
        let files = ["masters.resp2", "replicas.resp2", "sentinels.resp2"];
        let texts = files.map(|name| utf8(&self.read(name)));
        let lines: Vec<&str> = texts.iter().flat_map(|text| text.lines()).collect();
        lines.windows(3).filter(|lines| lines[0] == "port").map(|lines| lines[2].to_owned()).collect()
    }

    /// Each captured reply with its form.
    fn replies(&self) -> Vec<(String, Vec<u8>, AddressReply)> {
        let more = if self.name.is_empty() { &MORE_REPLIES[..] } else { &[] };
        let files = REPLIES.iter().chain(more).flat_map(|(name, words)| {
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            let kind = Command::of_words(&words).nodes().unwrap();
            ["resp2", "resp3"].map(|protocol| (format!("{name}.{protocol}"), kind))
        });
        files.map(|(name, kind)| (format!("{}{name}", self.folder), self.read(&name), kind)).collect()
    }

    /// All messages of a failover, which begins in this state. None for the state after it.
    fn messages(&self) -> Vec<Vec<u8>> {
        if self.name.contains("failed-over") {
            return Vec::new();
        }
        let files = MESSAGES.iter().flat_map(|name| [format!("{name}.resp2"), format!("{name}.resp3")]);
        let sent = files.map(|name| self.read(&name));
        sent.flat_map(|sent| frames(&sent).into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>()).collect()
    }
}

/// The rewriters that a client's session has: with the group known, and with nothing known, as before the first look-up succeeds.
fn rewritten(state: &State, check: impl Fn(&Rewriter<'_>)) {
    let asked: Endpoint = "sentinel.example:26379".parse().unwrap();
    let local = host("127.0.0.9");
    let known = NodeMap::new(state.topology().nodes.into_iter().zip(7000..));
    for map in [&known, &NodeMap::default()] {
        let sentinel = AtSentinel { master_name: "mymaster", port: 26000, is_settled: true };
        check(&Rewriter::new(map, &local, &asked).at_sentinel(sentinel));
    }
}

#[track_caller]
fn assert_local(name: &str, after: &[u8], ports: &[String]) {
    // INFO says where the process itself listens.
    let is_own = |line: &&str| ["tcp_port:", "listener"].iter().any(|field| line.starts_with(field));
    let after: Vec<String> = utf8(after).lines().filter(|line| !is_own(line)).map(str::to_owned).collect();
    for line in after {
        assert!(!line.contains("localhost") && !line.contains("127.0.0.1"), "{name}: {line}");
        let mut numbers = line.split(|c: char| !c.is_ascii_digit());
        assert!(!numbers.any(|number| ports.iter().any(|port| port == number)), "{name}: {line}");
    }
}

#[test]
fn no_captured_reply_keeps_an_address_of_the_group() {
    for state in State::all() {
        let ports = state.ports();
        assert!(ports.len() >= 5, "{ports:?}");
        for (name, reply, kind) in state.replies() {
            rewritten(&state, |rewriter| {
                let after = rewriter.reply(kind, &reply).unwrap();
                assert_local(&name, &after, &ports);
            });
        }
    }
}

#[test]
fn no_captured_message_keeps_an_address_of_the_group() {
    let mut messages = 0;
    for state in State::all() {
        let ports = state.ports();
        for message in state.messages() {
            rewritten(&state, |rewriter| {
                assert_local(&state.folder, &rewriter.published(&message).unwrap(), &ports);
            });
            messages += 1;
        }
    }
    assert!(messages > 500, "{messages}");
}

#[test]
fn only_addresses_change_in_captured_replies() {
    for state in State::all() {
        let known = NodeMap::new(state.topology().nodes.into_iter().zip(7000..));
        let (local, asked) = (host("127.0.0.9"), "sentinel.example:26379".parse().unwrap());
        let sentinel = AtSentinel { master_name: "mymaster", port: 26000, is_settled: false };
        let rewriter = Rewriter::new(&known, &local, &asked).at_sentinel(sentinel);
        let ports = state.ports();
        let names_group = |text: &str| {
            text.contains("127.0.0.1") || text.contains("localhost") || ports.iter().any(|port| port == text)
        };
        for (name, reply, kind) in state.replies() {
            let after = rewriter.reply(kind, &reply).unwrap_or_else(|error| panic!("{name}: {error}"));
            let (before, after) = (Value::parse(&reply).unwrap(), Value::parse(&after).unwrap());
            for (before, after) in differences(&before, &after) {
                let has_port = ports.iter().any(|port| before.contains(port.as_str()));
                assert!(names_group(&before) || has_port, "{name}: {before} became {after}");
            }
        }
    }
}
