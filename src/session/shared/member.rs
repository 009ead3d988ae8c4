//! One client of those that share: reads its requests, puts on the line what may go there, and says what else is needed.

mod looking;
mod setting_up;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use self::setting_up::Asked;
use super::hand_off::HandOff;
use super::line::{Hold, Line, Upstream};
use super::seat::{Gone, Seat};
use super::{Hubs, Key};
use crate::downstream::presence::{self, Presence, PresenceCheck};
use crate::downstream::{ClientStream, ReadHalf};
use crate::resp::command_table::{Command, PinReason};
use crate::resp::whole::{Front, Whole};
use crate::session::Context as Route;
use crate::session::about::About;
use crate::session::guard::Guard;
use crate::session::outbox::Outbox;
use crate::session::owed::Owed;
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

/// Where a client's last writes went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::session) enum LastWrites {
    /// There were none.
    None,
    /// Over the shared connection with this number.
    Line(u64),
    /// Over a connection that the client does not have any more.
    Gone,
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
    route: &'a Arc<Route>,
    hubs: &'a Hubs,
    reader: ReadHalf,
    seat: Arc<Seat>,
    about: About,
    guard: Option<Box<Guard>>,
    /// The line's.
    on: Key,
    /// What was read and is not on the line.
    input: Vec<u8>,
    /// Where the client's last writes went.
    last_writes: LastWrites,
    asked: Option<Asked>,
    client_sends: bool,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Once pontoon is leaving.
    owed: Option<Owed>,
    timers: Option<Box<Timers>>,
}

/// Few members have one.
#[derive(Default)]
struct Timers {
    idle: Option<Pin<Box<Sleep>>>,
    cut: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// While the client is not read, or sends no more.
    presence: Option<PresenceCheck>,
    /// The client sends no more: until when the upstream may be silent.
    quiet: Option<Pin<Box<Sleep>>>,
}

/// What it takes to serve a client in another way.
pub(super) struct Parts {
    pub(super) client: ClientStream,
    pub(super) about: About,
    pub(super) guard: Option<Box<Guard>>,
    pub(super) input: Vec<u8>,
    pub(super) output: Outbox,
    pub(super) last_writes: LastWrites,
}

impl<'a> Member<'a> {
    pub(super) fn new(
        client: ClientStream,
        route: &'a Arc<Route>,
        hubs: &'a Hubs,
        about: About,
        guard: Option<Box<Guard>>,
        input: Vec<u8>,
    ) -> Self {
        let local_host =
            route.nodes.as_ref().map(|nodes| nodes.advertise().unwrap_or_else(|| client.local_host()));
        let idle = route.settings.idle_timeout;
        let seat = Arc::new(Seat::new(
            about.counter(),
            local_host,
            idle.is_some(),
            route.metrics.request_seconds.clone(),
        ));
        let (reader, writer) = client.into_split();
        seat.sit(writer);
        let timers = idle.map(|timeout| Timers { idle: Some(Box::pin(sleep(timeout))), ..Timers::default() });
        Self {
            route,
            hubs,
            reader,
            seat,
            about,
            guard,
            on: Key::default(),
            input,
            last_writes: LastWrites::None,
            asked: None,
            client_sends: true,
            draining: Box::pin(route.drain.started()),
            owed: None,
            timers: timers.map(Box::new),
        }
    }

    /// Where the client's last writes went: WAIT is for that connection.
    pub(super) fn last_writes(&self) -> LastWrites {
        self.last_writes
    }

    /// The client's last writes went there.
    pub(super) fn wrote(&mut self, last_writes: LastWrites) {
        self.last_writes = last_writes;
    }

    /// Its number, as in the log.
    pub(super) fn number(&self) -> u64 {
        self.about.number()
    }

    pub(super) fn about(&self) -> &About {
        &self.about
    }

    /// What the client can see of its connection.
    pub(super) fn key(&self) -> Key {
        self.about.setup().map(|setup| setup.key.clone()).unwrap_or_default()
    }

    /// Whether it is on a line of its kind.
    fn is_in_place(&self) -> bool {
        self.about.setup().is_some_and(|setup| self.on == setup.key)
    }

    /// Its line is this one from now on, of this kind.
    pub(super) fn moved(&mut self, line: &Line, key: Key) {
        self.on = key;
        let Upstream { endpoint, peer, tls } = &line.upstream;
        self.about.shares(endpoint, *peer, *tls);
    }

    /// Whether the client's next request, which says who it is, would have this reply.
    pub(super) fn is_answered_by(&self, reply: &[u8]) -> bool {
        let is_auth = |whole: Whole<'_>| whole.command == Command::AUTH;
        // To HELLO an older server says something else.
        reply.starts_with(b"-WRONGPASS")
            || matches!(Front::of(&self.input), Front::Whole(whole) if is_auth(whole))
    }

    /// The server does not accept the client's next request: its reply.
    pub(super) fn refused(&mut self, reply: &[u8]) {
        if let Front::Whole(whole) = Front::of(&self.input) {
            let length = whole.bytes.len();
            self.input.drain(..length);
        }
        self.seat.deliver(reply, 0);
    }

    /// To take leave, once it has had what waits for it. Replies that are still due are nobody's.
    pub(super) fn into_client(self) -> Option<(ClientStream, Outbox)> {
        let seat = Arc::clone(&self.seat);
        let parts = self.into_parts();
        seat.leave(Gone::Client);
        parts.map(|parts| (parts.client, parts.output))
    }

    /// It gets or leaves much, but what waits for it is no burden: it can share all the same.
    pub(super) fn is_bearable(&self) -> bool {
        self.seat.is_bearable()
    }

    /// Completes when the client is gone, while it is not read.
    pub(super) async fn gone(&self) {
        let owed = || !self.input.is_empty() || self.reader.unread() > 0;
        presence::gone(|| self.reader.presence(), owed).await;
    }

    /// `None`: its socket is gone.
    pub(super) fn into_parts(self) -> Option<Parts> {
        let (writer, output) = self.seat.stand_up();
        let client = ClientStream::reunite(self.reader, writer?)?;
        let last_writes = self.last_writes;
        Some(Parts { client, about: self.about, guard: self.guard, input: self.input, output, last_writes })
    }

    /// Serves the client over this line, until it needs something else.
    pub(super) async fn run(&mut self, line: &Hold) -> Next {
        // Registered once: a task's waker stays the same, and later wake-ups ask an atomic flag instead.
        poll_fn(|cx| {
            let _ = self.draining.as_mut().poll(cx);
            Poll::Ready(())
        })
        .await;
        poll_fn(|cx| self.poll(cx, line)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, line: &Hold) -> Poll<Next> {
        if self.owed.is_none() && self.route.drain.is_draining() {
            self.owed = Some(Owed::new(self.reader.unread() + self.input.len()));
        }
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
            } else if self.input.is_empty() {
                What::Dry
            } else {
                let input = std::mem::take(&mut self.input);
                let (passed, what) = self.look_within(cx, line, &input, standing.heavy);
                self.input = input;
                self.consume(passed);
                what
            };
            if let What::Dry = what {
                if !self.client_sends || self.stops() {
                    return self.poll_end(cx, line);
                }
                if standing.due > MOST_DUE {
                    self.seat.wake_when_idle();
                    return self.poll_unread(cx, line);
                }
                match self.read(cx, line, standing.heavy) {
                    Poll::Pending => {
                        self.is_read();
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
            match Pin::new(&mut self.reader).poll_read(cx, &mut read) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(What::Next(self.reset_by_client(line))),
            }
            let n = read.filled().len();
            if n == 0 {
                self.client_sends = false;
                return Poll::Ready(What::Dry);
            }
            if self.route.settings.idle_timeout.is_some() {
                self.seat.touch();
            }
            if !self.input.is_empty() {
                self.input.extend_from_slice(&scratch.request[..n]);
                let input = std::mem::take(&mut self.input);
                let (passed, what) = self.look_within(cx, line, &input, heavy);
                self.input = input;
                self.consume(passed);
                return Poll::Ready(what);
            }
            let (passed, what) = self.look_within(cx, line, &scratch.request[..n], heavy);
            if passed < n {
                self.input.extend_from_slice(&scratch.request[passed..n]);
            }
            Poll::Ready(what)
        })
    }

    /// Looks at requests. While pontoon is leaving, only at those that had begun before.
    #[inline]
    fn look_within(&mut self, cx: &mut Context<'_>, line: &Hold, input: &[u8], heavy: bool) -> (usize, What) {
        let within = self.owed.as_ref().map_or(usize::MAX, Owed::bytes);
        let (passed, what) = self.look(cx, line, input, heavy, within);
        if let Some(owed) = &mut self.owed {
            owed.looked_at(passed);
        }
        (passed, what)
    }

    /// pontoon is leaving, and all requests that the client had sent before are on the line.
    fn stops(&self) -> bool {
        self.owed.as_ref().is_some_and(|owed| owed.bytes() == 0)
    }

    /// The client has reset its connection.
    #[cold]
    fn reset_by_client(&self, line: &Hold) -> Next {
        line.abandon(&self.seat);
        Next::Ended(Ended::Client)
    }

    fn consume(&mut self, passed: usize) {
        if passed == self.input.len() {
            // An idle client holds no memory.
            self.input = Vec::new();
        } else {
            self.input.drain(..passed);
        }
    }

    /// The client sends no more, or is not to: over, once it has its replies.
    fn poll_end(&mut self, cx: &mut Context<'_>, line: &Hold) -> Poll<Next> {
        let standing = self.seat.tend(cx);
        if standing.due == 0 && (standing.waiting == 0 || standing.gone.is_some()) {
            return Poll::Ready(Next::Ended(if self.client_sends { Ended::Drained } else { Ended::Client }));
        }
        self.seat.wake_when_idle();
        self.poll_unread(cx, line)
    }

    /// The client is not read, so the kernel is asked for its end. Once it has sent its last byte, the upstream may be silent for
    /// [`presence::QUIET`]. That time does not run while bytes wait for the client.
    fn poll_unread(&mut self, cx: &mut Context<'_>, line: &Hold) -> Poll<Next> {
        let timers = self.timers.get_or_insert_default();
        let presence = timers.presence.get_or_insert_default();
        let presence = presence.poll(cx, || self.reader.presence());
        if presence == Presence::Gone {
            return Poll::Ready(self.reset_by_client(line));
        }
        if self.client_sends && presence == Presence::Sends {
            return self.poll_timers(cx);
        }
        if self.seat.has_output() {
            timers.quiet = None;
            return self.poll_timers(cx);
        }
        let quiet = timers.quiet.get_or_insert_with(|| Box::pin(sleep(presence::QUIET)));
        while quiet.as_mut().poll(cx).is_ready() {
            let heard = line.state.lock().heard.filter(|heard| heard.elapsed() < presence::QUIET);
            let Some(heard) = heard else { return Poll::Ready(Next::Ended(Ended::Client)) };
            quiet.as_mut().reset(heard + presence::QUIET);
        }
        self.poll_timers(cx)
    }

    /// The client is read, which shows its end. An idle client holds no memory.
    fn is_read(&mut self) {
        if let Some(timers) = &mut self.timers {
            (timers.presence, timers.quiet) = (None, None);
            if timers.idle.is_none() && timers.cut.is_none() {
                self.timers = None;
            }
        }
    }

    fn poll_timers(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if self.route.drain.is_draining() {
            let timers = self.timers.get_or_insert_default();
            let cut = timers.cut.get_or_insert_with(|| Box::pin(self.route.drain.cut_off()));
            if cut.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Next::Ended(Ended::Cut));
            }
        }
        let idle = self.timers.as_mut().and_then(|timers| timers.idle.as_mut());
        if let (Some(idle), Some(timeout)) = (idle, self.route.settings.idle_timeout) {
            while idle.as_mut().poll(cx).is_ready() {
                let last = self.seat.last().unwrap_or_else(Instant::now);
                if last.elapsed() >= timeout {
                    return Poll::Ready(Next::Ended(Ended::Idle));
                }
                idle.as_mut().reset(last + timeout);
            }
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
