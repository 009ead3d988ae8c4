//! What all sessions of a route share, and what they find out together.

use std::sync::Arc;

use tracing::{info, warn};

use super::settings::{Settings, Upgrade};
use super::shared::Multiplexer;
use crate::clients::{Inventory, PlaintextCause, TlsMove};
use crate::cluster::Nodes;
use crate::drain::Drain;
use crate::endpoint::Endpoint;
use crate::metrics::RouteMetrics;
use crate::telemetry::Throttle;
use crate::upstream::{Connection, Dialled, Upstream};

/// What all sessions of a route share.
pub struct RouteContext {
    /// The route's name.
    pub route: Arc<str>,
    /// The server side.
    pub upstream: Arc<Upstream>,
    /// Where the server is a cluster: its nodes.
    pub nodes: Option<Arc<Nodes>>,
    /// The upstream is one of them, and no other will do. Its clients learn that it is gone as they would without a
    /// bridge, by the end of their connection: they look for the nodes again then. An error reply they would take for the
    /// command's own, and go on asking there.
    pub is_node: bool,
    /// How sessions behave.
    pub settings: Settings,
    /// What is counted.
    pub metrics: Arc<RouteMetrics>,
    /// Where sessions are entered.
    pub inventory: Arc<Inventory>,
    /// When to end.
    pub drain: Drain,
    /// One line a cause, not one a client.
    pub throttle: Throttle,
    /// The same for slow commands: their many names leave what fails its place.
    pub slow_throttle: Throttle,
    /// The connections that clients share; `None`: each has its own.
    pub multiplexer: Option<Multiplexer>,
}

impl RouteContext {
    /// Why a new connection is in plaintext, one that clients share or not.
    pub(super) fn plaintext_cause(&self, is_shared: bool) -> PlaintextCause {
        let Some(latch) = self.upstream.latch() else { return PlaintextCause::Disabled };
        let then = match self.settings.upgrade {
            _ if is_shared => TlsMove::WithSharedConnection,
            Upgrade::Keep => TlsMove::Never,
            Upgrade::Drain => TlsMove::BetweenCommands,
        };
        PlaintextCause::BeforeTls { seen: latch.token(), then }
    }

    /// The server says that it is a replica: after a failover, ready connections lead to the wrong server. Whether they were retired.
    #[cold]
    pub(super) fn is_read_only(&self, connection: &Connection) -> bool {
        let retired = self.upstream.is_read_only(connection);
        if retired && let Some(suppressed) = self.throttle.allow("read only") {
            info!(
                route = &*self.route,
                upstream = %connection.endpoint,
                suppressed,
                "failover found: the server replies READONLY; ready connections are retired, and its name is looked up again"
            );
        }
        retired
    }

    /// A connection in use was lost, by this error if there was one: ready connections may be of no use, either.
    pub(super) fn was_lost(&self, dialled: &Dialled, why: Option<&str>) {
        self.upstream.lost(dialled);
        if let Some(suppressed) = self.throttle.allow("lost") {
            info!(
                route = &*self.route,
                upstream = %dialled.endpoint,
                why,
                suppressed,
                "connection in use lost: ready connections are tested before clients get them"
            );
        }
    }

    /// pontoon cannot go on with what this server sent: the connection is closed.
    #[cold]
    pub(super) fn refuse_reply(&self, endpoint: &Endpoint, why: &str) {
        self.metrics.reply_refused();
        if let Some(suppressed) = self.throttle.allow("reply refused") {
            warn!(
                route = &*self.route,
                upstream = %endpoint,
                why,
                suppressed,
                "upstream connection closed: pontoon cannot go on with what the server sent"
            );
        }
    }

    /// A server that this route takes for a single one sent a client to another.
    pub(super) fn tell_of_cluster(&self, endpoint: &Endpoint) {
        if let Some(suppressed) = self.throttle.allow("moved") {
            warn!(
                route = &*self.route,
                upstream = %endpoint,
                suppressed,
                "the server is a node of a cluster and sends clients to other nodes, around this bridge: set topology = \
                 \"cluster\" (--topology cluster)"
            );
        }
    }
}

/// Why a connection is of no use any more.
pub(super) const NO_RESP: &str = "what the server sent is no RESP";
