//! The task of a shared connection: sends what its clients put on it, and gives each its replies.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::{debug, info};

use super::connection::SharedConnection;
use super::hand_off::{self, HandOff, HandedOff};
use super::handing_out::IN_TRANSACTION;
use super::in_flight::Recipient;
use super::multiplexer::Multiplexer;
use super::settings::Settings;
use super::writer::{ClientWriter, Gone, HEAVY_OUTPUT};
use crate::metrics::{GaugeGuard, Relayed};
use crate::resp::replies;
use crate::resp::scanner::ReplyScanner;
use crate::session::context::RouteContext;
use crate::session::dedicated::MOVE_AGAIN;
use crate::session::outage;
use crate::session::output::RouteOutput;
use crate::session::scratch::{self, Scratch};
use crate::session::setup::SharingKey;
use crate::session::wire::Wire;
use crate::upstream::Lease;

/// Number of reads in one wake-up. Then other tasks have their turn.
const DRIVER_ROUNDS: usize = 8;

/// How often the driver checks whether the connection still answers, and whether it is still needed.
const TICK: Duration = Duration::from_secs(1);

/// Number of ticks without a client after which the connection is given back.
const MAX_UNUSED_TICKS: u32 = 10;

/// Number of bytes that may wait for any client.
pub(super) const STALL_OUTPUT: usize = 1024 * 1024;

/// How long an upstream may stay silent with replies outstanding, before it counts as possibly dead.
const SILENCE: Duration = Duration::from_secs(1);

/// How long other clients wait for one that does not read.
const STALL_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Driver {
    pub(super) shared: Arc<SharedConnection>,
    pub(super) wire: Wire,
    pub(super) replies: ReplyScanner,
    pub(super) route: Arc<RouteContext>,
    pub(super) settings: Settings,
    /// Counts the output that waits for the clients of the route.
    pub(super) output: Arc<RouteOutput>,
    pub(super) key: SharingKey,
    /// Whether transactions may be sent over shared connections.
    pub(super) transactions: Arc<AtomicBool>,
    pub(super) taken: Vec<u8>,
    /// The present frame is a push. No client asked for it, so it is dropped.
    pub(super) skips: bool,
    /// The beginning of an error that may name a node.
    pub(super) held: Option<Vec<u8>>,
    /// The client with the most output waiting after the last read, if that is much, and how much waits.
    pub(super) slow: Option<(Arc<ClientWriter>, usize)>,
    /// The client that gets the connection as its own.
    pub(super) heir: Option<(Arc<ClientWriter>, OwnedSemaphorePermit)>,
    /// Set while the server is not read because of this client.
    pub(super) stalled: Option<Stall>,
    pub(super) tick: Pin<Box<Sleep>>,
    /// The tick is far away, because the connection has clients and all of them are idle.
    pub(super) rests: bool,
    /// Completes when the connection must serve no client any longer, and is `None` from then on.
    pub(super) retired: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Completes when the connection, which is in plaintext, is to be replaced by one with TLS.
    pub(super) upgrade: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Number of ticks without a client.
    pub(super) unused: u32,
    /// The server replied READONLY. Its clients continue over another connection.
    pub(super) read_only: bool,
}

/// Why the server is not read: a client has not read enough.
pub(super) struct Stall {
    writer: Arc<ClientWriter>,
    /// The limit that was exceeded is that of all clients of the route.
    of_route: bool,
    patience: Pin<Box<Sleep>>,
}

impl Driver {
    pub(super) fn new(
        shared: &Arc<SharedConnection>,
        connection: Lease,
        route: &Arc<RouteContext>,
        settings: Settings,
        output: Arc<RouteOutput>,
        key: SharingKey,
        transactions: Arc<AtomicBool>,
    ) -> Self {
        let retired = Some(Box::pin(connection.generation.retired(key.user.is_some())));
        let latch = route.upstream.latch().filter(|_| connection.channel.is_none());
        let upgrade = latch.map(|latch| Box::pin(latch.wait()) as Pin<Box<_>>);
        Self {
            shared: Arc::clone(shared),
            wire: Wire::new(connection),
            replies: ReplyScanner::default(),
            route: Arc::clone(route),
            settings,
            output,
            key,
            transactions,
            taken: Vec::new(),
            skips: false,
            held: None,
            slow: None,
            heir: None,
            stalled: None,
            tick: Box::pin(sleep(TICK)),
            rests: false,
            retired,
            upgrade,
            unused: 0,
            read_only: false,
        }
    }

    /// Drives the connection until it is lost or no client needs it.
    pub(super) async fn run(mut self) {
        let route = Arc::clone(&self.route);
        let plaintext = self.wire.connection.channel.is_none();
        let _active = GaugeGuard::new(&route.metrics.upstream_shared);
        let _in_plaintext = plaintext.then(|| GaugeGuard::new(&route.metrics.upstream_plaintext));
        poll_fn(|cx| {
            self.shared.driven_by(cx.waker());
            Poll::Ready(())
        })
        .await;
        poll_fn(|cx| self.poll(cx)).await;
        if let Some((writer, permit)) = self.heir.take() {
            return self.hand_off(&writer, permit);
        }
        self.shared.close();
        self.fail();
        let heir = self.shared.heir();
        {
            let mut state = self.shared.state.lock();
            self.wire.connection.seen_id = state.seen_id;
            self.wire.connection.passed_on = state.passed_on.take();
        }
        if self.wire.is_at_rest() && self.replies.at_boundary() && !route.drain.is_draining() {
            let unclaimed = match heir {
                None => Some(self.wire),
                Some(heir) => heir.send(self.wire).err(),
            };
            if let Some(mut wire) = unclaimed {
                wire.release(true);
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..DRIVER_ROUNDS {
            let moved = scratch::with(|scratch| {
                let sent = self.send(cx, scratch);
                let received = self.receive(cx, scratch);
                sent | received
            });
            if self.wire.is_lost() {
                self.heir = None;
            }
            if self.wire.is_lost() || self.heir.is_some() || self.is_over() {
                return Poll::Ready(());
            }
            if !moved {
                self.hear_of_retirement(cx);
                self.hear_of_tls(cx);
                if self.is_over() {
                    return Poll::Ready(());
                }
                if self.rests && self.has_work() {
                    self.tick.as_mut().reset(Instant::now() + TICK);
                    self.rests = false;
                }
                while self.tick.as_mut().poll(cx).is_ready() {
                    self.look();
                    if self.heir.is_some() {
                        scratch::with(|scratch| self.send_rest(cx, scratch));
                    }
                    if self.heir.is_some() || self.is_over() {
                        return Poll::Ready(());
                    }
                    self.rests = !self.has_work();
                    let next = Instant::now() + TICK;
                    let next = if self.rests { next.max(self.wire.connection.expires) } else { next };
                    self.tick.as_mut().reset(next);
                }
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_over(&self) -> bool {
        let state = self.shared.state.lock();
        (state.is_closed() && state.is_idle())
            || (state.is_unused() && (self.unused >= MAX_UNUSED_TICKS || self.route.drain.is_draining()))
    }

    /// Whether the connection has outstanding replies, a client that does not read, or no client.
    fn has_work(&self) -> bool {
        let state = self.shared.state.lock();
        self.stalled.is_some() || !state.is_idle() || state.is_unused()
    }

    /// Closes the connection once it must serve no client any longer. Clients continue over another one without noticing. During a
    /// drain this one will do.
    fn hear_of_retirement(&mut self, cx: &mut Context<'_>) {
        if let Some(retired) = &mut self.retired
            && retired.as_mut().poll(cx).is_ready()
        {
            self.retired = None;
            if !self.route.drain.is_draining() {
                self.shared.close();
            }
        }
    }

    /// Once the endpoint accepts TLS, replaces the connection in plaintext, also if its route was changed meanwhile: with the settings of
    /// that time, TLS may never succeed.
    fn hear_of_tls(&mut self, cx: &mut Context<'_>) {
        while let Some(upgrade) = &mut self.upgrade
            && upgrade.as_mut().poll(cx).is_ready()
        {
            let ends = !self.shared.is_open() || self.route.drain.is_draining();
            if !ends && let Some(multiplexer) = &self.route.multiplexer {
                multiplexer.upgrade(&self.route, &self.key, &self.shared);
                self.upgrade = Some(Box::pin(sleep(MOVE_AGAIN)));
            } else {
                self.upgrade = None;
            }
        }
    }

    /// Runs once a tick.
    fn look(&mut self) {
        if let Some(stall) = &self.stalled {
            let writer = Arc::clone(&stall.writer);
            if self.try_hand_off(&writer) {
                self.stalled = None;
                return;
            }
        }
        let (unused, silent) = {
            let mut state = self.shared.state.lock();
            let silent = self.stalled.is_none() && !state.is_relieved && state.is_silent_for(SILENCE);
            state.is_relieved |= silent;
            (state.is_unused(), silent)
        };
        self.unused = if unused { self.unused + 1 } else { 0 };
        if silent && let Some(multiplexer) = &self.route.multiplexer {
            multiplexer.relieve(&self.route, &self.key, &self.shared);
            if let Some(suppressed) = self.route.throttle.allow("silent") {
                info!(
                    route = &*self.route.route,
                    upstream = %self.wire.connection.endpoint,
                    suppressed,
                    "shared connection silent with replies outstanding, opening another for new clients"
                );
            }
        }
        if !self.route.drain.is_draining() && self.wire.connection.expires <= Instant::now() {
            self.shared.close();
        }
    }

    fn send(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> bool {
        if self.wire.poll_flush(cx).is_pending() || self.wire.is_lost() {
            return false;
        }
        self.shared.take(&mut self.taken);
        if self.taken.is_empty() {
            return false;
        }
        let taken = std::mem::take(&mut self.taken);
        let relayed = relayed(&self.route, &self.wire);
        self.wire.send(cx, &taken, &mut scratch.sealed, relayed);
        self.taken = taken;
        self.taken.clear();
        true
    }

    fn receive(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> bool {
        if self.is_stalled(cx) {
            return false;
        }
        let relayed = relayed(&self.route, &self.wire);
        let Some(plain) = self.wire.receive(cx, scratch, relayed) else { return false };
        self.shared.state.lock().heard = Some(Instant::now());
        if self.route.nodes.is_some() {
            self.hand_out_rewritten(plain);
        } else {
            self.hand_out(plain);
        }
        if std::mem::take(&mut self.read_only) {
            self.shared.close();
        }
        let within = !self.replies.at_boundary() && !self.skips;
        let (slow, took) = {
            let in_flight = &mut self.shared.state.lock().in_flight;
            (in_flight.slow(within), if within { in_flight.begun() } else { None })
        };
        if let Some(took) = took {
            self.route.metrics.request_seconds.record(took);
        }
        if let Some(slow) = slow {
            slow.log(&self.route, &self.wire.connection, slow.client.as_deref());
        }
        self.stall();
        if self.heir.is_some() {
            self.send_rest(cx, scratch);
        }
        true
    }

    /// Sends what was put on the shared connection before it was closed.
    fn send_rest(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) {
        self.shared.take(&mut self.taken);
        let relayed = relayed(&self.route, &self.wire);
        self.wire.send(cx, &self.taken, &mut scratch.sealed, relayed);
    }

    /// Stops reading the server while a client has more output waiting than `client_output`. [`STALL_OUTPUT`] is enough if all outstanding
    /// replies are for that client. Any output is enough while the route exceeds `route_output`.
    fn stall(&mut self) {
        let Some((writer, waiting)) = self.slow.take() else { return };
        // A client that reads now and then has little output waiting. It does not get the connection for that.
        if waiting <= HEAVY_OUTPUT {
            if self.output.is_exceeded() {
                self.stall_for(writer, true);
            }
            return;
        }
        if self.try_hand_off(&writer) {
            return;
        }
        let alone = self.shared.state.lock().in_flight.iter().all(|due| Arc::ptr_eq(&due.writer, &writer));
        if waiting > self.settings.client_output / 2 {
            // Others move to another connection, so that this client will be alone.
            self.shared.close();
        }
        let too_much = waiting > self.settings.client_output || alone;
        if too_much || self.output.is_exceeded() {
            // Clients without outstanding requests continue elsewhere.
            self.shared.close();
            self.stall_for(writer, !too_much);
        }
    }

    fn stall_for(&mut self, writer: Arc<ClientWriter>, of_route: bool) {
        self.stalled = Some(Stall { writer, of_route, patience: Box::pin(sleep(STALL_TIMEOUT)) });
        self.shared.state.lock().in_flight.log_no_slow();
    }

    /// Begins to hand the connection off to the one client that all outstanding replies are for, if it may be pinned. `false`: not now.
    fn try_hand_off(&mut self, writer: &Arc<ClientWriter>) -> bool {
        let can_be = {
            let state = self.shared.state.lock();
            state.in_flight.iter().all(|due| due.recipient != Recipient::Task && Arc::ptr_eq(&due.writer, writer))
                // Another client asked WAIT about its writes on this connection.
                && !state.has_heir()
        };
        // No client may get a push that has arrived in part.
        if !can_be || (self.skips && !self.replies.at_boundary()) || self.route.drain.is_draining() {
            return false;
        }
        let Some(permit) = self.route.multiplexer.as_ref().and_then(Multiplexer::try_pin) else {
            return false;
        };
        self.shared.close();
        self.heir = Some((Arc::clone(writer), permit));
        true
    }

    /// Hands the connection off to the client that all outstanding replies are for.
    fn hand_off(self, writer: &ClientWriter, permit: OwnedSemaphorePermit) {
        let mut wire = self.wire;
        let ledger = {
            let mut state = self.shared.state.lock();
            wire.connection.seen_id = state.seen_id;
            wire.connection.passed_on = state.passed_on.take();
            let due = state.in_flight.take();
            hand_off::ledger(self.key.resp3, &due)
        };
        let connection =
            HandedOff { id: self.shared.id, wire, replies: self.replies, held: self.held, ledger };
        writer.hand_off(HandOff { connection, permit });
    }

    /// Whether the server is still not read, because of a client that does not read. Once other clients wait too, only until `patience` has
    /// run out.
    fn is_stalled(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(Stall { writer, of_route, patience }) = &mut self.stalled else { return false };
        let waiting = writer.waiting(cx.waker());
        let goes_on =
            if *of_route { waiting == 0 || !self.output.is_exceeded() } else { waiting <= STALL_OUTPUT / 2 };
        if goes_on {
            self.stalled = None;
            return false;
        }
        let others = self.shared.state.lock().in_flight.iter().any(|due| !Arc::ptr_eq(&due.writer, writer));
        if patience.as_mut().poll(cx).is_ready() && others {
            if *of_route {
                self.output.cut_off_largest(writer.output());
            } else {
                writer.leave(Gone::Output);
            }
            self.stalled = None;
            return false;
        }
        true
    }

    /// Notifies the clients whose replies will not come.
    fn fail(&mut self) {
        let unanswered = self.shared.state.lock().in_flight.take();
        let why = self.wire.why().map(str::to_owned);
        let endpoint = &self.wire.connection.endpoint;
        if self.wire.is_lost() {
            debug!(route = &*self.route.route, upstream = %endpoint, why, "shared connection lost");
        }
        if unanswered.is_empty() {
            return;
        }
        let requests: u64 = unanswered.iter().map(|due| due.count).sum();
        self.route.upstream.lost(&self.wire.connection.dialled());
        if let Some(nodes) = &self.route.nodes {
            nodes.refresh(None);
        }
        if let Some(suppressed) = self.route.throttle.allow("shared connection lost") {
            info!(
                route = &*self.route.route,
                upstream = %endpoint,
                requests,
                suppressed,
                "shared connection lost with requests outstanding"
            );
        }
        let error = replies::error_reply(&outage::loss(endpoint, why.as_deref()));
        let mut within = !self.replies.at_boundary() && !self.skips && self.held.is_none();
        // The server answered EXEC with an error. That is not an outage, so the client gets an error, too.
        let mut was_refused = why.as_deref() == Some(IN_TRANSACTION) && !self.route.is_node;
        for due in unanswered {
            let replies = outage::reports_loss(&self.route) || std::mem::take(&mut was_refused);
            if !replies || std::mem::take(&mut within) {
                due.writer.forget(due.count);
                due.writer.leave(Gone::Upstream);
            } else if due.recipient == Recipient::Task {
                due.writer.answer(&error, true);
            } else {
                for _ in 0..due.count {
                    due.writer.deliver(&error, 1);
                }
            }
        }
    }
}

fn relayed<'a>(route: &'a RouteContext, wire: &Wire) -> &'a Relayed {
    let over_tls = wire.connection.channel.is_some();
    if over_tls { &route.metrics.relayed_over_tls } else { &route.metrics.relayed_in_plaintext }
}
