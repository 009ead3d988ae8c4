//! `GET /routes` and `GET /clients`: the inventory, as JSON. Never a key, a value or a password in either.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Shared;
use crate::clients::{Counts, Totals};

/// Sessions and clients shown, where `?limit=` does not say.
const LIMIT: usize = 1000;

/// And where it says more.
const MOST: usize = 100_000;

/// Processes that are not found in this time are shown next time.
const PATIENCE: Duration = Duration::from_secs(1);

/// A route, as far as it is fixed.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name.
    pub name: Arc<str>,
    /// Where it listens, with the ports that the system chose.
    pub listeners: Vec<String>,
    /// Its endpoints, as configured.
    pub upstreams: Vec<String>,
}

/// A route, as `/routes` shows it.
#[derive(Debug, Serialize, Deserialize)]
pub struct RouteReport {
    /// Its name.
    pub route: Box<str>,
    /// Where it listens.
    pub listeners: Vec<String>,
    /// Its endpoints.
    pub upstreams: Vec<String>,
    /// Sessions now.
    pub sessions_active: u64,
    /// Sessions of this run.
    pub sessions_total: u64,
    /// What passed in this run.
    #[serde(flatten)]
    pub counts: Counts,
}

pub(super) async fn routes(State(shared): State<Shared>) -> Response {
    let report = |route: &Route| {
        let Totals { active, sessions, counts } = shared.inventory.totals(&route.name);
        RouteReport {
            route: (*route.name).into(),
            listeners: route.listeners.clone(),
            upstreams: route.upstreams.clone(),
            sessions_active: active,
            sessions_total: sessions,
            counts,
        }
    };
    json(&shared.routes.iter().map(report).collect::<Vec<_>>())
}

pub(super) async fn clients(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let Some(limit) = limit(query.as_deref().unwrap_or_default()) else {
        return (StatusCode::BAD_REQUEST, "expected /clients?limit=NUMBER\n").into_response();
    };
    let inventory = Arc::clone(&shared.inventory);
    // Reads /proc, which takes its time: not on an event loop.
    let _ = timeout(PATIENCE, spawn_blocking(move || inventory.look_up())).await;
    json(&shared.inventory.report(limit))
}

fn limit(query: &str) -> Option<usize> {
    let mut limit = LIMIT;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        limit = pair.strip_prefix("limit=")?.parse().ok()?;
    }
    Some(limit.min(MOST))
}

fn json(value: &impl Serialize) -> Response {
    // Names come from clients: no browser may take them for anything but data.
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    match serde_json::to_string(value) {
        Ok(text) => (headers, text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
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
