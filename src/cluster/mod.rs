//! A cluster's nodes, and the replies that name them: what is pure about a bridge to a cluster.
//!
//! A cluster-aware client goes where replies send it, and a plaintext client must not be sent to a node's TLS port. So
//! [`Topology`] reads which nodes there are, [`NodeMap`] says which local port leads to each, and [`Rewriter`] puts local
//! addresses into replies, where nothing else changes. Asking, listening and refreshing are others' work.

mod line;
mod map;
mod node;
mod rewrite;
mod told;
mod topology;

pub use self::map::{LocalNode, NodeMap};
pub use self::node::{Flags, Node, Role};
pub use self::rewrite::{RewriteError, Rewriter};
pub use self::topology::{Topology, TopologyError};

#[cfg(test)]
mod tests;
