//! Settings of a route to a cluster.

use std::time::Duration;

use super::ports::PortRange;
use crate::endpoint::Host;

/// How a route serves a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Local ports for nodes; `None` if the system chooses.
    pub ports: Option<PortRange>,
    /// Maximum number of nodes that get a local port.
    pub max_nodes: usize,
    /// The host that replies name; `None` for the address that the client connected to.
    pub advertise: Option<Host>,
    /// Time between two refreshes if nothing requires one earlier.
    pub refresh: Duration,
}

impl Settings {
    /// Default of `cluster.max_nodes`: the largest cluster that Redis' documentation recommends.
    pub const MAX_NODES: usize = 1000;

    /// Default of `cluster.refresh`.
    pub const REFRESH: Duration = Duration::from_secs(60);
}
