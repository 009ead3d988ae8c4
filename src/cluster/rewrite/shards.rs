//! Rewrites `CLUSTER SHARDS`: shards as maps with a list `nodes`, each node a map. Source: [CLUSTER
//! SHARDS](https://valkey.io/commands/cluster-shards/).

use super::rewriter::{Named, RewriteError, Rewriter};
use super::splice::Splice;
use crate::resp::command_table::AddressReply;
use crate::resp::value::Value;

const fn shape(expected: &'static str) -> RewriteError {
    RewriteError::Shape { reply: AddressReply::Shards, expected }
}

impl Rewriter<'_> {
    pub(super) fn shards(&self, reply: &Value<'_>, splice: &mut Splice<'_>) -> Result<(), RewriteError> {
        for shard in reply.list().ok_or(shape("a list of shards"))? {
            let fields = shard.pairs().ok_or(shape("a shard as a map"))?;
            let mut nodes = fields.filter(|(key, _)| key.text() == Some("nodes")).peekable();
            if nodes.peek().is_none() {
                return Err(shape("a shard with its nodes"));
            }
            for (_, nodes) in nodes {
                for node in nodes.list().ok_or(shape("a list of nodes"))? {
                    self.shards_node(node, splice)?;
                }
            }
        }
        Ok(())
    }

    fn shards_node(&self, node: &Value<'_>, splice: &mut Splice<'_>) -> Result<(), RewriteError> {
        let fields = node.pairs().ok_or(shape("a node as a map"))?;
        let port = |value: &Value<'_>| {
            value.number().and_then(|port| u16::try_from(port).ok()).ok_or(shape("a port as a number"))
        };
        let mut named = Named::default();
        let mut has_plain_port = false;
        for (key, value) in fields.clone() {
            match key.text() {
                Some("id") => named.id = value.text(),
                // The host that clients should dial identifies the node best.
                Some("endpoint") => named.hosts.insert(0, value.text().unwrap_or("")),
                Some("ip" | "hostname") => named.hosts.extend(value.text()),
                Some("port") => {
                    has_plain_port = true;
                    named.ports.push(port(value)?);
                }
                Some("tls-port") => named.ports.insert(0, port(value)?),
                Some("health") => named.is_out = value.text() == Some("fail"),
                _ => {}
            }
        }
        let local = self.port(&named)?;
        for (key, value) in fields {
            match key.text() {
                Some("ip" | "endpoint") => splice.text(value, &self.local_host),
                Some("hostname") if !value.is_empty() => splice.text(value, &self.local_host),
                Some("port") => splice.number(value, local),
                Some("tls-port") => {
                    // A plaintext client looks only for `port`.
                    if !has_plain_port {
                        splice.text(key, "port");
                    }
                    splice.number(value, local);
                }
                _ => {}
            }
        }
        Ok(())
    }
}
