//! The parts meet: everything is bound before anything runs, and everything ends in order.
//!
//! The end, step by step: readiness turns off; listeners close; sessions with nothing pending end at once, others
//! at their next reply boundary; after `drain_timeout` the rest are cut; the admin server closes last.

mod cluster;
mod running;
mod tasks;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use self::cluster::Cluster;
use self::running::{Memory, Running};
use self::tasks::{Books, keep_books, observe, reload_tls, renew_credentials, upkeep};
use crate::admin::{self, Admin, Readiness};
use crate::clients::Inventory;
use crate::cluster::{Nodes, Upstreams};
use crate::config::{Config, Route};
use crate::drain::Drain;
use crate::endpoint::ListenAddr;
use crate::listener::{BindError, Clients, Listener};
use crate::metrics::{PrometheusHandle, RouteMetrics};
use crate::session;
use crate::state::StateFile;
use crate::telemetry::Throttle;
use crate::tls::{self, TlsError};
use crate::upstream::evidence::Asking;
use crate::upstream::{NodeTls, Observer, Upstream};
use crate::verdict;
use crate::workers::Workers;

/// What is still running this long after the cut is abandoned.
const ABANDON: Duration = Duration::from_secs(2);

/// Why pontoon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("route \"{route}\": {source}")]
    Bind {
        /// Whose listener.
        route: String,
        /// Why.
        source: BindError,
    },
    /// A route's TLS files could not be used.
    #[error("route \"{route}\": {source}")]
    Tls {
        /// Whose.
        route: String,
        /// Why.
        source: TlsError,
    },
    /// The admin server's address could not be bound.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// The system gave no threads.
    #[error("cannot start the event-loop threads: {0}")]
    Workers(#[from] io::Error),
}

/// Everything bound, nothing running.
pub struct App {
    routes: Vec<BoundRoute>,
    admin: Option<Admin>,
    metrics: PrometheusHandle,
    workers: Workers,
    drain_timeout: Duration,
    verdict: verdict::Settings,
    memory: Memory,
}

struct BoundRoute {
    route: Route,
    listeners: Vec<Listener>,
    tls: Option<NodeTls>,
    metrics: Arc<RouteMetrics>,
    upstream: Arc<Upstream>,
    /// Where the upstream is a cluster.
    nodes: Option<Arc<Nodes>>,
    /// Where the servers are asked for their clients in plaintext.
    observer: Option<Arc<Observer>>,
}

impl App {
    /// Loads what must be loaded and binds what must be bound. On failure nothing stays bound, and every problem
    /// is reported. Needs a tokio runtime around it.
    pub fn bind(config: Config, metrics: PrometheusHandle) -> Result<Self, Vec<StartError>> {
        let mut problems = Vec::new();
        let mut routes = Vec::new();
        for route in config.routes {
            match BoundRoute::bind(route) {
                Ok(bound) => routes.push(bound),
                Err(more) => problems.extend(more),
            }
        }
        let admin = match config.admin.map(Admin::bind).transpose() {
            Ok(admin) => admin,
            Err(error) => {
                problems.push(error.into());
                None
            }
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let workers = Workers::start(config.workers).map_err(|error| vec![error.into()])?;
        let memory = remember(config.state_file.as_deref(), &routes);
        for bound in &mut routes {
            bound.observe(memory.state.as_deref());
        }
        let Config { drain_timeout, verdict, .. } = config;
        Ok(Self { routes, admin, metrics, workers, drain_timeout, verdict, memory })
    }

    /// Every listener's route and real address.
    pub fn listeners(&self) -> Vec<(String, ListenAddr)> {
        self.routes
            .iter()
            .flat_map(|bound| {
                bound.listeners.iter().map(|listener| (bound.route.name.clone(), listener.address().clone()))
            })
            .collect()
    }

    /// Runs until `drain` says otherwise and everything has ended.
    pub async fn run(self, drain: &Drain) {
        let readiness = Arc::new(Readiness::new(self.routes.iter().map(|bound| bound.route.name.clone())));
        let admin_stop = CancellationToken::new();
        let inventory = Inventory::new();
        if let Some(history) = self.memory.state.as_ref().and_then(|state| state.inventory()) {
            inventory.restore(history);
        }
        self.announce();
        let running = Running {
            workers: Arc::new(self.workers),
            listening: TaskTracker::new(),
            tasks: TaskTracker::new(),
            inventory: Arc::clone(&inventory),
            readiness: Arc::clone(&readiness),
            memory: self.memory.clone(),
            drain: drain.clone(),
        };
        if let Some(admin) = self.admin {
            info!(address = %admin.local_addr(), "admin listening");
            let shared = admin::Shared {
                readiness: Arc::clone(&readiness),
                metrics: self.metrics.clone(),
                inventory: Arc::clone(&inventory),
                routes: self.routes.iter().map(BoundRoute::describe).collect(),
                verdict: self.verdict,
            };
            running.tasks.spawn(admin.run(shared, admin_stop.clone()));
        }
        running.tasks.spawn(upkeep(self.metrics, drain.clone()));
        let observers = self
            .routes
            .iter()
            .filter_map(|bound| Some((bound.servers(), Arc::clone(bound.observer.as_ref()?))));
        let state = self.memory.state;
        let books = Arc::new(Books { inventory, observers: observers.collect(), state });
        running.tasks.spawn(keep_books(Arc::clone(&books), drain.clone()));
        for bound in self.routes {
            bound.start(&running);
        }
        info!(version = env!("CARGO_PKG_VERSION"), "started");

        drain.started().await;
        readiness.drain();
        info!(timeout = %humantime::format_duration(self.drain_timeout), "draining");
        let Running { workers, listening, tasks, .. } = running;
        listening.close();
        listening.wait().await;
        tokio::select! {
            () = workers.idle() => {}
            () = drain.cut_off() => {}
            () = sleep(self.drain_timeout) => {
                warn!("sessions that did not end in time are cut: see runtime.drain_timeout");
            }
        }
        drain.cut();
        let _ = tokio::time::timeout(ABANDON, workers.idle()).await;
        admin_stop.cancel();
        tasks.close();
        let _ = tokio::time::timeout(ABANDON, tasks.wait()).await;
        books.write();
        if let Some(workers) = Arc::into_inner(workers) {
            workers.join();
        }
        info!("stopped");
    }

    fn announce(&self) {
        for bound in &self.routes {
            let upstream: Vec<String> =
                bound.route.upstream.endpoints.iter().map(ToString::to_string).collect();
            let upstream = upstream.join(", ");
            let tls = bound.tls.as_ref().map_or_else(|| "disabled".to_owned(), |tls| tls.by_name.describe());
            for listener in &bound.listeners {
                info!(route = bound.route.name, address = %listener.address(), upstream, tls, "listening");
            }
            if bound.upstream.latch().is_some_and(|latch| !latch.is_set()) {
                warn!(
                    route = bound.route.name,
                    "tls.mode is \"preferred\": traffic leaves in plaintext until an endpoint speaks TLS"
                );
            }
            if let session::ClientAuth::Verify(local) = &bound.route.session.client_auth
                && let Err(problem) = local.check()
            {
                warn!(route = bound.route.name, "no client can authenticate for now: {problem}");
            }
            if bound.tls.is_none() {
                warn!(route = bound.route.name, "tls.mode is \"disabled\": traffic leaves in plaintext");
            }
            if bound.route.upstream.tls.insecure_skip_verify {
                bound.metrics.tls_verification_disabled.set(1);
                warn!(
                    route = bound.route.name,
                    "tls.insecure_skip_verify: any certificate is accepted; whoever is on the way can read and \
                     change everything"
                );
            }
        }
    }
}

impl BoundRoute {
    fn bind(route: Route) -> Result<Self, Vec<StartError>> {
        let mut problems = Vec::new();
        let name = &route.name;
        let tls = match route.upstream.tls.mode {
            tls::Mode::Disabled => None,
            tls::Mode::Required | tls::Mode::Preferred => match NodeTls::load(&route.upstream) {
                Ok(tls) => Some(tls),
                Err(source) => {
                    problems.push(StartError::Tls { route: name.clone(), source });
                    None
                }
            },
        };
        let mut listeners = Vec::new();
        for address in &route.listener.listen {
            match Listener::bind(address) {
                Ok(listener) => listeners.push(listener),
                Err(source) => problems.push(StartError::Bind { route: name.clone(), source }),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let metrics = Arc::new(RouteMetrics::new(name, &session::End::LABELS));
        let by_name = tls.as_ref().map(|tls| &tls.by_name);
        let upstream = Arc::new(Upstream::new(name, &route.upstream, by_name, &metrics));
        let nodes = route
            .cluster
            .as_ref()
            .map(|cluster| Arc::new(Nodes::new(cluster.advertise.clone(), route.upstream.connect_timeout)));
        Ok(Self { route, listeners, tls, metrics, upstream, nodes, observer: None })
    }

    fn observe(&mut self, state: Option<&StateFile>) {
        let Some(interval) = self.route.evidence_interval else { return };
        let asking = Asking {
            settings: self.route.upstream.clone(),
            credentials: self.upstream.credentials().cloned(),
            bridges: self.route.upstream.client_name.iter().cloned().collect(),
            list_always: false,
        };
        let quiet = state.and_then(|state| state.quiet(&self.servers()));
        self.observer = Some(Arc::new(Observer::new(asking, interval, quiet)));
    }

    /// Whose evidence it is, in the state file: a route by the same name may lead elsewhere some day.
    fn servers(&self) -> String {
        let endpoints = self.route.upstream.endpoints.iter().map(ToString::to_string);
        std::iter::once(self.route.name.clone()).chain(endpoints).collect::<Vec<_>>().join(" ")
    }

    /// As `/routes` tells it.
    fn describe(&self) -> admin::Route {
        admin::Route {
            name: self.route.name.as_str().into(),
            listeners: self.listeners.iter().map(|listener| listener.address().to_string()).collect(),
            tls: self.route.upstream.tls.clone(),
            upstreams: Upstreams { own: Arc::clone(&self.upstream), nodes: self.nodes.clone() },
            observer: self.observer.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Looks after the upstream, and makes sessions of clients.
    fn start(self, running: &Running) {
        let Running { tasks, drain, .. } = running;
        let Self { route, listeners, tls, metrics, upstream, observer, nodes } = self;
        let name: Arc<str> = route.name.as_str().into();
        running.look_after(&name, &upstream, &metrics, drain);
        if let Some(observer) = observer {
            let (upstream, metrics) = (Arc::clone(&upstream), Arc::clone(&metrics));
            tasks.spawn(observe(route.name.clone(), observer, upstream, metrics, drain.clone()));
        }
        let upstreams = Upstreams { own: Arc::clone(&upstream), nodes: nodes.clone() };
        if let Some(tls) = &tls {
            let (upstreams, metrics) = (upstreams.clone(), Arc::clone(&metrics));
            tasks.spawn(reload_tls(route.name.clone(), tls.all(), upstreams, metrics, drain.clone()));
        }
        tasks.spawn(renew_credentials(route.name.clone(), upstreams, Arc::clone(&metrics), drain.clone()));
        let clients = Clients::new(route.listener.max_clients);
        let context = Arc::new(session::Context {
            route: Arc::clone(&name),
            upstream,
            nodes: nodes.clone(),
            is_node: false,
            settings: route.session,
            metrics,
            inventory: Arc::clone(&running.inventory),
            drain: drain.clone(),
            throttle: Throttle::default(),
        });
        for listener in &listeners {
            let context = Arc::clone(&context);
            let now = move || Arc::clone(&context);
            running.accept(&name, listener, &clients, &now, drain);
        }
        if let (Some(settings), Some(nodes)) = (route.cluster, nodes) {
            let cluster = Cluster {
                settings,
                reach: route.upstream,
                tls,
                context,
                nodes,
                clients,
                addresses: cluster::addresses(&listeners),
                running: running.clone(),
            };
            // The tracker of listeners: it waits for none that this may still open.
            running.listening.spawn(cluster.run());
        }
    }
}

/// Takes up what a state file says: what has spoken TLS is not spoken to in plaintext. Without a file that makes sense,
/// that holds for everything.
fn remember(path: Option<&Path>, routes: &[BoundRoute]) -> Memory {
    let state = path.map(StateFile::open).transpose();
    if let Err(error) = &state {
        error!(
            "{error}: where tls.mode is \"preferred\", TLS is required. Repair the file, or remove it to begin anew"
        );
    }
    let memory = Memory { damaged: state.is_err(), state: state.ok().flatten().map(Arc::new) };
    for bound in routes {
        memory.close(&bound.upstream, &bound.route.upstream.endpoints);
    }
    memory
}
