//! The validated configuration: what `run` and `check` obey. Immutable once built.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::{listener, session, telemetry, upstream};

/// Everything that `run` needs to know, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// One per `[[route]]`; never empty, names unique.
    pub routes: Vec<Route>,
    /// Where the admin server listens; `None`: `off`.
    pub admin: Option<SocketAddr>,
    /// Logging.
    pub log: telemetry::Settings,
    /// Event-loop threads.
    pub workers: NonZeroUsize,
    /// How long sessions may take to end after SIGTERM.
    pub drain_timeout: Duration,
}

/// One route: listeners in front, an upstream behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Label of metrics and logs. Default: the first upstream's host.
    pub name: String,
    /// The client side.
    pub listener: listener::Settings,
    /// The server side.
    pub upstream: upstream::Settings,
    /// The relay between them.
    pub session: session::Settings,
}
