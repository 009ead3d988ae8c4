//! What a client gets while its server is unreachable, and when the connection to it is lost.
//!
//! Most libraries take an error reply for the answer to a command: redis-py raises it without a retry, phpredis returns `false`, and a
//! Celery worker ends. They retry after a closed connection. The error code `LOADING` makes libraries retry, too, and carries a text, but
//! only while a library sets up a connection. It promises that the request was not executed, so a request that was sent upstream never gets
//! it. `tests/outage.rs` has the libraries.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::context::RouteContext;
use super::farewell;
use super::settings::OutageErrors;
use crate::downstream::ClientStream;
use crate::endpoint::Endpoint;
use crate::resp::replies;
use crate::resp::whole::Front;
use crate::resp::words::is_same;
use crate::upstream::Unreachable;

/// How long to wait for a client's first request, which decides the answer.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Number of bytes of a first request to wait for. Libraries set up connections with shorter requests.
const MAX_FIRST_REQUEST: usize = 16 * 1024;

/// Why a client gets no connection.
#[derive(Debug, Clone)]
pub(super) struct NoUpstream {
    why: Arc<str>,
    /// Whether the cause can end without a change to the configuration or the server.
    is_outage: bool,
}

impl NoUpstream {
    /// A cause that can end without a change to the configuration or the server.
    pub(super) fn outage(why: String) -> Self {
        Self { why: why.into(), is_outage: true }
    }

    /// A cause that lasts until the configuration or the server changes.
    pub(super) fn lasting(why: &str) -> Self {
        Self { why: why.into(), is_outage: false }
    }
}

impl From<Unreachable> for NoUpstream {
    fn from(error: Unreachable) -> Self {
        Self { why: error.to_string().into(), is_outage: error.is_outage() }
    }
}

/// Answers a client whose next request was never sent upstream, and closes. `input`: what the client has sent.
pub(super) async fn unreachable(
    mut client: ClientStream,
    input: &[u8],
    route: &RouteContext,
    error: &NoUpstream,
) {
    let errors = route.settings.errors;
    if route.is_node || errors == OutageErrors::Close {
        return farewell::close(client).await;
    }
    if !error.is_outage {
        return farewell::refuse(client, 1, &error.why).await;
    }
    if errors == OutageErrors::Auto && !sets_up(&mut client, input).await {
        return farewell::close(client).await;
    }
    farewell::say(client, &replies::error_reply_with("LOADING", &error.why)).await;
}

/// Whether libraries send the client's next request to set up a connection or to test one.
async fn sets_up(client: &mut ClientStream, input: &[u8]) -> bool {
    // The request may hold a password. This buffer has room for all that is read, because a buffer that grows leaves copies behind.
    let mut received = Zeroizing::new(Vec::with_capacity(input.len() + MAX_FIRST_REQUEST));
    received.extend_from_slice(input);
    let first = async {
        loop {
            match Front::of(&received) {
                _ if received.is_empty() => {}
                Front::Whole(whole) => {
                    return [&b"HELLO"[..], b"CLIENT", b"PING"].iter().any(|name| is_same(whole.name, name));
                }
                Front::Part(least) if least <= MAX_FIRST_REQUEST => {}
                Front::Part(_) | Front::Other | Front::Tls => return false,
            }
            if !matches!(client.read_buf(&mut *received).await, Ok(1..)) {
                return false;
            }
        }
    };
    timeout(FIRST_REQUEST_TIMEOUT, first).await.unwrap_or(false)
}

/// Answers the `unanswered` requests of a client whose connection is lost, if `errors` says so, and closes.
pub(super) async fn lost(
    client: ClientStream,
    endpoint: &Endpoint,
    unanswered: u64,
    why: Option<&str>,
    route: &RouteContext,
) {
    if unanswered == 0 || !reports_loss(route) {
        return farewell::close(client).await;
    }
    farewell::refuse(client, unanswered, &loss(endpoint, why)).await;
}

/// Whether requests that may have been executed get an error reply when their connection is lost.
pub(super) fn reports_loss(route: &RouteContext) -> bool {
    !route.is_node && route.settings.errors == OutageErrors::Reply
}

/// The error for a request that may have been executed.
pub(super) fn loss(endpoint: &Endpoint, why: Option<&str>) -> String {
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    format!("connection to {endpoint} lost{why}; the command may or may not have been executed")
}
