//! Upstream connections: from an endpoint to a greeted connection, or a [`ConnectError`] that says why not.
//!
//! Carrying bytes over one is `session`'s work.

use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::tls;

/// How a route reaches its upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Tried in order; never empty.
    pub endpoints: Vec<Endpoint>,
    /// One deadline over resolving, connecting, the TLS handshake and the greeting.
    pub connect_timeout: Duration,
    /// Handshakes in flight to one endpoint, at most.
    pub handshakes: usize,
    /// `CLIENT SETNAME` to send in the greeting.
    pub client_name: Option<String>,
    /// How the connection is protected.
    pub tls: tls::Settings,
}

impl Settings {
    /// `limits.connect_timeout` where it is not configured.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// `limits.handshakes` where it is not configured.
    pub const HANDSHAKES: usize = 16;
}
