//! How clients share connections.

use std::num::NonZeroUsize;

/// How clients share connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Number of connections of each thread to each node, for each sharing key. `None`: one for each address of the node's name.
    pub connections: Option<NonZeroUsize>,
    /// The largest number of pinned clients.
    pub pinned: usize,
    /// The largest number of bytes that may wait for a client that does not read, while other clients wait for it.
    pub client_output: usize,
    /// The largest number of bytes that may wait for all clients of the route together.
    pub route_output: usize,
}

impl Settings {
    /// The default of `limits.pinned`.
    pub const PINNED: usize = 1000;
    /// The default of `limits.client_output`.
    pub const CLIENT_OUTPUT: usize = 32 * 1024 * 1024;
    /// The default of `limits.route_output`.
    pub const ROUTE_OUTPUT: usize = 64 * 1024 * 1024;
}
