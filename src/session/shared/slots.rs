//! The shared connections of one thread that are alike for clients: whose turn it is, and to which address the next one leads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Shared};
use tokio::time::Instant;

use super::connection::SharedConnection;
use super::multiplexer::NoSharedConnection;
use crate::upstream::Upstream;

/// Shared connections of a thread to the addresses of a name, at most, where `pool.shared` is not configured. A primary has five
/// replicas on ElastiCache, and Route 53 gives eight addresses of a name at most.
const MAX_SPREAD: usize = 8;

/// Where two connections lead to one address because another one was not reached, that one is tried again after so long.
const SPREAD_RETRY: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct ConnectionSlots {
    slots: Vec<Slot>,
    /// Clients take turns.
    next: usize,
    /// No address that lacks a connection is tried before.
    spread_after: Option<Instant>,
}

#[derive(Clone)]
pub(super) enum Slot {
    Open(Arc<SharedConnection>),
    /// To this address, if it can be reached; `None`: to any.
    Opening(Opening, Option<SocketAddr>),
}

pub(super) type Opening = Shared<BoxFuture<'static, Result<Arc<SharedConnection>, NoSharedConnection>>>;

impl ConnectionSlots {
    /// The place of the connection for one more client. `limit`: so many connections; `None`: one for each of the `addresses`.
    pub(super) fn turn(&mut self, limit: Option<usize>, addresses: &[SocketAddr]) -> usize {
        let limit = limit.unwrap_or_else(|| addresses.len().clamp(1, MAX_SPREAD));
        while self.slots.len() > limit {
            // Its clients stay. A new client gets a connection to an address that the name has.
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

    /// The address for a connection in this place: one that no other connection leads to. Threads do not all begin with the same.
    /// `None`: any will do.
    pub(super) fn address_for(&self, place: usize, addresses: &[SocketAddr]) -> Option<SocketAddr> {
        if addresses.len() < 2 {
            return None;
        }
        let others = || self.slots.iter().enumerate().filter(|(at, slot)| *at != place && slot.is_alive());
        let is_free = |address: &&SocketAddr| others().all(|(_, slot)| slot.address() != Some(**address));
        let free: Vec<&SocketAddr> = addresses.iter().filter(is_free).collect();
        fastrand::choice(free).copied()
    }

    /// A connection that leads to the same address as another one, and an address that has none, if it is time to try that again.
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
        let double = Arc::clone(double);
        self.spread_after = Some(now + SPREAD_RETRY);
        Some((double, address))
    }
}

impl Slot {
    /// Closes a shared connection in plaintext: its clients go on over another. Whether it was one.
    pub(super) fn ends_plaintext(&self) -> bool {
        let in_plaintext = self.opened().filter(|shared| !shared.upstream.tls);
        if let Some(shared) = in_plaintext {
            shared.close();
        }
        in_plaintext.is_some()
    }

    /// Whether it is this connection.
    pub(super) fn is(&self, shared: &Arc<SharedConnection>) -> bool {
        self.opened().is_some_and(|opened| Arc::ptr_eq(opened, shared))
    }

    /// The connection, once it is open.
    fn opened(&self) -> Option<&Arc<SharedConnection>> {
        match self {
            Self::Open(shared) => Some(shared),
            Self::Opening(opening, _) => opening.peek().and_then(|opened| opened.as_ref().ok()),
        }
    }

    /// The address that it leads to, or is to lead to.
    fn address(&self) -> Option<SocketAddr> {
        match (self.opened(), self) {
            (Some(shared), _) => Some(shared.upstream.peer),
            (None, Self::Opening(_, to)) => *to,
            (None, Self::Open(_)) => None,
        }
    }

    /// Whether there was no news of its endpoint since it was opened.
    pub(super) fn is_latest(&self, upstream: &Upstream) -> bool {
        match self {
            Self::Open(shared) => upstream.is_latest(&shared.upstream.dialled),
            Self::Opening(..) => true,
        }
    }

    /// One that failed is opened anew.
    pub(super) fn is_alive(&self) -> bool {
        match self {
            Self::Open(shared) => shared.is_open(),
            Self::Opening(opening, _) => match opening.peek() {
                None => true,
                Some(Ok(shared)) => shared.is_open(),
                Some(Err(_)) => false,
            },
        }
    }
}
