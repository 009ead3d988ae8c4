//! A client of another pontoon's admin server.

use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use crate::endpoint::ListenAddr;

/// Timeout of a request for health.
const HEALTH: Duration = Duration::from_secs(2);

/// Timeout of a request that takes pontoon some work.
const FETCH: Duration = Duration::from_secs(10);

/// Time between two attempts.
const ADMIN_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Maximum size of a response in bytes. pontoon sends no larger one.
const MAX_ADMIN_RESPONSE: usize = 64 * 1024 * 1024;

/// A request to a pontoon failed.
#[derive(Debug, thiserror::Error)]
#[error("no answer from {address}: {problem}: is pontoon running, and is that its --admin address?")]
pub struct NoAnswer {
    address: ListenAddr,
    /// The cause.
    pub problem: String,
}

/// Why a pontoon is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum NotHealthy {
    /// It reported so itself.
    #[error("the pontoon at {address} is {report}")]
    Said {
        /// The address of the pontoon.
        address: ListenAddr,
        /// Its report.
        report: String,
    },
    /// The request failed.
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
}

/// The kind of health to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It serves clients: `/readyz`.
    Serving,
    /// Its process works, whatever the state of the upstreams: `/livez`.
    Live,
}

/// Asks the pontoon at `address` for its health until it is healthy or `wait` is over. Returns its report.
pub async fn health(address: &ListenAddr, health: Health, wait: Duration) -> Result<String, NotHealthy> {
    let deadline = Instant::now() + wait;
    loop {
        let error = match ask(address, health).await {
            Ok(report) => return Ok(report),
            Err(error) => error,
        };
        if Instant::now() + ADMIN_RETRY_INTERVAL > deadline {
            return Err(error);
        }
        sleep(ADMIN_RETRY_INTERVAL).await;
    }
}

/// Fetches `path` from the pontoon at `address`.
pub async fn fetch(address: &ListenAddr, path: &str) -> Result<String, NoAnswer> {
    fetch_within(FETCH, MAX_ADMIN_RESPONSE, address, path).await
}

/// Fetches `path` within `time`, and at most `max` bytes.
pub async fn fetch_within(
    time: Duration,
    max: usize,
    address: &ListenAddr,
    path: &str,
) -> Result<String, NoAnswer> {
    match get_within(time, max, address, path).await? {
        (StatusCode::OK, body) => Ok(body),
        (other, _) => Err(unexpected(address, other)),
    }
}

async fn ask(address: &ListenAddr, health: Health) -> Result<String, NotHealthy> {
    let path = match health {
        Health::Serving => "/readyz",
        Health::Live => "/livez",
    };
    match get_within(HEALTH, MAX_ADMIN_RESPONSE, address, path).await? {
        (StatusCode::OK, body) => Ok(body.trim_end().into()),
        (StatusCode::SERVICE_UNAVAILABLE, body) => {
            Err(NotHealthy::Said { address: address.clone(), report: body.trim_end().into() })
        }
        (other, _) => Err(unexpected(address, other).into()),
    }
}

fn unexpected(address: &ListenAddr, status: StatusCode) -> NoAnswer {
    NoAnswer { address: address.clone(), problem: format!("unexpected response HTTP {status}") }
}

async fn get_within(
    time: Duration,
    max: usize,
    address: &ListenAddr,
    path: &str,
) -> Result<(StatusCode, String), NoAnswer> {
    let no_answer = |problem: String| NoAnswer { address: address.clone(), problem };
    timeout(time, get(max, address, path))
        .await
        .map_err(|_| no_answer(format!("no response within {}", humantime::format_duration(time))))?
        .map_err(|error| no_answer(error.to_string()))
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn get(max: usize, address: &ListenAddr, path: &str) -> Result<(StatusCode, String), BoxError> {
    match address {
        ListenAddr::Tcp(address) => {
            exchange(TcpStream::connect(address).await?, &address.to_string(), path, max).await
        }
        ListenAddr::Unix { path: socket, .. } => {
            exchange(UnixStream::connect(socket).await?, "localhost", path, max).await
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    host: &str,
    path: &str,
    max: usize,
) -> Result<(StatusCode, String), BoxError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header("host", host).body(Body::empty())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), max).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() { format!("more than {max} bytes").into() } else { error }
        })?;
        let body = body.to_bytes();
        Ok::<_, BoxError>((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => { ended?; exchange.await }
    }
}
