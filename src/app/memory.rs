//! Remembers which endpoints have accepted TLS, in this run or, by the state file, in an earlier one. Where `tls.mode` is `preferred`,
//! plaintext to these endpoints is refused, even after changes of the configuration.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use tracing::{error, warn};

use crate::endpoint::Endpoint;
use crate::state::{ServersMemory, StateError, StateFile};
use crate::upstream::Upstream;

/// The memory of latches. Cheap to clone.
#[derive(Clone)]
pub struct LatchMemory {
    /// The state file; `None` if there is none, or if it is damaged.
    pub(super) state: Option<Arc<StateFile>>,
    /// The state file is damaged, so all endpoints are treated as having accepted TLS.
    damaged: bool,
    spoke: Arc<Mutex<HashSet<String>>>,
}

impl LatchMemory {
    /// Uses the opened state file, if there is one. If it is damaged, it is not known which endpoints accepted TLS, so plaintext to every
    /// endpoint is refused.
    pub fn new(state: Result<Option<StateFile>, StateError>) -> Self {
        if let Err(error) = &state {
            error!(
                %error,
                "state file not used, TLS required where tls.mode is \"preferred\" (repair the file, or remove it to start anew)"
            );
        }
        Self { damaged: state.is_err(), state: state.ok().flatten().map(Arc::new), spoke: Arc::default() }
    }

    /// Whether the state file cannot be used, so that every endpoint counts as one that has accepted TLS.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Sets the latch of `upstream` if one of its endpoints has accepted TLS.
    pub fn close(&self, upstream: &Upstream, endpoints: &[Endpoint]) {
        if let Some(latch) = upstream.latch()
            && self.accepted_tls(endpoints).is_some()
        {
            latch.set();
        }
    }

    /// Returns the first of these endpoints that has accepted TLS.
    pub fn accepted_tls<'a>(&self, endpoints: &'a [Endpoint]) -> Option<&'a Endpoint> {
        let spoke = self.spoke.lock();
        endpoints.iter().find(|endpoint| {
            self.damaged
                || spoke.contains(&key(endpoint))
                || self.state.as_ref().is_some_and(|state| state.speaks_tls(endpoint))
        })
    }

    /// Remembers the endpoints of `upstream` that have accepted TLS under any `tls.mode`: for this run, and in the state file for later ones.
    pub(super) async fn keep(&self, route: &str, upstream: &Upstream) {
        let news = self.news(upstream);
        if !news.is_empty() {
            let (memory, route) = (self.clone(), route.to_owned());
            // The file may be on a network, which must not block an event loop.
            let _ = spawn_blocking(move || memory.write(&route, &news)).await;
        }
    }

    /// Does what [`keep`](Self::keep) does, and blocks the thread while the file is written.
    pub(super) fn keep_at_once(&self, route: &str, upstream: &Upstream) {
        self.write(route, &self.news(upstream));
    }

    /// Returns the endpoints of `upstream` that were not yet known to have accepted TLS, and marks them as known.
    fn news(&self, upstream: &Upstream) -> Vec<Endpoint> {
        let mut spoke = self.spoke.lock();
        upstream.spoke_tls().filter(|endpoint| spoke.insert(key(endpoint))).cloned().collect()
    }

    fn write(&self, route: &str, news: &[Endpoint]) {
        let Some(state) = &self.state else { return };
        let news: Vec<Endpoint> =
            news.iter().filter(|endpoint| !state.speaks_tls(endpoint)).cloned().collect();
        if !news.is_empty()
            && let Err(error) = state.note_tls(&news)
        {
            warn!(
                route,
                upstream = news.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                %error,
                "state file cannot be written, a restart will not remember that the endpoint accepts TLS"
            );
        }
    }

    /// What an earlier run knew about these servers.
    pub(super) fn servers(&self, servers: &str) -> ServersMemory {
        self.state.as_ref().and_then(|state| state.servers(servers)).unwrap_or_default()
    }
}

/// Names that differ only in case are the same endpoint.
fn key(endpoint: &Endpoint) -> String {
    endpoint.to_string().to_ascii_lowercase()
}
