//! Numbers of upstream connections, as the server gives them to clients (CLIENT ID). With a number, a client can act on another
//! connection: CLIENT TRACKING REDIRECT, CLIENT UNBLOCK, CLIENT KILL. Where a connection serves one client after another, its
//! number outlives the client that learned it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::resp::value::Value;
use parking_lot::Mutex;

/// What a client has learned of its connection's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SeenId {
    /// Nothing.
    #[default]
    Unseen,
    /// The number.
    Seen(u64),
    /// It may know the number, and pontoon does not.
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
    /// How many handles there are for each number.
    passed_on: Mutex<HashMap<u64, usize>>,
}

/// The number of a connection that serves other clients than the one that learned it. It is remembered until this is dropped.
#[derive(Debug)]
pub struct PassedOnId {
    ids: Arc<Ids>,
    id: u64,
}

impl Ids {
    /// Whether clients name connections by their numbers.
    pub(super) fn are_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// From now on they do. Whether they did before.
    pub(super) fn note_use(&self) -> bool {
        self.used.swap(true, Ordering::Relaxed)
    }

    /// Remembers that the connection with this number serves other clients than the one that learned it.
    pub(super) fn pass_on(self: &Arc<Self>, id: u64) -> PassedOnId {
        *self.passed_on.lock().entry(id).or_default() += 1;
        PassedOnId { ids: Arc::clone(self), id }
    }

    /// Whether this is such a number.
    pub(super) fn is_passed_on(&self, id: u64) -> bool {
        self.passed_on.lock().contains_key(&id)
    }
}

impl Drop for PassedOnId {
    fn drop(&mut self) {
        let mut passed_on = self.ids.passed_on.lock();
        if let Some(handles) = passed_on.get_mut(&self.id) {
            *handles -= 1;
            if *handles == 0 {
                passed_on.remove(&self.id);
            }
        }
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
    fn a_number_is_remembered_for_as_long_as_its_connection_is_there() {
        let ids = Arc::new(Ids::default());
        let (one, other) = (ids.pass_on(7), ids.pass_on(7));
        drop(one);
        assert!(ids.is_passed_on(7) && !ids.is_passed_on(8));
        drop(other);
        assert!(!ids.is_passed_on(7));
    }
}
