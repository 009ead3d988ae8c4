//! The nodes of a cluster or of a Sentinel group, and the replies that name them.
//!
//! A cluster-aware client connects where replies send it, and a plaintext client must not be sent to a node's TLS port. So [`Topology`]
//! reads which nodes there are, [`NodeMap`] says which local port leads to each, and [`Rewriter`] puts local addresses into replies and
//! changes nothing else. [`Election`] finds the servers of a Sentinel group. [`Nodes`] holds what all sessions of a route share. `app` asks nodes, listens for their clients and refreshes.

mod election;
mod line;
mod map;
mod node;
mod nodes;
mod ports;
mod rewrite;
mod settings;
mod slots_reply;
mod topology;

pub use self::election::{AskSentinelError, Claim, Election, SentinelError, SentinelView};
pub use self::map::{LocalNode, NodeMap};
pub use self::node::{Flags, Node, Role};
pub use self::nodes::{Nodes, Upstreams};
pub use self::ports::{InvalidPortRange, NoPort, PortRange, Ports, node_addresses};
pub use self::rewrite::{AtSentinel, RewriteError, Rewriter, may_redirect};
pub use self::settings::{SentinelGroup, Settings};
pub use self::topology::{Topology, TopologyError};

#[cfg(test)]
mod tests;
