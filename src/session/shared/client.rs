//! One client of shared mode: reads its requests, puts those that may be shared on the connection, and says what the others need.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::connection::{SharedConnection, SharedLease, SharedRemote};
use super::hand_off::HandOff;
use super::multiplexer::Multiplexer;
use super::setting_up::PendingSetup;
use super::writer::{ClientWriter, Gone};
use crate::downstream::presence::{self, Presence};
use crate::resp::command_table::{Command, PinReason};
use crate::resp::whole::{Front, Whole};
use crate::session::client_session::Session;
use crate::session::dedicated::Ended;
use crate::session::scratch;
use crate::session::setup::SharingKey;

/// A larger request is sent over a dedicated connection.
pub(super) const MAX_SHARED_REQUEST: usize = 32 * 1024;

/// How long a client with large requests or replies stays pinned at least.
const HEAVY_PIN: Duration = Duration::from_secs(1);

/// While more replies are outstanding, the client is not read.
const MAX_OUTSTANDING: u64 = 16 * 1024;

/// Number of reads in one wake-up. Then other tasks have their turn.
const CLIENT_ROUNDS: usize = 4;

/// What a client needs. No reply is outstanding then, except with `HandedOff`.
pub(super) enum ClientNeed {
    /// A shared connection with this key.
    Shared(SharingKey),
    /// A dedicated connection.
    Own(DedicatedReason),
    /// The client gets its present connection as a dedicated one. Replies may be outstanding.
    HandedOff(Box<HandOff>),
    /// The session has ended.
    Ended(Ended),
    /// The client gets this reply, and the session has ended.
    Quit(&'static [u8]),
    /// The client is cut off because of its output.
    Overrun,
}

/// Why a client needs a dedicated connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DedicatedReason {
    Command(PinReason),
    /// A request is large.
    Large,
    /// Replies are large, or wait for the client to read.
    Heavy,
    /// A request is a line that is not plain, or not RESP.
    Inline,
    /// The table lacks the command. Its name, if the server was not asked about it yet.
    Unknown(Option<Box<[u8]>>),
    /// The thread has too many keys.
    Key,
}

impl DedicatedReason {
    /// The reason as a metric label.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Command(reason) => reason.label(),
            Self::Large => "large_request",
            Self::Heavy => "large_reply",
            Self::Inline => "inline",
            Self::Unknown(_) => "unknown_command",
            Self::Key => "database",
        }
    }

    /// Whether the request stops a script.
    pub(super) fn is_kill(&self) -> bool {
        matches!(self, Self::Command(PinReason::Kill))
    }

    /// Whether the request is WAIT or WAITAOF, which ask about earlier writes.
    pub(super) fn is_wait(&self) -> bool {
        matches!(self, Self::Command(PinReason::Wait))
    }
}

/// The outcome of a look at requests.
pub(super) enum LookOutcome {
    /// More bytes must come first.
    Dry,
    /// More requests may be there.
    More,
    /// Outstanding replies must come first, or the connection has no room.
    Wait,
    /// The reply to a set-up request must come first.
    Asked,
    Next(ClientNeed),
}

pub(super) struct SharedClient<'a> {
    pub(super) session: Session<'a>,
    pub(super) multiplexer: &'a Multiplexer,
    pub(super) writer: Arc<ClientWriter>,
    /// The key of the shared connection.
    pub(super) on: SharingKey,
    pub(super) asked: Option<PendingSetup>,
}

impl<'a> SharedClient<'a> {
    pub(super) fn new(mut session: Session<'a>, multiplexer: &'a Multiplexer) -> Self {
        let nodes = session.route.nodes.as_ref();
        let local_host = nodes.map(|nodes| nodes.advertise().unwrap_or_else(|| session.client.local_host()));
        let writer = Arc::new(ClientWriter::new(session.profile.record(), local_host, session.may_idle()));
        writer.sit(session.client.clone(), std::mem::take(&mut session.to_client));
        Self { session, multiplexer, writer, on: SharingKey::default(), asked: None }
    }

    /// Returns the client's session with the output that waits. Replies that are still outstanding are dropped when they come.
    pub(super) fn into_session(mut self) -> Session<'a> {
        self.session.to_client = self.writer.stand_up();
        self.session
    }

    /// The key of the connection that the client needs.
    pub(super) fn key(&self) -> SharingKey {
        self.session.profile.setup().map(|setup| setup.key.clone()).unwrap_or_default()
    }

    /// Whether the client is on a shared connection with its key.
    pub(super) fn is_in_place(&self) -> bool {
        self.session.profile.setup().is_some_and(|setup| self.on == setup.key)
    }

    /// Notes that the client now uses this shared connection with this key.
    pub(super) fn moved(&mut self, shared: &SharedConnection, key: SharingKey) {
        self.on = key;
        let SharedRemote { dialled, peer, tls } = &shared.upstream;
        self.session.profile.shares(self.session.route, &dialled.endpoint, *peer, *tls);
    }

    /// Whether this refusal of the user answers the client's next request, which authenticates.
    pub(super) fn is_answered_by(&self, reply: &[u8]) -> bool {
        let is_auth = |whole: Whole<'_>| whole.command == Command::AUTH;
        // Older servers answer HELLO with other errors.
        reply.starts_with(b"-WRONGPASS")
            || matches!(Front::of(&self.session.input.bytes), Front::Whole(whole) if is_auth(whole))
    }

    /// The client's next request. Empty: it is not whole.
    pub(super) fn next_request(&self) -> &[u8] {
        match Front::of(&self.session.input.bytes) {
            Front::Whole(whole) => whole.bytes,
            _ => &[],
        }
    }

    /// Answers the client's next request with this reply. `false`: the request is not whole, so it gets no reply.
    pub(super) fn answered(&mut self, reply: &[u8]) -> bool {
        let length = self.next_request().len();
        if length > 0 {
            self.session.input.bytes.drain(..length);
            self.session.looked_at(length);
            self.writer.deliver(reply, 0);
        }
        length > 0
    }

    /// Whether little output waits, so that the client can share although its replies are large. Forgets that it had large replies.
    pub(super) fn is_bearable(&self) -> bool {
        self.writer.is_bearable()
    }

    /// Serves the client over this shared connection until it needs something else.
    pub(super) async fn run(&mut self, shared: &SharedLease) -> ClientNeed {
        self.session.hear_of_drain().await;
        poll_fn(|cx| self.poll(cx, shared)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, shared: &SharedLease) -> Poll<ClientNeed> {
        self.session.note_drain();
        for _ in 0..CLIENT_ROUNDS {
            let standing = self.writer.tend(cx);
            if let Some(hand_off) = self.writer.take_hand_off() {
                return Poll::Ready(ClientNeed::HandedOff(hand_off));
            }
            match standing.gone {
                None => {}
                Some(Gone::Client) => return Poll::Ready(self.reset_by_client(shared)),
                Some(Gone::Upstream) => {
                    return Poll::Ready(ClientNeed::Ended(Ended::Upstream { unanswered: 0, why: None }));
                }
                Some(Gone::Output) => return Poll::Ready(ClientNeed::Overrun),
            }
            self.take_answer(shared);
            let mut what = if self.asked.is_some() {
                LookOutcome::Asked
            } else if self.session.input.bytes.is_empty() {
                LookOutcome::Dry
            } else {
                let input = std::mem::take(&mut self.session.input.bytes);
                let (passed, what) = self.look_within(cx, shared, &input, standing.heavy);
                self.session.input.bytes = input;
                self.consume(passed);
                what
            };
            if let LookOutcome::Dry = what {
                if !self.session.client_sends || self.stops() {
                    return self.poll_end(cx, shared);
                }
                if standing.due > MAX_OUTSTANDING {
                    self.writer.wake_when_answered();
                    return self.poll_unread(cx, shared);
                }
                match self.read(cx, shared, standing.heavy) {
                    Poll::Pending => {
                        self.session.is_read();
                        return self.poll_timers(cx);
                    }
                    Poll::Ready(read) => what = read,
                }
            }
            match what {
                LookOutcome::Next(next) => return Poll::Ready(next),
                LookOutcome::Wait => {
                    self.writer.wake_when_answered();
                    return self.poll_unread(cx, shared);
                }
                LookOutcome::Asked => return self.poll_unread(cx, shared),
                LookOutcome::Dry | LookOutcome::More => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn read(&mut self, cx: &mut Context<'_>, shared: &SharedLease, heavy: bool) -> Poll<LookOutcome> {
        scratch::with(|scratch| {
            let mut read = ReadBuf::new(&mut scratch.request);
            match Pin::new(&mut self.session.client).poll_read(cx, &mut read) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(LookOutcome::Next(self.reset_by_client(shared))),
            }
            let n = read.filled().len();
            if n == 0 {
                self.session.client_sends = false;
                return Poll::Ready(LookOutcome::Dry);
            }
            self.session.touch();
            if !self.session.input.bytes.is_empty() {
                self.session.input.bytes.extend_from_slice(&scratch.request[..n]);
                let input = std::mem::take(&mut self.session.input.bytes);
                let (passed, what) = self.look_within(cx, shared, &input, heavy);
                self.session.input.bytes = input;
                self.consume(passed);
                return Poll::Ready(what);
            }
            let (passed, what) = self.look_within(cx, shared, &scratch.request[..n], heavy);
            if passed < n {
                self.session.input.bytes.extend_from_slice(&scratch.request[passed..n]);
            }
            Poll::Ready(what)
        })
    }

    /// Reads requests. In a drain it reads only those that had begun before.
    #[inline]
    fn look_within(
        &mut self,
        cx: &mut Context<'_>,
        shared: &SharedLease,
        input: &[u8],
        heavy: bool,
    ) -> (usize, LookOutcome) {
        let within = self.session.within();
        let (passed, what) = self.look(cx, shared, input, heavy, within);
        self.session.looked_at(passed);
        (passed, what)
    }

    /// Whether pontoon drains, and all requests that the client had sent before are on the shared connection.
    fn stops(&self) -> bool {
        self.session.owes_nothing()
    }

    /// The client has reset its connection.
    #[cold]
    fn reset_by_client(&self, shared: &SharedLease) -> ClientNeed {
        shared.abandon(&self.writer);
        ClientNeed::Ended(Ended::Client)
    }

    fn consume(&mut self, passed: usize) {
        if passed == self.session.input.bytes.len() {
            // An idle client should hold no memory.
            self.session.input.bytes = Vec::new();
        } else {
            self.session.input.bytes.drain(..passed);
        }
    }

    /// `Ready`: the client has all its replies, and sends no more or must not.
    fn poll_end(&mut self, cx: &mut Context<'_>, shared: &SharedLease) -> Poll<ClientNeed> {
        let standing = self.writer.tend(cx);
        if standing.due == 0 && (standing.waiting == 0 || standing.gone.is_some()) {
            return Poll::Ready(ClientNeed::Ended(if self.session.client_sends {
                Ended::Drained
            } else {
                Ended::Client
            }));
        }
        self.writer.wake_when_answered();
        self.poll_unread(cx, shared)
    }

    /// The client is not read, so the kernel is asked for its end. Once the client has sent its last byte, the upstream may stay silent for
    /// [`presence::QUIET`]. That time stops while output waits for the client.
    fn poll_unread(&mut self, cx: &mut Context<'_>, shared: &SharedLease) -> Poll<ClientNeed> {
        let presence = self.session.poll_presence(cx);
        if presence == Presence::Gone {
            return Poll::Ready(self.reset_by_client(shared));
        }
        if self.session.client_sends && presence == Presence::Sends {
            return self.poll_timers(cx);
        }
        if self.writer.has_output() {
            self.session.end_quiet();
            return self.poll_timers(cx);
        }
        while self.session.quiet().as_mut().poll(cx).is_ready() {
            let heard = shared.state.lock().heard.filter(|heard| heard.elapsed() < presence::QUIET);
            let Some(heard) = heard else { return Poll::Ready(ClientNeed::Ended(Ended::Client)) };
            self.session.quiet().as_mut().reset(heard + presence::QUIET);
        }
        self.poll_timers(cx)
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<ClientNeed> {
        if self.session.poll_cut(cx).is_ready() {
            return Poll::Ready(ClientNeed::Ended(Ended::Cut));
        }
        if self.session.poll_idle(cx, self.writer.last()).is_ready() {
            return Poll::Ready(ClientNeed::Ended(Ended::Idle));
        }
        Poll::Pending
    }

    /// Until when a client that is pinned for this reason stays pinned at least.
    pub(super) fn until(reason: &DedicatedReason) -> Option<Instant> {
        match reason {
            DedicatedReason::Large | DedicatedReason::Heavy => Some(Instant::now() + HEAVY_PIN),
            // Only this connection can answer for its writes, or no shared connection has the client's key.
            DedicatedReason::Command(PinReason::Wait) | DedicatedReason::Key => {
                Some(Instant::now() + Duration::from_secs(365 * 24 * 3600))
            }
            // The command alone needs the connection, or the server cannot say.
            DedicatedReason::Unknown(_) | DedicatedReason::Command(_) | DedicatedReason::Inline => None,
        }
    }
}
