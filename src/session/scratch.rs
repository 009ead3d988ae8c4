//! Buffers that all sessions of a thread share. A session uses them only within one wake-up, so an idle session holds none.

use std::cell::RefCell;

use crate::tls::channel::sealed_len;

/// The largest number of bytes in one read.
pub(super) const READ: usize = 128 * 1024;

/// The largest incomplete TLS record that waits for its end: a header, 2^14 bytes, and what a cipher adds ([RFC 8446,
/// 5.2](https://www.rfc-editor.org/rfc/rfc8446#section-5.2)), and after it the largest post-handshake message that rustls joins.
const MAX_KEPT_RECORD: usize = 5 + 16384 + 256 + 64 * 1024;

pub(super) struct Scratch {
    /// Bytes from the client.
    pub(super) request: Box<[u8]>,
    /// Bytes for the upstream.
    pub(super) sealed: Box<[u8]>,
    /// Bytes from the upstream.
    pub(super) received: Box<[u8]>,
    /// Bytes for the client.
    pub(super) reply: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        request: vec![0; READ].into(),
        sealed: vec![0; sealed_len(READ)].into(),
        received: vec![0; MAX_KEPT_RECORD + READ].into(),
        reply: Vec::with_capacity(READ),
    });
}

/// Lends the thread's buffers to `work`, which must not call this function.
pub(super) fn with<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(work)
}
