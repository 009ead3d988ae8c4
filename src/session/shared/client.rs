//! One client of those that share: reads its requests, puts on the shared connection what may go there, and says what else is needed.

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

/// A larger request gets a connection of its own.
pub(super) const MAX_SHARED_REQUEST: usize = 32 * 1024;

/// A client with large requests or replies keeps its own connection for so long at least.
const HEAVY_PIN: Duration = Duration::from_secs(1);

/// While so many replies are due, no more is read.
const MAX_OUTSTANDING: u64 = 16 * 1024;

/// Reads in one wake-up, after which others have their turn.
const CLIENT_ROUNDS: usize = 4;

/// What a client needs. No reply is due then.
pub(super) enum ClientNeed {
    /// A shared connection of this kind.
    Shared(SharingKey),
    /// A connection of its own.
    Own(DedicatedReason),
    /// Nothing: it has this one for its own. Replies may be due.
    HandedOff(Box<HandOff>),
    /// Nothing more.
    Ended(Ended),
    /// These words, and nothing more.
    Quit(&'static [u8]),
    /// It is cut off.
    Overrun,
}

/// Why a client needs a connection of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DedicatedReason {
    Command(PinReason),
    /// A request is large.
    Large,
    /// Replies are large, or wait to be read.
    Heavy,
    /// A request is written in a line, or is none.
    Inline,
    /// pontoon does not know the command; its name, if the server was not asked.
    Unknown(Option<Box<[u8]>>),
    /// There are too many databases.
    Key,
}

impl DedicatedReason {
    /// As a metric label.
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

    /// Whether it is about what was written before.
    pub(super) fn is_wait(&self) -> bool {
        matches!(self, Self::Command(PinReason::Wait))
    }
}

/// The outcome of a look at requests.
pub(super) enum LookOutcome {
    /// More must come.
    Dry,
    /// There may be more.
    More,
    /// Replies that are due must come first, or there is no room.
    Wait,
    /// A reply is awaited that decides something.
    Asked,
    Next(ClientNeed),
}

pub(super) struct SharedClient<'a> {
    pub(super) session: Session<'a>,
    pub(super) multiplexer: &'a Multiplexer,
    pub(super) writer: Arc<ClientWriter>,
    /// The shared connection's.
    pub(super) on: SharingKey,
    pub(super) asked: Option<PendingSetup>,
}

impl<'a> SharedClient<'a> {
    pub(super) fn new(mut session: Session<'a>, multiplexer: &'a Multiplexer) -> Self {
        let nodes = session.route.nodes.as_ref();
        let local_host = nodes.map(|nodes| nodes.advertise().unwrap_or_else(|| session.client.local_host()));
        let writer = Arc::new(ClientWriter::new(session.profile.counter(), local_host, session.may_idle()));
        writer.sit(session.client.clone(), std::mem::take(&mut session.to_client));
        Self { session, multiplexer, writer, on: SharingKey::default(), asked: None }
    }

    /// The client, with what waits for it. Replies that are still due are dropped when they come.
    pub(super) fn into_session(mut self) -> Session<'a> {
        self.session.to_client = self.writer.stand_up();
        self.session
    }

    /// What the client can see of its connection.
    pub(super) fn key(&self) -> SharingKey {
        self.session.profile.setup().map(|setup| setup.key.clone()).unwrap_or_default()
    }

    /// Whether it is on a shared connection of its kind.
    pub(super) fn is_in_place(&self) -> bool {
        self.session.profile.setup().is_some_and(|setup| self.on == setup.key)
    }

    /// Its shared connection is this one from now on, of this kind.
    pub(super) fn moved(&mut self, shared: &SharedConnection, key: SharingKey) {
        self.on = key;
        let SharedRemote { dialled, peer, tls } = &shared.upstream;
        self.session.profile.shares(self.session.route, &dialled.endpoint, *peer, *tls);
    }

    /// Whether the client's next request, which says who it is, would have this reply.
    pub(super) fn is_answered_by(&self, reply: &[u8]) -> bool {
        let is_auth = |whole: Whole<'_>| whole.command == Command::AUTH;
        // To HELLO an older server says something else.
        reply.starts_with(b"-WRONGPASS")
            || matches!(Front::of(&self.session.input.bytes), Front::Whole(whole) if is_auth(whole))
    }

    /// The client's next request; empty if it is not whole.
    pub(super) fn next_request(&self) -> &[u8] {
        match Front::of(&self.session.input.bytes) {
            Front::Whole(whole) => whole.bytes,
            _ => &[],
        }
    }

    /// The client's next request has this reply of the server. `false`: it is not whole, and has none.
    pub(super) fn answered(&mut self, reply: &[u8]) -> bool {
        let length = self.next_request().len();
        if length > 0 {
            self.session.input.bytes.drain(..length);
            self.session.looked_at(length);
            self.writer.deliver(reply, 0);
        }
        length > 0
    }

    /// It gets or leaves much, but what waits for it is no burden: it can share all the same.
    pub(super) fn is_bearable(&self) -> bool {
        self.writer.is_bearable()
    }

    /// Serves the client over this shared connection, until it needs something else.
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

    /// Looks at requests. While pontoon is leaving, only at those that had begun before.
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

    /// pontoon is leaving, and all requests that the client had sent before are on the shared connection.
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
            // An idle client holds no memory.
            self.session.input.bytes = Vec::new();
        } else {
            self.session.input.bytes.drain(..passed);
        }
    }

    /// The client sends no more, or is not to: over, once it has its replies.
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

    /// The client is not read, so the kernel is asked for its end. Once it has sent its last byte, the upstream may be silent for
    /// [`presence::QUIET`]. That time does not run while bytes wait for the client.
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

    /// A client that is given a connection of its own for this reason keeps it until then at least.
    pub(super) fn until(reason: &DedicatedReason) -> Option<Instant> {
        match reason {
            DedicatedReason::Large | DedicatedReason::Heavy => Some(Instant::now() + HEAVY_PIN),
            // The connection knows what it has written; or there is no shared connection for it.
            DedicatedReason::Command(PinReason::Wait) | DedicatedReason::Key => {
                Some(Instant::now() + Duration::from_secs(365 * 24 * 3600))
            }
            // The server has said so, or cannot say.
            DedicatedReason::Unknown(_) | DedicatedReason::Command(_) | DedicatedReason::Inline => None,
        }
    }
}
