//! The settings of a route's sessions.

use std::time::Duration;

use super::guard::ClientAuth;
use super::shared::Settings as Sharing;

/// The settings of a route's sessions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// End a session after this time without traffic. `None`: never.
    pub idle_timeout: Option<Duration>,
    /// What happens to a session in plaintext once its upstream accepts TLS.
    pub upgrade: Upgrade,
    /// What clients may send.
    pub accept: Accept,
    /// What clients get while their server is unreachable, and when it is lost.
    pub errors: OutageErrors,
    /// What happens to a client's own AUTH.
    pub client_auth: ClientAuth,
    /// Log commands whose replies take longer. `None`: log none.
    pub slow: Option<Duration>,
    /// How clients share upstream connections. `None`: each client has a dedicated one.
    pub sharing: Option<Sharing>,
}

/// What clients may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accept {
    /// Redis' protocol in plaintext.
    #[default]
    Plaintext,
    /// Redis' protocol in plaintext, or TLS, which is passed through. The first byte decides.
    Any,
}

/// What clients get while their server is unreachable, and when it is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutageErrors {
    /// An error reply if client libraries treat it as a lost connection, otherwise a closed connection.
    #[default]
    Auto,
    /// An error reply wherever one can be placed.
    Reply,
    /// A closed connection.
    Close,
}

/// What happens to a session in plaintext once its upstream accepts TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Upgrade {
    /// It stays in plaintext until it ends.
    #[default]
    Keep,
    /// It moves to TLS between two commands, unless it has left state on its connection.
    Drain,
}
