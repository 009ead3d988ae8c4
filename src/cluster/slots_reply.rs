//! Reads the nodes in `CLUSTER SLOTS`: `[first, last, primary, replica…]`, each node `[host, port, id, metadata…]`. Source: [CLUSTER
//! SLOTS](https://redis.io/docs/latest/commands/cluster-slots/).

use std::ops::RangeInclusive;

use super::topology::slots;
use crate::resp::value::{Data, Value};

/// A range of slots, and the nodes that serve it.
pub(super) struct Range<'a> {
    pub(super) slots: RangeInclusive<u16>,
    pub(super) primary: SlotsNode<'a>,
    pub(super) replicas: Vec<SlotsNode<'a>>,
}

/// A node of a range.
pub(super) struct SlotsNode<'a> {
    /// What clients should dial. `None`, empty or `?` mean the host that was asked.
    pub(super) host: Option<&'a str>,
    pub(super) port: u16,
    pub(super) id: &'a str,
    pub(super) ip: Option<&'a str>,
    pub(super) hostname: Option<&'a str>,
}

/// Parses a reply; `None` if it does not have the form of CLUSTER SLOTS.
pub(super) fn slots_ranges<'a>(reply: &Value<'a>) -> Option<Vec<Range<'a>>> {
    reply.list()?.iter().map(range).collect()
}

fn range<'a>(entry: &Value<'a>) -> Option<Range<'a>> {
    let [first, last, primary, rest @ ..] = entry.list()? else { return None };
    Some(Range {
        slots: slots(first.number()?, last.number()?)?,
        primary: node(primary)?,
        // An element that is not a list is not a node, but an addition of a newer engine.
        replicas: rest.iter().filter(|value| value.list().is_some()).map(node).collect::<Option<_>>()?,
    })
}

fn node<'a>(value: &Value<'a>) -> Option<SlotsNode<'a>> {
    let [host, port, id, more @ ..] = value.list()? else { return None };
    let metadata = more.first().and_then(Value::pairs);
    let field = |name: &str| {
        let mut pairs = metadata.clone()?;
        pairs.find(|(key, _)| key.text() == Some(name)).and_then(|(_, value)| value.text())
    };
    Some(SlotsNode {
        host: match host.data {
            Data::Null => None,
            _ => Some(host.text()?),
        },
        port: port.number()?.try_into().ok()?,
        id: id.text()?,
        ip: field("ip"),
        hostname: field("hostname"),
    })
}
