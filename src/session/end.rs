//! How a session ended, and what its client receives then.

use tracing::{debug, warn};

use super::client_session::Session;
use super::dedicated::Ended;
use super::farewell;
use super::outage;
use crate::upstream::Dialled;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client closed the connection.
    ClientClosed,
    /// The upstream closed the connection.
    UpstreamClosed,
    /// Pontoon drained: no reply was outstanding, or the deadline had passed.
    Drained,
    /// No bytes passed for `limits.idle_timeout`.
    Idle,
    /// The client did not read, and other clients waited for it. See `limits.client_output`.
    Overrun,
    /// The clients of the route did not read, and this one had much output waiting. See `limits.route_output`.
    RouteOverrun,
    /// There was no upstream connection, or it failed.
    Failed,
}

impl End {
    /// The labels of all ends.
    pub const LABELS: [&str; 7] = [
        Self::ClientClosed.label(),
        Self::UpstreamClosed.label(),
        Self::Drained.label(),
        Self::Idle.label(),
        Self::Overrun.label(),
        Self::RouteOverrun.label(),
        Self::Failed.label(),
    ];

    /// The end as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::UpstreamClosed => "upstream_closed",
            Self::Drained => "drained",
            Self::Idle => "idle",
            Self::Overrun => "overrun",
            Self::RouteOverrun => "route_overrun",
            Self::Failed => "failed",
        }
    }
}

/// A fatal alert, `handshake_failure`, in a TLS record. It refuses a client that speaks TLS ([RFC 8446,
/// 6](https://www.rfc-editor.org/rfc/rfc8446#section-6)).
pub(super) const HANDSHAKE_FAILURE: &[u8] = &[21, 3, 3, 0, 2, 2, 40];

/// Ends a session. Sends its client the reason, where a reply can carry it. `dialled`: the session's upstream connection.
pub(super) async fn end(ended: Ended, session: Session<'_>, dialled: Option<&Dialled>) -> End {
    let Session { client, route: context, .. } = session;
    let route = &*context.route;
    match ended {
        Ended::Client => End::ClientClosed,
        Ended::Cut | Ended::Movable | Ended::Shareable => End::Drained,
        Ended::SpeaksTls => {
            context.metrics.refused("tls");
            if let Some(suppressed) = context.throttle.allow("tls") {
                warn!(
                    route,
                    suppressed,
                    "client refused: it speaks TLS to a listener for plaintext. Set accept = \"any\" (--accept any) to \
                     pass its TLS through, or configure the client for plaintext"
                );
            }
            farewell::say(client, HANDSHAKE_FAILURE).await;
            End::Failed
        }
        Ended::Idle => {
            farewell::close(client).await;
            End::Idle
        }
        Ended::Drained => {
            farewell::close(client).await;
            End::Drained
        }
        Ended::Upstream { unanswered, why } => {
            let end = if unanswered > 0 || why.is_some() { End::Failed } else { End::UpstreamClosed };
            debug!(route, unanswered, why, "upstream connection ended");
            if let Some(nodes) = &context.nodes {
                nodes.refresh(None);
            }
            match dialled {
                Some(dialled) => {
                    if end == End::Failed {
                        context.was_lost(dialled, why.as_deref());
                    }
                    outage::lost(client, &dialled.endpoint, unanswered, why.as_deref(), context).await;
                }
                None => farewell::close(client).await,
            }
            end
        }
        Ended::Aborted(reason) => {
            debug!(route, %reason, "session aborted");
            farewell::refuse(client, 1, &reason.to_string()).await;
            End::Failed
        }
    }
}
