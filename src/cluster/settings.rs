//! Settings of a route to a cluster or to a Sentinel group.

use std::sync::Arc;
use std::time::Duration;

use super::ports::PortRange;
use crate::endpoint::Host;
use crate::upstream;

/// How a route serves a cluster or a Sentinel group.
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
    /// `None` for a cluster.
    pub sentinel: Option<SentinelGroup>,
}

/// The group of servers that the sentinels of a route watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentinelGroup {
    /// The name that the sentinels know it by.
    pub master_name: Arc<str>,
    /// How its servers are reached. The endpoints are empty, because the sentinels name them.
    pub servers: upstream::Settings,
}

impl Settings {
    /// The key that sets `ports`.
    pub fn ports_key(&self) -> &'static str {
        if self.sentinel.is_some() { "sentinel.ports" } else { "cluster.ports" }
    }

    /// The key that sets `max_nodes`.
    pub fn max_nodes_key(&self) -> &'static str {
        if self.sentinel.is_some() { "sentinel.max_servers" } else { "cluster.max_nodes" }
    }

    /// Default of `cluster.max_nodes`: the largest cluster that Redis' documentation recommends.
    pub const MAX_NODES: usize = 1000;

    /// Default of `cluster.refresh`.
    pub const REFRESH: Duration = Duration::from_secs(60);

    /// Default of `sentinel.refresh`: how often sentinels themselves look for new servers (`SENTINEL_INFO_PERIOD` in `sentinel.c`).
    pub const SENTINEL_REFRESH: Duration = Duration::from_secs(10);
}
