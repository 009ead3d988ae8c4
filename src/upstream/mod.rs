//! Upstream connections: from an endpoint to a greeted connection, or an [`Unreachable`] that says why not.
//!
//! Carrying a client's bytes over one is `session`'s work.

mod connection;
mod dial;
mod error;
mod gate;
mod greeting;
mod race;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub use self::connection::Connection;
use self::dial::Remote;
pub use self::error::{Cause, ConnectError, Stage, Unreachable};
use crate::endpoint::Endpoint;
use crate::metrics::RouteMetrics;
use crate::resp::replies::{self, Answer};
use crate::tls::{self, Tls};

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

/// A route's upstream: its endpoints, and what all of its sessions know of them.
pub struct Upstream {
    remotes: Vec<Remote>,
    connect_timeout: Duration,
    last_reached: Mutex<Option<Instant>>,
}

/// An upstream that clients reached this recently needs no dial of our own.
const RECENT: Duration = Duration::from_secs(30);

impl Upstream {
    /// Prepares the way; nothing is dialled yet. `tls`: `None` for plaintext.
    pub fn new(
        route: &str,
        settings: &Settings,
        tls: Option<&Arc<Tls>>,
        metrics: &Arc<RouteMetrics>,
    ) -> Self {
        let remotes = settings
            .endpoints
            .iter()
            .map(|endpoint| Remote::new(route, endpoint.clone(), settings, tls.cloned(), Arc::clone(metrics)))
            .collect();
        Self { remotes, connect_timeout: settings.connect_timeout, last_reached: Mutex::default() }
    }

    /// A greeted connection to the first endpoint that can be reached before the deadline.
    pub async fn connect(&self) -> Result<Connection, Unreachable> {
        let deadline = Instant::now() + self.connect_timeout;
        let mut attempts = Vec::new();
        let order = self.order();
        for (i, remote) in order.iter().enumerate() {
            match remote.connect(share(deadline, order.len() - i)).await {
                Ok(connection) => {
                    self.note_reached();
                    return Ok(connection);
                }
                Err(error) => attempts.push(error),
            }
        }
        Err(Unreachable { attempts })
    }

    /// Finds out off the clients' path whether the upstream can be reached: dials the endpoints that failed last,
    /// and where no client has shown it lately, the first that did not.
    pub async fn look_after(&self) -> bool {
        let mut reached = self.reached_recently();
        for remote in &self.remotes {
            let dial = remote.is_failing() || !reached;
            if dial && remote.connect(Instant::now() + self.connect_timeout).await.is_ok() {
                self.note_reached();
                reached = true;
            }
        }
        reached
    }

    fn note_reached(&self) {
        *self.last_reached.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn reached_recently(&self) -> bool {
        let last = *self.last_reached.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|at| at.elapsed() < RECENT) && !self.remotes.iter().all(Remote::is_failing)
    }

    /// Endpoints as configured, but those that failed last come last: a client does not wait for what
    /// [`look_after`](Self::look_after) finds out, unless nothing else is left.
    fn order(&self) -> Vec<&Remote> {
        let mut order: Vec<&Remote> = self.remotes.iter().collect();
        order.sort_by_key(|remote| remote.retry_at());
        order
    }
}

/// Asks one thing of an upstream, for a check.
pub async fn ask(connection: &mut Connection, command: &[&str]) -> Result<Answer, Cause> {
    connection.send(&replies::encode_command(command)).await?;
    greeting::next_answer(connection).await?.ok_or(Cause::Closed)
}

/// An equal part of the time until `deadline`, for the first of `parts` that must share it.
fn share(deadline: Instant, parts: usize) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / u32::try_from(parts.max(1)).unwrap_or(u32::MAX)
}
