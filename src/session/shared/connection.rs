//! A connection that clients share, as they see it: where they put their requests, and in which order they get replies.
//!
//! Requests of all clients that one look at the sockets found ready are put here before the [`driver`](super::driver) has its
//! turn: they leave in one write, and nothing waits for a clock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::in_flight::{InFlight, Recipient};
use super::writer::ClientWriter;
use crate::session::wire::Wire;
use crate::upstream::{Connection, Dialled, PassedOnId, SeenId};

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// While so much waits to be sent, no client is read.
const MAX_UNSENT: usize = 256 * 1024;

/// A buffer that has been larger is not kept.
const MAX_KEPT_BUFFER: usize = 256 * 1024;

pub(super) struct SharedConnection {
    /// No other has it.
    pub(super) id: u64,
    /// Where it leads.
    pub(super) upstream: SharedRemote,
    pub(super) state: Mutex<SharedState>,
}

/// Where a shared connection leads.
pub(super) struct SharedRemote {
    pub(super) dialled: Dialled,
    pub(super) peer: SocketAddr,
    pub(super) tls: bool,
}

#[derive(Default)]
pub(super) struct SharedState {
    /// Requests that have not been sent.
    out: Vec<u8>,
    /// Bytes of those before them, of all that were put here.
    taken: u64,
    /// Of all that were put here, who gets the replies.
    pub(super) in_flight: InFlight,
    /// What a client has learned of the connection's number.
    pub(super) seen_id: SeenId,
    /// The number, which no client is to name.
    pub(super) passed_on: Option<PassedOnId>,
    /// Another connection is, or will be, there for new clients.
    pub(super) is_relieved: bool,
    /// When the upstream was last heard; `None`: never.
    pub(super) heard: Option<Instant>,
    clients: usize,
    closed: bool,
    driver: Option<Waker>,
    /// Has the connection for its own once it owes nothing.
    heir: Option<oneshot::Sender<Wire>>,
    /// Clients that wait until there is room.
    waiting: Vec<Waker>,
}

/// Why a shared connection takes no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PutError {
    /// There is no room: the task is woken when there is.
    Full,
    /// It takes no more: another shared connection is to be found.
    Closed,
}

impl SharedConnection {
    /// Commands that take longer than `slow` are logged; `None`: none are.
    pub(super) fn over(connection: &Connection, slow: Option<Duration>) -> Self {
        let upstream = SharedRemote {
            dialled: connection.dialled(),
            peer: connection.peer,
            tls: connection.channel.is_some(),
        };
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            upstream,
            state: Mutex::new(SharedState { in_flight: InFlight::new(slow), ..SharedState::default() }),
        }
    }

    /// Puts `count` requests of a client here.
    pub(super) fn put(
        &self,
        cx: &mut Context<'_>,
        writer: &Arc<ClientWriter>,
        requests: &[u8],
        count: u64,
        recipient: Recipient,
    ) -> Result<(), PutError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.closed {
            return Err(PutError::Closed);
        }
        if state.out.len() > MAX_UNSENT {
            state.waiting.push(cx.waker().clone());
            return Err(PutError::Full);
        }
        if state.out.is_empty()
            && let Some(driver) = &state.driver
        {
            driver.wake_by_ref();
        }
        let begin = state.taken + state.out.len() as u64;
        state.out.extend_from_slice(requests);
        let place = begin..begin + requests.len() as u64;
        state.in_flight.book(writer, requests, count, recipient, place, state.taken);
        writer.owes(count);
        Ok(())
    }

    /// The client is gone: drops its requests that were not sent. Replies to the others will be discarded.
    #[cold]
    pub(super) fn abandon(&self, writer: &Arc<ClientWriter>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let taken = state.taken;
        let unsent = std::mem::take(&mut state.out);
        let out = &mut state.out;
        let abandoned = state.in_flight.abandon(writer, taken, |place| {
            let begin = taken + out.len() as u64;
            out.extend_from_slice(&unsent[(place.start - taken) as usize..(place.end - taken) as usize]);
            begin..taken + out.len() as u64
        });
        if abandoned > 0 {
            writer.forget(abandoned);
            state.waiting.drain(..).for_each(Waker::wake);
        }
    }

    /// Takes no more requests. Those that are here are still sent.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting.drain(..).for_each(Waker::wake);
        if let Some(driver) = &state.driver {
            driver.wake_by_ref();
        }
    }

    /// Takes no more requests, and leaves the connection to one client, once it owes nothing. `None`: it took none before.
    pub(super) fn bequeath(&self) -> Option<oneshot::Receiver<Wire>> {
        let (heir, inherited) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if state.closed {
                return None;
            }
            state.heir = Some(heir);
        }
        self.close();
        Some(inherited)
    }

    /// Who has the connection from now on.
    pub(super) fn heir(&self) -> Option<oneshot::Sender<Wire>> {
        self.state.lock().heir.take()
    }

    pub(super) fn is_open(&self) -> bool {
        !self.state.lock().closed
    }

    /// Has the driver woken by what happens here.
    pub(super) fn driven_by(&self, driver: &Waker) {
        self.state.lock().driver = Some(driver.clone());
    }

    /// What is to be sent; `into` must be empty, and its memory is used on.
    pub(super) fn take(&self, into: &mut Vec<u8>) {
        let mut state = self.state.lock();
        state.taken += state.out.len() as u64;
        std::mem::swap(&mut state.out, into);
        if state.out.capacity() > MAX_KEPT_BUFFER {
            state.out = Vec::new();
        }
        state.waiting.drain(..).for_each(Waker::wake);
    }
}

impl SharedState {
    /// Nobody uses it, and it owes nothing.
    pub(super) fn is_unused(&self) -> bool {
        self.clients == 0 && self.is_idle()
    }

    /// Nothing is to be sent, and no reply is due.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.out.is_empty()
    }

    /// Whether replies are outstanding, and nothing has come for this time.
    pub(super) fn is_silent_for(&self, time: Duration) -> bool {
        let since = self.in_flight.timed_since().max(self.heard);
        !self.in_flight.is_empty() && since.is_some_and(|since| since.elapsed() >= time)
    }

    /// Whether a client waits to have the connection for its own.
    pub(super) fn has_heir(&self) -> bool {
        self.heir.is_some()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

/// A client's hold on a shared connection.
pub(super) struct SharedLease(Arc<SharedConnection>);

impl SharedLease {
    pub(super) fn on(shared: &Arc<SharedConnection>) -> Self {
        shared.state.lock().clients += 1;
        Self(Arc::clone(shared))
    }
}

impl std::ops::Deref for SharedLease {
    type Target = Arc<SharedConnection>;

    fn deref(&self) -> &Arc<SharedConnection> {
        &self.0
    }
}

impl Drop for SharedLease {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.clients -= 1;
        if state.clients == 0
            && let Some(driver) = &state.driver
        {
            driver.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::{Inventory, Peer};

    fn writer() -> Arc<ClientWriter> {
        let peer = Peer::Unix { pid: None, uid: None };
        let counter = Inventory::new().enter(&"route".into(), peer).counter();
        Arc::new(ClientWriter::new(counter, None, false))
    }

    fn connection() -> SharedConnection {
        let dialled = Dialled::first(&"cache:6379".parse().unwrap());
        let upstream = SharedRemote { dialled, peer: ([127, 0, 0, 1], 6379).into(), tls: true };
        let in_flight = InFlight::new(Some(Duration::ZERO));
        SharedConnection {
            id: 0,
            upstream,
            state: Mutex::new(SharedState { in_flight, ..SharedState::default() }),
        }
    }

    #[test]
    fn what_a_client_that_is_gone_has_not_sent_is_not_sent_and_the_others_requests_are() {
        let (shared, one, other) = (connection(), writer(), writer());
        let mut cx = Context::from_waker(Waker::noop());
        let mut put = |writer: &Arc<ClientWriter>, requests: &[u8], count, recipient| {
            shared.put(&mut cx, writer, requests, count, recipient).unwrap();
        };
        let mut sent = Vec::new();
        put(&one, b"PING\r\n", 1, Recipient::Client);
        shared.take(&mut sent);
        assert_eq!(sent, b"PING\r\n");
        sent.clear();
        put(&one, b"INCR a\r\n", 1, Recipient::Client);
        put(&other, b"INCR b\r\nINCR c\r\n", 2, Recipient::Client);
        put(&one, b"MULTI\r\nINCR a\r\nEXEC\r\n", 3, Recipient::Transaction(3));
        put(&other, b"SELECT 1\r\n", 1, Recipient::Task);
        shared.abandon(&one);
        put(&other, b"INCR d\r\n", 1, Recipient::Client);
        assert!(
            shared.state.lock().in_flight.slow(true).is_none(),
            "the first reply is not that of a later request"
        );
        shared.take(&mut sent);
        assert_eq!(sent, b"INCR b\r\nINCR c\r\nSELECT 1\r\nINCR d\r\n");
        let due: Vec<(bool, u64)> = shared
            .state
            .lock()
            .in_flight
            .iter()
            .map(|due| (Arc::ptr_eq(&due.writer, &one), due.count))
            .collect();
        assert_eq!(due, [(true, 1), (false, 2), (false, 1), (false, 1)], "what was sent is still answered");
        assert_eq!((one.due(), other.due()), (1, 4));
        shared.abandon(&other);
        assert_eq!(shared.state.lock().in_flight.iter().count(), 4);
    }
}
