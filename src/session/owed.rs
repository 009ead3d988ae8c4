//! What pontoon owes a client when it begins to drain: answers to the requests that had arrived before.

/// Bytes of a client that had arrived when the drain began, and that are still to be looked at.
pub(super) struct Owed(usize);

impl Owed {
    /// The drain has just begun.
    pub(super) fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    /// No request may begin this many bytes from here, or later.
    pub(super) fn bytes(&self) -> usize {
        self.0
    }

    /// `bytes` of them were looked at, or more.
    pub(super) fn looked_at(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(bytes);
    }

    /// `by` other bytes will be looked at in place of `bytes` of them.
    pub(super) fn replace(&mut self, bytes: usize, by: usize) {
        self.0 = (self.0 + by).saturating_sub(bytes);
    }
}
