//! Counts the output that waits for all clients of a route that share connections: `limits.route_output`.
//!
//! An [outbox](super::outbox) reports how much it keeps. Bytes that a socket takes at once are never counted.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::downstream::ClientStream;

/// Clients with less output waiting are not listed, so they are cut off only if the caller names them.
const LISTED_OUTPUT: usize = 256 * 1024;

/// The output that waits for the clients of a route.
pub(super) struct RouteOutput {
    limit: usize,
    /// Signed, because the output of a client that is cut off may be subtracted before it was added.
    waiting: AtomicIsize,
    /// The clients that had much output waiting.
    listed: Mutex<Vec<Weak<ClientOutput>>>,
}

impl RouteOutput {
    /// A new counter. `limit`: `limits.route_output`.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, waiting: AtomicIsize::new(0), listed: Mutex::default() })
    }

    /// Whether more output waits than the limit allows.
    #[inline]
    pub(super) fn is_exceeded(&self) -> bool {
        self.exceeds(self.limit)
    }

    #[inline]
    fn exceeds(&self, limit: usize) -> bool {
        usize::try_from(self.waiting.load(Ordering::Relaxed)).is_ok_and(|waiting| waiting > limit)
    }

    /// Cuts off the clients with the most output waiting until half of the limit is left, so that the others are not soon held up again.
    /// `or`: a client that is cut off if no listed one has more.
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

/// The output that waits for one client.
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

    /// Sets how much output waits now.
    pub(super) fn set(self: &Arc<Self>, waiting: usize) {
        if self.is_cut_off() {
            return;
        }
        self.route.changed(self.waiting.swap(waiting, Ordering::Relaxed), waiting);
        if waiting > LISTED_OUTPUT && !self.is_listed.swap(true, Ordering::Relaxed) {
            self.route.list(self);
        }
    }

    /// Whether the client was cut off because of `limits.route_output`.
    pub(super) fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Relaxed)
    }

    /// Cuts the client off. Its task may run on another thread, where it finds the socket shut down. Its output no longer counts, so that
    /// no other client is cut off for it in the meantime.
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
