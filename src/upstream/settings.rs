//! How a route reaches its upstream, as configured.

use std::time::Duration;

use super::pool;
use crate::endpoint::Endpoint;
use crate::{credentials, tls};

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
    /// Who we are; `None`: clients say for themselves.
    pub auth: Option<credentials::Settings>,
    /// Which connections are kept ready.
    pub pool: pool::Settings,
    /// How the connection is protected.
    pub tls: tls::Settings,
}

impl Settings {
    /// `limits.connect_timeout` where it is not configured.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// `limits.handshakes` where it is not configured.
    pub const HANDSHAKES: usize = 16;
}
