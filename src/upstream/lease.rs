//! A connection that one client holds, given back by `Drop`.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::connection::Connection;
use super::route::Upstream;

/// A connection that one client holds. On drop it goes back to its pool if it was [released](Self::release); otherwise it is closed.
pub struct Lease {
    /// `None` only during drop.
    connection: Option<Connection>,
    upstream: Arc<Upstream>,
    released: Option<Released>,
}

/// How a client left its connection: no reply is outstanding, the stream is at a frame boundary, and RESET undoes all that the client did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Released {
    /// The connection may differ from a new one.
    pub(super) needs_reset: bool,
}

impl Lease {
    pub(super) fn new(connection: Connection, upstream: &Arc<Upstream>) -> Self {
        Self { connection: Some(connection), upstream: Arc::clone(upstream), released: None }
    }

    /// Whether another client could use the connection after this one.
    pub fn is_reusable(&self) -> bool {
        self.upstream.reuses(self)
    }

    /// Lets another client use the connection. The caller vouches that no reply is outstanding, the stream is at a frame boundary, and
    /// RESET undoes all that the client did. `needs_reset`: the state may differ from a new connection's, and `Remote::recycle` sends
    /// RESET.
    pub fn release(&mut self, needs_reset: bool) {
        self.released = Some(Released { needs_reset });
    }

    /// Whether the connection goes back to its pool.
    pub fn is_released(&self) -> bool {
        self.released.is_some()
    }
}

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("only `drop` takes the connection")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("only `drop` takes the connection")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (Some(connection), Some(released)) = (self.connection.take(), self.released) {
            self.upstream.take_back(connection, released);
        }
    }
}
