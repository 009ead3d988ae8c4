//! The admin server: liveness, readiness, metrics, inventory, commands, and a page for people. Liveness never depends on
//! the upstream: a Redis outage must not restart the pod.

pub mod client;
mod commands;
mod costly;
mod guard;
mod history;
mod inventory;
mod page;
mod places;
mod readiness;
mod routes;
mod server;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::commands::{Command, WAITING};
use self::costly::Costly;
use self::history::History;
use self::inventory::Looking;
pub use self::readiness::Readiness;
pub use self::routes::{Auth, PlaintextReport, Route, RouteReport, ServersReport};
use self::server::Connection;
use crate::clients::Inventory;
use crate::endpoint::ListenAddr;
use crate::group::verdict;
use crate::listener::{BindError, Listener};
use crate::metrics::PrometheusHandle;

/// A bound admin server.
#[derive(Debug)]
pub struct Admin(Listener);

/// What it tells of. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    /// Whether clients are welcome.
    pub readiness: Arc<Readiness>,
    /// All metrics.
    pub metrics: PrometheusHandle,
    /// All sessions.
    pub inventory: Arc<Inventory>,
    /// What a reload may change.
    pub shown: Arc<ArcSwap<Shown>>,
    /// Where commands go.
    pub commands: mpsc::Sender<Command>,
}

/// What a reload may change.
#[derive(Default)]
pub struct Shown {
    /// All routes.
    pub routes: Vec<Route>,
    /// How long is long enough.
    pub verdict: verdict::Settings,
}

impl Admin {
    /// Binds `address`.
    pub fn bind(address: &ListenAddr) -> Result<Self, BindError> {
        Listener::bind(address).map(Self)
    }

    /// The address, with the port that the system chose.
    pub fn address(&self) -> &ListenAddr {
        self.0.address()
    }

    /// Serves until `stop`.
    pub async fn run(self, shared: Shared, stop: CancellationToken) {
        let desk = Desk {
            shared: Arc::new(shared),
            looking: Looking::default(),
            costly: Costly::new(),
            scrapes: Costly::new(),
            history: Arc::default(),
        };
        tokio::select! {
            () = server::serve(self.0, router(desk.clone()), stop) => {}
            () = desk.history.keep(&desk.shared) => {}
        }
    }
}

/// Where requests are answered.
#[derive(Clone)]
struct Desk {
    shared: Arc<Shared>,
    looking: Looking,
    costly: Costly,
    /// Apart from the others: whoever asks for those does not keep a scraper waiting.
    scrapes: Costly,
    history: Arc<History>,
}

fn router(desk: Desk) -> Router {
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
            let words = "not found; there are / for people, /livez, /readyz, /metrics, /routes, /clients; and to POST: /drain, \
                         /reload, /quit\n";
            (StatusCode::NOT_FOUND, words)
        })
        .layer(from_fn(guard::guard))
        .with_state(desk)
}

async fn readyz(State(Desk { shared, .. }): State<Desk>) -> (StatusCode, String) {
    let reasons = shared.readiness.reasons();
    if reasons.is_empty() {
        (StatusCode::OK, "ok\n".into())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
    }
}

async fn metrics(
    State(Desk { shared, scrapes, .. }): State<Desk>,
    Extension(connection): Extension<Connection>,
) -> Response {
    let text = move || {
        routes::record(&shared);
        shared.metrics.render()
    };
    scrapes.answer(&connection.cut, "text/plain; version=0.0.4; charset=utf-8", text).await
}
