//! Places of which there is always one to be had: who comes when all are taken gets that of the one who has had his
//! longest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// So many places.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    /// Who comes waits so long for a place that is given back.
    patience: Duration,
    taken: Mutex<Taken>,
    given_back: Notify,
}

/// Longest first.
#[derive(Debug, Default)]
struct Taken {
    next: u64,
    holders: BTreeMap<u64, (Instant, CancellationToken)>,
}

impl Taken {
    fn add(&mut self, cut: CancellationToken) -> u64 {
        self.next += 1;
        self.holders.insert(self.next, (Instant::now(), cut));
        self.next
    }
}

impl Places {
    pub(super) fn new(most: usize, patience: Duration) -> Arc<Self> {
        Arc::new(Self { most, patience, taken: Mutex::default(), given_back: Notify::new() })
    }

    /// A place for the one that `cut` ends.
    pub(super) async fn take(self: &Arc<Self>, cut: &CancellationToken) -> Place {
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
                    return Place { places: Arc::clone(self), number: Mutex::new(number) };
                }
            }
            let _ = timeout_at(deadline, given_back).await;
        }
    }
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: Mutex<u64>,
}

impl Place {
    /// As if it were taken just now, unless it is lost.
    pub(super) fn renew(&self) {
        let mut number = self.number.lock();
        let mut taken = self.places.taken.lock();
        if let Some((_, cut)) = taken.holders.remove(&number) {
            *number = taken.add(cut);
        }
    }

    /// When it was taken; `None`: it is lost.
    pub(super) fn since(&self) -> Option<Instant> {
        let number = *self.number.lock();
        self.places.taken.lock().holders.get(&number).map(|(since, _)| *since)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let number = *self.number.lock();
        self.places.taken.lock().holders.remove(&number);
        self.places.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_comes_last_gets_the_place_of_who_has_had_his_longest() {
        let places = Places::new(2, Duration::ZERO);
        let [first, second, third] = [(); 3].map(|()| CancellationToken::new());
        let longest = places.take(&first).await;
        let shorter = places.take(&second).await;
        longest.renew();
        let _last = places.take(&third).await;
        assert!(second.is_cancelled() && !first.is_cancelled() && !third.is_cancelled());
        assert_eq!(shorter.since(), None);
        shorter.renew();
        drop(shorter);
        assert_eq!(places.taken.lock().holders.len(), 2, "what is lost is not given back");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_patient_gets_what_is_given_back_and_else_takes() {
        let places = Places::new(1, Duration::from_secs(1));
        let [first, second, third] = [(); 3].map(|()| CancellationToken::new());
        let place = places.take(&first).await;
        let (place, ()) = tokio::join!(places.take(&second), async { drop(place) });
        assert!(!first.is_cancelled());
        let began = Instant::now();
        let _third = places.take(&third).await;
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        assert!(second.is_cancelled());
        drop(place);
    }
}
