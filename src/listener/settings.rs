//! Where a route listens, and for how many clients.

use crate::endpoint::ListenAddr;

/// Where a route listens, and for how many clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Addresses; never empty.
    pub listen: Vec<ListenAddr>,
    /// The limit on clients at once, over all of the route's listeners.
    pub max_clients: usize,
    /// Whether a second process may listen on the same addresses, to take over.
    pub handover: bool,
}

impl Settings {
    /// `limits.max_clients` where it is not configured.
    pub const MAX_CLIENTS: usize = 10_000;
}
