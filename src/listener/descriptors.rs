//! Limits the file descriptors that the clients of all routes take. The rest is left for upstream connections that are being dialled, the
//! admin server and files.

use std::sync::{Arc, OnceLock};

use procfs::process::Process;
use rustix::process::{Resource, getrlimit};
use tokio::sync::Semaphore;

/// Descriptors reserved for other uses than clients and their upstream connections: admin connections, dials under way, files.
pub const OTHER_DESCRIPTORS: usize = 64;

/// A client takes one descriptor for itself and one for its upstream connection. With shared connections, too, each client may come to need
/// a dedicated one.
pub const DESCRIPTORS_OF_A_CLIENT: u32 = 2;

/// The descriptors of all clients. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct DescriptorBudget(Arc<OnceLock<Permits>>);

#[derive(Debug)]
pub(super) struct Permits {
    /// A permit for each descriptor that a client or its upstream connection takes.
    pub(super) clients: Arc<Semaphore>,
    /// A permit for each client that is refused for lack of descriptors. It keeps its own until it has read the error.
    pub(super) refusals: Arc<Semaphore>,
}

impl DescriptorBudget {
    /// Counted at the first call, for the first client, when listeners and threads have their descriptors already.
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
        // If few are free, half of them are still for clients.
        let others = OTHER_DESCRIPTORS.min(free / 2);
        // One client is always admitted.
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
    fn one_client_is_admitted_and_descriptors_stay_free_at_any_limit() {
        for (free, clients, refusals) in [(0, 2, 1), (40, 20, 10), (1000, 936, 32)] {
            let permits = Permits::of(free);
            assert_eq!(permits.clients.available_permits(), clients, "{free}");
            assert_eq!(permits.refusals.available_permits(), refusals, "{free}");
        }
        assert_eq!(Permits::of(usize::MAX).clients.available_permits(), Semaphore::MAX_PERMITS);
    }
}
