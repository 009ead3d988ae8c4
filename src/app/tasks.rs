//! The tasks that run beside the sessions until draining starts: they maintain upstreams, reload certificates and secrets, and keep the
//! inventory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{info, warn};

use super::memory::LatchMemory;
use crate::admin::{AdminContext, Serving};
use crate::clients::Inventory;
use crate::cluster::Upstreams;
use crate::credentials::{Credentials, SecretRefresh};
use crate::drain::Drain;
use crate::group::Observer;
use crate::metrics::RouteMetrics;
use crate::state::StateFile;
use crate::tls::{Reload, Tls};
use crate::upstream::Upstream;

/// How often each route's upstream is checked.
const LOOK_AFTER: Duration = Duration::from_secs(10);

/// How often a source of credentials is checked. The source decides how often it is read.
const LOOK_AT_CREDENTIALS: Duration = Duration::from_secs(2);

/// How often a latch is looked at, before servers are asked over TLS.
const LOOK_FOR_LATCH: Duration = Duration::from_secs(1);

/// How often a certificate that must be renewed is logged.
const LOG_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// Time from a new session to the look-up of its client's process.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Longest time between two writes of the state file.
const WRITE: Duration = Duration::from_secs(60);

/// How soon a client in plaintext is written to the state file.
const LOOK_AT_OBSERVERS: Duration = Duration::from_secs(1);

/// Looks for TLS where `tls.mode` is `preferred`, and remembers the endpoints that accept it.
pub(super) async fn find_tls(route: String, upstream: Arc<Upstream>, memory: LatchMemory, drain: Drain) {
    upstream.find_tls(&drain).await;
    memory.keep(&route, &upstream).await;
}

/// What an upstream leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeadsTo {
    /// The servers of a route, where it is no Sentinel group.
    Servers,
    /// The sentinels of a route.
    Sentinels,
    /// A node, whose start is no news.
    Node,
}

/// Finds out whether a route's upstream can be reached, at the start and when no client connected recently, and remembers the endpoints that
/// have accepted TLS.
pub(super) async fn look_after(
    route: String,
    upstream: Arc<Upstream>,
    leads_to: LeadsTo,
    metrics: Arc<RouteMetrics>,
    serving: Arc<Serving>,
    memory: LatchMemory,
    drain: Drain,
) {
    let mut ticks = interval(LOOK_AFTER);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_first = leads_to != LeadsTo::Node;
    let mut is_right = leads_to != LeadsTo::Servers;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = drain.started() => return,
        }
        let reached = tokio::select! {
            reached = upstream.look_after(!is_right) => reached,
            () = drain.started() => return,
        };
        memory.keep(&route, &upstream).await;
        if std::mem::take(&mut is_first) {
            upstream.log_first_look();
        }
        if !is_right && let Some(mode) = upstream.server_mode() {
            is_right = true;
            if mode == "sentinel" {
                warn!(
                    route,
                    "upstream is a sentinel, which holds no data: set topology = \"sentinel\" and sentinel.master_name"
                );
            }
        }
        metrics.reachable(reached);
        // Sentinels alone serve no client.
        if reached && leads_to != LeadsTo::Sentinels {
            serving.reached(&route);
        }
    }
}

/// Logs certificates that must be renewed, each when it is first seen and then once a day.
pub(super) async fn watch_certificates(shared: AdminContext, drain: Drain) {
    let mut ticks = interval(LOOK_AFTER);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut logged: HashMap<Arc<str>, (String, Instant)> = HashMap::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = drain.started() => return,
        }
        for (route, certificate) in shared.expiring_certificates() {
            let is_known = |(text, at): &(String, Instant)| *text == certificate && at.elapsed() < LOG_AGAIN;
            if !logged.get(&route).is_some_and(is_known) {
                warn!(route = &*route, warning = certificate, "certificate must be renewed");
                logged.insert(route, (certificate, Instant::now()));
            }
        }
    }
}

/// Asks a route's servers for their clients in plaintext.
pub(super) async fn observe(
    route: String,
    observer: Arc<Observer>,
    upstreams: Upstreams,
    metrics: Arc<RouteMetrics>,
    drain: Drain,
) {
    let work = async {
        // The questions are sent over TLS.
        while !upstreams.may_be_asked_over_tls() {
            sleep(LOOK_FOR_LATCH).await;
        }
        observer.run(&route, &metrics, || upstreams.survey_start(), || upstreams.dialled()).await;
    };
    tokio::select! {
        () = work => {}
        () = drain.started() => {}
    }
}

/// Writes the state file: the inventory, and what the observer of each route knows.
pub(super) struct StateWriter {
    pub(super) inventory: Arc<Inventory>,
    pub(super) observers: watch::Sender<Vec<(String, Arc<Observer>)>>,
    pub(super) state: Option<Arc<StateFile>>,
}

impl StateWriter {
    /// Writes the state file, if there is one. `is_last`: the process ends.
    pub(super) fn write(&self, is_last: bool) {
        let Some(state) = &self.state else { return };
        let observers = self.observers.borrow().clone();
        let servers = observers.into_iter().map(|(route, observer)| (route, observer.memory())).collect();
        if let Err(error) = state.keep(self.inventory.history(), servers, is_last) {
            warn!(%error, "state file cannot be written, a restart will lose the newest inventory and evidence");
        }
    }
}

/// Looks up the processes of new clients.
pub(super) async fn look_up_processes(inventory: Arc<Inventory>, drain: Drain) {
    let work = async {
        loop {
            inventory.entered().await;
            let mut due = Some(Instant::now() + LOOK_UP);
            while let Some(at) = due {
                sleep_until(at).await;
                let inventory = Arc::clone(&inventory);
                // Reading /proc takes time and must not block an event loop.
                due = spawn_blocking(move || inventory.look_up()).await.ok().flatten().map(Instant::from_std);
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = drain.started() => {}
    }
}

/// Writes the state file from time to time, and soon after a client in plaintext was seen: it must not be forgotten after a crash.
pub(super) async fn write_state(state_writer: Arc<StateWriter>, drain: Drain) {
    let mut observers = state_writer.observers.subscribe();
    let mut written = Instant::now();
    loop {
        let pause = if observers.borrow_and_update().is_empty() { WRITE } else { LOOK_AT_OBSERVERS };
        tokio::select! {
            () = sleep(pause) => {}
            _ = observers.changed() => {}
            () = drain.started() => return,
        }
        let is_urgent = observers.borrow().iter().any(|(_, observer)| observer.has_ended_quiet());
        if is_urgent || written.elapsed() >= WRITE {
            let state_writer = Arc::clone(&state_writer);
            let _ = spawn_blocking(move || state_writer.write(false)).await;
            written = Instant::now();
        }
    }
}

/// Reloads changed certificates. If they cannot be used, the present ones stay in use.
pub(super) async fn reload_tls(
    route: String,
    tls: Vec<Arc<Tls>>,
    upstreams: Upstreams,
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
        for tls in &tls {
            match tls.reload_if_changed() {
                Reload::Unchanged => {}
                Reload::Reloaded => {
                    failing = false;
                    upstreams.retire_all();
                    metrics.tls_reload("ok");
                    info!(route, tls = tls.describe(), "certificates reloaded");
                }
                Reload::Failed(error) => {
                    metrics.tls_reload("failed");
                    if !failing {
                        warn!(route, %error, "certificates not reloaded, the previous ones stay in use");
                    }
                    failing = true;
                }
            }
        }
    }
}

/// Looks for new secrets. Connections that used an old one serve no further client.
pub(super) async fn renew_credentials(
    route: String,
    upstreams: Upstreams,
    metrics: Arc<RouteMetrics>,
    drain: Drain,
) {
    let renewal = Renewal { route, upstreams, metrics, failing: AtomicUsize::new(0) };
    let all = renewal.upstreams.credentials().map(|(to, credentials)| renewal.renew(to, credentials));
    tokio::select! {
        _ = join_all(all) => {}
        () = drain.started() => {}
    }
}

/// The renewal of all credentials of a route.
struct Renewal {
    route: String,
    upstreams: Upstreams,
    metrics: Arc<RouteMetrics>,
    /// Number of credentials that could not be read at the last attempt.
    failing: AtomicUsize,
}

impl Renewal {
    /// Renews credentials without end. `presented_to`: a part of a Sentinel group, for the log.
    async fn renew(&self, presented_to: Option<&str>, credentials: &Arc<Credentials>) {
        let Self { route, upstreams, metrics, failing: all_failing } = self;
        let mut changes = credentials.changes();
        let mut ticks = interval(LOOK_AT_CREDENTIALS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            let look = tokio::select! {
                look = async {
                    tokio::select! {
                        _ = ticks.tick() => {}
                        () = credentials.renewal_due() => {}
                    }
                    credentials.look().await
                } => look,
                Ok(()) = changes.changed() => {
                    upstreams.retire_users_of(credentials);
                    metrics.credentials_reload("ok");
                    let user = credentials.user();
                    info!(route, user, presented_to, "credentials changed, new connections use the new ones");
                    continue;
                }
            };
            match look {
                SecretRefresh::Good if std::mem::take(&mut failing) => {
                    all_failing.fetch_sub(1, Ordering::Relaxed);
                    info!(route, presented_to, "credentials available again");
                }
                SecretRefresh::Good => {}
                SecretRefresh::Failed(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        all_failing.fetch_add(1, Ordering::Relaxed);
                        metrics.credentials_reload("failed");
                        warn!(
                            route,
                            presented_to,
                            %error,
                            "credentials not available, the last good ones, if any, stay in use"
                        );
                    }
                }
            }
            metrics.credentials_read(all_failing.load(Ordering::Relaxed) == 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::clients::Peer;

    #[tokio::test(start_paused = true)]
    async fn a_clients_process_is_looked_up_without_a_request() {
        let (inventory, drain) = (Inventory::new(), Drain::new());
        let keeping = look_up_processes(Arc::clone(&inventory), drain.clone());
        tokio::pin!(keeping);
        let mut pass = async || {
            tokio::select! {
                () = &mut keeping => panic!("the task must go on"),
                () = sleep(Duration::from_secs(1)) => {}
            }
        };
        pass().await;
        let enter = |pid| inventory.enter(&"route".into(), Peer::Unix { pid: Some(pid), uid: None });
        let entry = enter(std::process::id());
        let known = |n: usize| {
            let clients = inventory.history().clients;
            clients.len() == n && clients.iter().all(|client| client.process.is_some())
        };
        assert!(!known(1));
        while !known(1) {
            pass().await;
        }
        // The look-up that came a moment before delays this one, and no further client is needed.
        let other = enter(1);
        while !known(2) {
            pass().await;
        }
        drop((entry, other));
        drain.start();
        keeping.await;
    }
}
