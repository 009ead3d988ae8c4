//! Who may come, and whether there is room.

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

/// Refused clients that are being told so, at most; beyond, they are closed without a word.
const REFUSALS: usize = 64;

/// On which terms a route's clients come.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Clients at once: `limits.max_clients`.
    pub max_clients: usize,

    /// Time that one waits for its descriptors: `limits.connect_timeout`.
    pub patience: Duration,
}

/// The clients of a route, over all of its listeners.
#[derive(Debug, Clone)]
pub struct Clients {
    permits: Arc<ClientPermits>,
    refusals: Arc<Semaphore>,
    descriptors: DescriptorBudget,
    terms: Terms,
    /// One line a cause, not one a client.
    pub(super) throttle: Arc<Throttle>,
}

impl Clients {
    /// None yet.
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

    /// How many are here.
    pub fn count(&self) -> usize {
        self.permits.taken.load(Ordering::Relaxed)
    }

    /// The terms of those that come from now on. Those that are here stay.
    pub fn change(&mut self, terms: Terms) {
        self.permits.all.store(terms.max_clients, Ordering::Relaxed);
        self.terms = terms;
    }

    /// `None`: it is refused, and so many are already that there is nobody to tell it. `full_since`: since when the listener's clients
    /// find no descriptors. Waits for descriptors until all drains.
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
                    "client refused: {stranger}. Add uid=… or gid=… to the address if it may come"
                );
            }
            replies::error_reply(&stranger).into()
        } else if let Some(place) = self.permits.take() {
            if let Some(descriptors) = self.wait_for_descriptors(route, full_since, drain).await {
                return Some(Admission::Welcome(ClientPermit { _place: place, _descriptors: descriptors }));
            }
            metrics.refused("descriptors");
            if let Some(suppressed) = self.throttle.allow("no descriptors") {
                warn!(route, suppressed, "client refused: too many open files");
            }
            // Each keeps a descriptor until it has read this: the next one waits for its turn.
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
                warn!(route, suppressed, "client refused: limits.max_clients is reached");
            }
            replies::MAX_CLIENTS.into()
        };
        let refusal = Arc::clone(&self.refusals).try_acquire_owned().ok()?;
        Some(Admission::Refused(refusal, words))
    }

    /// Descriptors for a client, once there are; `None`: it waited for too long. Those that come after it have waited since `full_since`,
    /// too: in the system's queue.
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
                "too many open files: clients wait for a file descriptor. Raise the limit (ulimit -n, LimitNOFILE=) or lower \
                 limits.max_clients"
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

/// Waits until everything drains. A part alone does where a route is reloaded: its clients go on waiting.
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

/// One of a route's `limits.max_clients`, given back when it is dropped.
#[derive(Debug)]
struct ClientPlace(Arc<ClientPermits>);

/// What a client takes, given back when it is dropped.
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

/// Whether a client may come and there is room for it. The room is free again when the permit is dropped.
pub enum Admission {
    /// It may, and there is.
    Welcome(ClientPermit),
    /// Not so; tell the client with these words.
    Refused(OwnedSemaphorePermit, Cow<'static, [u8]>),
}

/// Why a client is not one of those that the socket is for.
pub(super) fn stranger(client: &Accepted, address: &ListenAddr) -> Option<String> {
    let ListenAddr::Unix { peers, .. } = address else { return None };
    if peers.is_everybody() {
        return None;
    }
    match client.user_and_group() {
        Some((uid, gid)) if peers.allow(uid, gid) => None,
        Some((uid, gid)) => Some(format!("this socket is not for uid {uid}, gid {gid}")),
        None => Some("this socket is not for everybody, and the system does not say who this is".into()),
    }
}
