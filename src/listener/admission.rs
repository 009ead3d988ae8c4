//! Who may come, and whether there is room.

use std::borrow::Cow;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use crate::endpoint::ListenAddr;
use crate::metrics::RouteMetrics;
use crate::resp::replies;
use crate::session::Accepted;
use crate::telemetry::Throttle;

/// Refused clients that are being told so, at most; beyond, they are closed without a word.
const REFUSALS: usize = 64;

/// The clients of a route, over all of its listeners.
#[derive(Debug, Clone)]
pub struct Clients {
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    /// One line a cause, not one a client.
    pub(super) throttle: Arc<Throttle>,
}

impl Clients {
    /// Room for so many.
    pub fn new(max_clients: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(max_clients.min(Semaphore::MAX_PERMITS))),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            throttle: Arc::default(),
        }
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
        } else if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(Admission::Welcome(place));
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

/// Whether a client may come and there is room for it. Its place is free again when the permit is dropped.
pub enum Admission {
    /// It may, and there is.
    Welcome(OwnedSemaphorePermit),
    /// Not so; tell the client with these words.
    Refused(OwnedSemaphorePermit, Cow<'static, [u8]>),
}

/// Why a client is not one of those that the socket is for.
fn stranger(client: &Accepted, address: &ListenAddr) -> Option<String> {
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
