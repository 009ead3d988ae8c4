//! What a session shows of itself as it goes: how long requests take, and what waits.

use super::relay::Relay;

impl Relay<'_> {
    /// After each pass in both directions.
    #[inline]
    pub(super) fn observe(&mut self) {
        if let Some(took) = self.ledger.took(&self.replies) {
            self.session.route.metrics.request_seconds.record(took);
        }
        if let Some(log) = &mut self.slow
            && let Some(slow) = log.received(&self.ledger, &self.replies)
        {
            slow.tell(self.session.route, &self.wire.connection, Some(self.session.profile.entry()));
        }
        self.buffered.set(self.wire.waiting() + self.session.to_client.len());
    }
}
