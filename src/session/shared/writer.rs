//! Where a client sits while others write to it: its socket's writing half, what the socket would not take yet, and how many
//! replies are due.
//!
//! All who touch it run on the client's own thread: the lock is there for the compiler, and never waited for.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::hand_off::HandOff;

use crate::clients::{Counter, SessionRecord};
use crate::downstream::ClientStream;
use crate::endpoint::Host;
use crate::session::outbox::Outbox;
use crate::session::output::ClientOutput;

/// Of a reply to what pontoon asks for a client. That to HELLO names some modules.
const MAX_SETUP_REPLY: usize = 256 * 1024;

/// A larger reply is worth a connection of its own.
const HEAVY_REPLY: u64 = 32 * 1024;

/// More that waits is, too.
pub(super) const HEAVY_OUTPUT: usize = 256 * 1024;

/// One client's.
pub(super) struct ClientWriter {
    counter: Counter,
    /// What the client is told of a cluster's nodes.
    pub(super) local_host: Option<Host>,
    state: Mutex<WriterState>,
}

#[derive(Default)]
struct WriterState {
    stream: Option<ClientStream>,
    outbox: Outbox,
    /// Requests without a reply.
    due: u64,
    /// The client's task wants to know when none is.
    waits: bool,
    task: Option<Waker>,
    /// Of the present reply so much has gone by.
    passed: usize,
    /// It gets or leaves much at once.
    heavy: bool,
    /// The answer to what was asked for the client, and its beginning.
    answer: Option<Vec<u8>>,
    answering: Vec<u8>,
    gone: Option<Gone>,
    /// The connection that its replies come over, for its own.
    hand_off: Option<Box<HandOff>>,
    /// Waits until the client has read.
    reader_waits: Option<Waker>,
    last: Option<Instant>,
}

/// Why nothing more is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// The client does not take it.
    Client,
    /// The connection was lost within a reply, or where its loss is told by the end.
    Upstream,
    /// `limits.client_output`.
    Output,
}

/// How it stands.
pub(super) struct WriterStatus {
    pub(super) gone: Option<Gone>,
    pub(super) due: u64,
    pub(super) waiting: usize,
    pub(super) heavy: bool,
}

impl ClientWriter {
    pub(super) fn new(counter: Counter, local_host: Option<Host>, idles: bool) -> Self {
        let state = WriterState { last: idles.then(Instant::now), ..WriterState::default() };
        Self { counter, local_host, state: Mutex::new(state) }
    }

    /// Whose it is.
    pub(super) fn client(&self) -> &Arc<SessionRecord> {
        self.counter.session()
    }

    /// The client is written to here from now on, after what waits for it.
    pub(super) fn sit(&self, client: ClientStream, output: Outbox) {
        let mut state = self.state.lock();
        (state.stream, state.outbox) = (Some(client), output);
    }

    /// It is not any more: what waits for it.
    pub(super) fn stand_up(&self) -> Outbox {
        let mut state = self.state.lock();
        let output = std::mem::take(&mut state.outbox);
        state.stream = None;
        state.leave(Gone::Client);
        output
    }

    /// A wake-up of the client's task: sends what waits, and tells how things stand.
    pub(super) fn tend(&self, cx: &mut Context<'_>) -> WriterStatus {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.task.as_ref().is_none_or(|task| !task.will_wake(cx.waker())) {
            state.task = Some(cx.waker().clone());
        }
        if !state.outbox.is_empty()
            && let Some(stream) = &mut state.stream
        {
            if let Poll::Ready(Err(_)) = state.outbox.poll_flush(cx, stream) {
                state.leave(Gone::Client);
            }
            if let Some(reader) = state.reader_waits.take() {
                reader.wake();
            }
        }
        state.waits = false;
        WriterStatus {
            gone: state.gone,
            due: state.due,
            waiting: state.outbox.len(),
            heavy: state.heavy || state.outbox.len() > HEAVY_OUTPUT,
        }
    }

    /// Requests were sent.
    #[inline]
    pub(super) fn owes(&self, count: u64) {
        self.state.lock().due += count;
    }

    /// Whether bytes wait for the client to read.
    pub(super) fn has_output(&self) -> bool {
        !self.state.lock().outbox.is_empty()
    }

    /// Where what waits for the client is counted.
    pub(super) fn output(&self) -> Option<Arc<ClientOutput>> {
        self.state.lock().outbox.counted().cloned()
    }

    /// Replies due.
    pub(super) fn due(&self) -> u64 {
        self.state.lock().due
    }

    /// Has the client's task woken when no reply is due.
    pub(super) fn wake_when_answered(&self) {
        self.state.lock().waits = true;
    }

    /// When a reply passed last; `None` without `limits.idle_timeout`.
    pub(super) fn last(&self) -> Option<Instant> {
        self.state.lock().last
    }

    /// The answer to what was asked for the client.
    pub(super) fn take_answer(&self) -> Option<Vec<u8>> {
        self.state.lock().answer.take()
    }

    /// Bytes for the client, in which so many replies end. Returns how many wait.
    pub(super) fn deliver(&self, bytes: &[u8], replies: u64) -> usize {
        self.counter.received(bytes.len());
        let mut state = self.state.lock();
        state.passed += bytes.len();
        // Of several, as they are on the average.
        state.heavy |= state.passed as u64 > HEAVY_REPLY * replies.max(1);
        if replies > 0 {
            state.passed = 0;
        }
        state.write(bytes);
        state.answered(replies);
        state.outbox.len()
    }

    /// A part of an answer that the client's task asked for. `false`: it is longer than any.
    pub(super) fn answer(&self, bytes: &[u8], whole: bool) -> bool {
        let mut state = self.state.lock();
        if state.answering.len() + bytes.len() > MAX_SETUP_REPLY {
            state.answering = Vec::new();
            return false;
        }
        state.answering.extend_from_slice(bytes);
        if whole {
            state.answer = Some(std::mem::take(&mut state.answering));
            state.answered(1);
            state.wake();
        }
        true
    }

    /// Forgets that it got much, where little waits. Whether little does.
    pub(super) fn is_bearable(&self) -> bool {
        let mut state = self.state.lock();
        state.heavy = false;
        state.outbox.len() <= HEAVY_OUTPUT
    }

    /// Nothing more is written.
    pub(super) fn leave(&self, why: Gone) {
        self.state.lock().leave(why);
    }

    /// The client has this connection for its own: replies that are due come to it there.
    pub(super) fn hand_off(&self, hand_off: HandOff) {
        let mut state = self.state.lock();
        (state.due, state.passed) = (0, 0);
        state.hand_off = Some(Box::new(hand_off));
        state.wake();
    }

    /// The connection that the client has for its own from now on.
    pub(super) fn take_hand_off(&self) -> Option<Box<HandOff>> {
        self.state.lock().hand_off.take()
    }

    /// So many replies are not to come.
    pub(super) fn forget(&self, replies: u64) {
        self.state.lock().answered(replies);
    }

    /// Bytes that wait for the client; `waker` is woken when it has read some. 0: nobody is there to read them.
    pub(super) fn waiting(&self, waker: &Waker) -> usize {
        let mut state = self.state.lock();
        if state.gone.is_some() {
            return 0;
        }
        state.reader_waits = Some(waker.clone());
        state.outbox.len()
    }
}

impl WriterState {
    fn write(&mut self, mut bytes: &[u8]) {
        if self.gone.is_some() {
            return;
        }
        if self.last.is_some() {
            self.last = Some(Instant::now());
        }
        if self.outbox.is_empty()
            && let Some(stream) = &self.stream
        {
            while !bytes.is_empty() {
                match stream.try_write(bytes) {
                    Ok(n @ 1..) => bytes = &bytes[n..],
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                    Ok(0) | Err(_) => return self.leave(Gone::Client),
                }
            }
            if bytes.is_empty() {
                return;
            }
            // Its task sends the rest.
            self.wake();
        }
        // Its task learns that from the event loop, and much may come before.
        if self.outbox.counted().is_some_and(|output| output.is_cut_off()) {
            return self.leave(Gone::Client);
        }
        self.outbox.keep(bytes);
    }

    fn answered(&mut self, replies: u64) {
        self.due = self.due.saturating_sub(replies);
        if replies > 0 && self.due == 0 && self.waits {
            self.wake();
        }
    }

    fn leave(&mut self, why: Gone) {
        self.gone.get_or_insert(why);
        self.stream = None;
        self.outbox.clear();
        self.wake();
        if let Some(reader) = self.reader_waits.take() {
            reader.wake();
        }
    }

    fn wake(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }
}
