//! A cluster's nodes, and the replies that name them.
//!
//! A cluster-aware client connects where replies send it, and a plaintext client must not be sent to a node's TLS port. So [`Topology`]
//! reads which nodes there are, [`NodeMap`] says which local port leads to each, and [`Rewriter`] puts local addresses into replies and
//! changes nothing else. [`Nodes`] holds what all sessions of a route share. `app` asks nodes, listens for their clients and refreshes.

mod line;
mod map;
mod node;
mod nodes;
mod ports;
mod rewrite;
mod settings;
mod slots_reply;
mod topology;

pub use self::map::{LocalNode, NodeMap};
pub use self::node::{Flags, Node, Role};
pub use self::nodes::{Nodes, Upstreams};
pub use self::ports::{InvalidPortRange, NoPort, PortRange, Ports, node_addresses};
pub use self::rewrite::{RewriteError, Rewriter, may_redirect};
pub use self::settings::Settings;
pub use self::topology::{Topology, TopologyError};

#[cfg(test)]
mod tests;
