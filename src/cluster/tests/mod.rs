//! What clients and operators are promised of rewriting, against replies of real engines and against made-up ones.

mod captured;
mod documented;
mod hostile;
mod made_up;

use std::path::PathBuf;

use super::{NodeMap, RewriteError, Rewriter, Topology};
use crate::endpoint::{Endpoint, Host};
use crate::resp::commands::ClusterReply;
use crate::resp::value::{Data, Value};

fn data(path: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/cluster").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn host(text: &str) -> Host {
    super::node::host(text).unwrap()
}

/// Each node gets a local port, from 7000 on.
fn map(topology: &Topology) -> NodeMap {
    NodeMap::new(topology.nodes.iter().cloned().zip(7000..))
}

fn kind(name: &str) -> ClusterReply {
    ClusterReply::to(b"CLUSTER", name.as_bytes()).unwrap()
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// Texts and numbers that differ, word for word where a text holds lines. Panics where anything else does.
fn differences(before: &Value<'_>, after: &Value<'_>) -> Vec<(String, String)> {
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

fn utf8(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).unwrap().to_owned()
}
