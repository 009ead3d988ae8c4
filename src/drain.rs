//! The end of a run, or of a part of it, in three steps: *leave* (go on, but lead new clients to a successor), *drain* (no new work, finish
//! outstanding work) and *cut* (stop now).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The state of an end, shared by everything that must end. Cheap to clone and to query.
#[derive(Debug, Clone, Default)]
pub struct Drain(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Mirrors `started`, so that the relay can check it at each wake-up without a lock.
    draining: AtomicBool,
    leaving: CancellationToken,
    started: [CancellationToken; SHARDS],
    cut: CancellationToken,
    /// The drain that this one is a part of.
    whole: Option<Drain>,
}

/// Number of copies of the token. Every session waits for the start, and each wait takes a lock, so threads are spread over these.
const SHARDS: usize = 4;

thread_local! {
    static SHARD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
}

impl Drain {
    /// Creates a drain that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a drain for a part, which ends with the whole at the latest.
    #[must_use]
    pub fn part(&self) -> Self {
        Self(Arc::new(Inner {
            draining: AtomicBool::new(false),
            leaving: self.0.leaving.child_token(),
            started: std::array::from_fn(|shard| self.0.started[shard].child_token()),
            cut: self.0.cut.child_token(),
            whole: Some(self.clone()),
        }))
    }

    /// Asks listeners to lead new clients to a successor, if there is one. The later steps do not imply this one, because a listener that
    /// ends alone has no successor.
    pub fn leave(&self) {
        self.0.leaving.cancel();
    }

    /// Asks everything to end at its next boundary.
    pub fn start(&self) {
        self.0.draining.store(true, Ordering::Release);
        self.0.started.iter().for_each(CancellationToken::cancel);
    }

    /// Ends everything at once.
    pub fn cut(&self) {
        self.start();
        self.0.cut.cancel();
    }

    /// Whether [`start`](Self::start) was called.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire) || self.0.whole.as_ref().is_some_and(Self::is_draining)
    }

    /// Whether the whole is draining, and not only a part.
    pub fn is_all_draining(&self) -> bool {
        self.0.whole.as_ref().map_or_else(|| self.is_draining(), Self::is_all_draining)
    }

    /// Completes when [`leave`](Self::leave) was called.
    pub fn leaving(&self) -> WaitForCancellationFutureOwned {
        self.0.leaving.clone().cancelled_owned()
    }

    /// Completes when draining starts.
    pub fn started(&self) -> WaitForCancellationFutureOwned {
        self.0.started[SHARD.with(|shard| *shard)].clone().cancelled_owned()
    }

    /// Completes when everything is cut.
    pub fn cut_off(&self) -> WaitForCancellationFutureOwned {
        self.0.cut.clone().cancelled_owned()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_part_ends_with_the_whole_but_not_the_whole_with_a_part() {
        let whole = Drain::new();
        let (one, other) = (whole.part(), whole.part());
        one.start();
        assert!(one.is_draining() && !other.is_draining() && !whole.is_draining());
        assert!(!one.is_all_draining() && one.part().is_draining() && !one.part().is_all_draining());
        whole.cut();
        assert!(other.is_draining() && one.part().is_all_draining());
        assert!(other.started().now_or_never().is_some() && other.cut_off().now_or_never().is_some());
    }
}
