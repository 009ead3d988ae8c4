//! Numbers of upstream connections, as servers give them to clients (CLIENT ID). Who knows one can have another client's
//! connection act on it: CLIENT TRACKING REDIRECT, CLIENT UNBLOCK, CLIENT KILL. A number outlives the client that learned it
//! where its connection serves another one.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::resp::value::Value;

/// Numbers that are remembered. The oldest are of connections that are closed long since.
const MOST: usize = 64 * 1024;

/// What a client has learned of its connection's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SeenId {
    /// Nothing.
    #[default]
    Unseen,
    /// The number.
    Seen(u64),
    /// Something that could not be read here.
    Unread,
}

impl SeenId {
    /// By the server's reply to HELLO, if all of it is here.
    pub fn by_hello(reply: Option<&[u8]>) -> Self {
        let id = || {
            let reply = Value::parse(reply?).ok()?;
            let (_, id) = reply.pairs()?.find(|(name, _)| name.bytes() == Some(b"id"))?;
            u64::try_from(id.number()?).ok()
        };
        id().map_or(Self::Unread, Self::Seen)
    }
}

/// A route's, or a node's.
#[derive(Debug, Default)]
pub(super) struct Ids {
    /// A client has named a connection by its number.
    used: AtomicBool,
    passed_on: Mutex<PassedOn>,
}

/// Of connections that serve other clients than those who learned the number.
#[derive(Debug, Default)]
struct PassedOn {
    all: HashSet<u64>,
    in_order: VecDeque<u64>,
}

impl Ids {
    /// Whether clients name connections by their numbers.
    pub(super) fn are_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// From now on they do. Whether they did before.
    pub(super) fn use_them(&self) -> bool {
        self.used.swap(true, Ordering::Relaxed)
    }

    /// The connection with this number serves other clients than the one that knows it.
    pub(super) fn pass_on(&self, id: u64) {
        let mut guard = self.passed_on.lock().unwrap_or_else(PoisonError::into_inner);
        let PassedOn { all, in_order } = &mut *guard;
        if all.insert(id) {
            in_order.push_back(id);
        }
        if in_order.len() > MOST
            && let Some(oldest) = in_order.pop_front()
        {
            all.remove(&oldest);
        }
    }

    /// Whether one of these is such a number.
    pub(super) fn is_any_passed_on(&self, ids: &[u64]) -> bool {
        let passed_on = self.passed_on.lock().unwrap_or_else(PoisonError::into_inner);
        ids.iter().any(|id| passed_on.all.contains(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_read_from_hello_in_either_protocol() {
        let resp3 = b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$2\r\nid\r\n:17\r\n";
        let resp2 = b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$2\r\nid\r\n:17\r\n";
        assert_eq!(SeenId::by_hello(Some(resp3)), SeenId::Seen(17));
        assert_eq!(SeenId::by_hello(Some(resp2)), SeenId::Seen(17));
        for unread in [None, Some(&b"+QUEUED\r\n"[..]), Some(b"%0\r\n")] {
            assert_eq!(SeenId::by_hello(unread), SeenId::Unread);
        }
    }

    #[test]
    fn the_oldest_numbers_are_forgotten() {
        let ids = Ids::default();
        (0..=MOST as u64).chain([5]).for_each(|id| ids.pass_on(id));
        assert!(!ids.is_any_passed_on(&[0]));
        assert!(ids.is_any_passed_on(&[0, 1]) && ids.is_any_passed_on(&[MOST as u64]));
    }
}
