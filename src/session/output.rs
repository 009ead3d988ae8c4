//! What waits for the clients of a route that share connections, all together: `limits.route_output`.
//!
//! An [outbox](super::outbox) reports how much it keeps. What a socket takes at once is never counted.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::downstream::ClientStream;

/// A client for which less waits is looked at only where none has more.
const LISTED_OUTPUT: usize = 256 * 1024;

/// What waits for the clients of a route.
pub(super) struct RouteOutput {
    limit: usize,
    /// Signed: what a client is cut off with may be subtracted before it was added.
    waiting: AtomicIsize,
    /// Clients for which much has waited.
    listed: Mutex<Vec<Weak<ClientOutput>>>,
}

impl RouteOutput {
    /// Nothing waits. `limit`: `limits.route_output`.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, waiting: AtomicIsize::new(0), listed: Mutex::default() })
    }

    /// Whether more waits than may.
    #[inline]
    pub(super) fn is_exceeded(&self) -> bool {
        self.exceeds(self.limit)
    }

    #[inline]
    fn exceeds(&self, limit: usize) -> bool {
        usize::try_from(self.waiting.load(Ordering::Relaxed)).is_ok_and(|waiting| waiting > limit)
    }

    /// Cuts off the clients for which most waits, until half of what may wait is left: what follows for the others must not soon
    /// be held up again. `or`: a client that is cut off where none has more.
    #[cold]
    pub(super) fn cut_off_largest(&self, or: Option<Arc<ClientOutput>>) {
        let waits = |output: &Arc<ClientOutput>| output.waiting.load(Ordering::Relaxed);
        let mut listed: Vec<_> = self.listed.lock().iter().filter_map(Weak::upgrade).chain(or).collect();
        listed.sort_by_cached_key(|output| Reverse(waits(output)));
        for largest in listed.iter().filter(|output| waits(output) > 0) {
            largest.cut_off();
            if !self.exceeds(self.limit / 2) {
                return;
            }
        }
    }

    fn list(&self, output: &Arc<ClientOutput>) {
        let mut listed = self.listed.lock();
        if listed.len() == listed.capacity() {
            listed.retain(|output| output.strong_count() > 0);
        }
        listed.push(Arc::downgrade(output));
    }

    fn changed(&self, before: usize, now: usize) {
        self.waiting.fetch_add(now.cast_signed().wrapping_sub(before.cast_signed()), Ordering::Relaxed);
    }
}

/// What waits for one client.
pub(super) struct ClientOutput {
    route: Arc<RouteOutput>,
    client: ClientStream,
    waiting: AtomicUsize,
    is_listed: AtomicBool,
    is_cut_off: AtomicBool,
}

impl ClientOutput {
    pub(super) fn new(route: &Arc<RouteOutput>, client: &ClientStream) -> Arc<Self> {
        Arc::new(Self {
            route: Arc::clone(route),
            client: client.clone(),
            waiting: AtomicUsize::new(0),
            is_listed: AtomicBool::new(false),
            is_cut_off: AtomicBool::new(false),
        })
    }

    /// So much waits now.
    pub(super) fn set(self: &Arc<Self>, waiting: usize) {
        if self.is_cut_off() {
            return;
        }
        self.route.changed(self.waiting.swap(waiting, Ordering::Relaxed), waiting);
        if waiting > LISTED_OUTPUT && !self.is_listed.swap(true, Ordering::Relaxed) {
            self.route.list(self);
        }
    }

    /// Whether its client was cut off because of `limits.route_output`.
    pub(super) fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Relaxed)
    }

    /// The client's task may run on another thread: it finds its socket shut down. What waits counts no more from now on, so that no
    /// other client is cut off for it meanwhile.
    fn cut_off(&self) {
        self.is_cut_off.store(true, Ordering::Relaxed);
        self.forget();
        self.client.shut_down();
    }

    fn forget(&self) {
        self.route.changed(self.waiting.swap(0, Ordering::Relaxed), 0);
    }
}

impl Drop for ClientOutput {
    fn drop(&mut self) {
        self.forget();
    }
}
