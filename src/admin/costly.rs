//! Answers that cost time to make and memory until they are taken: one is made at a time, off the event loop, in a bounded
//! part of the time, and few wait to be taken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::permits::{EvictablePermit, EvictablePermits};

/// Answers of one maker in memory at once.
const ANSWERS: usize = 4;

/// Time, in seconds, that a slowly read response keeps its permit while others wait for it.
const SLOW_READER_TIMEOUT: Duration = Duration::from_secs(1);

/// After an answer that took some time to make, none is made for this many times as long.
const REST_FACTOR: u32 = 9;

/// Makes answers, one at a time.
#[derive(Debug, Clone)]
pub(super) struct Costly {
    permits: Arc<EvictablePermits>,
    /// The next answer may be made from then on.
    turn: Arc<Mutex<Instant>>,
}

impl Costly {
    pub(super) fn new() -> Self {
        Self {
            permits: EvictablePermits::new(ANSWERS, SLOW_READER_TIMEOUT),
            turn: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// What `make` returns, of this type, for the connection that `cut` ends.
    pub(super) async fn answer(
        &self,
        cut: &CancellationToken,
        content_type: &'static str,
        make: impl FnOnce() -> String + Send + 'static,
    ) -> Response {
        let permit = self.permits.take(cut).await;
        // Goes with the work: who is cut while he waits for it does not let in the next before it is done.
        let mut turn = Arc::clone(&self.turn).lock_owned().await;
        sleep_until((*turn).into()).await;
        let made = spawn_blocking(move || {
            let began = Instant::now();
            let text = make();
            *turn = Instant::now() + began.elapsed() * REST_FACTOR;
            text
        });
        match made.await {
            Ok(text) => {
                let text = Bytes::from_owner(CostlyAnswer { text, _permit: permit });
                ([(header::CONTENT_TYPE, content_type)], text).into_response()
            }
            Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made\n").into_response(),
        }
    }
}

/// An answer keeps its permit until it is read.
struct CostlyAnswer {
    text: String,
    _permit: EvictablePermit,
}

impl AsRef<[u8]> for CostlyAnswer {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_are_made_in_a_tenth_of_the_time_and_one_after_the_other() {
        let costly = Costly::new();
        let (cut, took, began) = (CancellationToken::new(), Duration::from_millis(2), Instant::now());
        let one = async || {
            let slow = move || {
                std::thread::sleep(took);
                String::new()
            };
            costly.answer(&cut, "text/plain", slow).await
        };
        tokio::join!(one(), one(), one());
        assert!(began.elapsed() >= took * (1 + 10 + 10));
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_are_not_taken_make_room_for_those_that_are_asked_for() {
        let costly = Costly::new();
        let cuts: Vec<_> = (0..10).map(|_| CancellationToken::new()).collect();
        let mut untaken = Vec::new();
        for cut in &cuts {
            untaken.push(costly.answer(cut, "text/plain", || "text".into()).await);
        }
        let cut = cuts.iter().filter(|cut| cut.is_cancelled()).count();
        assert_eq!((untaken.len(), cut), (10, 10 - ANSWERS));
    }

    #[tokio::test]
    async fn a_failure_is_told_as_one_and_the_next_answer_comes() {
        let costly = Costly::new();
        let cut = CancellationToken::new();
        let failed = costly.answer(&cut, "text/plain", || panic!("declared")).await;
        assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(costly.answer(&cut, "text/plain", String::new).await.status(), StatusCode::OK);
    }
}
