//! What a session shows of itself as it goes: how long requests take, and what waits.

use tracing::info;

use super::Relay;
use crate::session::slow::Slow;
use crate::telemetry::SLOW;

impl Relay<'_> {
    /// After each pass in both directions.
    #[inline]
    pub(super) fn observe(&mut self) {
        if self.timing.waits()
            && let Some(took) = self.timing.received(&self.pending, &self.replies)
        {
            self.route.metrics.request_seconds.record(took);
        }
        if let Some(log) = &mut self.slow
            && let Some(slow) = log.received(&self.pending, &self.replies)
        {
            self.tell_of(&slow);
        }
        self.buffered.set(self.wire.waiting() + self.to_client.len());
    }

    #[cold]
    fn tell_of(&self, slow: &Slow) {
        let operation = slow.operation();
        let Some(suppressed) = self.route.slow_throttle.allow(&operation) else { return };
        let entry = self.about.entry();
        let (process, library) = entry.client();
        info!(
            target: SLOW,
            route = &*self.route.route,
            session = entry.number(),
            upstream = %self.wire.connection.endpoint,
            peer = %self.wire.connection.peer,
            command = operation,
            commands = slow.commands,
            names = (slow.commands > 1).then(|| slow.names()),
            bytes = slow.bytes,
            seconds = slow.took.as_secs_f64(),
            pid = process.as_ref().and_then(|process| process.pid),
            process = process.as_ref().and_then(|process| process.name.as_deref()),
            library = library.as_ref().map(|library| &*library.name),
            suppressed,
            "slow command"
        );
    }
}
