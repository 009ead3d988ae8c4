//! Asks another pontoon's admin server.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use hyper::{Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// One answer must come in this time.
const ANSWER: Duration = Duration::from_secs(2);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a pontoon is not ready.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// It says so itself.
    #[error("the pontoon at {address} is not ready: {reasons}")]
    Said {
        /// Who.
        address: SocketAddr,
        /// Its words.
        reasons: String,
    },
    /// It could not be asked.
    #[error("no answer from {address}: {problem}: is pontoon running, and is that its --admin address?")]
    NoAnswer {
        /// Who.
        address: SocketAddr,
        /// What happened instead.
        problem: String,
    },
}

/// Asks the pontoon at `address` whether it is ready, again and again until it is or `wait` is over.
pub async fn ready(address: SocketAddr, wait: Duration) -> Result<(), NotReady> {
    let deadline = Instant::now() + wait;
    loop {
        let Err(error) = ask(address).await else { return Ok(()) };
        if Instant::now() + PAUSE > deadline {
            return Err(error);
        }
        sleep(PAUSE).await;
    }
}

async fn ask(address: SocketAddr) -> Result<(), NotReady> {
    let no_answer = |problem: String| NotReady::NoAnswer { address, problem };
    let (status, body) = timeout(ANSWER, get(address, "/readyz"))
        .await
        .map_err(|_| no_answer(format!("nothing within {} s", ANSWER.as_secs())))?
        .map_err(|error| no_answer(error.to_string()))?;
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::SERVICE_UNAVAILABLE => {
            Err(NotReady::Said { address, reasons: body.trim_end().replace('\n', "; ") })
        }
        other => Err(no_answer(format!("HTTP {other}, which no pontoon says"))),
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn get(address: SocketAddr, path: &str) -> Result<(StatusCode, String), BoxError> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header("host", address.to_string()).body(Body::empty())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok::<_, BoxError>((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => { ended?; exchange.await }
    }
}
