//! The application with everything bound, and its run to the end.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::ending::{self, ABANDON, Ending, Settings, Shutdown};
use super::error::StartError;
use super::memory::LatchMemory;
use super::reload::{ConfigSource, Reloaded, Routes};
use super::route::Prepared;
use super::running::Running;
use super::tasks::{StateWriter, look_up_processes, watch_certificates, write_state};
use super::{last_client, service};
use crate::admin::{self, Admin, AdminCommand, MetricsServer, Serving};
use crate::clients::Inventory;
use crate::config::Config;
use crate::drain::Drain;
use crate::endpoint::ListenAddr;
use crate::listener::{DescriptorBudget, Inherited};
use crate::metrics::{self, PrometheusHandle};
use crate::notify;
use crate::state::StateFile;
use crate::workers::Workers;

/// Everything is bound, and nothing runs.
pub struct App {
    routes: Vec<Prepared>,
    /// The configuration without its routes.
    config: Config,
    inherited: Arc<Inherited>,
    admin: Option<Admin>,
    metrics_server: Option<MetricsServer>,
    metrics: PrometheusHandle,
    workers: Workers,
    commands: mpsc::Sender<AdminCommand>,
    commanded: mpsc::Receiver<AdminCommand>,
}

impl App {
    /// Loads files and binds addresses. On failure nothing stays bound, and every problem is reported. Must be called within a tokio
    /// runtime.
    pub fn bind(
        mut config: Config,
        inherited: Inherited,
        metrics: PrometheusHandle,
    ) -> Result<Self, Vec<StartError>> {
        let wanted: Vec<_> = config.routes.iter().flat_map(|route| &route.listener.listen).collect();
        let mut problems: Vec<StartError> =
            inherited.unwanted(&wanted).into_iter().map(StartError::from).collect();
        if let Some(path) = config.state_file.clone().filter(|_| config.needs_state_file())
            && let Err(source) = StateFile::could_write(&path)
        {
            problems.push(StartError::StateFile { path, source });
        }
        let mut routes = Vec::new();
        for route in std::mem::take(&mut config.routes) {
            match Prepared::new(route, None, &[], &inherited) {
                Ok(prepared) => routes.push(prepared),
                Err(more) => problems.extend(more),
            }
        }
        let admin = match config.admin.as_ref().map(Admin::bind).transpose() {
            Ok(admin) => admin,
            Err(error) => {
                problems.push(StartError::Admin(error));
                None
            }
        };
        let metrics_server = match config.metrics.as_ref().map(MetricsServer::bind).transpose() {
            Ok(server) => server,
            Err(error) => {
                problems.push(StartError::Metrics(error));
                None
            }
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let workers = Workers::start(config.workers).map_err(|error| vec![error.into()])?;
        let (commands, commanded) = mpsc::channel(admin::WAITING);
        let inherited = Arc::new(inherited);
        Ok(Self { routes, config, inherited, admin, metrics_server, metrics, workers, commands, commanded })
    }

    /// The route and the actual address of each listener.
    pub fn listeners(&self) -> Vec<(String, ListenAddr)> {
        let addresses = |route: &Prepared| {
            let name = route.name().to_owned();
            route.addresses().cloned().map(|address| (name.clone(), address)).collect::<Vec<_>>()
        };
        self.routes.iter().flat_map(addresses).collect()
    }

    /// Sends commands to the running application.
    pub fn commands(&self) -> mpsc::Sender<AdminCommand> {
        self.commands.clone()
    }

    /// Runs until `shutdown` is requested and everything has ended. `source`: provides the configuration at a reload.
    pub async fn run(self, shutdown: &Shutdown, source: ConfigSource) {
        let drain = &Drain::new();
        let Self {
            routes,
            config,
            inherited,
            admin,
            metrics_server,
            metrics,
            workers,
            commands,
            mut commanded,
        } = self;
        let memory = LatchMemory::new(config.state_file.as_deref().map(StateFile::open).transpose());
        let inventory = Inventory::new();
        if let Some(history) = memory.state.as_ref().and_then(|state| state.inventory()) {
            inventory.restore(history);
        }
        let admin_stop = CancellationToken::new();
        let running = Running {
            workers: Arc::new(workers),
            listening: TaskTracker::new(),
            tasks: TaskTracker::new(),
            inventory: Arc::clone(&inventory),
            serving: Arc::new(Serving::default()),
            memory: memory.clone(),
            inherited,
            descriptors: DescriptorBudget::default(),
            drain: drain.clone(),
        };
        let shared = admin::AdminContext {
            serving: Arc::clone(&running.serving),
            metrics,
            inventory: Arc::clone(&inventory),
            shown: Arc::default(),
            commands,
        };
        let state = memory.state;
        let state_writer = Arc::new(StateWriter {
            inventory: Arc::clone(&inventory),
            observers: watch::Sender::default(),
            state,
        });
        let mut routes =
            Routes::start(routes, config, running.clone(), shared.clone(), Arc::clone(&state_writer));
        let told = shared.clone();
        let metrics_at = metrics_server.as_ref().map(|server| server.address().to_string());
        if let Some(server) = metrics_server {
            info!(address = %server.address(), "metrics listening");
            running.tasks.spawn(server.run(shared.clone(), admin_stop.clone()));
        }
        if let Some(admin) = admin {
            info!(address = %admin.address(), "admin listening");
            running.tasks.spawn(admin.run(shared, metrics_at, admin_stop.clone()));
        }
        running.tasks.spawn(look_up_processes(Arc::clone(&inventory), drain.clone()));
        if state_writer.state.is_some() {
            running.tasks.spawn(write_state(Arc::clone(&state_writer), drain.clone()));
        }
        running.tasks.spawn(watch_certificates(told.clone(), drain.clone()));
        info!(version = env!("CARGO_PKG_VERSION"), "started");
        running.tell_service_manager(told, &admin_stop);

        if let Some(limit) = routes.config().exit_with_clients {
            let inventory = Arc::clone(&inventory);
            running.tasks.spawn(last_client::watch(limit, inventory, shutdown.clone(), drain.clone()));
        }

        let mut ending = Ending::new(shutdown, &running.serving, drain);
        loop {
            let command = tokio::select! {
                () = ending.asked() => break,
                Some(command) = commanded.recv() => command,
            };
            match command {
                AdminCommand::Reload(reply) => {
                    let _ = reply.send(reload(&mut routes, &source));
                }
                AdminCommand::Drain => shutdown.drain(),
                AdminCommand::Quit => shutdown.quit(),
            }
        }
        let settings = Settings::of(routes.config(), routes.hand_over());
        running.tasks.spawn(ending::obey(commanded, shutdown.clone(), admin_stop.clone()));
        running.tasks.spawn(service::tell_end(shutdown.clone(), settings.at_most(), admin_stop.clone()));
        ending.begin(settings).await;
        // The routes hold listeners.
        drop(routes);
        let Running { workers, listening, tasks, .. } = running;
        listening.close();
        listening.wait().await;
        ending.drain(settings, workers.idle(), || inventory.active()).await;
        let _ = tokio::time::timeout(ABANDON, workers.idle()).await;
        ending.stay().await;
        admin_stop.cancel();
        tasks.close();
        let _ = tokio::time::timeout(ABANDON, tasks.wait()).await;
        state_writer.write(true);
        if let Some(workers) = Arc::into_inner(workers) {
            workers.join();
        }
        info!("stopped");
    }
}

/// Reloads the configuration, and reports the result in the log, in a metric and to systemd.
fn reload(routes: &mut Routes, source: &ConfigSource) -> Result<String, String> {
    notify::reloading();
    let result = routes.reload(source);
    notify::ready();
    metrics::config_reloaded(result.is_ok());
    match &result {
        Ok(Reloaded { changes, .. }) => info!(%changes, "configuration reloaded"),
        Err(problems) => warn!(error = %problems, "configuration not reloaded, the present one stays in use"),
    }
    result.map(|Reloaded { changes, warnings }| {
        std::iter::once(changes).chain(warnings).collect::<Vec<_>>().join("; ")
    })
}
