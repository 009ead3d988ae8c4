//! Rewrites `CLUSTER SLOTS`: `[first, last, node…]…`, each node `[host, port, id, metadata…]`.

use super::rewriter::{Named, RewriteError, Rewriter};
use super::splice::Splice;
use crate::resp::command_table::AddressReply;
use crate::resp::value::{Data, Value};

const NODE_SHAPE: RewriteError = shape("a node as [host, port, id, …]");

const fn shape(expected: &'static str) -> RewriteError {
    RewriteError::Shape { reply: AddressReply::Slots, expected }
}

impl Rewriter<'_> {
    pub(super) fn slots(&self, reply: &Value<'_>, splice: &mut Splice<'_>) -> Result<(), RewriteError> {
        for range in reply.list().ok_or(shape("a list of ranges"))? {
            match range.list() {
                Some([first, last, nodes @ ..]) if first.number().is_some() && last.number().is_some() => {
                    // An element that is not a list is not a node, but an addition of a newer engine.
                    for node in nodes.iter().filter(|value| value.list().is_some()) {
                        self.slots_node(node, splice)?;
                    }
                }
                _ => return Err(shape("a range as [first, last, node, …]")),
            }
        }
        Ok(())
    }

    fn slots_node(&self, node: &Value<'_>, splice: &mut Splice<'_>) -> Result<(), RewriteError> {
        let Some([host, port, more @ ..]) = node.list() else { return Err(NODE_SHAPE) };
        let name = match host.data {
            Data::Null => "",
            _ => host.text().ok_or(NODE_SHAPE)?,
        };
        let number = port.number().and_then(|port| u16::try_from(port).ok()).ok_or(NODE_SHAPE)?;
        let id = more.first().and_then(Value::text);
        let local = self.port(&Named { id, hosts: vec![name], ports: vec![number], is_out: false })?;
        splice.text(host, &self.local_host);
        splice.number(port, local);
        // A client may prefer the addresses in the metadata.
        for metadata in more.iter().filter(|value| matches!(value.data, Data::List(_) | Data::Map(_))) {
            for (key, value) in metadata.pairs().ok_or(shape("metadata as pairs"))? {
                if matches!(key.text(), Some("ip" | "hostname")) && !value.is_empty() {
                    splice.text(value, &self.local_host);
                }
            }
        }
        Ok(())
    }
}
