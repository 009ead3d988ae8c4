//! `pontoon run`: the sidecar.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::admin::AdminCommand;
use crate::app::{App, ConfigSource, Shutdown, StartError, raise_limit};
use crate::config::Config;
use crate::listener::Inherited;
use crate::{metrics, telemetry};

/// Why `run` did not start.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct NotStarted(pub(super) Vec<StartError>);

impl NotStarted {
    /// Whether all of it may pass by itself; else it is a config error.
    pub fn may_pass(&self) -> bool {
        self.0.iter().all(StartError::may_pass)
    }
}

/// Blocking threads of the main runtime: for names to look up, processes to find, files to write. A name server that hangs
/// does not become a crowd of threads.
const MAX_BLOCKING_THREADS: usize = 64;

/// Runs until SIGTERM or SIGINT, and until everything has ended. `source` gives another configuration at SIGHUP.
pub fn run(config: Config, source: ConfigSource) -> anyhow::Result<()> {
    let inherited = Inherited::take().map_err(|error| NotStarted(vec![error.into()]))?;
    telemetry::init(&config.log)?;
    if let Err(too_few) = raise_limit(&config) {
        warn!("{too_few}");
    }
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let metrics = metrics::install().context("cannot set up metrics")?;
    // Accepting, signals and the admin server; sessions have the workers.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()?;
    runtime.block_on(async {
        let app = App::bind(config, inherited, metrics).map_err(NotStarted)?;
        let shutdown = Shutdown::new();
        // Installed before the start is announced: a signal that follows the announcement is obeyed.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let commands = app.commands();
        let reloads = async {
            while hang_up.recv().await.is_some() {
                info!(signal = "SIGHUP", "signal received");
                if commands.send(AdminCommand::Reload(oneshot::channel().0)).await.is_err() {
                    info!("shutting down, reload ignored");
                }
            }
        };
        let signals = async {
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                shutdown.signal(name);
            }
        };
        tokio::select! {
            () = app.run(&shutdown, source) => Ok(()),
            () = signals => Ok(()),
            () = reloads => Ok(()),
        }
    })
}
