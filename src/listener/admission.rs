//! Decides whether a client is accepted: whether the socket admits it, and whether there is room.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::descriptors::{DESCRIPTORS_OF_A_CLIENT, DescriptorBudget};
use crate::downstream::Accepted;
use crate::drain::Drain;
use crate::endpoint::ListenAddr;
use crate::metrics::RouteMetrics;
use crate::resp::replies;
use crate::telemetry::Throttle;

/// The limit on refused clients that receive an error. Beyond it, clients are closed without one.
const REFUSALS: usize = 64;

/// The limits for a route's clients.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// The limit on clients at once: `limits.max_clients`.
    pub max_clients: usize,

    /// Time that a client waits for file descriptors: `limits.connect_timeout`.
    pub patience: Duration,
}

/// Counts the clients of a route over all of its listeners.
#[derive(Debug, Clone)]
pub struct Clients {
    permits: Arc<ClientPermits>,
    refusals: Arc<Semaphore>,
    descriptors: DescriptorBudget,
    terms: Terms,
    /// Writes one record for each cause, not one for each client.
    pub(super) throttle: Arc<Throttle>,
}

impl Clients {
    /// Creates the count for a route without clients.
    pub fn new(terms: Terms, descriptors: DescriptorBudget) -> Self {
        Self {
            permits: Arc::new(ClientPermits {
                all: AtomicUsize::new(terms.max_clients),
                taken: AtomicUsize::new(0),
            }),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            descriptors,
            terms,
            throttle: Arc::default(),
        }
    }

    /// The number of clients at present.
    pub fn count(&self) -> usize {
        self.permits.taken.load(Ordering::Relaxed)
    }

    /// Changes the limits for further clients. Present clients stay.
    pub fn change(&mut self, terms: Terms) {
        self.permits.all.store(terms.max_clients, Ordering::Relaxed);
        self.terms = terms;
    }

    /// Admits or refuses a client. Returns `None` if it is to be closed without an error, because [`REFUSALS`] others are receiving theirs.
    /// Waits for file descriptors until the whole process drains. `full_since`: since when the listener's clients have found no
    /// descriptors.
    pub(super) async fn admit(
        &self,
        client: &Accepted,
        address: &ListenAddr,
        route: &str,
        metrics: &RouteMetrics,
        full_since: &mut Option<Instant>,
        drain: &Drain,
    ) -> Option<Admission> {
        let words = if let Some(stranger) = stranger(client, address) {
            metrics.refused("peer");
            if let Some(suppressed) = self.throttle.allow(&stranger) {
                warn!(
                    route,
                    %address,
                    suppressed,
                    error = stranger,
                    "client refused, add its uid=… or gid=… to the address to admit it"
                );
            }
            replies::error_reply(&stranger).into()
        } else if let Some(place) = self.permits.take() {
            if let Some(descriptors) = self.wait_for_descriptors(route, full_since, drain).await {
                return Some(Admission::Welcome(ClientPermit { _place: place, _descriptors: descriptors }));
            }
            metrics.refused("descriptors");
            if let Some(suppressed) = self.throttle.allow("no descriptors") {
                warn!(route, suppressed, "client refused, too many open files");
            }
            // A refused client keeps a descriptor until it has read the error, so the next one waits for its turn.
            let refusal = Arc::clone(&self.descriptors.permits().refusals).acquire_owned();
            let refusal = tokio::select! {
                biased;
                refusal = refusal => refusal.ok()?,
                () = all_drains(drain) => return None,
            };
            return Some(Admission::Refused(refusal, replies::MAX_CLIENTS.into()));
        } else {
            metrics.refused("max_clients");
            if let Some(suppressed) = self.throttle.allow("max_clients") {
                warn!(route, suppressed, "client refused, limits.max_clients is reached");
            }
            replies::MAX_CLIENTS.into()
        };
        let refusal = Arc::clone(&self.refusals).try_acquire_owned().ok()?;
        Some(Admission::Refused(refusal, words))
    }

    /// Waits for a client's file descriptors; `None` if it waited for too long. The clients behind it have waited in the kernel's queue
    /// since `full_since`, too.
    async fn wait_for_descriptors(
        &self,
        route: &str,
        full_since: &mut Option<Instant>,
        drain: &Drain,
    ) -> Option<OwnedSemaphorePermit> {
        let permits = &self.descriptors.permits().clients;
        if let Ok(descriptors) = Arc::clone(permits).try_acquire_many_owned(DESCRIPTORS_OF_A_CLIENT) {
            *full_since = None;
            return Some(descriptors);
        }
        if let Some(suppressed) = self.throttle.allow("descriptors") {
            warn!(
                route,
                suppressed,
                "too many open files, clients wait (raise LimitNOFILE= or ulimit -n, or lower limits.max_clients)"
            );
        }
        let since = *full_since.get_or_insert_with(Instant::now);
        tokio::select! {
            biased;
            descriptors = Arc::clone(permits).acquire_many_owned(DESCRIPTORS_OF_A_CLIENT) => {
                *full_since = None;
                descriptors.ok()
            }
            () = sleep_until(since + self.terms.patience) => None,
            () = all_drains(drain) => None,
        }
    }
}

/// Waits until the whole process drains. When only a part drains, a route is being reloaded, and its clients go on waiting.
async fn all_drains(drain: &Drain) {
    drain.started().await;
    if !drain.is_all_draining() {
        std::future::pending::<()>().await;
    }
}

#[derive(Debug)]
struct ClientPermits {
    all: AtomicUsize,
    taken: AtomicUsize,
}

impl ClientPermits {
    fn take(self: &Arc<Self>) -> Option<ClientPlace> {
        let all = self.all.load(Ordering::Relaxed);
        let one_more = |taken| (taken < all).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(ClientPlace(Arc::clone(self)))
    }
}

/// One of a route's `limits.max_clients` places, given back on drop.
#[derive(Debug)]
struct ClientPlace(Arc<ClientPermits>);

/// The place and the file descriptors of a client, given back on drop.
#[derive(Debug)]
pub struct ClientPermit {
    _place: ClientPlace,
    _descriptors: OwnedSemaphorePermit,
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a client is admitted. Dropping the permit frees its place.
pub enum Admission {
    /// The client is admitted.
    Welcome(ClientPermit),
    /// The client is refused, with this reply.
    Refused(OwnedSemaphorePermit, Cow<'static, [u8]>),
}

/// Why the socket does not admit a client; `None` if the client is admitted.
pub(super) fn stranger(client: &Accepted, address: &ListenAddr) -> Option<String> {
    let ListenAddr::Unix { peers, .. } = address else { return None };
    if peers.is_everybody() {
        return None;
    }
    match client.user_and_group() {
        Some((uid, gid)) if peers.allow(uid, gid) => None,
        Some((uid, gid)) => Some(format!("this socket is not for uid {uid}, gid {gid}")),
        None => Some(
            "this socket is for some users and groups only, and the system does not report this client's"
                .into(),
        ),
    }
}
