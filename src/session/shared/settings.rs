//! How clients share connections.

use std::num::NonZeroUsize;

/// How clients share connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Connections of each thread to each node, for each database and protocol. `None`: one for each of its addresses.
    pub connections: Option<NonZeroUsize>,
    /// Clients with a connection of their own, at most.
    pub pinned: usize,
    /// Bytes that may wait for a client that does not read, where others wait behind it.
    pub client_output: usize,
    /// Bytes that may wait for all clients of the route together.
    pub route_output: usize,
}

impl Settings {
    /// `limits.pinned` where it is not configured.
    pub const PINNED: usize = 1000;
    /// `limits.client_output` where it is not configured.
    pub const CLIENT_OUTPUT: usize = 32 * 1024 * 1024;
    /// `limits.route_output` where it is not configured.
    pub const ROUTE_OUTPUT: usize = 64 * 1024 * 1024;
}
