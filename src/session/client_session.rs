//! One client, whatever connection its requests go over: what it sends and is sent, who it says it is, and when its time is up.
//!
//! An engine serves it: a [relay](super::dedicated) over a dedicated connection, or a [client](super::shared) over shared ones. To change the
//! connection, the session goes from one to the other; the client stays.

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
    /// Where pontoon authenticates, or clients authenticate to it.
    pub(super) guard: Option<Box<Guard>>,
    pub(super) input: Input,
    /// What the client's socket would not take yet.
    pub(super) to_client: Outbox,
    /// The client has not said that it sends no more.
    pub(super) client_sends: bool,
    /// Where the client's last writes went: WAIT is for that connection.
    pub(super) last_writes: LastWrites,
    /// Registered for its waker alone; whether it is over is asked of `route.drain`.
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Once pontoon is leaving.
    owed: Option<Owed>,
    idle: Option<IdleTimer>,
    /// Few sessions have one: an idle client holds no memory.
    timers: Option<Box<SessionTimers>>,
}

/// Where a client's last writes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastWrites {
    /// There were none.
    None,
    /// Over the shared connection with this number.
    Shared(u64),
    /// Over a connection that the client does not have any more.
    Gone,
}

/// What the client has sent and no engine has taken.
#[derive(Default)]
pub(super) struct Input {
    pub(super) bytes: Vec<u8>,
    /// They are the beginning of a request, and more of it must come first.
    pub(super) lacks_more: bool,
}

/// For `limits.idle_timeout`, once a session has begun: before its first byte `serve::brings_tls` has its own.
struct IdleTimer {
    timeout: Duration,
    last: Instant,
    sleep: Pin<Box<Sleep>>,
}

#[derive(Default)]
struct SessionTimers {
    /// While the client is not read, or sends no more.
    presence: Option<PresenceCheck>,
    /// The client sends no more: until when the upstream may be silent.
    quiet: Option<Pin<Box<Sleep>>>,
    /// While pontoon is leaving.
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

    /// Has the task woken when pontoon begins to leave. Once is enough: a task's waker stays the same, and later wake-ups ask an atomic
    /// flag instead.
    pub(super) async fn hear_of_drain(&mut self) {
        poll_fn(|cx| {
            let _ = self.draining.as_mut().poll(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// A wake-up: what the client has sent before pontoon began to leave is still served.
    #[inline]
    pub(super) fn note_drain(&mut self) {
        if self.owed.is_none() && self.route.drain.is_draining() {
            self.owed = Some(Owed::new(self.client.unread() + self.input.bytes.len()));
        }
    }

    /// No request may begin this many bytes from here, or later.
    #[inline]
    pub(super) fn within(&self) -> usize {
        self.owed.as_ref().map_or(usize::MAX, Owed::bytes)
    }

    /// `bytes` more that came from the client were looked at.
    #[inline]
    pub(super) fn looked_at(&mut self, bytes: usize) {
        if let Some(owed) = &mut self.owed {
            owed.looked_at(bytes);
        }
    }

    /// `by` other bytes will be looked at in place of `bytes` of the client's.
    pub(super) fn replaced(&mut self, bytes: usize, by: usize) {
        if let Some(owed) = &mut self.owed {
            owed.replace(bytes, by);
        }
    }

    /// Whether pontoon is leaving, and all that the client had sent before was looked at.
    #[inline]
    pub(super) fn owes_nothing(&self) -> bool {
        self.owed.as_ref().is_some_and(|owed| owed.bytes() == 0)
    }

    /// Has these bytes of the client looked at next.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.input.bytes.splice(0..0, bytes.iter().copied());
    }

    /// Completes when the client is gone, while it is not read.
    pub(super) async fn gone(&self) {
        self.client.gone(!self.input.bytes.is_empty()).await;
    }

    /// Something passed, for the idle timeout. Replies over a shared connection are noted by `ClientWriter` instead.
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

    /// `Ready`: nothing has passed for `limits.idle_timeout`. `elsewhere`: something passed then that was not
    /// [noted](Self::touch).
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

    /// `Ready`: pontoon is leaving, and the time is up.
    #[inline]
    pub(super) fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.route.drain.is_draining() {
            return Poll::Pending;
        }
        let cut_off = || Box::pin(self.route.drain.cut_off());
        self.timers.get_or_insert_default().cut.get_or_insert_with(cut_off).as_mut().poll(cx)
    }

    /// What the kernel knows of a client that is not read.
    pub(super) fn poll_presence(&mut self, cx: &mut Context<'_>) -> Presence {
        let presence = self.timers.get_or_insert_default().presence.get_or_insert_default();
        presence.poll(cx, || self.client.presence())
    }

    /// The client is read, which shows its end.
    #[inline]
    pub(super) fn is_read(&mut self) {
        if let Some(timers) = &mut self.timers {
            (timers.presence, timers.quiet) = (None, None);
            if timers.cut.is_none() {
                self.timers = None;
            }
        }
    }

    /// From its first call on, runs out when the upstream was silent for [`QUIET`].
    pub(super) fn quiet(&mut self) -> &mut Pin<Box<Sleep>> {
        self.timers.get_or_insert_default().quiet.get_or_insert_with(|| Box::pin(sleep(QUIET)))
    }

    /// The upstream was not silent, or it is not the upstream that is waited for.
    #[inline]
    pub(super) fn end_quiet(&mut self) {
        if let Some(timers) = &mut self.timers {
            timers.quiet = None;
        }
    }
}
