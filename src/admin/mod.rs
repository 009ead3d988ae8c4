//! The admin server: liveness, readiness, metrics, inventory, commands. Liveness never depends on the upstream: a Redis
//! outage must not restart the pod.

pub mod client;
mod commands;
mod guard;
mod inventory;
mod readiness;
mod routes;
mod scrapes;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::commands::{Command, WAITING};
use self::guard::Source;
pub use self::readiness::Readiness;
pub use self::routes::{Auth, PlaintextReport, Route, RouteReport, ServersReport};
use self::scrapes::Scrapes;
use crate::clients::Inventory;
use crate::metrics::PrometheusHandle;
use crate::verdict;

/// Requests in hand, at most: probes and scrapers are few.
const CONNECTIONS: usize = 64;

/// A request's header must arrive in this time, an idle connection's next one too.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The admin server's address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for the admin server: {source}: choose another with --admin, or \"off\"")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// A bound admin server.
#[derive(Debug)]
pub struct Admin {
    socket: TcpListener,
    address: SocketAddr,
}

/// What it tells of.
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
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let bind = || {
            let socket = TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        bind().map_err(|source| BindError { address, source })
    }

    /// The address, with the port that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`.
    pub async fn run(self, shared: Shared, stop: CancellationToken) {
        let service = router(shared);
        let Ok(socket) = tokio::net::TcpListener::from_std(self.socket) else { return };
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = accept(&socket, &places) => accepted,
                () = stop.cancelled() => return,
            };
            let Ok((stream, source, place)) = accepted else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            let router = TowerToHyperService::new(service.clone());
            let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(source);
                router.call(request)
            });
            let stop = stop.clone();
            connections.spawn(async move {
                let _place = place;
                let serve = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    _ = serve => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    }
}

async fn accept(
    socket: &tokio::net::TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(tokio::net::TcpStream, Source, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = socket.accept().await?;
    Ok((stream, Source::tcp(peer), place))
}

fn router(shared: Shared) -> Router {
    let scrapes = Arc::new(Scrapes::default());
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(move |State(shared)| metrics(shared, scrapes)))
        .route("/routes", get(routes::routes))
        .route("/clients", get(inventory::clients))
        .route("/drain", post(commands::drain))
        .route("/reload", post(commands::reload))
        .route("/quit", post(commands::quit))
        .fallback(|| async {
            let words = "not found; there are /livez, /readyz, /metrics, /routes, /clients; and to POST: /drain, /reload, \
                         /quit\n";
            (StatusCode::NOT_FOUND, words)
        })
        .layer(from_fn(guard::guard))
        .with_state(shared)
}

async fn readyz(State(shared): State<Shared>) -> (StatusCode, String) {
    let reasons = shared.readiness.reasons();
    if reasons.is_empty() {
        (StatusCode::OK, "ok\n".into())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
    }
}

async fn metrics(shared: Shared, scrapes: Arc<Scrapes>) -> Response {
    let read = || {
        routes::record(&shared);
        shared.metrics.render()
    };
    match scrapes.read(read).await {
        Some(text) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
        None => (StatusCode::SERVICE_UNAVAILABLE, "too many ask for metrics at once\n").into_response(),
    }
}
