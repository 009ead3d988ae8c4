//! Which endpoints have spoken TLS, in this run or, by the state file, an earlier one: none of them is spoken to in plaintext
//! where `tls.mode` is `preferred`, whatever was changed in between.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::{error, warn};

use crate::endpoint::Endpoint;
use crate::state::{ServersMemory, StateFile};
use crate::upstream::Upstream;

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct LatchMemory {
    /// `None`: there is no file, or none that makes sense.
    pub(super) state: Option<Arc<StateFile>>,
    /// The file makes no sense: everything is taken to have spoken TLS.
    damaged: bool,
    spoke: Arc<Mutex<HashSet<String>>>,
}

impl LatchMemory {
    /// Takes up what a state file says. Without a file that makes sense, what has spoken TLS is not known, so everything has.
    pub(super) fn open(path: Option<&Path>) -> Self {
        let state = path.map(StateFile::open).transpose();
        if let Err(error) = &state {
            error!(
                "{error}: where tls.mode is \"preferred\", TLS is required. Repair the file, or remove it to begin anew"
            );
        }
        Self { damaged: state.is_err(), state: state.ok().flatten().map(Arc::new), spoke: Arc::default() }
    }

    /// Has `upstream` speak TLS alone, if one of its endpoints has spoken it.
    pub(super) fn close(&self, upstream: &Upstream, endpoints: &[Endpoint]) {
        let spoke = self.spoke.lock();
        let spoken = |endpoint: &Endpoint| {
            self.damaged
                || spoke.contains(&key(endpoint))
                || self.state.as_ref().is_some_and(|state| state.speaks_tls(endpoint))
        };
        if let Some(latch) = upstream.latch()
            && endpoints.iter().any(spoken)
        {
            latch.set();
        }
    }

    /// `endpoint` has spoken TLS.
    pub(super) fn note(&self, endpoint: &Endpoint) {
        self.spoke.lock().insert(key(endpoint));
    }

    /// As [`note`](Self::note), and for runs to come.
    pub(super) fn keep(&self, route: &str, endpoint: &Endpoint) {
        self.note(endpoint);
        let Some(state) = &self.state else { return };
        if let Err(error) = state.note_tls(endpoint) {
            warn!(
                route,
                "the state file cannot be written, a restart will not remember that {endpoint} speaks TLS: {error}"
            );
        }
    }

    /// What an earlier run knew of these servers.
    pub(super) fn servers(&self, servers: &str) -> ServersMemory {
        self.state.as_ref().and_then(|state| state.servers(servers)).unwrap_or_default()
    }
}

/// Whatever the case of a name, it is the same place.
fn key(endpoint: &Endpoint) -> String {
    endpoint.to_string().to_ascii_lowercase()
}
