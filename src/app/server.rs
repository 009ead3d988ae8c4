//! The server side of a running route: its upstream and the tasks that maintain it.

use std::sync::Arc;

use super::running::Running;
use super::tasks::{LeadsTo, observe, reload_tls, renew_credentials};
use crate::cluster::{Nodes, Upstreams};
use crate::config::Route;
use crate::drain::Drain;
use crate::group::{Asking, ListClients, Observer};
use crate::metrics::RouteMetrics;
use crate::session;
use crate::tls::{Tls, TlsError};
use crate::upstream::{NodeTls, Upstream};

/// The TLS configurations of a route; `None` for plaintext.
#[derive(Clone)]
pub struct RouteTls {
    /// For the route's own endpoints.
    pub own: Option<NodeTls>,
    /// For nodes. Only a Sentinel group's differs from the other.
    pub nodes: Option<NodeTls>,
}

impl RouteTls {
    /// Loads the files that `settings` name.
    pub fn load(settings: &Route) -> Result<Self, TlsError> {
        let own = NodeTls::wanted(&settings.upstream)?;
        let nodes =
            settings.sentinel().map_or_else(|| Ok(own.clone()), |group| NodeTls::wanted(&group.servers))?;
        Ok(Self { own, nodes })
    }

    fn all(&self) -> Vec<Arc<Tls>> {
        let mut all: Vec<Arc<Tls>> = Vec::new();
        for tls in self.own.iter().chain(&self.nodes).flat_map(NodeTls::all) {
            if !all.iter().any(|known| Arc::ptr_eq(known, &tls)) {
                all.push(tls);
            }
        }
        all
    }
}

/// A route's server side. A change of its settings replaces it as a whole.
pub(super) struct RouteServer {
    pub(super) tls: RouteTls,
    pub(super) metrics: Arc<RouteMetrics>,
    pub(super) upstream: Arc<Upstream>,
    /// Holds the servers' credentials. It is `upstream`, unless that leads to sentinels.
    pub(super) template: Arc<Upstream>,
    /// The name of the group, where the upstream is its sentinels.
    master_name: Option<Arc<str>>,
    /// Set where the upstream is a cluster or a group's sentinels.
    pub(super) nodes: Option<Arc<Nodes>>,
    /// Set where the servers are asked for their clients in plaintext.
    pub(super) observer: Option<Arc<Observer>>,
    /// The key of the observer's memory in the state file: the route's name and endpoints, because the route may later lead elsewhere.
    pub(super) servers: String,
    /// Ends the background tasks.
    tending: Drain,
}

impl RouteServer {
    /// Starts the upstream and its tasks, and ends those of `before`.
    pub(super) fn start(
        settings: &Route,
        tls: RouteTls,
        before: Option<&Self>,
        sessions: &Drain,
        running: &Running,
    ) -> Self {
        let name = &settings.name;
        let metrics = RouteMetrics::new(name, &session::End::LABELS);
        let metrics = Arc::new(match before {
            Some(before) => metrics.succeeding(&before.metrics),
            None => metrics,
        });
        let by_name = tls.own.as_ref().map(|tls| &tls.by_name);
        let upstream = match before {
            Some(before) => before.upstream.succeeded_by(name, &settings.upstream, by_name, &metrics),
            None => Upstream::new(name, &settings.upstream, by_name, &metrics),
        };
        running.memory.close(&upstream, &settings.upstream.endpoints);
        let upstream = Arc::new(upstream);
        let template = match settings.sentinel() {
            Some(group) => Arc::new(Upstream::new(name, &group.servers, None, &metrics)),
            None => Arc::clone(&upstream),
        };
        let nodes = settings.cluster.as_ref().map(|_| {
            // Sessions that go on keep the nodes of the same cluster, and must not learn those of another.
            let same = before.filter(|before| before.leads_to(settings));
            same.and_then(|before| before.nodes.clone()).unwrap_or_default()
        });
        let endpoints = settings.upstream.endpoints.iter().map(ToString::to_string);
        let servers = std::iter::once(name.clone()).chain(endpoints).collect::<Vec<_>>().join(" ");
        let observer = settings.evidence.map(|pace| {
            let asking = Asking {
                settings: settings.servers().clone(),
                credentials: template.credentials().cloned(),
                bridges: settings.upstream.client_name.iter().cloned().collect(),
                clients: ListClients::WherePlaintextOrFew,
                all_must_exist: false,
            };
            let same = before.filter(|before| before.servers == servers);
            let before = same.and_then(|before| before.observer.as_ref()).map(|observer| observer.memory());
            let memory = before.unwrap_or_else(|| running.memory.servers(&servers));
            Arc::new(Observer::new(asking, pace, &memory))
        });
        let tending = sessions.part();
        let master_name = settings.master_name().cloned();
        let server =
            Self { tls, metrics, upstream, template, master_name, nodes, observer, servers, tending };
        server.tend(name, running);
        if let Some(before) = before {
            before.tending.start();
            before.upstream.forget();
            before.metrics.retire();
            if before.servers != server.servers {
                running.serving.forget(name);
            }
        }
        server
    }

    /// Whether a route with these settings leads to the same cluster or group.
    pub(super) fn leads_to(&self, settings: &Route) -> bool {
        self.upstream.leads_to_any(&settings.upstream.endpoints)
            && self.master_name.as_ref() == settings.master_name()
    }

    /// The upstreams of the route and of its nodes.
    pub(super) fn upstreams(&self) -> Upstreams {
        Upstreams {
            own: Arc::clone(&self.upstream),
            template: Arc::clone(&self.template),
            nodes: self.nodes.clone(),
            own_is_sentinels: self.master_name.is_some(),
        }
    }

    fn tend(&self, route: &str, running: &Running) {
        let Self { upstream, metrics, tending, .. } = self;
        let task = || (route.to_owned(), Arc::clone(metrics), tending.clone());
        let leads_to = if self.master_name.is_some() { LeadsTo::Sentinels } else { LeadsTo::Servers };
        running.look_after(route, upstream, leads_to, metrics, tending);
        if let Some(observer) = &self.observer {
            let (route, metrics, tending) = task();
            let observer = Arc::clone(observer);
            running.tasks.spawn(observe(route, observer, self.upstreams(), metrics, tending));
        }
        let tls = self.tls.all();
        if !tls.is_empty() {
            let (route, metrics, tending) = task();
            running.tasks.spawn(reload_tls(route, tls, self.upstreams(), metrics, tending));
        }
        let (route, metrics, tending) = task();
        running.tasks.spawn(renew_credentials(route, self.upstreams(), metrics, tending));
    }

    /// Remembers the endpoints that have accepted TLS, so that plaintext to them stays refused under any `tls.mode` before or after.
    pub(super) fn remember(&self, route: &str, running: &Running) {
        self.upstreams().for_each(|upstream| running.memory.keep_at_once(route, upstream));
    }

    /// Removes the route from the metrics.
    pub(super) fn forget(&self) {
        self.metrics.retire();
        self.upstreams().for_each(Upstream::forget);
    }
}
