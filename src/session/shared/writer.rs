//! The side of a client that a shared connection writes to: the client's socket, the output that waits, and the number of outstanding
//! replies.
//!
//! All users run on the client's own thread, so the lock is never contended. The compiler requires it.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::hand_off::HandOff;

use crate::clients::SessionRecord;
use crate::downstream::ClientStream;
use crate::endpoint::Host;
use crate::session::outbox::Outbox;
use crate::session::output::ClientOutput;

/// The longest reply to a set-up request. The reply to HELLO lists modules.
const MAX_SETUP_REPLY: usize = 256 * 1024;

/// A client with a larger reply is pinned.
const HEAVY_REPLY: u64 = 32 * 1024;

/// A client with more output waiting is pinned.
pub(super) const HEAVY_OUTPUT: usize = 256 * 1024;

/// The writing side of one client.
pub(super) struct ClientWriter {
    client: Arc<SessionRecord>,
    /// The host that stands for every node of a cluster in this client's replies.
    pub(super) local_host: Option<Host>,
    state: Mutex<WriterState>,
}

#[derive(Default)]
struct WriterState {
    stream: Option<ClientStream>,
    outbox: Outbox,
    /// Number of outstanding replies.
    due: u64,
    /// The client's task waits until no reply is outstanding.
    waits: bool,
    task: Option<Waker>,
    /// Number of bytes of the present reply that have passed.
    passed: usize,
    /// The client gets large replies, or reads slowly.
    heavy: bool,
    /// The reply to the set-up request, once it is whole, and its beginning.
    answer: Option<Vec<u8>>,
    answering: Vec<u8>,
    gone: Option<Gone>,
    /// The connection that is handed off to the client.
    hand_off: Option<Box<HandOff>>,
    /// Woken when the client has read.
    reader_waits: Option<Waker>,
    last: Option<Instant>,
}

/// Why no more output is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gone {
    /// The client is gone.
    Client,
    /// The upstream connection was lost inside a reply, or its loss is signalled by closing.
    Upstream,
    /// `limits.client_output` was exceeded.
    Output,
}

/// The state of a writer.
pub(super) struct WriterStatus {
    pub(super) gone: Option<Gone>,
    pub(super) due: u64,
    pub(super) waiting: usize,
    pub(super) heavy: bool,
}

impl ClientWriter {
    pub(super) fn new(client: Arc<SessionRecord>, local_host: Option<Host>, idles: bool) -> Self {
        let state = WriterState { last: idles.then(Instant::now), ..WriterState::default() };
        Self { client, local_host, state: Mutex::new(state) }
    }

    /// The client's record in the inventory.
    pub(super) fn client(&self) -> &Arc<SessionRecord> {
        &self.client
    }

    /// Starts writing to this client, after the output that waits.
    pub(super) fn sit(&self, client: ClientStream, output: Outbox) {
        let mut state = self.state.lock();
        (state.stream, state.outbox) = (Some(client), output);
    }

    /// Stops writing to the client. Returns the output that waits.
    pub(super) fn stand_up(&self) -> Outbox {
        let mut state = self.state.lock();
        let output = std::mem::take(&mut state.outbox);
        state.stream = None;
        state.leave(Gone::Client);
        output
    }

    /// Runs at each wake-up of the client's task: sends the output that waits, and returns the state.
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

    /// Notes that `count` requests were sent.
    #[inline]
    pub(super) fn owes(&self, count: u64) {
        self.state.lock().due += count;
    }

    /// Whether output waits for the client to read.
    pub(super) fn has_output(&self) -> bool {
        !self.state.lock().outbox.is_empty()
    }

    /// The counter of the output that waits.
    pub(super) fn output(&self) -> Option<Arc<ClientOutput>> {
        self.state.lock().outbox.counted().cloned()
    }

    /// Number of outstanding replies.
    pub(super) fn due(&self) -> u64 {
        self.state.lock().due
    }

    /// Wakes the client's task when no reply is outstanding.
    pub(super) fn wake_when_answered(&self) {
        self.state.lock().waits = true;
    }

    /// When a reply last passed. `None` without `limits.idle_timeout`.
    pub(super) fn last(&self) -> Option<Instant> {
        self.state.lock().last
    }

    /// Takes the reply to the set-up request, once it is whole.
    pub(super) fn take_answer(&self) -> Option<Vec<u8>> {
        self.state.lock().answer.take()
    }

    /// Sends bytes in which `replies` replies end. Returns how many bytes wait.
    pub(super) fn deliver(&self, bytes: &[u8], replies: u64) -> usize {
        self.client.received(bytes.len());
        let mut state = self.state.lock();
        state.passed += bytes.len();
        // The average size, if several replies end.
        state.heavy |= state.passed as u64 > HEAVY_REPLY * replies.max(1);
        if replies > 0 {
            state.passed = 0;
        }
        state.write(bytes);
        state.answered(replies);
        state.outbox.len()
    }

    /// Takes a part of the reply to a set-up request. `false`: the reply is too long.
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

    /// Forgets that the client got large replies. Returns whether little output waits.
    pub(super) fn is_bearable(&self) -> bool {
        let mut state = self.state.lock();
        state.heavy = false;
        state.outbox.len() <= HEAVY_OUTPUT
    }

    /// Stops writing, for this reason.
    pub(super) fn leave(&self, why: Gone) {
        self.state.lock().leave(why);
    }

    /// Hands this connection off to the client. Outstanding replies reach the client over it.
    pub(super) fn hand_off(&self, hand_off: HandOff) {
        let mut state = self.state.lock();
        (state.due, state.passed) = (0, 0);
        state.hand_off = Some(Box::new(hand_off));
        state.wake();
    }

    /// Takes the connection that is handed off to the client.
    pub(super) fn take_hand_off(&self) -> Option<Box<HandOff>> {
        self.state.lock().hand_off.take()
    }

    /// Notes that `replies` replies will not come.
    pub(super) fn forget(&self, replies: u64) {
        self.state.lock().answered(replies);
    }

    /// Number of bytes that wait. Wakes `waker` when the client has read some. 0: the client is gone.
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
            // The client's task sends the rest.
            self.wake();
        }
        // The client's task notices this only through the event loop, and much output may come before.
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
