//! `GET /clients`: the inventory, as JSON. Never a key, a value or a password in it.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::server::Connection;
use super::{Desk, Shared};

/// Sessions and clients shown, where `?limit=` does not say.
pub(super) const LIMIT: usize = 1000;

/// And where it says more.
const MOST: usize = 10_000;

/// Processes that are not found in this time are shown next time.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn clients(
    State(desk): State<Desk>,
    Extension(connection): Extension<Connection>,
    RawQuery(query): RawQuery,
) -> Response {
    let Some(limit) = limit(query.as_deref().unwrap_or_default()) else {
        return (StatusCode::BAD_REQUEST, "expected /clients?limit=NUMBER\n").into_response();
    };
    look_up(&desk.shared).await;
    json(&desk, &connection, move |shared| shared.inventory.report(limit)).await
}

/// Finds out who the clients' processes are, as far as that does not take long.
pub(super) async fn look_up(shared: &Shared) {
    let inventory = Arc::clone(&shared.inventory);
    // Reads /proc, which takes its time: not on an event loop.
    let _ = timeout(PATIENCE, spawn_blocking(move || inventory.look_up())).await;
}

fn limit(query: &str) -> Option<usize> {
    let mut limit = LIMIT;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        limit = pair.strip_prefix("limit=")?.parse().ok()?;
    }
    Some(limit.min(MOST))
}

/// What `tell` tells, as JSON.
pub(super) async fn json<T: Serialize>(
    desk: &Desk,
    connection: &Connection,
    tell: impl FnOnce(&Shared) -> T + Send + 'static,
) -> Response {
    let shared = Arc::clone(&desk.shared);
    let text = move || serde_json::to_string(&tell(&shared)).expect("plain data has a form in JSON") + "\n";
    desk.costly.answer(&connection.cut, "application/json", text).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_and_has_its_own() {
        assert_eq!(limit(""), Some(LIMIT));
        assert_eq!(limit("limit=5"), Some(5));
        assert_eq!(limit("limit=99999999"), Some(MOST));
        for query in ["limit=", "limit=-1", "limit=a", "lim=5", "limit=99999999999999999999999"] {
            assert_eq!(limit(query), None, "{query}");
        }
    }
}
