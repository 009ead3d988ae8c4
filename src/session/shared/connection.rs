//! A shared connection as its clients see it: they put requests on it, and it keeps the order of the replies.
//!
//! The event loop wakes all clients whose sockets are ready. They put their requests here before the [`driver`](super::driver) has its
//! turn. So the requests leave in one write, without a timer.

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

/// While more bytes wait to be sent, no client is read.
const MAX_UNSENT: usize = 256 * 1024;

/// A buffer that has grown larger is freed.
const MAX_KEPT_BUFFER: usize = 256 * 1024;

pub(super) struct SharedConnection {
    /// The id, which no other shared connection has.
    pub(super) id: u64,
    /// Where the connection leads.
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
    /// Number of bytes put here before those in `out`.
    taken: u64,
    /// Who gets the replies to the requests put here.
    pub(super) in_flight: InFlight,
    /// What a client has learned about the connection's id.
    pub(super) seen_id: SeenId,
    /// The id, which requests of clients must not name.
    pub(super) passed_on: Option<PassedOnId>,
    /// Another connection exists, or is being opened, for new clients.
    pub(super) is_relieved: bool,
    /// When bytes last came from the upstream. `None`: never.
    pub(super) heard: Option<Instant>,
    clients: usize,
    closed: bool,
    driver: Option<Waker>,
    /// Gets the connection as its own once no reply is outstanding.
    heir: Option<oneshot::Sender<Wire>>,
    /// Clients that wait for room.
    waiting: Vec<Waker>,
}

/// Why a shared connection takes no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PutError {
    /// It has no room. The task is woken when there is room again.
    Full,
    /// It takes no more requests. The client needs another shared connection.
    Closed,
}

impl SharedConnection {
    /// Logs commands that take longer than `slow`. `None`: logs none.
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

    /// Puts `count` requests of a client on the connection.
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

    /// Drops the unsent requests of a client that is gone. Replies to its other requests will be discarded.
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

    /// Takes no more requests, and passes the connection to one client once no reply is outstanding. `None`: it was closed before.
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

    /// Takes the client that gets the connection, if there is one.
    pub(super) fn heir(&self) -> Option<oneshot::Sender<Wire>> {
        self.state.lock().heir.take()
    }

    pub(super) fn is_open(&self) -> bool {
        !self.state.lock().closed
    }

    /// Registers the driver's waker.
    pub(super) fn driven_by(&self, driver: &Waker) {
        self.state.lock().driver = Some(driver.clone());
    }

    /// Moves the unsent requests into `into`, which must be empty. Its buffer is used for the next ones.
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
    /// Whether it has no client, no unsent request and no outstanding reply.
    pub(super) fn is_unused(&self) -> bool {
        self.clients == 0 && self.is_idle()
    }

    /// Whether it has no unsent request and no outstanding reply.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.out.is_empty()
    }

    /// Whether replies are outstanding, and no bytes have come for this time.
    pub(super) fn is_silent_for(&self, time: Duration) -> bool {
        let since = self.in_flight.timed_since().max(self.heard);
        !self.in_flight.is_empty() && since.is_some_and(|since| since.elapsed() >= time)
    }

    /// Whether a client waits to get the connection as its own.
    pub(super) fn has_heir(&self) -> bool {
        self.heir.is_some()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

/// A client's share in a shared connection.
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
        let record = Inventory::new().enter(&"route".into(), peer).record();
        Arc::new(ClientWriter::new(record, None, false))
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
    fn unsent_requests_of_a_client_that_is_gone_are_dropped() {
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
        assert!(shared.state.lock().in_flight.slow(true).is_none(), "no reply has come");
        shared.take(&mut sent);
        assert_eq!(sent, b"INCR b\r\nINCR c\r\nSELECT 1\r\nINCR d\r\n");
        let due: Vec<(bool, u64)> = shared
            .state
            .lock()
            .in_flight
            .iter()
            .map(|due| (Arc::ptr_eq(&due.writer, &one), due.count))
            .collect();
        assert_eq!(
            due,
            [(true, 1), (false, 2), (false, 1), (false, 1)],
            "requests that were sent stay outstanding"
        );
        assert_eq!((one.due(), other.due()), (1, 4));
        shared.abandon(&other);
        assert_eq!(shared.state.lock().in_flight.iter().count(), 4);
    }
}
