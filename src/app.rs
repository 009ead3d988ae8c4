//! The parts meet: everything is bound before anything runs, and everything ends in order.
//!
//! The end, step by step: readiness turns off; listeners close; sessions with nothing pending end at once, others
//! at their next reply boundary; after `drain_timeout` the rest are cut; the admin server closes last.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::admin::{self, Admin, Readiness};
use crate::clients::Inventory;
use crate::config::{Config, Route};
use crate::credentials::Look;
use crate::drain::Drain;
use crate::endpoint::{Endpoint, ListenAddr};
use crate::listener::{Admission, BindError, Clients, Listener};
use crate::metrics::{PrometheusHandle, RouteMetrics};
use crate::session;
use crate::state::StateFile;
use crate::telemetry::Throttle;
use crate::tls::{self, Reload, Tls, TlsError};
use crate::upstream::{Mode, Upstream};
use crate::workers::Workers;

/// How often each route's upstream is looked after.
const LOOK_AFTER: Duration = Duration::from_secs(10);

/// How often a source of credentials is looked at; how often it is read is its own matter.
const LOOK_AT_CREDENTIALS: Duration = Duration::from_secs(2);

/// So many seconds apart, the processes of clients are looked up that nobody has asked about.
const LOOK_UP: u64 = 5;

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
    state: Option<Arc<StateFile>>,
}

struct BoundRoute {
    route: Route,
    listeners: Vec<Listener>,
    tls: Option<Arc<Tls>>,
    metrics: Arc<RouteMetrics>,
    upstream: Arc<Upstream>,
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
        let state = config.state_file.and_then(|path| remember(&path, &routes));
        Ok(Self { routes, admin, metrics, workers, drain_timeout: config.drain_timeout, state })
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
        let tasks = TaskTracker::new();
        let admin_stop = CancellationToken::new();
        let inventory = Inventory::new();
        self.announce();
        if let Some(admin) = self.admin {
            info!(address = %admin.local_addr(), "admin listening");
            let shared = admin::Shared {
                readiness: Arc::clone(&readiness),
                metrics: self.metrics.clone(),
                inventory: Arc::clone(&inventory),
                routes: self.routes.iter().map(BoundRoute::describe).collect(),
            };
            tasks.spawn(admin.run(shared, admin_stop.clone()));
        }
        tasks.spawn(upkeep(self.metrics, drain.clone()));
        tasks.spawn(keep_inventory(Arc::clone(&inventory), drain.clone()));
        let workers = Arc::new(self.workers);
        let listening = TaskTracker::new();
        for bound in self.routes {
            tasks.spawn(look_after(
                bound.route.name.clone(),
                Arc::clone(&bound.upstream),
                Arc::clone(&bound.metrics),
                Arc::clone(&readiness),
                drain.clone(),
            ));
            let (upstream, leaving) = (Arc::clone(&bound.upstream), drain.clone());
            tasks.spawn(async move { upstream.tend(&leaving).await });
            tasks.spawn(find_tls(
                bound.route.name.clone(),
                Arc::clone(&bound.upstream),
                self.state.clone(),
                drain.clone(),
            ));
            if let Some(tls) = bound.tls.clone() {
                tasks.spawn(reload_tls(
                    bound.route.name.clone(),
                    tls,
                    Arc::clone(&bound.upstream),
                    Arc::clone(&bound.metrics),
                    drain.clone(),
                ));
            }
            tasks.spawn(renew_credentials(
                bound.route.name.clone(),
                Arc::clone(&bound.upstream),
                Arc::clone(&bound.metrics),
                drain.clone(),
            ));
            bound.listen(&listening, &workers, &inventory, drain);
        }
        info!(version = env!("CARGO_PKG_VERSION"), "started");

        drain.started().await;
        readiness.drain();
        info!(timeout = %humantime::format_duration(self.drain_timeout), "draining");
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
            let tls = bound.tls.as_ref().map_or_else(|| "disabled".to_owned(), |tls| tls.describe());
            for listener in &bound.listeners {
                info!(route = bound.route.name, address = %listener.address(), upstream, tls, "listening");
            }
            if bound.upstream.latch().is_some_and(|latch| !latch.is_set()) {
                warn!(
                    route = bound.route.name,
                    "tls.mode is \"preferred\": traffic leaves in plaintext until an endpoint speaks TLS"
                );
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
            tls::Mode::Required | tls::Mode::Preferred => match Tls::load(&route.upstream.tls) {
                Ok(tls) => Some(Arc::new(tls)),
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
        let upstream = Arc::new(Upstream::new(name, &route.upstream, tls.as_ref(), &metrics));
        Ok(Self { route, listeners, tls, metrics, upstream })
    }

    /// As `/routes` tells it.
    fn describe(&self) -> admin::Route {
        admin::Route {
            name: self.route.name.as_str().into(),
            listeners: self.listeners.iter().map(|listener| listener.address().to_string()).collect(),
            upstreams: self.route.upstream.endpoints.iter().map(ToString::to_string).collect(),
        }
    }

    fn listen(
        self,
        listening: &TaskTracker,
        workers: &Arc<Workers>,
        inventory: &Arc<Inventory>,
        drain: &Drain,
    ) {
        let clients = Clients::new(self.route.listener.max_clients);
        let context = Arc::new(session::Context {
            route: self.route.name.into(),
            upstream: self.upstream,
            settings: self.route.session,
            metrics: self.metrics,
            inventory: Arc::clone(inventory),
            drain: drain.clone(),
            throttle: Throttle::default(),
        });
        // Each thread accepts: what it keeps never crosses over.
        for event_loop in workers.event_loops() {
            for listener in &self.listeners {
                let (clients, context, workers) =
                    (clients.clone(), Arc::clone(&context), Arc::clone(workers));
                let listener = match listener.try_clone() {
                    Ok(listener) => listener,
                    Err(error) => {
                        error!(route = &*context.route, %error, "a thread has no listener: others accept for it");
                        continue;
                    }
                };
                listening.spawn_on(accept(listener, clients, context, workers), event_loop);
            }
        }
    }
}

/// Makes sessions of a listener's clients.
async fn accept(listener: Listener, clients: Clients, context: Arc<session::Context>, workers: Arc<Workers>) {
    let hand_on = |client, admission| match admission {
        Admission::Welcome(place) => workers.spawn(session::serve(client, Arc::clone(&context), place)),
        Admission::Refused(refusal) => workers.spawn(async move {
            let _refusal = refusal;
            session::refuse_at_limit(client).await;
        }),
    };
    let (route, metrics) = (&*context.route, &context.metrics);
    if let Err(error) = listener.run(route, &clients, &context.drain, metrics, hand_on).await {
        error!(route, %error, "the listener failed and accepts no more clients");
    }
}

/// Takes up what a state file says: what has spoken TLS is not spoken to in plaintext. Without a file that makes sense,
/// that holds for everything.
fn remember(path: &Path, routes: &[BoundRoute]) -> Option<Arc<StateFile>> {
    let state = StateFile::open(path);
    if let Err(error) = &state {
        error!(
            "{error}: where tls.mode is \"preferred\", TLS is required. Repair the file, or remove it to begin anew"
        );
    }
    for bound in routes {
        let spoken = |endpoint: &Endpoint| state.as_ref().map_or(true, |state| state.speaks_tls(endpoint));
        if let Some(latch) = bound.upstream.latch()
            && bound.route.upstream.endpoints.iter().any(spoken)
        {
            latch.set();
        }
    }
    state.ok().map(Arc::new)
}

/// Looks for TLS where `tls.mode` is `preferred`, and remembers who speaks it.
async fn find_tls(route: String, upstream: Arc<Upstream>, state: Option<Arc<StateFile>>, drain: Drain) {
    upstream.find_tls(&drain).await;
    let Some(state) = state else { return };
    for (endpoint, _) in upstream.transit().filter(|(_, seen)| *seen == Mode::Tls) {
        if let Err(error) = state.note_tls(endpoint) {
            warn!(
                route,
                "the state file cannot be written, a restart will not remember that {endpoint} speaks TLS: {error}"
            );
        }
    }
}

/// Finds out whether a route's upstream can be reached, at start and where clients have not shown it lately.
async fn look_after(
    route: String,
    upstream: Arc<Upstream>,
    metrics: Arc<RouteMetrics>,
    readiness: Arc<Readiness>,
    drain: Drain,
) {
    let mut ticks = interval(LOOK_AFTER);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = drain.started() => return,
        }
        let reached = tokio::select! {
            reached = upstream.look_after() => reached,
            () = drain.started() => return,
        };
        metrics.upstream_reachable.set(f64::from(u8::from(reached)));
        if reached {
            readiness.reached(&route);
        } else {
            readiness.failed(&route, upstream.auth_problem().map(|problem| problem.to_string()));
        }
    }
}

/// Histograms keep every sample until somebody renders them, or this.
async fn upkeep(metrics: PrometheusHandle, drain: Drain) {
    let mut ticks = interval(LOOK_AFTER);
    loop {
        tokio::select! {
            _ = ticks.tick() => metrics.run_upkeep(),
            () = drain.started() => return,
        }
    }
}

/// Sets the inventory's clock, and finds out now and then whose the sessions are that nobody has asked about.
async fn keep_inventory(inventory: Arc<Inventory>, drain: Drain) {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let draining = drain.started();
    tokio::pin!(draining);
    for second in 0_u64.. {
        tokio::select! {
            _ = seconds.tick() => inventory.tick(),
            () = &mut draining => return,
        }
        if second % LOOK_UP == 0 {
            let inventory = Arc::clone(&inventory);
            // Reads /proc, which takes its time: not on an event loop.
            let _ = spawn_blocking(move || inventory.look_up()).await;
        }
    }
}

/// Takes over renewed certificates; keeps what works where the new ones don't.
async fn reload_tls(
    route: String,
    tls: Arc<Tls>,
    upstream: Arc<Upstream>,
    metrics: Arc<RouteMetrics>,
    drain: Drain,
) {
    let mut ticks = interval(LOOK_AFTER);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = drain.started() => return,
        }
        match tls.reload_if_changed() {
            Reload::Unchanged => {}
            Reload::Reloaded => {
                failing = false;
                upstream.retire_all();
                metrics.tls_reload("ok");
                info!(route, tls = tls.describe(), "certificates reloaded");
            }
            Reload::Failed(error) => {
                metrics.tls_reload("failed");
                if !failing {
                    warn!(route, "certificates not reloaded, the previous ones stay in use: {error}");
                }
                failing = true;
            }
        }
    }
}

/// Looks for new secrets, and has connections of the old ones serve nobody else.
async fn renew_credentials(route: String, upstream: Arc<Upstream>, metrics: Arc<RouteMetrics>, drain: Drain) {
    let Some(credentials) = upstream.credentials() else { return };
    let mut changes = credentials.changes();
    let mut ticks = interval(LOOK_AT_CREDENTIALS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        let look = tokio::select! {
            look = async { ticks.tick().await; credentials.look().await } => look,
            Ok(()) = changes.changed() => {
                upstream.retire_all();
                metrics.credentials_reload("ok");
                info!(route, user = credentials.user(), "credentials changed: new connections use the new ones");
                continue;
            }
            () = drain.started() => return,
        };
        match look {
            Look::Good if std::mem::take(&mut failing) => info!(route, "credentials can be had again"),
            Look::Good => {}
            Look::Failed(error) => {
                if !failing {
                    metrics.credentials_reload("failed");
                    warn!(
                        route,
                        "credentials cannot be had; the last good ones, if any, stay in use: {error}"
                    );
                }
                failing = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::Peer;

    #[tokio::test(start_paused = true)]
    async fn the_process_of_a_client_is_found_out_though_nobody_asks() {
        let (inventory, drain) = (Inventory::new(), Drain::new());
        let keeping = keep_inventory(Arc::clone(&inventory), drain.clone());
        tokio::pin!(keeping);
        let mut pass = async || {
            tokio::select! {
                () = &mut keeping => panic!("it goes on"),
                () = sleep(Duration::from_secs(1)) => {}
            }
        };
        pass().await;
        let peer = Peer::Unix { pid: Some(std::process::id()), uid: None };
        let entry = inventory.enter(&"route".into(), peer);
        let known = || inventory.history().clients[0].process.is_some();
        assert!(!known());
        while !known() {
            pass().await;
        }
        drop(entry);
        drain.start();
        keeping.await;
    }
}
