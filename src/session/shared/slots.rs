//! The shared connections of one thread with the same sharing key: which one the next client gets, and where a new one leads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::time::Instant;

use super::connection::SharedConnection;
use super::multiplexer::NoSharedConnection;

/// The largest number of shared connections of a thread to the addresses of a name, if `pool.shared` is not configured. On ElastiCache a
/// primary has at most five replicas, and Route 53 returns at most eight addresses of a name.
const MAX_SPREAD: usize = 8;

/// How long to wait before trying an address again that was unreachable, so that two connections lead to another address.
const SPREAD_RETRY: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct ConnectionSlots {
    slots: Vec<Slot>,
    /// The index of the connection that the last client got.
    next: usize,
    /// Until then, no address without a connection is tried.
    spread_after: Option<Instant>,
}

#[derive(Clone)]
pub(super) enum Slot {
    Open(Arc<SharedConnection>),
    /// A connection that is being opened to this address, if it is reachable. `None`: to any address. The clients that wait for it hold it,
    /// because only they poll it: without them the attempt could not end, and would keep its turn to dial.
    Opening(WeakShared<OpeningFuture>, Option<SocketAddr>),
}

type OpeningFuture = BoxFuture<'static, Result<Arc<SharedConnection>, NoSharedConnection>>;

/// A client's handle of a connection that is being opened.
pub(super) type Opening = Shared<OpeningFuture>;

impl ConnectionSlots {
    /// The index of the connection for one more client. `limit`: the number of connections. `None`: one for each of the `addresses`.
    pub(super) fn turn(&mut self, limit: Option<usize>, addresses: &[SocketAddr]) -> usize {
        let limit = limit.unwrap_or_else(|| addresses.len().clamp(1, MAX_SPREAD));
        while self.slots.len() > limit {
            // Its clients keep it. New clients get connections to addresses that the name still has.
            let is_gone = |slot: &Slot| slot.address().is_some_and(|address| !addresses.contains(&address));
            self.slots.remove(self.slots.iter().position(is_gone).unwrap_or(limit));
        }
        self.next = (self.next + 1) % limit;
        self.next.min(self.slots.len())
    }

    pub(super) fn get(&self, place: usize) -> Option<&Slot> {
        self.slots.get(place)
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut Slot> {
        self.slots.get_mut(place)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut()
    }

    pub(super) fn set(&mut self, place: usize, slot: Slot) {
        if place == self.slots.len() {
            self.slots.push(slot);
        } else {
            self.slots[place] = slot;
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.slots.iter().any(Slot::is_alive)
    }

    /// An address to which no other connection leads, for the connection at this index. It is random, so that threads differ. `None`: any
    /// address will do.
    pub(super) fn address_for(&self, place: usize, addresses: &[SocketAddr]) -> Option<SocketAddr> {
        if addresses.len() < 2 {
            return None;
        }
        let others = || self.slots.iter().enumerate().filter(|(at, slot)| *at != place && slot.is_alive());
        let is_free = |address: &&SocketAddr| others().all(|(_, slot)| slot.address() != Some(**address));
        let free: Vec<&SocketAddr> = addresses.iter().filter(is_free).collect();
        fastrand::choice(free).copied()
    }

    /// A connection that leads to the same address as another, and an address without a connection, if it is time to try that again.
    pub(super) fn misplaced(
        &mut self,
        addresses: &[SocketAddr],
    ) -> Option<(Arc<SharedConnection>, SocketAddr)> {
        let is_double = |at: usize| {
            let mut before = self.slots[..at].iter().filter(|slot| slot.is_alive());
            before.any(|slot| slot.address() == self.slots[at].address())
        };
        let double =
            (1..self.slots.len()).filter(|at| is_double(*at)).find_map(|at| self.slots[at].opened())?;
        let address = self.address_for(self.slots.len(), addresses)?;
        let now = Instant::now();
        if self.spread_after.is_some_and(|after| now < after) {
            return None;
        }
        self.spread_after = Some(now + SPREAD_RETRY);
        Some((double, address))
    }
}

impl Slot {
    /// Closes a shared connection in plaintext, so that its clients continue over another one. Returns whether it was in plaintext.
    pub(super) fn ends_plaintext(&self) -> bool {
        let in_plaintext = self.opened().filter(|shared| !shared.upstream.tls);
        in_plaintext.inspect(|shared| shared.close()).is_some()
    }

    /// Whether this slot holds the connection `shared`.
    pub(super) fn is(&self, shared: &Arc<SharedConnection>) -> bool {
        self.opened().is_some_and(|opened| Arc::ptr_eq(&opened, shared))
    }

    /// Whether this slot holds the connection that `opening` opens.
    pub(super) fn waits_for(&self, opening: &Opening) -> bool {
        matches!(self, Self::Opening(other, _) if other.upgrade().is_some_and(|other| other.ptr_eq(opening)))
    }

    /// The connection, once it is open.
    fn opened(&self) -> Option<Arc<SharedConnection>> {
        match self {
            Self::Open(shared) => Some(Arc::clone(shared)),
            Self::Opening(opening, _) => opening.upgrade()?.peek()?.as_ref().ok().cloned(),
        }
    }

    /// The address that the connection leads to, or will lead to.
    fn address(&self) -> Option<SocketAddr> {
        match (self.opened(), self) {
            (Some(shared), _) => Some(shared.upstream.peer),
            (None, Self::Opening(_, to)) => *to,
            (None, Self::Open(_)) => None,
        }
    }

    /// Whether connections to its endpoint have not been retired since it was opened. `authenticated`: those on which clients have
    /// authenticated themselves.
    pub(super) fn is_latest(&self, authenticated: bool) -> bool {
        match self {
            Self::Open(shared) => !shared.upstream.dialled.generation.is_retired(authenticated),
            Self::Opening(..) => true,
        }
    }

    /// Whether the connection is open, or being opened for a client that waits. A slot that is not alive is opened anew.
    pub(super) fn is_alive(&self) -> bool {
        match self {
            Self::Open(shared) => shared.is_open(),
            Self::Opening(opening, _) => opening.upgrade().is_some_and(|opening| match opening.peek() {
                None => true,
                Some(Ok(shared)) => shared.is_open(),
                Some(Err(_)) => false,
            }),
        }
    }
}
