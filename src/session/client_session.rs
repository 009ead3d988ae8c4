//! The client's side of a session: what it sends and receives, what it says about itself, and its timers.
//!
//! An engine serves the client: a [relay](super::dedicated) over a dedicated connection, or a [client](super::shared) over shared ones. To
//! change the connection, the session moves from one engine to the other. The client stays.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::context::RouteContext;
use super::guard::Guard;
use super::outbox::Outbox;
use super::owed::Owed;
use super::profile::ClientProfile;
use crate::downstream::ClientStream;
use crate::downstream::presence::{Presence, PresenceCheck, QUIET};

pub(super) struct Session<'a> {
    pub(super) client: ClientStream,
    pub(super) route: &'a Arc<RouteContext>,
    pub(super) profile: ClientProfile,
    /// Present if pontoon authenticates upstream, or if clients authenticate to pontoon.
    pub(super) guard: Option<Box<Guard>>,
    pub(super) input: Input,
    /// Output that the client's socket did not take yet.
    pub(super) to_client: Outbox,
    /// The client has not closed its sending side.
    pub(super) client_sends: bool,
    /// The connection of the client's last writes, which WAIT asks about.
    pub(super) last_writes: LastWrites,
    /// Polled only to register its waker. `route.drain` says whether the drain has begun.
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Set once pontoon drains.
    owed: Option<Owed>,
    idle: Option<IdleTimer>,
    /// Boxed, because few sessions have one and an idle client should hold little memory.
    timers: Option<Box<SessionTimers>>,
}

/// The connection that carried a client's last writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastWrites {
    /// The client has not written.
    None,
    /// The shared connection with this id.
    Shared(u64),
    /// A connection that the client no longer has.
    Gone,
}

/// Bytes that the client has sent and no engine has taken.
#[derive(Default)]
pub(super) struct Input {
    pub(super) bytes: Vec<u8>,
    /// The bytes are the beginning of a request. The engine needs more of it first.
    pub(super) lacks_more: bool,
}

/// The timer for `limits.idle_timeout` once a session has begun. Before the first byte `serve::brings_tls` has its own.
struct IdleTimer {
    timeout: Duration,
    last: Instant,
    sleep: Pin<Box<Sleep>>,
}

#[derive(Default)]
struct SessionTimers {
    /// Runs while the client is not read, or has half-closed.
    presence: Option<PresenceCheck>,
    /// How long the upstream may stay silent after the client has half-closed.
    quiet: Option<Pin<Box<Sleep>>>,
    /// Runs while pontoon drains.
    cut: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl<'a> Session<'a> {
    pub(super) fn new(client: ClientStream, route: &'a Arc<RouteContext>, profile: ClientProfile) -> Self {
        let idle = route.settings.idle_timeout.map(|timeout| IdleTimer {
            timeout,
            last: Instant::now(),
            sleep: Box::pin(sleep(timeout)),
        });
        Self {
            client,
            route,
            profile,
            guard: None,
            input: Input::default(),
            to_client: Outbox::default(),
            client_sends: true,
            last_writes: LastWrites::None,
            draining: Box::pin(route.drain.started()),
            owed: None,
            idle,
            timers: None,
        }
    }

    /// Wakes the task when the drain begins. One registration is enough, because a task's waker stays the same. Later wake-ups read an
    /// atomic flag instead.
    pub(super) async fn hear_of_drain(&mut self) {
        poll_fn(|cx| {
            let _ = self.draining.as_mut().poll(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Runs at each wake-up. Once the drain has begun, notes how much the client had sent before: that is still served.
    #[inline]
    pub(super) fn note_drain(&mut self) {
        if self.owed.is_none() && self.route.drain.is_draining() {
            self.owed = Some(Owed::new(self.client.unread() + self.input.bytes.len()));
        }
    }

    /// Number of bytes from here on in which a request may begin.
    #[inline]
    pub(super) fn within(&self) -> usize {
        self.owed.as_ref().map_or(usize::MAX, Owed::bytes)
    }

    /// Notes that `bytes` more of the client's bytes were read.
    #[inline]
    pub(super) fn looked_at(&mut self, bytes: usize) {
        if let Some(owed) = &mut self.owed {
            owed.looked_at(bytes);
        }
    }

    /// Notes that `by` other bytes will be read in place of `bytes` of the client's.
    pub(super) fn replaced(&mut self, bytes: usize, by: usize) {
        if let Some(owed) = &mut self.owed {
            owed.replace(bytes, by);
        }
    }

    /// Whether pontoon drains, and all that the client had sent before was read.
    #[inline]
    pub(super) fn owes_nothing(&self) -> bool {
        self.owed.as_ref().is_some_and(|owed| owed.bytes() == 0)
    }

    /// Puts these bytes of the client back, to be read next.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.input.bytes.splice(0..0, bytes.iter().copied());
    }

    /// Completes when the client is gone, while it is not read.
    pub(super) async fn gone(&self) {
        self.client.gone(!self.input.bytes.is_empty()).await;
    }

    /// Restarts the idle timer. For replies over a shared connection `ClientWriter` keeps the time instead.
    #[inline]
    pub(super) fn touch(&mut self) {
        if let Some(idle) = &mut self.idle {
            idle.last = Instant::now();
        }
    }

    /// Whether `limits.idle_timeout` is set.
    pub(super) fn may_idle(&self) -> bool {
        self.idle.is_some()
    }

    /// `Ready`: no bytes have passed for `limits.idle_timeout`. `elsewhere`: the last time bytes passed without a call of
    /// [`touch`](Self::touch).
    #[inline]
    pub(super) fn poll_idle(&mut self, cx: &mut Context<'_>, elsewhere: Option<Instant>) -> Poll<()> {
        let Some(idle) = &mut self.idle else { return Poll::Pending };
        while idle.sleep.as_mut().poll(cx).is_ready() {
            let last = elsewhere.map_or(idle.last, |elsewhere| idle.last.max(elsewhere));
            if last.elapsed() >= idle.timeout {
                return Poll::Ready(());
            }
            idle.sleep.as_mut().reset(last + idle.timeout);
        }
        Poll::Pending
    }

    /// `Ready`: pontoon drains, and the deadline has passed.
    #[inline]
    pub(super) fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.route.drain.is_draining() {
            return Poll::Pending;
        }
        let cut_off = || Box::pin(self.route.drain.cut_off());
        self.timers.get_or_insert_default().cut.get_or_insert_with(cut_off).as_mut().poll(cx)
    }

    /// What the kernel knows about a client that is not read.
    pub(super) fn poll_presence(&mut self, cx: &mut Context<'_>) -> Presence {
        let presence = self.timers.get_or_insert_default().presence.get_or_insert_default();
        presence.poll(cx, || self.client.presence())
    }

    /// Stops the timers that replace reading, because reading shows the client's end.
    #[inline]
    pub(super) fn is_read(&mut self) {
        if let Some(timers) = &mut self.timers {
            (timers.presence, timers.quiet) = (None, None);
            if timers.cut.is_none() {
                self.timers = None;
            }
        }
    }

    /// A timer that starts with the first call, and runs out after [`QUIET`].
    pub(super) fn quiet(&mut self) -> &mut Pin<Box<Sleep>> {
        self.timers.get_or_insert_default().quiet.get_or_insert_with(|| Box::pin(sleep(QUIET)))
    }

    /// Stops the timer, because the upstream was not silent, or the session does not wait for it.
    #[inline]
    pub(super) fn end_quiet(&mut self) {
        if let Some(timers) = &mut self.timers {
            timers.quiet = None;
        }
    }
}
