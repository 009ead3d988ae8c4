//! A session pairs one client with one upstream connection and relays between them.

use std::time::Duration;

/// How a route's sessions behave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// End a session that carried nothing for this long; `None`: never.
    pub idle_timeout: Option<Duration>,
}
