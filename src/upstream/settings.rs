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
    /// One deadline for resolving, connecting, the TLS handshake and the greeting.
    pub connect_timeout: Duration,
    /// The limit on handshakes in flight to one endpoint.
    pub handshakes: usize,
    /// The name that the greeting sets by `CLIENT SETNAME`.
    pub client_name: Option<String>,
    /// The credentials to present; `None` if clients authenticate themselves.
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
