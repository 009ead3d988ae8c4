//! Measures a session as it runs: how long requests take, and how many bytes wait.

use super::relay::Relay;

impl Relay<'_> {
    /// Runs after each pass in both directions.
    #[inline]
    pub(super) fn observe(&mut self) {
        if let Some(took) = self.ledger.took(&self.replies) {
            self.session.route.metrics.request_seconds.record(took);
        }
        if let Some(log) = &mut self.slow
            && let Some(slow) = log.received(&self.ledger, &self.replies)
        {
            slow.log(self.session.route, &self.wire.connection, Some(self.session.profile.entry()));
        }
        self.buffered.set(self.wire.waiting() + self.session.to_client.len());
    }
}
