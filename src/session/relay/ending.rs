//! Whether a session is over, and what must not be waited for.

use std::task::{Context, Poll, ready};

use tokio::time::sleep;

use super::{Ended, GRACE, Relay};

impl Relay<'_> {
    /// Whether it is over, as far as bytes tell.
    pub(super) fn ended(&mut self) -> Option<Ended> {
        if self.requests.speaks_tls() {
            return Some(Ended::SpeaksTls);
        }
        if self.is_given_back() {
            return Some(Ended::Shareable);
        }
        if !self.to_client.is_empty() || self.is_waiting() {
            return None;
        }
        if let Some(unanswerable) = self.unanswerable.take() {
            return Some(Ended::Unanswerable(unanswerable));
        }
        if self.wire.is_lost() {
            let placeable = self.replies.at_boundary() && self.pending.opaque().is_none();
            let unanswered = if placeable { self.pending.due_to_client() } else { 0 };
            return Some(Ended::Upstream { unanswered, why: self.wire.why().map(str::to_owned) });
        }
        if self.wire.waiting() > 0 {
            return None;
        }
        let leaving = self.stops_at_boundary();
        if self.client_sends && !leaving {
            return None;
        }
        let nothing_due = self.pending.opaque().is_none() && self.pending.count() == 0;
        let silent = self.timers.grace_over && (!self.is_framed() || self.replies.at_boundary());
        if !nothing_due && !silent {
            return None;
        }
        Some(if self.client_sends { Ended::Drained } else { Ended::Client })
    }

    /// Nothing moves: arms the timers that apply, and asks whether one has run out.
    pub(super) fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if self.route.drain.is_draining() {
            let cut = self.timers.cut.get_or_insert_with(|| Box::pin(self.route.drain.cut_off()));
            if cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ended::Cut);
            }
        }
        if let Some(idle) = &mut self.timers.idle {
            while idle.sleep.as_mut().poll(cx).is_ready() {
                if idle.last.elapsed() >= idle.timeout {
                    return Poll::Ready(Ended::Idle);
                }
                idle.sleep.as_mut().reset(idle.last + idle.timeout);
            }
        }
        if self.poll_unpin(cx).is_ready() {
            return Poll::Ready(Ended::Shareable);
        }
        // While replies are counted, only one that may take for ever is not waited for, and then only once the
        // client sends no more: it may be gone.
        let uncounted = self.pending.opaque().is_some();
        let abandoned = !self.client_sends && (uncounted || self.pending.is_blocked());
        let leaving = self.stops_at_boundary() && uncounted;
        if !abandoned && !leaving {
            self.timers.grace = None;
            return Poll::Pending;
        }
        let grace = self.timers.grace.get_or_insert_with(|| Box::pin(sleep(GRACE)));
        ready!(grace.as_mut().poll(cx));
        self.timers.grace_over = true;
        // Inside a reply its end is waited for; it wakes us.
        self.ended().map_or(Poll::Pending, Poll::Ready)
    }
}
