//! The admin server's connections: few and short. A new connection takes the permit of the one whose last request is the oldest.

use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::guard::RequestSource;
use super::permits::{EvictablePermit, EvictablePermits};
use crate::downstream::Accepted;
use crate::listener::Listener;

/// Maximum number of connections, because probes and scrapers are few. A further one evicts the one whose last request is the oldest.
const MAX_ADMIN_CONNECTIONS: usize = 64;

/// A request's header must arrive in this time, also that of the next request on an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The response must be read in this time after the request.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum size of the request line and header in bytes.
const LONGEST_HEADER: usize = 16 * 1024;

/// Time until the next accept after a failed one.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The connection of a request.
#[derive(Debug, Clone)]
pub(super) struct RequestConnection {
    /// Where it comes from.
    pub(super) source: RequestSource,
    /// Closes it.
    pub(super) cut: CancellationToken,
}

/// Serves until `stop`.
pub(super) async fn serve(listener: Listener, router: Router, stop: CancellationToken) {
    let Ok(listener) = listener.accepting() else { return };
    let permits = EvictablePermits::new(MAX_ADMIN_CONNECTIONS, Duration::ZERO);
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok(Some(client)) => {
                let connection =
                    RequestConnection { source: RequestSource::of(&client.peer()), cut: stop.child_token() };
                let permit = permits.take(&connection.cut).await;
                connections.spawn(converse(client, connection, permit, router.clone()));
                // Yield, so that a flood of connections leaves time to answer a useful one.
                yield_now().await;
            }
            Ok(None) => {}
            Err(_) => sleep(ACCEPT_RETRY_INTERVAL).await,
        }
    }
}

async fn converse(client: Accepted, connection: RequestConnection, permit: EvictablePermit, router: Router) {
    let Ok(stream) = client.into_stream() else { return };
    let cut = connection.cut.clone();
    let router = TowerToHyperService::new(router);
    let service = service_fn(|mut request: Request<Incoming>| {
        permit.renew();
        request.extensions_mut().insert(connection.clone());
        router.call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(LONGEST_HEADER)
        // A copy of the response would outlive the response's permit.
        .writev(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        () = cut.cancelled() => {}
        ended = serving => {
            if let Err(error) = ended {
                debug!(%error, "admin connection failed");
            }
        }
        () = overdue(&permit) => debug!("admin connection closed, response not read in time"),
    }
}

/// Completes when the last request has taken too long.
async fn overdue(permit: &EvictablePermit) {
    while let Some(due) =
        permit.since().map(|since| since + EXCHANGE_TIMEOUT).filter(|due| *due > Instant::now())
    {
        sleep_until(due).await;
    }
}
