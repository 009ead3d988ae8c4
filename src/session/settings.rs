//! What the configuration says of a route's sessions.

use std::time::Duration;

use super::guard::ClientAuth;
use super::shared::Settings as Sharing;

/// How a route's sessions behave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// End a session that carried nothing for this long; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// What becomes of a session in plaintext when its upstream turns out to speak TLS.
    pub upgrade: Upgrade,
    /// What clients may speak.
    pub accept: Accept,
    /// What clients get while their server cannot be reached, or is lost.
    pub errors: OutageErrors,
    /// What a client's own AUTH gets.
    pub client_auth: ClientAuth,
    /// Commands that wait longer for their reply are logged; `None`: none are.
    pub slow: Option<Duration>,
    /// How clients share upstream connections; `None`: each has its own.
    pub sharing: Option<Sharing>,
}

/// What clients may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accept {
    /// Redis' protocol, in plaintext.
    #[default]
    Plaintext,
    /// That, or TLS, which is passed through: the first byte tells.
    Any,
}

/// What clients get while their server cannot be reached, or is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutageErrors {
    /// An error reply where client libraries take it for a lost connection, else the end of the connection.
    #[default]
    Auto,
    /// An error reply wherever one can be placed.
    Reply,
    /// The end of the connection.
    Close,
}

/// What becomes of a session in plaintext when its upstream turns out to speak TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Upgrade {
    /// It stays as it is to its end.
    #[default]
    Keep,
    /// It is moved to TLS between two commands, unless it has left state with its connection.
    Drain,
}
