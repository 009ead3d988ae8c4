//! Rewrites `INFO`, a text of lines, and `ROLE`, a list: a replica names its primary in them, and a primary its replicas.
//!
//! Nodes may replicate over other addresses than those that clients use. A node that is not found gets port 0, and the reply stays useful.

use super::rewriter::{RewriteError, Rewriter};
use super::splice::Splice;
use crate::cluster::election;
use crate::resp::command_table::AddressReply;
use crate::resp::value::Value;

const ROLE_SHAPE: RewriteError =
    RewriteError::Shape { reply: AddressReply::Role, expected: "a role and the addresses of nodes" };

impl Rewriter<'_> {
    /// Source: [INFO](https://valkey.io/commands/info/), section `replication`.
    pub(super) fn info(&self, reply: &Value<'_>, splice: &mut Splice<'_>) -> Result<(), RewriteError> {
        let shape = RewriteError::Shape { reply: AddressReply::Info, expected: "a text" };
        let text = reply.text().ok_or(shape)?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let primary = field("master_host:").map(|host| {
            let port = field("master_port:").and_then(|port| port.parse().ok());
            self.replicating(host, port.unwrap_or_default())
        });
        let rewritten: Vec<String> = text
            .split('\n')
            .map(|line| {
                let (line, end) = line.strip_suffix('\r').map_or((line, ""), |line| (line, "\r"));
                let line = match (line.split_once(':'), primary) {
                    (Some(("master_host", _)), _) => format!("master_host:{}", self.local_host),
                    (Some(("master_port", _)), Some(port)) => format!("master_port:{port}"),
                    (Some((name, replica)), _) if replica.starts_with("ip=") => {
                        format!("{name}:{}", self.replica(replica))
                    }
                    (Some((name, group)), _) if group.contains(",address=") => {
                        format!("{name}:{}", self.watched(group))
                    }
                    _ => line.to_owned(),
                };
                line + end
            })
            .collect();
        let rewritten = rewritten.join("\n");
        if rewritten != text {
            splice.text(reply, &rewritten);
        }
        Ok(())
    }

    /// Rewrites the fields of a replica: `ip=…,port=…,state=online,…`.
    fn replica(&self, fields: &str) -> String {
        let field = |name: &str| fields.split(',').find_map(|field| field.strip_prefix(name));
        let port = field("port=").and_then(|port| port.parse().ok()).unwrap_or_default();
        let local = self.replicating(field("ip=").unwrap_or_default(), port);
        let rewritten: Vec<String> = fields
            .split(',')
            .map(|field| match field.split_once('=') {
                Some(("ip", _)) => format!("ip={}", self.local_host),
                Some(("port", _)) => format!("port={local}"),
                _ => field.to_owned(),
            })
            .collect();
        rewritten.join(",")
    }

    /// Rewrites what a sentinel says of a group: `name=mymaster,status=ok,address=10.0.0.1:6379,…`.
    fn watched(&self, fields: &str) -> String {
        let rewritten = fields.split(',').map(|field| match field.strip_prefix("address=") {
            Some(address) => {
                let (host, port) = address.rsplit_once(':').unwrap_or_default();
                let local = self.replicating(host, port.parse().unwrap_or_default());
                format!("address={}:{local}", self.local_host)
            }
            None => field.to_owned(),
        });
        rewritten.collect::<Vec<_>>().join(",")
    }

    /// Source: [ROLE](https://valkey.io/commands/role/). A sentinel lists only names of groups.
    pub(super) fn role(&self, reply: &Value<'_>, splice: &mut Splice<'_>) -> Result<(), RewriteError> {
        match reply.list().ok_or(ROLE_SHAPE)? {
            [kind, _] if kind.text() == Some("sentinel") => Ok(()),
            [_, _, replicas] => {
                for replica in replicas.list().ok_or(ROLE_SHAPE)? {
                    let Some([host, port, ..]) = replica.list() else { return Err(ROLE_SHAPE) };
                    self.role_node(host, port, splice)?;
                }
                Ok(())
            }
            [_, host, port, ..] => self.role_node(host, port, splice),
            _ => Err(ROLE_SHAPE),
        }
    }

    fn role_node(
        &self,
        host: &Value<'_>,
        port: &Value<'_>,
        splice: &mut Splice<'_>,
    ) -> Result<(), RewriteError> {
        let number = election::port(port).ok_or(ROLE_SHAPE)?;
        let local = self.replicating(host.text().ok_or(ROLE_SHAPE)?, number);
        splice.text(host, &self.local_host);
        splice.port(port, local);
        Ok(())
    }

    /// Returns the local port of a node that another one replicates from or to. The port is 0 for an unknown node.
    fn replicating(&self, host: &str, port: u16) -> u16 {
        self.nodes.named(host, port, self.asked).map_or(0, |local| local.port)
    }
}
