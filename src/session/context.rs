//! What all sessions of a route share, and what they find out about its servers.

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
    /// The servers of the route.
    pub upstream: Arc<Upstream>,
    /// The nodes of the cluster or of the Sentinel group, if the route leads to one.
    pub nodes: Option<Arc<Nodes>>,
    /// The upstream is one node, or a group's sentinels, and no other node can stand in for it. Its clients learn of its loss from a closed
    /// connection, as without a bridge. Then they look up the nodes again. They would take an error reply for the command's own, and keep
    /// asking this node.
    pub is_node: bool,
    /// The name of the group that clients may learn about, where the upstream is its sentinels.
    pub sentinels_of: Option<Arc<str>>,
    /// The settings of sessions.
    pub settings: Settings,
    /// The route's metrics.
    pub metrics: Arc<RouteMetrics>,
    /// The inventory that sessions register in.
    pub inventory: Arc<Inventory>,
    /// The drain that ends sessions.
    pub drain: Drain,
    /// Limits log lines to one for each cause, instead of one for each client.
    pub throttle: Throttle,
    /// The same for slow commands. It is separate so that their many names cannot crowd out failures.
    pub slow_throttle: Throttle,
    /// The connections that clients share. `None`: each client has a dedicated one.
    pub multiplexer: Option<Multiplexer>,
}

impl RouteContext {
    /// The same server for clients whose sessions end with `drain`.
    #[must_use]
    pub fn for_sessions(&self, drain: Drain) -> Self {
        Self {
            route: Arc::clone(&self.route),
            upstream: Arc::clone(&self.upstream),
            nodes: self.nodes.clone(),
            is_node: self.is_node,
            sentinels_of: self.sentinels_of.clone(),
            settings: self.settings.clone(),
            metrics: Arc::clone(&self.metrics),
            inventory: Arc::clone(&self.inventory),
            drain,
            throttle: Throttle::default(),
            slow_throttle: Throttle::default(),
            multiplexer: self.multiplexer.as_ref().map(Multiplexer::for_another_node),
        }
    }

    /// Why a new connection, shared or dedicated, is in plaintext.
    pub(super) fn plaintext_cause(&self, is_shared: bool) -> PlaintextCause {
        let Some(latch) = self.upstream.latch() else { return PlaintextCause::Disabled };
        let then = match self.settings.upgrade {
            _ if is_shared => TlsMove::WithSharedConnection,
            Upgrade::Keep => TlsMove::Never,
            Upgrade::Drain => TlsMove::BetweenCommands,
        };
        PlaintextCause::BeforeTls { seen: latch.token(), then }
    }

    /// Handles a READONLY reply: after a failover, ready connections lead to the wrong server. Returns whether they were retired.
    #[cold]
    pub(super) fn is_read_only(&self, connection: &Connection) -> bool {
        let retired = self.upstream.is_read_only(&self.route, connection, self.is_node);
        if let Some(nodes) = self.nodes.as_ref().filter(|_| retired) {
            nodes.refresh(Some(&connection.endpoint));
        }
        if retired && let Some(suppressed) = self.throttle.allow("read only") {
            info!(
                route = &*self.route,
                upstream = %connection.endpoint,
                suppressed,
                "failover found: server replied READONLY, ready connections retired, endpoint resolved again"
            );
        }
        retired
    }

    /// Handles a reply that hints that its server is no longer the primary. Ignored for nodes: new connections to a node lead to the same
    /// server.
    #[cold]
    pub(super) fn may_be_read_only(&self, connection: &Connection) {
        if !self.is_node {
            self.upstream.may_be_read_only(&self.route, connection);
        }
    }

    /// Handles the loss of a connection in use, with the error if there was one. Ready connections may be dead, too.
    pub(super) fn was_lost(&self, dialled: &Dialled, why: Option<&str>) {
        self.upstream.lost(dialled);
        if let Some(suppressed) = self.throttle.allow("lost") {
            info!(
                route = &*self.route,
                upstream = %dialled.endpoint,
                why,
                suppressed,
                "connection lost while a client used it, ready connections will be tested before use"
            );
        }
    }

    /// Counts and logs that pontoon closes a connection because of what the server sent.
    #[cold]
    pub(super) fn refuse_reply(&self, endpoint: &Endpoint, why: &str) {
        self.metrics.reply_refused();
        if let Some(suppressed) = self.throttle.allow("reply refused") {
            warn!(
                route = &*self.route,
                upstream = %endpoint,
                why,
                suppressed,
                "upstream connection closed, pontoon cannot process the reply"
            );
        }
    }

    /// Logs that a server of a standalone route redirected a client to another node.
    pub(super) fn warn_of_cluster(&self, endpoint: &Endpoint) {
        if let Some(suppressed) = self.throttle.allow("moved") {
            warn!(
                route = &*self.route,
                upstream = %endpoint,
                suppressed,
                "server is a node of a cluster and redirects clients past this bridge: set topology = \
                 \"cluster\" (--topology cluster)"
            );
        }
    }
}

/// Why a connection is closed: the scanner found its bytes malformed.
pub(super) const NO_RESP: &str = "the server sent bytes that are not RESP";
