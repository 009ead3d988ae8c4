//! Where and for how many clients a route listens.

use crate::endpoint::ListenAddr;

/// Where and for how many clients a route listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Addresses; never empty.
    pub listen: Vec<ListenAddr>,
    /// Clients at once over all of the route's listeners.
    pub max_clients: usize,
    /// A second process may listen on the same addresses, to take over.
    pub handover: bool,
}

impl Settings {
    /// `limits.max_clients` where it is not configured.
    pub const MAX_CLIENTS: usize = 10_000;
}
