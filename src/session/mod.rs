//! A session pairs one client with one upstream connection and relays between them, from the accepted socket to
//! a named [`End`].

mod client;
mod farewell;
mod outbox;
mod pending;
mod relay;
mod scratch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::debug;

pub use self::client::{Accepted, ClientStream};
pub use self::pending::Opaque;
use self::relay::{Ended, Relay};
use crate::drain::Drain;
use crate::metrics::{Held, RouteMetrics};
use crate::resp::replies;
use crate::upstream::Upstream;

/// How a route's sessions behave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// End a session that carried nothing for this long; `None`: never.
    pub idle_timeout: Option<Duration>,
}

/// What all sessions of a route share.
pub struct Context {
    /// The route's name.
    pub route: String,
    /// The server side.
    pub upstream: Arc<Upstream>,
    /// How sessions behave.
    pub settings: Settings,
    /// What is counted.
    pub metrics: Arc<RouteMetrics>,
    /// When to end.
    pub drain: Drain,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client left.
    ClientClosed,
    /// The upstream closed the connection.
    UpstreamClosed,
    /// pontoon left: nothing was due, or the time was up.
    Drained,
    /// Nothing passed for `limits.idle_timeout`.
    Idle,
    /// There was no upstream connection, or it failed.
    Failed,
}

impl End {
    /// The end as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::UpstreamClosed => "upstream_closed",
            Self::Drained => "drained",
            Self::Idle => "idle",
            Self::Failed => "failed",
        }
    }
}

/// Serves one client to its end.
pub async fn serve(client: Accepted, context: Arc<Context>) {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let session = NUMBER.fetch_add(1, Ordering::Relaxed);
    let _active = Held::new(&context.metrics.sessions_active);
    let end = match client.into_stream() {
        Ok(client) => run(client, &context, session).await,
        Err(error) => {
            debug!(route = context.route, session, %error, "client lost");
            End::ClientClosed
        }
    };
    context.metrics.session_ended(end.label());
    debug!(route = context.route, session, end = end.label(), "session ended");
}

/// Tells a client that there are as many as are allowed, in Redis' own words.
pub async fn refuse_at_limit(client: Accepted) {
    if let Ok(client) = client.into_stream() {
        farewell::say(client, replies::MAX_CLIENTS).await;
    }
}

async fn run(client: ClientStream, context: &Context, session: u64) -> End {
    let connected = tokio::select! {
        connected = context.upstream.connect() => connected,
        () = context.drain.cut_off() => return End::Drained,
    };
    let upstream = match connected {
        Ok(upstream) => upstream,
        Err(error) => {
            farewell::refuse(client, 1, &error.to_string()).await;
            return End::Failed;
        }
    };
    debug!(route = context.route, session, upstream = %upstream.endpoint, peer = %upstream.peer, "session started");
    let _connected = Held::new(&context.metrics.upstream_active);
    let endpoint = upstream.endpoint.clone();
    let mut relay =
        Relay::new(client, upstream, context.settings.idle_timeout, &context.drain, &context.metrics);
    let ended = relay.run().await;
    let client = relay.into_client();
    match ended {
        Ended::Client => End::ClientClosed,
        Ended::Idle => {
            farewell::close(client).await;
            End::Idle
        }
        Ended::Drained => {
            farewell::close(client).await;
            End::Drained
        }
        Ended::Cut => End::Drained,
        Ended::Upstream { unanswered, why } => {
            let end = if unanswered > 0 || why.is_some() { End::Failed } else { End::UpstreamClosed };
            debug!(route = context.route, session, unanswered, why, "upstream connection ended");
            if unanswered == 0 {
                farewell::close(client).await;
            } else {
                let reason = format!(
                    "connection to {endpoint} lost{}; the command may or may not have been executed",
                    why.map(|why| format!(" ({why})")).unwrap_or_default()
                );
                farewell::refuse(client, unanswered, &reason).await;
            }
            end
        }
    }
}
