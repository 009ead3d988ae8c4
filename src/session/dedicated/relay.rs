//! Moves bytes both ways between a client and its upstream in one task, and follows frame boundaries as they pass.
//!
//! One wake-up sends what waits, reads what has arrived, and sends it. A side is not read while the other cannot be written, so a slow
//! reader slows only its own connection and fills no memory. `session::serve` begins sessions and ends them towards the client.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::pinned::PinState;
use crate::metrics::{Relayed, Share};
use crate::resp::scanner::{ReplyScanner, RequestScanner};
use crate::session::abort_reason::AbortReason;
use crate::session::client_session::Session;
use crate::session::context::RouteContext;
use crate::session::guard::{ClientAuth, Guard};
use crate::session::ledger::{Ledger, Opaque, OwnRequest};
use crate::session::low_water::LowWater;
use crate::session::relogin::Relogin;
use crate::session::rewriting::{Rewriting, SentinelSession};
use crate::session::scratch;
use crate::session::settings::Upgrade;
use crate::session::setup::{ClientSetup, set_up};
use crate::session::slow::SlowLog;
use crate::session::wire::Wire;
use crate::upstream::{AuthOutcome, Dialled, Latch, Lease};

/// How long the upstream of an opaque session must be silent before the session ends in a drain.
pub(super) const OPAQUE_GRACE: Duration = Duration::from_millis(100);

/// How long to wait before a session that could not move to TLS tries again.
pub(in crate::session) const MOVE_AGAIN: Duration = Duration::from_secs(5);

/// While more of pontoon's own replies wait for their turn, the client is not read.
const MAX_LOCAL_REPLIES: usize = 4096;

/// While more bytes wait for a client with a guard, it is not read.
const MAX_GUARDED_OUTPUT: usize = 1024 * 1024;

/// Number of reads from either side in one wake-up. Then other sessions of the thread have their turn.
const RELAY_ROUNDS: usize = 8;

/// How a relay ended.
#[derive(Debug)]
pub(in crate::session) enum Ended {
    /// The client is gone, or has half-closed and has all its replies.
    Client,
    /// The upstream is gone. `unanswered` requests have no reply, and each may get an error. It is 0 where no error can be placed: inside a
    /// reply, or in an opaque session.
    Upstream { unanswered: u64, why: Option<String> },
    /// Pontoon drains, and no reply was outstanding.
    Drained,
    /// Pontoon drains, and the deadline has passed.
    Cut,
    /// No bytes passed for `limits.idle_timeout`.
    Idle,
    /// The client sent TLS where plaintext was expected. No byte of it was sent upstream.
    SpeaksTls,
    /// Continuing would mean guessing.
    Aborted(AbortReason),
    /// The session has not ended. The client can share a connection again.
    Shareable,
    /// The session has not ended. The upstream now accepts TLS, this connection is in plaintext, and another one could replace it.
    Movable,
}

/// The two sides of a session, and what is known about them.
pub(in crate::session) struct Relay<'a> {
    pub(super) session: Session<'a>,
    pub(super) wire: Wire,
    pub(super) requests: RequestScanner,
    pub(super) replies: ReplyScanner,
    pub(super) ledger: Ledger,
    pub(super) client_mark: LowWater,
    pub(super) upstream_mark: LowWater,
    pub(super) relayed: &'a Relayed,
    /// Finds slow commands, if they are logged.
    pub(super) slow: Option<Box<SlowLog>>,
    /// Number of bytes that wait in both directions.
    pub(super) buffered: Share,
    /// Present if the upstream is a cluster's node.
    pub(super) rewriting: Option<Box<Rewriting>>,
    pub(super) relogin: Option<Box<Relogin>>,
    /// The present reply answers this request of pontoon's own, so the client does not get it.
    pub(super) swallows: Option<OwnRequest>,
    pub(super) aborted: Option<AbortReason>,
    /// Present in a session in plaintext that moves once its upstream accepts TLS.
    pub(super) moving: Option<Moving>,
    /// Whether requests that contain ids of connections may have to be changed.
    pub(super) judges_ids: bool,
    /// Present while the client is pinned.
    pub(super) pin: Option<Box<PinState>>,
    pub(super) timers: RelayTimers,
}

pub(super) struct Moving {
    /// Polled only to register its waker.
    latched: Pin<Box<WaitForCancellationFutureOwned>>,
    latch: Latch,
    not_before: Instant,
}

/// Timers that are rarely armed, so that flowing traffic does not touch a timer.
#[derive(Default)]
pub(super) struct RelayTimers {
    pub(super) grace: Option<Pin<Box<Sleep>>>,
    pub(super) grace_over: bool,
    /// Unpins the client when it runs out.
    pub(super) unpin: Option<Pin<Box<Sleep>>>,
}

impl<'a> Relay<'a> {
    /// A relay over a connection that was dialled or kept for the client.
    pub(in crate::session) fn new(session: Session<'a>, upstream: Lease) -> Self {
        let mut relay = Self::over(session, Wire::new(upstream), false);
        relay.authenticated();
        relay
    }

    /// `passthrough`: the connection carries the client's own TLS.
    pub(super) fn over(mut session: Session<'a>, mut wire: Wire, passthrough: bool) -> Self {
        let route = session.route;
        let upstream = &mut wire.connection;
        let metrics = &route.metrics;
        let relayed = if upstream.channel.is_some() {
            &metrics.relayed_over_tls
        } else {
            &metrics.relayed_in_plaintext
        };
        let unread = std::mem::take(&mut upstream.unread);
        let moving = match route.upstream.latch() {
            Some(latch) if upstream.channel.is_none() && route.settings.upgrade == Upgrade::Drain => {
                session.profile.keep_setup();
                Some(Moving {
                    latched: Box::pin(latch.wait()),
                    latch: latch.clone(),
                    not_before: Instant::now(),
                })
            }
            _ => None,
        };
        let rewriting = route.nodes.as_ref().map(|nodes| {
            let local_host = nodes.advertise().unwrap_or_else(|| session.client.local_host());
            let sentinel = route.sentinels_of.as_ref().map(|master_name| SentinelSession {
                master_name: Arc::clone(master_name),
                port: session.client.local_port().or(nodes.sentinel_port()).unwrap_or_default(),
            });
            Box::new(Rewriting::new(Arc::clone(nodes), local_host, Arc::clone(&upstream.endpoint), sentinel))
        });
        let judges_ids = route.multiplexer.is_some() || upstream.is_reusable();
        session.profile.connected(route, upstream, passthrough);
        let mut relay = Self {
            session,
            wire,
            requests: RequestScanner::default(),
            replies: ReplyScanner::default(),
            ledger: Ledger::default(),
            client_mark: LowWater::default(),
            upstream_mark: LowWater::default(),
            relayed,
            buffered: Share::new(&metrics.buffered_bytes),
            slow: route.settings.slow.map(|threshold| Box::new(SlowLog::new(threshold))),
            rewriting,
            relogin: None,
            swallows: None,
            aborted: None,
            moving,
            judges_ids,
            pin: None,
            timers: RelayTimers::default(),
        };
        relay.note_replies(&unread);
        relay.session.to_client.keep(&unread);
        relay
    }

    /// A relay for a client that brings its own TLS. Pontoon does not examine the bytes.
    pub(in crate::session) fn passthrough(session: Session<'a>, upstream: Lease) -> Self {
        let mut relay = Self::over(session, Wire::new(upstream), true);
        relay.moving = None;
        relay.rewriting = None;
        relay.slow = None;
        relay.relayed = &relay.session.route.metrics.relayed_through;
        relay.account(|ledger| ledger.become_opaque(Opaque::Encrypted));
        relay
    }

    /// Relays until one side ends, or pontoon drains.
    pub(in crate::session) async fn run(&mut self) -> Ended {
        self.session.hear_of_drain().await;
        poll_fn(|cx| {
            if let Some(moving) = &mut self.moving {
                let _ = moving.latched.as_mut().poll(cx);
            }
            Poll::Ready(())
        })
        .await;
        poll_fn(|cx| self.poll(cx)).await
    }

    /// What all sessions of the route share.
    pub(in crate::session) fn context(&self) -> &'a Arc<RouteContext> {
        self.session.route
    }

    /// The session's number, as in the log.
    pub(in crate::session) fn number(&self) -> u64 {
        self.session.profile.number()
    }

    /// The session's upstream connection.
    pub(in crate::session) fn dialled(&self) -> Dialled {
        self.wire.connection.dialled()
    }

    /// Returns the client's side. The connection is released if it can serve another client.
    pub(in crate::session) fn into_session(mut self) -> Session<'a> {
        if self.is_reusable() {
            self.wire.release(!self.ledger.is_untouched());
        }
        self.session
    }

    /// Moves to another connection after [`Ended::Movable`], and sets it up as the client had set up this one. `false`: that failed.
    pub(in crate::session) async fn move_to(&mut self, mut upstream: Lease) -> bool {
        let steps = self.session.profile.setup().and_then(ClientSetup::steps).unwrap_or_default();
        if set_up(&mut upstream, &steps).await.is_err() {
            self.session.profile.held_by("server refused the client's name, database or protocol over TLS");
            return false;
        }
        if !steps.is_empty() {
            self.ledger.was_set_up();
        }
        self.session.profile.connected(self.session.route, &upstream, false);
        if let Some(rewriting) = &mut self.rewriting {
            rewriting.asks(Arc::clone(&upstream.endpoint));
        }
        self.wire = Wire::new(upstream);
        self.upstream_mark = LowWater::default();
        self.relayed = &self.session.route.metrics.relayed_over_tls;
        self.moving = None;
        self.authenticated();
        true
    }

    /// Prepares renewal of pontoon's own login on the upstream connection, and the guard against the client's AUTH.
    pub(super) fn authenticated(&mut self) {
        let ours = self.wire.connection.auth == AuthOutcome::Accepted;
        self.relogin = self.session.route.upstream.credentials().filter(|_| ours).map(|credentials| {
            let connection = &self.wire.connection;
            Box::new(Relogin::new(credentials, connection.authenticated, connection.login_expiry))
        });
        if let Some(relogin) = &self.relogin {
            self.session.profile.reauthenticates(relogin.due());
        }
        let asks = &self.session.route.settings.client_auth;
        if self.session.guard.is_none() && (ours || !matches!(asks, ClientAuth::Forward)) {
            self.session.guard = Some(Box::new(Guard::new(asks.clone())));
        }
    }

    /// Notes that a connection over TLS is being opened for the session.
    pub(in crate::session) fn is_opening(&mut self) {
        self.session.profile.held_by("waiting for a connection over TLS");
    }

    /// Notes that a connection over TLS is ready. The session moves between two commands.
    pub(in crate::session) fn can_move(&mut self) {
        if let Some(moving) = &mut self.moving {
            moving.not_before = Instant::now();
        }
    }

    /// Whether the session can move to a connection over TLS without the client noticing.
    fn is_movable(&mut self) -> bool {
        let Some(moving) = &self.moving else { return false };
        if !moving.latch.is_set() {
            return false;
        }
        let not_before = moving.not_before;
        if !self.ledger.is_free() {
            self.note_hold();
            return false;
        }
        if Instant::now() < not_before || !self.session.client_sends || !self.is_at_rest() {
            return false;
        }
        let movable = self.can_be_set_up_again();
        if let Some(moving) = self.moving.as_mut().filter(|_| movable) {
            moving.not_before = Instant::now() + MOVE_AGAIN;
        }
        movable
    }

    /// Whether all that the client set up can be set up on another connection.
    pub(super) fn can_be_set_up_again(&mut self) -> bool {
        let can = self.session.profile.setup().is_some_and(|setup| setup.steps().is_some());
        if !can {
            self.session.profile.held_by("client or library name too long to set again");
        }
        can
    }

    /// Reports to the inventory why the client stays on its connection, if that lasts.
    pub(super) fn note_hold(&mut self) {
        if let Some(hold) = self.ledger.hold() {
            self.session.profile.held_by(hold);
        }
    }

    /// Whether the connection can serve another client.
    fn is_reusable(&self) -> bool {
        self.is_at_rest()
            && !self.ledger.has_sent_quit()
            && !self.session.route.drain.is_draining()
            && self.wire.connection.is_reusable()
    }

    /// Whether no bytes are under way in either direction, and RESET would undo all that was done.
    pub(super) fn is_at_rest(&self) -> bool {
        self.ledger.is_clean()
            && self.requests.at_boundary()
            && self.replies.at_boundary()
            && self.session.to_client.is_empty()
            && self.rewriting.as_ref().is_none_or(|rewriting| !rewriting.holds())
            && self.session.guard.as_ref().is_none_or(|guard| guard.is_at_rest())
            && self.relogin.as_ref().is_none_or(|relogin| !relogin.is_urgent())
            && self.wire.is_at_rest()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.session.note_drain();
        for _ in 0..RELAY_ROUNDS {
            let moved = scratch::with(|scratch| {
                let login = self.pump_login(cx, scratch);
                let requests = self.pump_requests(cx, scratch);
                let replies = self.pump_replies(cx, scratch);
                Ok::<bool, io::Error>(login? | requests? | replies?)
            });
            let Ok(moved) = moved else { return Poll::Ready(Ended::Client) };
            self.pass_on_end(cx);
            self.observe();
            if let Some(ended) = self.ended() {
                return Poll::Ready(ended);
            }
            if !moved {
                if self.is_movable() {
                    return Poll::Ready(Ended::Movable);
                }
                return self.poll_timers(cx);
            }
            self.session.touch();
            self.session.end_quiet();
            self.timers.unpin = None;
            if self.timers.grace.is_some() && !self.session.route.drain.is_draining() {
                self.timers.grace = None;
                self.timers.grace_over = false;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether the client is not read, because of pontoon's own AUTH, or because it does not read pontoon's replies.
    fn client_must_wait(&self) -> bool {
        self.relogin.as_ref().is_some_and(|relogin| relogin.is_urgent())
            || self.session.guard.as_ref().is_some_and(|guard| guard.has_later())
            || self.ledger.is_setting_up()
            || self.waits_for_name()
            || self.ledger.local_replies() > MAX_LOCAL_REPLIES
            || (self.session.guard.is_some()
                && self.session.to_client.len() > MAX_GUARDED_OUTPUT + self.handed_output())
    }

    pub(super) fn reads_client(&self) -> bool {
        self.aborted.is_none()
            && !self.client_must_wait()
            && (self.session.client_sends || !self.session.input.bytes.is_empty())
            && self.wire.is_open()
            && !self.stops_at_boundary()
    }

    /// Whether pontoon drains, and all requests that had arrived or begun before were sent.
    pub(super) fn stops_at_boundary(&self) -> bool {
        self.session.owes_nothing()
            && self.requests.at_boundary()
            && self.session.input.bytes.is_empty()
            && self.is_framed()
    }

    pub(super) fn is_framed(&self) -> bool {
        self.ledger.opaque().is_none_or(Opaque::is_framed)
    }

    /// Changes the ledger, and counts the session if that makes it opaque.
    #[inline]
    pub(super) fn account<T>(&mut self, book: impl FnOnce(&mut Ledger) -> T) -> T {
        let before = self.ledger.opaque();
        let booked = book(&mut self.ledger);
        if before.is_none()
            && let Some(reason) = self.ledger.opaque()
        {
            self.session.route.metrics.opaque(reason.label());
            // A swallowed or rewritten reply can no longer be distinguished from others.
            let lost_addresses = self.rewriting.as_ref().is_some_and(|rewriting| {
                (rewriting.holds() && !self.follows_replies()) || self.ledger.are_addresses_lost()
            });
            if lost_addresses || self.ledger.is_own_lost() {
                self.aborted = Some(AbortReason::Unmatched);
            }
        }
        booked
    }
}
