//! A route to a cluster or to a Sentinel group: finds its nodes, and gives each a listener and an upstream with its tasks.
//!
//! A node keeps its local port as long as it exists, also when its address or role changes. It gets the port before any client learns its
//! address. `cluster` rewrites the replies.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::running::Running;
use super::sentinel::{PrimaryListener, PrimaryPort};
use super::tasks::LeadsTo;
use crate::cluster::{self, Node, NodeMap, Nodes, Ports, Role, Topology};
use crate::drain::Drain;
use crate::endpoint::{Endpoint, ListenAddr};
use crate::listener::{Clients, Listener};
use crate::metrics::RouteMetrics;
use crate::session;
use crate::telemetry::Throttle;
use crate::upstream::{self, NodeTls, Upstream};

/// Minimum time between two refreshes, in milliseconds, for any number of redirects.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_millis(250);

/// If a node does not answer in this time, the next one is asked, too.
pub(super) const STAGGER: Duration = Duration::from_millis(500);

/// Time until the next refresh after one that failed, in seconds.
const REFRESH_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Time, in seconds, after which a node that the topology no longer lists is dropped.
const MISSING_NODE_TIMEOUT: Duration = Duration::from_secs(60);

/// What the nodes of a cluster or of a Sentinel group share.
pub(super) struct Cluster {
    pub(super) settings: cluster::Settings,
    /// How nodes are reached. The endpoints are not those of nodes.
    pub(super) reach: upstream::Settings,
    /// Holds the nodes' credentials.
    pub(super) template: Arc<Upstream>,
    /// How nodes' connections are shared; `None`: each client has a dedicated one.
    pub(super) multiplexer: Option<session::Multiplexer>,
    /// `None` for plaintext.
    pub(super) tls: Option<NodeTls>,
    /// For clients of the route's own listeners. Each node has a similar context.
    pub(super) context: Arc<session::RouteContext>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) clients: Clients,
    pub(super) running: Running,
}

/// A node that has a local port.
pub(super) struct LiveNode {
    node: Node,
    port: u16,
    pub(super) endpoint: Endpoint,
    pub(super) context: Arc<ArcSwap<session::RouteContext>>,
    /// Ends the tasks of the present upstream.
    upstream_leaving: Drain,
    /// Ends the listeners.
    listeners_leaving: Drain,
    missing_since: Option<Instant>,
}

/// Follows a cluster through changes of its settings, until `leaving` starts.
pub(super) async fn follow(
    mut changes: watch::Receiver<Arc<Cluster>>,
    addresses: Vec<IpAddr>,
    leaving: Drain,
) {
    let cluster = Arc::clone(&changes.borrow_and_update());
    let mut followed = Followed {
        ports: Ports::new(cluster.settings.ports_key(), cluster.settings.ports.clone()),
        addresses,
        live: HashMap::new(),
        portless: 0,
        over_limit: 0,
        failing: false,
        listening: TaskTracker::new(),
        unsettled: 0,
        epoch: 0,
        primary_port: None,
        primary_listener: None,
        watching: leaving.part(),
        cluster,
    };
    followed.watch();
    let leaves = leaving.started();
    tokio::pin!(leaves);
    loop {
        let ok = tokio::select! {
            ok = followed.refresh() => ok,
            Ok(()) = changes.changed() => {
                followed.change(Arc::clone(&changes.borrow_and_update()));
                continue;
            }
            () = &mut leaves => break,
        };
        let ended = Instant::now();
        let pause = if ok { followed.cluster.settings.refresh } else { REFRESH_RETRY_INTERVAL };
        let nodes = Arc::clone(&followed.cluster.nodes);
        tokio::select! {
            () = sleep(pause.mul_f64(1.0 - fastrand::f64() / 5.0)) => {}
            () = nodes.wanted() => sleep_until(ended + MIN_REFRESH_INTERVAL).await,
            Ok(()) = changes.changed() => followed.change(Arc::clone(&changes.borrow_and_update())),
            () = &mut leaves => break,
        }
    }
    for live in followed.live.values() {
        live.leave();
    }
    if let Some(listener) = &followed.primary_listener {
        listener.leave();
    }
    followed.watching.start();
    followed.listening.close();
    followed.listening.wait().await;
}

/// The known state of a cluster or of a Sentinel group.
pub(super) struct Followed {
    pub(super) cluster: Arc<Cluster>,
    pub(super) ports: Ports,
    /// The addresses of the nodes' listeners.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) live: HashMap<String, LiveNode>,
    /// Number of nodes without a port.
    portless: usize,
    /// Number of these that exceed `cluster.max_nodes`.
    over_limit: usize,
    /// Whether the last refresh failed.
    failing: bool,
    /// The tasks that accept clients.
    pub(super) listening: TaskTracker,
    /// Number of look-ups in a row in which the sentinels' choice of a primary was not followed.
    pub(super) unsettled: u32,
    /// The number of the configuration that was followed: each failover gets a higher one.
    pub(super) epoch: u64,
    /// The primary's port, until it has a listener.
    pub(super) primary_port: Option<PrimaryPort>,
    /// Set once the primary of a Sentinel group is known.
    pub(super) primary_listener: Option<PrimaryListener>,
    /// Ends the tasks that watch sentinels.
    watching: Drain,
}

impl Followed {
    /// Applies other settings. Nodes keep their ports, and their latches.
    fn change(&mut self, cluster: Arc<Cluster>) {
        if self.cluster.settings.ports != cluster.settings.ports {
            self.ports.choose_from(cluster.settings.ports.clone());
        }
        self.cluster = cluster;
        for live in self.live.values_mut() {
            live.replace(&self.cluster);
        }
        self.watch();
        self.tell();
    }

    /// Watches the sentinels, if there are any, with the present settings.
    fn watch(&mut self) {
        if self.cluster.settings.sentinel.is_some() {
            let before = std::mem::replace(&mut self.watching, self.cluster.context.drain.part());
            before.start();
            self.watch_sentinels(&self.watching);
        }
    }

    /// Asks for the nodes and applies what has changed. Returns whether the next time can wait.
    async fn refresh(&mut self) -> bool {
        let hint = self.cluster.nodes.refresh_begins();
        let group = self.cluster.settings.sentinel.as_ref().map(|group| Arc::clone(&group.master_name));
        let result = match group {
            Some(master_name) => self.ask_sentinels(&master_name).await,
            None => self.look_up(hint.as_deref()).await.map(|topology| (topology, true)),
        };
        let route = &*self.cluster.context.route;
        let metrics = &self.cluster.context.metrics;
        match result {
            Ok((topology, is_settled)) => {
                metrics.cluster_refreshed("ok");
                if std::mem::take(&mut self.failing) {
                    info!(route, "nodes known again");
                }
                self.take(topology);
                self.note_choice(is_settled);
                is_settled
            }
            Err(problem) => {
                metrics.cluster_refreshed("failed");
                self.cluster.nodes.refresh_ends(None);
                self.failing = true;
                // The errors contain times, so that no two are equal.
                if let Some(suppressed) = self.cluster.context.throttle.allow("refresh") {
                    warn!(route, suppressed, error = problem, "nodes not known");
                }
                false
            }
        }
    }

    /// Asks one node after the other until one answers, and waits only briefly for each.
    async fn look_up(&self, hint: Option<&Endpoint>) -> Result<Topology, String> {
        let mut candidates: Vec<Arc<Upstream>> = Vec::new();
        let known = || self.live.values().filter(|live| !live.node.flags.has_failed());
        let upstream = |live: &LiveNode| Arc::clone(&live.context.load().upstream);
        candidates.extend(known().filter(|live| Some(&live.endpoint) == hint).map(upstream));
        candidates.push(Arc::clone(&self.cluster.context.upstream));
        let mut others: Vec<_> = known().filter(|live| Some(&live.endpoint) != hint).map(upstream).collect();
        fastrand::shuffle(&mut others);
        candidates.extend(others);

        let limit = self.cluster.reach.connect_timeout * 2;
        let mut asked = FuturesUnordered::new();
        let mut candidates = candidates.into_iter();
        let mut problem = String::new();
        loop {
            let next = candidates.next();
            let last = next.is_none();
            asked.extend(next.map(|upstream| ask(upstream, limit)));
            tokio::select! {
                answer = asked.next() => match answer {
                    Some(Ok(topology)) => return Ok(topology),
                    // The first error is the most useful, because it usually comes from the configured endpoint.
                    Some(Err(error)) if problem.is_empty() => problem = error,
                    Some(Err(_)) => {}
                    None => return Err(problem),
                },
                () = sleep(STAGGER), if !last => {}
            }
        }
    }

    fn take(&mut self, topology: Topology) {
        for live in self.live.values_mut() {
            live.missing_since.get_or_insert_with(Instant::now);
        }
        let _ = self.reserve_primary_port();
        // A primary without a port of its own.
        self.portless = self.live.values().filter(|live| live.port == 0).count();
        self.over_limit = 0;
        for node in topology.nodes {
            self.take_node(node);
        }
        if self.cluster.settings.sentinel.is_some() {
            // A group has one primary, and the sentinels have just named it.
            let unlisted = self.live.values_mut().filter(|live| live.missing_since.is_some());
            unlisted.for_each(|live| live.node.role = Some(Role::Replica));
        }
        let gone: Vec<String> = self
            .live
            .iter()
            .filter(|(_, live)| {
                live.missing_since.is_some_and(|since| since.elapsed() > MISSING_NODE_TIMEOUT)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for live in gone.iter().filter_map(|id| self.live.remove(id)) {
            info!(route = &*self.cluster.context.route, node = %live.endpoint, port = live.port, "node gone");
            live.leave();
            if live.port != 0 {
                self.ports.give_back(live.port);
            }
        }
        let known = self.live.len() + self.portless;
        self.cluster.context.metrics.cluster_nodes(known, self.portless, self.over_limit);
        self.tell();
    }

    /// Publishes the nodes to the sessions.
    fn tell(&mut self) {
        if self.cluster.settings.sentinel.is_some() {
            self.lead_to_primary();
        }
        let of_primary = self.primary_listener.as_ref().map(|listener| listener.port);
        let port = |live: &LiveNode| of_primary.filter(|_| live.is_primary()).unwrap_or(live.port);
        let map = NodeMap::new(self.live.values().map(|live| (live.node.clone(), port(live))));
        let upstreams = self.live.values().map(|live| Arc::clone(&live.context.load().upstream)).collect();
        self.cluster.nodes.refresh_ends(Some((map, upstreams)));
    }

    fn take_node(&mut self, node: Node) {
        if let Some(live) = self.live.get_mut(&node.id) {
            live.missing_since = None;
            // If only its name has changed, it is still the same node.
            let moved = !node.is_at(&live.endpoint.host, live.endpoint.port);
            if let Some(endpoint) = node.endpoint().filter(|_| moved) {
                let context = &self.cluster.context;
                // Throttled, because a node may not know its own name, for example.
                if let Some(suppressed) = context.throttle.allow(&format!("moved {}", node.id)) {
                    info!(
                        route = &*context.route,
                        node = %endpoint,
                        before = %live.endpoint,
                        port = live.port,
                        suppressed,
                        "node moved"
                    );
                }
                live.endpoint = endpoint;
                live.replace(&self.cluster);
            }
            if let Some(role) = node.role.filter(|role| live.node.role.is_some_and(|before| before != *role))
            {
                live.tell_role(role);
            }
            live.node = node;
            live.expect();
            return;
        }
        // Replies name a failed node as long as it owns slots, so it needs a port.
        let failed = node.flags.has_failed() && node.slots.is_empty();
        let out = failed || node.flags.has_no_address() || node.flags.is_being_met();
        let Some(endpoint) = node.endpoint().filter(|_| !out) else { return };
        // A server gets a port only after the primary, also if a port becomes free meanwhile.
        let primary_first = self.reserve_primary_port();
        let route = &*self.cluster.context.route;
        let max_nodes = self.cluster.settings.max_nodes;
        let leads = self.cluster.settings.sentinel.is_some() && node.role == Some(Role::Primary);
        if self.live.len() >= max_nodes && !leads {
            self.portless += 1;
            self.over_limit += 1;
            if let Some(suppressed) = self.cluster.context.throttle.allow("too many nodes") {
                error!(
                    route,
                    node = %endpoint,
                    max_nodes,
                    suppressed,
                    limit = self.cluster.settings.max_nodes_key(),
                    "node has no local port, the limit on nodes is reached"
                );
            }
            return;
        }
        let addresses = &self.addresses;
        let ports = &mut self.ports;
        let (listeners, port) = match primary_first.and_then(|()| ports.take(|port| bind(addresses, port))) {
            Ok(bound) => bound,
            // Clients reach it by the primary's port.
            Err(_) if leads => {
                self.portless += 1;
                (Vec::new(), 0)
            }
            Err(problem) => {
                self.portless += 1;
                if let Some(suppressed) = self.cluster.context.throttle.allow("portless") {
                    error!(route, node = %endpoint, suppressed, error = %problem, "node has no local port");
                }
                return;
            }
        };
        info!(route, node = %endpoint, port, role = node.role.map(Role::label), "node found");
        let (context, upstream_leaving) = self.cluster.context_of(&endpoint, None);
        let context = Arc::new(ArcSwap::new(context));
        let listeners_leaving = self.cluster.running.drain.part();
        self.cluster.accept(&listeners, &context, &self.listening, &listeners_leaving);
        let live = LiveNode {
            port,
            endpoint,
            context,
            upstream_leaving,
            listeners_leaving,
            missing_since: None,
            node,
        };
        live.expect();
        self.live.insert(live.node.id.clone(), live);
    }
}

impl LiveNode {
    /// Whether the node is a primary.
    pub(super) fn is_primary(&self) -> bool {
        self.node.role == Some(Role::Primary)
    }

    /// Logs a new role, which means that there was a failover.
    fn tell_role(&self, role: Role) {
        let context = self.context.load();
        let role = role.label();
        // Throttled, because nodes that disagree are asked in turn.
        if let Some(suppressed) = context.throttle.allow(role) {
            info!(
                route = &*context.route,
                role,
                node = %self.endpoint,
                port = self.port,
                suppressed,
                "failover, node changed its role"
            );
        }
    }

    /// Stops accepting clients, and removes the node from the metrics.
    fn leave(&self) {
        self.upstream_leaving.start();
        self.listeners_leaving.start();
        self.forget();
    }

    /// Removes the node from the metrics.
    fn forget(&self) {
        let context = self.context.load();
        context.upstream.forget();
        context.metrics.retire();
    }

    /// Marks whether the node is expected to answer: not if its cluster has given it up.
    fn expect(&self) {
        let is_expected = !self.node.flags.has_failed() || !self.node.slots.is_empty();
        self.context.load().metrics.expected(is_expected);
    }

    /// Replaces the node's upstream.
    fn replace(&mut self, cluster: &Cluster) {
        let before = self.context.load_full();
        self.upstream_leaving.start();
        self.forget();
        let (context, leaving) = cluster.context_of(&self.endpoint, Some(&before));
        self.context.store(context);
        self.upstream_leaving = leaving;
        self.expect();
    }
}

impl Cluster {
    /// Accepts the clients of a node's listeners until `leaving` starts. Each gets the context of the moment. `listening` tracks the tasks.
    pub(super) fn accept(
        &self,
        listeners: &[Listener],
        context: &Arc<ArcSwap<session::RouteContext>>,
        listening: &TaskTracker,
        leaving: &Drain,
    ) {
        let running = Running { listening: listening.clone(), ..self.running.clone() };
        for listener in listeners {
            let context = Arc::clone(context);
            let now = move || context.load_full();
            running.accept(&self.context.route, listener, &self.clients, &now, leaving);
        }
    }

    /// An upstream to ask a server that is not known yet.
    pub(super) fn probe_of(&self, server: &Endpoint) -> Arc<Upstream> {
        let settings = upstream::Settings { endpoints: vec![server.clone()], ..self.reach.clone() };
        let tls = self.tls.as_ref().map(|tls| tls.of(server));
        let metrics = Arc::new(RouteMetrics::unrecorded());
        let upstream = Arc::new(self.template.another(&self.context.route, &settings, tls, &metrics, None));
        self.running.memory.close(&upstream, &settings.endpoints);
        upstream
    }

    /// The context that the sessions of a node share, and what ends its upstream's tasks. `before`: the context that it replaces.
    fn context_of(
        &self,
        endpoint: &Endpoint,
        before: Option<&session::RouteContext>,
    ) -> (Arc<session::RouteContext>, Drain) {
        let common = &self.context;
        let tls = self.tls.as_ref().map(|tls| tls.of(endpoint));
        let settings = upstream::Settings { endpoints: vec![endpoint.clone()], ..self.reach.clone() };
        let metrics = RouteMetrics::of_node(&common.route, &endpoint.to_string(), &session::End::LABELS);
        let metrics = Arc::new(match before {
            Some(before) => metrics.succeeding(&before.metrics),
            None => metrics,
        });
        let before = before.map(|before| &*before.upstream);
        let upstream = Arc::new(self.template.another(&common.route, &settings, tls, &metrics, before));
        self.running.memory.close(&upstream, &settings.endpoints);
        let leaving = self.running.drain.part();
        self.running.look_after(&common.route, &upstream, LeadsTo::Node, &metrics, &leaving);
        let context = session::RouteContext {
            multiplexer: self.multiplexer.as_ref().map(session::Multiplexer::for_another_node),
            sentinels_of: None,
            route: Arc::clone(&common.route),
            upstream,
            nodes: Some(Arc::clone(&self.nodes)),
            is_node: true,
            settings: common.settings.clone(),
            metrics,
            inventory: Arc::clone(&common.inventory),
            drain: common.drain.clone(),
            throttle: Throttle::default(),
            slow_throttle: Throttle::default(),
        };
        (Arc::new(context), leaving)
    }
}

/// Binds one port on all addresses. Port 0 lets the system choose; returns the port.
pub(super) fn bind(addresses: &[IpAddr], port: u16) -> io::Result<(Vec<Listener>, u16)> {
    let mut listeners = Vec::new();
    let mut chosen = port;
    for address in addresses {
        let wanted = ListenAddr::Tcp(SocketAddr::new(*address, chosen));
        let listener = Listener::bind(&wanted).map_err(io::Error::other)?;
        if let ListenAddr::Tcp(bound) = listener.address() {
            chosen = bound.port();
        }
        listeners.push(listener);
    }
    Ok((listeners, chosen))
}

/// Asks one node for its cluster's topology.
async fn ask(upstream: Arc<Upstream>, limit: Duration) -> Result<Topology, String> {
    let work = async {
        let mut connection = upstream.connect().await.map_err(|error| error.to_string())?;
        let endpoint = Arc::clone(&connection.endpoint);
        let topology = upstream::topology(&mut connection).await.map_err(|cause| cause.to_string())?;
        connection.release(false);
        drop(connection);
        let topology = Topology::parse(&topology.slots, &topology.nodes, &endpoint.host)
            .map_err(|error| error.to_string())?;
        // A node that was removed from its cluster knows only itself.
        if topology.nodes.iter().all(|node| node.slots.is_empty()) {
            return Err(format!("{endpoint} knows of no node that owns slots"));
        }
        Ok(topology)
    };
    match timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {}", humantime::format_duration(limit))),
    }
}
