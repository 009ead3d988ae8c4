//! One client of those that share: reads its requests, puts on the line what may go there, and says what else is needed.

mod looking;
mod setting_up;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use self::setting_up::Asked;
use super::hand_off::HandOff;
use super::line::{Hold, Line, Upstream};
use super::seat::{Gone, Seat};
use super::{Hubs, Key};
use crate::downstream::presence::{self, Presence};
use crate::resp::command_table::{Command, PinReason};
use crate::resp::whole::{Front, Whole};
use crate::session::core::Session;
use crate::session::relay::Ended;
use crate::session::scratch;

/// A larger request gets a connection of its own.
pub(super) const LARGE: usize = 32 * 1024;

/// A client with large requests or replies keeps its own connection for so long at least.
const HEAVY: Duration = Duration::from_secs(1);

/// While so many replies are due, no more is read.
const MOST_DUE: u64 = 16 * 1024;

/// Reads in one wake-up, after which others have their turn.
const ROUNDS: usize = 4;

/// What a client needs. No reply is due then.
pub(super) enum Next {
    /// A line of this kind.
    Line(Key),
    /// A connection of its own.
    Own(Reason),
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
pub(super) enum Reason {
    Command(PinReason),
    /// A request is large.
    Large,
    /// Replies are large, or wait to be read.
    Heavy,
    /// A request is written in a line, or is none.
    Inline,
    /// Nobody knows the command here; its name, if the server was not asked.
    Unknown(Option<Box<[u8]>>),
    /// There are too many databases.
    Key,
}

impl Reason {
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

    /// Whether it is about what was written before.
    pub(super) fn is_wait(&self) -> bool {
        matches!(self, Self::Command(PinReason::Wait))
    }
}

/// What comes of looking at requests.
enum What {
    /// More must come.
    Dry,
    /// There may be more.
    More,
    /// Replies that are due must come first, or there is no room.
    Wait,
    /// A reply is awaited that decides something.
    Asked,
    Next(Next),
}

pub(super) struct Member<'a> {
    pub(super) session: Session<'a>,
    hubs: &'a Hubs,
    seat: Arc<Seat>,
    /// The line's.
    on: Key,
    asked: Option<Asked>,
}

impl<'a> Member<'a> {
    pub(super) fn new(mut session: Session<'a>, hubs: &'a Hubs) -> Self {
        let nodes = session.route.nodes.as_ref();
        let local_host = nodes.map(|nodes| nodes.advertise().unwrap_or_else(|| session.client.local_host()));
        let seat = Arc::new(Seat::new(session.about.counter(), local_host, session.may_idle()));
        seat.sit(session.client.clone(), std::mem::take(&mut session.to_client));
        Self { session, hubs, seat, on: Key::default(), asked: None }
    }

    /// The client, with what waits for it. Replies that are still due are nobody's.
    pub(super) fn into_session(mut self) -> Session<'a> {
        self.session.to_client = self.seat.stand_up();
        self.session
    }

    /// What the client can see of its connection.
    pub(super) fn key(&self) -> Key {
        self.session.about.setup().map(|setup| setup.key.clone()).unwrap_or_default()
    }

    /// Whether it is on a line of its kind.
    fn is_in_place(&self) -> bool {
        self.session.about.setup().is_some_and(|setup| self.on == setup.key)
    }

    /// Its line is this one from now on, of this kind.
    pub(super) fn moved(&mut self, line: &Line, key: Key) {
        self.on = key;
        let Upstream { endpoint, peer, tls } = &line.upstream;
        self.session.about.shares(endpoint, *peer, *tls);
    }

    /// Whether the client's next request, which says who it is, would have this reply.
    pub(super) fn is_answered_by(&self, reply: &[u8]) -> bool {
        let is_auth = |whole: Whole<'_>| whole.command == Command::AUTH;
        // To HELLO an older server says something else.
        reply.starts_with(b"-WRONGPASS")
            || matches!(Front::of(&self.session.input.bytes), Front::Whole(whole) if is_auth(whole))
    }

    /// The server does not accept the client's next request: its reply.
    pub(super) fn refused(&mut self, reply: &[u8]) {
        if let Front::Whole(whole) = Front::of(&self.session.input.bytes) {
            let length = whole.bytes.len();
            self.session.input.bytes.drain(..length);
        }
        self.seat.deliver(reply, 0);
    }

    /// It gets or leaves much, but what waits for it is no burden: it can share all the same.
    pub(super) fn is_bearable(&self) -> bool {
        self.seat.is_bearable()
    }

    /// Serves the client over this line, until it needs something else.
    pub(super) async fn run(&mut self, line: &Hold) -> Next {
        self.session.hear_of_drain().await;
        poll_fn(|cx| self.poll(cx, line)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, line: &Hold) -> Poll<Next> {
        self.session.note_drain();
        for _ in 0..ROUNDS {
            let standing = self.seat.tend(cx);
            if let Some(hand_off) = self.seat.take_hand_off() {
                return Poll::Ready(Next::HandedOff(hand_off));
            }
            match standing.gone {
                None => {}
                Some(Gone::Client) => return Poll::Ready(self.reset_by_client(line)),
                Some(Gone::Upstream) => {
                    return Poll::Ready(Next::Ended(Ended::Upstream { unanswered: 0, why: None }));
                }
                Some(Gone::Output) => return Poll::Ready(Next::Overrun),
            }
            self.take_answer(line);
            let mut what = if self.asked.is_some() {
                What::Asked
            } else if self.session.input.bytes.is_empty() {
                What::Dry
            } else {
                let input = std::mem::take(&mut self.session.input.bytes);
                let (passed, what) = self.look_within(cx, line, &input, standing.heavy);
                self.session.input.bytes = input;
                self.consume(passed);
                what
            };
            if let What::Dry = what {
                if !self.session.client_sends || self.stops() {
                    return self.poll_end(cx, line);
                }
                if standing.due > MOST_DUE {
                    self.seat.wake_when_idle();
                    return self.poll_unread(cx, line);
                }
                match self.read(cx, line, standing.heavy) {
                    Poll::Pending => {
                        self.session.is_read();
                        return self.poll_timers(cx);
                    }
                    Poll::Ready(read) => what = read,
                }
            }
            match what {
                What::Next(next) => return Poll::Ready(next),
                What::Wait => {
                    self.seat.wake_when_idle();
                    return self.poll_unread(cx, line);
                }
                What::Asked => return self.poll_unread(cx, line),
                What::Dry | What::More => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn read(&mut self, cx: &mut Context<'_>, line: &Hold, heavy: bool) -> Poll<What> {
        scratch::with(|scratch| {
            let mut read = ReadBuf::new(&mut scratch.request);
            match Pin::new(&mut self.session.client).poll_read(cx, &mut read) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(What::Next(self.reset_by_client(line))),
            }
            let n = read.filled().len();
            if n == 0 {
                self.session.client_sends = false;
                return Poll::Ready(What::Dry);
            }
            self.session.touch();
            if !self.session.input.bytes.is_empty() {
                self.session.input.bytes.extend_from_slice(&scratch.request[..n]);
                let input = std::mem::take(&mut self.session.input.bytes);
                let (passed, what) = self.look_within(cx, line, &input, heavy);
                self.session.input.bytes = input;
                self.consume(passed);
                return Poll::Ready(what);
            }
            let (passed, what) = self.look_within(cx, line, &scratch.request[..n], heavy);
            if passed < n {
                self.session.input.bytes.extend_from_slice(&scratch.request[passed..n]);
            }
            Poll::Ready(what)
        })
    }

    /// Looks at requests. While pontoon is leaving, only at those that had begun before.
    #[inline]
    fn look_within(&mut self, cx: &mut Context<'_>, line: &Hold, input: &[u8], heavy: bool) -> (usize, What) {
        let within = self.session.within();
        let (passed, what) = self.look(cx, line, input, heavy, within);
        self.session.looked_at(passed);
        (passed, what)
    }

    /// pontoon is leaving, and all requests that the client had sent before are on the line.
    fn stops(&self) -> bool {
        self.session.owes_nothing()
    }

    /// The client has reset its connection.
    #[cold]
    fn reset_by_client(&self, line: &Hold) -> Next {
        line.abandon(&self.seat);
        Next::Ended(Ended::Client)
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
    fn poll_end(&mut self, cx: &mut Context<'_>, line: &Hold) -> Poll<Next> {
        let standing = self.seat.tend(cx);
        if standing.due == 0 && (standing.waiting == 0 || standing.gone.is_some()) {
            return Poll::Ready(Next::Ended(if self.session.client_sends {
                Ended::Drained
            } else {
                Ended::Client
            }));
        }
        self.seat.wake_when_idle();
        self.poll_unread(cx, line)
    }

    /// The client is not read, so the kernel is asked for its end. Once it has sent its last byte, the upstream may be silent for
    /// [`presence::QUIET`]. That time does not run while bytes wait for the client.
    fn poll_unread(&mut self, cx: &mut Context<'_>, line: &Hold) -> Poll<Next> {
        let presence = self.session.poll_presence(cx);
        if presence == Presence::Gone {
            return Poll::Ready(self.reset_by_client(line));
        }
        if self.session.client_sends && presence == Presence::Sends {
            return self.poll_timers(cx);
        }
        if self.seat.has_output() {
            self.session.end_quiet();
            return self.poll_timers(cx);
        }
        while self.session.quiet().as_mut().poll(cx).is_ready() {
            let heard = line.state.lock().heard.filter(|heard| heard.elapsed() < presence::QUIET);
            let Some(heard) = heard else { return Poll::Ready(Next::Ended(Ended::Client)) };
            self.session.quiet().as_mut().reset(heard + presence::QUIET);
        }
        self.poll_timers(cx)
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.session.poll_cut(cx).is_ready() {
            return Poll::Ready(Next::Ended(Ended::Cut));
        }
        if self.session.poll_idle(cx, self.seat.last()).is_ready() {
            return Poll::Ready(Next::Ended(Ended::Idle));
        }
        Poll::Pending
    }

    /// A client that is given a connection of its own for this reason keeps it until then at least.
    pub(super) fn until(reason: &Reason) -> Option<Instant> {
        match reason {
            Reason::Large | Reason::Heavy => Some(Instant::now() + HEAVY),
            // The connection knows what it has written; or there is no line for it.
            Reason::Command(PinReason::Wait) | Reason::Key => {
                Some(Instant::now() + Duration::from_secs(365 * 24 * 3600))
            }
            // The server has said so, or cannot say.
            Reason::Unknown(_) | Reason::Command(_) | Reason::Inline => None,
        }
    }
}
