//! Decides which replies are rewritten, and which local port replaces a node's address.

use super::sentinel::AtSentinel;
use super::splice::Splice;
use crate::cluster::map::NodeMap;
use crate::endpoint::{Endpoint, Host};
use crate::resp::command_table::AddressReply;
use crate::resp::value::{Data, Unreadable, Value};

/// Why a reply was not rewritten. It must not reach the client unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// The reply names a node that is not in the map: refresh the nodes, open a listener, and try again.
    #[error("{0} is not a known node")]
    UnknownNode(String),
    /// The reply has an unexpected form.
    #[error("the reply to {} has an unexpected form: expected {expected}", name(*.reply))]
    Shape {
        /// The kind of reply.
        reply: AddressReply,
        /// What was expected.
        expected: &'static str,
    },
    /// The reply to a transaction does not have one entry for each request.
    #[error("the reply to EXEC does not have one entry for each request")]
    Transaction,
    /// The reply is not valid RESP.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

fn name(reply: AddressReply) -> &'static str {
    match reply {
        AddressReply::Slots => "CLUSTER SLOTS",
        AddressReply::Shards => "CLUSTER SHARDS",
        AddressReply::Nodes => "CLUSTER NODES",
        AddressReply::Replicas => "CLUSTER REPLICAS",
        AddressReply::Info => "INFO",
        AddressReply::Role => "ROLE",
        AddressReply::SentinelAddress | AddressReply::PrimaryAddress => "SENTINEL GET-MASTER-ADDR-BY-NAME",
        AddressReply::SentinelServers => "SENTINEL",
        AddressReply::SentinelInfo => "SENTINEL INFO-CACHE",
    }
}

/// Rewrites replies of one node to one client.
#[derive(Debug, Clone)]
pub struct Rewriter<'a> {
    pub(super) nodes: &'a NodeMap,
    pub(super) local_host: String,
    pub(super) asked: &'a Endpoint,
    /// Set for replies of a sentinel.
    pub(super) at_sentinel: Option<AtSentinel<'a>>,
}

/// What a reply says about a node that helps to find it.
#[derive(Default)]
pub(super) struct Named<'a> {
    pub(super) id: Option<&'a str>,
    /// The hosts that the reply gives for it. They may be empty or `?`.
    pub(super) hosts: Vec<&'a str>,
    /// Its ports: with TLS and without, if the reply gives both.
    pub(super) ports: Vec<u16>,
    /// The reply says that clients should not go there.
    pub(super) is_out: bool,
}

impl<'a> Rewriter<'a> {
    /// Rewrites for a client that reaches pontoon at `local_host`, and replies of the node at `asked`.
    pub fn new(nodes: &'a NodeMap, local_host: &Host, asked: &'a Endpoint) -> Self {
        let local_host = match local_host {
            Host::Name(name) => name.clone(),
            // A dual-stack socket reports `::ffff:127.0.0.1` for a client that knows 127.0.0.1. Replies print IPv6 without brackets.
            Host::Ip(ip) => ip.to_canonical().to_string(),
        };
        Self { nodes, local_host, asked, at_sentinel: None }
    }

    /// Rewrites replies of a sentinel.
    #[must_use]
    pub fn at_sentinel(self, sentinel: AtSentinel<'a>) -> Self {
        Self { at_sentinel: Some(sentinel), ..self }
    }

    /// Rewrites the reply to a request for addresses. A status (`+QUEUED`) and a null contain no node. An error is rewritten as for any
    /// other request.
    pub fn reply(&self, kind: AddressReply, reply: &[u8]) -> Result<Vec<u8>, RewriteError> {
        let value = Value::parse(reply)?;
        let mut splice = Splice::new(reply);
        if let Data::Error(_) = value.data {
            self.redirect(&value, &mut splice)?;
        } else {
            self.topology(kind, &value, &mut splice)?;
        }
        Ok(splice.finish())
    }

    /// Rewrites the reply to EXEC. `requests` has one entry for each request of the transaction: the kind of its reply, if that names
    /// nodes.
    pub fn transaction(
        &self,
        requests: &[Option<AddressReply>],
        reply: &[u8],
    ) -> Result<Vec<u8>, RewriteError> {
        let value = Value::parse(reply)?;
        let mut splice = Splice::new(reply);
        match &value.data {
            Data::Error(_) => self.redirect(&value, &mut splice)?,
            // A watched key was changed.
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

    /// Rewrites the reply to any request if it is a redirect: `MOVED` or `ASK`. All others are unchanged.
    pub fn error(&self, reply: &[u8]) -> Result<Vec<u8>, RewriteError> {
        let value = Value::parse(reply)?;
        let mut splice = Splice::new(reply);
        self.redirect(&value, &mut splice)?;
        Ok(splice.finish())
    }

    /// Rewrites a message that a sentinel published. Other frames are unchanged.
    pub fn published(&self, frame: &[u8]) -> Result<Vec<u8>, RewriteError> {
        // A push is a list with another first byte.
        let mut as_list = frame.to_vec();
        if let Some(first) = as_list.first_mut().filter(|first| **first == b'>') {
            *first = b'*';
        }
        let mut splice = Splice::new(frame);
        self.message(&Value::parse(&as_list)?, &mut splice)?;
        Ok(splice.finish())
    }

    fn topology(
        &self,
        kind: AddressReply,
        value: &Value<'_>,
        splice: &mut Splice<'_>,
    ) -> Result<(), RewriteError> {
        if matches!(value.data, Data::Error(_) | Data::Null) || splice.is_status(value) {
            return Ok(());
        }
        match kind {
            AddressReply::Slots => self.slots(value, splice),
            AddressReply::Shards => self.shards(value, splice),
            AddressReply::Nodes | AddressReply::Replicas => self.nodes(kind, value, splice),
            AddressReply::Info => self.info(value, splice),
            AddressReply::Role => self.role(value, splice),
            AddressReply::SentinelAddress => self.sentinel_address(false, value, splice),
            AddressReply::PrimaryAddress => self.sentinel_address(true, value, splice),
            AddressReply::SentinelServers => self.sentinel_servers(value, splice),
            AddressReply::SentinelInfo => self.sentinel_info(value, splice),
        }
    }

    /// Returns the local port of a node. The port is 0 for an unknown node that clients should not use: nothing listens there, and the
    /// node's own address is not revealed.
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
