//! Numbers of upstream connections, as the server gives them to clients (CLIENT ID). A client can act on another connection by its number:
//! CLIENT TRACKING REDIRECT, CLIENT UNBLOCK, CLIENT KILL. Where a connection serves one client after another, its number outlives the
//! client that learned it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::resp::value::Value;
use parking_lot::Mutex;

/// What a client has learned of its connection's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SeenId {
    /// The client has not learned the number.
    #[default]
    Unseen,
    /// The client has learned this number.
    Seen(u64),
    /// The client may have learned the number, which pontoon did not read.
    Unread,
}

impl SeenId {
    /// Reads the number from the server's reply to HELLO; `None` if the whole reply is not at hand.
    pub fn by_hello(reply: Option<&[u8]>) -> Self {
        let id = || {
            let reply = Value::parse(reply?).ok()?;
            let (_, id) = reply.pairs()?.find(|(name, _)| name.bytes() == Some(b"id"))?;
            u64::try_from(id.number()?).ok()
        };
        id().map_or(Self::Unread, Self::Seen)
    }
}

/// The connection numbers of a route or of a node.
#[derive(Debug, Default)]
pub(super) struct Ids {
    /// Whether a client has named a connection by its number.
    used: AtomicBool,
    /// The number of handles for each connection number.
    passed_on: Mutex<HashMap<u64, usize>>,
}

/// The number of a connection that serves a client other than the one that learned the number. Dropping this forgets it.
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

    /// Records that clients do. Returns whether they did before.
    pub(super) fn note_use(&self) -> bool {
        self.used.swap(true, Ordering::Relaxed)
    }

    /// Remembers that the connection with this number serves a client other than the one that learned it.
    pub(super) fn pass_on(self: &Arc<Self>, id: u64) -> PassedOnId {
        *self.passed_on.lock().entry(id).or_default() += 1;
        PassedOnId { ids: Arc::clone(self), id }
    }

    /// Whether this number was passed on.
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
    fn the_number_is_read_from_hello_in_resp2_and_resp3() {
        let resp3 = b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$2\r\nid\r\n:17\r\n";
        let resp2 = b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$2\r\nid\r\n:17\r\n";
        assert_eq!(SeenId::by_hello(Some(resp3)), SeenId::Seen(17));
        assert_eq!(SeenId::by_hello(Some(resp2)), SeenId::Seen(17));
        for unread in [None, Some(&b"+QUEUED\r\n"[..]), Some(b"%0\r\n")] {
            assert_eq!(SeenId::by_hello(unread), SeenId::Unread);
        }
    }

    #[test]
    fn a_number_is_remembered_while_its_connection_exists() {
        let ids = Arc::new(Ids::default());
        let (one, other) = (ids.pass_on(7), ids.pass_on(7));
        drop(one);
        assert!(ids.is_passed_on(7) && !ids.is_passed_on(8));
        drop(other);
        assert!(!ids.is_passed_on(7));
    }
}
