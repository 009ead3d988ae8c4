//! What `/metrics` may cost: one reading at a time, and a tenth of one processor. Who asks more often waits, and is refused
//! where many wait already.

use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep_until};

/// More readers than people have Prometheus servers.
const PLACES: usize = 8;

/// After a reading, nothing is read for so many times as long as it took.
const PAUSE: u32 = 9;

pub(super) struct Scrapes {
    places: Semaphore,
    not_before: Mutex<Instant>,
}

impl Default for Scrapes {
    fn default() -> Self {
        Self { places: Semaphore::new(PLACES), not_before: Mutex::new(Instant::now()) }
    }
}

impl Scrapes {
    /// Reads, when its turn has come. `None`: too many wait.
    pub(super) async fn read(&self, read: impl FnOnce() -> String) -> Option<String> {
        let _place = self.places.try_acquire().ok()?;
        let mut not_before = self.not_before.lock().await;
        sleep_until(*not_before).await;
        let began = Instant::now();
        let text = read();
        *not_before = Instant::now() + began.elapsed() * PAUSE;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn of_too_many_readers_some_are_refused_and_the_others_have_their_turn() {
        let scrapes = Scrapes::default();
        *scrapes.not_before.lock().await += Duration::from_secs(1);
        let all = (0..20).map(|_| scrapes.read(|| "text".to_owned()));
        let read = join_all(all).await.into_iter().flatten().count();
        assert_eq!(read, PLACES);
        assert_eq!(scrapes.read(|| "text".to_owned()).await.as_deref(), Some("text"));
    }

    #[tokio::test]
    async fn who_asks_all_the_time_gets_a_tenth_of_it() {
        let scrapes = Scrapes::default();
        let took = Duration::from_millis(2);
        let slow = || {
            std::thread::sleep(took);
            String::new()
        };
        let began = Instant::now();
        for _ in 0..3 {
            scrapes.read(slow).await.unwrap();
        }
        assert!(began.elapsed() >= took * (1 + 10 + 10));
    }
}
