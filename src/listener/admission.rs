//! Who may come, and whether there is room.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use crate::downstream::Accepted;
use crate::endpoint::ListenAddr;
use crate::metrics::RouteMetrics;
use crate::resp::replies;
use crate::telemetry::Throttle;

/// Refused clients that are being told so, at most; beyond, they are closed without a word.
const REFUSALS: usize = 64;

/// The clients of a route, over all of its listeners.
#[derive(Debug, Clone)]
pub struct Clients {
    permits: Arc<ClientPermits>,
    refusals: Arc<Semaphore>,
    /// One line a cause, not one a client.
    pub(super) throttle: Arc<Throttle>,
}

impl Clients {
    /// Room for so many.
    pub fn new(max_clients: usize) -> Self {
        Self {
            permits: Arc::new(ClientPermits {
                all: AtomicUsize::new(max_clients),
                taken: AtomicUsize::new(0),
            }),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            throttle: Arc::default(),
        }
    }

    /// How many are here.
    pub fn count(&self) -> usize {
        self.permits.taken.load(Ordering::Relaxed)
    }

    /// Room for so many from now on. Those that are here stay.
    pub fn resize(&self, max_clients: usize) {
        self.permits.all.store(max_clients, Ordering::Relaxed);
    }

    /// `None`: it is refused, and so many are already that there is nobody to tell it.
    pub(super) fn admit(
        &self,
        client: &Accepted,
        address: &ListenAddr,
        route: &str,
        metrics: &RouteMetrics,
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
        } else if let Some(permit) = self.permits.take() {
            return Some(Admission::Welcome(permit));
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
}

#[derive(Debug)]
struct ClientPermits {
    all: AtomicUsize,
    taken: AtomicUsize,
}

impl ClientPermits {
    fn take(self: &Arc<Self>) -> Option<ClientPermit> {
        let all = self.all.load(Ordering::Relaxed);
        let one_more = |taken| (taken < all).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(ClientPermit(Arc::clone(self)))
    }
}

/// A client's permit, given back when it is dropped.
#[derive(Debug)]
pub struct ClientPermit(Arc<ClientPermits>);

impl Drop for ClientPermit {
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
