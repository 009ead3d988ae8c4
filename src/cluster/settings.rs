//! How a route to a cluster is configured.

use std::time::Duration;

use super::ports::PortRange;
use crate::endpoint::Host;

/// How a route to a cluster is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Local ports for nodes; `None`: the system chooses.
    pub ports: Option<PortRange>,
    /// Nodes that get a local port, at most.
    pub max_nodes: usize,
    /// The host that clients are told; `None`: the address that they connected to.
    pub advertise: Option<Host>,
    /// How often nodes are looked up where nothing calls for it.
    pub refresh: Duration,
}

impl Settings {
    /// Number of nodes, `cluster.max_nodes` where it is not configured: as many as Redis' documentation recommends at most.
    pub const MAX_NODES: usize = 1000;

    /// `cluster.refresh` where it is not configured.
    pub const REFRESH: Duration = Duration::from_secs(60);
}
