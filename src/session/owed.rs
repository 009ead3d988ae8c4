//! What pontoon owes a client when the drain begins: replies to the requests that had arrived before.

/// Number of bytes of a client that had arrived when the drain began and are not read yet.
pub(super) struct Owed(usize);

impl Owed {
    /// The drain has just begun, with this many bytes of the client to read.
    pub(super) fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    /// Number of bytes from here on in which a request may begin.
    pub(super) fn bytes(&self) -> usize {
        self.0
    }

    /// Notes that `bytes` of them, or more, were read.
    pub(super) fn looked_at(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(bytes);
    }

    /// Notes that `by` other bytes will be read in place of `bytes` of them.
    pub(super) fn replace(&mut self, bytes: usize, by: usize) {
        self.0 = (self.0 + by).saturating_sub(bytes);
    }
}
