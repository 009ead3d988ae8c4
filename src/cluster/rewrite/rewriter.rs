//! Which replies are rewritten, and which local port takes the place of a node's address.

use super::splice::Splice;
use crate::cluster::map::NodeMap;
use crate::endpoint::{Endpoint, Host};
use crate::resp::command_table::ClusterReply;
use crate::resp::value::{Data, Unreadable, Value};

/// A reply was not rewritten, and must not reach the client as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// It names a node that the map does not hold: learn of it, give it a listener, and try again.
    #[error("{0} is no node that is known")]
    UnknownNode(String),
    /// It has another shape than replies of its kind.
    #[error("the reply to CLUSTER {} has no known shape: expected {expected}", name(*.reply))]
    Shape {
        /// What was asked for.
        reply: ClusterReply,
        /// What should have been there.
        expected: &'static str,
    },
    /// It answers a transaction, with another number of replies than requests.
    #[error("the transaction's reply does not answer its requests one by one")]
    Transaction,
    /// It is no RESP.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

fn name(reply: ClusterReply) -> &'static str {
    match reply {
        ClusterReply::Slots => "SLOTS",
        ClusterReply::Shards => "SHARDS",
        ClusterReply::Nodes => "NODES",
        ClusterReply::Replicas => "REPLICAS",
    }
}

/// Rewrites what one node says to one client.
#[derive(Debug, Clone)]
pub struct Rewriter<'a> {
    pub(super) nodes: &'a NodeMap,
    pub(super) local_host: String,
    pub(super) asked: &'a Endpoint,
}

/// A node in a reply, as far as it helps to find it.
#[derive(Default)]
pub(super) struct Named<'a> {
    pub(super) id: Option<&'a str>,
    /// The hosts by which it is told, which may be empty or `?`.
    pub(super) hosts: Vec<&'a str>,
    /// Its ports: with TLS and without, if both are told.
    pub(super) ports: Vec<u16>,
    /// The reply says that nobody should go there.
    pub(super) is_out: bool,
}

impl<'a> Rewriter<'a> {
    /// For a client that reaches pontoon at `local_host`, of replies from the node at `asked`.
    pub fn new(nodes: &'a NodeMap, local_host: &Host, asked: &'a Endpoint) -> Self {
        let local_host = match local_host {
            Host::Name(name) => name.clone(),
            // A socket of both families tells `::ffff:127.0.0.1`, where the client knows 127.0.0.1. IPv6 stands without
            // brackets, everywhere.
            Host::Ip(ip) => ip.to_canonical().to_string(),
        };
        Self { nodes, local_host, asked }
    }

    /// The reply to a request for addresses, rewritten. A status (`+QUEUED`) and a null name no node. An error is treated
    /// as any other request's.
    pub fn reply(&self, kind: ClusterReply, reply: &[u8]) -> Result<Vec<u8>, RewriteError> {
        let value = Value::parse(reply)?;
        let mut splice = Splice::new(reply);
        if let Data::Error(_) = value.data {
            self.redirect(&value, &mut splice)?;
        } else {
            self.topology(kind, &value, &mut splice)?;
        }
        Ok(splice.finish())
    }

    /// The reply to EXEC, rewritten where the requests of its transaction ask for it: one entry for each.
    pub fn transaction(
        &self,
        requests: &[Option<ClusterReply>],
        reply: &[u8],
    ) -> Result<Vec<u8>, RewriteError> {
        let value = Value::parse(reply)?;
        let mut splice = Splice::new(reply);
        match &value.data {
            Data::Error(_) => self.redirect(&value, &mut splice)?,
            // A watched key has changed.
            Data::Null => {}
            Data::List(replies) if replies.len() == requests.len() => {
                for (request, reply) in requests.iter().zip(replies) {
                    if let Some(kind) = request {
                        self.topology(*kind, reply, &mut splice)?;
                    }
                }
            }
            _ => return Err(RewriteError::Transaction),
        }
        Ok(splice.finish())
    }

    /// The reply to any request, rewritten if it is a redirect: `MOVED` or `ASK`. All others are as they were.
    pub fn error(&self, reply: &[u8]) -> Result<Vec<u8>, RewriteError> {
        let value = Value::parse(reply)?;
        let mut splice = Splice::new(reply);
        self.redirect(&value, &mut splice)?;
        Ok(splice.finish())
    }

    fn topology(
        &self,
        kind: ClusterReply,
        value: &Value<'_>,
        splice: &mut Splice<'_>,
    ) -> Result<(), RewriteError> {
        if matches!(value.data, Data::Error(_) | Data::Null) || splice.is_status(value) {
            return Ok(());
        }
        match kind {
            ClusterReply::Slots => self.slots(value, splice),
            ClusterReply::Shards => self.shards(value, splice),
            ClusterReply::Nodes | ClusterReply::Replicas => self.nodes(kind, value, splice),
        }
    }

    /// The local port of a node. A node that nobody should go to and that is not known has port 0: there is nothing
    /// there, and its own address is not told.
    pub(super) fn port(&self, node: &Named<'_>) -> Result<u16, RewriteError> {
        if let Some(known) = node.id.and_then(|id| self.nodes.by_id(id)) {
            return Ok(known.port);
        }
        let mut addresses =
            node.ports.iter().flat_map(|port| node.hosts.iter().map(move |host| (*host, *port)));
        if let Some(known) = addresses.find_map(|(host, port)| self.nodes.named(host, port, self.asked)) {
            return Ok(known.port);
        }
        if node.is_out {
            return Ok(0);
        }
        let (host, port) = (node.hosts.first().unwrap_or(&""), node.ports.first().unwrap_or(&0));
        Err(RewriteError::UnknownNode(format!("{host}:{port}")))
    }
}
