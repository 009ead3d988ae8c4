//! What a client gets while its server cannot be reached, and when the connection to it is lost.
//!
//! Most libraries take an error reply for the answer to a command: redis-py raises it and does not try again, phpredis returns `false`, a
//! worker of Celery ends. The end of the connection they take for what it is, and try again. One error code has the same effect and
//! keeps the text, `LOADING`, but only where a library sets a connection up. It says that the request was not executed, so no
//! request gets it that was sent upstream. `tests/outage.rs` has the libraries.

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

/// So long a client's first request is waited for, to know what to say to it.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes of a first request that are waited for. What libraries send to set up a connection is shorter.
const MAX_FIRST_REQUEST: usize = 16 * 1024;

/// Why there is no connection for a client.
#[derive(Debug, Clone)]
pub(super) struct NoUpstream {
    why: Arc<str>,
    /// Whether it can end without a change to the configuration or the server.
    is_outage: bool,
}

impl NoUpstream {
    /// A cause that can end without a change to the configuration or the server.
    pub(super) fn outage(why: String) -> Self {
        Self { why: why.into(), is_outage: true }
    }

    /// A cause that lasts until the configuration or the server is changed.
    pub(super) fn lasting(why: &str) -> Self {
        Self { why: why.into(), is_outage: false }
    }
}

impl From<Unreachable> for NoUpstream {
    fn from(error: Unreachable) -> Self {
        Self { why: error.to_string().into(), is_outage: error.is_outage() }
    }
}

/// Answers a client whose next request was never sent upstream, and closes. `input`: what it has sent.
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

/// Whether the client's next request is one with which libraries set up a connection, or see whether it works.
async fn sets_up(client: &mut ClientStream, input: &[u8]) -> bool {
    // It may hold a password. A buffer that grows leaves copies behind: this one takes all that is read.
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

/// Tells a client that its connection is lost, and closes. So many requests were sent, and have no reply.
pub(super) async fn lost(
    client: ClientStream,
    endpoint: &Endpoint,
    unanswered: u64,
    why: Option<&str>,
    route: &RouteContext,
) {
    if unanswered == 0 || !tells_loss(route) {
        return farewell::close(client).await;
    }
    farewell::refuse(client, unanswered, &loss(endpoint, why)).await;
}

/// Whether requests that may have been executed get an error reply when their connection is lost.
pub(super) fn tells_loss(route: &RouteContext) -> bool {
    !route.is_node && route.settings.errors == OutageErrors::Reply
}

/// What a request gets that may have been executed.
pub(super) fn loss(endpoint: &Endpoint, why: Option<&str>) -> String {
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    format!("connection to {endpoint} lost{why}; the command may or may not have been executed")
}
