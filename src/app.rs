//! The parts meet: everything is bound before anything runs, and everything ends in order.
//!
//! The end, step by step:
//!
//! 1. It is asked for: by SIGTERM or SIGINT, or `POST /quit`; by `POST /drain`, which stops before step 8; where
//!    `runtime.exit_with_clients` is set, by the last client that left so long ago.
//! 2. Readiness turns off: `/readyz` says `draining` from here on. Liveness stays. systemd is told, if it wants
//!    to be; after `POST /drain` alone, once the exit is asked for, too. Nothing is reloaded any more.
//! 3. For `runtime.shutdown_delay` (none by default; with `handover` at least 200 ms) all else goes on, and new clients are
//!    served; where a successor shares the port, by it.
//! 4. Listeners close, once nobody waits in them, and the files of Unix sockets go, but those that systemd or a successor put there.
//! 5. Sessions with nothing pending end at once, others once what had arrived is answered. Connections that are ready for
//!    clients are closed, and nothing is looked after any more.
//! 6. After `runtime.drain_timeout` the rest are cut, and counted in the log.
//! 7. After `POST /drain` alone, pontoon waits here, and answers on its admin address, until SIGTERM, SIGINT or `POST /quit`.
//! 8. The admin server closes, the state file is written, event loops end.
//! 9. The exit status is 0, even where sessions were cut: the end was asked for, and `drain_timeout` says when it is to come.
//!    A status that says otherwise would make a failed unit, or a failed job, of a subscriber that stayed to the end. What
//!    was cut is a warning in the log.
//!
//! The first signal begins this, or goes along with what `POST` began; each further one skips the wait that is on, in
//! step 3 or 5.

mod cluster;
mod descriptors;
mod ending;
mod last_client;
mod memory;
mod reload;
mod route;
mod running;
mod server;
mod service;
mod tasks;

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use self::descriptors::{TooFew, raise_limit};
pub use self::ending::Orders;
use self::ending::{ABANDON, Ending, Settings};
use self::memory::Memory;
use self::reload::Routes;
pub use self::reload::Source;
use self::route::Prepared;
use self::running::Running;
use self::tasks::{Books, keep_books};
use crate::admin::{self, Admin, Command, Readiness};
use crate::clients::Inventory;
use crate::config::Config;
use crate::drain::Drain;
use crate::endpoint::ListenAddr;
use crate::listener::{BindError, InheritError, Inherited};
use crate::metrics::{self, PrometheusHandle};
use crate::notify;
use crate::tls::TlsError;
use crate::workers::Workers;

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
    /// An address cannot be had beside one that this process listens on.
    #[error(
        "route \"{route}\": cannot listen on {address} while this process itself listens on {own}: restart it to change from \
         one to the other"
    )]
    OwnAddress {
        /// Whose listener.
        route: String,
        /// What is wanted.
        address: ListenAddr,
        /// What there is.
        own: ListenAddr,
    },
    /// What systemd passed on is no use.
    #[error(transparent)]
    Inherited(#[from] InheritError),
    /// A route's TLS files could not be used.
    #[error("route \"{route}\": {source}")]
    Tls {
        /// Whose.
        route: String,
        /// Why.
        source: TlsError,
    },
    /// The admin server's address could not be bound.
    #[error("admin server: {0}; or choose another with --admin, or \"off\"")]
    Admin(BindError),
    /// The system gave no threads.
    #[error("cannot start the event-loop threads: {0}")]
    Workers(#[from] io::Error),
}

impl StartError {
    /// Whether it is the machine's, and may pass by itself; else something must be configured otherwise.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Bind { source, .. } | Self::Admin(source) => source.may_pass(),
            Self::Workers(_) => true,
            Self::Inherited(_) | Self::OwnAddress { .. } | Self::Tls { .. } => false,
        }
    }
}

/// Everything bound, nothing running.
pub struct App {
    routes: Vec<Prepared>,
    /// Without its routes.
    config: Config,
    inherited: Arc<Inherited>,
    admin: Option<Admin>,
    metrics: PrometheusHandle,
    workers: Workers,
    commands: mpsc::Sender<Command>,
    commanded: mpsc::Receiver<Command>,
}

impl App {
    /// Loads what must be loaded and binds what must be bound. On failure nothing stays bound, and every problem
    /// is reported. Needs a tokio runtime around it.
    pub fn bind(
        mut config: Config,
        inherited: Inherited,
        metrics: PrometheusHandle,
    ) -> Result<Self, Vec<StartError>> {
        let wanted: Vec<_> = config.routes.iter().flat_map(|route| &route.listener.listen).collect();
        let mut problems: Vec<StartError> =
            inherited.unwanted(&wanted).into_iter().map(StartError::from).collect();
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
        if !problems.is_empty() {
            return Err(problems);
        }
        let workers = Workers::start(config.workers).map_err(|error| vec![error.into()])?;
        let (commands, commanded) = mpsc::channel(admin::WAITING);
        let inherited = Arc::new(inherited);
        Ok(Self { routes, config, inherited, admin, metrics, workers, commands, commanded })
    }

    /// Every listener's route and real address.
    pub fn listeners(&self) -> Vec<(String, ListenAddr)> {
        let addresses = |route: &Prepared| {
            let name = route.name().to_owned();
            route.addresses().cloned().map(|address| (name.clone(), address)).collect::<Vec<_>>()
        };
        self.routes.iter().flat_map(addresses).collect()
    }

    /// What it obeys while it runs.
    pub fn commands(&self) -> mpsc::Sender<Command> {
        self.commands.clone()
    }

    /// Runs until `orders` say otherwise and everything has ended. `source`: where another configuration comes from.
    pub async fn run(self, orders: &Orders, source: Source) {
        let drain = &Drain::new();
        let Self { routes, config, inherited, admin, metrics, workers, commands, mut commanded } = self;
        let memory = Memory::open(config.state_file.as_deref());
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
            readiness: Arc::new(Readiness::default()),
            memory: memory.clone(),
            inherited,
            drain: drain.clone(),
        };
        let shared = admin::Shared {
            readiness: Arc::clone(&running.readiness),
            metrics,
            inventory: Arc::clone(&inventory),
            shown: Arc::default(),
            commands,
        };
        let state = memory.state;
        let books =
            Arc::new(Books { inventory: Arc::clone(&inventory), observers: ArcSwap::default(), state });
        let mut routes = Routes::start(routes, config, running.clone(), shared.clone(), Arc::clone(&books));
        if let Some(admin) = admin {
            info!(address = %admin.address(), "admin listening");
            running.tasks.spawn(admin.run(shared, admin_stop.clone()));
        }
        running.tasks.spawn(keep_books(Arc::clone(&books), drain.clone()));
        info!(version = env!("CARGO_PKG_VERSION"), "started");
        running.tell_service_manager(&admin_stop);

        if let Some(limit) = routes.config().exit_with_clients {
            let inventory = Arc::clone(&inventory);
            running.tasks.spawn(last_client::watch(limit, inventory, orders.clone(), drain.clone()));
        }

        let mut ending = Ending::new(orders, &running.readiness, drain);
        loop {
            let command = tokio::select! {
                () = ending.asked() => break,
                Some(command) = commanded.recv() => command,
            };
            match command {
                Command::Reload(reply) => {
                    let _ = reply.send(reload(&mut routes, &source));
                }
                Command::Drain => orders.drain(),
                Command::Quit => orders.quit(),
            }
        }
        let settings = Settings::of(routes.config(), routes.hand_over());
        running.tasks.spawn(ending::obey(commanded, orders.clone(), admin_stop.clone()));
        running.tasks.spawn(service::tell_end(orders.clone(), settings.at_most(), admin_stop.clone()));
        ending.begin(settings).await;
        // It holds listeners.
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
        books.write();
        if let Some(workers) = Arc::into_inner(workers) {
            workers.join();
        }
        info!("stopped");
    }
}

/// Tells how it went in the log and in a metric, too.
fn reload(routes: &mut Routes, source: &Source) -> Result<String, String> {
    notify::reloading();
    let result = routes.reload(source);
    notify::ready();
    metrics::config_reloaded(result.is_ok());
    match &result {
        Ok(changes) => info!("configuration reloaded: {changes}"),
        Err(problems) => warn!("configuration not reloaded, everything stays as it was: {problems}"),
    }
    result
}
