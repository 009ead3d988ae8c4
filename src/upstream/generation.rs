//! Which connections are retired together.

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The connections of a pool that were dialled between two retirements. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Generation(CancellationToken);

impl Generation {
    pub(super) fn retire(&self) {
        self.0.cancel();
    }

    /// Whether its connections serve no further client, because they may lead to the wrong server or use an old secret.
    pub fn is_retired(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Completes when its connections are retired.
    pub fn retired(&self) -> WaitForCancellationFutureOwned {
        self.0.clone().cancelled_owned()
    }
}
