//! What all running parts share, and how they start an upstream's tasks and a listener.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use super::memory::LatchMemory;
use super::service;
use super::tasks::{LeadsTo, find_tls, look_after};
use crate::admin::{AdminContext, Serving};
use crate::clients::Inventory;
use crate::drain::Drain;
use crate::listener::{Admission, Clients, DescriptorBudget, Inherited, Listener};
use crate::metrics::RouteMetrics;
use crate::upstream::Upstream;
use crate::workers::Workers;
use crate::{notify, session};

/// What all running parts share. Cheap to clone.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) workers: Arc<Workers>,
    pub(super) listening: TaskTracker,
    pub(super) tasks: TaskTracker,
    pub(super) inventory: Arc<Inventory>,
    pub(super) serving: Arc<Serving>,
    pub(super) memory: LatchMemory,
    pub(super) inherited: Arc<Inherited>,
    pub(super) descriptors: DescriptorBudget,
    pub(super) drain: Drain,
}

impl Running {
    /// Notifies systemd, or another service manager, that pontoon is ready, and starts the status and watchdog tasks.
    pub(super) fn tell_service_manager(&self, shared: AdminContext, stop: &CancellationToken) {
        notify::ready();
        if notify::is_wanted() {
            self.tasks.spawn(service::tell_status(shared, stop.clone()));
        }
        if let Some(limit) = notify::watchdog() {
            let loops = self.workers.event_loops().cloned().collect();
            self.tasks.spawn(service::watch(limit, loops, stop.clone()));
        }
    }

    /// Runs the tasks of an upstream until `leaving` starts.
    pub(super) fn look_after(
        &self,
        route: &str,
        upstream: &Arc<Upstream>,
        leads_to: LeadsTo,
        metrics: &Arc<RouteMetrics>,
        leaving: &Drain,
    ) {
        self.tasks.spawn(look_after(
            route.to_owned(),
            Arc::clone(upstream),
            leads_to,
            Arc::clone(metrics),
            Arc::clone(&self.serving),
            self.memory.clone(),
            leaving.clone(),
        ));
        let memory = self.memory.clone();
        self.tasks.spawn(find_tls(route.to_owned(), Arc::clone(upstream), memory, leaving.clone()));
        let (upstream, leaving) = (Arc::clone(upstream), leaving.clone());
        self.tasks.spawn(async move { upstream.tend(&leaving).await });
    }

    /// Accepts a listener's clients and serves them until `leaving` starts. Each thread accepts, so that its sessions do not move to another thread.
    pub(super) fn accept(
        &self,
        route: &str,
        listener: &Listener,
        clients: &Clients,
        context: &(impl Fn() -> Arc<session::RouteContext> + Clone + Send + Sync + 'static),
        leaving: &Drain,
    ) {
        // Clients that share connections are gathered on the first thread.
        let threads = if context().multiplexer.is_some() { 1 } else { usize::MAX };
        for event_loop in self.workers.event_loops().take(threads) {
            match listener.try_clone() {
                Ok(listener) => {
                    let workers = Arc::clone(&self.workers);
                    let (clients, context, leaving) = (clients.clone(), context.clone(), leaving.clone());
                    self.listening.spawn_on(accept(listener, clients, context, leaving, workers), event_loop);
                }
                Err(error) => error!(route, %error, "a thread has no listener, other threads accept for it"),
            }
        }
    }
}

async fn accept(
    listener: Listener,
    clients: Clients,
    context: impl Fn() -> Arc<session::RouteContext> + Sync,
    leaving: Drain,
    workers: Arc<Workers>,
) {
    let hand_on = |client, admission| match admission {
        Admission::Welcome(place) => {
            let context = context();
            if context.multiplexer.is_some() {
                workers.gather(session::serve(client, context, place));
            } else {
                workers.spawn(session::serve(client, context, place));
            }
        }
        Admission::Refused(refusal, words) => workers.spawn(async move {
            let _refusal = refusal;
            session::refuse(client, &words).await;
        }),
    };
    let now = context();
    let (route, metrics) = (&*now.route, &now.metrics);
    if let Err(error) = listener.run(route, &clients, &leaving, metrics, hand_on).await {
        error!(route, %error, "listener failed, no further clients are accepted");
    }
}
