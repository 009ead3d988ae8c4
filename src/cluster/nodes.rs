//! The nodes of a route's cluster as all of its sessions see them, and how a session has them looked up again.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::map::{LocalNode, NodeMap};
use crate::endpoint::{Endpoint, Host};
use crate::upstream::{EndpointFacts, Latch, Lease, Outage, Unreachable, Upstream};

/// A cluster's nodes.
pub struct Nodes {
    map: ArcSwap<NodeMap>,
    /// One for each node that can be dialled.
    upstreams: ArcSwap<Vec<Arc<Upstream>>>,
    rewrite: ArcSwap<RewriteSettings>,
    wanted: Notify,
    /// The node to ask first: it told of one that is not known.
    hint: Mutex<Option<Arc<Endpoint>>>,
    refreshes: watch::Sender<Refreshes>,
}

struct RewriteSettings {
    /// What clients are told instead of the address that they connected to.
    advertise: Option<Host>,
    /// Nobody waits longer for a refresh.
    patience: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct Refreshes {
    begun: u64,
    ended: u64,
}

impl Nodes {
    /// None is known yet.
    pub fn new(advertise: Option<Host>, patience: Duration) -> Self {
        Self {
            map: ArcSwap::default(),
            upstreams: ArcSwap::default(),
            rewrite: ArcSwap::from_pointee(RewriteSettings { advertise, patience }),
            wanted: Notify::new(),
            hint: Mutex::default(),
            refreshes: watch::Sender::default(),
        }
    }

    /// Other settings, for sessions to come.
    pub fn tell(&self, advertise: Option<Host>, patience: Duration) {
        self.rewrite.store(Arc::new(RewriteSettings { advertise, patience }));
    }

    /// Those that have a listener.
    pub fn map(&self) -> Arc<NodeMap> {
        self.map.load_full()
    }

    /// What clients are told instead of the address that they connected to.
    pub fn advertise(&self) -> Option<Host> {
        self.rewrite.load().advertise.clone()
    }

    /// What leads to each node.
    pub fn upstreams(&self) -> Arc<Vec<Arc<Upstream>>> {
        self.upstreams.load_full()
    }

    /// A connection to any node, for a client that asked for none of them; `None`: none was had in time.
    pub async fn connect(&self) -> Option<Result<Lease, Unreachable>> {
        let upstreams = self.upstreams();
        let first = if upstreams.is_empty() { 0 } else { fastrand::usize(..upstreams.len()) };
        let patience = self.rewrite.load().patience;
        let deadline = Instant::now() + patience;
        let mut last = None;
        for upstream in upstreams.iter().cycle().skip(first).take(upstreams.len()) {
            // One that does not answer leaves time for others.
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

    /// Has the nodes looked up again, soon. `asked`: the node to ask, for it has told of another.
    pub fn refresh(&self, asked: Option<&Arc<Endpoint>>) {
        if let Some(asked) = asked {
            *self.hint.lock() = Some(Arc::clone(asked));
        }
        self.wanted.notify_one();
    }

    /// As [`refresh`](Self::refresh); completes when a refresh is over that began later than now, or nobody can wait longer.
    pub fn refreshed(&self, asked: &Arc<Endpoint>) -> impl Future<Output = ()> + Send + use<> {
        let mut refreshes = self.refreshes.subscribe();
        let next = refreshes.borrow_and_update().begun + 1;
        self.refresh(Some(asked));
        let patience = self.rewrite.load().patience;
        async move {
            let _ = timeout(patience, refreshes.wait_for(|refreshes| refreshes.ended >= next)).await;
        }
    }

    /// Completes when somebody wants a refresh.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// A refresh begins. The node to ask first, if there is one.
    pub fn refresh_begins(&self) -> Option<Arc<Endpoint>> {
        self.refreshes.send_modify(|refreshes| refreshes.begun += 1);
        self.hint.lock().take()
    }

    /// A refresh is over, with this result; `None`: nobody could be asked.
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
    /// Where clients begin.
    pub own: Arc<Upstream>,
    /// `None`: it is no cluster.
    pub nodes: Option<Arc<Nodes>>,
}

impl Upstreams {
    /// Connections made with old TLS files serve no further client.
    pub fn retire_all(&self) {
        self.for_each(Upstream::retire_all);
    }

    /// Whether plaintext is over for all of them, where it ever was.
    pub fn are_latched(&self) -> bool {
        let mut latched = true;
        self.for_each(|upstream| latched &= upstream.latch().is_none_or(Latch::is_set));
        latched
    }

    /// What cannot be reached, and why: where clients begin, then nodes.
    pub fn outages(&self) -> Vec<Outage> {
        let mut outages = Vec::new();
        self.for_each(|upstream| outages.extend(upstream.outage()));
        outages
    }

    /// TCP connections that were opened so far, to all nodes that there are.
    pub fn dialled(&self) -> u64 {
        let mut dialled = 0;
        self.for_each(|upstream| dialled += upstream.dialled());
        dialled
    }

    /// What is known of each endpoint. Nodes are just more of them.
    pub fn facts(&self) -> Vec<EndpointFacts> {
        let mut facts = self.own.facts();
        if let Some(nodes) = &self.nodes {
            let map = nodes.map();
            for upstream in nodes.upstreams().iter() {
                facts.extend(upstream.facts().into_iter().map(|facts| {
                    // By any of its names: it may be called by another since it was found.
                    let endpoint: Option<Endpoint> = facts.endpoint.parse().ok();
                    let here = |local: &&LocalNode| {
                        endpoint
                            .as_ref()
                            .is_some_and(|endpoint| local.node.is_at(&endpoint.host, endpoint.port))
                    };
                    EndpointFacts { local_port: map.iter().find(here).map(|local| local.port), ..facts }
                }));
            }
        }
        facts
    }

    /// Does something with each of them.
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
    async fn who_asks_during_a_refresh_waits_for_the_next_one() {
        let nodes = Nodes::new(None, Duration::from_secs(5));
        let asked: Arc<Endpoint> = Arc::new("10.0.0.1:6379".parse().unwrap());
        nodes.refresh_begins();
        let mut refreshed = Box::pin(nodes.refreshed(&asked));
        nodes.refresh_ends(None);
        assert!(
            refreshed.as_mut().now_or_never().is_none(),
            "that one may have asked before the node was there"
        );
        nodes.wanted().await;
        assert_eq!(nodes.refresh_begins().as_ref(), Some(&asked));
        nodes.refresh_ends(None);
        assert!(refreshed.as_mut().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let nodes = Nodes::new(None, Duration::from_secs(5));
        let asked: Arc<Endpoint> = Arc::new("10.0.0.1:6379".parse().unwrap());
        nodes.refreshed(&asked).await;
    }
}
