//! Replies of a cluster's nodes to one client: those that name nodes are held until they are whole, and get local addresses.
//!
//! A reply is rewritten because its request asked for addresses, or because it is an error: a value that looks like a
//! redirect is a value. How a reply is rewritten is `cluster`'s work.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tracing::debug;

use super::unanswerable::Unanswerable;
use crate::cluster::{Nodes, RewriteError, Rewriter};
use crate::endpoint::{Endpoint, Host};
use crate::resp::command_table::{ClusterReply, Transaction};
use crate::resp::replies;
use crate::resp::request::Request;

/// A longer reply is not held. That of a cluster of 500 nodes has some 100 KiB.
const LONGEST: usize = 64 * 1024 * 1024;

/// More requests for addresses than this are not asked in one pipeline.
const MOST: usize = 4096;

pub(super) struct Rewriting {
    nodes: Arc<Nodes>,
    /// What this client is told.
    local_host: Host,
    /// The node at the other end.
    asked: Arc<Endpoint>,
    /// Requests without a reply yet that ask for addresses, each with its number.
    due: VecDeque<(u64, Due)>,
    /// Since MULTI.
    transaction: Option<Queued>,
    /// The reply that is being held, and what it answers.
    held: Vec<u8>,
    holds: Option<Due>,
    /// The held reply names a node that is being looked up.
    lookup: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// What came after it.
    after: Vec<u8>,
}

/// What a reply must be rewritten for.
#[derive(Debug, Clone)]
enum Due {
    Topology(ClusterReply),
    Transaction(Queued),
    /// It is an error: it may be a redirect.
    Error,
}

/// What a transaction will be answered by.
#[derive(Debug, Clone, Default)]
struct Queued {
    commands: usize,
    /// Those that ask for addresses, by their place.
    topology: Vec<(usize, ClusterReply)>,
}

/// What became of a held reply.
pub(super) enum Rewritten {
    /// For the client.
    Reply {
        /// In its place.
        bytes: Vec<u8>,
        /// As a metric label.
        kind: &'static str,
    },
    /// It names a node that is not known: [`poll_lookup`](Rewriting::poll_lookup) tells when to try again.
    Unknown,
}

impl Rewriting {
    pub(super) fn new(nodes: Arc<Nodes>, local_host: Host, asked: Arc<Endpoint>) -> Self {
        Self {
            nodes,
            local_host,
            asked,
            due: VecDeque::new(),
            transaction: None,
            held: Vec::new(),
            holds: None,
            lookup: None,
            after: Vec::new(),
        }
    }

    /// The connection leads there from now on.
    pub(super) fn asks(&mut self, asked: Arc<Endpoint>) {
        self.asked = asked;
    }

    /// A request was booked. `number`: its own; `None`: replies are not counted any more.
    pub(super) fn request(&mut self, request: Request, number: Option<u64>) -> Result<(), Unanswerable> {
        if number.is_none() && !self.due.is_empty() {
            return Err(Unanswerable::Unmatched);
        }
        match request {
            Request::Cluster(kind) => {
                if let Some(queued) = &mut self.transaction {
                    queued.topology.push((queued.commands, kind));
                    queued.commands += 1;
                }
                // Even then: MULTI may have been refused.
                self.expect(number, Due::Topology(kind))?;
            }
            Request::Unknown => return Err(Unanswerable::Quoted),
            Request::Transaction(Transaction::Begins) => {
                self.transaction.get_or_insert_default();
            }
            Request::Transaction(Transaction::Executes) => {
                if let Some(queued) = self.transaction.take().filter(|queued| !queued.topology.is_empty()) {
                    self.expect(number, Due::Transaction(queued))?;
                }
            }
            Request::Transaction(Transaction::Ends) | Request::Reset => self.transaction = None,
            Request::Transaction(Transaction::Watches) => {}
            _ => {
                if let Some(queued) = &mut self.transaction {
                    queued.commands += 1;
                }
            }
        }
        Ok(())
    }

    fn expect(&mut self, number: Option<u64>, due: Due) -> Result<(), Unanswerable> {
        let number = number.ok_or(Unanswerable::Unmatched)?;
        if self.due.len() == MOST {
            return Err(Unanswerable::TooMany(MOST));
        }
        self.due.push_back((number, due));
        Ok(())
    }

    /// A frame begins with this byte. `number`: of the request that it answers, if it is no push.
    #[inline]
    pub(super) fn begins(&mut self, first: u8, number: u64) {
        if first == b'>' {
            return;
        }
        self.holds = match self.due.front() {
            Some((due, _)) if *due == number => self.due.pop_front().map(|(_, due)| due),
            // An attribute says something of what follows, which may be an error.
            _ => matches!(first, b'-' | b'!' | b'|').then_some(Due::Error),
        };
    }

    /// Whether the frame is held.
    #[inline]
    pub(super) fn holds(&self) -> bool {
        self.holds.is_some()
    }

    pub(super) fn hold(&mut self, bytes: &[u8]) -> Result<(), Unanswerable> {
        if self.held.len() + bytes.len() > LONGEST {
            return Err(Unanswerable::TooLong);
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    /// The held frame is whole.
    pub(super) fn rewrite(&mut self) -> Rewritten {
        let Some(due) = &self.holds else { return Rewritten::Reply { bytes: Vec::new(), kind: "none" } };
        let map = self.nodes.map();
        let rewriter = Rewriter::new(&map, &self.local_host, &self.asked);
        let (result, kind) = match due {
            Due::Topology(kind) => (rewriter.reply(*kind, &self.held), "topology"),
            Due::Transaction(queued) => {
                let mut requests = vec![None; queued.commands];
                for (place, kind) in &queued.topology {
                    requests[*place] = Some(*kind);
                }
                (rewriter.transaction(&requests, &self.held), "transaction")
            }
            Due::Error => (rewriter.error(&self.held), "redirect"),
        };
        let bytes = match result {
            Ok(bytes) => {
                let redirected = bytes != self.held && matches!(due, Due::Error);
                let kind = if bytes == self.held { "none" } else { kind };
                if redirected {
                    // Slots have moved, and nodes may have.
                    self.nodes.refresh(Some(&self.asked));
                }
                return self.release(bytes, kind);
            }
            Err(RewriteError::UnknownNode(_)) if self.lookup.is_none() => {
                self.lookup = Some(Box::pin(self.nodes.refreshed(&self.asked)));
                return Rewritten::Unknown;
            }
            // Clients try again after this one, and it says what is the matter with the cluster as they see it.
            Err(RewriteError::UnknownNode(node)) => {
                // Its address is not for the client.
                debug!(node, asked = %self.asked, "a reply names a node that has no local port");
                let text = "a node is not known yet, or has no local port: pontoon's log says which";
                replies::error_reply_with("CLUSTERDOWN", text)
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

    /// Whether a held reply waits for a node to be looked up.
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

    /// Keeps what came after a reply that waits.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.after.extend_from_slice(bytes);
    }

    /// What came after a reply that waited.
    pub(super) fn take_kept(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.after)
    }

    /// Addresses were asked for, and the reply is not there.
    pub(super) fn is_owed(&self) -> bool {
        !self.due.is_empty()
            || self.holds.is_some()
            || self.transaction.as_ref().is_some_and(|queued| !queued.topology.is_empty())
    }

    /// Nothing is held, and no addresses are asked for.
    pub(super) fn is_at_rest(&self) -> bool {
        self.holds.is_none() && self.due.is_empty() && self.transaction.is_none()
    }
}
