//! The admin server: binds its listener, and routes requests to handlers.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use tokio_util::sync::CancellationToken;

use super::costly::Costly;
use super::inventory::SingleLookup;
use super::server::RequestConnection;
use super::state::{AdminContext, AdminState};
use super::{commands, guard, inventory, page, routes, server};
use crate::endpoint::ListenAddr;
use crate::listener::{BindError, Listener};
use crate::printable::printable;

/// A bound admin server.
#[derive(Debug)]
pub struct Admin(Listener);

impl Admin {
    /// Binds to `address`.
    pub fn bind(address: &ListenAddr) -> Result<Self, BindError> {
        Listener::bind(address).map(Self)
    }

    /// Returns the address, with the port that the system chose.
    pub fn address(&self) -> &ListenAddr {
        self.0.address()
    }

    /// Serves until `stop`. `metrics_at` is the address that serves the metrics instead of this one.
    pub async fn run(self, shared: AdminContext, metrics_at: Option<String>, stop: CancellationToken) {
        let state = AdminState { metrics_at: metrics_at.map(Into::into), ..state(shared) };
        tokio::select! {
            () = server::serve(self.0, router(state.clone()), stop) => {}
            () = state.history.keep(&state.shared) => {}
        }
    }
}

/// A bound server that serves only metrics.
#[derive(Debug)]
pub struct MetricsServer(Listener);

impl MetricsServer {
    /// Binds to `address`.
    pub fn bind(address: &ListenAddr) -> Result<Self, BindError> {
        Listener::bind(address).map(Self)
    }

    /// Returns the address, with the port that the system chose.
    pub fn address(&self) -> &ListenAddr {
        self.0.address()
    }

    /// Serves until `stop`.
    pub async fn run(self, shared: AdminContext, stop: CancellationToken) {
        let router = Router::new()
            .route("/metrics", get(metrics))
            .fallback(|| async {
                (
                    StatusCode::NOT_FOUND,
                    "not found; this address serves only /metrics, admin.listen serves the rest\n",
                )
            })
            .layer(from_fn(guard::guard))
            .with_state(state(shared));
        server::serve(self.0, router, stop).await;
    }
}

fn state(shared: AdminContext) -> AdminState {
    AdminState {
        shared: Arc::new(shared),
        looking: SingleLookup::default(),
        costly: Costly::new(),
        scrapes: Costly::new(),
        history: Arc::default(),
        metrics_at: None,
    }
}

fn router(state: AdminState) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/routes", get(routes::routes))
        .route("/clients", get(inventory::clients))
        .route("/drain", post(commands::drain))
        .route("/reload", post(commands::reload))
        .route("/quit", post(commands::quit))
        .fallback(|| async {
            let words = "not found; GET / (a page for people), /livez, /readyz, /metrics, /routes, /clients; POST /drain, \
                         /reload, /quit\n";
            (StatusCode::NOT_FOUND, words)
        })
        .layer(from_fn(guard::guard))
        .with_state(state)
}

async fn readyz(State(AdminState { shared, .. }): State<AdminState>) -> (StatusCode, String) {
    let report = shared.serving_report();
    let status = if report.serving { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // The cause may contain text from the server.
    (status, format!("{}\n", printable(&report.to_string())))
}

async fn metrics(
    State(AdminState { shared, scrapes, metrics_at, .. }): State<AdminState>,
    Extension(connection): Extension<RequestConnection>,
) -> Response {
    if let Some(address) = metrics_at {
        let words = format!("not found; the metrics are at {address} (admin.metrics_listen)\n");
        return (StatusCode::NOT_FOUND, words).into_response();
    }
    let text = move || {
        routes::record(&shared);
        shared.metrics.render()
    };
    scrapes.answer(&connection.cut, "text/plain; version=0.0.4; charset=utf-8", text).await
}
