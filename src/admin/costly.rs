//! Responses that take time to build, and memory until they are read. One is built at a time, off the event loop, in a limited share of the
//! time, and few may wait to be read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::permits::{EvictablePermit, EvictablePermits};

/// Maximum number of responses of one kind in memory.
const ANSWERS: usize = 4;

/// How long a slowly read response keeps its permit while others wait for it.
const SLOW_READER_TIMEOUT: Duration = Duration::from_secs(1);

/// After a response was built, none is built for this many times the CPU time that it took. The time on the clock would include what other
/// programs took, and a machine that stalls for seconds would have no metrics for a minute.
const REST_FACTOR: u32 = 9;

/// Builds responses, one at a time.
#[derive(Debug, Clone)]
pub(super) struct Costly {
    permits: Arc<EvictablePermits>,
    /// When the next response may be built.
    turn: Arc<Mutex<Instant>>,
}

impl Costly {
    pub(super) fn new() -> Self {
        Self {
            permits: EvictablePermits::new(ANSWERS, SLOW_READER_TIMEOUT),
            turn: Arc::new(Mutex::new(Instant::now())),
        }
    }

    /// Returns the response that `make` builds, of this content type, for a connection that `cut` closes.
    pub(super) async fn answer(
        &self,
        cut: &CancellationToken,
        content_type: &'static str,
        make: impl FnOnce() -> String + Send + 'static,
    ) -> Response {
        let permit = self.permits.take(cut).await;
        // Moves into the work, so that a connection closed while it waits does not let the next work start early.
        let mut turn = Arc::clone(&self.turn).lock_owned().await;
        sleep_until((*turn).into()).await;
        let made = spawn_blocking(move || {
            let began = thread_cpu_time();
            let text = make();
            *turn = Instant::now() + thread_cpu_time().saturating_sub(began) * REST_FACTOR;
            text
        });
        match made.await {
            Ok(text) => {
                let text = Bytes::from_owner(CostlyAnswer { text, _permit: permit });
                ([(header::CONTENT_TYPE, content_type)], text).into_response()
            }
            Err(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "the response could not be built\n").into_response()
            }
        }
    }
}

/// The CPU time of this thread.
fn thread_cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// A response, which keeps its permit until it is read.
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
    async fn responses_are_built_one_by_one_in_a_tenth_of_the_time() {
        let costly = Costly::new();
        let (cut, took, began) = (CancellationToken::new(), Duration::from_millis(2), Instant::now());
        let one = async || {
            let slow = move || {
                let began = thread_cpu_time();
                while thread_cpu_time().saturating_sub(began) < took {}
                String::new()
            };
            costly.answer(&cut, "text/plain", slow).await
        };
        tokio::join!(one(), one(), one());
        assert!(began.elapsed() >= took * (1 + 10 + 10));
    }

    #[tokio::test]
    async fn a_machine_that_stalls_delays_no_later_response() {
        let costly = Costly::new();
        let cut = CancellationToken::new();
        let stalled = || {
            std::thread::sleep(Duration::from_millis(200));
            String::new()
        };
        costly.answer(&cut, "text/plain", stalled).await;
        let rest = costly.turn.lock().await.saturating_duration_since(Instant::now());
        assert!(rest < Duration::from_millis(200), "{rest:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn unread_responses_make_room_for_new_ones() {
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
    async fn a_failure_is_reported_and_the_next_response_succeeds() {
        let costly = Costly::new();
        let cut = CancellationToken::new();
        let failed = costly.answer(&cut, "text/plain", || panic!("declared")).await;
        assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(costly.answer(&cut, "text/plain", String::new).await.status(), StatusCode::OK);
    }
}
