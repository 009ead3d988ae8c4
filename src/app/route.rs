//! One route: what can fail, which is done first, and what runs then, through changes of its settings.
//!
//! Clients notice no change: their sessions go on with what they began with, and a listener that stays is never closed.

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
use super::server::RouteServer;
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

/// What can fail has been done; nothing runs yet.
pub(super) struct Prepared {
    settings: Route,
    listeners: Vec<Listener>,
    server: ServerSide,
}

/// A route's server side, as it is to be.
enum ServerSide {
    /// As it is.
    Kept,
    /// Another one; `None`: in plaintext.
    New(Option<NodeTls>),
}

/// A route that runs.
pub(super) struct LiveRoute {
    settings: Route,
    listeners: Vec<Listener>,
    clients: Clients,
    server: RouteServer,
    follower: Option<Follower>,
    /// Of the listeners' tasks: they are others after a change.
    accepting: Drain,
    /// Of all sessions, whatever the route was like when they began.
    sessions: Drain,
    /// As its first sockets were bound: they are kept, and are shared from the first or never.
    handover: bool,
}

/// What follows a cluster.
struct Follower {
    settings: watch::Sender<Arc<Cluster>>,
    /// Where the nodes' listeners are.
    addresses: Vec<IpAddr>,
    following: Drain,
    /// Ends when nothing listens any more.
    task: JoinHandle<()>,
}

impl Prepared {
    /// Loads what must be loaded and binds what must be bound, or tells every problem. `before`: the route by the same name, as
    /// it runs. `bound`: listeners that there are, of whichever route.
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
            let tls = NodeTls::wanted(&settings.upstream)
                .map_err(|source| StartError::Tls { route: route.clone(), source });
            ServerSide::New(tls.unwrap_or_else(|problem| {
                problems.push(problem);
                None
            }))
        };
        let own = before.map_or(&[][..], LiveRoute::listeners);
        let mut listeners = Vec::new();
        for address in &settings.listener.listen {
            // Another route's is another one, where the system chose the port.
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
                        Some(own) if matches!(source, BindError::InUse(_) | BindError::NotShared(_)) => {
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

    /// Where it listens, with the ports that the system chose.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &ListenAddr> {
        self.listeners.iter().map(Listener::address)
    }

    /// Runs.
    pub(super) fn start(self, running: &Running) -> LiveRoute {
        let Self { settings, listeners, server } = self;
        let ServerSide::New(tls) = server else { unreachable!("there is nothing to keep") };
        let clients = Clients::new(terms(&settings), running.descriptors.clone());
        let sessions = running.drain.part();
        let server = RouteServer::start(&settings, tls, None, &sessions, running);
        let accepting = sessions.part();
        let handover = settings.listener.handover;
        let live =
            LiveRoute { settings, listeners, clients, server, follower: None, accepting, sessions, handover };
        live.begin(running, None)
    }

    /// Runs in the place of `before`.
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
                error!(route = settings.name, %address, "the mode of the socket's file stays as it was, whom it is for does not: {error}");
            }
        }
        accepting.start();
        clients.change(terms(&settings));
        let elsewhere = !old.upstream.leads_to_any(&settings.upstream.endpoints);
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
            .begin(running, left)
    }
}

/// On which terms clients come to a route with these settings.
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

    /// Of what its settings ask for, that which it cannot become without a restart.
    pub(super) fn needs_restart(&self) -> impl Iterator<Item = &'static str> {
        let addresses = || node_addresses(&self.settings.listener.listen);
        let moved = self.follower.as_ref().is_some_and(|follower| follower.addresses != addresses());
        let moved = moved.then_some("listen, as far as the cluster's nodes go");
        let shared = self.handover != self.settings.listener.handover;
        moved.into_iter().chain(shared.then_some("handover"))
    }

    /// Whether its server side is what `settings` ask for.
    fn serves_as_well(&self, settings: &Route) -> bool {
        self.settings.name == settings.name
            && self.settings.upstream == settings.upstream
            && self.settings.evidence == settings.evidence
            && self.settings.cluster.is_some() == settings.cluster.is_some()
    }

    /// As the admin server shows it.
    pub(super) fn describe(&self) -> admin::AdminRoute {
        admin::AdminRoute {
            name: self.settings.name.as_str().into(),
            group: self.settings.group.as_deref().map(Into::into),
            listeners: self.listeners.iter().map(|listener| listener.address().to_string()).collect(),
            tls: self.settings.upstream.tls.clone(),
            upgrades: self.settings.session.upgrade == session::Upgrade::Drain,
            upstreams: self.server.upstreams(),
            observer: self.server.observer.clone(),
            metrics: Arc::clone(&self.server.metrics),
        }
    }

    /// Who asks its servers, and whose evidence that is.
    pub(super) fn observer(&self) -> Option<(String, Arc<Observer>)> {
        Some((self.server.servers.clone(), Arc::clone(self.server.observer.as_ref()?)))
    }

    /// What its servers have spoken must outlive it.
    pub(super) fn remember(&self, running: &Running) {
        self.server.remember(running);
    }

    /// Takes no client any more, and has its sessions end, within `patience`.
    pub(super) fn remove(self, patience: Duration, running: &Running) {
        let Self { settings, clients, server, sessions, .. } = self;
        sessions.start();
        server.forget();
        let draining = running.drain.started();
        running.tasks.spawn(async move {
            tokio::select! {
                () = sleep(patience) => {}
                // What ends all ends these.
                () = draining => return,
            }
            let (route, left) = (settings.name, clients.count());
            if left > 0 {
                warn!(route, left, "sessions of a removed route are cut: see runtime.drain_timeout");
            }
            sessions.cut();
        });
    }

    /// Makes sessions of clients, and has a cluster followed, once the other one that was followed has given up its ports.
    fn begin(mut self, running: &Running, left: Option<JoinHandle<()>>) -> Self {
        self.announce();
        let RouteServer { metrics, upstream, tls, nodes, .. } = &self.server;
        let name: Arc<str> = self.settings.name.as_str().into();
        running.inventory.watch(&name);
        let sharing = self.settings.session.sharing;
        let context = Arc::new(session::RouteContext {
            multiplexer: sharing.map(|sharing| session::Multiplexer::new(sharing, running.tasks.clone())),
            route: Arc::clone(&name),
            upstream: Arc::clone(upstream),
            nodes: nodes.clone(),
            is_node: false,
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
        nodes.tell(settings.advertise.clone(), self.settings.upstream.connect_timeout);
        let cluster = Arc::new(Cluster {
            settings: settings.clone(),
            reach: self.settings.upstream.clone(),
            tls: tls.clone(),
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
        // The tracker of listeners: it waits for none that this may still open.
        let task = running.listening.spawn(async move {
            if let Some(left) = left {
                let _ = left.await;
            }
            follow.await;
        });
        self.follower = Some(Follower { settings, addresses, following, task });
        self
    }

    fn announce(&self) {
        let (route, server) = (&self.settings.name, &self.server);
        let upstream: Vec<String> =
            self.settings.upstream.endpoints.iter().map(ToString::to_string).collect();
        let upstream = upstream.join(", ");
        let tls = server.tls.as_ref().map_or_else(|| "disabled".to_owned(), |tls| tls.by_name.describe());
        for listener in &self.listeners {
            info!(route, address = %listener.address(), upstream, tls, "listening");
        }
        if server.upstream.latch().is_some_and(|latch| !Latch::is_set(latch)) {
            warn!(
                route,
                "tls.mode is \"preferred\": traffic leaves in plaintext until an endpoint speaks TLS"
            );
        }
        if let session::ClientAuth::Verify(local) = &self.settings.session.client_auth
            && let Err(problem) = local.check()
        {
            warn!(route, "no client can authenticate for now: {problem}");
        }
        if server.tls.is_none() {
            warn!(route, "tls.mode is \"disabled\": traffic leaves in plaintext");
        }
        let unverified = self.settings.upstream.tls.insecure_skip_verify;
        server.metrics.verification_disabled(unverified);
        if unverified {
            warn!(
                route,
                "tls.insecure_skip_verify: any certificate is accepted; whoever is on the way can read and change \
                 everything"
            );
        }
    }
}
