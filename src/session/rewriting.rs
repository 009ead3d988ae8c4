//! Holds replies of a cluster's nodes that may name nodes until they are whole, and puts local addresses into them, for one client.
//!
//! A reply is rewritten because its request asked for addresses, or because it is an error. A value that looks like a redirect stays as it
//! is, because it is a value. How a reply is rewritten is `cluster`'s work.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tracing::debug;

use super::abort_reason::AbortReason;
use super::ledger::{Ledger, MAX_NODE_REQUESTS, NodeAddresses};
use crate::cluster::{AtSentinel, Nodes, RewriteError, Rewriter, may_redirect};
use crate::endpoint::{Endpoint, Host};
use crate::resp::command_table::AddressReply;
use crate::resp::replies;
use crate::resp::request::Request;
use crate::resp::scanner::RequestScanner;

/// Longer replies are not held. The reply of a cluster of 500 nodes has some 100 KiB. Parsing takes at most twenty times that memory.
const MAX_HELD_REPLY: usize = 4 * 1024 * 1024;

/// An error that is longer, its attributes included, is not a redirect and is passed on unchanged.
pub(super) const MAX_HELD_ERROR: usize = 64 * 1024;

pub(super) struct Rewriting {
    nodes: Arc<Nodes>,
    /// The host that stands for every node in this client's replies.
    local_host: Host,
    /// The node that the connection leads to.
    asked: Arc<Endpoint>,
    /// Set if that is a sentinel.
    sentinel: Option<SentinelSession>,
    /// The reply that is being held.
    held: Vec<u8>,
    holds: Option<Held>,
    /// The lookup of a node that the held reply names.
    lookup: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// The bytes after the held reply.
    after: Vec<u8>,
}

/// A client's connection to a sentinel.
pub(super) struct SentinelSession {
    /// The name of the group.
    pub(super) master_name: Arc<str>,
    /// The local port that stands for every sentinel.
    pub(super) port: u16,
}

/// Why a reply is held.
#[derive(Debug, Clone)]
enum Held {
    /// It answers a request for addresses of nodes.
    Addresses(NodeAddresses),
    /// It is an error, and may be a redirect.
    Error,
    /// It may be a message that a sentinel published.
    Message,
}

/// The result of rewriting a held reply.
pub(super) enum Rewritten {
    /// The reply for the client.
    Reply {
        /// The bytes to send.
        bytes: Vec<u8>,
        /// The kind of rewriting, as a metric label.
        kind: &'static str,
    },
    /// The reply names an unknown node. [`poll_lookup`](Rewriting::poll_lookup) says when to try again.
    Unknown,
}

impl Rewriting {
    pub(super) fn new(
        nodes: Arc<Nodes>,
        local_host: Host,
        asked: Arc<Endpoint>,
        sentinel: Option<SentinelSession>,
    ) -> Self {
        Self {
            nodes,
            local_host,
            asked,
            sentinel,
            held: Vec::new(),
            holds: None,
            lookup: None,
            after: Vec::new(),
        }
    }

    /// Notes that the connection now leads to the node `asked`.
    pub(super) fn asks(&mut self, asked: Arc<Endpoint>) {
        self.asked = asked;
    }

    /// The request that ended last. One for the address of a primary is one for the route's own group if it names that.
    #[inline]
    pub(super) fn request(&self, requests: &RequestScanner) -> Request {
        match (requests.request(), &self.sentinel) {
            (
                Request::Addresses(AddressReply::SentinelAddress),
                Some(SentinelSession { master_name, .. }),
            ) if master_name.as_bytes() == requests.second_argument() => {
                Request::Addresses(AddressReply::PrimaryAddress)
            }
            (request, _) => request,
        }
    }

    /// Why this request must not be sent. `None`: it may be.
    pub(super) fn refuses(request: Request, ledger: &Ledger) -> Option<AbortReason> {
        match request {
            Request::Addresses(reply) if !reply.leads_clients() => None,
            Request::Addresses(_) if ledger.opaque().is_some() => Some(AbortReason::Unmatched),
            Request::Addresses(_) if ledger.is_full_of_node_requests() => {
                Some(AbortReason::TooMany(MAX_NODE_REQUESTS))
            }
            Request::Unknown => Some(AbortReason::Quoted),
            _ => None,
        }
    }

    /// Notes that a frame begins with this byte.
    #[inline]
    pub(super) fn begins(&mut self, first: u8, ledger: &Ledger) {
        let may_be_message = self.sentinel.is_some().then_some(Held::Message);
        if first == b'>' {
            self.holds = may_be_message;
            return;
        }
        self.holds = match ledger.node_addresses() {
            Some(addresses) => Some(Held::Addresses(addresses)),
            None if first == b'*' => may_be_message,
            // An attribute precedes a value, which may be an error.
            None => matches!(first, b'-' | b'!' | b'|').then_some(Held::Error),
        };
    }

    /// Continues with an error that has begun with these bytes.
    pub(super) fn resume_error(&mut self, held: Vec<u8>) {
        (self.holds, self.held) = (Some(Held::Error), held);
    }

    /// Whether the frame is held.
    #[inline]
    pub(super) fn holds(&self) -> bool {
        self.holds.is_some()
    }

    /// Holds these bytes of the frame. `Some`: the frame names no node and is no longer held. These are its bytes so far.
    pub(super) fn hold(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, AbortReason> {
        self.held.extend_from_slice(bytes);
        match self.holds {
            Some(Held::Error) if self.held.len() > MAX_HELD_ERROR => {
                if may_redirect(&self.held) {
                    return Err(AbortReason::ReplyTooLong);
                }
                self.holds = None;
                Ok(Some(std::mem::take(&mut self.held)))
            }
            _ if self.held.len() > MAX_HELD_REPLY => Err(AbortReason::ReplyTooLong),
            _ => Ok(None),
        }
    }

    /// Rewrites the held frame, which is whole.
    pub(super) fn rewrite(&mut self) -> Rewritten {
        let Some(held) = &self.holds else { return Rewritten::Reply { bytes: Vec::new(), kind: "none" } };
        let map = self.nodes.map();
        let mut rewriter = Rewriter::new(&map, &self.local_host, &self.asked);
        if let Some(SentinelSession { master_name, port }) = &self.sentinel {
            let is_settled = self.lookup.is_some();
            rewriter = rewriter.at_sentinel(AtSentinel { master_name, port: *port, is_settled });
        }
        let (result, kind) = match held {
            Held::Addresses(NodeAddresses::Topology(kind)) => (rewriter.reply(*kind, &self.held), "topology"),
            Held::Addresses(NodeAddresses::Transaction(queued)) => {
                let mut requests = vec![None; queued.commands];
                for (place, kind) in &queued.nodes {
                    requests[*place] = Some(*kind);
                }
                (rewriter.transaction(&requests, &self.held), "transaction")
            }
            Held::Error => (rewriter.error(&self.held), "redirect"),
            Held::Message => (rewriter.published(&self.held), "message"),
        };
        let bytes = match result {
            Ok(bytes) => {
                let redirected = bytes != self.held && matches!(held, Held::Error);
                let kind = if bytes == self.held { "none" } else { kind };
                if redirected {
                    // Slots have moved, and nodes may have, too.
                    self.nodes.refresh(Some(&self.asked));
                }
                return self.release(bytes, kind);
            }
            Err(RewriteError::UnknownNode(_)) if self.lookup.is_none() => {
                self.lookup = Some(Box::pin(self.nodes.refreshed(&self.asked)));
                return Rewritten::Unknown;
            }
            // Clients retry after this error, and its code describes the cluster as they see it.
            Err(RewriteError::UnknownNode(node)) => {
                // The log has the node's address. The client must not get it.
                debug!(node, asked = %self.asked, "reply names a node without a local port");
                unknown_node()
            }
            // Only a list that is nested too deep to be a message.
            Err(_) if matches!(held, Held::Message) => {
                let bytes = std::mem::take(&mut self.held);
                return self.release(bytes, "none");
            }
            Err(error) => replies::error_reply(&error.to_string()),
        };
        self.release(bytes, "refused")
    }

    fn release(&mut self, bytes: Vec<u8>, kind: &'static str) -> Rewritten {
        self.held = Vec::new();
        self.holds = None;
        self.lookup = None;
        Rewritten::Reply { bytes, kind }
    }

    /// Whether a held reply waits for a lookup.
    pub(super) fn waits(&self) -> bool {
        self.lookup.is_some()
    }

    /// `Ready`: the held reply can be tried again.
    pub(super) fn poll_lookup(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.lookup {
            Some(lookup) => lookup.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }

    /// Keeps the bytes after a reply that waits.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.after.extend_from_slice(bytes);
    }

    /// Takes the bytes after a reply that waited.
    pub(super) fn take_kept(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.after)
    }
}

/// The error in place of a reply that names a node without a local port. Clients retry after it.
pub(super) fn unknown_node() -> Vec<u8> {
    let text = "a node is not known yet, or has no local port: pontoon's log names it";
    replies::error_reply_with("CLUSTERDOWN", text)
}
