//! A route to a cluster: which nodes there are, and for each a listener, an upstream and what looks after it.
//!
//! A node keeps its local port for as long as it lives, wherever it goes and whatever its role; it gets one before its
//! address is told to anyone. What replies look like is `cluster`'s business.

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
use crate::cluster::{self, Node, NodeMap, Nodes, Ports, Role, Topology};
use crate::drain::Drain;
use crate::endpoint::{Endpoint, ListenAddr};
use crate::listener::{Clients, Listener};
use crate::metrics::RouteMetrics;
use crate::session;
use crate::telemetry::Throttle;
use crate::upstream::{self, Latch, NodeTls, Upstream};

/// Shortest time between two refreshes, in milliseconds, however many redirects clients follow.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_millis(250);

/// A node that does not answer in this time is not waited for any longer before the next is asked, too.
const STAGGER: Duration = Duration::from_millis(500);

/// Time until the next refresh after one that failed, in seconds.
const REFRESH_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Time, in seconds, after which a node that the topology no longer lists is given up.
const MISSING_NODE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a cluster's nodes have in common.
pub(super) struct Cluster {
    pub(super) settings: cluster::Settings,
    /// How nodes are reached; the endpoints are those to begin with.
    pub(super) reach: upstream::Settings,
    /// `None`: in plaintext.
    pub(super) tls: Option<NodeTls>,
    /// For the clients that begin here; each node has its own like it.
    pub(super) context: Arc<session::RouteContext>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) clients: Clients,
    pub(super) running: Running,
}

/// A node that has a local port.
struct LiveNode {
    node: Node,
    port: u16,
    endpoint: Endpoint,
    context: Arc<ArcSwap<session::RouteContext>>,
    /// Of what looks after the present upstream.
    upstream_leaving: Drain,
    /// Of the listeners.
    listeners_leaving: Drain,
    missing_since: Option<Instant>,
}

/// Follows a cluster, as it is to be from change to change, until `leaving`.
pub(super) async fn follow(
    mut changes: watch::Receiver<Arc<Cluster>>,
    addresses: Vec<IpAddr>,
    leaving: Drain,
) {
    let cluster = Arc::clone(&changes.borrow_and_update());
    let mut followed = Followed {
        ports: Ports::new(cluster.settings.ports.clone()),
        addresses,
        live: HashMap::new(),
        portless: 0,
        over_limit: 0,
        failing: false,
        listening: TaskTracker::new(),
        cluster,
    };
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
    followed.listening.close();
    followed.listening.wait().await;
}

/// A cluster, as it is known.
struct Followed {
    cluster: Arc<Cluster>,
    ports: Ports,
    /// Where nodes' listeners are.
    addresses: Vec<IpAddr>,
    live: HashMap<String, LiveNode>,
    /// Nodes that got no port.
    portless: usize,
    /// Of these, nodes beyond `cluster.max_nodes`.
    over_limit: usize,
    /// The last refresh failed.
    failing: bool,
    /// What accepts clients.
    listening: TaskTracker,
}

impl Followed {
    /// Takes over other settings. Nodes keep their ports, and what they have spoken.
    fn change(&mut self, cluster: Arc<Cluster>) {
        if self.cluster.settings.ports != cluster.settings.ports {
            self.ports.choose_from(cluster.settings.ports.clone());
        }
        self.cluster = cluster;
        for live in self.live.values_mut() {
            live.replace(&self.cluster);
        }
        self.tell();
    }

    /// Looks the nodes up, and takes over what has changed.
    async fn refresh(&mut self) -> bool {
        let hint = self.cluster.nodes.refresh_begins();
        let result = self.look_up(hint.as_deref()).await;
        let route = &*self.cluster.context.route;
        let metrics = &self.cluster.context.metrics;
        match result {
            Ok(topology) => {
                metrics.cluster_refreshed("ok");
                if std::mem::take(&mut self.failing) {
                    info!(route, "the cluster's nodes are known again");
                }
                self.take(topology);
                true
            }
            Err(problem) => {
                metrics.cluster_refreshed("failed");
                self.cluster.nodes.refresh_ends(None);
                self.failing = true;
                // Words with times in them are never the same twice.
                if let Some(suppressed) = self.cluster.context.throttle.allow("refresh") {
                    warn!(route, suppressed, "the cluster's nodes are not known: {problem}");
                }
                false
            }
        }
    }

    /// Asks one node after the other until one answers, and does not wait long for any.
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
                    // What the first one says, the endpoint as configured most often, tells most.
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
        self.portless = 0;
        self.over_limit = 0;
        for node in topology.nodes {
            self.take_node(node);
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
            self.ports.give_back(live.port);
        }
        let known = self.live.len() + self.portless;
        self.cluster.context.metrics.cluster_nodes(known, self.portless, self.over_limit);
        self.tell();
    }

    /// Has sessions know the nodes.
    fn tell(&self) {
        let map = NodeMap::new(self.live.values().map(|live| (live.node.clone(), live.port)));
        let upstreams = self.live.values().map(|live| Arc::clone(&live.context.load().upstream)).collect();
        self.cluster.nodes.refresh_ends(Some((map, upstreams)));
    }

    fn take_node(&mut self, node: Node) {
        if let Some(live) = self.live.get_mut(&node.id) {
            live.missing_since = None;
            // By another name it is still the same place.
            let moved = !node.is_at(&live.endpoint.host, live.endpoint.port);
            if let Some(endpoint) = node.endpoint().filter(|_| moved) {
                let context = &self.cluster.context;
                // A node that does not know its own name, for example.
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
        // One that has failed is named to clients as long as it owns slots, and so has to have a port.
        let failed = node.flags.has_failed() && node.slots.is_empty();
        let out = failed || node.flags.has_no_address() || node.flags.is_being_met();
        let Some(endpoint) = node.endpoint().filter(|_| !out) else { return };
        let route = &*self.cluster.context.route;
        let max_nodes = self.cluster.settings.max_nodes;
        if self.live.len() >= max_nodes {
            self.portless += 1;
            self.over_limit += 1;
            if let Some(suppressed) = self.cluster.context.throttle.allow("too many nodes") {
                error!(
                    route,
                    node = %endpoint,
                    max_nodes,
                    suppressed,
                    "clients cannot be led to this node: cluster.max_nodes is reached"
                );
            }
            return;
        }
        let addresses = &self.addresses;
        let (listeners, port) = match self.ports.take(|port| bind(addresses, port)) {
            Ok(bound) => bound,
            Err(problem) => {
                self.portless += 1;
                if let Some(suppressed) = self.cluster.context.throttle.allow("portless") {
                    error!(route, node = %endpoint, suppressed, "clients cannot be led to this node: {problem}");
                }
                return;
            }
        };
        info!(route, node = %endpoint, port, role = ?node.role, "node found");
        let (context, upstream_leaving) = self.cluster.context_of(&endpoint, false, None);
        let context = Arc::new(ArcSwap::new(context));
        let listeners_leaving = self.cluster.running.drain.part();
        let running = Running { listening: self.listening.clone(), ..self.cluster.running.clone() };
        for listener in &listeners {
            let context = Arc::clone(&context);
            let now = move || context.load_full();
            running.accept(route, listener, &self.cluster.clients, &now, &listeners_leaving);
        }
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
    /// It is new: there was a failover.
    fn tell_role(&self, role: Role) {
        let context = self.context.load();
        let became = match role {
            Role::Primary => "a primary",
            Role::Replica => "a replica",
        };
        // Nodes that do not agree are asked in turn.
        if let Some(suppressed) = context.throttle.allow(became) {
            info!(
                route = &*context.route,
                node = %self.endpoint,
                port = self.port,
                suppressed,
                "failover: node became {became}"
            );
        }
    }

    /// Takes no client any more, and is shown no more.
    fn leave(&self) {
        self.upstream_leaving.start();
        self.listeners_leaving.start();
        self.forget();
    }

    /// The metrics show nothing of what is known of it.
    fn forget(&self) {
        let context = self.context.load();
        context.upstream.forget();
        context.metrics.retire();
    }

    /// A node that its cluster has given up is not expected to answer.
    fn expect(&self) {
        let is_expected = !self.node.flags.has_failed() || !self.node.slots.is_empty();
        self.context.load().metrics.expected(is_expected);
    }

    /// Goes on with another upstream.
    fn replace(&mut self, cluster: &Cluster) {
        let before = self.context.load_full();
        self.upstream_leaving.start();
        self.forget();
        let spoke_tls = before.upstream.latch().is_some_and(Latch::is_set);
        let (context, leaving) = cluster.context_of(&self.endpoint, spoke_tls, Some(&before.metrics));
        self.context.store(context);
        self.upstream_leaving = leaving;
        self.expect();
    }
}

impl Cluster {
    /// What the sessions of a node share, and what ends the tasks that look after its upstream. `before`: the metrics that these
    /// succeed.
    fn context_of(
        &self,
        endpoint: &Endpoint,
        spoke_tls: bool,
        before: Option<&RouteMetrics>,
    ) -> (Arc<session::RouteContext>, Drain) {
        let common = &self.context;
        let tls = self.tls.as_ref().map(|tls| tls.of(endpoint));
        let settings = upstream::Settings { endpoints: vec![endpoint.clone()], ..self.reach.clone() };
        let metrics = RouteMetrics::of_node(&common.route, &endpoint.to_string(), &session::End::LABELS);
        let metrics = Arc::new(match before {
            Some(before) => metrics.succeeding(before),
            None => metrics,
        });
        let upstream = Arc::new(common.upstream.another(&common.route, &settings, tls, &metrics));
        self.running.memory.close(&upstream, &settings.endpoints);
        if let Some(latch) = upstream.latch().filter(|_| spoke_tls) {
            latch.set();
        }
        let leaving = self.running.drain.part();
        self.running.look_after(&common.route, &upstream, &metrics, &leaving);
        let context = session::RouteContext {
            multiplexer: common.multiplexer.as_ref().map(session::Multiplexer::for_another_node),
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

/// One port on all addresses; which, if it is to be chosen.
fn bind(addresses: &[IpAddr], port: u16) -> io::Result<(Vec<Listener>, u16)> {
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

/// What one node says of its cluster.
async fn ask(upstream: Arc<Upstream>, limit: Duration) -> Result<Topology, String> {
    let work = async {
        let mut connection = upstream.connect().await.map_err(|error| error.to_string())?;
        let endpoint = Arc::clone(&connection.endpoint);
        let topology = upstream::topology(&mut connection).await.map_err(|cause| cause.to_string())?;
        connection.release(false);
        drop(connection);
        let topology = Topology::parse(&topology.slots, &topology.nodes, &endpoint.host)
            .map_err(|error| error.to_string())?;
        // A node that was taken out of its cluster knows of itself alone.
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
