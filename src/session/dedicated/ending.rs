//! Decides when a session over a dedicated connection is over, and what it does not wait for.

use std::task::{Context, Poll, ready};

use tokio::time::{Instant, sleep};

use super::relay::{Ended, OPAQUE_GRACE, Relay};
use crate::downstream::presence::{self, Presence};

impl Relay<'_> {
    /// How the session has ended, judging by bytes alone. `None`: it has not.
    pub(super) fn ended(&mut self) -> Option<Ended> {
        if self.requests.speaks_tls() {
            return Some(Ended::SpeaksTls);
        }
        if self.is_given_back() {
            return Some(Ended::Shareable);
        }
        if !self.session.to_client.is_empty() || self.is_waiting() {
            return None;
        }
        if let Some(reason) = self.aborted.take() {
            return Some(Ended::Aborted(reason));
        }
        if self.wire.is_lost() {
            if self.wire.is_finished() {
                // The upstream has answered the half-close with its own.
                return Some(Ended::Client);
            }
            let placeable = self.replies.at_boundary() && self.ledger.opaque().is_none();
            let unanswered = if placeable { self.ledger.due_to_client() } else { 0 };
            let why = self.wire.why().filter(|_| !self.ledger.has_quit());
            return Some(Ended::Upstream { unanswered, why: why.map(str::to_owned) });
        }
        if self.wire.waiting() > 0 {
            return None;
        }
        let leaving = self.stops_at_boundary();
        if (self.session.client_sends && !leaving) || self.holds_requests() {
            return None;
        }
        let nothing_due =
            self.ledger.opaque().is_none() && self.ledger.outstanding() == 0 && self.requests.at_boundary();
        let silent = self.timers.grace_over && (!self.is_framed() || self.replies.at_boundary());
        match (self.session.client_sends, nothing_due) {
            (true, true) => Some(Ended::Drained),
            (true, false) => silent.then_some(Ended::Drained),
            (false, _) => nothing_due.then_some(Ended::Client),
        }
    }

    /// Whether requests of the client wait here.
    fn holds_requests(&self) -> bool {
        !self.session.input.bytes.is_empty()
            || self.session.guard.as_ref().is_some_and(|guard| guard.has_later())
    }

    /// Half-closes the upstream connection after the client has, so that the server sees it as soon as it would without pontoon. While
    /// every outstanding reply comes promptly, it waits, because afterwards the connection can serve another client. If the client left a
    /// request unfinished, it half-closes after these replies, because the server may have an answer to it.
    pub(super) fn pass_on_end(&mut self, cx: &mut Context<'_>) {
        let waits = self.ledger.is_prompt() && (self.ledger.outstanding() > 0 || self.requests.at_boundary());
        if !self.session.client_sends && !waits && !self.holds_requests() {
            self.wire.finish(cx);
        }
    }

    /// `Ready`: the session ends whatever is outstanding, because the client is gone, or has half-closed and the upstream is silent.
    fn poll_client_end(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if self.session.client_sends && self.reads_client() && self.wire.waiting() == 0 {
            self.session.is_read();
            return Poll::Pending;
        }
        match self.session.poll_presence(cx) {
            Presence::Gone => return Poll::Ready(Ended::Client),
            Presence::Sends if self.session.client_sends || self.ledger.quits_here() => return Poll::Pending,
            Presence::Sends | Presence::Finished => {}
        }
        if !self.session.to_client.is_empty() {
            // The session waits for the client to read.
            self.session.end_quiet();
            return Poll::Pending;
        }
        while self.session.quiet().as_mut().poll(cx).is_ready() {
            if self.wire.is_finished() || self.session.client_sends || self.wire.waiting() > 0 {
                return Poll::Ready(Ended::Client);
            }
            // A slow upstream may still answer: half-close, and wait a moment for its reply.
            self.wire.finish(cx);
            self.session.quiet().as_mut().reset(Instant::now() + presence::LAST_WORD);
        }
        Poll::Pending
    }

    /// Arms the timers that apply while no bytes move. `Ready`: one has run out.
    pub(super) fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if self.session.poll_cut(cx).is_ready() {
            return Poll::Ready(Ended::Cut);
        }
        if self.session.poll_idle(cx, None).is_ready() {
            return Poll::Ready(Ended::Idle);
        }
        if self.poll_unpin(cx).is_ready() {
            return Poll::Ready(Ended::Shareable);
        }
        if let Poll::Ready(ended) = self.poll_client_end(cx) {
            return Poll::Ready(ended);
        }
        // Replies that match requests are awaited. For others, a silent upstream is the only sign of the end.
        if !self.stops_at_boundary() || self.ledger.opaque().is_none() {
            self.timers.grace = None;
            return Poll::Pending;
        }
        let grace = self.timers.grace.get_or_insert_with(|| Box::pin(sleep(OPAQUE_GRACE)));
        ready!(grace.as_mut().poll(cx));
        self.timers.grace_over = true;
        // Inside a reply, wait for its end, which wakes the task.
        self.ended().map_or(Poll::Pending, Poll::Ready)
    }
}
