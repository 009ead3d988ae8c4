//! `GET /clients`: the inventory as JSON. It never contains a key, a value or a password.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::server::RequestConnection;
use super::state::{AdminContext, AdminState};
use crate::printable::printable_json;

/// Maximum number of sessions and of clients in a response without `?limit=`.
pub(super) const DEFAULT_INVENTORY_LIMIT: usize = 1000;

/// Largest effective `?limit=`.
const MAX_INVENTORY_LIMIT: usize = 10_000;

/// Longest time to look up processes. Those found later appear in the next response.
const PROCESS_LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) async fn clients(
    State(state): State<AdminState>,
    Extension(connection): Extension<RequestConnection>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(limit) = limit(query.as_deref().unwrap_or_default()) else {
        return (StatusCode::BAD_REQUEST, "expected /clients?limit=NUMBER\n").into_response();
    };
    look_up(&state).await;
    json(&state, &connection, move |shared| shared.inventory.report(limit)).await
}

/// Finds the clients' processes, unless that takes too long.
pub(super) async fn look_up(state: &AdminState) {
    let inventory = Arc::clone(&state.shared.inventory);
    state.looking.wait_for(move || _ = inventory.look_up()).await;
}

/// Runs a lookup on one thread, however many requests wait for it. A request that stops waiting does not stop the lookup.
#[derive(Debug, Clone, Default)]
pub(super) struct SingleLookup(Arc<Mutex<()>>);

impl SingleLookup {
    /// Runs `work` after any earlier lookup. Waits at most [`PROCESS_LOOKUP_TIMEOUT`], including the time for earlier lookups.
    async fn wait_for(&self, work: impl FnOnce() + Send + 'static) {
        let turn = Arc::clone(&self.0);
        let done = async {
            let turn = turn.lock_owned().await;
            // Reading /proc blocks, so it must not run on an event loop.
            spawn_blocking(move || {
                work();
                drop(turn);
            })
            .await
        };
        let _ = timeout(PROCESS_LOOKUP_TIMEOUT, done).await;
    }
}

fn limit(query: &str) -> Option<usize> {
    let mut limit = DEFAULT_INVENTORY_LIMIT;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        limit = pair.strip_prefix("limit=")?.parse().ok()?;
    }
    Some(limit.min(MAX_INVENTORY_LIMIT))
}

/// Returns what `report` returns, as JSON.
pub(super) async fn json<T: Serialize>(
    state: &AdminState,
    connection: &RequestConnection,
    report: impl FnOnce(&AdminContext) -> T + Send + 'static,
) -> Response {
    let shared = Arc::clone(&state.shared);
    let text = move || {
        let json = serde_json::to_string(&report(&shared)).expect("plain data has a form in JSON");
        printable_json(&json).into_owned() + "\n"
    };
    state.costly.answer(&connection.cut, "application/json", text).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use futures_util::future::join_all;
    use tokio::sync::oneshot;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_requests_take_only_one_thread_while_proc_is_slow() {
        let looking = SingleLookup::default();
        let (began, has_begun) = oneshot::channel();
        let (release, released) = mpsc::channel::<()>();
        let slow = looking.wait_for(move || {
            began.send(()).unwrap();
            let _ = released.recv();
        });
        let late = Arc::new(AtomicUsize::new(0));
        let askers = join_all((0..1000).map(|_| {
            let late = Arc::clone(&late);
            looking.wait_for(move || {
                late.fetch_add(1, Ordering::Relaxed);
            })
        }));
        // The paused clock does not advance by itself while a thread is busy.
        let patience = async {
            has_begun.await.unwrap();
            advance(PROCESS_LOOKUP_TIMEOUT).await;
        };
        tokio::join!(slow, askers, patience);
        assert_eq!(late.load(Ordering::Relaxed), 0, "they stopped waiting");
        drop(release);
        looking.wait_for(|| {}).await;
    }

    #[test]
    fn a_limit_is_a_number_up_to_a_maximum() {
        assert_eq!(limit(""), Some(DEFAULT_INVENTORY_LIMIT));
        assert_eq!(limit("limit=5"), Some(5));
        assert_eq!(limit("limit=99999999"), Some(MAX_INVENTORY_LIMIT));
        for query in ["limit=", "limit=-1", "limit=a", "lim=5", "limit=99999999999999999999999"] {
            assert_eq!(limit(query), None, "{query}");
        }
    }
}
