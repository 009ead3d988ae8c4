//! One route: prepared first, because that can fail, then running, through changes of its settings.
//!
//! Clients notice no change: their sessions go on with the settings that they began with, and a listener that stays is never closed.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::cluster::{self, Cluster};
use super::error::StartError;
use super::running::Running;
use super::server::{RouteServer, RouteTls};
use crate::admin;
use crate::cluster::node_addresses;
use crate::config::Route;
use crate::drain::Drain;
use crate::endpoint::ListenAddr;
use crate::group::Observer;
use crate::listener::{BindError, Clients, Inherited, Listener, Terms};
use crate::session;
use crate::telemetry::Throttle;
use crate::upstream::{Latch, NodeTls};

/// A route whose fallible steps are done. Nothing runs yet.
pub(super) struct Prepared {
    settings: Route,
    listeners: Vec<Listener>,
    server: ServerSide,
}

/// A prepared route's server side.
enum ServerSide {
    /// The running one is kept.
    Kept,
    New(RouteTls),
}

/// A running route.
pub(super) struct LiveRoute {
    settings: Route,
    listeners: Vec<Listener>,
    clients: Clients,
    server: RouteServer,
    follower: Option<Follower>,
    /// Ends the tasks of the listeners, which a change of the route replaces.
    accepting: Drain,
    /// Ends all sessions, including those that began before a change of the route.
    sessions: Drain,
    /// The value with which the first sockets were bound. It cannot change while they are kept.
    handover: bool,
}

/// The task that follows a cluster.
struct Follower {
    settings: watch::Sender<Arc<Cluster>>,
    /// The addresses of the nodes' listeners.
    addresses: Vec<IpAddr>,
    following: Drain,
    /// Ends once all of its listeners have closed.
    task: JoinHandle<()>,
}

impl Prepared {
    /// Loads files and binds addresses, and reports every problem. `before`: the running route that this one replaces. `bound`: the
    /// listeners of all routes.
    pub(super) fn new(
        settings: Route,
        before: Option<&LiveRoute>,
        bound: &[&Listener],
        inherited: &Inherited,
    ) -> Result<Self, Vec<StartError>> {
        let mut problems = Vec::new();
        let route = &settings.name;
        let server = if before.is_some_and(|live| live.serves_as_well(&settings)) {
            ServerSide::Kept
        } else {
            match RouteTls::load(&settings) {
                Ok(tls) => ServerSide::New(tls),
                Err(source) => {
                    problems.push(StartError::Tls { route: route.clone(), source });
                    ServerSide::Kept
                }
            }
        };
        let own = before.map_or(&[][..], LiveRoute::listeners);
        let mut listeners = Vec::new();
        for address in &settings.listener.listen {
            // With port 0, the listener of another route is a different one.
            let there = own.iter().chain(bound.iter().copied().filter(|_| address.is_one()));
            let there = there.into_iter().find(|listener| listener.is_at(address));
            match there
                .and_then(|listener| listener.try_clone().ok())
                .map_or_else(|| Listener::open(address, settings.listener.handover, inherited), Ok)
            {
                Ok(listener) => listeners.push(listener),
                Err(source) => {
                    let route = route.clone();
                    let own =
                        bound.iter().map(|listener| listener.address()).find(|own| own.overlaps(address));
                    problems.push(match own {
                        Some(own) if matches!(source, BindError::InUse(..) | BindError::NotShared(..)) => {
                            StartError::OwnAddress { route, address: address.clone(), own: own.clone() }
                        }
                        _ => StartError::Bind { route, source },
                    });
                }
            }
        }
        if problems.is_empty() { Ok(Self { settings, listeners, server }) } else { Err(problems) }
    }

    pub(super) fn name(&self) -> &str {
        &self.settings.name
    }

    /// The addresses that it listens on, with the ports that the system chose.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &ListenAddr> {
        self.listeners.iter().map(Listener::address)
    }

    /// Starts the route.
    pub(super) fn start(self, running: &Running) -> LiveRoute {
        let Self { settings, listeners, server } = self;
        let ServerSide::New(tls) = server else { unreachable!("a new route has no server side to keep") };
        let clients = Clients::new(terms(&settings), running.descriptors.clone());
        let sessions = running.drain.part();
        let server = RouteServer::start(&settings, tls, None, &sessions, running);
        let accepting = sessions.part();
        let handover = settings.listener.handover;
        let live =
            LiveRoute { settings, listeners, clients, server, follower: None, accepting, sessions, handover };
        live.begin(running, true, None)
    }

    /// Replaces the running route `before`.
    pub(super) fn replace(self, before: LiveRoute, running: &Running) -> LiveRoute {
        let Self { settings, mut listeners, server } = self;
        let LiveRoute {
            settings: was,
            mut clients,
            server: old,
            mut follower,
            accepting,
            sessions,
            handover,
            ..
        } = before;
        for (listener, address) in listeners.iter_mut().zip(&settings.listener.listen) {
            if let Err(error) = listener.readdress(address) {
                error!(route = settings.name, %address, %error, "mode of the Unix socket's file not changed, users and groups changed");
            }
        }
        accepting.start();
        clients.change(terms(&settings));
        let elsewhere = !old.leads_to(&settings);
        let leaving = follower.take_if(|_| settings.cluster.is_none() || elsewhere);
        if let Some(follower) = &leaving {
            follower.following.start();
        }
        let server = match server {
            ServerSide::New(tls) => {
                let server = RouteServer::start(&settings, tls, Some(&old), &sessions, running);
                if was.name != settings.name || leaving.is_some() {
                    old.forget();
                }
                server
            }
            ServerSide::Kept => old,
        };
        let left = leaving.map(|follower| follower.task);
        let accepting = sessions.part();
        LiveRoute { settings, listeners, clients, server, follower, accepting, sessions, handover }
            .begin(running, false, left)
    }
}

/// The limits for clients of a route with these settings.
fn terms(settings: &Route) -> Terms {
    Terms { max_clients: settings.listener.max_clients, patience: settings.upstream.connect_timeout }
}

impl LiveRoute {
    pub(super) fn settings(&self) -> &Route {
        &self.settings
    }

    pub(super) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// The settings that cannot change without a restart.
    pub(super) fn needs_restart(&self) -> impl Iterator<Item = &'static str> {
        let addresses = || node_addresses(&self.settings.listener.listen);
        let moved = self.follower.as_ref().is_some_and(|follower| follower.addresses != addresses());
        let moved = moved.then_some("listen (for nodes)");
        let shared = self.handover != self.settings.listener.handover;
        moved.into_iter().chain(shared.then_some("handover"))
    }

    /// Whether `settings` need no other server side.
    fn serves_as_well(&self, settings: &Route) -> bool {
        self.settings.name == settings.name
            && self.settings.upstream == settings.upstream
            && self.settings.evidence == settings.evidence
            && self.settings.cluster.is_some() == settings.cluster.is_some()
            && self.settings.sentinel() == settings.sentinel()
    }

    /// The route's description for the admin server.
    pub(super) fn describe(&self) -> admin::AdminRoute {
        admin::AdminRoute {
            name: self.settings.name.as_str().into(),
            group: self.settings.group.as_deref().map(Into::into),
            listeners: self.listeners.iter().map(|listener| listener.address().to_string()).collect(),
            tls: self.settings.servers().tls.clone(),
            upgrades: self.settings.session.upgrade == session::Upgrade::Drain,
            upstreams: self.server.upstreams(),
            observer: self.server.observer.clone(),
            metrics: Arc::clone(&self.server.metrics),
        }
    }

    /// The observer of the route's servers, with the key of its memory in the state file.
    pub(super) fn observer(&self) -> Option<(String, Arc<Observer>)> {
        Some((self.server.servers.clone(), Arc::clone(self.server.observer.as_ref()?)))
    }

    /// Remembers which endpoints have accepted TLS, because the latches must outlive the route.
    pub(super) fn remember(&self, running: &Running) {
        self.server.remember(&self.settings.name, running);
    }

    /// Stops accepting clients, and ends the sessions within `patience`.
    pub(super) fn remove(self, patience: Duration, running: &Running) {
        let Self { settings, clients, server, sessions, .. } = self;
        sessions.start();
        server.forget();
        let draining = running.drain.started();
        running.tasks.spawn(async move {
            tokio::select! {
                () = sleep(patience) => {}
                // Draining the whole process ends these sessions, too.
                () = draining => return,
            }
            let (route, left) = (settings.name, clients.count());
            if left > 0 {
                warn!(route, sessions = left, "sessions of a removed route cut after runtime.drain_timeout");
            }
            sessions.cut();
        });
    }

    /// Serves clients and follows the cluster, if there is one, once its predecessor (`left`) has freed its ports. `is_new`: the route did not
    /// exist before.
    fn begin(mut self, running: &Running, is_new: bool, left: Option<JoinHandle<()>>) -> Self {
        self.announce(is_new);
        let RouteServer { metrics, upstream, template, tls, nodes, .. } = &self.server;
        let name: Arc<str> = self.settings.name.as_str().into();
        running.inventory.watch(&name);
        let new = |sharing| session::Multiplexer::new(sharing, running.tasks.clone());
        let multiplexer = self.settings.session.sharing.map(new);
        let of_nodes = multiplexer.as_ref().map(session::Multiplexer::for_another_node);
        let context = Arc::new(session::RouteContext {
            multiplexer: multiplexer.filter(|_| self.settings.sentinel().is_none()),
            route: Arc::clone(&name),
            upstream: Arc::clone(upstream),
            nodes: nodes.clone(),
            is_node: self.settings.sentinel().is_some(),
            sentinels_of: self.settings.master_name().cloned(),
            settings: self.settings.session.clone(),
            metrics: Arc::clone(metrics),
            inventory: Arc::clone(&running.inventory),
            drain: self.sessions.clone(),
            throttle: Throttle::default(),
            slow_throttle: Throttle::default(),
        });
        for listener in &self.listeners {
            let context = Arc::clone(&context);
            let now = move || Arc::clone(&context);
            running.accept(&name, listener, &self.clients, &now, &self.accepting);
        }
        let (Some(settings), Some(nodes)) = (&self.settings.cluster, nodes) else { return self };
        let port = self.listeners.iter().find_map(|listener| listener.address().port());
        nodes.tell(settings.advertise.clone(), self.settings.upstream.connect_timeout, port);
        let cluster = Arc::new(Cluster {
            settings: settings.clone(),
            reach: self.settings.servers().clone(),
            template: Arc::clone(template),
            multiplexer: of_nodes,
            tls: tls.nodes.clone(),
            context,
            nodes: Arc::clone(nodes),
            clients: self.clients.clone(),
            running: running.clone(),
        });
        if let Some(follower) = &self.follower {
            follower.settings.send_replace(cluster);
            return self;
        }
        let addresses = node_addresses(&self.settings.listener.listen);
        let (settings, changes) = watch::channel(cluster);
        let following = self.sessions.part();
        let follow = cluster::follow(changes, addresses.clone(), following.clone());
        // Tracked with the listeners, so that shutdown waits until this opens no more.
        let task = running.listening.spawn(async move {
            if let Some(left) = left {
                let _ = left.await;
            }
            follow.await;
        });
        self.follower = Some(Follower { settings, addresses, following, task });
        self
    }

    fn announce(&self, is_new: bool) {
        let (route, server) = (&self.settings.name, &self.server);
        let upstream: Vec<String> =
            self.settings.upstream.endpoints.iter().map(ToString::to_string).collect();
        let upstream = upstream.join(", ");
        let describe = |tls: &Option<NodeTls>| {
            tls.as_ref().map_or_else(|| "disabled".to_owned(), |tls| tls.by_name.describe())
        };
        let tls = describe(&server.tls.nodes);
        let sentinel_tls = self.settings.sentinel().map(|_| describe(&server.tls.own));
        for listener in &self.listeners {
            let address = listener.address();
            if is_new {
                info!(route, %address, upstream, tls, sentinel_tls, "listening");
            } else {
                info!(route, %address, upstream, tls, sentinel_tls, "listening, settings of the route changed");
            }
        }
        if server.upstream.latch().is_some_and(|latch| !Latch::is_set(latch)) {
            warn!(route, "tls.mode is \"preferred\", traffic is in plaintext until an endpoint accepts TLS");
        }
        if let session::ClientAuth::Verify(local) = &self.settings.session.client_auth
            && let Err(problem) = local.check()
        {
            warn!(route, error = %problem, "clients cannot authenticate for now");
        }
        if server.tls.nodes.is_none() {
            warn!(route, "tls.mode is \"disabled\", traffic is in plaintext");
        }
        let speaks_tls = server.tls.own.is_some() || server.tls.nodes.is_some();
        let unverified = speaks_tls && self.settings.upstream.tls.insecure_skip_verify;
        server.metrics.verification_disabled(unverified);
        if unverified {
            warn!(
                route,
                "tls.insecure_skip_verify is set, any certificate is accepted, and an attacker can read and change all traffic"
            );
        }
    }
}
