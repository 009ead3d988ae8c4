//! How many file descriptors the clients of all routes may take. What they leave free is for upstream connections that are dialled,
//! the admin server and files.

use std::sync::{Arc, OnceLock};

use procfs::process::Process;
use rustix::process::{Resource, getrlimit};
use tokio::sync::Semaphore;

/// Descriptors beside those of clients and their upstream connections: admin connections, dials under way, files.
pub const OTHER_DESCRIPTORS: usize = 64;

/// A client takes one for itself, and one for its upstream connection. Of clients that share connections any may come to need its own.
pub const DESCRIPTORS_OF_A_CLIENT: u32 = 2;

/// The descriptors of all clients. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct DescriptorBudget(Arc<OnceLock<Permits>>);

#[derive(Debug)]
pub(super) struct Permits {
    /// One for each descriptor that a client and its upstream connection take.
    pub(super) clients: Arc<Semaphore>,
    /// One for each client that is refused for want of descriptors: it keeps its own until it has read the error.
    pub(super) refusals: Arc<Semaphore>,
}

impl DescriptorBudget {
    /// Counted at the first call, for the first client: listeners and threads have theirs by then.
    pub(super) fn permits(&self) -> &Permits {
        self.0.get_or_init(|| {
            let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
            let open = Process::myself().and_then(|process| process.fd_count()).unwrap_or(0);
            Permits::of(usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(open))
        })
    }
}

impl Permits {
    fn of(free: usize) -> Self {
        // Where few are free, half of them are still for clients.
        let others = OTHER_DESCRIPTORS.min(free / 2);
        // One client can always come.
        let clients = (free - others).clamp(2, Semaphore::MAX_PERMITS);
        Self {
            clients: Arc::new(Semaphore::new(clients)),
            refusals: Arc::new(Semaphore::new((others / 2).max(1))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_can_come_and_some_descriptors_stay_free_whatever_the_limit_is() {
        for (free, clients, refusals) in [(0, 2, 1), (40, 20, 10), (1000, 936, 32)] {
            let permits = Permits::of(free);
            assert_eq!(permits.clients.available_permits(), clients, "{free}");
            assert_eq!(permits.refusals.available_permits(), refusals, "{free}");
        }
        assert_eq!(Permits::of(usize::MAX).clients.available_permits(), Semaphore::MAX_PERMITS);
    }
}
