//! Which connections are retired together.

use std::mem;

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The connections of a pool that were dialled between two retirements. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Generation {
    outdated: CancellationToken,
    /// A child of `outdated`.
    retired: CancellationToken,
}

impl Default for Generation {
    fn default() -> Self {
        let outdated = CancellationToken::new();
        Self { retired: outdated.child_token(), outdated }
    }
}

impl Generation {
    /// Begins the next generation. Connections of this one may lead to the wrong server, or use an old secret.
    pub(super) fn retire(&mut self) {
        mem::take(self).outdated.cancel();
    }

    /// Begins the next generation. The server trusts connections of this one that did not authenticate, and would not trust them today.
    pub(super) fn distrust(&mut self) {
        let next = self.outdated.child_token();
        mem::replace(&mut self.retired, next).cancel();
    }

    /// Whether its connections serve no further client. `authenticated`: only those on which clients have authenticated themselves.
    pub fn is_retired(&self, authenticated: bool) -> bool {
        self.end(authenticated).is_cancelled()
    }

    /// Completes when its connections serve no further client. `authenticated`: as in [`is_retired`](Self::is_retired).
    pub fn retired(&self, authenticated: bool) -> WaitForCancellationFutureOwned {
        self.end(authenticated).clone().cancelled_owned()
    }

    fn end(&self, authenticated: bool) -> &CancellationToken {
        if authenticated { &self.outdated } else { &self.retired }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn users_keep_distrusted_connections_until_they_are_outdated() {
        let mut now = Generation::default();
        let first = now.clone();
        now.distrust();
        assert_eq!(
            (first.is_retired(false), first.is_retired(true), now.is_retired(false)),
            (true, false, false)
        );
        assert!(first.retired(true).now_or_never().is_none());
        let second = now.clone();
        now.retire();
        for old in [first, second] {
            assert!(old.is_retired(false) && old.is_retired(true));
            assert!(old.retired(true).now_or_never().is_some());
        }
        assert!(!now.is_retired(false) && !now.is_retired(true));
    }
}
