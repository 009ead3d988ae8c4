//! Reads replies from files, and compares replies before and after rewriting.

use std::path::PathBuf;

use crate::cluster::{NodeMap, Topology, node};
use crate::endpoint::Host;
use crate::resp::command_table::{AddressReply, Command};
use crate::resp::scanner::{Event, ReplyScanner};
use crate::resp::value::{Data, Value};

pub(super) fn data(path: &str) -> Vec<u8> {
    file(&format!("tests/data/cluster/{path}"))
}

pub(super) fn file(path: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(super) fn host(text: &str) -> Host {
    node::host(text).unwrap()
}

/// Gives each node a local port, from 7000 on.
pub(super) fn map(topology: &Topology) -> NodeMap {
    NodeMap::new(topology.nodes.iter().cloned().zip(7000..))
}

/// Splits what a server sent into its frames.
pub(super) fn frames(mut sent: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let (length, Event::Frame) = ReplyScanner::default().next(sent) {
        let (frame, after) = sent.split_at(length);
        frames.push(frame);
        sent = after;
    }
    frames
}

pub(super) fn kind(name: &str) -> AddressReply {
    Command::of_words(&[b"CLUSTER", name.as_bytes()]).nodes().unwrap()
}

pub(super) fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// Returns the texts and numbers that differ, word by word in texts of lines. Panics at any other difference.
pub(super) fn differences(before: &Value<'_>, after: &Value<'_>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    compare(before, after, &mut found);
    found
}

fn compare(before: &Value<'_>, after: &Value<'_>, found: &mut Vec<(String, String)>) {
    match (&before.data, &after.data) {
        (Data::List(before), Data::List(after)) | (Data::Map(before), Data::Map(after)) => {
            assert_eq!(before.len(), after.len());
            for (before, after) in before.iter().zip(after) {
                compare(before, after, found);
            }
        }
        (Data::Number(before), Data::Number(after)) if before != after => {
            found.push((before.to_string(), after.to_string()));
        }
        (Data::Null, Data::Text(after)) => found.push((String::new(), utf8(after))),
        (Data::Text(before), Data::Text(after)) | (Data::Error(before), Data::Error(after)) => {
            let (before, after) = (utf8(before), utf8(after));
            let words = |text: &str| text.split([' ', '\n']).map(str::to_owned).collect::<Vec<_>>();
            let (before, after) = (words(&before), words(&after));
            assert_eq!(before.len(), after.len());
            found.extend(before.into_iter().zip(after).filter(|(before, after)| before != after));
        }
        (before, after) => assert_eq!(before, after),
    }
}

pub(super) fn utf8(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).unwrap().to_owned()
}
