//! The nodes of a route's cluster as shared by all its sessions, and how a session requests a refresh.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::map::NodeMap;
use crate::credentials::Credentials;
use crate::endpoint::{Endpoint, Host};
use crate::upstream::{EndpointFacts, Latch, Lease, Outage, Unreachable, Upstream};

/// The nodes of a cluster or of a Sentinel group.
#[derive(Default)]
pub struct Nodes {
    map: ArcSwap<NodeMap>,
    /// One upstream for each node that can be dialled.
    upstreams: ArcSwap<Vec<Arc<Upstream>>>,
    rewrite: ArcSwap<RewriteSettings>,
    wanted: Notify,
    /// The node to ask first, because it named an unknown node.
    hint: Mutex<Option<Arc<Endpoint>>>,
    refreshes: watch::Sender<Refreshes>,
}

#[derive(Default)]
struct RewriteSettings {
    /// The host that replies name, in place of the address that the client connected to.
    advertise: Option<Host>,
    /// Longest time to wait for a refresh, or for a connection to any node.
    patience: Duration,
    /// The port of the route's own TCP listener, which leads clients of a Unix socket to a sentinel.
    sentinel_port: Option<u16>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Refreshes {
    begun: u64,
    ended: u64,
}

impl Nodes {
    /// Changes the settings for later sessions.
    pub fn tell(&self, advertise: Option<Host>, patience: Duration, sentinel_port: Option<u16>) {
        self.rewrite.store(Arc::new(RewriteSettings { advertise, patience, sentinel_port }));
    }

    /// Returns the port that leads clients of a Unix socket to a sentinel, if there is one.
    pub fn sentinel_port(&self) -> Option<u16> {
        self.rewrite.load().sentinel_port
    }

    /// Returns the nodes that have a listener.
    pub fn map(&self) -> Arc<NodeMap> {
        self.map.load_full()
    }

    /// Returns the host that replies name, in place of the address that the client connected to.
    pub fn advertise(&self) -> Option<Host> {
        self.rewrite.load().advertise.clone()
    }

    /// Returns the upstream of each node.
    pub fn upstreams(&self) -> Arc<Vec<Arc<Upstream>>> {
        self.upstreams.load_full()
    }

    /// Connects to any node, for a client that asked for no particular one; `None` if no node answered in time.
    pub async fn connect(&self) -> Option<Result<Lease, Unreachable>> {
        let upstreams = self.upstreams();
        let first = if upstreams.is_empty() { 0 } else { fastrand::usize(..upstreams.len()) };
        let patience = self.rewrite.load().patience;
        let deadline = Instant::now() + patience;
        let mut last = None;
        for upstream in upstreams.iter().cycle().skip(first).take(upstreams.len()) {
            // Limit each attempt, so that a silent node leaves time for others.
            let until = deadline.min(Instant::now() + patience / 4);
            match timeout_at(until, upstream.connect()).await {
                Ok(Err(error)) => last = Some(Err(error)),
                Ok(connected) => return Some(connected),
                Err(_) if Instant::now() >= deadline => break,
                Err(_) => {}
            }
        }
        last
    }

    /// Requests a refresh. `asked` is the node to ask first, because it named an unknown node.
    pub fn refresh(&self, asked: Option<&Arc<Endpoint>>) {
        if let Some(asked) = asked {
            *self.hint.lock() = Some(Arc::clone(asked));
        }
        self.wanted.notify_one();
    }

    /// Requests a refresh, as [`refresh`](Self::refresh) does. Completes when a refresh that starts after this call is over, or after the
    /// longest time to wait.
    pub fn refreshed(&self, asked: &Arc<Endpoint>) -> impl Future<Output = ()> + Send + use<> {
        let mut refreshes = self.refreshes.subscribe();
        let next = refreshes.borrow_and_update().begun + 1;
        self.refresh(Some(asked));
        let patience = self.rewrite.load().patience;
        async move {
            let _ = timeout(patience, refreshes.wait_for(|refreshes| refreshes.ended >= next)).await;
        }
    }

    /// Completes when a refresh is requested.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Starts a refresh. Returns the node to ask first, if there is one.
    pub fn refresh_begins(&self) -> Option<Arc<Endpoint>> {
        self.refreshes.send_modify(|refreshes| refreshes.begun += 1);
        self.hint.lock().take()
    }

    /// Ends a refresh with its result; `None` if no node could be asked.
    pub fn refresh_ends(&self, found: Option<(NodeMap, Vec<Arc<Upstream>>)>) {
        if let Some((map, upstreams)) = found {
            self.upstreams.store(Arc::new(upstreams));
            self.map.store(Arc::new(map));
        }
        self.refreshes.send_modify(|refreshes| refreshes.ended = refreshes.begun);
    }
}

/// All upstreams of a route: its own, and those of its cluster's nodes.
#[derive(Clone)]
pub struct Upstreams {
    /// The upstream at which clients start.
    pub own: Arc<Upstream>,
    /// Holds the servers' credentials. It is `own`, unless that leads to sentinels.
    pub template: Arc<Upstream>,
    /// `None` if the route leads neither to a cluster nor to a group's sentinels.
    pub nodes: Option<Arc<Nodes>>,
    /// Whether `own` leads to sentinels, which hold no data.
    pub own_is_sentinels: bool,
}

impl Upstreams {
    /// Keeps connections that were made with old TLS files from serving further clients.
    pub fn retire_all(&self) {
        self.for_each(Upstream::retire_all);
    }

    /// Keeps connections that authenticated with an old secret of `credentials` from serving further clients.
    pub fn retire_users_of(&self, credentials: &Arc<Credentials>) {
        let uses =
            |upstream: &Upstream| upstream.credentials().is_some_and(|own| Arc::ptr_eq(own, credentials));
        self.for_each(|upstream| {
            if uses(upstream) {
                upstream.retire_all();
            }
        });
    }

    /// Returns all credentials that are presented, each with the part of a Sentinel group that it is presented to: `sentinels` or `servers`.
    pub fn credentials(&self) -> impl Iterator<Item = (Option<&'static str>, &Arc<Credentials>)> {
        let to_sentinels = self.own.credentials().filter(|_| self.own_is_sentinels);
        let to_servers = self.template.credentials();
        let servers = self.own_is_sentinels.then_some("servers");
        let sentinels = to_sentinels.map(|credentials| (Some("sentinels"), credentials));
        sentinels.into_iter().chain(to_servers.map(move |credentials| (servers, credentials)))
    }

    /// Whether every upstream that has a latch has set it.
    pub fn are_latched(&self) -> bool {
        let mut latched = true;
        self.for_each(|upstream| latched &= upstream.latch().is_none_or(Latch::is_set));
        latched
    }

    /// Returns the upstreams that cannot be reached, with the cause: the route's own first, then nodes.
    pub fn outages(&self) -> Vec<Outage> {
        let mut outages = Vec::new();
        self.for_each(|upstream| outages.extend(upstream.outage()));
        outages
    }

    /// Returns the number of TCP connections opened so far to the upstreams that exist now, without those to sentinels.
    pub fn dialled(&self) -> u64 {
        let mut dialled = 0;
        self.for_each(|upstream| dialled += upstream.dialled());
        if self.own_is_sentinels { dialled - self.own.dialled() } else { dialled }
    }

    /// Returns the servers with which a survey begins: the configured endpoints, or the servers that sentinels named.
    pub fn survey_start(&self) -> Vec<Endpoint> {
        let of = |upstream: &Upstream| {
            upstream.endpoints().map(|endpoint| (**endpoint).clone()).collect::<Vec<_>>()
        };
        match &self.nodes {
            Some(nodes) if self.own_is_sentinels => {
                nodes.upstreams().iter().flat_map(|upstream| of(upstream)).collect()
            }
            _ => of(&self.own),
        }
    }

    /// Whether a server accepts TLS, as far as `tls.mode` = `preferred` has to find out.
    pub fn may_be_asked_over_tls(&self) -> bool {
        let accepts = |upstream: &Upstream| upstream.latch().is_none_or(Latch::is_set);
        match &self.nodes {
            Some(nodes) if self.own_is_sentinels => {
                nodes.upstreams().iter().any(|upstream| accepts(upstream))
            }
            _ => accepts(&self.own),
        }
    }

    /// Returns the facts about each endpoint: the route's own, then the nodes by shard, primaries first, in an order that stays.
    pub fn facts(&self) -> Vec<EndpointFacts> {
        let mut facts = self.own.facts();
        if self.own_is_sentinels {
            for sentinel in &mut facts {
                sentinel.role = Some("sentinel".into());
            }
        }
        if let Some(nodes) = &self.nodes {
            let map = nodes.map();
            let mut of_nodes = Vec::new();
            for upstream in nodes.upstreams().iter() {
                of_nodes.extend(upstream.facts().into_iter().map(|mut facts| {
                    // Match any name of the node, because its preferred name may have changed since it was found.
                    let endpoint: Option<Endpoint> = facts.endpoint.parse().ok();
                    let local = endpoint.and_then(|endpoint| map.by_address(&endpoint.host, endpoint.port));
                    if let Some(local) = local {
                        facts.local_port = Some(local.port);
                        facts.role = local.node.role.map(|role| role.label().into());
                        if local.node.flags.has_failed() && facts.problem.is_none() {
                            facts.problem = Some("reported as failed".into());
                            facts.reached_since = None;
                        }
                    }
                    (local.map(|local| map.place(local)), facts)
                }));
            }
            of_nodes.sort_by(|(place, facts), (other, others)| {
                // Nodes that are not in the map come last.
                let key = place.is_none();
                (key, place, &facts.endpoint).cmp(&(other.is_none(), other, &others.endpoint))
            });
            facts.extend(of_nodes.into_iter().map(|(_, facts)| facts));
        }
        facts
    }

    /// Calls `work` with each upstream.
    pub fn for_each(&self, mut work: impl FnMut(&Upstream)) {
        work(&self.own);
        if let Some(nodes) = &self.nodes {
            nodes.upstreams().iter().for_each(|upstream| work(upstream));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_during_a_refresh_waits_for_the_next_one() {
        let nodes = Nodes::default();
        nodes.tell(None, Duration::from_secs(5), None);
        let asked: Arc<Endpoint> = Arc::new("10.0.0.1:6379".parse().unwrap());
        nodes.refresh_begins();
        let mut refreshed = Box::pin(nodes.refreshed(&asked));
        nodes.refresh_ends(None);
        assert!(
            refreshed.as_mut().now_or_never().is_none(),
            "that refresh may have started before the node existed"
        );
        nodes.wanted().await;
        assert_eq!(nodes.refresh_begins().as_ref(), Some(&asked));
        nodes.refresh_ends(None);
        assert!(refreshed.as_mut().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_a_refresh_ends() {
        let nodes = Nodes::default();
        nodes.tell(None, Duration::from_secs(5), None);
        let asked: Arc<Endpoint> = Arc::new("10.0.0.1:6379".parse().unwrap());
        nodes.refreshed(&asked).await;
    }
}
