//! A fixed number of permits, one of which is always available: if all are taken, a new holder gets that of the longest holder.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// A fixed number of permits.
#[derive(Debug)]
pub(super) struct EvictablePermits {
    most: usize,
    /// How long a new holder waits for a returned permit before it evicts another holder.
    patience: Duration,
    taken: Mutex<PermitHolders>,
    given_back: Notify,
}

/// Longest holder first.
#[derive(Debug, Default)]
struct PermitHolders {
    next: u64,
    holders: BTreeMap<u64, (Instant, CancellationToken)>,
}

impl PermitHolders {
    fn add(&mut self, cut: CancellationToken) -> u64 {
        self.next += 1;
        self.holders.insert(self.next, (Instant::now(), cut));
        self.next
    }
}

impl EvictablePermits {
    pub(super) fn new(most: usize, patience: Duration) -> Arc<Self> {
        Arc::new(Self { most, patience, taken: Mutex::default(), given_back: Notify::new() })
    }

    /// Takes a permit. If the holder is evicted, `cut` is cancelled.
    pub(super) async fn take(self: &Arc<Self>, cut: &CancellationToken) -> EvictablePermit {
        let deadline = Instant::now() + self.patience;
        loop {
            let given_back = self.given_back.notified();
            {
                let mut taken = self.taken.lock();
                if taken.holders.len() >= self.most
                    && Instant::now() >= deadline
                    && let Some((_, (_, longest))) = taken.holders.pop_first()
                {
                    longest.cancel();
                }
                if taken.holders.len() < self.most {
                    let number = taken.add(cut.clone());
                    return EvictablePermit { permits: Arc::clone(self), number: Mutex::new(number) };
                }
            }
            let _ = timeout_at(deadline, given_back).await;
        }
    }
}

/// A permit, returned when dropped.
#[derive(Debug)]
pub(super) struct EvictablePermit {
    permits: Arc<EvictablePermits>,
    number: Mutex<u64>,
}

impl EvictablePermit {
    /// Makes this the newest permit, unless it was evicted.
    pub(super) fn renew(&self) {
        let mut number = self.number.lock();
        let mut taken = self.permits.taken.lock();
        if let Some((_, cut)) = taken.holders.remove(&number) {
            *number = taken.add(cut);
        }
    }

    /// Returns when the permit was taken; `None` if it was evicted.
    pub(super) fn since(&self) -> Option<Instant> {
        let number = *self.number.lock();
        self.permits.taken.lock().holders.get(&number).map(|(since, _)| *since)
    }
}

impl Drop for EvictablePermit {
    fn drop(&mut self) {
        let number = *self.number.lock();
        self.permits.taken.lock().holders.remove(&number);
        self.permits.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_gets_the_permit_of_the_longest_holder() {
        let permits = EvictablePermits::new(2, Duration::ZERO);
        let [first, second, third] = [(); 3].map(|()| CancellationToken::new());
        let longest = permits.take(&first).await;
        let shorter = permits.take(&second).await;
        longest.renew();
        let _last = permits.take(&third).await;
        assert!(second.is_cancelled() && !first.is_cancelled() && !third.is_cancelled());
        assert_eq!(shorter.since(), None);
        shorter.renew();
        drop(shorter);
        assert_eq!(permits.taken.lock().holders.len(), 2, "an evicted permit is not returned");
    }

    #[tokio::test(start_paused = true)]
    async fn a_returned_permit_is_used_before_a_holder_is_evicted() {
        let permits = EvictablePermits::new(1, Duration::from_secs(1));
        let [first, second, third] = [(); 3].map(|()| CancellationToken::new());
        let permit = permits.take(&first).await;
        let (permit, ()) = tokio::join!(permits.take(&second), async { drop(permit) });
        assert!(!first.is_cancelled());
        let began = Instant::now();
        let _third = permits.take(&third).await;
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        assert!(second.is_cancelled());
        drop(permit);
    }
}
